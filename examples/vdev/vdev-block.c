/*
 * block: a disk for a driver of virtio, such as Linux's virtio_blk.
 *
 *   vdev block hostdev disk.img loc 0xfa003000 intr ioapic:12         over MMIO
 *   vdev block hostdev disk.img readonly verbose loc pci:             a PCI function
 *
 * `hostdev` is a file or block device of at least a sector of 512 bytes; with `readonly` the guest
 * cannot write to it. With `verbose` each run is logged.
 *
 *   cc -shared -fPIC -o vdev-block.so vdev-block.c $(pkg-config --cflags gasp)
 *
 * For the 7.x edition add -DQVM_EDITION=710.
 *
 * The file shows how a device finds the host-physical addresses of a guest's buffers, as one needs
 * them to program a real DMA engine: each buffer is mapped run by run, as far as it is consecutive
 * in host-physical memory. Here read() and write() are the DMA engine. Registers and requests are
 * those of the public standard "Virtual I/O Device", section 5.2; <qvm/vio.h> is the transport.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>
#include <qvm/hw_pci.h>
#include <qvm/vio.h>

#include "edition.h"
#if QVM_EDITION == 710
#define pvq vq
#endif

enum { QUEUE, QUEUES };
enum {
    QUEUE_LEN = 128,    /* descriptors */
    SEGMENTS_MAX = 126, /* of a request, beside its header and status */
    RUN_MAX = 1 << 20,  /* bytes that are transferred at a time */
    SECTOR_LEN = 512,
    HISTORY_LEN = 8     /* runs that VDEV_CTRL_STATUS reports */
};

/* Features, types of requests, and their results. */
enum { BLK_F_SEG_MAX = 2, BLK_F_RO = 5, BLK_F_FLUSH = 9 };
enum { BLK_T_IN = 0, BLK_T_OUT = 1, BLK_T_FLUSH = 4, BLK_T_GET_ID = 8 };
enum { BLK_S_OK = 0, BLK_S_IOERR = 1, BLK_S_UNSUPP = 2 };

static const char identity[20] = "gasp-block";

/* The beginning of a request. Numbers are little-endian, as the processor's. */
struct header {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};

/* The device's configuration, as far as it goes. */
struct config {
    uint64_t capacity; /* in sectors */
    uint32_t size_max;
    uint32_t seg_max;
};

/* A part of a buffer that is consecutive in host-physical memory, and mapped. */
struct run {
    uint64_t device_addr; /* as the driver says */
    uint64_t host_addr;   /* host-physical: what a DMA engine is given */
    size_t len;
    void *vaddr;
#if QVM_EDITION == 800
    gasp_map_handle_t handle;
#endif
};

struct block {
    struct vio_state vs;
    struct config config;
    char *path;
    int fd;
    bool is_readonly;
    bool is_verbose;
    pthread_t thread;
    bool has_thread;

    /* v_mtx guards the following. */
    pthread_cond_t changed;
    bool is_notified;
    bool is_resetting;
    bool is_working;
    bool is_over;
    uint64_t runs; /* how many there have been; the last ones are in `history` */
    struct run history[HISTORY_LEN];
};

static const char *const options[] = { "hostdev", QVM_OPTION_NO_ARG_PREFIX "readonly",
                                       QVM_OPTION_NO_ARG_PREFIX "verbose", NULL };
enum { HOSTDEV, READONLY, VERBOSE };

/* ---- Runs ----------------------------------------------------------------------------------- */

/*
 * Maps the longest run from run->device_addr on, of at most run->len bytes, and sets the other
 * members. Returns an error number: EFAULT if the guest's IOMMU refuses it.
 */
static int map_run(vdev_t *vdp, struct run *run, bool writes)
{
    uint64_t paddr = run->device_addr;

#if QVM_EDITION == 800
    const int err = gasp_map_host_contig(vdp, &paddr, &run->len, writes ? GMF_WRITE : GMF_READ,
                                         &run->handle);
    if (err != EOK)
        return err;
    run->vaddr = gasp_get_vaddr(&run->handle);
#else
    run->vaddr = gasp_map_contig(vdp, writes ? PROT_WRITE : PROT_READ, &paddr, &run->len);
    if (run->vaddr == NULL)
        return errno;
#endif
    run->host_addr = paddr;
    return EOK;
}

