/*
 * <qvm/posix.h>: the declarations of POSIX that the headers for virtual devices need. [ours]
 *
 * Included by them. With a compiler in strict ISO mode (-std=c99, -std=c11) the C library
 * declares those only if it is asked to before its first header: include a header for virtual
 * devices first, compile with -std=gnu11, or with -D_POSIX_C_SOURCE=200809L.
 */
#ifndef QVM_POSIX_H
#define QVM_POSIX_H

#if defined(__STRICT_ANSI__) && !defined(_POSIX_C_SOURCE) && !defined(_XOPEN_SOURCE) &&       \
    !defined(_DEFAULT_SOURCE) && !defined(_GNU_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif

#include <pthread.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#ifndef SIGEV_SIGNAL
#error "these headers need POSIX: compile with -std=gnu11 or -D_POSIX_C_SOURCE=200809L"
#endif

/* A piece of memory: base and length. */
typedef struct iovec iov_t;

/* Sets a piece, and reads its members. */
#define SETIOV(iov, addr, len)                                                                \
    ((void)((iov)->iov_base = (void *)(addr), (iov)->iov_len = (size_t)(len)))
#define GETIOVBASE(iov) ((iov)->iov_base)
#define GETIOVLEN(iov) ((iov)->iov_len)

#endif
