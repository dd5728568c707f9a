//! `gasp vdev`: virtual devices in C, without a guest.
//!
//! | | |
//! |---|---|
//! | `args` | its arguments, and the configuration that they make |
//! | [`check`] | `gasp vdev check`: the process that the user starts |
//! | `child` | the process that the vdev is loaded into, watched from outside |
//! | `walk`, `round`, `registers` | what happens there: the life of a vdev, twice |
//! | `factory`, `leftovers`, `mutex`, `refusal` | what can be wrong, before, after, and in between |
//! | `report`, `log` | what that process tells the other one |
//! | `record`, `show` | what comes of it, as JSON and for people |

mod args;
mod check;
mod child;
mod factory;
mod leftovers;
mod log;
mod mutex;
mod record;
mod refusal;
mod registers;
mod report;
mod round;
mod show;
mod walk;

use clap::Subcommand;

use crate::failure::Failure;

/// Arguments of `gasp vdev`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Load a virtual device in C, walk its life cycle without a guest, and report what is wrong
    Check(args::Args),
}

impl Args {
    /// Whether errors are JSON on stdout.
    pub(crate) fn json(&self) -> bool {
        let Command::Check(args) = &self.command;
        args.json
    }

    /// Whether a vdev is loaded into this process, and log lines are part of the report.
    pub(crate) fn loads(&self) -> bool {
        let Command::Check(args) = &self.command;
        args.walk || args.in_process
    }
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Command::Check(args) = &args.command;
    check::run(args)
}
