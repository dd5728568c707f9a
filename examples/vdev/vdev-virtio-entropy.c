/*
 * virtio-entropy: a source of random numbers for a driver of virtio, such as Linux's virtio-rng.
 *
 *   vdev virtio-entropy loc 0xfa000000 intr ioapic:10     over MMIO
 *   vdev virtio-entropy loc pci:                          a PCI function
 *
 * Each request is filled by a thread, straight into the guest's memory.
 *
 *   cc -shared -fPIC -o vdev-virtio-entropy.so vdev-virtio-entropy.c $(pkg-config --cflags gasp)
 *
 * For the 7.x edition add -DQVM_EDITION=710.
 */
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

#include <qvm/vdev-core.h>
#include <qvm/hw_pci.h>
#include <qvm/vio.h>
#if QVM_EDITION == 710
typedef unsigned vdev_ctrl_options_t;
typedef enum vdev_ref_status vdev_ref_status_t;
#define pvq vq
#endif

enum { QUEUE, QUEUES };
enum { QUEUE_SIZE = 64, ENTRIES = 64 };
/* The most bytes for a request, so that a reset does not wait long for one. */
#define BYTES_MAX 65536u

struct entropy {
    struct vio_state vs;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t mutex; /* guards the following */
    pthread_cond_t changed;
    bool notified;
    bool resetting;
    bool working;
    bool ending;
};

static const struct vio_description description = {
    .device_type = VIRTIO_DT_ENTROPY,
    .pci_class = PCI_CLASS_SYSTEM | PCI_SUBCLASS_SYSTEM_OTHER,
    .num_queues = QUEUES,
    .device_features = { 0, VIO_F_BIT(VIRTIO_F_VERSION_1) },
};

/* Fills a piece of memory; false if there are no random numbers. */
static bool fill(char *at, size_t left)
{
    while (left > 0) {
        const ssize_t got = getrandom(at, left < 256 ? left : 256, 0);
        if (got < 0)
            return false;
        at += got;
        left -= (size_t)got;
    }
    return true;
}

/* Carries out one request; the bytes written. */
static uint32_t serve(const vdev_t *vdp, vq_t *vq, unsigned first)
{
    iov_t pieces[ENTRIES];
    struct vio_iov iov = { .vi_iov = pieces, .vi_iov_len = ENTRIES };
#if QVM_EDITION == 800
    iov_postmap_elem_t mappings[ENTRIES];
    iov.vi_is_postmap = mappings;
#endif
    unsigned flags;
    uint32_t written = 0;

    vq_desc_get(vq, first, NULL, NULL, &flags);
    /* A request has nothing to read, so the first buffer tells for all. */
    if (!(flags & VIRTQ_DESC_F_WRITE) || vio_get_iov(vdp, vq, first, &iov) < 0)
        return 0;
    for (int i = iov.vi_payload; i < iov.vi_count && written < BYTES_MAX; ++i) {
        const size_t len = GETIOVLEN(&pieces[i]);
        const size_t part = len < BYTES_MAX - written ? len : BYTES_MAX - written;
        if (!fill(GETIOVBASE(&pieces[i]), part))
            break;
        written += (uint32_t)part;
    }
    vio_put_iov(vdp, &iov);
    return written;
}

static bool is_resetting(struct entropy *rng)
{
    pthread_mutex_lock(&rng->mutex);
    const bool is = rng->resetting || rng->ending;
    pthread_mutex_unlock(&rng->mutex);
    return is;
}

static void *work(void *arg)
{
    vdev_t *const vdp = arg;
    struct entropy *const rng = vdp->v_device;

    pthread_mutex_lock(&rng->mutex);
    while (!rng->ending) {
        if (!rng->notified || rng->resetting) {
            pthread_cond_wait(&rng->changed, &rng->mutex);
            continue;
        }
        rng->notified = false;
        rng->working = true;
        vq_t *const vq = rng->vs.qinfo[QUEUE].pvq;
        pthread_mutex_unlock(&rng->mutex);

        unsigned id, first;
        while (!is_resetting(rng) && (id = vq_get_from_driver(vq, &first)) != VQ_INVALID_ID)
            vq_put_to_driver(vq, id, serve(vdp, vq, first), true);

        pthread_mutex_lock(&rng->mutex);
        rng->working = false;
        pthread_cond_broadcast(&rng->changed);
    }
    pthread_mutex_unlock(&rng->mutex);
    return NULL;
}

