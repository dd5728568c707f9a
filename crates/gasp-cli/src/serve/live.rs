//! The state of all devices, redrawn below the lines of events.
//!
//! ```text
//!     0.001  disk     nvme, listening on /tmp/disk.sock    scrolls
//!     3.214  disk     attached: process 4711
//! device     VMM  mapped  by message  …                    redrawn
//! disk      4711   1 GiB     0 bytes  …
//! ```
//!
//! The width of the terminal may change at any time, and rows that were drawn before may then
//! occupy more lines. Their number is computed from the widths of the rows and the current width
//! of the terminal; each row ends with a newline of its own.

use std::fs::File;
use std::io::{self, IsTerminal};

use anstyle::Style;
use terminal_size::{Height, Width, terminal_size_of};
use unicode_width::UnicodeWidthStr;

use super::event::{Event, ServiceEvent};
use super::log::Format;
use super::sink::{Intro, Row, Sink};
use super::table;
use crate::out::{Lost, Out};

/// The size of a terminal that does not report it.
const SIZE: (usize, usize) = (80, 24);

/// A live view on a terminal.
pub(super) struct Live {
    format: Format,
    out: Out<File>,
    /// stderr, if it is not a terminal.
    logs: Option<Out<File>>,
    lost: Lost,
    bold: Style,
    /// Lines of events to print at the next drawing.
    scrolls: String,
    drawn: Vec<String>,
    /// The terminal's width at the last drawing.
    width: usize,
}

impl Live {
    pub(super) fn new(lost: Lost) -> io::Result<Self> {
        let logs = match io::stderr().is_terminal() {
            true => None,
            false => Some(Out::to(io::stderr())?),
        };
        let plain = anstream::AutoStream::choice(&io::stdout()) == anstream::ColorChoice::Never;
        Ok(Self {
            format: Format::new(),
            out: Out::to(io::stdout())?,
            logs,
            lost,
            bold: if plain { Style::new() } else { Style::new().bold() },
            scrolls: String::new(),
            drawn: Vec::new(),
            width: 0,
        })
    }

    /// Prints the events since the last drawing, and draws the rows below them.
    fn draw(&mut self, rows: &[Row]) {
        let (width, height) = terminal_size_of(io::stdout())
            .map_or(SIZE, |(Width(width), Height(height))| (width.into(), height.into()));
        // A terminal that becomes wider would join a full line with the next one, and the
        // cursor needs a line of its own.
        let lines = match rows.is_empty() {
            true => Vec::new(),
            false => table::render(
                rows,
                usize::saturating_sub(width, 1),
                usize::saturating_sub(height, 1),
            ),
        };
        if self.scrolls.is_empty() && lines == self.drawn && width == self.width {
            return;
        }
        let mut text = erase(&self.drawn, width, height);
        text += &self.scrolls;
        let bold = self.bold;
        for (number, line) in lines.iter().enumerate() {
            match number {
                0 => text += &format!("{bold}{line}{bold:#}\n"),
                _ => text += &format!("{line}\n"),
            }
        }
        let written = self.out.write(&text);
        if !matches!(written, Ok(true)) {
            self.lost.count();
        }
        self.scrolls.clear();
        (self.drawn, self.width) = (lines, width);
    }
}

/// The control sequence that erases the drawn lines from a terminal that is now `width` columns
/// wide and `height` lines high. The cursor is at the start of the line below them.
fn erase(drawn: &[String], width: usize, height: usize) -> String {
    let lines: usize = drawn.iter().map(|line| line.width().div_ceil(width.max(1)).max(1)).sum();
    // Lines that have scrolled off the screen cannot be reached.
    let lines = lines.min(height.saturating_sub(1));
    let up = if lines == 0 { String::new() } else { format!("\x1b[{lines}A") };
    // Deletes them and the cursor's line, which may contain typed characters such as ^C. They
    // are not cleared: a terminal may keep a copy of cleared lines, or remember that a cleared
    // line continued on the next one.
    format!("\r{up}\x1b[{}M", lines + 1)
}

impl Sink for Live {
    fn added(&mut self, devices: &[Intro]) {
        // Not wrapped, so that it can be copied.
        self.scrolls += &self.format.added(devices);
    }

    fn event(&mut self, device: &str, event: &Event) {
        self.scrolls += &self.format.line(device, event);
    }

    fn service_event(&mut self, event: &ServiceEvent) {
        self.scrolls += &self.format.line("", event);
    }

    fn log(&mut self, line: &str) {
        match &mut self.logs {
            Some(logs) => {
                if !matches!(logs.write(line), Ok(true)) {
                    self.lost.count();
                }
            }
            None => self.scrolls += line,
        }
    }

    fn totals(&mut self, rows: &[Row]) {
        let count = self.lost.take();
        if count > 0 {
            self.service_event(&ServiceEvent::Unwritten { count });
        }
        self.draw(rows);
    }

    fn end(&mut self) {
        self.draw(&[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_a_narrower_terminal_has_wrapped_are_erased_completely() {
        let drawn = ["x".repeat(79), "y".repeat(40), String::new()];
        assert_eq!(erase(&drawn, 80, 24), "\r\x1b[3A\x1b[4M");
        assert_eq!(erase(&drawn, 120, 24), "\r\x1b[3A\x1b[4M");
        assert_eq!(erase(&drawn, 40, 24), "\r\x1b[4A\x1b[5M");
        assert_eq!(erase(&drawn, 30, 24), "\r\x1b[6A\x1b[7M");
        assert_eq!(erase(&drawn, 30, 5), "\r\x1b[4A\x1b[5M", "no further than the screen");
        assert_eq!(erase(&drawn, 0, 0), "\r\x1b[1M");
        assert_eq!(erase(&[], 80, 24), "\r\x1b[1M");
    }
}
