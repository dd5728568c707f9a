//! The interrupt controller of a guest, as C sees it: the `pic` of a line.
#![allow(unsafe_code, reason = "memory that C may read")]

use core::cell::UnsafeCell;
use gasp::Errno;

use gasp_capi::types::Vdev;

/// Its name in the configuration.
pub(crate) const NAME: &str = "ioapic";

/// The inputs that it has if the host does not say otherwise.
pub(crate) const LINES: u32 = 24;

/// The `param` of a line that the host has not chosen yet.
pub(crate) const ANY_LINE: u32 = u32::MAX;

/// Memory that is as long as a `vdev_t`, in case that C looks inside.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);

// SAFETY: nobody in Rust reads or writes it.
unsafe impl Sync for Page {}

static CONTROLLER: Page = Page(UnsafeCell::new([0; 4096]));

/// The `vdev_t *` that stands for the host's own controller of each guest. No vdev has it.
pub(crate) fn pointer() -> *mut Vdev {
    CONTROLLER.0.get().cast()
}

/// Why a line cannot be assigned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    pub(crate) errno: Errno,
    pub(crate) why: String,
}

impl Refused {
    pub(crate) fn new(errno: Errno, why: impl Into<String>) -> Self {
        Self { errno, why: why.into() }
    }
}

/// Whether `pic` is the host's own controller; so is NULL.
pub(crate) fn is_host(pic: *const Vdev) -> bool {
    pic.is_null() || core::ptr::eq(pic, pointer())
}
