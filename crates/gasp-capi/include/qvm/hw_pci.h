/*
 * <qvm/hw_pci.h>: constants of the PCI Local Bus and PCI Express specifications, and of the PCI
 * code and ID assignment specification.
 *
 * The values are those of the specifications. PCI_CLASS_DISPLAY and PCI_SUBCLASS_DISPLAY_OTHER
 * are [seen] as names, or'ed for the class of a device; the other names are [ours].
 */
#ifndef QVM_HW_PCI_H
#define QVM_HW_PCI_H

/* ---- Class codes --------------------------------------------------------------------------- */

/*
 * A class code: base class in bits 16 to 23, subclass in bits 8 to 15, programming interface in
 * bits 0 to 7. A class is or'ed with one of its subclasses.
 */
#define PCI_CLASS_UNCLASSIFIED 0x000000u

#define PCI_CLASS_STORAGE 0x010000u
#define PCI_SUBCLASS_STORAGE_SCSI 0x0000u
#define PCI_SUBCLASS_STORAGE_IDE 0x0100u
#define PCI_SUBCLASS_STORAGE_RAID 0x0400u
#define PCI_SUBCLASS_STORAGE_SATA 0x0600u
#define PCI_SUBCLASS_STORAGE_SAS 0x0700u
#define PCI_SUBCLASS_STORAGE_NVM 0x0800u
#define PCI_SUBCLASS_STORAGE_OTHER 0x8000u

#define PCI_CLASS_NETWORK 0x020000u
#define PCI_SUBCLASS_NETWORK_ETHERNET 0x0000u
#define PCI_SUBCLASS_NETWORK_OTHER 0x8000u

#define PCI_CLASS_DISPLAY 0x030000u
#define PCI_SUBCLASS_DISPLAY_VGA 0x0000u
#define PCI_SUBCLASS_DISPLAY_XGA 0x0100u
#define PCI_SUBCLASS_DISPLAY_3D 0x0200u
#define PCI_SUBCLASS_DISPLAY_OTHER 0x8000u

#define PCI_CLASS_MULTIMEDIA 0x040000u
#define PCI_SUBCLASS_MULTIMEDIA_VIDEO 0x0000u
#define PCI_SUBCLASS_MULTIMEDIA_AUDIO 0x0100u
#define PCI_SUBCLASS_MULTIMEDIA_OTHER 0x8000u

#define PCI_CLASS_MEMORY 0x050000u
#define PCI_SUBCLASS_MEMORY_RAM 0x0000u
#define PCI_SUBCLASS_MEMORY_FLASH 0x0100u
#define PCI_SUBCLASS_MEMORY_OTHER 0x8000u

#define PCI_CLASS_BRIDGE 0x060000u
#define PCI_SUBCLASS_BRIDGE_HOST 0x0000u
#define PCI_SUBCLASS_BRIDGE_ISA 0x0100u
#define PCI_SUBCLASS_BRIDGE_PCI 0x0400u
#define PCI_SUBCLASS_BRIDGE_OTHER 0x8000u

#define PCI_CLASS_COMMUNICATION 0x070000u
#define PCI_SUBCLASS_COMMUNICATION_SERIAL 0x0000u
#define PCI_SUBCLASS_COMMUNICATION_PARALLEL 0x0100u
#define PCI_SUBCLASS_COMMUNICATION_MULTIPORT 0x0200u
#define PCI_SUBCLASS_COMMUNICATION_OTHER 0x8000u

#define PCI_CLASS_SYSTEM 0x080000u
#define PCI_SUBCLASS_SYSTEM_PIC 0x0000u
#define PCI_SUBCLASS_SYSTEM_DMA 0x0100u
#define PCI_SUBCLASS_SYSTEM_TIMER 0x0200u
#define PCI_SUBCLASS_SYSTEM_RTC 0x0300u
#define PCI_SUBCLASS_SYSTEM_IOMMU 0x0600u
#define PCI_SUBCLASS_SYSTEM_OTHER 0x8000u

#define PCI_CLASS_INPUT 0x090000u
#define PCI_SUBCLASS_INPUT_KEYBOARD 0x0000u
#define PCI_SUBCLASS_INPUT_MOUSE 0x0200u
#define PCI_SUBCLASS_INPUT_OTHER 0x8000u

#define PCI_CLASS_SERIALBUS 0x0c0000u
#define PCI_SUBCLASS_SERIALBUS_USB 0x0300u
#define PCI_SUBCLASS_SERIALBUS_SMBUS 0x0500u
#define PCI_SUBCLASS_SERIALBUS_CAN 0x0900u
#define PCI_SUBCLASS_SERIALBUS_OTHER 0x8000u

#define PCI_CLASS_ENCRYPTION 0x100000u
#define PCI_SUBCLASS_ENCRYPTION_NETWORK 0x0000u
#define PCI_SUBCLASS_ENCRYPTION_OTHER 0x8000u

#define PCI_CLASS_SIGNAL 0x110000u
#define PCI_SUBCLASS_SIGNAL_OTHER 0x8000u

#define PCI_CLASS_ACCELERATOR 0x120000u
#define PCI_CLASS_OTHER 0xff0000u

/* ---- Configuration space: offsets in bytes ----------------------------------------------- */

