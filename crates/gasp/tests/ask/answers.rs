//! What a map that misses gets, and how often the translator is asked for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gasp::{
    Access, DeviceAddr, DomainKind, DomainOptions, GuestPhys, MapFlags, Reason, Refusal,
    TranslationFault,
};

use super::*;

const READ: MapFlags = MapFlags::READ;
const WRITE: MapFlags = MapFlags::WRITE;

#[test]
fn a_page_is_asked_for_once_and_mapped_where_the_answer_leads() {
    let scene = Scene::new(16 * PAGE, |addr, _| page(PAGE, 15 * PAGE - addr.0, Access::RW));
    scene.guest.write_firmware(GuestPhys(12 * PAGE + 8), b"written").unwrap();
    for _ in 0..3 {
        let mapping = scene.disk.map(DeviceAddr(3 * PAGE + 8), 7, MapFlags::RW).unwrap();
        let mut bytes = [0; 7];
        mapping.read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"written");
    }
    assert_eq!((scene.asked.take(), scene.domain.entries()), (1, 1));
    let grants = scene.domain.grants();
    assert_eq!(
        (grants[0].device, grants[0].guest),
        (device_span(3 * PAGE, PAGE), GuestPhys(12 * PAGE))
    );
    scene.disk.write(DeviceAddr(3 * PAGE), b"others").unwrap();
    assert_eq!(scene.asked.take(), 0, "a copy hits as well");
}

#[test]
fn the_translator_is_asked_for_the_page_and_the_access_of_the_map() {
    let scene = Scene::new(16 * PAGE, |addr, access| {
        assert_eq!((addr, access), (DeviceAddr(2 * PAGE), Access::WRITE));
        same(addr, access)
    });
    scene.disk.map(DeviceAddr(2 * PAGE + 9), 4, WRITE).unwrap();
    assert_eq!(scene.asked.take(), 1);
}

#[test]
fn each_map_of_several_pages_asks_for_those_that_are_missing() {
    let scattered = |addr: DeviceAddr, _| page(PAGE, (addr.0 * 3) % (15 * PAGE), Access::RW);
    let scene = Scene::new(16 * PAGE, scattered);
    let whole = DeviceAddr(100);
    scene.disk.map(DeviceAddr(2 * PAGE), 1, READ).unwrap();
    let scatter = scene.disk.map_scatter(whole, 4 * PAGE, READ).unwrap();
    assert_eq!((scatter.pieces().len(), scene.asked.take()), (5, 5), "one of five was there");
    let reason = error(scene.disk.map(whole, 4 * PAGE, READ)).reason();
    assert_eq!(reason, Reason::NotConsecutive { prefix: PAGE - 100 });
    scene.disk.read(DeviceAddr(5 * PAGE - 1), &mut [0; 2]).unwrap();
    assert_eq!(scene.asked.take(), 1);
    assert_eq!(
        scene.disk.map_stitched(DeviceAddr(0), 5 * PAGE, READ).unwrap().len() as u64,
        5 * PAGE
    );
    assert_eq!(scene.asked.take(), 0);
}

#[test]
fn a_refusal_is_efault_with_its_reason_and_a_record_and_is_asked_for_again() {
    let scene = Scene::new(16 * PAGE, |addr, access| match addr.0 {
        0 => same(addr, access),
        _ => refused(7),
    });
    for _ in 0..2 {
        let refused = error(scene.disk.map(DeviceAddr(8), PAGE, READ));
        assert_eq!(refused.errno_name(), "EFAULT");
        let (addr, refusal) = (DeviceAddr(PAGE), by_translator(7));
        assert_eq!(refused.reason(), Reason::Refused { addr, refusal });
        let faults = scene.guest.take_faults().records;
        assert_eq!(faults.len(), 1);
        assert_eq!((faults[0].addr, faults[0].access), (addr, Access::READ));
        assert_eq!((&*faults[0].device, faults[0].refusal), ("disk", refusal));
    }
    assert_eq!(scene.asked.take(), 3, "the page that is allowed once, the other each time");
}

