//! Listed guests.

use core::fmt;
use std::sync::Arc;

use gasp::Errno;

use super::error::Error;
use crate::boundary::Failure;
use crate::guard;
use crate::objects::{Guest, choose, chosen, guest_of, opaque};
use crate::types::GuestSystem;

/// A guest that C functions find.
///
/// All of its domains and devices are listed with it, for `gasp_domain_find` and `gasp_vdev_find`.
/// Dropped with the last of its [`ListedVdev`](super::ListedVdev)s, it is removed from the list: C's calls with it are
/// then refused. The engine's guest is not destroyed.
///
/// A clone is the same guest.
#[derive(Clone)]
pub struct ListedGuest(Arc<Entry>);

/// The entry of a guest in the list; dropping it removes the guest.
pub(super) struct Entry(pub(super) Arc<Guest>);

impl Drop for Entry {
    fn drop(&mut self) {
        // It fails for a guest that is not listed only, and this one is: C cannot destroy it.
        let _ = Guest::delist(self.0.number);
    }
}

impl fmt::Debug for ListedGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListedGuest({:?})", self.engine().name())
    }
}

impl ListedGuest {
    /// Lists a guest. Reads the environment variable `GASP_DEBUG`, if it is the first.
    ///
    /// # Errors
    /// `ENOSPC` at the limit of 262,144 listed guests, vdevs or domains of the process; `ENOMEM` if
    /// the host has no memory for the vdevs.
    pub fn new(engine: gasp::Guest) -> Result<Self, Error> {
        guard::prepare();
        let number = Guest::enlist(engine, true)?;
        let guest = guest_of(Some(opaque(number)))?;
        Ok(Self(Arc::new(Entry(guest))))
    }

    /// What C sees: `struct guest_system *`, a number that is never dereferenced.
    pub fn pointer(&self) -> *mut GuestSystem {
        opaque(self.0.0.number)
    }

    /// The engine's guest.
    pub fn engine(&self) -> &gasp::Guest {
        &self.0.0.engine
    }

    /// Chooses this guest for those calls of this thread that name none, from now on, as
    /// `gasp_guest_use()` does.
    pub fn choose(&self) {
        choose(self.0.0.number);
    }

    /// Runs `body` with this guest chosen, and restores this thread's choice after it: for a
    /// callback of a device on a thread that serves several guests.
    pub fn chosen<T>(&self, body: impl FnOnce() -> T) -> T {
        /// Restores the choice, also after a panic.
        struct Before(usize);
        impl Drop for Before {
            fn drop(&mut self) {
                choose(self.0);
            }
        }
        let _before = Before(chosen());
        self.choose();
        body()
    }

    /// Ends the startup phase, as `gasp_guest_start()` does.
    ///
    /// # Errors
    /// `EPERM` if it has ended already.
    pub fn start(&self) -> Result<(), Error> {
        match self.0.0.start() {
            true => Ok(()),
            false => Err(Error(Failure::Call(Errno::PERM, "the guest is running already"))),
        }
    }

    /// Whether the startup phase has ended.
    pub fn is_running(&self) -> bool {
        self.0.0.is_running()
    }

    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.0
    }
}

/// The guest of a C function that the program exports: the one that C names in the call, or, if it
/// names none, as in the 8.0 forms, the one that this thread has chosen, or the only one.
///
/// # Errors
/// `EINVAL` if what is named is not a guest; `ENXIO` if there is none, or the chosen one has been
/// destroyed; `ENOTUNIQ` if there are several and this thread has chosen none.
pub fn engine_of(named: Option<*const GuestSystem>) -> Result<gasp::Guest, Error> {
    Ok(guest_of(named)?.engine.clone())
}
