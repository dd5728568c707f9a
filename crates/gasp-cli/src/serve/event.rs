//! Device events, as text and as JSON.

use core::fmt;
use core::time::Duration;

use gasp::errno_name;
use gasp_vfio_user::{ServerEvent, Status};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::quantity::{count, length, several};

/// An unmap that waits at least this long for the device is reported.
const LONG: Duration = Duration::from_millis(10);

/// An event of one device. `gasp serve --help` describes the fields.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event {
    Listening { kind: &'static str, socket: String, qemu: Vec<String> },
    Attached { pid: Option<i32> },
    Detached { why: String },
    Adopted { bytes: u64 },
    ByMessage,
    NotShared { bytes: u64, seen: bool },
    Totals(Snapshot),
    Drained { addr: u64, len: u64, waited_ns: u64, detached: usize },
    Faults { count: u64, first: Option<FaultOf> },
    Reset,
    Refused { command: String, errno: &'static str, why: String },
    TurnedAway { why: String },
    InUse { pid: Option<i32>, by: Option<i32>, seconds: u64 },
    Omitted { reports: u64 },
    Failed { why: String },
    VdevFailed { why: String },
    Status { text: String },
    Stopped(Snapshot),
}

/// An event that concerns all devices.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum ServiceEvent {
    /// `kept`: changed, but attached; `failed`: messages about devices that are not served.
    Reloaded {
        added: Vec<String>,
        removed: Vec<String>,
        replaced: Vec<String>,
        kept: Vec<String>,
        failed: Vec<String>,
    },
    ReloadFailed {
        why: String,
    },
    Unwritten {
        count: u64,
    },
}

/// The first of several refused accesses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct FaultOf {
    pub(super) addr: u64,
    pub(super) access: String,
    pub(super) reason: String,
}

/// The state of a device. Two are equal if they report the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) status: Status,
    pub(super) faults: u64,
    pub(super) untold: u64,
    /// It is a vdev that has failed.
    pub(super) failed: bool,
    pub(super) counters: Vec<Counter>,
}

/// A counter of the device itself.
pub(super) type Counter = (&'static str, u64);

impl Snapshot {
    /// What is told of the socket and its VMM, but the VMM's process.
    fn numbers(&self) -> [Counter; 14] {
        let Self { status, faults, untold, .. } = self;
        [
            ("connections", status.connections),
            ("maps", status.maps),
            ("unmaps", status.unmaps),
            ("windows", status.windows),
            ("window_bytes", status.window_bytes),
            ("by_message_bytes", status.by_message_bytes),
            ("files", status.files),
            ("drains", status.drains),
            ("draining", status.draining),
            ("faults", *faults),
            ("commands", status.commands),
            ("refused", status.refused),
            ("message_bytes", status.message_bytes),
            ("untold", *untold),
        ]
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        let told = |one: &Self| (one.status.pid, one.numbers());
        told(self) == told(other) && self.failed == other.failed && self.counters == other.counters
    }
}

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("pid", &self.status.pid)?;
        self.numbers().iter().try_for_each(|(name, number)| map.serialize_entry(name, number))?;
        map.serialize_entry("failed", &self.failed)?;
        map.serialize_entry("counters", &AsObject(&self.counters))?;
        map.end()
    }
}

struct AsObject<'a>(&'a [Counter]);

impl Serialize for AsObject<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().copied())
    }
}

impl Snapshot {
    /// The bytes in DMA windows that are mapped; the others are copied by messages.
    pub(super) fn mapped_bytes(&self) -> u64 {
        self.status.window_bytes.saturating_sub(self.status.by_message_bytes)
    }

    /// The device's counters as text, without those that are 0.
    pub(super) fn counted(&self) -> Vec<String> {
        let counted = self.counters.iter().filter(|(_, value)| *value > 0);
        counted
            .map(|(name, value)| match name.strip_suffix("_bytes") {
                Some(name) => format!("{} {name}", length(*value)),
                None => format!("{} {name}", thousands(*value)),
            })
            .collect()
    }
}

