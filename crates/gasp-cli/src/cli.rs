//! The arguments of the command, and their help.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use gasp::Access;
use tracing_subscriber::EnvFilter;

use crate::quantity::{parse_address, parse_length};
use crate::{audit, bench, broker, companions, demo, layout, map, probe};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const AFTER: &str = "\
Examples:
  gasp demo                     a guest on this machine's real pages, step by step
  gasp probe                    what this machine offers, and how to get more
  gasp layout --config guest.toml --svg guest.svg

Exit status:
  0  done
  1  refused: by the guest's IOMMU, its memory, or this machine
  2  wrong usage or a wrong configuration";

const DEMO_AFTER: &str = "\
Examples:
  gasp demo
  gasp demo --ram 64M --json | jq .runs[0]

Fields of --json (lengths and addresses are integers, in bytes):
  ram_bytes           the guest's RAM
  backing             what its pages are: 1G, 2M, thp or 4K
  backing_note        a remark about it, or null
  passed_over         better ones, each with `backing` and `why`
  stability           whether host-physical addresses stay: pinned, reserved, unpinned
  not_pinned_because  why the pages are not pinned, or null
  runs                all of RAM, in order: `guest`, `host` (null: not permitted), `len`
  maps                each map made: `device`, `what`, `access`, `addr`, `len`, `host`,
                      `verified`
  refused             the map that the guest's IOMMU refused: `device`, `addr`, `len`,
                      `errno`, `reason`
  faults              the records left for the guest: `device`, `addr`, `access`, `reason`
  rom_write           the write that ROM refused: `addr`, `errno`, `reason`
  shortened           a host-contiguous map that got less than it asked for: `addr`,
                      `asked`, `got` (null: not permitted; `asked`: RAM is one run there)
  drain               the revoke that waited: `held_ns`, `waited_ns`, `holders`,
                      `completed`; `meanwhile`: `errno` and `took_ns` of a new map
  verified            whether bytes written through every mapping were read back through
                      a second, independent mapping of the same memory
  notes               what this machine does not permit, and what would allow it

Exit status:
  0  done, even if the machine does not permit all of it
  1  the guest cannot be made, or bytes did not compare
  2  wrong usage";

const PROBE_AFTER: &str = "\
Examples:
  gasp probe
  gasp probe --json | jq '.checks[] | select(.verdict != \"yes\")'

Fields of --json:
  checks   one for each line: `name`, `verdict` (yes, limited or no), `detail`, and
           `remedy` (null where there is nothing to be done)

Exit status:
  0  probed, whatever the verdicts
  2  wrong usage";

const MAP_AFTER: &str = "\
Examples:
  gasp map --config guest.toml --vdev disk --addr 0x100000 --len 2M --access rw
  gasp map --config guest.toml --vdev disk --addr 1M --len 64K --access r --hold 60 --json

Fields of --json (lengths and addresses are integers, in bytes):
  (first line, with --hold only)
  pid, vaddr, host, len, stability
           the host-contiguous mapping at --addr that is held; `host` is null where
           host-physical addresses are not permitted
  (then)
  vdev, addr, len, access, stability
           what was mapped; `stability` is that of its least stable piece
  first    the host-contiguous run at --addr: `host` and `len`, or null
  runs     all of it, in order: `device`, `guest`, `host` (null: not permitted), `len`
  error    instead of all that, where it is refused: `errno`, `reason`, `message`

Exit status:
  0  mapped
  1  refused
  2  wrong usage or a wrong configuration";

const AUDIT_AFTER: &str = "\
Examples:
  gasp audit --config guest.toml
  gasp audit --config guest.toml --every 5 --for 3600 --json

The guest is made, and its frame numbers are read again: at once, and then every so many
seconds. Memory whose class is pinned or reserved must not have moved; unpinned memory may.

Fields of --json, one object in one line for each round (lengths in bytes):
  round      1, 2, 3, …
  checked    memory that was looked at
  unchecked  memory of which nothing is said: on demand, or a pass-through window
  took_us    how long that took, in microseconds
  broken     memory that has moved against its promise
  moved      memory that has moved as it may
  changes    what moved: `object`, `offset`, `len`, `class`, `was`, `is` (null: not in
             memory), `broken`