#[test]
fn a_refusal_that_is_kept_is_asked_for_once_until_it_is_invalidated() {
    let scene = Scene::new(16 * PAGE, |_, _| Err(TranslationFault { reason: 9, keep: true }));
    let reason = || error(scene.disk.map(DeviceAddr(PAGE + 5), 1, READ)).reason();
    let wanted = Reason::Refused { addr: DeviceAddr(PAGE + 5), refusal: by_translator(9) };
    assert_eq!((reason(), reason(), reason()), (wanted, wanted, wanted));
    assert_eq!((scene.asked.take(), scene.domain.grants().len()), (1, 0));
    // A change of the guest's memory, at what would be its page if it led anywhere.
    drop(scene.guest.space().remove(span(9 * PAGE, PAGE)).unwrap());
    assert_eq!((reason(), scene.asked.take()), (wanted, 0));
    scene.domain.invalidate(DeviceAddr(PAGE), 1).unwrap().wait();
    assert_eq!((reason(), scene.asked.take()), (wanted, 1));
}

#[test]
fn the_translator_is_told_of_each_refusal_that_is_recorded_and_of_no_other() {
    let scene = Scene::new(16 * PAGE, |addr, access| match addr.0 / PAGE {
        0 => same(addr, access),
        1 => page(PAGE, PAGE, Access::READ),
        2 => refused(7),
        _ => Err(TranslationFault { reason: 9, keep: true }),
    });
    let at = |page| DeviceAddr(page * PAGE + 8);
    let told = || core::mem::take(&mut *scene.asked.told.lock());
    assert!(!scene.disk.allows(at(2), 1, READ) && !scene.disk.allows(at(0), 3 * PAGE, READ));
    scene.disk.map(at(0), 1, MapFlags::RW).unwrap();
    // A shortened map is refused itself, or not at all.
    let flags = READ.any();
    assert_eq!(errno(scene.disk.map_host_contig_truncated(at(2), PAGE, flags)), "EFAULT");
    assert_eq!(told(), [(at(2), Access::READ, by_translator(7))]);
    drop(scene.disk.map_host_contig_truncated(at(0), 3 * PAGE, flags));
    assert_eq!(told(), []);

    error(scene.disk.read(at(0), &mut [0; 3 * PAGE as usize]));
    error(scene.disk.map(at(1), 1, WRITE));
    error(scene.disk.map(at(3), 1, WRITE));
    let access = Refusal::Access { allowed: Access::READ, requested: Access::WRITE };
    let expected = [
        (DeviceAddr(2 * PAGE), Access::READ, by_translator(7)),
        (at(1), Access::WRITE, access),
        (at(3), Access::WRITE, by_translator(9)),
    ];
    assert_eq!(told(), expected);
    let faults = scene.guest.take_faults().records;
    let recorded: Vec<_> = faults.iter().skip(1).map(|f| (f.addr, f.access, f.refusal)).collect();
    assert_eq!(recorded, expected);
}

