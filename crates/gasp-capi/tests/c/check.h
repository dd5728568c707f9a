/*
 * Support for test programs: CHECK, a list of tests, and a main() that runs all of them or those
 * named as arguments, or with --list prints their names and why some cannot run here. A test that
 * fails ends the program.
 */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <gasp/guest.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct test {
    const char *name;
    void (*run)(void);
    const char *(*lack)(void); /* returns why it cannot run here, or NULL; may be NULL itself */
};
#define TEST(name) { #name, name, NULL }
#define TEST_NEEDS(name, lack) { #name, name, lack }
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#define CHECK(condition) \
    ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))
/* Checks that a call returns this error number. */
#define CHECK_ERR(call, wanted) check_errno(__FILE__, __LINE__, #call, (call), (wanted))
#define CHECK_OK(call) CHECK_ERR(call, EOK)
/* Checks that a call returns this value and sets errno to this number. */
#define CHECK_ERRNO(call, value, wanted) \
    (errno = 0, CHECK((call) == (value)), check_errno(__FILE__, __LINE__, #call, errno, (wanted)))

static inline void check_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: failed: %s (last error: %s)\n", file, line, what, gasp_last_error());
    exit(EXIT_FAILURE);
}

static inline void check_errno(const char *file, int line, const char *call, int got, int wanted)
{
    if (got == wanted)
        return;
    fprintf(stderr, "%s:%d: %s returns %d (%s), not %d (%s); last error: %s\n", file, line, call,
            got, strerror(got), wanted, strerror(wanted), gasp_last_error());
    exit(EXIT_FAILURE);
}

/* The number of repetitions: fewer under tools that make a program slow. */
static inline unsigned rounds(unsigned usual)
{
    return getenv("CHECK_SLOW") ? usual / 50 + 1 : usual;
}

static inline int named(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(name, argv[i]) == 0)
            return 1;
    return argc == 1;
}

static inline int run_tests(const struct test *tests, size_t count, int argc, char **argv)
{
    const int list = argc == 2 && strcmp(argv[1], "--list") == 0;
    for (size_t i = 0; i < count; i++) {
        const char *lack = tests[i].lack ? tests[i].lack() : NULL;
        if (list) {
            printf("%s\t%s\n", tests[i].name, lack ? lack : "");
        } else if (named(tests[i].name, argc, argv)) {
            if (!lack)
                tests[i].run();
            printf("%s %s%s%s\n", lack ? "skip" : "ok", tests[i].name, lack ? ": " : "",
                   lack ? lack : "");
        }
    }
    return EXIT_SUCCESS;
}

#define RUN(tests)                                              \
    int main(int argc, char **argv)                             \
    {                                                           \
        return run_tests((tests), COUNT_OF(tests), argc, argv); \
    }

#endif
