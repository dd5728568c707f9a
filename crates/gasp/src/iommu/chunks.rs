//! A table gone through in chunks.
//!
//! What a guest asks of its IOMMU can concern a million entries. No lock is held for all
//! of them: each chunk takes the locks of the regions and of the table anew, and hands
//! them to whoever waits (decision 23). The order of changes of one domain is kept by
//! a lock of its own, which nobody else ever needs.
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

/// The memory of a guest, as the grants of its domains see it.
#[derive(Clone, Copy)]
pub(crate) struct GuestMemory<'a> {
    /// Each chunk reads them under this lock, under which segments are removed.
    pub(crate) regions: &'a RwLock<Regions>,
    pub(crate) segments: &'a Segments,
}

/// Calls `chunk` with what is left of `span` until that returns no address from which to
/// go on, with the locks released in between. It does as much as the writer's
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
        // Fairly: whoever waits goes first, or this loop would take the locks again before
        // they have woken.
        MutexGuard::unlock_fair(writer);
        RwLockReadGuard::unlock_fair(regions);
        between();
        if wants_grace {
            grace(view);
        }
        rest = next?.and_then(|next| Span::inclusive(next, span.last()));
    }
    ControlFlow::Continue(())
}

/// Frees what was retired from a table, once its readers have left.
pub(crate) fn grace(view: &View) {
    let retired = view.writer().take_retired();
    if !retired.is_empty() {
        drop(Revocation::default().scan(DrainPolicy::default(), Keep::new));
        // SAFETY: the scan waited for every reader that was in the table.
        unsafe { free(view, retired) };
    }
}

/// Frees retired nodes, in chunks.
///
/// # Safety
/// They are of this view's table, and a scan has waited for every reader that was in it
/// when they were taken from its writer.
pub(crate) unsafe fn free(view: &View, mut retired: Retired) {
    while !retired.is_empty() {
        let mut writer = view.writer();
        // SAFETY: the caller promises that the nodes came from this view's writer, and that
        // every reader that was in the table then has left it.
        unsafe { writer.free(&mut retired) };
        MutexGuard::unlock_fair(writer);
    }
}
