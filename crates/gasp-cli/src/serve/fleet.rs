//! The devices that are served. Only the service changes them; reports look at them.

use std::sync::Arc;

use parking_lot::RwLock;

use super::device::Served;
use super::id::Id;

/// The devices, in the order in which they came.
#[derive(Clone, Default)]
pub(super) struct Fleet(Arc<RwLock<Vec<Served>>>);

impl Fleet {
    /// Looks at each of them; nothing that waits.
    pub(super) fn look<T>(&self, look: impl FnMut(&Served) -> T) -> Vec<T> {
        self.0.read().iter().map(look).collect()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.read().is_empty()
    }

    /// Whether this one is served.
    pub(super) fn has(&self, id: Id) -> bool {
        self.look(|served| served.id == id).contains(&true)
    }

    /// Adds one.
    pub(super) fn push(&self, served: Served) {
        self.0.write().push(served);
    }

    /// Takes one out; nobody looks at it after that.
    pub(super) fn take(&self, id: Id) -> Option<Served> {
        let mut served = self.0.write();
        let at = served.iter().position(|served| served.id == id)?;
        Some(served.remove(at))
    }
}
