//! Drains: waited for in the call, or returned to be waited for.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::c_int;

use gasp::ffi::Section;
use gasp::{DrainPolicy, Errno};
use parking_lot::Mutex;

use crate::arguments::Out;
use crate::boundary::{self, Failure, Outcome};
use crate::deadlock;
use crate::objects::{DRAINS, DrainNumbers, ListedDrain, opaque};
use crate::registry::Reserved;
use crate::types::{Drain, Drained};

/// How a call that revokes completes its drain; decided before the call changes anything.
pub(crate) enum Completion<'call> {
    Wait,
    HandOver(Out<'call, *mut Drain>, Reserved<'static, ListedDrain, DrainNumbers>),
}

/// How to complete a drain for which C passes `place`: it is waited for if that is NULL, which is
/// refused with `EDEADLK` if this thread would wait for itself. `ENOSPC` if too many drains exist.
///
/// # Safety
/// `place` is NULL, or aligned and valid for writes during `'call`, and accessed by nobody else
/// meanwhile.
pub(crate) unsafe fn completion<'call>(
    place: *mut *mut Drain,
    policy: DrainPolicy,
    held: impl FnOnce() -> usize,
) -> Outcome<Completion<'call>> {
    // SAFETY: `Out::new` asks that `place` is NULL or valid for writes during `'call`, as this
    // function does.
    let Ok(place) = (unsafe { Out::new(place, "") }) else {
        let why = "it would wait for a mapping that this thread itself has created and not \
                   unmapped: unmap it first, or pass a pointer for the drain";
        deadlock::check(policy, held, why)?;
        return Ok(Completion::Wait);
    };
    let full = Failure::Call(Errno::NOSPC, "too many drains are neither waited for nor abandoned");
    Ok(Completion::HandOver(place, DRAINS.reserve().map_err(|_| full)?))
}

impl Completion<'_> {
    /// Waits for the drain, or returns it to C: NULL if no mapping is held.
    pub(crate) fn complete(self, mut drain: gasp::Drain) {
        match self {
            Self::Wait => drop(drain.wait()),
            Self::HandOver(place, _) if drain.pending() == 0 => place.write(opaque(0)),
            Self::HandOver(place, room) => {
                place.write(opaque(room.fill(|_| Mutex::new(Some(drain)))));
            }
        }
    }
}

/// Calls `see` with the drain of a number; `None` for one that has ended meanwhile.
fn with_listed<T>(
    drain: *mut Drain,
    see: impl FnOnce(&mut gasp::Drain) -> T,
) -> Outcome<Option<T>> {
    let section = Section::enter();
    let found = DRAINS.find(&section, drain.addr()).ok_or_else(no_drain)?;
    let mut found = found.lock();
    Ok(found.as_mut().map(see))
}

#[cold]
fn no_drain() -> Failure {
    Failure::invalid("the drain has ended, or is not a drain")
}

/// Removes a drain from its registry; `None` for NULL, a completed drain.
fn take(drain: *mut Drain) -> Outcome<Option<gasp::Drain>> {
    if drain.is_null() {
        return Ok(None);
    }
    let drain = DRAINS.remove(drain.addr()).ok_or_else(no_drain)?;
    Ok(drain.into_inner())
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_drain_pending(drain: *mut Drain, holders: *mut u64) -> c_int {
    boundary::call(|| {
        // SAFETY: `holders` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(holders, "holders is NULL") }?;
        if drain.is_null() {
            place.write(0);
            return Ok(());
        }
        let pending = with_listed(drain, gasp::Drain::pending)?;
        place.write(pending.unwrap_or(0) as u64);
        Ok(())
    })
}

/// See `<gasp/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_drain_wait(drain: *mut Drain, drained: *mut Drained) -> c_int {
    boundary::call(|| {
        if !drain.is_null() {
            let (policy, held) =
                with_listed(drain, |drain| (drain.policy(), drain.held_by_this_thread()))?
                    .ok_or_else(no_drain)?;
            let why = "gasp_drain_wait: it would wait for a mapping that this thread itself has \
                       created and not unmapped; unmap it first, or abandon the drain";
            deadlock::check(policy, || held, why)?;
        }
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
        // SAFETY: `drained` is NULL or valid during the call, by the pointer rule.
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
