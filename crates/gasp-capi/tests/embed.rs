//! Programs in Rust that host vdevs: what `gasp_capi::embed` gives them, and what C does with it.
#![allow(unsafe_code, reason = "calls the C functions, and looks into vdevs")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::ffi::{CStr, c_int};
use std::panic::AssertUnwindSafe;
use std::ptr;

use gasp::{Errno, Guest, GuestPhys, MemoryObject};
use gasp_capi::embed::{Error, ListedGuest, Space, VDEV_BYTES, call, engine_of, vdev_of};
use gasp_capi::find::gasp_find_free;
use gasp_capi::host::guest::gasp_guest_destroy;
use gasp_capi::host::report::gasp_last_error;
use gasp_capi::host::vdev::{gasp_vdev_destroy, gasp_vdev_find};
use gasp_capi::map::{gasp_get_vaddr, gasp_map, gasp_unmap_handle};
use gasp_capi::types::*;

const VIRT: u32 = GRF_VIRT_RD | GRF_VIRT_WR;

fn guest() -> ListedGuest {
    let guest = Guest::builder().build().unwrap();
    let ram = MemoryObject::ram(1 << 20).create().unwrap();
    guest.space().add_ram(Some(GuestPhys(0)), &ram).unwrap();
    ListedGuest::new(guest).unwrap()
}

fn map(vdev: *const Vdev) -> c_int {
    let mut handle = MapHandle::default();
    // SAFETY: the handle is a local variable; any vdev will do.
    let outcome = unsafe { gasp_map(vdev, 0x1000, 8, GMF_READ, &mut handle) };
    // SAFETY: the handle is a local variable.
    assert_eq!(outcome == EOK, !unsafe { gasp_get_vaddr(&handle) }.is_null());
    // SAFETY: the handle is a local variable.
    unsafe { gasp_unmap_handle(&mut handle) };
    outcome
}

fn last_error() -> String {
    // SAFETY: the text ends in a NUL and is this thread's, which does not call meanwhile.
    unsafe { CStr::from_ptr(gasp_last_error()) }.to_string_lossy().into_owned()
}

#[test]
fn a_listed_vdev_maps_until_it_is_dropped() {
    let guest = guest();
    let vdev = guest.list(&guest.engine().vdev("disk").unwrap()).unwrap();
    let pointer = vdev.pointer();
    assert_eq!(map(pointer), EOK);
    assert!(vdev_of(pointer).unwrap().same(vdev.vdev()));
    drop(vdev);
    assert_eq!(map(pointer), libc::EINVAL);
    assert_eq!(vdev_of(pointer).unwrap_err().errno(), Errno::INVAL);
    // The engine's device is still there, and is listed again at another address.
    let again = guest.list(&guest.engine().find_vdev("disk").unwrap()).unwrap();
    assert_ne!(again.pointer(), pointer);
    assert_eq!((map(again.pointer()), map(pointer)), (EOK, libc::EINVAL));
}

#[test]
fn a_vdev_that_is_held_back_maps_nothing_more() {
    let guest = guest();
    let vdev = guest.list(&guest.engine().vdev("disk").unwrap()).unwrap();
    let other = guest.list(&guest.engine().vdev("other").unwrap()).unwrap();
    let mut kept = MapHandle::default();
    // SAFETY: the handle is a local variable.
    assert_eq!(unsafe { gasp_map(vdev.pointer(), 0, 8, GMF_READ, &mut kept) }, EOK);
    for _ in 0..2 {
        vdev.hold_back(true);
        assert!(vdev.is_held_back() && !other.is_held_back());
        assert_eq!((map(vdev.pointer()), map(other.pointer())), (libc::EPERM, EOK));
        assert!(last_error().contains("not bus master"), "{}", last_error());
        // SAFETY: the handle is a local variable.
        assert!(!unsafe { gasp_get_vaddr(&kept) }.is_null());
        vdev.hold_back(false);
        assert_eq!(map(vdev.pointer()), EOK);
    }
    // SAFETY: the handle is a local variable.
    unsafe { gasp_unmap_handle(&mut kept) };
}

