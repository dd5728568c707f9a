//! A character device.
#![allow(unsafe_code, reason = "buffers of C")]

use core::ffi::CStr;
use core::time::Duration;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread;

use gasp::Errno;
use parking_lot::{Mutex, MutexGuard};
use rustix::event::{EventfdFlags, eventfd};

use super::buffer::{Buffer, read, write};
use super::host::{HostDevice, Settings};
use super::options::{Delay, Use};
use super::state::{End, State, Waits};
use crate::worker::Pulsed;

/// The longest buffer in bytes.
pub(crate) const SIZE_MAX: usize = 1 << 20;

/// A character device of a vdev.
#[derive(Debug)]
pub(crate) struct Cdev {
    /// The vdev, and its name.
    pub(super) vdev: Weak<dyn Pulsed>,
    name: String,
    state: Mutex<State>,
    /// Has the thread look at the state again.
    pub(super) wake: OwnedFd,
}

/// What C sees of it.
pub(crate) struct Shown {
    pub(crate) input: Side,
    pub(crate) output: Side,
    pub(crate) settings: Option<Settings>,
    pub(crate) batch: Duration,
    pub(crate) delayed: u32,
}

/// What C sees of a direction.
pub(crate) struct Side {
    pub(crate) name: *const core::ffi::c_char,
    pub(crate) buffer: *mut u8,
    pub(crate) size: u32,
    pub(crate) begin: u32,
    pub(crate) end: u32,
    pub(crate) fd: i32,
}

impl Cdev {
    /// One with two buffers of `size` bytes.
    ///
    /// # Errors
    /// `ENOMEM`, and those of eventfd(2).
    pub(crate) fn new(vdev: Weak<dyn Pulsed>, name: &str, size: usize) -> Result<Self, Errno> {
        let state = State {
            input: End::default(),
            output: End::default(),
            received: Buffer::new(size)?,
            pending: Buffer::new(size)?,
            delay: None,
            batch: Duration::ZERO,
            runs: false,
            thread: None,
            waits: Waits::default(),
        };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { vdev, name: name.to_owned(), state: Mutex::new(state), wake })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Names the host device of one or both directions.
    pub(crate) fn set_path(&self, used: Use, path: PathBuf) {
        let mut state = self.state();
        let name = CString::new(path.as_os_str().as_bytes()).ok();
        if used != Use::Output {
            state.input = End { path: Some(path.clone()), name: name.clone(), ..End::default() };
        }
        if used != Use::Input {
            state.output = End { path: Some(path), name, ..End::default() };
        }
    }

    pub(crate) fn set_delay(&self, delay: Delay) {
        self.state().delay = Some(delay);
    }

    pub(crate) fn set_batch(&self, batch: Duration) {
        self.state().batch = batch;
    }

    /// The guest is complete: opens the host device unless that is delayed. `watch` is what its
    /// thread does.
    ///
    /// # Errors
    /// Those of open(2), with the path, and `EAGAIN` if there can be no thread.
    pub(super) fn start_with(
        self: &Arc<Self>,
        watch: fn(&Arc<Self>),
    ) -> Result<(), (Errno, PathBuf)> {
        let mut state = self.state();
        if state.runs || (state.input.path.is_none() && state.output.path.is_none()) {
            return Ok(());
        }
        if state.delay.is_none() {
            state.open()?;
        }
        let of = Arc::clone(self);
        let thread = thread::Builder::new().name(self.name.clone());
        let thread = thread.spawn(move || watch(&of));
        state.thread = Some(thread.map_err(|_| (Errno::AGAIN, PathBuf::new()))?);
        state.runs = true;
        state.expect_input();
        drop(state);
        self.wake();
        Ok(())
    }

