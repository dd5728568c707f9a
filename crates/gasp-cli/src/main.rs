//! The command `gasp`: guest memory for virtual devices, from a shell.
//!
//! | | |
//! |---|---|
//! | [`cli`] | the subcommands, each with the arguments of its module |
//! | [`help`] | help texts after the options: examples, the fields of `--json`, exit statuses |
//! | [`demo`] | a guest on this machine's real pages, and what its devices may do |
//! | [`probe`] | what this machine offers, and how to get what is missing |
//! | [`map`] | one map for a device of a configured guest |
//! | [`audit`] | checks that memory keeps its host-physical addresses |
//! | [`broker`] | frame numbers or tokens for unprivileged processes |
//! | [`layout`] | a picture of where a configured guest's memory lies |
//! | [`serve`] | devices on vfio-user sockets, for VMMs to attach |
//! | [`vdev`] | checks virtual devices in C, without a guest |
//! | `vm` | a virtual machine on KVM, on x86-64 |
//! | [`configured`] | a guest from a configuration file |
//! | [`companions`] | shell completions and man pages |
//! | [`failure`] | errors and exit statuses |
//! | [`socket`], [`disk_error`] | why a socket cannot be created, or a disk cannot be opened |
//! | [`output`], [`columns`] | output to stdout: paragraphs, tables, JSON |
//! | [`out`] | a writer that drops reports that cannot be written |
//! | [`quantity`], [`progress`], [`signal`], [`logging`] | sizes and addresses; progress on stderr; signals; log lines |

mod audit;
mod broker;
mod cli;
mod columns;
mod companions;
mod configured;
mod demo;
mod disk_error;
mod failure;
mod help;
mod layout;
mod logging;
mod map;
mod out;
mod output;
mod probe;
mod progress;
mod quantity;
mod running;
mod serve;
mod signal;
mod socket;
mod vdev;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod vm;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
