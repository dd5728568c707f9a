//! Look-ups of ranges with very many pages go in steps, and a revoke between two steps holds as
//! any other. (Unit tests of `view::lookup` count how much a step reads.)
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use gasp::{Access, DeviceAddr, Domain, DomainKind, Guest, GuestPhys, MapFlags, Vdev};
use parking_lot::{Mutex, MutexGuard};
use support::*;

/// A device that may read `pages` pages, and write every other one, so that each has a word of
/// its own in the table; and its domain.
fn scene(pages: u64) -> (Guest, Vdev, Domain) {
    let (guest, _ram) = iommu_guest(pages * PAGE);
    let (disk, domain) = device(&guest, "disk", DomainKind::Identity);
    for page in (0..pages).step_by(2) {
        domain.grant_identity(GuestPhys(page * PAGE), PAGE, Access::WRITE).unwrap();
    }
    domain.grant_identity(GuestPhys(0), pages * PAGE, Access::READ).unwrap();
    assert_eq!(domain.entries(), pages);
    (guest, disk, domain)
}

/// Serialises the tests, which depend on time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock()
}

#[test]
fn no_long_mapping_outlives_a_revoke_of_a_page_in_it() {
    // Twenty steps, so that most of a look-up comes after its first pages.
    const PAGES: u64 = 40_000;
    let _alone = alone();
    let (_guest, disk, domain) = scene(PAGES);
    let candidates = [1, (PAGES / 2) | 1, PAGES - 1];
    let revoked: Arc<Vec<AtomicBool>> =
        Arc::new(candidates.map(|_| AtomicBool::new(false)).into_iter().collect());
    let (stop, succeeded) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let calls = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let devices: Vec<_> = (0..2)
        .map(|kind| {
            let (disk, revoked, stop) = (disk.clone(), Arc::clone(&revoked), Arc::clone(&stop));
            let (succeeded, calls) = (Arc::clone(&succeeded), Arc::clone(&calls));
            thread::spawn(move || {
                let (mut maps, mut refusals) = (0_u64, 0_u64);
                let none = || assert!(!revoked.iter().any(|page| page.load(SeqCst)));
                while !stop.load(Relaxed) {
                    let (addr, len) = (DeviceAddr(0), PAGES * PAGE);
                    let mapped = match kind {
                        0 => disk.map(addr, len, MapFlags::READ).map(|held| (none(), drop(held))),
                        _ => disk
                            .map_scatter(addr, len, MapFlags::READ)
                            .map(|held| (none(), drop(held))),
                    };
                    calls[kind].fetch_add(1, Relaxed);
                    match mapped {
                        Ok(_) => {
                            maps += 1;
                            succeeded.fetch_add(1, Relaxed);
                        }
                        Err(error) => {
                            assert_eq!(error.errno_name(), "EFAULT");
                            refusals += 1;
                        }
                    }
                }
                (maps, refusals)
            })
        })
        .collect();
    let (mut random, started, mut rounds) = (Random::new(5), Instant::now(), 0);
    while rounds < 40 && started.elapsed() < LONG {
        let index = random.below(3) as usize;
        let page = candidates[index] * PAGE;
        assert!(domain.revoke(DeviceAddr(page), PAGE).unwrap().wait().completed());
        revoked[index].store(true, SeqCst);
        // Waits until the look-ups in progress have ended: they must not succeed.
        let ended = || calls.iter().map(|calls| calls.load(Relaxed)).collect::<Vec<_>>();
        let then = ended();
        let goes_on = || ended().iter().zip(&then).any(|(now, then)| now == then);
        while goes_on() && started.elapsed() < LONG && !devices.iter().any(|d| d.is_finished()) {
            thread::yield_now();
        }
        revoked[index].store(false, SeqCst);
        domain.grant_identity(GuestPhys(page), PAGE, Access::READ).unwrap();
        // Waits until one has succeeded, and then some way into the next.
        let before = succeeded.load(Relaxed);
        let goes_on = || succeeded.load(Relaxed) == before && started.elapsed() < LONG;
        while goes_on() && !devices.iter().any(|device| device.is_finished()) {
            thread::yield_now();
        }
        thread::sleep(Duration::from_micros(random.below(1000)));
        rounds += 1;
    }
    stop.store(true, Relaxed);
    let done: Vec<_> = devices.into_iter().map(|device| device.join().unwrap()).collect();
    let (maps, refusals) = done.iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    assert!(maps > 10 && refusals > 10 && rounds > 10, "{done:?}, {rounds} revokes: no race");
}

#[test]
fn a_long_map_is_of_one_domain_or_fails() {
    // Neither domain allows the whole range, and each allows what the other does not. A step ends
    // where they overlap, so steps in one and in the other together would cover the range.
    const PAGES: u64 = 6000;
    let _alone = alone();
    let (guest, disk, last) = scene(PAGES);
    let (_, first) = device(&guest, "first", DomainKind::Identity);
    for page in (0..4000).step_by(2) {
        first.grant_identity(GuestPhys(page * PAGE), PAGE, Access::WRITE).unwrap();
    }
    first.grant_identity(GuestPhys(0), 4000 * PAGE, Access::READ).unwrap();
    last.revoke(DeviceAddr(0), 2000 * PAGE).unwrap().wait();
    let stop = Arc::new(AtomicBool::new(false));
    let mapping = thread::spawn({
        let (disk, stop) = (disk.clone(), Arc::clone(&stop));
        move || {
            let mut tries = 0;
            while !stop.load(Relaxed) {
                let mapped = disk.map_scatter(DeviceAddr(0), PAGES * PAGE, MapFlags::READ);
                assert_eq!(errno(mapped), "EFAULT");
                tries += 1;
            }
            tries
        }
    });
    let (mut random, started) = (Random::new(6), Instant::now());
    while started.elapsed() < Duration::from_secs(1) {
        disk.attach(&first).unwrap().wait();
        thread::sleep(Duration::from_micros(random.below(400)));
        disk.attach(&last).unwrap().wait();
        thread::sleep(Duration::from_micros(random.below(400)));
    }
    stop.store(true, Relaxed);
    assert!(mapping.join().unwrap() > 100);
}
