/* One program with files of both editions. This one is for 8.0, and hosts the device. */
#include "../fixture.h"

/* In device_710.c. */
void increment(struct guest_system *gsp, const vdev_t *vdev, uint64_t address);

static void a_7_x_device_in_an_8_0_host(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *vdev = device(guest, "counter");
    gasp_map_handle_t h;
    ram(guest, 0, PAGE);
    CHECK_OK(gasp_map(vdev, 64, 1, RW, &h));
    increment(guest, vdev, 64);
    increment(guest, vdev, 64);
    CHECK(*(unsigned char *)gasp_get_vaddr(&h) == 2);
    gasp_unmap_handle(&h);
    end(guest);
}

static const struct test tests[] = { TEST(a_7_x_device_in_an_8_0_host) };
RUN(tests)
