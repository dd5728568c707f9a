//! KVM's memory slots, which follow the regions of a guest.
#![allow(unsafe_code, reason = "tells KVM where guest memory is")]

use std::collections::BTreeMap;
use std::sync::Arc;

use gasp::{Access, Errno, GuestPhys, Reason, Region, SpaceChange, SpaceListener};
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use parking_lot::Mutex;

use crate::error::errno_of;
use crate::gate::Gate;

/// The memory slots of a VM: one for each region of RAM, ROM or a pass-through window that can be
/// read.
///
/// A region that goes loses its slot before the engine removes it, so no vCPU reaches memory that
/// devices no longer may; the engine's drain then waits for what devices hold, and only after it
/// can the memory go. ROM, and what may not be written, is a read-only slot: a write there exits,
/// and is the [bus](crate::Bus)'s.
///
/// A region that is split or merged loses its slot for a moment and gets new ones. The vCPUs are
/// kept out of the guest meanwhile.
pub(crate) struct Slots {
    vm: Arc<VmFd>,
    gate: Arc<Gate>,
    state: Mutex<State>,
}

struct State {
    /// The slots in use. A region keeps its memory mapped for as long as KVM uses it.
    used: BTreeMap<GuestPhys, (u32, Region)>,
    /// Numbers below `next` that are free.
    free: Vec<u32>,
    next: u32,
    /// How many slots KVM has.
    most: u32,
}

impl Slots {
    pub(crate) fn new(vm: Arc<VmFd>, gate: Arc<Gate>, most: usize) -> Self {
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let state = State { used: BTreeMap::new(), free: Vec::new(), next: 0, most };
        Self { vm, gate, state: Mutex::new(state) }
    }

    /// Removes the slots of regions, then adds some for others: all of it, or nothing.
    fn exchange(&self, outgoing: &[Region], incoming: &[Region]) -> Result<(), Reason> {
        let replaced = |gone: &Region| {
            incoming.iter().any(|come| come.span().intersection(&gone.span()).is_some())
        };
        let _closed = outgoing.iter().any(replaced).then(|| self.gate.close());
        let mut state = self.state.lock();
        let mut gone = Vec::new();
        let mut come = Vec::new();
        let result = outgoing
            .iter()
            .try_for_each(|region| {
                gone.extend(self.remove(&mut state, region.span().start())?);
                Ok(())
            })
            .and_then(|()| {
                incoming.iter().filter(|region| has_slot(region)).try_for_each(|region| {
                    self.add(&mut state, region)?;
                    come.push(region.span().start());
                    Ok(())
                })
            });
        if result.is_err() {
            for start in come {
                report(self.remove(&mut state, start).map(drop));
            }
            for region in gone {
                report(self.add(&mut state, &region));
            }
        }
        result
    }

    fn add(&self, state: &mut State, region: &Region) -> Result<(), Reason> {
        let number = match state.free.pop() {
            Some(number) => number,
            None if state.next < state.most => {
                state.next += 1;
                state.next - 1
            }
            None => {
                let what = "KVM has no memory slot left for another region";
                return Err(Reason::Os { what, errno: Errno::NOSPC });
            }
        };
        let done = self.set(number, region, region.span().len());
        match &done {
            Ok(()) => drop(state.used.insert(region.span().start(), (number, region.clone()))),
            Err(_) => state.free.push(number),
        }
        done
    }

    /// Removes the slot of the region at `start`, if it has one, and returns the region.
    fn remove(&self, state: &mut State, start: GuestPhys) -> Result<Option<Region>, Reason> {
        let Some((number, region)) = state.used.remove(&start) else { return Ok(None) };
        match self.set(number, &region, 0) {
            Ok(()) => {
                state.free.push(number);
                Ok(Some(region))
            }
            Err(reason) => {
                state.used.insert(start, (number, region));
                Err(reason)
            }
        }
    }

    /// Sets a slot to `len` bytes of `region`, all of it or none.
    fn set(&self, slot: u32, region: &Region, len: u64) -> Result<(), Reason> {
        let read_only = !region.access().contains(Access::WRITE);
        let memory = kvm_userspace_memory_region {
            slot,
            flags: if read_only { KVM_MEM_READONLY } else { 0 },
            guest_phys_addr: region.span().start().0,
            memory_size: len,
            userspace_addr: region.as_ptr().map_or(0, |pointer| pointer.addr() as u64),
        };
        // SAFETY: KVM asks that the `len` bytes at `userspace_addr` stay mapped until the slot is
        // changed again. They are the region's memory, which stays while a clone of the region
        // exists: `used` has one from before until KVM has removed the slot, and so has the
        // caller. The VM and its vCPUs keep `self`, so that it is not dropped before. A guest's
        // accesses race with everything else here that reaches guest memory, which never does so
        // through references.
        let done = unsafe { self.vm.set_user_memory_region(memory) };
        done.map_err(|error| Reason::Os {
            what: "KVM_SET_USER_MEMORY_REGION",
            errno: errno_of(error),
        })
    }
}

/// Whether KVM can have a region as a slot: it has no slots that can be written only.
fn has_slot(region: &Region) -> bool {
    region.as_ptr().is_some() && region.access().contains(Access::READ)
}

/// What there was before has fitted then, so this does not happen.
fn report(done: Result<(), Reason>) {
    if let Err(reason) = done {
        tracing::error!(%reason, "a memory slot cannot be restored");
    }
}

impl SpaceListener for Slots {
    fn before(&self, change: &SpaceChange) -> Result<(), Reason> {
        self.exchange(&change.outgoing, &change.incoming)
    }

    fn undone(&self, change: &SpaceChange) {
        report(self.exchange(&change.incoming, &change.outgoing));
    }
}
