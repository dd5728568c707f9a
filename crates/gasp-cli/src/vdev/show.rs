//! The result of a check, for people.

use std::io;

use super::factory::meaning;
use super::record::Record;
use super::report::{Factory, Placed, Severity};
use crate::output::{Mark, Printer};
use crate::quantity::{length, several};

/// The most lines of the vdev's own that are shown.
const LINES_MAX: usize = 20;

/// Writes it to stdout.
pub(super) fn show(record: &Record) -> io::Result<()> {
    let mut out = Printer::stdout();
    if let Some(factory) = &record.factory {
        out.pairs(&pairs(factory, record))?;
    }
    let log = record.log.iter().map(|message| format!("{}: {}", message.level, message.text));
    lines(&mut out, "Its log", log.collect())?;
    lines(&mut out, "Its status", record.status.lines().map(Into::into).collect())?;
    lines(&mut out, "What it prints", record.printed.lines().map(Into::into).collect())?;
    if !record.findings.is_empty() {
        out.heading("Findings")?;
    }
    for finding in &record.findings {
        let (mark, word) = match finding.severity {
            Severity::Error => (Mark::Bad, "error"),
            Severity::Warning => (Mark::Fair, "warning"),
            Severity::Note => (Mark::Good, "note"),
        };
        let call = finding.call.as_ref().map_or_else(String::new, |call| format!("{call}: "));
        out.finding(mark, word, &format!("{call}{}", finding.message))?;
        if let Some(advice) = &finding.advice {
            out.remedy(advice)?;
        }
    }
    out.line("")?;
    out.text(&verdict(record))?;
    out.flush()
}

fn pairs(factory: &Factory, record: &Record) -> Vec<(&'static str, String)> {
    let options = factory.options.iter().map(|option| match option.argument {
        true => format!("{} ARGUMENT", option.name),
        false => option.name.clone(),
    });
    let flags = factory.flags.iter().map(|name| format!("{name} ({})", meaning(name)));
    let widths = factory.access_widths.iter().map(u32::to_string);
    let mut pairs = vec![
        ("vdev", factory.name.clone()),
        ("file", factory.file.clone()),
        ("edition", factory.edition.clone()),
        ("options", listed(options)),
        ("flags", listed(flags)),
        ("callbacks", listed(factory.callbacks.iter().cloned())),
        (
            "accesses",
            match &*factory.access_widths {
                [1] => "1 byte".into(),
                _ => format!("{} bytes", listed(widths)),
            },
        ),
        ("state", length(factory.extra_space.into())),
    ];
    if let Some(place) = &record.place {
        pairs.push(("registers", at(place)));
        if let Some(line) = place.line {
            pairs.push(("interrupt", format!("ioapic:{line}")));
        }
    }
    pairs.push(("tried", tried(record)));
    pairs
}

fn listed(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    if words.is_empty() { "none".into() } else { words.join(", ") }
}

fn at(place: &Placed) -> String {
    let Placed { space, start, bytes: len, chosen, .. } = place;
    let start = start.map_or_else(String::new, |start| format!(":{start:#x}"));
    let chosen = if *chosen { ", chosen by this check" } else { "" };
    format!("{} at {space}{start}{chosen}", length(*len))
}

fn tried(record: &Record) -> String {
    let Record { calls, reads, writes, .. } = record;
    let (reads, writes) = (*reads as usize, *writes as usize);
    let calls = several(calls.len(), "call");
    format!("{calls} of control, {}, {}", several(reads, "read"), several(writes, "write"))
}

fn lines(out: &mut Printer, heading: &str, lines: Vec<String>) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    out.heading(heading)?;
    for line in lines.iter().take(LINES_MAX) {
        out.text(line)?;
    }
    match lines.len().saturating_sub(LINES_MAX) {
        0 => Ok(()),
        more => out.note(&format!("and {more} lines more, in --json")),
    }
}

fn verdict(record: &Record) -> String {
    let counts = [(Severity::Error, "error"), (Severity::Warning, "warning")];
    let counts = counts.map(|(severity, word)| (record.count(severity), word));
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, word)| several(count, word)).collect();
    match counts.is_empty() {
        true => "no errors, no warnings".into(),
        false => counts.join(", "),
    }
}
