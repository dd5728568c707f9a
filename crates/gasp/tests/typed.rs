//! Values of a fixed layout, and atomic exchanges.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::thread;

use gasp::{
    Access, Adopt, Backing, DeviceAddr, Dma, DomainKind, DomainOptions, Guest, GuestPhys, MapFlags,
    Mapping, MemoryObject, Residency, Unattached, Vdev,
};
use rustix::fs::{MemfdFlags, memfd_create};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const PAGE: u64 = 4096;

#[derive(FromBytes, IntoBytes, Immutable, PartialEq, Eq, Debug, Clone, Copy)]
#[repr(C)]
struct Descriptor {
    addr: u64,
    len: u32,
    flags: u32,
}

const VALUE: Descriptor = Descriptor { addr: 0x1122_3344_5566_7788, len: 0x99aa, flags: 7 };

/// A device that sees the guest's first two pages in reverse order.
fn crossed() -> (Guest, Vdev) {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let ram = MemoryObject::ram(2 << 20).prefer(&[Backing::Base]).create().unwrap();
    guest.space().add_ram(None, &ram).unwrap();
    let domain = guest.domain("disk", DomainOptions::new(DomainKind::Translate)).unwrap();
    domain.grant(DeviceAddr(0), GuestPhys(PAGE), PAGE, Access::RW).unwrap();
    domain.grant(DeviceAddr(PAGE), GuestPhys(0), PAGE, Access::RW).unwrap();
    let vdev = guest.vdev("disk").unwrap();
    vdev.attach(&domain).unwrap().wait();
    (guest, vdev)
}

fn errno<T: core::fmt::Debug>(result: gasp::Result<T>) -> &'static str {
    result.unwrap_err().errno_name()
}

#[test]
fn a_value_is_the_same_through_every_access() {
    let (guest, vdev) = crossed();
    // Across the page boundary, where the guest's memory is not consecutive.
    let addr = DeviceAddr(PAGE - 4);
    vdev.write_obj(addr, &VALUE).unwrap();
    assert_eq!(vdev.read_obj::<Descriptor>(addr).unwrap(), VALUE);
    let scatter = vdev.map_scatter(addr, 32, MapFlags::RW).unwrap();
    assert_eq!(scatter.read_obj::<Descriptor>(0).unwrap(), VALUE);
    scatter.write_obj(16, &VALUE).unwrap();
    assert_eq!(vdev.read_obj::<Descriptor>(DeviceAddr(addr.0 + 16)).unwrap(), VALUE);
    let first = vdev.map(addr, 4, MapFlags::READ).unwrap();
    assert_eq!(first.read_obj::<u32>(0).unwrap(), VALUE.addr as u32);
    // As firmware sees it, the device's first page is the second.
    assert_eq!(guest.read_obj::<u32>(DeviceAddr(2 * PAGE - 4)).unwrap(), VALUE.addr as u32);
    guest.write_obj(DeviceAddr(8), &[1_u16, 2, 3][..]).unwrap();
    let seen = Dma::map(&vdev, DeviceAddr(PAGE + 8), 6, MapFlags::READ).unwrap();
    assert_eq!(seen.read_obj::<[u16; 3]>(0).unwrap(), [1, 2, 3]);
    assert_eq!(Dma::map(&guest, DeviceAddr(8), 2, MapFlags::READ).unwrap().read_obj(0), Ok(1_u16));
    let scattered = |dma: &dyn Fn() -> gasp::Result<gasp::Scatter>| {
        let scatter = dma()?;
        assert!(scatter.pieces().all(|piece| piece.object().len() == 2 << 20));
        scatter.read_obj::<[u16; 3]>(0)
    };
    let from_device = || Dma::map_scatter(&vdev, DeviceAddr(PAGE + 8), 6, MapFlags::READ);
    let from_guest = || Dma::map_scatter(&guest, DeviceAddr(8), 6, MapFlags::READ);
    assert_eq!(scattered(&from_device), Ok([1, 2, 3]));
    assert_eq!(scattered(&from_guest), Ok([1, 2, 3]));
    let outside = Dma::map_scatter(&guest, DeviceAddr(1 << 40), 6, MapFlags::READ).unwrap_err();
    assert_eq!((outside.errno_name(), outside.device()), ("ENXIO", None));
}

#[test]
fn a_value_that_does_not_fit_or_is_not_allowed_is_refused_whole() {
    let (_guest, vdev) = crossed();
    let map = vdev.map(DeviceAddr(0), 20, MapFlags::READ).unwrap();
    assert!(map.read_obj::<Descriptor>(4).is_ok());
    assert_eq!(errno(map.read_obj::<Descriptor>(5)), "EINVAL");
    assert_eq!(errno(map.read_obj::<u8>(usize::MAX)), "EINVAL");
    assert_eq!(errno(map.write_obj(0, &1_u8)), "EACCES");
    vdev.write_obj(DeviceAddr(2 * PAGE - 8), &[0xff_u8; 8]).unwrap();
    assert_eq!(errno(vdev.write_obj(DeviceAddr(2 * PAGE - 8), &VALUE)), "EFAULT");
    assert_eq!(vdev.read_obj::<u64>(DeviceAddr(2 * PAGE - 8)).unwrap(), u64::MAX);
}

