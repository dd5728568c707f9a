/* gasp_region_set() and gasp_unlock() wait for mappings; an entry that fails ends the process. */
#include "region.h"

#include <pthread.h>
#include <time.h>

static void pause_ms(long ms)
{
    const struct timespec time = { 0, ms * 1000000 };
    nanosleep(&time, NULL);
}

struct holder {
    gasp_map_handle_t h;
    int unmapped;
};

static void *unmap_later(void *context)
{
    struct holder *holder = context;
    pause_ms(50);
    __atomic_store_n(&holder->unmapped, 1, __ATOMIC_SEQ_CST);
    gasp_unmap_handle(&holder->h);
    return NULL;
}

static void deleting_waits_for_mappings(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    struct gasp_region region = memory(0, PAGE, GRF_NONE, NULL);
    struct holder holder = { { { 0, 0, 0 } }, 0 };
    pthread_t thread;
    ram(guest, 0, 2 * PAGE);
    holder.h = mapped_elsewhere(disk, 0);
    CHECK(pthread_create(&thread, NULL, unmap_later, &holder) == 0);
    gasp_region_set(1, &region);
    CHECK(__atomic_load_n(&holder.unmapped, __ATOMIC_SEQ_CST));
    CHECK(pthread_join(thread, NULL) == 0);
    end(guest);
}

static void unlock_waits_for_what_soft_has_deleted(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    const struct gasp_region region = memory(0, PAGE, GRF_NONE, NULL);
    struct holder holder = { { { 0, 0, 0 } }, 0 };
    gasp_map_handle_t h;
    pthread_t thread;
    ram(guest, 0, 2 * PAGE);
    begin_running(guest);
    holder.h = mapped_elsewhere(disk, 0);
    CHECK_OK(gasp_lock(QST_MEMORY));
    CHECK(gasp_region_set_soft(1, &region) == 1);
    CHECK_ERR(gasp_map(disk, 0, 8, RW, &h), ENXIO); /* at once */
    CHECK(pthread_create(&thread, NULL, unmap_later, &holder) == 0);
    CHECK_OK(gasp_unlock(QST_MEMORY));
    CHECK(__atomic_load_n(&holder.unmapped, __ATOMIC_SEQ_CST));
    CHECK(pthread_join(thread, NULL) == 0);
    end(guest);
}

/* Seconds after which a test that hangs is ended. */
#define LIMIT 30

/* Takes both locks once the region has been deleted, and only then unmaps. */
static void *unmap_with_both_locks(void *h)
{
    struct gasp_region region;
    while (info(QST_MEMORY, 0, PAGE, &region) == EOK)
        pause_ms(1);
    CHECK_OK(gasp_lock(QST_MEMORY));
    CHECK_OK(gasp_lock(QST_X86_IO));
    gasp_unmap_handle(h);
    CHECK_OK(gasp_unlock(QST_X86_IO));
    CHECK_OK(gasp_unlock(QST_MEMORY));
    return NULL;
}

static void the_locks_are_free_while_mappings_are_waited_for(void)
{
    alarm(LIMIT);
    for (unsigned count = 1; count <= 2; count++) {
        gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
        vdev_t *disk = device(guest, "disk");
        const struct gasp_region many[] = {
            memory(0, PAGE, GRF_NONE, NULL),
            entry(QST_X86_IO, 0x60, 1, GRF_VIRT_RD, disk),
        };
        gasp_map_handle_t h;
        pthread_t thread;
        ram(guest, 0, 2 * PAGE);
        h = mapped_elsewhere(disk, 0);
        CHECK(pthread_create(&thread, NULL, unmap_with_both_locks, &h) == 0);
        gasp_region_set(count, many);
        CHECK(gasp_get_vaddr(&h) == NULL);
        CHECK(pthread_join(thread, NULL) == 0);
        end(guest);
    }
    alarm(0);
}

static void set_what_is_not_there(void)
{
    const struct gasp_region region = memory(MIB, PAGE, GRF_NONE, NULL);
    gasp_region_set(1, &region);
    _exit(3); /* it has returned */
}

