//! `struct vdev_factory`.

use core::ffi::{c_char, c_int, c_void};

use gasp_capi::types::{StateBlock, StateBlock710, Vdev};

use super::object::TimerData;

/// `struct _pulse`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Pulse {
    /// The type: 0.
    pub kind: u16,
    /// The subtype: 0.
    pub subtype: u16,
    /// The code that was given to `vdev_pulse()`.
    pub code: i8,
    /// Zeros.
    pub zero: [u8; 3],
    /// `union sigval`.
    pub value: u64,
    /// The connection that was given to `vdev_pulse()`.
    pub scoid: i32,
}

/// `control`.
pub type Control = unsafe extern "C-unwind" fn(*mut Vdev, u32, *const c_char) -> c_int;
/// `vread` and `vwrite`, with the state block of the edition.
pub type AccessCall<B> =
    unsafe extern "C-unwind" fn(*mut Vdev, u32, *const B, *const B, *mut c_void) -> u32;
/// `timer`.
pub type TimerCall =
    unsafe extern "C-unwind" fn(*mut Vdev, *mut c_void, *const TimerData, *mut c_void);

/// `pulse`, 8.0.
pub type Pulse800 = unsafe extern "C-unwind" fn(*mut Vdev, *const Pulse) -> c_int;
/// `pulse`, 7.x.
pub type Pulse710 = unsafe extern "C-unwind" fn(*mut Vdev, i8) -> c_int;

/// `struct vdev_factory`, 8.0.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs, reason = "the header says what they mean")]
pub struct Factory800 {
    pub next: *mut Self,
    pub control: Option<Control>,
    pub vread: Option<AccessCall<StateBlock>>,
    pub vwrite: Option<AccessCall<StateBlock>>,
    pub pulse: Option<Pulse800>,
    pub timer: Option<TimerCall>,
    pub pic: *const c_void,
    pub option_list: *const *const c_char,
    pub name: *const c_char,
    pub factory_flags: u32,
    pub acc_sizes: u32,
    pub extra_space: u32,
}

/// `struct vdev_factory`, 7.x.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs, reason = "the header says what they mean")]
pub struct Factory710 {
    pub next: *mut Self,
    pub control: Option<Control>,
    pub vread: Option<AccessCall<StateBlock710>>,
    pub vwrite: Option<AccessCall<StateBlock710>>,
    pub pulse: Option<Pulse710>,
    pub timer: Option<TimerCall>,
    pub pic: *const c_void,
    pub option_list: *const *const c_char,
    pub name: *const c_char,
    pub factory_flags: u32,
    pub acc_sizes: u32,
    pub extra_space: u32,
    pub safety: u32,
}
