//! Owners of adopted memory that take it away: they truncate the file, or punch holes into it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "reaches what is gone through a raw pointer, in a child")]

mod support;

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gasp::{Adopt, DeviceAddr, Guest, MapFlags, Mapping, MemoryObject, Reason, Seals, Vdev};
use rustix::fs::{FallocateFlags, MemfdFlags, ftruncate};
use support::*;

const LEN: u64 = 16 * PAGE;

/// A file that cannot be sealed.
fn unsealable(len: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create("gasp-hostile", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, len).unwrap();
    fd
}

/// A file's memory, adopted, as the RAM of a guest.
fn adopted(fd: &OwnedFd, trusted: bool) -> (MemoryObject, Guest, Vdev) {
    let how = Adopt { trusted, ..whole(LEN) };
    let object = MemoryObject::adopt(fd.try_clone().unwrap(), how).unwrap();
    let guest = Guest::builder().build().unwrap();
    guest.space().add_ram(None, &object).unwrap();
    let vdev = guest.vdev("disk").unwrap();
    (object, guest, vdev)
}

fn punch(fd: &OwnedFd, offset: u64, len: u64) {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(fd, flags, offset, len).unwrap();
}

#[test]
fn every_safe_access_to_memory_that_is_gone_is_eio() {
    let fd = unsealable(LEN);
    let (object, guest, disk) = adopted(&fd, false);
    assert!(object.is_guarded());
    let mapping = disk.map(DeviceAddr(8), LEN - 8, MapFlags::RW).unwrap();
    let scatter = disk.map_scatter(DeviceAddr(0), LEN, MapFlags::RW).unwrap();
    let alias = object.alias().unwrap();
    mapping.write_at(0, b"before").unwrap();
    ftruncate(&fd, 0).unwrap();
    for len in [1, 7, 8, 9, 100, 300, 5000] {
        let mut bytes = vec![0; len];
        let refused = error(mapping.read_at(0, &mut bytes));
        assert_eq!((refused.reason(), refused.errno_name()), (Reason::MemoryGone, "EIO"));
        assert_eq!(errno(mapping.write_at(16, &bytes)), "EIO");
        assert_eq!(errno(scatter.read_at(3, &mut bytes)), "EIO");
        assert_eq!(errno(scatter.write_at(3, &bytes)), "EIO");
        assert_eq!(errno(object.read_at(0, &mut bytes)), "EIO");
        assert_eq!(errno(object.write_at(0, &bytes)), "EIO");
        assert_eq!(errno(alias.read_at(0, &mut bytes)), "EIO");
        assert_eq!(errno(disk.read(DeviceAddr(1), &mut bytes)), "EIO");
        assert_eq!(errno(disk.write(DeviceAddr(1), &bytes)), "EIO");
        assert_eq!(errno(guest.read_firmware(gasp::GuestPhys(1), &mut bytes)), "EIO");
    }
    fn integers<T: gasp::Integer + std::fmt::Debug>(mapping: &Mapping, value: T) {
        assert_eq!(errno(mapping.load::<T>(8, Ordering::Acquire)), "EIO");
        assert_eq!(errno(mapping.store(8, value, Ordering::SeqCst)), "EIO");
    }
    integers(&mapping, 1_u8);
    integers(&mapping, 1_u16);
    integers(&mapping, 1_u32);
    integers(&mapping, 1_u64);
    ftruncate(&fd, LEN).unwrap();
    let mut bytes = [1; 6];
    mapping.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 6], "memory that comes back is zeroed");
}

