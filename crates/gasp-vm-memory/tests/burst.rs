//! What a burst lends, refuses, and holds.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use gasp::{
    Access, Adopt, Deadline, DeviceAddr, DomainKind, DomainOptions, DrainPolicy, Errno, Guest,
    GuestPhys, Location, MemoryObject, Residency,
};
use gasp_vm_memory::{Burst, DeviceMemory, Refused};
use support::{PAGE, PAGES, guest, guest_with, ram, scattered, target};
use vm_memory::bitmap::{AtomicBitmap, Bitmap};
use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryError, Permissions,
};

/// The error of gasp that vm-memory's carries.
fn carried<E: std::error::Error + 'static>(error: &GuestMemoryError) -> &E {
    let GuestMemoryError::IOError(error) = error else { panic!("{error}") };
    error.get_ref().unwrap().downcast_ref().unwrap()
}

fn lens(burst: &impl GuestMemory, addr: u64, count: usize) -> Vec<usize> {
    let slices = burst.get_slices(GuestAddress(addr), count, Permissions::Read).unwrap();
    slices.map(|slice| slice.unwrap().len()).collect()
}

#[test]
fn bytes_go_where_the_iommu_leads_across_scattered_pages() {
    let guest = guest();
    let memory = DeviceMemory::new(scattered(&guest).0);
    let written: Vec<u8> = (0..3 * PAGE).map(|byte| (byte % 251) as u8).collect();
    let addr = PAGE + 100;
    memory.burst().write_slice(&written, GuestAddress(addr)).unwrap();
    for (offset, &byte) in written.iter().enumerate() {
        let (page, within) = ((addr + offset as u64) / PAGE, (addr + offset as u64) % PAGE);
        let mut read = [0];
        guest.read_firmware(GuestPhys(target(page).0 + within), &mut read).unwrap();
        assert_eq!(read[0], byte, "offset {offset}");
    }
    let mut read = vec![0; written.len()];
    memory.burst().read_slice(&mut read, GuestAddress(addr)).unwrap();
    assert_eq!(read, written);
}

#[test]
fn slices_have_the_lengths_of_their_pieces_and_nothing_has_none() {
    let guest = guest();
    let burst = DeviceMemory::new(scattered(&guest).0).burst();
    assert_eq!(lens(&burst, 0, 0), [0; 0]);
    assert_eq!(lens(&burst, 10, 20), [20]);
    assert_eq!(lens(&burst, PAGE - 1, 1), [1]);
    assert_eq!(lens(&burst, 0, PAGE as usize), [PAGE as usize]);
    assert_eq!(lens(&burst, PAGE - 1, 2), [1, 1]);
    assert_eq!(lens(&burst, 100, 2 * PAGE as usize), [3996, 4096, 100]);
    assert_eq!(lens(&burst, 200, 2 * PAGE as usize), [3896, 4096, 200], "not the range before");
    // Nothing at an address that is not granted is nothing, too.
    assert_eq!(lens(&burst, u64::MAX, 0), [0; 0]);
}

