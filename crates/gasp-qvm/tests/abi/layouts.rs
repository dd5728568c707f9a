//! Structures and constants.

use std::fmt::Write as _;
use std::mem::offset_of;

use gasp_qvm::abi::*;
use gasp_qvm::vio::abi::{Description, Iov, Iov800, Physical, QueueInfo, State};

use crate::compiler::check_c;

/// Assertions about a structure: its size and alignment, and the offset and size of each member.
macro_rules! structure {
    ($text:ident, $c:literal, $rust:ident { $($member:ident $(= $name:literal)?),* $(,)? }) => {{
        // All members are listed: this does not compile otherwise.
        let _ = |value: $rust| { let $rust { $($member: _),* } = value; };
        let (size, align) = (size_of::<$rust>(), align_of::<$rust>());
        writeln!($text, "_Static_assert(sizeof({}) == {size}, \"size of {}\");", $c, $c).unwrap();
        writeln!($text, "_Static_assert(_Alignof({}) == {align}, \"{}\");", $c, $c).unwrap();
        $(
            let name: &str = [$($name,)? stringify!($member)][0];
            let offset = offset_of!($rust, $member);
            let size = size_of_result(|value: $rust| value.$member);
            writeln!(
                $text,
                "_Static_assert(offsetof({0}, {name}) == {offset}, \"offset of {0}.{name}\");\n\
                 _Static_assert(sizeof((({0} *)0)->{name}) == {size}, \"size of {0}.{name}\");",
                $c
            ).unwrap();
        )*
    }};
}

fn size_of_result<S, T>(_: impl Fn(S) -> T) -> usize {
    size_of::<T>()
}

fn structures(edition: u32) -> String {
    let mut text = String::new();
    structure!(text, "struct guest_intr", GuestIntr { pic, param, src_id });
    structure!(text, "struct qvm_sched_info", SchedInfo { policy, priority, reserved });
    structure!(
        text,
        "struct guest_timer_data",
        TimerData { host_notify_start, host_current, guest_notify_start, guest_current }
    );
    structure!(text, "struct _pulse", Pulse {
        kind = "type", subtype, code, zero, value, scoid,
    });
    structure!(
        text,
        "struct qvm_slice_descriptor",
        Slice { writable, offset, store_offset, nbytes, spare, tag }
    );
    structure!(text, "struct wdog_state", WdogState { ws_vdev, ws_action, ws_flags, ws_reserved });
    structure!(text, "struct cdev_state", CdevState {
        cb, vdev, input = "in", output = "out", save_termio, delayed_count, flags, priority,
        ev_in, ev_out,
    });
    structure!(
        text,
        "__typeof__(((struct cdev_state *)0)->in)",
        CdevInput { name, buff, size, avail, pos, fd }
    );
    structure!(
        text,
        "__typeof__(((struct cdev_state *)0)->out)",
        CdevOutput { name, buff, size, begin, pos, fd, flush_timer, flush_timeout }
    );
    structure!(
        text,
        "struct vio_description",
        Description {
            device_type,
            vendor_id,
            pci_class,
            num_queues,
            device_config_size,
            device_features,
        }
    );
    structure!(text, "struct vio_state", State { vsip, qinfo, driver_features });
    structure!(text, "struct __iovec64", Physical { base = "iov_base", len = "iov_len" });
    for (member, offset) in [
        ("sigev_value", offset_of!(SigEvent, value)),
        ("sigev_signo", offset_of!(SigEvent, signo)),
        ("sigev_notify", offset_of!(SigEvent, notify)),
        ("sigev_notify_function", offset_of!(SigEvent, function)),
        ("sigev_notify_attributes", offset_of!(SigEvent, attributes)),
    ] {
        let assertion = format!("offsetof(struct sigevent, {member}) == {offset}");
        writeln!(text, "_Static_assert({assertion}, \"{member}\");").unwrap();
    }
    let size = size_of::<PciConfig>();
    writeln!(text, "_Static_assert(sizeof(struct _pci_config_regs) == {size}, \"\");").unwrap();
    let align = align_of::<PciConfig>();
    writeln!(text, "_Static_assert(_Alignof(struct _pci_config_regs) == {align}, \"\");").unwrap();
    match edition {
        800 => of_800(&mut text),
        _ => of_710(&mut text),
    }
    text
}

