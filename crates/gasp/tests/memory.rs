//! Memory objects: created, adopted, declared or external; their contents and their lifetime.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "hands in memory that the test has mapped itself")]

mod support;

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gasp::{
    Access, Adopt, Backing, DeviceAddr, DomainKind, External, Guest, GuestPhys, HostPhys, MapFlags,
    MemoryObject, Reason, Region, RegionKind, Residency, Seals, Stability, Unattached,
};
use rustix::fs::{Mode, OFlags, SealFlags};
use support::*;

fn adopt(fd: OwnedFd, offset: u64, len: u64, access: Access) -> gasp::Result<MemoryObject> {
    MemoryObject::adopt(fd, Adopt { offset, access, ..whole(len) })
}

fn read(object: &MemoryObject, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    object.read_at(offset, &mut bytes).unwrap();
    bytes
}

#[test]
fn ram_is_zeroed_and_an_alias_sees_what_is_written() {
    for backing in [Backing::Base, Backing::Thp] {
        let Ok(ram) = MemoryObject::ram(HUGE).prefer(&[backing]).create() else {
            assert_eq!(backing, Backing::Thp, "ordinary pages are always available");
            continue;
        };
        assert!(read(&ram, 0, HUGE as usize).iter().all(|&byte| byte == 0));
        let alias = ram.alias().unwrap();
        ram.write_at(HUGE - 5, b"alias").unwrap();
        let mut bytes = [0; 5];
        alias.read_at(HUGE - 5, &mut bytes).unwrap();
        assert_eq!(&bytes, b"alias");
        assert_eq!(errno(alias.read_at(HUGE - 4, &mut bytes)), "EINVAL");
        assert_eq!(errno(alias.read_at(u64::MAX, &mut bytes)), "EINVAL");
    }
}

#[test]
fn an_object_is_accessible_up_to_its_last_byte_and_not_past_it() {
    let ram = ram(PAGE);
    ram.write_at(PAGE - 1, b"x").unwrap();
    assert_eq!(errno(ram.write_at(PAGE - 1, b"xy")), "EINVAL");
    assert_eq!(errno(ram.read_at(u64::MAX, &mut [0; 2])), "EINVAL");
    assert!(ram.read_at(PAGE, &mut []).is_ok(), "no bytes, right at the end");
    assert_eq!(errno(ram.read_at(PAGE + 1, &mut [])), "EINVAL");
    for (offset, max, name) in [(0, 0, "EINVAL"), (PAGE, 1, "EINVAL"), (1, u64::MAX, "EINVAL")] {
        assert_eq!(errno(ram.host_run(offset, max)), name);
    }
}

