/* The structures and types of 8.0. */
#include "layouts.h"

SAME(guest_intr_t, struct guest_intr);
SAME(guest_intr_state_t, uint32_t);
SAME(guest_intr_notifications_t, uint32_t);
SAME(guest_intr_assign_type_t, uint32_t);
SAME(guest_cpu_access_flags_t, uint32_t);
SAME(guest_instr_type_t, uint32_t);
SAME(guest_power_state_cmd_t, uint32_t);
SAME(guest_termination_cause_t, int);
SAME(vdev_ref_status_t, uint32_t);
SAME(vdev_ctrl_options_t, uint32_t);
SAME(vdev_factory_flags_t, uint32_t);
SAME(qvm_log_level_t, uint32_t);
SAME(qvm_log_source_t, uint32_t);

SIZE(struct vdev_s, 96 + sizeof(pthread_mutex_t));
MEMBER(struct vdev_s, v_factory, 8, const struct vdev_factory *);

typedef vdev_ref_status_t (*access_callback)(vdev_t *, unsigned, const struct qvm_state_block *,
                                             const struct qvm_state_block *, struct guest_cpu *);
#define FACTORY(member, offset, of) MEMBER(struct vdev_factory, member, offset, of)
SIZE(struct vdev_factory, 88);
FACTORY(next, 0, struct vdev_factory *);
FACTORY(control, 8, int (*)(vdev_t *, vdev_ctrl_options_t, const char *));
FACTORY(vread, 16, access_callback);
FACTORY(vwrite, 24, access_callback);
FACTORY(pulse, 32, int (*)(vdev_t *, const struct _pulse *));
FACTORY(timer, 40,
        void (*)(vdev_t *, void *, const struct guest_timer_data *, struct guest_cpu *));
FACTORY(pic, 48, const struct vdev_pic_functions *);
FACTORY(option_list, 56, const char *const *);
FACTORY(name, 64, const char *);
FACTORY(factory_flags, 72, vdev_factory_flags_t);
FACTORY(acc_sizes, 76, unsigned);
FACTORY(extra_space, 80, unsigned);

MEMBER(struct vdev_pic_functions, signal, 8,
       int (*)(const guest_intr_t *, guest_intr_state_t));
MEMBER(struct vdev_pic_functions, notify, 16,
       void (*)(const guest_intr_t *, guest_intr_notifications_t));
SIZE(struct vpci_bar, 64);