#[test]
fn what_the_iommu_refuses_is_the_engines_error_and_a_fault_record() {
    let guest = guest();
    let (vdev, domain) = scattered(&guest);
    domain.revoke(DeviceAddr(0), PAGE).unwrap().wait();
    domain.grant(DeviceAddr(0), GuestPhys(0), PAGE, Access::READ).unwrap();
    let burst = DeviceMemory::new(vdev).burst();
    burst.read_obj::<u8>(GuestAddress(0)).unwrap();
    let refusals = [
        burst.write_obj(1_u8, GuestAddress(24)).unwrap_err(),
        burst.read_obj::<u8>(GuestAddress(PAGES * PAGE + 8)).unwrap_err(),
        burst.read_slice(&mut [0; 8], GuestAddress(PAGES * PAGE - 4)).unwrap_err(),
    ];
    for refusal in &refusals {
        assert_eq!(carried::<gasp::Error>(refusal).errno(), Errno::FAULT);
        assert!(refusal.to_string().contains("dev"), "{refusal}");
    }
    // Each is a fault at the address of the access.
    let faults = guest.take_faults().records.into_iter();
    let faults: Vec<u64> = faults.map(|fault| fault.addr.0).collect();
    assert_eq!(faults, [24, PAGES * PAGE + 8, PAGES * PAGE]);
    let lens = refusals.iter().map(|refusal| carried::<gasp::Error>(refusal).len());
    assert_eq!(lens.collect::<Vec<_>>(), [1, 1, 8]);
    // What may be written may not be read, whether the page is held or not.
    domain.revoke(DeviceAddr(PAGE), PAGE).unwrap().wait();
    domain.grant(DeviceAddr(PAGE), GuestPhys(0), PAGE, Access::WRITE).unwrap();
    burst.write_obj(1_u8, GuestAddress(PAGE)).unwrap();
    let held = |access| burst.get_slices(GuestAddress(PAGE), 8, access).is_ok();
    assert!(held(Permissions::Write) && !held(Permissions::ReadWrite) && !held(Permissions::Read));
    // Whoever asks for no access is content with any.
    assert!(held(Permissions::No) && burst.check_range(GuestAddress(PAGE), 8, Permissions::No));
    let outside = GuestAddress(PAGES * PAGE);
    assert!(burst.get_slices(outside, 8, Permissions::No).is_err());
    assert!(!burst.check_range(outside, 8, Permissions::No));
    let wraps = burst.read_slice(&mut [0; 16], GuestAddress(u64::MAX - 4)).unwrap_err();
    assert_eq!(carried::<gasp::Error>(&wraps).errno(), Errno::NXIO);

    let range = |addr, count, access| burst.check_range(GuestAddress(addr), count, access);
    assert!(range(0, 100, Permissions::Read) && !range(0, 100, Permissions::Write));
    assert!(!range(0, 100, Permissions::ReadWrite) && range(0, 100, Permissions::No));
    domain.revoke(DeviceAddr(5 * PAGE), PAGE).unwrap().wait();
    domain.grant(DeviceAddr(5 * PAGE), target(5), PAGE, Access::READ).unwrap();
    let two = 2 * PAGE as usize;
    assert!(range(5 * PAGE, two, Permissions::Read) && !range(5 * PAGE, two, Permissions::Write));
    assert!(range(2 * PAGE, 2 * PAGE as usize, Permissions::ReadWrite));
    assert!(!range((PAGES - 1) * PAGE, 2 * PAGE as usize, Permissions::Read));
    assert!(!range(u64::MAX, 2, Permissions::Read));
}

#[test]
fn a_question_about_a_range_holds_nothing_and_is_no_fault() {
    let guest = guest();
    let (vdev, domain) = scattered(&guest);
    let burst = DeviceMemory::new(vdev).burst();
    let range = |addr, count| burst.check_range(GuestAddress(addr), count, Permissions::ReadWrite);
    assert!(range(0, 8) && range(PAGE - 4, 8) && range(0, (PAGES * PAGE) as usize));
    assert!(range(u64::MAX, 0), "nothing is nothing");
    assert!(!range(PAGES * PAGE - 4, 8) && !range(PAGES * PAGE, 1) && !range(u64::MAX, 2));
    assert_eq!((burst.held(), guest.take_faults().records.len()), (0, 0));
    let all = domain.revoke(DeviceAddr(0), PAGES * PAGE).unwrap().poll().unwrap();
    assert_eq!(all.holders, 0);
    assert!(!range(0, 8));
}

