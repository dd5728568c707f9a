//! Which view a device's addresses go through, changed while it maps.
#![allow(unsafe_code, reason = "readers follow a pointer that the control path keeps valid")]

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use std::sync::Arc;

use super::View;

/// The view of one device: a pointer that its maps follow and the control path moves.
///
/// Whoever moves it keeps the old view until a scan of the slots has waited for every
/// look-up that began before.
#[derive(Debug)]
pub(crate) struct Attachment(AtomicPtr<View>);

impl Attachment {
    pub(crate) fn new(view: &Arc<View>) -> Self {
        Self(AtomicPtr::new(Arc::as_ptr(view).cast_mut()))
    }

    /// Sends the device's next look-ups through another view.
    pub(crate) fn set(&self, view: &Arc<View>) {
        self.0.store(Arc::as_ptr(view).cast_mut(), Ordering::Release);
    }

    /// Whether this is the view now.
    pub(crate) fn is(&self, view: &Arc<View>) -> bool {
        ptr::eq(self.0.load(Ordering::Acquire), Arc::as_ptr(view))
    }

    /// The view.
    ///
    /// # Safety
    /// The caller's slot is busy, and the view is not used once it no longer is.
    #[inline]
    pub(crate) unsafe fn view(&self) -> &View {
        // SAFETY: the pointer comes from an `Arc`. Views that a device can be attached
        // to are dropped only after every device has been moved away and a scan has
        // waited for the slots that were busy then; the caller's is one of them, or was
        // published later and so sees the pointer that was set before the scan.
        unsafe { &*self.0.load(Ordering::Acquire) }
    }
}
