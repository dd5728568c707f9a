//! The names of types in C.

use std::ffi::{c_char, c_void};

use gasp_capi::types::*;

/// The name of a type in C, by edition.
pub(crate) trait InC {
    fn name(edition: u32) -> String;
}

macro_rules! in_c {
    ($($rust:ty: $name:literal $(or $old:literal)?;)*) => {
        $(impl InC for $rust {
            fn name(edition: u32) -> String {
                let _ = edition;
                $(if edition == 710 { return $old.into(); })?
                $name.into()
            }
        })*
    };
}

in_c! {
    (): "void";
    u16: "uint16_t";
    u32: "uint32_t";
    i32: "int";
    u64: "uint64_t";
    usize: "size_t";
    c_void: "void";
    c_char: "char";
    Vdev: "vdev_t";
    GuestSystem: "struct guest_system";
    Domain: "gasp_domain_t";
    Drain: "gasp_drain_t";
    MapHandle: "gasp_map_handle_t";
    StateBlock: "struct qvm_state_block";
    StateBlock710: "struct qvm_state_block" or "struct qvm_state_block";
    Region: "struct gasp_region";
    Region710: "struct gasp_region" or "struct gasp_region";
    WalkState: "gasp_walk_state_t";
    WalkState710: "" or "struct gasp_walk_state";
    WalkStateFiltered: "gasp_walk_state_filtered_t";
    WalkStateFiltered710: "" or "struct gasp_walk_state_filtered";
    GuestOptions: "struct gasp_guest_options";
    Fault: "struct gasp_fault";
    Drained: "struct gasp_drained";
    WalkFilter: "gasp_walk_filter_t";
    Log: "gasp_log_t";
}

impl<T: InC> InC for *mut T {
    fn name(edition: u32) -> String {
        format!("{} *", T::name(edition))
    }
}

impl<T: InC> InC for *const T {
    fn name(edition: u32) -> String {
        format!("const {} *", T::name(edition))
    }
}
