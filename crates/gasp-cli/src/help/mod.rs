//! The parts of `--help` and of the manual pages that follow the options: [`texts`], parsed
//! into [`sections`].

mod sections;
mod texts;

use clap::Command;

pub(crate) use sections::{Block, Kind, Section};

/// The command with the help texts that follow the options, in lines of `width`.
pub(crate) fn completed(command: Command, width: usize) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().into()).collect();
    let text = |name: &str| sections::as_help(&sections(name), width);
    let command = command.after_help(text("gasp"));
    names.into_iter().fold(command, |command, name| {
        let after = text(&name);
        command.mut_subcommand(name, |sub| sub.after_help(after))
    })
}

/// The sections of the help text of a subcommand, or of `gasp` itself.
pub(crate) fn sections(command: &str) -> Vec<Section> {
    sections::parse(match command {
        "demo" => texts::DEMO,
        "probe" => texts::PROBE,
        "map" => texts::MAP,
        "audit" => texts::AUDIT,
        "broker" => texts::BROKER,
        "layout" => texts::LAYOUT,
        "serve" => texts::SERVE,
        "completions" => texts::COMPLETIONS,
        "man" => texts::MAN,
        _ => texts::GASP,
    })
}
