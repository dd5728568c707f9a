//! The registry of this process's servers, by which every end of the process that runs code
//! removes their socket files: also if a server is stuck, or after a second signal, where
//! nothing is dropped.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use gasp_vfio_user::{Server, Stopper};
use parking_lot::{Mutex, MutexGuard};

use super::id::Id;

/// The servers whose sockets exist.
#[derive(Clone, Default, Debug)]
pub(super) struct Sockets {
    servers: Arc<Mutex<Vec<(Id, Stopper)>>>,
    /// The process is ending now.
    ending: Arc<AtomicBool>,
}

impl Sockets {
    /// Creates a server by `bind` and adds it. [`remove_all`](Self::remove_all) waits for that,
    /// so it misses none.
    pub(super) fn add<E>(
        &self,
        id: Id,
        bind: impl FnOnce() -> Result<Server, E>,
    ) -> Result<Server, E> {
        let mut servers = self.lock();
        let bound = bind();
        if let Ok(server) = &bound {
            servers.push((id, server.stopper()));
        }
        drop(servers);
        // Another thread is ending the process: this one must not end it with another status.
        while self.ending.load(Ordering::Acquire) {
            std::thread::park();
        }
        bound
    }

    /// Removes a server that has ended.
    pub(super) fn forget(&self, id: Id) {
        self.lock().retain(|(other, _)| *other != id);
    }

    /// Removes all socket files, for a process that ends now. Threads that add a server wait
    /// for ever.
    pub(super) fn remove_all(&self) {
        self.ending.store(true, Ordering::Release);
        let servers = self.lock();
        for (_, stopper) in &*servers {
            stopper.stop();
        }
        core::mem::forget(servers);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Id, Stopper)>> {
        self.servers.lock()
    }
}
