/*
 * probe: the vdev of these tests.
 *
 *   0x00  read: a number with another byte at each place
 *   0x08  write: 1 raises its interrupt, 2 lowers it, 3 ends the guest with the cause `cause`,
 *         4 returns VRS_TERMINATE, 5 is a fatal error, 6 adds a region of its own at `own`, 7 changes
 *         its cookie, 8 removes it, 9 sends the message `message` to the first local APIC, and an
 *         address from 0x1000 on is mapped and unmapped
 *   0x04  read: the error number of the last map
 *   0x0c  read: how often the interrupt was raised
 *   own   read: the cookie of the region
 *
 * With -DFLAGS=VFF_VDEV_PCI it is a PCI function with these registers in BAR 0.
 */
#include <string.h>
#include <stdlib.h>
#include <stdio.h>
#include <qvm/vdev-core.h>
#include <qvm/vpci.h>

struct probe {
    uint64_t own;
    uint32_t raised;
    int cause, message, button, refuse, mapped;
    struct vpci_bar bars[1];
};
/* As a PCI function: identifiers and a class, and BAR 0 in memory. */
static const unsigned char image[64] = { 0x34, 0x12, 0x5a, 0x7a, [11] = 0xff };

static const char *const options[] = { "own", "cause", "message", "0button", "refuse", NULL };

static void set_own(vdev_t *vdp, unsigned cookie, unsigned flags, int is_soft)
{
    struct probe *const probe = vdp->v_device;
    struct gasp_region region = { .grf_flags = flags, .cookie = cookie, .vdev = vdp,
                                  .host_location = QSL_NO_LOCATION };
    region.guest.location = probe->own;
    region.guest.length = 4;
    region.guest.qst_type = QST_MEMORY;
    if (!is_soft) {
        gasp_region_set(1, &region);
        return;
    }
    gasp_lock(QST_MEMORY);
    if (gasp_region_set_soft(1, &region) != 1)
        vdev_logf(QL_QVM_ERR, vdp, "own region: error %d", errno);
    gasp_unlock(QST_MEMORY);
}

/* The first address of its registers. */
static uint64_t base(const vdev_t *vdp)
{
    const struct probe *const probe = vdp->v_device;

    return vdp->v_block.qst_type == QST_PCI ? probe->bars[0].vb_mapping.guest.location
                                            : vdp->v_block.location;
}

static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct probe *const probe = vdp->v_device;

    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START: 
        vdp->v_block.length = 0x10;
        probe->cause = 33;
        probe->mapped = -1;
        probe->bars[0].vb_mapping.guest.length = 0x1000;
        break;
    case VDEV_CTRL_FIRST_OPTIDX: probe->own = strtoull(arg, NULL, 0); break;
    case VDEV_CTRL_FIRST_OPTIDX + 1: probe->cause = atoi(arg); break;
    case VDEV_CTRL_FIRST_OPTIDX + 2: probe->message = strtol(arg, NULL, 0); break;
    case VDEV_CTRL_FIRST_OPTIDX + 3: probe->button = 1; return guest_button_register(vdp);
    case VDEV_CTRL_FIRST_OPTIDX + 4:
        probe->refuse = atoi(arg);
        if (probe->refuse == 1) {
            vdev_logf(QL_CNF_ERR, vdp, "one is too few");
            return EINVAL;
        }
        break;
    case VDEV_CTRL_ASSIGN:
        if (probe->refuse == 2)
            return ENODEV;
        if (probe->refuse == 5)
            guest_intr_assign(&vdp->v_intr, GIAT_EXCLUSIVE, NULL, 7);
        if (probe->refuse == 6)
            guest_intr_assign_auto(&vdp->v_intr, GIAT_EXCLUSIVE);
        break;
    case VDEV_CTRL_GUEST_CONFIGURED:
        if (probe->refuse == 3)
            qvm_fatal(QLS_GST, "it is Monday");
        if (probe->own != 0 && probe->refuse == 4)
            set_own(vdp, 4, GRF_VIRT_RD, 1);
        break;
    case VDEV_CTRL_PCI_BARS: *(struct vpci_bar **)(void *)arg = probe->bars; return -1;
    case VDEV_CTRL_STATUS: qvm_report("raised %u times\n", probe->raised); break;
    case VDEV_CTRL_BUTTON:
        if (probe->button)
            guest_terminate(40);
        vdev_logf(QL_QVM_INFO, vdp, "the button");
        break;
    case VDEV_CTRL_TERMINATE: vdev_logf(QL_QVM_INFO, vdp, "the end"); break;
    default: break;
    }
    return EOK;
}

static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct probe *const probe = vdp->v_device;
    uint64_t data = 0x8877665544332211u;

    if (vopnd->qst_type == QST_PCI) {
        const unsigned offset = vopnd->location & 0xfff;

        if (offset + vopnd->length > sizeof image)
            return VRS_BUS_ERROR;
        return guest_cpu_to_vrs(
            guest_cpu_write(gcp, GXF_NONE, oopnd, 1, image + offset, vopnd->length));
    }
    if (cookie != 0)
        data = cookie;
    else if (vopnd->location - base(vdp) == 0xc)
        data = probe->raised;
    else if (vopnd->location - base(vdp) == 4 && probe->mapped >= 0)
        data = probe->mapped;
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &data, sizeof data));
}

static vdev_ref_status_t vwrite(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct probe *const probe = vdp->v_device;
    gasp_map_handle_t handle = { 0 };
    uint32_t what = 0;

    (void)cookie;
    guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &what, sizeof what);
    if (vopnd->qst_type == QST_PCI || vopnd->location - base(vdp) != 8)
        return VRS_NORMAL;
    switch (what) {
    case 1: probe->raised++; guest_intr_signal(&vdp->v_intr, GIS_ON); break;
    case 2: guest_intr_signal(&vdp->v_intr, GIS_OFF); break;
    case 3: guest_terminate(probe->cause); break;
    case 4: return VRS_TERMINATE;
    case 5: qvm_fatal(QLS_GST, "it cannot go on");
    case 6: set_own(vdp, 6, GRF_VIRT_RD | GRF_VIRT_WR, 1); break;
    case 7: set_own(vdp, 7, GRF_VIRT_RD, 1); break;
    case 8: set_own(vdp, 0, GRF_NONE, 1); break;
    case 9: guest_msi_signal(vdp, 0xfee00000, probe->message); break;
    default:
        if (what < 0x1000)
            break;
        probe->mapped = gasp_map(vdp, what, 64, GMF_READ, &handle);
        gasp_unmap_handle(&handle);
    }
    return VRS_NORMAL;
}

#ifndef FLAGS
#define FLAGS VFF_VDEV_MEM | VFF_VDEV_X86_IO
#endif

static struct vdev_factory factory = {
    .control = control, .vread = vread, .vwrite = vwrite, .option_list = options,
    .factory_flags = FLAGS, .extra_space = sizeof(struct probe), .name = NAME
};

static void __attribute__((constructor)) load(void)
{
    vdev_register_factory(&factory, QVM_VDEV_ABI);
}
