/*
 * <qvm/utils.h>: what the configuration writes, read by virtual devices; slices of registers.
 *
 * What is not documented publicly, and so is our own choice, is marked [ours]. The functions
 * are in the program that hosts the vdev, not in libgasp.
 *
 * Startup phase, in the thread of the callback. In the running phase they fail. [ours]
 */
#include <qvm/posix.h>
#include <qvm/types.h>

#ifndef QVM_UTILS_H
#define QVM_UTILS_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A range of the registers of a device, which a constant image describes (read-only) and a
 * structure of the vdev modifies (read-write). 7.0 has no spare and no tag.
 */
struct qvm_slice_descriptor {
    uint32_t writable;     /* the bits that can be written, those of the lowest byte first */
    uint16_t offset;       /* where it begins in the image, in bytes */
    uint16_t store_offset; /* where its writable bits are in the read-write structure, in bytes */
    uint8_t nbytes;        /* its length: 1, 2 or 4; 0 ends an array of them [ours] */
    uint8_t spare;         /* 0 */
    uint16_t tag;          /* the vdev's own */
};

/*
 * Reads a location as the configuration writes it, `[type:]location` (`mem:0xfa000000`,
 * `io:0x3f8`, `pci:0:4.0`), into location and type of *bp; without `type:` the type stays as it
 * is. The length stays as it is, unless `,length` follows.
 *
 * Returns the first character after it; NULL, with *bp unchanged, if str does not begin with a
 * location [ours]. 7.x: *pci_idp becomes 1 if it is `pci:vendor/device`, else 0; it can be NULL.
 * Such a location in 8.0 is refused [ours].
 */
#if QVM_EDITION == 800
char *qvm_parse_block(const char *str, struct qvm_state_block *bp);
#else
char *qvm_parse_block(const char *str, struct qvm_state_block *bp, int *pci_idp)
    QVM_EDITION_710(qvm_parse_block);

/*
 * Reads an interrupt, `pic:line`, of the guest gsp into *ip. Returns the first character after
 * it; NULL, with *ip unchanged, if str does not begin with one, or the guest has no such line
 * [ours]. 8.0 has guest_intr_from_conf_str() instead.
 */
char *qvm_parse_intr(const struct guest_system *gsp, const char *str, struct guest_intr *ip);
#endif

#ifdef __cplusplus
}
#endif

#endif
