//! Changes of a table in chunks.
//!
//! What a guest requests of its IOMMU can concern a million entries. No lock is held for all of
//! them: each chunk takes the locks of the regions and of the table anew, and releases them
//! fairly, to the threads that wait (docs/decisions.md, "An operation in proportion to what a
//! guest asks"). The changes of one domain are serialised by a lock of its own, which nothing
//! else takes.
#![allow(unsafe_code, reason = "frees nodes after the scan that makes it safe")]

use core::ops::ControlFlow;

use parking_lot::{MutexGuard, RwLock, RwLockReadGuard};

use crate::addr::DeviceAddr;
use crate::mapping::{DrainPolicy, Keep, Revocation};
use crate::space::Regions;
use crate::space::segment::Segments;
use crate::span::Span;
use crate::view::View;
use crate::view::table::{Retired, Writer};

/// The memory of a guest that the grants of its domains lead to.
#[derive(Clone, Copy)]
pub(crate) struct GuestMemory<'a> {
    /// Each chunk holds this lock for reading; segments are removed under it for writing.
    pub(crate) regions: &'a RwLock<Regions>,
    pub(crate) segments: &'a Segments,
}

/// Calls `chunk` with the rest of `span` until it returns no address to continue at, with the
/// locks released in between. A chunk does as much as the writer's
/// [`Work`](crate::view::work::Work) allows, and at least one step.
pub(crate) fn in_chunks<B>(
    view: &View,
    memory: GuestMemory<'_>,
    span: Span<DeviceAddr>,
    chunk: impl FnMut(&Regions, &mut Writer, Span<DeviceAddr>) -> ControlFlow<B, Option<DeviceAddr>>,
) -> ControlFlow<B> {
    in_chunks_and_between(view, memory, span, chunk, || ())
}

/// As [`in_chunks`]; after each chunk, with no lock held, it calls `between`.
pub(super) fn in_chunks_and_between<B>(
    view: &View,
    memory: GuestMemory<'_>,
    span: Span<DeviceAddr>,
    mut chunk: impl FnMut(&Regions, &mut Writer, Span<DeviceAddr>) -> ControlFlow<B, Option<DeviceAddr>>,
    mut between: impl FnMut(),
) -> ControlFlow<B> {
    let mut rest = Some(span);
    while let Some(span) = rest {
        let regions = memory.regions.read();
        let mut writer = view.writer();
        let next = chunk(&regions, &mut writer, span);
        let wants_grace = writer.wants_grace();
        // Fairly: threads that wait go first, or this loop would take the locks again before
        // they have woken.
        MutexGuard::unlock_fair(writer);
        RwLockReadGuard::unlock_fair(regions);
        between();
        if wants_grace {
            free_retired(view);
        }
        rest = next?.and_then(|next| Span::inclusive(next, span.last()));
    }
    ControlFlow::Continue(())
}

/// Frees the retired nodes of a table, after a scan that waits for their readers.
pub(crate) fn free_retired(view: &View) {
    let retired = view.writer().take_retired();
    if !retired.is_empty() {
        drop(Revocation::default().scan(DrainPolicy::default(), Keep::new));
        // SAFETY: `free` asks that the nodes are of this view's table and that a scan waited for
        // every reader that was in it when they were taken from its writer: they were taken from
        // it above, and the scan came after.
        unsafe { free(view, retired) };
    }
}

/// Frees retired nodes, in chunks.
///
/// # Safety
/// The nodes are of this view's table, and a scan has waited for every reader that was in it
/// when they were taken from its writer.
pub(crate) unsafe fn free(view: &View, mut retired: Retired) {
    while !retired.is_empty() {
        let mut writer = view.writer();
        // SAFETY: `Writer::free` asks that the nodes came from this writer and that every reader
        // that was in the table then has left it. This function's contract is the same: the nodes
        // were taken from this view's writer, and a scan has waited for those readers.
        unsafe { writer.free(&mut retired) };
        MutexGuard::unlock_fair(writer);
    }
}
