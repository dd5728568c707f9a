/* A vdev in C++, of either edition: 16 bytes that the guest writes and reads back. */
#include <cstring>

#include <qvm/vdev-core.h>

namespace {

struct scratch_state {
    unsigned char bytes[16];
};

#if QVM_EDITION == 800
using control_t = vdev_ctrl_options_t;
using status_t = vdev_ref_status_t;
#else
using control_t = unsigned;
using status_t = enum vdev_ref_status;
#endif

int control(vdev_t *vdp, control_t ctrl, const char *)
{
    if (ctrl == VDEV_CTRL_OPTIONS_START)
        vdp->v_block.length = sizeof(scratch_state::bytes);
    return EOK;
}

unsigned char *at(vdev_t *vdp, const struct qvm_state_block *vopnd)
{
    const uint64_t offset = vopnd->location - vdp->v_block.location;
    return static_cast<scratch_state *>(vdp->v_device)->bytes + offset;
}

status_t vread(vdev_t *vdp, unsigned, const struct qvm_state_block *vopnd,
               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    unsigned char *const bytes = at(vdp, vopnd);
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, bytes, vopnd->length));
}

status_t vwrite(vdev_t *vdp, unsigned, const struct qvm_state_block *vopnd,
                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    unsigned char *const bytes = at(vdp, vopnd);
    return guest_cpu_to_vrs(guest_cpu_read(gcp, GXF_NONE, oopnd, 1, bytes, vopnd->length));
}

struct registration {
    struct vdev_factory factory;

    registration() : factory()
    {
        factory.control = control;
        factory.vread = vread;
        factory.vwrite = vwrite;
        factory.factory_flags = VFF_INTR_NO | VFF_VDEV_MEM;
        factory.acc_sizes = 1u << 1;
        factory.extra_space = sizeof(scratch_state);
        vdev_register_factory(&factory, QVM_VDEV_ABI);
    }
} registered;

} // namespace
