//! Mappings as plain data: a stale or made-up token does nothing, and a copy only what the
//! original can.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use gasp::ffi::{Token, grace_period};
use gasp::{
    Access, Backing, Deadline, DeviceAddr, DomainKind, DomainOptions, DrainPolicy, Guest,
    GuestPhys, MapFlags, MemoryObject, Unattached, Vdev,
};

fn guest() -> (Guest, Vdev) {
    let guest = Guest::builder().build().unwrap();
    let ram = MemoryObject::ram(1 << 20).prefer(&[Backing::Base]).create().unwrap();
    guest.space().add_ram(None, &ram).unwrap();
    let vdev = guest.vdev("disk").unwrap();
    (guest, vdev)
}

fn token(vdev: &Vdev, addr: u64) -> Token {
    vdev.map(DeviceAddr(addr), 64, MapFlags::RW).unwrap().into_token()
}

#[test]
fn a_token_is_good_until_it_or_a_copy_is_unmapped() {
    let (_guest, vdev) = guest();
    let token = token(&vdev, 0x1000);
    let copy = Token::from_words(token.words());
    assert!(token.pointer().is_some());
    assert_eq!((copy.pointer(), copy.is_revoked()), (token.pointer(), Some(false)));
    assert!(copy.unmap());
    assert_eq!((token.pointer(), token.is_revoked()), (None, None));
    assert!(!token.unmap() && !copy.unmap());
}

#[test]
fn a_token_from_an_earlier_mapping_of_the_slot_is_stale() {
    let (_guest, vdev) = guest();
    let first = token(&vdev, 0x1000);
    assert!(first.unmap());
    let second = token(&vdev, 0x1000);
    assert_eq!(first.words()[0], second.words()[0], "the slot is the same");
    assert!(!first.unmap());
    assert_eq!(first.pointer(), None);
    assert!(second.unmap());
}

#[test]
fn made_up_tokens_do_nothing() {
    let (guest, vdev) = guest();
    let good = token(&vdev, 0x1000);
    let kept = vdev.map(DeviceAddr(0x2000), 64, MapFlags::RW).unwrap();
    let [slot, stamp, pointer] = good.words();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for near in 0..256 {
        for words in [
            [slot, stamp, pointer ^ (1 << (near % 64))],
            [slot, stamp.wrapping_add(2 + near), pointer],
            [slot + 1 + near, stamp, pointer],
            // The kept mapping is not a token, whatever its stamp.
            [slot + near, near, kept.as_ptr().addr() as u64],
            [slot, 0, pointer],
            [near, near, near],
            [u64::MAX - near, u64::MAX, u64::MAX],
        ] {
            let made_up = Token::from_words(words);
            assert_eq!(made_up.pointer(), None, "{words:x?}");
            assert!(!made_up.unmap(), "{words:x?}");
        }
    }
    for _ in 0..1_000_000 {
        assert!(!Token::from_words([random() % 4096, random() % 4096, random()]).unmap());
    }
    assert!(!Token::default().unmap());
    assert!(good.pointer().is_some() && !kept.is_revoked());
    assert!(good.unmap());
    drop((kept, guest));
}

#[test]
fn a_mapping_is_no_token_though_one_of_the_same_address_was_there_before() {
    let (_guest, vdev) = guest();
    let before = token(&vdev, 0x1000);
    assert!(before.unmap());
    // It has the same slot and address, and one of the next stamps.
    let kept = vdev.map(DeviceAddr(0x1000), 64, MapFlags::RW).unwrap();
    let [slot, stamp, pointer] = before.words();
    assert_eq!(kept.as_ptr().addr() as u64, pointer);
    for next in 0..64 {
        let made_up = Token::from_words([slot, stamp + next, pointer]);
        assert_eq!(made_up.pointer(), None, "{next}");
        assert!(!made_up.unmap(), "{next}");
    }
    assert!(token(&vdev, 0x1000).words()[0] != slot, "the slot is still in use");
}

