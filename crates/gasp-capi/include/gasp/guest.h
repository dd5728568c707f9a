/*
 * <gasp/guest.h>: what a hosting program needs beside <qvm/gasp.h>: guests, their memory,
 * their IOMMU, their devices.
 *
 *     gasp_guest_t *guest;
 *     vdev_t *disk;
 *     if (gasp_guest_load("guest.toml", &guest) != EOK || gasp_vdev_find(guest, "disk", &disk) != EOK)
 *         fprintf(stderr, "%s\n", gasp_last_error());
 *
 * All of it is our own; nothing here is part of the published API. Every object is opaque,
 * and none is a pointer to anything: an object that has been destroyed is refused with
 * EINVAL, and so is one of another kind, and a number that never was one. Every call can be
 * made from any thread. Results are written only on success. Names are 1 to 128 bytes of
 * UTF-8 without control characters, or EINVAL.
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
/* A revoke that has taken effect and waits for the mappings made before it. */
typedef struct gasp_drain gasp_drain_t;

/* The version of these headers; as one number, for `#if GASP_VERSION >= 0x000100`. */
#define GASP_VERSION_MAJOR 0
#define GASP_VERSION_MINOR 1
#define GASP_VERSION_PATCH 0
#define GASP_VERSION_STRING "0.1.0"
#define GASP_VERSION (GASP_VERSION_MAJOR << 16 | GASP_VERSION_MINOR << 8 | GASP_VERSION_PATCH)

/* The version of the library: "0.1.0". The text is static. */
const char *gasp_version(void);

/*
 * Why the last call of this thread that failed did so, in a sentence; "" if none has. It has
 * at most 1,023 bytes; a longer text is cut between characters and ends in "...".
 *
 * The pointer is always the same in one thread, and valid until that thread has ended, also
 * in the destructors of its thread-specific data. The thread's next call that fails
 * overwrites the text: copy what is to be kept, and do not read it from another thread.
 */
const char *gasp_last_error(void);

/* ---- The log ------------------------------------------------------------------------ */

#define GASP_LOG_OFF UINT32_C(0)
#define GASP_LOG_ERROR UINT32_C(1) /* failures inside the library */
#define GASP_LOG_WARN UINT32_C(2)  /* wrong use, and drains that pass their deadline: the default */
#define GASP_LOG_INFO UINT32_C(3)
#define GASP_LOG_DEBUG UINT32_C(4) /* every call that fails */

/*
 * One line of the log, without a line end, valid during the call. It may be called from any
 * thread, several at a time, also while the library has its locks: it must not call the
 * library, throw, or jump out.
 */
typedef void (*gasp_log_t)(void *context, uint32_t level, const char *line);

/*
 * Says how much is logged, and where to: to log, or to stderr where that is NULL. Lines in
 * progress on other threads may still come to the old place.
 *
 * EINVAL for a level that is none of the above.
 */
errno_t gasp_set_log(uint32_t level, gasp_log_t log, void *context);

/*
 * The environment variable GASP_DEBUG is looked at with the first guest. It has words that
 * commas separate; there is one, guard: see GMF_READ of <qvm/gasp.h>. Unknown ones are told in
 * the log.
 */

/* ---- Guests ------------------------------------------------------------------------- */

/*
 * A guest as a TOML file describes it: with its memory, IOMMU domains and devices. Relative
 * paths in it are relative to the folder that it is in. gasp_last_error() names the line that
 * is wrong.
 *
 * ENOENT and other errors of opening the file; EINVAL, EEXIST, ENXIO where it is wrong;
 * ENOMEM where the host has less memory.
 */
errno_t gasp_guest_load(const char *path, gasp_guest_t **guest);

/* The same from a text. Relative paths in it are relative to the current folder. */
errno_t gasp_guest_parse(const char *toml, gasp_guest_t **guest);

#define GASP_IOMMU_NONE UINT32_C(0)   /* every device reaches all of RAM (decision 13) */
#define GASP_IOMMU_DENY UINT32_C(1)   /* devices without a domain are denied (decision 14) */
#define GASP_IOMMU_BYPASS UINT32_C(2) /* devices without a domain reach all memory */

