/*
 * <qvm/types.h>: types and constants of <qvm/gasp.h>, and of the headers for virtual devices.
 *
 * Names, members and values are those of the publicly documented virtual device API of
 * the QNX Hypervisor. What is not documented publicly, and so is our own choice, is
 * marked [ours].
 *
 * The API has two editions:
 *
 *   QVM_EDITION 800   the 8.0 forms; the default
 *   QVM_EDITION 710   the 7.x forms: a struct guest_system * as first argument, PROT_* for
 *                     access, a pointer instead of a handle
 *
 * Define QVM_EDITION before the first header is included, or with -DQVM_EDITION=710; a later
 * change is a compile-time error. One program can contain files of both editions: their
 * functions have different symbol names.
 */
#ifdef QVM_TYPES_H
/* Included again: the edition is fixed by the first inclusion. */
#if QVM_EDITION != QVM_TYPES_EDITION
#error "QVM_EDITION must be defined before the first header, and not changed after it"
#endif
#else
#define QVM_TYPES_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#ifndef QVM_EDITION
#define QVM_EDITION 800
#endif
#if QVM_EDITION != 800 && QVM_EDITION != 710
#error "QVM_EDITION must be 800 (the 8.0 forms) or 710 (the 7.x forms)"
#endif
/* The edition of these types, even if QVM_EDITION is redefined later. */
#if QVM_EDITION == 800
#define QVM_TYPES_EDITION 800
#else
#define QVM_TYPES_EDITION 710
/* The symbol of a function whose 7.x form differs from the 8.0 form. [ours] */
#define QVM_EDITION_710(name) __asm__(#name "_710")
#endif

/* No error. */
#ifndef EOK
#define EOK 0
#endif

/* EOK, or a positive error number of <errno.h>. */
typedef int errno_t;

/*
 * A virtual device: the initiator of DMA. Created by the program that hosts it, or by
 * gasp_vdev_create() of <gasp/guest.h>.
 *
 * Points to a struct vdev_s of <qvm/vdev-core.h>, which is in 4 KiB of memory of its own. The
 * members are the vdev's and its host's: the functions of <qvm/gasp.h> and <gasp/guest.h> read
 * none of them. They look up the pointer among the vdevs that exist, and refuse any other with
 * EINVAL. After a vdev has been destroyed, an access to its memory raises SIGSEGV, and its
 * address is used again after 4,194,304 other vdevs at the earliest; with 262,144 vdevs at a
 * time, or if the process may not reserve 16 GiB of addresses, after fewer. [ours]
 *
 * Of a vdev of gasp_vdev_create() v_gsp is its guest, v_block.location is QSL_NO_LOCATION, and
 * everything else is zero. [ours]
 */
typedef struct vdev_s vdev_t;

/*
 * A guest. <gasp/guest.h> calls it gasp_guest_t. Opaque, and not a valid pointer: never
 * dereference it. One that has been destroyed, or a value that never was one, is refused with
 * EINVAL. [ours]
 */
struct guest_system;

/*
 * A virtual CPU during a callback of a vdev; opaque. Valid only until the callback returns, and
 * only in its thread. [ours]
 */
struct guest_cpu;

/* The kind of location that a struct qvm_state_block describes. */
enum qvm_state_types {
    QST_MEMORY,    /* guest-physical memory */
    QST_VIRTUAL,   /* guest-virtual memory */
    QST_CPUREGS,   /* general registers */
    QST_FPUREGS,   /* floating-point registers */
    QST_HOST,      /* host-virtual memory */
    QST_PCI,       /* PCI configuration space */
    QST_PCI_IO,    /* PCI I/O space: ports on x86, memory elsewhere */
    QST_IMMEDIATE, /* the location is the value itself */
    QST_ARCH_SPECIFIC = 0x8000,
    QST_X86_IO = QST_ARCH_SPECIFIC, /* I/O ports */
    QST_X86_SEGREGS,
    QST_X86_CTRLREGS,
    QST_X86_DBGREGS,
    QST_X86_MSR,
    QST_ARM_SR = QST_ARCH_SPECIFIC,
    QST_NO_TYPE = 0xffff
};

