/*
 * wdt-sp805: a watchdog, the SP805 of Arm's PrimeCell peripherals.
 *
 *   vdev wdt-sp805 loc 0xfa001000 intr ioapic:10 clock 32768
 *
 * A counter of `clock` Hz (1 to 1000000000; 1000000 if the option is absent) counts down from
 * WDOGLOAD. At zero the watchdog asserts its interrupt and starts again; if the guest has not
 * cleared the interrupt at the next zero, the watchdog ends the guest.
 *
 *   cc -shared -fPIC -o vdev-wdt-sp805.so vdev-wdt-sp805.c $(pkg-config --cflags gasp)
 *
 * For the 7.x edition add -DQVM_EDITION=710.
 *
 * Registers as in Arm's public "ARM Watchdog Module (SP805) Technical Reference Manual". Those for
 * integration tests are absent: they read as zero. The file shows a timer, a level-triggered
 * interrupt, and a register whose value follows from the time.
 */
#include <stdbool.h>
#include <stdlib.h>

#include <qvm/wdog.h>

#include "edition.h"

enum {
    WDOGLOAD = 0x000, /* the count starts from here; writing it starts the count again */
    WDOGVALUE = 0x004, /* the count; read only */
    WDOGCONTROL = 0x008,
    WDOGINTCLR = 0x00c, /* a write clears the interrupt and starts the count again; write only */
    WDOGRIS = 0x010, /* the interrupt before its enable bit; read only */
    WDOGMIS = 0x014, /* and after it; read only */
    WDOGLOCK = 0xc00, /* the others can be written if WDOGLOCK_KEY was written here last */
    WDOGPERIPHID0 = 0xfe0, /* to WDOGPCELLID3: 8 registers of a byte each; read only */
    REGISTERS_LEN = 0x1000
};

#define WDOGCONTROL_INTEN 0x1u /* enables the counter and the interrupt */
#define WDOGCONTROL_RESEN 0x2u /* enables the end of the guest */
#define WDOGLOCK_KEY 0x1acce551u

/* Part 0x805 of designer 0x41, revision 1; and that it is a PrimeCell. */
static const uint8_t identity[] = { 0x05, 0x18, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1 };

/* No time of the guest: the timer is stopped. */
#define NEVER UINT64_MAX

struct watchdog {
    uint32_t load;
    uint32_t control;
    bool is_locked;
    bool is_asserted; /* WDOGRIS */
    bool has_bitten;

    /* Times of the guest, in ticks of the timer. */
    uint64_t since; /* when the count started from `load`, if it runs */
    uint64_t due;   /* when the timer is due, or NEVER */
    uint32_t stopped_at; /* the count, if it does not run */

    uint64_t clock; /* of the counter, in Hz: at most 30 bits */
    struct guest_timer *timer;
    uint64_t resolution; /* of the timer, in Hz: at most 32 bits */
    struct wdog_state bite; /* what happens at the end */
};

static const char *const options[] = { "clock", NULL };
enum { CLOCK };

/* ---- The counter: v_mtx is locked ----------------------------------------------------------- */

static bool is_running(const struct watchdog *wdt)
{
    return (wdt->control & WDOGCONTROL_INTEN) != 0 && !wdt->has_bitten;
}

static uint64_t now(const struct watchdog *wdt)
{
    struct guest_timer_data times;

    guest_timer_state(wdt->timer, &times);
    return times.guest_current;
}

/* What the counter counts in so many ticks of the timer, without an overflow on the way. */
static uint64_t counts_of(const struct watchdog *wdt, uint64_t ticks)
{
    return ticks / wdt->resolution * wdt->clock +
           ticks % wdt->resolution * wdt->clock / wdt->resolution;
}

/* The ticks of the timer in which the counter counts so much: counts has at most 33 bits. */
static uint64_t ticks_of(const struct watchdog *wdt, uint64_t counts)
{
    return counts / wdt->clock * wdt->resolution +
           (counts % wdt->clock * wdt->resolution + wdt->clock - 1) / wdt->clock;
}

