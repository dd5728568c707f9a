//! The vdev's side of the plain device, as C calls it.

use std::ffi::c_void;
use std::sync::LazyLock;

use gasp_capi::types::{MapHandle, Vdev};
use gasp_qvm::vio::abi::{Iov, Iov800, Physical, State};
use gasp_qvm::vio::requests::vq_put_to_driver;
use gasp_qvm::vio::requests::{vio_get_iov, vio_put_iov, vq_desc_get, vq_get_from_driver};

use crate::driver::{CONFIG, Driver};
use crate::support::Library;

pub(crate) const INVALID: u32 = u32::MAX;

/// The plain device, compiled once for each edition.
pub(crate) static PLAIN: LazyLock<Library> =
    LazyLock::new(|| Library::of_text(include_str!("plain.c"), 800, "plain"));
pub(crate) static PLAIN_710: LazyLock<Library> =
    LazyLock::new(|| Library::of_text(include_str!("plain.c"), 710, "plain"));

/// What C has in its hands.
#[derive(Clone, Copy)]
pub(crate) struct InC {
    pub(crate) vdp: *mut Vdev,
    pub(crate) vsp: *mut State,
}

/// A descriptor, as `vq_desc_get` returns it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) next: u32,
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) flags: u32,
}

impl Driver {
    /// The addresses that the device's configuration has.
    pub(crate) fn in_c(&self) -> InC {
        self.in_c_at(CONFIG)
    }

    pub(crate) fn in_c_at(&self, config: u64) -> InC {
        let vdp = self.read::<8>(config) as usize as *mut Vdev;
        InC { vdp, vsp: self.read::<8>(config + 8) as usize as *mut State }
    }

    /// The result of the last `vio_write` that was none of the configuration.
    pub(crate) fn class(&self) -> u32 {
        self.get(CONFIG + 16)
    }
}

impl InC {
    /// `qinfo[index].pvq`.
    pub(crate) fn queue(self, index: usize) -> *mut c_void {
        // SAFETY: the device lives, and has two queues.
        let info = unsafe { &*(*self.vsp).qinfo.add(index) };
        info.queue.load(std::sync::atomic::Ordering::Acquire)
    }

    pub(crate) fn features(self) -> [u32; 4] {
        // SAFETY: the device lives.
        unsafe { (*self.vsp).driver_features }
    }

    /// `vq_get_from_driver`: id and first descriptor.
    pub(crate) fn take(self, index: usize) -> (u32, u32) {
        take(self.queue(index))
    }

    pub(crate) fn descriptor(self, index: usize, number: u32) -> Found {
        let mut found = Found { next: 0, addr: 1, len: 1, flags: 0xff };
        let (addr, len, flags) = (&raw mut found.addr, &raw mut found.len, &raw mut found.flags);
        // SAFETY: the pointers are valid for writes.
        let next = unsafe { vq_desc_get(self.queue(index), number, addr, len, flags) };
        Found { next, ..found }
    }

    pub(crate) fn put(self, index: usize, id: u32, len: u32, notify: bool) {
        // SAFETY: a queue may have any value.
        unsafe { vq_put_to_driver(self.queue(index), id, len, notify) };
    }

    pub(crate) fn get_iov(self, index: usize, first: u32, request: &mut Converted) -> isize {
        // SAFETY: the structure's arrays are as long as it says.
        unsafe { vio_get_iov(self.vdp, self.queue(index), first, request.structure()) }
    }

    pub(crate) fn put_iov(self, request: &mut Converted) {
        // SAFETY: as above.
        unsafe { vio_put_iov(self.vdp, request.structure()) };
    }
}

pub(crate) fn take(queue: *mut c_void) -> (u32, u32) {
    let mut first = 0x1234_5678;
    // SAFETY: `first` is valid for writes; a queue may have any value.
    let id = unsafe { vq_get_from_driver(queue, &raw mut first) };
    (id, first)
}

/// A `struct vio_iov` with its arrays.
pub(crate) struct Converted {
    pub(crate) iov: Vec<libc::iovec>,
    pub(crate) paddrs: Vec<Physical>,
    pub(crate) mappings: Vec<MapHandle>,
    pub(crate) structure: Iov800,
}

impl Converted {
    pub(crate) fn new(entries: usize) -> Self {
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let (iov, paddrs) = (vec![none; entries], vec![Physical::default(); entries]);
        let head = Iov {
            iov: std::ptr::null_mut(),
            paddrs: std::ptr::null_mut(),
            len: entries as i32,
            reserved: 0,
            flags: 0,
            hdr_len: 0,
            // As C leaves it.
            count: 0x5555_5555,
            payload: 0x5555_5555,
        };
        let structure = Iov800 { iov: head, mappings: std::ptr::null_mut() };
        Self { iov, paddrs, mappings: vec![MapHandle { reserved: [7; 3] }; entries], structure }
    }

    /// What is passed to C.
    pub(crate) fn structure(&mut self) -> *mut Iov800 {
        self.structure.iov.iov = self.iov.as_mut_ptr();
        self.structure.iov.paddrs = self.paddrs.as_mut_ptr();
        self.structure.mappings = self.mappings.as_mut_ptr();
        &raw mut self.structure
    }

    pub(crate) fn count(&self) -> i32 {
        self.structure.iov.count
    }

    /// The lengths of the entries in use.
    pub(crate) fn lens(&self) -> Vec<usize> {
        self.iov[..self.count() as usize].iter().map(|entry| entry.iov_len).collect()
    }

    /// The bytes of an entry.
    pub(crate) fn bytes(&mut self, index: usize) -> &mut [u8] {
        let entry = self.iov[index];
        // SAFETY: it is mapped, and no one else accesses it.
        unsafe { std::slice::from_raw_parts_mut(entry.iov_base.cast(), entry.iov_len) }
    }
}
