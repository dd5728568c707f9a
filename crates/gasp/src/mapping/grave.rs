//! Memory kept for mappings that have outlived their revoke.
//!
//! Each such mapping has an entry, found by its slot and stamp, with what is kept for it; the
//! mappings of one drain share that. The end of a mapping removes one entry, whatever else is
//! kept for others, and the last entry frees the memory, on the thread that ended the mapping
//! and without any lock.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::protocol::{self, Holder, Key};
use crate::space::segment::Segment;

/// Memory that must stay while mappings of it are held.
pub(crate) type Keep = Vec<Arc<Segment>>;

#[derive(Default)]
struct Graves {
    kept: BTreeMap<Key, Vec<Arc<Keep>>>,
    /// Where [`settle`] goes on.
    next: Key,
}

static GRAVES: Mutex<Graves> =
    Mutex::new(Graves { kept: BTreeMap::new(), next: (u64::MIN, u64::MIN) });

/// How many entries are added before the lock is given back.
const STEP: usize = 64;
/// How many entries [`settle`] looks at.
const SETTLED: usize = 4;

fn graves() -> MutexGuard<'static, Graves> {
    GRAVES.lock()
}

/// Marks the mappings of `holders` as revoked, and keeps `keep` until all of them are gone.
pub(super) fn bury(holders: &[Holder], keep: Keep) {
    let keep = (!keep.is_empty()).then(|| Arc::new(keep));
    for some in holders.chunks(STEP) {
        some.iter().for_each(Holder::mark_revoked);
        let Some(keep) = &keep else { continue };
        let mut graves = graves();
        for holder in some {
            let there = graves.kept.entry(holder.key()).or_default();
            // A guest that revokes the same mapping again and again adds nothing.
            let kept = |segment| {
                there.iter().flat_map(|keep| keep.iter()).any(|at| Arc::ptr_eq(at, segment))
            };
            if !keep.iter().all(kept) {
                there.push(Arc::clone(keep));
            }
        }
    }
    // The other half of the barrier in `hold::after_release`: whoever released a mapping
    // without seeing its mark is seen here.
    protocol::heavy();
    holders.iter().filter(|holder| !holder.is_held()).for_each(|holder| free(holder.key()));
}

/// A mapping that was marked as revoked has ended.
pub(super) fn free(key: Key) {
    let kept = graves().kept.remove(&key);
    // Unmapping memory takes time; nobody waits for it under the lock.
    drop(kept);
}

/// Frees what a few mappings that are gone by now have left. Only where there is no
/// membarrier(2) can there be any: a mapping that ends and a drain that gives it up may then
/// not see each other. No more than a few entries, so that nobody waits for what others have left.
pub(crate) fn settle() {
    if protocol::is_expedited() {
        return;
    }
    let mut graves = graves();
    let from = (Bound::Included(graves.next), Bound::Unbounded);
    let some: Vec<Key> = graves.kept.range(from).take(SETTLED + 1).map(|(&key, _)| key).collect();
    graves.next = some.get(SETTLED).copied().unwrap_or_default();
    let over = |key: &&Key| !Holder::of(**key).is_some_and(|holder| holder.is_held());
    let gone: Vec<_> = some.iter().filter(over).map(|key| graves.kept.remove(key)).collect();
    drop(graves);
    drop(gone);
}
