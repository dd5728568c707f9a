//! A network device at a tap interface. Needs the right to create one, and is skipped visibly
//! without it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;

use gasp_virtio::net::{Net, Port};
use libtest_mimic::{Arguments, Failed, Trial};

#[path = "virtio/driver.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod driver;

use driver::{DATA, Driver};

fn main() {
    let name = |index: u32| format!("gasp{}{index}", std::process::id() % 100_000);
    let lasts = match Port::tap(&name(0)) {
        Ok(port) => Ok(port),
        Err(why) => Err(why.to_string()),
    };
    let passes = Port::tap(&name(1)).map_err(|why| why.to_string()).and_then(|port| {
        let mut ip = Command::new("ip");
        ip.args(["link", "set", &name(1), "up"]);
        let done = ip.status().map_err(|why| format!("ip: {why}"))?;
        if done.success() { Ok(port) } else { Err(format!("ip link set up: {done}")) }
    });
    let trials = vec![
        trial(
            "a_tap_interface_lasts_as_long_as_its_port_and_loses_frames_while_it_is_down",
            lasts,
            move |port| works(&name(0), port),
        ),
        trial("frames_pass_through_a_tap_interface_that_is_up", passes, move |port| {
            carries(&name(1), port)
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit()
}

fn trial(
    name: &str,
    port: Result<Port, String>,
    body: impl FnOnce(Port) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    match port {
        Ok(port) => Trial::test(name, move || body(port)),
        Err(why) => {
            Trial::test(format!("{name} [skipped: {why}]"), || Ok(())).with_ignored_flag(true)
        }
    }
}

/// The host announces itself at an interface that comes up, and counts what arrives there.
fn carries(name: &str, port: Port) -> Result<(), Failed> {
    let mut driver = Driver::attach(Net::new(port, [2, 0, 0, 0, 0, 1]));
    driver.start(1 << 5, 16);
    // A neighbour asks who has 10.9.8.7 (ARP): a broadcast, from an address of its own.
    let mut frame = vec![0; 12];
    frame.extend([0xff; 6]);
    frame.extend([2, 0, 0, 0, 0, 1, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.resize(12 + 60, 0);
    driver.bus.store(DATA, &frame)?;
    let counted = || {
        let counter = format!("/sys/class/net/{name}/statistics/rx_packets");
        std::fs::read_to_string(counter).ok()?.trim().parse::<u64>().ok()
    };
    let before = counted();
    assert_eq!(driver.run(1, &[(DATA, frame.len() as u32, false)]), 0);
    assert_eq!(counted(), before.map(|count| count + 1));
    Ok(())
}

fn works(name: &str, port: Port) -> Result<(), Failed> {
    let interface = Path::new("/sys/class/net").join(name);
    let has_sysfs = Path::new("/sys/class/net").exists();
    assert!(interface.exists() || !has_sysfs);
    let again = Port::tap(name).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::ResourceBusy);
    let mut driver = Driver::attach(Net::new(port, [2, 0, 0, 0, 0, 1]));
    driver.start(1 << 5, 16);
    // Nobody has set the interface up.
    assert_eq!(driver.run(1, &[(DATA, 12 + 60, false)]), 0);
    driver.put(0, &[(DATA, 2000, true)]);
    driver.notify(0);
    assert_eq!(driver.run(1, &[(DATA, 12 + 60, false)]), 0);
    assert_eq!((driver.take(0), driver.status()), (None, 15));
    drop(driver);
    assert!(!interface.exists());
    Ok(())
}