#[test]
fn memory_that_is_not_available_takes_no_addresses_of_other_threads() {
    const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages";
    const LEN: usize = 1 << 30;
    const STEP: usize = 1 << 24;
    // More than the pool has, so that each attempt fails in mmap().
    let free = std::fs::read_to_string(FREE).map_or(0, |text| text.trim().parse().unwrap());
    let len = (free + 1_u64) << 30;
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // This thread accesses only memory of its own.
        let other = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let prot = libc::PROT_READ | libc::PROT_WRITE;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
                // SAFETY: without an address and MAP_FIXED, mmap(2) replaces no mapping.
                let at = unsafe { libc::mmap(std::ptr::null_mut(), LEN, prot, flags, -1, 0) };
                assert_ne!(at, libc::MAP_FAILED);
                for offset in (0..LEN).step_by(STEP) {
                    let byte = at.cast::<u8>().wrapping_add(offset);
                    // SAFETY: `offset` is less than `LEN`, so `byte` is in the mapping above, which
                    // is writable, is this thread's alone, and is unmapped below. (That nobody else
                    // unmaps it is what the test is about.)
                    unsafe { byte.write_volatile(1) };
                    // SAFETY: `byte` is in the same mapping, which is readable; it was written
                    // above.
                    assert_eq!(unsafe { byte.read_volatile() }, 1);
                }
                // SAFETY: `at` and `LEN` are the mapping above, which no pointer is used to after
                // this.
                assert_eq!(unsafe { libc::munmap(at, LEN) }, 0);
            }
        });
        let started = std::time::Instant::now();
        while started.elapsed().as_secs() < 1 && !other.is_finished() {
            let had = MemoryObject::ram(len).prefer(&[Backing::Huge1G]).create();
            assert!(had.is_err());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_part_of_a_file_is_adopted_as_it_is() {
    let fd = memfd(8 * PAGE);
    rustix::io::pwrite(&fd, b"already there", 2 * PAGE).unwrap();
    let shared = fd.try_clone().unwrap();
    let object = adopt(fd, 2 * PAGE, 4 * PAGE, Access::RW).unwrap();
    assert_eq!((object.len(), object.backing().obtained), (4 * PAGE, Backing::Adopted));
    assert_eq!(read(&object, 0, 13), b"already there", "not zeroed");
    object.write_at(4 * PAGE - 4, b"tail").unwrap();
    let mut bytes = [0; 4];
    rustix::io::pread(&shared, &mut bytes, 6 * PAGE - 4).unwrap();
    assert_eq!(&bytes, b"tail");
    let (_, offset) = object.file().unwrap();
    assert_eq!(offset, 2 * PAGE);
}

#[test]
fn a_range_that_the_file_does_not_hold_is_refused() {
    let adopt = |offset, len| adopt(memfd(4 * PAGE), offset, len, Access::RW);
    let size = 4 * PAGE;
    for (offset, len) in
        [(0, 5 * PAGE), (PAGE, 4 * PAGE), (u64::MAX - 4095, PAGE), (PAGE, u64::MAX)]
    {
        assert_eq!(error(adopt(offset, len)).reason(), Reason::FileTooSmall { size });
    }
    for (offset, len) in [(1, PAGE), (0, 100), (0, 0), (u64::MAX, 0)] {
        assert_eq!(errno(adopt(offset, len)), "EINVAL");
    }
}

#[test]
fn seals_are_reported_and_a_file_sealed_against_writing_is_adopted_only_for_reading() {
    for (seal, reported) in
        [(SealFlags::WRITE, Seals::WRITE), (SealFlags::FUTURE_WRITE, Seals::FUTURE_WRITE)]
    {
        let sealed = || {
            let fd = memfd(PAGE);
            rustix::fs::fcntl_add_seals(&fd, seal | SealFlags::SHRINK).unwrap();
            fd
        };
        let refused = error(adopt(sealed(), 0, PAGE, Access::RW));
        assert_eq!(refused.errno_name(), "EACCES");
        assert!(refused.to_string().contains("sealed"), "{refused}");
        let object = adopt(sealed(), 0, PAGE, Access::READ).unwrap();
        assert_eq!(object.seals(), reported | Seals::SHRINK);
        assert_eq!(errno(object.write_at(0, b"x")), "EACCES");
        assert_eq!(read(&object, 0, 1), [0]);
    }
    assert_eq!(ram(PAGE).seals(), Seals::SHRINK | Seals::GROW);
}

#[test]
fn a_file_opened_read_only_offers_no_write_however_it_is_placed() {
    let read_only = || reopened(&memfd(PAGE), OFlags::RDONLY);
    let refused = error(adopt(read_only(), 0, PAGE, Access::RW));
    assert_eq!(refused.errno_name(), "EACCES");
    assert!(refused.to_string().contains("read-only"), "{refused}");
    let object = adopt(read_only(), 0, PAGE, Access::READ).unwrap();
    let guest = Guest::builder().build().unwrap();
    guest.space().add_ram(None, &object).unwrap();
    guest.space().set_access(span(0, PAGE), Access::RWX).unwrap().wait();
    let disk = guest.vdev("disk").unwrap();
    assert!(disk.map(DeviceAddr(0), 8, MapFlags::READ).is_ok());
    assert_eq!(errno(disk.map(DeviceAddr(0), 8, MapFlags::WRITE)), "EACCES");
    let write_only = reopened(&memfd(PAGE), OFlags::WRONLY);
    assert_eq!(errno(adopt(write_only, 0, PAGE, Access::WRITE)), "EINVAL");
}

#[test]
fn what_is_not_a_file_is_enodev() {
    let directory = rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
    let (reader, _writer) = std::io::pipe().unwrap();
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).unwrap();
    for (fd, name) in [
        (directory.unwrap(), "a directory"),
        (reader.into(), "a pipe"),
        (socket.into(), "a socket"),
        (null, "a device"),
    ] {
        let refused = error(adopt(fd, 0, PAGE, Access::READ));
        assert_eq!(refused.reason(), Reason::NotAFile(name));
        assert_eq!(refused.errno_name(), "ENODEV");
    }
}

