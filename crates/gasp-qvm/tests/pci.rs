//! Vdevs in C as PCI functions, in front of guests without a VMM.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gasp_qvm::pci::IDENTITY;
use gasp_qvm::{PciVdev, PciVdevBuilder, VdevError};
use gasp_vdev::testbus::{TestBus, until};
use gasp_vdev::{BarKind, IrqKind, Msix, Shell, VendorCapability};
use parking_lot::Mutex;
use support::{Library, request};

const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/vdev/vdev-trace.c");

const COMMAND: u64 = 4;

fn builder(library: &Library, text: &str) -> Result<PciVdevBuilder, VdevError> {
    let factory = library.load()?;
    Ok(PciVdev::builder(&factory, &request(&factory, text)?))
}

/// A function, without a VMM.
fn function(library: &Library, text: &str) -> Result<PciVdev, VdevError> {
    builder(library, text)?.build()
}

/// The message of a function that is refused.
fn refusal(library: &Library, text: &str) -> String {
    function(library, text).unwrap_err().to_string()
}

#[test]
fn the_registers_of_a_vdev_are_its_first_bar() {
    for edition in [800, 710] {
        let library = Library::of_file(TRACE, edition, "trace");
        // With a location, and with one that is assigned.
        for text in ["vdev trace quiet", "vdev trace quiet loc 0xfa000000"] {
            let vdev = function(&library, text).unwrap();
            let mut bus = TestBus::new(vdev.clone()).unwrap();
            let model = bus.shell().model().clone();
            assert_eq!((model.identity, model.bars.len(), model.pin), (IDENTITY, 1, false));
            assert_eq!((model.bars[0].size, model.bars[0].kind), (4096, BarKind::Memory32));
            assert_eq!(model.msix, None, "it has no interrupt");
            // The vdev compares the address with `v_block.location`.
            bus.write32(0, 0, 7).unwrap();
            bus.write32(0, 0, 8).unwrap();
            assert_eq!(bus.read32(0, 0).unwrap(), 2);
            // Past its registers, and of a width that it does not allow.
            bus.write32(0, 4, 9).unwrap();
            assert_eq!((bus.read32(0, 4).unwrap(), bus.read64(0, 0).unwrap()), (!0, !0));
            let mut byte = [0];
            bus.shell().bar_read(0, 1, &mut byte).unwrap();
            assert_eq!((byte, bus.read32(0, 0).unwrap()), ([0xff], 2));
            assert!(vdev.status().is_some());
            // Each VMM has an instance of its own.
            bus.detach();
            assert_eq!(vdev.status(), None);
            bus.attach().unwrap();
            assert_eq!(bus.read32(0, 0).unwrap(), 0);
        }
    }
}

