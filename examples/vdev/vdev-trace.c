/*
 * trace: one 32-bit register that a guest writes progress into, and a thread that logs it.
 *
 *   vdev trace loc 0xfa000000 period 100 quiet
 *
 * A write stores a number. A read returns how often it was written. Each `period` milliseconds
 * (1000 if the option is absent) the thread logs the last number if there is a new one. With `quiet`
 * there is no thread.
 *
 *   cc -shared -fPIC -o vdev-trace.so vdev-trace.c $(pkg-config --cflags gasp)
 *
 * For the 7.x edition add -DQVM_EDITION=710.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include <qvm/vdev-core.h>
#if QVM_EDITION == 710
#include <qvm/outpipe.h>
typedef unsigned vdev_ctrl_options_t;
typedef enum vdev_ref_status vdev_ref_status_t;
#endif

struct trace {
    uint32_t last;
    uint32_t writes;
    long period_ms;
    bool quiet;
    bool has_thread;
    pthread_t thread;
};

static const char *const options[] = { "period", QVM_OPTION_NO_ARG_PREFIX "quiet", NULL };
enum { PERIOD, QUIET };

static void say(vdev_t *vdp, uint32_t number, uint32_t writes)
{
#if QVM_EDITION == 800
    vdev_logf(QL_QVM_INFO, vdp, "trace: %u after %u writes", number, writes);
#else
    (void)vdp;
    qvm_logf(QVM_OUTI_QVM, "trace: %u after %u writes", number, writes);
#endif
}

static void *watch(void *arg)
{
    vdev_t *const vdp = arg;
    struct trace *const trace = vdp->v_device;
    const struct timespec period = { trace->period_ms / 1000,
                                     trace->period_ms % 1000 * 1000000 };
    uint32_t seen = 0;

    for (;;) {
        nanosleep(&period, NULL);
        pthread_mutex_lock(&vdp->v_mtx);
        const uint32_t last = trace->last, writes = trace->writes;
        pthread_mutex_unlock(&vdp->v_mtx);
        if (writes != seen)
            say(vdp, last, writes);
        seen = writes;
    }
    return NULL;
}

static int set_period(struct trace *trace, const char *arg)
{
    char *end;
    const long period = strtol(arg, &end, 0);

    if (*arg == '\0' || *end != '\0' || period < 1 || period > 3600000)
        return EINVAL;
    trace->period_ms = period;
    return EOK;
}

static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct trace *const trace = vdp->v_device;
    uint32_t last, writes;
    int err;

    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        trace->period_ms = 1000;
        vdp->v_block.location = QSL_NO_LOCATION;
        vdp->v_block.length = sizeof(uint32_t);
        break;
    case VDEV_CTRL_FIRST_OPTIDX + PERIOD:
        return set_period(trace, arg);
    case VDEV_CTRL_FIRST_OPTIDX + QUIET:
        trace->quiet = true;
        break;
    case VDEV_CTRL_GUEST_CONFIGURED:
        if (trace->quiet)
            break;
        err = vdev_thread_create(vdp, "trace", &trace->thread, NULL, watch, vdp);
        trace->has_thread = err == EOK;
        return err;
    case VDEV_CTRL_STATUS:
        pthread_mutex_lock(&vdp->v_mtx);
        last = trace->last;
        writes = trace->writes;
        pthread_mutex_unlock(&vdp->v_mtx);
        qvm_report("%u after %u writes\n", last, writes);
        break;
    case VDEV_CTRL_TERMINATE:
        if (trace->has_thread) {
            pthread_cancel(trace->thread);
            pthread_join(trace->thread, NULL);
        }
        break;
    default:
        break;
    }
    return EOK;
}

static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct trace *const trace = vdp->v_device;

    (void)cookie;
    pthread_mutex_lock(&vdp->v_mtx);
    const uint32_t writes = trace->writes;
    pthread_mutex_unlock(&vdp->v_mtx);
    return guest_cpu_to_vrs(
        guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &writes, vopnd->length));
}

static vdev_ref_status_t vwrite(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct trace *const trace = vdp->v_device;
    uint32_t number;

    (void)cookie;
    if (vopnd->location != vdp->v_block.location)
        return VRS_BUS_ERROR;
    const int err = guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &number, vopnd->length);
    if (err != EOK)
        return guest_cpu_to_vrs(err);
    pthread_mutex_lock(&vdp->v_mtx);
    trace->last = number;
    trace->writes++;
    pthread_mutex_unlock(&vdp->v_mtx);
    return VRS_NORMAL;
}

static struct vdev_factory factory = {
    .control = control,
    .vread = vread,
    .vwrite = vwrite,
    .option_list = options,
    .factory_flags = VFF_INTR_NO | VFF_VDEV_MEM | VFF_MUTEX,
    .acc_sizes = 1u << sizeof(uint32_t),
    .extra_space = sizeof(struct trace),
};

static void __attribute__((constructor)) load(void)
{
    vdev_register_factory(&factory, QVM_VDEV_ABI);
}
