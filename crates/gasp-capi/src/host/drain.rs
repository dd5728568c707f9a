//! Drains: waited for, or handed over to be waited for.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::c_int;
use std::sync::{Mutex, PoisonError};

use gasp::Section;

use crate::arguments::Out;
use crate::boundary::{self, Failure, Outcome};
use crate::objects::{DRAINS, opaque};
use crate::types::{Drain, Drained};

/// Waits for a drain where C has no place for it, and else puts it there: NULL where nothing
/// is held.
///
/// # Safety
/// `place` is NULL, or good for writing during the call.
pub(crate) unsafe fn hand_over(mut drain: gasp::Drain, place: *mut *mut Drain) {
    // SAFETY: the caller's promise.
    let Ok(place) = (unsafe { Out::new(place, "") }) else {
        drain.wait();
        return;
    };
    if drain.pending() == 0 {
        place.write(opaque(0));
        return;
    }
    let mut drain = Some(drain);
    let number = DRAINS.insert(|_| Mutex::new(drain.take()));
    // With too many drains that nobody waits for there is no room for another.
    if let Some(drain) = drain {
        drain.wait();
    }
    place.write(opaque(number.unwrap_or(0)));
}

/// Takes a drain out of the list; `None` for one that is over.
fn take(drain: *mut Drain) -> Outcome<Option<gasp::Drain>> {
    if drain.is_null() {
        return Ok(None);
    }
    let none = Failure::invalid("the drain is over, or not a drain");
    let drain = DRAINS.remove(drain.addr()).ok_or(none)?;
    Ok(drain.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_drain_pending(drain: *mut Drain, holders: *mut u64) -> c_int {
    boundary::call(|| {
        // SAFETY: NULL or good during the call, as the header demands.
        let place = unsafe { Out::new(holders, "holders is NULL") }?;
        if drain.is_null() {
            place.write(0);
            return Ok(());
        }
        let section = Section::enter();
        let none = Failure::invalid("the drain is over, or not a drain");
        let found = DRAINS.find(&section, drain.addr()).ok_or(none)?;
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        place.write(found.as_mut().map_or(0, gasp::Drain::pending) as u64);
        Ok(())
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_drain_wait(drain: *mut Drain, drained: *mut Drained) -> c_int {
    boundary::call(|| {
        let result = match take(drain)? {
            None => Drained::default(),
            Some(drain) => {
                let ended = drain.wait();
                Drained {
                    holders: ended.holders as u64,
                    detached: ended.detached as u64,
                    waited_ns: u64::try_from(ended.waited.as_nanos()).unwrap_or(u64::MAX),
                }
            }
        };
        // SAFETY: NULL or good during the call, as the header demands.
        if let Ok(place) = unsafe { Out::new(drained, "") } {
            place.write(result);
        }
        Ok(())
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_drain_abandon(drain: *mut Drain) -> c_int {
    boundary::call(|| take(drain).map(drop))
}
