//! `gasp_lock()` and `gasp_unlock()`: a lock for each guest and space, owned by the thread that
//! took it.
#![allow(unsafe_code, reason = "exports C functions")]

use core::cell::RefCell;
use core::ffi::c_int;
use std::sync::Arc;

use gasp::{Drain, Errno, Region, SpaceLock};

use crate::boundary::{self, Failure, Outcome};
use crate::deadlock;
use crate::objects::{Guest, NamedGuest, guest_of};
use crate::types::{QST_MEMORY, QST_PCI_IO, QST_X86_IO};

/// What a lock protects: one of a guest's two spaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// Guest-physical memory.
    Memory,
    /// I/O ports.
    Ports,
}

impl Space {
    /// The space of a `QST_*`; `EINVAL` for a type that is neither.
    pub(crate) fn of(qst: u32) -> Outcome<Self> {
        match u16::try_from(qst).unwrap_or(u16::MAX) {
            QST_MEMORY => Ok(Self::Memory),
            QST_X86_IO => Ok(Self::Ports),
            // PCI I/O space is ports if the machine has ports, and memory otherwise.
            QST_PCI_IO if cfg!(target_arch = "x86_64") => Ok(Self::Ports),
            QST_PCI_IO => Ok(Self::Memory),
            _ => Err(Failure::invalid("the type is not QST_MEMORY, QST_X86_IO or QST_PCI_IO")),
        }
    }
}

/// A lock that this thread owns.
struct Held {
    guest: Arc<Guest>,
    right: Right,
    /// What was revoked under it, to be waited for when it is released.
    revoked: Vec<Revoked>,
}

/// What a change of memory has revoked.
pub(crate) struct Revoked {
    pub(crate) drain: Drain,
    /// The memory in the range before the change.
    pub(crate) before: Vec<Region>,
}

impl Revoked {
    /// Whether the memory has been restored since, so that no mapping has to be unmapped.
    fn is_undone(&self, guest: &Guest) -> bool {
        self.before.iter().all(|before| is_there(guest, before))
    }
}

/// Whether the memory of a region is where it was before, with at least the same access.
fn is_there(guest: &Guest, before: &Region) -> bool {
    let mut next = Some(before.span().start());
    while let Some(at) = next.filter(|&at| at <= before.span().last()) {
        let there = guest.engine.space().region_at(at);
        let Some(there) = there.filter(|there| there.access().contains(before.access())) else {
            return false;
        };
        let object_at = |region: &Region| {
            let into_region = at.0.wrapping_sub(region.span().start().0);
            Some((region.object()?.clone(), region.object_offset().wrapping_add(into_region)))
        };
        match (object_at(before), object_at(&there)) {
            (Some((old, from)), Some((new, to))) if old.same(&new) && from == to => {}
            _ => return false,
        }
        next = there.span().last().checked_add(1);
    }
    true
}