#[test]
fn a_new_vdev_has_its_guest_no_location_and_zeros() {
    let guest = guest();
    let vdev = guest.list(&guest.engine().vdev("disk").unwrap()).unwrap();
    assert!(vdev.pointer().addr().is_multiple_of(VDEV_BYTES));
    // SAFETY: the memory of a listed vdev is valid for reads, and initialized.
    let words = unsafe { vdev.pointer().cast::<[u64; VDEV_BYTES / 8]>().read() };
    assert_eq!(words[..4], [0, 0, guest.pointer().addr() as u64, QSL_NO_LOCATION]);
    assert!(words[4..].iter().all(|&word| word == 0));
    // All of it is the program's, and C's.
    // SAFETY: the memory of a listed vdev is valid for writes of as many bytes.
    unsafe { vdev.pointer().cast::<u8>().write_bytes(0xff, VDEV_BYTES) };
    assert_eq!(map(vdev.pointer()), EOK, "the library trusts nothing in it");
}

#[test]
fn devices_that_the_guest_has_are_taken_over_with_their_address() {
    let engine = Guest::builder().build().unwrap();
    let disk = engine.vdev("disk").unwrap();
    let guest = ListedGuest::new(engine).unwrap();
    let mut found = ptr::null_mut();
    // SAFETY: the text ends in a NUL, and the place is a local variable.
    let outcome = unsafe { gasp_vdev_find(guest.pointer(), c"disk".as_ptr(), &mut found) };
    assert_eq!(outcome, EOK);
    let listed = guest.list(&disk).unwrap();
    assert_eq!(listed.pointer(), found);
    assert_eq!(guest.list(&disk).unwrap_err().errno(), Errno::BUSY);
    drop(listed);
    assert!(guest.list(&disk).is_ok());
}

#[test]
fn a_device_of_another_guest_is_refused() {
    let (guest, other) = (guest(), guest());
    let foreign = other.engine().vdev("disk").unwrap();
    let error = guest.list(&foreign).unwrap_err();
    assert_eq!(error.errno(), Errno::INVAL);
    assert_eq!(error.to_string(), "the vdev \"disk\" belongs to another guest (EINVAL)");
}

#[test]
fn a_device_that_replaces_one_of_its_name_has_an_entry_of_its_own() {
    let guest = guest();
    let old = guest.engine().vdev("disk").unwrap();
    let listed = guest.list(&old).unwrap();
    drop(old.remove());
    let new = guest.list(&guest.engine().vdev("disk").unwrap()).unwrap();
    assert_ne!(listed.pointer(), new.pointer());
    drop(listed);
    assert_eq!(map(new.pointer()), EOK);
    let mut found = ptr::null_mut();
    // SAFETY: the text ends in a NUL, and the place is a local variable.
    unsafe { gasp_vdev_find(guest.pointer(), c"disk".as_ptr(), &mut found) };
    assert_eq!(found, new.pointer());
}

#[test]
fn c_destroys_nothing_that_the_program_has() {
    let guest = guest();
    let vdev = guest.list(&guest.engine().vdev("disk").unwrap()).unwrap();
    // SAFETY: no place for a drain is passed.
    assert_eq!(unsafe { gasp_vdev_destroy(vdev.pointer(), ptr::null_mut()) }, libc::EPERM);
    assert_eq!(gasp_guest_destroy(guest.pointer()), libc::EPERM);
    assert!(last_error().contains("belongs to the program"), "{}", last_error());
    assert_eq!(map(vdev.pointer()), EOK);
}

#[test]
fn a_guest_is_listed_as_long_as_one_of_its_vdevs() {
    let guest = guest();
    let pointer = guest.pointer();
    let vdev = guest.list(&guest.engine().vdev("disk").unwrap()).unwrap();
    drop(guest);
    assert!(engine_of(Some(pointer)).is_ok());
    assert_eq!(map(vdev.pointer()), EOK);
    drop(vdev);
    assert_eq!(engine_of(Some(pointer)).unwrap_err().errno(), Errno::INVAL);
}

