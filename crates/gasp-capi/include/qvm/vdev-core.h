/*
 * <qvm/vdev-core.h>: virtual devices: what a vdev is, and how a host calls it.
 *
 * Names, members, values and prototypes are those of the publicly documented virtual device
 * API of the QNX Hypervisor. What is not documented publicly, and so is our own choice, is
 * marked [ours]; what is not documented, but used by public sources of virtual devices, is
 * marked [seen]. A question in quotes is a row of the table of vdevs of docs/decisions.md.
 *
 * A vdev NAME is a shared object vdev-NAME.so, which nothing is linked with:
 *
 *   cc -shared -fPIC -o vdev-NAME.so NAME.c $(pkg-config --cflags gasp)
 *
 * Its undefined symbols are in the program that hosts it (`gasp vm`, `gasp serve`,
 * `gasp vdev check`, or another that uses the crate gasp-qvm). Those of this header and its
 * neighbours are not in libgasp. A host loads the file once, whereupon a constructor
 *
 *   static void __attribute__((constructor)) load(void)
 *   {
 *       vdev_register_factory(&factory, QVM_VDEV_ABI);
 *   }
 *
 * registers the factory, and calls the factory's functions for each `vdev NAME` of its
 * configuration, with a vdev_t of its own:
 *
 *   control(VDEV_CTRL_OPTIONS_START), for each option VDEV_CTRL_FIRST_OPTIDX + its index,
 *   VDEV_CTRL_OPTIONS_END; when all vdevs have come so far VDEV_CTRL_ASSIGN, then the region for
 *   its registers is created, VDEV_CTRL_GUEST_CONFIGURED; when all have come so far
 *   VDEV_CTRL_GUEST_STARTING; then vread() and vwrite() for the guest's accesses, pulse() and
 *   timer(), VDEV_CTRL_STATUS and VDEV_CTRL_BUTTON; at the end VDEV_CTRL_TERMINATE.
 *
 * Startup phase: before VDEV_CTRL_GUEST_CONFIGURED, in the host's main thread alone. Running
 * phase: from VDEV_CTRL_GUEST_CONFIGURED on, in several threads at once, also for one vdev:
 * VFF_MUTEX and v_mtx. vread() and vwrite() are called by a thread of a virtual CPU, which
 * waits for them: whatever waits belongs into a thread of its own (vdev_thread_create()).
 *
 * This header includes all that most vdevs need. [ours]
 */
#include <qvm/posix.h>
#include <qvm/types.h>

#include <qvm/abi.h>
#include <qvm/gasp.h>
#include <qvm/guest.h>
#include <qvm/log.h>

#ifndef QVM_VDEV_CORE_H
#define QVM_VDEV_CORE_H

