//! The commands that registers give: global command, and invalidation without the queue.

use crate::control::{Completion, Control};
use crate::invalidation::{Granularity, Invalidation, Pages};
use crate::registers::{context_command, global, iotlb, with_half};

impl Control {
    /// Writes GCMD. What the unit does not have (fault logs in memory, write buffers, interrupt
    /// remapping) is ignored.
    pub(crate) fn global_command(&mut self, value: u32) {
        self.enable_queue(value & global::QIE != 0);
        let is_command =
            |waiting: &_| matches!(waiting, Completion::RootTable | Completion::Translation(_));
        // One at a time: software waits for the status of each.
        if !self.is_waiting(is_command) {
            let sets_root = value & global::SRTP != 0;
            let translates = value & global::TE != 0;
            if sets_root {
                self.is_root_set = false;
                self.shared.root.set_table(self.root_table);
                self.start(&[Invalidation::All], &[Completion::RootTable]);
            }
            if translates != self.is_translating {
                self.shared.root.enable(translates);
                self.start(&[Invalidation::All], &[Completion::Translation(translates)]);
            }
        }
        self.run_queue();
    }

    /// GSTS.
    pub(crate) fn global_status(&self) -> u32 {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        bit(self.is_translating, global::TE)
            | bit(self.is_root_set, global::SRTP)
            | bit(self.queue.is_enabled, global::QIE)
    }

    /// Writes half of CCMD. Its upper half has the bit that gives the command, so that is written
    /// last; while the command is in progress nothing is.
    pub(crate) fn write_context_command(&mut self, offset: u64, value: u32) {
        if self.is_waiting(|waiting| *waiting == Completion::Context) {
            return;
        }
        let command = with_half(self.context_command, offset, value);
        self.context_command = command & !context_command::ICC;
        if command & context_command::ICC == 0 {
            return;
        }
        self.context_done = 0;
        let field = |shift| (command >> shift) as u16;
        let requested = field(context_command::REQUESTED) as u8 & 3;
        if let Some(granularity) = Granularity::of(requested) {
            let source = field(context_command::SOURCE);
            let mask = field(context_command::FUNCTION_MASK) as u8;
            let invalidation = Invalidation::context_cache(granularity, source, mask);
            self.start(&[invalidation], &[Completion::Context]);
        }
    }

    pub(crate) fn complete_context(&mut self) {
        self.context_done = self.context_command >> context_command::REQUESTED & 3;
    }

    /// CCMD. The source and its mask are for writing only.
    pub(crate) fn read_context_command(&self) -> u64 {
        let is_waiting = self.is_waiting(|waiting| *waiting == Completion::Context);
        self.context_command & context_command::KEPT
            | self.context_done << context_command::ACTUAL
            | if is_waiting { context_command::ICC } else { 0 }
    }

    /// Writes half of IOTLB: as for CCMD.
    pub(crate) fn write_iotlb(&mut self, offset: u64, value: u32) {
        if self.is_waiting(|waiting| *waiting == Completion::Iotlb) {
            return;
        }
        let command = with_half(self.iotlb, offset, value);
        self.iotlb = command & !iotlb::IVT;
        if command & iotlb::IVT == 0 {
            return;
        }
        self.iotlb_done = 0;
        let requested = (command >> iotlb::REQUESTED) as u8 & 3;
        let domain = (command >> iotlb::DOMAIN) as u16;
        let pages = Pages::new(self.pages, &self.shared.capabilities);
        let invalidation = Granularity::of(requested)
            .and_then(|granularity| Invalidation::iotlb(granularity, domain, pages));
        if let Some(invalidation) = invalidation {
            self.start(&[invalidation], &[Completion::Iotlb]);
        }
    }

    /// Writes half of IVA.
    pub(crate) fn write_pages(&mut self, offset: u64, value: u32) {
        if !self.is_waiting(|waiting| *waiting == Completion::Iotlb) {
            self.pages = with_half(self.pages, offset, value);
        }
    }

    pub(crate) fn complete_iotlb(&mut self) {
        self.iotlb_done = self.iotlb >> iotlb::REQUESTED & 3;
    }

    /// IOTLB.
    pub(crate) fn read_iotlb(&self) -> u64 {
        let is_waiting = self.is_waiting(|waiting| *waiting == Completion::Iotlb);
        self.iotlb & iotlb::KEPT
            | self.iotlb_done << iotlb::ACTUAL
            | if is_waiting { iotlb::IVT } else { 0 }
    }
}
