//! A disk in a file that is longer than the process may write: an error of the command.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "nvme/driver.rs"]
#[allow(dead_code, reason = "uses a part of it")]
mod driver;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use driver::{Command as Nvm, DATA, Rig};
use gasp_vdev::devices::nvme::{Backing, Options};
use rustix::process::{Resource, Rlimit, setrlimit};

const WRITE: u8 = 1;
const READ: u8 = 2;
const ZEROES: u8 = 8;
/// "Capacity Exceeded", of the NVM command set.
const CAPACITY: u16 = 0x81;
const LIMIT: u64 = 1 << 20;

#[test]
fn a_write_past_the_file_size_limit_is_an_error_of_that_command() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = "writes_on_both_sides_of_the_limit";
    let output = command.args(["--ignored", "--exact", name]).env("GASP_TEST_CHILD", "1").output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "{text}");
    assert_eq!(output.status.signal(), None, "the process was ended");
    assert!(output.status.success(), "{text}");
}

#[test]
#[ignore = "lowers a limit; run by `a_write_past_the_file_size_limit_is_an_error_of_that_command`"]
fn writes_on_both_sides_of_the_limit() {
    if std::env::var_os("GASP_TEST_CHILD").is_none() {
        return;
    }
    let path = std::env::temp_dir().join(format!("gasp-limit-{}", std::process::id()));
    std::fs::File::create(&path).unwrap().set_len(16 << 20).unwrap();
    let backing = Backing::file(&path);
    let (rig, mut pair) = Rig::started_with(&backing, Options::default());
    std::fs::remove_file(&path).unwrap();
    // The guest's memory is a file, too, and is there already.
    setrlimit(Resource::Fsize, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) }).unwrap();
    rig.ram.write_at(DATA, &[7; 8192]).unwrap();
    let block = 512;
    let limit = LIMIT / block;
    let prps = rig.prps(DATA, 8192, DATA + (1 << 20));
    for (opcode, first, count, status) in [
        (WRITE, 0, 16, 0),
        (WRITE, limit, 16, CAPACITY),
        // Across the limit: the kernel writes up to it, and then refuses.
        (WRITE, limit - 8, 16, CAPACITY),
        (WRITE, 2 * limit, 8, CAPACITY),
        // Reads and the other side of the disk go on.
        (READ, limit, 16, 0),
        (WRITE, limit - 16, 16, 0),
    ] {
        let done = rig.run(&mut pair, Nvm::blocks(opcode, first, count, prps));
        assert_eq!(done.status, status, "opcode {opcode}, block {first}");
    }
    // Whatever the file system answers, it is an answer.
    rig.run(&mut pair, Nvm::blocks(ZEROES, limit, 16, (0, 0)));
    assert_eq!(rig.run(&mut pair, Nvm::blocks(READ, 0, 16, prps)).status, 0);
}
