//! A thread that waits for a device's files, and rings its bell.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use gasp_vdev::Bell;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, retry_on_intr};

/// The files of a device outside of its guest, and the thread that waits for them while a VMM is
/// attached.
///
/// The device's own thread never waits for a file: its reads and writes fail if they [cannot be done
/// now](is_not_ready), and then it has this thread [ring](Watcher::watch) once they can. As that is
/// asked of the file itself, what arrives in between is not lost.
#[derive(Debug)]
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    bell: Bell,
    /// Ends a wait.
    wake: OwnedFd,
    wanted: Mutex<Wanted>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    input: bool,
    output: bool,
    stop: bool,
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// The input has something to read, or has ended.
    Input,
    /// The output takes something, or fails at once.
    Output,
}

impl Watcher {
    /// Starts the thread. The files are duplicated; both may be the same.
    pub(crate) fn start(
        bell: Bell,
        input: Option<BorrowedFd<'_>>,
        output: Option<BorrowedFd<'_>>,
    ) -> io::Result<Self> {
        let own = |file: Option<BorrowedFd<'_>>| file.map(|file| file.try_clone_to_owned());
        let files = (own(input).transpose()?, own(output).transpose()?);
        let wake = eventfd(0, EventfdFlags::CLOEXEC)?;
        let shared = Arc::new(Shared { bell, wake, wanted: Mutex::default() });
        let watched = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("virtio-watch".into())
            .spawn(move || watched.run(files.0.as_ref(), files.1.as_ref()))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Rings once, when that side is ready; at once if it is.
    pub(crate) fn watch(&self, side: Side) {
        let mut wanted = self.shared.wanted.lock();
        let place = match side {
            Side::Input => &mut wanted.input,
            Side::Output => &mut wanted.output,
        };
        if !core::mem::replace(place, true) {
            drop(wanted);
            self.shared.wake();
        }
    }

    /// Rings now.
    pub(crate) fn ring(&self) {
        self.shared.bell.ring();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.wanted.lock().stop = true;
        self.shared.wake();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that waits for a device's files panicked");
        }
    }
}

impl Shared {
    fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        if let Err(errno) = retry_on_intr(|| rustix::io::write(&self.wake, &one)) {
            tracing::error!(%errno, "a device's files are no longer waited for");
        }
    }

    fn run(&self, input: Option<&OwnedFd>, output: Option<&OwnedFd>) {
        loop {
            let wanted = *self.wanted.lock();
            if wanted.stop {
                return;
            }
            let input = input.filter(|_| wanted.input);
            let output = output.filter(|_| wanted.output);
            let sides = [(input, PollFlags::IN), (output, PollFlags::OUT)];
            let mut all = vec![PollFd::new(&self.wake, PollFlags::IN)];
            all.extend(
                sides.iter().filter_map(|(file, flags)| Some(PollFd::new((*file)?, *flags))),
            );
            if let Err(errno) = retry_on_intr(|| poll(&mut all, None)) {
                tracing::error!(%errno, "a device's files are no longer waited for");
                return;
            }
            let mut ready = all.iter().map(|file| !file.revents().is_empty());
            if ready.next() == Some(true) {
                // It is ready, so this does not wait.
                let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            }
            let is_input = input.is_some() && ready.next() == Some(true);
            let is_output = output.is_some() && ready.next() == Some(true);
            if is_input || is_output {
                let mut wanted = self.wanted.lock();
                wanted.input &= !is_input;
                wanted.output &= !is_output;
                drop(wanted);
                self.bell.ring();
            }
        }
    }
}

/// Whether an error says that the file is not ready.
pub(crate) fn is_not_ready(errno: Errno) -> bool {
    errno == Errno::AGAIN
}
