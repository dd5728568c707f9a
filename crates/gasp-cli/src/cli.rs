//! The arguments of the command, and their help.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgGroup, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use gasp::Access;
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::logging::Line;
use crate::quantity::{parse_address, parse_length};
use crate::{
    audit, bench, broker, companions, demo, help, layout, map, output, probe, serve, signal,
};

/// Lines of help that are longer are hard to read.
const HELP_WIDTH_MAX: usize = 100;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Guest memory for virtual devices: IOMMU-checked, revocable, zero-copy maps with
/// host-physical addresses
#[derive(Parser)]
#[command(name = "gasp", version, styles = STYLES, max_term_width = HELP_WIDTH_MAX)]
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
    Demo(Demo),
    /// Tell what this machine offers, and how to get what is missing
    Probe(Probe),
    /// Map memory of a configured guest for one of its devices
    Map(Map),
    /// Read host-physical addresses again, and report what has moved
    Audit(Audit),
    /// Open frame numbers for processes without the privilege, over a socket
    Broker(Broker),
    /// Draw a configured guest's memory, beside the host's
    Layout(Layout),
    /// Measure what a map costs on this machine, beside what others pay for the same
    Bench(Bench),
    /// Serve devices to VMMs over vfio-user
    Serve(Serve),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page, or write one for each subcommand to a folder
    Man {
        /// The folder; made if there is none
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Arguments of `gasp demo`.
#[derive(Args)]
pub(crate) struct Demo {
    /// How much RAM the guest has, a multiple of 1M from 32M on
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
    /// Tell nobody addresses; give tokens that only a trusted user can redeem
    #[arg(long)]
    pub(crate) tokens: bool,
    /// A user who may redeem tokens, by name or number, beside root and this process's own;
    /// can be given several times
    #[arg(long, value_name = "USER", requires = "tokens")]
    pub(crate) redeem_user: Vec<String>,
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

/// Arguments of `gasp serve`.
#[derive(Args)]
#[command(group(ArgGroup::new("devices").required(true).args(["config", "device"])))]
pub(crate) struct Serve {
    /// The devices and their sockets, as below
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One device: its kind and its keys, as below
    #[arg(long, value_name = "KIND[,KEY=VALUE...]", requires = "socket")]
    pub(crate) device: Option<String>,
    /// The socket of the one device
    #[arg(long, value_name = "PATH", requires = "device")]
    pub(crate) socket: Option<PathBuf>,
    /// How firmly guest memory is held while it is mapped
    #[arg(long, value_name = "HOW", default_value = "on-demand")]
    pub(crate) residency: ServeResidency,
    /// Print what happens as JSON, with the fields below
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `--residency` may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ServeResidency {
    /// All in place from the first map on; host-physical addresses are known, and given to a
    /// device if the VMM is trusted not to replace its memory (unsealed = "trust")
    Pinned,
    /// As the guest and the host use it: costs nothing, but addresses are not known
    OnDemand,
}

/// The command with all of its help.
pub(crate) fn command() -> clap::Command {
    help::completed(Cli::command(), output::width().min(HELP_WIDTH_MAX))
}

/// Does what the arguments say.
pub(crate) fn run() -> ExitCode {
    let matches = command().try_get_matches();
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            return Failure::Arguments(error).report(json_is_wanted(std::env::args_os()));
        }
        // The help or the version.
        Err(error) => {
            return match output::text(&error.render().ansi().to_string()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => Failure::from(error).report(false),
            };
        }
    };
    log_to_stderr(cli.verbose);
    if let Err(error) = signal::survive_file_size_limit() {
        tracing::warn!(%error, "a write past the limit of file sizes ends this process");
    }
    let (done, json) = match cli.command {
        Command::Demo(args) => (demo::run(&args), args.json),
        Command::Probe(args) => (probe::run(&args), args.json),
        Command::Map(args) => (map::run(&args), args.json),
        Command::Audit(args) => (audit::run(&args), args.json),
        Command::Broker(args) => (broker::run(&args), false),
        Command::Layout(args) => (layout::run(&args), false),
        Command::Bench(args) => (bench::run(&args), args.json),
        Command::Serve(args) => (serve::run(&args), args.json),
        Command::Completions { shell } => (companions::completions(shell), false),
        Command::Man { out } => (companions::man(out.as_deref()), false),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

/// Whether an error is to be JSON, too, although the arguments make no sense.
fn json_is_wanted(args: impl Iterator<Item = OsString>) -> bool {
    args.skip(1).take_while(|arg| arg != "--").any(|arg| arg == "--json")
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
        .with_writer(Line::new)
        .with_ansi(colour)
        .init();
}

fn demo_ram(text: &str) -> Result<u64, String> {
    const UNIT: u64 = 1 << 20;
    let len = parse_length(text)?;
    match len.is_multiple_of(UNIT) && (demo::RAM_MIN..=demo::RAM_MAX).contains(&len) {
        true => Ok(len),
        false => Err("expected a multiple of 1M, from 32M to 1023G".into()),
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

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        command().debug_assert();
    }

    #[test]
    fn an_error_is_json_where_the_arguments_ask_for_it() {
        let wanted = |args: &[&str]| json_is_wanted(args.iter().map(OsString::from));
        assert!(wanted(&["gasp", "nonsense", "--json"]));
        assert!(!wanted(&["gasp", "bench"]) && !wanted(&["gasp", "bench", "--", "--json"]));
    }

    #[test]
    fn access_and_seconds_that_mean_nothing_are_refused() {
        assert_eq!(access("rw"), Ok(Access::RW));
        assert!(["", "-", "q", "rwz"].into_iter().all(|text| access(text).is_err()));
        assert!(["", "-1", "x", "NaN", "1e300"].into_iter().all(|text| seconds(text).is_err()));
        assert!(
            ["0", "1M1", "1K", "31M", "1T", "33000K"]
                .into_iter()
                .all(|text| demo_ram(text).is_err())
        );
    }
}
