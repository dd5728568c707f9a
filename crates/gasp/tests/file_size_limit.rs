//! A file-size limit below the RAM: the RAM is refused, and the process lives.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::process::Command;

use gasp::{Backing, MemoryObject};
use rustix::process::{Resource, Rlimit, setrlimit};
use support::*;

/// Runs one of the ignored tests below in a child process.
fn child(name: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", name]).env("GASP_TEST_CHILD", "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "{text}");
    assert!(output.status.success(), "{}: {text}", output.status);
}

fn is_child() -> bool {
    std::env::var_os("GASP_TEST_CHILD").is_some()
}

fn limit(bytes: u64) {
    setrlimit(Resource::Fsize, Rlimit { current: Some(bytes), maximum: Some(bytes) }).unwrap();
}

#[test]
fn ram_above_the_file_size_limit_is_efbig_and_not_the_end_of_the_process() {
    child("makes_ram_of_every_backing_under_a_limit");
}

#[test]
#[ignore = "lowers a limit; run by `ram_above_the_file_size_limit_is_efbig_and_not_the_end…`"]
fn makes_ram_of_every_backing_under_a_limit() {
    if !is_child() {
        return;
    }
    limit(HUGE - PAGE);
    for backing in Backing::PREFERENCE {
        let len = if backing == Backing::Huge1G { 1 << 30 } else { HUGE };
        let refused = error(MemoryObject::ram(len).prefer(&[backing]).create());
        // A kernel without such pages refuses before the length is set.
        let huge = matches!(backing, Backing::Huge1G | Backing::Huge2M);
        assert!(refused.errno_name() == "EFBIG" || huge, "{backing}: {refused}");
        if refused.errno_name() == "EFBIG" {
            assert!(refused.to_string().contains("ulimit -f"), "{refused}");
        }
    }
    let ram = MemoryObject::ram(HUGE - PAGE).prefer(&[Backing::Base]).create().unwrap();
    ram.write_at(HUGE - PAGE - 1, b"x").unwrap();
}
