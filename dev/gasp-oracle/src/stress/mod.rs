//! Pages that move while a thousand mappings are held, by what holds them.
//!
//! Memory of every class that the engine knows is made among scattered neighbours, mapped
//! a thousand times, and then the kernel is given every reason to move pages that a
//! machine can have: [`Cause`]. After each, the page table is read without the engine's
//! help and compared with what was there before.
//!
//! Beside it lies a control group: ordinary pages that nothing holds. Where none of those
//! moved, that nothing else did says nothing: such a run is [`Verdict::Inconclusive`], and
//! is tried again a few times before.

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

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// No round begins behind this.
    pub time: Duration,
    /// Take more memory than the machine has, so that it swaps: only where nobody else is
    /// on it.
    pub pressure: bool,
}

const MIB: u64 = 1 << 20;
/// At least 100,000 pages, in ordinary pages: the ones that are easiest to move.
const PINNED: u64 = 404 * MIB;
const OTHERS: u64 = 32 * MIB;
const HUGE: u64 = 16 * MIB;
const CONTROL_LEN: u64 = 64 * MIB;
/// What is needed beside [`PINNED`], and what is left for the rest of the machine.
const NEEDED: u64 = PINNED + 5 * OTHERS + 2 * HUGE + CONTROL_LEN + 256 * MIB;
const NEIGHBOURS_MAX: u64 = 1100 * MIB;
/// How many mappings are held, over all pinned memory, and how long each may be.
const MAPPINGS: u64 = 1000;
const MAPPING_LEN: u64 = 64 << 10;
/// Two at least: what the first leaves behind is what the second works on.
const ROUNDS_MIN: u32 = 2;
const ROUNDS_MAX: u32 = 5;
/// How many pages of the control group should have moved in all rounds: one in a hundred,
/// without those that were gathered, which are half of them in any case.
const ENOUGH: usize = (CONTROL_LEN / 100) as usize / PAGE;

/// A class of memory: its name, which says what holds it and what it is made of, its
/// backing, its size, and how it is to be held.
type Class = (&'static str, Backing, u64, &'static [PinMethod]);
const RING: &[PinMethod] = &[PinMethod::IoUring];
const PIPE: &[PinMethod] = &[PinMethod::Pipe];
const NOT: &[PinMethod] = &[];
const CLASSES: [Class; 8] = [
    ("ring 2M", Backing::Huge2M, HUGE, RING),
    ("nothing 2M", Backing::Huge2M, HUGE, NOT),
    ("ring thp", Backing::Thp, OTHERS, RING),
    ("pipe thp", Backing::Thp, OTHERS, PIPE),
    ("nothing thp", Backing::Thp, OTHERS, NOT),
    ("ring 4K", Backing::Base, PINNED, RING),
    ("pipe 4K", Backing::Base, OTHERS, PIPE),
    ("nothing 4K", Backing::Base, OTHERS, NOT),
];

/// How much memory must be available for a run, in bytes.
pub fn needed() -> u64 {
    NEEDED
}

/// Makes a run.
///
/// # Errors
/// There is too little memory, frame numbers are not told, memory cannot be compacted, or
/// the engine refuses what it should not.
pub fn run(options: &Options) -> Result<Report, Failure> {
    let started = Instant::now();
    let available = meminfo("MemAvailable");
    if available < NEEDED {
        let (have, need) = (available / MIB, NEEDED / MIB);
        return Err(format!("{have} MiB are available, {need} are needed").into());
    }
    let pagemap = Pagemap::open().map_err(doing("pagemap"))?;
    // Without the pool, the groups of its pages are missing, and the report says so.
    let pool = Grown::new(HUGE_PAGE, 2 * HUGE / HUGE_PAGE).ok();
    let guest = Guest::builder().build()?;
    let mut report = Report::default();
    let neighbours = NEIGHBOURS_MAX.min((available - NEEDED + PINNED) / 2);
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

/// Every class of memory that is to be had; ordinary pages in the holes among neighbours,
/// which are given back.
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

/// A new control group in each round, because the round before has gathered its pages.
fn control(pagemap: &Pagemap, round: u32) -> Result<(Group, Neighbours), Failure> {
    let len = usize::try_from(CONTROL_LEN)?;
    // More room in each round: compaction works from both ends of memory towards the middle,
    // and what comes out of the few free pages of a full machine may lie behind that.
    let room = usize::try_from(meminfo("MemFree") / 2)?;
    let holes = ((2 * len) << (2 * round)).min(room).max(2 * len);
    let scattered = Neighbours::with_holes(holes, PAGE)?;
    let group = Group::control(len, pagemap)?;
    scattered.thin_out()?;
    Ok((group, scattered))
}

/// A thousand mappings, evenly over all pinned memory.
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

/// What the engine itself finds when it looks again.
fn audited(guest: &Guest) -> Result<Audited, Failure> {
    let audit = guest.audit()?;
    let page = PAGE as u64;
    Ok(Audited {
        pages: audit.checked / page,
        changed: audit.changes.iter().map(|change| change.len / page).sum(),
        broken: audit.broken().map(|change| change.len / page).sum(),
    })
}

/// How many mappings have a page that is not where the mapping says.
fn stale(held: &[HostMapping], pagemap: &Pagemap) -> Result<usize, Failure> {
    let mut stale = 0;
    for mapping in held {
        let addr = mapping.run().addr.0;
        let skew = mapping.as_ptr().addr() % PAGE;
        // The pages of the range, whose beginning need not be a page's.
        for at in (0..mapping.len()).step_by(PAGE) {
            mapping.read_at(at, &mut [0])?;
        }
        let first = mapping.as_ptr().wrapping_sub(skew);
        let now = pagemap.addresses(first, mapping.len() + skew)?;
        let told = (0..).map(|index| addr - skew as u64 + index * PAGE as u64);
        stale += usize::from(now.into_iter().zip(told).any(|(now, told)| now != told));
    }
    Ok(stale)
}
