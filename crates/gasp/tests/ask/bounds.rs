//! The bound on what a domain keeps, and what is evicted for it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gasp::{DeviceAddr, MapFlags, Mapping, Reason};

use super::*;

const READ: MapFlags = MapFlags::READ;

fn map<F>(scene: &Scene<F>, page: u64) -> Mapping {
    scene.disk.map(DeviceAddr(page * PAGE), 1, READ).unwrap()
}

#[test]
fn a_guest_that_walks_its_space_does_not_grow_the_table() {
    const LIMIT: u64 = 64;
    let scene = Scene::with_limit(PAGE << 12, LIMIT, same);
    let mut bytes = 0;
    for round in 0..3 {
        for page in 0..1 << 12 {
            drop(map(&scene, page));
            assert!(scene.domain.entries() <= LIMIT);
        }
        bytes = if round == 0 { scene.domain.table_bytes() } else { bytes };
    }
    assert!(scene.domain.table_bytes() <= bytes, "what is evicted is freed");
    assert_eq!(scene.asked.take(), 3 << 12);
    // One entry for each GiB of 48 bits, in nodes of their own.
    let wide = Scene::with_limit(PAGE, LIMIT, |_, _| page(PAGE, 0, Access::RW));
    for gib in (0..1_u64 << 18).step_by(97) {
        wide.disk.map(DeviceAddr(gib << 30), 1, READ).unwrap();
    }
    assert!(wide.domain.entries() <= LIMIT && wide.domain.table_bytes() < 256 << 10);
}

#[test]
fn what_is_held_is_not_evicted() {
    const LIMIT: u64 = 64;
    let scene = Scene::with_limit(PAGE << 10, LIMIT, same);
    // By the first byte of a page, or by the last.
    let at = |page: u64| DeviceAddr(page * 3 * PAGE + page % 2 * (PAGE - 1));
    let held: Vec<_> = (0..20).map(|page| scene.disk.map(at(page), 1, READ).unwrap()).collect();
    (0..1 << 10).for_each(|page| drop(map(&scene, page)));
    let there: HashSet<_> = scene.domain.grants().iter().flat_map(pages).collect();
    assert!((0..20).all(|page| there.contains(&(page * 3))), "{there:?}");
    // So memory that goes finds them.
    let mut drain = scene.guest.space().remove(span(0, 60 * PAGE)).unwrap();
    assert_eq!(drain.pending(), 20);
    drop(held);
    drain.wait();
}

fn pages(grant: &gasp::Grant) -> std::ops::Range<u64> {
    let first = grant.device.start().0 / PAGE;
    first..first + grant.device.len() / PAGE
}

#[test]
fn a_domain_full_of_what_is_held_refuses_more_with_enospc() {
    const LIMIT: u64 = 32;
    let scene = Scene::with_limit(PAGE << 10, LIMIT, same);
    let mut held: Vec<_> = (0..LIMIT).map(|page| map(&scene, page)).collect();
    for _ in 0..3 {
        let refused = error(scene.disk.map(DeviceAddr(100 * PAGE), 1, READ));
        assert!(matches!(refused.reason(), Reason::Limit { limit: LIMIT, .. }), "{refused}");
        assert_eq!(refused.errno_name(), "ENOSPC");
    }
    held.pop();
    drop(map(&scene, 100));
    assert_eq!(scene.domain.entries(), LIMIT);
}

#[test]
fn a_map_of_as_many_pages_as_the_limit_has_them_all_at_once() {
    const LIMIT: u64 = 200;
    // Every second page, so that none joins the next.
    let scattered = |addr: DeviceAddr, _| page(PAGE, addr.0 * 2, Access::RW);
    let scene = Scene::with_limit(PAGE << 10, LIMIT, scattered);
    let map = |first, count| scene.disk.map_scatter(DeviceAddr(first * PAGE), count * PAGE, READ);
    for first in [0, 150, 77, 0, 312] {
        assert_eq!(map(first, LIMIT).unwrap().pieces().len() as u64, LIMIT);
    }
    assert_eq!(error(map(0, LIMIT + 1)).errno_name(), "ENOSPC");
    assert_eq!(map(5, LIMIT).unwrap().pieces().len() as u64, LIMIT);
    // A range of any length is refused after as many.
    scene.asked.take();
    assert_eq!(error(scene.disk.map_scatter(DeviceAddr(0), 1 << 40, READ)).errno_name(), "ENOSPC");
    assert!(scene.asked.take() as u64 <= LIMIT + 1);
}