#[test]
fn a_revoke_waits_for_the_burst_that_holds_its_page_and_for_no_other() {
    let guest = guest();
    let (vdev, domain) = scattered(&guest);
    let memory = DeviceMemory::new(vdev);
    let burst = memory.burst();
    burst.read_obj::<u64>(GuestAddress(3 * PAGE + 8)).unwrap();
    assert_eq!(lens(&burst, 8 * PAGE, 2 * PAGE as usize).len(), 2);
    let revoke = |page: u64| domain.revoke(DeviceAddr(page * PAGE), PAGE).unwrap();

    for page in [2, 4, 7, 10] {
        assert_eq!(revoke(page).poll().map(|drained| drained.holders), Some(0), "page {page}");
    }
    let mut drains = [3, 8, 9].map(revoke);
    for drain in &mut drains {
        assert_eq!(drain.poll(), None);
    }
    // It is the device's until the drain has ended; others are refused already.
    burst.read_obj::<u64>(GuestAddress(3 * PAGE)).unwrap();
    assert!(memory.burst().read_obj::<u64>(GuestAddress(3 * PAGE)).is_err());
    drop(burst);
    for drain in drains {
        assert!(drain.wait().completed());
    }
}

#[test]
fn what_a_drain_has_given_up_on_is_lent_no_more() {
    let detach = DrainPolicy { deadline: Duration::ZERO, at_deadline: Deadline::Detach };
    let guest = guest_with(detach);
    let (vdev, domain) = scattered(&guest);
    let burst = DeviceMemory::new(vdev).burst();
    burst.write_obj(5_u64, GuestAddress(PAGE)).unwrap();
    assert_eq!(lens(&burst, 4 * PAGE, 2 * PAGE as usize).len(), 2);
    let slice = burst.get_slices(GuestAddress(PAGE), 8, Permissions::Write).unwrap();
    let slice = slice.map(Result::unwrap).next().unwrap();
    assert!(!burst.is_revoked());
    assert_eq!(domain.revoke(DeviceAddr(PAGE), PAGE).unwrap().wait().detached, 1);
    assert!(burst.is_revoked());
    assert_eq!(domain.revoke(DeviceAddr(4 * PAGE), PAGE).unwrap().wait().detached, 1);
    // The memory of the slice stays.
    assert_eq!(slice.read_obj::<u64>(0).unwrap(), 5);
    assert!(burst.write_obj(6_u64, GuestAddress(PAGE)).is_err());
    assert!(!burst.check_range(GuestAddress(4 * PAGE), 2 * PAGE as usize, Permissions::Read));
    domain.grant(DeviceAddr(PAGE), GuestPhys(0), PAGE, Access::RW).unwrap();
    burst.write_obj(6_u64, GuestAddress(PAGE)).unwrap();
    assert_eq!(slice.read_obj::<u64>(0).unwrap(), 5, "the new grant leads elsewhere");
}

#[test]
fn a_page_is_mapped_once_for_each_kind_of_access() {
    let guest = guest();
    let burst = DeviceMemory::new(scattered(&guest).0).burst();
    for offset in 0..100 {
        burst.read_obj::<u8>(GuestAddress(offset)).unwrap();
        burst.write_obj(1_u8, GuestAddress(offset)).unwrap();
    }
    assert_eq!(lens(&burst, 0, PAGE as usize), [PAGE as usize], "to its end");
    assert_eq!(burst.held(), 2);
    assert_eq!(format!("{burst:?}"), "Burst { held: 2, .. }");
    for _ in 0..3 {
        assert_eq!(lens(&burst, 0, 3 * PAGE as usize).len(), 3);
    }
    assert_eq!(burst.held(), 3, "and a range of pages once in a row");
    assert_eq!(lens(&burst, 0, 2 * PAGE as usize).len(), 2, "and a shorter one is another");
    assert_eq!(burst.held(), 4);
    // More pages than are kept without an allocation.
    let all = |burst: &Burst<_>| {
        (0..PAGES).for_each(|page| burst.write_obj(page, GuestAddress(page * PAGE)).unwrap());
    };
    all(&burst);
    let held = burst.held();
    all(&burst);
    assert_eq!(burst.held(), held);
    for page in 0..PAGES {
        assert_eq!(burst.read_obj::<u64>(GuestAddress(page * PAGE)).unwrap(), page);
    }
}

