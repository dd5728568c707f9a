/*
 * <qvm/vpci.h>: the configuration space and the BARs of virtual PCI devices.
 *
 * What is not documented publicly, and so is our own choice, is marked [ours]. The functions
 * are in the program that hosts the vdev, not in libgasp. None of them waits.
 *
 * A PCI device (VFF_VDEV_PCI, v_block.qst_type QST_PCI) gets the accesses to its configuration
 * space by vread() and vwrite(), with a vopnd of type QST_PCI. It has
 *
 *   - a constant image of that space, struct _pci_config_regs: what is read where nothing
 *     has been written
 *   - a struct vpci_rw_state: what the guest has written
 *   - an array of slices that says which bits can be written, and where they are kept
 *
 *   static const struct qvm_slice_descriptor slices[] = {
 *       VPCI_SLICE_COMMAND, VPCI_SLICE_INTERRUPT_LINE, VPCI_SLICE_BAR(0, 0x1000), VPCI_SLICE_END,
 *   };
 *
 *   vread():  vpci_cfg_read(&rw, slices, vopnd, &value, &image);
 *             guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &value, vopnd->length);
 *   vwrite(): guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &value, vopnd->length);
 *             if (vpci_cfg_write(&rw, slices, vopnd, &value) & (command and BARs))
 *                 vpci_region_update(vdp, &rw);
 *
 * and it answers VDEV_CTRL_PCI_BARS with `return vpci_ctrl_pci_bars(&rw, arg);`. Accesses to a BAR
 * then arrive with a vopnd of type QST_MEMORY or QST_X86_IO and the cookie of its region.
 */
#include <qvm/posix.h>
#include <qvm/types.h>

#include <qvm/hw_pci.h>
#include <qvm/utils.h>

#ifndef QVM_VPCI_H
#define QVM_VPCI_H