Exit status:
  0  every promise was kept
  1  one was broken, or frame numbers are told no longer
  2  wrong usage or a wrong configuration, or frame numbers are not told at all";

const BROKER_AFTER: &str = "\
Examples:
  gasp broker --socket /run/gasp/frames --user gasp
  (in the guest's configuration)  [guest]  frame-broker = \"/run/gasp/frames\"

Runs as root. A process that connects is given a descriptor of its own page map, which tells
it the host-physical addresses of its own memory and nothing else; it needs no privilege of
its own. Nobody but root and the users named may ask.

Exit status:
  0  ended by SIGINT or SIGTERM
  1  the socket cannot be made, or this process is not told frame numbers itself
  2  wrong usage";

const LAYOUT_AFTER: &str = "\
Examples:
  gasp layout --config guest.toml --svg guest.svg
  gasp layout --config guest.toml --svg - | rsvg-convert > guest.png

Exit status:
  0  drawn
  1  the picture cannot be written
  2  wrong usage or a wrong configuration";

const BENCH_AFTER: &str = "\
Examples:
  gasp bench
  gasp bench --quick '1024 grants'
  gasp bench --json | jq '.cases[] | select(.ratio < 1)'

Every time is the minimum of many short rounds, in which all contestants take turns, so
that a busy machine disturbs them alike. Trust the ratios more than the times. There is
no cache in front of the look-up, so no case is a hit or a miss of one.

Fields of --json:
  cases    one for each case and peer: `case`, `ns` (ours, for one operation on each
           thread), `peer`, `peer_ns`, `ratio` (theirs over ours); the last three are
           null where nobody else can do the same
  figures  what is no time for each operation: `figure`, `value` (null: cannot be had
           here), `unit`, `note`

Exit status:
  0  measured
  1  nothing could be measured
  2  wrong usage";

const COMPLETIONS_AFTER: &str = "\
Example:
  gasp completions bash > ~/.local/share/bash-completion/completions/gasp

Exit status: 0 done, 1 cannot be written, 2 wrong usage";

const MAN_AFTER: &str = "\
Examples:
  gasp man | man -l -
  gasp man --out /usr/local/share/man/man1

Exit status: 0 done, 1 cannot be written, 2 wrong usage";

/// Guest memory for virtual devices: IOMMU-checked, revocable, zero-copy maps with
/// host-physical addresses
#[derive(Parser)]
#[command(name = "gasp", version, styles = STYLES, after_help = AFTER, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Log more to stderr: -v for what is noted, -vv for all; RUST_LOG wins
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Show a guest on this machine's real pages, and what its devices may do
    #[command(after_help = DEMO_AFTER)]
    Demo(Demo),
    /// Tell what this machine offers, and how to get what is missing
    #[command(after_help = PROBE_AFTER)]
    Probe(Probe),
    /// Map memory of a configured guest for one of its devices
    #[command(after_help = MAP_AFTER)]
    Map(Map),
    /// Read host-physical addresses again, and report what has moved
    #[command(after_help = AUDIT_AFTER)]
    Audit(Audit),
    /// Open frame numbers for processes without the privilege, over a socket
    #[command(after_help = BROKER_AFTER)]
    Broker(Broker),
    /// Draw a configured guest's memory, beside the host's
    #[command(after_help = LAYOUT_AFTER)]
    Layout(Layout),
    /// Measure what a map costs on this machine, beside what others pay for the same
    #[command(after_help = BENCH_AFTER)]
    Bench(Bench),
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS_AFTER)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page, or write one for each subcommand to a folder
    #[command(after_help = MAN_AFTER)]
    Man {
        /// The folder; made if there is none
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Arguments of `gasp demo`.
#[derive(Args)]
pub(crate) struct Demo {
    /// How much RAM the guest has, a multiple of 1M
    #[arg(long, default_value = "1G", value_name = "SIZE", value_parser = demo_ram)]
    pub(crate) ram: u64,
    /// Print one JSON object, with the fields below
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `gasp probe`.
#[derive(Args)]
pub(crate) struct Probe {
    /// Print one JSON object, with the fields below
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `gasp map`.
#[derive(Args)]
pub(crate) struct Map {
    /// The guest's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The device that maps
    #[arg(long, value_name = "NAME")]
    pub(crate) vdev: String,
    /// The device address: 0x hexadecimal or decimal, or with a suffix K, M, G
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub(crate) addr: u64,
    /// How many bytes: a number, or with a suffix K, M, G
    #[arg(long, value_name = "LEN", value_parser = parse_length)]
    pub(crate) len: u64,
    /// What the device wants to do: r, w, x or several of them
    #[arg(long, value_name = "ACCESS", value_parser = access)]
    pub(crate) access: Access,
    /// ROM, pass-through and shared windows will do as well as system RAM
    #[arg(long)]
    pub(crate) any: bool,
    /// Keep the mapping for so many seconds, or until SIGINT or SIGTERM; first of all
    /// print where it is, in one line, so that it can be checked from outside
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) hold: Option<Duration>,
    /// Print all runs, however many there are
    #[arg(long)]
    pub(crate) all: bool,
    /// Print JSON, with the fields below
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `gasp audit`.
#[derive(Args)]
pub(crate) struct Audit {
    /// The guest's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Audit again every so many seconds, until SIGINT or SIGTERM; 1 where only --for is given
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) every: Option<Duration>,
    /// End after so many seconds
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) duration: Option<Duration>,
    /// Print JSON, with the fields below
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `gasp broker`.
#[derive(Args)]
pub(crate) struct Broker {
    /// Where to listen; a socket that nobody listens on any more is replaced
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// A user who may ask, by name or number; can be given several times
    #[arg(long, value_name = "USER")]
    pub(crate) user: Vec<String>,
}

/// Arguments of `gasp layout`.
#[derive(Args)]
pub(crate) struct Layout {
    /// The guest's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Where to write the picture; `-` is stdout
    #[arg(long, value_name = "OUT")]
    pub(crate) svg: PathBuf,
}

/// Arguments of `gasp bench`.
#[derive(Args)]
pub(crate) struct Bench {
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

/// Does what the arguments say.
pub(crate) fn run(cli: Cli) -> ExitCode {
    log_to_stderr(cli.verbose);
    let (done, json) = match cli.command {
        Command::Demo(args) => (demo::run(&args), args.json),
        Command::Probe(args) => (probe::run(&args), args.json),
        Command::Map(args) => (map::run(&args), args.json),
        Command::Audit(args) => (audit::run(&args), args.json),
        Command::Broker(args) => (broker::run(&args), false),
        Command::Layout(args) => (layout::run(&args), false),
        Command::Bench(args) => (bench::run(&args), args.json),
        Command::Completions { shell } => (companions::completions(shell), false),
        Command::Man { out } => (companions::man(out.as_deref()), false),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colour = io::IsTerminal::is_terminal(&io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour)
        .init();
}

fn demo_ram(text: &str) -> Result<u64, String> {
    const UNIT: u64 = 1 << 20;
    let len = parse_length(text)?;
    match len != 0 && len.is_multiple_of(UNIT) && len <= 1 << 40 {
        true => Ok(len),
        false => Err("expected a multiple of 1M, from 1M to 1T".into()),
    }
}

fn access(text: &str) -> Result<Access, String> {
    let access = Access::parse(text).filter(|access| !access.is_empty());
    access.ok_or_else(|| "expected r, w, x or several of them, such as rw".into())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "expected a number of seconds, such as 60 or 0.5".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn access_and_seconds_that_mean_nothing_are_refused() {
        assert_eq!(access("rw"), Ok(Access::RW));
        assert!(["", "-", "q", "rwz"].into_iter().all(|text| access(text).is_err()));
        assert!(["", "-1", "x", "NaN", "1e300"].into_iter().all(|text| seconds(text).is_err()));
        assert!(["0", "1M1", "1K"].into_iter().all(|text| demo_ram(text).is_err()));
    }
}