/// Each exchange of one width, compared with its effect on a plain integer.
macro_rules! exchanges {
    ($map:expr, $offset:expr, $integer:ident) => {{
        let (map, offset): (&Mapping, usize) = ($map, $offset);
        map.store::<$integer>(offset, 0b1100, Relaxed).unwrap();
        assert_eq!(map.swap::<$integer>(offset, 0b1010, SeqCst).unwrap(), 0b1100);
        assert_eq!(map.fetch_or::<$integer>(offset, 0b0001, SeqCst).unwrap(), 0b1010);
        assert_eq!(map.fetch_and::<$integer>(offset, 0b0011, SeqCst).unwrap(), 0b1011);
        assert_eq!(map.fetch_add::<$integer>(offset, $integer::MAX, SeqCst).unwrap(), 0b0011);
        let exchange =
            |from: $integer| map.compare_exchange(offset, from, 9, SeqCst, Acquire).unwrap();
        assert_eq!(exchange(1), Err(0b0010));
        assert_eq!(exchange(2), Ok(0b0010));
        assert_eq!(map.load::<$integer>(offset, Relaxed).unwrap(), 9);
        // The neighbours are unchanged.
        assert_eq!(map.load::<u8>(offset - 1, Relaxed).unwrap(), 0x55);
        assert_eq!(map.load::<u8>(offset + size_of::<$integer>(), Relaxed).unwrap(), 0x55);
    }};
}

#[test]
fn exchanges_do_what_those_of_the_standard_library_do_and_nothing_else() {
    let (_guest, vdev) = crossed();
    let map = vdev.map(DeviceAddr(0), PAGE, MapFlags::RW).unwrap();
    map.write_at(0, &[0x55; 64]).unwrap();
    exchanges!(&map, 9, u8);
    exchanges!(&map, 18, u16);
    exchanges!(&map, 28, u32);
    exchanges!(&map, 40, u64);
    assert_eq!(errno(map.swap::<u32>(30, 0, SeqCst)), "EINVAL", "not aligned");
    assert_eq!(errno(map.fetch_add::<u64>(PAGE as usize, 1, SeqCst)), "EINVAL");
    for flags in [MapFlags::READ, MapFlags::WRITE] {
        let half = vdev.map(DeviceAddr(0), 64, flags).unwrap();
        assert_eq!(errno(half.fetch_or::<u8>(0, 1, SeqCst)), "EACCES");
    }
    assert_eq!(map.load::<u8>(0, Relaxed).unwrap(), 0x55);
}

#[test]
fn no_addition_of_several_threads_is_lost() {
    let (_guest, vdev) = crossed();
    let map = vdev.map(DeviceAddr(0), 8, MapFlags::RW).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    map.fetch_add::<u64>(0, 1, Relaxed).unwrap();
                }
            });
        }
    });
    assert_eq!(map.load::<u64>(0, Relaxed).unwrap(), 40_000);
}

#[test]
fn memory_that_can_be_taken_away_has_no_exchanges() {
    // It cannot be sealed.
    let fd = memfd_create("gasp-typed", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, PAGE).unwrap();
    let how = Adopt { residency: Residency::OnDemand, ..Adopt::new("memfd", PAGE) };
    let object = MemoryObject::adopt(fd, how).unwrap();
    assert!(object.is_guarded());
    let guest = Guest::builder().build().unwrap();
    guest.space().add_ram(None, &object).unwrap();
    let map = guest.vdev("disk").unwrap().map(DeviceAddr(0), 64, MapFlags::RW).unwrap();
    map.store::<u32>(0, 5, Relaxed).unwrap();
    assert_eq!(errno(map.fetch_add::<u32>(0, 1, SeqCst)), "ENOTSUP");
    assert_eq!(errno(map.compare_exchange::<u32>(0, 5, 6, SeqCst, SeqCst)), "ENOTSUP");
    assert_eq!(map.load::<u32>(0, Relaxed).unwrap(), 5);
    // An order that the operation does not have panics, as in the standard library.
    let panics =
        |access: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(access)).is_err();
    let (_plain, disk) = crossed();
    let unguarded = disk.map(DeviceAddr(0), 64, MapFlags::RW).unwrap();
    for map in [&map, &unguarded] {
        assert!(panics(&|| drop(map.load::<u32>(0, std::sync::atomic::Ordering::Release))));
        assert!(panics(&|| drop(map.store::<u32>(0, 1, std::sync::atomic::Ordering::Acquire))));
    }
}
