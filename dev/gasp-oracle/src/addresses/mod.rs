//! A foreign DMA engine reads and writes at the addresses that maps returned.
//!
//! Guest memory of one backing is mapped host-contiguously, run by run, and all of these
//! mappings are held. At the beginning, the middle and the end of runs, a device is told
//! the returned address plus the offset, and nothing else:
//!
//! ```text
//!  mapping of point i    write a pattern that is nowhere else
//!  device                read at host address of point i     ─► its buffer
//!  mappings              clear all points
//!  device                write its buffer at host address of point i + 1
//!  mapping of point i+1  must hold the pattern of point i
//! ```
//!
//! So a wrong address is seen whether it was read from or written to. That it is seen is
//! checked, too: the same with an address of another page must not find the pattern.

mod exchange;
mod runs;

use std::time::Instant;

use gasp::{Backing, DeviceAddr, Guest, GuestPhys, HostMapping, MapFlags, MemoryObject};
use serde::{Deserialize, Serialize};

use crate::edu::Edu;
use crate::mapped::HUGE;
use crate::neighbours::Neighbours;
use crate::pagemap::PAGE;
use crate::pool::Grown;
use crate::{Failure, doing};
use exchange::{Point, Wrong};

/// How much guest memory of each backing: enough for many runs, little enough that all of
/// it is below any limit of the device.
const RAM: u64 = 32 << 20;
/// How much of ordinary pages, where nearly each is a run of its own and each is checked.
const RAM_SMALL: u64 = 1 << 20;
/// Where it is for the virtual device. Not 0, so that no offset passes for an address.
const START: u64 = 1 << 30;
/// How many runs of a backing are checked: all, as there are no more.
const RUNS_MAX: usize = (RAM_SMALL / PAGE as u64) as usize;

/// What a foreign device saw.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// How many devices copied at the same time.
    pub devices: usize,
    /// The backings, in the order in which they were checked.
    pub backings: Vec<Checked>,
}

/// What a foreign device saw of one backing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Checked {
    /// Its name in configuration files.
    pub backing: String,
    /// Why there is nothing to check.
    pub missing: Option<String>,
    /// The engine's remark about it, such as how many huge pages it holds.
    pub note: String,
    /// What the engine says about its addresses.
    pub stability: String,
    /// How many runs there are.
    pub runs: usize,
    /// The shortest and the longest of them, in bytes.
    pub lengths: (u64, u64),
    /// How many of them were checked.
    pub runs_checked: usize,
    /// At how many places.
    pub points: usize,
    /// Places that were not what the device was told they were.
    pub mismatches: Vec<String>,
    /// How many wrong addresses the device was told on purpose, to read and to write at.
    pub wrong: usize,
    /// How many of those were seen to be wrong.
    pub wrong_seen: usize,
    /// How long all of it took.
    pub milliseconds: u64,
}

/// Checks every backing that a machine can have without preparation at boot.
///
/// # Errors
/// There is no device, or it does not work; the engine refuses what it should not.
pub fn check() -> Result<Report, Failure> {
    let devices = Edu::all()?;
    if devices.len() < 2 {
        return Err(format!("{} edu devices: two or more are needed", devices.len()).into());
    }
    let page = HUGE as u64;
    let pool = Grown::new(page, RAM / page).map_err(doing("the pool of 2 MiB pages"))?;
    let mut backings = vec![checked(Backing::Huge2M, RAM, &devices)?];
    drop(pool);
    // More than twice as much as is needed, so that half of it in holes is enough.
    for (backing, len, page) in [(Backing::Thp, RAM, HUGE), (Backing::Base, RAM_SMALL, PAGE)] {
        let neighbours = Neighbours::with_holes(4 * RAM as usize, page)?;
        backings.push(checked(backing, len, &devices)?);
        drop(neighbours);
    }
    Ok(Report { devices: devices.len(), backings })
}

fn checked(backing: Backing, len: u64, devices: &[Edu]) -> Result<Checked, Failure> {
    let started = Instant::now();
    let mut checked = Checked { backing: backing.name().into(), ..Checked::default() };
    let ram = match MemoryObject::ram(len).prefer(&[backing]).create() {
        Ok(ram) => ram,
        Err(error) => {
            checked.missing = Some(error.to_string());
            return Ok(checked);
        }
    };
    checked.note = ram.backing().note.clone().unwrap_or_default();
    checked.stability = ram.stability().to_string();
    let guest = Guest::builder().build()?;
    let mappings = mappings(&guest, &ram)?;
    let lengths: Vec<u64> = mappings.iter().map(|mapping| mapping.len() as u64).collect();
    let chosen = runs::chosen(&lengths, RUNS_MAX);
    let points = points(&mappings, &chosen)?;
    let extreme = |pick: fn(_) -> Option<u64>| pick(lengths.iter().copied()).unwrap_or(0);
    checked.runs = lengths.len();
    checked.lengths = (extreme(Iterator::min), extreme(Iterator::max));
    checked.runs_checked = chosen.len();
    checked.points = points.len();
    for batch in points.chunks(devices.len()) {
        checked.mismatches.extend(exchange::exchange(devices, batch, Wrong::Nothing)?);
    }
    let strangers = exchange::on_different_pages(&points, devices.len());
    for wrong in [Wrong::Source, Wrong::Destination] {
        checked.wrong += strangers.len();
        checked.wrong_seen += exchange::exchange(devices, &strangers, wrong)?.len();
    }
    checked.milliseconds = u64::try_from(started.elapsed().as_millis())?;
    Ok(checked)
}

/// All of it, in mappings of one run each, as a device program would make them.
fn mappings(guest: &Guest, ram: &MemoryObject) -> Result<Vec<HostMapping>, Failure> {
    guest.space().add_ram(Some(GuestPhys(START)), ram)?;
    let vdev = guest.vdev("disk")?;
    let (mut at, end) = (START, START + ram.len());
    let mut mappings = Vec::new();
    while at < end {
        let mapping = vdev.map_host_contig(DeviceAddr(at), end - at, MapFlags::RW)?;
        at += mapping.run().len;
        mappings.push(mapping);
    }
    Ok(mappings)
}

/// The beginning, the middle and the end of each chosen run. The middle of a run of several
/// pages lies across the border of two, which only a real run survives.
fn points<'a>(mappings: &'a [HostMapping], chosen: &[usize]) -> Result<Vec<Point<'a>>, Failure> {
    let mut points = Vec::new();
    for mapping in chosen.iter().filter_map(|&index| mappings.get(index)) {
        let last = mapping.len().saturating_sub(exchange::PIECE);
        let middle = (mapping.len() / 2).saturating_sub(exchange::PIECE / 2);
        for offset in [0, middle, last] {
            points.push(Point::new(mapping, offset, points.len() as u64)?);
        }
    }
    Ok(points)
}
