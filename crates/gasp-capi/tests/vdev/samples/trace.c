/*
 * A trace device, 8.0: one 32-bit register in memory, which a thread counts up every second and
 * the guest reads and writes. Options: emit-logger (no argument), emit-trace NUMBER.
 */
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <qvm/vdev-core.h>
#include <qvm/guest.h>
#include <qvm/log.h>

enum { OPT_EMIT_LOGGER, OPT_EMIT_TRACE, OPT_COUNT };

struct trace_state {
    uint32_t counter;
    int emit_logger;
    unsigned trace_number;
    pthread_t thread;
    int has_thread;
    int ending;
};

static void *count(void *arg)
{
    vdev_t *const vdp = arg;
    struct trace_state *const state = vdp->v_device;

    pthread_mutex_lock(&vdp->v_mtx);
    while (!state->ending) {
        state->counter++;
        pthread_mutex_unlock(&vdp->v_mtx);
        sleep(1);
        pthread_mutex_lock(&vdp->v_mtx);
    }
    pthread_mutex_unlock(&vdp->v_mtx);
    return NULL;
}

static int trace_control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct trace_state *const state = vdp->v_device;
    char name[64];
    int err;

    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        vdp->v_block.qst_type = QST_MEMORY;
        vdp->v_block.location = QSL_NO_LOCATION;
        vdp->v_block.length = sizeof(state->counter);
        break;
    case VDEV_CTRL_FIRST_OPTIDX + OPT_EMIT_LOGGER:
        state->emit_logger = 1;
        break;
    case VDEV_CTRL_FIRST_OPTIDX + OPT_EMIT_TRACE:
        state->trace_number = (unsigned)strtoul(arg, NULL, 0);
        break;
    case VDEV_CTRL_OPTIONS_END:
        if (state->trace_number > 1023)
            qvm_fatal(QLS_CNF, "emit-trace: %u is more than 1023", state->trace_number);
        break;
    case VDEV_CTRL_ASSIGN:
        if (vdp->v_block.location == QSL_NO_LOCATION) {
            vdev_logf(QL_CNF_ERR, vdp, "there is no `loc`");
            return EINVAL;
        }
        break;
    case VDEV_CTRL_GUEST_CONFIGURED:
        vdev_logf(QL_QVM_INFO, vdp, "%s: VDEV_CTRL_GUEST_CONFIGURED", __func__);
        err = vdev_thread_create(vdp, "trace", &state->thread, NULL, count, vdp);
        if (err != EOK)
            return err;
        state->has_thread = 1;
        break;
    case VDEV_CTRL_GUEST_STARTING:
    case VDEV_CTRL_BUTTON:
        break;
    case VDEV_CTRL_STATUS:
        (void)vdev_string(name, sizeof(name), vdp);
        qvm_report("%s: counter %u\n", name, (unsigned)state->counter);
        break;
    case VDEV_CTRL_TERMINATE:
        if (state->has_thread) {
            pthread_mutex_lock(&vdp->v_mtx);
            state->ending = 1;
            pthread_mutex_unlock(&vdp->v_mtx);
            pthread_join(state->thread, NULL);
        }
        break;
    default:
        break;
    }
    return EOK;
}

static vdev_ref_status_t trace_vread(vdev_t *vdp, unsigned cookie,
                                     const struct qvm_state_block *vopnd,
                                     const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct trace_state *const state = vdp->v_device;
    uint32_t value;
    int err;

    (void)cookie;
    if (vopnd->location != vdp->v_block.location) {
        err = guest_write_all_ones(gcp, GXF_NONE, oopnd);
        return guest_cpu_to_vrs(err);
    }
    pthread_mutex_lock(&vdp->v_mtx);
    value = state->counter;
    pthread_mutex_unlock(&vdp->v_mtx);
    err = guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &value, vopnd->length);
    if (err != EOK)
        return guest_cpu_to_vrs(err);
    if (state->emit_logger)
        vdev_logf(QL_QVM_INFO, vdp, "read %u", (unsigned)value);
    return VRS_NORMAL;
}

static vdev_ref_status_t trace_vwrite(vdev_t *vdp, unsigned cookie,
                                      const struct qvm_state_block *vopnd,
                                      const struct qvm_state_block *oopnd,
                                      struct guest_cpu *gcp)
{
    struct trace_state *const state = vdp->v_device;
    uint32_t value = 0;

    (void)cookie;
    if (vopnd->location == vdp->v_block.location) {
        const int err = guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &value, vopnd->length);
        if (err != EOK)
            return guest_cpu_to_vrs(err);
        pthread_mutex_lock(&vdp->v_mtx);
        state->counter = value;
        pthread_mutex_unlock(&vdp->v_mtx);
    }
    return VRS_NORMAL;
}

static void __attribute__((constructor)) trace_register(void)
{
    static const char *const options[] = {
        [OPT_EMIT_LOGGER] = QVM_OPTION_NO_ARG_PREFIX "emit-logger",
        [OPT_EMIT_TRACE] = "emit-trace",
        [OPT_COUNT] = NULL,
    };
    static struct vdev_factory factory = {
        .next = NULL,
        .control = trace_control,
        .vread = trace_vread,
        .vwrite = trace_vwrite,
        .option_list = options,
        .name = NULL,
        .factory_flags = VFF_INTR_NO | VFF_VDEV_MEM | VFF_MUTEX,
        .acc_sizes = 1u << sizeof(uint32_t),
        .extra_space = sizeof(struct trace_state),
    };
    vdev_register_factory(&factory, QVM_VDEV_ABI);
}
