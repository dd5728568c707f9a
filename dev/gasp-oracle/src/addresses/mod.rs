//! A foreign DMA engine reads and writes at the addresses that maps have returned.
//!
//! Guest memory of one backing is mapped host-contiguously, run by run, and all of these
//! mappings are held. At the beginning, the middle and the end of runs, a device is passed
//! the returned address plus the offset, and nothing else:
//!
//! ```text
//!  mapping of point i    write a unique pattern
//!  device                read at host address of point i     ─► its buffer
//!  mappings              clear all points
//!  device                write its buffer at host address of point i + 1
//!  mapping of point i+1  must hold the pattern of point i
//! ```
//!
//! So a wrong address is detected whether it is read from or written to. That is checked as
//! well: with an address of another page, the pattern must not arrive.

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

/// Bytes of guest memory of each backing: enough for many runs, and few enough to lie below any
/// address limit of the device.
const RAM: u64 = 32 << 20;
/// Bytes of ordinary pages: nearly each is a run of its own, and each is checked.
const RAM_SMALL: u64 = 1 << 20;
/// Its device address. Not 0, so that an offset is not mistaken for an address.
const START: u64 = 1 << 30;
/// The most runs of a backing that are checked: all of them, as there are no more.
const RUNS_MAX: usize = (RAM_SMALL / PAGE as u64) as usize;

/// The results of the check.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The number of devices that copied at the same time.
    pub devices: usize,
    /// The backings, in the order in which they were checked.
    pub backings: Vec<Checked>,
}

/// The results for one backing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Checked {
    /// The backing's name in configuration files.
    pub backing: String,
    /// Why there is no such memory to check.
    pub missing: Option<String>,
    /// The engine's remark about it, such as how many huge pages it holds.
    pub note: String,
    /// The engine's class of its addresses.
    pub stability: String,
    /// The number of runs.
    pub runs: usize,
    /// The lengths of the shortest and the longest run, in bytes.
    pub lengths: (u64, u64),
    /// The number of runs checked.
    pub runs_checked: usize,
    /// The number of points checked.
    pub points: usize,
    /// Copies that did not arrive: source and destination address.
    pub mismatches: Vec<String>,
    /// The number of deliberately wrong addresses, for reads and writes.
    pub wrong: usize,
    /// The number of those that were detected.
    pub wrong_seen: usize,
    /// The duration of the check, in milliseconds.
    pub milliseconds: u64,
}

/// Checks every backing that a machine can have without preparation at boot.
///
/// # Errors
/// There are fewer than two devices, or one does not work; the engine refuses a valid request.
pub fn check() -> Result<Report, Failure> {
    let devices = Edu::all()?;
    if devices.len() < 2 {
        return Err(format!("{} edu devices: two or more are needed", devices.len()).into());
    }
    let page = HUGE as u64;
    let pool = Grown::new(page, RAM / page).map_err(doing("the pool of 2 MiB pages"))?;
    let mut backings = vec![checked(Backing::Huge2M, RAM, &devices)?];
    drop(pool);
    // More than twice as much as is needed, so that the half in holes is enough.
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

/// Maps all of it, one run at a time, as a device's program does.
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
/// pages lies across a page boundary, where a copy arrives only if they are consecutive.
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