#[test]
fn a_burst_holds_only_so_much_and_says_what_to_do() {
    let guest = guest();
    let memory = DeviceMemory::new(scattered(&guest).0);
    let burst = memory.burst();
    let (even, odd) = (GuestAddress(0), GuestAddress(PAGE));
    let two = 2 * PAGE as usize;
    let refused = (0..=Burst::<gasp::Vdev>::MAX_HELD).find_map(|i| {
        let addr = if i % 2 == 0 { even } else { odd };
        burst.get_slices(addr, two, Permissions::Read).err()
    });
    let refused = refused.unwrap();
    let limit = Burst::<gasp::Vdev>::MAX_HELD;
    assert_eq!(*carried::<Refused>(&refused), Refused::TooMany { limit });
    assert_eq!(burst.held(), limit);
    assert!(burst.read_obj::<u8>(GuestAddress(5 * PAGE)).is_err());
    drop(burst);
    memory.burst().read_obj::<u8>(GuestAddress(5 * PAGE)).unwrap();
}

/// A device to which each of `pages` pages is the same one, so that no two are consecutive.
fn repeated(pages: u64) -> (Guest, gasp::Vdev) {
    let guest = guest();
    let domain = guest.domain("dev", DomainOptions::new(DomainKind::Translate)).unwrap();
    let vdev = guest.vdev("dev").unwrap();
    vdev.attach(&domain).unwrap().wait();
    for page in 0..pages {
        domain.grant(DeviceAddr(page * PAGE), GuestPhys(0), PAGE, Access::RW).unwrap();
    }
    (guest, vdev)
}

#[test]
fn the_pieces_of_long_ranges_are_limited_too() {
    const SOME: u64 = 1 << 14;
    let (_guest, vdev) = repeated(SOME + 1);
    let memory = DeviceMemory::new(vdev);
    let burst = memory.burst();
    let len = (SOME * PAGE) as usize;
    let refused = (0_u64..1000).find_map(|range| {
        let addr = GuestAddress(range % 2 * PAGE);
        burst.get_slices(addr, len, Permissions::Read).err()
    });
    let limit = Burst::<gasp::Vdev>::MAX_PIECES;
    assert_eq!(*carried::<Refused>(&refused.unwrap()), Refused::TooManyPieces { limit });
    assert_eq!(burst.held(), limit / SOME as usize);
    burst.read_obj::<u8>(GuestAddress(5 * PAGE)).unwrap();
    drop(burst);
    assert_eq!(lens(&memory.burst(), 0, len).len() as u64, SOME);
}