/* How a value is extended (QSF_EXT_MASK), written or reported. */
enum qvm_state_flags {
    QSF_NONE = 0,
    QSF_SEXT_SHIFT = 0,
    QSF_ZEXT_SHIFT = 4,
    QSF_EXT_MASK = 0xf,
    QSF_FORCE_WRITE = 0x4000,
    QSF_REPORT_EXCEPTION = 0x8000
};

/*
 * No location: returned by the functions that find space if there is none, and the location of
 * a vdev that has none yet. The value is [ours].
 */
#define QSL_NO_LOCATION UINT64_MAX

/*
 * A location of QST_PCI: a function (bus 0 to 255, device 0 to 31, function 0 to 7), and an
 * offset in its configuration space (0 to 0xfff). The order of the arguments and the encoding
 * are [ours]: that of PCI Express's enhanced configuration mechanism. The other four take a
 * location apart, and are [ours].
 */
#define QSL_PCI_MAKE_LOC(bus, dev, func, offset)                                             \
    (((uint64_t)(bus) << 20) | ((uint64_t)(dev) << 15) | ((uint64_t)(func) << 12) |          \
     (uint64_t)(offset))
#define QSL_PCI_BUS(location) ((unsigned)((location) >> 20) & 0xffu)
#define QSL_PCI_DEV(location) ((unsigned)((location) >> 15) & 0x1fu)
#define QSL_PCI_FUNC(location) ((unsigned)((location) >> 12) & 0x7u)
#define QSL_PCI_OFFSET(location) ((unsigned)(location) & 0xfffu)

#if QVM_EDITION == 800

/* One of enum qvm_state_types. 16 bits wide [ours]. */
typedef uint16_t qvm_state_types_t;
/* A set of enum qvm_state_flags. 16 bits wide [ours]. */
typedef uint16_t qvm_state_flags_t;

/* A range of locations in a guest. */
struct qvm_state_block {
    uint64_t location;           /* guest-physical address for QST_MEMORY, port for QST_X86_IO */
    uint64_t length;             /* in bytes (for ports: in ports) */
    qvm_state_types_t qst_type;  /* QST_*: the kind of location */
    qvm_state_flags_t qst_flags; /* QSF_*: not examined by <qvm/gasp.h> */
    uint32_t spare;              /* must be 0 */
};

#else

/* A range of locations in a guest, as in 8.0; length is limited to 32 bits. */
struct qvm_state_block {
    uint64_t location; /* guest-physical address for QST_MEMORY, port for QST_X86_IO */
    uint32_t length;   /* in bytes (for ports: in ports) */
    uint16_t type;     /* QST_*: the kind of location */
    uint16_t flags;    /* QSF_*: not examined by <qvm/gasp.h> */
};

#endif

/* A set of GRF_*. */
typedef uint32_t gasp_region_flags_t;

/*
 * Properties of a region. The values are those published for 7.0; those of 8.0 are not
 * public. gasp_region_set() has the combinations that can be set.
 */
#define GRF_NONE UINT32_C(0x00000000)    /* in gasp_region_set(): delete the region */
#define GRF_VIRT_RD UINT32_C(0x00000001) /* guest reads are emulated by the vdev */
#define GRF_VIRT_WR UINT32_C(0x00000002) /* guest writes are emulated by the vdev */
#define GRF_VIRT_EX UINT32_C(0x00000004) /* instruction fetches are emulated by the vdev */
#define GRF_VIRT_ANY (GRF_VIRT_RD | GRF_VIRT_WR | GRF_VIRT_EX)
#define GRF_PASS_RD UINT32_C(0x00000008) /* reads go directly to memory */
#define GRF_PASS_WR UINT32_C(0x00000010) /* writes go directly to memory */
#define GRF_PASS_EX UINT32_C(0x00000020) /* instruction fetches go directly to memory */
#define GRF_PASS_ANY (GRF_PASS_RD | GRF_PASS_WR | GRF_PASS_EX)
#define GRF_NOCACHE UINT32_C(0x00000040)
#define GRF_ACTIVE UINT32_C(0x00000080) /* the region exists: always set by gasp_region_info() */
#define GRF_MEMORY UINT32_C(0x00000100) /* system RAM */
#define GRF_PASSTHRU UINT32_C(0x00000200) /* a window to host-physical memory */
#define GRF_DMA_USES UINT32_C(0x00000400)
#define GRF_DMA_NO_USE UINT32_C(0x00000800)
#define GRF_DMA_SOURCE UINT32_C(0x00001000)
#define GRF_DMA_TARGET UINT32_C(0x00002000)
#define GRF_PRECIOUS UINT32_C(0x00004000)
#define GRF_NOPERMS UINT32_C(0x00008000) /* no access: a reserved range */
#define GRF_BACKUP_MASK UINT32_C(0xf0000000)
#define GRF_BACKUP_SHIFT (28 - 3)
#define GRF_STICKY (GRF_MEMORY | GRF_DMA_SOURCE | GRF_DMA_TARGET | GRF_PASSTHRU)

