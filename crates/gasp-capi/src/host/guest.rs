//! Guests: created, chosen, started, destroyed.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_char, c_int};
use core::time::Duration;
use std::path::Path;

use gasp::config::Config;
use gasp::{Deadline, DrainPolicy, Errno, Unattached};

use crate::arguments::{Out, name, read, text};
use crate::boundary::{self, Failure, Outcome};
use crate::objects::{GUESTS, Guest, choose, guest_of, no_guest, opaque};
use crate::types::*;

const NO_PLACE: &str = "the pointer for the guest is NULL";

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_guest_load(
    path: *const c_char,
    guest: *mut *mut GuestSystem,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `path` is NULL or a C string that stays as it is during the call, by the pointer
        // rule.
        let path = unsafe { text(path, "the path is NULL") }?;
        // SAFETY: `guest` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(guest, NO_PLACE) }?;
        place.write(enlist(|| Ok(Config::load(Path::new(path))?.build(None)?))?);
        Ok(())
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_guest_parse(
    toml: *const c_char,
    guest: *mut *mut GuestSystem,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `toml` is NULL or a C string that stays as it is during the call, by the pointer
        // rule.
        let text = unsafe { text(toml, "the text is NULL") }?;
        // SAFETY: `guest` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(guest, NO_PLACE) }?;
        let origin = Path::new("configuration");
        place.write(enlist(|| Ok(Config::parse(text, origin)?.build(None)?))?);
        Ok(())
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_guest_create(
    options: *const GuestOptions,
    guest: *mut *mut GuestSystem,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `guest` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(guest, NO_PLACE) }?;
        if options.is_null() {
            place.write(enlist(|| Ok(gasp::Guest::builder().build()?))?);
            return Ok(());
        }
        // SAFETY: `options` is NULL or valid for reads during the call, by the pointer rule.
        let options = unsafe { read(options, "") }?;
        let label = match options.name.is_null() {
            true => "guest",
            // SAFETY: `options.name` is not NULL, so it is a C string that stays as it is during
            // the call, by the pointer rule.
            false => unsafe { name(options.name) }?,
        };
        place.write(enlist(|| build(label, &options))?);
        Ok(())
    })
}

fn build(name: &str, options: &GuestOptions) -> Outcome<gasp::Guest> {
    let at_deadline = match options.at_deadline {
        GASP_DRAIN_WAIT => Deadline::Wait,
        GASP_DRAIN_DETACH => Deadline::Detach,
        _ => return Err(Failure::invalid("at_deadline is not one of GASP_DRAIN_*")),
    };
    if options.reserved != 0 {
        return Err(Failure::invalid("reserved is not 0: begin with GASP_GUEST_OPTIONS_INIT"));
    }
    let deadline = Duration::from_millis(options.drain_deadline_ms.into());
    let mut builder = gasp::Guest::builder()
        .name(name)
        .drain(DrainPolicy { deadline, at_deadline })
        .allow_unpinned(options.allow_unpinned != 0);
    if options.address_width != 0 {
        builder = builder.address_width(options.address_width);
    }
    builder = match options.iommu {
        GASP_IOMMU_NONE => builder,
        GASP_IOMMU_DENY => builder.iommu(Unattached::Deny),
        GASP_IOMMU_BYPASS => builder.iommu(Unattached::Bypass),
        _ => return Err(Failure::invalid("iommu is not one of GASP_IOMMU_*")),
    };
    Ok(builder.build()?)
}

/// Sets up the log and reads the environment; then creates a guest and registers it.
fn enlist(make: impl FnOnce() -> Outcome<gasp::Guest>) -> Outcome<*mut GuestSystem> {
    crate::log::prepare();
    crate::guard::prepare();
    Guest::enlist(make()?, false).map(opaque)
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_guest_destroy(guest: *mut GuestSystem) -> c_int {
    boundary::call(|| match guest_of(Some(guest))?.embedded {
        true => {
            let why = "gasp_guest_destroy: the guest belongs to the program that hosts the vdevs";
            Err(Failure::misuse(Errno::PERM, why))
        }
        false => Guest::delist(guest.addr()),
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_guest_start(guest: *mut GuestSystem) -> c_int {
    boundary::call(|| match guest_of(Some(guest))?.start() {
        true => Ok(()),
        false => {
            Err(Failure::misuse(Errno::PERM, "gasp_guest_start: the guest is running already"))
        }
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_guest_use(guest: *mut GuestSystem) -> c_int {
    boundary::call(|| {
        if !guest.is_null() {
            GUESTS.get(guest.addr()).ok_or_else(no_guest)?;
        }
        choose(guest.addr());
        Ok(())
    })
}
