//! Every exported function gets its arguments as its header passes them: the kind, the width and the
//! sign of each.

use std::collections::BTreeSet;
use std::ffi::c_char;
use std::fmt::Write as _;

use gasp_qvm::exports::{
    assign::*, cdev::*, core::*, cpu::*, guest::*, instr::*, intr::*, log::*, parse::*, power::*,
    pulse::*, timer::*, vpci::*, wdog::*,
};
use gasp_qvm::vio::{exports::*, requests::*};

use crate::compiler::check_cxx;
use crate::symbols::declared;

/// How a value is passed: `p` for a pointer, `i` or `u` with its bytes for an integer.
trait Passed {
    const AS: &'static str;
}

macro_rules! passed {
    ($($kind:literal: $($type:ty),*;)*) => {
        $($(impl Passed for $type { const AS: &'static str = $kind; })*)*
    };
}
passed! {
    "v": ();
    "i1": i8;
    "u1": bool;
    "u2": u16;
    "i4": i32;
    "u4": u32;
    "i8": isize;
    "u8": u64, usize;
}
impl<T> Passed for *const T {
    const AS: &'static str = "p";
}
impl<T> Passed for *mut T {
    const AS: &'static str = "p";
}
/// A function of C, which may be NULL.
impl<T> Passed for Option<T> {
    const AS: &'static str = "p";
}

/// The type of a function.
trait Signature {
    fn signature(&self) -> String;
}

macro_rules! signatures {
    ($(($($argument:ident)*))*) => {$(
        impl<R: Passed, $($argument: Passed),*> Signature
            for unsafe extern "C" fn($($argument),*) -> R
        {
            fn signature(&self) -> String {
                let parts: Vec<&str> = vec![R::AS $(, $argument::AS)*];
                parts.join(" ")
            }
        }
    )*};
}
signatures! { () (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) }

impl Signature for unsafe extern "C-unwind" fn(u32, *const c_char) -> ! {
    fn signature(&self) -> String {
        "v u4 p".into()
    }
}

/// One exported function.
struct Function {
    symbol: &'static str,
    signature: String,
}

macro_rules! functions {
    ($($name:ident($($argument:tt)*);)*) => {
        vec![$(Function {
            symbol: stringify!($name),
            signature: ($name as unsafe extern "C" fn($($argument)*) -> _).signature(),
        },)*]
    };
}

fn functions() -> Vec<Function> {
    let mut all = functions! {
        cdev_control(_, _, _);
        cdev_input_receive(_);
        cdev_read(_, _, _);
        cdev_setup(_, _, _);
        cdev_write(_, _, _);
        cdev_write_buffer(_);
        guest_button_register(_);
        guest_clock_start();
        guest_clock_stop();
        guest_cpu_read(_, _, _, _, _, _);
        guest_cpu_read_710(_, _, _, _, _, _);
        guest_cpu_write(_, _, _, _, _, _);
        guest_cpu_write_710(_, _, _, _, _, _);
        guest_instr_register(_, _, _, _);
        guest_intr_assign(_, _, _, _);
        guest_intr_assign_710(_, _, _, _);
        guest_intr_assign_auto(_, _);
        guest_intr_from_conf_str(_, _);
        guest_intr_level(_);
        guest_intr_notify(_, _, _);
        guest_intr_num_pins(_);
        guest_intr_signal(_, _);
        guest_intr_string(_, _, _);
        guest_msi_register(_, _, _, _, _);
        guest_msi_register_range(_, _, _, _, _);
        guest_msi_signal(_, _, _);
        guest_msi_signal_710(_, _, _);
        guest_power_state_current(_, _, _, _);
        guest_power_state_current_710(_, _, _, _, _);
        guest_power_state_notify_create();
        guest_power_state_notify_create_710(_);
        guest_power_state_notify_delete(_);
        guest_power_state_notify_register(_, _, _, _, _, _, _);
        guest_terminate(_);
        guest_terminate_710(_, _);
        guest_timer_create(_, _, _, _);
        guest_timer_notify(_, _, _);
        guest_timer_state(_, _);
        guest_write_all_ones(_, _, _);
        guest_write_all_ones_710(_, _, _);
        guest_write_core_file(_);
        guest_write_core_file_710(_, _);
        qvm_parse_block(_, _);
        qvm_parse_block_710(_, _, _);
        qvm_parse_intr(_, _, _);
        qvm_report_text(_);
        vdev_log_text(_, _, _);
        vdev_path(_, _, _);
        vdev_pulse(_, _, _, _, _);
        vdev_pulse_deliver(_);
        vdev_register_factory(_, _);
        vdev_string(_, _, _);
        vdev_thread_create(_, _, _, _, _, _);
        vio_append_iov(_, _, _, _, _);
        vio_append_iov_710(_, _, _, _);
        vio_append_iov_cap_710(_, _, _, _, _);
        vio_config_update(_);
        vio_ctrl_gen_fdt(_, _, _);
        vio_ctrl_pci_bars(_, _);
        vio_ctrl_pci_bars_710(_, _);
        vio_device_status(_, _, _);
        vio_get_iov(_, _, _, _);
        vio_get_iov_710(_, _, _, _);
        vio_init(_, _, _, _);
        vio_init_queue(_, _, _);
        vio_iov_set_flags(_, _);
        vio_prepare_iov(_, _);
        vio_put_iov(_, _);
        vio_put_iov_710(_, _);
        vio_read(_, _, _, _, _);
        vio_read_710(_, _, _, _, _);
        vio_reset(_);
        vio_setup_queues(_);
        vio_write(_, _, _, _, _);
        vio_write_710(_, _, _, _, _);
        vpci_cfg_read(_, _, _, _, _);
        vpci_cfg_read_710(_, _, _, _, _);
        vpci_cfg_write(_, _, _, _);
        vpci_cfg_write_710(_, _, _, _);
        vpci_ctrl_pci_bars(_, _);
        vpci_ctrl_pci_bars_710(_, _);
        vpci_region_update(_, _);
        vpci_region_update_710(_, _);
        vq_desc_get(_, _, _, _, _);
        vq_get_from_driver(_, _);
        vq_put_to_driver(_, _, _, _);
        wdog_bite(_);
        wdog_init(_, _);
        wdog_parse_action(_, _);
    };
    let fatal = qvm_fatal_text as unsafe extern "C-unwind" fn(u32, *const c_char) -> !;
    all.push(Function { symbol: "qvm_fatal_text", signature: fatal.signature() });
    all
}

/// How C++ sees the type of a function.
const TRAITS: &str = r#"
#include <string_view>
#include <type_traits>
template <typename T> constexpr const char *passed()
{
    if constexpr (std::is_void_v<T>) return "v";
    else if constexpr (std::is_pointer_v<T>) return "p";
    else if constexpr (std::is_enum_v<T>) return passed<std::underlying_type_t<T>>();
    else if constexpr (!std::is_integral_v<T>) return "?";
    else if constexpr (sizeof(T) == 1) return std::is_signed_v<T> ? "i1" : "u1";
    else if constexpr (sizeof(T) == 2) return std::is_signed_v<T> ? "i2" : "u2";
    else if constexpr (sizeof(T) == 4) return std::is_signed_v<T> ? "i4" : "u4";
    else return std::is_signed_v<T> ? "i8" : "u8";
}
template <typename R, typename... A> constexpr bool is(R (*)(A...), std::string_view expected)
{
    const std::string_view parts[] = { passed<R>(), passed<A>()... };
    for (auto part : parts) {
        if (expected.substr(0, part.size()) != part) return false;
        expected.remove_prefix(part.size());
        if (!expected.empty() && expected[0] != ' ') return false;
        expected.remove_prefix(expected.empty() ? 0 : 1);
    }
    return expected.empty();
}
"#;

#[test]
fn prototypes_are_those_of_the_headers() {
    let functions = functions();
    let mut compared = BTreeSet::new();
    for edition in [800, 710] {
        let mut text = TRAITS.to_owned();
        for (name, symbol) in declared(edition) {
            let function = functions.iter().find(|function| function.symbol == symbol);
            let Function { signature, .. } =
                function.unwrap_or_else(|| panic!("{symbol} is not in the list of this test"));
            writeln!(text, "static_assert(is({name}, \"{signature}\"), \"{name}: {signature}\");")
                .unwrap();
            compared.insert(symbol);
        }
        check_cxx(edition, &text).unwrap_or_else(|why| panic!("{edition}: {why}"));
    }
    assert_eq!(compared.len(), functions.len(), "functions that no header declares");
}

#[test]
fn a_wrong_prototype_is_noticed() {
    for wrong in ["i4 p", "i4 p u4 p u4", "u4 p u4", "v p u4", "i4 p i4", "i4 p u8"] {
        let text = format!("{TRAITS}static_assert(is(guest_intr_signal, \"{wrong}\"), \"\");\n");
        assert!(check_cxx(800, &text).is_err(), "{wrong}");
    }
}
