//! Asynchronous events (NVMe 1.4, 5.2): requests that wait until there is something to
//! tell.

use std::collections::VecDeque;

use super::status::Status;

/// The most requests that wait at a time.
pub(super) const REQUESTS_MAX: u8 = 4;

/// What the controller tells: errors that belong to no command. The values are those of
/// the event's information field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// A doorbell of a queue that does not exist was written.
    NoSuchDoorbell = 0,
    /// A doorbell was given a value that it cannot have.
    BadDoorbellValue = 1,
}

/// The log page that tells more, and clears the event.
const ERROR_LOG: u32 = 0x01;

/// Requests and events.
#[derive(Debug, Default)]
pub(super) struct Events {
    requests: VecDeque<u16>,
    aborted: VecDeque<u16>,
    /// A bit for each event.
    pending: u8,
    /// Told, and not cleared yet.
    masked: bool,
}

impl Events {
    /// A request that waits for an event.
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
        // As many as a batch of commands can abort: without room for their completions, no
        // command is taken.
        self.aborted.extend(aborted);
        aborted.is_some()
    }

    pub(super) fn raise(&mut self, event: Event) {
        self.pending |= 1 << event as u8;
    }

    /// The guest has read the log page.
    pub(super) fn clear(&mut self) {
        self.masked = false;
    }

    /// The next request that ends: its identifier, result and status.
    pub(super) fn next(&mut self) -> Option<(u16, u32, Status)> {
        if let Some(command) = self.aborted.pop_front() {
            return Some((command, 0, Status::ABORTED));
        }
        if self.pending == 0 || self.masked {
            return None;
        }
        let command = self.requests.pop_front()?;
        let information = self.pending.trailing_zeros();
        self.pending &= self.pending - 1;
        self.masked = true;
        Some((command, information << 8 | ERROR_LOG << 16, Status::SUCCESS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_once_and_the_next_only_after_the_log_was_read() {
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
        events.clear();
        assert_eq!(events.next(), Some((1, 0x1_0000, Status::SUCCESS)));
    }
}
