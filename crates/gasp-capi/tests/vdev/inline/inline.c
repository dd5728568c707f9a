/* The functions that the headers of 8.0 define. */
#include "check.h"

#include <qvm/cdev.h>
#include <qvm/vpci.h>

static void messages_have_the_level_the_vdev_and_the_text(void)
{
    vdev_logf(QL_QVM_ERR, some_vdev, "%s=%u", "x", 5u);
    CHECK(last_level == QL_QVM_ERR && last_vdev == some_vdev);
    CHECK(strcmp(last_text, "x=5") == 0);
    CHECK(IS_FATAL(qvm_fatal(QLS_CNF, "no %s", "loc")));
    CHECK(last_source == QLS_CNF && strcmp(last_text, "no loc") == 0);
    CHECK(calls == 4);
}

static void buffers_of_a_character_device(void)
{
    struct cdev_state cds;
    memset(&cds, 0, sizeof(cds));
    CHECK(cdev_output_empty(&cds) && !cdev_output_full(&cds) && !cdev_output_busy(&cds));
    CHECK(!cdev_input_available(&cds) && cdev_input_num_available(&cds) == 0);
    cds.out.size = 8;
    cds.out.begin = 2;
    cds.out.pos = 8;
    CHECK(cdev_output_num_pending(&cds) == 6 && cdev_output_busy(&cds));
    CHECK(!cdev_output_empty(&cds) && !cdev_output_full(&cds));
    cds.out.begin = 0;
    CHECK(cdev_output_num_pending(&cds) == 8 && cdev_output_full(&cds));
    cds.out.begin = 9; /* Seen between two changes: nothing, and not 4 GiB. */
    CHECK(cdev_output_num_pending(&cds) == 0);
    cds.in.size = 8;
    cds.in.pos = 3;
    cds.in.avail = 5;
    CHECK(cdev_input_num_available(&cds) == 2 && cdev_input_available(&cds));
    cds.in.pos = 6;
    CHECK(cdev_input_num_available(&cds) == 0 && !cdev_input_available(&cds));
}

static void slices_of_a_configuration_space(void)
{
    static const struct qvm_slice_descriptor slices[] = {
        VPCI_SLICE_COMMAND,       VPCI_SLICE_CACHE_LINE_SIZE, VPCI_SLICE_LATENCY_TIMER,
        VPCI_SLICE_INTERRUPT_LINE, VPCI_SLICE_BAR(2, 0x4000),  VPCI_SLICE_BAR_UPPER(2),
        VPCI_SLICE_END,
    };
    const size_t bar = offsetof(struct vpci_rw_state, bars) + 2 * sizeof(struct vpci_bar);
    CHECK(slices[0].offset == 4 && slices[0].nbytes == 2 && slices[0].writable == 0x547);
    CHECK(slices[0].store_offset == offsetof(struct vpci_rw_state, command));
    CHECK(slices[1].offset == 0x0c && slices[1].nbytes == 1 && slices[1].writable == 0xff);
    CHECK(slices[1].store_offset == offsetof(struct vpci_rw_state, cache_line_size));
    CHECK(slices[2].offset == 0x0d && slices[2].nbytes == 1 && slices[2].writable == 0xff);
    CHECK(slices[2].store_offset == offsetof(struct vpci_rw_state, latency_timer));
    CHECK(slices[3].offset == 0x3c && slices[3].nbytes == 1 && slices[3].writable == 0xff);
    CHECK(slices[3].store_offset == offsetof(struct vpci_rw_state, interrupt_line));
    CHECK(slices[4].offset == 0x18 && slices[4].nbytes == 4);
    CHECK(slices[4].writable == 0xffffc000u);
    CHECK(slices[4].store_offset == bar + offsetof(struct vpci_bar, vb_value));
    CHECK(slices[5].offset == 0x1c && slices[5].nbytes == 4);
    CHECK(slices[5].writable == 0xffffffffu);
    CHECK(slices[5].store_offset == bar + offsetof(struct vpci_bar, vb_value_upper));
    CHECK(slices[6].nbytes == 0);
}

static void pieces_of_memory(void)
{
    char bytes[4];
    iov_t piece;
    SETIOV(&piece, bytes, sizeof(bytes));
    CHECK(GETIOVBASE(&piece) == bytes && GETIOVLEN(&piece) == 4);
}

int main(void)
{
    statuses_of_errors();
    a_report_is_formatted_and_cut_off();
    messages_have_the_level_the_vdev_and_the_text();
    buffers_of_a_character_device();
    slices_of_a_configuration_space();
    pieces_of_memory();
    return 0;
}
