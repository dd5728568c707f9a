//! A disk in a file that extends past the process's file-size limit: writes past the limit fail,
//! and do not end the process.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "nvme/driver.rs"]
#[allow(dead_code, reason = "uses a part of it")]
mod driver;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use driver::{Command as Nvm, DATA, Rig};
use gasp_nvme::{Backing, Options};
use rustix::process::{Resource, Rlimit, setrlimit};

const WRITE: u8 = 1;
const READ: u8 = 2;
const ZEROES: u8 = 8;
const MANAGE: u8 = 9;
/// The attribute of Dataset Management for deallocation.
const DEALLOCATE: u32 = 1 << 2;
/// "Capacity Exceeded", of the NVM command set.
const CAPACITY: u16 = 0x81;
const LIMIT: u64 = 1 << 20;

/// Runs one of the ignored tests below in a process of its own.
fn child(name: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--ignored", "--exact", name]).env("GASP_TEST_CHILD", "1").output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "{text}");
    assert_eq!(output.status.signal(), None, "the process was killed");
    assert!(output.status.success(), "{text}");
}

fn is_child() -> bool {
    std::env::var_os("GASP_TEST_CHILD").is_some()
}

/// A disk of 16 MiB in an unlinked file, and the file.
fn disk() -> (Rig, driver::Pair, std::fs::File) {
    let path = std::env::temp_dir().join(format!("gasp-limit-{}", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(16 << 20).unwrap();
    let (rig, pair) = Rig::started_with(&Backing::file(&path), Options::default());
    std::fs::remove_file(&path).unwrap();
    // The guest's memory is a file, too, but it already has its size.
    setrlimit(Resource::Fsize, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) }).unwrap();
    (rig, pair, file)
}

#[test]
fn a_write_past_the_file_size_limit_is_an_error_of_that_command() {
    child("writes_on_both_sides_of_the_limit");
}

#[test]
fn zeroes_past_the_limit_of_a_shortened_file_are_an_error_of_that_command() {
    child("zeroes_past_the_end");
}

#[test]
#[ignore = "lowers a limit; run by `a_write_past_the_file_size_limit_is_an_error_of_that_command`"]
fn writes_on_both_sides_of_the_limit() {
    if !is_child() {
        return;
    }
    let (rig, mut pair, _file) = disk();
    rig.ram.write_at(DATA, &[7; 8192]).unwrap();
    let block = 512;
    let limit = LIMIT / block;
    let prps = rig.prps(DATA, 8192, DATA + (1 << 20));
    for (opcode, first, count, status) in [
        (WRITE, 0, 16, 0),
        (WRITE, limit, 16, CAPACITY),
        // Across the limit: the kernel writes up to it, and refuses the rest.
        (WRITE, limit - 8, 16, CAPACITY),
        (WRITE, 2 * limit, 8, CAPACITY),
        // Reads, and writes below the limit, still succeed.
        (READ, limit, 16, 0),
        (WRITE, limit - 16, 16, 0),
    ] {
        let done = rig.run(&mut pair, Nvm::blocks(opcode, first, count, prps));
        assert_eq!(done.status, status, "opcode {opcode}, block {first}");
    }
    // Whatever the file system answers, the command completes.
    rig.run(&mut pair, Nvm::blocks(ZEROES, limit, 16, (0, 0)));
    assert_eq!(rig.run(&mut pair, Nvm::blocks(READ, 0, 16, prps)).status, 0);
}

#[test]
#[ignore = "lowers a limit; run by `zeroes_past_the_limit_of_a_shortened_file_are_an_error_…`"]
fn zeroes_past_the_end() {
    if !is_child() {
        return;
    }
    let (rig, mut pair, file) = disk();
    let block = 512;
    let (end, limit) = (LIMIT / 2 / block, LIMIT / block);
    file.set_len(LIMIT / 2).unwrap();
    // The file is extended again, as far as the limit allows.
    for (first, status) in [(2 * limit, CAPACITY), (limit - 8, CAPACITY), (end, 0)] {
        let done = rig.run(&mut pair, Nvm::blocks(ZEROES, first, 16, (0, 0)));
        assert_eq!(done.status, status, "zeroes at block {first}");
        // One range to deallocate.
        let range = u128::from(first) << 64 | 16 << 32;
        rig.ram.write_at(DATA, &range.to_le_bytes()).unwrap();
        let manage = Nvm::io(MANAGE).prps((DATA, 0)).word(11, DEALLOCATE);
        assert_eq!(rig.run(&mut pair, manage).status, status, "deallocation at block {first}");
    }
    assert_eq!(file.metadata().unwrap().len(), LIMIT / 2 + 16 * block);
}
