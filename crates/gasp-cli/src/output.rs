//! What is written to stdout: paragraphs and tables for a person, JSON for a program.
//!
//! Everything goes through [`io::Result`], so that a reader that goes away ends the
//! command quietly; `println!` would panic.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Row, Table};
use serde::Serialize;

/// The width of output that goes to no terminal.
const WIDTH: u16 = 100;
/// Lines longer than this are hard to read, however wide the terminal is.
const WIDTH_MAX: u16 = 120;
const WIDTH_MIN: u16 = 40;

/// Headings.
const BOLD: Style = Style::new().bold();
/// What matters less.
const DIM: Style = Style::new().dimmed();

/// A verdict's colour; its word says the same, for those who see no colour.
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

/// Where a command writes for a person. Colours are dropped where stdout is no terminal.
pub(crate) struct Page {
    out: anstream::AutoStream<io::StdoutLock<'static>>,
    width: u16,
}

impl Page {
    pub(crate) fn stdout() -> Self {
        let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0);
        let out = anstream::AutoStream::auto(io::stdout().lock());
        Self { out, width: width.clamp(WIDTH_MIN, WIDTH_MAX) }
    }

    /// A heading, with an empty line before it.
    pub(crate) fn heading(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "\n{BOLD}{text}{BOLD:#}")
    }

    /// A paragraph.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.rows([[text]])
    }

    /// A paragraph that matters less.
    pub(crate) fn note(&mut self, text: &str) -> io::Result<()> {
        write!(self.out, "{DIM}")?;
        self.rows([[text]])?;
        write!(self.out, "{DIM:#}")
    }

    /// What something is called, and what it is, one each line.
    pub(crate) fn pairs(&mut self, pairs: &[(&str, String)]) -> io::Result<()> {
        let name = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.rows(pairs.iter().map(|(text, value)| [format!("{text:name$}"), value.clone()]))
    }

    /// Columns under a header; those named in `right` are aligned right.
    pub(crate) fn table<R: Into<Row>>(
        &mut self,
        header: &[&str],
        right: &[usize],
        rows: impl IntoIterator<Item = R>,
    ) -> io::Result<()> {
        let mut table = self.plain(rows);
        table.set_header(header.iter().copied());
        for &index in right {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self.lines(&table, Some(BOLD))
    }

    /// A line as it is.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// A verdict and what it is about, wrapped beside it.
    pub(crate) fn verdict(
        &mut self,
        mark: Mark,
        word: &str,
        name: &str,
        text: &str,
    ) -> io::Result<()> {
        let mut table = self.plain([[name, word, text]]);
        for (index, width) in [22, 7].into_iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                let width = comfy_table::Width::Fixed(width + 2);
                column.set_constraint(comfy_table::ColumnConstraint::Absolute(width));
            }
        }
        let style = mark.style();
        for line in table.lines() {
            let line = line.trim_end().replacen(word, &format!("{style}{word}{style:#}"), 1);
            writeln!(self.out, " {line}")?;
        }
        Ok(())
    }

    /// What would help, under a verdict. It has the width of the page, so that a command
    /// in it can be copied.
    pub(crate) fn remedy(&mut self, text: &str) -> io::Result<()> {
        self.rows([["   →", text]])
    }

    /// Makes what was written so far visible.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn rows<R: Into<Row>>(&mut self, rows: impl IntoIterator<Item = R>) -> io::Result<()> {
        let table = self.plain(rows);
        self.lines(&table, None)
    }

    fn plain<R: Into<Row>>(&self, rows: impl IntoIterator<Item = R>) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(self.width - 1);
        for row in rows {
            table.add_row(row);
        }
        table
    }

    fn lines(&mut self, table: &Table, first: Option<Style>) -> io::Result<()> {
        let mut style = first.unwrap_or_default();
        for line in table.lines() {
            writeln!(self.out, "{style} {}{style:#}", line.trim_end())?;
            style = Style::new();
        }
        Ok(())
    }
}

/// Writes one JSON value over several lines, for a person to read as well.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}

/// Writes one JSON value in one line.
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}
