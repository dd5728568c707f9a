//! Output formats for events: lines of text, or JSON.

use core::fmt::Display;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::event::{Event, ServiceEvent, Snapshot};
use super::qemu;
use super::sink::{Intro, Row, Sink};
use crate::out::{Lost, Out};

/// The interval of totals in JSON, while they change.
const EVERY: Duration = Duration::from_secs(1);
/// The interval of totals in text, while they change.
const EVERY_LINE: Duration = Duration::from_secs(10);

/// A filter for totals: only those that have changed, at an interval.
struct ChangedTotals {
    every: Duration,
    last: Instant,
    reported: BTreeMap<Arc<str>, Snapshot>,
}

impl ChangedTotals {
    fn new(every: Duration) -> Self {
        Self { every, last: Instant::now(), reported: BTreeMap::new() }
    }

    fn take(&mut self, rows: &[Row]) -> Vec<(Arc<str>, Event)> {
        if self.last.elapsed() < self.every {
            return Vec::new();
        }
        self.last = Instant::now();
        let nothing = Snapshot::default();
        let changed = rows.iter().filter_map(|Row { name, now, .. }| {
            let reported = self.reported.get(name).unwrap_or(&nothing);
            (reported != now).then(|| (Arc::clone(name), Event::Totals(now.clone())))
        });
        let changed = changed.collect();
        self.reported = rows.iter().map(|row| (Arc::clone(&row.name), row.now.clone())).collect();
        changed
    }
}

/// stdout for reports and stderr for the log; lines that cannot be written are dropped.
struct Streams {
    reports: Out<File>,
    logs: Out<File>,
    lost: Lost,
}

impl Streams {
    fn open(lost: Lost) -> io::Result<Self> {
        Ok(Self { reports: Out::to(io::stdout())?, logs: Out::to(io::stderr())?, lost })
    }

    /// Writes a report; if others were lost before, first their number, formatted by `unwritten`.
    fn report(&mut self, line: &str, unwritten: impl Fn(&ServiceEvent) -> String) {
        let count = self.lost.take();
        if count > 0 && !self.write(&unwritten(&ServiceEvent::Unwritten { count })) {
            // This report was counted as lost, too.
            self.lost.restore(count - 1);
        }
        self.write(line);
    }

    fn write(&mut self, line: &str) -> bool {
        let written = self.reports.write(line);
        if let Err(error) = &written {
            // Once, as long as writes fail. This thread writes the log, so it cannot use it.
            self.log(&format!(
                "reports cannot be written: {}; the devices are still served\n",
                crate::output::system_words(error)
            ));
        }
        let written = matches!(written, Ok(true));
        if !written {
            self.lost.count();
        }
        written
    }

    fn log(&mut self, line: &str) {
        if !matches!(self.logs.write(line), Ok(true)) {
            self.lost.count();
        }
    }
}

/// JSON output, one object per line.
pub(super) struct Json {
    started: Instant,
    changes: ChangedTotals,
    streams: Streams,
}

#[derive(Serialize)]
struct JsonLine<'a, E> {
    at: f64,
    /// `None` if all devices are concerned.
    device: Option<&'a str>,
    #[serde(flatten)]
    event: &'a E,
}

impl Json {
    pub(super) fn new(lost: Lost) -> io::Result<Self> {
        let (started, changes) = (Instant::now(), ChangedTotals::new(EVERY));
        Ok(Self { started, changes, streams: Streams::open(lost)? })
    }

    fn line(&mut self, device: Option<&str>, event: &impl Serialize) {
        let at = (self.started.elapsed().as_secs_f64() * 1e6).round() / 1e6;
        let line = json(&JsonLine { at, device, event });
        self.streams.report(&line, |event| json(&JsonLine { at, device: None, event }));
    }
}

fn json(line: &impl Serialize) -> String {
    // It contains only numbers and strings, which can always be serialized.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

impl Sink for Json {
    fn added(&mut self, devices: &[Intro]) {
        for Intro { name, kind, socket } in devices {
            let mut qemu: Vec<String> = qemu::MEMORY.map(Into::into).into();
            qemu.push(qemu::device(socket));
            let socket = socket.to_string_lossy().into_owned();
            self.line(Some(name), &Event::Listening { kind, socket, qemu });
        }
    }

    fn event(&mut self, device: &str, event: &Event) {
        self.line(Some(device), event);
    }

    fn service_event(&mut self, event: &ServiceEvent) {
        self.line(None, event);
    }

    fn log(&mut self, line: &str) {
        self.streams.log(line);
    }

    fn totals(&mut self, rows: &[Row]) {
        for (name, event) in self.changes.take(rows) {
            self.line(Some(&name), &event);
        }
    }

    fn end(&mut self) {}
}

/// The text format of lines.
pub(super) struct Format {
    started: Instant,
    /// The length of the longest name.
    width: usize,
}

impl Format {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), width: 0 }
    }

    /// The arguments for QEMU, and a line for each new device.
    pub(super) fn added(&mut self, devices: &[Intro]) -> String {
        let longest = devices.iter().map(|intro| intro.name.chars().count()).max();
        self.width = self.width.max(longest.unwrap_or(0));
        let mut text = qemu::arguments(devices);
        text.push('\n');
        for Intro { name, kind, socket } in devices {
            let socket = socket.to_string_lossy().into_owned();
            text += &self.line(name, &Event::Listening { kind, socket, qemu: Vec::new() });
        }
        text
    }

    /// A line, with its newline. `device` is empty if all devices are concerned.
    pub(super) fn line(&self, device: &str, event: &impl Display) -> String {
        let (at, width) = (self.started.elapsed().as_secs_f64(), self.width);
        format!("{at:9.3}  {device:width$}  {event}\n")
    }
}

/// Text output to a file or a pipe.
pub(super) struct Text {
    format: Format,
    changes: ChangedTotals,
    streams: Streams,
}

impl Text {
    pub(super) fn new(lost: Lost) -> io::Result<Self> {
        let (format, changes) = (Format::new(), ChangedTotals::new(EVERY_LINE));
        Ok(Self { format, changes, streams: Streams::open(lost)? })
    }

    fn write(&mut self, text: &str) {
        self.streams.report(text, |event| self.format.line("", event));
    }
}

impl Sink for Text {
    fn added(&mut self, devices: &[Intro]) {
        let text = self.format.added(devices);
        self.write(&text);
    }

    fn event(&mut self, device: &str, event: &Event) {
        let line = self.format.line(device, event);
        self.write(&line);
    }

    fn service_event(&mut self, event: &ServiceEvent) {
        let line = self.format.line("", event);
        self.write(&line);
    }

    fn log(&mut self, line: &str) {
        self.streams.log(line);
    }

    fn totals(&mut self, rows: &[Row]) {
        for (name, event) in self.changes.take(rows) {
            self.event(&name, &event);
        }
    }

    fn end(&mut self) {}
}
