//! Pins, and the audit that shows whether they hold.
//!
//! Each trial declares what it needs. If the machine does not have it, the trial is marked as
//! ignored, with the reason in its name, so that it is counted and visible.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;
#[path = "support/trials.rs"]
mod trials;

use std::ptr::NonNull;
use std::sync::Arc;

use gasp::PinMethod;
use gasp::{
    Adopt, Backing, External, Guest, GuestPhys, HostPhys, MemoryObject, Residency, Stability,
};
use libtest_mimic::Arguments;
use rustix::fs::{FallocateFlags, MemfdFlags};
use support::*;
use trials::*;

const SIZE: u64 = 16 << 20;
const COMPACT: &str = "/proc/sys/vm/compact_memory";

fn main() {
    let mut trials = Vec::new();
    let compact = || writable(COMPACT);
    for (kind, len) in [(Backing::Base, SIZE), (Backing::Thp, SIZE), (Backing::Huge2M, 2 * HUGE)] {
        for method in PinMethod::PREFERENCE {
            let lacks = [frames(), backing(kind, len), pins_by(method, len as usize), compact()];
            let name = format!("pages_pinned_by_{method}_stay ({kind})");
            trials.push(trial(name, &lacks, move || stays(kind, len, method)));
        }
        let lacks = [frames(), backing(kind, len)];
        let name = format!("an_audit_finds_exactly_the_pages_that_were_punched_out ({kind})");
        trials.push(trial(name, &lacks, move || punched(kind, len)));
        let name = format!("an_audit_of_what_did_not_move_finds_nothing ({kind})");
        trials.push(trial(name, &lacks, move || quiet(kind, len)));
    }
    let lacks = [pins_by(PinMethod::Pipe, SIZE as usize)];
    trials.push(trial("the_order_of_pins_is_the_callers", &lacks, order_is_the_callers));
    trials.push(trial("too_many_small_pages_are_not_pinned_in_part", &lacks, too_many));
    trials.push(trial("memory_that_others_can_punch_is_not_called_pinned", &lacks, not_ours));
    trials.push(trial("memory_that_is_not_shared_is_not_pinned_by_a_pipe", &lacks, not_shared));
    trials.push(trial("a_pin_by_pipes_closes_its_descriptors", &lacks, descriptors_back));
    let lacks = [backing(Backing::Huge2M, HUGE)];
    trials.push(trial("a_pool_page_is_reserved_only_for_a_trusted_owner", &lacks, reserved));
    let punched = || punched_pool();
    trials.push(trial("a_hole_in_an_empty_pools_file_is_eio", &lacks, punched));
    let name = "a_hole_in_ram_of_an_empty_pool_whose_file_was_given_out_is_eio";
    trials.push(trial(name, &lacks, given_out));
    trials.push(trial("a_guest_is_audited_object_by_object", &[frames()], guest_audit));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn compact_memory() {
    std::fs::write(COMPACT, "1").unwrap();
}

fn stays(kind: Backing, len: u64, method: PinMethod) {
    let ram = MemoryObject::ram(len).prefer(&[kind]).pin(&[method]).create().unwrap();
    assert_eq!(ram.pinned_by(), Some(method), "{:?}", ram.not_pinned_because());
    assert_eq!(ram.stability(), Stability::Pinned);
    let reported: Vec<_> = ram.host_extents().collect();
    for _ in 0..3 {
        compact_memory();
        let audit = ram.audit().unwrap();
        assert_eq!((audit.checked, audit.changes), (len, vec![]));
    }
    assert_eq!(ram.host_extents().collect::<Vec<_>>(), reported);
}

fn quiet(kind: Backing, len: u64) {
    let ram = MemoryObject::ram(len).prefer(&[kind]).residency(Residency::Resident).create();
    let ram = ram.unwrap();
    // Nothing has moved it on purpose, but anything may: only the sums are certain.
    let audit = ram.audit().unwrap();
    assert_eq!((audit.checked, audit.unchecked), (len, 0));
    if ram.stability() == Stability::Unpinned {
        assert_eq!(audit.broken().count(), 0, "nothing was promised");
    }
}

fn punched(kind: Backing, len: u64) {
    let ram = MemoryObject::ram(len).prefer(&[kind]).create().unwrap();
    // A hole in a part of a held huge page only zeroes that part.
    let unit = if kind == Backing::Base { PAGE } else { HUGE };
    let (fd, _) = ram.file().unwrap();
    let was = ram.host_run(unit, unit).unwrap().addr;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(fd, flags, unit, unit).unwrap();
    if ram.stability() < Stability::Pinned {
        // The page went back to the pool, and the same one may come again.
        return;
    }
    let audit = ram.audit().unwrap();
    // Small pages may replace a huge one, each of which is a change.
    assert!(!audit.changes.is_empty());
    assert_eq!(audit.broken().count(), audit.changes.len());
    let mut offset = unit;
    for change in &audit.changes {
        assert_eq!((change.offset, change.class), (offset, Stability::Pinned));
        assert_eq!(change.was.0, was.0 + (offset - unit), "the address returned before");
        assert!(change.is_broken_promise() && change.is != Some(change.was));
        assert!(change.to_string().contains(&change.was.to_string()), "{change}");
        offset += change.len;
    }
    assert_eq!(offset, 2 * unit, "nothing else");
}

fn order_is_the_callers() {
    let ram = |pins: &[PinMethod]| {
        MemoryObject::ram(SIZE).prefer(&[Backing::Base]).pin(pins).create().unwrap()
    };
    let pipe = ram(&[PinMethod::Pipe, PinMethod::IoUring]);
    assert_eq!(pipe.pinned_by(), Some(PinMethod::Pipe));
    let none = ram(&[]);
    assert_eq!((none.pinned_by(), none.stability()), (None, Stability::Unpinned));
    assert!(none.not_pinned_because().is_some());
    let how = Adopt { residency: Residency::Pinned, pins: &[PinMethod::Pipe], ..whole(PAGE) };
    let adopted = MemoryObject::adopt(memfd(PAGE), how).unwrap();
    assert_eq!(adopted.pinned_by(), Some(PinMethod::Pipe));
}

fn too_many() {
    let len = (4_096 + 1) * PAGE;
    let ram = MemoryObject::ram(len).prefer(&[Backing::Base]).pin(&[PinMethod::Pipe]).create();
    let ram = ram.unwrap();
    assert_eq!((ram.pinned_by(), ram.stability()), (None, Stability::Unpinned));
    assert!(ram.not_pinned_because().unwrap().contains("huge"));
}

fn not_ours() {
    let how = Adopt { residency: Residency::Pinned, pins: &[PinMethod::Pipe], ..whole(PAGE) };
    // An owner who can punch holes, and one who can also truncate the file.
    let plain = rustix::fs::memfd_create("gasp-pins", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&plain, PAGE).unwrap();
    for fd in [memfd(PAGE), plain] {
        let hostile = MemoryObject::adopt(fd, how).unwrap();
        assert_eq!(hostile.pinned_by(), Some(PinMethod::Pipe), "it is held all the same");
        assert_eq!(hostile.stability(), Stability::Unpinned);
        assert!(hostile.not_pinned_because().unwrap().contains("holes"));
        let reported = hostile.host_run(0, PAGE).is_ok();
        assert_eq!(reported, gasp::frame_access() == gasp::FrameAccess::Allowed);
    }
    let trusted = MemoryObject::adopt(memfd(PAGE), Adopt { trusted: true, ..how }).unwrap();
    assert_eq!((trusted.stability(), trusted.not_pinned_because()), (Stability::Pinned, None));
    let sealed = memfd(PAGE);
    rustix::fs::fcntl_add_seals(&sealed, rustix::fs::SealFlags::WRITE).unwrap();
    let read = Adopt { access: gasp::Access::READ, ..how };
    let sealed = MemoryObject::adopt(sealed, read).unwrap();
    assert_eq!((sealed.stability(), sealed.not_pinned_because()), (Stability::Pinned, None));
}

fn not_shared() {
    let path = std::env::temp_dir().join(format!("gasp-pins-{}", std::process::id()));
    std::fs::write(&path, vec![0; PAGE as usize]).unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let is_memory = rustix::fs::fstatfs(&file).unwrap().f_type == 0x0102_1994;
    let how = Adopt { residency: Residency::Pinned, pins: &[PinMethod::Pipe], ..whole(PAGE) };
    // The folder may be on any file system, so the owner is trusted.
    let how = Adopt { trusted: true, ..how };
    let object = MemoryObject::adopt(file.into(), how).unwrap();
    assert_eq!(object.pinned_by().is_some(), is_memory);
    as_external(&object, gasp::Access::RW, |external| {
        assert!(is_memory || external.pinned_by() != Some(PinMethod::Pipe));
    });
}

fn descriptors_back() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let ram = || MemoryObject::ram(SIZE).prefer(&[Backing::Base]).pin(&[PinMethod::Pipe]).create();
    drop(ram().unwrap());
    let before = open();
    let held = ram().unwrap();
    assert!(open() > before + 10, "one for each 256 pages");
    drop(held);
    assert_eq!(open(), before);
}

