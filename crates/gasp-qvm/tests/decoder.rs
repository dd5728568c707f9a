//! Which vdev an address belongs to, also while vdevs change their regions.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;

use gasp_qvm::{Decoder, Instance, Request, Space};
use support::{Guests, Library};

/// Answers reads with its option `number`, the cookie, and the lowest byte of the address. A write
/// of 1 to offset 0 adds a region at the next page, of 2 changes its cookie, of 3 removes it.
const REGIONS: &str = r#"
#include <support.h>
static const char *const options[] = { "number", "manual", NULL };
struct state { unsigned char number; uint64_t manual; };
static struct gasp_region region(vdev_t *vdp, uint64_t at, unsigned flags, unsigned cookie)
{
    struct gasp_region region = { .grf_flags = flags, .cookie = cookie, .vdev = vdp,
                                  .host_location = QSL_NO_LOCATION };
    region.guest.location = at;
    region.guest.length = 0x10;
    region.guest.qst_type = QST_MEMORY;
    return region;
}
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct state *const state = vdp->v_device;
    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START: vdp->v_block.length = 0x10; break;
    case VDEV_CTRL_FIRST_OPTIDX: state->number = atoi(arg); break;
    case VDEV_CTRL_FIRST_OPTIDX + 1: state->manual = strtoull(arg, NULL, 0); break;
    case VDEV_CTRL_GUEST_CONFIGURED:
        if (state->manual != 0) {
            const struct gasp_region one = region(vdp, state->manual, GRF_VIRT_RD, 7);
            gasp_region_set(1, &one);
        }
        break;
    default: break;
    }
    return EOK;
}
static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct state *const state = vdp->v_device;
    const unsigned char data[8] = { state->number, cookie, vopnd->location, vopnd->length };
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, data, sizeof data));
}
static vdev_ref_status_t vwrite(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    static const unsigned flags[] = { 0, GRF_VIRT_RD | GRF_VIRT_WR, GRF_VIRT_RD, GRF_NONE };
    unsigned char what = 0;
    (void)cookie;
    guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &what, 1);
    if (what < 1 || what > 3) return VRS_NORMAL;
    const struct gasp_region next = region(vdp, (vopnd->location & ~0xfffull) + 0x1000, flags[what], what);
    gasp_lock(QST_MEMORY);
    const unsigned done = gasp_region_set_soft(1, &next);
    gasp_unlock(QST_MEMORY);
    return done == 1 ? VRS_NORMAL : VRS_ABORT;
}
VDEV(.control = control, .vread = vread, .vwrite = vwrite, .option_list = options,
     .factory_flags = FLAGS, .extra_space = sizeof(struct state))
"#;

fn library(flags: &str) -> Library {
    Library::of_text(&REGIONS.replace("FLAGS", flags), 800, "regions")
}

fn configured(guest: &Guests, library: &Library, text: &str, decoder: &Decoder) -> Arc<Instance> {
    let vdev = Arc::new(guest.create(library, text).unwrap());
    vdev.assign().unwrap();
    vdev.make_region().unwrap();
    decoder.add(&vdev);
    vdev.configured().unwrap();
    vdev
}

fn read<const N: usize>(decoder: &Decoder, space: Space, addr: u64) -> [u8; N] {
    let mut data = [0; N];
    decoder.read(space, addr, &mut data);
    data
}

