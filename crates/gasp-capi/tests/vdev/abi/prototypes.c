/* The functions of 8.0. */
#include "prototypes.h"

IS(guest_cpu_read, int (*)(struct guest_cpu *, guest_cpu_access_flags_t,
                           const struct qvm_state_block *, unsigned, void *, size_t));
IS(guest_cpu_write, int (*)(struct guest_cpu *, guest_cpu_access_flags_t,
                            const struct qvm_state_block *, unsigned, const void *, size_t));
IS(guest_write_all_ones, int (*)(struct guest_cpu *, guest_cpu_access_flags_t,
                                 const struct qvm_state_block *));
IS(guest_intr_signal, errno_t (*)(guest_intr_t *, guest_intr_state_t));
IS(guest_intr_assign, void (*)(guest_intr_t *, guest_intr_assign_type_t, vdev_t *, unsigned));
IS(guest_intr_assign_auto, void (*)(guest_intr_t *, guest_intr_assign_type_t));
IS(guest_intr_from_conf_str, char *(*)(guest_intr_t *, char *));
IS(guest_msi_signal, void (*)(vdev_t *, uint64_t, unsigned));
IS(guest_msi_register_range,
   errno_t (*)(vdev_t *, uint64_t, uint64_t, guest_msi_deliver_cb_t *, uint32_t));
SAME(guest_msi_deliver_cb_t, void(vdev_t *, const vdev_t *, uint64_t, uint32_t, uint32_t));
IS(guest_terminate, void (*)(guest_termination_cause_t));
IS(guest_power_state_current,
   int (*)(guest_power_state_cmd_t, unsigned, unsigned, uint64_t *));
IS(guest_power_state_notify_create, struct guest_power_state_notify *(*)(void));
IS(guest_write_core_file, int (*)(const char *));

IS(vdev_logf, void (*)(qvm_log_level_t, const vdev_t *, const char *, ...));
IS(qvm_fatal, void (*)(qvm_log_source_t, const char *, ...));

IS(qvm_parse_block, char *(*)(const char *, struct qvm_state_block *));

const any_function all[] = {
    BOTH_EDITIONS,
    (any_function)guest_intr_assign_auto,
    (any_function)guest_intr_from_conf_str,
    (any_function)guest_msi_register_range,
};
