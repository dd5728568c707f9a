//! A progress bar for what takes longer than a second, where a person sees it.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use gasp::memory::RamProgress;
use indicatif::{ProgressBar, ProgressStyle};

/// What is over sooner shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows how far the making of RAM has come, on stderr, where that is a terminal.
pub(crate) struct Waiting {
    started: Instant,
    terminal: bool,
    bar: Option<ProgressBar>,
}

impl Waiting {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), terminal: io::stderr().is_terminal(), bar: None }
    }

    /// Takes note of one report.
    pub(crate) fn note(&mut self, progress: RamProgress) {
        if !self.terminal || self.started.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(progress.total);
            let shape = "{msg} {wide_bar} {binary_bytes} of {binary_total_bytes}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(shape) {
                bar.set_style(style);
            }
            bar
        });
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        bar.set_message(format!("RAM of {} pages", progress.backing));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
