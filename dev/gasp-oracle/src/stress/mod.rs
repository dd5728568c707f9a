//! Pages that move while a thousand mappings are held, by what pins them.
//!
//! Memory of every class of the engine is allocated among scattered neighbours and mapped
//! a thousand times. Then the kernel is given every cause to move pages that a machine can
//! have: [`Cause`]. After each, the page table is read without the engine and compared with
//! the earlier one.
//!
//! The control group consists of ordinary pages that nothing pins. If none of those moved, it
//! proves nothing that no other page did: such a run is [`Verdict::Inconclusive`], after several
//! rounds.

mod cause;
mod group;
mod report;

use std::time::{Duration, Instant};

use gasp::PinMethod;
use gasp::{Backing, DeviceAddr, Guest, HostMapping, MapFlags, MemoryObject, Residency};

pub use cause::{Cause, Outcome};
pub use report::{Audited, GroupReport, Moved, Report, Verdict};

use crate::neighbours::{Neighbours, meminfo};
use crate::pagemap::{PAGE, Pagemap};
use crate::pool::Grown;
use crate::{Failure, doing};
use group::{CONTROL, Group};

/// The options of a run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// No round begins later than this.
    pub time: Duration,
    /// Allocate more memory than the machine has, so that it swaps: only if nobody else uses it.
    pub pressure: bool,
}

const MIB: u64 = 1 << 20;
/// Bytes of pinned ordinary pages, the ones that are easiest to move: at least 100,000 pages.
const PINNED_LEN: u64 = 404 * MIB;
const OTHERS_LEN: u64 = 32 * MIB;
const HUGE_LEN: u64 = 16 * MIB;
const CONTROL_LEN: u64 = 64 * MIB;
/// The memory that a run needs in all, including 256 MiB for the rest of the machine.
const NEEDED: u64 = PINNED_LEN + 5 * OTHERS_LEN + 2 * HUGE_LEN + CONTROL_LEN + 256 * MIB;
const NEIGHBOURS_MAX: u64 = 1100 * MIB;
/// The number of held mappings, over all pinned memory, and the longest of each in bytes.
const MAPPINGS: u64 = 1000;
const MAPPING_LEN: u64 = 64 << 10;
/// At least two: the second starts from the memory that the first has fragmented.
const ROUNDS_MIN: u32 = 2;
const ROUNDS_MAX: u32 = 5;
/// The number of pages of the control group that should have moved in all rounds: one in a
/// hundred, not counting collapse, which always moves half of them.
const ENOUGH: usize = (CONTROL_LEN / 100) as usize / PAGE;

/// A class of memory: its name (what pins it, and its pages), its backing, its size in bytes, and
/// how it is pinned.
type Class = (&'static str, Backing, u64, &'static [PinMethod]);
const RING: &[PinMethod] = &[PinMethod::IoUring];
const PIPE: &[PinMethod] = &[PinMethod::Pipe];
const NOT: &[PinMethod] = &[];
const CLASSES: [Class; 8] = [
    ("ring 2M", Backing::Huge2M, HUGE_LEN, RING),
    ("nothing 2M", Backing::Huge2M, HUGE_LEN, NOT),
    ("ring thp", Backing::Thp, OTHERS_LEN, RING),
    ("pipe thp", Backing::Thp, OTHERS_LEN, PIPE),
    ("nothing thp", Backing::Thp, OTHERS_LEN, NOT),
    ("ring 4K", Backing::Base, PINNED_LEN, RING),
    ("pipe 4K", Backing::Base, OTHERS_LEN, PIPE),
    ("nothing 4K", Backing::Base, OTHERS_LEN, NOT),
];

/// The memory that must be available for a run, in bytes.
pub fn needed() -> u64 {
    NEEDED
}