static void unmap_run(vdev_t *vdp, struct run *run)
{
#if QVM_EDITION == 800
    (void)vdp;
    gasp_unmap_handle(&run->handle);
#else
    gasp_unmap(vdp->v_gsp, run->vaddr, run->len, 0);
#endif
}

/* Keeps a run for the report. */
static void remember(vdev_t *vdp, const struct run *run, bool writes)
{
    struct block *const block = vdp->v_device;

    pthread_mutex_lock(&vdp->v_mtx);
    block->history[block->runs++ % HISTORY_LEN] = *run;
    pthread_mutex_unlock(&vdp->v_mtx);
    if (block->is_verbose)
        vdev_logf(LOG_INFO, vdp, "block: %s %#llx: host-physical %#llx, %zu bytes",
                  writes ? "write to" : "read from", (unsigned long long)run->device_addr,
                  (unsigned long long)run->host_addr, run->len);
}

/* ---- Requests ------------------------------------------------------------------------------- */

/* A place in a request: its buffers are read, then written, from first to last. */
struct cursor {
    vdev_t *vdp;
    vq_t *vq;
    unsigned next; /* descriptor, after the present one */
    uint64_t addr; /* of what is left of the present one */
    uint32_t left;
    bool writes;
    uint64_t readable, writable; /* bytes that are left in all */
};

static void open_request(struct cursor *at, vdev_t *vdp, vq_t *vq, unsigned first)
{
    *at = (struct cursor){ .vdp = vdp, .vq = vq, .next = first };
    for (unsigned next = first; next != VQ_INVALID_ID;) {
        uint32_t len;
        unsigned flags;
        next = vq_desc_get(vq, next, NULL, &len, &flags);
        *((flags & VIRTQ_DESC_F_WRITE) != 0 ? &at->writable : &at->readable) += len;
    }
}

/* Moves on to what is left of the buffers to read, or to write. There is something. */
static int find_buffer(struct cursor *at, bool writes)
{
    while (at->left == 0 || at->writes != writes) {
        unsigned flags;
        if (at->next == VQ_INVALID_ID)
            return EINVAL; /* the request is void: the device was reset */
        at->next = vq_desc_get(at->vq, at->next, &at->addr, &at->left, &flags);
        at->writes = (flags & VIRTQ_DESC_F_WRITE) != 0;
    }
    return EOK;
}

static void advance(struct cursor *at, uint64_t len)
{
    at->addr += len;
    at->left -= (uint32_t)len;
    *(at->writes ? &at->writable : &at->readable) -= len;
}

/* Maps the next run of at most len bytes, which are there, of the buffers to read or to write. */
static int next_run(struct cursor *at, struct run *run, uint64_t len, bool writes)
{
    int err = find_buffer(at, writes);

    if (err != EOK)
        return err;
    run->device_addr = at->addr;
    run->len = len < at->left ? len : at->left;
    err = map_run(at->vdp, run, writes);
    if (err != EOK)
        return err;
    advance(at, run->len);
    remember(at->vdp, run, writes);
    return EOK;
}

/* Copies len bytes between `data` and the request. */
static int copy(struct cursor *at, void *data, size_t len, bool writes)
{
    for (char *place = data; len > 0;) {
        struct run run;
        const int err = next_run(at, &run, len, writes);
        if (err != EOK)
            return err;
        memcpy(writes ? run.vaddr : place, writes ? place : run.vaddr, run.len);
        unmap_run(at->vdp, &run);
        place += run.len;
        len -= run.len;
    }
    return EOK;
}

static bool is_stopping(vdev_t *vdp)
{
    const struct block *const block = vdp->v_device;

    pthread_mutex_lock(&vdp->v_mtx);
    const bool is = block->is_resetting || block->is_over;
    pthread_mutex_unlock(&vdp->v_mtx);
    return is;
}

