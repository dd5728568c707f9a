//! What is to be told, until the reporter tells it. Nobody who puts something in waits.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use super::event::{Event, News};
use super::out::Lost;
use super::tell::Intro;

/// Reports of what devices and clients do that wait; more are dropped and counted, so that
/// a VMM that does much wrong costs no memory.
const BACKLOG: usize = 1024;

/// Something to tell.
pub(super) enum Notice {
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
    /// An outbox, and its other end.
    pub(super) fn new(lost: Lost) -> (Self, Inbox) {
        let (sender, receiver) = mpsc::channel();
        let waiting = Arc::<AtomicUsize>::default();
        (Self { sender, waiting: Arc::clone(&waiting), lost }, Inbox { receiver, waiting })
    }

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

    pub(super) fn send(&self, notice: Notice) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // After the end there is nobody to tell.
        let _ = self.sender.send(notice);
    }
}

/// Where the reporter takes it from.
pub(super) struct Inbox {
    receiver: Receiver<Notice>,
    waiting: Arc<AtomicUsize>,
}

impl Inbox {
    /// The next notice, if one comes in time.
    pub(super) fn next(&self, patience: Duration) -> Result<Notice, RecvTimeoutError> {
        let notice = self.receiver.recv_timeout(patience)?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Ok(notice)
    }
}
