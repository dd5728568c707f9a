//! Several threads: one question, one answer; answers on their way; a translator that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use gasp::{Access, DeviceAddr, MapFlags, PageTables, Reason, TranslationFault, Translator, Vdev};
use parking_lot::Mutex;

use super::*;

const READ: MapFlags = MapFlags::READ;

/// A translator that is answered by the test: it sends what it is asked, and waits.
struct Peer {
    asked: Mutex<Sender<(DeviceAddr, Sender<Answer>)>>,
}

impl Translator for Peer {
    fn translate(&self, _: &PageTables<'_>, addr: DeviceAddr, _: Access) -> Answer {
        let (answer, answered) = channel();
        self.asked.lock().send((addr, answer)).unwrap();
        answered.recv_timeout(LONG).unwrap()
    }
}

type Questions = Receiver<(DeviceAddr, Sender<Answer>)>;

fn peer() -> (gasp::Guest, Domain, Vdev, Questions) {
    let (guest, _ram) = iommu_guest(16 * PAGE);
    let (asked, questions) = channel();
    let peer = Arc::new(Peer { asked: Mutex::new(asked) });
    let domain = guest.domain("domain", DomainOptions::ask(peer)).unwrap();
    let disk = guest.vdev("disk").unwrap();
    drop(disk.attach(&domain).unwrap());
    (guest, domain, disk, questions)
}

fn next(questions: &Questions) -> (DeviceAddr, Sender<Answer>) {
    questions.recv_timeout(LONG).unwrap()
}

/// What a map of one byte at a page leads to, on a thread of its own.
fn mapping(disk: &Vdev, page: u64) -> thread::JoinHandle<Result<u64, Reason>> {
    let disk = disk.clone();
    thread::spawn(move || {
        let mapped = disk.map(DeviceAddr(page * PAGE), 1, READ);
        mapped.map(|mapping| mapping.object_offset() / PAGE).map_err(|error| error.reason())
    })
}

fn quiet(questions: &Questions) {
    assert!(questions.recv_timeout(Duration::from_millis(100)).is_err(), "nobody asks");
}

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
fn an_answer_whose_page_is_invalidated_meanwhile_is_asked_for_again() {
    let (_guest, domain, disk, questions) = peer();
    let thread = mapping(&disk, 3);
    let (_, stale) = next(&questions);
    assert!(domain.invalidate(DeviceAddr(3 * PAGE), 1).unwrap().wait().completed());
    // What it is worth now is not known, even if another page is invalidated later.
    stale.send(page(PAGE, 7 * PAGE, Access::READ)).unwrap();
    let (at, answer) = next(&questions);
    assert_eq!((at, domain.entries()), (DeviceAddr(3 * PAGE), 0));
    assert!(domain.invalidate(DeviceAddr(4 * PAGE), 1).unwrap().wait().completed());
    answer.send(page(PAGE, 8 * PAGE, Access::READ)).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(8));
    quiet(&questions);
}

#[test]
fn a_large_answer_of_which_a_part_was_invalidated_meanwhile_is_asked_for_again() {
    let (guest, domain, disk, questions) = peer();
    drop(guest.space().remove(span(0, 16 * PAGE)).unwrap());
    guest.space().add_ram(Some(gasp::GuestPhys(0)), &ram(2 * HUGE)).unwrap();
    let thread = mapping(&disk, 3);
    let (_, answer) = next(&questions);
    drop(domain.invalidate(DeviceAddr(9 * PAGE), 1).unwrap());
    answer.send(page(HUGE, 0, Access::READ)).unwrap();
    let (at, answer) = next(&questions);
    assert_eq!((at, domain.entries()), (DeviceAddr(3 * PAGE), 0));
    // What the invalidation of a part makes void again is the next answer alone.
    answer.send(page(HUGE, 0, Access::READ)).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(3));
    assert_eq!(domain.grants()[0].device, device_span(0, HUGE));
    quiet(&questions);
}

