//! A translator that the test answers.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use gasp::{Access, DeviceAddr, MapFlags, PageTables, Reason, Translator, Vdev};
use parking_lot::Mutex;

use super::*;

pub(crate) const READ: MapFlags = MapFlags::READ;

/// A translator that is answered by the test: it sends what it is asked, and waits.
pub(crate) struct Peer {
    asked: Mutex<Sender<(DeviceAddr, Sender<Answer>)>>,
}

impl Translator for Peer {
    fn translate(&self, _: &PageTables<'_>, addr: DeviceAddr, _: Access) -> Answer {
        let (answer, answered) = channel();
        self.asked.lock().send((addr, answer)).unwrap();
        answered.recv_timeout(LONG).unwrap()
    }
}

pub(crate) type Questions = Receiver<(DeviceAddr, Sender<Answer>)>;

pub(crate) fn peer() -> (gasp::Guest, Domain, Vdev, Questions) {
    let (guest, _ram) = iommu_guest(16 * PAGE);
    let (asked, questions) = channel();
    let peer = Arc::new(Peer { asked: Mutex::new(asked) });
    let domain = guest.domain("domain", DomainOptions::ask(peer)).unwrap();
    let disk = guest.vdev("disk").unwrap();
    drop(disk.attach(&domain).unwrap());
    (guest, domain, disk, questions)
}

pub(crate) fn next(questions: &Questions) -> (DeviceAddr, Sender<Answer>) {
    questions.recv_timeout(LONG).unwrap()
}

/// What a map of one byte at a page leads to, on a thread of its own.
pub(crate) fn mapping(disk: &Vdev, page: u64) -> thread::JoinHandle<Result<u64, Reason>> {
    let disk = disk.clone();
    thread::spawn(move || {
        let mapped = disk.map(DeviceAddr(page * PAGE), 1, READ);
        mapped.map(|mapping| mapping.object_offset() / PAGE).map_err(|error| error.reason())
    })
}

pub(crate) fn quiet(questions: &Questions) {
    assert!(questions.recv_timeout(Duration::from_millis(100)).is_err(), "nobody asks");
}
