//! Asynchronous events (NVMe 1.4, 5.2): requests that wait until there is something to report.

use std::collections::VecDeque;

use super::log;
use super::status::Status;

/// The maximum number of requests that wait at a time.
pub(super) const REQUESTS_MAX: u8 = 4;

/// What the controller reports: errors that belong to no command, and its health.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// A doorbell of a queue that does not exist was written.
    NoSuchDoorbell,
    /// An invalid value was written to a doorbell.
    BadDoorbellValue,
    /// The temperature has passed a threshold.
    Temperature,
}

/// In the order in which they are reported.
const ALL: [Event; 3] = [Event::NoSuchDoorbell, Event::BadDoorbellValue, Event::Temperature];

impl Event {
    /// Its type, its information within the type, and the log page that has details and clears the
    /// type.
    const fn fields(self) -> (u8, u8, u8) {
        match self {
            Self::NoSuchDoorbell => (0, 0, log::ERRORS),
            Self::BadDoorbellValue => (0, 1, log::ERRORS),
            Self::Temperature => (1, 1, log::HEALTH),
        }
    }

    fn result(self) -> u32 {
        let (kind, information, page) = self.fields();
        u32::from_le_bytes([kind, information, page, 0])
    }
}

/// Requests and events.
#[derive(Debug, Default)]
pub(super) struct Events {
    requests: VecDeque<u16>,
    aborted: VecDeque<u16>,
    /// A bit for each event.
    pending: u8,
    /// A bit for each type that was reported and has not been cleared.
    masked: u8,
}

impl Events {
    /// Adds a request that waits for an event.
    pub(super) fn request(&mut self, command: u16) -> Result<(), Status> {
        if self.requests.len() >= usize::from(REQUESTS_MAX) {
            return Err(Status::TOO_MANY_EVENT_REQUESTS);
        }
        self.requests.push_back(command);
        Ok(())
    }

    /// Aborts a request, if it waits.
    pub(super) fn abort(&mut self, command: u16) -> bool {
        let waiting = self.requests.iter().position(|request| *request == command);
        let aborted = waiting.and_then(|at| self.requests.remove(at));
        // At most as many as a batch of commands aborts: without a free completion queue entry, no
        // command is fetched.
        self.aborted.extend(aborted);
        aborted.is_some()
    }

    pub(super) fn raise(&mut self, event: Event) {
        self.pending |= 1 << event as u8;
    }

    /// The guest has read a log page: the types that it clears can be reported again.
    pub(super) fn clear(&mut self, page: u8) {
        for (kind, _, told_by) in ALL.map(Event::fields) {
            if told_by == page {
                self.masked &= !(1 << kind);
            }
        }
    }

    /// The next request to complete: its identifier, result and status.
    pub(super) fn next(&mut self) -> Option<(u16, u32, Status)> {
        if let Some(command) = self.aborted.pop_front() {
            return Some((command, 0, Status::ABORTED));
        }
        let is_due = |event: &Event| {
            let (kind, ..) = event.fields();
            self.pending & 1 << *event as u8 != 0 && self.masked & 1 << kind == 0
        };
        let event = ALL.into_iter().find(is_due)?;
        let command = self.requests.pop_front()?;
        self.pending &= !(1 << event as u8);
        self.masked |= 1 << event.fields().0;
        Some((command, event.result(), Status::SUCCESS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_reported_once_and_the_next_of_its_type_only_after_the_log_was_read() {
        let mut events = Events::default();
        events.raise(Event::BadDoorbellValue);
        assert_eq!(events.next(), None, "nobody asked");
        (0..4).for_each(|id| events.request(id).unwrap());
        assert_eq!(events.request(9), Err(Status::TOO_MANY_EVENT_REQUESTS));
        assert_eq!(events.next(), Some((0, 0x1_0100, Status::SUCCESS)));
        events.raise(Event::NoSuchDoorbell);
        assert_eq!(events.next(), None);
        assert!(events.abort(2) && !events.abort(2));
        assert_eq!(events.next(), Some((2, 0, Status::ABORTED)));
        events.raise(Event::Temperature);
        assert_eq!(events.next(), Some((1, 0x2_0101, Status::SUCCESS)), "of another type");
        events.clear(log::HEALTH);
        assert_eq!(events.next(), None, "that cleared the other type");
        events.clear(log::ERRORS);
        assert_eq!(events.next(), Some((3, 0x1_0000, Status::SUCCESS)));
    }
}
