//! `gasp bench`: what a map costs on this machine, beside what others pay for the same.

use std::io;

use gasp::config::near::nearest;
use gasp_bench::{Effort, Figure, Row};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{self, Page};
use crate::progress::Progress;
use crate::quantity::length;

/// Arguments of `gasp bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only cases whose name contains this text
    #[arg(default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub(crate) filter: String,
    /// Shorter rounds, and fewer: enough to see that all is well
    #[arg(long)]
    pub(crate) quick: bool,
    /// Print one JSON object, with the fields below
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Serialize)]
struct Report {
    cases: Vec<Row>,
    figures: Vec<Figure>,
}

/// Measures what the arguments name, and shows it.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let effort = if args.quick { Effort::Quick } else { Effort::Full };
    let recipes = gasp_bench::cases(&args.filter);
    if recipes.is_empty() {
        return Err(unmatched(&args.filter));
    }
    let progress = Progress::start("measuring");
    let mut cases = Vec::new();
    let total = recipes.len() as u64;
    for (done, (name, make)) in (0..).zip(recipes) {
        progress.step(done, total, &name);
        cases.extend(gasp_bench::run(make()?, effort));
    }
    let figures = if args.filter.is_empty() {
        progress.step(total, total, "tables, and the start of a guest");
        gasp_bench::figures()?
    } else {
        Vec::new()
    };
    drop(progress);
    if args.json {
        return Ok(output::json(&Report { cases, figures })?);
    }
    Ok(show(&cases, &figures)?)
}

/// No case has this in its name: the near ones, and all that there are.
fn unmatched(filter: &str) -> Failure {
    let names: Vec<String> = gasp_bench::cases("").into_iter().map(|(name, _)| name).collect();
    let mut message = format!("no case has `{filter}` in its name");
    // A slip in one part or one word of a name, too.
    let parts = names.iter().flat_map(|name| name.split(", "));
    let words = names.iter().flat_map(|name| name.split([',', ' ', '+', ':']));
    let known = names.iter().map(String::as_str).chain(parts).chain(words);
    if let Some(near) = nearest(filter, known.filter(|word| word.len() > 2)) {
        message.push_str(&format!("; did you mean `{near}`?"));
    }
    message.push_str("\nThe cases are:");
    names.iter().for_each(|name| message.push_str(&format!("\n  {name}")));
    Failure::Usage(message)
}

fn show(cases: &[Row], figures: &[Figure]) -> io::Result<()> {
    let mut page = Page::stdout();
    page.heading("Nanoseconds for one operation; the minimum of many rounds, taken in turns")?;
    let mut last = "";
    let rows = cases.iter().map(|row| {
        // A case that has several peers says its own name and time once.
        let again = core::mem::replace(&mut last, &row.case) == row.case;
        let ours = if again { String::new() } else { format!("{:.1}", row.ns) };
        let case = if again { "" } else { &row.case };
        let ratio = row.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}×"));
        let theirs = row.peer_ns.map_or(String::new(), |ns| format!("{ns:.1}"));
        [case.to_owned(), ours, ratio, theirs, row.peer.unwrap_or("").to_owned()]
    });
    page.table(&["case", "gasp", "ratio", "peer", ""], &[1, 2, 3], rows)?;
    page.note("A ratio above 1: gasp is faster by that factor.")?;
    if figures.is_empty() {
        return Ok(());
    }
    page.heading("Tables, and the start of a guest")?;
    let rows = figures.iter().map(|figure| {
        let value = match (figure.value, figure.unit) {
            (None, _) => "–".to_owned(),
            (Some(value), "bytes") if value >= 1024.0 => length(value as u64),
            (Some(value), unit) => format!("{value:.1} {unit}"),
        };
        [figure.figure.clone(), value, figure.note.clone().unwrap_or_default()]
    });
    page.table(&["figure", "value", ""], &[1], rows)
}
