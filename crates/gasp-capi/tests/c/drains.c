/* Drains: waited for, ended by the deadline, and NULL. */
#include "fixture.h"

#include <time.h>

/* A guest with a held mapping, whose drains reach `at_deadline` after some milliseconds. */
static gasp_guest_t *held(uint32_t at_deadline, uint32_t ms, gasp_map_handle_t *h)
{
    struct gasp_guest_options options = GASP_GUEST_OPTIONS_INIT;
    gasp_guest_t *guest;
    options.at_deadline = at_deadline;
    options.drain_deadline_ms = ms;
    CHECK_OK(gasp_guest_create(&options, &guest));
    ram(guest, 0, PAGE);
    *h = mapped_elsewhere(device(guest, "disk"), 0);
    return guest;
}

static void *unmap_after_20_ms(void *h)
{
    const struct timespec time = { 0, 20000000 };
    nanosleep(&time, NULL);
    gasp_unmap_handle(h);
    return NULL;
}

static void a_drain_is_waited_for(void)
{
    gasp_map_handle_t h;
    gasp_guest_t *guest = held(GASP_DRAIN_WAIT, 60000, &h);
    struct gasp_drained drained;
    gasp_drain_t *drain;
    pthread_t thread;
    CHECK_OK(gasp_guest_remove(guest, 0, PAGE, &drain));
    CHECK_ERR(gasp_drain_pending(drain, NULL), EINVAL);
    CHECK(pthread_create(&thread, NULL, unmap_after_20_ms, &h) == 0);
    CHECK_OK(gasp_drain_wait(drain, &drained));
    CHECK(drained.holders == 1 && drained.detached == 0 && drained.waited_ns > 0);
    CHECK(pthread_join(thread, NULL) == 0);
    refuse_drain(drain); /* it has ended */
    end(guest);
}

static void a_deadline_can_detach(void)
{
    gasp_map_handle_t h;
    gasp_guest_t *guest = held(GASP_DRAIN_DETACH, 10, &h);
    struct gasp_drained drained;
    gasp_drain_t *drain;
    CHECK_OK(gasp_set_log(GASP_LOG_OFF, NULL, NULL));
    CHECK_OK(gasp_map_check(&h));
    CHECK_OK(gasp_guest_remove(guest, 0, PAGE, &drain));
    CHECK_OK(gasp_drain_wait(drain, &drained));
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, NULL, NULL));
    CHECK(drained.holders == 1 && drained.detached == 1);
    CHECK_ERR(gasp_map_check(&h), ESTALE);
    memset(gasp_get_vaddr(&h), 1, 8); /* its memory remains */
    gasp_unmap_handle(&h);
    CHECK_ERR(gasp_map_check(&h), EBADF);
    end(guest);
}

static void null_is_a_drain_that_has_ended(void)
{
    struct gasp_drained drained = { 1, 1, 1 };
    uint64_t pending = 1;
    CHECK_OK(gasp_drain_pending(NULL, &pending));
    CHECK_OK(gasp_drain_wait(NULL, NULL));
    CHECK_OK(gasp_drain_wait(NULL, &drained));
    CHECK_OK(gasp_drain_abandon(NULL));
    CHECK(pending == 0 && drained.holders == 0 && drained.detached == 0 && drained.waited_ns == 0);
}

static const struct test tests[] = {
    TEST(a_drain_is_waited_for),
    TEST(a_deadline_can_detach),
    TEST(null_is_a_drain_that_has_ended),
};
RUN(tests)