/* The count. From n it takes n + 1 counts to the next start. */
static uint32_t value(const struct watchdog *wdt)
{
    if (!is_running(wdt))
        return wdt->stopped_at;

    const uint64_t counts = counts_of(wdt, now(wdt) - wdt->since);
    return (uint32_t)(wdt->load - counts % ((uint64_t)wdt->load + 1));
}

/*
 * Sets the timer to the next zero, if something happens then: the interrupt is asserted, or the
 * guest ends. A counter that has nothing to do runs without a timer, however short its period is.
 */
static void set_timer(struct watchdog *wdt)
{
    uint64_t ticks = 0;

    wdt->due = NEVER;
    if (is_running(wdt) && (!wdt->is_asserted || (wdt->control & WDOGCONTROL_RESEN) != 0)) {
        ticks = ticks_of(wdt, (uint64_t)value(wdt) + 1);
        wdt->due = now(wdt) + ticks;
    }
    guest_timer_notify(wdt->timer, NULL, ticks); /* 0 stops it */
}

static void start_count(struct watchdog *wdt)
{
    wdt->stopped_at = wdt->load;
    wdt->since = now(wdt);
    set_timer(wdt);
}

static void signal_level(vdev_t *vdp)
{
    const struct watchdog *const wdt = vdp->v_device;
    const bool level = wdt->is_asserted && (wdt->control & WDOGCONTROL_INTEN) != 0;

    guest_intr_signal(&vdp->v_intr, level ? GIS_ON : GIS_OFF);
}

static void set_control(struct watchdog *wdt, uint32_t control)
{
    const bool was_running = is_running(wdt);

    wdt->stopped_at = value(wdt);
    wdt->control = control & (WDOGCONTROL_INTEN | WDOGCONTROL_RESEN);
    if (is_running(wdt) && !was_running)
        start_count(wdt);
    else
        set_timer(wdt);
}

/* The count is at zero. Without v_mtx. */
static void timer(vdev_t *vdp, void *data, const struct guest_timer_data *tdp,
                  struct guest_cpu *gcp)
{
    struct watchdog *const wdt = data;
    bool bites = false;

    (void)tdp, (void)gcp;
    pthread_mutex_lock(&vdp->v_mtx);
    /* While it waited for the lock, the guest may have started the count again. */
    if (now(wdt) >= wdt->due) {
        bites = wdt->is_asserted;
        wdt->has_bitten = bites;
        wdt->is_asserted = true;
        start_count(wdt);
        signal_level(vdp);
    }
    pthread_mutex_unlock(&vdp->v_mtx);
    if (bites) {
        vdev_logf(LOG_WARN, vdp, "wdt-sp805: the guest has not cleared the interrupt");
        wdog_bite(&wdt->bite);
    }
}

/* ---- Registers ------------------------------------------------------------------------------ */

static uint32_t get(const struct watchdog *wdt, uint64_t offset)
{
    switch (offset) {
    case WDOGLOAD:
        return wdt->load;
    case WDOGVALUE:
        return value(wdt);
    case WDOGCONTROL:
        return wdt->control;
    case WDOGRIS:
        return wdt->is_asserted;
    case WDOGMIS:
        return wdt->is_asserted && (wdt->control & WDOGCONTROL_INTEN) != 0;
    case WDOGLOCK:
        return wdt->is_locked;
    default:
        if (offset >= WDOGPERIPHID0)
            return identity[(offset - WDOGPERIPHID0) / sizeof(uint32_t)];
        return 0;
    }
}

static void set(struct watchdog *wdt, uint64_t offset, uint32_t number)
{
    if (offset == WDOGLOCK)
        wdt->is_locked = number != WDOGLOCK_KEY;
    if (wdt->is_locked)
        return;
    switch (offset) {
    case WDOGLOAD:
        wdt->load = number;
        start_count(wdt);
        break;
    case WDOGCONTROL:
        set_control(wdt, number);
        break;
    case WDOGINTCLR:
        wdt->is_asserted = false;
        start_count(wdt);
        break;
    default: /* read only, or nothing */
        break;
    }
}

