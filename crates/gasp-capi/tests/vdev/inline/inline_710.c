/* The functions that the headers of 7.x define. */
#include "check.h"

#include <qvm/outpipe.h>

static void attributes_have_a_level_and_a_source(void)
{
    CHECK(qvm_outpipe_level(QVM_OUTF_QVM) == QL_QVM_FATAL);
    CHECK(qvm_outpipe_level(QVM_OUTN_QVM) == QL_QVM_INTERNAL);
    CHECK(qvm_outpipe_level(QVM_OUTE_QVM) == QL_QVM_ERR);
    CHECK(qvm_outpipe_level(QVM_OUTW_QVM) == QL_QVM_WARN);
    CHECK(qvm_outpipe_level(QVM_OUTI_QVM) == QL_QVM_INFO);
    CHECK(qvm_outpipe_level(QVM_OUTD_QVM) == QL_QVM_DEBUG);
    CHECK(qvm_outpipe_level(QVM_OUTV_QVM) == QL_QVM_VERBOSE);
    CHECK(qvm_outpipe_level(QVM_OUTE_CNF) == QL_CNF_ERR);
    CHECK(qvm_outpipe_level(QVM_OUTW_GST) == QL_QVM_WARN);
    CHECK(qvm_outpipe_level(QVM_OUTW_QVM | QVM_OUTE_QVM) == QL_QVM_ERR);
    CHECK(qvm_outpipe_level(0) == QL_QVM_INFO);
    CHECK(qvm_outpipe_level(0x80000000u) == QL_QVM_INFO);
    CHECK(qvm_outpipe_source(QVM_OUTE_CNF) == QLS_CNF);
    CHECK(qvm_outpipe_source(QVM_OUTE_GST) == QLS_GST);
    CHECK(qvm_outpipe_source(QVM_OUTE_QVM) == QLS_QVM);
    CHECK(qvm_outpipe_source(QVM_OUTN_QVM) == QLS_INT);
}

static void messages_have_the_level_the_vdev_and_the_text(void)
{
    vdev_logf(QVM_OUTW_QVM, some_vdev, "%s=%u", "x", 5u);
    CHECK(last_level == QL_QVM_WARN && last_vdev == some_vdev);
    CHECK(strcmp(last_text, "x=5") == 0);
    qvm_logf(QVM_OUTI_QVM, "%d", 1);
    CHECK(last_level == QL_QVM_INFO && last_vdev == NULL && strcmp(last_text, "1") == 0);
    qvm_outf(QVM_OUTE_CNF, "%d", 2);
    CHECK(last_level == QL_CNF_ERR && last_vdev == NULL && strcmp(last_text, "2") == 0);
}

static void fatal_messages_do_not_return(void)
{
    CHECK(IS_FATAL(qvm_outf(QVM_OUTF_QVM, "%d", 3)));
    CHECK(last_source == QLS_QVM && strcmp(last_text, "3") == 0);
    CHECK(IS_FATAL(vdev_logf(QVM_OUTF_GST, some_vdev, "%d", 4)));
    CHECK(last_source == QLS_GST && strcmp(last_text, "4") == 0);
    CHECK(IS_FATAL(qvm_outff(QVM_OUTI_QVM, "%d", 5)));
    CHECK(strcmp(last_text, "5") == 0);
    CHECK(IS_FATAL(qvm_fatal(QVM_OUTE_CNF, "%d", 6)));
    CHECK(last_source == QLS_CNF && strcmp(last_text, "6") == 0);
    CHECK(!IS_FATAL(qvm_logf(QVM_OUTN_QVM, "%d", 7)));
}

int main(void)
{
    statuses_of_errors();
    a_report_is_formatted_and_cut_off();
    attributes_have_a_level_and_a_source();
    messages_have_the_level_the_vdev_and_the_text();
    fatal_messages_do_not_return();
    return 0;
}