/* Transfers len bytes between the disk from `offset` on and the request; it is on the disk. */
static int transfer(struct cursor *at, uint64_t offset, uint64_t len, bool writes)
{
    const struct block *const block = at->vdp->v_device;

    while (len > 0) {
        struct run run;
        if (is_stopping(at->vdp))
            return ECANCELED;
        const int err = next_run(at, &run, len < RUN_MAX ? len : RUN_MAX, writes);
        if (err != EOK)
            return err;
        size_t done = 0;
        while (done < run.len) {
            char *const place = (char *)run.vaddr + done;
            const ssize_t count =
                writes ? pread(block->fd, place, run.len - done, (off_t)(offset + done)) :
                         pwrite(block->fd, place, run.len - done, (off_t)(offset + done));
            if (count <= 0) {
                unmap_run(at->vdp, &run);
                return count < 0 ? errno : EIO; /* the file has become shorter */
            }
            done += (size_t)count;
        }
        unmap_run(at->vdp, &run);
        offset += run.len;
        len -= run.len;
    }
    return EOK;
}

/* Carries out a request, up to its status. */
static uint8_t carry_out(struct cursor *at)
{
    const struct block *const block = at->vdp->v_device;
    struct header header;
    char id[sizeof(identity)];

    if (at->readable < sizeof(header) || copy(at, &header, sizeof(header), false) != EOK)
        return BLK_S_IOERR;

    const bool reads = header.type == BLK_T_IN;
    /* The last byte to write is the status. */
    const uint64_t len = reads ? at->writable - 1 : at->readable;
    switch (header.type) {
    case BLK_T_OUT:
        if (block->is_readonly)
            return BLK_S_IOERR;
        /* fall through */
    case BLK_T_IN:
        if (len % SECTOR_LEN != 0 || header.sector > block->config.capacity ||
            len / SECTOR_LEN > block->config.capacity - header.sector)
            return BLK_S_IOERR;
        return transfer(at, header.sector * SECTOR_LEN, len, reads) == EOK ? BLK_S_OK : BLK_S_IOERR;
    case BLK_T_FLUSH:
        return fdatasync(block->fd) == 0 ? BLK_S_OK : BLK_S_IOERR;
    case BLK_T_GET_ID:
        memcpy(id, identity, sizeof(id));
        if (at->writable <= sizeof(id) || copy(at, id, sizeof(id), true) != EOK)
            return BLK_S_IOERR;
        return BLK_S_OK;
    default:
        return BLK_S_UNSUPP;
    }
}

/* Carries out a request, and returns it to the driver. */
static void serve(vdev_t *vdp, vq_t *vq, unsigned id, unsigned first)
{
    struct cursor at;
    uint32_t written = 0;

    open_request(&at, vdp, vq, first);
    const uint64_t writable = at.writable;
    /* Without a place for the status nothing can be said, and so nothing is done. */
    if (writable > 0) {
        uint8_t status = carry_out(&at);
        /* What is left out because of an error has no use for a map. */
        while (at.writable > 1 && find_buffer(&at, true) == EOK)
            advance(&at, at.left < at.writable ? at.left : at.writable - 1);
        /* All is said to be written, so that the status is: only that counts after an error. */
        if (at.writable == 1 && copy(&at, &status, sizeof(status), true) == EOK)
            written = (uint32_t)writable;
    }
    vq_put_to_driver(vq, id, written, true);
}

static void *work(void *arg)
{
    vdev_t *const vdp = arg;
    struct block *const block = vdp->v_device;

    pthread_mutex_lock(&vdp->v_mtx);
    while (!block->is_over) {
        if (!block->is_notified || block->is_resetting) {
            pthread_cond_wait(&block->changed, &vdp->v_mtx);
            continue;
        }
        block->is_notified = false;
        block->is_working = true;
        vq_t *const vq = block->vs.qinfo[QUEUE].pvq;
        pthread_mutex_unlock(&vdp->v_mtx);

        unsigned id, first;
        while (!is_stopping(vdp) && (id = vq_get_from_driver(vq, &first)) != VQ_INVALID_ID)
            serve(vdp, vq, id, first);

        pthread_mutex_lock(&vdp->v_mtx);
        block->is_working = false;
        pthread_cond_broadcast(&block->changed);
    }
    pthread_mutex_unlock(&vdp->v_mtx);
    return NULL;
}

