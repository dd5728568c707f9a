//! `struct cdev_state`, `struct sigevent`.

use core::ffi::{c_char, c_int, c_long, c_void};

use gasp_capi::types::Vdev;

/// `struct sigevent`, with what SIGEV_THREAD uses.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "sigevent(3type) says what they mean")]
pub struct SigEvent {
    pub value: usize,
    pub signo: c_int,
    pub notify: c_int,
    pub function: Option<extern "C" fn(usize)>,
    pub attributes: usize,
    /// Zeros.
    pub rest: [u64; 4],
}

const _: () = assert!(size_of::<SigEvent>() == size_of::<libc::sigevent>());

/// `in` of `struct cdev_state`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header says what they mean")]
pub struct CdevInput {
    pub name: *const c_char,
    pub buff: *mut u8,
    pub size: u32,
    pub avail: u32,
    pub pos: u32,
    pub fd: c_int,
}

/// `out` of `struct cdev_state`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header says what they mean")]
pub struct CdevOutput {
    pub name: *const c_char,
    pub buff: *mut u8,
    pub size: u32,
    pub begin: u32,
    pub pos: u32,
    pub fd: c_int,
    pub flush_timer: libc::timer_t,
    pub flush_timeout: c_long,
}

/// `struct cdev_state`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "the header says what they mean")]
#[allow(missing_debug_implementations, reason = "struct termios has none")]
pub struct CdevState {
    pub cb: [*mut c_void; 2],
    pub vdev: *mut Vdev,
    pub input: CdevInput,
    pub output: CdevOutput,
    pub save_termio: libc::termios,
    pub delayed_count: u32,
    pub flags: u32,
    pub priority: c_int,
    pub ev_in: SigEvent,
    pub ev_out: SigEvent,
}