#[test]
fn an_answer_for_several_threads_is_asked_for_again_if_a_part_of_it_was_invalidated() {
    let (guest, domain, disk, questions) = peer();
    drop(guest.space().remove(span(0, 16 * PAGE)).unwrap());
    guest.space().add_ram(Some(gasp::GuestPhys(0)), &ram(2 * HUGE)).unwrap();
    let threads = [mapping(&disk, 3), mapping(&disk, 3)];
    let (_, answer) = next(&questions);
    quiet(&questions);
    drop(domain.invalidate(DeviceAddr(9 * PAGE), 1).unwrap());
    answer.send(page(HUGE, HUGE, Access::READ)).unwrap();
    next(&questions).1.send(page(HUGE, 0, Access::READ)).unwrap();
    assert_eq!(threads.map(|thread| thread.join().unwrap()), [Ok(3), Ok(3)]);
}

#[test]
fn many_invalidations_of_other_pages_do_not_make_an_answer_void() {
    let (_guest, domain, disk, questions) = peer();
    let thread = mapping(&disk, 0);
    let (_, answer) = next(&questions);
    for page in 1..1000 {
        drop(domain.invalidate(DeviceAddr(page * PAGE), 1).unwrap());
    }
    answer.send(page(PAGE, PAGE, Access::READ)).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(1));
    quiet(&questions);
}

#[test]
fn a_map_whose_page_is_invalidated_for_ever_is_refused() {
    let domain: Arc<Mutex<Option<Domain>>> = Arc::default();
    let scene = Scene::new(4 * PAGE, {
        let domain = Arc::clone(&domain);
        move |addr, access| {
            let domain = domain.lock().clone().unwrap();
            drop(domain.invalidate(addr, 1).unwrap());
            same(addr, access)
        }
    });
    *domain.lock() = Some(scene.domain.clone());
    let disk = scene.disk.clone();
    assert_eq!(in_time(move || errno(disk.map(DeviceAddr(0), 1, READ))), "EFAULT");
    assert_eq!(scene.asked.take(), 64);
    *domain.lock() = None;
}

#[test]
fn a_revoke_of_the_page_and_a_change_of_memory_do_not_wait_for_an_answer() {
    let (guest, domain, disk, questions) = peer();
    let thread = mapping(&disk, 3);
    let (_, answer) = next(&questions);
    let (other, _) = device(&guest, "other", gasp::DomainKind::Bypass);
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
}

