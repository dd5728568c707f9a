/*
 * A device written for 7.x, unchanged: it reads a command from guest memory, and writes the
 * result after it. Only main() is new, which acts as the hypervisor.
 *
 *     cc -DQVM_EDITION=710 edition_710.c $(pkg-config --cflags --libs gasp) && ./a.out
 */
#include <gasp/guest.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

struct command {
    uint32_t left;
    uint32_t right;
    uint32_t sum; /* the device's answer */
};

/* Adds two numbers for the guest, which provides the address: hence gasp_map_vdma(). */
static int add(struct guest_system *gsp, const vdev_t *vdev, uint64_t address)
{
    struct command *command;
    command = gasp_map_vdma(vdev, PROT_READ | PROT_WRITE, address, sizeof *command);
    if (command == NULL)
        return errno;
    command->sum = command->left + command->right;
    gasp_unmap(gsp, command, sizeof *command, 1);
    return EOK;
}

int main(void)
{
    const struct command command = { 40, 2, 0 };
    struct guest_system *gsp = NULL;
    vdev_t *vdev = NULL;
    uint64_t ram = 0;

    if (gasp_guest_create(NULL, &gsp) != EOK ||
        gasp_guest_add_ram(gsp, &ram, 4096, GASP_PAGES_ANY, GASP_PINNED) != EOK ||
        gasp_vdev_create(gsp, "adder", &vdev) != EOK) {
        fprintf(stderr, "%s\n", gasp_last_error());
        return 1;
    }
    struct command *seen = gasp_map_sys(gsp, PROT_READ | PROT_WRITE, 64, sizeof *seen);
    if (seen == NULL)
        return 1;
    *seen = command;
    const int error = add(gsp, vdev, 64);
    printf("%u + %u = %u: %s\n", seen->left, seen->right, seen->sum, strerror(error));
    gasp_unmap(gsp, seen, sizeof *seen, 0);

    printf("at a wrong address: %s\n", strerror(add(gsp, vdev, 1 << 20)));
    return gasp_guest_destroy(gsp) == EOK ? 0 : 1;
}