/// Registers: 0 counts instances, 4 signals what is written, 8 maps, 12 ends, 16 waits.
const PLAIN: &str = r#"
#include <support.h>
static const char *const options[] = { "how", "length", NULL };
struct state { char how[16]; unsigned instance; unsigned result; };
static unsigned instances, terminated;
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct state *const state = vdp->v_device;
    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        state->instance = ++instances;
        vdp->v_block.length = 0x20;
        break;
    case VDEV_CTRL_FIRST_OPTIDX: strncpy(state->how, arg, sizeof state->how - 1); break;
    case VDEV_CTRL_FIRST_OPTIDX + 1: vdp->v_block.length = strtoull(arg, NULL, 0); break;
    case VDEV_CTRL_GUEST_CONFIGURED:
        if (strcmp(state->how, "second") == 0 && state->instance % 2 == 0) {
            vdev_logf(QL_QVM_ERR, vdp, "one is enough");
            return EBUSY;
        }
        if (strcmp(state->how, "early") == 0 && state->instance % 2 == 0)
            guest_terminate(34);
        vdp->v_block.length = 0x8000; /* of no effect any more */
        break;
    case VDEV_CTRL_ASSIGN:
        if (strcmp(state->how, "changes") == 0 && state->instance % 2 == 0)
            vdp->v_block.length = 0x2000;
        break;
    case VDEV_CTRL_GUEST_STARTING:
        if (strcmp(state->how, "raise") == 0) guest_intr_signal(&vdp->v_intr, GIS_ON);
        break;
    case VDEV_CTRL_TERMINATE: terminated++; break;
    case VDEV_CTRL_STATUS: qvm_report("instance %u\n", state->instance); break;
    default: break;
    }
    return EOK;
}
static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct state *const state = vdp->v_device;
    unsigned values[] = { state->instance, terminated, state->result, cookie };
    const uint64_t offset = vopnd->location - vdp->v_block.location;
    if (offset == 16) { usleep(200000); return VRS_BUS_ERROR; }
    if (offset / 4 >= 4) return VRS_BUS_ERROR;
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &values[offset / 4], 4));
}
static vdev_ref_status_t vwrite(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct state *const state = vdp->v_device;
    gasp_map_handle_t handle;
    uint64_t run;
    size_t len = 64;
    unsigned value = 0;
    (void)cookie;
    guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &value, vopnd->length);
    switch (vopnd->location - vdp->v_block.location) {
    case 4:
        if (value == 0x40) guest_msi_signal(vdp, 0xfee00000, 0x41);
        else guest_intr_signal(&vdp->v_intr, value);
        break;
    case 8:
        state->result = gasp_map(vdp, value, 64, GMF_WRITE, &handle);
        if (state->result == EOK) { memset(gasp_get_vaddr(&handle), 0x5a, 64); gasp_unmap_handle(&handle); }
        break;
    case 12: guest_terminate(33); break;
    case 20:
        run = value;
        state->result = gasp_map_host_contig(vdp, &run, &len, GMF_WRITE, &handle);
        if (state->result == EOK) gasp_unmap_handle(&handle);
        break;
    case 24: state->result = gasp_map_vdma(vdp, value, 64, GMF_WRITE) == NULL ? errno : 0; break;
    }
    return VRS_NORMAL;
}
VDEV(.control = control, .vread = vread, .vwrite = vwrite, .option_list = options,
     .factory_flags = FLAGS, .extra_space = sizeof(struct state))
"#;

fn plain(flags: &str) -> Library {
    Library::of_text(&PLAIN.replace("FLAGS", flags), 800, "plain")
}

#[test]
fn an_interrupt_is_a_message_on_each_rise_and_a_pin_that_follows() {
    let vdev = function(&plain("VFF_VDEV_MEM | VFF_INTR_REQ"), "vdev plain").unwrap();
    let bus = TestBus::new(vdev).unwrap();
    assert_eq!(bus.shell().interrupts().count(IrqKind::Msix), 1);
    // 1 is GIS_ON, 2 GIS_OFF.
    for _ in 0..3 {
        bus.write32(0, 4, 1).unwrap();
        assert!(bus.interrupt(0).unwrap());
    }
    assert!(!bus.shell().interrupts().is_raised(), "messages leave the pin alone");
    bus.write32(0, 4, 2).unwrap();
    bus.write32(0, 4, 1).unwrap();
    assert!(bus.interrupt(0).unwrap());
    // A message of the vdev's own is dropped: a VMM on a socket has no place for it.
    bus.write32(0, 4, 0x40).unwrap();

    // Without MSI-X it is the pin, which stays up until the vdev lowers it, or ends.
    let vdev = function(&plain("VFF_VDEV_MEM"), "vdev plain").unwrap();
    let bus = TestBus::new(vdev).unwrap();
    bus.shell().interrupts().disable(IrqKind::Msix);
    for (state, is_up) in [(1, true), (1, true), (2, false), (2, false), (1, true)] {
        bus.write32(0, 4, state).unwrap();
        assert_eq!(bus.shell().interrupts().is_raised(), is_up);
    }
    bus.detach();
    assert!(!bus.shell().interrupts().is_raised());
}

