//! Causes for the kernel to move pages.

use std::fmt;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, MemfdFlags};
use serde::{Deserialize, Serialize};

use super::group::Group;
use crate::mapped::Disturbance;
use crate::neighbours::{Neighbours, meminfo};
use crate::pool::Grown;
use crate::{Failure, doing};

const COMPACT: &str = "/proc/sys/vm/compact_memory";
const MIB: u64 = 1 << 20;
/// Under pressure, the bytes allocated beyond the available memory, limited by half of the swap.
const EXCESS: u64 = 160 * MIB;
/// The most passes of compaction, and their time limit.
const PASSES_MAX: u32 = 40;
const COMPACTING: Duration = Duration::from_secs(2);
/// The time limit for requests of huge pages.
const GROWING: Duration = Duration::from_secs(3);
const FILE: u64 = 64 * MIB;

/// A cause for the kernel to move pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Cause {
    /// All memory is compacted.
    Compaction,
    /// A pool of 2 MiB pages grows.
    HugePages,
    /// Pages of 1 GiB are requested.
    GigaPage,
    /// Pages of a file, among the others, are written and reclaimed.
    FileReclaim,
    /// The kernel is advised to swap out all groups, and then more memory is allocated than is
    /// available: only that makes it reuse the frames.
    Swap,
    /// The kernel is advised to collapse all groups into huge pages.
    Collapse,
}

impl Cause {
    /// All causes.
    pub const ALL: [Self; 6] = [
        Self::Compaction,
        Self::HugePages,
        Self::GigaPage,
        Self::FileReclaim,
        Self::Swap,
        Self::Collapse,
    ];

    /// The order of a round: collapse comes last, because it removes the single pages that the
    /// others move. In every other round huge pages are requested first, before compaction has
    /// made any.
    pub(super) fn order(round: u32) -> [Self; 6] {
        let mut order = Self::ALL;
        if round.is_multiple_of(2) {
            order.swap(0, 1);
        }
        order
    }

    /// Applies the cause; returns its outcome.
    pub(super) fn happen(self, groups: &[Group], pressure: bool) -> Result<Outcome, Failure> {
        let started = Instant::now();
        let words = match self {
            Self::Compaction => compact()?,
            // Most of the free memory: more than is free in huge pages.
            Self::HugePages => grow(2 * MIB, (meminfo("MemFree") * 11 / 32 / MIB).min(256)),
            // The first ones may be free already; for the next, pages have to be moved.
            Self::GigaPage => grow(1 << 30, (meminfo("MemAvailable") >> 32).clamp(1, 4)),
            Self::FileReclaim => file_reclaim()?,
            Self::Swap if meminfo("SwapTotal") == 0 => Err("there is no swap".into()),
            Self::Swap if !pressure => Err("others use this machine".into()),
            Self::Swap => Ok(swap(groups)?),
            Self::Collapse => Ok(all(groups, Disturbance::Collapse)),
        };
        let (done, words) = match words {
            Ok(words) => (true, words),
            Err(why) => (false, format!("not done: {why}")),
        };
        Ok(Outcome { cause: self, done, words, seconds: started.elapsed().as_secs_f64() })
    }
}

/// The outcome of a cause.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The cause.
    pub cause: Cause,
    /// Whether this machine allowed it at all.
    pub done: bool,
    /// A description of the result, or why it was not done.
    pub words: String,
    /// The duration, in seconds.
    pub seconds: f64,
}

/// A description of the result, or why it was not done.
type Words = Result<String, String>;

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Compaction => "compaction",
            Self::HugePages => "2M pool grows",
            Self::GigaPage => "1G pages requested",
            Self::FileReclaim => "files reclaimed",
            Self::Swap => "swapped",
            Self::Collapse => "collapsed",
        })
    }
}

/// Compacts memory repeatedly: on a machine with much memory, one pass ends when it has moved the
/// first few thousand pages.
fn compact() -> Result<Words, Failure> {
    let started = Instant::now();
    let mut passes = 0;
    while passes < PASSES_MAX && started.elapsed() < COMPACTING {
        fs::write(COMPACT, "1").map_err(doing(COMPACT))?;
        passes += 1;
    }
    Ok(Ok(format!("{passes} passes")))
}

/// Requests huge pages, one at a time, and releases them, within a time limit: a kernel that has
/// to move pages for them takes long.
fn grow(page: u64, wanted: u64) -> Words {
    let started = Instant::now();
    let mut grown = Vec::new();
    let added = |grown: &[Grown]| grown.iter().map(Grown::added).sum::<u64>();
    while added(&grown) < wanted && started.elapsed() < GROWING {
        let more = Grown::new(page, 1).map_err(|error| error.to_string())?;
        if more.added() == 0 {
            break;
        }
        grown.push(more);
    }
    Ok(format!("{} of {wanted} pages allocated", added(&grown)))
}

fn all(groups: &[Group], how: Disturbance) -> String {
    let refused = groups.iter().filter(|group| group.disturb(how).is_err());
    let refused: Vec<&str> = refused.map(Group::name).collect();
    match refused.is_empty() {
        true => "of all groups".into(),
        false => format!("refused, at least in part, for {}", refused.join(", ")),
    }
}

/// Fills the page cache with a file and drops it again, so that pages among the others are
/// allocated and freed. The file has no name, and is deleted when its descriptor is closed.
fn file_reclaim() -> Result<Words, Failure> {
    let folder = std::env::temp_dir();
    let (flags, mode) = (rustix::fs::OFlags::TMPFILE, rustix::fs::Mode::RUSR);
    let open = || rustix::fs::open(&folder, flags | rustix::fs::OFlags::RDWR, mode);
    // Without a disk, a file in memory does as well.
    let file = open().or_else(|_| rustix::fs::memfd_create("neighbour", MemfdFlags::CLOEXEC))?;
    let mut file = fs::File::from(file);
    let piece = vec![1; 1 << 20];
    for _ in 0..FILE / MIB {
        file.write_all(&piece).map_err(doing("a file among the others"))?;
    }
    file.sync_data().map_err(doing("a file among the others"))?;
    let cached = meminfo("Cached");
    rustix::fs::fadvise(file.as_fd(), 0, None, Advice::DontNeed)?;
    drop(file);
    let freed = cached.saturating_sub(meminfo("Cached"));
    Ok(Ok(format!("{} MiB of {} MiB reclaimed", freed.min(FILE) / MIB, FILE / MIB)))
}

fn swap(groups: &[Group]) -> Result<String, Failure> {
    let free = meminfo("SwapFree");
    let asked = all(groups, Disturbance::PageOut);
    let excess = EXCESS.min(meminfo("SwapFree") / 2);
    let len = meminfo("MemAvailable") + excess;
    let hog = Neighbours::taken(usize::try_from(len)?).map_err(doing("allocating memory"))?;
    let swapped = free.saturating_sub(meminfo("SwapFree"));
    drop(hog);
    Ok(format!("{} MiB allocated, {} MiB swapped; {asked}", len / MIB, swapped / MIB))
}
