//! Several threads: one question, one answer; a translator that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use gasp::{Access, DeviceAddr, MapFlags, Reason, TranslationFault, Vdev};
use parking_lot::Mutex;

use super::peer::{READ, mapping, next, peer, quiet};
use super::*;

#[test]
fn one_question_and_one_answer_for_all_that_miss_the_same_page() {
    let (_guest, _domain, disk, questions) = peer();
    let all: Vec<_> = (0..4).map(|_| mapping(&disk, 3)).collect();
    let (at, answer) = next(&questions);
    assert_eq!(at, DeviceAddr(3 * PAGE));
    quiet(&questions);
    answer.send(page(PAGE, 7 * PAGE, Access::READ)).unwrap();
    all.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), Ok(7)));
    quiet(&questions);
}

#[test]
fn a_refusal_is_one_answer_for_all_as_well() {
    let (guest, _domain, disk, questions) = peer();
    let all: Vec<_> = (0..4).map(|_| mapping(&disk, 3)).collect();
    let (addr, answer) = next(&questions);
    // All have asked by now, or they would ask once more.
    quiet(&questions);
    answer.send(refused(3)).unwrap();
    for thread in all {
        let wanted = Reason::Refused { addr, refusal: by_translator(3) };
        assert_eq!(thread.join().unwrap(), Err(wanted));
    }
    assert_eq!(guest.take_faults().records.len(), 4, "a record for each access");
}

#[test]
fn pages_and_accesses_are_asked_for_at_the_same_time() {
    let (_guest, _domain, disk, questions) = peer();
    let (one, other) = (mapping(&disk, 1), mapping(&disk, 2));
    let writes = thread::spawn({
        let disk = disk.clone();
        move || disk.write(DeviceAddr(PAGE), &[1]).is_ok()
    });
    let mut answers: Vec<_> = (0..3).map(|_| next(&questions)).collect();
    answers.sort_by_key(|&(addr, _)| addr);
    for (addr, answer) in answers.into_iter().rev() {
        answer.send(page(PAGE, addr.0, Access::RW)).unwrap();
    }
    assert_eq!((one.join().unwrap(), other.join().unwrap()), (Ok(1), Ok(2)));
    assert!(writes.join().unwrap());
}

#[test]
fn a_revoke_of_the_page_and_a_change_of_memory_do_not_wait_for_an_answer() {
    let (guest, domain, disk, questions) = peer();
    let thread = mapping(&disk, 3);
    let (_, answer) = next(&questions);
    let (other, _) = device(&guest, "other", gasp::DomainKind::Bypass);
    let counted = domain.clone();
    let changed = thread::spawn(move || {
        domain.invalidate_all().unwrap().wait();
        guest.space().remove(span(8 * PAGE, 8 * PAGE)).unwrap().wait();
        drop(other.map(DeviceAddr(0), 1, READ).unwrap());
        drop(domain.grants());
    });
    in_time(move || changed.join().unwrap());
    answer.send(page(PAGE, 7 * PAGE, Access::READ)).unwrap();
    next(&questions).1.send(page(PAGE, 9 * PAGE, Access::READ)).unwrap();
    let addr = gasp::GuestPhys(9 * PAGE);
    assert_eq!(thread.join().unwrap(), Err(Reason::NoMemory { addr }), "as memory is by now");
    assert_eq!(counted.ask_counts().unwrap().asked, 2, "the answer that was void included");
}

#[test]
fn a_device_that_is_moved_meanwhile_maps_as_its_new_domain_says() {
    let (guest, _domain, disk, questions) = peer();
    let thread = mapping(&disk, 3);
    let (_, answer) = next(&questions);
    let (_, told) = device(&guest, "other", gasp::DomainKind::Bypass);
    drop(disk.attach(&told).unwrap());
    answer.send(refused(1)).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(3));
    assert_eq!(mapping(&disk, 3).join().unwrap(), Ok(3));
    quiet(&questions);
}

