//! Finding space: free addresses and ports, and unreserved ranges inside RAM.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::c_int;

use gasp::{Errno, Error, GuestPhys, Operation, Search, Span};

use crate::boundary::{self, Failure, Outcome};
use crate::lock::{self, Space};
use crate::objects::{NamedGuest, guest_of};
use crate::types::{GRAM_HINT_NONE, QSL_NO_LOCATION};

/// The size, alignment and bounds of a requested range.
pub(crate) struct Wanted {
    pub(crate) size: u64,
    pub(crate) align: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Wanted {
    /// At any address.
    pub(crate) fn anywhere(size: u64, align: u64) -> Self {
        Self { size, align, first: 0, last: u64::MAX }
    }

    fn search(&self) -> Search {
        let Self { size, align, first, last } = *self;
        Search::new(size, align).within(GuestPhys(first), GuestPhys(last))
    }
}

/// Finds a free range of addresses or ports.
pub(crate) fn free(guest: NamedGuest, qst: u32, wanted: &Wanted) -> u64 {
    boundary::value(QSL_NO_LOCATION, || {
        let space = Space::of(qst)?;
        let guest = guest_of(guest)?;
        if guest.is_running() && !lock::has(&guest, space) {
            let why = "gasp_find_free: the guest is running; call it under gasp_lock()";
            return Err(Failure::misuse(Errno::PERM, why));
        }
        match space {
            Space::Memory => Ok(guest.engine.space().find_free(wanted.search())?.start().0),
            Space::Ports => {
                let Wanted { size, align, first, last } = *wanted;
                guest.ports.find_free(size, align, first, last)
            }
        }
    })
}

/// Finds a range inside RAM or ROM, and reserves it.
pub(crate) fn inside_ram(guest: NamedGuest, flags: u32, wanted: &Wanted) -> u64 {
    boundary::value(QSL_NO_LOCATION, || {
        if flags != GRAM_HINT_NONE {
            return Err(Failure::invalid(
                "flags is not GRAM_HINT_NONE; no other hint is supported",
            ));
        }
        let guest = guest_of(guest)?;
        startup_only(guest.is_running())?;
        Ok(guest.engine.space().claim_free(wanted.search())?.start().0)
    })
}

/// Reserves a range inside RAM or ROM.
pub(crate) fn reserve(guest: NamedGuest, start: u64, size: u64) -> Outcome {
    let guest = guest_of(guest)?;
    startup_only(guest.is_running())?;
    let start = GuestPhys(start);
    let span = Span::new(start, size)
        .map_err(|reason| Error::new(Operation::Reserve, start, size, reason))?;
    Ok(guest.engine.space().claim(span)?)
}

fn startup_only(running: bool) -> Outcome {
    match running {
        true => {
            Err(Failure::misuse(Errno::PERM, "gram_*: the guest is running; call it at startup"))
        }
        false => Ok(()),
    }
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_find_free(qst: u32, size: u64, align: u64) -> u64 {
    free(None, qst, &Wanted::anywhere(size, align))
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_find_free_range(
    qst: u32,
    size: u64,
    align: u64,
    min_addr: u64,
    max_addr: u64,
) -> u64 {
    free(None, qst, &Wanted { size, align, first: min_addr, last: max_addr })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gram_find_free(size: u64, align: u64, flags: u32) -> u64 {
    inside_ram(None, flags, &Wanted::anywhere(size, align))
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gram_find_free_range(
    size: u64,
    align: u64,
    flags: u32,
    range_start: u64,
    range_end: u64,
) -> u64 {
    inside_ram(None, flags, &Wanted { size, align, first: range_start, last: range_end })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gram_reserve(start: u64, size: u64) -> c_int {
    boundary::call(|| reserve(None, start, size))
}
