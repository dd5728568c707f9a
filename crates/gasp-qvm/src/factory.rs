//! A factory: what a vdev's file has registered, checked once.
#![allow(unsafe_code, reason = "reads what C has registered")]

use core::ffi::{CStr, c_char, c_void};
use core::fmt;
use core::ptr::NonNull;

use gasp_capi::types::{StateBlock, StateBlock710};

use crate::abi::*;

/// The most options of a factory: a list without an end is not read for ever.
const OPTIONS_MAX: usize = 4096;

/// The functions of a factory, which its edition decides about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Calls {
    V800 {
        vread: Option<AccessCall<StateBlock>>,
        vwrite: Option<AccessCall<StateBlock>>,
        pulse: Option<Pulse800>,
    },
    V710 {
        vread: Option<AccessCall<StateBlock710>>,
        vwrite: Option<AccessCall<StateBlock710>>,
        pulse: Option<Pulse710>,
    },
}

/// A factory of vdevs, from a loaded file that is never unloaded.
#[derive(Debug)]
pub struct Factory {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) control: Control,
    pub(crate) calls: Calls,
    pub(crate) timer: Option<TimerCall>,
    pub(crate) options: Vec<String>,
    pub(crate) flags: u32,
    pub(crate) acc_sizes: u32,
    pub(crate) extra_space: u32,
    pub(crate) is_pic: bool,
    /// The address of the structure, which vdevs read as `v_factory`.
    pub(crate) address: usize,
}

/// What `vdev_register_factory()` was called with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registered {
    pub(crate) factory: Option<NonNull<c_void>>,
    pub(crate) abi: u32,
}

impl Factory {
    /// The factory's name, which a configuration calls its vdevs by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that it is in.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The edition of the API that it was compiled for.
    pub fn edition(&self) -> Edition {
        match self.calls {
            Calls::V800 { .. } => Edition::V800,
            Calls::V710 { .. } => Edition::V710,
        }
    }

    /// The options that it knows, as `option_list` has them: with the prefix `0` if they take no
    /// argument.
    pub fn options(&self) -> &[String] {
        &self.options
    }

    /// Whether `flag`, a `VFF_*`, is set.
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag == flag
    }

    /// Whether it answers reads of its registers, and writes to them.
    pub fn answers(&self) -> (bool, bool) {
        match self.calls {
            Calls::V800 { vread, vwrite, .. } => (vread.is_some(), vwrite.is_some()),
            Calls::V710 { vread, vwrite, .. } => (vread.is_some(), vwrite.is_some()),
        }
    }

    /// Whether accesses of so many bytes are allowed: `acc_sizes` has a bit for each; none is set
    /// if all are.
    pub fn allows(&self, bytes: usize) -> bool {
        self.acc_sizes == 0
            || u32::try_from(bytes)
                .is_ok_and(|bytes| self.acc_sizes.checked_shr(bytes).unwrap_or(0) & 1 == 1)
    }

    /// Reads a factory that was registered by `file`, whose vdevs are called `by_file` if the
    /// factory has no name.
    ///
    /// # Safety
    /// `registered` is what `vdev_register_factory()` was called with: `factory` points to a
    /// structure of the edition of `abi`, whose members are as the header says, and which nobody
    /// changes meanwhile.
    pub(crate) unsafe fn read(
        registered: Registered,
        edition: Edition,
        file: &str,
        by_file: &str,
    ) -> Result<Self, (String, &'static str)> {
        let nameless = || (by_file.to_owned(), "the pointer that was registered is NULL");
        let address = registered.factory.ok_or_else(nameless)?;
        let parts = match edition {
            Edition::V800 => {
                // SAFETY: the pointer is not NULL, and points to an initialized structure of this
                // edition, as this function asks.
                let raw = unsafe { address.cast::<Factory800>().as_ref() };
                let calls = Calls::V800 { vread: raw.vread, vwrite: raw.vwrite, pulse: raw.pulse };
                Parts {
                    calls,
                    control: raw.control,
                    timer: raw.timer,
                    options: raw.option_list,
                    name: raw.name,
                    flags: raw.factory_flags,
                    acc_sizes: raw.acc_sizes,
                    extra_space: raw.extra_space,
                    is_pic: !raw.pic.is_null(),
                }
            }
            Edition::V710 => {
                // SAFETY: as above.
                let raw = unsafe { address.cast::<Factory710>().as_ref() };
                let calls = Calls::V710 { vread: raw.vread, vwrite: raw.vwrite, pulse: raw.pulse };
                Parts {
                    calls,
                    control: raw.control,
                    timer: raw.timer,
                    options: raw.option_list,
                    name: raw.name,
                    flags: raw.factory_flags,
                    acc_sizes: raw.acc_sizes,
                    extra_space: raw.extra_space,
                    is_pic: !raw.pic.is_null(),
                }
            }
        };
        // SAFETY: `name` is NULL or a C string, as the header says.
        let name = unsafe { text(parts.name) };
        // SAFETY: it is NULL, or a list of C strings that ends in NULL, as the header says.
        let options = unsafe { list(parts.options) };
        let name = name.unwrap_or_else(|| by_file.to_owned());
        let Some(options) = options else {
            return Err((name, "option_list does not end in NULL"));
        };
        let Some(control) = parts.control else {
            return Err((name, "control is NULL, and every vdev needs one"));
        };
        if parts.flags & VFF_MUTEX_RECURSIVE != 0 && parts.flags & VFF_MUTEX == 0 {
            return Err((name, "VFF_MUTEX_RECURSIVE needs VFF_MUTEX as well"));
        }
        if parts.flags & VFF_INTR_NO != 0 && parts.flags & VFF_INTR_REQ != 0 {
            return Err((name, "VFF_INTR_NO and VFF_INTR_REQ exclude each other"));
        }
        Ok(Self {
            name,
            file: file.to_owned(),
            control,
            calls: parts.calls,
            timer: parts.timer,
            options,
            flags: parts.flags,
            acc_sizes: parts.acc_sizes,
            extra_space: parts.extra_space,
            is_pic: parts.is_pic,
            address: address.as_ptr().addr(),
        })
    }
}

/// What both editions have.
struct Parts {
    calls: Calls,
    control: Option<Control>,
    timer: Option<TimerCall>,
    options: *const *const c_char,
    name: *const c_char,
    flags: u32,
    acc_sizes: u32,
    extra_space: u32,
    is_pic: bool,
}

/// A C string; `None` for NULL.
///
/// # Safety
/// `text` is NULL or points to a string that ends in a NUL, and that nobody changes meanwhile.
unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: it is not NULL, so it points to a string, as this function asks.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}

/// The strings of a list that ends in NULL; `None` if it does not end.
///
/// # Safety
/// `first` is NULL, or points to an array of pointers to strings, the last of which is NULL.
unsafe fn list(first: *const *const c_char) -> Option<Vec<String>> {
    let mut all = Vec::new();
    if first.is_null() {
        return Some(all);
    }
    for index in 0..OPTIONS_MAX {
        // SAFETY: the pointers before this one are not NULL, so it is in the array.
        let entry = unsafe { first.add(index) };
        // SAFETY: `entry` is in the array, as is said above.
        let entry = unsafe { entry.read() };
        // SAFETY: `entry` is NULL or a string, as this function asks.
        match unsafe { text(entry) } {
            Some(option) => all.push(option),
            None => return Some(all),
        }
    }
    None
}

impl fmt::Display for Factory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.file)
    }
}
