//! A folder with a kernel of a few instructions, and `gasp vm` as a child that runs it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

#[path = "../../../gasp-vm/tests/support/kernel.rs"]
pub(crate) mod kernel;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Sends a character to the serial port.
pub(crate) const fn say(letter: u8) -> [u8; 7] {
    [0x66, 0xba, 0xf8, 0x03, 0xb0, letter, 0xee] // mov dx, 0x3f8; mov al, letter; out dx, al
}
pub(crate) const POWER_OFF: [u8; 7] = [0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee]; // port 0x600: 0x34
pub(crate) const RESET: [u8; 7] = [0x66, 0xba, 0x02, 0x06, 0xb0, 0x01, 0xee]; // port 0x602: 1
pub(crate) const HALT: [u8; 3] = [0xf4, 0xeb, 0xfd]; // hlt; jmp to it
/// Leaves out the next 14 bytes if a counter in RAM is not 0, and counts.
pub(crate) const ONCE: [u8; 18] = [
    0x8b, 0x04, 0x25, 0, 0, 0x40, 0, // mov eax, [0x400000]
    0xff, 0x04, 0x25, 0, 0, 0x40, 0, // inc dword [0x400000]
    0x85, 0xc0, // test eax, eax
    0x75, 0x0e, // jnz +14
];

pub(crate) type Body = fn() -> Result<(), Failed>;

/// Runs tests, or says why they cannot be run here.
pub(crate) fn run(bodies: &[(&str, Body)]) {
    let why = OpenOptions::new().read(true).write(true).open("/dev/kvm").err();
    let trials = bodies.iter().map(|&(name, body)| match &why {
        None => Trial::test(name, body),
        Some(why) => Trial::test(format!("{name} [skipped: /dev/kvm: {why}]"), || Ok(()))
            .with_ignored_flag(true),
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

/// A folder with a kernel, a disk, and a place for events.
pub(crate) struct Fixture(pub(crate) TempDir);

impl Fixture {
    pub(crate) fn new(code: &[&[u8]]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kernel"), kernel::elf(&code.concat())).unwrap();
        File::create(folder.path().join("disk")).unwrap().set_len(1 << 20).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gasp"));
        command.arg("vm").args(args).current_dir(self.0.path()).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the kernel to its end, with these further arguments.
    pub(crate) fn run(&self, more: &[&str]) -> Output {
        let mut args = vec!["--kernel", "kernel", "--ram", "16M", "--json", "events"];
        args.extend(more);
        finish(self.command(&args).spawn().unwrap())
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("events")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for an event.
    pub(crate) fn wait_for(&self, event: &str) {
        wait_until(|| {
            let text = fs::read_to_string(self.path("events")).unwrap_or_default();
            text.contains(&format!("\"event\":\"{event}\""))
        });
    }
}

pub(crate) fn wait_until(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "it takes too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for the end, and kills what does not end.
pub(crate) fn finish(mut child: Child) -> Output {
    let until = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("it does not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
