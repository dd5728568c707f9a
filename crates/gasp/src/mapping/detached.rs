//! Memory kept for detached mappings, which have outlived their drain.
//!
//! Each such mapping has an entry with the memory kept for it, found by its slot and stamp; the
//! mappings of one drain share the memory. The end of a mapping removes its entry only, and the
//! end of the last one frees the memory, on the thread that ended the mapping and without any
//! lock.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::protocol::{self, Holder, Key};
use crate::space::segment::Segment;

/// Memory that has to stay mapped while mappings of it are held.
pub(crate) type Keep = Vec<Arc<Segment>>;

#[derive(Default)]
struct Detached {
    kept: BTreeMap<Key, Vec<Arc<Keep>>>,
    /// The key at which [`reclaim`] continues.
    next: Key,
}

static DETACHED: Mutex<Detached> =
    Mutex::new(Detached { kept: BTreeMap::new(), next: (u64::MIN, u64::MIN) });

/// The most entries that are added before the lock is released.
const STEP: usize = 64;
/// The most entries that [`reclaim`] examines.
const RECLAIM_MAX: usize = 4;

fn detached() -> MutexGuard<'static, Detached> {
    DETACHED.lock()
}

/// Marks the mappings of `holders` as revoked, and keeps `keep` until all of them are gone.
pub(super) fn detach(holders: &[Holder], keep: Keep) {
    let keep = (!keep.is_empty()).then(|| Arc::new(keep));
    for some in holders.chunks(STEP) {
        some.iter().for_each(Holder::mark_revoked);
        let Some(keep) = &keep else { continue };
        let mut detached = detached();
        for holder in some {
            let entry = detached.kept.entry(holder.key()).or_default();
            // Revoking the same mapping again and again adds nothing.
            let has = |segment| {
                entry.iter().flat_map(|keep| keep.iter()).any(|kept| Arc::ptr_eq(kept, segment))
            };
            if !keep.iter().all(has) {
                entry.push(Arc::clone(keep));
            }
        }
    }
    // The other half of the barrier in `hold::after_release`: a release by a thread that did
    // not see the mark is seen here.
    protocol::heavy();
    holders.iter().filter(|holder| !holder.is_held()).for_each(|holder| release(holder.key()));
}

/// Drops the memory kept for a mapping that was marked as revoked and has ended.
pub(super) fn release(key: Key) {
    let kept = detached().kept.remove(&key);
    // Unmapping memory takes time, so it is done after the lock is released.
    drop(kept);
}

/// Drops the memory kept for a few mappings that have ended. There can be such entries only
/// without membarrier(2): a mapping that ends and a drain that detaches it may then not see each
/// other. It examines a few entries at a time, so that no caller waits long.
pub(crate) fn reclaim() {
    if protocol::is_expedited() {
        return;
    }
    let mut detached = detached();
    let from = (Bound::Included(detached.next), Bound::Unbounded);
    let some: Vec<Key> =
        detached.kept.range(from).take(RECLAIM_MAX + 1).map(|(&key, _)| key).collect();
    detached.next = some.get(RECLAIM_MAX).copied().unwrap_or_default();
    let ended = |key: &&Key| !Holder::of(**key).is_some_and(|holder| holder.is_held());
    let gone: Vec<_> = some.iter().filter(ended).map(|key| detached.kept.remove(key)).collect();
    drop(detached);
    drop(gone);
}
