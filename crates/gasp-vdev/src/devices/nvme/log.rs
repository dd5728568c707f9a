//! Log pages (NVMe 1.4, 5.14.1).

use super::command::Command;
use super::counters::Snapshot;
use super::identify::{ALL, REVISION};
use super::page::Page;
use super::status::Status;

/// Log page identifiers.
pub(super) const ERRORS: u8 = 0x01;
const HEALTH: u8 = 0x02;
const FIRMWARE: u8 = 0x03;

type Log = Page<512>;

/// The last command that failed (5.14.1.1), of those since the controller was switched on.
#[derive(Debug, Default)]
pub(super) struct ErrorLog {
    count: u64,
    last: Option<(u16, Command, Status)>,
}

impl ErrorLog {
    pub(super) fn record(&mut self, queue: u16, command: &Command, status: Status) {
        self.count += 1;
        self.last = Some((queue, *command, status));
    }

    fn page(&self) -> Log {
        let mut page = Log::new();
        if let Some((queue, command, status)) = &self.last {
            page.put(0, &self.count.to_le_bytes())
                .put(8, &queue.to_le_bytes())
                .put(10, &command.id().to_le_bytes())
                .put(12, &(status.0 << 1).to_le_bytes())
                // Where in the command the error is, is not said.
                .put(14, &u16::MAX.to_le_bytes())
                .put(16, &command.first_block().to_le_bytes())
                .put(24, &command.namespace().to_le_bytes());
        }
        page
    }
}

/// Which page, and which part of it, the guest asks for (5.14).
pub(super) struct Request {
    pub(super) page: u8,
    /// The guest wants to be told again.
    pub(super) keeps_event: bool,
    offset: u64,
    pub(super) len: u64,
}

impl Request {
    pub(super) fn new(command: &Command) -> Self {
        let dword = |index| u64::from(command.dword(index));
        let dwords = (dword(10) >> 16 | (dword(11) & 0xffff) << 16) + 1;
        Self {
            page: command.dword(10) as u8,
            keeps_event: command.dword(10) & 1 << 15 != 0,
            offset: dword(12) | dword(13) << 32,
            len: 4 * dwords,
        }
    }

    /// The bytes that are there; behind them the guest gets zeros.
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

/// A log page; `namespace` is the one that is asked about.
pub(super) fn read(
    id: u8,
    namespace: u32,
    errors: &ErrorLog,
    counters: &Snapshot,
) -> Result<Log, Status> {
    match id {
        ERRORS => Ok(errors.page()),
        // Of the whole controller only.
        HEALTH if ![0, ALL].contains(&namespace) => Err(Status::INVALID_FIELD),
        HEALTH => Ok(health(counters)),
        FIRMWARE => {
            let mut page = Log::new();
            // Slot 1 is active, and there is no other.
            page.put(0, &[1]).put_text(8, 8, REVISION);
            Ok(page)
        }
        _ => Err(Status::LOG_PAGE),
    }
}

/// SMART and health information (5.14.1.2).
fn health(counters: &Snapshot) -> Log {
    // Thousands of 512 bytes.
    let units = |bytes: u64| bytes.div_ceil(512_000).to_le_bytes();
    const ROOM_TEMPERATURE: u16 = 293;
    let mut page = Log::new();
    page.put(1, &ROOM_TEMPERATURE.to_le_bytes())
        // Spare blocks, and how many are needed, in percent.
        .put(3, &[100, 10])
        .put(32, &units(counters.read_bytes))
        .put(48, &units(counters.written_bytes))
        .put(64, &counters.reads.to_le_bytes())
        .put(80, &counters.writes.to_le_bytes());
    page
}
