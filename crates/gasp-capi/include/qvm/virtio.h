/*
 * <qvm/virtio.h>: constants of the virtio standard (OASIS, Virtual I/O Device 1.2), also installed
 * as <virtio.h>, the name that sources of virtual devices include.
 *
 * The values are those of the standard. Of the names VIRTIO_DT_GPU, VIRTIO_F_VERSION_1,
 * VIRTIO_DS_DRIVER_OK, VIRTQ_DESC_F_WRITE and VIO_F_BIT() are [seen]; the others follow them or the
 * standard, and are [ours].
 */
#ifndef QVM_VIRTIO_H
#define QVM_VIRTIO_H

#include <stdint.h>

/*
 * The bit of feature number `bit` in its word of 32 bits: in vio_description.device_features[bit /
 * 32] and vio_state.driver_features[bit / 32].
 */
#define VIO_F_BIT(bit) (UINT32_C(1) << ((bit) % 32))

/* Types of devices: device IDs of the standard, section 5. */
#define VIRTIO_DT_NET 1
#define VIRTIO_DT_BLOCK 2
#define VIRTIO_DT_CONSOLE 3
#define VIRTIO_DT_ENTROPY 4
#define VIRTIO_DT_BALLOON 5
#define VIRTIO_DT_IOMEM 6
#define VIRTIO_DT_RPMSG 7
#define VIRTIO_DT_SCSI 8
#define VIRTIO_DT_9P 9
#define VIRTIO_DT_GPU 16
#define VIRTIO_DT_TIMER 17
#define VIRTIO_DT_INPUT 18
#define VIRTIO_DT_SOCKET 19
#define VIRTIO_DT_CRYPTO 20
#define VIRTIO_DT_PSTORE 22
#define VIRTIO_DT_IOMMU 23
#define VIRTIO_DT_MEMORY 24
#define VIRTIO_DT_SOUND 25
#define VIRTIO_DT_FS 26
#define VIRTIO_DT_PMEM 27
#define VIRTIO_DT_RPMB 28
#define VIRTIO_DT_VIDEO_ENCODER 30
#define VIRTIO_DT_VIDEO_DECODER 31
#define VIRTIO_DT_SCMI 32
#define VIRTIO_DT_I2C 34
#define VIRTIO_DT_WATCHDOG 35
#define VIRTIO_DT_CAN 36
#define VIRTIO_DT_BLUETOOTH 40
#define VIRTIO_DT_GPIO 41

/* Numbers of the features that are independent of the type: section 6. */
#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX 29
#define VIRTIO_F_VERSION_1 32
#define VIRTIO_F_ACCESS_PLATFORM 33
#define VIRTIO_F_RING_PACKED 34
#define VIRTIO_F_IN_ORDER 35
#define VIRTIO_F_ORDER_PLATFORM 36
#define VIRTIO_F_SR_IOV 37
#define VIRTIO_F_NOTIFICATION_DATA 38
#define VIRTIO_F_NOTIF_CONFIG_DATA 39
#define VIRTIO_F_RING_RESET 40

/* Bits of the device status: section 2.1. */
#define VIRTIO_DS_ACKNOWLEDGE 0x01u
#define VIRTIO_DS_DRIVER 0x02u
#define VIRTIO_DS_DRIVER_OK 0x04u
#define VIRTIO_DS_FEATURES_OK 0x08u
#define VIRTIO_DS_NEEDS_RESET 0x40u
#define VIRTIO_DS_FAILED 0x80u

/* Flags of a descriptor, as vq_desc_get() of <qvm/vq.h> returns them: section 2.7.5. */
#define VIRTQ_DESC_F_NEXT 0x1u     /* the chain continues */
#define VIRTQ_DESC_F_WRITE 0x2u    /* the device writes to the buffer; otherwise it reads */
#define VIRTQ_DESC_F_INDIRECT 0x4u /* a table of descriptors; never returned */

#endif
