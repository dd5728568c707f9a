/*
 * measure: a register whose reads are counted, and a thread that maps and unmaps.
 *
 * A read of 4 bytes returns how many there were. STATUS reports the least nanoseconds of a
 * gasp_map_host_contig() with its gasp_unmap_handle(), in the vdev's own thread, of 200 rounds of 5,000; or
 * the error of the first.
 */
#include <time.h>

#include <qvm/vdev-core.h>

enum { ROUNDS = 200, CALLS = 5000 };

struct measure {
    uint32_t reads;
    double least;
    int error;
    pthread_t thread;
};

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static void *map(void *arg)
{
    const vdev_t *const vdp = arg;
    struct measure *const measure = vdp->v_device;

    measure->least = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        const double before = now();

        for (int call = 0; call < CALLS; call++) {
            gasp_map_handle_t handle = { 0 };
            uint64_t at = 0x200000;
            size_t length = 64;
            const errno_t error =
                gasp_map_host_contig(vdp, &at, &length, GMF_READ | GMF_WRITE, &handle);

            if (error != EOK) {
                measure->error = error;
                return NULL;
            }
            gasp_unmap_handle(&handle);
        }
        const double each = (now() - before) / CALLS;

        if (each < measure->least)
            measure->least = each;
    }
    return NULL;
}

static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct measure *const measure = vdp->v_device;

    (void)arg;
    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START: vdp->v_block.length = 4; break;
    case VDEV_CTRL_GUEST_CONFIGURED:
        return vdev_thread_create(vdp, "map", &measure->thread, NULL, map, vdp);
    case VDEV_CTRL_STATUS:
        pthread_join(measure->thread, NULL);
        if (measure->error != 0)
            qvm_report("error %d", measure->error);
        else
            qvm_report("%.2f", measure->least);
        break;
    default: break;
    }
    return EOK;
}

static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct measure *const measure = vdp->v_device;

    (void)cookie;
    pthread_mutex_lock(&vdp->v_mtx);
    const uint32_t reads = ++measure->reads;
    pthread_mutex_unlock(&vdp->v_mtx);
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &reads, vopnd->length));
}

static struct vdev_factory factory = {
    .control = control,
    .vread = vread,
    .factory_flags = VFF_INTR_NO | VFF_VDEV_MEM | VFF_MUTEX,
    .acc_sizes = 1u << sizeof(uint32_t),
    .extra_space = sizeof(struct measure),
};

static void __attribute__((constructor)) load(void)
{
    vdev_register_factory(&factory, QVM_VDEV_ABI);
}
