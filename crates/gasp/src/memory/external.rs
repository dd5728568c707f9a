//! Memory that the embedding program has mapped itself.
#![allow(unsafe_code, reason = "takes memory on the embedder's word")]

use core::any::Any;
use core::ptr::NonNull;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::param::page_size;

use super::adopt::{AT_START, is_shared_memory, page_of, seals_of};
use super::file::MemoryFile;
use super::object::{MemoryObject, Properties};
use super::pin::PinMethod;
use super::report::Residency;
use super::report::{Backing, BackingReport};
use super::window::Window;
use crate::access::Access;
use crate::error::{Error, Operation, Reason, Result};

/// Memory that the embedding program has mapped itself, and how to use it.
#[derive(Debug)]
#[non_exhaustive]
pub struct External {
    /// The address of its first byte; a multiple of the host's page size.
    pub base: NonNull<u8>,
    /// The length in bytes; a multiple of the host's page size, not 0.
    pub len: usize,
    /// The access with which it is mapped.
    pub access: Access,
    /// How firmly to hold its pages.
    pub residency: Residency,
    /// A value that keeps it mapped: the embedding program's own mapping, a region of its VMM, or
    /// `()` for memory that stays mapped for ever.
    pub owner: Arc<dyn Any + Send + Sync>,
    /// The file of which it is a shared mapping, and the offset in bytes of its first byte there;
    /// `None` by default, for memory without a file or whose file is not known.
    pub file: Option<(OwnedFd, u64)>,
}

impl External {
    /// `len` bytes at `base` that `owner` keeps mapped, for reading and writing, to be pinned.
    pub fn new(base: NonNull<u8>, len: usize, owner: Arc<dyn Any + Send + Sync>) -> Self {
        Self { base, len, access: Access::RW, residency: Residency::Pinned, owner, file: None }
    }
}

impl MemoryObject {
    /// Uses memory that the embedding program has mapped.
    ///
    /// This embeds the engine into a VMM that owns its guest memory. The memory is neither zeroed
    /// nor unmapped. With its [file](External::file) it can be part of a stitched map, shared
    /// ([`file`](Self::file)) and, on tmpfs and hugetlbfs, pinned by a pipe; without, its pages
    /// are pinned by [`PinMethod::IoUring`] or not at all.
    ///
    /// The object keeps its [owner](External::owner) until the last clone of the object, the last
    /// guest that uses it and the last mapping of it are gone, and the pages are no longer pinned.
    /// The thread that ends the last of them drops the owner; that can be a device's thread, or
    /// happen inside an operation of another guest. So the drop must neither call this crate nor
    /// wait for a thread that does.
    ///
    /// # Errors
    /// `EINVAL` if base or length is not a multiple of the host's page size (of the file's, if
    /// that has huge pages), the length is 0, or the range extends past the end of the file;
    /// `ENODEV` if the descriptor is of no regular file.
    ///
    /// # Safety
    /// For as long as `owner` is not dropped:
    /// * `[base, base + len)` stays mapped, with at least `access`, to the same memory. So
    ///   nobody truncates its file: external memory is not [guarded](Self::is_guarded);
    /// * if there is a `file`, that mapping is shared (`MAP_SHARED`), and of the file from the
    ///   given offset on;
    /// * nobody creates a Rust reference to it; every access by anyone in the process is volatile,
    ///   atomic or made by code outside Rust's memory model;
    /// * if `residency` is [`Pinned`](Residency::Pinned), nobody punches holes into
    ///   it or discards it (`MADV_DONTNEED` on private memory).
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use core::ptr::NonNull;
    /// use gasp::{External, MemoryObject, Residency};
    /// # use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    ///
    /// /// A mapping of the program's own, unmapped when it is dropped.
    /// struct Mine(NonNull<u8>, usize);
    /// # impl Mine { fn map(len: usize) -> Self { Mine(NonNull::new(unsafe { mmap_anonymous(
    /// #     std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED,
    /// # ) }.unwrap().cast()).unwrap(), len) } }
    /// # impl Drop for Mine { fn drop(&mut self) { unsafe { munmap(self.0.as_ptr().cast(), self.1) }.unwrap() } }
    /// # unsafe impl Send for Mine {}
    /// # unsafe impl Sync for Mine {}
    /// let mine = Arc::new(Mine::map(2 << 20));
    /// let mut memory = External::new(mine.0, mine.1, mine);
    /// memory.residency = Residency::Resident;
    /// // SAFETY: `Mine` keeps it mapped for reading and writing until it is dropped; nobody else
    /// // uses it, and so nobody creates a reference to it; it is not to be pinned.
    /// let ram = unsafe { MemoryObject::external("ram", memory) }?;
    /// # Ok::<(), gasp::Error>(())
    /// ```
    pub unsafe fn external(name: &str, memory: External) -> Result<Self> {
        let External { base, len, access, residency, owner, file } = memory;
        let fail = |reason| Error::new(Operation::AdoptMemory, AT_START, len as u64, reason);
        if len == 0 {
            return Err(fail(Reason::ZeroLength));
        }
        let page = match &file {
            Some((fd, offset)) => page_of(fd, *offset, len as u64, false).map_err(fail)?,
            None => page_size(),
        };
        if !base.addr().get().is_multiple_of(page) || !len.is_multiple_of(page) {
            return Err(fail(Reason::Invalid("address and length must be whole host pages")));
        }
        let report = BackingReport::of(Backing::External);
        let window = Window::borrowed(base, len);
        // Without a file, whether it is shared, which is what a pipe can hold, is not known.
        let shared = file.as_ref().is_some_and(|(fd, _)| is_shared_memory(fd));
        let pins: &[PinMethod] =
            if shared { &PinMethod::PREFERENCE } else { &[PinMethod::IoUring] };
        let file = file.map(|(fd, offset)| {
            let seals = seals_of(&fd);
            MemoryFile::whole(fd, offset, len as u64, seals)
        });
        let properties = Properties {
            keeper: Some(owner),
            file,
            shared,
            ..Properties::new(name, window, access, report, page)
        };
        Ok(Self::resident(properties, residency, pins))
    }
}
