//! Whether this process can pin pages: found out by doing so.

use super::object::MemoryObject;
use super::pin::PinMethod;
use super::report::Backing;

/// Whether this process can pin pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinAccess {
    /// It can.
    Allowed,
    /// It cannot, and what would change that.
    Denied(&'static str),
}

/// Finds out whether this process can pin pages in any way, by pinning `len` bytes of
/// ordinary pages.
pub fn pin_access(len: usize) -> PinAccess {
    try_pin(len, &PinMethod::PREFERENCE)
}

fn try_pin(len: usize, methods: &[PinMethod]) -> PinAccess {
    let ram = MemoryObject::ram(len as u64).prefer(&[Backing::Base]).pin(methods);
    match ram.create().map(|object| object.not_pinned_because()) {
        Ok(None) => PinAccess::Allowed,
        Ok(Some(why)) => PinAccess::Denied(why),
        Err(_) => PinAccess::Denied("memory cannot be had"),
    }
}

impl PinMethod {
    /// Finds out whether this process can pin pages in this way, by pinning `len` bytes of
    /// ordinary pages. The limits count bytes or pages, so the answer depends on how many
    /// are asked for.
    pub fn access(self, len: usize) -> PinAccess {
        try_pin(len, &[self])
    }
}
