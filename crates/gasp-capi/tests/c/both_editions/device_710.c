/* The file of the program that is for 7.x: a device. */
#include "../check.h"

#include <sys/mman.h>

void increment(struct guest_system *gsp, const vdev_t *vdev, uint64_t address);

void increment(struct guest_system *gsp, const vdev_t *vdev, uint64_t address)
{
    unsigned char *byte = gasp_map_vdma(vdev, PROT_READ | PROT_WRITE, address, 1);
    CHECK(byte);
    ++*byte;
    gasp_unmap(gsp, byte, 1, 1);
}
