//! A PCI device that answers its configuration accesses.

use std::sync::Arc;

use gasp_capi::embed;
use gasp_qvm::{Answer, Bar, Instance, Space};

use crate::board::{Board, at, compiled, start};
use crate::support::{Guests, Library};

/// A BAR of memory, one of 64 bits, and one of ports.
const SOURCE: &str = r#"
static const struct _pci_config_regs image = {
    .vendor_id = 0x1234, .device_id = 0x5678, .status = PCI_STS_CAPABILITIES,
    .bar = { 0, 0, PCI_BAR_64BIT, 0, PCI_BAR_IO }, .interrupt_pin = 1,
};
static const struct qvm_slice_descriptor slices[] = {
    VPCI_SLICE_COMMAND, VPCI_SLICE_BAR(0, 0x1000), VPCI_SLICE_BAR(2, 0x2000),
    VPCI_SLICE_BAR_UPPER(2), VPCI_SLICE_BAR(4, 8), VPCI_SLICE_INTERRUPT_LINE, VPCI_SLICE_END,
};
#define MOVES 0x1fu
struct state { struct vpci_rw_state rw; uint64_t places[PCI_NUM_BARS]; };
static void set_bar(vdev_t *vdp, struct vpci_bar *bar, unsigned n, uint64_t size, unsigned type)
{
    bar->vb_mapping.guest.length = size;
    bar->vb_mapping.guest.BLOCK_TYPE = type;
    bar->vb_mapping.guest.location = QSL_NO_LOCATION;
#if QVM_EDITION == 800
    bar->vb_mapping.grf_flags = GRF_VIRT_RD | GRF_VIRT_WR;
#else
    bar->vb_mapping.flags = GRF_VIRT_RD | GRF_VIRT_WR;
#endif
    bar->vb_mapping.cookie = 0x40 + n;
    bar->vb_mapping.vdev = vdp;
}
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct state *const state = vdp->v_device;
    struct vpci_bar *found = NULL;
    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        set_bar(vdp, &state->rw.bars[0], 0, 0x1000, QST_MEMORY);
        set_bar(vdp, &state->rw.bars[2], 2, 0x2000, QST_MEMORY);
        set_bar(vdp, &state->rw.bars[4], 4, 8, QST_PCI_IO);
        CHECK(vpci_ctrl_pci_bars(&state->rw, (const char *)&found) == -6);
        CHECK(found == state->rw.bars);
        CHECK(vpci_ctrl_pci_bars(&state->rw, NULL) == EINVAL);
        CHECK(vpci_ctrl_pci_bars(NULL, (const char *)&found) == EINVAL);
        /* Not yet. */
        state->rw.command = PCI_CMD_MEMORY; state->rw.bars[0].vb_value = 0xfb000000;
        vpci_region_update(vdp, &state->rw);
        CHECK(state->rw.bars[0].vb_mapping.guest.location == QSL_NO_LOCATION);
        state->rw.command = 0; state->rw.bars[0].vb_value = 0;
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
    uint32_t value = 0x11111111;
    (void)cookie;
    if (vopnd->BLOCK_TYPE == QST_MEMORY) {
        unsigned i; /* The places of the BARs, for the test. */
        for (i = 0; i < PCI_NUM_BARS; i++)
            state->places[i] = state->rw.bars[i].vb_mapping.guest.location;
        return guest_cpu_to_vrs(
            guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &state->places[vopnd->location & 7], 8));
    }
    vpci_cfg_read(&state->rw, slices, vopnd, &value, &image);
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &value, vopnd->length));
}
static vdev_ref_status_t vwrite(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct state *const state = vdp->v_device;
    uint32_t value = 0;
    (void)cookie;
    guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &value, vopnd->length);
    if ((vpci_cfg_write(&state->rw, slices, vopnd, &value) & MOVES) != 0)
        vpci_region_update(vdp, &state->rw);
    return VRS_NORMAL;
}
VDEV(.control = control, .vread = vread, .vwrite = vwrite, .factory_flags = VFF_VDEV_PCI,
     .extra_space = sizeof(struct state))
"#;

struct Function {
    guest: Guests,
    board: Arc<Board>,
    vdev: Instance,
}

impl Function {
    fn new(library: &Library, board: Board) -> Self {
        let (guest, board) = (Guests::new(), Arc::new(board));
        let vdev = board.create(&guest, library, "vdev pcidev loc pci:0:3").and_then(start);
        guest.listed.start().unwrap();
        Self { vdev: vdev.unwrap_or_else(|error| panic!("{error}")), guest, board }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        assert_eq!(self.vdev.write(at(Space::Pci, 3 << 15 | offset), data), Answer::Done);
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        assert_eq!(self.vdev.read(at(Space::Pci, 3 << 15 | offset), &mut data), Answer::Done);
        u32::from_le_bytes(data)
    }

