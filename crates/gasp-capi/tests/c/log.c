/* The log: its levels and destinations, and log functions that misuse the library. */
#include "fixture.h"

struct seen {
    unsigned lines;
    uint32_t level;
};

static void see(void *context, uint32_t level, const char *line)
{
    struct seen *seen = context;
    CHECK(line && *line && !strchr(line, '\n'));
    seen->lines++;
    seen->level = level;
}

static void levels_of_the_log(void)
{
    struct seen seen = { 0, 0 };
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    CHECK_ERR(gasp_set_log(GASP_LOG_DEBUG + 1, see, &seen), EINVAL);
    CHECK_OK(gasp_set_log(GASP_LOG_OFF, see, &seen));
    CHECK_ERR(gasp_unlock(QST_MEMORY), EPERM);
    CHECK_OK(gasp_set_log(GASP_LOG_ERROR, see, &seen));
    CHECK_ERR(gasp_unlock(QST_MEMORY), EPERM);
    CHECK(seen.lines == 0);
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, see, &seen));
    CHECK_ERR(gasp_map(NULL, 0, 8, GMF_READ, NULL), EINVAL); /* no warning */
    CHECK(seen.lines == 0);
    CHECK_ERR(gasp_unlock(QST_MEMORY), EPERM);
    CHECK(seen.lines == 1 && seen.level == GASP_LOG_WARN);
    CHECK_OK(gasp_set_log(GASP_LOG_DEBUG, see, &seen));
    seen.lines = 0;
    CHECK_ERR(gasp_map(NULL, 0, 8, GMF_READ, NULL), EINVAL);
    CHECK(seen.lines == 1 && seen.level == GASP_LOG_DEBUG);
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, NULL, NULL));
    end(guest);
}

/* A log function that calls the library, although it must not. */
struct caller {
    unsigned lines, depth, deepest;
};

static void enter(struct caller *caller)
{
    caller->lines++;
    if (++caller->depth > caller->deepest)
        caller->deepest = caller->depth;
}

static void fail_again(void *context, uint32_t level, const char *line)
{
    struct caller *caller = context;
    vdev_t *vdev;
    (void)level;
    (void)line;
    enter(caller);
    if (caller->depth < 50)
        CHECK_ERR(gasp_vdev_find(NULL, "x", &vdev), EINVAL);
    caller->depth--;
}

static void a_log_that_fails_does_not_recurse(void)
{
    struct caller caller = { 0, 0, 0 };
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    alarm(30);
    CHECK_OK(gasp_set_log(GASP_LOG_DEBUG, fail_again, &caller));
    for (unsigned i = 1; i < 4; i++) {
        CHECK_ERR(gasp_lock(QST_VIRTUAL), EINVAL);
        CHECK(caller.lines == i && caller.deepest == 1); /* later lines are logged, too */
    }
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, NULL, NULL));
    alarm(0);
    end(guest);
}

static void make_a_guest(void *context, uint32_t level, const char *line)
{
    gasp_guest_t *guest;
    (void)level;
    (void)line;
    enter(context);
    CHECK_OK(gasp_guest_create(NULL, &guest));
    end(guest);
    ((struct caller *)context)->depth--;
}

static void a_log_that_makes_guests_does_not_hang(void)
{
    struct caller caller = { 0, 0, 0 };
    alarm(30);
    CHECK_OK(gasp_set_log(GASP_LOG_DEBUG, make_a_guest, &caller));
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE); /* the process's first if run alone */
    ram(guest, 0, PAGE);
    CHECK_ERR(gasp_lock(QST_VIRTUAL), EINVAL);
    CHECK(caller.lines >= 1 && caller.deepest == 1);
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, NULL, NULL));
    alarm(0);
    end(guest);
}

static void without_a_function_the_log_is_stderr(void)
{
    char text[256] = { 0 };
    int ends[2];
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    const int kept = dup(STDERR_FILENO);
    CHECK(kept >= 0 && pipe(ends) == 0 && dup2(ends[1], STDERR_FILENO) >= 0);
    const int error = gasp_unlock(QST_MEMORY);
    CHECK(dup2(kept, STDERR_FILENO) >= 0);
    CHECK_ERR(error, EPERM);
    CHECK(read(ends[0], text, sizeof text - 1) > 0 && strstr(text, "gasp_unlock"));
    CHECK(text[strlen(text) - 1] == '\n');
    close(ends[0]);
    close(ends[1]);
    close(kept);
    end(guest);
}

static const struct test tests[] = {
    TEST(levels_of_the_log),
    TEST(a_log_that_fails_does_not_recurse),
    TEST(a_log_that_makes_guests_does_not_hang),
    TEST(without_a_function_the_log_is_stderr),
};
RUN(tests)
