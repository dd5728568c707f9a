//! Server events and statistics.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use gasp::Errno;

use crate::rate_limit::RateLimit;

/// An event of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// A VMM has attached.
    Attached {
        /// The process ID of the VMM, in the PID namespace of this process, if known.
        pid: Option<i32>,
    },
    /// The VMM has disconnected, or was disconnected.
    Detached {
        /// The reason, as text.
        why: &'static str,
    },
    /// A window of memory was mapped.
    Mapped {
        /// The device address.
        addr: u64,
        /// Length in bytes.
        len: u64,
        /// Whether the device may write it.
        writable: bool,
        /// Whether the device can map it; if not, it is reached by messages.
        mapped: bool,
    },
    /// Memory was unmapped, and no mapping of it is left, except those counted in
    /// `detached`.
    Unmapped {
        /// The device address.
        addr: u64,
        /// Length in bytes.
        len: u64,
        /// How long the unmap waited for the device.
        waited: Duration,
        /// Number of mappings still held past the deadline.
        detached: usize,
    },
    /// A memory file of the guest was mapped for its first window.
    Adopted {
        /// Length in bytes.
        len: u64,
    },
    /// A memory file was unmapped and closed, because its last window is gone.
    Released {
        /// Length in bytes.
        len: u64,
    },
    /// A memory file can be truncated by its owner, and cannot be sealed against that: it
    /// is reached by messages, which is slow. Reported once for each VMM; see
    /// [`Unsealed`](crate::Unsealed).
    ByMessage,
    /// The guest does not write to a memory file that its VMM passed (QEMU: `share=off`).
    NotShared {
        /// Size of the file, or of all files, in bytes.
        len: u64,
        /// Whether the VMM's mappings show it (reported once for each VMM): the memory is
        /// then reached by messages, or refused. If not, the device was started two seconds
        /// ago, and the files are still empty: it waits for commands that never arrive.
        seen: bool,
    },
    /// The device was reset.
    Reset,
    /// A command was answered with an error.
    Refused {
        /// The name of the command.
        command: &'static str,
        /// The errno of the reply.
        errno: Errno,
        /// The reason, as text.
        why: String,
    },
    /// A client was turned away: its first message was refused or did not arrive, or the
    /// process is out of descriptors.
    TurnedAway {
        /// The reason, as text.
        why: &'static str,
    },
    /// A client was turned away because the device is in use: its VERSION was answered with
    /// `EBUSY`.
    InUse {
        /// The process ID of the client that was turned away.
        pid: Option<i32>,
        /// The process ID of the VMM that is served.
        by: Option<i32>,
        /// How long that VMM has been served.
        since: Duration,
    },
    /// Reports were omitted, because there were too many: of each sort that a client can
    /// cause as often as it likes (errors; connections; files that come and go, and
    /// resets), one a second is sent after the first hundred.
    Omitted {
        /// Number of reports omitted.
        reports: u64,
    },
}

/// Statistics of a server since its creation; the values marked "now" are of the VMM that
/// is currently attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// Whether a VMM is attached.
    pub attached: bool,
    /// The process ID of that VMM, if known.
    pub pid: Option<i32>,
    /// Number of VMMs that have connected.
    pub connections: u64,
    /// DMA windows of the VMM, now.
    pub windows: u64,
    /// Size of those windows in bytes, now.
    pub window_bytes: u64,
    /// Size of those that are reached by messages instead of maps, in bytes, now.
    pub by_message_bytes: u64,
    /// Memory files of those windows, now.
    pub files: u64,
    /// DMA_MAP commands executed.
    pub maps: u64,
    /// DMA_UNMAP commands executed.
    pub unmaps: u64,
    /// Time the server has spent on DMA_MAP commands, including refused ones: from the
    /// first byte read until the reply is ready to be sent.
    pub map_time: Duration,
    /// Unmaps that had to wait for the device.
    pub drains: u64,
    /// Unmaps that are waiting, now.
    pub draining: u64,
    /// Commands received.
    pub commands: u64,
    /// Commands refused.
    pub refused: u64,
    /// Bytes copied by messages.
    pub message_bytes: u64,
}

/// The callback for all events; see [`Server::observe`](crate::Server::observe).
pub(crate) type Observer = Box<dyn Fn(&ServerEvent) + Send + Sync>;

/// The statistics, as the threads count them.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) pid: AtomicU64,
    pub(crate) attached: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) windows: AtomicU64,
    pub(crate) window_bytes: AtomicU64,
    pub(crate) by_message_bytes: AtomicU64,
    pub(crate) files: AtomicU64,
    pub(crate) maps: AtomicU64,
    pub(crate) unmaps: AtomicU64,
    pub(crate) map_nanos: AtomicU64,
    pub(crate) drains: AtomicU64,
    pub(crate) draining: AtomicU64,
    pub(crate) commands: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) message_bytes: AtomicU64,
    pub(crate) observer: std::sync::OnceLock<Observer>,
    /// Rate limits for reports of refused commands; of clients that are turned away; of
    /// everything else that a client can cause as often as it likes.
    pub(crate) refusals: RateLimit,
    pub(crate) turned_away: RateLimit,
    pub(crate) routine: RateLimit,
    /// Rate limit for log lines about clients that are served. Their events are always
    /// reported.
    pub(crate) sessions: RateLimit,
}

impl Counters {
    /// Adds `more` to a counter. The counters are independent of each other and of
    /// everything else.
    pub(crate) fn count(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn set(counter: &AtomicU64, value: u64) {
        counter.store(value, Ordering::Relaxed);
    }

    /// Calls the observer, if there is one; the event is only constructed in that case.
    pub(crate) fn report(&self, event: impl FnOnce() -> ServerEvent) {
        if let Some(observer) = self.observer.get() {
            observer(&event());
        }
    }

    /// Calls the observer for an event that a peer may cause as often as it likes, subject
    /// to the rate limit; returns whether it passed.
    pub(crate) fn report_limited(
        &self,
        limit: &RateLimit,
        event: impl FnOnce() -> ServerEvent,
    ) -> bool {
        let Some(omitted) = limit.allow() else { return false };
        if omitted > 0 {
            tracing::warn!(omitted, "reports were omitted, because there were too many");
            self.report(|| ServerEvent::Omitted { reports: omitted });
        }
        self.report(event);
        true
    }

    pub(crate) fn status(&self) -> Status {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let pid = i32::try_from(get(&self.pid)).ok().filter(|pid| *pid > 0);
        Status {
            attached: get(&self.attached) != 0,
            pid,
            connections: get(&self.connections),
            windows: get(&self.windows),
            window_bytes: get(&self.window_bytes),
            by_message_bytes: get(&self.by_message_bytes),
            files: get(&self.files),
            maps: get(&self.maps),
            unmaps: get(&self.unmaps),
            map_time: Duration::from_nanos(get(&self.map_nanos)),
            drains: get(&self.drains),
            draining: get(&self.draining),
            commands: get(&self.commands),
            refused: get(&self.refused),
            message_bytes: get(&self.message_bytes),
        }
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status().fmt(f)
    }
}
