//! Whether this process can pin pages, determined by pinning some.

use super::object::MemoryObject;
use super::pin::PinMethod;
use super::report::Backing;

/// Whether this process can pin pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinAccess {
    /// It can.
    Allowed,
    /// It cannot: why, and what would help.
    Denied(&'static str),
}

/// Tries whether this process can pin pages by any [method](PinMethod): creates RAM of `len` bytes
/// of base pages, pins it and releases it.
pub fn pin_access(len: usize) -> PinAccess {
    try_pin(len, &PinMethod::PREFERENCE)
}

fn try_pin(len: usize, methods: &[PinMethod]) -> PinAccess {
    let ram = MemoryObject::ram(len as u64).prefer(&[Backing::Base]).pin(methods);
    match ram.create().map(|object| object.not_pinned_because()) {
        Ok(None) => PinAccess::Allowed,
        Ok(Some(why)) => PinAccess::Denied(why),
        Err(_) => PinAccess::Denied("memory cannot be allocated"),
    }
}

impl PinMethod {
    /// Tries whether this process can pin pages by this method: creates RAM of `len` bytes of base
    /// pages, pins it and releases it. The limits count bytes or pages, so the answer depends on
    /// `len`.
    pub fn access(self, len: usize) -> PinAccess {
        try_pin(len, &[self])
    }
}
