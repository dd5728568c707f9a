//! Listeners: whoever has to follow a guest's regions, such as the slots of KVM.

use std::sync::Arc;

use super::inner::Inner;
use crate::addr::GuestPhys;
use crate::error::Reason;
use crate::space::{Placed, Region, Regions};
use crate::span::Span;

/// A change of a guest's regions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SpaceChange {
    /// The regions that go, in order of address, each whole: also one of which only a part is
    /// removed or changed.
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

type Result<T> = core::result::Result<T, Reason>;

impl Inner {
    /// Makes a change of the regions in `span`, and tells the listeners. `rehearse` makes it on a
    /// copy of the regions, or says why it cannot be made. The caller holds the edit lock.
    pub(super) fn announced<T>(
        &self,
        span: Span<GuestPhys>,
        rehearse: impl FnOnce(&mut Regions) -> Result<()>,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let listeners = self.listeners.lock().clone();
        if listeners.is_empty() {
            return make();
        }
        let mut regions = self.read_regions().clone();
        let outgoing = within(&regions, span);
        rehearse(&mut regions)?;
        let hull = outgoing.iter().fold(span, |hull, region| {
            let (start, last) = (region.span().start(), region.span().last());
            Span::inclusive(hull.start().min(start), hull.last().max(last)).unwrap_or(hull)
        });
        let change = SpaceChange { outgoing, incoming: within(&regions, hull) };
        ask(&listeners, &change)?;
        let made = make();
        for listener in &listeners {
            match &made {
                Ok(_) => listener.after(&change),
                Err(_) => listener.undone(&change),
            }
        }
        made
    }

    /// Adds a listener, for which all regions come. The caller holds the edit lock.
    pub(super) fn add_listener(&self, listener: Arc<dyn SpaceListener>) -> Result<()> {
        let change = SpaceChange { outgoing: Vec::new(), incoming: self.all_regions() };
        listener.before(&change)?;
        listener.after(&change);
        self.listeners.lock().push(listener);
        Ok(())
    }

    /// Removes a listener, for which all regions go. Returns whether there was this one. The
    /// caller holds the edit lock.
    pub(super) fn remove_listener(&self, listener: &Arc<dyn SpaceListener>) -> bool {
        let mut listeners = self.listeners.lock();
        let index = listeners.iter().position(|there| Arc::ptr_eq(there, listener));
        let Some(index) = index else { return false };
        listeners.remove(index);
        drop(listeners);
        let change = SpaceChange { outgoing: self.all_regions(), incoming: Vec::new() };
        // It cannot keep what it has by refusing.
        let _ = listener.before(&change);
        listener.after(&change);
        true
    }

    fn all_regions(&self) -> Vec<Region> {
        self.read_regions().iter().map(|placed| placed.region.clone()).collect()
    }
}

fn within(regions: &Regions, span: Span<GuestPhys>) -> Vec<Region> {
    regions.overlapping(span).map(|Placed { region, .. }| region.clone()).collect()
}

/// Asks all listeners; those before one that refuses hear that the change is not made.
fn ask(listeners: &[Arc<dyn SpaceListener>], change: &SpaceChange) -> Result<()> {
    for (index, listener) in listeners.iter().enumerate() {
        if let Err(reason) = listener.before(change) {
            listeners.iter().take(index).for_each(|earlier| earlier.undone(change));
            return Err(reason);
        }
    }
    Ok(())
}
