/*
 * <gasp/guest.h>: guests, their memory, IOMMU domains and devices, for the program that hosts
 * them.
 *
 *     gasp_guest_t *guest;
 *     vdev_t *disk;
 *     if (gasp_guest_load("guest.toml", &guest) != EOK ||
 *         gasp_vdev_find(guest, "disk", &disk) != EOK)
 *         fprintf(stderr, "%s\n", gasp_last_error());
 *
 * Everything here is our own; nothing is part of the published API. "Decision N" and questions
 * in quotes refer to docs/decisions.md, as in <qvm/gasp.h>.
 *
 * Objects are opaque: an object that has been destroyed, that is of another kind, or that never
 * was one is refused with EINVAL. Only a vdev_t * is a valid pointer, as <qvm/types.h> says. So is a NULL pointer to a
 * result, unless noted. Every call can be made from any thread. Results are written on success
 * only. Names are 1 to 128 bytes of UTF-8 without control characters, else EINVAL. Addresses
 * and lengths are in bytes; pages are 4 KiB unless noted. A process can have at most 262,144
 * guests, and as many vdevs, domains and drains (ENOSPC); fewer vdevs, at least 64, if it may not
 * reserve 1 GiB of addresses.
 */
#include <qvm/gasp.h>

#ifndef GASP_GUEST_H
#define GASP_GUEST_H

