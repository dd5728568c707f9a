//! `gasp probe`: what this machine offers, and how to get what is missing.

mod check;
mod kernel;
mod memory;
mod privilege;

use serde::Serialize;

use crate::failure::Failure;
use crate::output::{self, Mark, Printer};
use crate::progress::Progress;
use check::{Check, Verdict};

/// Arguments of `gasp probe`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object, with the fields listed below
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Serialize)]
struct Checks {
    checks: Vec<Check>,
}

/// Runs all checks and prints their outcomes.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let progress = Progress::start("checking what this machine offers");
    let checks: Vec<Check> =
        [privilege::checks(), memory::checks(), kernel::checks()].into_iter().flatten().collect();
    drop(progress);
    if args.json {
        return Ok(output::json(&Checks { checks })?);
    }
    let mut out = Printer::stdout();
    for check in &checks {
        let (mark, word) = match check.verdict {
            Verdict::Yes => (Mark::Good, "yes"),
            Verdict::Limited => (Mark::Fair, "limited"),
            Verdict::No => (Mark::Bad, "no"),
        };
        out.verdict(mark, word, check.name, &check.detail)?;
        if let Some(remedy) = &check.remedy {
            out.remedy(remedy)?;
        }
    }
    Ok(out.flush()?)
}