/* Whether an access is one to a register. acc_sizes has left those of 4 bytes. */
static bool is_register(const vdev_t *vdp, const struct qvm_state_block *vopnd)
{
    const uint64_t offset = vopnd->location - vdp->v_block.location;

    return offset < REGISTERS_LEN && offset % sizeof(uint32_t) == 0;
}

static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    (void)cookie;
    if (!is_register(vdp, vopnd))
        return VRS_BUS_ERROR;
    pthread_mutex_lock(&vdp->v_mtx);
    const uint32_t number = get(vdp->v_device, vopnd->location - vdp->v_block.location);
    pthread_mutex_unlock(&vdp->v_mtx);
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &number, sizeof(number)));
}

static vdev_ref_status_t vwrite(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    uint32_t number;

    (void)cookie;
    if (!is_register(vdp, vopnd))
        return VRS_BUS_ERROR;
    const int err = guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &number, sizeof(number));
    if (err != EOK)
        return guest_cpu_to_vrs(err);
    pthread_mutex_lock(&vdp->v_mtx);
    set(vdp->v_device, vopnd->location - vdp->v_block.location, number);
    signal_level(vdp);
    pthread_mutex_unlock(&vdp->v_mtx);
    return VRS_NORMAL;
}

/* ---- Life ----------------------------------------------------------------------------------- */

static int set_clock(struct watchdog *wdt, const char *arg)
{
    char *end;
    const long clock = strtol(arg, &end, 0);

    if (*arg == '\0' || *end != '\0' || clock < 1 || clock > 1000000000)
        return EINVAL;
    wdt->clock = (uint64_t)clock;
    return EOK;
}

static int create_timer(vdev_t *vdp)
{
    struct watchdog *const wdt = vdp->v_device;

    wdt->timer = guest_timer_create(NULL, vdp, wdt, &wdt->resolution);
    if (wdt->timer == NULL)
        return (int)wdt->resolution;
    return wdt->resolution == 0 || wdt->resolution > UINT32_MAX ? ERANGE : EOK;
}

static void report(vdev_t *vdp)
{
    const struct watchdog *const wdt = vdp->v_device;

    pthread_mutex_lock(&vdp->v_mtx);
    qvm_report("load %u, value %u, control %u, %s%s\n", wdt->load, value(wdt), wdt->control,
               wdt->is_asserted ? "interrupt asserted" : "no interrupt",
               wdt->is_locked ? ", locked" : "");
    pthread_mutex_unlock(&vdp->v_mtx);
}

static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct watchdog *const wdt = vdp->v_device;

    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        wdt->load = wdt->stopped_at = UINT32_MAX;
        wdt->due = NEVER;
        wdt->clock = 1000000;
        wdog_init(&wdt->bite, vdp);
        vdp->v_block.location = QSL_NO_LOCATION;
        vdp->v_block.length = REGISTERS_LEN;
        return EOK;
    case VDEV_CTRL_FIRST_OPTIDX + CLOCK:
        return set_clock(wdt, arg);
    case VDEV_CTRL_OPTIONS_END:
        return create_timer(vdp);
    case VDEV_CTRL_STATUS:
        report(vdp);
        return EOK;
    default: /* TERMINATE, too: the host has ended the timer before it frees v_device */
        return EOK;
    }
}

static struct vdev_factory factory = {
    .control = control,
    .vread = vread,
    .vwrite = vwrite,
    .timer = timer,
    .option_list = options,
    .factory_flags = VFF_INTR_REQ | VFF_VDEV_MEM | VFF_MUTEX,
    .acc_sizes = 1u << sizeof(uint32_t),
    .extra_space = sizeof(struct watchdog),
};

static void __attribute__((constructor)) load(void)
{
    vdev_register_factory(&factory, QVM_VDEV_ABI);
}
