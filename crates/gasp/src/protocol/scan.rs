//! The revoking side: waits for look-ups in progress, and collects the mappings that are held.

use super::barrier;
use super::holder::Holder;
use super::lane;
use super::slot::{Slot, Use};

/// Waits for every look-up that may have seen what was just removed, and collects the
/// mappings for which `matches` returns `true`.
///
/// When it returns, no reader is inside anything that was removed before the call.
pub(crate) fn scan(mut matches: impl FnMut(Use) -> bool) -> Vec<Holder> {
    barrier::heavy();
    let mut holders = Vec::new();
    each_held(|slot, held| {
        if matches(held) {
            holders.push(Holder::new(slot, held.stamp));
        }
    });
    holders
}

/// Waits for every look-up in progress. The caller has passed the heavy barrier.
pub(super) fn wait_for_lookups() {
    each_held(|_, _| ());
}

fn each_held(mut each: impl FnMut(&'static Slot, Use)) {
    for lane in lane::all() {
        lane.each_in_use(|slot| {
            if let Some(held) = slot.held() {
                each(slot, held);
            }
        });
    }
}
