//! The location of a mapping that is held, so that it can be checked from outside.

use core::fmt;
use gasp::{HostMapping, Scatter};
use serde::Serialize;

/// Where another process can find a mapping that is held.
#[derive(Serialize)]
pub(super) struct Held {
    pid: u32,
    vaddr: u64,
    host: Option<u64>,
    len: u64,
    stability: &'static str,
}

impl Held {
    /// The host-contiguous mapping, or the first piece if there is none.
    pub(super) fn of(scatter: &Scatter, first: Option<&HostMapping>) -> Self {
        let pid = std::process::id();
        let piece = scatter.pieces().next();
        let (vaddr, len, stability) = match (first, &piece) {
            (Some(first), _) => (first.as_ptr(), first.len(), first.stability().name()),
            (None, Some(piece)) => (piece.as_ptr(), piece.len(), piece.stability().name()),
            (None, None) => (core::ptr::null(), 0, "unpinned"),
        };
        let host = first.map(|first| first.run().addr.0);
        Self { pid, vaddr: vaddr.addr() as u64, host, len: len as u64, stability }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, vaddr, host, len, stability } = self;
        let host = host.map_or_else(|| "none".into(), |host| format!("{host:#x}"));
        write!(f, "pid={pid} vaddr={vaddr:#x} host={host} len={len:#x} stability={stability}")
    }
}