    /// Where the vdev takes a BAR to be.
    fn place(&self, bar: u64) -> u64 {
        let mut data = [0; 8];
        assert_eq!(self.vdev.read(at(Space::Memory, bar), &mut data), Answer::Done);
        u64::from_le_bytes(data)
    }

    /// The first address, the last one and the cookie of the region at an address.
    fn region(&self, space: embed::Space, addr: u64) -> Option<(u64, u64, u32)> {
        let region = self.guest.listed.region_at(space, addr)?;
        Some((*region.span.start(), *region.span.end(), region.cookie))
    }
}

#[test]
fn bars_become_regions_where_the_guest_puts_them() {
    use embed::Space::{Memory, Ports};
    for edition in [800, 710] {
        let function = Function::new(&compiled(SOURCE, edition, "pcidev"), Board::default());
        assert_eq!(function.read(0), 0x5678_1234);
        assert_eq!(function.read(0x3c), 0x100);
        // Sizes, while they are disabled.
        for (bar, mask) in [(0, 0xffff_f000), (2, 0xffff_e004), (3, u32::MAX), (4, 0xffff_fff9)] {
            function.write(0x10 + 4 * bar, &[0xff; 4]);
            assert_eq!(function.read(0x10 + 4 * bar), mask, "{edition}: {bar}");
            assert_eq!(function.place(bar), u64::MAX);
        }
        function.write(0x10, &0xfb00_0000_u32.to_le_bytes());
        function.write(0x18, &0x8000_0000_u32.to_le_bytes());
        function.write(0x1c, &2_u32.to_le_bytes());
        function.write(0x20, &0x301_u32.to_le_bytes());
        assert_eq!(function.region(Memory, 0xfb00_0000), None);
        function.write(4, &[2]);
        assert_eq!(function.read(4), 0x10_0002);
        assert_eq!(function.region(Memory, 0xfb00_0800), Some((0xfb00_0000, 0xfb00_0fff, 0x40)));
        assert_eq!(function.region(Memory, 0x2_8000_0000).unwrap().2, 0x42);
        assert_eq!(function.region(Ports, 0x300), None);
        assert_eq!(
            [0, 2, 4].map(|bar| function.place(bar)),
            [0xfb00_0000, 0x2_8000_0000, u64::MAX]
        );
        function.write(4, &[3, 4]);
        assert_eq!(function.region(Ports, 0x307), Some((0x300, 0x307, 0x44)));
        // They move while they are enabled, and change places.
        function.write(0x1c, &0_u32.to_le_bytes());
        function.write(0x18, &0xfb00_2000_u32.to_le_bytes());
        function.write(0x10, &0xfc00_0000_u32.to_le_bytes());
        assert_eq!(function.region(Memory, 0xfb00_0000), None);
        assert_eq!(function.region(Memory, 0xfb00_2000).unwrap().2, 0x42);
        assert_eq!(function.place(0), 0xfc00_0000);
        // A place that is taken, or past the last address, is none.
        function.write(0x10, &0xfb00_3000_u32.to_le_bytes());
        assert_eq!(function.place(0), u64::MAX);
        assert_eq!(function.region(Memory, 0xfc00_0000), None);
        function.write(0x1c, &[0xff; 4]);
        assert_eq!(function.place(2), u64::MAX);
        // The other has its place now, once it is asked for again.
        function.write(0x10, &0xfb00_3000_u32.to_le_bytes());
        assert_eq!(function.place(0), 0xfb00_3000);
        function.write(4, &[0, 0]);
        assert_eq!(function.region(Memory, 0xfb00_3000), None);
        assert_eq!(function.region(Ports, 0x300), None);
        assert_eq!([0, 2, 4].map(|bar| function.place(bar)), [u64::MAX; 3]);
        assert!(function.vdev.terminate().is_empty());
    }
}

#[test]
fn a_host_that_dispatches_bars_is_told_of_them_instead() {
    for edition in [800, 710] {
        let board = Board { dispatches: true, ..Board::default() };
        let function = Function::new(&compiled(SOURCE, edition, "pcidev"), board);
        function.write(0x10, &0xfb00_0000_u32.to_le_bytes());
        function.write(4, &[2]);
        let memory = |index, len, start, cookie| Bar {
            index,
            space: Space::Memory,
            len,
            start,
            flags: 3,
            cookie,
        };
        let ports = Bar { space: Space::Ports, ..memory(4, 8, None, 0x44) };
        let expected =
            [memory(0, 0x1000, Some(0xfb00_0000), 0x40), memory(2, 0x2000, None, 0x42), ports];
        assert_eq!(*function.board.bars.lock(), expected);
        assert_eq!(function.region(embed::Space::Memory, 0xfb00_0000), None);
        assert_eq!(function.place(0), u64::MAX, "it is as the host has left it");
    }
}
