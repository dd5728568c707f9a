/*
 * <qvm/gasp.h>: the guest's address space, for virtual devices.
 *
 * The functions are those of the publicly documented virtual device API of the QNX
 * Hypervisor, for Linux, in libgasp. A prototype or a value that is not documented
 * publicly, and so is our own choice, is marked [ours]; one that is not documented, but used
 * by public sources of virtual devices, is marked [seen]. All else is published. "Decision N"
 * is row N of docs/decisions.md: what is done where the documentation is silent.
 *
 * | functions                                     | phase            | threads |
 * |-----------------------------------------------|------------------|---------|
 * | gasp_map*, gasp_get_vaddr, gasp_unmap*        | startup, running | any     |
 * | gasp_lock, gasp_unlock                        | startup, running | any     |
 * | gasp_region_info, gasp_walk_*                 | startup, running | any     |
 * | gasp_region_set                               | startup          | any     |
 * | gasp_region_set_soft                          | running          | the one that has gasp_lock() |
 * | gasp_find_free, gasp_find_free_range          | startup, running | running: the one that has gasp_lock() |
 * | gram_find_free, gram_find_free_range, gram_reserve | startup     | any [ours] |
 *
 * A guest is in its startup phase until gasp_guest_start() of <gasp/guest.h>. A call in
 * the wrong phase, or without the lock that it needs, changes nothing, fails with EPERM
 * (in errno where it has no other way to say so), and leaves a line in the log.
 *
 * The 8.0 forms name no guest, because the hypervisor has one in a process. Here a process
 * can have several: the calls mean the one that the thread has chosen with gasp_guest_use().
 * A thread that has chosen none means the only guest there is; if there are several, its
 * calls change nothing, fail with ENOTUNIQ (in errno if they have no other way to say so),
 * and leave a line in the log. Calls that are given a vdev mean the vdev's guest.
 *
 * Every failure leaves a text for gasp_last_error() of <gasp/guest.h>.
 *
 * A child that a process with several threads has forked may only exec. A thread inside a
 * call must not be cancelled.
 */
#include <qvm/types.h>

#ifndef QVM_GASP_H
#define QVM_GASP_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * What a map asks for: at least one of READ, WRITE and EXEC, and no unknown bit;
 * everything else is ENXIO (decision 4). The values are [ours]; READ, WRITE and EXEC are
 * those of PROT_READ, PROT_WRITE and PROT_EXEC on Linux.
 *
 * It is checked when the mapping is made, against what the guest allows, and not by the
 * processor when the memory is accessed: a mapping is a pointer into the guest's memory as the
 * library has mapped it once, and has no pages of its own. So the pointer of a mapping without
 * WRITE can be written, that of one without READ can be read, and every pointer goes on past
 * the mapping's end (and before its beginning) into the guest's other memory. Nothing stops a
 * device that does so: what it may touch is [vaddr, vaddr + length), as it was asked for.
 *
 * To find a device that does, run it with GASP_DEBUG=guard in the environment. Each mapping
 * then gets pages of its own, with the access that was asked for, between two guard pages. A
 * stray access ends in SIGSEGV at the line that makes it. An access after the unmap does so,
 * too, until something else is mapped at the addresses. Not found are:
 *   - an access outside the range but inside its pages, which are the memory's (4 KiB; 2 MiB
 *     or 1 GiB of a huge page pool)
 *   - a read of a mapping without READ, where the processor has no pages that can only be
 *     written (x86)
 * A map takes some microseconds then, and can fail with any mmap() error (ENOMEM at the limit
 * of vm.max_map_count). Two mappings of the same memory have different addresses.
 */
typedef uint32_t gasp_map_flags_t;
#define GMF_READ UINT32_C(0x1)
#define GMF_WRITE UINT32_C(0x2)
#define GMF_EXEC UINT32_C(0x4)
/*
 * Not only system RAM will do, but also ROM, pass-through and shared windows. It never
 * widens what the guest's IOMMU allows (decision 5).
 */
