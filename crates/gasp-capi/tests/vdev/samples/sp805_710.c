/*
 * A watchdog with the registers of Arm's SP805 (DDI 0270), 7.x: it counts down, asserts its
 * interrupt, counts down once more, and bites. Options: action [dump,]terminate|fiq, frequency HZ.
 */
#include <stdint.h>
#include <stdlib.h>

#include <qvm/vdev-core.h>
#include <qvm/wdog.h>

enum { OPT_ACTION, OPT_FREQUENCY, OPT_COUNT };

enum {
    WDT_LOAD = 0x000,
    WDT_VALUE = 0x004,
    WDT_CONTROL = 0x008, /* bit 0: interrupt and counter on, bit 1: bite */
    WDT_INTCLR = 0x00c,
    WDT_RIS = 0x010,
    WDT_MIS = 0x014,
    WDT_LOCK = 0xc00,
    WDT_ID = 0xfe0,
    WDT_SIZE = 0x1000
};
#define WDT_UNLOCK 0x1acce551u

struct sp805_state {
    struct wdog_state wdog;
    struct guest_timer *timer;
    uint64_t resolution; /* ticks of the timer per second */
    uint64_t frequency;  /* of the watchdog's clock in Hz */
    uint32_t load;
    uint32_t control;
    int raised;
    int unlocked;
};

/* How many ticks of the timer the counter takes; at least 1. */
static uint64_t ticks(const struct sp805_state *state)
{
    const uint64_t cycles = (uint64_t)state->load + 1;
    const uint64_t whole = cycles / state->frequency * state->resolution;
    const uint64_t rest = cycles % state->frequency * state->resolution / state->frequency;
    return whole + rest > 0 ? whole + rest : 1;
}

static int restart(struct sp805_state *state, const struct guest_timer_data *since)
{
    if ((state->control & 1u) == 0)
        return guest_timer_notify(state->timer, NULL, 0);
    return guest_timer_notify(state->timer, since, ticks(state));
}

static int sp805_control(vdev_t *vdp, unsigned const ctrl, const char *const arg)
{
    struct sp805_state *const state = vdp->v_device;

    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        wdog_init(&state->wdog, vdp);
        state->frequency = 25000000;
        state->load = UINT32_MAX;
        vdp->v_block.location = 0x1c0f0000u;
        vdp->v_block.length = WDT_SIZE;
        break;
    case VDEV_CTRL_FIRST_OPTIDX + OPT_ACTION:
        return wdog_parse_action(&state->wdog, arg);
    case VDEV_CTRL_FIRST_OPTIDX + OPT_FREQUENCY:
        state->frequency = strtoull(arg, NULL, 0);
        return state->frequency > 0 ? EOK : EINVAL;
    case VDEV_CTRL_ASSIGN:
        if (vdp->v_intr.pic == NULL && state->wdog.ws_action == WDOG_ACTION_INTR)
            guest_intr_assign(NULL, 10, GIAT_EXCLUSIVE, &vdp->v_intr);
        state->timer = guest_timer_create(NULL, vdp, state, &state->resolution);
        if (state->timer == NULL)
            return (int)state->resolution;
        break;
    case VDEV_CTRL_STATUS:
        qvm_report("load %u, control %u\n", (unsigned)state->load, (unsigned)state->control);
        break;
    default:
        break;
    }
    return EOK;
}

static void sp805_timer(vdev_t *vdp, void *data, const struct guest_timer_data *tdp,
                        struct guest_cpu *gcp)
{
    struct sp805_state *const state = data;
    int bite;

    (void)gcp;
    pthread_mutex_lock(&vdp->v_mtx);
    bite = state->raised && (state->control & 2u) != 0;
    state->raised = 1;
    (void)guest_intr_signal(&vdp->v_intr, GIS_ON);
    if (!bite)
        (void)restart(state, tdp);
    pthread_mutex_unlock(&vdp->v_mtx);
    if (bite)
        wdog_bite(&state->wdog);
}

static uint32_t value(const struct sp805_state *state)
{
    struct guest_timer_data now;
    uint64_t passed;

    guest_timer_state(state->timer, &now);
    passed = now.guest_current - now.guest_notify_start;
    if ((state->control & 1u) == 0 || passed >= ticks(state))
        return state->load;
    return state->load - (uint32_t)((double)passed / (double)state->resolution *
                                    (double)state->frequency);
}

static enum vdev_ref_status sp805_vread(vdev_t *vdp, unsigned cookie,
                                        const struct qvm_state_block *vopnd,
                                        const struct qvm_state_block *oopnd,
                                        struct guest_cpu *gcp)
{
    static const uint8_t id[8] = { 0x05, 0x18, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1 };
    struct sp805_state *const state = vdp->v_device;
    const uint64_t offset = vopnd->location - vdp->v_block.location;
    uint32_t data = 0;

    (void)cookie;
    pthread_mutex_lock(&vdp->v_mtx);
    switch (offset) {
    case WDT_LOAD: data = state->load; break;
    case WDT_VALUE: data = value(state); break;
    case WDT_CONTROL: data = state->control; break;
    case WDT_RIS: data = (uint32_t)state->raised; break;
    case WDT_MIS: data = state->raised && (state->control & 1u) != 0; break;
    case WDT_LOCK: data = !state->unlocked; break;
    default:
        if (offset >= WDT_ID && offset % 4 == 0)
            data = id[(offset - WDT_ID) / 4];
        break;
    }
    pthread_mutex_unlock(&vdp->v_mtx);
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &data, vopnd->length));
}

static enum vdev_ref_status sp805_vwrite(vdev_t *vdp, unsigned cookie,
                                         const struct qvm_state_block *vopnd,
                                         const struct qvm_state_block *oopnd,
                                         struct guest_cpu *gcp)
{
    struct sp805_state *const state = vdp->v_device;
    const uint64_t offset = vopnd->location - vdp->v_block.location;
    uint32_t data = 0;
    int err = guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &data, vopnd->length);

    (void)cookie;
    if (err != EOK)
        return guest_cpu_to_vrs(err);
    pthread_mutex_lock(&vdp->v_mtx);
    if (offset == WDT_LOCK) {
        state->unlocked = data == WDT_UNLOCK;
    } else if (state->unlocked) {
        if (offset == WDT_LOAD)
            state->load = data;
        else if (offset == WDT_CONTROL)
            state->control = data & 3u;
        else if (offset == WDT_INTCLR) {
            state->raised = 0;
            (void)guest_intr_signal(&vdp->v_intr, GIS_OFF);
        }
        if (offset <= WDT_INTCLR)
            err = restart(state, NULL);
    }
    pthread_mutex_unlock(&vdp->v_mtx);
    return err == EOK ? VRS_NORMAL : (enum vdev_ref_status)(VRS_ERRNO + err);
}

static void __attribute__((constructor)) sp805_register(void)
{
    static const char *const options[] = { "action", "frequency", NULL };
    static struct vdev_factory factory = {
        .next = NULL,
        .control = sp805_control,
        .vread = sp805_vread,
        .vwrite = sp805_vwrite,
        .timer = sp805_timer,
        .option_list = options,
        .name = NULL,
        .factory_flags = VFF_VDEV_MEM | VFF_MUTEX,
        .acc_sizes = 1u << sizeof(uint32_t),
        .extra_space = sizeof(struct sp805_state),
        .safety = VDEV_SAFETY_SELECTED,
    };
    vdev_register_factory(&factory, QVM_VDEV_ABI);
}