#[test]
fn a_window_returns_exactly_its_base_and_offset_over_all_of_it() {
    const BASE: u64 = 0x12_3456_7000;
    let guest = Guest::builder().build().unwrap();
    let window = window(3 * HUGE + PAGE, BASE);
    guest.space().add(Region::pass_through(GuestPhys(HUGE), &window).unwrap()).unwrap();
    let disk = guest.vdev("disk").unwrap();
    let any = MapFlags::RW.any();
    let len = window.len();
    for offset in [0, 1, PAGE, HUGE - 1, HUGE, HUGE + 0x777, 3 * HUGE, len - 1] {
        let mapping = disk.map_host_contig(DeviceAddr(HUGE + offset), len - offset, any).unwrap();
        let run = mapping.host_run().unwrap();
        assert_eq!((run.addr.0, run.len), (BASE + offset, len - offset));
        assert_eq!(mapping.len() as u64, len - offset, "the window is one run");
    }
    assert_eq!(window.stability(), Stability::Pinned);
    assert_eq!(window.host_extents().count(), 1);
}

#[test]
fn a_window_with_an_impossible_base_is_refused() {
    for base in [1, 0xfff, u64::MAX, u64::MAX - 0xffe, u64::MAX - 4095] {
        let made = MemoryObject::pass_through(memfd(2 * PAGE), HostPhys(base), whole(2 * PAGE));
        assert_eq!(errno(made), "EINVAL", "{base:#x}");
    }
}

/// Memory that the test has mapped, as an embedding VMM would.
fn mapped(len: usize) -> NonNull<u8> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: without an address and MAP_FIXED, mmap(2) replaces no mapping.
    let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len, prot, flags) };
    NonNull::new(base.unwrap().cast()).unwrap()
}

#[test]
fn memory_that_the_embedder_has_mapped_is_used_in_place_and_left_mapped() {
    let len = 4 * PAGE as usize;
    let base = mapped(len);
    let mut external = External::new(base, len, Arc::new(()));
    external.residency = Residency::Resident;
    // SAFETY: the memory stays mapped for as long as the process lives, readable and writable; it
    // is accessed through the engine and one volatile read alone; and the residency is not
    // `Pinned`.
    let object = unsafe { MemoryObject::external("vmm", external) }.unwrap();
    assert_eq!(object.as_ptr(), base.as_ptr());
    assert_eq!((object.backing().obtained, object.len()), (Backing::External, len as u64));
    let guest = Guest::builder().build().unwrap();
    guest.space().add_ram(None, &object).unwrap();
    let disk = guest.vdev("disk").unwrap();
    let mapping = disk.map(DeviceAddr(PAGE), 8, MapFlags::RW).unwrap();
    assert_eq!(
        mapping.as_ptr().addr(),
        base.addr().get() + PAGE as usize,
        "it is not mapped again"
    );
    mapping.write_at(0, b"in place").unwrap();
    assert!(object.file().is_none());
    assert_eq!(errno(object.alias()), "EINVAL");
    assert_eq!(errno(disk.map_stitched(DeviceAddr(0), 8, MapFlags::RW)), "EINVAL");
    assert_eq!(errno(mapping.fence()), "EINVAL");
    drop((mapping, disk, guest, object));
    // SAFETY: the second of four pages is inside the mapping, which the engine has not unmapped:
    // that is what the test is about.
    let at = unsafe { base.add(PAGE as usize) };
    // SAFETY: `at` begins a page of that mapping, so it is aligned and valid for reads of a `u64`;
    // the mapping's last writer, the engine, is gone.
    let word = unsafe { at.cast::<u64>().read_volatile() };
    assert_eq!(&word.to_ne_bytes(), b"in place");
    for (skip, len) in [(1, PAGE as usize), (0, 100), (0, 0)] {
        // SAFETY: `skip` is at most 1, and the mapping is four pages long.
        let base = unsafe { base.add(skip) };
        let external = External::new(base, len, Arc::new(()));
        // SAFETY: `len` bytes from `base` on are inside that mapping, which stays mapped for as
        // long as the process lives, and nobody else accesses it. Of `Pinned`, which the residency
        // is here: nobody discards or truncates it. It is refused, besides.
        assert_eq!(errno(unsafe { MemoryObject::external("vmm", external) }), "EINVAL");
    }
}

