/*
 * <qvm/guest.h>: a guest's processors, interrupts, timers and power, for virtual devices.
 *
 * Names, members, values and prototypes are those of the publicly documented virtual device
 * API of the QNX Hypervisor. What is not documented publicly, and so is our own choice, is
 * marked [ours]; what is not documented, but used by public sources of virtual devices, is
 * marked [seen]. A question in quotes is a row of the table of vdevs of docs/decisions.md.
 *
 * These functions are not in libgasp: they are in the program that hosts the vdev (`gasp vm`,
 * `gasp serve`, or another that uses the crate gasp-qvm), and are found there when it loads the
 * vdev. Nothing is linked with a vdev.
 *
 * | functions                                              | phase            | threads |
 * |--------------------------------------------------------|------------------|---------|
 * | guest_cpu_read, guest_cpu_write, guest_write_all_ones  | running          | with a gcp the callback's |
 * | guest_intr_signal, guest_intr_notify, guest_msi_signal | running          | any     |
 * | guest_intr_assign*, guest_intr_from_conf_str           | startup          | any     |
 * | guest_intr_level, guest_intr_num_pins                  | startup          | any     |
 * | guest_intr_string                                      | startup, running | any     |
 * | guest_msi_register*, guest_instr_register, guest_button_register | startup | any    |
 * | guest_timer_create                                     | startup          | any     |
 * | guest_timer_notify, guest_timer_state, guest_clock_*   | running          | any     |
 * | guest_power_state_*, guest_terminate, guest_write_core_file | startup, running | any |
 *
 * The running phase begins with VDEV_CTRL_GUEST_CONFIGURED. "Any" thread: also with v_mtx
 * locked; no call waits for the guest or for another vdev.
 *
 * The guest of a call: that of the vdev that it takes or whose callback or thread makes it.
 * Elsewhere, as <qvm/gasp.h> says for calls that name none. [ours]
 *
 * Errors: functions that return int or errno_t return EOK or a positive error number, unless
 * noted. EINVAL includes that there is no such vdev, line or timer, or not any more.
 */
#include <qvm/posix.h>
#include <qvm/types.h>

#ifndef QVM_GUEST_H
#define QVM_GUEST_H

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Processors and memory -------------------------------------------------------------- */

/*
 * How guest_cpu_read() and guest_cpu_write() access the guest. Published for 7.0. Only
 * GXF_NONE and GXF_FLUSH have a meaning here: the virtual CPU of a callback is stopped, and
 * caches are coherent, so that both are the same; the others are ignored. [ours]
 */
enum guest_xfer_flags {
    GXF_NONE = 0x00000000,
    GXF_PAUSE = 0x00000001,   /* pause the virtual CPU before the transfer */
    GXF_UNPAUSE = 0x00000002, /* resume it after the transfer */
    GXF_ASYNC = 0x00000004,   /* do not wait for it */
    GXF_GDB = 0x00000008,     /* of the debugger's stub */
    GXF_FLUSH = 0x00000010    /* flush the data cache after the transfer */
};

#if QVM_EDITION == 800

/* A set of GXF_*. 32 bits wide [ours]. */
typedef uint32_t guest_cpu_access_flags_t;

/*
 * Copies data_len bytes between `data` and the nblks blocks of blk, one block after the other:
 * what a vwrite() receives (read) and what a vread() returns (write), if blk is the oopnd of the
 * callback.
 *
 * gcp   the virtual CPU of the callback; NULL for blocks that are not a CPU's
 * blk   QST_CPUREGS (oopnd), QST_MEMORY (the guest's memory as its processors see it: its IOMMU is
 *       not asked), QST_IMMEDIATE (read only). At most 1,024; if a block is shorter than what
 *       is left of the data, the next one has the rest
 *
 * Returns EOK, or
 *   -1       the guest gets an exception: return guest_cpu_to_vrs(-1) from the callback.
 *            Does not happen on x86
 *   EINVAL   a pointer is NULL, nblks is 0 or too many, a flag is unknown, gcp is not the virtual
 *            CPU of a callback of this thread, or a block has a type that cannot be accessed
 *            with it
 *   ENOTSUP  QST_VIRTUAL
 *   and those of gasp_map_firmware() of <qvm/gasp.h>
 * The errors are [ours].
 */
