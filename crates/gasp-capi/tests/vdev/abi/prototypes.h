/*
 * The functions that have one prototype in both editions. Those of each edition are listed again
 * as pointers, whose symbols the test compares with symbols.txt.
 */
#include <qvm/vdev-core.h>

#include <qvm/cdev.h>
#include <qvm/utils.h>
#include <qvm/vpci.h>
#include <qvm/wdog.h>

#include "expect.h"

IS(vdev_register_factory, void (*)(struct vdev_factory *, unsigned));
IS(vdev_thread_create, int (*)(const vdev_t *, const char *, pthread_t *, pthread_attr_t *,
                               void *(*)(void *), void *));
IS(vdev_pulse, void (*)(vdev_t *, int8_t, int, struct sigevent *, int));
IS(vdev_pulse_deliver, int (*)(const struct sigevent *));
IS(vdev_string, int (*)(char *, size_t, const vdev_t *));
IS(vdev_path, int (*)(char *, size_t, const vdev_t *));

IS(guest_cpu_to_vrs, vdev_ref_status_t (*)(int));
IS(guest_intr_level, int (*)(const guest_intr_t *));
IS(guest_intr_num_pins, unsigned (*)(const vdev_t *));
IS(guest_intr_string, size_t (*)(const guest_intr_t *, char *, size_t));
IS(guest_intr_notify, void (*)(const vdev_t *, unsigned, guest_intr_notifications_t));
IS(guest_timer_create, struct guest_timer *(*)(const struct guest_cpu *, const vdev_t *,
                                               const void *, uint64_t *));
IS(guest_timer_notify,
   int (*)(struct guest_timer *, const struct guest_timer_data *, uint64_t));
IS(guest_timer_state, void (*)(const struct guest_timer *, struct guest_timer_data *));
IS(guest_clock_start, void (*)(void));
IS(guest_clock_stop, void (*)(void));
IS(guest_button_register, int (*)(vdev_t *));
IS(guest_instr_register,
   int (*)(vdev_t *, guest_instr_type_t, unsigned, guest_instr_callback_func_t *));
SAME(guest_instr_callback_func_t,
     vdev_ref_status_t(vdev_t *, struct guest_cpu *, guest_instr_type_t, unsigned));
IS(guest_power_state_notify_delete, void (*)(struct guest_power_state_notify *));
IS(guest_power_state_notify_register,
   void (*)(struct guest_power_state_notify *, guest_power_state_cmd_t, unsigned, uint64_t,
            uint64_t, guest_power_state_callback_func_t *, void *));
SAME(guest_power_state_callback_func_t, void(struct guest_power_state_notify *, void *));

IS(vdev_log_text, void (*)(uint32_t, const vdev_t *, const char *));
IS(qvm_report_text, void (*)(const char *));
IS(qvm_fatal_text, void (*)(uint32_t, const char *));
IS(qvm_report, void (*)(const char *, ...));

IS(vpci_cfg_read, unsigned (*)(const void *, const struct qvm_slice_descriptor *,
                               const struct qvm_state_block *, void *,
                               const struct _pci_config_regs *));
IS(vpci_cfg_write, unsigned (*)(void *, const struct qvm_slice_descriptor *,
                                const struct qvm_state_block *, const void *));
IS(vpci_ctrl_pci_bars, int (*)(struct vpci_rw_state *, const char *));
IS(vpci_region_update, void (*)(vdev_t *, struct vpci_rw_state *));

IS(cdev_control, int (*)(struct cdev_state *, unsigned, const char *));
IS(cdev_setup, int (*)(struct cdev_state *, struct vdev_s *, unsigned));
IS(cdev_input_receive, int (*)(struct cdev_state *));
IS(cdev_read, int (*)(struct cdev_state *, void *, unsigned));
IS(cdev_write, int (*)(struct cdev_state *, const void *, unsigned));
IS(cdev_write_buffer, int (*)(struct cdev_state *));
IS(cdev_output_empty, int (*)(const struct cdev_state *));
IS(cdev_output_full, int (*)(const struct cdev_state *));
IS(cdev_output_busy, int (*)(const struct cdev_state *));
IS(cdev_output_num_pending, unsigned (*)(const struct cdev_state *));
IS(cdev_input_available, int (*)(const struct cdev_state *));
IS(cdev_input_num_available, unsigned (*)(const struct cdev_state *));

IS(wdog_bite, void (*)(struct wdog_state *));
IS(wdog_parse_action, int (*)(struct wdog_state *, const char *));
IS(wdog_init, void (*)(struct wdog_state *, vdev_t *));

typedef void (*any_function)(void);
#define BOTH_EDITIONS                                                                         \
    (any_function)vdev_register_factory, (any_function)vdev_thread_create,                    \
        (any_function)vdev_pulse, (any_function)vdev_pulse_deliver,                           \
        (any_function)vdev_string, (any_function)vdev_path, (any_function)guest_intr_signal,  \
        (any_function)guest_cpu_read, (any_function)guest_cpu_write,                          \
        (any_function)guest_write_all_ones, (any_function)guest_intr_assign,                  \
        (any_function)guest_intr_level, (any_function)guest_intr_num_pins,                    \
        (any_function)guest_intr_string, (any_function)guest_intr_notify,                     \
        (any_function)guest_msi_signal, (any_function)guest_timer_create,                     \
        (any_function)guest_timer_notify, (any_function)guest_timer_state,                    \
        (any_function)guest_clock_start, (any_function)guest_clock_stop,                      \
        (any_function)guest_terminate, (any_function)guest_button_register,                   \
        (any_function)guest_instr_register, (any_function)guest_power_state_current,          \
        (any_function)guest_power_state_notify_create,                                        \
        (any_function)guest_power_state_notify_delete,                                        \
        (any_function)guest_power_state_notify_register, (any_function)guest_write_core_file, \
        (any_function)vdev_log_text, (any_function)qvm_report_text,                           \
        (any_function)qvm_fatal_text, (any_function)qvm_parse_block,                          \
        (any_function)vpci_cfg_read, (any_function)vpci_cfg_write,                            \
        (any_function)vpci_ctrl_pci_bars, (any_function)vpci_region_update,                   \
        (any_function)cdev_control, (any_function)cdev_setup,                                 \
        (any_function)cdev_input_receive, (any_function)cdev_read, (any_function)cdev_write,  \
        (any_function)cdev_write_buffer, (any_function)wdog_bite,                             \
        (any_function)wdog_parse_action, (any_function)wdog_init
extern const any_function all[];