/* A range of guest-physical addresses or I/O ports, and what occupies it. */
struct gasp_region {
#if QVM_EDITION == 800
    gasp_region_flags_t grf_flags;
#else
    uint32_t flags;
#endif
    uint32_t cookie;              /* the vdev's own identifier of the region; any value */
    vdev_t *vdev;                 /* the emulating vdev if a GRF_VIRT_* flag is set */
    uint64_t host_location;       /* host-physical address; QSL_NO_LOCATION if unknown [ours] */
    struct qvm_state_block guest; /* its range in the guest */
};

/* ---- Interrupts ----------------------------------------------------------------------- */

/*
 * An interrupt line. A vdev passes its own, v_intr, to guest_intr_signal(), and need not look
 * inside.
 */
struct guest_intr {
    vdev_t *pic;     /* the interrupt controller; NULL for the host's own [ours] */
    unsigned param;  /* the number of its pin */
    unsigned src_id; /* the host's number of this source of interrupts; 0: there is no line */
};

/* What guest_intr_signal() does with a line. GIS_NOP is published for 7.1. */
enum guest_intr_state {
    GIS_NOP = 0x00, /* nothing */
    GIS_ON = 0x01,  /* asserts it */
    GIS_OFF = 0x02, /* deasserts it */
    GIS_ISR = 0x04  /* with ON or OFF: called by an interrupt handler; alone: asks whether that is
                       possible, which it is not here: -ENOTSUP */
};

/* What an interrupt controller reports with guest_intr_notify(). */
enum guest_intr_notifications {
    GIN_UNMASK = 0x01, /* the guest has unmasked the pin */
    GIN_ACK = 0x02     /* the guest has acknowledged the interrupt */
};

/* The format of an interrupt in a table of the firmware. */
enum guest_table_spec_component {
    GTSC_FDT_INTR /* the cells of an `interrupts` property of a device tree */
};

/* ---- Callbacks ------------------------------------------------------------------------ */

/* What becomes of the guest's access after vread() or vwrite(). */
enum vdev_ref_status {
    VRS_NORMAL,       /* done: the guest goes on with the next instruction */
    VRS_NO_ADVANCE,   /* done; of an access here as VRS_NORMAL [ours] */
    VRS_ABORT,        /* an internal error: the host ends the guest */
    VRS_BUS_ERROR,    /* the guest gets a bus error; on x86, which has none, reads are all
                         ones and writes are ignored [ours] */
    VRS_CONTINUE,     /* of an instruction's callback only: as if there were none */
    VRS_TERMINATE,    /* the host ends the guest */
    VRS_ERRNO = 0x100 /* plus an error number: the host logs it and ends the guest [ours] */
};

/*
 * How threads of a vdev are scheduled: the `sched` option of its configuration. The members
 * are [ours].
 */
struct qvm_sched_info {
    int32_t policy;       /* SCHED_* of <sched.h>; -1: as the host's threads */
    int32_t priority;     /* of that policy; 0 for SCHED_OTHER */
    uint32_t reserved[6]; /* 0 */
};

#if QVM_EDITION == 800

typedef struct guest_intr guest_intr_t;
/* A set of GIS_*. 32 bits wide [ours]. */
typedef uint32_t guest_intr_state_t;
/* A set of GIN_*. */
typedef uint32_t guest_intr_notifications_t;
/* A VRS_*, or VRS_ERRNO plus an error number. 32 bits wide [ours]. */
typedef uint32_t vdev_ref_status_t;

#endif

#endif
