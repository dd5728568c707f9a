/*
 * <qvm/vio.h>: virtio devices. The registers of the transport, feature negotiation, queues and
 * interrupts are here; the vdev carries out requests.
 *
 * The functions are those of the publicly documented virtual device API of the QNX Hypervisor, for
 * Linux, in the program that hosts the vdev. A prototype, value or error that is not documented
 * publicly, and so is our own choice, is marked [ours]; one that is not documented, but used by
 * public sources of virtual devices, is marked [seen]. "Decision" is a row of docs/decisions.md.
 *
 *   | functions                                        | phase            | threads |
 *   |--------------------------------------------------|------------------|---------|
 *   | vio_init, vio_ctrl_pci_bars, vio_ctrl_gen_fdt    | startup          | any     |
 *   | vio_init_queue                                   | startup, running | any     |
 *   | vio_read, vio_write                              | running          | that of the callback |
 *   | the others                                       | running          | any     |
 *
 * The transport follows from the vdev's location when vio_init() is called (v_block.qst_type):
 *
 *   QST_MEMORY   virtio over MMIO, version 2 (virtio 1.2, 4.2.2): a block of registers, and one
 *                interrupt line, v_intr
 *   QST_PCI      virtio over PCI (virtio 1.2, 4.1), without a legacy interface: BAR 0 has all
 *                registers; MSI-X, or the interrupt pin
 *
 * A vdev with one queue:
 *
 *   control(VDEV_CTRL_OPTIONS_END)   vio_init(), vio_init_queue()
 *   vread()    switch (vio_read(...) & VIOREF_CLASS_MASK)
 *                DEVCFG   guest_cpu_write() of the configuration at the offset
 *   vwrite()   switch (vio_write(...) & VIOREF_CLASS_MASK)
 *                STATUS   if (low bits & VIRTIO_DS_DRIVER_OK) vio_setup_queues()
 *                NOTIFY   wake the thread
 *                RESET    stop the thread's work, then vio_reset()
 *   thread     while ((id = vq_get_from_driver(vq, &first)) != VQ_INVALID_ID)
 *                n = vio_get_iov(vdp, vq, first, &iov); ... vio_put_iov(vdp, &iov);
 *                vq_put_to_driver(vq, id, written, true);
 *
 * Registers, rings and buffers are the guest's to write at any time, with anything. Every access of
 * the device to memory is one of this vdev: the guest's IOMMU allows or refuses it. <qvm/vq.h> says
 * what a driver's errors lead to.
 *
 * A struct vio_state belongs to the vdev, and must not be freed before VDEV_CTRL_TERMINATE has
 * returned. What is behind vsip is looked up by the address of the structure: whatever its members
 * contain, no call trusts them. A vsp that no vio_init() has set up is EINVAL. [ours]
 */
#include <qvm/posix.h>
#include <qvm/types.h>
#include <qvm/virtio.h>
#include <qvm/vq.h>

#ifndef QVM_VIO_H
#define QVM_VIO_H