#define GASP_DRAIN_WAIT UINT32_C(0)   /* at the deadline: a warning, and wait on */
#define GASP_DRAIN_DETACH UINT32_C(1) /* at the deadline: go on without the mapping */

/* What a guest is made with. Begin with GASP_GUEST_OPTIONS_INIT. */
struct gasp_guest_options {
    const char *name;            /* for reports; NULL stands for "guest" */
    uint32_t address_width;      /* in bits, 32 to 52; 0 stands for 48 */
    uint32_t iommu;              /* GASP_IOMMU_* */
    uint32_t drain_deadline_ms;  /* how long a revoke waits before at_deadline; 0: no time */
    uint32_t at_deadline;        /* GASP_DRAIN_* */
    uint32_t allow_unpinned;     /* not 0: addresses that can move will do (decision 20) */
    uint32_t reserved;           /* 0 */
};
#define GASP_GUEST_OPTIONS_INIT \
    { NULL, 0, GASP_IOMMU_NONE, 1000, GASP_DRAIN_WAIT, 0, 0 }

/* A guest without memory. options: NULL stands for GASP_GUEST_OPTIONS_INIT. */
errno_t gasp_guest_create(const struct gasp_guest_options *options, gasp_guest_t **guest);

/*
 * Ends the guest: its devices, domains and regions are gone, and calls that are made with
 * them are refused. Mappings that are held stay good until they are unmapped. No map
 * through one of its devices begins any more when this returns; other calls that are in
 * progress on other threads end with the guest as it was, and its memory goes with the last.
 */
errno_t gasp_guest_destroy(gasp_guest_t *guest);

/*
 * Ends the startup phase: see the table in <qvm/gasp.h>. EPERM where it is over already.
 */
errno_t gasp_guest_start(gasp_guest_t *guest);

/*
 * Chooses the guest that those calls of this thread mean that name none; NULL takes the choice
 * back. A thread that has chosen none means the only guest of the process; if there are
 * several, its calls fail with ENOTUNIQ. New threads have chosen none: the choice of the
 * thread that starts them is not inherited.
 */
errno_t gasp_guest_use(gasp_guest_t *guest);

/* ---- Memory -------------------------------------------------------------------------- */

/* In *start: behind the highest RAM or ROM. */
#define GASP_ANYWHERE UINT64_MAX

/* Which pages RAM may be made of: a set. */
#define GASP_PAGES_ANY UINT32_C(0)  /* 1G, 2M, transparent huge pages, 4K: the first to be had */
#define GASP_PAGES_1G UINT32_C(1)
#define GASP_PAGES_2M UINT32_C(2)
#define GASP_PAGES_THP UINT32_C(4)
#define GASP_PAGES_4K UINT32_C(8)

#define GASP_PINNED UINT32_C(0)    /* kept in place, so that its addresses stay; without the
                                      means to, as GASP_RESIDENT */
#define GASP_RESIDENT UINT32_C(1)  /* populated, but may be moved */
#define GASP_ON_DEMAND UINT32_C(2) /* populated as it is touched */

/*
 * Adds RAM, zeroed. *start: where, or GASP_ANYWHERE; out: where it is. pages: a set of
 * GASP_PAGES_*; residency: GASP_PINNED and so on. Of several kinds of pages the largest
 * that are to be had are taken.
 *
 * EBUSY where this thread has gasp_lock(): give it back first. EINVAL where start or size is
 * no multiple of the page size; EEXIST where something is there; ENXIO where it passes the
 * guest's address width; ENOMEM, and other errors of mmap(), where the host has no such
 * memory.
 */
errno_t gasp_guest_add_ram(gasp_guest_t *guest, uint64_t *start, uint64_t size, uint32_t pages,
                           uint32_t residency);

/*
 * Adds ROM with this content; the rest of its last page is zero. Errors as for RAM; EINVAL
 * for a length of 0.
 */
errno_t gasp_guest_add_rom(gasp_guest_t *guest, uint64_t *start, const void *image,
                           size_t length);

/* Of somebody else's memory: whether its owner may be trusted not to take it away. */
#define GASP_OWNER_UNTRUSTED UINT32_C(0)
#define GASP_OWNER_TRUSTED UINT32_C(1)

