//! The terminal is as it was after the VM, also if something panics.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::os::fd::{AsFd, OwnedFd};

use gasp_vm::RawTerminal;
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

/// The two ends of a terminal; the second is the one that programs use.
fn terminal() -> (OwnedFd, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (master, slave)
}

fn is_raw(fd: impl AsFd) -> bool {
    !tcgetattr(fd).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
}

#[test]
fn a_terminal_is_raw_until_it_is_dropped_or_something_panics() {
    assert!(RawTerminal::enter(std::fs::File::open("/dev/null").unwrap()).unwrap().is_none());
    let (_master, slave) = terminal();
    let raw = RawTerminal::enter(&slave).unwrap().unwrap();
    assert!(is_raw(&slave));
    assert!(RawTerminal::enter(&slave).unwrap().is_none(), "one at a time");
    drop(raw);
    assert!(!is_raw(&slave));

    let raw = RawTerminal::enter(&slave).unwrap().unwrap();
    let panicked = std::thread::spawn(|| panic!("on purpose")).join();
    assert!(panicked.is_err() && !is_raw(&slave), "before anybody drops it");
    drop(raw);

    let raw = RawTerminal::enter(&slave).unwrap().unwrap();
    assert!(is_raw(&slave));
    RawTerminal::restore();
    assert!(!is_raw(&slave));
    drop(raw);
}