/// A file of 2 MiB pages of the pool.
fn pool_file(len: u64) -> std::os::fd::OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let fd = rustix::fs::memfd_create("gasp-pool", flags).unwrap();
    rustix::fs::ftruncate(&fd, len).unwrap();
    fd
}

#[allow(unsafe_code, reason = "vouches for memory that is refused")]
fn reserved() {
    let how = Adopt { residency: Residency::Resident, ..whole(HUGE) };
    let trusted = MemoryObject::adopt(pool_file(HUGE), Adopt { trusted: true, ..how }).unwrap();
    assert_eq!(trusted.stability(), Stability::Reserved);
    as_external(&trusted, gasp::Access::RW, |external| {
        assert_eq!(external.page_size() as u64, HUGE, "an embedder's, too");
    });
    let inside = NonNull::new(trusted.as_ptr().wrapping_add(PAGE as usize)).unwrap();
    let mut external = External::new(inside, HUGE as usize, Arc::new(()));
    external.file = trusted.file().map(|(fd, _)| (fd.try_clone_to_owned().unwrap(), 0));
    // SAFETY: nothing is asked for memory that is refused, because it is no whole pages of its
    // file.
    let refused = unsafe { MemoryObject::external("vmm", external) };
    assert_eq!(errno(refused), "EINVAL");
    drop(trusted);
    let hostile = MemoryObject::adopt(pool_file(HUGE), how).unwrap();
    assert_eq!(hostile.stability(), Stability::Unpinned, "its pages can be punched out");
    assert!(hostile.is_guarded());
}

