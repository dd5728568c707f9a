//! One device on one socket, for one VMM after another.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use gasp::{Errno, Guest};
use gasp_vdev::Shell;

use crate::connection;
use crate::door::Door;
use crate::error::{BindError, ServeError};
use crate::options::Options;
use crate::report::{Counters, Happened, Status};
use crate::socket::Listener;
use crate::stop::{Stop, Stopper};

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
    pub(crate) door: Door,
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
        let system = |errno: Errno| BindError::System { path: path.into(), source: errno.into() };
        let stop = Stop::new().map_err(system)?;
        let door = Door::new().map_err(system)?;
        Ok(Self {
            shell,
            listener,
            options,
            counters: Arc::default(),
            stop: Arc::new(stop),
            door,
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
        self.door.open();
        let accept = |source| ServeError::Accept { path: self.path().into(), source };
        std::thread::scope(|scope| {
            let keeper = std::thread::Builder::new().name("door".into());
            let keeper = keeper.spawn_scoped(scope, || self.door.keep(self)).map_err(accept)?;
            while let Some(client) = self.door.next() {
                connection::serve(self, client);
            }
            keeper.join().unwrap_or(Ok(())).map_err(accept)
        })
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

    /// Reports a client that is sent away.
    pub(crate) fn turned_away(&self, why: &'static str) {
        let told =
            self.counters.tell_seldom(&self.counters.strangers, || Happened::TurnedAway { why });
        if told {
            tracing::warn!(device = self.shell.name(), why, "sends a client away");
        }
    }

    /// Reports a client that was answered with `EBUSY`.
    pub(crate) fn in_use(&self, pid: Option<i32>, by: Option<i32>, since: Duration) {
        let happened = || Happened::InUse { pid, by, since };
        if self.counters.tell_seldom(&self.counters.strangers, happened) {
            let device = self.shell.name();
            tracing::warn!(device, ?pid, ?by, ?since, "in use: another VMM is sent away (EBUSY)");
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
