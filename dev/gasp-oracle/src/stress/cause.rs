//! What makes the kernel move pages.

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
/// Under pressure, how much more is taken than there is, as far as swap holds it.
const EXCESS: u64 = 160 * MIB;
/// How often and for how long memory is compacted.
const PASSES_MAX: u32 = 40;
const COMPACTING: Duration = Duration::from_secs(2);
/// How long huge pages are asked for.
const GROWING: Duration = Duration::from_secs(3);
const FILE: u64 = 64 * MIB;

/// A reason for the kernel to move pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Cause {
    /// All memory is compacted.
    Compaction,
    /// A pool of 2 MiB pages grows.
    HugePages,
    /// Pages of 1 GiB are asked for.
    GigaPage,
    /// A file's pages among the others are written and reclaimed.
    FileReclaim,
    /// All groups are asked to be taken out of memory, to swap, and then more memory is
    /// taken than there is: only this makes the kernel use the frames for something else.
    Swap,
    /// All groups are asked to be gathered into huge pages.
    Collapse,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Compaction,
        Self::HugePages,
        Self::GigaPage,
        Self::FileReclaim,
        Self::Swap,
        Self::Collapse,
    ];

    /// The order of a round: gathering comes last, because it takes away the single pages
    /// that the others move. In every other round huge pages are asked for first, while
    /// there are none that compaction has made.
    pub(super) fn order(round: u32) -> [Self; 6] {
        let mut order = Self::ALL;
        if round.is_multiple_of(2) {
            order.swap(0, 1);
        }
        order
    }

    /// Lets it happen; what came of it.
    pub(super) fn happen(self, groups: &[Group], pressure: bool) -> Result<Outcome, Failure> {
        let started = Instant::now();
        let words = match self {
            Self::Compaction => compact()?,
            // Most of what is free: more than there is in one piece.
            Self::HugePages => grow(2 * MIB, (meminfo("MemFree") * 11 / 32 / MIB).min(256)),
            // The first ones may be free already; room for the next has to be made.
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

/// What came of a cause.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Which.
    pub cause: Cause,
    /// Whether this machine let it happen at all.
    pub done: bool,
    /// How it went, or why it was not done.
    pub words: String,
    /// How long it took.
    pub seconds: f64,
}

/// In words, how something was done or why it was not.
type Words = Result<String, String>;

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Compaction => "compaction",
            Self::HugePages => "2M pool grows",
            Self::GigaPage => "1G pages asked for",
            Self::FileReclaim => "files reclaimed",
            Self::Swap => "swapped",
            Self::Collapse => "collapsed",
        })
    }
}

/// Compacts, again and again for a while: on a machine of much memory, one pass ends when it
/// has moved the first few thousand pages.
fn compact() -> Result<Words, Failure> {
    let started = Instant::now();
    let mut passes = 0;
    while passes < PASSES_MAX && started.elapsed() < COMPACTING {
        fs::write(COMPACT, "1").map_err(doing(COMPACT))?;
        passes += 1;
    }
    Ok(Ok(format!("{passes} passes")))
}

/// Asks for huge pages, one at a time, and gives them back. A kernel that has to make room
/// for them takes long, so that is for a limited time.
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
    Ok(format!("{} of {wanted} pages were had", added(&grown)))
}

fn all(groups: &[Group], how: Disturbance) -> String {
    let refused = groups.iter().filter(|group| group.disturb(how).is_err());
    let refused: Vec<&str> = refused.map(Group::name).collect();
    match refused.is_empty() {
        true => "of all groups".into(),
        false => format!("refused, at least in part, for {}", refused.join(", ")),
    }
}

/// Fills the cache with a file and drops that again, so that pages between the others come
/// and go. The file has no name and is gone with its descriptor.
fn file_reclaim() -> Result<Words, Failure> {
    let folder = std::env::temp_dir();
    let (flags, mode) = (rustix::fs::OFlags::TMPFILE, rustix::fs::Mode::RUSR);
    let open = || rustix::fs::open(&folder, flags | rustix::fs::OFlags::RDWR, mode);
    // Where there is no disk, a file in memory comes and goes as well.
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
    let hog = Neighbours::taken(usize::try_from(len)?).map_err(doing("taking memory"))?;
    let swapped = free.saturating_sub(meminfo("SwapFree"));
    drop(hog);
    Ok(format!("{} MiB taken, {} MiB swapped; {asked}", len / MIB, swapped / MIB))
}