#[test]
fn a_truncated_map_ends_where_the_limit_does() {
    const LIMIT: u64 = 16;
    let scene = Scene::with_limit(PAGE, LIMIT, same);
    drop(scene.guest.space().remove(span(0, PAGE)).unwrap());
    let window = window(64 * PAGE, 1 << 40);
    let region = gasp::Region::pass_through(gasp::GuestPhys(0), &window).unwrap();
    scene.guest.space().add(region).unwrap();
    let map = |pages| scene.disk.map_host_contig_truncated(DeviceAddr(0), pages * PAGE, READ.any());
    assert_eq!(map(LIMIT).unwrap().run().len, LIMIT * PAGE);
    let shortened = map(64).unwrap();
    assert!((PAGE..=LIMIT * PAGE).contains(&shortened.run().len), "{:?}", shortened.run());
    let whole = scene.disk.map_host_contig(DeviceAddr(0), 64 * PAGE, READ.any());
    assert_eq!(errno(whole), "ENOSPC");
}

#[test]
fn a_map_that_may_end_early_asks_for_little_more_than_it_gets() {
    // The memory behind the page of this number is elsewhere.
    for broken in [2_u64, 20, 1000] {
        let scene = Scene::with_limit(PAGE, 1 << 20, move |addr, _| {
            let at = addr.0 / PAGE;
            page(PAGE, (if at < broken { at } else { at + 1 } % 1024) * PAGE, Access::RW)
        });
        drop(scene.guest.space().remove(span(0, PAGE)).unwrap());
        let region = gasp::Region::pass_through(gasp::GuestPhys(0), &window(1024 * PAGE, 1 << 40));
        scene.guest.space().add(region.unwrap()).unwrap();
        let all = 1 << 30;
        let mapped = scene.disk.map_host_contig_truncated(DeviceAddr(0), all, READ.any()).unwrap();
        assert_eq!(mapped.run().len, broken * PAGE);
        let asked = scene.asked.take() as u64;
        assert!((broken + 1..=2 * broken + 8).contains(&asked), "{asked} for {broken}");
    }
}

#[test]
fn a_domain_counts_what_it_asks_evicts_and_is_told_to_invalidate() {
    let scene = Scene::with_limit(64 * PAGE, 16, same);
    let counts = || {
        let gasp::AskCounts { asked, evicted, invalidations } = scene.domain.ask_counts().unwrap();
        (asked, evicted, invalidations)
    };
    assert_eq!(counts(), (0, 0, 0));
    (0..20).for_each(|page| drop(map(&scene, page)));
    let there = scene.domain.entries();
    assert_eq!(counts(), (20, 20 - there, 0));
    drop(map(&scene, 19));
    let spans = [device_span(0, PAGE), device_span(19 * PAGE, PAGE)];
    scene.domain.invalidate_ranges(&spans).unwrap().wait();
    assert_eq!(counts(), (20, 20 - there, 1), "an invalidation is no eviction");
    let told = scene.guest.domain("told", DomainOptions::new(gasp::DomainKind::Translate)).unwrap();
    assert_eq!(told.ask_counts(), None);
}

#[test]
fn kept_refusals_count_and_are_evicted_as_others() {
    const LIMIT: u64 = 16;
    let keep = |_, _| Err(TranslationFault { reason: 1, keep: true });
    let scene = Scene::with_limit(PAGE, LIMIT, keep);
    for page in 0..1000 {
        assert_eq!(errno(scene.disk.map(DeviceAddr(page * PAGE), 1, READ)), "EFAULT");
        assert!(scene.domain.entries() <= LIMIT);
    }
    assert_eq!(scene.asked.take(), 1000);
}

#[test]
fn a_domain_full_of_what_is_held_refuses_more_in_little_time() {
    // The time of the refusal is that of a look at each word, not at each word and each mapping.
    let time = |limit| {
        let wraps = |addr: DeviceAddr, _| page(PAGE, addr.0 % (16 * PAGE), Access::RW);
        let scene = Scene::with_limit(16 * PAGE, limit, wraps);
        let held: Vec<_> = (0..limit).map(|page| map(&scene, page)).collect();
        let refused = || {
            let started = Instant::now();
            assert_eq!(errno(scene.disk.map(DeviceAddr(limit * PAGE), 1, READ)), "ENOSPC");
            started.elapsed()
        };
        let time = (0..5).map(|_| refused()).min().unwrap();
        drop(held);
        time
    };
    let (few, many) = (time(512), time(1 << 14));
    assert!(many < few * 400, "with 512 words {few:?}, with 16,384 {many:?}");
}

#[test]
fn a_page_of_a_larger_one_gets_more_access_however_small_the_limit_is() {
    for limit in [1, 64] {
        let writes = Arc::new(AtomicBool::new(false));
        let scene = Scene::with_limit(HUGE, limit, {
            let writes = Arc::clone(&writes);
            move |addr, _| match writes.load(Ordering::SeqCst) {
                true => page(PAGE, addr.0, Access::RW),
                false => page(HUGE, 0, Access::READ),
            }
        });
        let held = map(&scene, 9);
        writes.store(true, Ordering::SeqCst);
        // A cut takes 512 words, and what is held stays.
        assert_eq!(errno(scene.disk.write(DeviceAddr(PAGE), &[1])), "ENOSPC");
        drop(held);
        scene.disk.write(DeviceAddr(PAGE), &[1]).unwrap();
        assert_eq!(scene.domain.grants()[0].device, device_span(PAGE, PAGE));
    }
}