#[test]
fn external_memory_with_its_file_can_be_stitched_shared_and_pinned_by_a_pipe() {
    use rustix::mm::{MapFlags as Mmap, ProtFlags, mmap};
    const OFFSET: u64 = 2 * PAGE;
    let len = 4 * PAGE as usize;
    let fd = memfd(OFFSET + 4 * PAGE);
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, Mmap::SHARED);
    // SAFETY: without an address and MAP_FIXED, mmap(2) replaces no mapping.
    let base = unsafe { mmap(std::ptr::null_mut(), len, prot, flags, &fd, OFFSET) };
    let base = NonNull::new(base.unwrap().cast::<u8>()).unwrap();
    let external = |file| {
        let mut external = External::new(base, len, Arc::new(()));
        external.file = Some(file);
        // SAFETY: the memory is a shared mapping of the file from `OFFSET` on, readable and
        // writable, that stays for as long as the process lives; only the engine accesses it; and
        // nobody punches holes into it. Files and offsets that are not those are refused.
        unsafe { MemoryObject::external("vmm", external) }
    };
    let object = external((fd.try_clone().unwrap(), OFFSET)).unwrap();
    assert_eq!((object.as_ptr(), object.is_guarded()), (base.as_ptr(), false));
    assert_eq!(object.file().map(|(_, offset)| offset), Some(OFFSET));
    if object.pinned_by().is_none() {
        let why = object.not_pinned_because().unwrap();
        assert!(why.contains("pipe"), "a pipe was tried: {why}");
    }

    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    guest.space().add_ram(Some(GuestPhys(0)), &object).unwrap();
    let (disk, domain) = device(&guest, "disk", DomainKind::Translate);
    for (device, guest) in [(0, 3), (1, 1)] {
        let (device, guest) = (DeviceAddr(device * PAGE), GuestPhys(guest * PAGE));
        domain.grant(device, guest, PAGE, Access::RW).unwrap();
    }
    let stitched = disk.map_stitched(DeviceAddr(0), 2 * PAGE, MapFlags::RW).unwrap();
    stitched.scatter().write_at(PAGE as usize - 4, b"acrossit").unwrap();
    // SAFETY: `PAGE - 4` is inside the stitched map, which is two pages long.
    let across = unsafe { stitched.as_ptr().add(PAGE as usize - 4) };
    // SAFETY: 8 bytes from there on are inside it too; alignment is not asked for; nobody writes
    // the memory meanwhile.
    let across = unsafe { across.cast::<[u8; 8]>().read_unaligned() };
    assert_eq!(&across, b"acrossit");
    let mut read = [0; 4];
    rustix::io::pread(&fd, &mut read, OFFSET + 4 * PAGE - 4).unwrap();
    assert_eq!(&read, b"acro");
    rustix::io::pread(&fd, &mut read, OFFSET + PAGE).unwrap();
    assert_eq!(&read, b"ssit");
    let mut alias = [0; 4];
    object.alias().unwrap().read_at(PAGE, &mut alias).unwrap();
    assert_eq!(&alias, b"ssit");

    let refused = |file| {
        let error = error(external(file));
        assert_eq!(error.len(), len as u64);
        error.errno_name()
    };
    assert_eq!(refused((fd.try_clone().unwrap(), OFFSET + PAGE)), "EINVAL", "past the end");
    assert_eq!(refused((fd.try_clone().unwrap(), 1)), "EINVAL", "no whole page");
    assert_eq!(refused((fd.try_clone().unwrap(), u64::MAX)), "EINVAL", "it wraps");
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    assert_eq!(refused((pipe, 0)), "ENODEV");
    let zero = rustix::fs::open("/dev/zero", OFlags::RDWR, Mode::empty()).unwrap();
    assert_eq!(refused((zero, 0)), "ENODEV");
}