#[test]
fn guarded_accesses_are_exact_for_every_length_and_size() {
    let fd = unsealable(LEN);
    let (object, _guest, disk) = adopted(&fd, false);
    let mapping = disk.map(DeviceAddr(0), LEN, MapFlags::RW).unwrap();
    let source: Vec<u8> = (0..600_usize).map(|i| u8::try_from(i % 251).unwrap()).collect();
    for start in 0..9 {
        for len in (0..40).chain(250..260).chain([511, 512, 513]) {
            object.write_at(0, &[0xee; 1024]).unwrap();
            mapping.write_at(start, &source[..len]).unwrap();
            let mut out = vec![0; len + 2];
            object.read_at(start as u64, &mut out[1..=len]).unwrap();
            assert_eq!((&out[1..=len], out[0], out[len + 1]), (&source[..len], 0, 0));
            let mut next = [0];
            mapping.read_at(start + len, &mut next).unwrap();
            assert_eq!(next, [0xee]);
        }
    }
    let word = 0x8182_8384_8586_8788_u64;
    object.write_at(0, &[0; 64]).unwrap();
    mapping.store(8, word, Ordering::Release).unwrap();
    assert_eq!(mapping.load::<u64>(8, Ordering::SeqCst).unwrap(), word);
    assert_eq!(mapping.load::<u64>(16, Ordering::SeqCst).unwrap(), 0);
    mapping.store(8, 0x1122_3344_u32, Ordering::Relaxed).unwrap();
    mapping.store(12, 0x5566_u16, Ordering::Relaxed).unwrap();
    mapping.store(14, 0x77_u8, Ordering::Relaxed).unwrap();
    assert_eq!(mapping.load::<u64>(8, Ordering::Acquire).unwrap(), 0x8177_5566_1122_3344);
    assert_eq!(mapping.load::<u32>(12, Ordering::Acquire).unwrap(), 0x8177_5566);
    assert_eq!(mapping.load::<u16>(14, Ordering::Acquire).unwrap(), 0x8177);
    assert_eq!(mapping.load::<u8>(15, Ordering::Acquire).unwrap(), 0x81);
    assert_eq!(errno(mapping.load::<u32>(13, Ordering::Acquire)), "EINVAL");
}

