//! Walks of a guest's RAM and ROM, entry by entry.
//!
//! The state is plain data and belongs to C, so nothing is held between steps: the next entry is
//! the first one after the current entry's address and length.
#![allow(unsafe_code, reason = "exports C functions, and calls a filter from C")]

use core::ffi::c_int;

use gasp::{Errno, GuestPhys, Walk, WalkEntry};

use crate::arguments::Out;
use crate::boundary::{self, Failure, Outcome};
use crate::objects::{Guest, NamedGuest, guest_of, opaque};
use crate::types::{GWS_HOST, QSL_NO_LOCATION, WalkFilter, WalkState, WalkStateFiltered};

const NO_STATE: &str = "the walk's state is NULL";

/// The options of a walk.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) max_length: u64,
    pub(crate) flags: u32,
}

impl Options {
    pub(crate) fn check(self) -> Outcome<Walk> {
        match self.flags & !GWS_HOST {
            0 => Ok(Walk { max_len: self.max_length, host: self.flags & GWS_HOST != 0 }),
            _ => Err(Failure::invalid("flags has a flag other than GWS_HOST")),
        }
    }
}

/// An entry, as in C's state.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) guest: u64,
    pub(crate) host: u64,
    pub(crate) length: u64,
}

impl From<WalkEntry> for Entry {
    fn from(entry: WalkEntry) -> Self {
        Self {
            guest: entry.guest.start().0,
            host: entry.host.map_or(QSL_NO_LOCATION, |host| host.0),
            length: entry.guest.len(),
        }
    }
}

/// The entry after the one at `at` of `length` bytes, which is 0 before the first. `ENOENT` after
/// the last.
pub(crate) fn next(guest: &Guest, options: Options, at: u64, length: u64) -> Outcome<Entry> {
    let walk = options.check()?;
    let from = at.checked_add(length).ok_or_else(over)?;
    guest.engine.space().walk_from(GuestPhys(from), walk).map(Entry::from).ok_or_else(over)
}

pub(crate) fn check_filter(filter: WalkFilter) -> Outcome {
    filter.map(drop).ok_or_else(|| Failure::invalid("the filter is NULL"))
}

#[cold]
fn over() -> Failure {
    Failure::Call(Errno::NOENT, "the walk is over")
}

/// The position of a filtered walk: the current part, and the remainder of its entry (address and
/// length), for which the filter has not been called yet.
#[derive(Clone, Copy)]
pub(crate) struct Filtered {
    pub(crate) entry: Entry,
    pub(crate) rest: (u64, u64),
}

/// The next part that `filter` accepts. `ENOENT` after the last.
///
/// # Safety
/// The filter can be called with two places that are valid for reads and writes, and returns
/// from there: it neither throws nor jumps out.
pub(crate) unsafe fn next_filtered(
    guest: &Guest,
    options: Options,
    filter: WalkFilter,
    mut state: Filtered,
) -> Outcome<Filtered> {
    let filter = filter.ok_or_else(|| Failure::invalid("the filter is NULL"))?;
    loop {
        let (start, length) = state.rest;
        if length == 0 {
            // After the entry of the last part. (`entry` is that whole entry or the part; what
            // follows either begins where the remainder does.)
            let entry = next(guest, options, start, 0)?;
            state = Filtered { entry, rest: (entry.guest, entry.length) };
            continue;
        }
        let (mut part, mut size) = (start, length as usize);
        // SAFETY: `part` and `size` are valid for reads and writes during the call, and the filter
        // can be called with such places and returns, as this function asks.
        unsafe { filter(&mut part, &mut size) };
        let end = start.saturating_add(length);
        let part_end = part.saturating_add(size as u64).min(end);
        let part = part.max(start);
        if part >= part_end {
            state.rest = (end, 0);
            continue;
        }
        // The regions may have changed since the filter was called.
        let there = next(guest, options, part, 0)?;
        if there.guest != part {
            state.rest = (there.guest, there.length);
            continue;
        }
        let length = there.length.min(part_end - part);
        let entry = Entry { length, ..there };
        let after = part + length;
        return Ok(Filtered { entry, rest: (after, end - after) });
    }
}

