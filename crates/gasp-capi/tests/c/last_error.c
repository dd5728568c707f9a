/* gasp_last_error(): a text of the thread, valid as long as the thread exists. */
#include "fixture.h"

#include <pthread.h>

static void fails(gasp_guest_t *guest, uint64_t start)
{
    const errno_t error = gasp_guest_remove(guest, start, PAGE, NULL);
    CHECK(error == ENOENT);
}

static void a_kept_text_is_a_later_one_at_worst(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    const char *kept = gasp_last_error();
    CHECK(strcmp(kept, "") == 0);
    for (uint64_t i = 1; i < 1000; i++) {
        char address[32];
        fails(guest, i * PAGE);
        snprintf(address, sizeof address, "0x%llx", (unsigned long long)(i * PAGE));
        CHECK(gasp_last_error() == kept); /* the same buffer */
        CHECK(strstr(kept, address) && strstr(kept, "ENOENT"));
    }
    end(guest);
}

/* Arguments are evaluated in any order: the text is correct in each. */
static void a_call_and_its_text_in_one_expression(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    gasp_map_handle_t h;
    char text[1100];
    CHECK_ERR(gasp_map(NULL, 0, 1, GMF_READ, &h), EINVAL);
    snprintf(text, sizeof text, "%d %s", gasp_map_firmware(0x1000, 1, GMF_READ, &h),
             gasp_last_error());
    CHECK(strstr(text, "0x1000") && strstr(text, "ENXIO"));
    end(guest);
}

static void long_texts_end_in_dots(void)
{
    static char path[8000];
    gasp_guest_t *guest;
    memset(path, 'p', sizeof path - 1);
    CHECK_ERR(gasp_guest_load(path, &guest), ENAMETOOLONG);
    CHECK(strlen(gasp_last_error()) == 1023);
    CHECK(strcmp(gasp_last_error() + 1020, "...") == 0);
    for (size_t i = 0; i + 2 < sizeof path; i += 2)
        memcpy(path + i, "\xc3\xa9", 2); /* whole characters */
    path[sizeof path - 2] = 0;
    CHECK_ERR(gasp_guest_load(path, &guest), ENAMETOOLONG);
    const char *dots = gasp_last_error() + strlen(gasp_last_error()) - 3;
    CHECK(strcmp(dots, "...") == 0 && dots[-1] == '\xa9');
    CHECK_ERR(gasp_map_check(NULL), EINVAL); /* nothing of the longer text remains */
    CHECK(strlen(gasp_last_error()) < 100);
}

static void *has_a_text_of_its_own(void *other)
{
    CHECK(strcmp(gasp_last_error(), "") == 0);
    CHECK_ERR(gasp_map_check(NULL), EINVAL);
    CHECK(gasp_last_error() != other);
    return NULL;
}

static void each_thread_has_its_own(void)
{
    pthread_t thread;
    char before[1024];
    CHECK_ERR(gasp_guest_load("/nowhere", NULL), EINVAL);
    snprintf(before, sizeof before, "%s", gasp_last_error());
    CHECK(pthread_create(&thread, NULL, has_a_text_of_its_own, (void *)(uintptr_t)gasp_last_error()) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(strcmp(gasp_last_error(), before) == 0);
}

/*
 * Destructors of thread-specific data run in several rounds. In the last ones all other data of
 * the thread has been destroyed, including the library's.
 */
static pthread_key_t key;
static unsigned round_of_end, lines;

static void log_line(void *context, uint32_t level, const char *line)
{
    (void)context, (void)level;
    CHECK(strlen(line) > 0);
    lines++;
}

static void at_the_end(void *guest)
{
    const unsigned before = lines, last = ++round_of_end == 4;
    gasp_map_handle_t h;
    CHECK(strlen(gasp_last_error()) > 0); /* the earlier text */
    CHECK_ERR(gasp_map_firmware(0x70000, 8, RW, &h), ENXIO);
    CHECK(strstr(gasp_last_error(), "0x70000"));
    CHECK_OK(gasp_map_firmware(0, 8, RW, &h));
    gasp_unmap_handle(&h);
    const int error = gasp_lock(QST_MEMORY); /* in the last rounds nobody would release it */
    CHECK(error == EPERM || (error == EBUSY && !last));
    CHECK(strstr(gasp_last_error(), error == EPERM ? "ending" : "EBUSY"));
    if (error == EPERM) {
        const struct gasp_region region = { GRF_NONE, 0, NULL, 0, { 0, PAGE, QST_MEMORY, 0, 0 } };
        CHECK_ERRNO((gasp_region_set(1, &region), 0), 0, EPERM);
        fails(guest, 0x7000); /* takes the engine's lock for the duration of the call */
    }
    CHECK(lines >= before + 2); /* each is logged as well */
    if (!last)
        CHECK(pthread_setspecific(key, guest) == 0);
}

static void *ends(void *guest)
{
    CHECK(pthread_setspecific(key, guest) == 0);
    CHECK_ERR(gasp_guest_remove(guest, 0x5000, PAGE, NULL), ENOENT);
    CHECK_OK(gasp_lock(QST_MEMORY));
    CHECK_ERR(gasp_lock(QST_MEMORY), EBUSY);
    return NULL; /* which releases the lock */
}

static void a_thread_that_ends_has_its_text_and_its_log(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    pthread_t thread;
    ram(guest, 0, 4 * PAGE);
    CHECK_OK(gasp_set_log(GASP_LOG_DEBUG, log_line, NULL));
    CHECK(pthread_key_create(&key, at_the_end) == 0);
    CHECK(pthread_create(&thread, NULL, ends, guest) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(round_of_end == 4);
    CHECK_OK(gasp_lock(QST_MEMORY)); /* was released */
    CHECK_OK(gasp_unlock(QST_MEMORY));
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, NULL, NULL));
    pthread_key_delete(key);
    end(guest);
}

static void *has_no_error_yet(void *unused)
{
    (void)unused;
    CHECK(strcmp(gasp_last_error(), "") == 0);
    return NULL;
}

static void the_last_error_is_a_sentence_of_this_thread(void)
{
    gasp_map_handle_t h;
    pthread_t thread;
    CHECK(strcmp(gasp_version(), "0.1.0") == 0);
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    ram(guest, 0, PAGE);
    CHECK_ERR(gasp_map(disk, 0x123, 0x45, GMF_READ, &h), EFAULT);
    const char *text = gasp_last_error();
    CHECK(strstr(text, "disk") && strstr(text, "0x123") && strstr(text, "69 bytes"));
    CHECK(strstr(text, "EFAULT"));
    CHECK_OK(gasp_map_firmware(0, 8, GMF_READ, &h));
    gasp_unmap_handle(&h);
    CHECK(gasp_last_error() == text && strstr(text, "0x123")); /* a success does not change it */
    CHECK(pthread_create(&thread, NULL, has_no_error_yet, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    end(guest);
}

static const struct test tests[] = {
    TEST(a_kept_text_is_a_later_one_at_worst),
    TEST(a_call_and_its_text_in_one_expression),
    TEST(long_texts_end_in_dots),
    TEST(each_thread_has_its_own),
    TEST(a_thread_that_ends_has_its_text_and_its_log),
    TEST(the_last_error_is_a_sentence_of_this_thread),
};
RUN(tests)
