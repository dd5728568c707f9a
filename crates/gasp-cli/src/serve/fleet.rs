//! The set of served devices. Only the service changes it; the reporter reads it.

use std::sync::Arc;

use parking_lot::RwLock;

use super::device::Served;
use super::id::Id;

/// The devices, in the order in which they were added.
#[derive(Clone, Default)]
pub(super) struct Fleet(Arc<RwLock<Vec<Served>>>);

impl Fleet {
    /// Calls `look` for each device, under a lock: it must not block.
    pub(super) fn look<T>(&self, look: impl FnMut(&Served) -> T) -> Vec<T> {
        self.0.read().iter().map(look).collect()
    }

    /// Whether there is no device.
    pub(super) fn is_empty(&self) -> bool {
        self.0.read().is_empty()
    }

    /// Whether this device is served.
    pub(super) fn has(&self, id: Id) -> bool {
        self.look(|served| served.id == id).contains(&true)
    }

    /// Adds a device.
    pub(super) fn push(&self, served: Served) {
        self.0.write().push(served);
    }

    /// Removes a device; no [`look`](Self::look) sees it afterwards.
    pub(super) fn take(&self, id: Id) -> Option<Served> {
        let mut served = self.0.write();
        let at = served.iter().position(|served| served.id == id)?;
        Some(served.remove(at))
    }
}
