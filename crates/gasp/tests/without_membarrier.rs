//! The revoke protocol if the kernel refuses membarrier(2): with a fence on both sides.
//!
//! `main` makes the kernel refuse it, by a seccomp filter that every thread of this process
//! inherits, before the first guest chooses its barrier. If the engine chose membarrier
//! nevertheless, it would fail in the first revoke, which aborts.
//!
//! If a filter cannot be installed, every trial is marked as ignored, with the reason in its
//! name, so that it is counted and visible.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use gasp::{Access, DeviceAddr, Domain, DomainKind, GuestPhys, MapFlags, Mapping, Vdev};
use libtest_mimic::{Arguments, Trial};
use rustix::io::Errno;
use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};
use support::*;

const RW: MapFlags = MapFlags::RW;
/// Duration of the trial that races.
const RACE: Duration = Duration::from_secs(1);

fn main() {
    // First of all: no thread and no guest exists before it.
    let lack = filter::refuse_membarrier().err();
    let trials: [(&str, fn()); 6] = [
        ("the_kernel_refuses_membarrier_to_every_thread", refused_to_every_thread),
        ("no_device_writes_to_a_page_once_its_revoke_has_completed", no_late_write),
        ("a_revoke_waits_for_its_holders_and_no_longer", waits_for_holders),
        ("a_revoke_without_a_holder_does_not_wait", does_not_wait),
        ("a_mapping_dropped_on_another_thread_ends_its_drain", dropped_elsewhere),
        ("mappings_of_a_thread_that_has_ended_are_waited_for", outlived),
    ];
    let trials = trials.map(|(name, body)| {
        let name = match &lack {
            Some(why) => format!("{name} [skipped: {why}]"),
            None => name.to_owned(),
        };
        let run = move || {
            body();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(lack.is_some())
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

mod filter {
    #![allow(unsafe_code, reason = "there is no safe call that installs a seccomp filter")]
    use core::mem::offset_of;

    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    use libc::{seccomp_data, sock_filter, sock_fprog};
    use rustix::io::Errno;

    /// The audit architecture of this process's system calls (`linux/audit.h`): the ELF
    /// machine number, 64-bit, little-endian. The same number is another system call on
    /// another architecture.
    const ARCH: Option<u32> = if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
        Some(0xc000_003e)
    } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
        Some(0xc000_00b7)
    } else {
        None
    };

    /// From here on membarrier(2) fails with `ENOSYS`, on this thread and on those that it
    /// starts, for as long as they live. The error says why that is not possible.
    pub(super) fn refuse_membarrier() -> Result<(), String> {
        let arch = ARCH.ok_or("the filter knows x86-64 and aarch64 only")?;
        // Without privilege, only a thread that cannot gain any may install a filter.
        rustix::thread::set_no_new_privs(true).map_err(|error| format!("no_new_privs: {error}"))?;
        install(&mut program(arch)).map_err(|error| format!("no seccomp filter: {error}"))?;
        match query() {
            Err(Errno::NOSYS) => Ok(()),
            other => Err(format!("membarrier(2) is still there: {other:?}")),
        }
    }

    fn program(arch: u32) -> [sock_filter; 6] {
        let load = |offset: usize| step(BPF_LD | BPF_W | BPF_ABS, offset as u32, 0);
        // Continues if it is the same, else skips `skip` steps.
        let same = |value: u32, skip: u8| step(BPF_JMP | BPF_JEQ | BPF_K, value, skip);
        let end = |verdict: u32| step(BPF_RET | BPF_K, verdict, 0);
        [
            load(offset_of!(seccomp_data, arch)),
            same(arch, 3),
            load(offset_of!(seccomp_data, nr)),
            same(libc::SYS_membarrier as u32, 1),
            end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
            end(libc::SECCOMP_RET_ALLOW),
        ]
    }

    fn step(code: u32, k: u32, jf: u8) -> sock_filter {
        sock_filter { code: code as u16, jt: 0, jf, k }
    }

    fn install(program: &mut [sock_filter]) -> Result<(), Errno> {
        let program = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: PR_SET_SECCOMP reads a `sock_fprog` at its third argument, and as many steps as
        // `len` says at its `filter`; both outlive the call, which copies them. The filter changes
        // nothing but what one system call returns.
        let result = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        if result == 0 { Ok(()) } else { Err(last_errno()) }
    }

    /// The kernel's own answer to `MEMBARRIER_CMD_QUERY`.
    pub(super) fn query() -> Result<i64, Errno> {
        const QUERY: libc::c_int = 0;
        // SAFETY: MEMBARRIER_CMD_QUERY has no effect, and takes no pointer.
        let result = unsafe { libc::syscall(libc::SYS_membarrier, QUERY, 0, 0) };
        if result >= 0 { Ok(result) } else { Err(last_errno()) }
    }

    fn last_errno() -> Errno {
        Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
    }
}

fn grant(domain: &Domain, page: u64) {
    domain.grant_identity(GuestPhys(page * PAGE), PAGE, Access::RW).unwrap();
}

fn map(vdev: &Vdev, page: u64) -> gasp::Result<Mapping> {
    vdev.map(DeviceAddr(page * PAGE), PAGE, RW)
}

fn refused_to_every_thread() {
    let look = || {
        assert_eq!(filter::query(), Err(Errno::NOSYS));
        assert_eq!(membarrier_query(), MembarrierQuery::empty());
        for command in [
            MembarrierCommand::RegisterPrivateExpedited,
            MembarrierCommand::PrivateExpedited,
            MembarrierCommand::Global,
        ] {
            assert_eq!(membarrier(command), Err(Errno::NOSYS));
        }
    };
    look();
    thread::spawn(look).join().unwrap();
}

/// Cache lines that every racer writes. A store to a line that another processor has just
/// written takes long, and later stores wait in the store buffer: also the one that publishes
/// a slot, if no fence makes it visible before the look-up. An engine without that fence fails
/// nine times out of ten in a release build; in a debug build the stack's own stores push the
/// slot's out in time.
struct Contended([Line; 48]);

#[repr(align(128))]
struct Line(AtomicU64);

impl Contended {
    fn write(&self, value: u64) {
        self.0.iter().for_each(|line| line.0.store(value, Relaxed));
    }
}

fn no_late_write() {
    const PAGES: u64 = 4;
    /// Devices write values below this, and the poison is above.
    const POISON: u64 = 1 << 32;
    let (guest, _ram) = iommu_guest(PAGES * PAGE);
    let (_, domain) = device(&guest, "first", DomainKind::Identity);
    (0..PAGES).for_each(|page| grant(&domain, page));
    // The host's own mapping of the memory, which the domain's revokes do not affect.
    let host = guest.map_firmware(GuestPhys(0), PAGES * PAGE, RW).unwrap();
    let contended = Arc::new(Contended([const { Line(AtomicU64::new(0)) }; 48]));
    let stop = Arc::new(AtomicBool::new(false));
    // Set while a page is revoked: no thread that holds a mapping of it may see it set.
    let revoked: Arc<[AtomicBool]> = (0..PAGES).map(|_| AtomicBool::new(false)).collect();
    let devices: Vec<_> = (1..=2)
        .map(|index| {
            let vdev = guest.vdev(&format!("racer{index}")).unwrap();
            vdev.attach(&domain).unwrap().wait();
            let (stop, revoked, contended) = (stop.clone(), revoked.clone(), contended.clone());
            thread::spawn(move || {
                let (mut random, mut maps, mut refusals) = (Random::new(index), 0_u64, 0_u64);
                while !stop.load(Relaxed) {
                    let page = random.below(PAGES);
                    contended.write(index);
                    let Ok(mapping) = map(&vdev, page) else {
                        refusals += 1;
                        continue;
                    };
                    mapping.store(0, index, Relaxed).unwrap();
                    let late = revoked[page as usize].load(SeqCst);
                    assert!(!late, "a revoke of page {page} completed while it was held");
                    mapping.store(PAGE as usize - 8, index, Relaxed).unwrap();
                    drop(mapping);
                    maps += 1;
                }
                (maps, refusals)
            })
        })
        .collect();
    let (mut random, mut rounds) = (Random::new(99), 0);
    let started = Instant::now();
    while started.elapsed() < RACE {
        let page = random.below(PAGES);
        contended.write(0);
        assert!(domain.revoke(DeviceAddr(page * PAGE), PAGE).unwrap().wait().completed());
        revoked[page as usize].store(true, SeqCst);
        let words = [page * PAGE, page * PAGE + PAGE - 8].map(|offset| offset as usize);
        let poison = POISON + rounds;
        words.iter().for_each(|&offset| host.store(offset, poison, Relaxed).unwrap());
        // Long enough for a store in flight; at times, for another thread to run.
        if rounds % 16 == 0 {
            thread::yield_now();
        }
        for _ in 0..50 {
            for offset in words {
                let word: u64 = host.load(offset, Relaxed).unwrap();
                assert_eq!(word, poison, "page {page} was written after its revoke");
            }
        }
        revoked[page as usize].store(false, SeqCst);
        grant(&domain, page);
        rounds += 1;
    }
    stop.store(true, Relaxed);
    let done: Vec<_> = devices.into_iter().map(|device| device.join().unwrap()).collect();
    let maps: u64 = done.iter().map(|(maps, _)| maps).sum();
    let refusals: u64 = done.iter().map(|(_, refusals)| refusals).sum();
    assert!(maps > 100 && refusals > 0 && rounds > 10, "{done:?}, {rounds} revokes: no race");
}

fn waits_for_holders() {
    let (guest, _ram) = iommu_guest(PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    grant(&domain, 0);
    let held: Vec<_> = (0..3).map(|_| map(&disk, 0).unwrap()).collect();
    let last_goes = Arc::new(AtomicBool::new(false));
    let mut drain = domain.revoke(DeviceAddr(0), PAGE).unwrap();
    assert_eq!(drain.pending(), 3);
    assert!(map(&disk, 0).is_err(), "the revoke has taken effect before its end");
    let waiter = thread::spawn({
        let last_goes = last_goes.clone();
        move || {
            let drained = drain.wait();
            assert!(last_goes.load(SeqCst), "it ended before the last holder unmapped");
            drained
        }
    });
    for (index, mapping) in held.into_iter().enumerate() {
        thread::sleep(Duration::from_millis(5));
        last_goes.store(index == 2, SeqCst);
        drop(mapping);
    }
    let drained = in_time(move || waiter.join().unwrap());
    assert_eq!((drained.holders, drained.completed()), (3, true));
    assert!(drained.waited >= Duration::from_millis(15), "{drained:?}");
}

fn does_not_wait() {
    let (guest, _ram) = iommu_guest(4 * PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    let (other, beside) = device(&guest, "other", DomainKind::Identity);
    (0..4).for_each(|page| grant(&domain, page));
    grant(&beside, 0);
    // These stay held: its neighbours, and the same page in another domain.
    let held = [map(&disk, 1).unwrap(), map(&disk, 3).unwrap(), map(&other, 0).unwrap()];
    in_time(move || {
        for _ in 0..100 {
            for page in [0, 2] {
                drop(map(&disk, page).unwrap());
                let drained = domain.revoke(DeviceAddr(page * PAGE), PAGE).unwrap().wait();
                assert_eq!((drained.holders, drained.waited), (0, Duration::ZERO));
                assert!(map(&disk, page).is_err());
                grant(&domain, page);
            }
        }
    });
    drop(held);
}

fn dropped_elsewhere() {
    let (guest, _ram) = iommu_guest(PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    let (give, take) = mpsc::channel::<Mapping>();
    let goes = Arc::new(AtomicU64::new(0));
    let other = thread::spawn({
        let goes = goes.clone();
        move || {
            for mapping in take {
                mapping.store(0, 1_u64, Relaxed).unwrap();
                goes.fetch_add(1, SeqCst);
                drop(mapping);
            }
        }
    });
    in_time(move || {
        for round in 1..=500 {
            grant(&domain, 0);
            give.send(map(&disk, 0).unwrap()).unwrap();
            let drained = domain.revoke(DeviceAddr(0), PAGE).unwrap().wait();
            assert!(drained.completed() && drained.holders <= 1, "{drained:?}");
            assert_eq!(
                goes.load(SeqCst),
                round,
                "the revoke ended before the other thread unmapped"
            );
        }
    });
    other.join().unwrap();
}

fn outlived() {
    let (guest, ram) = iommu_guest(8 * PAGE);
    number_pages(&ram, 1);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    domain.grant_identity(GuestPhys(0), 8 * PAGE, Access::RW).unwrap();
    let make = move || (0..8).map(|page| map(&disk, page).unwrap()).collect::<Vec<_>>();
    let held = thread::spawn(make.clone()).join().unwrap();
    // A later thread takes over the lane of the one that ended, with the mappings left in it.
    let more = thread::spawn(make).join().unwrap();
    for (page, mapping) in (0..).zip(&held) {
        assert_eq!(word(mapping), numbered(1, page));
    }
    let mut drain = domain.revoke(DeviceAddr(0), 4 * PAGE).unwrap();
    assert_eq!(drain.pending(), 8);
    drop(held);
    assert_eq!(drain.pending(), 4);
    drop(more);
    let drained = in_time(move || drain.wait());
    assert_eq!((drained.holders, drained.completed()), (8, true));
}
