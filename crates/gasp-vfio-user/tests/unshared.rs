//! Memory that the guest does not seem to write to. The detection by QEMU's mappings is
//! tested with QEMU, in `linux.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gasp_vfio_user::{Options, ServerEvent};
use support::client::*;
use support::device::Holder;
use support::{serve, wait_for};

#[test]
fn memory_that_stays_empty_while_the_device_is_used_is_reported() {
    for written in [None, Some(0), Some((16 << 20) - 1), Some(16 << 20)] {
        let served = serve(Holder::default(), Options::default());
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&events);
        served.server.observe(move |event| told.lock().unwrap().push(event.clone()));
        let mut client = served.client();
        client.make_master();
        let ram = memfd(32 << 20);
        client.map(3, 0, 0, 32 << 20, &ram).unwrap();
        if let Some(at) = written {
            fill(&ram, at, &[1]);
        }
        let empty = ServerEvent::NotShared { len: 32 << 20, seen: false };
        client.write(0, 40, &[1]).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!events.lock().unwrap().contains(&empty), "too soon");
        let is_told = || events.lock().unwrap().contains(&empty);
        if matches!(written, None | Some(0x100_0000)) {
            wait_for("the report", is_told);
        } else {
            std::thread::sleep(Duration::from_millis(1000));
            assert!(!is_told(), "written at {written:?}");
        }
    }
}
