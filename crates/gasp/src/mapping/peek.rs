//! A look at one word of a view, without mapping anything.

use super::hold::Hold;
use crate::addr::DeviceAddr;
use crate::span::Span;
use crate::view::View;
use crate::view::entry::Leaf;

/// The leaf for the granule of `addr`, and the last address that the same word stands for.
/// `None` if there is none, or the thread has no slot left.
pub(crate) fn peek(view: &View, addr: DeviceAddr) -> Option<(Leaf, DeviceAddr)> {
    // Nodes of the table are freed only after a scan, which waits for the slot.
    let _busy = Hold::publish(Span::new(addr, 1).ok()?)?;
    let found = view.table.find(addr.0);
    let leaf = found.leaf_at(addr.0)?;
    Some((leaf, DeviceAddr(addr.0 + (found.rest(addr.0) - 1))))
}
