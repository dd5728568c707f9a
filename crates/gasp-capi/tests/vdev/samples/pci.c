/*
 * A PCI device, 8.0: BAR 0 has a doorbell and an address; ringing it has a thread fill memory
 * there through a host-contiguous map, and send an interrupt. Its configuration space is an image
 * and slices. Option: queue-size N.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <qvm/vdev-core.h>
#include <qvm/gasp.h>
#include <qvm/vpci.h>

enum { REG_DOORBELL = 0, REG_ADDRESS = 8, REG_STATUS = 16, BAR_SIZE = 0x1000 };
enum { SLICE_COMMAND, SLICE_LINE, SLICE_BAR0 };
enum { PULSE_DONE = 1 };

struct fill_state {
    struct vpci_rw_state config;
    struct sigevent done;
    pthread_t thread;
    pthread_cond_t rung;
    uint64_t address;
    uint32_t queue_size;
    uint32_t status;
    int pending;
    int running;
};

static const struct _pci_config_regs image = {
    .vendor_id = 0x1b36,
    .device_id = 0x1234,
    .revision_id = 1,
    .class_code = { 0, PCI_SUBCLASS_SYSTEM_OTHER >> 8, PCI_CLASS_SYSTEM >> 16 },
    .header_type = PCI_HDR_NORMAL,
    .interrupt_pin = 1,
};

static const struct qvm_slice_descriptor slices[] = {
    [SLICE_COMMAND] = VPCI_SLICE_COMMAND,
    [SLICE_LINE] = VPCI_SLICE_INTERRUPT_LINE,
    [SLICE_BAR0] = VPCI_SLICE_BAR(0, BAR_SIZE),
    VPCI_SLICE_END,
};

static errno_t fill(const vdev_t *vdp, uint64_t address, size_t length)
{
    while (length > 0) {
        gasp_map_handle_t handle;
        uint64_t where = address;
        size_t run = length;
        const errno_t err = gasp_map_host_contig(vdp, &where, &run, GMF_WRITE, &handle);
        if (err != EOK)
            return err;
        memset(gasp_get_vaddr(&handle), 0x5a, run);
        gasp_unmap_handle(&handle);
        address += run;
        length -= run;
    }
    return EOK;
}

static void *work(void *arg)
{
    vdev_t *const vdp = arg;
    struct fill_state *const state = vdp->v_device;

    pthread_mutex_lock(&vdp->v_mtx);
    while (state->running) {
        if (!state->pending) {
            pthread_cond_wait(&state->rung, &vdp->v_mtx);
            continue;
        }
        state->pending = 0;
        const uint64_t address = state->address;
        pthread_mutex_unlock(&vdp->v_mtx);
        const errno_t err = fill(vdp, address, state->queue_size);
        pthread_mutex_lock(&vdp->v_mtx);
        state->status = (uint32_t)err;
        (void)vdev_pulse_deliver(&state->done);
    }
    pthread_mutex_unlock(&vdp->v_mtx);
    return NULL;
}

static int fill_pulse(vdev_t *vdp, const struct _pulse *pulse)
{
    return pulse->code == PULSE_DONE ? guest_intr_signal(&vdp->v_intr, GIS_ON) : EINVAL;
}

static int fill_control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct fill_state *const state = vdp->v_device;
    struct vpci_bar *const bar = &state->config.bars[0];

    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        vdp->v_block.qst_type = QST_PCI;
        state->queue_size = 4096;
        bar->vb_mapping.grf_flags = GRF_VIRT_RD | GRF_VIRT_WR;
        bar->vb_mapping.vdev = vdp;
        bar->vb_mapping.host_location = QSL_NO_LOCATION;
        bar->vb_mapping.guest.location = QSL_NO_LOCATION;
        bar->vb_mapping.guest.length = BAR_SIZE;
        bar->vb_mapping.guest.qst_type = QST_MEMORY;
        bar->vb_slice = SLICE_BAR0;
        break;
    case VDEV_CTRL_FIRST_OPTIDX:
        state->queue_size = (uint32_t)strtoul(arg, NULL, 0);
        break;
    case VDEV_CTRL_ASSIGN:
        if (vdp->v_block.location == QSL_NO_LOCATION)
            vdp->v_block.location = QSL_PCI_MAKE_LOC(0, 5, 0, 0);
        break;
    case VDEV_CTRL_PCI_BARS:
        return vpci_ctrl_pci_bars(&state->config, arg);
    case VDEV_CTRL_GUEST_CONFIGURED:
        vdev_pulse(vdp, PULSE_DONE, vdp->v_sched.priority, &state->done, -1);
        pthread_cond_init(&state->rung, NULL);
        state->running = 1;
        return vdev_thread_create(vdp, "fill", &state->thread, NULL, work, vdp);
    case VDEV_CTRL_TERMINATE:
        if (state->running) {
            pthread_mutex_lock(&vdp->v_mtx);
            state->running = 0;
            pthread_cond_signal(&state->rung);
            pthread_mutex_unlock(&vdp->v_mtx);
            pthread_join(state->thread, NULL);
        }
        break;
    default:
        break;
    }
    return EOK;
}

static vdev_ref_status_t fill_vread(vdev_t *vdp, unsigned cookie,
                                    const struct qvm_state_block *vopnd,
                                    const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct fill_state *const state = vdp->v_device;
    const uint64_t base = state->config.bars[cookie].vb_mapping.guest.location;
    uint64_t data = 0;

    pthread_mutex_lock(&vdp->v_mtx);
    if (vopnd->qst_type == QST_PCI)
        (void)vpci_cfg_read(&state->config, slices, vopnd, &data, &image);
    else if (vopnd->location - base == REG_STATUS)
        data = state->status;
    pthread_mutex_unlock(&vdp->v_mtx);
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &data, vopnd->length));
}

static vdev_ref_status_t fill_vwrite(vdev_t *vdp, unsigned cookie,
                                     const struct qvm_state_block *vopnd,
                                     const struct qvm_state_block *oopnd,
                                     struct guest_cpu *gcp)
{
    struct fill_state *const state = vdp->v_device;
    const uint64_t base = state->config.bars[cookie].vb_mapping.guest.location;
    uint64_t data = 0;
    const int err = guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &data, vopnd->length);

    if (err != EOK)
        return guest_cpu_to_vrs(err);
    pthread_mutex_lock(&vdp->v_mtx);
    if (vopnd->qst_type == QST_PCI) {
        const unsigned written = vpci_cfg_write(&state->config, slices, vopnd, &data);
        if ((written & (1u << SLICE_COMMAND | 1u << SLICE_BAR0)) != 0)
            vpci_region_update(vdp, &state->config);
    } else if (vopnd->location - base == REG_ADDRESS) {
        state->address = data;
    } else if (vopnd->location - base == REG_DOORBELL) {
        (void)guest_intr_signal(&vdp->v_intr, GIS_OFF);
        state->pending = 1;
        pthread_cond_signal(&state->rung);
    }
    pthread_mutex_unlock(&vdp->v_mtx);
    return VRS_NORMAL;
}

static void __attribute__((constructor)) fill_register(void)
{
    static const char *const options[] = { "queue-size", NULL };
    static struct vdev_factory factory = {
        .next = NULL,
        .control = fill_control,
        .vread = fill_vread,
        .vwrite = fill_vwrite,
        .pulse = fill_pulse,
        .option_list = options,
        .name = "fill",
        .factory_flags = VFF_VDEV_PCI | VFF_MUTEX | VFF_MUTEX_RECURSIVE | VFF_INTR_REQ,
        .acc_sizes = (1u << 1) | (1u << 2) | (1u << 4) | (1u << 8),
        .extra_space = sizeof(struct fill_state),
    };
    vdev_register_factory(&factory, QVM_VDEV_ABI);
}