#[test]
fn what_a_page_does_not_allow_yet_is_asked_for() {
    let allowed = Arc::new(AtomicUsize::new(Access::READ.bits().into()));
    let scene = Scene::new(16 * PAGE, {
        let allowed = Arc::clone(&allowed);
        move |addr, _| {
            let bits = allowed.load(Ordering::SeqCst) as u8;
            page(PAGE, addr.0, Access::from_bits_truncate(bits))
        }
    });
    let at = DeviceAddr(PAGE);
    scene.disk.map(at, 1, READ).unwrap();
    let (allowed_now, requested) = (Access::READ, Access::WRITE);
    let refusal = Refusal::Access { allowed: allowed_now, requested };
    let reason = error(scene.disk.map(at, 1, WRITE)).reason();
    assert_eq!(reason, Reason::Refused { addr: at, refusal });
    assert_eq!(scene.asked.take(), 2);
    // The guest allows more, and need not invalidate anything.
    allowed.store(Access::RW.bits().into(), Ordering::SeqCst);
    scene.disk.map(at, 1, WRITE).unwrap();
    scene.disk.map(at, 1, MapFlags::RW).unwrap();
    assert_eq!((scene.asked.take(), scene.domain.entries()), (1, 1));
    // A page that allows nothing.
    allowed.store(0, Ordering::SeqCst);
    let reason = error(scene.disk.map(DeviceAddr(2 * PAGE), 1, READ)).reason();
    let refusal = Refusal::Access { allowed: Access::empty(), requested: Access::READ };
    assert_eq!(reason, Reason::Refused { addr: DeviceAddr(2 * PAGE), refusal });
    assert_eq!(scene.domain.entries(), 1, "it is not kept");
}

#[test]
fn the_iommu_refuses_before_memory_does() {
    let scene = Scene::new(4 * PAGE, |addr, access| match addr.0 {
        0 => page(PAGE, 1 << 30, Access::RW),
        _ if access.contains(Access::WRITE) => refused(5),
        _ => same(addr, access),
    });
    let reason = |flags| error(scene.disk.map_scatter(DeviceAddr(0), 2 * PAGE, flags)).reason();
    let refused = Reason::Refused { addr: DeviceAddr(PAGE), refusal: by_translator(5) };
    assert_eq!(reason(WRITE), refused);
    assert_eq!(reason(READ), Reason::NoMemory { addr: GuestPhys(1 << 30) });
}

#[test]
fn a_truncated_map_ends_where_the_translator_refuses() {
    let scene = Scene::new(1 << 20, |addr, access| match addr.0 / PAGE {
        0..3 => same(addr, access),
        _ => refused(6),
    });
    let window = window(1 << 20, 1 << 40);
    drop(scene.guest.space().remove(span(0, 1 << 20)).unwrap());
    let region = gasp::Region::pass_through(GuestPhys(0), &window).unwrap();
    scene.guest.space().add(region).unwrap();
    let flags = READ.any();
    let truncated = |at, len| scene.disk.map_host_contig_truncated(DeviceAddr(at), len, flags);
    assert_eq!(truncated(PAGE, 8 * PAGE).unwrap().run().len, 2 * PAGE);
    assert_eq!(scene.asked.take(), 3);
    assert_eq!(scene.guest.take_faults().records, [], "no fault: it was not used");
    let reason = error(scene.disk.map_host_contig(DeviceAddr(0), 8 * PAGE, flags)).reason();
    let at = DeviceAddr(3 * PAGE);
    assert_eq!(reason, Reason::Refused { addr: at, refusal: by_translator(6) });
    let reason = error(truncated(3 * PAGE + 1, PAGE)).reason();
    let at = DeviceAddr(3 * PAGE + 1);
    assert_eq!(reason, Reason::Refused { addr: at, refusal: by_translator(6) });
    scene.asked.take();
    assert_eq!(errno(truncated(3 * PAGE + 1, 2 * PAGE)), "EFAULT");
    assert_eq!(scene.asked.take(), 1, "there is no beginning that could be mapped");
}

#[test]
fn the_first_refusal_after_a_large_page_is_the_reason() {
    let scene = Scene::new(2 * HUGE, |addr, _| match (addr.0 / HUGE, addr.0 % HUGE / PAGE) {
        (0, _) => page(HUGE, 0, Access::RW),
        (_, number) => refused(number as u32),
    });
    let reason = error(scene.disk.map(DeviceAddr(0), HUGE + 2 * PAGE, READ)).reason();
    let addr = DeviceAddr(HUGE);
    assert_eq!(reason, Reason::Refused { addr, refusal: by_translator(0) });
}