int guest_cpu_read(struct guest_cpu *gcp, guest_cpu_access_flags_t flags,
                   const struct qvm_state_block *blk, unsigned nblks, void *data,
                   size_t data_len);
int guest_cpu_write(struct guest_cpu *gcp, guest_cpu_access_flags_t flags,
                    const struct qvm_state_block *blk, unsigned nblks, const void *data,
                    size_t data_len);

/*
 * Writes ones to one block, as long as it is: the answer to a read of what does not exist.
 * Errors as above.
 */
int guest_write_all_ones(struct guest_cpu *gcp, guest_cpu_access_flags_t flags,
                         const struct qvm_state_block *blk);

#else

/* As in 8.0. */
int guest_cpu_read(struct guest_cpu *gcp, unsigned flags, const struct qvm_state_block *blk,
                   unsigned nblks, void *data, unsigned data_len)
    QVM_EDITION_710(guest_cpu_read);
int guest_cpu_write(struct guest_cpu *gcp, unsigned flags, const struct qvm_state_block *blk,
                    unsigned nblks, const void *data, unsigned data_len)
    QVM_EDITION_710(guest_cpu_write);
int guest_write_all_ones(struct guest_cpu *gcp, unsigned flags,
                         const struct qvm_state_block *blk)
    QVM_EDITION_710(guest_write_all_ones);

/* The 8.0 names of types, for the declarations below. [ours] */
typedef struct guest_intr guest_intr_t;
typedef enum guest_intr_state guest_intr_state_t;
typedef enum guest_intr_notifications guest_intr_notifications_t;
typedef enum vdev_ref_status vdev_ref_status_t;

#endif

/*
 * What a callback returns after a transfer: VRS_NORMAL for EOK, VRS_BUS_ERROR for -1, VRS_ERRNO
 * plus the number for an error. Any phase and thread. The prototype is [seen].
 */
static inline vdev_ref_status_t guest_cpu_to_vrs(int result)
{
    if (result == EOK)
        return VRS_NORMAL;
    return (vdev_ref_status_t)(result < 0 ? VRS_BUS_ERROR : VRS_ERRNO + result);
}

/* ---- Interrupts ---------------------------------------------------------------------------- */

/*
 * Sets the level of an interrupt line: GIS_ON asserts it, GIS_OFF deasserts it. A line stays
 * asserted until it is deasserted; of an edge-triggered line the guest gets one interrupt for
 * each change from off to on. Several vdevs can share a level-triggered line: it is asserted
 * while one of them asserts it.
 *
 * Returns EOK; EINVAL if gip is not a line that the host has assigned, or gis is not valid;
 * -ENOTSUP for GIS_ISR alone. 7.x: the prototype is [ours].
 */
#if QVM_EDITION == 800
errno_t guest_intr_signal(guest_intr_t *gip, guest_intr_state_t gis);
#else
int guest_intr_signal(const struct guest_intr *gip, enum guest_intr_state gis);
#endif

/*
 * How guest_intr_assign() assigns a pin. The type's name is published for 7.0 (with `enum`) and
 * 8.0 (with _t), its values are [ours].
 */
enum guest_intr_assign_type {
    GIAT_EXCLUSIVE, /* nobody else may have the pin */
    GIAT_SHARED     /* others that say so may have it, too */
};

#if QVM_EDITION == 800

/* A GIAT_*. 32 bits wide [ours]. */
typedef uint32_t guest_intr_assign_type_t;

/*
 * Assigns a pin of an interrupt controller to the vdev whose callback this is, and fills *gip
 * unless that is NULL. pic is the controller, NULL for the guest's default one [ours]; pnum its
 * pin. For VDEV_CTRL_ASSIGN, if the configuration has no `intr`.
 *
 * If that fails (no such controller or pin, or it is taken), the src_id of *gip is 0, and the
 * host refuses to start, with the vdev's name, unless the vdev assigns another. [ours]
 */
void guest_intr_assign(guest_intr_t *gip, guest_intr_assign_type_t type, vdev_t *pic,
                       unsigned pnum);

/* As guest_intr_assign(), with a pin that the host chooses: for what the guest can discover. */
void guest_intr_assign_auto(guest_intr_t *gip, guest_intr_assign_type_t type);

/*
 * Reads an interrupt as the configuration writes it, `pic:line`, and fills *gip unless that is
 * NULL. Returns the first character after it; NULL, with *gip unchanged, if str does not begin
 * with one, or the guest has no such line [ours].
 */
