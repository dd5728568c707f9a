/* The functions of 7.x. */
#include "prototypes.h"

#include <qvm/outpipe.h>

IS(guest_cpu_read, int (*)(struct guest_cpu *, unsigned, const struct qvm_state_block *,
                           unsigned, void *, unsigned));
IS(guest_cpu_write, int (*)(struct guest_cpu *, unsigned, const struct qvm_state_block *,
                            unsigned, const void *, unsigned));
IS(guest_write_all_ones,
   int (*)(struct guest_cpu *, unsigned, const struct qvm_state_block *));
IS(guest_intr_signal, int (*)(const struct guest_intr *, enum guest_intr_state));
IS(guest_intr_assign,
   void (*)(vdev_t *, unsigned, enum guest_intr_assign_type, struct guest_intr *));
IS(guest_msi_signal, int (*)(const vdev_t *, uint64_t, unsigned));
IS(guest_msi_register,
   void (*)(vdev_t *, uint64_t, uint64_t, guest_msi_deliver_func_t *, unsigned));
SAME(guest_msi_deliver_func_t, void(vdev_t *, const vdev_t *, uint64_t, unsigned, unsigned));
IS(guest_terminate, void (*)(struct guest_system *, guest_termination_cause_t));
IS(guest_power_state_current, int (*)(struct guest_system *, enum guest_power_state_cmd,
                                      unsigned, unsigned, uint64_t *));
IS(guest_power_state_notify_create,
   struct guest_power_state_notify *(*)(struct guest_system *));
IS(guest_write_core_file, int (*)(struct guest_system *, const char *));

IS(qvm_outpipe_source, qvm_log_source_t (*)(unsigned));
IS(qvm_outpipe_level, qvm_log_level_t (*)(unsigned));
IS(qvm_outpipe_text, void (*)(unsigned, const vdev_t *, const char *));
IS(qvm_voutf, void (*)(unsigned, const char *, va_list));
IS(qvm_logf, void (*)(unsigned, const char *, ...));
IS(qvm_outf, void (*)(unsigned, const char *, ...));
IS(qvm_outff, void (*)(unsigned, const char *, ...));
IS(qvm_fatal, void (*)(unsigned, const char *, ...));
IS(vdev_logf, void (*)(unsigned, const vdev_t *, const char *, ...));

IS(qvm_parse_block, char *(*)(const char *, struct qvm_state_block *, int *));
IS(qvm_parse_intr, char *(*)(const struct guest_system *, const char *, struct guest_intr *));

const any_function all[] = {
    BOTH_EDITIONS,
    (any_function)guest_msi_register,
    (any_function)qvm_parse_intr,
};