#[test]
fn whether_a_range_is_allowed_is_asked_and_no_fault_is_recorded() {
    let scene = Scene::new(16 * PAGE, |addr, access| match addr.0 / PAGE {
        3 => refused(1),
        20 => page(PAGE, 1 << 30, Access::RW),
        _ => same(addr, access),
    });
    let allows =
        |page, pages, flags| scene.disk.allows(DeviceAddr(page * PAGE), pages * PAGE, flags);
    assert!(allows(0, 3, READ) && !allows(1, 3, READ) && !allows(3, 1, READ));
    assert!(!allows(20, 1, READ), "it leads to no memory");
    assert!(allows(4, 1, MapFlags::RW) && !allows(0, u64::MAX / PAGE, READ));
    assert_eq!(scene.guest.take_faults().records, []);
    scene.asked.take();
    assert!(allows(0, 3, READ) && scene.asked.take() == 0);
}

#[test]
fn an_answer_that_is_no_page_is_einval_and_nothing_is_kept() {
    let bad = [
        (PAGE / 2, 0),
        (0, 0),
        (3 * PAGE, 0),
        (u64::MAX, 0),
        (PAGE, 1),
        (PAGE, 1 << 52),
        (1 << 52, PAGE),
        (1 << 63, !(PAGE - 1)),
    ];
    for (size, guest) in bad {
        let scene = Scene::new(4 * PAGE, move |_, _| page(size, guest, Access::RW));
        let refused = error(scene.disk.map(DeviceAddr(0), 1, READ));
        assert_eq!((refused.errno_name(), scene.domain.entries()), ("EINVAL", 0), "{size:#x}");
    }
    let scene = Scene::new(4 * PAGE, |_, _| page(1 << 51, 1 << 51, Access::RW));
    let reason = error(scene.disk.map(DeviceAddr(PAGE), 1, READ)).reason();
    let leads = GuestPhys((1 << 51) + PAGE);
    assert_eq!(
        reason,
        Reason::NoMemory { addr: leads },
        "a page of any size is one, memory or not"
    );
}

#[test]
fn only_a_domain_that_asks_has_a_translator() {
    let (guest, _ram) = iommu_guest(PAGE);
    let create = |options| errno(guest.domain("domain", options));
    assert_eq!(create(DomainOptions::new(DomainKind::Ask)), "EINVAL");
    let translator = DomainOptions::ask(Arc::new(Asked {
        count: 0.into(),
        told: Mutex::default(),
        answer: same,
    }));
    for kind in DomainKind::ALL {
        assert_eq!(create(DomainOptions { kind, ..translator.clone() }), "EINVAL");
    }
    let domain = guest.domain("asks", translator).unwrap();
    assert_eq!(domain.kind(), DomainKind::Ask);
    assert_eq!(errno(domain.grant_identity(GuestPhys(0), PAGE, Access::READ)), "EINVAL");
    assert_eq!(errno(domain.revoke(DeviceAddr(0), PAGE)), "EINVAL");
    let told = guest.domain("told", DomainOptions::new(DomainKind::Translate)).unwrap();
    assert_eq!(errno(told.invalidate(DeviceAddr(0), PAGE)), "EINVAL");
    assert_eq!(errno(domain.invalidate(DeviceAddr(0), 0)), "EINVAL");
    assert_eq!(errno(domain.invalidate(DeviceAddr(PAGE), u64::MAX)), "ENXIO");
}

#[test]
fn a_page_all_of_which_is_allowed_more_stays_one_entry() {
    let scene = Scene::new(HUGE, |_, access| page(HUGE, 0, access | Access::READ));
    for flags in [READ, WRITE] {
        drop(scene.disk.map(DeviceAddr(5 * PAGE), 1, flags).unwrap());
        assert_eq!((scene.asked.take(), scene.domain.entries()), (1, 1));
    }
    drop(scene.disk.map(DeviceAddr(9 * PAGE), 1, MapFlags::RW).unwrap());
    assert_eq!(scene.asked.take(), 0);
}
