//! The command `gasp`: guest memory for virtual devices, from a shell.
//!
//! | | |
//! |---|---|
//! | [`cli`] | the arguments, their help, and what the fields of `--json` mean |
//! | [`demo`] | a guest on this machine's real pages, and what its devices may do |
//! | [`probe`] | what this machine offers |
//! | [`map`] | one map for a device of a configured guest |
//! | [`bench`] | what a map costs, beside what others pay |
//! | [`layout`] | a picture of a configured guest |
//! | [`configured`] | a guest from a configuration file |
//! | [`companions`] | shell completions and man pages |
//! | [`failure`] | how a command ends, and its exit status |
//! | [`output`], [`quantity`], [`waiting`] | tables and JSON; sizes and addresses; progress |

mod bench;
mod cli;
mod companions;
mod configured;
mod demo;
mod failure;
mod layout;
mod map;
mod output;
mod probe;
mod quantity;
mod waiting;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