/// Counts the entries of a walk, or the parts of a filtered one.
///
/// # Safety
/// The filter, if there is one, is as [`next_filtered`] asks.
pub(crate) unsafe fn count(
    guest: &Guest,
    options: Options,
    filter: Option<WalkFilter>,
) -> Outcome<u32> {
    options.check()?;
    let none = Entry { guest: 0, host: QSL_NO_LOCATION, length: 0 };
    let mut state = Filtered { entry: none, rest: (0, 0) };
    let mut count = 0_u32;
    loop {
        let step = match filter {
            // SAFETY: `next_filtered` asks that the filter can be called with two valid places and
            // returns, as this function does.
            Some(filter) => unsafe { next_filtered(guest, options, filter, state) },
            None => next(guest, options, state.entry.guest, state.entry.length)
                .map(|entry| Filtered { entry, rest: (0, 0) }),
        };
        match step {
            Ok(next) => state = next,
            Err(Failure::Call(Errno::NOENT, _)) => return Ok(count),
            Err(failure) => return Err(failure),
        }
        count = count.saturating_add(1);
    }
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_walk_init(ws: *mut WalkState, max_length: u64, flags: u32) -> c_int {
    boundary::call(|| {
        // SAFETY: `ws` is NULL or valid during the call, by the pointer rule.
        let state = unsafe { Out::new(ws, NO_STATE) }?;
        state.write(begin(max_length, flags)?);
        Ok(())
    })
}

fn begin(max_length: u64, flags: u32) -> Outcome<WalkState> {
    Options { max_length, flags }.check()?;
    let guest = guest_of(None)?;
    Ok(WalkState {
        span: opaque(guest.number),
        guest_loc: 0,
        host_loc: QSL_NO_LOCATION,
        length: 0,
        max_length,
        flags,
    })
}

impl WalkState {
    fn options(&self) -> Options {
        Options { max_length: self.max_length, flags: self.flags }
    }

    fn named(&self) -> NamedGuest {
        Some(self.span.cast_const().cast())
    }

    fn entry(&self) -> Entry {
        Entry { guest: self.guest_loc, host: self.host_loc, length: self.length }
    }

    fn at(self, entry: Entry) -> Self {
        Self { guest_loc: entry.guest, host_loc: entry.host, length: entry.length, ..self }
    }
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_walk_next(ws: *mut WalkState) -> c_int {
    boundary::call(|| {
        // SAFETY: `ws` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(ws, NO_STATE) }?;
        let state = place.read();
        let guest = guest_of(state.named())?;
        let entry = next(&guest, state.options(), state.guest_loc, state.length)?;
        place.write(state.at(entry));
        Ok(())
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_walk_count(max_length: u64, flags: u32) -> u32 {
    boundary::value(0, || {
        // SAFETY: what `count` asks is of the filter, and there is none.
        unsafe { count(&*guest_of(None)?, Options { max_length, flags }, None) }
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_walk_init_filtered(
    ws: *mut WalkStateFiltered,
    max_length: u64,
    flags: u32,
    filter: WalkFilter,
) -> c_int {
    boundary::call(|| {
        // SAFETY: `ws` is NULL or valid during the call, by the pointer rule.
        let state = unsafe { Out::new(ws, NO_STATE) }?;
        check_filter(filter)?;
        let ws = begin(max_length, flags)?;
        state.write(WalkStateFiltered { ws, filter, remaining_guest_loc: 0, remaining_length: 0 });
        Ok(())
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_walk_next_filtered(ws: *mut WalkStateFiltered) -> c_int {
    boundary::call(|| {
        // SAFETY: `ws` is NULL or valid during the call, by the pointer rule.
        let place = unsafe { Out::new(ws, NO_STATE) }?;
        let state = place.read();
        let rest = (state.remaining_guest_loc, state.remaining_length);
        let guest = guest_of(state.ws.named())?;
        let now = Filtered { entry: state.ws.entry(), rest };
        // SAFETY: the filter is C's, which `<qvm/gasp.h>` asks to neither throw nor jump out.
        let next = unsafe { next_filtered(&guest, state.ws.options(), state.filter, now) }?;
        let (remaining_guest_loc, remaining_length) = next.rest;
        let ws = state.ws.at(next.entry);
        place.write(WalkStateFiltered { ws, remaining_guest_loc, remaining_length, ..state });
        Ok(())
    })
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gasp_walk_count_filtered(
    max_length: u64,
    flags: u32,
    filter: WalkFilter,
) -> u32 {
    boundary::value(0, || {
        check_filter(filter)?;
        // SAFETY: the filter is C's, which `<qvm/gasp.h>` asks to neither throw nor jump out.
        unsafe { count(&*guest_of(None)?, Options { max_length, flags }, Some(filter)) }
    })
}
