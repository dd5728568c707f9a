//! A console (virtio 1.2, 5.3): one port, between two files of the host.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use gasp_vdev::{Bell, Class, Throttle};
use parking_lot::Mutex;
use rustix::io::retry_on_intr;
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use crate::device::{Kind, VirtioDevice, Waits};
use crate::nonblocking::nonblocking;
use crate::queue::{ActiveQueue, Broken, Chain};
use crate::watch::{Side, Watcher, is_not_ready};

/// VIRTIO_CONSOLE_F_SIZE (5.3.3).
const SIZE: u64 = 1;
const QUEUE: u16 = 64;
/// The queues (5.3.2).
const TO_DRIVER: u16 = 0;
/// The number of bytes that are read or written at a time.
const STEP: usize = 4096;
/// The number of bytes that one turn writes; then input has its turn.
const TURN: usize = 64 << 10;

/// A console: what the driver writes goes to one file, and what it reads comes from another.
///
/// Both are files that can be polled: terminals, pipes, sockets. The device reads what there is, and
/// writes what is taken, at most 4 KiB at a time; a driver whose output is not taken (a terminal that
/// was stopped by Ctrl-S, say) waits for it, and nobody else does. After the end of its input the console has no more;
/// after an error of its output (a pipe that nobody reads any more, say), what is written is lost.
#[derive(Debug)]
pub struct Console {
    input: Option<OwnedFd>,
    output: OwnedFd,
    /// Columns and rows, as one word; 0 if it has no size.
    size: AtomicU32,
    has_size: bool,
    generation: AtomicU8,
    state: Mutex<State>,
    watcher: Mutex<Option<Watcher>>,
    failures: Throttle,
}

/// What the device's thread knows of transfers in progress.
#[derive(Debug, Default)]
struct State {
    /// What was read and not passed on.
    pending: VecDeque<u8>,
    has_ended: bool,
    /// A chain of which so many bytes were written.
    current: Option<(Chain, u64)>,
}

impl Console {
    /// A console that reads from `input`, if there is one, and writes to `output`.
    ///
    /// Its reads and writes do not wait (`O_NONBLOCK`). Terminals and pipes are opened once more for
    /// that, so that other users of the descriptors see no change; sockets and the masters of
    /// pseudoterminals, which cannot be, get the flag themselves.
    pub fn new(input: Option<OwnedFd>, output: OwnedFd) -> Self {
        Self {
            input: input.map(nonblocking),
            output: nonblocking(output),
            size: AtomicU32::new(0),
            has_size: false,
            generation: AtomicU8::new(0),
            state: Mutex::default(),
            watcher: Mutex::default(),
            failures: Throttle::default(),
        }
    }

    /// Has it offer a size, which the driver is informed of.
    #[must_use]
    pub fn sized(self, columns: u16, rows: u16) -> Self {
        Self { size: AtomicU32::new(word(columns, rows)), has_size: true, ..self }
    }

    /// Changes the size, of which the driver is informed; without an effect on a console that is not
    /// [`sized`](Self::sized).
    pub fn resize(&self, columns: u16, rows: u16) {
        if !self.has_size {
            return;
        }
        self.size.store(word(columns, rows), Ordering::Release);
        self.generation.fetch_add(1, Ordering::Release);
        if let Some(watcher) = &*self.watcher.lock() {
            watcher.ring();
        }
    }

    fn watch(&self, side: Side) {
        if let Some(watcher) = &*self.watcher.lock() {
            watcher.watch(side);
        }
    }

    /// Passes input on to the driver.
    fn feed(&self, queue: &mut ActiveQueue<'_>) -> Result<Waits, Broken> {
        let mut state = self.state.lock();
        loop {
            if state.pending.is_empty() && !self.read(&mut state) {
                return Ok(Waits::ForOutside);
            }
            let Some(chain) = queue.next()? else { return Ok(Waits::ForDriver) };
            let room = usize::try_from(chain.writable.len()).unwrap_or(usize::MAX);
            let (bytes, _) = state.pending.as_slices();
            let bytes = bytes.get(..room.min(bytes.len())).unwrap_or_default();
            // What the guest's IOMMU refuses is kept for the next chain.
            let written = match chain.writable.write(queue.context(), 0, bytes) {
                Ok(()) => bytes.len(),
                Err(_) => 0,
            };
            state.pending.drain(..written);
            queue.complete(&chain, written as u32)?;
        }
    }