/*
 * Adds somebody else's memory, size bytes from offset in a file or memfd, as RAM. The
 * descriptor stays the caller's. GMF_WRITE in access: for writing, too.
 *
 * The file of an owner who is not trusted is sealed against shrinking, and one whose memory
 * could still be taken away is refused with EPERM: an access through a pointer would be a
 * SIGBUS. Such an owner can also put other pages where others were, so host-physical
 * addresses of his memory can change (EAGAIN, decision 20), unless the file is sealed against
 * writing from outside as well.
 *
 * EBADF where the descriptor is not open; EINVAL where the range is empty, unaligned or
 * passes the end of the file; EACCES where the file cannot be written and is to be; ENXIO
 * for access that is none; ENODEV for what is no file or memory; else as for RAM.
 */
errno_t gasp_guest_add_shared(gasp_guest_t *guest, uint64_t *start, uint64_t size, int fd,
                              uint64_t offset, gasp_map_flags_t access, uint32_t owner);

/*
 * Adds a window: size bytes from offset in a file or character device (/dev/mem, a UIO or
 * VFIO resource), which the caller says are at host-physical host. It is mapped only with
 * GMF_MAP_ANY. Errors as for shared memory; EINVAL where host is no multiple of the page
 * size.
 */
errno_t gasp_guest_add_window(gasp_guest_t *guest, uint64_t start, uint64_t size, int fd,
                              uint64_t offset, uint64_t host, gasp_map_flags_t access);

/*
 * Removes everything in a range (hot-unplug). New maps of it fail at once; see "Drains" for
 * those that are held. ENOENT if nothing is there; EINVAL if the range is empty, or begins or
 * ends inside a page of memory; ENXIO where it wraps; EBUSY where this thread has gasp_lock().
 */
errno_t gasp_guest_remove(gasp_guest_t *guest, uint64_t start, uint64_t size,
                          gasp_drain_t **drain);

/* ---- Devices ------------------------------------------------------------------------- */

/* A new device, in no domain. EEXIST where the guest has one of this name. */
errno_t gasp_vdev_create(gasp_guest_t *guest, const char *name, vdev_t **vdev);

/* The device of this name; ENOENT where there is none. */
errno_t gasp_vdev_find(gasp_guest_t *guest, const char *name, vdev_t **vdev);

/*
 * Puts the device into a domain of its guest, or moves it there from another of the same
 * owner; its mappings through the old one are revoked. (From one bypass to another nothing
 * changes.) EBUSY where the old one has another owner; EINVAL where the domain is another
 * guest's.
 */
errno_t gasp_vdev_attach(vdev_t *vdev, gasp_domain_t *domain, gasp_drain_t **drain);

/* Takes it out of its domain; its mappings are revoked. */
errno_t gasp_vdev_detach(vdev_t *vdev, gasp_drain_t **drain);

/* Removes it from its guest; its mappings are revoked. */
errno_t gasp_vdev_destroy(vdev_t *vdev, gasp_drain_t **drain);

/* ---- The guest's IOMMU --------------------------------------------------------------- */

#define GASP_DOMAIN_BYPASS UINT32_C(0)    /* its devices reach all memory */
#define GASP_DOMAIN_DENY UINT32_C(1)      /* its devices reach none */
#define GASP_DOMAIN_IDENTITY UINT32_C(2)  /* what was granted, at the same addresses */
#define GASP_DOMAIN_TRANSLATE UINT32_C(3) /* what was granted, at addresses of its own */

/*
 * A new domain, of the kind GASP_DOMAIN_*, of the owner `owner` (NULL: "guest"). EINVAL
 * where the guest has no IOMMU; EEXIST where it has a domain of this name.
 */
errno_t gasp_domain_create(gasp_guest_t *guest, const char *name, uint32_t kind,
                           const char *owner, gasp_domain_t **domain);

/* The domain of this name; ENOENT where there is none. */
errno_t gasp_domain_find(gasp_guest_t *guest, const char *name, gasp_domain_t **domain);

/*
 * Lets the domain's devices at guest memory [guest_paddr, guest_paddr + length) through the
 * addresses from device_addr on. access: GMF_READ, GMF_WRITE, GMF_EXEC; it is added to what
 * is granted already. Ranges are rounded outward to 4 KiB (decision 11). In an identity
 * domain both addresses are the same.
 *
 * EINVAL for a length of 0, where the domain takes no grants, or is an identity domain and
 * the addresses differ, or where they differ in their last 12 bits; ENXIO where a range wraps
 * or passes the guest's address width, or access is none or has other bits; EEXIST where part
 * of it leads elsewhere already; ENOSPC where the domain is full.
 */
