/*
 * A vdev with two registers of 4 bytes, without a fault. A test adds one:
 *   BEFORE        declarations
 *   CONTROL       statements of control(): vdp, ctrl, arg
 *   READ, WRITE   statements of vread() and vwrite(): vdp, vopnd, gcp
 *   MEMBERS       members of the factory, which replace those here
 */
#include <parts.h>
#include <fcntl.h>

struct state {
    uint32_t last;
    pthread_t thread;
};
BEFORE

static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct state *const state = vdp->v_device;

    (void)state, (void)arg;
    if (ctrl == VDEV_CTRL_OPTIONS_START)
        vdp->v_block.length = 8;
    CONTROL
    return EOK;
}

static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct state *const state = vdp->v_device;

    (void)cookie;
    READ
    return guest_cpu_to_vrs(
        guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &state->last, vopnd->length));
}

static vdev_ref_status_t vwrite(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct state *const state = vdp->v_device;

    (void)cookie;
    WRITE
    return guest_cpu_to_vrs(
        guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &state->last, vopnd->length));
}

VDEV(.control = control, .vread = vread, .vwrite = vwrite, .factory_flags = VFF_VDEV_MEM,
     .acc_sizes = 1u << 4, .extra_space = sizeof(struct state) MEMBERS)
