//! Progress on a terminal, for operations that take longer than a second.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gasp::RamProgress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Operations that end sooner show nothing.
const DELAY: Duration = Duration::from_secs(1);
/// The interval at which the elapsed time is redrawn.
const TICK: Duration = Duration::from_millis(200);

/// A line on stderr, if that is a terminal, with the operation and its elapsed time or
/// progress. Dropping it erases the line; nothing else may be written before.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// The thread that shows the bar once it is time. Dropping the sender ends it.
    starter: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Starts an operation.
    pub(crate) fn start(what: &str) -> Self {
        let terminal = io::stderr().is_terminal();
        Self::on(what, terminal.then(ProgressDrawTarget::stderr), DELAY)
    }

    fn on(what: &str, target: Option<ProgressDrawTarget>, time: Duration) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(style("{spinner} {msg}, {elapsed}"));
        bar.set_message(what.to_owned());
        let starter = target.and_then(|target| show_after(bar.clone(), target, time));
        Self { bar, starter }
    }

    /// Shows the progress of the creation of RAM.
    pub(crate) fn ram(&self, progress: RamProgress) {
        if self.starter.is_none() {
            return;
        }
        if progress.done < progress.total {
            self.steps(progress.done, progress.total);
            self.bar.set_style(style(
                "{spinner} {msg} {wide_bar} {binary_bytes} of {binary_total_bytes}, {eta} left",
            ));
            self.bar.set_message(format!("RAM of {} pages", progress.backing));
        } else {
            // Pinning and reading the addresses take about as long again.
            self.bar.set_style(style("{spinner} {msg}, {elapsed}"));
            self.bar.set_message("pinning the RAM and reading its addresses");
        }
    }

    fn steps(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.starter.take() {
            drop(done);
            // It only waits; a panic would have been printed.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

/// Shows the bar after a time, unless its owner is dropped before.
fn show_after(
    bar: ProgressBar,
    target: ProgressDrawTarget,
    time: Duration,
) -> Option<(Sender<()>, JoinHandle<()>)> {
    let (done, wait) = mpsc::channel::<()>();
    let show = move || {
        if wait.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
            bar.set_draw_target(target);
            bar.enable_steady_tick(TICK);
        }
    };
    // Without a thread no progress is shown, and nothing else is lost.
    let thread = thread::Builder::new().name("progress".into()).spawn(show).ok()?;
    Some((done, thread))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Drops values that take long to release, such as gigabytes of memory.
pub(crate) fn release<T>(things: T) {
    let _progress = Progress::start("releasing memory");
    drop(things);
}

#[cfg(test)]
mod tests {
    use super::*;
    use gasp::Backing;
    use indicatif::InMemoryTerm;
    use std::time::Instant;

    fn target(terminal: &InMemoryTerm) -> ProgressDrawTarget {
        ProgressDrawTarget::term_like(Box::new(terminal.clone()))
    }

    fn shows(terminal: &InMemoryTerm, text: &str) -> bool {
        (0..1000).any(|_| {
            thread::sleep(Duration::from_millis(10));
            terminal.contents().contains(text)
        })
    }

    #[test]
    fn a_long_operation_shows_its_progress_and_erases_it_at_the_end() {
        let terminal = InMemoryTerm::new(5, 80);
        let progress = Progress::on("mapping", Some(target(&terminal)), Duration::ZERO);
        assert!(shows(&terminal, "mapping, "));
        let ram = |done| RamProgress { backing: Backing::Base, done, total: 2 << 30 };
        progress.ram(ram(1 << 30));
        assert!(shows(&terminal, "RAM of 4K pages"));
        assert!(shows(&terminal, "1.00 GiB of 2.00 GiB"));
        progress.ram(ram(2 << 30));
        assert!(shows(&terminal, "pinning the RAM"));
        drop(progress);
        assert_eq!(terminal.contents().trim(), "");
    }

    #[test]
    fn a_short_operation_shows_nothing_and_does_not_wait() {
        let terminal = InMemoryTerm::new(5, 80);
        let (started, time) = (Instant::now(), Duration::from_secs(20));
        drop(Progress::on("mapping", Some(target(&terminal)), time));
        assert!(started.elapsed() < time / 2, "it waited to be shown");
        assert_eq!(terminal.contents(), "");
    }
}
