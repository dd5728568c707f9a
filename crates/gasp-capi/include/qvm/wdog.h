/*
 * <qvm/wdog.h>: what watchdogs have in common.
 *
 * What is not documented publicly, and so is our own choice, is marked [ours]. The functions are
 * in the program that hosts the vdev, not in libgasp. None of them waits.
 */
#include <qvm/posix.h>
#include <qvm/types.h>

#include <qvm/vdev-core.h>

#ifndef QVM_WDOG_H
#define QVM_WDOG_H

#ifdef __cplusplus
extern "C" {
#endif

/* What wdog_bite() does: ws_action. The names are published, the values are [ours]. */
#define WDOG_ACTION_TERMINATE 0x01u /* end the guest, with GTC_WATCHDOG */
#define WDOG_ACTION_INTR 0x02u      /* send one edge on v_intr of the vdev */
/* Or'ed to ws_action or in ws_flags: first guest_write_core_file(). */
#define WDOG_FLAG_DUMP 0x80u

/* A watchdog. ws_action is published; the other members are [ours]. */
struct wdog_state {
    vdev_t *ws_vdev;
    unsigned ws_action;
    unsigned ws_flags;
    uint64_t ws_reserved[2];
};

/* Zeroes *wds, for a vdev, with WDOG_ACTION_TERMINATE. Startup phase. [ours] */
void wdog_init(struct wdog_state *wds, vdev_t *vdp);

/*
 * Reads the argument of a watchdog's option `action`, `[dump,]terminate|intr`, with `fiq` for
 * `intr`, into ws_action and ws_flags. Startup phase. Returns EOK; EINVAL, with *wds unchanged.
 * [ours]
 */
int wdog_parse_action(struct wdog_state *wds, const char *arg);

/*
 * The time is over: does what ws_action says. Running phase, any thread. Without a vdev in
 * ws_vdev the guest is the one of the calling thread, as <qvm/guest.h> says, and
 * WDOG_ACTION_INTR is a line in the log [ours].
 */
void wdog_bite(struct wdog_state *wds);

#ifdef __cplusplus
}
#endif

#endif
