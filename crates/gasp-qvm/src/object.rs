//! A vdev's `vdev_t`, as its host fills and reads it.
//!
//! The vdev may write to any of it at any time. Nothing that is read here is trusted: it is what
//! the vdev says, as if it were a result of a call.
#![allow(unsafe_code, reason = "reads and writes what C sees")]

use core::ffi::c_void;
use core::fmt;
use core::mem::{MaybeUninit, offset_of};
use core::ptr::{self, NonNull};

use gasp::Errno;
use gasp_capi::types::{GuestSystem, StateBlock, StateBlock710, Vdev};

use crate::abi::*;

/// A `vdev_t` of an edition.
pub(crate) struct Object {
    at: NonNull<Vdev>,
    edition: Edition,
}

// SAFETY: it is an address. What is there is read and written with volatile accesses, whole
// members at a time, and taken for what the vdev says at that moment.
unsafe impl Send for Object {}
// SAFETY: as above.
unsafe impl Sync for Object {}

/// What a new `vdev_t` has.
pub(crate) struct Members {
    pub(crate) device: *mut c_void,
    pub(crate) factory: usize,
    pub(crate) guest: *mut GuestSystem,
    pub(crate) block: Block,
    pub(crate) intr: GuestIntr,
    /// Whether `v_mtx` is set up, and whether it is recursive.
    pub(crate) mutex: Option<bool>,
}

/// The place of a member of a `vdev_t`.
macro_rules! member {
    ($object:expr, $name:ident) => {
        $object.member(offset_of!(Object800, $name), offset_of!(Object710, $name))
    };
}

impl Object {
    /// Fills a new one.
    ///
    /// # Safety
    /// `at` is the start of a page that is valid for reads and writes until the last call of
    /// [`block`](Self::block) and the other functions has returned, and that no one else uses yet.
    pub(crate) unsafe fn create(
        at: NonNull<Vdev>,
        edition: Edition,
        members: &Members,
    ) -> Result<Self, Errno> {
        let object = Self { at, edition };
        object.write(member!(object, v_device), members.device);
        let factory: *const c_void = ptr::with_exposed_provenance(members.factory);
        object.write(member!(object, v_factory), factory);
        object.write(member!(object, v_gsp), members.guest);
        object.write(member!(object, v_sched), SchedInfo::default());
        object.set_block(members.block);
        object.set_interrupt(members.intr);
        if let Some(recursive) = members.mutex {
            // SAFETY: the place is that of the member in the page, which nobody uses yet.
            unsafe { set_up(member!(object, v_mtx), recursive) }?;
        }
        Ok(object)
    }

    /// The place of the member of type `T` at these offsets, one for each edition.
    fn member<T>(&self, at_800: usize, at_710: usize) -> *mut T {
        let offset = match self.edition {
            Edition::V800 => at_800,
            Edition::V710 => at_710,
        };
        self.at.as_ptr().wrapping_byte_add(offset).cast()
    }

    /// Writes to the place of a member.
    fn write<T>(&self, place: *mut T, value: T) {
        // SAFETY: `place` is of `member`: an aligned member of the structure at the start of the
        // page, which is valid for writes, as `create` asks. The vdev may access it at the same
        // time: the access is volatile, and whatever bits are there are valid.
        unsafe { place.write_volatile(value) };
    }

    /// Reads the place of a member, of a type that all bits are valid for.
    fn read<T: Copy>(&self, place: *const T) -> T {
        // SAFETY: as for `write`, and the page was zeros or filled by `create`.
        unsafe { place.read_volatile() }
    }

    pub(crate) fn pointer(&self) -> *mut Vdev {
        self.at.as_ptr()
    }

    /// `v_block`.
    pub(crate) fn block(&self) -> Block {
        match self.edition {
            Edition::V800 => self.read::<StateBlock>(member!(self, v_block)).into(),
            Edition::V710 => self.read::<StateBlock710>(member!(self, v_block)).into(),
        }
    }

    pub(crate) fn set_block(&self, block: Block) {
        match self.edition {
            Edition::V800 => self.write::<StateBlock>(member!(self, v_block), block.into()),
            Edition::V710 => self.write::<StateBlock710>(member!(self, v_block), block.into()),
        }
    }

    /// `v_intr`.
    pub(crate) fn interrupt(&self) -> GuestIntr {
        self.read(member!(self, v_intr))
    }

    /// The place of `v_mtx`.
    pub(crate) fn mutex(&self) -> *mut libc::pthread_mutex_t {
        member!(self, v_mtx)
    }

    pub(crate) fn set_interrupt(&self, intr: GuestIntr) {
        self.write(member!(self, v_intr), intr);
    }
}

/// Initializes a mutex.
///
/// # Safety
/// `mutex` is valid for writes, and nobody uses it.
unsafe fn set_up(mutex: *mut libc::pthread_mutex_t, recursive: bool) -> Result<(), Errno> {
    let kind = match recursive {
        true => libc::PTHREAD_MUTEX_RECURSIVE,
        false => libc::PTHREAD_MUTEX_NORMAL,
    };
    let done = |code: i32| match code {
        0 => Ok(()),
        code => Err(Errno::from_raw_os_error(code)),
    };
    let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    // SAFETY: `attributes` is valid for writes.
    done(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) })?;
    // SAFETY: `attributes` was initialized above.
    done(unsafe { libc::pthread_mutexattr_settype(attributes.as_mut_ptr(), kind) })?;
    // SAFETY: `attributes` was initialized above; `mutex` is valid for writes and unused, as this
    // function asks.
    done(unsafe { libc::pthread_mutex_init(mutex, attributes.as_ptr()) })?;
    // SAFETY: `attributes` was initialized above, and is not used after this.
    done(unsafe { libc::pthread_mutexattr_destroy(attributes.as_mut_ptr()) })
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Object").field(&self.at).finish()
    }
}
