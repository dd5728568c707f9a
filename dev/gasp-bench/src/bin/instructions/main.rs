//! Instruction counts of the hot cases, which do not depend on the load of the machine.
//!
//! Each case runs in a process of its own under callgrind, once with N operations and once
//! with 2N; the difference, divided by N, is the count of one operation without the set-up.
//! It includes the case's own loop, and no instructions of the kernel. The numbers are kept in
//! the tree, and `--check` fails if a case takes more than its number.

mod numbers;

use std::io::{self, Write};
use std::process::{Child, Command, ExitCode, Stdio};

use clap::Parser;
use gasp::{GRANULE, MemoryObject};

use numbers::{Numbers, Outcome, Result, Verdict, table};

/// The hot cases, by their name in [`gasp_bench::cases`], and N: enough operations to hide the
/// start of the process, whose count varies slightly.
const HOT: [(&str, u32); 14] = [
    ("map+unmap, bypass, random", 20_000),
    ("map+unmap, 1 grant, same page", 20_000),
    ("map+unmap, 1024 grants, random", 20_000),
    ("map+unmap, 65536 grants, random", 20_000),
    (CONTIGUOUS, 20_000),
    ("C: map+unmap, 1024 grants, random", 20_000),
    ("scatter map+unmap over 64 pages", 2_000),
    ("8-byte read, 1024 grants, random", 20_000),
    ("4 KiB copy, 1024 grants, random", 5_000),
    ("refused map, 1024 grants, random", 10_000),
    ("grant+revoke, no holder, 1024 grants more", 5_000),
    ("virtio queue: pop and touch, 1024 grants, a chain a turn", 16_000),
    ("virtio queue: pop and touch, 1024 grants, 16 chains a turn", 16_000),
    ("asks: miss, a walk of four levels", 16_384),
];
/// The case that needs frame numbers, which only privileged processes can read.
const CONTIGUOUS: &str = "host-contiguous, 1024 grants, random";

/// Counts the instructions of the hot cases under callgrind
#[derive(Parser)]
struct Args {
    /// Only the cases whose name contains this
    #[arg(default_value = "")]
    filter: String,
    /// Fail if a case takes more instructions than its number in instructions.toml
    #[arg(long, conflicts_with = "write")]
    check: bool,
    /// Write the numbers to instructions.toml
    #[arg(long)]
    write: bool,
    /// Run the operation of a case N times, for callgrind to count
    #[arg(long, num_args = 2, value_names = ["CASE", "N"], hide = true)]
    count: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    if let [case, operations] = args.count.as_slice() {
        return count(case, operations.parse()?, &mut out);
    }
    if cfg!(debug_assertions) {
        return Err("the counts are of release builds: cargo run --release ...".into());
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        let why = "valgrind is not installed (apt-get install valgrind)";
        writeln!(out, "skipped, because {why}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let here = Numbers::here()?;
    // A file that is to be written need not be readable.
    let kept = if args.write { Numbers::load().unwrap_or_default() } else { Numbers::load()? };
    let outcomes = measure(&args.filter, &kept)?;
    if outcomes.is_empty() {
        return Err(format!("no hot case has `{}` in its name", args.filter).into());
    }
    writeln!(out, "{}", table(outcomes.iter()))?;
    for (outcome, why) in outcomes.iter().filter_map(|o| Some((o, o.now.as_ref().err()?))) {
        writeln!(out, "{}: skipped, because {why}", outcome.case)?;
    }
    if args.write {
        here.update(&kept, &outcomes, !args.filter.is_empty())?;
    } else if args.check {
        if !kept.is_of_the_same_compiler(&here) {
            let (was, now) = (kept.compiler(), here.compiler());
            writeln!(out, "skipped, because the numbers are of {was} and this is {now}")?;
            return Ok(ExitCode::SUCCESS);
        }
        return check(&outcomes, &mut out);
    }
    Ok(ExitCode::SUCCESS)
}

fn check(outcomes: &[Outcome], out: &mut impl Write) -> Result<ExitCode> {
    if outcomes.iter().any(|outcome| outcome.verdict() == Verdict::Better) {
        writeln!(out, "better: update the file, with --write")?;
    }
    let bad = |outcome: &&Outcome| matches!(outcome.verdict(), Verdict::Worse | Verdict::New);
    if !outcomes.iter().any(|outcome| bad(&outcome)) {
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "\nabove the number in instructions.toml, or without one:")?;
    writeln!(out, "{}", table(outcomes.iter().filter(bad)))?;
    Ok(ExitCode::FAILURE)
}

/// Runs under callgrind: sets up a case and runs its operation; prints to `out` why it cannot.
fn count(case: &str, operations: u32, out: &mut impl Write) -> Result<ExitCode> {
    if case == CONTIGUOUS {
        let memory = MemoryObject::ram(2 << 20).create()?;
        if let Err(error) = memory.host_run(0, GRANULE) {
            writeln!(out, "{error}")?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let recipe = gasp_bench::cases(case).into_iter().find(|(name, _)| name == case);
    let (_, make) = recipe.ok_or_else(|| format!("there is no case `{case}`"))?;
    let mut contestants = make()?.contestants;
    let ours = contestants.first_mut().ok_or("the case has no contestant")?;
    (ours.work)(operations);
    Ok(ExitCode::SUCCESS)
}

/// How often a case is measured that takes more than its number: two runs can be set up
/// differently if other programs take huge pages meanwhile.
const TRIES: u32 = 3;

fn measure(filter: &str, kept: &Numbers) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for (case, operations) in HOT.into_iter().filter(|(case, _)| case.contains(filter)) {
        let was = kept.instructions.get(case).copied();
        let mut outcome = Outcome { case, was, now: measured(case, operations)? };
        for _ in 1..TRIES {
            if outcome.verdict() == Verdict::Worse {
                outcome.now = measured(case, operations)?;
            }
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// The instructions of one operation, or why they cannot be counted.
fn measured(case: &str, operations: u32) -> Result<core::result::Result<u64, String>> {
    let (once, twice) = (spawn(case, operations)?, spawn(case, operations * 2)?);
    Ok(match (collected(case, once)?, collected(case, twice)?) {
        (Ok(once), Ok(twice)) => {
            let operations = u64::from(operations);
            Ok((twice.saturating_sub(once) + operations / 2) / operations)
        }
        (Err(why), _) | (_, Err(why)) => Err(why),
    })
}

fn spawn(case: &str, operations: u32) -> io::Result<Child> {
    Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--count", case, &operations.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// The instruction count of a whole run, or why it was skipped.
fn collected(case: &str, child: Child) -> Result<core::result::Result<u64, String>> {
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let number = said.lines().find_map(|line| line.split_once("Collected :"));
    match (output.status.success(), output.stdout.trim_ascii(), number) {
        (true, [], Some((_, number))) => Ok(Ok(number.trim().parse()?)),
        (true, why @ [_, ..], _) => Ok(Err(String::from_utf8_lossy(why).into_owned())),
        _ => Err(format!("{case}: {}\n{said}", output.status).into()),
    }
}