static void a_failing_set_ends_the_process(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    CHECK_OK(gasp_set_log(GASP_LOG_OFF, NULL, NULL));
    CHECK(in_child(set_what_is_not_there) == EXIT_FAILURE);
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, NULL, NULL));
    end(guest);
}

/* Runs `run` in a child; returns its exit status, and what it writes to stderr. */
static int heard(void (*run)(void), char *text, size_t size)
{
    int ends[2];
    const int kept = dup(STDERR_FILENO);
    CHECK(kept >= 0 && pipe(ends) == 0 && dup2(ends[1], STDERR_FILENO) >= 0);
    const int status = in_child(run);
    CHECK(dup2(kept, STDERR_FILENO) >= 0);
    close(ends[1]);
    close(kept);
    const ssize_t length = read(ends[0], text, size - 1);
    CHECK(length >= 0);
    text[length] = 0;
    close(ends[0]);
    return status;
}

static void set_null(void)
{
    alarm(LIMIT);
    gasp_region_set(1, NULL);
    _exit(3);
}

static void revoke_and_then_fail(void)
{
    const struct gasp_region many[] = {
        memory(0, PAGE, GRF_NONE, NULL), /* which is mapped */
        memory(MIB, PAGE, GRF_NONE, NULL),
    };
    alarm(LIMIT);
    gasp_region_set(2, many);
    _exit(3);
}

static void revoke_and_then_fail_with_ports(void)
{
    const struct gasp_region many[] = {
        memory(0, PAGE, GRF_NONE, NULL),
        entry(QST_X86_IO, 0x60, 1, GRF_NONE, NULL),
    };
    alarm(LIMIT);
    gasp_region_set(2, many);
    _exit(3);
}

static void a_set_that_ends_the_process_says_why(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    char text[512];
    CHECK(heard(set_null, text, sizeof text) == EXIT_FAILURE);
    CHECK(strstr(text, "gasp_region_set") && strstr(text, "NULL") && strstr(text, "EINVAL"));
    CHECK(heard(set_what_is_not_there, text, sizeof text) == EXIT_FAILURE);
    CHECK(strstr(text, "gasp_region_set") && strstr(text, "entry 0") && strstr(text, "ENOENT"));
    end(guest);
}

static void a_failing_set_does_not_wait_for_mappings(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    void (*const runs[])(void) = { revoke_and_then_fail, revoke_and_then_fail_with_ports };
    gasp_map_handle_t h;
    ram(guest, 0, PAGE); /* valgrind reports what remains at the end of a process as lost */
    h = mapped_elsewhere(device(guest, "disk"), 0);
    for (size_t i = 0; i < COUNT_OF(runs); i++) {
        char text[512];
        CHECK(heard(runs[i], text, sizeof text) == EXIT_FAILURE);
        CHECK(strstr(text, "gasp_region_set") && strstr(text, "entry 1"));
        CHECK(strstr(text, "ENOENT"));
    }
    CHECK_OK(gasp_map_check(&h));
    gasp_unmap_handle(&h);
    end(guest);
}

static void set_while_running_changes_nothing(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    struct gasp_region region = memory(0, PAGE, GRF_NONE, NULL);
    ram(guest, 0, PAGE);
    begin_running(guest);
    errno = 0;
    gasp_region_set(1, &region);
    CHECK(errno == EPERM);
    CHECK_OK(info(QST_MEMORY, 0, PAGE, &region));
    end(guest);
}

static const struct test tests[] = {
    TEST(deleting_waits_for_mappings),
    TEST(unlock_waits_for_what_soft_has_deleted),
    TEST(the_locks_are_free_while_mappings_are_waited_for),
    TEST(a_failing_set_ends_the_process),
    TEST(a_set_that_ends_the_process_says_why),
    TEST(a_failing_set_does_not_wait_for_mappings),
    TEST(set_while_running_changes_nothing),
};
RUN(tests)
