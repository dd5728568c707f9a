/* The structures and types of 7.x. */
#include "layouts.h"

SAME(guest_termination_cause_t, unsigned);
SAME(qvm_log_level_t, uint32_t);
SAME(qvm_log_source_t, uint32_t);

SIZE(struct vdev_s, 88 + sizeof(pthread_mutex_t));
MEMBER(struct vdev_s, v_factory, 8, struct vdev_factory *);

typedef enum vdev_ref_status (*access_callback)(vdev_t *, unsigned,
                                                const struct qvm_state_block *,
                                                const struct qvm_state_block *,
                                                struct guest_cpu *);
#define FACTORY(member, offset, of) MEMBER(struct vdev_factory, member, offset, of)
SIZE(struct vdev_factory, 88);
FACTORY(next, 0, struct vdev_factory *);
FACTORY(control, 8, int (*)(vdev_t *, unsigned, const char *));
FACTORY(vread, 16, access_callback);
FACTORY(vwrite, 24, access_callback);
FACTORY(pulse, 32, int (*)(vdev_t *, int8_t));
FACTORY(timer, 40,
        void (*)(vdev_t *, void *, const struct guest_timer_data *, struct guest_cpu *));
FACTORY(pic, 48, const struct vdev_pic_functions *);
FACTORY(option_list, 56, const char *const *);
FACTORY(name, 64, const char *);
FACTORY(factory_flags, 72, unsigned);
FACTORY(acc_sizes, 76, unsigned);
FACTORY(extra_space, 80, unsigned);
FACTORY(safety, 84, unsigned);

MEMBER(struct vdev_pic_functions, signal, 8,
       int (*)(const struct guest_intr *, enum guest_intr_state));
MEMBER(struct vdev_pic_functions, notify, 16,
       void (*)(const struct guest_intr *, enum guest_intr_notifications));
SIZE(struct vpci_bar, 56);