#[test]
fn a_translator_that_panics_ends_its_own_map_alone() {
    let (asks, go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let first = Arc::new(AtomicBool::new(true));
    let scene = Scene::new(4 * PAGE, {
        let (asks, go) = (Arc::clone(&asks), Arc::clone(&go));
        move |addr, access| {
            if !first.swap(false, Ordering::SeqCst) {
                return same(addr, access);
            }
            asks.store(true, Ordering::SeqCst);
            assert!(eventually(|| go.load(Ordering::SeqCst)));
            panic!("a translator panics, as it should in this test")
        }
    });
    let panics = {
        let disk = scene.disk.clone();
        thread::spawn(move || {
            catch_unwind(AssertUnwindSafe(|| drop(disk.map(DeviceAddr(0), 1, READ)))).is_err()
        })
    };
    assert!(eventually(|| asks.load(Ordering::SeqCst)));
    let waits = mapping(&scene.disk, 0);
    thread::sleep(Duration::from_millis(50));
    go.store(true, Ordering::SeqCst);
    assert!(panics.join().unwrap());
    assert_eq!(in_time(move || waits.join().unwrap()), Ok(0), "it asks itself");
}

#[test]
fn a_translator_that_maps_what_it_translates_is_edeadlk() {
    let disk: Arc<Mutex<Option<Vdev>>> = Arc::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let scene = Scene::new(4 * PAGE, {
        let (disk, seen) = (Arc::clone(&disk), Arc::clone(&seen));
        move |addr, access| {
            let disk = disk.lock().clone().unwrap();
            let map = |page| disk.map(DeviceAddr(page * PAGE), 1, READ).map(drop);
            if addr.0 == 0 {
                seen.lock().extend(
                    [map(0), map(1)].map(|mapped| mapped.map_err(|error| error.errno_name())),
                );
            }
            same(addr, access)
        }
    });
    *disk.lock() = Some(scene.disk.clone());
    let mapped = scene.disk.clone();
    in_time(move || drop(mapped.map(DeviceAddr(0), 1, READ).unwrap()));
    assert_eq!(*seen.lock(), [Err("EDEADLK"), Ok(())], "another page is no deadlock");
    *disk.lock() = None;
}

#[test]
fn translators_that_map_what_the_other_translates_do_not_wait_for_each_other() {
    let disk: Arc<Mutex<Option<Vdev>>> = Arc::default();
    let both = Arc::new(std::sync::Barrier::new(2));
    let nested = Arc::new(AtomicU64::new(0));
    let scene = Scene::new(4 * PAGE, {
        let (disk, nested) = (Arc::clone(&disk), Arc::clone(&nested));
        move |addr, access| {
            let disk = disk.lock().clone().unwrap();
            if nested.fetch_add(1, Ordering::SeqCst) < 2 {
                both.wait();
                drop(disk.map(DeviceAddr(addr.0 ^ PAGE), 1, READ));
            }
            same(addr, access)
        }
    });
    *disk.lock() = Some(scene.disk.clone());
    let threads = [0, 1].map(|page| mapping(&scene.disk, page));
    let mapped = in_time(move || threads.map(|thread| thread.join().unwrap()));
    assert_eq!(mapped, [Ok(0), Ok(1)]);
    *disk.lock() = None;
}

#[test]
fn an_answer_that_leads_elsewhere_does_not_refuse_what_is_allowed() {
    let (_guest, _domain, disk, questions) = peer();
    let reads = mapping(&disk, 3);
    let (_, read) = next(&questions);
    let writes = thread::spawn({
        let disk = disk.clone();
        move || disk.write(DeviceAddr(3 * PAGE), &[1]).map_err(|error| error.reason())
    });
    let (_, write) = next(&questions);
    read.send(page(PAGE, 7 * PAGE, Access::RW)).unwrap();
    assert_eq!(reads.join().unwrap(), Ok(7));
    // The guest has changed the translation meanwhile, and has not invalidated it yet.
    write.send(page(PAGE, 8 * PAGE, Access::RW)).unwrap();
    assert_eq!(writes.join().unwrap(), Ok(()));
    assert_eq!(mapping(&disk, 3).join().unwrap(), Ok(7));
}

/// Whether one byte can be written at a page, on a thread of its own.
fn writing(disk: &Vdev, page: u64) -> thread::JoinHandle<bool> {
    let disk = disk.clone();
    thread::spawn(move || disk.write(DeviceAddr(page * PAGE), &[1]).is_ok())
}

#[test]
fn the_answer_of_a_domain_that_was_removed_is_not_kept() {
    let (_guest, domain, disk, questions) = peer();
    let thread = mapping(&disk, 3);
    let (_, void) = next(&questions);
    drop(disk.detach());
    let removed = domain.clone();
    domain.remove().unwrap();
    void.send(page(PAGE, 7 * PAGE, Access::READ)).unwrap();
    next(&questions).1.send(page(PAGE, 7 * PAGE, Access::READ)).unwrap();
    assert!(matches!(thread.join().unwrap(), Err(Reason::Refused { .. })));
    assert_eq!(removed.entries(), 0);
}

#[test]
fn a_translation_and_a_refusal_of_the_same_page_are_one_entry_that_translates() {
    for refusal_first in [false, true] {
        let (_guest, domain, disk, questions) = peer();
        let reads = mapping(&disk, 3);
        let (_, to_read) = next(&questions);
        let writes = writing(&disk, 3);
        let (_, to_write) = next(&questions);
        // The node that the entry goes to is there.
        let other = mapping(&disk, 4);
        next(&questions).1.send(page(PAGE, 0, Access::READ)).unwrap();
        assert_eq!(other.join().unwrap(), Ok(0));
        let read = || to_read.send(page(PAGE, 7 * PAGE, Access::READ)).unwrap();
        let refuse = || to_write.send(Err(TranslationFault { reason: 5, keep: true })).unwrap();
        if refusal_first {
            refuse();
            assert!(!writes.join().unwrap());
            read();
            assert_eq!(reads.join().unwrap(), Ok(7));
        } else {
            read();
            assert_eq!(reads.join().unwrap(), Ok(7));
            refuse();
            assert!(!writes.join().unwrap());
        }
        assert_eq!(domain.entries(), 2, "refused first: {refusal_first}");
        assert_eq!(mapping(&disk, 3).join().unwrap(), Ok(7));
        quiet(&questions);
    }
}

#[test]
fn what_a_map_has_fetched_is_not_evicted_by_others_before_it_has_all() {
    let disk: Arc<Mutex<Option<Vdev>>> = Arc::default();
    let scene = Scene::with_limit(PAGE << 8, 16, {
        let disk = Arc::clone(&disk);
        move |addr, access| {
            let taken = if addr.0 == 7 * PAGE { disk.lock().take() } else { None };
            for page in taken.iter().flat_map(|_| 100..140) {
                let disk = taken.as_ref().unwrap();
                drop(disk.map(DeviceAddr(page * PAGE), 1, READ).unwrap());
            }
            same(addr, access)
        }
    });
    *disk.lock() = Some(scene.disk.clone());
    scene.disk.map(DeviceAddr(0), 8 * PAGE, READ).unwrap();
    assert_eq!(scene.asked.take(), 8 + 40, "each once");
}

#[test]
fn a_range_that_is_fetched_does_not_keep_what_it_has_not_come_to() {
    let disk: Arc<Mutex<Option<Vdev>>> = Arc::default();
    let scene = Scene::with_limit(PAGE << 8, 16, {
        let disk = Arc::clone(&disk);
        move |addr, access| {
            let taken = if addr.0 == PAGE { disk.lock().take() } else { None };
            for page in taken.iter().flat_map(|_| 100..140) {
                let disk = taken.as_ref().unwrap();
                drop(disk.map(DeviceAddr(page * PAGE), 1, READ).unwrap());
            }
            if addr.0 > 8 * PAGE && addr.0 < 100 * PAGE { refused(1) } else { same(addr, access) }
        }
    });
    *disk.lock() = Some(scene.disk.clone());
    assert_eq!(errno(scene.disk.map(DeviceAddr(0), 1 << 40, READ)), "EFAULT");
}

#[test]
fn the_page_of_a_question_is_not_evicted_before_its_answer_has_been_used() {
    let disk: Arc<Mutex<Option<Vdev>>> = Arc::default();
    let scene = Scene::with_limit(PAGE << 8, 16, {
        let disk = Arc::clone(&disk);
        move |addr, access| {
            if access == Access::WRITE {
                let disk = disk.lock().take().unwrap();
                for page in (100..140).chain([0]) {
                    drop(disk.map(DeviceAddr(page * PAGE), 1, READ).unwrap());
                }
            }
            page(PAGE, addr.0, access | Access::READ)
        }
    });
    drop(scene.disk.map(DeviceAddr(0), 1, READ).unwrap());
    *disk.lock() = Some(scene.disk.clone());
    drop(scene.disk.map(DeviceAddr(0), 1, MapFlags::WRITE).unwrap());
    assert_eq!(scene.asked.take(), 1 + 1 + 40, "what can be read of it is there still");
}
