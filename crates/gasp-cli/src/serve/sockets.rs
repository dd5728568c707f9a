//! The servers of this process, so that each way out that runs code stops them and removes
//! their socket files: also a process that ends while a server is stuck, or at a second
//! signal, where nothing is dropped.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use gasp_vfio_user::{Server, Stopper};
use parking_lot::{Mutex, MutexGuard};

use super::id::Id;

/// The servers whose sockets are there.
#[derive(Clone, Default, Debug)]
pub(super) struct Sockets {
    servers: Arc<Mutex<Vec<(Id, Stopper)>>>,
    /// The process ends now.
    ending: Arc<AtomicBool>,
}

impl Sockets {
    /// Notes the server that `bind` makes. Nobody stops the others meanwhile, so none is
    /// missed.
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
        // Whatever has come of it, the end is to be that of whoever ends the process.
        while self.ending.load(Ordering::Acquire) {
            std::thread::park();
        }
        bound
    }

    /// Forgets a server that is gone.
    pub(super) fn forget(&self, id: Id) {
        self.lock().retain(|(other, _)| *other != id);
    }

    /// Removes all socket files, for a process that ends now: whoever wants to add one
    /// waits for that.
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
