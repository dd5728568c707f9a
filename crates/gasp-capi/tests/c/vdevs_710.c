/* vdev_t in the 7.x edition: the same object, and the same pointers that are refused. */
#include "vdev_members.h"

static void a_new_vdev_has_its_guest_no_location_and_zeros(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    check_new(device(guest, "disk"), guest);
    end(guest);
}

static void stale_and_made_up_vdevs_are_refused_by_every_call(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *stale = device(guest, "stale"), *net = device(guest, "net");
    gasp_domain_t *domain = domain_of(guest, net, "net", GASP_DOMAIN_IDENTITY);
    const struct gasp_region registers = { GRF_VIRT_RD, 7, stale, QSL_NO_LOCATION,
                                           { 0xfa000000, 8, QST_MEMORY, 0 } };
    CHECK_OK(gasp_vdev_destroy(stale, NULL));
    refuse_vdev(stale, domain);
    refuse_vdev(NULL, domain);
    refuse_vdev((vdev_t *)((char *)net + PAGE), domain);
    refuse_vdev((vdev_t *)((char *)net + 1), domain);
    refuse_vdev((vdev_t *)(void *)guest, domain);
    CHECK_OK(gasp_guest_start(guest));
    CHECK_OK(gasp_lock(guest, QST_MEMORY));
    CHECK(gasp_region_set_soft(guest, 1, &registers) == 0);
    CHECK(strstr(gasp_last_error(), "(EINVAL)"));
    CHECK_OK(gasp_unlock(guest, QST_MEMORY));
    end(guest);
    refuse_vdev(net, domain);
}

static void an_access_to_a_destroyed_vdev_faults(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    CHECK(!faults_at((volatile char *)(void *)disk, 0));
    CHECK_OK(gasp_vdev_destroy(disk, NULL));
    CHECK(faults_at((volatile char *)(void *)disk, 0));
    end(guest);
}

static const struct test tests[] = {
    TEST(a_new_vdev_has_its_guest_no_location_and_zeros),
    TEST(stale_and_made_up_vdevs_are_refused_by_every_call),
    TEST_NEEDS(an_access_to_a_destroyed_vdev_faults, lacks_silence),
};
RUN(tests)