fn of_800(text: &mut String) {
    let offset = offset_of!(Iov800, mappings);
    let (size, queue) = (size_of::<Iov800>(), size_of::<QueueInfo>());
    for assertion in [
        format!("sizeof(struct vio_iov) == {size}"),
        format!("offsetof(struct vio_iov, vi_is_postmap) == {offset}"),
        format!("sizeof(struct vio_queue_info) == {queue}"),
        format!("offsetof(struct vio_queue_info, pvq) == {}", offset_of!(QueueInfo, queue)),
        format!("offsetof(struct vio_queue_info, vsp) == {}", offset_of!(QueueInfo, state)),
        format!("offsetof(struct vio_queue_info, data) == {}", offset_of!(QueueInfo, places)),
        format!("offsetof(struct vio_queue_info, max_size) == {}", offset_of!(QueueInfo, max_size)),
    ] {
        writeln!(text, "_Static_assert({assertion}, \"{assertion}\");").unwrap();
    }
    structure!(
        text,
        "struct vdev_s",
        Object800 { v_device, v_factory, v_gsp, v_block, v_intr, v_mtx, v_sched }
    );
    structure!(
        text,
        "struct vdev_factory",
        Factory800 {
            next,
            control,
            vread,
            vwrite,
            pulse,
            timer,
            pic,
            option_list,
            name,
            factory_flags,
            acc_sizes,
            extra_space,
        }
    );
    structure!(
        text,
        "struct vpci_bar",
        VpciBar { vb_mapping, vb_value, vb_value_upper, vb_slice, vb_breg }
    );
    structure!(
        text,
        "struct vpci_rw_state",
        RwState {
            bars,
            rom_bar,
            command,
            cache_line_size,
            latency_timer,
            interrupt_line,
            reserved,
        }
    );
    let abi = QVM_VDEV_ABI_800;
    writeln!(text, "_Static_assert(QVM_VDEV_ABI == {abi}u, \"QVM_VDEV_ABI\");").unwrap();
    let location = VDEV_LOCATION;
    writeln!(
        text,
        "_Static_assert(offsetof(struct vdev_s, v_block.location) == {location}, \"\");"
    )
    .unwrap();
}

fn of_710(text: &mut String) {
    structure!(text, "struct vio_iov", Iov {
        iov = "vi_iov", paddrs = "vi_paddrs", len = "vi_iov_len", reserved = "vi_reserved",
        flags = "vi_flags", hdr_len = "vi_hdr_len", count = "vi_count", payload = "vi_payload",
    });
    structure!(
        text,
        "struct vdev_s",
        Object710 { v_device, v_factory, v_gsp, v_block, v_intr, v_mtx, v_sched }
    );
    structure!(
        text,
        "struct vdev_factory",
        Factory710 {
            next,
            control,
            vread,
            vwrite,
            pulse,
            timer,
            pic,
            option_list,
            name,
            factory_flags,
            acc_sizes,
            extra_space,
            safety,
        }
    );
    structure!(
        text,
        "struct vpci_bar",
        VpciBar710 { vb_mapping, vb_value, vb_value_upper, vb_slice, vb_breg }
    );
    structure!(
        text,
        "struct vpci_rw_state",
        RwState710 {
            bars,
            rom_bar,
            command,
            cache_line_size,
            latency_timer,
            interrupt_line,
            reserved,
        }
    );
    let abi = QVM_VDEV_ABI_710;
    writeln!(text, "_Static_assert(QVM_VDEV_ABI == {abi}u, \"QVM_VDEV_ABI\");").unwrap();
}

#[test]
fn structures_are_laid_out_as_the_headers_say() {
    for edition in [800, 710] {
        check_c(edition, &structures(edition)).unwrap_or_else(|why| panic!("{edition}: {why}"));
    }
}

#[test]
fn constants_have_the_values_of_the_headers() {
    let mut text = String::new();
    for (name, value) in CONSTANTS {
        writeln!(text, "_Static_assert((uint64_t)({name}) == UINT64_C({value}), \"{name}\");")
            .unwrap();
    }
    assert!(CONSTANTS.len() > 90);
    for edition in [800, 710] {
        check_c(edition, &text).unwrap_or_else(|why| panic!("{edition}: {why}"));
    }
}

#[test]
fn a_wrong_assertion_is_noticed() {
    for wrong in ["sizeof(struct vdev_s) == 8", "VRS_ERRNO == 0x101"] {
        let text = format!("_Static_assert({wrong}, \"\");\n");
        assert!(check_c(800, &text).unwrap_err().contains("static assertion failed"), "{wrong}");
    }
}