#[test]
fn a_device_that_is_moved_meanwhile_maps_as_its_new_domain_says() {
    let (guest, _domain, disk, questions) = peer();
    let thread = mapping(&disk, 3);
    let (_, answer) = next(&questions);
    let (_, told) = device(&guest, "other", gasp::DomainKind::Bypass);
    drop(disk.attach(&told).unwrap());
    answer.send(refused(1)).unwrap();
    // The refusal of the domain that it was in is an end as well as any.
    assert!(matches!(thread.join().unwrap(), Ok(3) | Err(Reason::Refused { .. })));
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
fn no_mapping_is_of_what_was_translated_before_the_last_invalidation() {
    const PAGES: u64 = 4;
    let version: Arc<[AtomicU64; PAGES as usize]> = Arc::default();
    let scene = Scene::with_limit(16 * PAGE, 3, {
        let version = Arc::clone(&version);
        move |addr, _| {
            let to = version[(addr.0 / PAGE) as usize].load(Ordering::SeqCst) % 16;
            page(PAGE, to * PAGE, Access::RW)
        }
    });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let devices: Vec<_> = (0..2)
            .map(|seed| {
                let (scene, version, stop) = (&scene, &version, &stop);
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    let mut count = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        let index = random.below(PAGES);
                        let before = version[index as usize].load(Ordering::SeqCst);
                        let Ok(mapping) = scene.disk.map(DeviceAddr(index * PAGE), 1, READ) else {
                            continue;
                        };
                        // The invalidation of the next version waits for this mapping; that of
                        // `before` may be on its way.
                        let now = version[index as usize].load(Ordering::SeqCst);
                        let got = mapping.object_offset() / PAGE;
                        let valid = (before.saturating_sub(1)..=now).any(|v| v % 16 == got);
                        assert!(valid, "{got} of {before} to {now}");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let mut random = Random::new(9);
        for _ in 0..3000 {
            let index = random.below(PAGES);
            version[index as usize].fetch_add(1, Ordering::SeqCst);
            scene.domain.invalidate(DeviceAddr(index * PAGE), 1).unwrap().wait();
            // Complete: what is mapped from now on is this version or a later one.
            let now = version[index as usize].load(Ordering::SeqCst) % 16;
            let mapping = scene.disk.map(DeviceAddr(index * PAGE), 1, READ).unwrap();
            assert_eq!(mapping.object_offset() / PAGE, now);
        }
        stop.store(true, Ordering::Relaxed);
        for device in devices {
            assert!(device.join().unwrap() > 100);
        }
    });
}

#[test]
fn what_was_invalidated_meanwhile_does_not_get_the_access_of_an_older_answer() {
    let (guest, domain, disk, questions) = peer();
    drop(guest.space().remove(span(0, 16 * PAGE)).unwrap());
    guest.space().add_ram(Some(gasp::GuestPhys(0)), &ram(2 * HUGE)).unwrap();
    let answers = |page| next(page).1;
    let writes = thread::spawn({
        let disk = disk.clone();
        move || disk.write(DeviceAddr(3 * PAGE), &[1]).is_ok()
    });
    let older = answers(&questions);
    // The guest takes the access to write another part away.
    drop(domain.invalidate(DeviceAddr(9 * PAGE), 1).unwrap());
    let thread = mapping(&disk, 9);
    answers(&questions).send(page(HUGE, 0, Access::READ)).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(9));
    older.send(page(HUGE, 0, Access::RW)).unwrap();
    answers(&questions).send(page(HUGE, 0, Access::READ)).unwrap();
    assert!(!writes.join().unwrap());
    let [grant] = domain.grants()[..] else { panic!("{:?}", domain.grants()) };
    assert_eq!((grant.device, grant.access), (device_span(0, HUGE), Access::READ));
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
fn each_of_the_ranges_that_are_invalidated_makes_its_answer_void() {
    // The second of two at once; one that is followed by more than are told apart.
    for count in [0, 100] {
        let (_guest, domain, disk, questions) = peer();
        let thread = mapping(&disk, 3);
        let (_, void) = next(&questions);
        for number in 0..count {
            drop(domain.invalidate(DeviceAddr((100 + number) * PAGE), 1).unwrap());
        }
        let both = [device_span(0, PAGE), device_span(3 * PAGE, PAGE)];
        drop(domain.invalidate_ranges(&both).unwrap());
        if count > 0 {
            drop(domain.invalidate(DeviceAddr(1000 * PAGE), 1).unwrap());
        }
        void.send(page(PAGE, 7 * PAGE, Access::READ)).unwrap();
        next(&questions).1.send(page(PAGE, 8 * PAGE, Access::READ)).unwrap();
        assert_eq!(thread.join().unwrap(), Ok(8));
    }
}

#[test]
fn a_page_that_is_invalidated_while_the_next_is_fetched_is_fetched_again() {
    let domain: Arc<Mutex<Option<Domain>>> = Arc::default();
    let scene = Scene::new(4 * PAGE, {
        let domain = Arc::clone(&domain);
        move |addr, access| {
            if addr.0 == PAGE
                && let Some(domain) = domain.lock().take()
            {
                drop(domain.invalidate(DeviceAddr(0), 1).unwrap());
            }
            same(addr, access)
        }
    });
    *domain.lock() = Some(scene.domain.clone());
    scene.disk.map(DeviceAddr(0), 2 * PAGE, READ).unwrap();
    assert_eq!(scene.asked.take(), 3);
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
