/*
 * <qvm/log.h>: messages of virtual devices, 8.0. Those of 7.x are in <qvm/outpipe.h>, which this
 * header includes in that edition.
 *
 * What is not documented publicly, and so is our own choice, is marked [ours].
 *
 * Any phase, any thread, also with v_mtx locked. Messages are formatted here, into at most
 * QVM_LOG_TEXT_MAX bytes (the rest is cut off), and passed to functions of the program that hosts
 * the vdev: they are not in libgasp.
 */
#include <qvm/posix.h>
#include <qvm/types.h>

#ifndef QVM_LOG_H
#define QVM_LOG_H

#include <stdarg.h>
#include <stdio.h>

/* The longest message in bytes, with its NUL. [ours] */
#define QVM_LOG_TEXT_MAX 1024

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Importance of a message. The names are published as families, QL_QVM_INFO and QL_QVM_ERR by
 * themselves; the values are [ours]. QL_CNF_*: the configuration is the cause, and not the host.
 * `logger` and a vdev's `log` select among them.
 */
#define QL_QVM_FATAL 0u
#define QL_QVM_INTERNAL 1u
#define QL_QVM_ERR 2u
#define QL_QVM_WARN 3u
#define QL_QVM_INFO 4u
#define QL_QVM_DEBUG 5u
#define QL_QVM_VERBOSE 6u
#define QL_CNF_FATAL (0x100u | QL_QVM_FATAL)
#define QL_CNF_INTERNAL (0x100u | QL_QVM_INTERNAL)
#define QL_CNF_ERR (0x100u | QL_QVM_ERR)
#define QL_CNF_WARN (0x100u | QL_QVM_WARN)
#define QL_CNF_INFO (0x100u | QL_QVM_INFO)
#define QL_CNF_DEBUG (0x100u | QL_QVM_DEBUG)
#define QL_CNF_VERBOSE (0x100u | QL_QVM_VERBOSE)

/* Where the cause of an error is. QLS_CNF is published; the others, and the values, are [ours]. */
#define QLS_QVM 0u /* in the host */
#define QLS_CNF 1u /* in the configuration */
#define QLS_GST 2u /* in the guest */
#define QLS_INT 3u /* an internal error */

/* A QL_*, and a QLS_*. 32 bits wide [ours]. */
typedef uint32_t qvm_log_level_t;
typedef uint32_t qvm_log_source_t;

/* The functions of the host. [ours] */
void vdev_log_text(qvm_log_level_t level, const vdev_t *vdp, const char *text);
void qvm_report_text(const char *text);
__attribute__((noreturn)) void qvm_fatal_text(qvm_log_source_t source, const char *text);

/*
 * Adds a text to the report of VDEV_CTRL_STATUS, which has at most 64 KiB. Elsewhere it is a line
 * of the log [ours].
 */
__attribute__((format(printf, 1, 2))) static inline void qvm_report(char const *fmt, ...)
{
    char text[QVM_LOG_TEXT_MAX];
    va_list arguments;
    va_start(arguments, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, arguments);
    va_end(arguments);
    qvm_report_text(text);
}

#ifdef __cplusplus
}
#endif

#if QVM_EDITION == 800

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Logs a message, with the name of the vdev. vdp NULL: of the vdev whose callback or thread this
 * is [ours]. The last error that control() logs before it returns an error number is the host's
 * message for that.
 */
__attribute__((format(printf, 3, 4))) static inline void
vdev_logf(qvm_log_level_t level, vdev_t const *vdp, char const *fmt, ...)
{
    char text[QVM_LOG_TEXT_MAX];
    va_list arguments;
    va_start(arguments, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, arguments);
    va_end(arguments);
    vdev_log_text(level, vdp, text);
}

/*
 * Ends with a message: for errors before the guest runs, after which guest_terminate() ends the
 * guest alone. Does not return. In control() the host refuses to start, as for an error number,
 * and says which vdev it was. Elsewhere the process ends, with status 65 for QLS_CNF, else 96, or
 * 64 if no vdev's callback or thread called it.
 */
__attribute__((noreturn, format(printf, 2, 3))) static inline void
qvm_fatal(qvm_log_source_t src, char const *fmt, ...)
{
    char text[QVM_LOG_TEXT_MAX];
    va_list arguments;
    va_start(arguments, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, arguments);
    va_end(arguments);
    qvm_fatal_text(src, text);
}

#ifdef __cplusplus
}
#endif

#else
#include <qvm/outpipe.h>
#endif

#endif
