//! What a check of a vdev asks.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use gasp_qvm::abi::{VFF_MUTEX, VFF_VDEV_MEM, VRS_BUS_ERROR, VRS_NORMAL};
use gasp_qvm::inspect::status_name;
use gasp_qvm::{Access, Space};
use support::{Guests, Library};

/// A write of 1 locks the mutex, one of 2 unlocks it; a read has no value at 4, and is refused at 8.
const LOCKS: &str = r#"
#include <support.h>
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    (void)vdp, (void)ctrl, (void)arg;
    return EOK;
}
static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    const uint32_t value = 7;
    (void)vdp, (void)cookie;
    if (vopnd->location & 8)
        return VRS_BUS_ERROR;
    if (vopnd->location & 4)
        return VRS_NORMAL;
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &value, sizeof(value)));
}
static vdev_ref_status_t vwrite(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    uint32_t value;
    (void)cookie, (void)vopnd;
    const int err = guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &value, sizeof(value));
    if (err == EOK && value == 1)
        pthread_mutex_lock(&vdp->v_mtx);
    if (err == EOK && value == 2)
        pthread_mutex_unlock(&vdp->v_mtx);
    return guest_cpu_to_vrs(err);
}
VDEV(.control = control, .vread = vread, .vwrite = vwrite, .factory_flags = VFF_VDEV_MEM | FLAGS,
     .acc_sizes = 1u << 4, .extra_space = 24)
"#;

fn at(addr: u64) -> Access {
    Access { space: Space::Memory, addr, cookie: 0 }
}

#[test]
fn a_factory_says_what_it_was_registered_with() {
    let text = LOCKS.replace("FLAGS", "VFF_MUTEX");
    for edition in [800, 710] {
        let factory = Library::of_text(&text, edition, "says").load().unwrap();
        assert_eq!(factory.flags(), VFF_VDEV_MEM | VFF_MUTEX);
        assert_eq!((factory.access_sizes(), factory.extra_space()), (0x10, 24));
        assert_eq!(factory.callbacks(), ["control", "vread", "vwrite"]);
        assert!(!factory.is_controller());
    }
}

#[test]
fn an_access_that_is_tried_has_its_status_and_its_value_and_ends_no_guest() {
    let guest = Guests::new();
    let library = Library::of_text(&LOCKS.replace("FLAGS", "0"), 800, "tried");
    let vdev = guest.create(&library, "vdev tried loc 0xfa000000").unwrap();
    let tried = vdev.try_read(at(0xfa00_0000), 4).unwrap();
    assert_eq!((tried.status, tried.value.map(|value| value[0])), (VRS_NORMAL, Some(7)));
    let tried = vdev.try_read(at(0xfa00_0004), 4).unwrap();
    assert_eq!((tried.status, tried.value), (VRS_NORMAL, None));
    let tried = vdev.try_read(at(0xfa00_0008), 4).unwrap();
    assert_eq!((tried.status, tried.value), (VRS_BUS_ERROR, None));
    assert_eq!(vdev.try_read(at(0xfa00_0000), 2), None, "the width is not allowed");
    assert_eq!(vdev.try_write(at(0xfa00_0000), &[0; 4]).unwrap().status, VRS_NORMAL);
    assert!(guest.events().is_empty());
    assert_eq!(vdev.own_length(), 0);
    assert_eq!(status_name(99), "99, which is no VRS_*");
}

#[test]
fn a_mutex_that_is_held_is_seen_also_by_the_thread_that_holds_it() {
    let guest = Guests::new();
    for (flags, name, has) in [
        ("VFF_MUTEX", "plain", true),
        ("VFF_MUTEX | VFF_MUTEX_RECURSIVE", "again", true),
        ("0", "none", false),
    ] {
        let library = Library::of_text(&LOCKS.replace("FLAGS", flags), 800, name);
        let vdev = guest.create(&library, &format!("vdev {name} loc 0xfa000000")).unwrap();
        assert!(!vdev.mutex_is_held());
        vdev.try_write(at(0xfa00_0000), &1_u32.to_le_bytes()).unwrap();
        assert_eq!(vdev.mutex_is_held(), has, "{flags}");
        vdev.try_write(at(0xfa00_0000), &2_u32.to_le_bytes()).unwrap();
        assert!(!vdev.mutex_is_held());
    }
}
