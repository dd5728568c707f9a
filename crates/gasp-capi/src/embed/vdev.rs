//! Listed vdevs.

use core::fmt;
use std::sync::Arc;

use gasp::Errno;
use gasp::ffi::Section;

use super::error::Error;
use super::guest::{Entry, ListedGuest};
use crate::arena;
use crate::boundary::Failure;
use crate::objects::{self, Guest, NamedVdev, VDEVS, VdevState, vdev_pointer};
use crate::types::Vdev;

/// The memory at a `vdev_t *`, in bytes: more than `struct vdev_s` has in either edition.
pub const VDEV_BYTES: usize = arena::PAGE;

/// A device with a `vdev_t`, as long as it is listed.
///
/// Dropping it removes it from the list, and waits until no map that has found it is in progress;
/// it must not be dropped in a [section](gasp::ffi::Section). C's later calls with the pointer are
/// refused (`EINVAL`), and an access to its memory raises SIGSEGV. The engine's device is not
/// removed, and its registers remain: see [`remove_registers`](Self::remove_registers).
pub struct ListedVdev {
    pub(super) guest: Arc<Entry>,
    pub(super) number: usize,
    vdev: gasp::Vdev,
}

impl ListedGuest {
    /// Lists a device of this guest, or takes over its entry, if it has been listed with the guest
    /// or by C: then `vdev_t` and content stay what they are.
    ///
    /// # Errors
    /// `EINVAL` if the device is another guest's; `EBUSY` if it has a [`ListedVdev`] already, or C
    /// is destroying it; `ENOSPC` at the limit of 262,144 listed vdevs of the process; `ENOMEM` if
    /// the host has no memory, or no mapping (`vm.max_map_count`), for another.
    pub fn list(&self, vdev: &gasp::Vdev) -> Result<ListedVdev, Error> {
        let guest = Arc::clone(self.entry());
        let number = embed(&guest.0, vdev)?;
        Ok(ListedVdev { guest, number, vdev: vdev.clone() })
    }
}

impl ListedVdev {
    /// The `vdev_t *` for C: the first byte of [`VDEV_BYTES`] that are this vdev's alone, aligned to
    /// as many, and valid for reads and writes as long as `self` exists.
    ///
    /// A new one is all zeros, but for `v_gsp` and `v_block.location` ([`Vdev`]).
    pub fn pointer(&self) -> *mut Vdev {
        vdev_pointer(self.number)
    }

    /// The engine's device.
    pub fn vdev(&self) -> &gasp::Vdev {
        &self.vdev
    }

    /// Holds it back, or no more: as long as a PCI function is not bus master, C's maps of it are
    /// refused (`EPERM`). Maps that exist stay. Does not concern the engine's device.
    pub fn hold_back(&self, held_back: bool) {
        let section = Section::enter();
        if let Some(found) = VDEVS.find(&section, self.number) {
            found.held_back.set(held_back);
        }
    }

    /// Takes its place from it: C's maps of it are refused from now on, its memory stays until this is
    /// dropped, and the engine's device can be [listed](ListedGuest::list) again. For a vdev whose
    /// threads outlive it.
    pub fn retire(&self) {
        self.hold_back(true);
        self.guest.0.forget_vdev(self.vdev.name(), self.number);
    }

    /// Whether it is [held back](Self::hold_back).
    pub fn is_held_back(&self) -> bool {
        let section = Section::enter();
        VDEVS.find(&section, self.number).is_none_or(|found| found.held_back.get())
    }
}

impl Drop for ListedVdev {
    fn drop(&mut self) {
        // The name is released after it: nobody lists the device again meanwhile.
        drop(VDEVS.remove(self.number));
        self.guest.0.forget_vdev(self.vdev.name(), self.number);
    }
}

impl fmt::Debug for ListedVdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListedVdev({:?} at {:p})", self.vdev.name(), self.pointer())
    }
}

/// The number of a device of a guest, which is the program's from now on.
fn embed(guest: &Arc<Guest>, vdev: &gasp::Vdev) -> Result<usize, Error> {
    if !vdev.guest().same(&guest.engine) {
        let why = format!("the vdev {:?} belongs to another guest", vdev.name());
        return Err(Error(Failure::Text(Errno::INVAL, why)));
    }
    let mut names = guest.names();
    let listed =
        |named: &&mut NamedVdev| VDEVS.get(named.number).is_some_and(|found| found.vdev.same(vdev));
    match names.vdevs.get_mut(vdev.name()).filter(listed) {
        Some(named) if named.state == VdevState::Listed => {
            named.state = VdevState::Embedded;
            Ok(named.number)
        }
        Some(_) => {
            let why = format!("the vdev {:?} is listed already, or being destroyed", vdev.name());
            Err(Error(Failure::Text(Errno::BUSY, why)))
        }
        // One of this name that was removed from the guest meanwhile is replaced.
        None => Ok(guest.enlist_vdev(&mut names, vdev.clone(), VdevState::Embedded)?),
    }
}

/// The device of a `vdev_t *` that C passes: any value will do.
///
/// # Errors
/// `EINVAL` if no listed vdev has this address.
pub fn vdev_of(vdev: *const Vdev) -> Result<gasp::Vdev, Error> {
    Ok(objects::vdev_of(vdev)?.vdev)
}