char *guest_intr_from_conf_str(guest_intr_t *gip, char *str);

#else

/* As guest_intr_assign() of 8.0. */
void guest_intr_assign(vdev_t *pic, unsigned pnum, enum guest_intr_assign_type type,
                       struct guest_intr *ip) QVM_EDITION_710(guest_intr_assign);

#endif

/*
 * Whether the line is level-triggered: 1, or 0 if it is edge-triggered; a negative error number
 * if it is not a line. The prototype is [ours].
 */
int guest_intr_level(const guest_intr_t *gip);

/*
 * The number of pins of an interrupt controller, NULL for the guest's default one; 0 if pic is
 * none. The prototype is [ours].
 */
unsigned guest_intr_num_pins(const vdev_t *pic);

/*
 * Writes the line as the configuration names it (`ioapic:9`) into the buf_len bytes at buf, with
 * a NUL. Returns the length without the NUL of all of it, also if buf is too short, or NULL with
 * a buf_len of 0. Allocates nothing. The prototype is [ours].
 */
size_t guest_intr_string(const guest_intr_t *gip, char *buf, size_t buf_len);

/*
 * For interrupt controllers: the guest has unmasked or acknowledged pin `param` of vdp. Nothing
 * happens if vdp is not one: the host's own controllers need no such call. [ours]
 */
void guest_intr_notify(const vdev_t *vdp, unsigned param, guest_intr_notifications_t gin);

#if QVM_EDITION == 800

/*
 * Sends the guest a message-signalled interrupt: `data` is written to `addr`, as the guest's MSI
 * or MSI-X capability says. Dropped if src is not a vdev [ours].
 */
void guest_msi_signal(vdev_t *src, uint64_t addr, unsigned data);

/* Receives an interrupt of the range `rangeid` of guest_msi_register_range(). */
typedef void guest_msi_deliver_cb_t(vdev_t *pic, const vdev_t *src, uint64_t addr,
                                    uint32_t data, uint32_t rangeid);
/*
 * Makes an interrupt controller the receiver of messages to [first, last]. Returns ENOTSUP: the
 * guest's controllers are the host's ("An interrupt controller as a vdev?"). The prototype is
 * [ours].
 */
errno_t guest_msi_register_range(vdev_t *pic, uint64_t first, uint64_t last,
                                 guest_msi_deliver_cb_t *deliver, uint32_t rangeid);

#else

/* As guest_msi_signal() of 8.0. Returns EOK; EINVAL if src is not a vdev. */
int guest_msi_signal(const vdev_t *src, uint64_t addr, unsigned data)
    QVM_EDITION_710(guest_msi_signal);

/* Receives an interrupt of guest_msi_register(). */
typedef void guest_msi_deliver_func_t(vdev_t *pic, const vdev_t *src, uint64_t paddr,
                                      unsigned data, unsigned cookie);
/*
 * Makes an interrupt controller the receiver of messages to addresses that equal paddr under
 * mask. Logs a line and does nothing, as guest_msi_register_range() of 8.0.
 */
void guest_msi_register(vdev_t *pic, uint64_t paddr, uint64_t mask,
                        guest_msi_deliver_func_t *deliver, unsigned cookie);

#endif

/* ---- Timers -------------------------------------------------------------------------------- */

/*
 * Two pairs of times, in ticks of the timer. host_* is a monotonic clock of the host, guest_* that
 * of the guest. Each begins anywhere: compare host times with host times only.
 */
struct guest_timer_data {
    uint64_t host_notify_start;  /* when guest_timer_notify() was called */
    uint64_t host_current;       /* now */
    uint64_t guest_notify_start; /* when guest_timer_notify() was called */
    uint64_t guest_current;      /* now */
};

/* A timer; opaque. It lives as long as its vdev [ours]. */
struct guest_timer;

/*
 * tdp of guest_timer_notify(): `deadline` is a time of the guest, and not an interval. The name
 * is published for 8.0, the value is [ours].
 */
#define GUEST_TIMER_ABSOLUTE ((const struct guest_timer_data *)UINTPTR_MAX)

