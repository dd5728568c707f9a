//! Kernels of a few instructions, run by `gasp vm` on this machine's own KVM: how it ends, what it
//! reports, and that the terminal is as it was.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "support/flat.rs"]
mod flat;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use flat::*;
use libtest_mimic::Failed;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::Value;

/// An invalid instruction without a table of interrupts.
const TRIPLE_FAULT: [u8; 10] = [0x0f, 0x01, 0x1c, 0x25, 0, 1, 0x40, 0, 0x0f, 0x0b]; // lidt [0x400100]; ud2

fn main() {
    run(&[
        ("a_guest_speaks_and_powers_off", powers_off),
        ("a_reset_starts_anew_or_ends", resets),
        ("a_triple_fault_has_a_status_of_its_own", triple_fault),
        ("the_second_signal_ends_the_vm_at_once", signals),
        ("the_terminal_is_raw_until_ctrl_a_x", terminal),
        ("a_configuration_in_each_form_is_run", configured),
        ("counters_are_printed_on_demand", view),
        ("a_running_vm_answers_at_its_socket", answers),
    ]);
}

fn powers_off() -> Result<(), Failed> {
    let fixture = Fixture::new(&[&say(b'h'), &say(b'i'), &POWER_OFF, &HALT]);
    let _peer = UnixDatagram::bind(fixture.path("peer"))?;
    let mut args = vec!["--disk", "disk", "--disk", "virtio-blk:mem:1M", "--rng", "--cpus", "2"];
    args.extend(["--net", "unix:own:peer"]);
    let output = fixture.run(&args);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "hi".into()));
    assert_eq!(text(&output.stderr), "");
    let events = fixture.events();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["started", "totals", "ended"]);
    assert_eq!(events[0]["iommu"], true);
    let types: Vec<_> =
        events[0]["devices"].as_array().unwrap().iter().map(|device| &device["type"]).collect();
    assert_eq!(types, ["nvme", "virtio-blk", "virtio-net", "virtio-entropy"]);
    assert_eq!(events[0]["devices"][3]["at"], "00:04.0");
    assert!(!fixture.path("own").exists(), "the socket is removed");
    // Two letters and the power.
    assert_eq!(events[1]["exits"]["port"], 3);
    assert_eq!(events[2]["status"], 0);
    Ok(())
}

fn resets() -> Result<(), Failed> {
    let code: [&[u8]; 7] = [&ONCE, &say(b'1'), &RESET, &HALT, &say(b'2'), &POWER_OFF, &HALT];
    let mut bytes = code.concat();
    // The jump leaves out a letter, the reset and the halt.
    bytes[17] += HALT.len() as u8;
    let fixture = Fixture::new(&[&bytes]);
    let output = fixture.run(&["--disk", "disk", "--iommu", "vtd"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "12".into()));
    let events = fixture.events();
    let names = events.iter().map(|event| event["event"].as_str().unwrap());
    let names: Vec<_> = names.filter(|name| *name != "totals").collect();
    assert_eq!(names, ["started", "reset", "started", "ended"]);
    // Two letters, a reset and the power: of both machines.
    assert_eq!(events[events.len() - 2]["exits"]["port"], 4);

    let output = fixture.run(&["--reset", "end"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(3), "1".into()));
    assert_eq!(text(&output.stderr), "error: the guest has reset itself\n");
    assert_eq!(fixture.events()[0]["iommu"], false, "without a disk there is none");
    fixture.run(&["--reset", "end", "--disk", "disk", "--iommu", "off"]);
    assert_eq!(fixture.events()[0]["iommu"], false);
    Ok(())
}

fn triple_fault() -> Result<(), Failed> {
    let output = Fixture::new(&[&TRIPLE_FAULT, &HALT]).run(&[]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(text(&output.stderr), "error: vCPU 0: triple fault\n");
    Ok(())
}

fn signals() -> Result<(), Failed> {
    let fixture = Fixture::new(&[&say(b'a'), &HALT]);
    let args = ["--kernel", "kernel", "--ram", "16M", "--json", "events"];
    let child = fixture.command(&args).spawn()?;
    fixture.wait_for("totals");
    signal(&child, Signal::TERM);
    fixture.wait_for("power-button");
    signal(&child, Signal::INT);
    let output = finish(child);
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "error: the host has stopped the guest\n");
    Ok(())
}