#ifdef __cplusplus
extern "C" {
#endif

/* One guest: memory, an IOMMU if it has one, virtual devices. */
typedef struct guest_system gasp_guest_t;
/* One configuration of a guest's IOMMU, which several devices can share. */
typedef struct gasp_domain gasp_domain_t;
/* The drain of a revoke that has taken effect: the mappings created before it. */
typedef struct gasp_drain gasp_drain_t;

/* The version of these headers; GASP_VERSION is one number, for #if GASP_VERSION >= 0x000100. */
#define GASP_VERSION_MAJOR 0
#define GASP_VERSION_MINOR 1
#define GASP_VERSION_PATCH 0
#define GASP_VERSION_STRING "0.1.0"
#define GASP_VERSION (GASP_VERSION_MAJOR << 16 | GASP_VERSION_MINOR << 8 | GASP_VERSION_PATCH)

/* The version of the library, "0.1.0": a static string. */
const char *gasp_version(void);

/*
 * The reason why this thread's last failed call failed, as a sentence in UTF-8; "" if none has
 * failed. At most 1,023 bytes: a longer text is cut between characters and ends in "...".
 *
 * The pointer does not change within a thread, and is valid until the thread has ended,
 * including in destructors of its thread-specific data. The thread's next failing call
 * overwrites the text: copy it to keep it, and do not read it from another thread.
 */
const char *gasp_last_error(void);

/* ---- The log ------------------------------------------------------------------------ */

#define GASP_LOG_OFF UINT32_C(0)
#define GASP_LOG_ERROR UINT32_C(1) /* failures inside the library */
#define GASP_LOG_WARN UINT32_C(2)  /* misuse, and drains past their deadline: the default */
#define GASP_LOG_INFO UINT32_C(3)
#define GASP_LOG_DEBUG UINT32_C(4) /* every call that fails */

/*
 * Receives one line of the log, without a newline, valid during the call; context is that of
 * gasp_set_log(). May be called from any thread, by several at a time, and while the library
 * holds locks: it must not call the library, throw, or longjmp() out.
 */
typedef void (*gasp_log_t)(void *context, uint32_t level, const char *line);

/*
 * Sets the level of the log, GASP_LOG_*, and its destination: log, or stderr if that is NULL.
 * Lines in progress on other threads may still arrive at the previous destination.
 *
 * EINVAL if level is none of the above.
 */
errno_t gasp_set_log(uint32_t level, gasp_log_t log, void *context);

/*
 * The environment variable GASP_DEBUG is read when the first guest is created. It is a
 * comma-separated list of words; the only one is guard: see GMF_READ of <qvm/gasp.h>. Unknown
 * words are logged.
 */

/* ---- Guests ------------------------------------------------------------------------- */

/*
 * Creates a guest from a file in TOML or, if its name ends in .qvmconf, in the configuration
 * language of qvm, with its memory, IOMMU domains and devices. Relative paths in the file are
 * relative to its folder. On failure nothing is created, and
 * gasp_last_error() names the line of the file.
 *
 * ENOENT and other errors of opening the file; EFBIG if it is larger than 4 MiB; EINVAL,
 * EEXIST, ENXIO or ENOTSUP if it is not valid; ENOMEM if the host has not enough memory; and errors of
 * what it describes, as in the calls below.
 */
errno_t gasp_guest_load(const char *path, gasp_guest_t **guest);

/*
 * Creates a guest from the text of such a file. Relative paths in it are relative to the
 * current folder. Errors as for gasp_guest_load().
 */
errno_t gasp_guest_parse(const char *toml, gasp_guest_t **guest);

#define GASP_IOMMU_NONE UINT32_C(0)   /* no IOMMU: every device reaches all memory (decision 13) */
#define GASP_IOMMU_DENY UINT32_C(1)   /* unattached devices are denied (decision 14) */
#define GASP_IOMMU_BYPASS UINT32_C(2) /* unattached devices reach all memory (decision 14) */

#define GASP_DRAIN_WAIT UINT32_C(0)   /* at the deadline: log a warning, continue to wait */
#define GASP_DRAIN_DETACH UINT32_C(1) /* at the deadline: complete without the mapping */

/* Properties of a new guest. Initialize with GASP_GUEST_OPTIONS_INIT. */
struct gasp_guest_options {
    const char *name;           /* for reports; NULL for "guest" */
    uint32_t address_width;     /* of guest-physical addresses, in bits: 32 to 52; 0 for 48 */
    uint32_t iommu;             /* GASP_IOMMU_* */
    uint32_t drain_deadline_ms; /* how long a revoke waits until at_deadline, in milliseconds */
    uint32_t at_deadline;       /* GASP_DRAIN_* (decision 15) */
    uint32_t allow_unpinned;    /* not 0: host-physical addresses may change (decision 20) */
    uint32_t reserved;          /* must be 0 */
};
#define GASP_GUEST_OPTIONS_INIT \
    { NULL, 0, GASP_IOMMU_NONE, 1000, GASP_DRAIN_WAIT, 0, 0 }

/*
 * Creates a guest without memory. options may be NULL for GASP_GUEST_OPTIONS_INIT. EINVAL if an
 * option is not valid.
 */
errno_t gasp_guest_create(const struct gasp_guest_options *options, gasp_guest_t **guest);

/*
 * Destroys a guest with its devices, domains and regions; later calls with them are refused.
 * Held mappings remain valid until they are unmapped. After it returns, no map through one of
 * its devices begins; other calls in progress on other threads complete with the guest as it
 * was, and its memory is released with the last.
 *
 * EPERM if it belongs to the program that hosts the calling vdev.
 */
errno_t gasp_guest_destroy(gasp_guest_t *guest);

/*
 * Ends the startup phase: see the table in <qvm/gasp.h>. EPERM if the guest is running already.
 */
errno_t gasp_guest_start(gasp_guest_t *guest);

/*
 * Chooses the guest of those calls of this thread that name none; NULL clears the choice. A
 * thread that has chosen none refers to the only guest of the process; if there are several,
 * its calls fail with ENOTUNIQ. The choice is not inherited by new threads.
 */
errno_t gasp_guest_use(gasp_guest_t *guest);

/* ---- Memory -------------------------------------------------------------------------- */

/* In *start: after the highest RAM or ROM; 0 if there is none. */
#define GASP_ANYWHERE UINT64_MAX

/* Kinds of pages that RAM may consist of: a set. */
#define GASP_PAGES_ANY UINT32_C(0)  /* 1G, 2M, transparent huge pages, 4K: the first available */
#define GASP_PAGES_1G UINT32_C(1)
#define GASP_PAGES_2M UINT32_C(2)
#define GASP_PAGES_THP UINT32_C(4)
#define GASP_PAGES_4K UINT32_C(8)

#define GASP_PINNED UINT32_C(0)    /* populated and pinned: host-physical addresses do not change;
                                      as GASP_RESIDENT if pages cannot be pinned */
#define GASP_RESIDENT UINT32_C(1)  /* populated; the kernel may move pages */
#define GASP_ON_DEMAND UINT32_C(2) /* populated on first access */

/*
 * Adds zeroed RAM.
 *
 * start      in: its guest-physical address, a multiple of 4 KiB, or GASP_ANYWHERE; out: the
 *            address
 * size       in bytes, a multiple of the page size
 * pages      a set of GASP_PAGES_*: the largest kind of which the host has enough is used
 * residency  GASP_PINNED, GASP_RESIDENT or GASP_ON_DEMAND
 *
 * EBUSY if this thread has gasp_lock(): release it first. EINVAL if an argument is not valid;
 * EEXIST if the range overlaps a region; ENXIO if it wraps or extends past the guest's address
 * width; ENOSPC past 65,536 regions or 1,024 memory objects of the guest; ENOMEM, or another
 * error of creating and mapping a memfd, if the host has not enough such memory.
 */
errno_t gasp_guest_add_ram(gasp_guest_t *guest, uint64_t *start, uint64_t size, uint32_t pages,
                           uint32_t residency);

/*
 * Adds ROM that contains a copy of image, of length bytes, at least 1; the rest of its last page
 * is zero. start is as for RAM, and so are the errors.
 */
errno_t gasp_guest_add_rom(gasp_guest_t *guest, uint64_t *start, const void *image,
                           size_t length);

/* Whether the owner of shared memory is trusted not to truncate it or punch holes into it. */
#define GASP_OWNER_UNTRUSTED UINT32_C(0)
#define GASP_OWNER_TRUSTED UINT32_C(1)

/*
 * Adds memory of another process as RAM: size bytes from offset of a regular file or memfd.
 *
 * start         as for RAM
 * size, offset  in bytes, multiples of the file's page size (of a huge page on hugetlbfs)
 * fd            remains the caller's; it may be closed after the call
 * access        at least one of GMF_READ, GMF_WRITE and GMF_EXEC; with GMF_WRITE the file is
 *               mapped for reading and writing, else for reading
 * owner         GASP_OWNER_*
 *
 * The file of an untrusted owner is sealed against shrinking. It is refused with EPERM if its
 * memory could still be taken away, as an access through a pointer would then raise SIGBUS
 * ("Whose file is sealed?"). An untrusted owner can also replace pages, so host-physical
 * addresses of the memory can change (EAGAIN, decision 20) unless the file is sealed against
 * writing as well.
 *
 * EBADF if the descriptor is not open; EINVAL if the range is empty, unaligned or extends past
 * the end of the file, or the file is open for writing only; EACCES if GMF_WRITE is in access
 * and the file cannot be written; ENXIO if access is empty or has other bits; ENODEV if it is
 * not a regular file, or of an untrusted owner on FUSE or a network ("Adopting a file on FUSE
 * or a network?"); otherwise as for RAM.
 */
errno_t gasp_guest_add_shared(gasp_guest_t *guest, uint64_t *start, uint64_t size, int fd,
                              uint64_t offset, gasp_map_flags_t access, uint32_t owner);

/*
 * Adds a pass-through window: size bytes from offset of a regular file or character device
 * (/dev/mem, a UIO or VFIO resource), at guest-physical start, a multiple of 4 KiB. host is its
 * host-physical address, a multiple of the page size, which is not verified. Devices map it
 * with GMF_MAP_ANY only (decision 5). access and errors are as for shared memory of a trusted
 * owner; also EINVAL if host is unaligned, or the window extends past 2^64.
 */
errno_t gasp_guest_add_window(gasp_guest_t *guest, uint64_t start, uint64_t size, int fd,
                              uint64_t offset, uint64_t host, gasp_map_flags_t access);

/*
 * Removes all regions in guest-physical [start, start + size) (hot-unplug), splitting those at
 * its ends. New maps of it fail at once; see "Drains" for held ones (decision 16).
 *
 * ENOENT if it has no region; EINVAL if size is 0, or the range begins or ends inside a page of
 * memory; ENXIO if it wraps; ENOSPC if a split would exceed 65,536 regions; EBUSY if this
 * thread has gasp_lock(); ENOSPC and EDEADLK as in "Drains".
 */
errno_t gasp_guest_remove(gasp_guest_t *guest, uint64_t start, uint64_t size,
                          gasp_drain_t **drain);

/* ---- Devices ------------------------------------------------------------------------- */

/*
 * Creates a device, attached to no domain. EEXIST if the guest has one of this name; ENOSPC if
 * it has 65,536; ENOMEM if the host has no memory, or no mapping (vm.max_map_count), for it.
 */
errno_t gasp_vdev_create(gasp_guest_t *guest, const char *name, vdev_t **vdev);

/* Finds the device of this name. ENOENT if the guest has none. */
errno_t gasp_vdev_find(gasp_guest_t *guest, const char *name, vdev_t **vdev);

/*
 * Attaches the device to a domain of its guest, or moves it there from another of the same
 * owner ("Attaching a device that has a domain?"). Its mappings through the previous domain are
 * revoked; from one bypass to another nothing changes.
 *
 * EBUSY if the previous domain has another owner; EINVAL if the domain belongs to another guest;
 * ENOENT if device or domain is being destroyed; ENOSPC and EDEADLK as in "Drains".
 */
errno_t gasp_vdev_attach(vdev_t *vdev, gasp_domain_t *domain, gasp_drain_t **drain);

/*
 * Detaches the device from its domain, if it is in one; its mappings through it are revoked.
 * ENOSPC and EDEADLK as in "Drains".
 */
errno_t gasp_vdev_detach(vdev_t *vdev, gasp_drain_t **drain);

/*
 * Destroys the device; its mappings are revoked. EPERM if it belongs to the program that hosts
 * it; ENOSPC and EDEADLK as in "Drains".
 */
errno_t gasp_vdev_destroy(vdev_t *vdev, gasp_drain_t **drain);

/* ---- The guest's IOMMU --------------------------------------------------------------- */

#define GASP_DOMAIN_BYPASS UINT32_C(0)    /* its devices reach all memory */
#define GASP_DOMAIN_DENY UINT32_C(1)      /* its devices reach no memory */
#define GASP_DOMAIN_IDENTITY UINT32_C(2)  /* granted ranges, at guest-physical addresses */
#define GASP_DOMAIN_TRANSLATE UINT32_C(3) /* granted ranges, at translated addresses */

/*
 * Creates a domain. kind is GASP_DOMAIN_*; owner names who configures it, NULL for "guest".
 * EINVAL if kind is not valid or the guest has no IOMMU; EEXIST if it has a domain of this
 * name; ENOSPC if it has 4,096.
 */
errno_t gasp_domain_create(gasp_guest_t *guest, const char *name, uint32_t kind,
                           const char *owner, gasp_domain_t **domain);

/* Finds the domain of this name. ENOENT if the guest has none. */
errno_t gasp_domain_find(gasp_guest_t *guest, const char *name, gasp_domain_t **domain);

/*
 * Grants the domain's devices access to guest memory [guest_paddr, guest_paddr + length) at
 * device addresses [device_addr, device_addr + length). access is a set of GMF_READ, GMF_WRITE
 * and GMF_EXEC, added to what is granted already ("Granting a range twice?"). Both ranges are
 * rounded outward to 4 KiB (decision 11). In an identity domain the addresses are equal. There
 * need not be memory yet ("A grant where there is no memory?").
 *
 * EINVAL if length is 0, the domain is of kind BYPASS or DENY, or the addresses differ in their
 * low 12 bits, or at all in an identity domain; ENXIO if a range wraps or extends past the
 * guest's address width, or access is empty or has other bits; EEXIST if part of the range is
 * granted with another translation; ENOSPC past 1,048,576 entries of the domain's table, one
 * for each 4 KiB or aligned 2 MiB or 1 GiB, or the limit in the guest's file. After an error
 * nothing has changed.
 */
errno_t gasp_domain_grant(gasp_domain_t *domain, uint64_t device_addr, uint64_t guest_paddr,
                          uint64_t length, gasp_map_flags_t access);

/*
 * Revokes what is granted at device addresses [device_addr, device_addr + length), rounded
 * outward to 4 KiB; parts without a grant are skipped. New maps of the range fail at once
 * (decision 15); see "Drains" for held ones.
 *
 * EINVAL if length is 0, or the domain is of kind BYPASS or DENY; ENXIO if the range wraps;
 * ENOSPC if it ends inside a large table entry whose split would exceed the domain's limit:
 * then nothing has changed, and revoking all of what was granted there succeeds ("A revoke
 * that would cut a large entry past the domain's limit?"); ENOSPC and EDEADLK as in "Drains".
 */
errno_t gasp_domain_revoke(gasp_domain_t *domain, uint64_t device_addr, uint64_t length,
                           gasp_drain_t **drain);

/* Destroys the domain. EBUSY if a device is attached to it. */
errno_t gasp_domain_destroy(gasp_domain_t *domain);

/* Why the IOMMU refused an access. */
#define GASP_REFUSED_NOT_GRANTED UINT32_C(0) /* no grant covers the address */
#define GASP_REFUSED_ACCESS UINT32_C(1)      /* the grant does not allow the access */
#define GASP_REFUSED_UNATTACHED UINT32_C(2)  /* the device is attached to no domain */
#define GASP_REFUSED_DENY_DOMAIN UINT32_C(3) /* its domain denies everything */
#define GASP_REFUSED_TRANSLATOR UINT32_C(4)  /* the translator of its domain refuses it */

/* A fault record: one access that the guest's IOMMU refused. */
struct gasp_fault {
    vdev_t *vdev;            /* NULL if it has been destroyed since */
    uint64_t device_addr;    /* the first refused address */
    gasp_map_flags_t access; /* the requested access, without GMF_MAP_ANY */
    uint32_t refusal;        /* GASP_REFUSED_* */
    uint64_t dropped;        /* records lost since one was last taken, as 64 were queued */
    char name[136];          /* the device's name, NUL-terminated */
};

/* Takes the oldest fault record, of at most 64. ENOENT if there is none. */
errno_t gasp_guest_next_fault(gasp_guest_t *guest, struct gasp_fault *fault);

/* ---- Drains -------------------------------------------------------------------------- */

/*
 * Calls that revoke mappings have an argument `gasp_drain_t **drain`. If it is NULL, they
 * return when the mappings created before are gone, or as the drain policy of the guest (or of
 * the domain, in a file) says at the deadline (decision 15). Otherwise they return at once, and
 * *drain is a drain that must be waited for or abandoned; NULL if no mapping is held. The
 * functions below accept NULL as a completed drain.
 *
 * EDEADLK if a call would wait for a mapping that the calling thread itself has created and
 * that is not unmapped yet, and nothing has changed (decision 22): the calls with NULL, and
 * gasp_drain_wait(). Also if another thread is about to unmap it: call again later. With
 * GASP_DRAIN_DETACH they wait until the deadline instead. ENOSPC if 262,144 drains are neither
 * waited for nor abandoned.
 */

/* Result of a drain. */
struct gasp_drained {
    uint64_t holders;   /* mappings that were held when the revoke took effect */
    uint64_t detached;  /* those still held at the end, now marked as revoked */
    uint64_t waited_ns; /* from the revoke to the end, in nanoseconds */
};

/* Counts the mappings of the drain that are still held. */
errno_t gasp_drain_pending(gasp_drain_t *drain, uint64_t *holders);

/*
 * Waits until no mapping is held, or as the drain policy says, and ends the drain. drained may
 * be NULL. EDEADLK as above; the drain is unchanged.
 */
errno_t gasp_drain_wait(gasp_drain_t *drain, struct gasp_drained *drained);

/* Ends the drain without waiting: mappings that are still held are marked as revoked. */
errno_t gasp_drain_abandon(gasp_drain_t *drain);

#if QVM_EDITION == 800
/*
 * Checks whether a device may still use a mapping. EOK; ESTALE if it was revoked, and the drain
 * has ended without it (its memory remains until it is unmapped); EBADF if the handle is not
 * mapped.
 *
 * The 7.x forms have no handle to check: use GASP_DRAIN_WAIT for the guest of a device that is
 * built with them, so that no revoke completes while a mapping is held.
 */
errno_t gasp_map_check(const gasp_map_handle_t *h);
#endif

#ifdef __cplusplus
}
#endif

#endif
