//! A server: one device on one socket, for one VMM after another.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use gasp::{Errno, Guest};
use gasp_vdev::Shell;
use parking_lot::Mutex;

use crate::acceptor::Acceptor;
use crate::connection;
use crate::error::{BindError, ServeError};
use crate::options::Options;
use crate::report::{ServerEvent, Status};
use crate::service::Service;
use crate::socket::{Listener, SocketFile};
use crate::stop::Stop;

/// A device on a socket.
///
/// [`run`](Self::run) serves until a [`Stopper`] stops it; all other methods may be called
/// meanwhile, from other threads. The socket file is removed by the stopper, or when the
/// server is dropped.
pub struct Server {
    service: Service,
    acceptor: Acceptor,
    running: AtomicBool,
}

/// Stops a [`Server`] that runs.
#[derive(Clone, Debug)]
pub struct Stopper {
    stop: Arc<Stop>,
    file: Arc<SocketFile>,
}

impl Stopper {
    /// Requests a stop: the VMM is disconnected, the device detached. May be called more
    /// than once, from any thread.
    ///
    /// The socket file is removed before this returns, however long the device takes to
    /// finish its work, so a process that exits without waiting for its servers leaves no
    /// socket file.
    pub fn stop(&self) {
        self.file.remove();
        self.stop.ask();
    }
}

/// Stops the thread that accepts connections if the serving thread panics.
struct EndsInPanic<'a>(&'a Stop);

impl Drop for EndsInPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.ask();
        }
    }
}

impl Server {
    /// Listens on a socket at `path`. A stale socket, on which nobody listens any more, is
    /// replaced.
    ///
    /// # Errors
    /// If another server listens on this socket, another kind of file exists at `path`, or
    /// a system call fails.
    pub fn bind(path: impl AsRef<Path>, shell: Shell, options: Options) -> Result<Self, BindError> {
        let path = path.as_ref();
        let listener = Listener::bind(path, options.mode)?;
        let system = |errno: Errno| BindError::System { path: path.into(), source: errno.into() };
        let stop = Stop::new().map_err(system)?;
        let acceptor = Acceptor::new().map_err(system)?;
        let service = Service {
            shell,
            listener,
            options,
            counters: Arc::default(),
            stop: Arc::new(stop),
            guest: Mutex::new(None),
        };
        Ok(Self { service, acceptor, running: AtomicBool::new(false) })
    }

    /// Serves one VMM after another until a [`Stopper`] stops it.
    ///
    /// # Errors
    /// If no connection can be accepted any more, or the server is already running.
    pub fn run(&self) -> Result<(), ServeError> {
        if self.running.swap(true, Ordering::AcqRel) {
            return Err(ServeError::Running { path: self.path().into() });
        }
        let result = self.serve();
        self.running.store(false, Ordering::Release);
        result
    }

    fn serve(&self) -> Result<(), ServeError> {
        let Self { service, acceptor, .. } = self;
        acceptor.open();
        let accept = |source| ServeError::Accept { path: self.path().into(), source };
        std::thread::scope(|scope| {
            let _ends = EndsInPanic(&service.stop);
            let thread = std::thread::Builder::new().name("acceptor".into());
            let accepts = || acceptor.accept_all(service);
            let thread = thread.spawn_scoped(scope, accepts).map_err(accept)?;
            while let Some(client) = acceptor.next() {
                connection::serve(service, acceptor, client);
            }
            let panicked = |_| Err(io::Error::other("the thread that accepts them panicked"));
            thread.join().unwrap_or_else(panicked).map_err(accept)
        })
    }

    /// A handle that stops [`run`](Self::run).
    pub fn stopper(&self) -> Stopper {
        Stopper { stop: Arc::clone(&self.service.stop), file: self.service.listener.file() }
    }

    /// Registers `observer`, which is called for every event, on the server's two threads:
    /// it must be quick. Only the first observer is registered; returns whether this one
    /// was.
    pub fn observe(&self, observer: impl Fn(&ServerEvent) + Send + Sync + 'static) -> bool {
        self.service.counters.observer.set(Box::new(observer)).is_ok()
    }

    /// Current statistics.
    pub fn status(&self) -> Status {
        self.service.counters.status()
    }

    /// The engine's guest for the attached VMM: its regions, grants and faults.
    pub fn guest(&self) -> Option<Guest> {
        self.service.guest.lock().clone()
    }

    /// The device.
    pub fn shell(&self) -> &Shell {
        &self.service.shell
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        self.service.listener.path()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("path", &self.path())
            .field("device", &self.service.shell)
            .field("fd", &self.service.listener.as_fd().as_fd())
            .finish_non_exhaustive()
    }
}
