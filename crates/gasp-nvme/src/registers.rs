//! The controller's registers (NVMe 1.4, 3.1). Doorbells are kept apart, because they are written
//! all the time.

use gasp_vdev::{Register, Width};

/// Offsets of the registers.
const CAP: u64 = 0x00;
const VS: u64 = 0x08;
const INTMS: u64 = 0x0c;
const INTMC: u64 = 0x10;
const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
/// Registers are read in pairs of 8 bytes; these are the pairs whose upper halves are CSTS and AQA.
const CSTS_PAIR: u64 = CSTS & !7;
const AQA_PAIR: u64 = AQA & !7;
/// The offset of the doorbells (3.1.24).
pub(super) const DOORBELLS: u64 = 0x1000;

/// The version of the specification: 1.4 (3.1.2).
pub(super) const VERSION: u32 = 0x0001_0400;

/// The smallest memory page is 4 KiB, the largest 64 KiB (3.1.1: MPSMIN and MPSMAX).
const PAGE_SHIFT: u32 = 12;
const PAGES_MAX: u32 = 4;

/// Fields of CC (3.1.5).
const ENABLE: u32 = 1;
const SHUTDOWN_SHIFT: u32 = 14;
/// Command set, memory page size, arbitration: can be changed only while the controller is
/// disabled.
const FIXED: u32 = 0x3ff << 4;
const WRITABLE: u32 = 0x00ff_fff1;

/// Fields of CSTS (3.1.6).
const READY: u32 = 1;
const FATAL: u32 = 1 << 1;
const SHUTTING_DOWN: u32 = 0b01 << 2;
const SHUT_DOWN: u32 = 0b10 << 2;
const SHUTDOWN_STATUS: u32 = 0b11 << 2;

/// The registers.
#[derive(Debug, Default)]
pub(super) struct Registers {
    configuration: u32,
    status: u32,
    /// Interrupt vectors that are masked (INTMS, INTMC), for the pin only.
    pub(super) masked: u32,
    attributes: u32,
    submission: u64,
    completion: u64,
    /// Whether the guest has disabled the controller and the device's thread has not stopped it
    /// yet.
    pub(super) was_disabled: bool,
    /// The shutdown that the guest has requested and that is not complete.
    shutdown: Option<Shutdown>,
}

/// A kind of shutdown (3.1.5: SHN).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shutdown {
    /// All commands submitted before are completed first.
    Normal,
    /// Commands that have not begun are dropped.
    Abrupt,
}

/// The admin queues as the guest describes them (3.1.8 to 3.1.10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AdminQueues {
    pub(super) page: u64,
    pub(super) submission: u64,
    pub(super) submission_size: u32,
    pub(super) completion: u64,
    pub(super) completion_size: u32,
}

/// What the device's thread has to do after a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    None,
    /// Handle what was written to the registers.
    Handle,
}

impl Registers {
    /// The value that the access reads; `entries` is the maximum number of entries of a queue.
    pub(super) fn read(&self, at: Register, entries: u32) -> u64 {
        let base = at.offset & !7;
        let group = match base {
            CAP => capabilities(entries),
            VS => u64::from(VERSION) | u64::from(self.masked) << 32,
            INTMC => u64::from(self.masked) | u64::from(self.configuration) << 32,
            CSTS_PAIR => u64::from(self.status) << 32,
            // The lower half is NSSR, for resets that CAP does not offer.
            AQA_PAIR => u64::from(self.attributes) << 32,
            ASQ => self.submission,
            ACQ => self.completion,
            _ => 0,
        };
        at.part_of(base, group)
    }

