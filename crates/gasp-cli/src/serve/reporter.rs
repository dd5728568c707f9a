//! The thread that tells what happens. Nothing waits for it, and so for whoever reads what
//! it tells, but the end of the process, for a moment.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::event::{Event, News};
use super::fleet::Fleet;
use super::out::Lost;
use super::tell::{Intro, Row, Tell};

/// How often faults are looked for, and the view is drawn.
const TICK: Duration = Duration::from_millis(100);
/// How long the end waits for the last reports.
const PATIENCE: Duration = Duration::from_secs(2);
/// Reports of what devices and clients do that wait; more are dropped and counted, so that
/// a VMM that does much wrong costs no memory.
const BACKLOG: usize = 1024;
/// Over how long a rate is measured.
const SECOND: Duration = Duration::from_secs(1);

/// Something to tell.
enum Notice {
    Began(Vec<Intro>),
    Event(Arc<str>, Event),
    News(News),
    Log(String),
    End,
}

/// Where others put what is to be told.
#[derive(Clone)]
pub(super) struct Outbox {
    sender: Sender<Notice>,
    waiting: Arc<AtomicUsize>,
    lost: Lost,
}

impl Outbox {
    /// Devices are there, and no VMM is yet.
    pub(super) fn began(&self, devices: Vec<Intro>) {
        self.send(Notice::Began(devices));
    }

    /// Something happened to a device by our own doing.
    pub(super) fn event(&self, device: &Arc<str>, event: Event) {
        self.send(Notice::Event(Arc::clone(device), event));
    }

    /// Something happened to all of them.
    pub(super) fn news(&self, news: News) {
        self.send(Notice::News(news));
    }

    /// Something happened to a device that its VMM may have happen without end; returns
    /// whether it will be told.
    pub(super) fn offer(&self, device: &Arc<str>, event: Event) -> bool {
        self.has_room() && {
            self.event(device, event);
            true
        }
    }

    /// A log line.
    pub(super) fn log(&self, line: &[u8]) {
        match self.has_room() {
            true => self.send(Notice::Log(String::from_utf8_lossy(line).into_owned())),
            false => self.lost.count(),
        }
    }

    fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < BACKLOG
    }

    fn send(&self, notice: Notice) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // After the end there is nobody to tell.
        let _ = self.sender.send(notice);
    }
}

/// The thread, as its starter sees it.
pub(super) struct Reporting {
    outbox: Outbox,
    /// Ends with the thread.
    done: Receiver<()>,
}

impl Reporting {
    /// Starts to tell what happens to the fleet.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(tell: Box<dyn Tell>, fleet: Fleet, lost: Lost) -> io::Result<Self> {
        let (sender, notices) = mpsc::channel();
        let waiting = Arc::<AtomicUsize>::default();
        let outbox = Outbox { sender, waiting: Arc::clone(&waiting), lost };
        let (running, done) = mpsc::channel();
        let mut reporter = Reporter { notices, waiting, tell, fleet, rates: BTreeMap::new() };
        std::thread::Builder::new().name("reports".into()).spawn(move || {
            reporter.run();
            drop(running);
        })?;
        Ok(Self { outbox, done })
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Waits until everything is told, or for a reader that does not read no longer than
    /// it deserves.
    pub(super) fn end(self) {
        self.outbox.send(Notice::End);
        let _ = self.done.recv_timeout(PATIENCE);
    }
}

struct Reporter {
    notices: Receiver<Notice>,
    waiting: Arc<AtomicUsize>,
    tell: Box<dyn Tell>,
    fleet: Fleet,
    rates: BTreeMap<Arc<str>, Rate>,
}

impl Reporter {
    fn run(&mut self) {
        let mut next = Instant::now();
        loop {
            match self.notices.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Notice::End) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(notice) => self.tell(notice),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if next <= Instant::now() {
                self.look();
                next = Instant::now() + TICK;
            }
        }
        self.tell.end();
    }

    fn tell(&mut self, notice: Notice) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        match notice {
            Notice::Began(devices) => self.tell.began(&devices),
            Notice::Event(device, event) => self.tell.event(&device, &event),
            Notice::News(news) => self.tell.news(&news),
            Notice::Log(line) => self.tell.log(&line),
            Notice::End => {}
        }
    }

    /// Tells how all devices stand, and the faults that nobody has told yet.
    fn look(&mut self) {
        let mut faults = Vec::new();
        // Nothing is written under the fleet's lock.
        let rows: Vec<_> = self.fleet.look(|served| {
            faults.extend(served.take_faults().map(|event| (Arc::clone(&served.name), event)));
            let now = served.snapshot();
            let rate = self.rates.entry(Arc::clone(&served.name)).or_default();
            Row { name: Arc::clone(&served.name), rate: rate.measure(now.maps + now.unmaps), now }
        });
        self.rates.retain(|name, _| rows.iter().any(|row| row.name == *name));
        for (device, event) in faults {
            self.tell.event(&device, &event);
        }
        self.tell.totals(&rows);
    }
}

/// Maps and unmaps each second.
#[derive(Default)]
struct Rate {
    rate: f64,
    seen: Option<(Instant, u64)>,
}

impl Rate {
    /// The rate over the last second or so, from the number so far.
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