#[test]
fn of_many_threads_that_unmap_one_succeeds() {
    let (_guest, vdev) = guest();
    let (threads, rounds) = (4, 500);
    let barrier = Arc::new(Barrier::new(threads));
    for _ in 0..rounds {
        let token = token(&vdev, 0x1000);
        let ended = Arc::new(AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..threads {
                let (barrier, ended) = (Arc::clone(&barrier), Arc::clone(&ended));
                scope.spawn(move || {
                    barrier.wait();
                    if token.unmap() {
                        ended.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(ended.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn the_next_mapping_of_a_slot_outlives_late_unmaps_of_the_one_before() {
    let guest = Guest::builder().iommu(Unattached::Bypass).build().unwrap();
    let ram = MemoryObject::ram(1 << 20).prefer(&[Backing::Base]).create().unwrap();
    guest.space().add_ram(None, &ram).unwrap();
    let vdev = guest.vdev("disk").unwrap();
    let shared: Arc<[AtomicU64; 3]> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let others: Vec<_> = (0..2)
        .map(|_| {
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let words = [0, 1, 2].map(|word: usize| shared[word].load(Ordering::Relaxed));
                    Token::from_words(words).unmap();
                }
            })
        })
        .collect();
    for _ in 0..100_000 {
        // Every thread may unmap the first; no other has the second, in the same slot.
        let first = token(&vdev, 0x1000);
        shared.iter().zip(first.words()).for_each(|(to, from)| to.store(from, Ordering::Relaxed));
        first.unmap();
        let second = token(&vdev, 0x1000);
        for _ in 0..20 {
            assert!(second.pointer().is_some(), "unmapped by a thread that does not have it");
        }
        assert!(second.unmap());
    }
    stop.store(true, Ordering::Relaxed);
    others.into_iter().for_each(|other| other.join().unwrap());
}

#[test]
fn a_revoke_waits_for_a_token_and_marks_it_if_it_does_not() {
    let detach = DrainPolicy { deadline: Default::default(), at_deadline: Deadline::Detach };
    let guest = Guest::builder().iommu(Unattached::Deny).drain(detach).build().unwrap();
    let ram = MemoryObject::ram(1 << 20).prefer(&[Backing::Base]).create().unwrap();
    guest.space().add_ram(None, &ram).unwrap();
    let vdev = guest.vdev("disk").unwrap();
    let domain = guest.domain("disk", DomainOptions::new(DomainKind::Identity)).unwrap();
    vdev.attach(&domain).unwrap().wait();
    domain.grant_identity(GuestPhys(0), 1 << 20, Access::RW).unwrap();

    let token = token(&vdev, 0x1000);
    let mut drain = domain.revoke(DeviceAddr(0x1000), 4096).unwrap();
    assert_eq!(drain.pending(), 1);
    let drained = drain.wait();
    assert_eq!((drained.holders, drained.detached), (1, 1));
    assert_eq!(token.is_revoked(), Some(true));
    assert!(token.pointer().is_some(), "its memory stays");
    drop((guest, ram, vdev, domain));
    assert!(token.pointer().is_some(), "also after the guest is gone");
    assert!(token.unmap());
}

/// A device in a list, and whether its grace period has not ended yet.
struct Listed {
    vdev: Vdev,
    usable: AtomicBool,
}

#[test]
fn a_device_is_found_and_mapped_through_while_others_remove_it() {
    let (_guest, vdev) = guest();
    // No device is freed, so that a thread that uses one too late reads its `usable`.
    let devices: Vec<Listed> =
        (0..2000).map(|_| Listed { vdev: vdev.clone(), usable: AtomicBool::new(true) }).collect();
    let listed = AtomicUsize::new(usize::MAX);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                let find = || {
                    let device = devices.get(listed.load(Ordering::Acquire))?;
                    // Long enough that it is removed meanwhile.
                    let usable = (0..1000).all(|_| device.usable.load(Ordering::Relaxed));
                    assert!(usable, "used after the grace period");
                    Some(&device.vdev)
                };
                drop(Vdev::map_page_of(find, DeviceAddr(0x1000), 64, MapFlags::RW));
            }
        });
        for (index, device) in devices.iter().enumerate() {
            listed.store(index, Ordering::Release);
            (0..100).for_each(|_| std::hint::spin_loop());
            listed.store(usize::MAX, Ordering::Release);
            grace_period();
            device.usable.store(false, Ordering::Relaxed);
        }
        stop.store(true, Ordering::Release);
    });
}
