//! Log pages (NVMe 1.4, 5.14.1).

use std::collections::VecDeque;

use super::command::{ALL, Command};
use super::counters::Snapshot;
use super::features::ROOM_TEMPERATURE;
use super::identity::REVISION;
use super::page::Page;
use super::power::Power;
use super::status::Status;

/// Log page identifiers.
pub(super) const ERRORS: u8 = 0x01;
pub(super) const HEALTH: u8 = 0x02;
const FIRMWARE: u8 = 0x03;

/// How many errors are kept: one page of 4 KiB.
pub(super) const ENTRIES_MAX: usize = 64;
const ENTRY: usize = 64;

/// In fields about a command: of none.
const NO_COMMAND: u16 = u16::MAX;

/// An error, as the log tells it (5.14.1.1).
#[derive(Debug)]
pub(super) struct Entry {
    /// Which error it is, from 1 on, since the process began.
    pub(super) count: u64,
    pub(super) queue: u16,
    pub(super) command: u16,
    pub(super) status: Status,
    /// The phase tag of the completion.
    pub(super) phase: bool,
    /// The byte, and in the upper byte the bit, of the command that is wrong, if that is known.
    pub(super) location: u16,
    /// The first block that failed; 0 if none did.
    pub(super) block: u64,
    /// 0 if it concerns none.
    pub(super) namespace: u32,
}

impl Entry {
    /// An error that belongs to no command.
    pub(super) fn of_no_command(count: u64, status: Status) -> Self {
        let (queue, command, location) = (NO_COMMAND, NO_COMMAND, NO_COMMAND);
        Self { count, queue, command, status, phase: false, location, block: 0, namespace: 0 }
    }

    fn bytes(&self) -> Page<ENTRY> {
        let mut page = Page::new();
        page.put(0, &self.count.to_le_bytes())
            .put(8, &self.queue.to_le_bytes())
            .put(10, &self.command.to_le_bytes())
            .put(12, &(self.status.0 << 1 | u16::from(self.phase)).to_le_bytes())
            .put(14, &self.location.to_le_bytes())
            .put(16, &self.block.to_le_bytes())
            .put(24, &self.namespace.to_le_bytes());
        page
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

    fn page(&self) -> Page<{ ENTRIES_MAX * ENTRY }> {
        let mut page = Page::new();
        for (index, entry) in self.0.iter().enumerate() {
            page.put(index * ENTRY, entry.bytes().bytes());
        }
        page
    }
}

/// Which page, and which part of it, the guest asks for (5.14).
pub(super) struct Request {
    pub(super) page: u8,
    /// The guest does not want to be told again.
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

    /// The bytes that are there; after them the guest gets zeros.
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

/// What log pages tell of.
pub(super) struct Sources<'a> {
    pub(super) errors: &'a ErrorLog,
    pub(super) counters: Snapshot,
    pub(super) power: &'a Power,
    /// Whether the temperature has passed a threshold of the guest's.
    pub(super) is_temperature_critical: bool,
}

/// A log page; `namespace` is the one that is asked about.
pub(super) fn read(id: u8, namespace: u32, sources: &Sources<'_>) -> Result<Vec<u8>, Status> {
    match id {
        ERRORS => Ok(sources.errors.page().bytes().to_vec()),
        // Of the whole controller only.
        HEALTH if ![0, ALL].contains(&namespace) => Err(Status::INVALID_FIELD),
        HEALTH => Ok(health(sources).bytes().to_vec()),
        FIRMWARE => {
            let mut page = Page::<512>::new();
            // Slot 1 is active, and there is no other.
            page.put(0, &[1]).put_text(8, 8, REVISION);
            Ok(page.bytes().to_vec())
        }
        _ => Err(Status::LOG_PAGE),
    }
}

/// SMART and health information (5.14.1.2).
fn health(sources: &Sources<'_>) -> Page<512> {
    const TEMPERATURE: u8 = 1 << 1;
    let Sources { counters, power, .. } = sources;
    // Thousands of 512 bytes, rounded up.
    let units = |bytes: u64| bytes.div_ceil(512_000).to_le_bytes();
    let mut page = Page::new();
    page.put(0, &[if sources.is_temperature_critical { TEMPERATURE } else { 0 }])
        .put(1, &ROOM_TEMPERATURE.to_le_bytes())
        // Spare blocks, and how many are needed, in percent.
        .put(3, &[100, 10])
        .put(32, &units(counters.read_bytes))
        .put(48, &units(counters.written_bytes))
        .put(64, &counters.reads.to_le_bytes())
        .put(80, &counters.writes.to_le_bytes())
        .put(96, &(power.busy().as_secs() / 60).to_le_bytes())
        .put(112, &counters.power_cycles.to_le_bytes())
        .put(128, &(power.on().as_secs() / 3600).to_le_bytes())
        .put(144, &counters.unsafe_shutdowns.to_le_bytes())
        .put(160, &counters.media_errors.to_le_bytes())
        .put(176, &counters.errors.to_le_bytes());
    page
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn the_error_log_has_the_newest_first_and_drops_the_oldest() {
        let mut log = ErrorLog::default();
        assert!(log.page().bytes().iter().all(|byte| *byte == 0));
        (1..=100).for_each(|count| {
            log.record(Entry::of_no_command(count, Status::INVALID_FIELD));
        });
        let page = log.page();
        let counts = page.bytes().chunks(ENTRY).map(|entry| entry[0]);
        assert!(counts.eq((37..=100).rev()));
    }

    #[test]
    fn health_has_its_units() {
        let counters = Snapshot {
            read_bytes: 512_001,
            written_bytes: 512_000,
            power_cycles: 3,
            ..Snapshot::default()
        };
        let power = Power::of(Duration::from_secs(2 * 3600 + 3599), Duration::from_secs(179));
        let (errors, is_temperature_critical) = (&ErrorLog::default(), true);
        let sources = Sources { errors, counters, power: &power, is_temperature_critical };
        let page = health(&sources);
        let at = |at: usize| u64::from_le_bytes(*page.bytes()[at..].first_chunk().unwrap());
        assert_eq!((at(32), at(48), at(112)), (2, 1, 3));
        assert_eq!((at(96), at(128)), (2, 2), "minutes busy, hours on");
        assert_eq!(page.bytes()[0], 0b10);
    }
}