#[test]
fn a_thread_s_choice_is_restored_after_a_callback() {
    let (one, two) = (guest(), guest());
    let current = || engine_of(None).unwrap();
    one.choose();
    assert!(two.chosen(current).same(two.engine()));
    assert!(current().same(one.engine()));
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| two.chosen(|| panic!("a test"))));
    assert!(panicked.is_err() && current().same(one.engine()));
    // Not inherited by a thread: which of several guests, it has not said.
    std::thread::scope(|scope| {
        let other = scope.spawn(|| engine_of(None).map(drop).unwrap_err().errno()).join().unwrap();
        assert_eq!(other, Errno::NOTUNIQ);
    });
}

#[test]
fn the_phase_ends_once() {
    let guest = guest();
    assert!(!guest.is_running());
    guest.start().unwrap();
    assert!(guest.is_running());
    assert_eq!(guest.start().unwrap_err().errno(), Errno::PERM);
}

#[test]
fn each_change_of_regions_is_counted_and_all_are_listed() {
    let guest = guest();
    let vdev = guest.list(&guest.engine().vdev("uart").unwrap()).unwrap();
    let mut seen = guest.changes();
    let mut has_changed = || {
        let before = core::mem::replace(&mut seen, guest.changes());
        before != seen
    };
    vdev.add_registers(Space::Memory, 0xfa00_0000..=0xfa00_0007, VIRT, 7).unwrap();
    assert!(has_changed() && !has_changed());
    vdev.add_registers(Space::Ports, 0x3f8..=0x3ff, VIRT, 8).unwrap();
    assert!(has_changed());
    let cookies = |space| -> Vec<_> {
        let own = guest.regions(space).into_iter().filter(|it| it.vdev == vdev.pointer());
        own.map(|region| (*region.span.start(), region.cookie)).collect()
    };
    assert_eq!(cookies(Space::Memory), [(0xfa00_0000, 7)]);
    assert_eq!(cookies(Space::Ports), [(0x3f8, 8)]);
    vdev.remove_registers().unwrap();
    assert!(has_changed());
    assert_eq!((cookies(Space::Memory), cookies(Space::Ports)), (vec![], vec![]));
}

#[test]
fn registers_are_found_by_address_and_by_port() {
    let guest = guest();
    let vdev = guest.list(&guest.engine().vdev("uart").unwrap()).unwrap();
    vdev.add_registers(Space::Memory, 0xfa00_0000..=0xfa00_0007, VIRT, 7).unwrap();
    vdev.add_registers(Space::Ports, 0x3f8..=0x3ff, GRF_VIRT_RD | GRF_NOCACHE, u32::MAX).unwrap();
    let memory = guest.region_at(Space::Memory, 0xfa00_0007).unwrap();
    assert_eq!((memory.vdev, memory.cookie), (vdev.pointer(), 7));
    assert_eq!((memory.flags, memory.span), (VIRT | GRF_ACTIVE, 0xfa00_0000..=0xfa00_0007));
    let ports = guest.region_at(Space::Ports, 0x3f8).unwrap();
    assert_eq!((ports.vdev, ports.cookie), (vdev.pointer(), u32::MAX));
    assert_eq!((ports.flags, ports.span), (GRF_VIRT_RD | GRF_NOCACHE | GRF_ACTIVE, 0x3f8..=0x3ff));
    assert_eq!(guest.region_at(Space::Memory, 0xfa00_0008), None);
    assert_eq!(guest.region_at(Space::Ports, 0x3f7), None);
    let ram = guest.region_at(Space::Memory, 0x1000).unwrap();
    assert_eq!((ram.vdev, ram.span), (ptr::null_mut(), 0..=0xf_ffff));
    // In the running phase, too.
    guest.start().unwrap();
    vdev.add_registers(Space::Ports, 0x2f8..=0x2ff, VIRT, 0).unwrap();
    // Without the vdev, the regions remain, and are nobody's.
    drop(vdev);
    assert_eq!(guest.region_at(Space::Ports, 0x3f8).unwrap().vdev, ptr::null_mut());
    assert_eq!(guest.region_at(Space::Memory, 0xfa00_0000).unwrap().vdev, ptr::null_mut());
}

