//! What a thread would wait for itself: its own mappings, and its own look-ups.
//!
//! A drain waits for mappings, and a scan for look-ups; on the thread that alone can end
//! them, either waits for ever. The slots of a thread's lane tell, before anything is changed.

use crate::error::Reason;
use crate::protocol::{self, Use};

/// Refuses what this thread may not do inside [`map_page_of`](super::Port::map_page_of): a scan
/// waits for the look-up that it is in, and so does whoever has a lock that it would wait for.
pub(crate) fn check_not_looking_up() -> Result<(), Reason> {
    match protocol::is_looking_up() {
        true => Err(Reason::Deadlock("it is called inside a look-up of a device")),
        false => Ok(()),
    }
}

/// The mappings that this thread has made and that are still held.
pub(crate) fn own() -> impl Iterator<Item = Use> {
    protocol::own().into_iter().filter_map(|holder| holder.held())
}
