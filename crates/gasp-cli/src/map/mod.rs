//! `gasp map`: one map for a device of a configured guest.

mod hold;
mod report;

use gasp::{DeviceAddr, Errno, Guest, MapFlags, Mapping, Vdev};

use crate::cli::Map;
use crate::configured;
use crate::failure::Failure;
use crate::output::{self, Page};
use crate::quantity::{address, count, length};
use crate::signal::Until;
use hold::Held;
use report::Report;

/// How many runs are shown to a person who did not ask for all.
const RUNS_SHOWN: usize = 40;

/// Maps, tells what came of it, and holds the mapping for as long as it was asked to.
pub(crate) fn run(args: &Map) -> Result<(), Failure> {
    let guest = configured::guest(&args.config)?;
    let vdev = find(&guest, &args.vdev)?;
    let flags = flags(args)?;
    // From here on a signal ends the wait, and the mapping is given back properly.
    let until = args.hold.map(Until::new).transpose()?;
    let addr = DeviceAddr(args.addr);
    let scatter = vdev.map_scatter(addr, args.len, flags)?;
    let first = first_run(&vdev, addr, args.len, flags)?;

    if until.is_some() {
        let held = Held::of(&scatter, first.as_ref());
        match args.json {
            true => output::json_line(&held)?,
            false => {
                let mut page = Page::stdout();
                page.line(&held.to_string())?;
                page.flush()?;
            }
        }
    }
    let report = Report::of(&vdev, &scatter, first.as_ref());
    match args.json {
        true if until.is_some() => output::json_line(&report)?,
        true => output::json(&report)?,
        false => show(&report, args.all)?,
    }
    if let Some(until) = until {
        until.wait();
    }
    Ok(())
}

fn find(guest: &Guest, name: &str) -> Result<Vdev, Failure> {
    guest.find_vdev(name).ok_or_else(|| {
        let names: Vec<String> = guest.vdevs().iter().map(|vdev| vdev.name().into()).collect();
        let has = match names.as_slice() {
            [] => "its configuration has no `[[vdev]]`".into(),
            names => format!("it has {}", names.join(", ")),
        };
        Failure::Usage(format!("the guest `{}` has no device `{name}`: {has}", guest.name()))
    })
}

fn flags(args: &Map) -> Result<MapFlags, Failure> {
    let flags = MapFlags::new(args.access).map_err(|why| Failure::Usage(why.to_string()))?;
    Ok(if args.any { flags.any() } else { flags })
}

/// The host-contiguous mapping at `addr`; `None` where the machine keeps addresses to
/// itself.
fn first_run(
    vdev: &Vdev,
    addr: DeviceAddr,
    len: u64,
    flags: MapFlags,
) -> Result<Option<Mapping>, Failure> {
    match vdev.map_host_contig(addr, len, flags) {
        Ok(mapping) => Ok(Some(mapping)),
        Err(error) if error.errno() == Errno::PERM => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn show(report: &Report, all: bool) -> Result<(), Failure> {
    let mut page = Page::stdout();
    page.heading(&format!(
        "{} maps {} at {:#x}, {}",
        report.vdev,
        length(report.len),
        report.addr,
        report.access
    ))?;
    let first = match &report.first {
        Some(first) => format!("{:#x}, {}", first.host, length(first.len)),
        None => format!("not told: {}", report.host_unknown.unwrap_or("no reason is known")),
    };
    page.pairs(&[
        ("first host-contiguous run", first),
        ("stability", report.stability.into()),
        ("runs", count(report.runs.len())),
    ])?;
    page.line("")?;
    let shown = if all { usize::MAX } else { RUNS_SHOWN };
    let rows = report.runs.iter().take(shown).map(|run| {
        [
            address(run.device),
            run.guest.map_or_else(|| "unknown".into(), address),
            run.host.map_or_else(|| "not told".into(), address),
            length(run.len),
        ]
    });
    page.table(&["device", "guest-physical", "host-physical", "length"], &[], rows)?;
    let hidden = report.runs.len().saturating_sub(shown);
    if hidden > 0 {
        page.note(&format!("and {} runs more; --all shows every one", count(hidden)))?;
    }
    Ok(page.flush()?)
}
