//! Listeners: whoever has to follow a guest's regions, such as the slots of KVM.

use crate::error::Reason;
use crate::space::Region;

/// A change of a guest's regions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SpaceChange {
    /// The regions that go, in order of address, each whole: also one of which only a part is
    /// removed or changed, and one that is merged with a neighbour that comes or is changed.
    pub outgoing: Vec<Region>,
    /// The regions that come, in order of address: new ones, and what stays of those that go.
    pub incoming: Vec<Region>,
}

/// A listener to changes of a guest's regions, for a VMM that keeps slots of KVM, a memory table
/// of vhost or the DMA map of a VFIO container; see
/// [`AddressSpace::add_listener`](super::AddressSpace::add_listener).
///
/// It is called by the thread that makes the change, which holds the lock of the regions:
/// a change of this guest's regions in it fails with `EBUSY`, and everybody else's waits for it.
/// It can look regions up and map memory. It should not keep a [`Guest`](crate::Guest), which
/// would then never end.
///
/// A change after which all regions have the ranges and the access that they had is not announced.
///
/// While a region goes and comes, as when it is split, a slot of it is missing between the two
/// calls; a VMM stops its vCPUs for the change, or runs their accesses again.
pub trait SpaceListener: Send + Sync {
    /// `change` is about to be made. From its return on nobody may use the memory of the outgoing
    /// regions through the listener.
    ///
    /// # Errors
    /// A reason to refuse the change, such as [`Reason::Os`], with which the operation then fails.
    fn before(&self, change: &SpaceChange) -> core::result::Result<(), Reason> {
        let _ = change;
        Ok(())
    }

    /// `change` has been made: new maps of what is gone are refused, and what has come can be
    /// mapped. Mappings that are held are waited for by the operation's drain, after this.
    fn after(&self, change: &SpaceChange) {
        let _ = change;
    }

    /// `change` was not made after all: another listener refused it, or it failed. Only after a
    /// [`before`](Self::before) that allowed it.
    fn undone(&self, change: &SpaceChange) {
        let _ = change;
    }
}

impl core::fmt::Debug for dyn SpaceListener {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SpaceListener")
    }
}