fn punched_pool() {
    const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    let free: u64 = std::fs::read_to_string(FREE).unwrap().trim().parse().unwrap();
    let fd = pool_file(HUGE);
    let how = Adopt { residency: Residency::Resident, ..whole(HUGE) };
    let object = MemoryObject::adopt(fd.try_clone().unwrap(), how).unwrap();
    object.write_at(0, b"there").unwrap();
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&fd, flags, 0, HUGE).unwrap();
    // Another object takes all pages of the pool.
    let all = MemoryObject::ram(free * HUGE).prefer(&[Backing::Huge2M]).create();
    if all.is_ok() {
        assert_eq!(errno(object.read_at(0, &mut [0; 8])), "EIO");
    }
    drop(all);
    object.read_at(0, &mut [0; 8]).unwrap();
}

fn given_out() {
    const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    let ram = |exclusive| {
        let ram = MemoryObject::ram(HUGE).prefer(&[Backing::Huge2M]).pin(&[]);
        ram.exclusive(exclusive).create().unwrap()
    };
    let exclusive = ram(true);
    exclusive.file().unwrap();
    assert!(!exclusive.is_guarded(), "its file has no other writer");
    drop(exclusive);
    let small = resident(PAGE);
    small.file().unwrap();
    assert!(!small.is_guarded(), "a hole is filled with a new page");
    let shared = ram(false);
    shared.alias().unwrap();
    assert!(!shared.is_guarded(), "its file was not given out");
    let mapped = Guest::builder().build().unwrap();
    mapped.space().add_ram(None, &shared).unwrap();
    let disk = mapped.vdev("disk").unwrap();
    let mapping = disk.map(gasp::DeviceAddr(0), 8, gasp::MapFlags::RW).unwrap();
    mapping.write_at(0, b"there").unwrap();
    let (fd, _) = shared.file().unwrap();
    assert!(shared.is_guarded());
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(fd, flags, 0, HUGE).unwrap();
    // Another object takes all pages of the pool.
    let free: u64 = std::fs::read_to_string(FREE).unwrap().trim().parse().unwrap();
    let all = MemoryObject::ram(free * HUGE).prefer(&[Backing::Huge2M]).create();
    if all.is_ok() {
        assert_eq!(errno(shared.read_at(0, &mut [0; 8])), "EIO");
        assert_eq!(errno(mapping.write_at(0, b"gone")), "EIO", "an earlier mapping, too");
    }
    drop(all);
    shared.read_at(0, &mut [0; 8]).unwrap();
}

fn guest_audit() {
    let guest = Guest::builder().build().unwrap();
    let (one, two) = (resident(4 * PAGE), ram(2 * PAGE));
    guest.space().add_ram(Some(GuestPhys(0)), &one).unwrap();
    guest.space().add_ram(Some(GuestPhys(HUGE)), &one).unwrap();
    guest.space().add_ram(None, &two).unwrap();
    let window = window(PAGE, HostPhys(0x1000_0000).0);
    let region = gasp::Region::pass_through(GuestPhys(2 * HUGE), &window).unwrap();
    guest.space().add(region).unwrap();
    let audit = guest.audit().unwrap();
    assert_eq!((audit.checked, audit.unchecked), (4 * PAGE, 3 * PAGE));
}
