//! One device on one socket, for one VMM after another.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use gasp::{Errno, Guest};
use gasp_vdev::Shell;
use parking_lot::Mutex;

use crate::connection;
use crate::door::Door;
use crate::error::{BindError, ServeError};
use crate::options::Options;
use crate::report::{Happened, Status};
use crate::service::Service;
use crate::socket::{Listener, SocketFile};
use crate::stop::Stop;

/// A device on a socket.
///
/// [`run`](Self::run) serves until a [`Stopper`] says so; everything else may be called
/// meanwhile, from other threads. The socket file is removed by the stopper, or when the
/// server is dropped.
pub struct Server {
    service: Service,
    door: Door,
    running: AtomicBool,
}

/// Ends a [`Server::run`].
#[derive(Clone, Debug)]
pub struct Stopper {
    stop: Arc<Stop>,
    file: Arc<SocketFile>,
}

impl Stopper {
    /// Asks the server to end: the VMM is disconnected, the device detached. May be called
    /// more than once, from any thread.
    ///
    /// The socket file is removed before this returns, however long the device takes to end
    /// its work. A process that exits without waiting for its servers leaves none.
    pub fn stop(&self) {
        self.file.remove();
        self.stop.ask();
    }
}

/// Ends the thread that takes connections if the one that serves panics.
struct EndsInPanic<'a>(&'a Stop);

impl Drop for EndsInPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.ask();
        }
    }
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
        let service = Service {
            shell,
            listener,
            options,
            counters: Arc::default(),
            stop: Arc::new(stop),
            guest: Mutex::new(None),
        };
        Ok(Self { service, door, running: AtomicBool::new(false) })
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
        let Self { service, door, .. } = self;
        door.open();
        let accept = |source| ServeError::Accept { path: self.path().into(), source };
        std::thread::scope(|scope| {
            let _ends = EndsInPanic(&service.stop);
            let keeper = std::thread::Builder::new().name("door".into());
            let keeper = keeper.spawn_scoped(scope, || door.keep(service)).map_err(accept)?;
            while let Some(client) = door.next() {
                connection::serve(service, door, client);
            }
            let panicked = |_| Err(io::Error::other("the thread that takes them panicked"));
            keeper.join().unwrap_or_else(panicked).map_err(accept)
        })
    }

    /// What ends [`run`](Self::run).
    pub fn stopper(&self) -> Stopper {
        Stopper { stop: Arc::clone(&self.service.stop), file: self.service.listener.file() }
    }

    /// Has `observer` called for everything that happens, on the server's two threads: it must
    /// be quick. Only the first observer counts; gives back whether this was it.
    pub fn observe(&self, observer: impl Fn(&Happened) + Send + Sync + 'static) -> bool {
        self.service.counters.observer.set(Box::new(observer)).is_ok()
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.service.counters.status()
    }

    /// The engine's guest for the VMM that is attached: its regions, grants and faults.
    pub fn guest(&self) -> Option<Guest> {
        self.service.guest.lock().clone()
    }

    /// The device.
    pub fn shell(&self) -> &Shell {
        &self.service.shell
    }

    /// The socket.
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
