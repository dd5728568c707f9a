//! The parts of `--help` and of the manual pages that follow the options: [`texts`], parsed
//! into [`sections`].

mod sections;
mod texts;

use clap::Command;

pub(crate) use sections::{Block, Kind, Section};

/// The command with the help texts that follow the options, in lines of `width`.
pub(crate) fn completed(command: Command, width: usize) -> Command {
    let mut built = command.clone();
    built.build();
    with_texts(command, &mut built, "gasp", width)
}

/// A command and its subcommands, `path` and below, with their texts. `built` is the same command.
fn with_texts(command: Command, built: &mut Command, path: &str, width: usize) -> Command {
    let command = command.after_help(sections::as_help(&sections(path), width));
    let subcommands = built.get_subcommands_mut().filter(|sub| sub.get_name() != "help");
    subcommands.fold(command, |command, built| {
        let name = built.get_name().to_owned();
        let (path, usage) = (page(path, &name), usage(built, width));
        command.mut_subcommand(name, |sub| match usage {
            Some(usage) => with_texts(sub, built, &path, width).override_usage(usage),
            None => with_texts(sub, built, &path, width),
        })
    })
}

/// The name of the manual page of a subcommand, without `gasp-`: `map`, `vdev-check`.
pub(crate) fn page(of: &str, subcommand: &str) -> String {
    match of {
        "gasp" => subcommand.to_owned(),
        other => format!("{other}-{subcommand}"),
    }
}

/// The usage of a command in several lines, if it does not fit into one.
fn usage(command: &mut Command, width: usize) -> Option<String> {
    const TITLE: &str = "Usage:";
    let usage = command.render_usage();
    if usage.to_string().chars().count() <= width {
        return None;
    }
    let usage = usage.ansi().to_string();
    // The colours of the title end before the space.
    let (_, usage) = usage.split_once(TITLE)?.1.split_once(' ')?;
    let breaks = |_, rest: &str| {
        let word = without_colours(rest);
        ["-", "[", "<-"].iter().any(|start| word.starts_with(start))
    };
    let indent = " ".repeat(TITLE.len() + 1);
    let lines = sections::wrapped_at(usage, breaks, width, &indent, &indent);
    Some(lines.join("\n").trim_start().to_owned())
}

/// The text after the colours at its start.
fn without_colours(mut text: &str) -> &str {
    while let Some((_, rest)) = text.strip_prefix("\x1b[").and_then(|text| text.split_once('m')) {
        text = rest;
    }
    text
}

/// The sections of the help text of a subcommand, by the name of its [`page`], or of `gasp` itself.
pub(crate) fn sections(command: &str) -> Vec<Section> {
    sections::parse(match command {
        "demo" => texts::DEMO,
        "probe" => texts::PROBE,
        "map" => texts::MAP,
        "audit" => texts::AUDIT,
        "broker" => texts::BROKER,
        "layout" => texts::LAYOUT,
        "serve" => texts::SERVE,
        "vm" => texts::VM,
        "status" => texts::STATUS,
        "vdev" => texts::VDEV,
        "vdev-check" => texts::VDEV_CHECK,
        "completions" => texts::COMPLETIONS,
        "man" => texts::MAN,
        _ => texts::GASP,
    })
}