/// The two ends of a terminal; the second is the one that programs use.
fn open_terminal() -> (OwnedFd, OwnedFd) {
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

fn terminal() -> Result<(), Failed> {
    let fixture = Fixture::new(&[&say(b'a'), &HALT]);
    for by_keys in [true, false] {
        let (master, slave) = open_terminal();
        let mut command = fixture.command(&["--kernel", "kernel", "--ram", "16M"]);
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?);
        let child = command.spawn()?;
        wait_until(|| is_raw(&slave));
        let mut letter = [0];
        File::from(master.try_clone()?).read_exact(&mut letter)?;
        assert_eq!(letter, *b"a");
        if by_keys {
            rustix::io::write(&master, b"\x01x")?;
        } else {
            signal(&child, Signal::HUP);
            std::thread::sleep(Duration::from_millis(500));
            signal(&child, Signal::QUIT);
        }
        assert_eq!(finish(child).status.code(), Some(130), "by keys: {by_keys}");
        assert!(!is_raw(&slave), "by keys: {by_keys}");
    }
    // It is restored after an error, too.
    let (_master, slave) = open_terminal();
    let mut command = fixture.command(&["--kernel", "disk", "--ram", "16M"]);
    let child = command.stdin(slave.try_clone()?).spawn()?;
    assert_eq!(finish(child).status.code(), Some(1));
    assert!(!is_raw(&slave));
    Ok(())
}

fn configured() -> Result<(), Failed> {
    let fixture = Fixture::new(&[&say(b'c'), &POWER_OFF, &HALT]);
    let write = |name: &str, text: &str| {
        let mut file = File::create(fixture.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    write(
        "guest.qvmconf",
        "system a\nram 16M\ncpu cpu\nload kernel\nvdev iommu\nvdev ser8250 loc 0x3f8 intr ioapic:4\n\
         vdev nvme hostdev disk name d loc pci:0:9\nvdev virtio-entropy loc pci:0:9.1\n",
    );
    write(
        "guest.toml",
        "[machine]\nkernel = \"kernel\"\ncpus = 2\n[[ram]]\nsize = \"16M\"\n\
         [[vdev]]\nname = \"d\"\ntype = \"virtio-blk\"\noptions = [\"hostdev disk\", \"readonly\"]\n",
    );
    let words = ["ram", "16M", "load", "kernel", "vdev", "nvme", "hostdev", "null:1M"];
    for args in [&["guest.qvmconf"][..], &["@guest.qvmconf"], &["guest.toml"], &words] {
        let args = [args, &["--json", "events"]].concat();
        let output = finish(fixture.command(&args).spawn()?);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!((output.status.code(), &*out, &*err), (Some(0), "c", ""), "{args:?}");
        let started = &fixture.events()[0];
        assert_eq!(started["iommu"], args[0].ends_with("qvmconf"), "{args:?}");
        assert_eq!(started["ram_bytes"], 16 << 20);
        if args[0].ends_with("qvmconf") {
            let at: Vec<_> =
                started["devices"].as_array().unwrap().iter().map(|device| &device["at"]).collect();
            assert_eq!(at, ["00:09.0", "00:09.1"]);
        }
    }
    let dry = ["@guest.qvmconf", "dryrun"];
    let output = finish(fixture.command(&dry).spawn()?);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), String::new()));
    Ok(())
}

