//! One device on one socket, for one VMM after another.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use gasp::Guest;
use gasp_vdev::Shell;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::connection;
use crate::error::{BindError, ServeError};
use crate::options::Options;
use crate::report::{Counters, Happened, Status};
use crate::socket::{Listener, Stream};
use crate::stop::{Stop, Stopper};

/// How long to wait where the process has no descriptor left for a connection.
const PAUSE: Duration = Duration::from_millis(50);

/// A device on a socket.
///
/// [`run`](Self::run) serves until a [`Stopper`] says so; everything else may be called
/// meanwhile, from other threads. The socket file is removed by the stopper, or when the
/// server is dropped.
pub struct Server {
    pub(crate) shell: Shell,
    pub(crate) listener: Listener,
    pub(crate) options: Options,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: Arc<Stop>,
    /// The guest of the VMM that is attached.
    pub(crate) guest: Mutex<Option<Guest>>,
    running: AtomicBool,
}

impl Server {
    /// Listens on a socket at `path`. A socket that nobody listens on any more is
    /// replaced.
    ///
    /// # Errors
    /// Where another server listens there, another file is there, or the system refuses.
    pub fn bind(path: impl AsRef<Path>, shell: Shell, options: Options) -> Result<Self, BindError> {
        let path = path.as_ref();
        let listener = Listener::bind(path, options.mode)?;
        let stop = Stop::new()
            .map_err(|errno| BindError::System { path: path.into(), source: errno.into() })?;
        Ok(Self {
            shell,
            listener,
            options,
            counters: Arc::default(),
            stop: Arc::new(stop),
            guest: Mutex::new(None),
            running: AtomicBool::new(false),
        })
    }

    /// Serves one VMM after another until a [`Stopper`] says so.
    ///
    /// # Errors
    /// Where the socket takes no connections any more, or the server runs already.
    pub fn run(&self) -> Result<(), ServeError> {
        if self.running.swap(true, Ordering::AcqRel) {
            return Err(ServeError::Running { path: self.path().into() });
        }
        let result = self.serve();
        self.running.store(false, Ordering::Release);
        result
    }

    fn serve(&self) -> Result<(), ServeError> {
        while !self.stop.is_asked() {
            let listener = self.listener.as_fd();
            let mut fds = [PollFd::from_borrowed_fd(listener, PollFlags::IN), self.stop.poll_fd()];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed(errno.into())),
            }
            if self.stop.is_asked() {
                break;
            }
            match self.listener.accept() {
                Ok(Some(client)) => connection::serve(self, client),
                Ok(None) => {}
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                        tracing::warn!(%error, "a connection has to wait");
                        std::thread::sleep(PAUSE);
                    }
                    _ => return Err(self.failed(error)),
                },
            }
        }
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> ServeError {
        ServeError::Accept { path: self.path().into(), source }
    }

    /// What ends [`run`](Self::run).
    pub fn stopper(&self) -> Stopper {
        Stopper { stop: Arc::clone(&self.stop), file: self.listener.file() }
    }

    /// Has `observer` called for everything that happens, on the server's thread: it must
    /// be quick. Only the first observer counts; gives back whether this was it.
    pub fn observe(&self, observer: impl Fn(&Happened) + Send + Sync + 'static) -> bool {
        self.counters.observer.set(Box::new(observer)).is_ok()
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.counters.status()
    }

    /// The engine's guest for the VMM that is attached: its regions, rules and faults.
    pub fn guest(&self) -> Option<Guest> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The device.
    pub fn shell(&self) -> &Shell {
        &self.shell
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// Sends away whoever else wants to connect while `current` is served.
    pub(crate) fn turn_away(&self, current: &Stream) {
        // A VMM that was killed, and its successor: the successor is not to be sent away
        // because the end of the other has not been seen yet. It came first, so it shows
        // if it is looked for second.
        if !self.listener.has_waiting() || current.is_hung_up() {
            return;
        }
        match self.listener.accept() {
            Ok(None) => {}
            Ok(Some(client)) => {
                tracing::warn!(path = %self.path().display(), "serves a VMM already: another is sent away");
                self.counters.tell(|| Happened::TurnedAway { why: "another VMM is attached" });
                drop(client);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("path", &self.path())
            .field("device", &self.shell)
            .field("fd", &self.listener.as_fd().as_fd())
            .finish_non_exhaustive()
    }
}