    /// Writes what the host device takes of the output that is pending, and closes it.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        // It ends in any case: what the host device does not take is lost.
        let _ = state.flush();
        state.runs = false;
        state.waits = Waits { is_over: true, ..Waits::default() };
        let thread = state.thread.take();
        let ends = (state.input.open.take(), state.output.open.take());
        drop(state);
        self.wake();
        if let Some(thread) = thread {
            // A panic of the host's own is reported by its hook.
            let _ = thread.join();
        }
        drop(ends);
    }

    /// Receives input into the buffer.
    ///
    /// # Errors
    /// Those of read(2); `EPIPE` at the end of the input.
    pub(crate) fn receive(&self) -> Result<usize, Errno> {
        self.working(|state| {
            let outcome = state.receive();
            state.expect_input();
            outcome
        })
    }

    /// Takes input, of the buffer or the host device.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), without a buffer.
    ///
    /// # Safety
    /// `bytes` is valid for writes of `count` bytes.
    pub(crate) unsafe fn read(&self, bytes: *mut u8, count: usize) -> Result<usize, Errno> {
        self.working(|state| {
            if state.received.window.size > 0 {
                let was_full = state.received.window.free() == 0;
                // SAFETY: as this function asks; the buffer is the host's own memory.
                let taken = unsafe { state.received.pop(bytes, count) };
                // With room before, the thread is waiting, or the vdev has been told.
                if was_full {
                    state.expect_input();
                }
                return Ok(taken);
            }
            let device = state.source()?.filter(|_| count > 0);
            // SAFETY: as this function asks.
            let read = |device: Arc<HostDevice>| unsafe { read(device.as_fd(), bytes, count) };
            let outcome =
                device.map(read).map_or(Ok(0), |outcome| state.input.settle(outcome, true));
            state.expect_input();
            outcome
        })
    }

    /// Outputs bytes; how many are accepted.
    ///
    /// # Errors
    /// Those of write(2), if none is.
    ///
    /// # Safety
    /// `bytes` is valid for reads of `count` bytes.
    pub(crate) unsafe fn write(&self, bytes: *const u8, count: usize) -> Result<usize, Errno> {
        self.working(|state| {
            if state.output.path.is_none() || !state.runs {
                return Ok(count);
            }
            if let Some(errno) = state.output.over {
                return Err(errno);
            }
            let device = state.output.open.clone();
            let mut accepted = 0;
            if let Some(device) = &device
                && state.pending.window.used() == 0
                && (state.batch.is_zero() || state.pending.window.size == 0)
            {
                // SAFETY: as this function asks.
                let outcome = unsafe { write(device.as_fd(), bytes, count) };
                accepted = state.output.settle(outcome, false)?;
            }
            let (rest, left) = (bytes.wrapping_add(accepted), count - accepted);
            // SAFETY: these are the last of the bytes that this function asks for.
            accepted += unsafe { state.pending.push(rest, left) };
            // A batch that fills the buffer is complete.
            if accepted < count && state.flush()? > 0 {
                let (rest, left) = (bytes.wrapping_add(accepted), count - accepted);
                // SAFETY: as above.
                accepted += unsafe { state.pending.push(rest, left) };
            }
            Ok(accepted)
        })
    }

    /// Writes what is pending; how many bytes the host device has taken.
    ///
    /// # Errors
    /// Those of write(2).
    pub(crate) fn flush(&self) -> Result<usize, Errno> {
        self.working(|state| {
            (state.waits.flush, state.waits.told) = (None, false);
            state.flush()
        })
    }

    /// Opens what is not open, calls `work`, and then has the thread wait for room if output is
    /// pending.
    fn working<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let before = state.waits;
        state.open_late();
        let result = work(&mut state);
        state.expect_room();
        let wakes = state.waits.differs(&before);
        drop(state);
        if wakes {
            self.wake();
        }
        result
    }

    fn wake(&self) {
        // It fails if the counter is at its end: then the thread is awake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// What C sees of it now.
    pub(crate) fn shown(&self) -> Shown {
        let state = self.state();
        let settings = [&state.input, &state.output];
        let settings = settings.iter().find_map(|end| end.open.as_ref()?.settings());
        Shown {
            input: Side::of(&state.input, &state.received),
            output: Side::of(&state.output, &state.pending),
            settings,
            batch: state.batch,
            delayed: match state.delay {
                None => 0,
                Some(Delay::Seconds(seconds)) => seconds,
                Some(Delay::Forever) => u32::MAX,
            },
        }
    }

    /// A line about its state.
    pub(crate) fn report(&self) -> String {
        let state = self.state();
        let end = |end: &End| match (&end.path, &end.open, end.over) {
            (None, ..) => "none".to_owned(),
            (Some(path), _, Some(errno)) => format!("{} ({errno})", path.display()),
            (Some(path), None, _) => format!("{} (not open)", path.display()),
            (Some(path), Some(_), None) => path.display().to_string(),
        };
        let (received, pending) = (state.received.window.used(), state.pending.window.used());
        format!(
            "host device: input {}, {received} bytes not read; output {}, {pending} bytes pending\n",
            end(&state.input),
            end(&state.output)
        )
    }
}

impl Side {
    fn of(end: &End, buffer: &Buffer) -> Self {
        let number = |number: usize| u32::try_from(number).unwrap_or(0);
        Self {
            name: end.name.as_deref().map_or(core::ptr::null(), CStr::as_ptr),
            buffer: buffer.pointer(),
            size: number(buffer.window.size),
            begin: number(buffer.window.begin),
            end: number(buffer.window.end),
            fd: end.open.as_ref().map_or(-1, |device| device.as_fd().as_raw_fd()),
        }
    }
}