/* ---- Registers ------------------------------------------------------------------------------ */

static vdev_ref_status_t status_of(unsigned result)
{
    switch (result & VIOREF_CLASS_MASK) {
    case VIOREF_CLASS_BUS_ERROR:
        return VRS_BUS_ERROR;
    case VIOREF_CLASS_ERRNO:
        return (vdev_ref_status_t)(VRS_ERRNO + (result & ~VIOREF_CLASS_MASK));
    default:
        return VRS_NORMAL;
    }
}

static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct block *const block = vdp->v_device;
    const unsigned result = vio_read(&block->vs, cookie, vopnd, oopnd, gcp);
    const unsigned offset = result & ~VIOREF_CLASS_MASK;

    if ((result & VIOREF_CLASS_MASK) != VIOREF_CLASS_DEVCFG)
        return status_of(result);
    /* vio_read() has checked that all bytes are within device_config_size. */
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1,
                                            (const char *)&block->config + offset, vopnd->length));
}

/* Waits for the request that is in progress: for a run of it. */
static void reset(vdev_t *vdp)
{
    struct block *const block = vdp->v_device;

    pthread_mutex_lock(&vdp->v_mtx);
    block->is_resetting = true;
    while (block->is_working)
        pthread_cond_wait(&block->changed, &vdp->v_mtx);
    vio_reset(&block->vs);
    block->is_notified = false;
    block->is_resetting = false;
    pthread_cond_broadcast(&block->changed);
    pthread_mutex_unlock(&vdp->v_mtx);
}

static vdev_ref_status_t vwrite(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct block *const block = vdp->v_device;
    const unsigned result = vio_write(&block->vs, cookie, vopnd, oopnd, gcp);

    switch (result & VIOREF_CLASS_MASK) {
    case VIOREF_CLASS_STATUS:
        /* If the queue cannot be set up, the device's status says so. */
        if ((result & VIRTIO_DS_DRIVER_OK) != 0)
            vio_setup_queues(&block->vs);
        break;
    case VIOREF_CLASS_NOTIFY:
        pthread_mutex_lock(&vdp->v_mtx);
        block->is_notified = true;
        pthread_cond_broadcast(&block->changed);
        pthread_mutex_unlock(&vdp->v_mtx);
        break;
    case VIOREF_CLASS_RESET:
        reset(vdp);
        break;
    default: /* nothing in the configuration can be written */
        break;
    }
    return status_of(result);
}

/* ---- Life ----------------------------------------------------------------------------------- */

static int set_hostdev(struct block *block, const char *arg)
{
    free(block->path);
    block->path = strdup(arg);
    return block->path == NULL ? ENOMEM : EOK;
}

/* The size of what is open, in bytes. */
static int size_of(int fd, uint64_t *size)
{
    struct stat stat;

    if (fstat(fd, &stat) != 0)
        return errno;
    if (S_ISBLK(stat.st_mode))
        return ioctl(fd, BLKGETSIZE64, size) == 0 ? EOK : errno;
    if (!S_ISREG(stat.st_mode))
        return ENOTBLK;
    *size = (uint64_t)stat.st_size;
    return EOK;
}

