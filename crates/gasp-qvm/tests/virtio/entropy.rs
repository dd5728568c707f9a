//! The sample device: requests are filled by its thread.

use std::time::{Duration, Instant};

use crate::driver::{ACK, DATA, Driver, EVENT_IDX, Event, NOTIFY, STATUS, VERSION_1, WRITE};
use crate::support::Library;

const SOURCE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/vdev/vdev-virtio-entropy.c");

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_driver_gets_random_numbers() {
    for edition in [800, 710] {
        let library = Library::of_file(SOURCE, edition, "virtio-entropy");
        let mut driver = Driver::mmio(&library);
        assert_eq!(driver.get(8), 4);
        for round in 0..3_u16 {
            let event_idx = if round == 1 { EVENT_IDX } else { 0 };
            assert!(driver.negotiate(VERSION_1 | event_idx));
            driver.queue(0);
            driver.set(STATUS, 15);
            // Across the end of a memory object, and what it has nothing to write to.
            driver.chain(0, 0, &[(DATA, 300, WRITE), (0x28_0000 - 100, 200, WRITE)]);
            driver.chain(0, 4, &[(DATA + 0x1000, 64, 0)]);
            driver.set(NOTIFY, 0);
            until("both requests are used", || driver.used(0, 0).0 == 2);
            assert_eq!((driver.used(0, 0), driver.used(0, 1)), ((2, 0, 500), (2, 4, 0)));
            for at in [DATA, DATA + 200, 0x28_0000 - 100, 0x28_0000 + 20] {
                assert_ne!(driver.peek::<64>(at), [0; 64], "{at:#x}");
            }
            assert_eq!(driver.peek::<64>(DATA + 300), [0; 64], "not past the buffer");
            until("it interrupts", || driver.events().contains(&Event::Line(true)));
            driver.set(ACK, 3);
            driver.set(STATUS, 0);
            assert_eq!(driver.status(), 0, "it is reset at once");
            driver.restart();
            driver.poke(DATA, &[0; 512]);
            driver.poke(0x28_0000 - 100, &[0; 200]);
            driver.events();
        }
        assert_eq!(driver.vdev.held(), 0);
        assert!(driver.device.terminate().is_empty(), "its thread ends");
    }
}
