/* Each row of the table of phases and threads is enforced: by an error and a line in the log. */
#include "fixture.h"

#include <pthread.h>
#include <time.h>

/* What was logged. */
struct seen {
    unsigned lines;
    uint32_t level;
    char last[512];
};

static void see(void *context, uint32_t level, const char *line)
{
    struct seen *seen = context;
    seen->lines++;
    seen->level = level;
    snprintf(seen->last, sizeof seen->last, "%s", line);
}

static gasp_guest_t *begin(struct seen *seen)
{
    memset(seen, 0, sizeof *seen);
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, see, seen));
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    ram(guest, 0, 16 * PAGE);
    return guest;
}

static void finish(gasp_guest_t *guest)
{
    end(guest);
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, NULL, NULL));
}

/* Checks that one line has been added: a warning that contains this. */
static void warned(struct seen *seen, const char *what)
{
    CHECK(seen->lines == 1 && seen->level == GASP_LOG_WARN);
    CHECK(strstr(seen->last, what));
    CHECK(strchr(seen->last, '\n') == NULL);
    seen->lines = 0;
}

static void map_and_unmap(vdev_t *disk)
{
    gasp_map_handle_t h;
    CHECK_OK(gasp_map(disk, 0, 8, RW, &h));
    CHECK(gasp_get_vaddr(&h));
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_map_firmware(0, 8, RW, &h));
    gasp_unmap_handle(&h);
    void *vaddr = gasp_map_vdma(disk, 0, 8, RW);
    CHECK(vaddr);
    gasp_unmap(vaddr, 8, 0);
}

static void *map_in_thread(void *disk)
{
    map_and_unmap(disk);
    return NULL;
}

static void in_a_thread(void *(*run)(void *), void *context)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, context) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void maps_in_both_phases_from_any_thread(void)
{
    struct seen seen;
    gasp_guest_t *guest = begin(&seen);
    vdev_t *disk = device(guest, "disk");
    for (unsigned running = 0; running < 2; running++) {
        map_and_unmap(disk);
        in_a_thread(map_in_thread, disk);
        CHECK_OK(gasp_lock(QST_MEMORY)); /* a lock does not prevent mapping */
        in_a_thread(map_in_thread, disk);
        CHECK_OK(gasp_unlock(QST_MEMORY));
        if (!running)
            CHECK_OK(gasp_guest_start(guest));
    }
    CHECK(seen.lines == 0);
    finish(guest);
}

static void *busy_elsewhere(void *unused)
{
    (void)unused;
    CHECK_ERR(gasp_unlock(QST_MEMORY), EPERM);
    return NULL;
}

static void locks_in_both_phases(void)
{
    struct seen seen;
    CHECK_ERR(gasp_lock(QST_MEMORY), ENXIO); /* no guest */
    gasp_guest_t *guest = begin(&seen);
    const uint16_t types[] = { QST_MEMORY, QST_X86_IO };
    for (unsigned running = 0; running < 2; running++) {
        for (size_t i = 0; i < COUNT_OF(types); i++) {
            CHECK_OK(gasp_lock(types[i]));
            CHECK_ERR(gasp_lock(types[i]), EBUSY);
            warned(&seen, "gasp_lock");
            CHECK_OK(gasp_unlock(types[i]));
            CHECK_ERR(gasp_unlock(types[i]), EPERM);
            warned(&seen, "gasp_unlock");
        }
        if (!running)
            CHECK_OK(gasp_guest_start(guest));
    }
    CHECK_OK(gasp_lock(QST_MEMORY)); /* the two locks are independent */
    CHECK_OK(gasp_lock(QST_X86_IO));
    in_a_thread(busy_elsewhere, NULL);
    warned(&seen, "gasp_unlock");
    CHECK_OK(gasp_unlock(QST_MEMORY));
    CHECK_OK(gasp_unlock(QST_X86_IO));
    CHECK_ERR(gasp_lock(QST_VIRTUAL), EINVAL);
    CHECK_ERR(gasp_unlock(QST_NO_TYPE), EINVAL);
    finish(guest);
}

struct turn {
    uint16_t type;
    int released;
};

static void *wait_for_the_lock(void *context)
{
    struct turn *turn = context;
    CHECK_OK(gasp_lock(turn->type));
    CHECK(__atomic_load_n(&turn->released, __ATOMIC_SEQ_CST));
    CHECK_OK(gasp_unlock(turn->type));
    return NULL;
}