#define GMF_MAP_ANY UINT32_C(0x100)

/*
 * How gasp_walk_*() go through memory. Published are the name GWS_HOST, and that 8.0's state has
 * "GWF_*" flags; the names GWS_NONE, GWF_NONE and GWF_HOST, and all values, are [ours].
 */
typedef uint32_t gasp_walk_flags_t;
#define GWS_NONE UINT32_C(0)
#define GWS_HOST UINT32_C(0x1) /* tell host-physical addresses, and end entries where they break */
#define GWF_NONE GWS_NONE
#define GWF_HOST GWS_HOST

/*
 * Where gram_find_free() is to look. No hint is documented publicly; only 0 is known here, and
 * its name is [ours].
 */
typedef uint32_t gram_hint_flags_t;
#define GRAM_HINT_NONE UINT32_C(0)

/*
 * Leaves *length alone to let the whole block through, or sets both to the first part of
 * it that is to be walked; it is then asked about what is behind that part. A length of 0
 * ends the block. It is called without any lock held, and must not throw or jump out.
 */
typedef void (*gasp_walk_filter_t)(uint64_t *guest_loc, size_t *length);

#if QVM_EDITION == 800

/* ---- Mapping ----------------------------------------------------------------------- */

/*
 * One mapping. Plain data: copy it, keep it in a table, hand it to another thread. It is
 * good until gasp_unmap_handle() is called with it or with a copy; from then on, as with
 * a handle that is zeroed or made up, gasp_get_vaddr() gives NULL and gasp_unmap_handle()
 * does nothing (decisions 17 and 18).
 */
typedef struct {
    uint64_t reserved[3];
} gasp_map_handle_t;

/*
 * Maps guest memory for a device, and tells where it is in host-physical memory.
 *
 * vdev     the device that accesses the memory
 * ppaddr   in: the address that the device uses; out: the host-physical address of the
 *          same byte
 * plength  in: the most to map, in bytes; out: how much was mapped, never 0. It is less
 *          where host-physical memory does not go on: call again for the rest
 *          (decision 7)
 * prot     GMF_*
 * h        the handle
 *
 * The memory [*ppaddr, *ppaddr + *plength) is one piece, is the memory at the handle's
 * virtual address, and stays so until the handle is unmapped. If the guest takes its
 * permission back meanwhile, its invalidation waits for the handle (decision 15).
 *
 * Returns EOK, or, with *ppaddr, *plength and *h as they were (decision 10), the first of
 * these that is true (decision 1):
 *   ENXIO    prot is not valid
 *   EINVAL   a pointer is NULL, vdev is not a device, or *plength is 0 (decisions 2, 12)
 *   ENXIO    the range wraps or passes the guest's address width (decision 3)
 *   EFAULT   the guest's IOMMU does not let this device at the whole range with this
 *            access (decision 9); a fault record is left for the guest
 *   ENXIO    there is no memory somewhere (decision 8), or only memory that needs
 *            GMF_MAP_ANY
 *   EACCES   GMF_WRITE, and part of it is ROM (decision 6)
 *   EPERM    this process may not learn host-physical addresses (decision 19)
 *   EAGAIN   the memory can move, and the guest is not configured with `allow-unpinned`
 *            (decision 20)
 * and ENOSPC where this thread has four million mappings already.
 */
errno_t gasp_map_host_contig(const vdev_t *vdev, uint64_t *ppaddr, size_t *plength,
                             gasp_map_flags_t prot, gasp_map_handle_t *h);

/*
 * Maps guest memory for a device: all of it, or nothing. The prototype is [ours].
 *
 * Errors are those of gasp_map_host_contig() without EPERM and EAGAIN; ENXIO also where
 * the memory is not consecutive in this process (decision 21).
 */
errno_t gasp_map(const vdev_t *vdev, uint64_t guest_paddr, size_t length, gasp_map_flags_t prot,
                 gasp_map_handle_t *h);

