//! A guest of `gasp vm` and one of QEMU with KVM, side by side: their disks, their boots, their
//! memory, and how often the guest is left.
//!
//! Both run inside an emulated machine, whose KVM needs no privilege and no hardware of this one:
//! nanoseconds are those of an emulated processor, and only ratios of one run say something. Counts
//! are exact.
//!
//! | | |
//! |---|---|
//! | [`contest`] | the guests that are started, one after another |
//! | [`programs`] | what is built, statically linked, to run there |
//! | [`outer`] | the emulated machine and its script |
//! | [`results`] | numbers from its console |
//! | [`goals`] | the ratios, and what is expected of them |

mod contest;
mod goals;
mod outer;
mod programs;
mod results;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use gasp_testbed::Testbed;

/// The errors of this program, each in words.
type Result<T> = core::result::Result<T, Box<dyn std::error::Error>>;

/// Compares guests of `gasp vm` with guests of QEMU under KVM, in one emulated machine
///
/// Takes some minutes. Trust the ratios, not the times: the processor is emulated.
#[derive(Parser)]
#[command(after_help = HELP)]
struct Args {
    /// Only guests whose name contains this text
    #[arg(default_value = "", value_name = "TEXT", hide_default_value = true)]
    filter: String,
    /// How often each guest is started; the least of all is reported
    #[arg(long, default_value = "2", value_name = "NUMBER")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=20))]
    times: u32,
    /// Further words of the inner kernels' command lines
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    append: String,
    /// Show the console of the emulated machine on stderr
    #[arg(long)]
    console: bool,
    /// Print one JSON object, with the fields below
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  cargo run --release -p gasp-bench --bin vm
  cargo run --release -p gasp-bench --bin vm -- --json | jq .goals

Fields of --json:
  versions  of QEMU and of the guest's kernel
  guests    one for each guest: `guest`; `boot_ms` to its first program; `ns`, per transfer, with
            `what`; `exits_per_read`: exits to user space for a read of 4 KiB, by reason, of
            `gasp vm` alone; `resident_kib` beside the guest's RAM. Null if not measured
  goals     `goal`, `value`, `at_least` or `at_most`, `reached`; `value` is null if not measured";

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let guests = contest::guests(&args.filter);
    if guests.is_empty() {
        let names = contest::guests("").into_iter().map(|guest| format!("\n  {}", guest.name));
        let names: String = names.collect();
        return Err(format!("no guest has `{}` in its name. They are:{names}", args.filter).into());
    }
    let testbed = Testbed::obtain()?;
    let programs = programs::build()?;
    let lines = outer::run(&testbed, &programs, &guests, args)?;
    let results = results::of(&guests, &lines);
    let goals = goals::of(&results);
    let mut out = io::stdout().lock();
    if args.json {
        let versions = testbed.versions().to_string();
        let all = serde_json::json!({"versions": versions, "guests": results, "goals": goals});
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
    } else {
        writeln!(out, "{}, in an emulated machine", testbed.versions())?;
        results.iter().try_for_each(|result| writeln!(out, "{result}"))?;
        writeln!(out)?;
        goals.iter().try_for_each(|goal| writeln!(out, "{goal}"))?;
    }
    Ok(out.flush()?)
}
