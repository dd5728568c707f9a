//! What a person or a log wants to know of a server.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use gasp::Errno;

use crate::seldom::Seldom;

/// Something that has happened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Happened {
    /// A VMM is there; its process, if that can be told.
    Attached {
        /// The process's number, as this process sees it.
        pid: Option<i32>,
    },
    /// The VMM is gone, or was sent away.
    Detached {
        /// In words.
        why: &'static str,
    },
    /// Memory was given to the device.
    Mapped {
        /// The device address.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// Whether the device may write it.
        writable: bool,
        /// Whether it can be mapped, or is reached by messages.
        mapped: bool,
    },
    /// Memory was taken back, and no mapping of it is left.
    Unmapped {
        /// The device address.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// How long the device held on to it.
        waited: Duration,
        /// How many mappings are held beyond the deadline.
        detached: usize,
    },
    /// A memory file of the guest was mapped: it is one that no window showed before.
    Adopted {
        /// How many bytes.
        len: u64,
    },
    /// A memory file was unmapped and closed: no window shows it any longer.
    Released {
        /// How many bytes.
        len: u64,
    },
    /// A memory file can be cut off by its owner, and cannot be sealed against that: it is
    /// reached by messages, which is slow. Told once for each VMM; see
    /// [`Unsealed`](crate::Unsealed).
    ByMessage,
    /// The guest does not write to a memory file that its VMM handed over (QEMU:
    /// `share=off`).
    NotShared {
        /// The bytes of the file, or of all files.
        len: u64,
        /// Whether the VMM's own mappings show it (told once for each VMM): the memory is then reached by messages, or
        /// refused. If not, the device was started two seconds ago, and the files are still
        /// empty: it waits for commands that never come.
        seen: bool,
    },
    /// The device was reset.
    Reset,
    /// A command was answered with an error.
    Refused {
        /// The name of the command.
        command: &'static str,
        /// The error number.
        errno: Errno,
        /// In words.
        why: String,
    },
    /// A client was sent away: its first message was not acceptable or did not come, or the
    /// process has no descriptor left.
    TurnedAway {
        /// In words.
        why: &'static str,
    },
    /// A client was sent away because the device is in use: its VERSION was answered with
    /// `EBUSY`.
    InUse {
        /// The process that came.
        pid: Option<i32>,
        /// The process that is served.
        by: Option<i32>,
        /// For how long it has been.
        since: Duration,
    },
    /// Reports that were left out, because there were too many: of each sort that a client can
    /// cause as often as it likes (errors; connections; files that come and go, and resets),
    /// one a second is made past a hundred.
    Omitted {
        /// How many.
        reports: u64,
    },
}

/// Numbers of one server, since it was made; those that say so, of the VMM that is
/// attached now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// Whether a VMM is attached.
    pub attached: bool,
    /// Its process.
    pub pid: Option<i32>,
    /// How many VMMs there have been.
    pub connections: u64,
    /// Windows of memory that the VMM has given, now.
    pub windows: u64,
    /// Bytes in them, now.
    pub window_bytes: u64,
    /// Bytes in those of them that are reached by messages instead of maps, now.
    pub by_message_bytes: u64,
    /// Files behind them, now.
    pub files: u64,
    /// Memory maps carried out.
    pub maps: u64,
    /// Memory unmaps carried out.
    pub unmaps: u64,
    /// Time spent on maps in the server, those refused included: from the first byte read
    /// until there is an answer to send.
    pub map_time: Duration,
    /// Unmaps that had to wait for the device.
    pub drains: u64,
    /// Unmaps that wait now.
    pub draining: u64,
    /// Commands taken.
    pub commands: u64,
    /// Commands refused.
    pub refused: u64,
    /// Bytes copied by message.
    pub message_bytes: u64,
}

/// What is told of everything that happens; see [`Server::observe`](crate::Server::observe).
pub(crate) type Observer = Box<dyn Fn(&Happened) + Send + Sync>;

/// The numbers, as the threads count them.
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
    /// Reports of refused commands; of clients that are sent away; of what else a client can cause as often as it likes.
    pub(crate) refusals: Seldom,
    pub(crate) strangers: Seldom,
    pub(crate) routine: Seldom,
    /// Lines in the log about clients that are served. Their events are always told.
    pub(crate) visits: Seldom,
}

impl Counters {
    /// Counts one more. The numbers are independent of each other and of everything else.
    pub(crate) fn count(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn set(counter: &AtomicU64, value: u64) {
        counter.store(value, Ordering::Relaxed);
    }

    /// Tells the observer, if there is one; what happened is only put together then.
    pub(crate) fn tell(&self, happened: impl FnOnce() -> Happened) {
        if let Some(observer) = self.observer.get() {
            observer(&happened());
        }
    }

    /// Tells the observer what a peer may cause as often as it likes, if it has not been told
    /// too often; whether it has been told now.
    pub(crate) fn tell_seldom(&self, seldom: &Seldom, happened: impl FnOnce() -> Happened) -> bool {
        let Some(omitted) = seldom.allow() else { return false };
        if omitted > 0 {
            tracing::warn!(omitted, "reports were left out, because there were too many");
            self.tell(|| Happened::Omitted { reports: omitted });
        }
        self.tell(happened);
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
