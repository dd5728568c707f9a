/* What a vdev has in its memory, and accesses that must fault. */
#ifndef VDEV_MEMBERS_H
#define VDEV_MEMBERS_H

#include "fixture.h"

#include <setjmp.h>
#include <signal.h>

/* The first members of struct vdev_s, which are at the same places in both editions. */
struct members {
    void *v_device;
    const void *v_factory;
    struct guest_system *v_gsp;
    uint64_t v_location;
};

static inline struct members *members_of(vdev_t *vdev)
{
    return (struct members *)(void *)vdev;
}

/* A new vdev has its guest, no location, and zeros up to the end of its page. */
static inline void check_new(vdev_t *vdev, gasp_guest_t *guest)
{
    const struct members *members = members_of(vdev);
    const char *bytes = (const char *)vdev;
    CHECK((uintptr_t)vdev % PAGE == 0);
    CHECK(members->v_device == NULL && members->v_factory == NULL);
    CHECK(members->v_gsp == guest && members->v_location == QSL_NO_LOCATION);
    for (size_t i = sizeof *members; i < PAGE; i++)
        CHECK(bytes[i] == 0);
}

/* Fills all of a vdev's memory, also with what looks like other objects. */
static inline void scribble(vdev_t *vdev, int byte)
{
    memset((void *)vdev, byte, PAGE);
}

static volatile char *expected_fault;
static sigjmp_buf after_fault;

static inline void on_expected_fault(int signal, siginfo_t *about, void *context)
{
    (void)signal;
    (void)context;
    if (about->si_addr != expected_fault)
        _exit(1);
    siglongjmp(after_fault, 1);
}

/* Whether an access to this byte raises SIGSEGV there. */
static inline int faults_at(volatile char *byte, int write)
{
    volatile int faulted = 0;
    struct sigaction action, before;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_expected_fault;
    action.sa_flags = SA_SIGINFO;
    expected_fault = byte;
    CHECK(sigaction(SIGSEGV, &action, &before) == 0);
    if (sigsetjmp(after_fault, 1))
        faulted = 1;
    else if (write)
        *byte = 1;
    else
        (void)*byte;
    CHECK(sigaction(SIGSEGV, &before, NULL) == 0);
    return faulted;
}

static inline const char *lacks_silence(void)
{
    return getenv("CHECK_SLOW") ? "a tool reports the access as an error" : NULL;
}

#endif
