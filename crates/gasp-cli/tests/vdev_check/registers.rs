//! What `vread` and `vwrite` do wrong.

use crate::vdev::{Fault, Vdev, expect};

#[test]
fn a_read_without_a_value_is_a_finding() {
    let fault = Fault { read: "return VRS_NORMAL;", ..Fault::default() };
    expect(&fault, &[], &[("no-value", "vread", "2 of 2 reads, first of 4 bytes at 0xfa000000")]);
    let some = "if (vopnd->location & 4) return VRS_NORMAL;";
    let fault = Fault { read: some, ..Fault::default() };
    expect(&fault, &[], &[("no-value", "vread", "1 of 2 reads, first of 4 bytes at 0xfa000004")]);
}

#[test]
fn a_status_that_ends_the_guest_or_is_none_is_a_finding() {
    for (status, name) in [
        ("VRS_TERMINATE", "VRS_TERMINATE, which ends the guest"),
        ("VRS_ABORT", "VRS_ABORT, which ends the guest"),
        ("(VRS_ERRNO + EIO)", "VRS_ERRNO + 5"),
        ("(vdev_ref_status_t)99", "99, which is no VRS_*"),
    ] {
        let text = format!("return {status};");
        let fault = Fault { read: &text, ..Fault::default() };
        expect(&fault, &[], &[("status", "vread", name)]);
        let fault = Fault { write: &text, ..Fault::default() };
        expect(&fault, &["--poke"], &[("status", "vwrite", name)]);
        // Writes are tried only if asked for.
        expect(&fault, &[], &[]);
    }
}

#[test]
fn registers_that_all_refuse_are_a_finding_and_a_single_one_is_not() {
    // The mistake behind it: a location is taken for an offset.
    let fault =
        Fault { read: "if (vopnd->location > 8) return VRS_BUS_ERROR;", ..Fault::default() };
    expect(&fault, &[], &[("bus-error", "vread", "all 2 reads")]);
    let fault =
        Fault { read: "if (vopnd->location & 4) return VRS_BUS_ERROR;", ..Fault::default() };
    expect(&fault, &[], &[]);
}

#[test]
fn an_access_that_waits_is_a_finding() {
    let fault = Fault { read: "usleep(300000);", ..Fault::default() };
    expect(&fault, &[], &[("slow", "vread", " ms for 4 bytes at")]);
}

#[test]
fn a_mutex_that_stays_locked_is_a_finding() {
    for flags in ["VFF_MUTEX", "VFF_MUTEX | VFF_MUTEX_RECURSIVE"] {
        let members = format!(".factory_flags = VFF_VDEV_MEM | {flags}");
        let fault = Fault {
            read: "pthread_mutex_lock(&vdp->v_mtx);",
            members: &members,
            ..Fault::default()
        };
        expect(&fault, &[], &[("mutex", "vread", "locked")]);
        let fault = Fault {
            control: "if (ctrl == VDEV_CTRL_ASSIGN) pthread_mutex_lock(&vdp->v_mtx);",
            members: &members,
            ..Fault::default()
        };
        expect(&fault, &[], &[("mutex", "control(ASSIGN)", "locked")]);
        let fault = Fault {
            read: "pthread_mutex_lock(&vdp->v_mtx); pthread_mutex_unlock(&vdp->v_mtx);",
            members: &members,
            ..Fault::default()
        };
        expect(&fault, &[], &[]);
    }
}

#[test]
fn regions_of_its_own_are_read_with_their_cookies() {
    let fault = Fault {
        control: "if (ctrl == VDEV_CTRL_ASSIGN) { const struct gasp_region region = { \
                  .grf_flags = GRF_VIRT_RD, .cookie = 9, .vdev = vdp, \
                  .host_location = QSL_NO_LOCATION, .guest = { \
                  .location = vdp->v_block.location + 16, .length = 16, .qst_type = QST_MEMORY } }; \
                  gasp_region_set(1, &region); }",
        read: "if (cookie != 9) return VRS_BUS_ERROR;",
        members: ".factory_flags = VFF_VDEV_MEM | VFF_MANUAL_REGION",
        ..Fault::default()
    };
    let record = Vdev::new(&fault).json(&["--loc", "0xfc000000", "--poke"]);
    assert_eq!(record["findings"].as_array().unwrap().len(), 0, "{record:#}");
    // Four registers, in two rounds; none can be written.
    assert_eq!((&record["reads"], &record["writes"]), (&8.into(), &0.into()), "{record:#}");
}
