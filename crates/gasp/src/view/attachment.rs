//! The view that a device's addresses go through, changed while the device maps.
#![allow(unsafe_code, reason = "readers follow a pointer that the control path keeps valid")]

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use std::sync::Arc;

use super::View;

/// The view of one device: a pointer that its maps follow and the control path changes.
///
/// The control path keeps the old view until a scan of the slots has waited for every
/// look-up that began before the change.
#[derive(Debug)]
pub(crate) struct Attachment(AtomicPtr<View>);

impl Attachment {
    pub(crate) fn new(view: &Arc<View>) -> Self {
        Self(AtomicPtr::new(Arc::as_ptr(view).cast_mut()))
    }

    /// Changes the view that the device's next look-ups use.
    pub(crate) fn set(&self, view: &Arc<View>) {
        self.0.store(Arc::as_ptr(view).cast_mut(), Ordering::Release);
    }

    /// Whether `view` is the current one.
    pub(crate) fn is(&self, view: &Arc<View>) -> bool {
        ptr::eq(self.0.load(Ordering::Acquire), Arc::as_ptr(view))
    }

    /// The current view.
    ///
    /// # Safety
    /// The caller's slot is busy, and the result is not used after the slot ceases to be busy.
    #[inline]
    pub(crate) unsafe fn view(&self) -> &View {
        // SAFETY: the pointer is not null, aligned and of an initialised `View`: it comes from
        // an `Arc`. The view lives as long as the caller uses it: one that a device can be
        // attached to is dropped only after every device has been moved to another and a scan
        // has waited for the slots that were busy then; the caller's slot is one of them, or
        // was published later and so sees the pointer that was set before the scan. Nothing
        // refers to it mutably until it is dropped.
        unsafe { &*self.0.load(Ordering::Acquire) }
    }
}
