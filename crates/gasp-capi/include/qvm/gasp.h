/*
 * <qvm/gasp.h>: guest address space and memory mapping for virtual devices.
 *
 * The functions are those of the publicly documented virtual device API of the QNX
 * Hypervisor, for Linux, in libgasp. A prototype, value or error that is not documented
 * publicly, and so is our own choice, is marked [ours]; one that is not documented, but used
 * by public sources of virtual devices, is marked [seen]. Everything else is published.
 * "Decision N" is row N of the first table of docs/decisions.md, a question in quotes a row of
 * its other tables: the behaviour where the documentation is silent.
 *
 * | functions                                     | phase            | threads |
 * |-----------------------------------------------|------------------|---------|
 * | gasp_map*, gasp_get_vaddr, gasp_unmap*        | startup, running | any     |
 * | gasp_lock, gasp_unlock                        | startup, running | any     |
 * | gasp_region_info, gasp_walk_*                 | startup, running | any     |
 * | gasp_region_set                               | startup          | any     |
 * | gasp_region_set_soft                          | running          | owner of gasp_lock() |
 * | gasp_find_free, gasp_find_free_range          | startup          | any     |
 * |                                               | running          | owner of gasp_lock() |
 * | gram_find_free, gram_find_free_range, gram_reserve | startup     | any [ours] |
 *
 * A guest is in its startup phase until gasp_guest_start() of <gasp/guest.h>. A call in the
 * wrong phase, or without the required lock, changes nothing, fails with EPERM and logs a
 * line.
 *
 * The guest of a call: the 8.0 forms name none, because the hypervisor has one guest per
 * process. Here a process can have several: the calls refer to the one that the thread has
 * chosen with gasp_guest_use(). A thread that has chosen none refers to the only guest of the
 * process ("C: several guests, and a call that names none?"). Such a call fails with ENXIO if
 * there is no guest, or the chosen one has been destroyed, and with ENOTUNIQ, and a line in
 * the log, if there are several. Calls that take a vdev refer to the vdev's guest.
 *
 * Errors: functions that return int or errno_t return the error number; the others set errno.
 * Besides the listed errors a call can fail with EPERM, ENXIO and ENOTUNIQ as above, and with
 * ENOTRECOVERABLE after a failure inside the library. Every failure leaves a text for
 * gasp_last_error() of <gasp/guest.h>.
 *
 * Addresses and lengths are in bytes, for I/O ports in ports (0 to 0xffff). Pages and granules
 * are 4 KiB unless noted.
 *
 * Pointers: an argument that points to data is NULL, or points to an object of its type, or to
 * an array of the given length, that is valid during the call. What the call reads has been
 * initialized, and no other thread changes it meanwhile; what the call writes, no other thread
 * accesses. A text ends in a NUL. vdev_t * and the opaque types are exempt: any value will do,
 * and what it points to is not accessed.
 *
 * After a fork in a process with several threads, the child may only exec. A thread inside a
 * call must not be cancelled.
 */
#include <qvm/types.h>

