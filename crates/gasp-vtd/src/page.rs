//! The register page: which register an access is about.

use crate::control::Control;
use crate::registers::*;
use crate::root::ADDRESS;

/// The last quad of the four registers of an event.
const EVENT: u64 = 8;

impl Control {
    /// The 8 bytes at `offset`, a multiple of 8. What is no register, and what is only written, is 0.
    pub(crate) fn read_quad(&self, offset: u64) -> u64 {
        match offset {
            VER => pair(VERSION, 0),
            CAP => self.shared.capabilities.cap(),
            ECAP => self.shared.capabilities.ecap(),
            GCMD => pair(0, self.global_status()),
            RTADDR => self.root_table,
            CCMD => self.read_context_command(),
            _ if offset == FSTS - 4 => pair(0, self.faults().status()),
            _ if (FECTL..=FECTL + EVENT).contains(&offset) => {
                self.faults().event.read(offset - FECTL)
            }
            IQH => self.queue.read_head(),
            IQT => self.queue.read_tail(),
            IQA => self.queue.read_address(),
            _ if offset == ICS - 4 => pair(0, self.completion_status()),
            _ if (IECTL..=IECTL + EVENT).contains(&offset) => self.completion.read(offset - IECTL),
            IQERCD => self.faults().queue_error(),
            IOTLB => self.read_iotlb(),
            FRCD.. => self.faults().read(offset - FRCD),
            _ => 0,
        }
    }

    /// Writes the 4 bytes at `offset`, a multiple of 4. What is no register, and what is only read,
    /// stays as it is.
    pub(crate) fn write_half(&mut self, offset: u64, value: u32) {
        match offset {
            GCMD => self.global_command(value),
            _ if offset & !4 == RTADDR => {
                self.root_table = with_half(self.root_table, offset, value) & ADDRESS;
            }
            _ if offset & !4 == CCMD => self.write_context_command(offset, value),
            FSTS => {
                self.faults().write_status(value);
                self.run_queue();
            }
            _ if (FECTL..FECTL + 16).contains(&offset) => {
                let message = self.faults().event.write(offset - FECTL, value);
                self.messages.extend(message);
            }
            IQT => {
                self.queue.write_tail(value);
                self.run_queue();
            }
            _ if offset & !4 == IQA => self.queue.write_address(offset, value),
            ICS => self.write_completion_status(value),
            _ if (IECTL..IECTL + 16).contains(&offset) => {
                let message = self.completion.write(offset - IECTL, value);
                self.messages.extend(message);
            }
            _ if offset & !4 == IVA => self.write_pages(offset, value),
            _ if offset & !4 == IOTLB => self.write_iotlb(offset, value),
            FRCD.. => self.faults().write(offset - FRCD, value),
            _ => {}
        }
    }
}
