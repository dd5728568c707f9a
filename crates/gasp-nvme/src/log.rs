//! Log pages (NVMe 1.4, 5.14.1).

use std::collections::VecDeque;

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use super::command::{ALL, Command};
use super::counters::Snapshot;
use super::features::ROOM_TEMPERATURE;
use super::identity::{REVISION, padded};
use super::power::Power;
use super::status::Status;

/// Log page identifiers.
pub(super) const ERRORS: u8 = 0x01;
pub(super) const HEALTH: u8 = 0x02;
const FIRMWARE: u8 = 0x03;

/// The number of errors kept: one page of 4 KiB.
pub(super) const ENTRIES_MAX: usize = 64;

/// In fields about a command: no command.
const NO_COMMAND: U16 = U16::MAX_VALUE;

/// An entry of the error log (5.14.1.1).
#[derive(Clone, Copy, Debug, FromZeros, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Entry {
    /// The number of the error, from 1 on, since the process began.
    pub(super) count: U64,
    pub(super) queue: U16,
    pub(super) command: U16,
    /// With the phase tag of the completion.
    pub(super) status: U16,
    /// The byte of the command that is wrong, and in the upper byte the bit, if known.
    pub(super) location: U16,
    /// The first block that failed; 0 if none did.
    pub(super) block: U64,
    /// 0 if it concerns none.
    pub(super) namespace: U32,
    pub(super) _28: [u8; 36],
}
const _: () = assert!(size_of::<Entry>() == 64);

impl Entry {
    /// An error that belongs to no command.
    pub(super) fn of_no_command(count: u64, status: Status) -> Self {
        Self {
            count: count.into(),
            queue: NO_COMMAND,
            command: NO_COMMAND,
            status: status.field(false),
            location: NO_COMMAND,
            ..Self::new_zeroed()
        }
    }
}

/// The last errors, the newest first. Resets of the controller do not clear it.
#[derive(Debug, Default)]
pub(super) struct ErrorLog(VecDeque<Entry>);

impl ErrorLog {
    pub(super) fn record(&mut self, entry: Entry) {
        self.0.truncate(ENTRIES_MAX - 1);
        self.0.push_front(entry);
    }

    fn page(&self) -> [Entry; ENTRIES_MAX] {
        let entry = |index| self.0.get(index).copied();
        core::array::from_fn(|index| entry(index).unwrap_or_else(Entry::new_zeroed))
    }
}

/// Get Log Page (5.14): which page is requested, and which part of it.
pub(super) struct Request {
    pub(super) page: u8,
    /// The event that the page would clear is kept (RAE).
    pub(super) keeps_event: bool,
    offset: u64,
    pub(super) len: u64,
}

impl Request {
    pub(super) fn new(command: &Command) -> Self {
        let dword10 = command.dword10.get();
        let dwords = dword10 >> 16 | command.dword11.get() << 16;
        let [low, high] = [command.dword12, command.dword13].map(|half| u64::from(half.get()));
        Self {
            page: dword10 as u8,
            keeps_event: dword10 & 1 << 15 != 0,
            offset: low | high << 32,
            // The field counts from 0.
            len: 4 * (u64::from(dwords) + 1),
        }
    }

    /// The requested part of `page`, as far as there is one; the rest is zeros for the guest.
    pub(super) fn find<'page>(&self, page: &'page [u8]) -> Result<&'page [u8], Status> {
        let offset = usize::try_from(self.offset).map_err(|_| Status::INVALID_FIELD)?;
        if !offset.is_multiple_of(4) {
            return Err(Status::INVALID_FIELD);
        }
        let bytes = page.get(offset..).ok_or(Status::INVALID_FIELD)?;
        let len = usize::try_from(self.len).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes.get(..len).unwrap_or_default())
    }
}

/// The sources of log pages.
pub(super) struct Sources<'a> {
    pub(super) errors: &'a ErrorLog,
    pub(super) counters: Snapshot,
    pub(super) power: &'a Power,
    /// Whether the temperature has reached a threshold that the guest has set.
    pub(super) is_temperature_critical: bool,
}

