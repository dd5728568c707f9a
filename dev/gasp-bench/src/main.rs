//! The cost of a map on this machine, compared with other implementations.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use gasp::Bytes;
use gasp::ffi::nearest;
use gasp_bench::{Effort, Figure, Row};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Measures the cost of a map on this machine, compared with other implementations
///
/// Every time is the minimum of many short rounds. The rounds of all contestants alternate, so
/// that a busy machine disturbs them alike. Trust the ratios more than the times. There is
/// no cache in front of the look-up, so no case is a hit or a miss of one.
#[derive(Parser)]
#[command(after_help = HELP)]
struct Args {
    /// Only cases whose name contains this text
    #[arg(default_value = "", value_name = "TEXT", hide_default_value = true)]
    filter: String,
    /// Fewer and shorter rounds: enough for a sanity check
    #[arg(long)]
    quick: bool,
    /// Print one JSON object, with the fields below
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  cargo run --release -p gasp-bench
  cargo run --release -p gasp-bench -- --quick '1024 grants'
  cargo run --release -p gasp-bench -- --json | jq '.cases[] | select(.ratio < 1)'

Fields of --json:
  cases    one for each case and peer: `case`, `ns` (ours, per operation and thread),
           `peer`, `peer_ns`, `ratio` (theirs over ours); the last three are null if
           there is no peer
  figures  results other than times per operation: `figure`, `value` (null if not
           available here), `unit`, `note`";

#[derive(Serialize)]
struct Report {
    cases: Vec<Row>,
    figures: Vec<Figure>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = writeln!(io::stderr(), "error: {failure}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    NoCase(String),
    #[error(transparent)]
    Engine(#[from] gasp::Error),
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

fn run(args: &Args) -> Result<(), Failure> {
    let effort = if args.quick { Effort::Quick } else { Effort::Full };
    let recipes = gasp_bench::cases(&args.filter);
    if recipes.is_empty() {
        return Err(Failure::NoCase(unmatched(&args.filter)));
    }
    let total = recipes.len() as u64;
    // Hidden if stderr is not a terminal.
    let style = ProgressStyle::with_template("{spinner} {pos} of {len} {wide_bar} {msg}");
    let bar =
        ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut cases = Vec::new();
    for (name, make) in recipes {
        bar.set_message(name);
        cases.extend(gasp_bench::run(make()?, effort));
        bar.inc(1);
    }
    let figures = if args.filter.is_empty() {
        bar.set_message("tables, and the start of a guest");
        gasp_bench::figures()?
    } else {
        Vec::new()
    };
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &Report { cases, figures })
            .map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        show(&mut out, &cases, &figures)?;
    }
    Ok(out.flush()?)
}

/// The message if no case matches the filter: a similar name, and the list of all cases.
fn unmatched(filter: &str) -> String {
    let names: Vec<String> = gasp_bench::cases("").into_iter().map(|(name, _)| name).collect();
    let mut message = format!("no case has `{filter}` in its name");
    // Also parts and single words of names, for a typing error in one of them.
    let parts = names.iter().flat_map(|name| name.split(", "));
    let words = names.iter().flat_map(|name| name.split([',', ' ', '+', ':']));
    let known = names.iter().map(String::as_str).chain(parts).chain(words);
    if let Some(near) = nearest(filter, known.filter(|word| word.len() > 2)) {
        message.push_str(&format!("; did you mean `{near}`?"));
    }
    message.push_str("\nThe cases are:");
    names.iter().for_each(|name| message.push_str(&format!("\n  {name}")));
    message
}

fn show(out: &mut impl Write, cases: &[Row], figures: &[Figure]) -> io::Result<()> {
    writeln!(out, "Nanoseconds per operation; the minimum of many alternating rounds")?;
    let mut last = "";
    let rows = cases.iter().map(|row| {
        // The name and time of a case with several peers are printed once.
        let again = core::mem::replace(&mut last, &row.case) == row.case;
        let ours = if again { String::new() } else { format!("{:.1}", row.ns) };
        let case = if again { "" } else { &row.case };
        let ratio = row.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}×"));
        let theirs = row.peer_ns.map_or(String::new(), |ns| format!("{ns:.1}"));
        [case.to_owned(), ours, ratio, theirs, row.peer.unwrap_or("").to_owned()]
    });
    table(out, &["case", "gasp", "ratio", "peer", ""], &[1, 2, 3], rows)?;
    writeln!(out, "A ratio above 1: gasp is faster by that factor.")?;
    if figures.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nTables, and the start of a guest")?;
    let rows = figures.iter().map(|figure| {
        let value = match (figure.value, figure.unit) {
            (None, _) => "–".to_owned(),
            (Some(value), "bytes") if value >= 1024.0 => Bytes(value as u64).to_string(),
            (Some(value), unit) => format!("{value:.1} {unit}"),
        };
        [figure.figure.clone(), value, figure.note.clone().unwrap_or_default()]
    });
    table(out, &["figure", "value", ""], &[1], rows)
}

fn table<const N: usize>(
    out: &mut impl Write,
    header: &[&str; N],
    right: &[usize],
    rows: impl Iterator<Item = [String; N]>,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header).add_rows(rows);
    // Only a terminal has a width to wrap at.
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    for &index in right {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))
}