errno_t gasp_domain_grant(gasp_domain_t *domain, uint64_t device_addr, uint64_t guest_paddr,
                          uint64_t length, gasp_map_flags_t access);

/*
 * Takes a range back, rounded outward to 4 KiB. New maps of it fail at once (decision 15);
 * see "Drains" for those that are held. Parts that were not granted are passed over.
 *
 * EINVAL for a length of 0, or where the domain takes no grants; ENXIO where the range wraps.
 */
errno_t gasp_domain_revoke(gasp_domain_t *domain, uint64_t device_addr, uint64_t length,
                           gasp_drain_t **drain);

/* Removes the domain. EBUSY where a device is in it. */
errno_t gasp_domain_destroy(gasp_domain_t *domain);

/* Why the IOMMU refused. */
#define GASP_REFUSED_NOT_GRANTED UINT32_C(0)
#define GASP_REFUSED_ACCESS UINT32_C(1)      /* there is a grant, for other access */
#define GASP_REFUSED_UNATTACHED UINT32_C(2)  /* the device is in no domain */
#define GASP_REFUSED_DENY_DOMAIN UINT32_C(3) /* its domain denies everything */

/* One access that the guest's IOMMU refused. */
struct gasp_fault {
    vdev_t *vdev;            /* NULL where it has been destroyed since */
    uint64_t device_addr;    /* the first refused address */
    gasp_map_flags_t access; /* what the device asked for */
    uint32_t refusal;        /* GASP_REFUSED_* */
    uint64_t dropped;        /* records lost for want of room since one was last taken */
    char name[136];          /* the device's name */
};

/*
 * Takes the oldest fault record; ENOENT where there is none. 64 are kept, and those that
 * come when there is no room are counted.
 */
errno_t gasp_guest_next_fault(gasp_guest_t *guest, struct gasp_fault *fault);

/* ---- Drains -------------------------------------------------------------------------- */

/*
 * Calls that revoke take a `gasp_drain_t **drain`. With NULL they return when the mappings
 * made before are gone, or the deadline has decided. Otherwise they return at once, with a
 * drain to be waited for or abandoned; it is NULL if no mapping is held. The calls below take
 * NULL as a drain that is over.
 *
 * What would wait for a mapping that the calling thread itself has made and that is not
 * unmapped yet is refused with EDEADLK, and nothing has changed (decision 22): the calls with
 * NULL, and gasp_drain_wait(). That is also so if another thread is about to unmap it; call
 * again then. With GASP_DRAIN_DETACH they wait until the deadline instead. ENOSPC if 262,144
 * drains are neither waited for nor abandoned.
 */

/* How a drain ended. */
struct gasp_drained {
    uint64_t holders;  /* mappings that were held when the revoke took effect */
    uint64_t detached; /* those still held, which now say that they are revoked */
    uint64_t waited_ns;
};

/* How many mappings are held still. */
errno_t gasp_drain_pending(gasp_drain_t *drain, uint64_t *holders);

/*
 * Waits for the end, and ends the drain. drained may be NULL. EDEADLK, with the drain as it
 * was, as said above.
 */
errno_t gasp_drain_wait(gasp_drain_t *drain, struct gasp_drained *drained);

/* Ends the drain without waiting: mappings still held say from now on that they are revoked. */
errno_t gasp_drain_abandon(gasp_drain_t *drain);

#if QVM_EDITION == 800
/*
 * Whether a mapping is still the device's to use: EOK; ESTALE where it was revoked and
 * nobody waits for it any longer (its memory stays until it is unmapped); EBADF where the
 * handle is not one that is mapped.
 *
 * The 7.x forms have no handle that could be asked about: give the guest of a device that is
 * built with them GASP_DRAIN_WAIT, with which no revoke ends while a mapping is held.
 */
errno_t gasp_map_check(const gasp_map_handle_t *h);
#endif

#ifdef __cplusplus
}
#endif

#endif