#[test]
fn external_memory_has_the_access_that_it_is_handed_over_with_and_the_seals_of_its_file() {
    let ram = ram(PAGE);
    as_external(&ram, Access::READ, |object| {
        assert_eq!((object.access(), object.seals()), (Access::READ, ram.seals()));
    });
}

/// Memory that is unmapped, and counted, when its last user drops it.
struct Counted {
    base: NonNull<u8>,
    len: usize,
    dropped: Arc<AtomicU32>,
}

// SAFETY: nothing of it belongs to a thread: `base` is an address, which is used to unmap its
// memory, and that may be done by any thread.
unsafe impl Send for Counted {}
// SAFETY: a shared reference to it gives no access to `base`: only `drop` uses that.
unsafe impl Sync for Counted {}

impl Drop for Counted {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are a mapping of this value's own, and it is unmapped once. That
        // no pointer into it is used any more is what the test is about.
        unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) }.unwrap();
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn the_owner_of_external_memory_is_dropped_after_its_last_user_and_only_then() {
    for residency in [Residency::OnDemand, Residency::Resident, Residency::Pinned] {
        let len = 4 * PAGE as usize;
        let dropped = Arc::new(AtomicU32::new(0));
        let count = || dropped.load(Ordering::SeqCst);
        let counted = Counted { base: mapped(len), len, dropped: Arc::clone(&dropped) };
        let mut external = External::new(counted.base, len, Arc::new(counted));
        external.residency = residency;
        // SAFETY: `counted` keeps the range mapped, readable and writable, until it is dropped;
        // only the engine accesses it; and nobody punches holes into it or discards it.
        let object = unsafe { MemoryObject::external("vmm", external) }.unwrap();
        let guest = Guest::builder().iommu(Unattached::Bypass).drain(detach_after(Duration::ZERO));
        let guest = guest.build().unwrap();
        guest.space().add_ram(None, &object).unwrap();
        let disk = guest.vdev("disk").unwrap();
        let mapping = disk.map(DeviceAddr(PAGE), 8, MapFlags::RW).unwrap();
        let scatter = disk.map_scatter(DeviceAddr(0), 2 * PAGE, MapFlags::READ).unwrap();
        drop(object);
        // Detached: the memory is in no guest any more, and is kept for its mappings.
        assert_eq!(guest.space().remove(span(0, 4 * PAGE)).unwrap().wait().detached, 2);
        drop((disk, guest));
        assert_eq!(count(), 0, "two mappings are left");
        mapping.write_at(0, b"alive").unwrap();
        drop(mapping);
        assert_eq!(count(), 0, "one mapping is left");
        let mut bytes = [0; 5];
        scatter.read_at(PAGE as usize, &mut bytes).unwrap();
        assert_eq!(&bytes, b"alive");
        drop(scatter);
        assert!(eventually(|| count() == 1), "{residency:?}: {}", count());
    }
    // A refused owner is dropped.
    let owner = Arc::new(());
    let external = External::new(NonNull::dangling(), 0, owner.clone());
    // SAFETY: what `external` asks is of `[base, base + 0)`, in which there is nothing.
    assert_eq!(errno(unsafe { MemoryObject::external("vmm", external) }), "EINVAL");
    assert_eq!(Arc::strong_count(&owner), 1);
}

