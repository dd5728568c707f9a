//! The domains of a guest's IOMMU.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_char, c_int};
use std::sync::Arc;

use gasp::{DeviceAddr, DomainKind, DomainOptions, Errno, Error, GuestPhys, Operation, Span};

use super::drain;
use crate::arguments::{Out, access, name};
use crate::boundary::{self, Failure, Outcome};
use crate::objects::{DOMAINS, domain_of, guest_of, opaque};
use crate::types::*;

const NO_PLACE: &str = "the pointer for the domain is NULL";

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_domain_create(
    guest: *mut GuestSystem,
    label: *const c_char,
    kind: u32,
    owner: *const c_char,
    domain: *mut *mut Domain,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `label` is NULL or a C string that stays as it is during the call, by the pointer
        // rule.
        let label = unsafe { name(label) }?;
        // SAFETY: `domain` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(domain, NO_PLACE) }?;
        let mut options = DomainOptions::new(kind_of(kind)?);
        if !owner.is_null() {
            // SAFETY: `owner` is NULL or a C string that stays as it is during the call, by the
            // pointer rule.
            options.owner = Arc::from(unsafe { name(owner) }?);
        }
        let guest = guest_of(Some(guest))?;
        let created = guest.engine.domain(label, options)?;
        let number =
            guest.enlist_domain(created.clone()).inspect_err(|_| drop(created.remove()))?;
        place.write(opaque(number));
        Ok(())
    })
}

fn kind_of(kind: u32) -> Outcome<DomainKind> {
    match kind {
        GASP_DOMAIN_BYPASS => Ok(DomainKind::Bypass),
        GASP_DOMAIN_DENY => Ok(DomainKind::Deny),
        GASP_DOMAIN_IDENTITY => Ok(DomainKind::Identity),
        GASP_DOMAIN_TRANSLATE => Ok(DomainKind::Translate),
        _ => Err(Failure::invalid("the kind is not one of GASP_DOMAIN_*")),
    }
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_domain_find(
    guest: *mut GuestSystem,
    label: *const c_char,
    domain: *mut *mut Domain,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `label` is NULL or a C string that stays as it is during the call, by the pointer
        // rule.
        let label = unsafe { name(label) }?;
        // SAFETY: `domain` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(domain, NO_PLACE) }?;
        let guest = guest_of(Some(guest))?;
        let found = guest.names().domains.get(label).copied();
        let none = Failure::Call(Errno::NOENT, "the guest has no domain of this name");
        place.write(opaque(found.ok_or(none)?));
        Ok(())
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_domain_grant(
    domain: *mut Domain,
    device_addr: u64,
    guest_paddr: u64,
    length: u64,
    bits: u32,
) -> c_int {
    boundary::call(|| {
        let device = DeviceAddr(device_addr);
        let access =
            access(bits).map_err(|reason| Error::new(Operation::Grant, device, length, reason))?;
        Ok(domain_of(domain)?.domain.grant(device, GuestPhys(guest_paddr), length, access)?)
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_domain_revoke(
    domain: *mut Domain,
    device_addr: u64,
    length: u64,
    drain: *mut *mut Drain,
) -> c_int {
    boundary::call(|| {
        let domain = domain_of(domain)?.domain;
        let device = DeviceAddr(device_addr);
        // A range that is not valid holds nothing, and the revoke refuses it.
        let held = || Span::new(device, length).map_or(0, |span| domain.held_by_this_thread(span));
        // SAFETY: `drain` is NULL or valid for writes during the call, by the pointer rule.
        let completion = unsafe { drain::completion(drain, domain.drain_policy(), held) }?;
        completion.complete(domain.revoke(device, length)?);
        Ok(())
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_domain_destroy(domain: *mut Domain) -> c_int {
    boundary::call(|| {
        let found = domain_of(domain)?;
        let name = found.domain.name().to_owned();
        found.domain.remove()?;
        DOMAINS.remove(domain.addr());
        let mut names = found.guest.names();
        if names.domains.get(&name) == Some(&domain.addr()) {
            names.domains.remove(&name);
        }
        Ok(())
    })
}
