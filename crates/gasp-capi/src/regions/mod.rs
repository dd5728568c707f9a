//! Regions: described and set.
//!
//! The properties of a region that the engine does not know, its `GRF_VIRT_*`, `GRF_NOCACHE` and
//! `GRF_NOPERMS` flags and its cookie, are kept as the engine's tag of the region.
#![allow(unsafe_code, reason = "exports C functions")]

mod entry;
mod info;

use core::ffi::c_int;
use std::sync::Arc;

pub(crate) use entry::{check_width, tag};
use entry::{is_of, set_one, waits_for_oneself};
use gasp::Errno;
pub use info::RegionAt;
pub(crate) use info::{info, region_at, regions};

use crate::arguments::{Out, array, read};
use crate::boundary::{self, Failure, Outcome, set_errno};
use crate::deadlock;
use crate::last_error;
use crate::lock::{self, Space};
use crate::objects::{Guest, NamedGuest, guest_of};
use crate::types::*;

/// Carries out the entries one after the other; returns how many have succeeded.
fn set_all(guest: &Arc<Guest>, entries: &[Region]) -> (usize, Outcome) {
    for (index, entry) in entries.iter().enumerate() {
        let outcome = set_one(guest, entry);
        guest.changed();
        if let Err(failure) = outcome {
            return (index, Err(failure));
        }
    }
    (entries.len(), Ok(()))
}

/// Sets regions in the running phase, under the lock, which this thread owns.
pub(crate) fn set_soft(guest: NamedGuest, entries: impl FnOnce() -> Outcome<Vec<Region>>) -> u32 {
    let mut done = 0;
    boundary::value((), || {
        let guest = guest_of(guest)?;
        if !guest.is_running() {
            let why = "gasp_region_set_soft: the guest is not running; use gasp_region_set";
            return Err(Failure::misuse(Errno::PERM, why));
        }
        let entries = entries()?;
        let (count, outcome) = set_all(&guest, &entries);
        done = count;
        outcome
    });
    done as u32
}

/// Sets regions in the startup phase; the failure of an entry ends the process.
pub(crate) fn set_hard(guest: NamedGuest, entries: impl FnOnce() -> Outcome<Vec<Region>>) {
    let allowed = boundary::call(|| {
        let guest = guest_of(guest)?;
        let why = match guest.is_running() {
            true => "gasp_region_set: the guest is running; use gasp_region_set_soft",
            false if lock::is_ending() => "gasp_region_set: this thread is ending",
            false if lock::has(&guest, Space::Memory) || lock::has(&guest, Space::Ports) => {
                "gasp_region_set: it takes gasp_lock() itself, and this thread has it already"
            }
            false => return Ok(()),
        };
        Err(Failure::misuse(Errno::PERM, why))
    });
    if allowed != EOK {
        set_errno(allowed);
        return;
    }
    let (mut entry, mut refused) = (None, false);
    let outcome = boundary::call(|| {
        let (guest, entries) = (guest_of(guest)?, entries()?);
        let mut spaces = vec![Space::Memory, Space::Ports];
        spaces.retain(|&space| entries.iter().any(|entry| is_of(entry, space)));
        for &space in &spaces {
            lock::take(&guest, space)?;
        }
        let waits = |(index, entry)| waits_for_oneself(&guest, entry, &entries[..index]);
        let held = || entries.iter().enumerate().filter(|&entry| waits(entry)).count();
        let why = "gasp_region_set: it would wait for a mapping that this thread itself has \
                   created and not unmapped; unmap it first";
        if let Err(failure) = deadlock::check(guest.engine.drain_policy(), held, why) {
            refused = true;
            spaces.iter().rev().try_for_each(|&of| lock::release(Some(guest.number), of))?;
            return Err(failure);
        }
        let (index, outcome) = set_all(&guest, &entries);
        // A process that ends does not wait for mappings: the locks end with the thread.
        outcome.inspect_err(|_| entry = Some(index))?;
        // Ports first: a thread that has to unmap may need them while memory's drains wait.
        for &space in spaces.iter().rev() {
            lock::release(Some(guest.number), space)?;
        }
        Ok(())
    });
    if refused {
        set_errno(outcome);
    } else if outcome != EOK {
        let entry = entry.map_or_else(String::new, |index| format!("entry {index}: "));
        tracing::error!("gasp_region_set: {entry}{}; ending the process", last_error::copy());
        std::process::exit(libc::EXIT_FAILURE);
    }
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_region_info(blk: *const StateBlock, rgn: *mut Region) -> c_int {
    boundary::call(|| {
        // SAFETY: `blk` is NULL or valid for reads during the call, by the pointer rule.
        let block = unsafe { read(blk, "blk is NULL") }?;
        // SAFETY: `rgn` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(rgn, "rgn is NULL") }?;
        place.write(info(None, block)?);
        Ok(())
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_region_set(num_regions: u32, rgn: *const Region) {
    // SAFETY: `rgn` is NULL or valid for reads of `num_regions` entries during the call, by the
    // pointer rule.
    set_hard(None, || unsafe { array(rgn, num_regions as usize, "rgn is NULL") });
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_region_set_soft(num_regions: u32, rgn: *const Region) -> u32 {
    // SAFETY: `rgn` is NULL or valid for reads of `num_regions` entries during the call, by the
    // pointer rule.
    set_soft(None, || unsafe { array(rgn, num_regions as usize, "rgn is NULL") })
}
