//! A process that drops its privileges, and what it can still read and hold.
//!
//! Needs root, to have privileges to drop; skipped visibly otherwise. Each trial runs in a child
//! process, because dropped privileges do not come back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "changes the user of a child process")]

mod support;
#[path = "support/trials.rs"]
mod trials;

use std::process::Command;

use gasp::{Backing, MemoryObject, Residency, Stability};
use gasp::{FrameAccess, PinMethod, frame_access};
use libtest_mimic::{Arguments, Trial};
use support::*;
use trials::*;

const CHILD: &str = "GASP_TEST_CHILD";
const NOBODY: libc::uid_t = 65_534;
const LEN: u64 = 16 << 20;

/// The bodies that run in child processes, by name.
const BODIES: [(&str, fn()); 5] = [
    ("a_descriptor_opened_before_privileges_are_dropped_still_shows_frame_numbers", kept),
    ("huge_pages_are_pinned_without_privilege", pinned),
    ("external_memory_with_its_file_is_pinned_by_a_pipe_without_privilege", external),
    ("contiguity_is_known_without_addresses", contiguous),
    ("a_child_cannot_read_its_parents_addresses", forked),
];

fn main() {
    if let Ok(name) = std::env::var(CHILD) {
        let (_, body) = BODIES.iter().find(|(other, _)| *other == name).unwrap();
        body();
        return;
    }
    let trials: Vec<Trial> = BODIES
        .iter()
        .map(|(name, _)| {
            let lacks = [frames(), backing(Backing::Thp, LEN)];
            trial(*name, &lacks, move || {
                let child =
                    Command::new(std::env::current_exe().unwrap()).env(CHILD, name).output();
                let child = child.unwrap();
                assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn drop_privileges() {
    // SAFETY: setresuid(2) takes no pointer.
    let done = unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) };
    assert_eq!(done, 0);
}

/// As if the process had been started without privileges: it can open its own files under
/// `/proc`, which a process that has just dropped its privileges cannot.
fn start_without_privileges() {
    drop_privileges();
    // SAFETY: PR_SET_DUMPABLE takes a number and no pointer.
    let done = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
    assert_eq!(done, 0);
}

fn thp(residency: Residency) -> MemoryObject {
    MemoryObject::ram(LEN).prefer(&[Backing::Thp]).residency(residency).create().unwrap()
}

/// Whether all of it is in huge pages.
fn all_huge(ram: &MemoryObject) -> bool {
    ram.backing().note.as_deref() == Some("8 of 8 collapsed into huge pages")
}

fn kept() {
    assert_eq!(frame_access(), FrameAccess::Allowed);
    drop_privileges();
    assert_eq!(frame_access(), FrameAccess::Allowed);
    let ram = thp(Residency::Pinned);
    assert_ne!(ram.host_run(0, 1).unwrap().addr.0, 0);
    assert_eq!(ram.audit().unwrap().checked, LEN);
}

fn pinned() {
    start_without_privileges();
    let ram = thp(Residency::Pinned);
    // RLIMIT_MEMLOCK is 8 MiB on most systems, which is too little here.
    let expected = match PinMethod::IoUring.access(LEN as usize) {
        gasp::PinAccess::Allowed => PinMethod::IoUring,
        gasp::PinAccess::Denied(_) => PinMethod::Pipe,
    };
    assert_eq!(ram.pinned_by(), Some(expected), "{:?}", ram.not_pinned_because());
    assert_eq!(ram.stability(), Stability::Pinned);
    assert_eq!(errno(ram.host_run(0, 1)), "EPERM", "but the addresses are unknown");
    assert_eq!(ram.audit().unwrap().unchecked, LEN);
}

fn external() {
    start_without_privileges();
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is an rlimit that is valid for reads during the call.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const none) };
    assert_eq!(done, 0);
    as_external(&resident(4 * PAGE), gasp::Access::RW, |object| {
        assert_eq!(object.pinned_by(), Some(PinMethod::Pipe), "{:?}", object.not_pinned_because());
    });
}

fn contiguous() {
    start_without_privileges();
    let ram = thp(Residency::Resident);
    if all_huge(&ram) {
        assert_eq!(ram.contiguous_at(0, LEN).unwrap(), HUGE);
        assert_eq!(ram.contiguous_at(HUGE + 5, LEN - HUGE - 5).unwrap(), HUGE - 5);
        assert_eq!(ram.contiguous_at(HUGE + 5, 7).unwrap(), 7);
    }
    let small = resident(4 * PAGE);
    assert_eq!(small.contiguous_at(5, 2 * PAGE).unwrap(), PAGE - 5);
    assert_eq!(errno(small.contiguous_at(4 * PAGE, 1)), "EINVAL");
}

fn forked() {
    assert_eq!(frame_access(), FrameAccess::Allowed);
    // SAFETY: the process has one thread, so no lock is held by another, and the child may call
    // what it likes.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop_privileges();
        let told = matches!(frame_access(), FrameAccess::Allowed);
        // SAFETY: _exit(2) takes no pointer, and ends the child without running what the parent has
        // registered.
        unsafe { libc::_exit(i32::from(told)) };
    }
    let mut status = -1;
    // SAFETY: `status` is a `c_int` that is valid for writes during the call.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "the child may read its parent's frame numbers, or failed");
}
