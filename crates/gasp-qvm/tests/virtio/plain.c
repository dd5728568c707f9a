/*
 * A virtio device that leaves its requests to the test: the test calls the functions of the headers
 * itself, with the addresses that the device's configuration has.
 */
#include <support.h>
#include <qvm/vio.h>
#if QVM_EDITION == 710
#define pvq vq
#endif

enum { QUEUES = 2 };

struct plain {
    struct vio_state vs;
    struct {
        uint64_t vdp;    /* addresses of the vdev and of its state */
        uint64_t vsp;
        uint32_t class;  /* the result of the last write that was none of the configuration */
        uint32_t reads;  /* how often the configuration was read, and written */
        uint32_t writes;
        uint32_t written;
    } config;
};

static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, UNUSED const char *arg)
{
    struct plain *const plain = vdp->v_device;
    static const struct vio_description description = {
        .device_type = VIRTIO_DT_CRYPTO,
        .pci_class = 0x108000,
        .num_queues = QUEUES,
        .device_config_size = sizeof(plain->config),
        .device_features = { VIO_F_BIT(3) | VIO_F_BIT(24) | VIO_F_BIT(VIRTIO_F_EVENT_IDX),
                             VIO_F_BIT(VIRTIO_F_VERSION_1) | VIO_F_BIT(VIRTIO_F_RING_PACKED) },
    };

    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_END:
        vio_init(vdp, VIOVER_110, &description, &plain->vs);
        for (unsigned i = 0; i < QUEUES; ++i)
            if (vio_init_queue(&plain->vs, i, 8) != EOK || plain->vs.qinfo[i].max_size != 8)
                return EIO;
        if (plain->vs.qinfo[1].vsp != &plain->vs || plain->vs.qinfo[1].pvq != NULL)
            return EIO;
        plain->config.vdp = (uintptr_t)vdp;
        plain->config.vsp = (uintptr_t)&plain->vs;
        break;
    default:
        break;
    }
    return EOK;
}

static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct plain *const plain = vdp->v_device;
    const unsigned res = vio_read(&plain->vs, cookie, vopnd, oopnd, gcp);

    if ((res & VIOREF_CLASS_MASK) == VIOREF_CLASS_DEVCFG) {
        plain->config.reads += 1;
        const char *const at = (const char *)&plain->config + (res & ~VIOREF_CLASS_MASK);
        if (guest_cpu_write(gcp, GXF_NONE, oopnd, 1, at, vopnd->length) != EOK)
            return VRS_BUS_ERROR;
    }
    return (res & VIOREF_CLASS_MASK) >= VIOREF_CLASS_BUS_ERROR ? VRS_BUS_ERROR : VRS_NORMAL;
}

static vdev_ref_status_t vwrite(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct plain *const plain = vdp->v_device;
    const unsigned res = vio_write(&plain->vs, cookie, vopnd, oopnd, gcp);

    if ((res & VIOREF_CLASS_MASK) == VIOREF_CLASS_DEVCFG) {
        plain->config.writes += 1;
        guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &plain->config.written, 4);
    } else {
        plain->config.class = res;
    }
    return (res & VIOREF_CLASS_MASK) >= VIOREF_CLASS_BUS_ERROR ? VRS_BUS_ERROR : VRS_NORMAL;
}

VDEV(.control = control, .vread = vread, .vwrite = vwrite,
     .factory_flags = VFF_VDEV_MEM | VFF_VDEV_PCI,
     .acc_sizes = 1u << 1 | 1u << 2 | 1u << 4 | 1u << 8, .extra_space = sizeof(struct plain))
