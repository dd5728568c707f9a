//! What a vdev has of its machine: an interrupt line, messages, the end.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Arc, OnceLock};

use gasp::Errno;
use gasp_qvm::{Cause, End, Host};
use gasp_vm::{Ending, LevelLine, Message, MessageSender, RawTerminal};
use parking_lot::Mutex;

use super::lines::Lines;

/// The exit statuses of a vdev's end, as `<qvm/guest.h>` has them.
const NORMAL: i32 = 1;
const MOST: i32 = 63;
const VDEV_ERROR: u8 = 6;
const ERROR: u8 = 7;
const FATAL: u8 = 96;

/// How long the process may take to end after a fatal error in a vdev.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The place of one vdev in a machine.
#[derive(Debug)]
pub(super) struct Seat {
    name: String,
    /// The machine, unless the vdev is only checked.
    machine: Option<Wires>,
    /// Those of the machine.
    lines: Arc<Mutex<Lines>>,
    line: OnceLock<LevelLine>,
    is_stuck: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Wires {
    pub(super) messages: MessageSender,
    pub(super) ending: Ending,
}

impl Seat {
    pub(super) fn new(name: &str, machine: Option<Wires>, lines: &Arc<Mutex<Lines>>) -> Arc<Self> {
        let lines = Arc::clone(lines);
        Arc::new(Self {
            name: name.into(),
            machine,
            lines,
            line: OnceLock::new(),
            is_stuck: AtomicBool::new(false),
        })
    }

    /// Whether a thread is in the vdev for ever.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Acquire)
    }

    /// Its interrupt is this line from now on.
    pub(super) fn connect(&self, line: LevelLine) {
        // It is called once.
        drop(self.line.set(line));
    }
}

impl Host for Seat {
    fn interrupt(&self, raised: bool) {
        let Some(line) = self.line.get() else {
            tracing::debug!(
                vdev = self.name,
                raised,
                "an interrupt of a vdev that has no line yet"
            );
            return;
        };
        if let Err(error) = line.set(raised) {
            tracing::error!(vdev = self.name, %error, raised, "its interrupt stays as it is");
        }
    }

    fn assign(&self, line: Option<u32>, _exclusive: bool) -> Result<Option<u32>, Errno> {
        if let Some(line) = line {
            self.lines.lock().take(line, &self.name).map_err(|why| {
                tracing::error!(vdev = self.name, "{why}");
                Errno::BUSY
            })?;
        }
        // It is given one when all have assigned themselves what they have chosen.
        Ok(line)
    }

    fn message(&self, addr: u64, data: u32) {
        let Some(machine) = &self.machine else { return };
        if let Err(error) = machine.messages.send(Message { addr, data }) {
            tracing::debug!(vdev = self.name, %error, addr, data, "a message is lost");
        }
    }

    fn end(&self, end: &End) {
        if let Some(machine) = &self.machine {
            let (status, why) = (status_of(&end.cause), end.to_string());
            machine.ending.request(gasp_vm::End::Device { status, why });
        }
    }

    fn stuck(&self, end: &End) {
        self.is_stuck.store(true, Ordering::Release);
        self.end(end);
        // The main thread ends the process, unless it waits for this one.
        std::thread::sleep(PATIENCE);
        RawTerminal::restore();
    }
}

/// What the command is to exit with.
pub(super) fn status_of(cause: &Cause) -> u8 {
    match cause {
        Cause::Terminated(NORMAL) => 0,
        Cause::Terminated(cause) => {
            u8::try_from(*cause).ok().filter(|_| (1..=MOST).contains(cause)).unwrap_or(ERROR)
        }
        Cause::Fatal(_) => FATAL,
        _ => VDEV_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_exit_statuses_as_the_header_says() {
        for (cause, status) in
            [(1, 0), (3, 3), (4, 4), (32, 32), (63, 63), (64, 7), (0, 7), (-1, 7), (i32::MAX, 7)]
        {
            assert_eq!(status_of(&Cause::Terminated(cause)), status, "{cause}");
        }
        assert_eq!(status_of(&Cause::Status(5)), 6);
        assert_eq!(status_of(&Cause::Fatal(String::new())), 96);
    }
}
