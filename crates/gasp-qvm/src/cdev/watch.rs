//! The thread of a character device: it waits for what the host device has, and tells the vdev by a
//! pulse, which then reads and writes.

use core::time::Duration;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use gasp::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::device::Cdev;
use crate::abi::{CDEV_INPUT_AVAILABLE_PULSE_CODE, CDEV_OUTPUT_AVAILABLE_PULSE_CODE, Pulse};

/// How long after a pulse that found no place it is tried again.
const BUSY: Duration = Duration::from_millis(10);

impl Cdev {
    /// The guest is complete: opens the host device unless that is delayed, and waits for it.
    ///
    /// # Errors
    /// Those of open(2), with the path, and `EAGAIN` if there can be no thread.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), (Errno, PathBuf)> {
        self.start_with(watch)
    }
}

/// Waits until the device is closed.
fn watch(cdev: &Arc<Cdev>) {
    gasp::signal::block_in_thread();
    loop {
        let mut state = cdev.state();
        if state.waits.is_over {
            return;
        }
        if state.waits.open.is_some_and(|at| at <= Instant::now()) {
            state.open_late();
        }
        let (input, output) = state.awaited();
        let until = [state.waits.flush, state.waits.open].into_iter().flatten().min();
        drop(state);
        let mut waits = vec![PollFd::new(&cdev.wake, PollFlags::IN)];
        let mut add = |device: Option<_>, flags| {
            device.map(|device| {
                waits.push(PollFd::from_borrowed_fd(device, flags));
                waits.len() - 1
            })
        };
        let input_at = add(input.as_ref().map(|device| device.as_fd()), PollFlags::IN);
        let output_at = add(output.as_ref().map(|device| device.as_fd()), PollFlags::OUT);
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
        // A failure is an interrupted call, or a lack of memory for a moment.
        if poll(&mut waits, timeout.as_ref()).is_err() {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let has_event = |at: Option<usize>| {
            at.and_then(|at| waits.get(at)).is_some_and(|it| !it.revents().is_empty())
        };
        let (has_input, has_room) = (has_event(input_at), has_event(output_at));
        if has_event(Some(0)) {
            // Its value does not matter.
            let _ = rustix::io::read(&cdev.wake, &mut [0; 8]);
        }
        drop(waits);
        let mut state = cdev.state();
        let is_complete = state.waits.flush.is_some_and(|at| at <= Instant::now());
        // Each is reported once, until the vdev has looked.
        state.waits.input &= !has_input;
        state.waits.output &= !has_room;
        if is_complete {
            state.waits.flush = None;
        }
        state.waits.told |= has_room || is_complete;
        drop(state);
        if has_input && !pulse(cdev, CDEV_INPUT_AVAILABLE_PULSE_CODE) {
            cdev.state().waits.input = true;
        }
        if (has_room || is_complete) && !pulse(cdev, CDEV_OUTPUT_AVAILABLE_PULSE_CODE) {
            let mut state = cdev.state();
            (state.waits.told, state.waits.flush) = (false, Some(Instant::now() + BUSY));
        }
    }
}

/// Sends a pulse; `false` if it has to be tried again.
fn pulse(cdev: &Cdev, code: i8) -> bool {
    let Some(vdev) = cdev.vdev.upgrade() else { return true };
    match vdev.send(Pulse { code, ..Pulse::default() }) {
        Err(Errno::AGAIN) => {
            std::thread::sleep(BUSY);
            false
        }
        _ => true,
    }
}