#[test]
fn the_slices_of_a_long_range_take_time_in_proportion() {
    const MANY: u64 = 1 << 15;
    let (_guest, vdev) = repeated(MANY);
    let burst = DeviceMemory::new(vdev).burst();
    let started = std::time::Instant::now();
    assert_eq!(lens(&burst, 0, (MANY * PAGE) as usize).len() as u64, MANY);
    // Some milliseconds; a walk from the first piece for each slice takes seconds.
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn a_page_is_mapped_once_however_far_it_is_from_another() {
    for shift in 0..8 {
        let (_guest, vdev) = repeated((3 << shift) + 1);
        let burst = DeviceMemory::new(vdev).burst();
        for round in 0..100 {
            for page in 0..4 {
                let addr = GuestAddress((page * PAGE) << shift);
                burst.write_obj(round, addr).unwrap();
                burst.read_obj::<u64>(addr).unwrap();
            }
        }
        assert_eq!(burst.held(), 8, "{} pages", 1 << shift);
    }
}

#[test]
fn memory_that_can_be_cut_off_is_not_lent() {
    let fd = rustix::fs::memfd_create("cut", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, 4 * PAGE).unwrap();
    let how = Adopt { residency: Residency::OnDemand, ..Adopt::new("cut", 4 * PAGE) };
    let object = MemoryObject::adopt(fd, how).unwrap();
    assert!(object.is_guarded());
    let guest = Guest::builder().build().unwrap();
    guest.space().add_ram(None, &object).unwrap();
    guest.space().add_ram(None, &ram(PAGE)).unwrap();
    guest.space().add_ram(None, &object).unwrap();
    let memory = DeviceMemory::new(guest.vdev("dev").unwrap());
    let burst = memory.burst();
    let guarded = Refused::Guarded { object: "cut".into() };
    let one = burst.read_obj::<u8>(GuestAddress(0)).unwrap_err();
    let range = burst.read_slice(&mut [0; 8192], GuestAddress(0)).unwrap_err();
    assert_eq!((carried::<Refused>(&one), carried::<Refused>(&range)), (&guarded, &guarded));
    // Nor a range that only ends in it, after memory that is lent.
    burst.read_obj::<u8>(GuestAddress(4 * PAGE)).unwrap();
    let end = burst.read_slice(&mut [0; 8192], GuestAddress(4 * PAGE)).unwrap_err();
    assert_eq!((carried::<Refused>(&end), burst.held()), (&guarded, 1));
}

#[test]
fn writes_are_marked_at_their_device_addresses() {
    let guest = guest();
    let sector = std::num::NonZeroUsize::new(512).unwrap();
    let bitmap = AtomicBitmap::new((PAGES * PAGE) as usize, sector);
    let memory = DeviceMemory::with_bitmap(scattered(&guest).0, bitmap);
    let burst = memory.burst();
    burst.read_obj::<u64>(GuestAddress(0)).unwrap();
    burst.write_obj(1_u8, GuestAddress(3 * PAGE + 1024 + 7)).unwrap();
    burst.write_slice(&[1; 4096], GuestAddress(11 * PAGE - 513)).unwrap();
    let dirty =
        (0..PAGES * PAGE / 512).filter(|sector| memory.bitmap().dirty_at(*sector as usize * 512));
    let expected: Vec<u64> = [26].into_iter().chain(86..=94).collect();
    assert_eq!(dirty.collect::<Vec<_>>(), expected);
}

#[test]
fn firmware_sees_guest_physical_memory() {
    let guest = guest();
    let memory = DeviceMemory::new(guest.clone());
    memory.burst().write_obj(9_u64, GuestAddress(2 * PAGE)).unwrap();
    let mut read = [0; 8];
    guest.read_firmware(GuestPhys(2 * PAGE), &mut read).unwrap();
    assert_eq!(u64::from_ne_bytes(read), 9);
    assert!(memory.burst().physical_memory().is_none());
    let outside = memory.burst().read_obj::<u8>(GuestAddress(PAGES * PAGE + 9)).unwrap_err();
    let named = Some(Location::Guest(GuestPhys(PAGES * PAGE + 9)));
    assert_eq!(carried::<gasp::Error>(&outside).location(), named);
    let shared = DeviceMemory::new(Arc::new(guest));
    assert_eq!(shared.burst().read_obj::<u64>(GuestAddress(2 * PAGE)).unwrap(), 9);
    // What is consecutive is one slice, however long.
    assert_eq!(lens(&memory.burst(), 100, 3 * PAGE as usize), [3 * PAGE as usize]);
}

#[test]
fn threads_share_a_burst() {
    let guest = guest();
    let (vdev, domain) = scattered(&guest);
    let burst = DeviceMemory::new(vdev).memory();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let burst = Arc::clone(&burst);
            scope.spawn(move || {
                for round in 0..200 {
                    for page in 0..PAGES {
                        let addr = GuestAddress(page * PAGE + thread * 8);
                        burst.write_obj(round + thread, addr).unwrap();
                        assert_eq!(burst.read_obj::<u64>(addr).unwrap(), round + thread);
                    }
                }
            });
        }
    });
    let mut drain = domain.revoke(DeviceAddr(0), PAGES * PAGE).unwrap();
    assert_eq!(drain.pending(), burst.held());
    drop(burst);
    assert!(drain.wait().completed());
}