static void a_lock_excludes_other_threads(void)
{
    struct seen seen;
    gasp_guest_t *guest = begin(&seen);
    const uint16_t types[] = { QST_MEMORY, QST_X86_IO };
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        struct turn turn = { types[i], 0 };
        const struct timespec time = { 0, 20000000 };
        pthread_t thread;
        CHECK_OK(gasp_lock(types[i]));
        CHECK(pthread_create(&thread, NULL, wait_for_the_lock, &turn) == 0);
        nanosleep(&time, NULL);
        __atomic_store_n(&turn.released, 1, __ATOMIC_SEQ_CST);
        CHECK_OK(gasp_unlock(types[i]));
        CHECK(pthread_join(thread, NULL) == 0);
    }
    finish(guest);
}

static void *take_and_end(void *unused)
{
    (void)unused;
    CHECK_OK(gasp_lock(QST_MEMORY));
    CHECK_OK(gasp_lock(QST_X86_IO));
    return NULL;
}

static void a_thread_that_ends_releases_its_locks(void)
{
    struct seen seen;
    gasp_guest_t *guest = begin(&seen);
    in_a_thread(take_and_end, NULL);
    CHECK_OK(gasp_lock(QST_MEMORY));
    CHECK_OK(gasp_lock(QST_X86_IO));
    CHECK_OK(gasp_unlock(QST_X86_IO));
    CHECK_OK(gasp_unlock(QST_MEMORY));
    finish(guest);
}

static void *look_around(void *unused)
{
    const struct qvm_state_block block = { 0, PAGE, QST_MEMORY, 0, 0 };
    struct gasp_region region;
    gasp_walk_state_t ws;
    (void)unused;
    CHECK_OK(gasp_region_info(&block, &region));
    CHECK_OK(gasp_walk_init(&ws, 0, GWS_NONE));
    CHECK_OK(gasp_walk_next(&ws));
    CHECK(gasp_walk_count(0, GWS_NONE) == 1);
    return NULL;
}

static void region_info_and_walks_in_both_phases_from_any_thread(void)
{
    struct seen seen;
    gasp_guest_t *guest = begin(&seen);
    look_around(NULL);
    in_a_thread(look_around, NULL);
    CHECK_OK(gasp_guest_start(guest));
    look_around(NULL);
    in_a_thread(look_around, NULL);
    CHECK(seen.lines == 0);
    finish(guest);
}

static void region_set_at_startup_only(void)
{
    struct seen seen;
    gasp_guest_t *guest = begin(&seen);
    const struct gasp_region region = { GRF_NOPERMS, 0, NULL, QSL_NO_LOCATION,
                                        { MIB, PAGE, QST_MEMORY, 0, 0 } };
    CHECK_OK(gasp_lock(QST_MEMORY)); /* which it takes itself */
    errno = 0;
    gasp_region_set(1, &region);
    CHECK(errno == EPERM);
    warned(&seen, "gasp_region_set");
    CHECK_OK(gasp_unlock(QST_MEMORY));
    gasp_region_set(1, &region);
    CHECK(seen.lines == 0);
    CHECK_OK(gasp_guest_start(guest));
    errno = 0;
    gasp_region_set(1, &region);
    CHECK(errno == EPERM);
    warned(&seen, "running");
    finish(guest);
}

static void region_set_soft_while_running_with_the_lock_only(void)
{
    struct seen seen;
    gasp_guest_t *guest = begin(&seen);
    const struct gasp_region region = { GRF_NOPERMS, 0, NULL, QSL_NO_LOCATION,
                                        { MIB, PAGE, QST_MEMORY, 0, 0 } };
    CHECK_ERRNO(gasp_region_set_soft(1, &region), 0, EPERM);
    warned(&seen, "not running");
    CHECK_OK(gasp_guest_start(guest));
    CHECK_ERRNO(gasp_region_set_soft(1, &region), 0, EPERM);
    warned(&seen, "gasp_lock()");
    CHECK_OK(gasp_lock(QST_MEMORY));
    CHECK(gasp_region_set_soft(1, &region) == 1);
    CHECK_OK(gasp_unlock(QST_MEMORY));
    CHECK(seen.lines == 0);
    finish(guest);
}

