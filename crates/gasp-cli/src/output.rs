//! Output to stdout: paragraphs and tables for people, JSON for programs.
//!
//! Everything returns [`io::Result`], so that a closed pipe ends the command quietly, where
//! `println!` would panic. An error says that it concerns the output.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::Row;
use gasp::Errno;
use serde::Serialize;
use terminal_size::{Width, terminal_size_of};

use crate::columns::{self, Columns};

/// The width of output that goes to no terminal, unless `COLUMNS` is set.
const WIDTH: u16 = 100;
/// The longest lines, however wide the terminal is; longer ones are hard to read.
const WIDTH_MAX: u16 = 120;
const WIDTH_MIN: u16 = 40;
/// On narrower output, the text of a verdict is below it.
const NARROW: usize = 72;

/// The style of headings.
const BOLD: Style = Style::new().bold();
/// The style of notes.
const DIM: Style = Style::new().dimmed();

/// A verdict's colour. Its word says the same, for output without colours.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// All is well.
    Good,
    /// It works, but not as well as it could.
    Fair,
    /// It does not work.
    Bad,
}

impl Mark {
    pub(crate) fn style(self) -> Style {
        let colour = match self {
            Self::Good => AnsiColor::Green,
            Self::Fair => AnsiColor::Yellow,
            Self::Bad => AnsiColor::Red,
        };
        Style::new().fg_color(Some(colour.into()))
    }
}

/// The width of a line: the terminal's, or `COLUMNS`, within limits.
pub(crate) fn width() -> usize {
    let terminal = terminal_size_of(io::stdout()).map(|(Width(width), _)| width);
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    let width = terminal.or_else(columns).unwrap_or(WIDTH);
    usize::from(width.clamp(WIDTH_MIN, WIDTH_MAX))
}

/// stdout, whose errors say that the output could not be written.
pub(crate) struct Stdout(io::StdoutLock<'static>);

/// The output could not be written. The error keeps its kind.
#[derive(Debug, thiserror::Error)]
#[error("the output cannot be written: {}", system_words(.0))]
struct Unwritten(io::Error);

/// The system's message for an error, without its number, and what would help.
pub(crate) fn system_words(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(errno) => gasp::system_words(errno),
        None => error.to_string(),
    }
}

/// stdout, locked.
pub(crate) fn stdout() -> Stdout {
    Stdout(io::stdout().lock())
}

fn unwritten(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Unwritten(error))
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(unwritten)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(unwritten)
    }
}

/// Text output for people. Colours are dropped if stdout is not a terminal.
pub(crate) struct Printer {
    out: Box<dyn Write>,
    width: usize,
}

impl Printer {
    pub(crate) fn stdout() -> Self {
        let mut out: Box<dyn Write> = Box::new(stdout());
        if anstream::AutoStream::choice(&io::stdout()) == anstream::ColorChoice::Never {
            out = Box::new(anstream::StripStream::new(out));
        }
        Self { out, width: width() }
    }

    /// Writes a heading, with an empty line before it.
    pub(crate) fn heading(&mut self, text: &str) -> io::Result<()> {
        let lines = columns::wrapped(text, self.width, "", "");
        writeln!(self.out)?;
        lines.iter().try_for_each(|line| writeln!(self.out, "{BOLD}{line}{BOLD:#}"))
    }

    /// Writes a paragraph.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.wrapped(text, "  ", "  ")
    }

    /// Writes a paragraph of less importance.
    pub(crate) fn note(&mut self, text: &str) -> io::Result<()> {
        write!(self.out, "{DIM}")?;
        self.text(text)?;
        write!(self.out, "{DIM:#}")
    }

    /// Writes names and values, a pair on each line.
    pub(crate) fn pairs(&mut self, pairs: &[(&str, String)]) -> io::Result<()> {
        let name = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let rest = " ".repeat(name + 4);
        pairs
            .iter()
            .try_for_each(|(text, value)| self.wrapped(value, &format!("  {text:name$}  "), &rest))
    }

    /// Writes columns under a header; those with an index in `right` are aligned right.
    pub(crate) fn table<R: Into<Row>>(
        &mut self,
        header: &[&str],
        right: &[usize],
        rows: impl IntoIterator<Item = R>,
    ) -> io::Result<()> {
        let rows = rows.into_iter().map(Into::into).collect();
        let table = Columns { header, right, rows };
        let (head, lines) = table.lines(self.width - 1);
        for line in head {
            writeln!(self.out, "{BOLD} {line}{BOLD:#}")?;
        }
        lines.iter().try_for_each(|line| writeln!(self.out, " {line}"))
    }

    /// Writes a line without wrapping it.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Writes a verdict on `name`, with a text next to it or below it.
    pub(crate) fn verdict(
        &mut self,
        mark: Mark,
        word: &str,
        name: &str,
        text: &str,
    ) -> io::Result<()> {
        let style = mark.style();
        if self.width < NARROW {
            writeln!(self.out, "  {name:22}  {style}{word}{style:#}")?;
            return self.wrapped(text, "    ", "    ");
        }
        let head = format!("  {name:22}  {style}{word:7}{style:#}");
        let indent = " ".repeat(35);
        let lines = columns::wrapped(text, self.width, &indent, &indent);
        let first = lines.first().map_or("", |line| line.trim_start());
        writeln!(self.out, "{}", format!("{head}  {first}").trim_end())?;
        lines.iter().skip(1).try_for_each(|line| writeln!(self.out, "{line}"))
    }

    /// Writes something that is wrong.
    pub(crate) fn finding(&mut self, mark: Mark, word: &str, text: &str) -> io::Result<()> {
        let style = mark.style();
        self.wrapped(text, &format!("  {style}{word}{style:#}: "), "     ")
    }

    /// Writes what would help, under a verdict, at the full width, so that a
    /// command in it can be copied.
    pub(crate) fn remedy(&mut self, text: &str) -> io::Result<()> {
        self.wrapped(text, "     → ", "       ")
    }

    /// Flushes what has been written so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn wrapped(&mut self, text: &str, first: &str, rest: &str) -> io::Result<()> {
        let lines = columns::wrapped(text, self.width, first, rest);
        lines.iter().try_for_each(|line| writeln!(self.out, "{line}"))
    }
}

/// Writes a text to stdout without wrapping it; colours are dropped if it is not a terminal.
pub(crate) fn text(text: &str) -> io::Result<()> {
    let mut printer = Printer::stdout();
    write!(printer.out, "{text}")?;
    printer.flush()
}

/// Writes a JSON value on several lines, readable for people as well.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    let mut out = stdout();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}

/// Writes a JSON value on one line.
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<()> {
    let mut out = stdout();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}
