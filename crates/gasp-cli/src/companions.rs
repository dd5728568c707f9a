//! Shell completions and manual pages.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::failure::Failure;
use crate::help::{self, Block, Kind, Section};
use crate::output;

/// The date of the release, or of the manual's last change before it. A constant, so that
/// builds are reproducible; `SOURCE_DATE_EPOCH` overrides it.
const DATE: &str = "2026-11-29";

/// Arguments of `gasp completions`.
#[derive(clap::Args)]
pub(crate) struct CompletionsArgs {
    /// Shell to complete for
    shell: Shell,
}

/// Arguments of `gasp man`.
#[derive(clap::Args)]
pub(crate) struct ManArgs {
    /// Directory for the pages, created if missing
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Writes the completions for one shell to stdout.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "gasp", &mut text);
    write_out(&text)
}

/// Writes the manual pages of the command and of each subcommand to a directory; or only the
/// first of them, to stdout.
pub(crate) fn man(args: &ManArgs, mut command: Command) -> Result<(), Failure> {
    command.build();
    let date = date()?;
    let Some(folder) = &args.out else { return write_out(&page(&command, "gasp", &date)?) };
    fs::create_dir_all(folder)
        .map_err(Failure::unwritable("cannot create the directory", folder))?;
    write_pages(&command, "gasp", &date, folder)
}

/// Writes the page of a command, and those of its subcommands.
fn write_pages(command: &Command, name: &str, date: &str, folder: &Path) -> Result<(), Failure> {
    let file = match name {
        "gasp" => folder.join("gasp.1"),
        name => folder.join(format!("gasp-{name}.1")),
    };
    let text = page(command, name, date)?;
    fs::write(&file, text).map_err(Failure::unwritable("cannot write", &file))?;
    let mut pages = command.get_subcommands().filter(|sub| sub.get_name() != "help");
    pages.try_for_each(|sub| write_pages(sub, &help::page(name, sub.get_name()), date, folder))
}

/// A manual page in roff.
fn page(command: &Command, name: &str, date: &str) -> io::Result<Vec<u8>> {
    let source = concat!("gasp ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).date(date).source(source).manual("Manual of gasp");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    let sections = help::sections(name);
    let write = |kind, title, text: &mut Vec<u8>| {
        let mut roff = Roff::new();
        let mut sections = sections.iter().filter(|section| section.kind == kind).peekable();
        if let (Some(title), Some(_)) = (title, sections.peek()) {
            roff.control("SH", [title]);
        }
        sections.for_each(|section| add(&mut roff, section));
        roff.to_writer(text)
    };
    write(Kind::Description, None, &mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    write(Kind::Json, Some("JSON OUTPUT"), &mut text)?;
    write(Kind::ExitStatus, Some("EXIT STATUS"), &mut text)?;
    write(Kind::Examples, Some("EXAMPLES"), &mut text)?;
    let mut roff = Roff::new();
    let other = if name == "gasp" { "gasp-demo(1), gasp-probe(1)" } else { "gasp(1)" };
    roff.control("SH", ["SEE ALSO"]).text([roman(other)]);
    roff.to_writer(&mut text)?;
    Ok(text)
}

fn add(roff: &mut Roff, section: &Section) {
    for block in &section.blocks {
        match block {
            // The section's title already says this.
            Block::Paragraph(text)
                if ["Example", "Exit status"].iter().any(|head| text.starts_with(head)) => {}
            // It follows a heading, which starts a paragraph by itself.
            Block::Paragraph(text) if section.kind != Kind::Description => {
                roff.text([roman(text.as_str())]);
            }
            Block::Paragraph(text) => {
                roff.control("PP", []).text([roman(text.as_str())]);
            }
            Block::Lines(lines) => {
                roff.control("nf", []);
                for line in lines {
                    roff.text([roman(line.as_str())]);
                }
                roff.control("fi", []);
            }
            Block::Terms(terms) => {
                for (term, meaning) in terms {
                    roff.control("TP", []).text([roman(term.as_str())]);
                    roff.text([roman(meaning.as_str())]);
                }
            }
        }
    }
}

/// The date of the pages: `YYYY-MM-DD`.
fn date() -> Result<String, Failure> {
    const VARIABLE: &str = "SOURCE_DATE_EPOCH";
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(DATE.into()) };
    let seconds = text.parse().ok().filter(|seconds| *seconds < 253_402_300_800);
    let wrong = || Failure::Usage(format!("{VARIABLE}: expected seconds since 1970, not {text:?}"));
    seconds.map(day).ok_or_else(wrong)
}

/// The date of a time in seconds since 1970.
fn day(seconds: u64) -> String {
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds));
    text.to_string().chars().take_while(|letter| *letter != 'T').collect()
}

fn write_out(text: &[u8]) -> Result<(), Failure> {
    let mut out = output::stdout();
    out.write_all(text)?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_the_pages_is_that_of_the_release() {
        let changelog = include_str!("../../../CHANGELOG.md");
        let heading = format!("## {} (", env!("CARGO_PKG_VERSION"));
        let date = changelog.lines().find_map(|line| line.strip_prefix(&heading)).unwrap();
        let date = date.trim_end_matches(')');
        assert!(date == "unreleased" || date == DATE, "{date} in CHANGELOG.md, {DATE} here");
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(1_795_564_799), "2026-11-24");
    }
}
