//! The command `gasp`: guest memory for virtual devices, from a shell.
//!
//! | | |
//! |---|---|
//! | [`cli`] | the subcommands, each with the arguments of its module |
//! | [`help`] | what is said after the options: examples, and what the fields of `--json` mean |
//! | [`demo`] | a guest on this machine's real pages, and what its devices may do |
//! | [`probe`] | what this machine offers |
//! | [`map`] | one map for a device of a configured guest |
//! | [`audit`] | whether host-physical addresses stay what they were said to be |
//! | [`broker`] | opens frame numbers for processes without the privilege |
//! | [`layout`] | a picture of a configured guest |
//! | [`serve`] | devices on vfio-user sockets, for VMMs to attach |
//! | [`configured`] | a guest from a configuration file |
//! | [`companions`] | shell completions and man pages |
//! | [`failure`] | how a command ends, and its exit status |
//! | [`output`], [`columns`] | what is written to stdout: paragraphs, tables, JSON |
//! | [`quantity`], [`progress`], [`signal`], [`logging`] | sizes and addresses; signs of life; signals; log lines |

mod audit;
mod broker;
mod cli;
mod columns;
mod companions;
mod configured;
mod demo;
mod failure;
mod help;
mod layout;
mod logging;
mod map;
mod output;
mod probe;
mod progress;
mod quantity;
mod serve;
mod signal;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