#ifndef QVM_GASP_H
#define QVM_GASP_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Requested access of a map: at least one of GMF_READ, GMF_WRITE and GMF_EXEC, and no unknown
 * bit; anything else is ENXIO (decision 4). The values are [ours]; READ, WRITE and EXEC equal
 * PROT_READ, PROT_WRITE and PROT_EXEC of Linux.
 *
 * Access is checked against the guest's configuration when the mapping is created, not by the
 * processor when memory is accessed: a mapping is a pointer into guest memory, which the
 * library has mapped once, and has no pages of its own. Memory mapped without GMF_WRITE can
 * be written and memory mapped without GMF_READ can be read through the pointer, and the
 * guest's other memory lies before and after the mapping. Nothing stops a device that does
 * so: it may access [vaddr, vaddr + length) alone, with the access that it requested.
 *
 * To find stray accesses, run the device with GASP_DEBUG=guard in the environment ("A device
 * that writes what it has mapped for reading, or past the end?"). Each mapping then gets pages
 * of its own, with the requested access, between two guard pages. A stray access raises
 * SIGSEGV at the faulting line; so does an access after the unmap, until something else is
 * mapped at the addresses. Not detected are
 *   - an access outside the range but within its pages, which have the memory's page size
 *     (4 KiB; 2 MiB or 1 GiB for huge pages of a pool)
 *   - a read of a mapping without GMF_READ, if the processor has no write-only pages (x86)
 * With it a map takes some microseconds, and can fail with any error of mmap() (ENOMEM at the
 * limit of vm.max_map_count). Two mappings of the same memory have different addresses.
 */
typedef uint32_t gasp_map_flags_t;
#define GMF_READ UINT32_C(0x1)
#define GMF_WRITE UINT32_C(0x2)
#define GMF_EXEC UINT32_C(0x4)
/*
 * Accept ROM, pass-through and shared windows, not only system RAM. Never widens what the
 * guest's IOMMU allows (decision 5).
 */
#define GMF_MAP_ANY UINT32_C(0x100)

/*
 * Options of gasp_walk_*(). The name GWS_HOST is published, and so is that 8.0's state has
 * "GWF_*" flags; the names GWS_NONE, GWF_NONE and GWF_HOST, and all values, are [ours].
 */
typedef uint32_t gasp_walk_flags_t;
#define GWS_NONE UINT32_C(0)
#define GWS_HOST UINT32_C(0x1) /* report host-physical addresses; split entries where they break */
#define GWF_NONE GWS_NONE
#define GWF_HOST GWS_HOST

/*
 * Where gram_find_free() searches. No hint is documented publicly; only 0 is supported, and
 * its name is [ours].
 */
typedef uint32_t gram_hint_flags_t;
#define GRAM_HINT_NONE UINT32_C(0)

/*
 * Selects parts of a walk. On entry [*guest_loc, *guest_loc + *length) is what remains of an
 * entry. The filter leaves *length unchanged to accept all of it; sets both to the first part
 * to be walked, after which it is called again for the rest; or sets *length to 0 to skip all
 * of it. What it returns outside the remainder is cut off. Called without any lock held; it
 * must not throw or longjmp() out.
 */
typedef void (*gasp_walk_filter_t)(uint64_t *guest_loc, size_t *length);

#if QVM_EDITION == 800

/* ---- Mapping ----------------------------------------------------------------------- */

/*
 * One mapping. Plain data: it can be copied, kept in a table, and passed to another thread.
 * Valid until gasp_unmap_handle() is called with it or with a copy. Of an unmapped, zeroed or
 * fabricated handle gasp_get_vaddr() returns NULL, and gasp_unmap_handle() ignores it
 * (decisions 17 and 18).
 */
typedef struct {
    uint64_t reserved[3];
} gasp_map_handle_t;

/*
 * Maps guest memory for a device, as far as it is consecutive in host-physical memory.
 *
 * vdev     the device that accesses the memory
 * ppaddr   in: the address that the device uses; out: the host-physical address of the
 *          same byte. Any alignment (decision 11)
 * plength  in: the most to map, in bytes, at least 1; out: how much was mapped, never 0. It
 *          is less if host-physical memory is not consecutive: call again at the next
 *          address for the rest (decision 7)
 * prot     GMF_*
 * h        out: the handle
 *
 * The memory [*ppaddr, *ppaddr + *plength) is one range, is the memory at the handle's
 * virtual address, and remains so until the handle is unmapped. If the guest revokes its
 * permission meanwhile, the invalidation waits for the handle (decision 15).
 *
 * Returns EOK or, with *ppaddr, *plength and *h unchanged (decision 10), the first of these
 * that applies (decision 1):
 *   ENXIO    prot is not valid (decision 4)
 *   EINVAL   a pointer is NULL, vdev is not a vdev, or *plength is 0 (decisions 2, 12)
 *   ENXIO    the range wraps or extends past the guest's address width (decision 3)
 *   EFAULT   the guest's IOMMU does not allow this device this access to the whole range
 *            (decision 9); a fault record is left for the guest
 *   ENXIO    part of the range has no memory (decision 8), or only memory that needs
 *            GMF_MAP_ANY (decision 5)
 *   EACCES   part of the memory does not offer the access, as ROM does not offer GMF_WRITE
 *            (decision 6)
 *   EPERM    this process may not read host-physical addresses (decision 19)
 *   EAGAIN   the memory can move, and the guest is not configured with `allow-unpinned`
 *            (decision 20)
 * or ENOSPC if 4,194,240 mappings of this thread exist.
 */
errno_t gasp_map_host_contig(const vdev_t *vdev, uint64_t *ppaddr, size_t *plength,
                             gasp_map_flags_t prot, gasp_map_handle_t *h);

/*
 * Maps [guest_paddr, guest_paddr + length) for a device, all of it or nothing. guest_paddr is
 * the address that the device uses. The prototype is [ours].
 *
 * Returns EOK or an error as gasp_map_host_contig(), except EPERM and EAGAIN; also ENXIO if
 * the memory is not consecutive in this process (decision 21). *h is written on success only.
 */
errno_t gasp_map(const vdev_t *vdev, uint64_t guest_paddr, size_t length, gasp_map_flags_t prot,
                 gasp_map_handle_t *h);

/*
 * Maps guest-physical [guest_paddr, guest_paddr + length) as a vCPU accesses it, past the
 * guest's IOMMU: for virtual firmware, and for addresses that the host side has chosen. Use
 * gasp_map() for an address that the guest supplied.
 *
 * Returns EOK or an error as gasp_map(), except EFAULT.
 */
errno_t gasp_map_firmware(uint64_t guest_paddr, size_t length, gasp_map_flags_t prot,
                          gasp_map_handle_t *h);

/*
 * The virtual address of a mapping's first byte; NULL if h is NULL or not mapped
 * (decision 18). Do not write memory that was mapped without GMF_WRITE, and do not access
 * memory past the mapping's length: GMF_READ above describes what is not checked, and how to
 * find a device that does so. The prototype is [ours].
 */
void *gasp_get_vaddr(const gasp_map_handle_t *h);

/*
 * Unmaps a handle, from any thread. Ignores a handle that is NULL, zeroed, fabricated or
 * already unmapped (decision 17).
 */
void gasp_unmap_handle(gasp_map_handle_t *h);

/*
 * The functions without handles are in the function table of 8.0 as well; its documentation
 * has no prototypes of them. They return the virtual address; NULL with errno set on failure.
 *
 * gasp_map_vdma() maps as gasp_map(), with its errors. The prototype is [seen].
 */
void *gasp_map_vdma(const vdev_t *vdev, uint64_t guest_paddr, size_t length,
                    gasp_map_flags_t prot);
/*
 * Maps as gasp_map_host_contig(), with its errors. The prototype is [ours], in the order of the
 * form above.
 */
void *gasp_map_contig(const vdev_t *vdev, uint64_t *ppaddr, size_t *plength,
                      gasp_map_flags_t prot);
/* Maps as gasp_map_firmware(), with its errors. The prototype is [ours]. */
void *gasp_map_sys(uint64_t guest_paddr, size_t length, gasp_map_flags_t prot);
/*
 * Unmaps one mapping of these three functions that begins at ptr: the latest of this length,
 * otherwise the latest of any length. Does nothing if there is none (decision 17). flush is
 * ignored: caches are coherent here. The prototype is [seen].
 */
void gasp_unmap(const void *ptr, size_t length, int flush);

/* ---- Regions ----------------------------------------------------------------------- */

/*
 * Describes the region at blk->location: fills *rgn with its part that begins at
 * blk->location, is at most blk->length long, has the same flags throughout, and is
 * consecutive in host-physical memory. Call again at the next address for the rest.
 *
 * blk's type is QST_MEMORY, QST_X86_IO or QST_PCI_IO (ports on x86, memory elsewhere).
 * rgn->host_location is the host-physical address if the region is memory and the process may
 * read it, else QSL_NO_LOCATION.
 *
 * Returns EOK; ENXIO if there is no region at blk->location, or the range wraps; EINVAL if a
 * pointer is NULL, the length is 0, spare is not 0, or the type is another. The errors are
 * [ours].
 */
int gasp_region_info(const struct qvm_state_block *blk, struct gasp_region *rgn);

/*
 * Adds, changes or deletes num_regions regions, one entry of rgn after the other. The
 * prototype is [ours].
 *
 *   grf_flags      if the range has a region           if it has none
 *   GRF_NONE       it is deleted                       ENOENT
 *   GRF_VIRT_*     flags, cookie and vdev change       registers of the vdev are added
 *   GRF_PASS_*     direct access changes to these      a window to host_location is added
 *   GRF_NOPERMS    direct access is removed            a reserved range is added
 *
 * The kind of a region does not change: GRF_PASS_* and GRF_NOPERMS apply to memory, and
 * exclude each other; GRF_VIRT_* applies to memory and registers; anything else is EINVAL. The
 * access of memory becomes exactly the GRF_PASS_* flags of the entry. GRF_STICKY flags remain.
 * vdev is a vdev of the guest if a GRF_VIRT_* flag is set (else EINVAL), and ignored otherwise. A
 * window maps /dev/mem at host_location, with its errors; EINVAL if that is QSL_NO_LOCATION. For
 * ports, flags, cookie and vdev are stored as they are.
 *
 * Registers and reserved ranges can have any start, and any length from 1 byte. Memory
 * begins, ends and is split at multiples of 4 KiB (else EINVAL), and shares no page with
 * registers or reserved ranges ("Registers of a few bytes?").
 *
 * New maps of a deleted or restricted range are refused at once; the call returns when its
 * mappings are gone (decision 16). If one of them was created by the calling thread and is not
 * unmapped yet, nothing changes and errno is EDEADLK (decision 22): unmap it first.
 *
 * Takes gasp_lock() of the spaces that the entries name, memory before ports, and releases it.
 * As documented, an error ends the process: with exit(EXIT_FAILURE), after a line in the log.
 * Errors of the call itself change nothing and set errno: EPERM in the running phase, if the
 * thread has a gasp_lock() of this guest, or if it is ending; EDEADLK as above; ENXIO or
 * ENOTUNIQ without a guest.
 */
void gasp_region_set(unsigned num_regions, const struct gasp_region *rgn);

/*
 * As gasp_region_set(), in the running phase, between gasp_lock() and gasp_unlock(), which
 * waits for the mappings of deleted or restricted ranges. The prototype is published.
 *
 * Returns num_regions; or the index of the first entry that failed, with errno set. The
 * entries before it have been carried out. Errors:
 *   EPERM    the thread does not have gasp_lock() of the entry's space, or the guest is in
 *            the startup phase
 *   ENOENT   GRF_NONE, and the range has no region
 *   EEXIST   part of the range has a region, and part has none; or memory would share a page
 *            with registers or a reserved range
 *   EINVAL   rgn is NULL, or the entry is not valid
 *   ENXIO    the range wraps, or extends past the guest's address width or the last port
 *   ENOSPC   the guest would have more than 65,536 regions or 1,024 memory objects
 *   ENOMEM   no memory for a copy of the entries
 *   and any error of opening or mapping /dev/mem
 */
unsigned gasp_region_set_soft(unsigned num_regions, const struct gasp_region *rgn);

/*
 * Prevents other threads from changing the guest's regions of memory (QST_MEMORY) or I/O ports
 * (QST_X86_IO) until gasp_unlock(); waits for a thread that has the lock. QST_PCI_IO stands
 * for ports on x86, for memory elsewhere. Does not prevent anybody from mapping. A thread that
 * needs both locks takes memory first, as gasp_region_set() does: in the other order two
 * threads can deadlock.
 *
 * Returns EOK; EBUSY if this thread has the lock already; EINVAL for another type; EPERM if
 * the thread is ending. The errors are [ours]. A thread that ends releases its locks, without
 * waiting for the mappings that it has revoked under them.
 */
int gasp_lock(uint16_t type);

/*
 * Releases the lock of this type that the thread took last, of whichever guest, and then waits
 * for the mappings that gasp_region_set_soft() has revoked.
 *
 * Returns EOK; EPERM if this thread does not have such a lock; EINVAL as gasp_lock(); EDEADLK
 * if it would wait for a mapping that the calling thread itself has created and that is not
 * unmapped yet (decision 22). After EDEADLK the thread still has the lock: unmap the mapping,
 * or have it unmapped, and unlock again; or restore by gasp_region_set_soft() what was taken
 * away, and unlock again, after which gasp_map_check() reports the mapping as revoked. If the
 * guest's drains detach at their deadline (GASP_DRAIN_DETACH), it waits until then instead.
 */
int gasp_unlock(uint16_t type);

/* ---- Finding space ------------------------------------------------------------------ */

/*
 * Finds the lowest free range of memory (QST_MEMORY) or of I/O ports (QST_X86_IO, QST_PCI_IO)
 * of `size` bytes or ports whose start is a multiple of align: a power of two, or 0 for any.
 * Registers can end at any byte: for memory use a multiple of 4 KiB. The range is not reserved.
 * min_addr and max_addr are the lowest and the highest address that it may contain. The
 * prototypes are [ours].
 *
 * Returns the start; QSL_NO_LOCATION with errno set on failure: ENOSPC if no free range is
 * large enough; EINVAL if size is 0, align is not a power of two, or qst is another type;
 * EPERM in the running phase without gasp_lock().
 */
uint64_t gasp_find_free(unsigned qst, uint64_t size, uint64_t align);
uint64_t gasp_find_free_range(unsigned qst, uint64_t size, uint64_t align, uint64_t min_addr,
                              uint64_t max_addr);

/*
 * Finds the lowest unreserved range inside one region of the guest's RAM or ROM, and reserves
 * it: no two calls return overlapping ranges. size and align are as for gasp_find_free();
 * flags is GRAM_HINT_NONE. range_start and range_end are the lowest and the highest address
 * that the range may contain.
 *
 * Returns the start; QSL_NO_LOCATION with errno set on failure: ENOSPC if no such range is
 * large enough; EINVAL if size is 0, align is not a power of two, or flags is not 0; EPERM in
 * the running phase.
 */
uint64_t gram_find_free(uint64_t size, uint64_t align, gram_hint_flags_t flags);
uint64_t gram_find_free_range(uint64_t size, uint64_t align, gram_hint_flags_t flags,
                              uint64_t range_start, uint64_t range_end);

/*
 * Reserves [start, start + size) inside RAM or ROM, so that gram_find_free() does not return
 * it. The prototype is [ours].
 *
 * Returns EOK; ENXIO if part of it is not RAM or ROM, or it wraps; EEXIST if part of it is
 * reserved; EINVAL if size is 0; EPERM in the running phase.
 */
errno_t gram_reserve(uint64_t start, uint64_t size);

/* ---- Walking ------------------------------------------------------------------------ */

/*
 * State of a walk of the guest's RAM and ROM, and its current entry. The prototypes and private
 * members of the walk are [ours].
 */
typedef struct {
    void *gw_span;               /* private */
    uint64_t gw_guest_loc;       /* guest-physical address of the entry */
    uint64_t gw_host_loc;        /* its host-physical address with GWS_HOST, if known; else
                                    QSL_NO_LOCATION */
    uint64_t gw_length;          /* its length in bytes */
    uint64_t gw_max_length;      /* longest entry in bytes; 0 for no limit */
    gasp_walk_flags_t gwf_flags; /* GWS_* */
} gasp_walk_state_t;

/*
 * Initializes a walk, before its first entry. max_length is the longest entry in bytes, 0 for
 * no limit. Returns EOK; EINVAL if ws is NULL or flags has an unknown flag.
 */
int gasp_walk_init(gasp_walk_state_t *ws, uint64_t max_length, gasp_walk_flags_t flags);

/*
 * Advances to the next entry, in ascending order of guest addresses. Regions may change during
 * a walk: it continues after the current entry. Returns EOK; ENOENT after the last entry;
 * EINVAL if ws is NULL, or its guest has been destroyed. *ws is written on success only.
 */
int gasp_walk_next(gasp_walk_state_t *ws);

/*
 * The number of entries of a walk. Returns 0 with errno set on failure: EINVAL if flags has an
 * unknown flag.
 */
unsigned gasp_walk_count(uint64_t max_length, gasp_walk_flags_t flags);

/* State of a walk of the parts that a filter accepts. */
typedef struct {
    gasp_walk_state_t ws;         /* the current part, as an entry */
    gasp_walk_filter_t filter;
    uint64_t remaining_guest_loc; /* private */
    uint64_t remaining_length;    /* private */
} gasp_walk_state_filtered_t;

/* As the functions above, with their errors; EINVAL if filter is NULL. */
int gasp_walk_init_filtered(gasp_walk_state_filtered_t *ws, uint64_t max_length,
                            gasp_walk_flags_t flags, gasp_walk_filter_t filter);
int gasp_walk_next_filtered(gasp_walk_state_filtered_t *ws);
unsigned gasp_walk_count_filtered(uint64_t max_length, gasp_walk_flags_t flags,
                                  gasp_walk_filter_t filter);

#else /* QVM_EDITION == 710 */

/*
 * The 7.x forms behave as the 8.0 forms of the same name, for the guest that they are given;
 * EINVAL if that is not a guest (gasp_unlock(): EPERM). The functions that return a pointer or
 * a count set errno on failure, too. [ours]
 */
#define GASP_EDITION_710(name) __asm__(#name "_710")

/*
 * prot is a set of PROT_* of <sys/mman.h>, with or without GMF_MAP_ANY; see GMF_READ above for
 * what a device may access through the pointer. NULL with errno set on failure.
 */
void *gasp_map_contig(const vdev_t *vdev, int prot, uint64_t *ppaddr, size_t *plength)
    GASP_EDITION_710(gasp_map_contig);
void *gasp_map_vdma(const vdev_t *vdev, int prot, uint64_t guest_paddr, size_t length)
    GASP_EDITION_710(gasp_map_vdma);
/* Maps as gasp_map_firmware() of 8.0, with its errors. */
void *gasp_map_sys(struct guest_system *gsp, int prot, uint64_t guest_paddr, size_t length)
    GASP_EDITION_710(gasp_map_sys);
/*
 * Unmaps one mapping of this guest that begins at ptr: the latest of this length, otherwise the
 * latest of any length. Does nothing if there is none. flush is ignored: caches are coherent
 * here.
 */
void gasp_unmap(struct guest_system *gsp, const void *ptr, size_t length, int flush)
    GASP_EDITION_710(gasp_unmap);

int gasp_region_info(struct guest_system *gsp, const struct qvm_state_block *blk,
                     struct gasp_region *rgn) GASP_EDITION_710(gasp_region_info);
void gasp_region_set(struct guest_system *gsp, unsigned num_regions,
                     const struct gasp_region *rgn) GASP_EDITION_710(gasp_region_set);
unsigned gasp_region_set_soft(struct guest_system *gsp, unsigned num_regions,
                              const struct gasp_region *rgn)
    GASP_EDITION_710(gasp_region_set_soft);
int gasp_lock(struct guest_system *gsp, uint16_t type) GASP_EDITION_710(gasp_lock);
int gasp_unlock(struct guest_system *gsp, uint16_t type) GASP_EDITION_710(gasp_unlock);

uint64_t gasp_find_free(const struct guest_system *gsp, unsigned qst, uint64_t size,
                        uint64_t align) GASP_EDITION_710(gasp_find_free);
uint64_t gasp_find_free_range(const struct guest_system *gsp, unsigned qst, uint64_t size,
                              uint64_t align, uint64_t min_addr, uint64_t max_addr)
    GASP_EDITION_710(gasp_find_free_range);
uint64_t gram_find_free(struct guest_system *gsp, uint64_t size, uint64_t align, unsigned flags)
    GASP_EDITION_710(gram_find_free);
uint64_t gram_find_free_range(struct guest_system *gsp, uint64_t size, uint64_t align,
                              unsigned flags, uint64_t range_start, uint64_t range_end)
    GASP_EDITION_710(gram_find_free_range);
errno_t gram_reserve(struct guest_system *gsp, uint64_t start, uint64_t size)
    GASP_EDITION_710(gram_reserve);

/* State of a walk, and its current entry: see gasp_walk_state_t of 8.0. */
struct gasp_walk_state {
    void *span; /* private */
    struct guest_system *gsp;
    uint64_t guest_loc;  /* guest-physical address of the entry */
    uint64_t host_loc;   /* its host-physical address with GWS_HOST, if known; else
                            QSL_NO_LOCATION */
    uint64_t length;     /* in bytes */
    uint64_t max_length; /* longest entry in bytes; 0 for no limit */
    unsigned flags;      /* GWS_* */
};
struct gasp_walk_state_filtered {
    struct gasp_walk_state ws;
    gasp_walk_filter_t filter;
    uint64_t remaining_guest_loc; /* private */
    uint64_t remaining_length;    /* private */
};

int gasp_walk_init(struct gasp_walk_state *ws, struct guest_system *gsp, uint64_t max_length,
                   unsigned flags) GASP_EDITION_710(gasp_walk_init);
int gasp_walk_next(struct gasp_walk_state *ws) GASP_EDITION_710(gasp_walk_next);
unsigned gasp_walk_count(const struct guest_system *gsp, uint64_t max_length, unsigned flags)
    GASP_EDITION_710(gasp_walk_count);
int gasp_walk_init_filtered(struct gasp_walk_state_filtered *ws, struct guest_system *gsp,
                            uint64_t max_length, unsigned flags, gasp_walk_filter_t filter)
    GASP_EDITION_710(gasp_walk_init_filtered);
int gasp_walk_next_filtered(struct gasp_walk_state_filtered *ws)
    GASP_EDITION_710(gasp_walk_next_filtered);
unsigned gasp_walk_count_filtered(const struct guest_system *gsp, uint64_t max_length,
                                  unsigned flags, gasp_walk_filter_t filter)
    GASP_EDITION_710(gasp_walk_count_filtered);

#undef GASP_EDITION_710

#endif /* QVM_EDITION */

#ifdef __cplusplus
}
#endif

#endif
