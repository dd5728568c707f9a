//! `struct wdog_state`.

use gasp_capi::types::Vdev;

/// `struct wdog_state`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header says what they mean")]
pub struct WdogState {
    pub ws_vdev: *mut Vdev,
    pub ws_action: u32,
    pub ws_flags: u32,
    pub ws_reserved: [u64; 2],
}
