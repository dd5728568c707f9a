//! `gasp map`: one map for a device of a configured guest.

mod hold;
mod report;

use std::time::Duration;

use gasp::config::Config;
use gasp::ffi::hint;
use gasp::{Access, DeviceAddr, Errno, HostMapping, MapFlags, Vdev};
use std::path::PathBuf;

use crate::configured;
use crate::failure::Failure;
use crate::output::{self, Printer};
use crate::progress::{Progress, release};
use crate::quantity::{
    address, count, length, parse_access, parse_address, parse_seconds, parse_some_length, several,
};
use crate::signal::Until;
use hold::Held;
use report::Report;

/// How many runs the text output lists without --all.
const RUNS_SHOWN: usize = 40;

/// Arguments of `gasp map`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration of the guest, in TOML or (*.qvmconf, or @FILE) in the language of qvm
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Device that maps
    #[arg(long, value_name = "NAME")]
    pub(crate) vdev: String,
    /// Device address: hexadecimal with 0x or decimal, with an optional suffix K, M, G or T
    #[arg(long, value_name = "ADDR", value_parser = parse_address, allow_hyphen_values = true)]
    pub(crate) addr: u64,
    /// Length in bytes, with an optional suffix K, M, G or T
    #[arg(long, value_name = "LEN", value_parser = parse_some_length, allow_hyphen_values = true)]
    pub(crate) len: u64,
    /// Access that the device needs: r, w, x or several of them
    #[arg(long, value_name = "ACCESS", value_parser = parse_access)]
    pub(crate) access: Access,
    /// Accept ROM, pass-through and shared memory, and not only system RAM
    #[arg(long)]
    pub(crate) any: bool,
    /// Hold the mapping for this time, or until SIGINT or SIGTERM; print first, on one line,
    /// where it is, so that it can be checked from outside
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, allow_hyphen_values = true)]
    pub(crate) hold: Option<Duration>,
    /// Print all runs, and not only the first 40
    #[arg(long)]
    pub(crate) all: bool,
    /// Print JSON, with the fields listed below
    #[arg(long)]
    pub(crate) json: bool,
}

/// Maps, reports the result, and holds the mapping for as long as requested.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let flags = flags(args)?;
    let config = Config::load(&args.config)?;
    // Checked before the guest is created, which can take long.
    check(&config, &args.vdev)?;
    let guest = configured::create(&config)?;
    let vdev = guest.find_vdev(&args.vdev).ok_or_else(|| no_such_device(&config, &args.vdev))?;
    // From here on a signal ends the wait, and the mapping is released in order.
    let until = args.hold.map(Until::new).transpose()?;
    let addr = DeviceAddr(args.addr);
    let progress = Progress::start("mapping");
    let scatter = vdev.map_scatter(addr, args.len, flags)?;
    let first = first_run(&vdev, addr, args.len, flags)?;
    let report = Report::of(&vdev, &scatter, first.as_ref());
    drop(progress);

    if until.is_some() {
        let held = Held::of(&scatter, first.as_ref());
        match args.json {
            true => output::json_line(&held)?,
            false => {
                let mut out = Printer::stdout();
                out.line(&held.to_string())?;
                out.flush()?;
            }
        }
    }
    match args.json {
        true if until.is_some() => output::json_line(&report)?,
        true => output::json(&report)?,
        false => show(&report, args.all)?,
    }
    if let Some(until) = until {
        until.wait();
    }
    release((first, scatter, vdev, guest));
    Ok(())
}

fn check(config: &Config, name: &str) -> Result<(), Failure> {
    match config.vdevs().any(|known| known == name) {
        true => Ok(()),
        false => Err(no_such_device(config, name)),
    }
}

fn no_such_device(config: &Config, name: &str) -> Failure {
    let known: Vec<&str> = config.vdevs().collect();
    let hint = match known.as_slice() {
        [] => "; its configuration has no `vdev`".into(),
        known => hint(name, known),
    };
    Failure::Usage(format!("--vdev: the guest `{}` has no device `{name}`{hint}", config.name()))
}

fn flags(args: &Args) -> Result<MapFlags, Failure> {
    let flags = MapFlags::new(args.access).map_err(|why| Failure::Usage(why.to_string()))?;
    Ok(if args.any { flags.any() } else { flags })
}

/// The host-contiguous mapping at `addr`; `None` if host-physical addresses are not disclosed,
/// or can change.
fn first_run(
    vdev: &Vdev,
    addr: DeviceAddr,
    len: u64,
    flags: MapFlags,
) -> Result<Option<HostMapping>, Failure> {
    match vdev.map_host_contig(addr, len, flags) {
        Ok(mapping) => Ok(Some(mapping)),
        Err(error) if matches!(error.errno(), Errno::PERM | Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn show(report: &Report, all: bool) -> Result<(), Failure> {
    let mut out = Printer::stdout();
    out.heading(&format!(
        "{} maps {} at {}, {}",
        report.vdev,
        length(report.len),
        address(report.addr),
        report.access
    ))?;
    let first = match &report.first {
        Some(first) => format!("{} from {}", length(first.len), address(first.host)),
        None => {
            format!("not disclosed: {}", report.host_unknown.unwrap_or("the reason is unknown"))
        }
    };
    out.pairs(&[
        ("first host-contiguous run", first),
        ("stability", report.stability.into()),
        ("runs", count(report.runs.len())),
    ])?;
    out.line("")?;
    let shown = if all { usize::MAX } else { RUNS_SHOWN };
    let rows = report.runs.iter().take(shown).map(|run| {
        [
            address(run.device),
            run.guest.map_or_else(|| "unknown".into(), address),
            run.host.map_or_else(|| "not disclosed".into(), address),
            length(run.len),
        ]
    });
    let hidden = report.runs.len().saturating_sub(shown);
    let left_out = (hidden > 0).then(|| ["…"; 4].map(String::from));
    let rows = rows.chain(left_out);
    out.table(&["device", "guest-physical", "host-physical", "length"], &[0, 1, 2], rows)?;
    if hidden > 0 {
        out.note(&format!("and {}; --all lists them all", several(hidden, "more run")))?;
    }
    Ok(out.flush()?)
}