#define PCI_REG_VENDOR_ID 0x00         /* 2 bytes */
#define PCI_REG_DEVICE_ID 0x02         /* 2 */
#define PCI_REG_COMMAND 0x04           /* 2: PCI_CMD_* */
#define PCI_REG_STATUS 0x06            /* 2: PCI_STS_* */
#define PCI_REG_REVISION_ID 0x08       /* 1 */
#define PCI_REG_CLASS_CODE 0x09        /* 3: programming interface, subclass, base class */
#define PCI_REG_CACHE_LINE_SIZE 0x0c   /* 1, in units of 4 bytes */
#define PCI_REG_LATENCY_TIMER 0x0d     /* 1 */
#define PCI_REG_HEADER_TYPE 0x0e       /* 1: PCI_HDR_* */
#define PCI_REG_BIST 0x0f              /* 1 */
#define PCI_REG_BAR(n) (0x10 + 4 * (n)) /* 4; n is 0 to 5: PCI_BAR_* */
#define PCI_REG_CARDBUS_CIS 0x28       /* 4 */
#define PCI_REG_SUBSYSTEM_VENDOR 0x2c  /* 2 */
#define PCI_REG_SUBSYSTEM_ID 0x2e      /* 2 */
#define PCI_REG_ROM_BAR 0x30           /* 4: PCI_ROM_* */
#define PCI_REG_CAPABILITIES 0x34      /* 1: the offset of the first capability */
#define PCI_REG_INTERRUPT_LINE 0x3c    /* 1 */
#define PCI_REG_INTERRUPT_PIN 0x3d     /* 1: 0 none, 1 INTA to 4 INTD */
#define PCI_REG_MIN_GNT 0x3e           /* 1 */
#define PCI_REG_MAX_LAT 0x3f           /* 1 */
#define PCI_CFG_SIZE 0x100             /* of PCI, in bytes */
#define PCI_CFG_SIZE_EXPRESS 0x1000    /* of PCI Express */

#define PCI_NUM_BARS 6

/* Command. */
#define PCI_CMD_IO 0x0001u             /* answers to ports */
#define PCI_CMD_MEMORY 0x0002u         /* answers to memory */
#define PCI_CMD_MASTER 0x0004u         /* may access memory, and send MSIs */
#define PCI_CMD_PARITY 0x0040u
#define PCI_CMD_SERR 0x0100u
#define PCI_CMD_INTX_DISABLE 0x0400u   /* does not assert its INTx */

/* Status. */
#define PCI_STS_INTERRUPT 0x0008u      /* has an interrupt for its INTx */
#define PCI_STS_CAPABILITIES 0x0010u   /* has capabilities */

/* Header type. */
#define PCI_HDR_NORMAL 0x00u
#define PCI_HDR_BRIDGE 0x01u
#define PCI_HDR_MULTIFUNCTION 0x80u

/* Base address registers. */
#define PCI_BAR_IO 0x1u                /* ports; clear: memory */
#define PCI_BAR_IO_MASK 0xfffffffcu
#define PCI_BAR_64BIT 0x4u             /* memory: with the next register */
#define PCI_BAR_PREFETCHABLE 0x8u
#define PCI_BAR_MEMORY_MASK 0xfffffff0u
#define PCI_ROM_ENABLE 0x1u
#define PCI_ROM_MASK 0xfffff800u

/* ---- Capabilities: an identifier, and the offset of the next one --------------------------- */

#define PCI_CAPID_PM 0x01u
#define PCI_CAPID_MSI 0x05u
#define PCI_CAPID_VENDOR 0x09u
#define PCI_CAPID_EXPRESS 0x10u
#define PCI_CAPID_MSIX 0x11u

/* MSI: offsets in the capability. */
#define PCI_MSI_REG_CONTROL 0x02       /* 2 bytes */
#define PCI_MSI_REG_ADDRESS 0x04       /* 4 */
#define PCI_MSI_REG_ADDRESS_UPPER 0x08 /* 4, if PCI_MSI_64BIT */
#define PCI_MSI_REG_DATA 0x08          /* 2, if not */
#define PCI_MSI_REG_DATA_64BIT 0x0c    /* 2, if PCI_MSI_64BIT */
#define PCI_MSI_ENABLE 0x0001u
#define PCI_MSI_64BIT 0x0080u
#define PCI_MSI_MASKABLE 0x0100u

/* MSI-X: offsets in the capability, and in an entry of the table. */
#define PCI_MSIX_REG_CONTROL 0x02      /* 2 bytes */
#define PCI_MSIX_REG_TABLE 0x04        /* 4: the BAR in bits 0 to 2, and an offset in it */
#define PCI_MSIX_REG_PBA 0x08          /* 4: the same for the pending bits */
#define PCI_MSIX_TABLE_SIZE 0x07ffu    /* the number of entries, less 1 */
#define PCI_MSIX_MASK_ALL 0x4000u
#define PCI_MSIX_ENABLE 0x8000u
#define PCI_MSIX_BAR_MASK 0x7u
#define PCI_MSIX_ENTRY_SIZE_BYTES 16
#define PCI_MSIX_ENTRY_ADDRESS 0x0
#define PCI_MSIX_ENTRY_ADDRESS_UPPER 0x4
#define PCI_MSIX_ENTRY_MESSAGE 0x8
#define PCI_MSIX_ENTRY_CONTROL 0xc
#define PCI_MSIX_ENTRY_MASKED 0x1u

#endif