#[test]
fn memory_of_two_objects_is_never_one_piece_however_it_lies() {
    let page = PAGE as usize;
    let base = mapped(2 * page);
    let object = |len| {
        let mut external = External::new(base, len, Arc::new(()));
        external.residency = Residency::Resident;
        // SAFETY: `len` is one page or both of the mapping, which stays mapped for as long as the
        // process lives, readable and writable; only the engine accesses it; and the residency is
        // not `Pinned`.
        unsafe { MemoryObject::external("vmm", external) }.unwrap()
    };
    // What follows the only page of `one`, by its address and by its offset, is the second
    // page of `two`.
    let (one, two) = (object(page), object(2 * page));
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    guest.space().add_ram(Some(GuestPhys(0)), &one).unwrap();
    guest.space().add_ram(Some(GuestPhys(HUGE)), &two).unwrap();
    let (disk, domain) = device(&guest, "disk", DomainKind::Translate);
    domain.grant(DeviceAddr(0), GuestPhys(0), PAGE, Access::RW).unwrap();
    domain.grant(DeviceAddr(PAGE), GuestPhys(HUGE + PAGE), PAGE, Access::RW).unwrap();
    let refused = error(disk.map(DeviceAddr(0), 2 * PAGE, MapFlags::RW));
    assert_eq!(refused.reason(), Reason::NotConsecutive { prefix: PAGE });
    let scatter = disk.map_scatter(DeviceAddr(8), 2 * PAGE - 8, MapFlags::RW).unwrap();
    let pieces: Vec<_> = scatter.pieces().map(|piece| (piece.as_ptr(), piece.len())).collect();
    let second = base.as_ptr().wrapping_add(page).cast_const();
    let expected = [(base.as_ptr().wrapping_add(8).cast_const(), page - 8), (second, page)];
    assert_eq!(pieces, expected);
    if let Ok(run) = disk.map_host_contig(DeviceAddr(0), 2 * PAGE, MapFlags::RW) {
        assert_eq!(run.len(), page, "only one object's");
    }
    // The same if they are adjacent in the guest's memory.
    let bypass = Guest::builder().build().unwrap();
    bypass.space().add_ram(Some(GuestPhys(0)), &one).unwrap();
    let tail = Region::memory(RegionKind::Ram, span(PAGE, PAGE), &two, PAGE).unwrap();
    bypass.space().add(tail).unwrap();
    assert_eq!(bypass.space().regions().len(), 2);
    let disk = bypass.vdev("disk").unwrap();
    let refused = error(disk.map(DeviceAddr(0), PAGE + 1, MapFlags::RW));
    assert_eq!(refused.reason(), Reason::NotConsecutive { prefix: PAGE });
    // Parts of one object are one piece, wherever they are in the guest's memory.
    let again = Region::memory(RegionKind::Ram, span(4 * HUGE, PAGE), &two, 0).unwrap();
    guest.space().add(again).unwrap();
    let (disk, domain) = device(&guest, "net", DomainKind::Translate);
    domain.grant(DeviceAddr(0), GuestPhys(4 * HUGE), PAGE, Access::RW).unwrap();
    domain.grant(DeviceAddr(PAGE), GuestPhys(HUGE + PAGE), PAGE, Access::RW).unwrap();
    assert_eq!(disk.map(DeviceAddr(0), 2 * PAGE, MapFlags::RW).unwrap().len(), 2 * page);
}