static int open_disk(vdev_t *vdp)
{
    struct block *const block = vdp->v_device;
    uint64_t size = 0;
    int err = EOK;

    if (block->path == NULL) {
        vdev_logf(LOG_ERR, vdp, "block: hostdev is missing: name the file of the disk");
        return EINVAL;
    }
    block->fd = open(block->path, (block->is_readonly ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_CLOEXEC);
    if (block->fd < 0)
        err = errno;
    else
        err = size_of(block->fd, &size);
    if (err == EOK && size < SECTOR_LEN)
        err = ENOSPC;
    if (err != EOK)
        vdev_logf(LOG_ERR, vdp, "block: hostdev %s: %s", block->path, strerror(err));
    block->config = (struct config){ .capacity = size / SECTOR_LEN, .seg_max = SEGMENTS_MAX };
    return err;
}

static int set_up(vdev_t *vdp)
{
    struct block *const block = vdp->v_device;
    const struct vio_description description = {
        .device_type = VIRTIO_DT_BLOCK,
        .pci_class = PCI_CLASS_STORAGE | PCI_SUBCLASS_STORAGE_OTHER,
        .num_queues = QUEUES,
        .device_config_size = sizeof(struct config),
        .device_features = { VIO_F_BIT(BLK_F_SEG_MAX) | VIO_F_BIT(BLK_F_FLUSH) |
                                 (block->is_readonly ? VIO_F_BIT(BLK_F_RO) : 0),
                             VIO_F_BIT(VIRTIO_F_VERSION_1) },
    };
    const int err = open_disk(vdp);

    if (err != EOK)
        return err;
    vio_init(vdp, VIOVER_110, &description, &block->vs);
    return vio_init_queue(&block->vs, QUEUE, QUEUE_LEN);
}

static void end(vdev_t *vdp)
{
    struct block *const block = vdp->v_device;

    if (block->has_thread) {
        pthread_mutex_lock(&vdp->v_mtx);
        block->is_over = true;
        pthread_cond_broadcast(&block->changed);
        pthread_mutex_unlock(&vdp->v_mtx);
        pthread_join(block->thread, NULL);
    }
    if (block->fd >= 0)
        close(block->fd);
    pthread_cond_destroy(&block->changed);
    free(block->path);
}

/* The last runs, the oldest first. */
static void report(vdev_t *vdp)
{
    const struct block *const block = vdp->v_device;

    pthread_mutex_lock(&vdp->v_mtx);
    qvm_report("hostdev %s, %llu sectors; %llu runs\n", block->path,
               (unsigned long long)block->config.capacity, (unsigned long long)block->runs);
    const uint64_t count = block->runs < HISTORY_LEN ? block->runs : HISTORY_LEN;
    for (uint64_t i = block->runs - count; i < block->runs; i++) {
        const struct run *const run = &block->history[i % HISTORY_LEN];
        qvm_report("%#llx: host-physical %#llx, %zu bytes\n", (unsigned long long)run->device_addr,
                   (unsigned long long)run->host_addr, run->len);
    }
    pthread_mutex_unlock(&vdp->v_mtx);
}

static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct block *const block = vdp->v_device;
    int err;

    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        block->fd = -1;
        vdp->v_block.location = QSL_NO_LOCATION;
        return pthread_cond_init(&block->changed, NULL);
    case VDEV_CTRL_FIRST_OPTIDX + HOSTDEV:
        return set_hostdev(block, arg);
    case VDEV_CTRL_FIRST_OPTIDX + READONLY:
        block->is_readonly = true;
        return EOK;
    case VDEV_CTRL_FIRST_OPTIDX + VERBOSE:
        block->is_verbose = true;
        return EOK;
    case VDEV_CTRL_OPTIONS_END:
        return set_up(vdp);
    case VDEV_CTRL_PCI_BARS:
        return vio_ctrl_pci_bars(&block->vs, arg);
    case VDEV_CTRL_GUEST_CONFIGURED:
        err = vdev_thread_create(vdp, "block", &block->thread, NULL, work, vdp);
        block->has_thread = err == EOK;
        return err;
    case VDEV_CTRL_STATUS:
        report(vdp);
        return EOK;
    case VDEV_CTRL_TERMINATE:
        end(vdp);
        return EOK;
    default:
        return EOK;
    }
}

static struct vdev_factory factory = {
    .control = control,
    .vread = vread,
    .vwrite = vwrite,
    .option_list = options,
    .factory_flags = VFF_INTR_NONPCI | VFF_VDEV_MEM | VFF_VDEV_PCI | VFF_MUTEX,
    .acc_sizes = 1u << 1 | 1u << 2 | 1u << 4 | 1u << 8,
    .extra_space = sizeof(struct block),
};

static void __attribute__((constructor)) load(void)
{
    vdev_register_factory(&factory, QVM_VDEV_ABI);
}
