//! What a character device has and waits for.

use core::time::Duration;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use gasp::Errno;

use super::buffer::Buffer;
use super::host::HostDevice;
use super::options::{Delay, Use};

/// How long after a host device could not be opened it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where one direction comes from or goes to.
#[derive(Debug, Default)]
pub(super) struct End {
    pub(super) path: Option<PathBuf>,
    /// The path, for C.
    pub(super) name: Option<CString>,
    pub(super) open: Option<Arc<HostDevice>>,
    /// Why nothing comes or goes any more.
    pub(super) over: Option<Errno>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) input: End,
    pub(super) output: End,
    pub(super) received: Buffer,
    pub(super) pending: Buffer,
    pub(super) delay: Option<Delay>,
    pub(super) batch: Duration,
    /// Between `GUEST_CONFIGURED` and `TERMINATE`.
    pub(super) runs: bool,
    pub(super) thread: Option<JoinHandle<()>>,
    /// What the thread waits for.
    pub(super) waits: Waits,
}

/// What the thread waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    /// Until there is input.
    pub(super) input: bool,
    /// Until there is room for output.
    pub(super) output: bool,
    /// Until a batch is complete.
    pub(super) flush: Option<Instant>,
    /// Until a host device that is not there may be.
    pub(super) open: Option<Instant>,
    /// Since when it is not there.
    pub(super) missing: Option<Instant>,
    /// The vdev has been told to write what is pending.
    pub(super) told: bool,
    pub(super) is_over: bool,
}

impl State {
    /// The open host device of input; `None` if there is none.
    pub(super) fn source(&self) -> Result<Option<Arc<HostDevice>>, Errno> {
        match self.input.over {
            Some(errno) => Err(errno),
            None => Ok(self.input.open.clone()),
        }
    }

    /// Receives input into the buffer.
    pub(super) fn receive(&mut self) -> Result<usize, Errno> {
        if self.received.window.free() == 0 {
            return Ok(0);
        }
        let Some(device) = self.source()? else { return Ok(0) };
        let outcome = self.received.fill(device.as_fd());
        self.input.settle(outcome, true)
    }

    /// Opens the host device.
    pub(super) fn open(&mut self) -> Result<(), (Errno, PathBuf)> {
        let (input, output) = (&mut self.input, &mut self.output);
        let opened = |path: &PathBuf, used| {
            let device = HostDevice::open(path, used);
            device.map(Arc::new).map_err(|errno| (errno, path.clone()))
        };
        match (&input.path, &output.path) {
            (Some(path), Some(other)) if path == other => {
                let device = opened(path, Use::Both)?;
                (input.open, output.open) = (Some(Arc::clone(&device)), Some(device));
            }
            (from, to) => {
                let from = from.as_ref().map(|path| opened(path, Use::Input)).transpose()?;
                let to = to.as_ref().map(|path| opened(path, Use::Output)).transpose()?;
                (input.open, output.open) = (from, to);
            }
        }
        Ok(())
    }

    /// Opens the host device if that was delayed, and it is time to try.
    pub(super) fn open_late(&mut self) {
        let is_open = self.input.open.is_some() || self.output.open.is_some();
        let Some(delay) = self.delay.filter(|_| self.runs && !is_open) else { return };
        let now = Instant::now();
        if self.waits.open.is_some_and(|at| now < at) {
            return;
        }
        let Err((errno, path)) = self.open() else {
            (self.waits.open, self.waits.missing) = (None, None);
            self.expect_input();
            self.expect_room();
            return;
        };
        let since = *self.waits.missing.get_or_insert(now);
        match delay {
            Delay::Seconds(seconds) if now - since >= Duration::from_secs(seconds.into()) => {
                tracing::error!(path = %path.display(), %errno, "the host device cannot be opened");
                // As without one: output is discarded, and there is no input.
                // Their names stay, as the vdev may look at them.
                for end in [&mut self.input, &mut self.output] {
                    (end.path, end.open) = (None, None);
                }
                self.delay = None;
                self.pending.window.removed(usize::MAX);
                self.waits.open = None;
            }
            _ => self.waits.open = Some(now + AGAIN),
        }
    }

    /// Writes what is pending.
    pub(super) fn flush(&mut self) -> Result<usize, Errno> {
        if let Some(errno) = self.output.over {
            return Err(errno);
        }
        let Some(device) = self.output.open.clone() else { return Ok(0) };
        let mut written = 0;
        while self.pending.window.used() > 0 {
            let outcome = self.pending.drain(device.as_fd());
            match self.output.settle(outcome, false) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(errno) => {
                    self.pending.window.removed(usize::MAX);
                    return Err(errno);
                }
            }
        }
        Ok(written)
    }

    /// Has the thread wait for input, if there is room for it.
    pub(super) fn expect_input(&mut self) {
        let window = self.received.window;
        let has_room = window.size == 0 || window.free() > 0;
        self.waits.input =
            self.runs && has_room && self.input.open.is_some() && self.input.over.is_none();
    }

    /// Has the thread wait for the end of a batch, or for room, if output is pending.
    pub(super) fn expect_room(&mut self) {
        let is_pending = self.runs && self.output.over.is_none() && self.pending.window.used() > 0;
        if !is_pending || self.waits.told {
            (self.waits.flush, self.waits.output) = (None, false);
        } else if self.batch.is_zero() || self.pending.window.free() == 0 {
            (self.waits.flush, self.waits.output) = (None, self.output.open.is_some());
        } else {
            self.waits.output = false;
            self.waits.flush.get_or_insert_with(|| Instant::now() + self.batch);
        }
    }

    /// The host devices that the thread waits for.
    pub(super) fn awaited(&self) -> (Option<Arc<HostDevice>>, Option<Arc<HostDevice>>) {
        (
            self.input.open.clone().filter(|_| self.waits.input),
            self.output.open.clone().filter(|_| self.waits.output),
        )
    }
}

impl Waits {
    /// Whether the thread has to look again.
    pub(super) fn differs(&self, other: &Self) -> bool {
        (self.input, self.output, self.flush, self.open, self.is_over)
            != (other.input, other.output, other.flush, other.open, other.is_over)
    }
}

impl End {
    /// The bytes of a read or a write; its end is remembered.
    pub(super) fn settle(
        &mut self,
        outcome: Result<usize, Errno>,
        reads: bool,
    ) -> Result<usize, Errno> {
        match outcome {
            Ok(0) if reads => Err(*self.over.insert(Errno::PIPE)),
            Err(Errno::AGAIN) => Ok(0),
            Err(errno) => Err(*self.over.insert(errno)),
            Ok(count) => Ok(count),
        }
    }
}