    /// Writes registers for the guest. A write of 8 bytes reaches both registers of a pair; one of
    /// less than 4 bytes is not defined (3.1) and ignored.
    pub(super) fn write(&mut self, at: Register, value: u64) -> Effect {
        if at.width < Width::Four {
            return Effect::None;
        }
        match at.offset & !7 {
            // The admin queues stay as they are while the controller uses them (3.1.5).
            ASQ | ACQ if self.is_enabled() => {}
            ASQ => self.submission = at.merged(ASQ, self.submission, value) & !0xfff,
            ACQ => self.completion = at.merged(ACQ, self.completion, value) & !0xfff,
            base => {
                let whole = at.merged(base, 0, value);
                let reaches =
                    |offset| at.offset < offset + 4 && offset < at.offset + at.width.bytes();
                let low = reaches(base).then(|| self.write_word(base, whole as u32));
                let high =
                    reaches(base + 4).then(|| self.write_word(base + 4, (whole >> 32) as u32));
                if [low, high].contains(&Some(Effect::Handle)) {
                    return Effect::Handle;
                }
            }
        }
        Effect::None
    }

    fn write_word(&mut self, offset: u64, value: u32) -> Effect {
        match offset {
            INTMS => self.masked |= value,
            INTMC => self.masked &= !value,
            CC => self.configure(value & WRITABLE),
            AQA => {
                if !self.is_enabled() {
                    self.attributes = value & 0x0fff_0fff;
                }
                return Effect::None;
            }
            _ => return Effect::None,
        }
        Effect::Handle
    }

    fn configure(&mut self, value: u32) {
        let before = self.configuration;
        self.configuration = match before & value & ENABLE {
            0 => value,
            _ => before & FIXED | value & !FIXED,
        };
        if before & ENABLE != 0 && value & ENABLE == 0 {
            self.was_disabled = true;
            // The reset ends a shutdown, too; this write may request another.
            self.status &= !SHUTDOWN_STATUS;
            self.shutdown = None;
        }
        // A driver may leave the field unchanged when it enables the controller again: only a
        // change is a request.
        let asks = |word: u32| (word >> SHUTDOWN_SHIFT) & 0b11;
        let shutdown = match asks(value) {
            asked if asked == asks(before) => None,
            0b01 => Some(Shutdown::Normal),
            0b10 => Some(Shutdown::Abrupt),
            _ => None,
        };
        // A shutdown that is complete, or has failed, stays so; one in progress can become abrupt.
        let can_begin = self.status & SHUTDOWN_STATUS == 0 || self.shutdown.is_some();
        if shutdown.is_some() && can_begin {
            self.status |= SHUTTING_DOWN;
            self.shutdown = shutdown;
        }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.configuration & ENABLE != 0
    }

    /// The shutdown that is requested and not complete.
    pub(super) fn shutdown(&self) -> Option<Shutdown> {
        self.shutdown
    }

    /// The controller has started. A complete shutdown from before no longer shows; one requested
    /// since then is still to be done.
    pub(super) fn set_ready(&mut self) {
        self.status = READY | if self.shutdown.is_some() { SHUTTING_DOWN } else { 0 };
    }

    pub(super) fn set_fatal(&mut self) {
        self.status |= FATAL;
    }

    /// The shutdown is complete, unless a reset has ended it meanwhile.
    pub(super) fn set_shut_down(&mut self) {
        if !self.was_disabled && self.shutdown.take().is_some() {
            self.status = self.status & !SHUTDOWN_STATUS | SHUT_DOWN;
        }
    }

    /// The shutdown cannot be completed, unless a reset has ended it meanwhile.
    pub(super) fn set_shutdown_failed(&mut self) {
        if !self.was_disabled && self.shutdown.take().is_some() {
            self.status |= FATAL;
        }
    }

    /// After a reset of the controller: the admin queues stay described (7.3.2).
    pub(super) fn set_stopped(&mut self) {
        self.status &= SHUTTING_DOWN;
        self.masked = 0;
        self.was_disabled = false;
    }

    /// Whether the sizes of queue entries are those that the controller knows; they need not be set
    /// before the first I/O queue is created.
    pub(super) fn has_entry_sizes(&self) -> bool {
        use super::command::{COMPLETION_SHIFT, ENTRY_SHIFT};
        (self.configuration >> 16) & 0xff == ENTRY_SHIFT | COMPLETION_SHIFT << 4
    }

