//! Registers of vdevs: added, found, removed.

use core::ops::RangeInclusive;
use core::sync::atomic::Ordering;
use std::sync::Arc;

use gasp::{Errno, GuestPhys, RegionKind, Span};

use super::error::Error;
use super::guest::ListedGuest;
use super::vdev::{ListedVdev, vdev_of};
use crate::boundary::{Failure, Outcome};
use crate::lock::{self, Space};
use crate::objects::Guest;
use crate::ports::PortRegion;
use crate::regions::{self, RegionAt};
use crate::types::{GRF_NOCACHE, GRF_NONE, GRF_VIRT_ANY};

impl ListedGuest {
    /// The region at an address or port; `None` if there is none.
    ///
    /// Includes what vdevs have set with `gasp_region_set()` and `gasp_region_set_soft()`.
    pub fn region_at(&self, space: Space, addr: u64) -> Option<RegionAt> {
        regions::region_at(&self.entry().0, space, addr)
    }

    /// All regions of a space, in order.
    pub fn regions(&self, space: Space) -> Vec<RegionAt> {
        regions::regions(&self.entry().0, space)
    }

    /// How often vdevs, or the program by [`ListedVdev::add_registers`] and the like, have changed
    /// regions of this guest so far: for a program that keeps [`regions`](Self::regions), which are
    /// still so if the number has not changed since before they were taken. Changes that the engine
    /// was asked for directly do not count.
    pub fn changes(&self) -> u64 {
        self.entry().0.changes.load(Ordering::Acquire)
    }
}

impl ListedVdev {
    /// Adds registers that this vdev emulates: a range of addresses or ports without a region.
    /// `flags` has at least one of `GRF_VIRT_*`, and may have `GRF_NOCACHE`. Takes `gasp_lock()`
    /// for the call, if this thread has not got it; allowed in both phases.
    ///
    /// # Errors
    /// `EINVAL` if a flag is not allowed; `EEXIST` if part of the range has a region, of which the
    /// text says whose it is; `ENXIO` if the range is empty, or extends past the guest's address width
    /// or the last port; `ENOSPC` past 65,536 regions.
    pub fn add_registers(
        &self,
        space: Space,
        span: RangeInclusive<u64>,
        flags: u32,
        cookie: u32,
    ) -> Result<(), Error> {
        let guest = &self.guest.0;
        if flags & GRF_VIRT_ANY == 0 || flags & !(GRF_VIRT_ANY | GRF_NOCACHE) != 0 {
            let why = "the flags of registers are GRF_VIRT_*, at least one, and GRF_NOCACHE";
            return Err(Error(Failure::invalid(why)));
        }
        let (first, last) = (*span.start(), *span.end());
        let empty = || Failure::Call(Errno::NXIO, "the range of the registers is empty");
        let memory = Span::inclusive(GuestPhys(first), GuestPhys(last)).ok_or_else(empty)?;
        with_lock(guest, space, || {
            if let Some(there) = first_in(guest, space, memory) {
                return Err(taken(self, space, &span, &there));
            }
            match space {
                Space::Memory => lock::with_memory(guest, |lock| {
                    regions::check_width(guest, memory)?;
                    let tag = regions::tag(flags, cookie);
                    lock.add(gasp::Region::device(memory, self.vdev().name()).tagged(tag))?;
                    Ok(None)
                }),
                Space::Ports => {
                    guest.ports.set(PortRegion { first, last, flags, cookie, vdev: self.number })
                }
            }
        })
    }

    /// Removes all registers of this vdev, in both spaces, also those that it has set itself: for
    /// the end of a vdev. Takes `gasp_lock()` as [`add_registers`](Self::add_registers) does.
    ///
    /// # Errors
    /// Those of taking the lock: `EPERM` on a thread that is ending.
    pub fn remove_registers(&self) -> Result<(), Error> {
        let guest = &self.guest.0;
        with_lock(guest, Space::Memory, || {
            let name = self.vdev().name();
            let is_own = |region: &gasp::Region| {
                region.kind() == RegionKind::Device && region.owner() == Some(name)
            };
            let all = guest.engine.space().regions();
            lock::with_memory(guest, |lock| {
                // Registers are never mapped, so there is nothing to wait for.
                all.iter()
                    .filter(|region| is_own(region))
                    .try_for_each(|region| lock.remove(region.span()).map(drop))?;
                Ok(None)
            })
        })?;
        with_lock(guest, Space::Ports, || {
            guest
                .ports
                .of(self.number)
                .into_iter()
                .try_for_each(|region| guest.ports.set(PortRegion { flags: GRF_NONE, ..region }))
        })
    }
}

/// Runs `change` with the lock of a space, which this thread takes unless it has it.
fn with_lock(
    guest: &Arc<Guest>,
    space: Space,
    change: impl FnOnce() -> Outcome,
) -> Result<(), Error> {
    let change = || {
        let outcome = change();
        guest.changed();
        outcome
    };
    if lock::has(guest, space) {
        return Ok(change()?);
    }
    lock::take(guest, space)?;
    let outcome = change();
    lock::release(Some(guest.number), space)?;
    Ok(outcome?)
}

/// The first region in a range.
fn first_in(guest: &Arc<Guest>, space: Space, span: Span<GuestPhys>) -> Option<RegionAt> {
    match space {
        Space::Memory => {
            let all = guest.engine.space().regions();
            let first = all.into_iter().find(|region| region.span().overlaps(&span))?;
            regions::region_at(guest, space, first.span().start().0)
        }
        Space::Ports => {
            let first = guest.ports.first_in(span.start().0, span.last().0)?;
            regions::region_at(guest, space, first.first)
        }
    }
}

/// The failure of registers that overlap a region.
fn taken(vdev: &ListedVdev, space: Space, span: &RangeInclusive<u64>, there: &RegionAt) -> Failure {
    let owner = vdev_of(there.vdev);
    let whose = match &owner {
        Ok(owner) => format!("a region of the vdev {:?}", owner.name()),
        Err(_) => "a region of no vdev".to_owned(),
    };
    let what = match space {
        Space::Memory => "registers",
        Space::Ports => "ports",
    };
    let why = format!(
        "the {what} {:#x} to {:#x} of the vdev {:?} overlap {whose}, {:#x} to {:#x}",
        span.start(),
        span.end(),
        vdev.vdev().name(),
        there.span.start(),
        there.span.end()
    );
    Failure::Text(Errno::EXIST, why)
}