/*
 * Maps guest memory as a vCPU would reach it, past the guest's IOMMU: for virtual firmware,
 * and for addresses that the host side has chosen. For an address that the guest supplied
 * use gasp_map().
 *
 * Errors are those of gasp_map() without EFAULT.
 */
errno_t gasp_map_firmware(uint64_t guest_paddr, size_t length, gasp_map_flags_t prot,
                          gasp_map_handle_t *h);

/*
 * The address of the first byte in this process; NULL where the handle is not one that is
 * mapped (decision 18). What was mapped without GMF_WRITE must not be written, and nothing past
 * the mapping's length be touched: see GMF_READ on what is not checked, and on how to find a
 * device that does it all the same. The prototype is [ours].
 */
void *gasp_get_vaddr(const gasp_map_handle_t *h);

/*
 * Ends a mapping, from any thread. Does nothing where the handle is NULL, zeroed, made up,
 * or unmapped already (decision 17).
 */
void gasp_unmap_handle(gasp_map_handle_t *h);

/*
 * The functions without handles are in the table of 8.0 as well; its documentation has no
 * prototypes of them. They give the pointer; NULL with errno set on failure.
 *
 * gasp_map_vdma() is as gasp_map(). The prototype is [seen].
 */
void *gasp_map_vdma(const vdev_t *vdev, uint64_t guest_paddr, size_t length,
                    gasp_map_flags_t prot);
/* As gasp_map_host_contig(). The prototype is [ours], in the order of the form above. */
void *gasp_map_contig(const vdev_t *vdev, uint64_t *ppaddr, size_t *plength,
                      gasp_map_flags_t prot);
/* As gasp_map_firmware(). The prototype is [ours]. */
void *gasp_map_sys(uint64_t guest_paddr, size_t length, gasp_map_flags_t prot);
/*
 * Ends a mapping of one of these three that begins at ptr: one of this length if there are
 * several. Does nothing if there is none. Caches are coherent here: flush is ignored. The
 * prototype is [seen].
 */
void gasp_unmap(const void *ptr, size_t length, int flush);

/* ---- Regions ----------------------------------------------------------------------- */

/*
 * What is at blk->location: fills *rgn with the part of the region there that begins at
 * blk->location, is at most blk->length long, has the same flags throughout, and is
 * consecutive in host-physical memory. Ask again behind it for the rest.
 *
 * blk's type is QST_MEMORY, QST_X86_IO or QST_PCI_IO. host_location is known where the
 * region is memory and the process may learn it, and QSL_NO_LOCATION otherwise.
 *
 * Returns EOK; ENXIO where nothing is there or the range is not valid; EINVAL where a
 * pointer is NULL, the length is 0, or the type is another. The errors are [ours].
 */
int gasp_region_info(const struct qvm_state_block *blk, struct gasp_region *rgn);

/*
 * Adds, changes or deletes regions, each as its entry says. The prototype is [ours].
 *
 *   grf_flags                 a region is there            nothing is there
 *   GRF_NONE                  it is deleted                ENOENT
 *   GRF_VIRT_*                flags, cookie, vdev change   registers of the vdev are added
 *   GRF_PASS_*                access is what is given      a window to host_location is added
 *   GRF_NOPERMS               no access                    a reserved range is added
 *
 * What is there stays what it is: GRF_PASS_* and GRF_NOPERMS are for memory and not for
 * both, GRF_VIRT_* for memory and registers, and anything else is EINVAL. GRF_STICKY flags
 * stay. A window opens /dev/mem, whose errors come through. Registers and reserved ranges
 * have any start and length from 1 byte on; memory begins, ends and is cut on multiples of
 * 4 KiB (EINVAL elsewhere), and none is in a page of which they have a byte (decision 28).
 * A deleted or restricted range is refused to new maps at once; the call returns when the
 * mappings of it are gone (decision 16). If one of them was made by the calling thread and is
 * not unmapped yet, nothing changes and errno is EDEADLK (decision 22): unmap it first.
 *
 * Takes and gives back gasp_lock() itself, of the spaces that the entries name, memory
 * before ports. An error ends the process, as documented, with a line in the log. A call in
 * the running phase, or by a thread that has a lock, changes nothing and sets errno to EPERM;
 * one without a guest sets it to ENXIO.
 */