/// Runs `attack` in a loop while threads read and write. Returns how many accesses succeeded and
/// how many were refused.
fn under_attack(fd: &OwnedFd, attack: impl Fn() + Sync) -> (u64, u64) {
    let (_object, _guest, disk) = adopted(fd, false);
    let (done, gone) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (disk, done, gone, stop) = (&disk, &done, &gone, &stop);
            scope.spawn(move || {
                let mapping = disk.map(DeviceAddr(0), LEN, MapFlags::RW).unwrap();
                let mut random = Random::new(seed);
                let mut bytes = vec![7; 2 * PAGE as usize];
                while !stop.load(Ordering::Relaxed) {
                    let offset = random.below(LEN - 2 * PAGE) as usize;
                    let len = random.below(bytes.len() as u64) as usize;
                    let word = offset & !7;
                    let accessed = match random.below(4) {
                        0 => mapping.read_at(offset, &mut bytes[..len]),
                        1 => mapping.write_at(offset, &bytes[..len]),
                        2 => mapping.load::<u64>(word, Ordering::Acquire).map(drop),
                        _ => mapping.store(word, 1_u64, Ordering::Release),
                    };
                    match accessed {
                        Ok(()) => done.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            assert_eq!(error.errno_name(), "EIO");
                            gone.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(700) {
            attack();
        }
        stop.store(true, Ordering::Relaxed);
    });
    (done.into_inner(), gone.into_inner())
}

#[test]
fn a_peer_that_truncates_in_a_loop_ends_accesses_and_not_the_process() {
    let fd = unsealable(LEN);
    let (done, gone) = under_attack(&fd, || {
        ftruncate(&fd, 0).unwrap();
        std::thread::sleep(Duration::from_micros(200));
        ftruncate(&fd, LEN).unwrap();
        std::thread::sleep(Duration::from_micros(200));
    });
    assert!(done > 0 && gone > 0, "{done} accesses succeeded, {gone} were refused");
}

#[test]
fn a_peer_that_punches_in_a_loop_disturbs_nobody() {
    let fd = unsealable(LEN);
    let (done, gone) = under_attack(&fd, || punch(&fd, 0, LEN));
    assert!(done > 0 && gone == 0, "{done} accesses succeeded, {gone} were refused");
}

#[test]
fn a_file_that_can_be_sealed_is_sealed_and_not_guarded() {
    let fd = memfd(LEN);
    let (object, _guest, _disk) = adopted(&fd, false);
    assert!(object.seals().contains(Seals::SHRINK) && !object.is_guarded());
    assert_eq!(ftruncate(&fd, 0), Err(rustix::io::Errno::PERM));
}

#[test]
fn the_file_of_a_trusted_owner_is_left_alone() {
    let fd = memfd(LEN);
    let (object, ..) = adopted(&fd, true);
    assert!(object.seals().is_empty() && !object.is_guarded());
    ftruncate(&fd, 2 * LEN).unwrap();
    let unsealable = unsealable(LEN);
    assert!(!adopted(&unsealable, true).0.is_guarded());
}

#[test]
fn a_file_that_can_only_be_read_is_guarded() {
    let fd = memfd(LEN);
    let read_only = reopened(&fd, rustix::fs::OFlags::RDONLY);
    let how = Adopt { access: gasp::Access::READ, ..whole(LEN) };
    let object = MemoryObject::adopt(read_only, how).unwrap();
    assert!(object.is_guarded(), "a descriptor for reading cannot seal it");
    ftruncate(&fd, PAGE).unwrap();
    object.read_at(0, &mut [0; 8]).unwrap();
    assert_eq!(errno(object.read_at(PAGE, &mut [0; 8])), "EIO");
}

/// Runs one of the ignored tests below in a child process, which may die.
fn child(test: &str) -> std::process::ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env("GASP_TEST_CHILD", "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "{text}");
    output.status
}

/// Reads memory that is gone through a raw pointer.
fn reach_what_is_gone() -> u8 {
    let fd = unsealable(LEN);
    let (object, _guest, disk) = adopted(&fd, false);
    let mapping = disk.map(DeviceAddr(0), LEN, MapFlags::RW).unwrap();
    ftruncate(&fd, 0).unwrap();
    assert_eq!(errno(object.read_at(0, &mut [0])), "EIO");
    // SAFETY: none: the memory is gone, so the pointer is not valid for reads. The SIGBUS that ends
    // the process is what the test is about.
    unsafe { mapping.as_ptr().read_volatile() }
}

#[test]
#[ignore = "dies; run by `a_fault_that_is_not_ours_ends_the_process_as_before`"]
fn dies_of_a_raw_pointer() {
    if std::env::var_os("GASP_TEST_CHILD").is_some() {
        reach_what_is_gone();
    }
}

#[test]
#[ignore = "exits; run by `a_fault_that_is_not_ours_reaches_the_handler_before_ours`"]
fn exits_in_a_handler_before_ours() {
    extern "C" fn handler(_: libc::c_int) {
        // SAFETY: _exit(2) is async-signal-safe, and takes no pointer.
        unsafe { libc::_exit(42) };
    }
    if std::env::var_os("GASP_TEST_CHILD").is_some() {
        let handler = handler as extern "C" fn(libc::c_int);
        // SAFETY: the handler has the type of one, and calls _exit(2) alone, which is
        // async-signal-safe.
        unsafe { libc::signal(libc::SIGBUS, handler as usize) };
        reach_what_is_gone();
    }
}

/// Sends a SIGBUS to this process in each possible way, and accesses memory that is gone after
/// each.
fn reach_after_signals() {
    let fd = unsealable(LEN);
    let (object, ..) = adopted(&fd, false);
    // SAFETY: getpid(2) has no requirements.
    let process = unsafe { libc::getpid() };
    // SAFETY: gettid(2) has no requirements.
    let thread = unsafe { libc::gettid() };
    // SAFETY: a `siginfo_t` consists of integers and padding, so all zeros are a valid one.
    let mut broken: libc::siginfo_t = unsafe { std::mem::zeroed() };
    (broken.si_signo, broken.si_code) = (libc::SIGBUS, libc::BUS_MCEERR_AO);
    let number = libc::SYS_rt_tgsigqueueinfo;
    let ways: [&dyn Fn() -> bool; 3] = [
        // SAFETY: kill(2) takes no pointer. A SIGBUS may come at any time here: every caller runs
        // in a child process of its own, with a handler that is async-signal-safe, or to be ended.
        &|| unsafe { libc::kill(process, libc::SIGBUS) == 0 },
        // SAFETY: raise(3) takes no pointer, and a SIGBUS may come at any time, as for kill(2).
        &|| unsafe { libc::raise(libc::SIGBUS) == 0 },
        // SAFETY: rt_tgsigqueueinfo(2) takes a process, a thread, a signal, and a pointer to a
        // `siginfo_t` that it copies: `broken` is one, and outlives the call. A SIGBUS may come at
        // any time, as for kill(2).
        &|| unsafe { libc::syscall(number, process, thread, libc::SIGBUS, &raw const broken) == 0 },
    ];
    for _ in 0..3 {
        for send in ways {
            assert!(send());
            // Another thread may handle the signal.
            std::thread::sleep(Duration::from_millis(20));
            ftruncate(&fd, 0).unwrap();
            assert_eq!(errno(object.read_at(0, &mut [0; 8])), "EIO");
            ftruncate(&fd, LEN).unwrap();
            object.read_at(0, &mut [0; 8]).unwrap();
        }
    }
}

#[test]
#[ignore = "gets signals; run by `a_signal_that_was_sent_leaves_the_guard_in_place`"]
fn gets_signals_with_the_handler_of_the_standard_library() {
    if std::env::var_os("GASP_TEST_CHILD").is_some() {
        reach_after_signals();
    }
}

#[test]
#[ignore = "gets signals; run by `a_signal_that_was_sent_leaves_the_guard_in_place`"]
fn gets_signals_with_a_handler_that_goes_after_one() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    extern "C" fn handler(signal: libc::c_int) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: signal(2) is async-signal-safe, and the default action has no handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    if std::env::var_os("GASP_TEST_CHILD").is_some() {
        let handler = handler as extern "C" fn(libc::c_int);
        // SAFETY: the handler has the type of one, and does what is async-signal-safe: it counts in
        // an atomic and calls signal(2).
        unsafe { libc::signal(libc::SIGBUS, handler as usize) };
        reach_after_signals();
        assert_eq!(CALLS.load(Ordering::Relaxed), 9, "it was called for each of them");
    }
}

#[test]
#[ignore = "dies; run by `a_signal_that_was_sent_leaves_the_guard_in_place`"]
fn gets_signals_that_nobody_handled() {
    if std::env::var_os("GASP_TEST_CHILD").is_some() {
        // SAFETY: the default action has no handler that could be wrong.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
        reach_after_signals();
    }
}

#[test]
fn a_signal_that_was_sent_leaves_the_guard_in_place() {
    assert!(child("gets_signals_with_the_handler_of_the_standard_library").success());
    assert!(child("gets_signals_with_a_handler_that_goes_after_one").success());
    let ended = child("gets_signals_that_nobody_handled");
    assert_eq!(ended.signal(), Some(libc::SIGBUS), "as without our handler");
}

#[test]
fn a_fault_that_is_not_ours_ends_the_process_as_before() {
    assert_eq!(child("dies_of_a_raw_pointer").signal(), Some(libc::SIGBUS));
}

#[test]
fn a_fault_that_is_not_ours_reaches_the_handler_before_ours() {
    assert_eq!(child("exits_in_a_handler_before_ours").code(), Some(42));
}