    /// The admin queues; `None` if the guest has configured something that CAP does not offer.
    pub(super) fn admin_queues(&self) -> Option<AdminQueues> {
        let field = |shift: u32, bits: u32| (self.configuration >> shift) & ((1 << bits) - 1);
        let (command_set, page, arbitration) = (field(4, 3), field(7, 4), field(11, 3));
        let queues = AdminQueues {
            page: 1 << (PAGE_SHIFT + page),
            submission: self.submission,
            submission_size: (self.attributes & 0xfff) + 1,
            completion: self.completion,
            completion_size: (self.attributes >> 16) + 1,
        };
        let offered = command_set == 0 && page <= PAGES_MAX && arbitration == 0;
        let aligned = (self.submission | self.completion).is_multiple_of(queues.page);
        // A queue of one entry is always empty (4.1.3).
        let sized = queues.submission_size > 1 && queues.completion_size > 1;
        (offered && aligned && sized).then_some(queues)
    }
}

/// CAP (3.1.1): contiguous queues, doorbells 4 bytes apart, the NVM command set, up to
/// 10 s to become ready.
fn capabilities(entries: u32) -> u64 {
    const CONTIGUOUS: u64 = 1 << 16;
    const TIMEOUT: u64 = 20 << 24;
    const NVM_COMMANDS: u64 = 1 << 37;
    let entries = u64::from(entries.saturating_sub(1));
    entries | CONTIGUOUS | TIMEOUT | NVM_COMMANDS | u64::from(PAGES_MAX) << 52
}

#[cfg(test)]
mod tests {
    use super::*;
    use gasp_vdev::Width;

    fn at(offset: u64, width: Width) -> Register {
        Register { bar: 0, offset, width }
    }

    #[test]
    fn registers_read_back_in_either_width_and_keep_reserved_bits_clear() {
        let mut registers = Registers::default();
        assert_eq!(registers.read(at(CAP, Width::Four), 1024) & 0xffff, 1023);
        assert_eq!(registers.read(at(VS, Width::Four), 2), u64::from(VERSION));
        registers.write(at(ASQ + 4, Width::Four), 0x12);
        registers.write(at(ASQ, Width::Four), 0x3456_7fff);
        assert_eq!(registers.read(at(ASQ, Width::Eight), 2), 0x12_3456_7000);
        registers.write(at(AQA_PAIR, Width::Eight), u64::MAX);
        assert_eq!(registers.read(at(AQA, Width::Four), 2), 0x0fff_0fff);
        assert_eq!(registers.write(at(INTMS, Width::Four), 5), Effect::Handle);
        registers.write(at(INTMC, Width::Four), 4);
        assert_eq!(registers.read(at(INTMS, Width::Four), 2), 1);
        assert_eq!(registers.read(at(CC, Width::Four), 2), 0);
    }

    #[test]
    fn a_configuration_that_was_not_offered_gives_no_admin_queues() {
        let mut registers = Registers::default();
        registers.write(at(AQA, Width::Four), 0x001f_000f);
        registers.write(at(CC, Width::Four), 0x0046_0001);
        let queues = registers.admin_queues().unwrap();
        assert_eq!((queues.page, queues.submission_size, queues.completion_size), (4096, 16, 32));
        assert!(registers.has_entry_sizes());
        for bad in [1 << 4, 5 << 7, 1 << 11] {
            registers.write(at(CC, Width::Four), 0);
            registers.write(at(CC, Width::Four), 1 | bad);
            assert_eq!(registers.admin_queues(), None, "{bad:#x}");
        }
        registers.write(at(CC, Width::Four), 0);
        registers.write(at(ASQ, Width::Four), 0x1000);
        registers.write(at(CC, Width::Four), 1 | 1 << 7);
        assert_eq!(registers.admin_queues(), None, "not aligned to 8 KiB");
    }
}