#[test]
fn an_access_finds_its_vdev_and_is_divided_between_vdevs() {
    let library = library("VFF_NONE");
    let guest = Guests::new();
    let decoder = Decoder::new(&guest.listed);
    let at = |number: u8, place: &str| {
        let text = format!("vdev regions number {number} loc {place}");
        configured(&guest, &library, &text, &decoder)
    };
    let _all = [at(1, "mem:0xfa000000"), at(2, "mem:0xfa000010"), at(3, "io:0x200")];
    assert_eq!(read(&decoder, Space::Memory, 0xfa00_0004), [1, 0, 4, 4]);
    assert_eq!(read(&decoder, Space::Memory, 0xfa00_000e), [1, 0, 2, 0], "divided: two of each");
    assert_eq!(read(&decoder, Space::Ports, 0x202), [3, 0, 2, 4]);
    assert_eq!(read(&decoder, Space::Ports, 0x20f), [3, 0xff], "past its end");
    assert_eq!(read(&decoder, Space::Memory, 0xf9ff_ffff), [0xff, 1]);
    assert_eq!(read(&decoder, Space::Memory, u64::MAX), [0xff; 4]);
    assert_eq!(read(&decoder, Space::Memory, 0x1000), [0xff; 4], "RAM is no vdev's");
    decoder.clear();
    assert_eq!(read(&decoder, Space::Memory, 0xfa00_0004), [0xff; 4]);
}

#[test]
fn regions_of_a_vdev_are_its_from_the_moment_that_it_makes_them() {
    let library = library("VFF_VDEV_MEM | VFF_MANUAL_REGION");
    let guest = Guests::new();
    let decoder = Decoder::new(&guest.listed);
    let text = "vdev regions number 9 manual 0xfb000000";
    let vdev = configured(&guest, &library, text, &decoder);
    assert_eq!(read(&decoder, Space::Memory, 0xfb00_0003), [9, 7, 3, 4], "with its cookie");
    // Only reads: this does not reach it.
    guest.listed.start().unwrap();
    decoder.write(Space::Memory, 0xfb00_0000, &[1]);
    assert_eq!(read(&decoder, Space::Memory, 0xfb00_1000), [0xff; 4]);
    drop(vdev);
    decoder.clear();

    let library = self::library("VFF_VDEV_MEM");
    let vdev = configured(&guest, &library, "vdev regions number 4 loc 0xfa000000", &decoder);
    let next = || read(&decoder, Space::Memory, 0xfa00_1000);
    assert_eq!(next(), [0xff; 4]);
    for (what, expected) in [(1, [4, 1, 0, 4]), (2, [4, 2, 0, 4]), (3, [0xff; 4])] {
        decoder.write(Space::Memory, 0xfa00_0000, &[what]);
        assert_eq!(next(), expected, "{what}");
    }
    decoder.write(Space::Memory, 0xfa00_0000, &[1]);
    decoder.clear();
    assert!(Arc::into_inner(vdev).unwrap().terminate().is_empty());
    let regions = guest.guest.space().regions();
    assert_eq!(regions.len(), 1, "its registers go with it: {regions:?}");
}

#[test]
fn a_region_where_something_is_names_both() {
    let library = library("VFF_NONE");
    let guest = Guests::new();
    let decoder = Decoder::new(&guest.listed);
    let first = configured(&guest, &library, "vdev regions name one loc 0xfa000000", &decoder);
    let second = guest.create(&library, "vdev regions name two loc 0xfa00000f").unwrap();
    let error = second.make_region().unwrap_err().to_string();
    assert!(error.contains(first.name()) && error.contains("`two`"), "{error}");
    let third = guest.create(&library, "vdev regions name three loc 0x3ffff8").unwrap();
    let error = third.make_region().unwrap_err().to_string();
    assert!(error.contains("`three`") && error.contains("overlap"), "{error}");
}

#[test]
fn options_of_the_host_are_kept_from_the_vdev() {
    let library = library("VFF_NONE");
    let factory = library.load().unwrap();
    let text = "ram 1M\nvdev regions number 1\nhid PNP0501 manual hid\n";
    let config = gasp::config::Config::parse(text, "a.qvmconf".as_ref()).unwrap();
    let device = &config.machine().devices[0];
    let (_, host) = Request::with(device, &factory, &["uid", "hid"]).unwrap();
    assert_eq!((host.len(), host[0].index, &*host[0].argument), (1, 1, "PNP0501"));
    assert!(host[0].place.to_string().contains(":3"), "{}", host[0].place);
    let error = Request::of(device, &factory).unwrap_err().to_string();
    assert!(error.contains("no option `hid`"), "{error}");
}