#ifdef __cplusplus
extern "C" {
#endif

/* ---- The object ------------------------------------------------------------------------- */

struct vdev_factory;

/*
 * A vdev, an instance of a factory. Its address is its identity: it is the argument of every
 * callback, and that of the calls of <qvm/gasp.h> that say which device accesses memory. It
 * must not be copied.
 *
 * The host reads v_block and v_intr after VDEV_CTRL_OPTIONS_START and after VDEV_CTRL_ASSIGN;
 * changes from VDEV_CTRL_GUEST_CONFIGURED on are without effect, as those of the other members
 * always are. A v_block.length of 0 is the widest access that acc_sizes allows. [ours]
 *
 * 8.0 documents no v_gsp; here both editions have it. [ours]
 */
struct vdev_s {
    void *v_device; /* extra_space bytes for the vdev's own use, zeroed */
#if QVM_EDITION == 800
    const struct vdev_factory *v_factory;
#else
    struct vdev_factory *v_factory;
#endif
    struct guest_system *v_gsp;      /* its guest */
    struct qvm_state_block v_block;  /* where its registers are */
    struct guest_intr v_intr;        /* its interrupt */
    pthread_mutex_t v_mtx;           /* initialized if VFF_MUTEX; for the vdev's own use */
    struct qvm_sched_info v_sched;   /* for its threads: the option `sched` */
};

/* ---- The factory ------------------------------------------------------------------------ */

/*
 * The commands of control(): what a vdev shall do. `arg` is NULL where none is named. control()
 * returns EOK or an error number, with which the host refuses to start, or logs a line if the
 * guest runs. Commands that a vdev does not know it answers with EOK. The values of the first
 * eight are published.
 */
#define VDEV_CTRL_OPTIONS_START 0u    /* initialize v_device; default location and interrupt */
#define VDEV_CTRL_OPTIONS_END 1u      /* the options are complete: check them */
#define VDEV_CTRL_GUEST_CONFIGURED 2u /* the guest is complete: threads can be created */
#define VDEV_CTRL_BOOTUP (VDEV_CTRL_GUEST_CONFIGURED)
#define VDEV_CTRL_TERMINATE 3u        /* end and join the threads, close what is open */
#define VDEV_CTRL_STATUS 4u           /* describe the state, with qvm_report() */
#define VDEV_CTRL_GEN_ACPI 5u         /* not called here [ours] */
#define VDEV_CTRL_GEN_FDT 6u          /* arg is a number, the node: (int)(intptr_t)arg. Not called
                                         here: guests have no device tree [ours] */
#define VDEV_CTRL_BUTTON 7u           /* the power button: ask the guest to shut down */
/*
 * The names are published, the values are [ours].
 *
 * ASSIGN           all options of the guest are known: choose a location and an interrupt if the
 *                  configuration has none
 * GUEST_STARTING   the guest is about to execute its first instruction
 * PCI_BARS         a PCI device reports its BARs: <qvm/vpci.h>
 * FIRST_OPTIDX     plus i: option_list[i] of the configuration; arg is its argument, NULL if it
 *                  takes none
 */
#define VDEV_CTRL_ASSIGN 8u
#define VDEV_CTRL_GUEST_STARTING 9u
#define VDEV_CTRL_PCI_BARS 10u
#define VDEV_CTRL_FIRST_OPTIDX 0x100u

/* Precedes an option of option_list that takes no argument: "0" "verbose", or "0verbose". */
#define QVM_OPTION_NO_ARG_PREFIX "0"

/*
 * Properties of a vdev. Published for 7.0.
 *
 * Of VFF_VDEV_MEM, _X86_IO and _PCI at least one, unless the vdev has no registers (VFF_LOC_NO):
 * a location of another kind is refused. If there is one alone, it is the kind of a location
 * without a prefix, and the initial v_block.qst_type [ours].
 */
enum vdev_factory_flags {
    VFF_NONE = 0x0,
    VFF_RESERVED = 0x1,
    VFF_INTR_NO = 0x2,            /* has no interrupt: `intr` is refused */
    VFF_INTR_REQ = 0x4,           /* needs one: without `intr` the host gives it one [ours] */
    VFF_INTR_NONPCI = 0x8,        /* needs one unless it is a PCI device */
    VFF_LOC_NO = 0x10,            /* has no location: `loc` is refused */
    VFF_VDEV_MEM = 0x20,          /* registers in memory (QST_MEMORY) */
    VFF_VDEV_X86_IO = 0x40,       /* registers are ports (QST_X86_IO) */
    VFF_VDEV_PCI = 0x80,          /* a PCI device (QST_PCI) */
    VFF_VDEV_LOC_TYPES = VFF_VDEV_MEM | VFF_VDEV_X86_IO | VFF_VDEV_PCI,
    VFF_MUTEX = 0x100,            /* initialize v_mtx, before VDEV_CTRL_OPTIONS_START */
    VFF_MUTEX_RECURSIVE = 0x200,  /* as a recursive mutex; with VFF_MUTEX */
    VFF_RC = 0x400,               /* a PCI root complex: refused here [ours] */
    VFF_MANUAL_REGION = 0x800     /* creates its regions itself, with gasp_region_set(); otherwise
                                     the host creates one for v_block */
};

/* Formats of safety-related builds: `safety` of a 7.x factory. Ignored. */
#define VDEV_SAFETY_NO 0x55555555u
#define VDEV_SAFETY_YES 0xaaaaaaaau
#ifndef VDEV_SAFETY_SELECTED
#define VDEV_SAFETY_SELECTED VDEV_SAFETY_NO /* the value is [ours] */
#endif

/*
 * What pulse() of 8.0 gets: a message of a fixed size that vdev_pulse() has prepared. `code` and
 * scoid are what that was given, the others are 0. [ours]
 */
struct _pulse {
    uint16_t type;
    uint16_t subtype;
    int8_t code; /* as given to vdev_pulse() */
    uint8_t zero[3];
    union sigval value;
    int32_t scoid;
};

#if QVM_EDITION == 800

/* A VDEV_CTRL_*. 32 bits wide [ours]. */
typedef uint32_t vdev_ctrl_options_t;
/* A set of VFF_*. */
typedef uint32_t vdev_factory_flags_t;

#endif

struct vdev_pic_functions;

/*
 * A kind of vdev. It has static storage duration, and is not changed after it is registered.
 */
struct vdev_factory {
    struct vdev_factory *next; /* the host's */

    /* See VDEV_CTRL_*. Required. */
#if QVM_EDITION == 800
    int (*control)(vdev_t *vdev, vdev_ctrl_options_t ctrl, const char *arg);
#else
    int (*control)(vdev_t *vdev, unsigned ctrl, const char *arg);
#endif

    /*
     * The guest reads (vread) or writes (vwrite) a register.
     *
     * cookie   that of the region: 0 of the host's, the number of the BAR of a PCI device's
     *          [ours], what gasp_region_set() was given of the vdev's own
     * vopnd    the register: location is the guest-physical address or the port (not an
     *          offset), length the number of bytes; of PCI configuration space a
     *          QSL_PCI_MAKE_LOC()
     * oopnd    where the value goes to (vread: guest_cpu_write()) or comes from (vwrite:
     *          guest_cpu_read()); one block
     * gcp      the virtual CPU
     *
     * Returns a VRS_*; guest_cpu_to_vrs() makes one of an error number. NULL: `unsupported
     * reference` of the configuration says what happens; unless it says otherwise reads are all
     * ones and writes are ignored.
     */
#if QVM_EDITION == 800
    vdev_ref_status_t (*vread)(vdev_t *vdev, unsigned cookie,
                               const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp);
    vdev_ref_status_t (*vwrite)(vdev_t *vdev, unsigned cookie,
                                const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp);
#else
    enum vdev_ref_status (*vread)(vdev_t *vdev, unsigned cookie,
                                  const struct qvm_state_block *vopnd,
                                  const struct qvm_state_block *oopnd, struct guest_cpu *gcp);
    enum vdev_ref_status (*vwrite)(vdev_t *vdev, unsigned cookie,
                                   const struct qvm_state_block *vopnd,
                                   const struct qvm_state_block *oopnd, struct guest_cpu *gcp);
#endif

    /* An event that vdev_pulse() has prepared has occurred. An error number is logged. */
#if QVM_EDITION == 800
    int (*pulse)(vdev_t *vdev, const struct _pulse *pulse);
#else
    int (*pulse)(vdev_t *vdev, int8_t code);
#endif

    /* A timer is due: guest_timer_notify(). `data` is that of guest_timer_create(). */
    void (*timer)(vdev_t *vdev, void *data, const struct guest_timer_data *tdp,
                  struct guest_cpu *gcp);

    /* NULL: interrupt controllers are refused ("An interrupt controller as a vdev?"). */
    const struct vdev_pic_functions *pic;

    /* Its own options; NULL at the end; NULL for none. */
    const char *const *option_list;
    /* Its name in the configuration; NULL: that of the file. */
    const char *name;
#if QVM_EDITION == 800
    vdev_factory_flags_t factory_flags;
#else
    unsigned factory_flags; /* VFF_* */
#endif
    /* Bit n: accesses of n bytes are allowed; others are not passed on. 0: 1, 2, 4, 8 [ours]. */
    unsigned acc_sizes;
    /* The size of v_device in bytes. */
    unsigned extra_space;
#if QVM_EDITION != 800
    unsigned safety; /* VDEV_SAFETY_*; ignored */
#endif
};

/*
 * The functions of an interrupt controller. Published for 7.x; of 8.0 the types of the arguments
 * are [ours].
 */
struct vdev_pic_functions {
    unsigned flags;     /* 0 */
    unsigned pnum_mask; /* the bits of `param` that are the pin's number */
    int (*signal)(const guest_intr_t *gip, guest_intr_state_t gis);
    void (*notify)(const guest_intr_t *gip, guest_intr_notifications_t gin);
    const char *(*parse)(guest_intr_t *gip, const char *name);
    size_t (*string)(const guest_intr_t *gip, char *buf, size_t buf_len);
    ssize_t (*table_spec)(const guest_intr_t *gip, enum guest_table_spec_component component,
                          void *buf, size_t buf_len);
};

/* ---- Functions -------------------------------------------------------------------------- */

/*
 * Registers a factory. Startup phase, from a constructor. abi_version is QVM_VDEV_ABI.
 *
 * The host refuses to start, with the name of the file, if that is another number, control is
 * NULL, or there is a factory of this name. [ours]
 */
void vdev_register_factory(struct vdev_factory *factory, unsigned abi_version);

/* What a thread of a vdev executes. The type is [ours]. */
typedef void *(*vdev_thread_create_func_t)(void *arg);

/*
 * Creates a thread: as pthread_create(thread, attr, start_routine, arg), with this name, of which
 * Linux keeps 15 bytes, and scheduled as v_sched says. From VDEV_CTRL_GUEST_CONFIGURED on, by any
 * thread. The thread has chosen the vdev's guest, for calls that name none.
 *
 * name, thread and attr can be NULL. Returns EOK; EINVAL if vdp is not a vdev or start_routine is
 * NULL; any error of pthread_create(). A thread that exists two seconds after
 * VDEV_CTRL_TERMINATE is reported; what it maps is refused. A thread must not be
 * cancelled inside a call of these headers, except one that logs. [ours]
 */
int vdev_thread_create(const vdev_t *vdp, const char *name, pthread_t *thread,
                       pthread_attr_t *attr, vdev_thread_create_func_t start_routine,
                       void *arg);

/* coid of vdev_pulse(): do not register the event with its server. The value is [ours]. */
#define QMRE_UNREG_EVENT (-2)

/*
 * Fills *ev so that the delivery of this event calls the factory's pulse() with `code`. After
 * VDEV_CTRL_OPTIONS_START, by any thread.
 *
 * *ev is for timer_create(), mq_notify() and aio_*() of Linux, and for vdev_pulse_deliver(). It is
 * a SIGEV_THREAD whose function is the host's [ours]. priority is ignored, and coid is only
 * passed on: there are no channels here [ours]. *ev stays as it is if vdp is not a vdev.
 *
 * pulse() is called by a thread of the host, one pulse of a vdev after the other, in the order
 * of delivery, and without v_mtx locked; never after VDEV_CTRL_TERMINATE has returned. [ours]
 */
void vdev_pulse(vdev_t *vdp, int8_t code, int priority, struct sigevent *ev, int coid);

/*
 * Delivers a pulse that vdev_pulse() has prepared. Running phase, by any thread, also with v_mtx
 * locked; does not wait. Returns EOK; EINVAL if ev is not such an event; ENXIO if the vdev is
 * gone; EAGAIN if 1,024 pulses of the vdev wait. [ours]
 */
int vdev_pulse_deliver(const struct sigevent *ev);

/*
 * Writes the name and the location of the vdev (`trace mem:0xfa000000`) into the count bytes at
 * buf, with a NUL. From VDEV_CTRL_GUEST_CONFIGURED on, by any thread. Returns the length without
 * the NUL of all of it, also if buf is too short, or NULL with a count of 0. If vdp is not a vdev
 * the text says so [ours].
 */
int vdev_string(char *buf, size_t count, const vdev_t *vdp);

/*
 * As vdev_string(), with /dev/qvm/SYSTEM/NAME: the guest's name and the vdev's; empty if vdp is
 * not a vdev. Nothing exists there: it is a name for messages. The prototype is [ours].
 */
int vdev_path(char *buf, size_t count, const vdev_t *vdp);

#ifdef __cplusplus
}
#endif

#endif
