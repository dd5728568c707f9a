/*
 * <qvm/types.h>: the types that <qvm/gasp.h> speaks of.
 *
 * Names, members and values are those of the publicly documented virtual device API of
 * the QNX Hypervisor. What is not documented publicly, and so is our own choice, is
 * marked [ours].
 *
 * The API comes in two editions:
 *
 *   QVM_EDITION 800   the 8.0 forms, which is what you get if you say nothing
 *   QVM_EDITION 710   the 7.x forms: a struct guest_system * in front, PROT_* for access,
 *                     a pointer instead of a handle
 *
 * Define QVM_EDITION before the first header, or with -DQVM_EDITION=710; a later change is an
 * error of the compiler. One program can have files of both editions: their functions have different names for the linker.
 */
#ifdef QVM_TYPES_H
/* Included again: by then the edition is settled. */
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
/* The edition of this file's types, whatever becomes of QVM_EDITION. */
#if QVM_EDITION == 800
#define QVM_TYPES_EDITION 800
#else
#define QVM_TYPES_EDITION 710
#endif

/* No error. */
#ifndef EOK
#define EOK 0
#endif

/* EOK, or an error number of <errno.h>. */
typedef int errno_t;

/*
 * A virtual device: what makes the DMA. gasp_vdev_create() of <gasp/guest.h> gives one.
 *
 * It is opaque, and not a pointer to anything: do not look behind it. A device that has
 * been destroyed, or a number that never was one, is refused with EINVAL. [ours]
 */
typedef struct vdev_s vdev_t;

/* A guest. Opaque in the same way; <gasp/guest.h> calls it gasp_guest_t. */
struct guest_system;

/* What a struct qvm_state_block speaks of. */
enum qvm_state_types {
    QST_MEMORY,    /* guest-physical memory */
    QST_VIRTUAL,   /* guest-virtual memory */
    QST_CPUREGS,   /* general registers */
    QST_FPUREGS,   /* floating-point registers */
    QST_HOST,      /* host-virtual memory */
    QST_PCI,       /* PCI configuration space */
    QST_PCI_IO,    /* PCI I/O space: ports on x86, memory elsewhere */
    QST_IMMEDIATE, /* the location is the value */
    QST_ARCH_SPECIFIC = 0x8000,
    QST_X86_IO = QST_ARCH_SPECIFIC, /* I/O ports */
    QST_X86_SEGREGS,
    QST_X86_CTRLREGS,
    QST_X86_DBGREGS,
    QST_X86_MSR,
    QST_ARM_SR = QST_ARCH_SPECIFIC,
    QST_NO_TYPE = 0xffff
};

/* How a value is extended or reported. */
enum qvm_state_flags {
    QSF_NONE = 0,
    QSF_SEXT_SHIFT = 0,
    QSF_ZEXT_SHIFT = 4,
    QSF_EXT_MASK = 0xf,
    QSF_FORCE_WRITE = 0x4000,
    QSF_REPORT_EXCEPTION = 0x8000
};

/* Nowhere: what the functions that look for space give where there is none. [ours] */
#define QSL_NO_LOCATION UINT64_MAX

#if QVM_EDITION == 800

/* One of enum qvm_state_types. 16 bits wide [ours]. */
typedef uint16_t qvm_state_types_t;
/* A set of enum qvm_state_flags. 16 bits wide [ours]. */
typedef uint16_t qvm_state_flags_t;

/* A place in a guest. */
struct qvm_state_block {
    uint64_t location;          /* its address, for QST_MEMORY; its port, for QST_X86_IO */
    uint64_t length;            /* in bytes */
    qvm_state_types_t qst_type; /* what location means */
    qvm_state_flags_t qst_flags;
    uint32_t spare;             /* 0 */
};

#else

struct qvm_state_block {
    uint64_t location;
    uint32_t length;
    uint16_t type;
    uint16_t flags;
};

#endif

/* A set of GRF_*. */
typedef uint32_t gasp_region_flags_t;

/* What a region does. The numbers are those of the 7.0 edition; 8.0's are not public. */
#define GRF_NONE UINT32_C(0x00000000)    /* in gasp_region_set(): delete the region */
#define GRF_VIRT_RD UINT32_C(0x00000001) /* a read is the vdev's to answer */
#define GRF_VIRT_WR UINT32_C(0x00000002) /* a write is */
#define GRF_VIRT_EX UINT32_C(0x00000004) /* an instruction fetch is */
#define GRF_VIRT_ANY (GRF_VIRT_RD | GRF_VIRT_WR | GRF_VIRT_EX)
#define GRF_PASS_RD UINT32_C(0x00000008) /* a read goes through to memory */
#define GRF_PASS_WR UINT32_C(0x00000010) /* a write does */
#define GRF_PASS_EX UINT32_C(0x00000020) /* an instruction fetch does */
#define GRF_PASS_ANY (GRF_PASS_RD | GRF_PASS_WR | GRF_PASS_EX)
#define GRF_NOCACHE UINT32_C(0x00000040)
#define GRF_ACTIVE UINT32_C(0x00000080) /* the region is there */
#define GRF_MEMORY UINT32_C(0x00000100) /* system RAM */
#define GRF_PASSTHRU UINT32_C(0x00000200)
#define GRF_DMA_USES UINT32_C(0x00000400)
#define GRF_DMA_NO_USE UINT32_C(0x00000800)
#define GRF_DMA_SOURCE UINT32_C(0x00001000)
#define GRF_DMA_TARGET UINT32_C(0x00002000)
#define GRF_PRECIOUS UINT32_C(0x00004000)
#define GRF_NOPERMS UINT32_C(0x00008000) /* reserved: nothing may be done to it */
#define GRF_BACKUP_MASK UINT32_C(0xf0000000)
#define GRF_BACKUP_SHIFT (28 - 3)
#define GRF_STICKY (GRF_MEMORY | GRF_DMA_SOURCE | GRF_DMA_TARGET | GRF_PASSTHRU)

/* A range of a guest's addresses, and what is there. */
struct gasp_region {
#if QVM_EDITION == 800
    gasp_region_flags_t grf_flags;
#else
    uint32_t flags;
#endif
    uint32_t cookie;              /* the vdev's own number for the region */
    vdev_t *vdev;                 /* whose it is, where a GRF_VIRT_* flag is set */
    uint64_t host_location;       /* host-physical; QSL_NO_LOCATION where not known [ours] */
    struct qvm_state_block guest; /* where it is in the guest */
};

#endif
