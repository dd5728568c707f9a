/* The domains of a guest's IOMMU, their devices, and fault records. */
#include "fixture.h"

static void kinds_of_domains(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *all = device(guest, "all"), *none = device(guest, "none"), *net = device(guest, "net");
    gasp_domain_t *bypass = domain_of(guest, all, "bypass", GASP_DOMAIN_BYPASS);
    gasp_domain_t *deny = domain_of(guest, none, "deny", GASP_DOMAIN_DENY);
    gasp_domain_t *translate = domain_of(guest, net, "net", GASP_DOMAIN_TRANSLATE);
    struct gasp_fault fault;
    gasp_map_handle_t h;
    ram(guest, 0, 4 * PAGE);
    CHECK_OK(gasp_map(all, 0, 4 * PAGE, RW, &h));
    gasp_unmap_handle(&h);
    CHECK_ERR(gasp_map(none, 0, 8, GMF_READ, &h), EFAULT);
    CHECK_OK(gasp_guest_next_fault(guest, &fault));
    CHECK(fault.refusal == GASP_REFUSED_DENY_DOMAIN && fault.vdev == none);
    CHECK_ERR(gasp_domain_grant(bypass, 0, 0, PAGE, RW), EINVAL);
    CHECK_ERR(gasp_domain_grant(deny, 0, 0, PAGE, RW), EINVAL);
    CHECK_OK(gasp_domain_grant(translate, MIB, 0, PAGE, GMF_READ));
    CHECK_OK(gasp_domain_grant(translate, MIB, 0, PAGE, GMF_WRITE)); /* access is added */
    CHECK_OK(gasp_map(net, MIB, PAGE, RW, &h));
    gasp_unmap_handle(&h);
    CHECK_ERR(gasp_domain_grant(translate, MIB, PAGE, PAGE, RW), EEXIST);
    CHECK_ERR(gasp_domain_grant(translate, MIB, 0, 0, RW), EINVAL);
    CHECK_ERR(gasp_domain_grant(translate, UINT64_MAX - PAGE + 1, 0, 2 * PAGE, RW), ENXIO);
    CHECK_ERR(gasp_domain_grant(translate, 0, UINT64_C(1) << 48, PAGE, RW), ENXIO);
    end(guest);
}

static void owners_of_domains(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *mine, *also_mine, *theirs;
    CHECK_OK(gasp_domain_create(guest, "mine", GASP_DOMAIN_IDENTITY, NULL, &mine));
    CHECK_OK(gasp_domain_create(guest, "also mine", GASP_DOMAIN_IDENTITY, "guest", &also_mine));
    CHECK_OK(gasp_domain_create(guest, "theirs", GASP_DOMAIN_IDENTITY, "firmware", &theirs));
    CHECK_OK(gasp_vdev_attach(disk, mine, NULL));
    CHECK_ERR(gasp_vdev_attach(disk, theirs, NULL), EBUSY);
    CHECK_OK(gasp_vdev_attach(disk, also_mine, NULL));
    CHECK_OK(gasp_domain_destroy(mine));
    CHECK_OK(gasp_vdev_detach(disk, NULL));
    CHECK_OK(gasp_vdev_attach(disk, theirs, NULL));
    end(guest);
}

static void moving_a_device_revokes_its_mappings(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *old = domain_of(guest, disk, "old", GASP_DOMAIN_IDENTITY), *next;
    gasp_map_handle_t h;
    gasp_drain_t *drain;
    ram(guest, 0, PAGE);
    grant(old, 0, PAGE, RW);
    CHECK_OK(gasp_domain_create(guest, "next", GASP_DOMAIN_BYPASS, NULL, &next));
    CHECK_OK(gasp_map(disk, 0, 8, RW, &h));
    CHECK_OK(gasp_vdev_attach(disk, next, &drain));
    CHECK_OK(gasp_drain_abandon(drain));
    CHECK_ERR(gasp_map_check(&h), ESTALE);
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_map(disk, 0, 8, RW, &h));
    CHECK_OK(gasp_vdev_detach(disk, &drain));
    CHECK_OK(gasp_drain_abandon(drain));
    CHECK_ERR(gasp_map_check(&h), ESTALE);
    gasp_unmap_handle(&h);
    CHECK_ERR(gasp_map(disk, 0, 8, RW, &h), EFAULT);
    end(guest);
}

static void fault_records_are_64_and_then_counted(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    struct gasp_fault fault;
    gasp_map_handle_t h;
    ram(guest, 0, PAGE);
    for (unsigned i = 0; i < 70; i++)
        CHECK_ERR(gasp_map(disk, i, 8, GMF_READ, &h), EFAULT);
    for (unsigned i = 0; i < 64; i++) {
        CHECK_OK(gasp_guest_next_fault(guest, &fault));
        CHECK(fault.device_addr == i && fault.dropped == (i ? 0 : 6));
    }
    CHECK_ERR(gasp_guest_next_fault(guest, &fault), ENOENT);
    CHECK_ERR(gasp_guest_next_fault(guest, NULL), EINVAL);
    CHECK_ERR(gasp_map(disk, 0, 8, GMF_READ, &h), EFAULT);
    CHECK_OK(gasp_vdev_destroy(disk, NULL));
    CHECK_OK(gasp_guest_next_fault(guest, &fault));
    CHECK(fault.vdev == NULL && strcmp(fault.name, "disk") == 0);
    end(guest);
}

static const struct test tests[] = {
    TEST(kinds_of_domains),
    TEST(owners_of_domains),
    TEST(moving_a_device_revokes_its_mappings),
    TEST(fault_records_are_64_and_then_counted),
};
RUN(tests)
