/*
 * The structures of both editions: size, and offset and type of each member. Those of the C
 * library have other sizes on other machines; the offsets after them are computed from theirs.
 */
#include <qvm/vdev-core.h>

#include <qvm/cdev.h>
#include <qvm/utils.h>
#include <qvm/vpci.h>
#include <qvm/wdog.h>

#include "expect.h"

SIZE(struct guest_intr, 16);
MEMBER(struct guest_intr, pic, 0, vdev_t *);
MEMBER(struct guest_intr, param, 8, unsigned);
MEMBER(struct guest_intr, src_id, 12, unsigned);

SIZE(struct qvm_sched_info, 32);
MEMBER(struct qvm_sched_info, policy, 0, int32_t);
MEMBER(struct qvm_sched_info, priority, 4, int32_t);
MEMBER(struct qvm_sched_info, reserved, 8, uint32_t[6]);

/* The hosts write v_gsp and v_block.location without knowing the edition. */
#define BLOCK sizeof(struct qvm_state_block)
SIZE(struct vdev_s, 24 + BLOCK + 16 + sizeof(pthread_mutex_t) + 32);
MEMBER(struct vdev_s, v_device, 0, void *);
MEMBER(struct vdev_s, v_gsp, 16, struct guest_system *);
MEMBER(struct vdev_s, v_block, 24, struct qvm_state_block);
MEMBER(struct vdev_s, v_block.location, 24, uint64_t);
MEMBER(struct vdev_s, v_intr, 24 + BLOCK, struct guest_intr);
MEMBER(struct vdev_s, v_mtx, 40 + BLOCK, pthread_mutex_t);
MEMBER(struct vdev_s, v_sched, 40 + BLOCK + sizeof(pthread_mutex_t), struct qvm_sched_info);

SIZE(struct guest_timer_data, 32);
MEMBER(struct guest_timer_data, host_notify_start, 0, uint64_t);
MEMBER(struct guest_timer_data, host_current, 8, uint64_t);
MEMBER(struct guest_timer_data, guest_notify_start, 16, uint64_t);
MEMBER(struct guest_timer_data, guest_current, 24, uint64_t);

SIZE(struct _pulse, 24);
MEMBER(struct _pulse, type, 0, uint16_t);
MEMBER(struct _pulse, subtype, 2, uint16_t);
MEMBER(struct _pulse, code, 4, int8_t);
MEMBER(struct _pulse, zero, 5, uint8_t[3]);
MEMBER(struct _pulse, value, 8, union sigval);
MEMBER(struct _pulse, scoid, 16, int32_t);

SIZE(struct vdev_pic_functions, 48);
MEMBER(struct vdev_pic_functions, flags, 0, unsigned);
MEMBER(struct vdev_pic_functions, pnum_mask, 4, unsigned);
MEMBER(struct vdev_pic_functions, string, 32,
       size_t (*)(const struct guest_intr *, char *, size_t));
MEMBER(struct vdev_pic_functions, parse, 24,
       const char *(*)(struct guest_intr *, const char *));
MEMBER(struct vdev_pic_functions, table_spec, 40,
       ssize_t (*)(const struct guest_intr *, enum guest_table_spec_component, void *, size_t));

SIZE(struct qvm_slice_descriptor, 12);
MEMBER(struct qvm_slice_descriptor, writable, 0, uint32_t);
MEMBER(struct qvm_slice_descriptor, offset, 4, uint16_t);
MEMBER(struct qvm_slice_descriptor, store_offset, 6, uint16_t);
MEMBER(struct qvm_slice_descriptor, nbytes, 8, uint8_t);
MEMBER(struct qvm_slice_descriptor, spare, 9, uint8_t);
MEMBER(struct qvm_slice_descriptor, tag, 10, uint16_t);

#define REGION sizeof(struct gasp_region)
SIZE(struct vpci_bar, REGION + 16);
MEMBER(struct vpci_bar, vb_mapping, 0, struct gasp_region);
MEMBER(struct vpci_bar, vb_value, REGION, uint32_t);
MEMBER(struct vpci_bar, vb_value_upper, REGION + 4, uint32_t);
MEMBER(struct vpci_bar, vb_slice, REGION + 8, uint16_t);
MEMBER(struct vpci_bar, vb_breg, REGION + 10, uint16_t);

