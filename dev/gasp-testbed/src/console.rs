//! A guest's serial console: its lines with their times, and waits for a line.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// One line that a guest has written on its console.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// When its end arrived, since the start of QEMU.
    pub at: Duration,
    /// Its text, without the line end.
    pub text: String,
}

/// The console's output so far. Clones are the same console.
#[derive(Clone, Default)]
pub(crate) struct Console(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<Line>,
    /// The first line that nobody has waited for yet.
    next: usize,
    closed: bool,
}

/// The result of a wait for a line.
pub(crate) enum Waited {
    Found(Line),
    Closed,
    TimedOut,
}

impl Console {
    /// Reads `source` to its end, on this thread. Also prints each line to standard error if `echo`
    /// is set.
    pub(crate) fn read(&self, source: impl Read, started: Instant, echo: bool) {
        let mut source = BufReader::new(source);
        let mut bytes = Vec::new();
        while matches!(source.read_until(b'\n', &mut bytes), Ok(1..)) {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_string();
            bytes.clear();
            let line = Line { at: started.elapsed(), text };
            if echo {
                eprintln!("{:8.3} {}", line.at.as_secs_f64(), line.text);
            }
            self.lock().lines.push(line);
            self.0.changed.notify_all();
        }
        self.lock().closed = true;
        self.0.changed.notify_all();
    }

    /// Waits for a line that contains `marker`, after the last line that was found.
    pub(crate) fn wait_for(&self, marker: &str, until: Instant) -> Waited {
        let mut state = self.lock();
        let mut seen = state.next;
        loop {
            let mut unseen = state.lines.iter().enumerate().skip(seen);
            if let Some((at, line)) = unseen.find(|(_, line)| line.text.contains(marker)) {
                let line = line.clone();
                state.next = at + 1;
                return Waited::Found(line);
            }
            seen = state.lines.len();
            if state.closed {
                return Waited::Closed;
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return Waited::TimedOut;
            };
            self.0.changed.wait_for(&mut state, left);
        }
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lock().lines.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(waited: Waited) -> Option<String> {
        match waited {
            Waited::Found(line) => Some(line.text),
            Waited::Closed | Waited::TimedOut => None,
        }
    }

    #[test]
    fn lines_are_found_in_their_order_and_each_only_once() {
        let console = Console::default();
        console.read(&b"one\r\ntwo\r\none again\r\nlast"[..], Instant::now(), false);
        let wait = |marker| text(console.wait_for(marker, Instant::now()));
        assert_eq!(wait("one").as_deref(), Some("one"));
        assert_eq!(wait("one").as_deref(), Some("one again"));
        assert_eq!(wait("two"), None, "it is before the last one found");
        assert_eq!(wait("last").as_deref(), Some("last"));
        assert_eq!(console.lines().len(), 4);
    }

    #[test]
    fn waiting_ends_in_time_while_nothing_is_said() {
        let console = Console::default();
        let until = Instant::now() + Duration::from_millis(20);
        assert!(matches!(console.wait_for("any", until), Waited::TimedOut));
        assert!(Instant::now() >= until);
    }
}
