//! `gasp audit`: checks that a guest's memory keeps its host-physical addresses.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use gasp::{Audit, Change, Guest};
use gasp::{FrameAccess, frame_access};
use serde::Serialize;

use crate::configured;
use crate::failure::Failure;
use crate::output::{self, Printer};
use crate::progress::{Progress, release};
use crate::quantity::{length, parse_pause, parse_seconds, several};
use crate::signal::Until;

/// The most changes that the text output of one round lists.
const SHOWN: usize = 20;

/// Arguments of `gasp audit`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration of the guest, in TOML or (*.qvmconf, or @FILE) in the language of qvm
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Repeat the audit at this interval, until SIGINT or SIGTERM; 1 if only --for is given
    #[arg(long, value_name = "SECONDS", value_parser = parse_pause, allow_hyphen_values = true)]
    pub(crate) every: Option<Duration>,
    /// Stop after this time
    #[arg(long = "for", value_name = "SECONDS", value_parser = parse_seconds, allow_hyphen_values = true)]
    pub(crate) duration: Option<Duration>,
    /// Print JSON, with the fields listed below
    #[arg(long)]
    pub(crate) json: bool,
}

/// The result of one round. `gasp audit --help` describes the fields.
#[derive(Serialize)]
struct Round {
    round: u64,
    checked: u64,
    unchecked: u64,
    took_us: u64,
    broken: u64,
    moved: u64,
    changes: Vec<ChangeFields>,
}

#[derive(Serialize)]
struct ChangeFields {
    object: String,
    offset: u64,
    len: u64,
    class: &'static str,
    was: u64,
    is: Option<u64>,
    broken: bool,
}

impl ChangeFields {
    fn of(change: &Change) -> Self {
        Self {
            object: change.object.to_string(),
            offset: change.offset,
            len: change.len,
            class: change.class.name(),
            was: change.was.0,
            is: change.is.map(|is| is.0),
            broken: change.is_broken_promise(),
        }
    }
}

impl Round {
    fn of(round: u64, audit: &Audit, took: Duration) -> Self {
        let bytes = |broken| {
            let of = audit.changes.iter().filter(|it| it.is_broken_promise() == broken);
            of.map(|change| change.len).sum()
        };
        Self {
            round,
            checked: audit.checked,
            unchecked: audit.unchecked,
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            broken: bytes(true),
            moved: bytes(false),
            changes: audit.changes.iter().map(ChangeFields::of).collect(),
        }
    }
}

/// Creates the guest and audits it, once or periodically.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let guest = configured::guest(&args.config)?;
    // Checked only now: the guest's configuration can name a broker of frame numbers.
    if let FrameAccess::Denied(why) = frame_access() {
        return Err(Failure::Usage(format!("there is nothing to audit: {why}")));
    }
    let until = match (args.every, args.duration) {
        (None, None) => None,
        (_, duration) => Some(Until::new(duration.unwrap_or(Duration::MAX))?),
    };
    let started = Instant::now();
    let every = args.every.unwrap_or(Duration::from_secs(1));
    let mut broken = false;
    for round in 1.. {
        broken |= audit(&guest, round, args.json)?;
        let Some(until) = &until else { break };
        let rest = until.time.saturating_sub(started.elapsed());
        if rest.is_zero() || until.wait_for(every.min(rest)) {
            break;
        }
    }
    release(guest);
    if broken { Err(Failure::Reported) } else { Ok(()) }
}

/// Audits the guest once, and returns whether a promise is broken.
fn audit(guest: &Guest, round: u64, json: bool) -> Result<bool, Failure> {
    let started = Instant::now();
    let progress = Progress::start("auditing");
    let audit = guest.audit()?;
    drop(progress);
    let took = started.elapsed();
    let report = Round::of(round, &audit, took);
    match json {
        true => output::json_line(&report)?,
        false => show(&report, &audit, took)?,
    }
    Ok(report.broken > 0)
}

fn show(round: &Round, audit: &Audit, took: Duration) -> Result<(), Failure> {
    let mut out = Printer::stdout();
    out.line(&format!(
        "round {}: {} checked in {:.1} ms; moved against its class: {}; moved, unpinned: {}{}",
        round.round,
        length(round.checked),
        took.as_secs_f64() * 1e3,
        length(round.broken),
        length(round.moved),
        match round.unchecked {
            0 => String::new(),
            bytes => format!("; not checked: {}", length(bytes)),
        }
    ))?;
    for change in audit.changes.iter().take(SHOWN) {
        let mark = if change.is_broken_promise() { "broken" } else { "moved" };
        out.line(&format!("  {mark}: {change}"))?;
    }
    let hidden = audit.changes.len().saturating_sub(SHOWN);
    if hidden > 0 {
        out.note(&format!("and {}; --json lists them all", several(hidden, "more change")))?;
    }
    Ok(out.flush()?)
}