#[test]
fn a_page_of_a_large_one_is_allowed_more_if_the_limit_leaves_room_for_the_parts() {
    for (limit, has_room) in [(511, false), (512, true)] {
        let scene = Scene::with_limit(HUGE, limit, |addr, access| match access {
            Access::READ => page(HUGE, 0, Access::READ),
            _ => page(PAGE, addr.0, access | Access::READ),
        });
        let held = map(&scene, 0);
        assert_eq!(scene.domain.entries(), 1);
        let write = |number| scene.disk.map(DeviceAddr(number * PAGE), 1, MapFlags::WRITE);
        if !has_room {
            assert_eq!(errno(write(3)), "ENOSPC");
            assert_eq!(scene.domain.entries(), 1);
            continue;
        }
        drop(write(3).unwrap());
        assert_eq!((scene.domain.entries(), scene.asked.take()), (512, 2));
        drop(write(4).unwrap());
        assert_eq!(scene.asked.take(), 1, "the others are as they were");
        // An entry that is one already takes no room.
        assert_eq!(scene.domain.entries(), 512);
        drop(held);
    }
}

#[test]
fn an_eviction_looks_for_what_is_not_held_before_the_place_where_the_last_ended() {
    const LIMIT: u64 = 16;
    let scene = Scene::with_limit(PAGE << 10, LIMIT, same);
    let map = |page| map(&scene, page);
    let mut held: Vec<_> = (2..LIMIT).map(map).collect();
    drop((map(0), map(1)));
    // Evicts what is before those that are held.
    held.push(map(LIMIT));
    drop(map(0));
    assert_eq!((scene.asked.take(), scene.domain.entries()), (18, LIMIT));
    drop(map(1));
    assert_eq!((scene.asked.take(), scene.domain.entries()), (1, LIMIT));
    drop(held);
}

#[test]
fn what_a_table_outgrows_is_freed_while_it_grows() {
    const NODES: u64 = 96;
    let scene = Scene::new(PAGE, |_, _| page(PAGE, 0, Access::RW));
    (0..NODES * 512).for_each(|page| drop(map(&scene, page)));
    assert_eq!(scene.domain.entries(), NODES * 512);
    // What is in use, and less than 64 KiB that are not freed yet.
    let bytes = scene.domain.table_bytes() as u64;
    assert!(bytes < NODES * PAGE + (80 << 10), "{bytes}");
}

#[test]
fn what_an_eviction_puts_back_does_not_count() {
    let scene = Scene::with_limit(64 * PAGE, 16, same);
    let held = map(&scene, 0);
    (1..40).for_each(|page| drop(map(&scene, page)));
    let counts = scene.domain.ask_counts().unwrap();
    assert_eq!((counts.asked, counts.evicted), (40, 40 - scene.domain.entries()));
    drop(held);
}

#[test]
fn the_mappings_of_another_domain_keep_nothing() {
    const LIMIT: u64 = 16;
    let scene = Scene::with_limit(64 * PAGE, LIMIT, same);
    let (other, _domain) = device(&scene.guest, "other", gasp::DomainKind::Bypass);
    let held = other.map(DeviceAddr(0), 64 * PAGE, READ).unwrap();
    (0..64).for_each(|page| drop(map(&scene, page)));
    assert_eq!((scene.asked.take(), scene.domain.entries() <= LIMIT), (64, true));
    drop(held);
}

#[test]
fn an_eviction_goes_on_at_the_first_page_after_the_last_of_all() {
    let scene = Scene::with_limit(PAGE, 1, |_, _| page(PAGE, 0, Access::RW));
    let last = (1 << 48) / PAGE - 1;
    for page in [last - 1, last, 0, 1, last, 2] {
        drop(map(&scene, page));
        assert_eq!(scene.domain.entries(), 1);
    }
}

#[test]
fn what_a_map_has_of_its_range_is_not_evicted_for_the_rest() {
    let scene = Scene::with_limit(PAGE << 8, 16, same);
    (0..8).chain(100..108).for_each(|page| drop(map(&scene, page)));
    scene.asked.take();
    // The search begins at the first page, which the map needs.
    scene.disk.map(DeviceAddr(0), 10 * PAGE, READ).unwrap();
    assert_eq!(scene.asked.take(), 2);
}

#[test]
fn what_a_long_mapping_holds_is_not_evicted_though_a_short_one_in_it_ends_before() {
    let scene = Scene::with_limit(PAGE << 8, 64, same);
    let long = scene.disk.map(DeviceAddr(0), 10 * PAGE, READ).unwrap();
    let short = map(&scene, 2);
    (10..1 << 8).for_each(|page| drop(map(&scene, page)));
    let there: HashSet<_> = scene.domain.grants().iter().flat_map(pages).collect();
    assert!((0..10).all(|page| there.contains(&page)), "{there:?}");
    drop((long, short));
}
