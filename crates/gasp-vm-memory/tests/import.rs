//! A VMM's `GuestMemoryMmap` as RAM of a guest: in place, owned, with its files.
#![allow(unsafe_code, clippy::unwrap_used, reason = "a test may panic, and vouches for memory")]

mod support;

use std::fs::File;
use std::sync::Arc;

use gasp::{Access, DeviceAddr, Guest, GuestPhys, MapFlags, MemoryObject, Region, Residency, Span};
use gasp_vm_memory::{DeviceMemory, Refused, add_guest_memory};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{FdFlags, fcntl_getfd};
use support::PAGE;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap,
    GuestRegionMmap, MmapRegion,
};

const LEN: usize = 4 * PAGE as usize;

fn memfd(len: u64) -> File {
    let fd = memfd_create("vmm", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, len).unwrap();
    File::from(fd)
}

/// A region at `start` of a mapping with these flags and protection, of a file of its own.
fn region(start: u64, flags: i32, prot: i32) -> GuestRegionMmap {
    let file = FileOffset::new(memfd(PAGE + LEN as u64), PAGE);
    let mapping = MmapRegionBuilder::new(LEN)
        .with_file_offset(file)
        .with_mmap_flags(flags)
        .with_mmap_prot(prot)
        .build()
        .unwrap();
    GuestRegionMmap::new(mapping, GuestAddress(start)).unwrap()
}

const SHARED: i32 = 1;
const PRIVATE: i32 = 2;
const READ_WRITE: i32 = 3;
const READ_EXECUTE: i32 = 5;

fn import(guest: &Guest, memory: &GuestMemoryMmap) -> gasp::Result<Vec<MemoryObject>> {
    // SAFETY: the memory is used through vm-memory and gasp alone, and is not to be pinned.
    unsafe { add_guest_memory(guest, memory, Residency::Resident) }
}