/*
 * Creates a timer that calls the timer() of the vdev's factory with `data`.
 *
 * gcp           NULL. A timer for one virtual CPU is treated as one for all [ours]
 * resolutionp   out: the ticks per second of this timer [ours unit]
 *
 * Returns NULL on failure, with an error number in *resolutionp: EINVAL if vdp is not a vdev of a
 * host, ENOSYS if its factory has no timer(), ENOSPC if it has 64 timers, ENXIO if it is ending.
 * [ours]
 */
struct guest_timer *guest_timer_create(const struct guest_cpu *gcp, const vdev_t *vdp,
                                       const void *data, uint64_t *resolutionp);

/*
 * Has the timer call timer() once, when `deadline` ticks have passed in the guest. Replaces what
 * the timer waits for.
 *
 * tdp is NULL: from now; the data that timer() was called with: from when that was due, so that
 * a repeated timer does not drift; or GUEST_TIMER_ABSOLUTE: deadline is a time of the guest. A
 * deadline that has passed is due at once. A deadline of 0 with tdp NULL stops the timer [ours].
 *
 * timer() is called by a thread of the host, for one timer of a vdev at a time, with gcp NULL,
 * and without v_mtx locked [ours].
 *
 * Returns EOK; EINVAL if vtp is not a timer of a live vdev; ENXIO if that is ending; EAGAIN if
 * there can be no thread.
 */
int guest_timer_notify(struct guest_timer *vtp, const struct guest_timer_data *tdp,
                       uint64_t deadline);

/* Reads the clocks, and when the timer was last set; 0 if never, or if vtp is not a timer. */
void guest_timer_state(const struct guest_timer *vtp, struct guest_timer_data *tdp);

/*
 * Begin and end of a part of a callback that counts as the guest's own processor time. Nothing
 * happens: the time of callbacks is not taken from the guest here [ours]. 7.x: the prototypes
 * are [ours].
 */
void guest_clock_start(void);
void guest_clock_stop(void);

/* ---- Instructions -------------------------------------------------------------------------- */

/*
 * Instructions with a callback. Names with GIT_X86_ and GIT_ARM_ are published as a family;
 * these and the values are [ours]. Or'ed with GIT_FLAG_NO_QUALIFIER: any qualifier.
 */
enum guest_instr_type {
    GIT_X86_HLT = 1,
    GIT_X86_CPUID = 2,   /* the qualifier is the leaf */
    GIT_X86_RDMSR = 3,   /* the qualifier is the register, as for WRMSR */
    GIT_X86_WRMSR = 4,
    GIT_X86_VMCALL = 5,  /* the qualifier is the call's number */
    GIT_ARM_WFI = 0x100,
    GIT_ARM_HVC = 0x101, /* the qualifier is the immediate, as for SMC */
    GIT_ARM_SMC = 0x102,
    GIT_FLAG_NO_QUALIFIER = 0x10000
};

#if QVM_EDITION == 800
/* A GIT_*, with or without the flag. 32 bits wide [ours]. */
typedef uint32_t guest_instr_type_t;
#else
typedef enum guest_instr_type guest_instr_type_t; /* the name is [ours] */
#endif

/* Handles an instruction. VRS_CONTINUE: the host handles it as if there were no callback. */
typedef vdev_ref_status_t guest_instr_callback_func_t(vdev_t *vdp, struct guest_cpu *gcp,
                                                      guest_instr_type_t git,
                                                      unsigned qualifier);

/*
 * Registers a callback for an instruction of the guest. Returns EOK; EINVAL; EEXIST if the
 * instruction has one; ENOTSUP if the host's processor handles it without the host, which is so
 * for most ("Callbacks for instructions?").
 */
int guest_instr_register(vdev_t *vdp, guest_instr_type_t git, unsigned qualifier,
                         guest_instr_callback_func_t *func);

/* ---- Power --------------------------------------------------------------------------------- */

/*
 * Why a guest ends: the exit status of the host. The numbers of the causes are published (as exit
 * codes of qvm), and so are GTC_NORMAL_EXIT, GTC_CUSTOM_MIN and GTC_MAX as names; the other names
 * are [ours], and so is the value of GTC_NORMAL_EXIT, which ends the host with 0.
 */
