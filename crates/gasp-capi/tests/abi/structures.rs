//! Every structure has the size, alignment and members that its header declares.

use std::fmt::Write as _;

use gasp_capi::types::*;

use crate::headers::check;
use crate::in_c::InC;

/// Assertions about a structure: its size and alignment, and the offset and size of each member.
macro_rules! structure {
    ($text:ident, $edition:expr, $rust:ident { $($member:ident = $c:literal),* $(,)? }) => {{
        let name = <$rust as InC>::name($edition);
        // All members are listed: this does not compile otherwise.
        let _ = |value: $rust| { let $rust { $($member: _),* } = value; };
        let (size, align) = (size_of::<$rust>(), align_of::<$rust>());
        writeln!($text, "_Static_assert(sizeof({name}) == {size}, \"size of {name}\");").unwrap();
        writeln!($text, "_Static_assert(_Alignof({name}) == {align}, \"{name}\");").unwrap();
        $(
            let offset = std::mem::offset_of!($rust, $member);
            writeln!(
                $text,
                "_Static_assert(offsetof({name}, {}) == {offset}, \"offset of {}\");", $c, $c
            ).unwrap();
            let size = size_of_result(|value: $rust| value.$member);
            writeln!(
                $text,
                "_Static_assert(sizeof((({name} *)0)->{}) == {size}, \"size of {}\");", $c, $c
            ).unwrap();
        )*
    }};
}

fn size_of_result<S, T>(_: impl Fn(S) -> T) -> usize {
    size_of::<T>()
}

fn structures(edition: u32) -> String {
    let mut text = String::new();
    if edition == 800 {
        structure!(text, 800, MapHandle { reserved = "reserved" });
        structure!(text, 800, StateBlock {
            location = "location", length = "length", qst_type = "qst_type",
            qst_flags = "qst_flags", spare = "spare",
        });
        structure!(text, 800, Region {
            flags = "grf_flags", cookie = "cookie", vdev = "vdev",
            host_location = "host_location", guest = "guest",
        });
        structure!(text, 800, WalkState {
            span = "gw_span", guest_loc = "gw_guest_loc", host_loc = "gw_host_loc",
            length = "gw_length", max_length = "gw_max_length", flags = "gwf_flags",
        });
        structure!(text, 800, WalkStateFiltered {
            ws = "ws", filter = "filter", remaining_guest_loc = "remaining_guest_loc",
            remaining_length = "remaining_length",
        });
    } else {
        structure!(text, 710, StateBlock710 {
            location = "location", length = "length", qst_type = "type", qst_flags = "flags",
        });
        structure!(text, 710, Region710 {
            flags = "flags", cookie = "cookie", vdev = "vdev",
            host_location = "host_location", guest = "guest",
        });
        structure!(text, 710, WalkState710 {
            span = "span", gsp = "gsp", guest_loc = "guest_loc", host_loc = "host_loc",
            length = "length", max_length = "max_length", flags = "flags",
        });
        structure!(text, 710, WalkStateFiltered710 {
            ws = "ws", filter = "filter", remaining_guest_loc = "remaining_guest_loc",
            remaining_length = "remaining_length",
        });
    }
    structure!(text, edition, GuestOptions {
        name = "name", address_width = "address_width", iommu = "iommu",
        drain_deadline_ms = "drain_deadline_ms", at_deadline = "at_deadline",
        allow_unpinned = "allow_unpinned", reserved = "reserved",
    });
    structure!(text, edition, Fault {
        vdev = "vdev", device_addr = "device_addr", access = "access", refusal = "refusal",
        dropped = "dropped", name = "name",
    });
    structure!(text, edition, Drained {
        holders = "holders", detached = "detached", waited_ns = "waited_ns",
    });
    text
}

#[test]
fn structures_are_laid_out_as_the_headers_say() {
    check(800, &structures(800));
    check(710, &structures(710));
    assert_eq!(size_of::<MapHandle>(), 24, "published");
}