#[test]
fn a_reset_is_a_new_instance_unless_nothing_was_accessed() {
    let vdev = function(&plain("VFF_VDEV_MEM"), "vdev plain").unwrap();
    let bus = TestBus::new(vdev.clone()).unwrap();
    // The first was in front of no guest.
    let status = || vdev.status().unwrap();
    assert_eq!(status(), "instance 2\n");
    bus.shell().reset();
    assert_eq!(status(), "instance 2\n");
    assert_eq!(bus.read32(0, 0).unwrap(), 2);
    bus.shell().reset();
    assert_eq!((bus.read32(0, 0).unwrap(), bus.read32(0, 4).unwrap()), (3, 2));
    bus.detach();
    bus.shell().reset();
    assert_eq!(vdev.status(), None);
}

/// A reset lowers the pin, so an instance that holds it up is not kept: the guest would never hear.
#[test]
fn an_instance_that_has_signalled_is_not_kept_by_a_reset() {
    let library = plain("VFF_VDEV_MEM");
    let vdev = function(&library, "vdev plain how raise").unwrap();
    let bus = TestBus::new(vdev.clone()).unwrap();
    let before = vdev.status().unwrap();
    bus.shell().interrupts().disable(IrqKind::Msix);
    bus.shell().reset();
    assert_ne!(vdev.status().unwrap(), before);
    assert!(bus.shell().interrupts().is_raised());
}

#[test]
fn maps_are_refused_while_the_function_is_not_bus_master() {
    let vdev = function(&plain("VFF_VDEV_MEM"), "vdev plain").unwrap();
    let bus = TestBus::new(vdev).unwrap();
    let mapped = |register, addr| {
        bus.write32(0, register, addr).unwrap();
        bus.read32(0, 8).unwrap()
    };
    let (map, contig, vdma) = (8, 20, 24);
    let denied = libc::EPERM as u32;
    let master = |enabled: bool| {
        bus.shell().config_write(COMMAND, &[if enabled { 6 } else { 2 }, 0]).unwrap();
    };
    // Of known host-physical addresses there may be none: EPERM too, but not of this kind.
    for _ in 0..2 {
        assert_eq!((mapped(map, 0x1000), mapped(vdma, 0x1000)), (0, 0));
        master(false);
        assert_eq!((mapped(map, 0x2000), mapped(contig, 0x2000)), (denied, denied));
        assert_eq!(mapped(vdma, 0x1000), denied);
        // After a reset it is another instance, of a function that is no bus master.
        bus.shell().reset();
        assert_eq!(mapped(map, 0x2000), denied);
        master(true);
    }
    let mut bytes = [0; 64];
    bus.load(0x1000, &mut bytes).unwrap();
    assert_eq!(bytes, [0x5a; 64]);
    bus.load(0x2000, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 64]);
}

#[test]
fn memory_that_is_reached_by_messages_cannot_be_mapped() {
    let vdev = function(&plain("VFF_VDEV_MEM"), "vdev plain").unwrap();
    let span = gasp::Span::new(gasp::DeviceAddr(0x1000_0000), 0x1000).unwrap();
    let bus = gasp_vdev::testbus::Options::default().messages(span).attach(vdev).unwrap();
    bus.write32(0, 8, 0x1000_0000).unwrap();
    assert_eq!(bus.read32(0, 8).unwrap(), libc::ENXIO as u32);
}

#[test]
fn a_vdev_that_ends_its_guest_reads_as_ones_until_the_reset() {
    let failures = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&failures);
    let library = plain("VFF_VDEV_MEM");
    let vdev = builder(&library, "vdev plain").unwrap();
    let vdev = vdev.on_failure(move |failure| told.lock().push(failure.to_string()));
    let vdev = vdev.build().unwrap();
    let bus = TestBus::new(vdev.clone()).unwrap();
    bus.shell().interrupts().disable(IrqKind::Msix);
    bus.write32(0, 4, 1).unwrap();
    assert!(!vdev.has_failed() && bus.shell().interrupts().is_raised());
    bus.write32(0, 12, 0).unwrap();
    bus.write32(0, 12, 0).unwrap();
    assert!(vdev.has_failed() && !bus.shell().interrupts().is_raised());
    assert_eq!((bus.read32(0, 0).unwrap(), vdev.status()), (!0, None));
    let told = failures.lock().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("vdev `plain`") && told[0].contains("guest_terminate(33)"),
        "{told:?}"
    );
    bus.shell().reset();
    assert_eq!((vdev.has_failed(), bus.read32(0, 0).unwrap()), (false, 3));
}

