//! The reporting thread. Nothing waits for it, and thus for the reader of its output, except
//! the end of the process, for a moment.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::fleet::Fleet;
use super::outbox::{Inbox, Notice, Outbox};
use super::sink::{Row, Sink};
use crate::out::Lost;

/// The interval at which faults are polled and the live view is redrawn.
const TICK: Duration = Duration::from_millis(100);
/// How long the end of the process waits for the last reports.
const PATIENCE: Duration = Duration::from_secs(2);
/// The least time over which a rate is measured.
const SECOND: Duration = Duration::from_secs(1);

/// A handle to the reporting thread.
pub(super) struct Reporting {
    outbox: Outbox,
    /// Ends with the thread.
    done: Receiver<()>,
}

impl Reporting {
    /// Starts the thread, with reports on the devices of `fleet`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(sink: Box<dyn Sink>, fleet: Fleet, lost: Lost) -> io::Result<Self> {
        let (outbox, notices) = Outbox::new(lost);
        let (running, done) = mpsc::channel();
        let mut reporter = Reporter { notices, sink, fleet, rates: BTreeMap::new() };
        std::thread::Builder::new().name("reports".into()).spawn(move || {
            reporter.run();
            drop(running);
        })?;
        Ok(Self { outbox, done })
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Waits until all reports are written, but not long for a reader that does not read.
    pub(super) fn end(self) {
        self.outbox.send(Notice::End);
        let _ = self.done.recv_timeout(PATIENCE);
    }
}

struct Reporter {
    notices: Inbox,
    sink: Box<dyn Sink>,
    fleet: Fleet,
    rates: BTreeMap<Arc<str>, Rate>,
}

impl Reporter {
    fn run(&mut self) {
        let mut next = Instant::now();
        loop {
            match self.notices.next(next.saturating_duration_since(Instant::now())) {
                Ok(Notice::End) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(notice) => self.write(notice),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if next <= Instant::now() {
                self.poll();
                next = Instant::now() + TICK;
            }
        }
        self.sink.end();
    }

    fn write(&mut self, notice: Notice) {
        match notice {
            Notice::Added(devices) => self.sink.added(&devices),
            Notice::Event(device, event) => self.sink.event(&device, &event),
            Notice::ServiceEvent(event) => self.sink.service_event(&event),
            Notice::Log(line) => self.sink.log(&line),
            Notice::End => {}
        }
    }

    /// Reports the state of all devices, and their new faults.
    fn poll(&mut self) {
        let mut faults = Vec::new();
        // The fleet's lock is not held while something is written.
        let rows: Vec<_> = self.fleet.look(|served| {
            faults.extend(served.take_faults().map(|event| (Arc::clone(&served.name), event)));
            let now = served.snapshot();
            let rate = self.rates.entry(Arc::clone(&served.name)).or_default();
            Row {
                name: Arc::clone(&served.name),
                rate: rate.measure(now.status.maps + now.status.unmaps),
                now,
            }
        });
        self.rates.retain(|name, _| rows.iter().any(|row| row.name == *name));
        for (device, event) in faults {
            self.sink.event(&device, &event);
        }
        self.sink.totals(&rows);
    }
}

/// Maps and unmaps per second.
#[derive(Default)]
struct Rate {
    rate: f64,
    seen: Option<(Instant, u64)>,
}

impl Rate {
    /// The rate over about the last second; `moved` is the total number so far.
    fn measure(&mut self, moved: u64) -> f64 {
        let now = Instant::now();
        let (since, before) = *self.seen.get_or_insert((now, moved));
        let elapsed = now.duration_since(since);
        if elapsed >= SECOND {
            #[expect(clippy::cast_precision_loss, reason = "a rate, to be read by a person")]
            let moved_since = moved.saturating_sub(before) as f64;
            self.rate = moved_since / elapsed.as_secs_f64();
            self.seen = Some((now, moved));
        }
        self.rate
    }
}