enum guest_termination_causes {
    GTC_NORMAL_EXIT = 1,
    GTC_POWER_CUT = 3,    /* as if its power were cut */
    GTC_WATCHDOG = 4,     /* a watchdog has bitten */
    GTC_UNSUPPORTED = 5,  /* an operation that is not supported */
    GTC_VDEV_ERROR = 6,   /* an unexpected error of a vdev */
    GTC_ERROR = 7,        /* another unexpected error */
    GTC_CUSTOM_MIN = 32,  /* to GTC_MAX: a vdev's own */
    GTC_MAX = 63
};

/*
 * Ends the guest, without asking it. Vdevs get VDEV_CTRL_TERMINATE, and `gasp vm` exits with the
 * cause. Returns at once: a callback goes on to its end. From a callback or a thread of
 * vdev_thread_create(); elsewhere it is a line in the log. The prototypes are [ours].
 */
#if QVM_EDITION == 800
typedef int guest_termination_cause_t;
void guest_terminate(guest_termination_cause_t cause);
#else
typedef unsigned guest_termination_cause_t;
void guest_terminate(struct guest_system *gsp, guest_termination_cause_t cause)
    QVM_EDITION_710(guest_terminate);
#endif

/*
 * Makes vdp responsible for the power button: it asks the guest to shut down when it gets
 * VDEV_CTRL_BUTTON, as all vdevs do, and the host does not press its own button. Returns EOK or
 * EINVAL. The prototype is [ours].
 */
int guest_button_register(vdev_t *vdp);

/*
 * Sets of virtual CPUs, one bit each, and notifications. GPSC_WAIT and GPSC_OFF are published
 * names; the others, and the values, are [ours].
 */
enum guest_power_state_cmd {
    GPSC_WAIT = 0x1, /* those that wait for an interrupt */
    GPSC_OFF = 0x2,  /* those that are off, or have not started yet */
    GPSC_TO = 0x4,   /* notify when the condition becomes true */
    GPSC_FROM = 0x8  /* notify when it becomes false */
};

/* A request to be notified; opaque. */
struct guest_power_state_notify;

/* Called when the condition becomes true or false. By any thread: do not wait in it. [ours] */
typedef void guest_power_state_callback_func_t(struct guest_power_state_notify *qpnp,
                                               void *data);

/*
 * guest_power_state_current: the virtual CPUs in a state: GPSC_WAIT, GPSC_OFF, or both or'ed
 *   (in either state). `base` is 0, `result` has nresult elements. Returns the number of elements
 *   filled; a negative error number: -EINVAL, -ENOTSUP if the host does not know, as
 *   `gasp serve`, which has no virtual CPUs.
 * guest_power_state_notify_create: NULL with errno set on failure (ENOTSUP, ENOMEM). The
 *   prototype is [ours], and so is that of _delete.
 * guest_power_state_notify_register: func(qpnp, data) is called when (set & mask) == bits changes
 *   as `cmd` says. Errors are a line in the log.
 */
#if QVM_EDITION == 800
/* A set of GPSC_*. 32 bits wide [ours]. */
typedef uint32_t guest_power_state_cmd_t;
int guest_power_state_current(guest_power_state_cmd_t cmd, unsigned base, unsigned nresult,
                              uint64_t *result);
struct guest_power_state_notify *guest_power_state_notify_create(void);
#else
typedef enum guest_power_state_cmd guest_power_state_cmd_t; /* the name is [ours] */
int guest_power_state_current(struct guest_system *gsp, enum guest_power_state_cmd cmd,
                              unsigned base, unsigned nresult, uint64_t *result)
    QVM_EDITION_710(guest_power_state_current);
struct guest_power_state_notify *guest_power_state_notify_create(struct guest_system *gsp)
    QVM_EDITION_710(guest_power_state_notify_create);
#endif
void guest_power_state_notify_delete(struct guest_power_state_notify *qpnp);
void guest_power_state_notify_register(struct guest_power_state_notify *qpnp,
                                       guest_power_state_cmd_t cmd, unsigned base,
                                       uint64_t mask, uint64_t bits,
                                       guest_power_state_callback_func_t *func, void *data);

/*
 * Writes the guest's memory and registers to a file, NULL for where the configuration says.
 * Returns EOK, ENOTSUP if the host cannot, or an error of the file. The prototypes are [ours].
 */
#if QVM_EDITION == 800
int guest_write_core_file(const char *path);
#else
int guest_write_core_file(struct guest_system *gsp, const char *path)
    QVM_EDITION_710(guest_write_core_file);
#endif

#ifdef __cplusplus
}
#endif

#endif