#[test]
fn rom_contains_what_was_loaded_and_keeps_it() {
    let rom = ram(PAGE);
    rom.write_at(0, b"firmware").unwrap();
    let guest = Guest::builder().build().unwrap();
    let start = guest.space().add_rom(Some(GuestPhys(0xf_f000)), &rom).unwrap();
    let mut bytes = [0; 8];
    guest.read_firmware(start, &mut bytes).unwrap();
    assert_eq!(&bytes, b"firmware");
    assert_eq!(errno(guest.write_firmware(start, b"x")), "EACCES");
    let disk = guest.vdev("disk").unwrap();
    let held = disk.map(DeviceAddr(start.0), 8, MapFlags::READ.any()).unwrap();
    assert_eq!(errno(held.as_mut_ptr().map(drop)), "EACCES");
    assert_eq!(errno(held.store(0, 0_u64, std::sync::atomic::Ordering::Relaxed)), "EACCES");
    assert_eq!(errno(held.write_at(0, b"x")), "EACCES");
}

#[test]
fn ram_is_shared_with_whoever_receives_its_file() {
    let (guest, ram) = plain_guest(2 * PAGE);
    let (fd, offset) = ram.file().unwrap();
    // Opened again, as another process that received the descriptor would.
    let other = reopened(&fd, OFlags::RDWR);
    let peer = adopt(other, offset, 2 * PAGE, Access::RW).unwrap();
    let disk = guest.vdev("disk").unwrap();
    let mapping = disk.map(DeviceAddr(PAGE + 3), 5, MapFlags::RW).unwrap();
    mapping.write_at(0, b"there").unwrap();
    assert_eq!(read(&peer, PAGE + 3, 5), b"there");
    peer.write_at(PAGE + 3, b"again").unwrap();
    let mut bytes = [0; 5];
    mapping.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"again");
    let cut = rustix::fs::ftruncate(fd.as_fd(), 0);
    assert_eq!(cut, Err(rustix::io::Errno::PERM), "the file cannot shrink");
}

#[test]
fn memory_outlives_its_guest_while_it_is_held_and_not_longer() {
    let (guest, ram) = plain_guest(4 * PAGE);
    number_pages(&ram, 9);
    let disk = guest.vdev("disk").unwrap();
    let mapping = disk.map(DeviceAddr(2 * PAGE), PAGE, MapFlags::RW).unwrap();
    let scatter = disk.map_scatter(DeviceAddr(0), PAGE, MapFlags::READ).unwrap();
    let file = inode(&ram);
    drop((ram, disk, guest));
    assert_eq!(word(&mapping), numbered(9, 2));
    mapping.write_at(0, b"alive").unwrap();
    drop(mapping);
    let mut bytes = [0; 8];
    scatter.read_at(0, &mut bytes).unwrap();
    assert_eq!(u64::from_le_bytes(bytes), numbered(9, 0));
    assert_eq!(times_mapped(file), 1, "mapped once, however many hold it");
    drop(scatter);
    assert_eq!(times_mapped(file), 0, "unmapped with the last");
}

#[test]
fn an_object_taken_out_of_a_mapping_keeps_the_memory() {
    let (guest, ram) = plain_guest(PAGE);
    number_pages(&ram, 3);
    let disk = guest.vdev("disk").unwrap();
    let mapping = disk.map(DeviceAddr(16), 8, MapFlags::READ).unwrap();
    let object = mapping.object().clone();
    assert!(object.same(&ram) && mapping.object_offset() == 16);
    drop((mapping, disk, guest, ram));
    assert_eq!(read(&object, 0, 8), numbered(3, 0).to_le_bytes());
}

#[test]
fn backings_that_were_passed_over_are_reported_with_the_reason() {
    let ram = MemoryObject::ram(PAGE).create().unwrap();
    assert_eq!(ram.backing().obtained, Backing::Base, "one page is no huge page");
    let passed: Vec<Backing> = ram.backing().passed_over.iter().map(|it| it.backing).collect();
    assert_eq!(passed, [Backing::Huge1G, Backing::Huge2M, Backing::Thp]);
    assert!(ram.backing().passed_over.iter().all(|it| !it.why.is_empty()));
}
