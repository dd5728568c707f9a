//! The two halves of an asymmetric barrier.
//!
//! The mapping side must have its slot's store visible before it looks a range up; the
//! revoking side must have its removal visible before it reads the slots. Both need a
//! store-load barrier. Where the kernel has membarrier(2), the revoking side pays for
//! both: its call makes every running thread of the process pass a full barrier, and the
//! mapping side only keeps the compiler from reordering. Elsewhere each side has a fence,
//! and so it has under loom, which knows fences but no system calls.

use core::sync::atomic::{AtomicBool, compiler_fence};
use std::sync::Once;

use rustix::io::Errno;
use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};

use crate::sync::{Ordering, fence};

/// Whether the mapping side may do without a fence. It becomes true at most once, after
/// the process is registered, and a thread that has not seen it yet is only slower.
static EXPEDITED: AtomicBool = AtomicBool::new(false);

/// Chooses the kind of barrier; called before the first view is made.
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        use MembarrierCommand::{PrivateExpedited, RegisterPrivateExpedited};
        let expedited = membarrier_query().contains_command(PrivateExpedited)
            && membarrier(RegisterPrivateExpedited).is_ok()
            && membarrier(PrivateExpedited).is_ok();
        EXPEDITED.store(expedited, Ordering::SeqCst);
    });
}

/// Whether the revoking side pays for both.
pub(super) fn is_expedited() -> bool {
    EXPEDITED.load(Ordering::Relaxed)
}

/// The mapping side's half: between publishing a slot and looking up.
#[inline(always)]
pub(super) fn light() {
    if EXPEDITED.load(Ordering::Relaxed) {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The revoking side's half: between the removal and reading the slots.
pub(super) fn heavy() {
    fence(Ordering::SeqCst);
    if !EXPEDITED.load(Ordering::Relaxed) {
        return;
    }
    let mut result = membarrier(MembarrierCommand::PrivateExpedited);
    if result == Err(Errno::PERM) {
        // A forked child whose kernel did not keep the registration.
        result = membarrier(MembarrierCommand::RegisterPrivateExpedited)
            .and_then(|()| membarrier(MembarrierCommand::PrivateExpedited));
    }
    if let Err(error) = result {
        // Registered and tried once, it cannot fail; going on without it could leave a
        // device with memory it must not touch.
        tracing::error!(%error, "membarrier failed; stopping before a revoke becomes unsafe");
        std::process::abort();
    }
}