fn view() -> Result<(), Failed> {
    let fixture = Fixture::new(&[&say(b'a'), &HALT]);
    let args = ["--kernel", "kernel", "--ram", "16M", "--json", "events", "--disk", "disk"];
    let child = fixture.command(&args).spawn()?;
    fixture.wait_for("totals");
    signal(&child, Signal::USR1);
    std::thread::sleep(Duration::from_secs(1));
    signal(&child, Signal::TERM);
    signal(&child, Signal::TERM);
    fixture.wait_for("power-button");
    signal(&child, Signal::TERM);
    let shown = text(&finish(child).stderr);
    assert!(!shown.contains('\r'), "stderr is no terminal");
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("exits") && lines[1].starts_with("  total "), "{shown}");
    assert!(lines.iter().any(|line| line.starts_with("  00:01.0 nvme0")), "{shown}");
    Ok(())
}

fn answers() -> Result<(), Failed> {
    let fixture = Fixture::new(&[&say(b'a'), &HALT]);
    let gasp = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gasp"));
        command.args(args).current_dir(fixture.0.path()).env_remove("RUST_LOG");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
        finish(command.spawn().unwrap())
    };
    let args = ["--kernel", "kernel", "--ram", "16M", "--disk", "disk", "--json", "events"];
    let args = [&args[..], &["--status", "vm.sock"]].concat();
    let nobody = gasp(&["status", "vm.sock"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("vm.sock: there is no such socket"));

    let child = fixture.command(&args).spawn()?;
    fixture.wait_for("totals");
    let mode = fs::metadata(fixture.path("vm.sock"))?;
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
    let second = ["--kernel", "kernel", "--ram", "16M", "--status", "vm.sock"];
    let second = finish(fixture.command(&second).spawn()?);
    assert_eq!(second.status.code(), Some(1));
    let message = text(&second.stderr);
    assert!(message.contains("another server listens on this socket"), "{message}");

    // Those who say nothing, or nonsense, are no obstacle for long.
    let silent = std::os::unix::net::UnixStream::connect(fixture.path("vm.sock"))?;
    let mut nonsense = std::os::unix::net::UnixStream::connect(fixture.path("vm.sock"))?;
    nonsense.write_all(&[b'x'; 100])?;
    let json = gasp(&["status", "vm.sock", "--json"]);
    let status: Value = serde_json::from_slice(&json.stdout)?;
    assert!(status["seconds"].as_f64().unwrap() > 0.0 && status["name"].is_string(), "{status}");
    assert!(status["exits"]["port"].as_u64() > Some(0), "{status}");
    assert_eq!(
        (&status["devices"][0]["at"], &status["devices"][0]["held"]),
        (&"00:01.0".into(), &0.into())
    );
    let shown = text(&gasp(&["status", "vm.sock"]).stdout);
    assert!(shown.lines().any(|line| line.starts_with("  00:01.0 nvme0")), "{shown}");
    let picture = gasp(&["layout", "--vm", "vm.sock", "--svg", "-"]);
    let drawn = text(&picture.stdout);
    assert!(
        drawn.starts_with("<svg") && drawn.contains("16 MiB") && drawn.contains("nvme0"),
        "{drawn:.200}"
    );
    drop((silent, nonsense));

    // It is watched until it ends.
    let mut watch = Command::new(env!("CARGO_BIN_EXE_gasp"));
    watch.args(["status", "vm.sock", "--every", "1"]).current_dir(fixture.0.path());
    let watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    std::thread::sleep(Duration::from_millis(1500));
    signal(&child, Signal::TERM);
    fixture.wait_for("power-button");
    signal(&child, Signal::TERM);
    finish(child);
    let watched = finish(watch);
    assert_eq!((watched.status.code(), text(&watched.stderr)), (Some(0), String::new()));
    assert!(text(&watched.stdout).matches("per second").count() >= 4, "two tables");
    assert!(!fixture.path("vm.sock").exists(), "the socket goes with the VM");

    // What a killed one has left is taken over.
    fs::remove_file(fixture.path("events"))?;
    let killed = fixture.command(&args).spawn()?;
    fixture.wait_for("totals");
    signal(&killed, Signal::KILL);
    finish(killed);
    assert!(fixture.path("vm.sock").exists());
    let child = fixture.command(&args).spawn()?;
    wait_until(|| gasp(&["status", "vm.sock"]).status.success());
    signal(&child, Signal::KILL);
    finish(child);
    Ok(())
}
