//! The output of a serial port: a queue, and a thread that writes it.

use core::time::Duration;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::ending::Ending;
use crate::error::MachineError;

/// How many bytes are queued at most.
const LIMIT: usize = 1 << 20;
/// How often who waits looks whether the VM has ended.
pub(super) const LOOK: Duration = Duration::from_millis(50);

pub(super) struct Output(Arc<Shared>);

/// The end that the guest writes.
pub(super) struct Sink(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ending: Ending,
}

#[derive(Default)]
struct State {
    queue: Vec<u8>,
    /// The thread is writing what it has taken.
    writing: bool,
    /// Nothing comes any more.
    closed: bool,
    /// Nobody reads what is written.
    broken: bool,
}

impl Output {
    pub(super) fn start(
        mut out: impl Write + Send + 'static,
        ending: Ending,
    ) -> Result<(Self, Sink), MachineError> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { state, changed, ending });
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("serial-out".into())
            .spawn(move || {
                // A pipe without a reader is an error, not the end of the process.
                gasp::signal::block_in_thread();
                writer.write(&mut out);
            })
            .map_err(MachineError::host("the serial port's thread"))?;
        Ok((Self(Arc::clone(&shared)), Sink(shared)))
    }

    /// Waits until everything is written or cannot be. Returns whether it is.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let until = Instant::now().checked_add(timeout);
        let mut state = self.0.state.lock();
        while !state.queue.is_empty() || state.writing {
            match until {
                Some(until) => {
                    if self.0.changed.wait_until(&mut state, until).timed_out() {
                        return false;
                    }
                }
                None => self.0.changed.wait(&mut state),
            }
        }
        !state.broken
    }
}

impl Drop for Output {
    /// The thread ends when it has written what is there, if it ever can.
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn write(&self, out: &mut impl Write) {
        let mut state = self.state.lock();
        loop {
            while state.queue.is_empty() {
                if state.closed {
                    return;
                }
                self.changed.wait(&mut state);
            }
            let bytes = core::mem::take(&mut state.queue);
            state.writing = true;
            drop(state);
            let written = out.write_all(&bytes).and_then(|()| out.flush());
            state = self.state.lock();
            state.writing = false;
            if let Err(error) = written {
                if !state.broken {
                    tracing::warn!(%error, "the serial port's output is lost");
                }
                state.broken = true;
            }
            self.changed.notify_all();
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Shared { state, changed, ending } = &*self.0;
        let mut state = state.lock();
        while state.queue.len() >= LIMIT && !ending.is_requested() {
            changed.wait_for(&mut state, LOOK);
        }
        if state.queue.len() < LIMIT {
            state.queue.extend_from_slice(bytes);
            changed.notify_all();
        }
        Ok(bytes.len())
    }

    /// It is written soon.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::ending::End;
    use crate::gate::Gate;

    /// Writes when it is let, and says what.
    struct Slow(Receiver<io::Result<()>>, Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().unwrap_or(Ok(()))?;
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn ending() -> Ending {
        Ending::new(Arc::new(Gate::default()))
    }

    #[test]
    fn output_that_nobody_takes_holds_up_the_guest_until_the_vm_ends() {
        let (_let_it, wait) = channel();
        let ending = ending();
        let (output, mut sink) = Output::start(Slow(wait, channel().0), ending.clone()).unwrap();
        // The thread takes the first byte, or all of it.
        sink.write_all(b"x").unwrap();
        while !sink.0.state.lock().writing {
            thread::yield_now();
        }
        sink.write_all(&vec![b'y'; LIMIT]).unwrap();
        assert!(!output.flush(Duration::from_millis(1)));
        let writer = thread::spawn(move || sink.write_all(b"z"));
        thread::sleep(Duration::from_millis(100));
        assert!(!writer.is_finished(), "the queue is full");
        ending.request(End::Stopped);
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn everything_is_written_in_order_and_a_failure_is_told() {
        let (let_it, wait) = channel();
        let (said, hear) = channel();
        let (output, mut sink) = Output::start(Slow(wait, said), ending()).unwrap();
        for bytes in [&b"one "[..], b"two "] {
            sink.write_all(bytes).unwrap();
        }
        for _ in 0..2 {
            let_it.send(Ok(())).unwrap();
        }
        assert!(output.flush(Duration::from_secs(10)));
        assert_eq!(hear.try_iter().flatten().collect::<Vec<_>>(), b"one two ");
        while let_it.send(Err(io::ErrorKind::BrokenPipe.into())).is_ok() {
            sink.write_all(b"three").unwrap();
            if !output.flush(Duration::from_secs(10)) {
                return;
            }
        }
        panic!("the thread has ended");
    }
}