impl Event {
    /// The event to report, if any. Single maps and unmaps are not reported: there are
    /// thousands, and the totals have their numbers.
    pub(super) fn of(event: &ServerEvent) -> Option<Self> {
        Some(match event {
            ServerEvent::Attached { pid } => Self::Attached { pid: *pid },
            ServerEvent::Detached { why } => Self::Detached { why: (*why).into() },
            ServerEvent::Adopted { len } => Self::Adopted { bytes: *len },
            &ServerEvent::Unmapped { addr, len, waited, detached }
                if waited >= LONG || detached > 0 =>
            {
                let waited_ns = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
                Self::Drained { addr, len, waited_ns, detached }
            }
            ServerEvent::Reset => Self::Reset,
            ServerEvent::Refused { command, errno, why } => Self::Refused {
                command: (*command).into(),
                errno: errno_name(*errno),
                why: why.clone(),
            },
            ServerEvent::ByMessage => Self::ByMessage,
            &ServerEvent::NotShared { len, seen } => Self::NotShared { bytes: len, seen },
            &ServerEvent::InUse { pid, by, since } => {
                Self::InUse { pid, by, seconds: since.as_secs() }
            }
            &ServerEvent::Omitted { reports } => Self::Omitted { reports },
            ServerEvent::TurnedAway { why } => Self::TurnedAway { why: (*why).into() },
            _ => return None,
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { kind, socket, .. } => write!(f, "{kind}, listening on {socket}"),
            Self::Attached { pid: Some(pid) } => write!(f, "attached: process {pid}"),
            Self::Attached { pid: None } => write!(f, "attached"),
            Self::Detached { why } => write!(f, "detached: {why}"),
            Self::Adopted { bytes } => {
                write!(f, "mapped a file with {} of guest memory", length(*bytes))
            }
            Self::ByMessage => write!(
                f,
                "guest memory cannot be sealed and is copied by messages, which is slow: see \
                 `unsealed` in gasp serve --help"
            ),
            Self::NotShared { bytes, seen: true } => write!(
                f,
                "{} of guest memory are not shared with the device, and are copied by messages or \
                 refused: give QEMU share=on",
                length(*bytes)
            ),
            Self::NotShared { bytes, seen: false } => write!(
                f,
                "the guest has started the device, but all {} of its memory are still zero: \
                 probably they are not shared, and the guest's commands never arrive; give QEMU \
                 share=on",
                length(*bytes)
            ),
            Self::Totals(snapshot) => snapshot.fmt(f),
            Self::Drained { addr, len, waited_ns, detached } => {
                let waited = Duration::from_nanos(*waited_ns);
                write!(f, "unmapped {} at {addr:#x} after {waited:.1?}", length(*len))?;
                match detached {
                    0 => Ok(()),
                    held => write!(f, ", with {} still held", several(*held, "mapping")),
                }
            }
            Self::Faults { count: 1, first: Some(first) } => write!(f, "fault: {first}"),
            Self::Faults { count: number, first } => {
                f.write_str(&many(*number, "fault"))?;
                first.as_ref().map_or(Ok(()), |first| write!(f, ", the first: {first}"))
            }
            Self::Reset => write!(f, "reset"),
            Self::Refused { command, errno, why } => {
                write!(f, "refused {command}: {why} ({errno})")
            }
            Self::TurnedAway { why } => write!(f, "rejected a client: {why}"),
            Self::InUse { pid, by, seconds } => {
                let process = |pid: &Option<i32>| {
                    pid.map_or_else(|| "a process".into(), |pid| format!("process {pid}"))
                };
                let (pid, by) = (process(pid), process(by));
                write!(f, "rejected {pid}: in use by {by} for {} s", thousands(*seconds))
            }
            Self::Omitted { reports } => {
                write!(f, "dropped {}, there were too many", many(*reports, "report"))
            }
            Self::Failed { why } => write!(f, "failed: {why}"),
            Self::VdevFailed { why } => {
                write!(f, "failed, and reads as ones until a reset or the next VMM: {why}")
            }
            Self::Status { text } => write!(f, "status: {text}"),
            Self::Stopped(snapshot) => write!(f, "stopped: {snapshot}"),
        }
    }
}

impl fmt::Display for ServiceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reloaded { added, removed, replaced, kept, failed } => {
                write!(f, "configuration read again")?;
                let lists = [
                    ("added", added),
                    ("removed", removed),
                    ("replaced", replaced),
                    ("changed, but in use and kept", kept),
                    ("failed", failed),
                ];
                let mut lists = lists.iter().filter(|(_, list)| !list.is_empty()).peekable();
                if lists.peek().is_none() {
                    return write!(f, ": no change");
                }
                lists.try_for_each(|(what, list)| write!(f, "; {what}: {}", list.join(", ")))
            }
            Self::ReloadFailed { why } => {
                write!(f, "the new configuration is rejected, nothing has changed: {why}")
            }
            Self::Unwritten { count } => {
                write!(f, "{} could not be written", many(*count, "report"))
            }
        }
    }
}

impl fmt::Display for FaultOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}: {}", self.access, self.addr, self.reason)
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, faults, .. } = self;
        let Status { maps, unmaps, windows, window_bytes, drains, .. } = status;
        write!(
            f,
            "{}, {}, {} in {}, {}, {}",
            many(*maps, "map"),
            many(*unmaps, "unmap"),
            length(*window_bytes),
            many(*windows, "DMA window"),
            many(*drains, "drain"),
            many(*faults, "fault"),
        )?;
        self.counted().iter().try_for_each(|text| write!(f, ", {text}"))
    }
}

pub(super) fn thousands(number: u64) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX))
}

fn many(number: u64, one: &str) -> String {
    several(usize::try_from(number).unwrap_or(usize::MAX), one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_differs_only_in_what_it_tells() {
        let told = Snapshot::default();
        let mut now = told.clone();
        now.status.map_time = Duration::from_nanos(1);
        assert_eq!(now, told);
        now.status.maps = 1;
        assert_ne!(now, told);
    }
}
