/*
 * <qvm/vq.h>: requests of a virtio driver, also installed as <vq.h>, the name that sources of
 * virtual devices include.
 *
 * A queue is that of a driver which has set DRIVER_OK: vio_setup_queues() of <qvm/vio.h> sets
 * qinfo[n].pvq, and vio_reset() ends it. All functions are thread safe, and are called from any
 * thread of the vdev. The original has them in a static library of its own; here they are in the
 * program that hosts the vdev. The names are [seen]; the prototypes are those that the calls seen
 * take, with the exact types [ours].
 *
 * What a driver does wrong ends its own queue only: if a ring cannot be accessed, or a chain of
 * descriptors has a loop, more descriptors than the queue, more than 4 GiB or a buffer to read
 * after one to write, then the device status gets VIRTIO_DS_NEEDS_RESET, the driver is interrupted,
 * one line is logged, and vq_get_from_driver() returns VQ_INVALID_ID until the driver has reset
 * the device. [ours]
 */
#ifndef QVM_VQ_H
#define QVM_VQ_H

#include <stdbool.h>
#include <stdint.h>

#include <qvm/virtio.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A queue. Opaque, and not a valid pointer: never dereference it. One that has been reset, and a
 * value that never was a queue, has no requests. [ours]
 */
typedef struct virtq vq_t;

/* No request, no descriptor. The value is [ours]. */
#define VQ_INVALID_ID (~0u)

/*
 * Takes the next request. Returns its id, for vq_put_to_driver(), and in *first its first
 * descriptor, for vq_desc_get() and vio_get_iov(); VQ_INVALID_ID, with *first unchanged, if there
 * is none. Then the driver notifies of the next one: call again after each VIOREF_CLASS_NOTIFY.
 *
 * The descriptors have been read and checked once, so what the driver writes to them afterwards
 * changes nothing. first can be NULL.
 */
unsigned vq_get_from_driver(vq_t *vq, unsigned *first);

/*
 * A descriptor of a request that was taken and not put back. Returns the next descriptor, or
 * VQ_INVALID_ID after the last one. Any of the pointers can be NULL.
 *
 * paddr  the address of its buffer, as the device uses it: for gasp_map()
 * len    the length of the buffer in bytes; can be 0
 * flags  VIRTQ_DESC_F_WRITE and VIRTQ_DESC_F_NEXT
 *
 * Descriptors of an indirect table are returned like others; the table itself is not. If idx is no
 * such descriptor, *paddr, *len and *flags are 0, and the result is VQ_INVALID_ID.
 */
unsigned vq_desc_get(vq_t *vq, unsigned idx, uint64_t *paddr, uint32_t *len, unsigned *flags);

/*
 * Returns a request to the driver, with the number of bytes that were written to its buffers. The
 * driver is interrupted if notify is true and it has asked for that; with false, interrupt it with
 * a later request. An id that is no request in progress is ignored, with a line in the log.
 */
void vq_put_to_driver(vq_t *vq, unsigned id, uint32_t len, bool notify);

#ifdef __cplusplus
}
#endif

#endif