void gasp_region_set(unsigned num_regions, const struct gasp_region *rgn);

/*
 * The same in the running phase, between gasp_lock() and gasp_unlock(), which waits for
 * the mappings that are to go. The prototype is published.
 *
 * Returns num_regions; or the index of the first entry that failed, with errno set: EPERM
 * without the lock or in the startup phase; ENOENT, EEXIST, EINVAL, ENXIO, ENOSPC as the
 * entry is wrong. The entries before it are done.
 */
unsigned gasp_region_set_soft(unsigned num_regions, const struct gasp_region *rgn);

/*
 * Keeps other threads from changing the regions of memory (QST_MEMORY) or of I/O ports
 * (QST_X86_IO), until gasp_unlock(). Does not keep anybody from mapping. A thread that needs
 * both takes memory first, as gasp_region_set() does: in the other order two threads can wait
 * for each other.
 *
 * Returns EOK; EBUSY where this thread has it already; EINVAL for another type; ENXIO
 * without a guest. The errors are [ours]. A thread that ends gives its locks back, and
 * does not wait for what it has revoked under them.
 */
int gasp_lock(uint16_t type);

/*
 * Gives the lock back, and then waits for the mappings that gasp_region_set_soft() has
 * revoked. Of the locks of several guests it is the one that was taken last.
 *
 * Returns EOK; EPERM if this thread does not have it; EINVAL as gasp_lock(); EDEADLK if it
 * would wait for a mapping that the calling thread itself has made and that is not unmapped
 * yet (decision 22). Then the lock is still this thread's: unmap the mapping, or have it
 * unmapped, and unlock again; or give back by gasp_region_set_soft() what was taken away, and
 * unlock again, after which gasp_map_check() says of the mapping that it was revoked. A guest
 * whose drains detach at their deadline (GASP_DRAIN_DETACH) waits until then instead.
 */
int gasp_unlock(uint16_t type);

/* ---- Finding space ------------------------------------------------------------------ */

/*
 * The lowest unused range of memory (QST_MEMORY) or of I/O ports (QST_X86_IO, QST_PCI_IO)
 * of this size, whose start is a multiple of align: a power of two, or 0 for any. (Registers can
 * end anywhere: for memory ask for 4 KiB.) It is not reserved. min_addr and max_addr are the
 * first and the last address that it may have. The prototypes are [ours].
 *
 * QSL_NO_LOCATION with errno set where there is none: ENOSPC, EINVAL, EPERM; ENXIO without a
 * guest.
 */
uint64_t gasp_find_free(unsigned qst, uint64_t size, uint64_t align);
uint64_t gasp_find_free_range(unsigned qst, uint64_t size, uint64_t align, uint64_t min_addr,
                              uint64_t max_addr);

/*
 * The lowest range inside the guest's RAM or ROM that nobody has reserved; it is reserved
 * by the call, so no two calls give overlapping ranges. flags: GRAM_HINT_*. range_start and
 * range_end are the first and the last address that it may have.
 *
 * QSL_NO_LOCATION with errno set where there is none: ENOSPC, EINVAL, EPERM; ENXIO without a
 * guest.
 */
uint64_t gram_find_free(uint64_t size, uint64_t align, gram_hint_flags_t flags);
uint64_t gram_find_free_range(uint64_t size, uint64_t align, gram_hint_flags_t flags,
                              uint64_t range_start, uint64_t range_end);

/*
 * Reserves a range inside RAM or ROM, so that gram_find_free() leaves it out. The
 * prototype is [ours].
 *
 * Returns EOK; ENXIO where part of it is not RAM or ROM; EEXIST where part of it is
 * reserved; EINVAL for a size of 0; EPERM in the running phase.
 */
