//! A guest's devices, and their attachment to domains.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_char, c_int};

use gasp::{DomainKind, DrainPolicy, Errno, Unattached};

use super::drain;
use crate::arguments::{Out, name};
use crate::boundary::{self, Failure};
use crate::objects::{VDEVS, VdevState, domain_of, guest_of, no_vdev, vdev_of, vdev_pointer};
use crate::types::{Domain, Drain, GuestSystem, Vdev};

const NO_PLACE: &str = "the pointer for the vdev is NULL";

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_vdev_create(
    guest: *mut GuestSystem,
    label: *const c_char,
    vdev: *mut *mut Vdev,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `label` is NULL or a C string that stays as it is during the call, by the pointer
        // rule.
        let name = unsafe { name(label) }?;
        // SAFETY: `vdev` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(vdev, NO_PLACE) }?;
        let guest = guest_of(Some(guest))?;
        let created = guest.engine.vdev(name)?;
        let vdev = created.clone();
        let number = guest.enlist_vdev(&mut guest.names(), vdev, VdevState::Listed);
        let number = number.inspect_err(|_| drop(created.remove()))?;
        place.write(vdev_pointer(number));
        Ok(())
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_vdev_find(
    guest: *mut GuestSystem,
    label: *const c_char,
    vdev: *mut *mut Vdev,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `label` is NULL or a C string that stays as it is during the call, by the pointer
        // rule.
        let name = unsafe { name(label) }?;
        // SAFETY: `vdev` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(vdev, NO_PLACE) }?;
        let guest = guest_of(Some(guest))?;
        let found = guest.names().vdevs.get(name).copied();
        let none = Failure::Call(Errno::NOENT, "the guest has no vdev of this name");
        place.write(vdev_pointer(found.ok_or(none)?.number));
        Ok(())
    })
}

/// The drain policy of a revoke of the device's mappings.
fn policy_of(vdev: &gasp::Vdev) -> DrainPolicy {
    vdev.domain().map_or_else(|| vdev.guest().drain_policy(), |domain| domain.drain_policy())
}

/// Whether an unattached device of this guest reaches all memory.
fn reaches_all(vdev: &gasp::Vdev) -> bool {
    vdev.guest().iommu() != Some(Unattached::Deny)
}

/// Whether an attachment changes nothing for the device: from one bypass to another, or to its
/// present domain.
fn stays(vdev: &gasp::Vdev, to: &gasp::Domain) -> bool {
    match vdev.domain() {
        Some(from) => {
            from.name() == to.name()
                || (from.kind() == DomainKind::Bypass && to.kind() == DomainKind::Bypass)
        }
        None => to.kind() == DomainKind::Bypass && reaches_all(vdev),
    }
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_vdev_attach(
    vdev: *mut Vdev,
    domain: *mut Domain,
    drain: *mut *mut Drain,
) -> c_int {
    boundary::call(|| {
        let (vdev, domain) = (vdev_of(vdev)?.vdev, domain_of(domain)?.domain);
        let held = || match stays(&vdev, &domain) {
            true => 0,
            false => vdev.held_by_this_thread(),
        };
        // SAFETY: `drain` is NULL or valid for writes during the call, by the pointer rule.
        let completion = unsafe { drain::completion(drain, policy_of(&vdev), held) }?;
        completion.complete(vdev.attach(&domain)?);
        Ok(())
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_vdev_detach(vdev: *mut Vdev, drain: *mut *mut Drain) -> c_int {
    boundary::call(|| {
        let vdev = vdev_of(vdev)?.vdev;
        let bypasses = vdev.domain().is_none_or(|domain| domain.kind() == DomainKind::Bypass);
        let held = || match bypasses && reaches_all(&vdev) {
            true => 0,
            false => vdev.held_by_this_thread(),
        };
        // SAFETY: `drain` is NULL or valid for writes during the call, by the pointer rule.
        let completion = unsafe { drain::completion(drain, policy_of(&vdev), held) }?;
        completion.complete(vdev.detach());
        Ok(())
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_vdev_destroy(vdev: *mut Vdev, drain: *mut *mut Drain) -> c_int {
    boundary::call(|| {
        let found = vdev_of(vdev)?;
        let held = || found.vdev.held_by_this_thread();
        // SAFETY: `drain` is NULL or valid for writes during the call, by the pointer rule.
        let completion = unsafe { drain::completion(drain, policy_of(&found.vdev), held) }?;
        found.guest.end_vdev(found.vdev.name(), vdev.addr())?;
        let removed = VDEVS.remove(vdev.addr()).ok_or_else(no_vdev)?;
        // The name is released only when the device has been removed from the guest, too.
        let name = removed.vdev.name().to_owned();
        let found = removed.vdev.remove();
        removed.guest.forget_vdev(&name, vdev.addr());
        completion.complete(found);
        Ok(())
    })
}