    /// Reads what there is. Returns whether there was anything; if not, the bell rings once there
    /// is.
    fn read(&self, state: &mut State) -> bool {
        let Some(input) = self.input.as_ref().filter(|_| !state.has_ended) else { return false };
        let mut bytes = [0; STEP];
        match retry_on_intr(|| rustix::io::read(input, &mut bytes)) {
            Ok(0) => state.has_ended = true,
            Ok(count) => {
                state.pending.extend(bytes.iter().take(count));
                return true;
            }
            Err(errno) if is_not_ready(errno) => self.watch(Side::Input),
            Err(errno) => {
                tracing::warn!(%errno, "a console's input ends");
                state.has_ended = true;
            }
        }
        false
    }

    /// Writes what the driver has sent.
    fn drain(&self, queue: &mut ActiveQueue<'_>) -> Result<Waits, Broken> {
        let mut state = self.state.lock();
        let mut left = TURN;
        loop {
            let current = match state.current.take() {
                Some(current) => Some(current),
                None => queue.next()?.map(|chain| (chain, 0)),
            };
            let Some((chain, mut done)) = current else { return Ok(Waits::ForDriver) };
            while done < chain.readable.len() {
                if left == 0 || queue.should_stop() {
                    state.current = Some((chain, done));
                    return Ok(Waits::NotAtAll);
                }
                let mut bytes = [0; STEP];
                let step = STEP.min(left);
                let step = step.min(usize::try_from(chain.readable.len() - done).unwrap_or(step));
                let bytes = bytes.get_mut(..step).unwrap_or_default();
                if chain.readable.read(queue.context(), done, bytes).is_err() {
                    // What the guest's IOMMU refuses is not written.
                    break;
                }
                match self.write(bytes) {
                    Some(written) => {
                        done += written as u64;
                        left -= written.min(left);
                    }
                    None => {
                        state.current = Some((chain, done));
                        self.watch(Side::Output);
                        return Ok(Waits::ForOutside);
                    }
                }
            }
            queue.complete(&chain, 0)?;
        }
    }

    /// Writes bytes, and returns how many; `None` if none are taken now. After an error they are
    /// lost.
    fn write(&self, bytes: &[u8]) -> Option<usize> {
        match retry_on_intr(|| rustix::io::write(&self.output, bytes)) {
            Ok(count) => Some(count),
            Err(errno) if is_not_ready(errno) => None,
            Err(errno) => {
                if let Some(times) = self.failures.next_logged() {
                    tracing::warn!(%errno, times, "a console's output is lost");
                }
                Some(bytes.len())
            }
        }
    }
}

/// Columns and rows, as in the configuration.
fn word(columns: u16, rows: u16) -> u32 {
    u32::from(columns) | u32::from(rows) << 16
}

impl VirtioDevice for Console {
    fn kind(&self) -> Kind {
        let class = Class { base: 0x07, sub: 0x80, interface: 0 };
        Kind { id: VIRTIO_ID_CONSOLE as u16, class }
    }

    fn queues(&self) -> Vec<u16> {
        vec![QUEUE, QUEUE]
    }

    fn features(&self) -> u64 {
        if self.has_size { SIZE } else { 0 }
    }

    /// Columns, rows, number of ports (1), and the register for emergencies, which it does not
    /// have (5.3.4).
    fn config(&self) -> Vec<u8> {
        let words = [self.size.load(Ordering::Acquire), 1, 0];
        words.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    fn config_generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    fn serve(&self, index: u16, queue: &mut ActiveQueue<'_>) -> Result<Waits, Broken> {
        match index {
            TO_DRIVER => self.feed(queue),
            _ => self.drain(queue),
        }
    }

    fn reset(&self) {
        *self.state.lock() = State::default();
    }

    fn attached(&self, bell: Option<Bell>) {
        let (input, output) = (self.input.as_ref().map(AsFd::as_fd), Some(self.output.as_fd()));
        let started = bell.map(|bell| Watcher::start(bell, input, output)).transpose();
        *self.watcher.lock() = started.unwrap_or_else(|error| {
            tracing::error!(%error, "a console's files cannot be waited for");
            None
        });
    }

    fn detached(&self) {
        *self.watcher.lock() = None;
    }
}