#[test]
fn regions_are_used_in_place_at_their_addresses_and_kept_by_their_last_user() {
    let regions = [region(0, SHARED, READ_WRITE), region(1 << 32, SHARED, READ_WRITE)];
    let kept = regions.each_ref().map(|region| Arc::downgrade(&region.get_mmap()));
    let memory = GuestMemoryMmap::from_regions(regions.into()).unwrap();
    let pointers: Vec<_> = memory.iter().map(|region| region.as_ptr()).collect();
    let guest = Guest::builder().build().unwrap();
    let objects = import(&guest, &memory).unwrap();
    assert_eq!(objects.iter().map(MemoryObject::as_ptr).collect::<Vec<_>>(), pointers);
    let names: Vec<_> = objects.iter().map(MemoryObject::name).collect();
    assert_eq!(names, ["memory at 0x0", "memory at 0x100000000"]);
    for object in &objects {
        let (file, start) = object.file().unwrap();
        assert_eq!((start, object.len()), (PAGE, LEN as u64));
        assert!(fcntl_getfd(file).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(object.not_pinned_because(), Some("pinning was not requested"));
    }
    memory.write_obj(7_u64, GuestAddress((1 << 32) + 8)).unwrap();
    let vdev = guest.vdev("net").unwrap();
    let mapping = vdev.map(DeviceAddr((1 << 32) + 8), 8, MapFlags::RW).unwrap();
    assert_eq!(mapping.read_obj::<u64>(0).unwrap(), 7);
    assert!(vdev.map(DeviceAddr(LEN as u64), 8, MapFlags::READ).is_err(), "between the regions");

    drop((memory, objects, vdev, guest));
    assert_eq!(mapping.read_obj::<u64>(0).unwrap(), 7);
    assert_eq!(kept[1].strong_count(), 1);
    drop(mapping);
    assert_eq!(kept.each_ref().map(|mapping| mapping.strong_count()), [0, 0]);
}

#[test]
fn only_a_shared_mapping_is_of_its_file() {
    let regions = vec![region(0, PRIVATE, READ_WRITE), region(1 << 20, SHARED, READ_EXECUTE)];
    let memory = GuestMemoryMmap::from_regions(regions).unwrap();
    let guest = Guest::builder().build().unwrap();
    let objects = import(&guest, &memory).unwrap();
    assert_eq!(
        objects.iter().map(|object| object.file().is_some()).collect::<Vec<_>>(),
        [false, true]
    );
    let access: Vec<_> = objects.iter().map(MemoryObject::access).collect();
    assert_eq!(access, [Access::RW, Access::READ | Access::EXEC]);
    let vdev = guest.vdev("net").unwrap();
    vdev.map(DeviceAddr(0), 8, MapFlags::RW).unwrap();
    vdev.map(DeviceAddr(1 << 20), 8, MapFlags::READ).unwrap();
    let refused = vdev.map(DeviceAddr(1 << 20), 8, MapFlags::WRITE).unwrap_err();
    assert_eq!(refused.errno_name(), "EACCES");
}

#[test]
fn all_regions_are_added_or_none() {
    let guest = Guest::builder().build().unwrap();
    let there = Span::new(GuestPhys(1 << 20), PAGE).unwrap();
    guest.space().add(Region::reserved(there)).unwrap();
    let regions = vec![region(0, SHARED, READ_WRITE), region(1 << 20, SHARED, READ_WRITE)];
    let memory = GuestMemoryMmap::from_regions(regions).unwrap();
    assert_eq!(import(&guest, &memory).unwrap_err().errno_name(), "EEXIST");
    assert_eq!(guest.space().regions().len(), 1);
    guest.space().remove(there).unwrap().wait();
    assert_eq!(import(&guest, &memory).unwrap().len(), 2);
}

#[test]
fn a_region_that_is_plugged_in_later_is_added_on_its_own() {
    let guest = Guest::builder().build().unwrap();
    let memory = GuestMemoryMmap::from_regions(vec![region(0, SHARED, READ_WRITE)]).unwrap();
    import(&guest, &memory).unwrap();
    let later = Arc::new(region(1 << 20, SHARED, READ_WRITE));
    let memory = memory.insert_region(Arc::clone(&later)).unwrap();
    assert_eq!(import(&guest, &memory).unwrap_err().errno_name(), "EEXIST");
    import(&guest, &GuestMemoryMmap::from_arc_regions(vec![later]).unwrap()).unwrap();
    memory.write_obj(7_u64, GuestAddress(1 << 20)).unwrap();
    let mapping = guest.vdev("net").unwrap().map(DeviceAddr(1 << 20), 8, MapFlags::READ).unwrap();
    assert_eq!(mapping.read_obj::<u64>(0).unwrap(), 7);
}

#[test]
fn a_region_that_does_not_own_its_mapping_is_refused() {
    let owner = region(0, SHARED, READ_WRITE).get_mmap();
    // SAFETY: `owner` is mapped with these arguments for the whole test.
    let borrowed = unsafe { MmapRegion::build_raw(owner.as_ptr(), LEN, READ_WRITE, SHARED) };
    let regions = vec![GuestRegionMmap::new(borrowed.unwrap(), GuestAddress(0)).unwrap()];
    let memory = GuestMemoryMmap::from_regions(regions).unwrap();
    let guest = Guest::builder().build().unwrap();
    let refused = import(&guest, &memory).unwrap_err();
    assert!(refused.to_string().contains("does not own its mapping"), "{refused}");
    assert!(guest.space().regions().is_empty());
}

#[test]
fn memory_that_is_mapped_for_reading_only_is_not_lent() {
    let regions = vec![region(0, SHARED, READ_EXECUTE)];
    let memory = GuestMemoryMmap::from_regions(regions).unwrap();
    let guest = Guest::builder().build().unwrap();
    import(&guest, &memory).unwrap();
    let vdev = guest.vdev("net").unwrap();
    let mut read = [0; 8];
    vdev.read(DeviceAddr(0), &mut read).unwrap();
    let error = DeviceMemory::new(vdev).burst().read_obj::<u8>(GuestAddress(0)).unwrap_err();
    let GuestMemoryError::IOError(error) = error else { panic!("{error}") };
    let refused = error.get_ref().unwrap().downcast_ref();
    assert_eq!(refused, Some(&Refused::ReadOnly { object: "memory at 0x0".into() }));
}

#[test]
fn an_error_names_the_region() {
    let ranges = [(GuestAddress(0), LEN), (GuestAddress(1 << 20), LEN + 0x800)];
    let memory = GuestMemoryMmap::from_ranges(&ranges).unwrap();
    let refused = import(&Guest::builder().build().unwrap(), &memory).unwrap_err();
    let text = "adoption of 18 KiB at guest-physical 0x100000: address and length must be whole \
                host pages (EINVAL)";
    assert_eq!(refused.to_string(), text);
}
