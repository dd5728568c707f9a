//! The queue of reports. Enqueueing never blocks.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use super::event::{Event, ServiceEvent};
use super::sink::Intro;
use crate::out::Lost;

/// The length of the queue at which reports that clients can cause are dropped and counted, so
/// that a misbehaving VMM costs no memory.
const BACKLOG: usize = 1024;

/// An entry of the queue.
pub(super) enum Notice {
    Added(Vec<Intro>),
    Event(Arc<str>, Event),
    ServiceEvent(ServiceEvent),
    Log(String),
    End,
}

/// The sending end of the queue.
#[derive(Clone)]
pub(super) struct Outbox {
    sender: Sender<Notice>,
    waiting: Arc<AtomicUsize>,
    lost: Lost,
}

impl Outbox {
    /// Both ends of a new queue.
    pub(super) fn new(lost: Lost) -> (Self, Inbox) {
        let (sender, receiver) = mpsc::channel();
        let waiting = Arc::<AtomicUsize>::default();
        (Self { sender, waiting: Arc::clone(&waiting), lost }, Inbox { receiver, waiting })
    }

    /// Reports new devices, before any VMM can attach.
    pub(super) fn added(&self, devices: Vec<Intro>) {
        self.send(Notice::Added(devices));
    }

    /// Reports an event of a device that this process has caused itself.
    pub(super) fn event(&self, device: &Arc<str>, event: Event) {
        self.send(Notice::Event(Arc::clone(device), event));
    }

    /// Reports an event that concerns all devices.
    pub(super) fn service_event(&self, event: ServiceEvent) {
        self.send(Notice::ServiceEvent(event));
    }

    /// Reports an event of a device that a VMM can cause any number of times; returns whether
    /// there was room for it.
    pub(super) fn offer(&self, device: &Arc<str>, event: Event) -> bool {
        self.has_room() && {
            self.event(device, event);
            true
        }
    }

    /// Enqueues a log line, if there is room.
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
        // An error means that the reporter has ended.
        let _ = self.sender.send(notice);
    }
}

/// The receiving end of the queue.
pub(super) struct Inbox {
    receiver: Receiver<Notice>,
    waiting: Arc<AtomicUsize>,
}

impl Inbox {
    /// The next entry, if one arrives in time.
    pub(super) fn next(&self, patience: Duration) -> Result<Notice, RecvTimeoutError> {
        let notice = self.receiver.recv_timeout(patience)?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Ok(notice)
    }
}