#[test]
fn a_vdev_that_refuses_a_vmm_reads_as_ones_for_it_and_says_why() {
    let all =
        [("second", "one is enough"), ("changes", "other BARs"), ("early", "guest_terminate(34)")];
    for (how, why) in all {
        let failures = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&failures);
        let library = plain("VFF_VDEV_MEM");
        let vdev = builder(&library, &format!("vdev plain how {how}")).unwrap();
        let vdev = vdev.on_failure(move |failure| told.lock().push(failure.to_string()));
        let vdev = vdev.build().unwrap();
        let mut bus = TestBus::new(vdev.clone()).unwrap();
        assert_eq!(bus.read32(0, 0).unwrap(), !0);
        bus.write32(0, 12, 0).unwrap();
        assert!(vdev.has_failed());
        let told = failures.lock().clone();
        assert!(told.len() == 1 && told[0].contains(why), "{told:?}");
        bus.detach();
        assert!(!vdev.has_failed());
        bus.attach().unwrap();
        assert_eq!(bus.read32(0, 0).unwrap(), 3);
    }
}

#[test]
fn what_cannot_be_a_function_is_refused_at_the_start() {
    let library = plain("VFF_VDEV_MEM");
    for (length, parts) in [
        ("0x8000000000000000", &["more than a BAR can have"][..]),
        ("0x400000000001", &["more than a BAR can have"]),
    ] {
        let text = refusal(&library, &format!("vdev plain length {length}"));
        assert!(text.contains("vdev `plain`"), "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    let model = |length: &str| {
        let vdev = function(&library, &format!("vdev plain length {length}")).unwrap();
        let shell = Shell::new("plain", vdev).unwrap();
        let bar = shell.model().bars[0].clone();
        (bar.size, bar.kind)
    };
    assert_eq!(model("0x1001"), (0x2000, BarKind::Memory32));
    assert_eq!(model("0x20000001"), (0x4000_0000, BarKind::Memory64));
    let ports = plain("VFF_VDEV_X86_IO");
    let shell = Shell::new("ports", function(&ports, "vdev plain length 3").unwrap()).unwrap();
    assert_eq!((shell.model().bars[0].size, shell.model().bars[0].kind), (4, BarKind::Io));
    let text = refusal(&ports, "vdev plain length 0x101");
    assert!(text.contains("at most 256"), "{text}");
    let text = refusal(&plain("VFF_VDEV_MEM | VFF_MANUAL_REGION"), "vdev plain");
    assert!(text.contains("VFF_MANUAL_REGION") && text.contains("gasp vm"), "{text}");
    let text = refusal(&plain("VFF_VDEV_MEM"), "vdev plain loc pci:0:3.0");
    assert!(text.contains("test.qvmconf:2") && text.contains("cannot be on the PCI bus"), "{text}");
    let text = refusal(&library, "vdev plain loc 0xfffffffffffffff0");
    assert!(text.contains("past the last address"), "{text}");
}

#[test]
fn accesses_and_resets_at_the_same_time_are_safe() {
    let vdev = function(&plain("VFF_VDEV_MEM"), "vdev plain").unwrap();
    let bus = TestBus::new(vdev).unwrap();
    let read = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while done.load(Ordering::Acquire) == 0 {
                    let instance = bus.read32(0, 0).unwrap();
                    bus.write32(0, 4, 1).unwrap();
                    // Ones, in the middle of a reset; an older one never.
                    assert!(instance >= last, "{instance} after {last}");
                    last = if instance == !0 { last } else { instance };
                    read.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..50 {
            let before = read.load(Ordering::Relaxed);
            until(|| (read.load(Ordering::Relaxed) > before + 10).then_some(())).unwrap();
            bus.shell().reset();
        }
        done.store(1, Ordering::Release);
    });
    let last = bus.read32(0, 0).unwrap();
    assert_eq!((last, bus.read32(0, 4).unwrap()), (52, 51), "each was ended");
    // One that takes long is waited for.
    std::thread::scope(|scope| {
        scope.spawn(|| bus.read32(0, 16).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(50));
        bus.shell().reset();
    });
    assert_eq!(bus.read32(0, 0).unwrap(), 53);
}

