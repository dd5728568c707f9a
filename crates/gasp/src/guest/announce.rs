//! Announcements of changes of the regions to those who listen.

use std::sync::Arc;

use super::inner::Inner;
use super::listener::{SpaceChange, SpaceListener};
use crate::access::Access;
use crate::addr::GuestPhys;
use crate::error::Reason;
use crate::space::{Placed, Region, Regions};
use crate::span::Span;

type Result<T> = core::result::Result<T, Reason>;

impl Inner {
    /// Makes a change of the regions in `span`, and tells the listeners. `rehearse` makes it on a
    /// copy of the regions, or says why it cannot be made. A change after which all regions have
    /// the ranges and the access that they had is not announced. The caller holds the edit lock.
    /// In a listener it fails, also if the listener's thread makes it through the lock that it
    /// holds.
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
        let _announcing = self.announcing.try_lock().ok_or(Reason::Locked)?;
        let before = self.read_regions().clone();
        let mut after = before.clone();
        rehearse(&mut after)?;
        // A region that comes can contain neighbours of `span` that were merged with it: they go.
        let reached = hull(&after, hull(&before, span));
        let (outgoing, incoming) = (within(&before, reached), within(&after, reached));
        if outgoing.iter().map(seen).eq(incoming.iter().map(seen)) {
            return make();
        }
        let change = SpaceChange { outgoing, incoming };
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
        let _announcing = self.announcing.try_lock().ok_or(Reason::Locked)?;
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

/// `span` and the whole of each region that overlaps it.
fn hull(regions: &Regions, span: Span<GuestPhys>) -> Span<GuestPhys> {
    regions.overlapping(span).fold(span, |hull, Placed { region, .. }| {
        let (start, last) = (region.span().start(), region.span().last());
        Span::inclusive(hull.start().min(start), hull.last().max(last)).unwrap_or(hull)
    })
}

/// What a listener sees change of a region; its tag and its owner are none of its concern.
fn seen(region: &Region) -> (Span<GuestPhys>, Access) {
    (region.span(), region.access())
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