static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct entropy *const rng = vdp->v_device;
    int result;

    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        vdp->v_block.location = QSL_NO_LOCATION;
        pthread_mutex_init(&rng->mutex, NULL);
        pthread_cond_init(&rng->changed, NULL);
        break;
    case VDEV_CTRL_OPTIONS_END:
        vio_init(vdp, VIOVER_100, &description, &rng->vs);
        return vio_init_queue(&rng->vs, QUEUE, QUEUE_SIZE);
    case VDEV_CTRL_GUEST_CONFIGURED:
        result = vdev_thread_create(vdp, "entropy", &rng->thread, NULL, work, vdp);
        rng->has_thread = result == EOK;
        return result;
    case VDEV_CTRL_PCI_BARS:
        return vio_ctrl_pci_bars(&rng->vs, arg);
    case VDEV_CTRL_TERMINATE:
        pthread_mutex_lock(&rng->mutex);
        rng->ending = true;
        pthread_cond_broadcast(&rng->changed);
        pthread_mutex_unlock(&rng->mutex);
        if (rng->has_thread)
            pthread_join(rng->thread, NULL);
        break;
    default:
        break;
    }
    return EOK;
}

static vdev_ref_status_t status_of(unsigned class, unsigned low)
{
    switch (class) {
    case VIOREF_CLASS_BUS_ERROR:
        return VRS_BUS_ERROR;
    case VIOREF_CLASS_ERRNO:
        return (vdev_ref_status_t)(VRS_ERRNO + low);
    default:
        return VRS_NORMAL;
    }
}

static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct entropy *const rng = vdp->v_device;
    const unsigned res = vio_read(&rng->vs, cookie, vopnd, oopnd, gcp);

    return status_of(res & VIOREF_CLASS_MASK, res & ~VIOREF_CLASS_MASK);
}

static vdev_ref_status_t vwrite(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct entropy *const rng = vdp->v_device;
    const unsigned res = vio_write(&rng->vs, cookie, vopnd, oopnd, gcp);
    const unsigned low = res & ~VIOREF_CLASS_MASK;

    switch (res & VIOREF_CLASS_MASK) {
    case VIOREF_CLASS_STATUS:
        if (low & VIRTIO_DS_DRIVER_OK)
            vio_setup_queues(&rng->vs);
        break;
    case VIOREF_CLASS_NOTIFY:
        pthread_mutex_lock(&rng->mutex);
        rng->notified = true;
        pthread_cond_broadcast(&rng->changed);
        pthread_mutex_unlock(&rng->mutex);
        break;
    case VIOREF_CLASS_RESET:
        pthread_mutex_lock(&rng->mutex);
        rng->resetting = true;
        while (rng->working)
            pthread_cond_wait(&rng->changed, &rng->mutex);
        vio_reset(&rng->vs);
        rng->notified = false;
        rng->resetting = false;
        pthread_mutex_unlock(&rng->mutex);
        break;
    default:
        break;
    }
    return status_of(res & VIOREF_CLASS_MASK, low);
}

static struct vdev_factory factory = {
    .control = control,
    .vread = vread,
    .vwrite = vwrite,
    .factory_flags = VFF_INTR_NONPCI | VFF_VDEV_MEM | VFF_VDEV_PCI,
    .acc_sizes = 1u << 1 | 1u << 2 | 1u << 4 | 1u << 8,
    .extra_space = sizeof(struct entropy),
#if QVM_EDITION == 710
    .safety = VDEV_SAFETY_NO,
#endif
};

static void __attribute__((constructor)) load(void)
{
    vdev_register_factory(&factory, QVM_VDEV_ABI);
}