/// A PCI device: BAR 0 in memory, BAR 1 of ports, BAR 2 of 64 bits; an offset register in each, and
/// the address and cookie that it is accessed with.
const DEVICE: &str = r#"
#include <support.h>
#include <qvm/vpci.h>
#if QVM_EDITION == 710
#define qst_type type
#endif
static const char *const options[] = { "how", NULL };
struct state { struct vpci_bar bars[6]; unsigned char image[256]; char how[16]; uint64_t value; };
static void word(struct state *state, unsigned at, uint32_t value) { memcpy(state->image + at, &value, 4); }
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct state *const state = vdp->v_device;
    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        word(state, 0x00, 0x7a5a1234); word(state, 0x04, 0x00100000); word(state, 0x08, 0x01020309);
        word(state, 0x10, 0); word(state, 0x14, PCI_BAR_IO); word(state, 0x18, PCI_BAR_64BIT | PCI_BAR_PREFETCHABLE);
        word(state, 0x2c, 0x55667788); word(state, 0x34, 0x40);
        word(state, 0x40, 0xab075009); word(state, 0x44, 0x00efcd); /* vendor-specific: 4 bytes */
        word(state, 0x50, 0x00020011); word(state, 0x54, 0x2000); word(state, 0x58, 0x3000);
        state->bars[0].vb_mapping.guest.length = 0x4000;
        state->bars[0].vb_mapping.cookie = 70;
        state->bars[1].vb_mapping.guest.length = 0x20;
        state->bars[1].vb_mapping.guest.qst_type = QST_PCI_IO;
        state->bars[1].vb_mapping.cookie = 71;
        state->bars[2].vb_mapping.guest.length = 0x10000;
        state->bars[2].vb_mapping.cookie = 72;
        break;
    case VDEV_CTRL_FIRST_OPTIDX:
        strncpy(state->how, arg, sizeof state->how - 1);
        if (strcmp(arg, "silent") == 0) word(state, 0x00, 0xffffffff);
        if (strcmp(arg, "odd") == 0) state->bars[0].vb_mapping.guest.length = 0x3000;
        if (strcmp(arg, "type") == 0) state->bars[0].vb_mapping.guest.qst_type = QST_CPUREGS;
        if (strcmp(arg, "huge") == 0) state->bars[2].vb_mapping.guest.length = strtoull("0x4000000000000000", NULL, 0);
        if (strcmp(arg, "nomsix") == 0) word(state, 0x40, 0xab070009);
        break;
    case VDEV_CTRL_PCI_BARS:
        if (strcmp(state->how, "fails") == 0) { vdev_logf(QL_QVM_ERR, vdp, "no bars here"); return ENODEV; }
        *(struct vpci_bar **)(void *)arg = state->bars;
        return strcmp(state->how, "many") == 0 ? -7 : -3;
    default: break;
    }
    return EOK;
}
static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct state *const state = vdp->v_device;
    uint64_t value = state->value;
    if (vopnd->qst_type == QST_PCI) {
        const unsigned offset = vopnd->location & 0xfff;
        if (vopnd->location >> 12 != vdp->v_block.location >> 12 || offset + vopnd->length > 0x60)
            return VRS_BUS_ERROR;
        return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, state->image + offset, vopnd->length));
    }
    if (cookie < 70 || cookie > 72) return VRS_BUS_ERROR;
    value = (uint64_t)cookie << 56 | (uint64_t)vopnd->qst_type << 40
        | (vopnd->location - state->bars[cookie - 70].vb_mapping.guest.location);
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &value, vopnd->length));
}
static vdev_ref_status_t vwrite(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    (void)cookie; (void)vopnd; (void)oopnd; (void)gcp;
    guest_intr_signal(&vdp->v_intr, GIS_ON);
    return VRS_NORMAL;
}
VDEV(.control = control, .vread = vread, .vwrite = vwrite, .option_list = options,
     .factory_flags = VFF_VDEV_PCI, .extra_space = sizeof(struct state))
