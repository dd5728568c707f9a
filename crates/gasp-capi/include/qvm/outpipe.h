/*
 * <qvm/outpipe.h>: messages of virtual devices, 7.x. 8.0 has <qvm/log.h> instead, which this
 * header includes.
 *
 * A message has an attribute of 32 bits: in bits 24 to 31 its label (one bit of importance), in
 * bits 16 to 23 a code for the exit status of the host: the source of the error (bits 20 to 23)
 * and its reason (bits 16 to 19). Offsets and masks of both, and the codes of enum qvm_outrs,
 * are published, and so are QVM_OUTAL_FATAL, QVM_OUTAL_INTERNAL, QVM_OUTI_QVM, QVM_OUTF_QVM and
 * QVM_OUTN_QVM as names. The other names, and the labels' bits, are [ours].
 *
 * Any phase, any thread, also with v_mtx locked. See <qvm/log.h> for the length of messages.
 */
#include <qvm/log.h>

#ifndef QVM_OUTPIPE_H
#define QVM_OUTPIPE_H

#if QVM_EDITION != 800

#ifdef __cplusplus
extern "C" {
#endif

#define QVM_OUTAL_OFFSET 24
#define QVM_OUTAL_MASK (0xffu << QVM_OUTAL_OFFSET)
#define QVM_OUTAL_TRIM(attr) (((attr) & QVM_OUTAL_MASK) >> QVM_OUTAL_OFFSET)
#define QVM_OUTAC_OFFSET 16
#define QVM_OUTAC_MASK (0xffu << QVM_OUTAC_OFFSET)
#define QVM_OUTAC_TRIM(attr) (((attr) & QVM_OUTAC_MASK) >> QVM_OUTAC_OFFSET)
#define QVM_OUTAC_SRC_MASK ((0xf0u << QVM_OUTAC_OFFSET) & QVM_OUTAC_MASK)
/* Errors of the host itself, and others. The values are [ours]. */
#define QVM_OUTAC_INT_MASK ((0x80u << QVM_OUTAC_OFFSET) & QVM_OUTAC_MASK)
#define QVM_OUTAC_EXT_MASK ((0x70u << QVM_OUTAC_OFFSET) & QVM_OUTAC_MASK)

/* Where the cause of an error is. */
enum qvm_outrs {
    QVM_OUTAC_INT = ((0x80u << QVM_OUTAC_OFFSET) & QVM_OUTAC_INT_MASK),   /* in the host */
    QVM_OUTAC_XCONF = ((0x40u << QVM_OUTAC_OFFSET) & QVM_OUTAC_EXT_MASK), /* outside of it */
    QVM_OUTAC_GST = ((0x20u << QVM_OUTAC_OFFSET) & QVM_OUTAC_EXT_MASK)    /* in the guest */
};

/* Labels: importance. */
#define QVM_OUTAL_FATAL (0x01u << QVM_OUTAL_OFFSET)
#define QVM_OUTAL_INTERNAL (0x02u << QVM_OUTAL_OFFSET)
#define QVM_OUTAL_ERROR (0x04u << QVM_OUTAL_OFFSET)
#define QVM_OUTAL_WARNING (0x08u << QVM_OUTAL_OFFSET)
#define QVM_OUTAL_INFO (0x10u << QVM_OUTAL_OFFSET)
#define QVM_OUTAL_DEBUG (0x20u << QVM_OUTAL_OFFSET)
#define QVM_OUTAL_VERBOSE (0x40u << QVM_OUTAL_OFFSET)

/* Labels with a source: of the host, of the configuration, of the guest. */
#define QVM_OUTF_QVM (QVM_OUTAL_FATAL | (unsigned)QVM_OUTAC_INT)
#define QVM_OUTN_QVM (QVM_OUTAL_INTERNAL | (unsigned)QVM_OUTAC_INT)
#define QVM_OUTE_QVM (QVM_OUTAL_ERROR | (unsigned)QVM_OUTAC_INT)
#define QVM_OUTW_QVM (QVM_OUTAL_WARNING | (unsigned)QVM_OUTAC_INT)
#define QVM_OUTI_QVM (QVM_OUTAL_INFO | (unsigned)QVM_OUTAC_INT)
#define QVM_OUTD_QVM (QVM_OUTAL_DEBUG | (unsigned)QVM_OUTAC_INT)
#define QVM_OUTV_QVM (QVM_OUTAL_VERBOSE | (unsigned)QVM_OUTAC_INT)
#define QVM_OUTF_CNF (QVM_OUTAL_FATAL | (unsigned)QVM_OUTAC_XCONF)
#define QVM_OUTN_CNF (QVM_OUTAL_INTERNAL | (unsigned)QVM_OUTAC_XCONF)
#define QVM_OUTE_CNF (QVM_OUTAL_ERROR | (unsigned)QVM_OUTAC_XCONF)
#define QVM_OUTW_CNF (QVM_OUTAL_WARNING | (unsigned)QVM_OUTAC_XCONF)
#define QVM_OUTI_CNF (QVM_OUTAL_INFO | (unsigned)QVM_OUTAC_XCONF)
#define QVM_OUTD_CNF (QVM_OUTAL_DEBUG | (unsigned)QVM_OUTAC_XCONF)
#define QVM_OUTV_CNF (QVM_OUTAL_VERBOSE | (unsigned)QVM_OUTAC_XCONF)
#define QVM_OUTF_GST (QVM_OUTAL_FATAL | (unsigned)QVM_OUTAC_GST)
#define QVM_OUTN_GST (QVM_OUTAL_INTERNAL | (unsigned)QVM_OUTAC_GST)
#define QVM_OUTE_GST (QVM_OUTAL_ERROR | (unsigned)QVM_OUTAC_GST)
#define QVM_OUTW_GST (QVM_OUTAL_WARNING | (unsigned)QVM_OUTAC_GST)
#define QVM_OUTI_GST (QVM_OUTAL_INFO | (unsigned)QVM_OUTAC_GST)
#define QVM_OUTD_GST (QVM_OUTAL_DEBUG | (unsigned)QVM_OUTAC_GST)
#define QVM_OUTV_GST (QVM_OUTAL_VERBOSE | (unsigned)QVM_OUTAC_GST)

/* The source of an attribute: a QLS_* of <qvm/log.h>. [ours] */
static inline qvm_log_source_t qvm_outpipe_source(unsigned attr)
{
    if ((attr & QVM_OUTAC_EXT_MASK) == (unsigned)QVM_OUTAC_XCONF)
        return QLS_CNF;
    if ((attr & QVM_OUTAC_EXT_MASK) == (unsigned)QVM_OUTAC_GST)
        return QLS_GST;
    return (attr & QVM_OUTAL_INTERNAL) != 0 ? QLS_INT : QLS_QVM;
}

/* The importance of an attribute: a QL_*, of the most important label; else QL_QVM_INFO. [ours] */
static inline qvm_log_level_t qvm_outpipe_level(unsigned attr)
{
    qvm_log_level_t level = QL_QVM_INFO;
    unsigned label = QVM_OUTAL_TRIM(attr) & 0x7fu;
    if (label != 0)
        for (level = QL_QVM_FATAL; (label & 1u) == 0; label >>= 1)
            level++;
    return qvm_outpipe_source(attr) == QLS_CNF ? 0x100u | level : level;
}

/* Logs a text for vdp, as vdev_logf() does. With a FATAL label it does not return. [ours] */
static inline void qvm_outpipe_text(unsigned attr, const vdev_t *vdp, const char *text)
{
    if ((attr & QVM_OUTAL_FATAL) != 0)
        qvm_fatal_text(qvm_outpipe_source(attr), text);
    vdev_log_text(qvm_outpipe_level(attr), vdp, text);
}

/*
 * Logs a message. With the label QVM_OUTAL_FATAL it ends as qvm_fatal() of <qvm/log.h>.
 */
__attribute__((format(printf, 2, 0))) static inline void
qvm_voutf(const unsigned int attr, const char *const fmt, va_list ap)
{
    char text[QVM_LOG_TEXT_MAX];
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    qvm_outpipe_text(attr, NULL, text);
}

/* As qvm_voutf(): qvm_logf() of 7.1 and qvm_outf() of 7.0, whose prototype is [ours]. */
__attribute__((format(printf, 2, 3))) static inline void
qvm_logf(const unsigned int attr, const char *const fmt, ...)
{
    va_list arguments;
    va_start(arguments, fmt);
    qvm_voutf(attr, fmt, arguments);
    va_end(arguments);
}
__attribute__((format(printf, 2, 3))) static inline void
qvm_outf(const unsigned int attr, const char *const fmt, ...)
{
    va_list arguments;
    va_start(arguments, fmt);
    qvm_voutf(attr, fmt, arguments);
    va_end(arguments);
}

/* As qvm_logf(), with the name of the vdev. Published for 7.1. */
__attribute__((format(printf, 3, 4))) static inline void
vdev_logf(const unsigned int attr, const vdev_t *const vdp, const char *const fmt, ...)
{
    char text[QVM_LOG_TEXT_MAX];
    va_list arguments;
    va_start(arguments, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, arguments);
    va_end(arguments);
    qvm_outpipe_text(attr, vdp, text);
}

/*
 * Ends with a message, whatever its label, as qvm_fatal() of <qvm/log.h>: qvm_fatal() of 7.1 and
 * qvm_outff() of 7.0. The prototypes are [ours].
 */
__attribute__((noreturn, format(printf, 2, 3))) static inline void
qvm_fatal(const unsigned int attr, const char *const fmt, ...)
{
    char text[QVM_LOG_TEXT_MAX];
    va_list arguments;
    va_start(arguments, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, arguments);
    va_end(arguments);
    qvm_fatal_text(qvm_outpipe_source(attr), text);
}
__attribute__((noreturn, format(printf, 2, 3))) static inline void
qvm_outff(const unsigned int attr, const char *const fmt, ...)
{
    char text[QVM_LOG_TEXT_MAX];
    va_list arguments;
    va_start(arguments, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, arguments);
    va_end(arguments);
    qvm_fatal_text(qvm_outpipe_source(attr), text);
}

#ifdef __cplusplus
}
#endif

#endif

#endif