errno_t gram_reserve(uint64_t start, uint64_t size);

/* ---- Walking ------------------------------------------------------------------------ */

/* One entry of the guest's RAM and ROM, and where the walk is. */
typedef struct {
    void *gw_span;               /* private */
    uint64_t gw_guest_loc;       /* where the entry is in the guest */
    uint64_t gw_host_loc;        /* and in the host: with GWS_HOST, where it is known; else
                                    QSL_NO_LOCATION */
    uint64_t gw_length;          /* in bytes */
    uint64_t gw_max_length;      /* no entry is longer; 0 for no limit */
    gasp_walk_flags_t gwf_flags; /* GWS_* */
} gasp_walk_state_t;

/*
 * Begins a walk before its first entry. Returns EOK; EINVAL for NULL or unknown flags;
 * ENXIO without a guest. The prototypes of the walk are [ours].
 */
int gasp_walk_init(gasp_walk_state_t *ws, uint64_t max_length, gasp_walk_flags_t flags);

/*
 * Goes to the next entry. Regions may change during a walk: it goes on behind the entry
 * that it is at. Returns EOK; ENOENT behind the last one; EINVAL where ws is NULL or its
 * guest is gone.
 */
int gasp_walk_next(gasp_walk_state_t *ws);

/* How often gasp_walk_next() would succeed; 0 with errno set for what it refuses. */
unsigned gasp_walk_count(uint64_t max_length, gasp_walk_flags_t flags);

/* A walk of the parts that a filter lets through. */
typedef struct {
    gasp_walk_state_t ws;
    gasp_walk_filter_t filter;
    uint64_t remaining_guest_loc; /* private */
    uint64_t remaining_length;    /* private */
} gasp_walk_state_filtered_t;

int gasp_walk_init_filtered(gasp_walk_state_filtered_t *ws, uint64_t max_length,
                            gasp_walk_flags_t flags, gasp_walk_filter_t filter);
int gasp_walk_next_filtered(gasp_walk_state_filtered_t *ws);
unsigned gasp_walk_count_filtered(uint64_t max_length, gasp_walk_flags_t flags,
                                  gasp_walk_filter_t filter);

#else /* QVM_EDITION == 710 */

/*
 * The 7.x forms do what the 8.0 forms of the same name do, for the guest that they are
 * given. Failing functions that return a pointer or a number set errno, too. [ours]
 */
#define GASP_EDITION_710(name) __asm__(#name "_710")

/*
 * prot: PROT_* of <sys/mman.h>, with or without GMF_MAP_ANY; what GMF_READ says above of the
 * pointer and the mapping's end holds here as well. NULL on failure.
 */
void *gasp_map_contig(const vdev_t *vdev, int prot, uint64_t *ppaddr, size_t *plength)
    GASP_EDITION_710(gasp_map_contig);
void *gasp_map_vdma(const vdev_t *vdev, int prot, uint64_t guest_paddr, size_t length)
    GASP_EDITION_710(gasp_map_vdma);
/* As gasp_map_firmware(). */
void *gasp_map_sys(struct guest_system *gsp, int prot, uint64_t guest_paddr, size_t length)
    GASP_EDITION_710(gasp_map_sys);
/*
 * Ends one mapping of this guest that begins at ptr: one of this length where there are
 * several. Does nothing where there is none. Caches are coherent here: flush is ignored.
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

struct gasp_walk_state {
    void *span; /* private */
    struct guest_system *gsp;
    uint64_t guest_loc;
    uint64_t host_loc;
    uint64_t length;
    uint64_t max_length;
    unsigned flags;
};
struct gasp_walk_state_filtered {
    struct gasp_walk_state ws;
    gasp_walk_filter_t filter;
    uint64_t remaining_guest_loc;
    uint64_t remaining_length;
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