"#;

#[test]
fn a_pci_device_describes_its_function() {
    for edition in [800, 710] {
        let library = Library::of_text(DEVICE, edition, "device");
        let vdev = function(&library, "vdev device loc pci:0:3.1").unwrap();
        let bus = TestBus::new(vdev).unwrap();
        let model = bus.shell().model().clone();
        let id = model.identity;
        assert_eq!((id.vendor, id.device, id.revision), (0x1234, 0x7a5a, 9));
        assert_eq!((id.subsystem_vendor, id.subsystem), (0x7788, 0x5566));
        assert_eq!((id.class.base, id.class.sub, id.class.interface), (1, 2, 3));
        let bars: Vec<_> = model.bars.iter().map(|bar| (bar.index, bar.size, bar.kind)).collect();
        let expected = [
            (0, 0x4000, BarKind::Memory32),
            (1, 0x20, BarKind::Io),
            (2, 0x1_0000, BarKind::Memory64),
        ];
        assert_eq!(bars, expected);
        assert!(!model.bars[0].prefetchable && model.bars[2].prefetchable && model.pin);
        let msix = Msix { vectors: 3, bar: 0, table: 0x2000, pending: 0x3000 };
        assert_eq!(model.msix, Some(msix));
        assert_eq!(model.vendor, [VendorCapability::new(vec![0xab, 0xcd, 0xef, 0])]);
        let ports = u64::from(gasp_qvm::abi::QST_X86_IO);
        assert_eq!(bus.read64(0, 0x18).unwrap(), 70 << 56 | 0x18);
        assert_eq!(bus.read64(1, 0x10).unwrap(), 71 << 56 | ports << 40 | 0x10);
        assert_eq!(bus.read64(2, 0xfff8).unwrap(), 72 << 56 | 0xfff8);
        // The table is the host's.
        bus.write32(0, 0x2000, 0xfee0_0000).unwrap();
        assert_eq!(bus.read32(0, 0x2000).unwrap(), 0xfee0_0000);
        bus.write32(0, 0, 1).unwrap();
        assert!(bus.interrupt(0).unwrap());
    }
}

#[test]
fn a_pci_device_that_is_no_function_is_refused() {
    let library = Library::of_text(DEVICE, 800, "device");
    for (how, part) in [
        ("silent", "no vendor ID"),
        ("odd", "the BAR 0 has 0x3000 bytes"),
        ("type", "the BAR 0 has the type 2"),
        ("huge", "BAR 2: the size 0x4000000000000000"),
        ("many", "reports 7 BARs"),
        ("fails", "no bars here"),
    ] {
        let text = refusal(&library, &format!("vdev device how {how}"));
        assert!(text.contains("vdev `device`") && text.contains(part), "{how}: {text}");
    }
    // One without MSI-X of its own has some in a free BAR.
    let vdev = function(&library, "vdev device how nomsix").unwrap();
    let shell = Shell::new("device", vdev).unwrap();
    let msix = Msix { vectors: 1, bar: 4, table: 0, pending: 0x800 };
    assert_eq!(shell.model().msix, Some(msix));
}

