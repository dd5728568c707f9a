//! The bounds: an array look-up, which nothing beats, and a mmap() for each request.
#![allow(unsafe_code, reason = "maps a page for each request, which is what is measured")]

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::ptr;

use gasp::{GRANULE, Location, Reason};
use rustix::mm::{MapFlags, ProtFlags};

use super::setup::{Setup, target};

/// An array of host addresses, indexed by page: without permissions, revokes, or bounds other
/// than the array's own.
pub(crate) struct Floor {
    pages: Vec<usize>,
}

impl Floor {
    pub(crate) fn new(_setup: &Setup, grants: u64) -> Self {
        // Made-up addresses: they are never dereferenced.
        let page = |page: u64| usize::try_from(0x7000_0000_0000 + target(page)).unwrap_or(0);
        Self { pages: (0..grants).map(page).collect() }
    }

    pub(crate) fn look_up(&self, addr: u64) {
        let page = usize::try_from(addr / GRANULE).unwrap_or(usize::MAX);
        black_box(self.pages.get(page).copied());
    }
}

/// A file whose page is mapped and unmapped for each request.
pub(crate) struct PerRequest {
    fd: OwnedFd,
}

impl PerRequest {
    pub(crate) fn new() -> gasp::Result<Self> {
        let fail = |errno| {
            let reason = Reason::Os { what: "memfd", errno };
            gasp::Error::new(gasp::Operation::CreateMemory, Location::Offset(0), GRANULE, reason)
        };
        let fd =
            rustix::fs::memfd_create("bench", rustix::fs::MemfdFlags::CLOEXEC).map_err(fail)?;
        rustix::fs::ftruncate(&fd, GRANULE).map_err(fail)?;
        Ok(Self { fd })
    }

    pub(crate) fn map(&mut self) {
        const LEN: usize = 4096;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without an address and MAP_FIXED, mmap(2) replaces no mapping.
        let mapped = unsafe {
            rustix::mm::mmap(ptr::null_mut(), LEN, protection, MapFlags::SHARED, &self.fd, 0)
        };
        let Ok(at) = mapped else { return };
        // SAFETY: `at` begins a mapping of 4,096 writable bytes, of which nobody else knows; the
        // file has as many.
        unsafe { ptr::write_volatile(at.cast::<u8>(), 1) };
        // SAFETY: `at` and `LEN` are that mapping, and no pointer into it is used after this.
        let _ = unsafe { rustix::mm::munmap(at, LEN) };
    }
}
