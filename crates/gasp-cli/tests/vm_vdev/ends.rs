//! How a vdev ends its guest, and what signals are to it.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use libtest_mimic::Failed;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::code::Code;
use crate::flat::{self, HALT, signal, wait_until};
use crate::{PROBE, compile, parts, run, with_probe};

const AT: u32 = 0xfa00_0000;

fn does(what: u32) -> Code {
    Code::new().say(b'a').store(AT + 8, what).say(b'z').raw(&HALT)
}

pub(crate) fn ends() -> Result<(), Failed> {
    for (what, option, status, why) in [
        (3, "", 33, "guest_terminate(33)"),
        (3, "cause 4", 4, "guest_terminate(4)"),
        (3, "cause 64", 7, "guest_terminate(7)"),
        (3, "cause 1", 0, ""),
        (4, "", 6, "VRS_TERMINATE"),
        (5, "", 96, "it cannot go on"),
    ] {
        let fixture = with_probe(does(what).bytes());
        let output = run(&fixture, &format!("vdev probe loc 0xfa000000 {option}"), &[]);
        let (found, said, log) = parts(&output);
        assert_eq!(found, Some(status), "{what} {option}: {log}");
        assert!(log.contains(why), "{what} {option}: {log}");
        assert_eq!(said, b"a", "it executes no further instruction");
        // One that is in the middle of a call cannot be ended.
        assert_eq!(log.contains("the end"), status != 96, "TERMINATE: {log}");
        let last = fixture.events().pop().unwrap();
        assert_eq!((&last["event"], &last["status"]), (&"ended".into(), &status.into()));
    }
    Ok(())
}

pub(crate) fn signals() -> Result<(), Failed> {
    let fixture = with_probe(does(1).bytes());
    compile(&fixture, PROBE, "func", &["-DFLAGS=VFF_VDEV_PCI"]);
    let start = |lines: &str| {
        let lines = format!("ram 16M\nload kernel\n{lines}\n");
        std::fs::write(fixture.path("a.qvmconf"), lines).unwrap();
        let _ = std::fs::remove_file(fixture.path("events"));
        let args = ["-v", "a.qvmconf", "--vdev-path", ".", "--json", "events"];
        let child = fixture.command(&args).spawn().unwrap();
        fixture.wait_for("totals");
        child
    };
    let child = start("vdev probe loc 0xfa000000 intr ioapic:5\nvdev func");
    signal(&child, Signal::USR2);
    fixture.wait_for("vdev-status");
    signal(&child, Signal::TERM);
    fixture.wait_for("power-button");
    signal(&child, Signal::TERM);
    let output = flat::finish(child);
    let (status, _, log) = parts(&output);
    assert_eq!(status, Some(130), "{log}");
    for part in ["vdev `probe`: raised 1 times\n", "vdev `func`: raised 0 times\n"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    // One end more: that of the function that is asked what it is.
    assert_eq!(
        (log.matches("the button").count(), log.matches("the end").count()),
        (2, 3),
        "{log}"
    );
    let events = fixture.events();
    let event = events.iter().find(|event| event["event"] == "vdev-status").unwrap();
    assert_eq!((&event["vdev"], &event["text"]), (&"probe".into(), &"raised 1 times".into()));

    for lines in ["vdev probe button\nvdev func", "vdev probe\nvdev func button"] {
        let child = start(lines);
        signal(&child, Signal::TERM);
        let output = flat::finish(child);
        let (status, _, log) = parts(&output);
        assert_eq!((status, log.matches("the button").count()), (Some(40), 1), "{log}");
    }
    Ok(())
}

pub(crate) fn terminal() -> Result<(), Failed> {
    let fixture = with_probe(
        // Waits until somebody has looked: reads port 0x3fd until there is input.
        Code::new()
            .say(b'a')
            .raw(&[0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 1, 0x74, 0xfb]) // mov dx; in; test al, 1; jz
            .raw(does(5).bytes())
            .bytes(),
    );
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = open(ptsname(&master, Vec::new())?, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
    let is_raw = || {
        !tcgetattr(&slave).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    };
    std::fs::write(fixture.path("a.qvmconf"), "ram 16M\nload kernel\nvdev probe loc 0xfa000000\n")?;
    let mut command = fixture.command(&["a.qvmconf", "--vdev-path", "."]);
    let child = command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).spawn()?;
    let mut letter = [0];
    File::from(master.try_clone()?).read_exact(&mut letter)?;
    wait_until(is_raw);
    std::thread::sleep(Duration::from_millis(50));
    rustix::io::write(&master, b"x")?;
    let output = flat::finish(child);
    assert_eq!(output.status.code(), Some(96), "{output:?}");
    assert!(!is_raw());
    Ok(())
}
