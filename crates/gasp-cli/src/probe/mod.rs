//! `gasp probe`: what this machine offers, and how to get what is missing.

mod kernel;
mod memory;
mod privilege;

use std::fs;

use serde::Serialize;

use crate::failure::Failure;
use crate::output::{self, Mark, Printer};
use crate::progress::Progress;

/// Arguments of `gasp probe`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object, with the fields listed below
    #[arg(long)]
    pub(crate) json: bool,
}

/// The outcome of a check.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Yes,
    Limited,
    No,
}

/// One check and its outcome.
#[derive(Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    detail: String,
    remedy: Option<String>,
}

impl Check {
    fn new(name: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { name, verdict, detail: detail.into(), remedy: None }
    }

    /// Adds what would help.
    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
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

/// The text of a small file of the kernel, without the newline.
fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

/// The number in a small file of the kernel.
fn read_number(path: &str) -> Option<u64> {
    read(path)?.parse().ok()
}