#ifdef __cplusplus
extern "C" {
#endif

/* A BAR. */
struct vpci_bar {
    /*
     * Its region. The vdev sets guest.length (the size of the BAR in bytes, a power of two; 0: no
     * BAR), guest's type (QST_MEMORY, or QST_PCI_IO for ports), flags (GRF_VIRT_RD and
     * GRF_VIRT_WR), cookie, vdev and host_location, which with guest.length does not change;
     * guest.location is the host's: the current address, QSL_NO_LOCATION if it is not
     * installed.
     */
    struct gasp_region vb_mapping;
    uint32_t vb_value;       /* the writable bits of the register */
    uint32_t vb_value_upper; /* those of the next one, of a 64-bit BAR */
    uint16_t vb_slice;       /* the index of its slice */
    uint16_t vb_breg;        /* the offset of a register that the host writes the address to when
                                it assigns one; 0 for none */
};

/*
 * What the guest has written: all zeros but the BARs' regions at first. The members but bars are
 * [ours]. A vdev with further writable registers puts this first in a structure of its own.
 */
struct vpci_rw_state {
    struct vpci_bar bars[PCI_NUM_BARS];
    uint32_t rom_bar;
    uint16_t command;
    uint8_t cache_line_size;
    uint8_t latency_timer;
    uint8_t interrupt_line;
    uint8_t reserved[7];
};

/*
 * The image of a configuration space with a header of type 0, little-endian as the guest sees it.
 * The names of the members are [ours].
 */
struct _pci_config_regs {
    uint16_t vendor_id;
    uint16_t device_id;
    uint16_t command; /* the bits that are always set */
    uint16_t status;
    uint8_t revision_id;
    uint8_t class_code[3]; /* programming interface, subclass, base class */
    uint8_t cache_line_size;
    uint8_t latency_timer;
    uint8_t header_type;
    uint8_t bist;
    uint32_t bar[PCI_NUM_BARS]; /* the bits that are not writable: PCI_BAR_* */
    uint32_t cardbus_cis;
    uint16_t subsystem_vendor;
    uint16_t subsystem_id;
    uint32_t rom_bar;
    uint8_t capabilities;
    uint8_t reserved[7];
    uint8_t interrupt_line;
    uint8_t interrupt_pin;
    uint8_t min_gnt;
    uint8_t max_lat;
    uint8_t device[PCI_CFG_SIZE - 0x40];
};

/*
 * Slices for struct vpci_rw_state: initializers. VPCI_SLICE_BAR is for BAR n of `size` bytes, a
 * power of two; of a 64-bit BAR with VPCI_SLICE_BAR_UPPER(n) as the slice of the next register.
 * [ours]
 */
#define VPCI_SLICE(reg, nbytes, member, bits)                                                \
    { (bits), (reg), (uint16_t)offsetof(struct vpci_rw_state, member), (nbytes), 0, 0 }
#define VPCI_SLICE_COMMAND                                                                   \
    VPCI_SLICE(PCI_REG_COMMAND, 2, command,                                                  \
               PCI_CMD_IO | PCI_CMD_MEMORY | PCI_CMD_MASTER | PCI_CMD_PARITY | PCI_CMD_SERR | \
                   PCI_CMD_INTX_DISABLE)
#define VPCI_SLICE_CACHE_LINE_SIZE                                                           \
    VPCI_SLICE(PCI_REG_CACHE_LINE_SIZE, 1, cache_line_size, 0xffu)
#define VPCI_SLICE_LATENCY_TIMER VPCI_SLICE(PCI_REG_LATENCY_TIMER, 1, latency_timer, 0xffu)
#define VPCI_SLICE_INTERRUPT_LINE VPCI_SLICE(PCI_REG_INTERRUPT_LINE, 1, interrupt_line, 0xffu)
#define VPCI_SLICE_BAR(n, size)                                                              \
    VPCI_SLICE(PCI_REG_BAR(n), 4, bars[n].vb_value, (uint32_t)(0u - (uint32_t)(size)))
#define VPCI_SLICE_BAR_UPPER(n)                                                              \
    VPCI_SLICE(PCI_REG_BAR((n) + 1), 4, bars[n].vb_value_upper, 0xffffffffu)
#define VPCI_SLICE_END { 0, 0, 0, 0, 0, 0 }

/*
 * Reads blk->length bytes (1, 2 or 4) at the offset of blk->location, a QSL_PCI_MAKE_LOC(), into
 * *val: of each slice the writable bits as they are in the read-write structure, all else as it
 * is in the image, and zeros past its end. Returns the set of slices read from: bit i for
 * desc[i]. desc has at most 32 slices, in any order, and ends with one of 0 bytes [ours].
 *
 * Any phase, any thread; v_mtx is the caller's business. Returns 0 and writes nothing if a
 * pointer is NULL, the length is another, or the block extends past 4 KiB [ours].
 */
#if QVM_EDITION == 800
unsigned vpci_cfg_read(const void *rw_cfg, const struct qvm_slice_descriptor *desc,
                       const struct qvm_state_block *blk, void *val,
                       const struct _pci_config_regs *ro_cfg);
/*
 * Writes blk->length bytes at *val to the writable bits of the slices that they touch. Returns the
 * set of slices that were written to. Otherwise as vpci_cfg_read().
 */
unsigned vpci_cfg_write(void *rw_cfg, const struct qvm_slice_descriptor *desc,
                        const struct qvm_state_block *blk, const void *val);

/*
 * Answers VDEV_CTRL_PCI_BARS: returns -6, for an array of 6 BARs, which it reports by `arg`.
 *
 * A vdev can answer by itself [ours]: arg points to a struct vpci_bar *, which it sets to an array
 * of at most 6 BARs that lives as long as the vdev, and it returns the negative number of BARs; 0
 * for none; an error number if that fails.
 */
int vpci_ctrl_pci_bars(struct vpci_rw_state *rw_cfg, const char *arg);

/*
 * Moves the regions of the BARs to where the guest has put them, and removes those that the
 * command register disables. Running phase, any thread: after the guest has written the command
 * register or a BAR. The vdev's other regions stay. An address that is taken or outside the
 * guest's address space leaves the BAR without a region, and a line in the log [ours].
 */
void vpci_region_update(vdev_t *vdp, struct vpci_rw_state *rw_cfg);
#else
/* As in 8.0. */
unsigned vpci_cfg_read(const void *rw_cfg, const struct qvm_slice_descriptor *desc,
                       const struct qvm_state_block *blk, void *val,
                       const struct _pci_config_regs *ro_cfg) QVM_EDITION_710(vpci_cfg_read);
unsigned vpci_cfg_write(void *rw_cfg, const struct qvm_slice_descriptor *desc,
                        const struct qvm_state_block *blk, const void *val)
    QVM_EDITION_710(vpci_cfg_write);
int vpci_ctrl_pci_bars(struct vpci_rw_state *rw_cfg, const char *arg)
    QVM_EDITION_710(vpci_ctrl_pci_bars);
void vpci_region_update(vdev_t *vdp, struct vpci_rw_state *rw_cfg)
    QVM_EDITION_710(vpci_region_update);
#endif

#ifdef __cplusplus
}
#endif

#endif
