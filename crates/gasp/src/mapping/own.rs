//! The calling thread's own mappings and look-ups, for which it must not wait (decision 22).
//!
//! A drain waits for mappings, and a scan for look-ups; on the only thread that can end them,
//! either waits for ever. The slots of the thread's lane show them before anything is changed.

use crate::error::Reason;
use crate::protocol::{self, Use};

/// Fails if this thread is in a look-up, the `find` of
/// [`map_page_of`](crate::Vdev::map_page_of): a scan on this thread would wait for that look-up,
/// and so does the holder of any lock that this thread would wait for.
pub(crate) fn check_not_looking_up() -> Result<(), Reason> {
    match protocol::is_looking_up() {
        true => Err(Reason::Deadlock("it is called inside a look-up of a device")),
        false => Ok(()),
    }
}

/// The number of mappings that `matches`, on any thread.
pub(crate) fn count_held(matches: impl FnMut(Use) -> bool) -> usize {
    protocol::scan(matches).len()
}

/// The mappings that this thread has created and that are still held.
pub(crate) fn own() -> impl Iterator<Item = Use> {
    protocol::own().into_iter().filter_map(|holder| holder.held())
}