static void find_free_needs_the_lock_while_running(void)
{
    struct seen seen;
    gasp_guest_t *guest = begin(&seen);
    const unsigned types[] = { QST_MEMORY, QST_X86_IO };
    CHECK(gasp_find_free(QST_MEMORY, PAGE, 0) == 16 * PAGE);
    CHECK(gasp_find_free(QST_X86_IO, 1, 0) == 0);
    CHECK_OK(gasp_guest_start(guest));
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        CHECK_ERRNO(gasp_find_free(types[i], PAGE, 0), QSL_NO_LOCATION, EPERM);
        warned(&seen, "gasp_find_free");
        CHECK_ERRNO(gasp_find_free_range(types[i], PAGE, 0, 0, MIB), QSL_NO_LOCATION, EPERM);
        warned(&seen, "gasp_find_free");
        CHECK_OK(gasp_lock((uint16_t)types[i]));
        CHECK(gasp_find_free(types[i], PAGE, 0) != QSL_NO_LOCATION);
        CHECK_OK(gasp_unlock((uint16_t)types[i]));
    }
    finish(guest);
}

static void gram_at_startup_only(void)
{
    struct seen seen;
    gasp_guest_t *guest = begin(&seen);
    CHECK(gram_find_free(PAGE, 0, 0) == 0);
    CHECK_OK(gram_reserve(8 * PAGE, PAGE));
    CHECK_OK(gasp_guest_start(guest));
    CHECK_ERRNO(gram_find_free(PAGE, 0, 0), QSL_NO_LOCATION, EPERM);
    warned(&seen, "gram_");
    CHECK_ERRNO(gram_find_free_range(PAGE, 0, 0, 0, MIB), QSL_NO_LOCATION, EPERM);
    warned(&seen, "gram_");
    CHECK_ERR(gram_reserve(9 * PAGE, PAGE), EPERM);
    warned(&seen, "gram_");
    finish(guest);
}

static void a_guest_starts_once(void)
{
    struct seen seen;
    gasp_guest_t *guest = begin(&seen);
    CHECK_OK(gasp_guest_start(guest));
    CHECK_ERR(gasp_guest_start(guest), EPERM);
    warned(&seen, "gasp_guest_start");
    finish(guest);
}

static void removing_memory_under_the_own_lock_is_ebusy(void)
{
    struct seen seen;
    gasp_guest_t *guest = begin(&seen);
    CHECK_OK(gasp_lock(QST_MEMORY));
    CHECK_ERR(gasp_guest_remove(guest, 0, PAGE, NULL), EBUSY);
    warned(&seen, "gasp_guest_remove");
    CHECK_OK(gasp_unlock(QST_MEMORY));
    CHECK_OK(gasp_guest_remove(guest, 0, PAGE, NULL));
    finish(guest);
}

/* A log function that misuses the library, although it must not call it. */
static void misuse(void *context, uint32_t level, const char *line)
{
    const struct gasp_region region = { GRF_NOPERMS, 0, NULL, QSL_NO_LOCATION,
                                        { MIB, PAGE, QST_MEMORY, 0, 0 } };
    struct seen *seen = context;
    see(seen, level, line);
    if (seen->lines > 8) /* it would recurse for ever */
        return;
    CHECK_ERR(gasp_unlock(QST_X86_IO), EPERM);
    CHECK_ERRNO(gasp_region_set_soft(1, &region), 0, EPERM);
    CHECK_ERRNO(gram_find_free(PAGE, 0, 0), QSL_NO_LOCATION, EPERM);
}

static void a_log_that_calls_the_library_is_called_once(void)
{
    struct seen seen;
    gasp_guest_t *guest = begin(&seen);
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, misuse, &seen));
    alarm(30);
    CHECK_OK(gasp_guest_start(guest));
    CHECK_ERR(gasp_unlock(QST_MEMORY), EPERM);
    warned(&seen, "gasp_unlock");
    CHECK_ERR(gasp_guest_start(guest), EPERM);
    warned(&seen, "gasp_guest_start");
    alarm(0);
    finish(guest);
}

static const struct test tests[] = {
    TEST(maps_in_both_phases_from_any_thread),
    TEST(locks_in_both_phases),
    TEST(a_lock_excludes_other_threads),
    TEST(a_thread_that_ends_releases_its_locks),
    TEST(region_info_and_walks_in_both_phases_from_any_thread),
    TEST(region_set_at_startup_only),
    TEST(region_set_soft_while_running_with_the_lock_only),
    TEST(find_free_needs_the_lock_while_running),
    TEST(gram_at_startup_only),
    TEST(a_guest_starts_once),
    TEST(removing_memory_under_the_own_lock_is_ebusy),
    TEST(a_log_that_calls_the_library_is_called_once),
};
RUN(tests)