#ifdef __cplusplus
extern "C" {
#endif

/* Words of 32 feature bits. Of the last two no bit can be offered [ours]: virtio defines none. */
#define VIO_MAX_FEATURE_WORDS 4

/*
 * What an access was, in the results of vio_read() and vio_write(): one of these classes, and what
 * it concerns in the low 16 bits.
 */
#define VIOREF_CLASS_NOP 0x00000u       /* nothing is left to do */
#define VIOREF_CLASS_NOTIFY 0x10000u    /* the driver has added requests to this queue */
#define VIOREF_CLASS_ENABLED 0x20000u   /* it has enabled this queue */
#define VIOREF_CLASS_RESET 0x30000u     /* it resets the device: call vio_reset() */
#define VIOREF_CLASS_STATUS 0x40000u    /* it has set these bits of the status: VIRTIO_DS_* */
#define VIOREF_CLASS_DEVCFG 0x50000u    /* it accesses the configuration at this offset */
#define VIOREF_CLASS_BUS_ERROR 0x60000u /* the guest gets an exception: return VRS_BUS_ERROR */
#define VIOREF_CLASS_ERRNO 0x70000u     /* the access failed with this error number */
#define VIOREF_CLASS_MASK 0xf0000u

/*
 * The version of the standard that a vdev follows. VIOVER_100 and VIOVER_110 are the same here. The
 * legacy interface of VIOVER_095 is not supported: such a vdev is served as VIOVER_100, with a
 * line in the log (decision "A legacy virtio vdev?").
 */
enum vio_version { VIOVER_095, VIOVER_100, VIOVER_110 };

/* A virtio device. */
struct vio_description {
    uint16_t device_type;        /* VIRTIO_DT_* */
    uint16_t vendor_id;          /* the subsystem vendor ID; 0 for 0x1c05 */
    unsigned pci_class;          /* of PCI: the class code of <qvm/hw_pci.h> */
    unsigned num_queues;         /* at most 256 [ours] */
    unsigned device_config_size; /* bytes of configuration; at most 4096 [ours] */
    /*
     * What is offered, by VIO_F_BIT(): bits 0 to 23 and 50 to 63 are the device's own. Those of the
     * transport (24 to 49) are ignored: VIRTIO_F_INDIRECT_DESC, _EVENT_IDX, _VERSION_1 and
     * _ACCESS_PLATFORM are always offered, the others never. [ours]
     */
    uint32_t device_features[VIO_MAX_FEATURE_WORDS];
};

/* Where a queue is, once the driver has set it up. The members are [ours]. */
struct virtio_virtq_data {
    uint64_t descriptors; /* device address of the descriptor table */
    uint64_t driver;      /* of the available ring */
    uint64_t device;      /* of the used ring */
    uint32_t size;        /* entries; 0: not set up */
    uint32_t reserved;
};

/* A queue of a device. For the vdev to read. */
struct vio_queue_info {
#if QVM_EDITION == 800
    vq_t *pvq; /* [seen]; from vio_setup_queues() to vio_reset(); NULL otherwise */
#else
    struct virtq *vq; /* from vio_setup_queues() to vio_reset(); NULL otherwise */
#endif
    struct vio_state *vsp;
    struct virtio_virtq_data data;
    unsigned max_size; /* as given to vio_init_queue() */
};

/* The state of a device. */
struct vio_state {
    struct vio_state_internal *vsip;                 /* private; never dereference it */
    struct vio_queue_info *qinfo;                    /* num_queues of them */
    uint32_t driver_features[VIO_MAX_FEATURE_WORDS]; /* accepted by the driver; 0 before it has
                                                        set VIRTIO_DS_FEATURES_OK */
};

/* A feature of the vdev's vendor, at a bit that no standard uses; data of the vdev's alone. */
struct vio_vendor_feature {
    const char *name;
    uint8_t bit;
};

/* A host-physical address and a length in bytes. The members are [ours]. */
struct __iovec64 {
    uint64_t iov_base;
    uint64_t iov_len;
};

/* What a conversion reports besides virtual addresses. The names and values are [ours]. */
enum vio_iov_flags {
    VVF_NONE = 0x0,
    VVF_PADDRS = 0x1 /* host-physical addresses, in vi_paddrs; an entry for each run */
};

#if QVM_EDITION == 800
/* A set of VVF_*. 32 bits wide [ours]. */
typedef uint32_t vio_iov_flags_t;
/*
 * The mapping of an entry, which vio_put_iov() unmaps; all zeros: none. It is a gasp_map_handle_t
 * of <qvm/gasp.h>, with the same size and use: a vdev that takes one out, and writes zeros in its
 * place, keeps the memory mapped until it calls gasp_unmap_handle(). [ours]
 */
typedef struct {
    uint64_t reserved[3];
} iov_postmap_elem_t;
#else
typedef unsigned vio_iov_flags_t;
#endif

/*
 * A request as an array of iov_t. The vdev fills in the members marked *, once, and can use the
 * structure for one request after the other.
 */
struct vio_iov {
    iov_t *vi_iov;              /* * the array */
    struct __iovec64 *vi_paddrs; /* * with VVF_PADDRS: host-physical addresses, as many entries */
    int vi_iov_len;             /* * entries of the array; the conversion uses no more */
    int vi_reserved;            /* * how many of them, at the beginning, are the vdev's own */
    vio_iov_flags_t vi_flags;   /* * VVF_* */
    unsigned vi_hdr_len;        /* * the length of the header in bytes: the payload, which follows,
                                   begins with an entry of its own */
    int vi_count;               /* entries in use, including vi_reserved [ours] */
    int vi_payload;             /* the first entry of the payload; vi_count if there is none */
#if QVM_EDITION == 800
    iov_postmap_elem_t *vi_is_postmap; /* * the mappings, as many entries; with NULL the library
                                          keeps them itself [ours] */
#endif
};

#if QVM_EDITION == 710
#define QVM_VIO_710(name) QVM_EDITION_710(name)
#else
#define QVM_VIO_710(name)
#endif

/* ---- Set-up --------------------------------------------------------------------------- */

/*
 * Sets up the state of a device; vsp and vdesc are read and written during the call alone. Not
 * before VDEV_CTRL_OPTIONS_END. All queues have to be given a size with vio_init_queue() before
 * the guest starts.
 *
 * If the vdev's location has no length, v_block.length is set: that of the registers, 512 bytes or
 * more of MMIO, and 32 KiB of BAR. [ours]
 *
 * If the description cannot be met, one line is logged, vsip and qinfo are NULL, and all calls
 * with vsp fail with EINVAL. [ours]
 */
void vio_init(vdev_t *vdp, enum vio_version ver, const struct vio_description *vdesc,
              struct vio_state *vsp);

/*
 * Sets the size of queue qidx: at most max_size descriptors; the power of two below, if it is none
 * [ours]. Returns EOK; EINVAL if there is no such queue, or max_size is 0 or more than 32768; EBUSY
 * if the driver has enabled the queue.
 */
int vio_init_queue(struct vio_state *vsp, unsigned qidx, unsigned max_size);

/*
 * For VDEV_CTRL_PCI_BARS: returns 0 for MMIO; for PCI -6, with the address of an array of six
 * struct vpci_bar stored at arg, as vpci_ctrl_pci_bars() of <qvm/vpci.h> does. BAR 0 is the only
 * one in use [ours].
 */
int vio_ctrl_pci_bars(struct vio_state *vsp, const char *arg) QVM_VIO_710(vio_ctrl_pci_bars);

/*
 * For VDEV_CTRL_GEN_FDT: describes the device in a device tree. No host of ours has one, so it
 * returns ENOTSUP and does nothing. The name is [seen], the result [ours].
 */
int vio_ctrl_gen_fdt(struct vio_state *vsp, const char *name, int node);

/* ---- Registers ------------------------------------------------------------------------- */

/*
 * Carry out an access to the registers: call them from vread() and vwrite(), with their arguments.
 * They return a VIOREF_CLASS_* and its low bits. The guest's register has been written or read,
 * except for VIOREF_CLASS_DEVCFG, which the vdev answers with guest_cpu_write() or guest_cpu_read()
 * of vopnd->length bytes: all of them are within device_config_size. What the guest reads past
 * that is 0, and what it writes there is ignored, as VIOREF_CLASS_NOP. The queue of
 * VIOREF_CLASS_NOTIFY and _ENABLED is one of num_queues.
 */
unsigned vio_read(struct vio_state *vsp, unsigned cookie, const struct qvm_state_block *vopnd,
                  const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
    QVM_VIO_710(vio_read);
unsigned vio_write(struct vio_state *vsp, unsigned cookie, const struct qvm_state_block *vopnd,
                   const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
    QVM_VIO_710(vio_write);

/*
 * Sets up the queues that the driver has enabled: fills in qinfo. Call it when the driver has set
 * VIRTIO_DS_DRIVER_OK. Returns EOK, also if they are set up already; EPERM before
 * VIRTIO_DS_DRIVER_OK; EIO if one cannot be where the driver has placed it: the device then needs a
 * reset, and has no queues. The errors are [ours].
 */
int vio_setup_queues(struct vio_state *vsp);

/*
 * Resets the device, as after power-on. Requests that have not been put back are void, and vq_t
 * pointers of before are no queues any more; what vio_get_iov() has mapped stays mapped until
 * vio_put_iov(). The driver waits for this call after VIOREF_CLASS_RESET. [seen]
 */
void vio_reset(struct vio_state *vsp);

/*
 * Sets and clears bits of the status. A device can set VIRTIO_DS_NEEDS_RESET, of which the driver
 * is told, and clear VIRTIO_DS_FEATURES_OK until VIRTIO_DS_DRIVER_OK, to refuse what the driver has
 * accepted; other bits are ignored [ours]. Returns the new value of the register; 0 if vsp is not
 * valid.
 */
unsigned vio_device_status(struct vio_state *vsp, unsigned on, unsigned off);

/*
 * The configuration has changed: the driver is interrupted, and reads it again. Call it after the
 * change. The prototype is [ours].
 */
void vio_config_update(struct vio_state *vsp);

/* ---- Requests -------------------------------------------------------------------------- */

/*
 * Converts a request: maps its buffers, and fills in vi_iov from vi_reserved on, vi_count and
 * vi_payload. Nothing is copied. A buffer takes several entries if its memory is not consecutive in
 * this process, or, with VVF_PADDRS, in host-physical memory, and if the header ends in it. An
 * empty buffer takes none. Buffers with VIRTQ_DESC_F_WRITE may be written and not read, others read
 * and not written; as for gasp_map(), no processor checks that.
 *
 * didx is the first descriptor, from vq_get_from_driver(). A structure that has been converted
 * before is passed to vio_put_iov() first.
 *
 * Returns the number of bytes, or a negative error number, with nothing mapped and vi_count
 * equal to vi_reserved:
 *   -EINVAL  an argument or member is not valid, or didx is no descriptor of a request
 *   -E2BIG   the request takes more entries than vi_iov has
 *   others   those of gasp_map(), with VVF_PADDRS of gasp_map_host_contig(): -EFAULT if the
 *            guest's IOMMU refuses a buffer, -ENXIO if it is no RAM
 * The errors are [ours]. Put a request back that cannot be converted, as its kind of device fails.
 */
ssize_t vio_get_iov(const vdev_t *vdp, vq_t *vq, unsigned didx, struct vio_iov *iov)
    QVM_VIO_710(vio_get_iov);

/*
 * Begins a conversion without descriptors: vi_count and vi_payload become vi_reserved. For
 * vio_append_iov(). Returns EOK or EINVAL. The prototype is [ours].
 */
int vio_prepare_iov(const vdev_t *vdp, struct vio_iov *iov);

/*
 * Appends the buffer of one descriptor, at most cap bytes of it, at vi_count. Returns the number of
 * bytes mapped, or a negative error number as vio_get_iov(), with the structure as before.
 *
 * In 7.x didx is published as uint16_t. Here it is wider, because descriptors of indirect tables
 * have larger numbers.
 */
#if QVM_EDITION == 800
ssize_t vio_append_iov(const vdev_t *vdp, vq_t *vq, unsigned didx, struct vio_iov *iov,
                       size_t cap);
#else
ssize_t vio_append_iov(const vdev_t *vdp, vq_t *vq, unsigned didx, struct vio_iov *iov)
    QVM_EDITION_710(vio_append_iov);
ssize_t vio_append_iov_cap(const vdev_t *vdp, vq_t *vq, unsigned didx, struct vio_iov *iov,
                           size_t cap) QVM_EDITION_710(vio_append_iov_cap);
#endif

/*
 * Ends a conversion: unmaps the entries from vi_reserved to vi_count that vi_is_postmap has a
 * mapping of, whatever vi_iov contains by now, and zeroes those elements; without vi_is_postmap all
 * that were mapped into this vi_iov. vi_count becomes vi_reserved. Does nothing the second time.
 * The prototype is published for 8.0.
 */
void vio_put_iov(const vdev_t *vdp, struct vio_iov *iov) QVM_VIO_710(vio_put_iov);

/*
 * Sets vi_flags. Returns EOK; EINVAL if there is an unknown flag, or VVF_PADDRS and vi_paddrs is
 * NULL. The prototype is [ours].
 */
int vio_iov_set_flags(struct vio_iov *iov, vio_iov_flags_t flags);

#ifdef __cplusplus
}
#endif

#endif