/// Carries out a run.
///
/// # Errors
/// There is too little memory, frame numbers are hidden, memory cannot be compacted, or the
/// engine refuses a valid request.
pub fn run(options: &Options) -> Result<Report, Failure> {
    let started = Instant::now();
    let available = meminfo("MemAvailable");
    if available < NEEDED {
        let (have, need) = (available / MIB, NEEDED / MIB);
        return Err(format!("{have} MiB are available, {need} are needed").into());
    }
    let pagemap = Pagemap::open().map_err(doing("pagemap"))?;
    // Without the pool, the groups of its pages are reported as missing.
    let pool = Grown::new(HUGE_PAGE, 2 * HUGE_LEN / HUGE_PAGE).ok();
    let guest = Guest::builder().build()?;
    let mut report = Report::default();
    let neighbours = NEIGHBOURS_MAX.min((available - NEEDED + PINNED_LEN) / 2);
    let mut groups = Vec::new();
    let scattered = allocated(&guest, &pagemap, neighbours, &mut groups, &mut report)?;
    let held = held(&guest, &groups)?;
    report.mappings = held.len();
    if let Some(neighbours) = &scattered {
        neighbours.thin_out()?;
    }
    report.prepared = started.elapsed().as_secs_f64();

    let worth_it = |report: &Report| {
        let causes = Cause::ALL.into_iter().filter(|cause| *cause != Cause::Collapse);
        let moved: usize = causes.map(|cause| report.moved_by(cause, CONTROL)).sum();
        report.rounds < ROUNDS_MIN || (moved < ENOUGH && report.rounds < ROUNDS_MAX)
    };
    while worth_it(&report) && started.elapsed() < options.time {
        let (control, beside) = control(&pagemap, report.rounds)?;
        groups.push(control);
        for cause in Cause::order(report.rounds) {
            let outcome = cause.happen(&groups, options.pressure)?;
            report.happened(outcome);
            for group in &mut groups {
                let moved = group.moved(&pagemap)?;
                report.moved(cause, group.name(), moved);
            }
        }
        if let Some(control) = groups.pop() {
            report.count(&control, 0);
        }
        drop(beside);
        report.rounds += 1;
    }
    for group in &groups {
        report.count(group, group.stale()?);
    }
    report.mappings_stale = stale(&held, &pagemap)?;
    report.audited = audited(&guest)?;
    drop((held, groups, guest, pool, scattered));
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

const HUGE_PAGE: u64 = 2 * MIB;

/// Allocates every class of memory that is available, ordinary pages in holes among neighbours;
/// returns the neighbours.
fn allocated(
    guest: &Guest,
    pagemap: &Pagemap,
    neighbours: u64,
    groups: &mut Vec<Group>,
    report: &mut Report,
) -> Result<Option<Neighbours>, Failure> {
    let mut scattered = None;
    for (name, backing, len, pins) in CLASSES {
        if backing == Backing::Base && scattered.is_none() {
            scattered = Some(Neighbours::with_holes(usize::try_from(neighbours)?, PAGE)?);
        }
        let residency = if pins.is_empty() { Residency::Resident } else { Residency::Pinned };
        let ram = MemoryObject::ram(len).name(name).prefer(core::slice::from_ref(&backing));
        match ram.residency(residency).pin(pins).create() {
            Ok(ram) => groups.push(Group::of_engine(name, guest, ram, pagemap)?),
            Err(error) => report.missing.push(format!("{name}: {error}")),
        }
    }
    Ok(scattered)
}

/// A new control group for each round, because the round before has collapsed its pages.
fn control(pagemap: &Pagemap, round: u32) -> Result<(Group, Neighbours), Failure> {
    let len = usize::try_from(CONTROL_LEN)?;
    // Larger holes in each round: compaction works from both ends of memory towards the middle, and
    // pages allocated from the few free ones of a full machine may lie past its end.
    let room = usize::try_from(meminfo("MemFree") / 2)?;
    let holes = ((2 * len) << (2 * round)).min(room).max(2 * len);
    let scattered = Neighbours::with_holes(holes, PAGE)?;
    let group = Group::control(len, pagemap)?;
    scattered.thin_out()?;
    Ok((group, scattered))
}

/// Maps all pinned memory in a thousand places, spread evenly.
fn held(guest: &Guest, groups: &[Group]) -> Result<Vec<HostMapping>, Failure> {
    let vdev = guest.vdev("holder")?;
    let pinned: Vec<&Group> = groups.iter().filter(|group| group.is_pinned()).collect();
    let total: u64 = pinned.iter().map(|group| group.len()).sum();
    let mut mappings = Vec::new();
    for group in pinned {
        let share = MAPPINGS * group.len() / total + 1;
        for nth in 0..share {
            let at = group.len() / share * nth;
            let addr = DeviceAddr(group.start().0 + at);
            let max = MAPPING_LEN.min(group.len() - at);
            mappings.push(vdev.map_host_contig(addr, max, MapFlags::RW)?);
        }
    }
    Ok(mappings)
}

/// The result of the engine's own audit.
fn audited(guest: &Guest) -> Result<Audited, Failure> {
    let audit = guest.audit()?;
    let page = PAGE as u64;
    Ok(Audited {
        pages: audit.checked / page,
        changed: audit.changes.iter().map(|change| change.len / page).sum(),
        broken: audit.broken().map(|change| change.len / page).sum(),
    })
}

/// The number of mappings with a page that is not at the address that the mapping reports.
fn stale(held: &[HostMapping], pagemap: &Pagemap) -> Result<usize, Failure> {
    let mut stale = 0;
    for mapping in held {
        let addr = mapping.run().addr.0;
        let skew = mapping.as_ptr().addr() % PAGE;
        // The pages of the range, which need not begin at a page boundary.
        for at in (0..mapping.len()).step_by(PAGE) {
            mapping.read_at(at, &mut [0])?;
        }
        let first = mapping.as_ptr().wrapping_sub(skew);
        let now = pagemap.addresses(first, mapping.len() + skew)?;
        let reported = (0..).map(|index| addr - skew as u64 + index * PAGE as u64);
        stale += usize::from(now.into_iter().zip(reported).any(|(now, reported)| now != reported));
    }
    Ok(stale)
}
