//! Every exported function has the prototype that its header declares.

use std::collections::BTreeSet;
use std::ffi::{c_int, c_uint};

use gasp_capi::by_address::*;
use gasp_capi::edition_710::*;
use gasp_capi::find::*;
use gasp_capi::host::{domain::*, drain::*, guest::*, memory::*, report::*, vdev::*};
use gasp_capi::lock::*;
use gasp_capi::map::*;
use gasp_capi::regions::*;
use gasp_capi::walk::*;

use crate::headers::{check, declared};
use crate::in_c::InC;

/// The type of a function in C.
trait Prototype {
    fn in_c(&self, edition: u32) -> String;
}

macro_rules! prototypes {
    ($(($($argument:ident)*))*) => {$(
        impl<R: InC, $($argument: InC),*> Prototype for unsafe extern "C" fn($($argument),*) -> R {
            fn in_c(&self, edition: u32) -> String {
                let arguments: Vec<String> = vec![$($argument::name(edition)),*];
                let arguments = if arguments.is_empty() { "void".into() } else { arguments.join(", ") };
                format!("{} (*)({arguments})", R::name(edition))
            }
        }
    )*};
}
prototypes! { () (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) }

/// One exported function.
struct Function {
    symbol: &'static str,
    edition: u32,
    prototype: String,
}

macro_rules! functions {
    ($($edition:literal { $($name:ident($($argument:tt)*);)* })*) => {
        vec![$($(Function {
            symbol: stringify!($name),
            edition: $edition,
            prototype: ($name as unsafe extern "C" fn($($argument)*) -> _).in_c($edition),
        },)*)*]
    };
}

fn functions() -> Vec<Function> {
    functions! {
        800 {
            gasp_map_host_contig(_, _, _, _, _);
            gasp_map(_, _, _, _, _);
            gasp_map_firmware(_, _, _, _);
            gasp_get_vaddr(_);
            gasp_unmap_handle(_);
            gasp_map_vdma(_, _, _, _);
            gasp_map_contig(_, _, _, _);
            gasp_map_sys(_, _, _);
            gasp_unmap(_, _, _);
            gasp_region_info(_, _);
            gasp_region_set(_, _);
            gasp_region_set_soft(_, _);
            gasp_lock(_);
            gasp_unlock(_);
            gasp_find_free(_, _, _);
            gasp_find_free_range(_, _, _, _, _);
            gram_find_free(_, _, _);
            gram_find_free_range(_, _, _, _, _);
            gram_reserve(_, _);
            gasp_walk_init(_, _, _);
            gasp_walk_next(_);
            gasp_walk_count(_, _);
            gasp_walk_init_filtered(_, _, _, _);
            gasp_walk_next_filtered(_);
            gasp_walk_count_filtered(_, _, _);
            gasp_version();
            gasp_last_error();
            gasp_set_log(_, _, _);
            gasp_guest_load(_, _);
            gasp_guest_parse(_, _);
            gasp_guest_create(_, _);
            gasp_guest_destroy(_);
            gasp_guest_start(_);
            gasp_guest_use(_);
            gasp_guest_add_ram(_, _, _, _, _);
            gasp_guest_add_rom(_, _, _, _);
            gasp_guest_add_shared(_, _, _, _, _, _, _);
            gasp_guest_add_window(_, _, _, _, _, _, _);
            gasp_guest_remove(_, _, _, _);
            gasp_vdev_create(_, _, _);
            gasp_vdev_find(_, _, _);
            gasp_vdev_attach(_, _, _);
            gasp_vdev_detach(_, _);
            gasp_vdev_destroy(_, _);
            gasp_domain_create(_, _, _, _, _);
            gasp_domain_find(_, _, _);
            gasp_domain_grant(_, _, _, _, _);
            gasp_domain_revoke(_, _, _, _);
            gasp_domain_destroy(_);
            gasp_guest_next_fault(_, _);
            gasp_drain_pending(_, _);
            gasp_drain_wait(_, _);
            gasp_drain_abandon(_);
            gasp_map_check(_);
        }
        710 {
            gasp_map_contig_710(_, _, _, _);
            gasp_map_vdma_710(_, _, _, _);
            gasp_map_sys_710(_, _, _, _);
            gasp_unmap_710(_, _, _, _);
            gasp_region_info_710(_, _, _);
            gasp_region_set_710(_, _, _);
            gasp_region_set_soft_710(_, _, _);
            gasp_lock_710(_, _);
            gasp_unlock_710(_, _);
            gasp_find_free_710(_, _, _, _);
            gasp_find_free_range_710(_, _, _, _, _, _);
            gram_find_free_710(_, _, _, _);
            gram_find_free_range_710(_, _, _, _, _, _);
            gram_reserve_710(_, _, _);
            gasp_walk_init_710(_, _, _, _);
            gasp_walk_next_710(_);
            gasp_walk_count_710(_, _, _);
            gasp_walk_init_filtered_710(_, _, _, _, _);
            gasp_walk_next_filtered_710(_);
            gasp_walk_count_filtered_710(_, _, _, _);
        }
    }
}

#[test]
fn prototypes_are_those_of_the_headers() {
    let mut text = [String::new(), String::new()];
    for Function { symbol, edition, prototype } in functions() {
        let name = symbol.strip_suffix("_710").unwrap_or(symbol);
        let assertion = format!(
            "_Static_assert(_Generic(&{name}, {prototype}: 1, default: 0), \"{name}: {prototype}\");\n"
        );
        text[usize::from(edition == 710)] += &assertion;
    }
    check(800, &text[0]);
    check(710, &text[1]);
}

#[test]
fn what_is_compared_is_all_that_the_headers_declare() {
    let compared: BTreeSet<String> =
        functions().iter().map(|function| function.symbol.to_owned()).collect();
    assert_eq!(compared, declared());
}

/// `c_int` and `c_uint` are the 32-bit integers that the comparison assumes.
const _: () = {
    const fn same<T, U>() -> bool {
        size_of::<T>() == size_of::<U>()
    }
    assert!(same::<c_int, i32>() && same::<c_uint, u32>());
};
