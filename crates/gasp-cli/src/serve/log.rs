//! What happens, one line each: for a person, or as JSON.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::device::Served;
use super::event::{Event, Snapshot, Tell};
use super::qemu;
use super::totals::Totals;
use crate::output::{self, Page};

/// How often totals are told while they change.
const EVERY: Duration = Duration::from_secs(1);
/// How often a person reads them.
const EVERY_LINE: Duration = Duration::from_secs(10);

/// The event that stands at the beginning.
pub(super) fn listening(server: &Served) -> Event {
    let mut qemu: Vec<String> = qemu::MEMORY.map(Into::into).into();
    qemu.push(qemu::device(&server.path));
    let socket = server.path.to_string_lossy().into_owned();
    Event::Listening { kind: server.kind, socket, qemu }
}

/// Tells totals only where they have changed, and not too often.
struct Changes {
    every: Duration,
    last: Instant,
    told: Vec<Snapshot>,
}

impl Changes {
    fn new(every: Duration) -> Self {
        Self { every, last: Instant::now(), told: Vec::new() }
    }

    fn take<'a>(&mut self, servers: &'a [Served], totals: &[Totals]) -> Vec<(&'a Served, Event)> {
        if self.last.elapsed() < self.every {
            return Vec::new();
        }
        self.last = Instant::now();
        let now: Vec<_> = totals.iter().map(|totals| totals.now.clone()).collect();
        let nothing = Snapshot::default();
        let changed = servers.iter().zip(&now).enumerate().filter_map(|(index, (server, now))| {
            let told = self.told.get(index).unwrap_or(&nothing);
            (told != now).then(|| (server, Event::Totals(now.clone())))
        });
        let changed = changed.collect();
        self.told = now;
        changed
    }
}

/// JSON, one object a line.
pub(super) struct Json {
    started: Instant,
    changes: Changes,
}

#[derive(Serialize)]
struct Line<'a> {
    at: f64,
    device: &'a str,
    #[serde(flatten)]
    event: &'a Event,
}

impl Json {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), changes: Changes::new(EVERY) }
    }
}

impl Tell for Json {
    fn begin(&mut self, servers: &[Served]) -> io::Result<()> {
        servers.iter().try_for_each(|server| self.event(server, &listening(server)))
    }

    fn event(&mut self, server: &Served, event: &Event) -> io::Result<()> {
        let at = (self.started.elapsed().as_secs_f64() * 1e6).round() / 1e6;
        output::json_line(&Line { at, device: &server.name, event })
    }

    fn totals(&mut self, servers: &[Served], totals: &[Totals]) -> io::Result<()> {
        let changed = self.changes.take(servers, totals);
        changed.iter().try_for_each(|(server, event)| self.event(server, event))
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines for a person who reads them later.
pub(super) struct Lines {
    started: Instant,
    /// How long the longest name is.
    width: usize,
    changes: Changes,
}

impl Lines {
    pub(super) fn new(servers: &[Served]) -> Self {
        let width = servers.iter().map(|server| server.name.len()).max().unwrap_or(0);
        Self { started: Instant::now(), width, changes: Changes::new(EVERY_LINE) }
    }

    /// One line, without its end.
    pub(super) fn line(&self, server: &Served, event: &Event) -> String {
        let (at, width) = (self.started.elapsed().as_secs_f64(), self.width);
        format!("{at:9.3}  {:width$}  {event}", server.name)
    }
}

impl Tell for Lines {
    fn begin(&mut self, servers: &[Served]) -> io::Result<()> {
        let mut page = Page::stdout();
        page.line(&qemu::arguments(servers))?;
        page.flush()?;
        drop(page);
        servers.iter().try_for_each(|server| self.event(server, &listening(server)))
    }

    fn event(&mut self, server: &Served, event: &Event) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", self.line(server, event))?;
        out.flush()
    }

    fn totals(&mut self, servers: &[Served], totals: &[Totals]) -> io::Result<()> {
        let changed = self.changes.take(servers, totals);
        changed.iter().try_for_each(|(server, event)| self.event(server, event))
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}