#define BARS (6 * sizeof(struct vpci_bar))
SIZE(struct vpci_rw_state, BARS + 16);
MEMBER(struct vpci_rw_state, bars, 0, struct vpci_bar[6]);
MEMBER(struct vpci_rw_state, rom_bar, BARS, uint32_t);
MEMBER(struct vpci_rw_state, command, BARS + 4, uint16_t);
MEMBER(struct vpci_rw_state, cache_line_size, BARS + 6, uint8_t);
MEMBER(struct vpci_rw_state, latency_timer, BARS + 7, uint8_t);
MEMBER(struct vpci_rw_state, interrupt_line, BARS + 8, uint8_t);
MEMBER(struct vpci_rw_state, reserved, BARS + 9, uint8_t[7]);

/* As the registers are in configuration space. */
#define REGISTER(member, offset, of) MEMBER(struct _pci_config_regs, member, offset, of)
SIZE(struct _pci_config_regs, PCI_CFG_SIZE);
REGISTER(vendor_id, PCI_REG_VENDOR_ID, uint16_t);
REGISTER(device_id, PCI_REG_DEVICE_ID, uint16_t);
REGISTER(command, PCI_REG_COMMAND, uint16_t);
REGISTER(status, PCI_REG_STATUS, uint16_t);
REGISTER(revision_id, PCI_REG_REVISION_ID, uint8_t);
REGISTER(class_code, PCI_REG_CLASS_CODE, uint8_t[3]);
REGISTER(cache_line_size, PCI_REG_CACHE_LINE_SIZE, uint8_t);
REGISTER(latency_timer, PCI_REG_LATENCY_TIMER, uint8_t);
REGISTER(header_type, PCI_REG_HEADER_TYPE, uint8_t);
REGISTER(bist, PCI_REG_BIST, uint8_t);
REGISTER(bar, PCI_REG_BAR(0), uint32_t[6]);
REGISTER(cardbus_cis, PCI_REG_CARDBUS_CIS, uint32_t);
REGISTER(subsystem_vendor, PCI_REG_SUBSYSTEM_VENDOR, uint16_t);
REGISTER(subsystem_id, PCI_REG_SUBSYSTEM_ID, uint16_t);
REGISTER(rom_bar, PCI_REG_ROM_BAR, uint32_t);
REGISTER(capabilities, PCI_REG_CAPABILITIES, uint8_t);
REGISTER(interrupt_line, PCI_REG_INTERRUPT_LINE, uint8_t);
REGISTER(interrupt_pin, PCI_REG_INTERRUPT_PIN, uint8_t);
REGISTER(min_gnt, PCI_REG_MIN_GNT, uint8_t);
REGISTER(max_lat, PCI_REG_MAX_LAT, uint8_t);
REGISTER(device, 0x40, uint8_t[0xc0]);

SIZE(struct qvm_callback, 16);
#define CDEV(member, offset, of) MEMBER(struct cdev_state, member, offset, of)
#define CDEV_EVENTS ((116 + sizeof(struct termios) + 7) / 8 * 8)
SIZE(struct cdev_state, CDEV_EVENTS + 2 * sizeof(struct sigevent));
CDEV(cb, 0, struct qvm_callback);
CDEV(vdev, 16, vdev_t *);
CDEV(in.name, 24, const char *);
CDEV(in.buff, 32, uint8_t *);
CDEV(in.size, 40, unsigned);
CDEV(in.avail, 44, unsigned);
CDEV(in.pos, 48, unsigned);
CDEV(in.fd, 52, int);
CDEV(out.name, 56, const char *);
CDEV(out.buff, 64, uint8_t *);
CDEV(out.size, 72, unsigned);
CDEV(out.begin, 76, unsigned);
CDEV(out.pos, 80, unsigned);
CDEV(out.fd, 84, int);
CDEV(out.flush_timer, 88, timer_t);
CDEV(out.flush_timeout, 96, long);
CDEV(save_termio, 104, struct termios);
CDEV(delayed_count, 104 + sizeof(struct termios), unsigned);
CDEV(flags, 108 + sizeof(struct termios), unsigned);
CDEV(priority, 112 + sizeof(struct termios), int);
CDEV(ev_in, CDEV_EVENTS, struct sigevent);
CDEV(ev_out, CDEV_EVENTS + sizeof(struct sigevent), struct sigevent);

SIZE(struct wdog_state, 32);
MEMBER(struct wdog_state, ws_vdev, 0, vdev_t *);
MEMBER(struct wdog_state, ws_action, 8, unsigned);
MEMBER(struct wdog_state, ws_flags, 12, unsigned);
MEMBER(struct wdog_state, ws_reserved, 16, uint64_t[2]);

SAME(iov_t, struct iovec);
