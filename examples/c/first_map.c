/*
 * The smallest useful program: a guest with one page of memory, and a device that maps the
 * memory and writes to it.
 *
 *     cc first_map.c $(pkg-config --cflags --libs gasp) && ./a.out
 */
#include <gasp/guest.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    gasp_guest_t *guest = NULL;
    vdev_t *disk = NULL;
    gasp_map_handle_t h;
    uint64_t start = 0;

    if (gasp_guest_create(NULL, &guest) != EOK ||
        gasp_guest_add_ram(guest, &start, 4096, GASP_PAGES_ANY, GASP_PINNED) != EOK ||
        gasp_vdev_create(guest, "disk", &disk) != EOK ||
        gasp_map(disk, start, 64, GMF_READ | GMF_WRITE, &h) != EOK) {
        fprintf(stderr, "%s\n", gasp_last_error());
        return 1;
    }
    char *buffer = gasp_get_vaddr(&h);
    strcpy(buffer, "written by the device");
    printf("guest memory at 0x%llx: \"%s\"\n", (unsigned long long)start, buffer);

    gasp_unmap_handle(&h);
    return gasp_guest_destroy(guest) == EOK ? 0 : 1;
}