/// A log page; `namespace` is the one that the command names.
pub(super) fn read(id: u8, namespace: u32, sources: &Sources<'_>) -> Result<Vec<u8>, Status> {
    match id {
        ERRORS => Ok(sources.errors.page().as_bytes().to_vec()),
        // Of the whole controller only.
        HEALTH if ![0, ALL].contains(&namespace) => Err(Status::INVALID_FIELD),
        HEALTH => Ok(Health::new(sources).as_bytes().to_vec()),
        FIRMWARE => Ok(FirmwareSlots::new().as_bytes().to_vec()),
        _ => Err(Status::LOG_PAGE),
    }
}

/// SMART and health information (5.14.1.2).
#[derive(FromZeros, IntoBytes, Immutable)]
#[repr(C)]
struct Health {
    critical_warning: u8,
    /// In kelvins.
    temperature: U16,
    /// Spare blocks, and their threshold, in percent.
    spare: u8,
    spare_needed: u8,
    _5: [u8; 27],
    /// In thousands of 512 bytes.
    read_units: U128,
    written_units: U128,
    reads: U128,
    writes: U128,
    busy_minutes: U128,
    power_cycles: U128,
    on_hours: U128,
    unsafe_shutdowns: U128,
    media_errors: U128,
    errors: U128,
    _192: [u8; 320],
}
const _: () = assert!(size_of::<Health>() == 512);

impl Health {
    fn new(sources: &Sources<'_>) -> Self {
        const TEMPERATURE: u8 = 1 << 1;
        let Sources { counters, power, .. } = sources;
        let count = |count: u64| U128::new(count.into());
        // Rounded up.
        let units = |bytes: u64| count(bytes.div_ceil(512_000));
        Self {
            critical_warning: if sources.is_temperature_critical { TEMPERATURE } else { 0 },
            temperature: ROOM_TEMPERATURE.into(),
            spare: 100,
            spare_needed: 10,
            read_units: units(counters.read_bytes),
            written_units: units(counters.written_bytes),
            reads: count(counters.reads),
            writes: count(counters.writes),
            busy_minutes: count(power.busy().as_secs() / 60),
            power_cycles: count(counters.power_cycles),
            on_hours: count(power.on().as_secs() / 3600),
            unsafe_shutdowns: count(counters.unsafe_shutdowns),
            media_errors: count(counters.media_errors),
            errors: count(counters.errors),
            ..Self::new_zeroed()
        }
    }
}

/// Firmware slots (5.14.1.3).
#[derive(FromZeros, IntoBytes, Immutable)]
#[repr(C)]
struct FirmwareSlots {
    active: u8,
    _1: [u8; 7],
    revisions: [[u8; 8]; 7],
    _64: [u8; 448],
}
const _: () = assert!(size_of::<FirmwareSlots>() == 512);

impl FirmwareSlots {
    /// Slot 1 is active, and there is no other.
    fn new() -> Self {
        let mut slots = Self { active: 1, ..Self::new_zeroed() };
        slots.revisions[0] = padded(REVISION);
        slots
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn the_error_log_has_the_newest_first_and_drops_the_oldest() {
        let mut log = ErrorLog::default();
        assert!(log.page().as_bytes().iter().all(|byte| *byte == 0));
        (1..=100).for_each(|count| {
            log.record(Entry::of_no_command(count, Status::INVALID_FIELD));
        });
        assert!(log.page().iter().map(|entry| entry.count.get()).eq((37..=100).rev()));
    }

    #[test]
    fn health_has_its_units_at_the_offsets_of_the_standard() {
        let counters = Snapshot {
            read_bytes: 512_001,
            written_bytes: 512_000,
            power_cycles: 3,
            ..Snapshot::default()
        };
        let power = Power::of(Duration::from_secs(2 * 3600 + 3599), Duration::from_secs(179));
        let (errors, is_temperature_critical) = (&ErrorLog::default(), true);
        let sources = Sources { errors, counters, power: &power, is_temperature_critical };
        let page = read(HEALTH, 0, &sources).unwrap();
        let at = |at: usize| u64::from_le_bytes(*page[at..].first_chunk().unwrap());
        assert_eq!((at(32), at(48), at(112)), (2, 1, 3));
        assert_eq!((at(96), at(128)), (2, 2), "minutes busy, hours on");
        assert_eq!(page[..6], [0b10, 0x25, 0x01, 100, 10, 0], "293 K, 100 % spare, of 10 % needed");
    }
}
