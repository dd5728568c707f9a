//! The state behind the registers, except for faults: commands, the invalidation queue, and what has
//! not completed yet.

use std::sync::Arc;

use gasp::{Drain, Guest};
use parking_lot::MutexGuard;

use crate::descriptor::Wait;
use crate::faults::Faults;
use crate::invalidation::{Invalidation, Requesters, invalidate};
use crate::message::{Event, Message};
use crate::ring::Ring;
use crate::shared::Shared;
use crate::thread::Left;

/// What the guest waits for until the drain has ended. Of each kind there is one at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Completion {
    /// GSTS.RTPS becomes 1.
    RootTable,
    /// GSTS.TES becomes this.
    Translation(bool),
    /// CCMD.ICC becomes 0.
    Context,
    /// IOTLB.IVT becomes 0.
    Iotlb,
    /// The queue goes on, past the wait descriptor at its head if it is at one.
    Queue(Option<Wait>),
}

/// The state, under one lock. The guest's vCPUs hold it while they access a register, and the unit's
/// thread while it looks for what has completed; nobody waits for a drain in it.
pub(crate) struct Control {
    pub(crate) guest: Guest,
    pub(crate) shared: Arc<Shared>,
    pub(crate) requesters: Requesters,
    /// RTADDR.
    pub(crate) root_table: u64,
    /// GSTS.RTPS.
    pub(crate) is_root_set: bool,
    /// GSTS.TES.
    pub(crate) is_translating: bool,
    /// CCMD as it was written, without ICC, and CAIG.
    pub(crate) context_command: u64,
    pub(crate) context_done: u64,
    /// IOTLB as it was written, without IVT; IAIG; and IVA.
    pub(crate) iotlb: u64,
    pub(crate) iotlb_done: u64,
    pub(crate) pages: u64,
    pub(crate) queue: Ring,
    /// ICS.IWC, and the invalidation completion event.
    pub(crate) has_waited: bool,
    pub(crate) completion: Event,
    /// That of all invalidations whose mappings are still held. One, so that it is no larger than
    /// what is held, however often the guest invalidates.
    pub(crate) drain: Option<Drain>,
    waiting: Vec<Completion>,
    /// To be sent when the lock has been released.
    pub(crate) messages: Vec<Message>,
    /// Whether the unit's thread has been woken, and has something left to do.
    pub(crate) is_awake: bool,
}

impl Control {
    pub(crate) fn new(guest: Guest, shared: Arc<Shared>) -> Self {
        Self {
            guest,
            shared,
            requesters: Requesters::new(),
            root_table: 0,
            is_root_set: false,
            is_translating: false,
            context_command: 0,
            context_done: 0,
            iotlb: 0,
            iotlb_done: 0,
            pages: 0,
            queue: Ring::default(),
            has_waited: false,
            completion: Event::new(),
            drain: None,
            waiting: Vec::new(),
            messages: Vec::new(),
            is_awake: false,
        }
    }

    /// Sets all registers to what they are after a reset, and invalidates everything. What waits for
    /// a drain is forgotten, but not the drain: what completes later has waited for it.
    pub(crate) fn reset(&mut self) {
        let fresh = Self::new(self.guest.clone(), Arc::clone(&self.shared));
        let old = core::mem::replace(self, fresh);
        self.requesters = old.requesters;
        self.drain = old.drain;
        self.is_awake = old.is_awake;
        *self.faults() = Faults::new();
        self.shared.root.enable(false);
        self.shared.root.set_table(0);
        self.start(&[Invalidation::All], &[]);
    }

    pub(crate) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.shared.faults.lock()
    }

    /// Makes invalidations. When the mappings of them have ended, and of all before them, they are
    /// complete, which may be at once.
    pub(crate) fn start(&mut self, invalidations: &[Invalidation], completions: &[Completion]) {
        if self.invalidate(invalidations) {
            self.waiting.extend_from_slice(completions);
            self.settle();
        }
    }

    /// Makes invalidations; returns whether that has succeeded. It always does, unless a register is
    /// written inside a look-up of a device, which the engine does not allow.
    pub(crate) fn invalidate(&mut self, invalidations: &[Invalidation]) -> bool {
        let result = invalidate(&self.requesters, invalidations, &mut self.drain);
        if let Err(error) = &result {
            tracing::error!(%error, "an invalidation of the guest's IOMMU was not made");
        }
        result.is_ok()
    }

    pub(crate) fn wait_for(&mut self, completion: Completion) {
        self.waiting.push(completion);
        self.settle();
    }

    /// Forgets what the queue waits for.
    pub(crate) fn forget_queue(&mut self) {
        self.waiting.retain(|waiting| !matches!(waiting, Completion::Queue(_)));
    }

    pub(crate) fn is_waiting(&self, what: impl Fn(&Completion) -> bool) -> bool {
        self.waiting.iter().any(what)
    }

    /// Completes what waits, if the drain has ended.
    pub(crate) fn settle(&mut self) {
        self.drain.take_if(|drain| drain.poll().is_some());
        while self.drain.is_none()
            && let Some(completion) = self.waiting.pop()
        {
            match completion {
                Completion::RootTable => self.is_root_set = true,
                Completion::Translation(is_enabled) => self.is_translating = is_enabled,
                Completion::Context => self.complete_context(),
                Completion::Iotlb => self.complete_iotlb(),
                Completion::Queue(wait) => self.complete_queue(wait),
            }
        }
    }

    /// Whether something goes on without a vCPU: drains, or descriptors that one vCPU's access has
    /// left.
    pub(crate) fn is_busy(&self) -> bool {
        self.drain.is_some() || self.is_queue_ready()
    }

    /// What is left for the unit's thread, which sleeps if that is nothing.
    pub(crate) fn leave(&mut self) -> Left {
        self.is_awake = self.is_busy();
        match (self.is_awake, self.is_queue_ready()) {
            (false, _) => Left::Nothing,
            (true, false) => Left::Drains,
            (true, true) => Left::Descriptors,
        }
    }
}