/// A PCI device of the functions of `<qvm/vpci.h>`: reads of BAR 0 return its configuration space, as
/// it sees that itself, and past it the offset in BAR 1.
const SLICES: &str = r#"
#include <support.h>
#include <qvm/vpci.h>
#if QVM_EDITION == 710
#define qst_type type
#define grf_flags flags
#endif
struct state { struct vpci_rw_state rw; };
static const struct qvm_slice_descriptor slices[] = {
    VPCI_SLICE_COMMAND, VPCI_SLICE_BAR(0, 0x1000), VPCI_SLICE_BAR(1, 0x2000), VPCI_SLICE_END,
};
static const struct _pci_config_regs image = { .vendor_id = 0x1234, .device_id = 0x0042 };
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct state *const state = vdp->v_device;
    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        state->rw.bars[0].vb_mapping.guest.length = 0x1000;
        state->rw.bars[1].vb_mapping.guest.length = 0x2000;
        for (unsigned bar = 0; bar < 2; bar++) {
            state->rw.bars[bar].vb_mapping.grf_flags = GRF_VIRT_RD | GRF_VIRT_WR;
            state->rw.bars[bar].vb_mapping.cookie = bar;
        }
        break;
    case VDEV_CTRL_PCI_BARS: return vpci_ctrl_pci_bars(&state->rw, arg);
    default: break;
    }
    return EOK;
}
static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct state *const state = vdp->v_device;
    struct qvm_state_block block = *vopnd;
    uint32_t value = ~0u;
    if (cookie == 1)
        value = vopnd->location - state->rw.bars[1].vb_mapping.guest.location;
    else {
        if (vopnd->qst_type == QST_MEMORY) {
            block.location -= state->rw.bars[0].vb_mapping.guest.location;
            block.qst_type = QST_PCI;
        }
        vpci_cfg_read(&state->rw, slices, &block, &value, &image);
    }
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &value, vopnd->length));
}
static vdev_ref_status_t vwrite(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct state *const state = vdp->v_device;
    uint32_t value = 0;
    (void)cookie;
    guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &value, vopnd->length);
    if (vopnd->qst_type == QST_PCI && vpci_cfg_write(&state->rw, slices, vopnd, &value))
        vpci_region_update(vdp, &state->rw);
    return VRS_NORMAL;
}
VDEV(.control = control, .vread = vread, .vwrite = vwrite, .factory_flags = VFF_VDEV_PCI,
     .extra_space = sizeof(struct state))
"#;

/// A virtio device that can be in memory or on the PCI bus is a function of virtio, unless it is
/// requested elsewhere.
#[test]
fn a_virtio_device_is_a_function_of_virtio() {
    const ENTROPY: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/vdev/vdev-virtio-entropy.c");
    for edition in [800, 710] {
        let library = Library::of_file(ENTROPY, edition, "entropy");
        let vdev = function(&library, "vdev entropy").unwrap();
        let bus = TestBus::new(vdev).unwrap();
        let model = bus.shell().model().clone();
        assert_eq!((model.identity.vendor, model.identity.device), (0x1af4, 0x1044));
        assert_eq!((model.bars[0].size, model.msix.unwrap().vectors), (0x8000, 2));
        assert_eq!(model.vendor.len(), 4);
        // The number of queues, and the version.
        let mut half = [0; 2];
        bus.shell().bar_read(0, 0x12, &mut half).unwrap();
        assert_eq!(half, [1, 0]);
        bus.write32(0, 0, 1).unwrap();
        assert_eq!(bus.read32(0, 4).unwrap() & 1, 1);
        let vdev = function(&library, "vdev entropy loc mem:0x1c000000").unwrap();
        let bus = TestBus::new(vdev).unwrap();
        assert_eq!(bus.shell().model().identity, IDENTITY);
        assert_eq!(bus.read32(0, 0).unwrap().to_le_bytes(), *b"virt");
    }
}

#[test]
fn a_pci_device_sees_its_bars_enabled_at_the_addresses_of_accesses() {
    for edition in [800, 710] {
        let library = Library::of_text(SLICES, edition, "slices");
        let vdev = function(&library, "vdev slices").unwrap();
        let bus = TestBus::new(vdev).unwrap();
        assert_eq!(bus.read32(0, 0).unwrap(), 0x0042_1234);
        assert_eq!(bus.read32(0, 4).unwrap() & 7, 7);
        let [first, second] = [0x10, 0x14].map(|offset| bus.read32(0, offset).unwrap());
        assert!(first != 0 && second != 0 && first & 0xfff == 0 && second & 0x1fff == 0);
        assert_eq!(bus.read32(1, 0x1ffc).unwrap(), 0x1ffc);
        // Nothing of it is in the way of the VMM's memory.
        let regions = bus.guest().space().regions();
        assert!(regions.iter().all(|region| region.kind().is_memory()));
    }
}
