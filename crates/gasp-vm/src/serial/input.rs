//! The input of a serial port: a thread that reads a terminal or a pipe, and for a terminal one that
//! waits until the guest takes what was typed.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, retry_on_intr};
use rustix::termios::isatty;

use super::SerialPort;
use crate::ending::{End, Ending};
use crate::error::MachineError;

/// Ctrl-A, after which a key is for us.
const ESCAPE: u8 = 1;
/// How often the thread looks whether the VM has ended: 100 ms.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// How many reads of a terminal, of up to [`CHUNK`] bytes, wait for room in the port at most.
const TYPE_AHEAD: usize = 1024;
const CHUNK: usize = 256;

pub(super) fn start(
    port: Arc<SerialPort>,
    ending: Ending,
    source: impl AsFd + Send + 'static,
) -> Result<JoinHandle<()>, MachineError> {
    let terminal = if isatty(&source) { Some(Terminal::start(Arc::clone(&port))?) } else { None };
    spawn("serial-in", move || match terminal {
        Some(terminal) => terminal.read(&source, &ending),
        None => read_all(&source, &ending, |bytes| port.send(&bytes)),
    })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, MachineError> {
    let thread = thread::Builder::new().name(name.into()).spawn(run);
    thread.map_err(MachineError::host("the serial port's thread"))
}

/// Reads until the source or the VM ends, or `take` returns `false`.
fn read_all(source: &impl AsFd, ending: &Ending, mut take: impl FnMut(Vec<u8>) -> bool) {
    while !ending.is_requested() {
        match next(source) {
            Ok(Some(bytes)) if bytes.is_empty() => return,
            Ok(Some(bytes)) => {
                if !take(bytes) {
                    return;
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the serial port's input cannot be read");
                return;
            }
        }
    }
}

/// A terminal is read even if the guest does not read, or its user could not end the VM. So what
/// is typed is sent by a second thread, which may wait.
struct Terminal {
    keys: SyncSender<Vec<u8>>,
    sending: JoinHandle<()>,
}

impl Terminal {
    fn start(port: Arc<SerialPort>) -> Result<Self, MachineError> {
        let (keys, typed) = sync_channel::<Vec<u8>>(TYPE_AHEAD);
        // It ends with the channel, or when the VM does.
        let send = move || _ = typed.iter().all(|bytes| port.send(&bytes));
        Ok(Self { keys, sending: spawn("serial-keys", send)? })
    }

    fn read(self, source: &impl AsFd, ending: &Ending) {
        let Self { keys, sending } = self;
        let mut sorter = Keys::default();
        read_all(source, ending, |bytes| {
            let (bytes, ends) = sorter.sort(&bytes);
            if ends {
                ending.request(End::Stopped);
            }
            // If there is no room, the keys are lost.
            !ends && !matches!(keys.try_send(bytes), Err(TrySendError::Disconnected(_)))
        });
        drop(keys);
        // A panic has been reported there.
        let _ = sending.join();
    }
}

/// The next bytes, none at the source's end; `None` if there are none yet.
fn next(source: &impl AsFd) -> Result<Option<Vec<u8>>, Errno> {
    let mut fds = [PollFd::new(source, PollFlags::IN)];
    match poll(&mut fds, Some(&LOOK)) {
        Ok(0) | Err(Errno::INTR) => return Ok(None),
        other => other?,
    };
    let mut buffer = [0; CHUNK];
    match retry_on_intr(|| read(source, &mut buffer)) {
        Ok(len) => Ok(Some(buffer.get(..len).unwrap_or_default().to_vec())),
        Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The keys of a terminal.
#[derive(Default)]
struct Keys {
    escaped: bool,
}

impl Keys {
    /// What is for the guest, and whether the VM is to end.
    fn sort(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut guest = Vec::new();
        for &byte in bytes {
            match (core::mem::take(&mut self.escaped), byte) {
                (true, b'x' | b'X') => return (guest, true),
                (true, ESCAPE) => guest.push(ESCAPE),
                (true, other) => guest.extend([ESCAPE, other]),
                (false, ESCAPE) => self.escaped = true,
                (false, other) => guest.push(other),
            }
        }
        (guest, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_x_ends_the_vm_also_in_two_pieces() {
        let mut keys = Keys::default();
        assert_eq!(keys.sort(b"ab\x01\x01c"), (b"ab\x01c".to_vec(), false));
        assert_eq!(keys.sort(b"\x01d"), (b"\x01d".to_vec(), false), "a key that is not ours");
        assert_eq!(keys.sort(b"x\x01"), (b"x".to_vec(), false));
        assert_eq!(keys.sort(b"x"), (vec![], true));
    }
}
