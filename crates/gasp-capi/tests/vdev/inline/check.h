/* A host that records what the headers' own functions pass to it. */
#include <qvm/vdev-core.h>

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                      \
    ((condition) ? (void)0                                                                    \
                 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), exit(1)))

static qvm_log_level_t last_level;
static const vdev_t *last_vdev;
static qvm_log_source_t last_source;
static char last_text[2 * QVM_LOG_TEXT_MAX];
static int calls;
static jmp_buf after_fatal;

void vdev_log_text(qvm_log_level_t level, const vdev_t *vdp, const char *text)
{
    calls++;
    last_level = level;
    last_vdev = vdp;
    strcpy(last_text, text);
}

void qvm_report_text(const char *text)
{
    calls++;
    strcpy(last_text, text);
}

void qvm_fatal_text(qvm_log_source_t source, const char *text)
{
    calls++;
    last_source = source;
    strcpy(last_text, text);
    longjmp(after_fatal, 1);
}

/* Whether a statement ends by qvm_fatal_text(). */
#define IS_FATAL(statement) (setjmp(after_fatal) != 0 ? 1 : ((void)(statement), 0))

static vdev_t *const some_vdev = (vdev_t *)0x1000;

static void statuses_of_errors(void)
{
    CHECK(guest_cpu_to_vrs(EOK) == VRS_NORMAL);
    CHECK(guest_cpu_to_vrs(-1) == VRS_BUS_ERROR);
    CHECK(guest_cpu_to_vrs(EFAULT) == (vdev_ref_status_t)(VRS_ERRNO + EFAULT));
}

static void a_report_is_formatted_and_cut_off(void)
{
    qvm_report("%s %d", "counter", 7);
    CHECK(strcmp(last_text, "counter 7") == 0);
    qvm_report("%*d", 3 * QVM_LOG_TEXT_MAX, 7);
    CHECK(strlen(last_text) == QVM_LOG_TEXT_MAX - 1);
}
