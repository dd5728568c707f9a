//! The command line: subcommands, their arguments, and the dispatch.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::logging::LogWriter;
use crate::{
    audit, broker, companions, demo, help, layout, map, output, probe, serve, signal, vdev,
};

/// The longest lines of help texts; longer ones are hard to read.
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

    /// Log more to stderr: -v info, -vv debug, -vvv trace; RUST_LOG takes precedence
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Create a guest on this machine's real pages, and show what its devices may do
    Demo(demo::Args),
    /// Report what this machine offers, and how to get what is missing
    Probe(probe::Args),
    /// Map memory of a configured guest for one of its devices
    Map(map::Args),
    /// Check that a guest's memory keeps its host-physical addresses
    Audit(audit::Args),
    /// Provide frame numbers or tokens to unprivileged processes, over a socket
    Broker(broker::Args),
    /// Draw where the memory of a configured guest, or of a running one, lies in the host's
    Layout(layout::Args),
    /// Serve devices to VMMs over vfio-user
    Serve(serve::Args),
    /// Run a virtual machine on KVM
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Vm(crate::vm::Args),
    /// Show the counters of a running virtual machine
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Status(crate::vm::status::Args),
    /// Check virtual devices in C
    Vdev(vdev::Args),
    /// Print shell completions
    Completions(companions::CompletionsArgs),
    /// Print the man page, or write one for each subcommand to a directory
    Man(companions::ManArgs),
}

/// The command with its complete help.
pub(crate) fn command() -> clap::Command {
    help::completed(Cli::command(), output::width().min(HELP_WIDTH_MAX))
}

/// Parses the arguments and runs the subcommand.
pub(crate) fn run() -> ExitCode {
    let matches = command().try_get_matches();
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            return Failure::Arguments(error).report(asks_for_json(std::env::args_os()));
        }
        // The help or the version.
        Err(error) => {
            return match output::text(&error.render().ansi().to_string()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => Failure::from(error).report(false),
            };
        }
    };
    let loads_vdev = matches!(&cli.command, Command::Vdev(args) if args.loads());
    if !loads_vdev {
        log_to_stderr(cli.verbose);
    }
    if let Err(error) = signal::survive_file_size_limit() {
        tracing::warn!(%error, "a write past the file size limit will end this process");
    }
    let (done, json) = match cli.command {
        Command::Demo(args) => (demo::run(&args), args.json),
        Command::Probe(args) => (probe::run(&args), args.json),
        Command::Map(args) => (map::run(&args), args.json),
        Command::Audit(args) => (audit::run(&args), args.json),
        Command::Broker(args) => (broker::run(&args), false),
        Command::Layout(args) => (layout::run(&args), false),
        Command::Serve(args) => (serve::run(&args), args.json),
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Command::Vm(args) => (crate::vm::run(&args), false),
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Command::Status(args) => (crate::vm::status::run(&args), args.json),
        Command::Vdev(args) => (vdev::run(&args), args.json()),
        Command::Completions(args) => (companions::completions(&args, command()), false),
        Command::Man(args) => (companions::man(&args, command()), false),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

/// Whether the arguments ask for JSON on stdout, even if they cannot be parsed. That of `vm` goes to
/// a file.
fn asks_for_json(args: impl Iterator<Item = OsString>) -> bool {
    let mut args = args.skip(1).take_while(|arg| arg != "--" && arg != "vm");
    args.any(|arg| arg == "--json")
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
        .with_writer(LogWriter::new)
        .with_ansi(colour)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        command().debug_assert();
    }

    #[test]
    fn an_error_is_json_if_the_arguments_ask_for_it() {
        let asks = |args: &[&str]| asks_for_json(args.iter().map(OsString::from));
        assert!(asks(&["gasp", "nonsense", "--json"]));
        assert!(!asks(&["gasp", "demo"]) && !asks(&["gasp", "demo", "--", "--json"]));
        assert!(!asks(&["gasp", "vm", "--json", "a"]), "it goes to the file");
    }
}