#[test]
fn registers_that_cannot_be_added_are_refused_with_a_text() {
    let guest = guest();
    let vdev = |name| guest.list(&guest.engine().vdev(name).unwrap()).unwrap();
    let (one, two) = (vdev("one"), vdev("two"));
    one.add_registers(Space::Memory, 0xfa00_0000..=0xfa00_0fff, VIRT, 0).unwrap();
    one.add_registers(Space::Ports, 0x100..=0x1ff, VIRT, 0).unwrap();
    let text =
        |space, span, flags| two.add_registers(space, span, flags, 0).unwrap_err().to_string();
    assert_eq!(
        text(Space::Memory, 0xf9ff_fff0..=0xfa00_0000, VIRT),
        "the registers 0xf9fffff0 to 0xfa000000 of the vdev \"two\" overlap a region of the vdev \
         \"one\", 0xfa000000 to 0xfa000fff (EEXIST)"
    );
    assert_eq!(
        text(Space::Ports, 0x1ff..=0x200, VIRT),
        "the ports 0x1ff to 0x200 of the vdev \"two\" overlap a region of the vdev \"one\", 0x100 \
         to 0x1ff (EEXIST)"
    );
    assert!(text(Space::Memory, 0..=0xfff, VIRT).contains("overlap a region of no vdev, 0x0 to"));
    assert!(text(Space::Ports, 0xffff..=0x10000, VIRT).ends_with("(ENXIO)"));
    assert!(text(Space::Memory, (1 << 48) - 1..=1 << 48, VIRT).ends_with("(ENXIO)"));
    #[expect(clippy::reversed_empty_ranges, reason = "a range that is not valid")]
    let reversed = 0x2001..=0x2000;
    assert!(text(Space::Memory, reversed, VIRT).ends_with("(ENXIO)"));
    assert!(text(Space::Memory, 0..=u64::MAX, VIRT).ends_with("(ENXIO)"));
    for flags in [GRF_NONE, GRF_NOCACHE, VIRT | GRF_PASS_RD, VIRT | GRF_NOPERMS, u32::MAX] {
        assert!(text(Space::Ports, 0..=1, flags).ends_with("(EINVAL)"), "{flags:#x}");
    }
    // None of these has left a lock behind, or a region.
    two.add_registers(Space::Ports, 0x200..=0x200, VIRT, 0).unwrap();
}

#[test]
fn registers_are_removed_with_those_that_the_vdev_has_set() {
    let guest = guest();
    let vdev = |name| guest.list(&guest.engine().vdev(name).unwrap()).unwrap();
    let (one, two) = (vdev("one"), vdev("two"));
    for (at, vdev) in [(0x10_0000_u64, &one), (0x10_1000, &two), (0x10_2000, &one)] {
        vdev.add_registers(Space::Memory, at..=at + 0xfff, VIRT, 0).unwrap();
        vdev.add_registers(Space::Ports, at >> 12..=at >> 12, VIRT, 0).unwrap();
    }
    one.remove_registers().unwrap();
    let owner = |space, at| guest.region_at(space, at).map(|region| region.vdev);
    for (at, owned) in [(0x10_0000, None), (0x10_1000, Some(two.pointer())), (0x10_2000, None)] {
        assert_eq!(owner(Space::Memory, at), owned);
        assert_eq!(owner(Space::Ports, at >> 12), owned);
    }
    // Memory remains.
    assert!(guest.region_at(Space::Memory, 0).is_some());
    one.remove_registers().unwrap();
}

#[test]
fn an_exported_function_reports_as_the_library_s_do() {
    assert_eq!(call(|| Ok(())), EOK);
    assert_eq!(call(|| Err(Error::new(Errno::NODEV, "no such pin"))), libc::ENODEV);
    assert_eq!(last_error(), "no such pin (ENODEV)");
    assert_eq!(call(|| panic!("a test")), libc::ENOTRECOVERABLE);
    // What C calls after it, without a guest of its own choice, is refused and not guessed.
    let (_one, _two) = (guest(), guest());
    assert_eq!(gasp_find_free(QST_MEMORY.into(), 1, 1), QSL_NO_LOCATION);
}
