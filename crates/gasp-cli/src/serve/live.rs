//! The state of all devices, drawn anew below the lines of what happens.

use std::io;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::device::Served;
use super::event::{Event, Tell, thousands};
use super::log::{Lines, listening};
use super::qemu;
use super::totals::Totals;
use crate::output::Page;
use crate::quantity::length;

/// A view for a person at a terminal.
pub(super) struct Live {
    lines: Lines,
    view: MultiProgress,
    head: ProgressBar,
    rows: Vec<ProgressBar>,
    /// How long the longest name is.
    width: usize,
}

impl Live {
    pub(super) fn new(servers: &[Served]) -> Self {
        let view = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let row = |template: &str| {
            let bar = view.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        };
        let head = row("{wide_msg:.bold}");
        let rows = servers.iter().map(|_| row("{wide_msg}")).collect();
        let width = servers.iter().map(|server| server.name.len()).max().unwrap_or(0).max(6);
        Self { lines: Lines::new(servers), view, head, rows, width }
    }

    fn row(&self, name: &str, totals: &Totals) -> String {
        let Totals { now, rate, .. } = totals;
        let width = self.width;
        let pid = now.pid.map_or_else(|| "–".into(), |pid| pid.to_string());
        let drains = match now.draining {
            0 => thousands(now.drains),
            draining => format!("{} ({draining} now)", thousands(now.drains)),
        };
        format!(
            "{name:width$} {pid:>8} {:>10} {:>10} {:>8.0}/s {:>9} {:>7} {drains:>7}  {}",
            thousands(now.maps),
            thousands(now.unmaps),
            rate,
            length(now.window_bytes),
            thousands(now.faults),
            now.counted().join(", "),
        )
    }
}

impl Tell for Live {
    fn begin(&mut self, servers: &[Served]) -> io::Result<()> {
        // Before anything is drawn, and as it is, so that it can be copied.
        let mut page = Page::stdout();
        page.line(&qemu::arguments(servers))?;
        page.flush()?;
        drop(page);
        servers.iter().try_for_each(|server| self.event(server, &listening(server)))?;
        let width = self.width;
        self.head.set_message(format!(
            "{:width$} {:>8} {:>10} {:>10} {:>10} {:>9} {:>7} {:>7}  {}",
            "device", "VMM", "maps", "unmaps", "rate", "mapped", "faults", "drains", "counters"
        ));
        Ok(())
    }

    fn event(&mut self, server: &Served, event: &Event) -> io::Result<()> {
        self.view.println(self.lines.line(server, event))
    }

    fn totals(&mut self, servers: &[Served], totals: &[Totals]) -> io::Result<()> {
        for ((server, totals), bar) in servers.iter().zip(totals).zip(&self.rows) {
            let row = self.row(&server.name, totals);
            if bar.message() != row {
                bar.set_message(row);
            }
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.view.clear()
    }
}