enum Right {
    Memory(SpaceLock),
    Ports(#[expect(dead_code, reason = "held until it is dropped")] PortLock),
}

/// The right to change a guest's ports.
struct PortLock(Arc<Guest>);

impl PortLock {
    /// Takes the lock; waits for another thread that owns it.
    fn take(guest: &Arc<Guest>) -> Outcome<Self> {
        match guest.ports.lock.take() {
            true => Ok(Self(Arc::clone(guest))),
            false => Err(already_held()),
        }
    }
}

impl Drop for PortLock {
    fn drop(&mut self) {
        self.0.ports.lock.release();
    }
}

impl Right {
    fn space(&self) -> Space {
        match self {
            Self::Memory(_) => Space::Memory,
            Self::Ports(_) => Space::Ports,
        }
    }
}

thread_local! {
    /// The locks that this thread owns, in the order taken; released when it ends.
    static HELD: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
}

/// Whether this thread owns the lock.
pub(crate) fn has(guest: &Guest, space: Space) -> bool {
    let is_it = |held: &Held| held.guest.number == guest.number && held.right.space() == space;
    // A thread that is ending has released its locks. One that changes regions has the list
    // borrowed, and its log function may call back.
    HELD.try_with(|all| all.try_borrow().is_ok_and(|all| all.iter().any(is_it))).unwrap_or(false)
}

/// Whether this thread is ending and has released its locks: nobody would release another one.
pub(crate) fn is_ending() -> bool {
    HELD.try_with(|_| ()).is_err()
}

#[cold]
fn already_held() -> Failure {
    Failure::misuse(Errno::BUSY, "gasp_lock: this thread has the lock already")
}

/// Takes the lock; waits for another thread that owns it.
pub(crate) fn take(guest: &Arc<Guest>, space: Space) -> Outcome {
    if is_ending() {
        return Err(Failure::misuse(Errno::PERM, "gasp_lock: this thread is ending"));
    }
    if has(guest, space) {
        return Err(already_held());
    }
    let right = match space {
        Space::Memory => Right::Memory(guest.engine.space().lock()?),
        Space::Ports => Right::Ports(PortLock::take(guest)?),
    };
    let held = Held { guest: Arc::clone(guest), right, revoked: Vec::new() };
    HELD.with_borrow_mut(|all| all.push(held));
    Ok(())
}

/// Releases the lock, and waits for the mappings that were revoked under it. If this thread would
/// wait for itself, it keeps the lock.
pub(crate) fn release(guest: Option<usize>, space: Space) -> Outcome {
    let is_it = |held: &Held| {
        guest.is_none_or(|guest| held.guest.number == guest) && held.right.space() == space
    };
    let Some((index, mut held)) = take_out(is_it) else {
        let why = "gasp_unlock: this thread does not have the lock";
        return Err(Failure::misuse(Errno::PERM, why));
    };
    let guest = Arc::clone(&held.guest);
    let is_own = |one: &Revoked| {
        deadlock::is_endless(one.drain.policy(), || one.drain.held_by_this_thread())
    };
    // A change that has been undone is not waited for: dropping its drain marks the mappings as
    // revoked.
    held.revoked.retain(|one| !(is_own(one) && one.is_undone(&guest)));
    if held.revoked.iter().any(is_own) {
        put_back(index, held);
        let why = "gasp_unlock: it would wait for a mapping that this thread itself has created \
                   and not unmapped; unmap it, or restore the memory, and unlock again";
        return Err(Failure::misuse(Errno::DEADLK, why));
    }
    let Held { right, revoked, .. } = held;
    drop(right);
    // A thread that has to unmap may need the lock, which is free by now.
    for one in revoked {
        one.drain.wait();
    }
    drop(guest);
    Ok(())
}

/// Changes regions of memory under the lock, which this thread owns.
pub(crate) fn with_memory(
    guest: &Guest,
    change: impl FnOnce(&SpaceLock) -> Outcome<Option<Revoked>>,
) -> Outcome {
    let is_it =
        |held: &Held| held.guest.number == guest.number && held.right.space() == Space::Memory;
    // It is out of the list meanwhile: the log function may call back during the change.
    let (index, mut held) = take_out(is_it)
        .ok_or(Failure::Call(Errno::PERM, "this thread does not have gasp_lock()"))?;
    let outcome = match &mut held {
        Held { right: Right::Memory(lock), revoked, .. } => {
            change(lock).map(|one| revoked.extend(one))
        }
        Held { right: Right::Ports(_), .. } => Ok(()),
    };
    put_back(index, held);
    outcome
}

/// Takes out the lock that was taken last, of those for which `is_it` holds; also returns its
/// index.
fn take_out(is_it: impl Fn(&Held) -> bool) -> Option<(usize, Held)> {
    let take = |all: &mut Vec<Held>| {
        let index = all.iter().rposition(is_it)?;
        Some((index, all.remove(index)))
    };
    HELD.try_with(|all| take(&mut *all.try_borrow_mut().ok()?)).ok().flatten()
}

/// Puts a lock back at its index: the order in which locks were taken does not change.
fn put_back(index: usize, held: Held) {
    HELD.with_borrow_mut(|all| all.insert(index.min(all.len()), held));
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_lock(qst: u16) -> c_int {
    lock_call(None, qst)
}

/// See `<qvm/gasp.h>`.
#[unsafe(no_mangle)]
pub extern "C" fn gasp_unlock(qst: u16) -> c_int {
    // A lock that this thread owns, even if it has chosen another guest since.
    boundary::call(|| release(None, Space::of(qst.into())?))
}

pub(crate) fn lock_call(guest: NamedGuest, qst: u16) -> c_int {
    boundary::call(|| {
        let space = Space::of(qst.into())?;
        take(&guest_of(guest)?, space)
    })
}
