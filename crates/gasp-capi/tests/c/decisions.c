/*
 * The decisions of docs/decisions.md, each by its number. Row 21 is about pieces, for which C
 * has no call; its ENXIO is in error_matrix.c, row 22 in own_mappings.c, and what needs
 * privilege in host_contig.c.
 */
#include "fixture.h"

#include <sys/prctl.h>

static gasp_map_handle_t h;

/* A map that must fail; returns its error. */
static errno_t host_contig(const vdev_t *vdev, uint64_t address, size_t length, uint32_t prot)
{
    const uint64_t asked = address;
    const size_t wanted = length;
    gasp_map_handle_t handle = { { 1, 2, 3 } };
    const errno_t error = gasp_map_host_contig(vdev, &address, &length, prot, &handle);
    CHECK(error != EOK);
    CHECK(address == asked && length == wanted); /* decision 10 */
    CHECK(handle.reserved[0] == 1 && handle.reserved[1] == 2 && handle.reserved[2] == 3);
    return error;
}

static void decision_01_arguments_are_checked_before_the_iommu(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *denied = device(guest, "denied");
    ram(guest, 0, 4 * PAGE);
    CHECK_ERR(gasp_map(denied, 0, PAGE, 0, &h), ENXIO);
    CHECK_ERR(gasp_map(denied, 0, 0, GMF_READ, &h), EINVAL);
    CHECK_ERR(gasp_map(denied, UINT64_MAX, 2, GMF_READ, &h), ENXIO);
    CHECK_ERR(gasp_map(denied, UINT64_C(1) << 48, 1, GMF_READ, &h), ENXIO);
    CHECK_ERR(gasp_map(denied, 0, PAGE, GMF_READ, NULL), EINVAL);
    CHECK_ERR(host_contig(denied, 0, 0, GMF_READ), EINVAL);
    CHECK_ERR(host_contig(denied, UINT64_C(1) << 48, 1, GMF_READ), ENXIO);
    CHECK(faults(guest) == 0);
    CHECK_ERR(gasp_map(denied, 0, PAGE, GMF_READ, &h), EFAULT);
    CHECK(faults(guest) == 1);
    end(guest);
}

static void decision_01_the_iommu_is_asked_before_memory(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *domain = domain_of(guest, disk, "disk", GASP_DOMAIN_IDENTITY);
    ram(guest, 0, PAGE);
    CHECK_ERR(gasp_map(disk, 256 * PAGE, PAGE, RW, &h), EFAULT);
    CHECK_ERR(host_contig(disk, 256 * PAGE, PAGE, RW), EFAULT);
    grant(domain, 0, 2 * PAGE, RW);
    /* A hole that is granted, and after it an address that is refused. */
    CHECK_ERR(gasp_map(disk, PAGE, 2 * PAGE, RW, &h), EFAULT);
    CHECK_ERR(gasp_map(disk, PAGE, PAGE, RW, &h), ENXIO);
    end(guest);
}

static void decision_01_memory_is_looked_at_before_host_addresses(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    uint64_t start = 0;
    CHECK_OK(gasp_guest_add_ram(guest, &start, PAGE, GASP_PAGES_4K, GASP_ON_DEMAND));
    CHECK_ERR(host_contig(disk, 0, PAGE, RW), EPERM);
    CHECK_ERR(host_contig(disk, 0, PAGE + 1, RW), ENXIO);
    end(guest);
}

static void decision_02_length_zero_and_null_pointers_are_einval(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    uint64_t address = 0;
    size_t length = 8;
    window(guest, 0, PAGE, 0x10000000);
    const uint64_t places[] = { 0, 5, PAGE, UINT64_C(1) << 47, UINT64_MAX };
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        CHECK_ERR(gasp_map(disk, places[i], 0, ANY_READ, &h), EINVAL);
        CHECK_ERR(gasp_map_firmware(places[i], 0, ANY_READ, &h), EINVAL);
        CHECK_ERR(host_contig(disk, places[i], 0, ANY_READ), EINVAL);
        CHECK_ERRNO(gasp_map_vdma(disk, places[i], 0, ANY_READ), NULL, EINVAL);
    }
    CHECK_ERR(gasp_map(disk, 0, 8, ANY_READ, NULL), EINVAL);
    CHECK_ERR(gasp_map_firmware(0, 8, ANY_READ, NULL), EINVAL);
    CHECK_ERR(gasp_map_host_contig(disk, NULL, &length, ANY_READ, &h), EINVAL);
    CHECK_ERR(gasp_map_host_contig(disk, &address, NULL, ANY_READ, &h), EINVAL);
    CHECK_ERR(gasp_map_host_contig(disk, &address, &length, ANY_READ, NULL), EINVAL);
    CHECK(address == 0 && length == 8);
    end(guest);
}

static void decision_03_a_range_that_wraps_or_passes_the_width_is_enxio(void)
{
    struct gasp_guest_options options = GASP_GUEST_OPTIONS_INIT;
    gasp_guest_t *guest;
    const uint64_t top = (UINT64_C(1) << 40) - PAGE;
    options.address_width = 40;
    CHECK_OK(gasp_guest_create(&options, &guest));
    vdev_t *disk = device(guest, "disk");
    ram(guest, top, PAGE);
    CHECK_OK(gasp_map(disk, top, PAGE, RW, &h));
    gasp_unmap_handle(&h);
    CHECK_ERR(gasp_map(disk, top, PAGE + 1, RW, &h), ENXIO);
    CHECK_ERR(gasp_map(disk, top + PAGE, 1, RW, &h), ENXIO);
    CHECK_ERR(gasp_map(disk, top, SIZE_MAX, RW, &h), ENXIO);
    CHECK_ERR(gasp_map_firmware(top, PAGE + 1, RW, &h), ENXIO);
    CHECK_ERR(gasp_map_firmware(top, SIZE_MAX, RW, &h), ENXIO);
    CHECK_ERR(host_contig(disk, top, PAGE + 1, RW), ENXIO);
    CHECK_ERR(host_contig(disk, UINT64_MAX, 1, RW), ENXIO);
    CHECK_ERR(host_contig(disk, UINT64_MAX, 2, RW), ENXIO);
    end(guest);
}

static void decision_04_flags_need_an_access_and_no_unknown_bit(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    window(guest, 0, PAGE, 0x10000000);
    for (unsigned bit = 3; bit < 32; bit++) {
        const uint32_t prot = GMF_READ | UINT32_C(1) << bit;
        if (prot == ANY_READ)
            continue;
        CHECK_ERR(gasp_map(disk, 0, 8, prot, &h), ENXIO);
        CHECK_ERR(gasp_map_firmware(0, 8, prot, &h), ENXIO);
        CHECK_ERR(host_contig(disk, 0, 8, prot), ENXIO);
    }
    CHECK_ERR(gasp_map(disk, 0, 8, 0, &h), ENXIO);
    CHECK_ERR(gasp_map(disk, 0, 8, GMF_MAP_ANY, &h), ENXIO);
    for (uint32_t access = 1; access < 8; access++) {
        CHECK_OK(gasp_map(disk, 0, 8, access | GMF_MAP_ANY, &h));
        gasp_unmap_handle(&h);
    }
    end(guest);
}

static void decision_04_write_alone_is_valid(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    gasp_map_handle_t reader;
    ram(guest, 0, PAGE);
    CHECK_OK(gasp_map(disk, 0, 8, GMF_WRITE, &h));
    memcpy(gasp_get_vaddr(&h), "written", 8);
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_map(disk, 0, 8, GMF_READ, &reader));
    CHECK(memcmp(gasp_get_vaddr(&reader), "written", 8) == 0);
    gasp_unmap_handle(&reader);
    end(guest);
}

static void decision_05_rom_and_windows_need_map_any(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    ram(guest, 0, PAGE);
    rom(guest, PAGE, PAGE);
    window(guest, 2 * PAGE, PAGE, 0x10000000);
    for (uint64_t at = PAGE; at < 3 * PAGE; at += PAGE) {
        CHECK_ERR(gasp_map(disk, at, 8, GMF_READ, &h), ENXIO);
        CHECK_ERR(gasp_map_firmware(at, 8, GMF_READ, &h), ENXIO);
        CHECK_ERR(host_contig(disk, at, 8, GMF_READ), ENXIO);
        CHECK_OK(gasp_map(disk, at, 8, ANY_READ, &h));
        gasp_unmap_handle(&h);
        CHECK_OK(gasp_map_firmware(at, 8, ANY_READ, &h));
        gasp_unmap_handle(&h);
    }
    CHECK_OK(gasp_map(disk, 0, 8, ANY_READ, &h));
    gasp_unmap_handle(&h);
    end(guest);
}

static void decision_05_map_any_never_widens_what_the_iommu_allows(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *domain = domain_of(guest, disk, "disk", GASP_DOMAIN_IDENTITY);
    ram(guest, 0, PAGE);
    rom(guest, PAGE, PAGE);
    grant(domain, 0, PAGE, GMF_READ);
    CHECK_ERR(gasp_map(disk, 0, 8, GMF_WRITE | GMF_MAP_ANY, &h), EFAULT);
    CHECK_ERR(gasp_map(disk, PAGE, 8, ANY_READ, &h), EFAULT);
    end(guest);
}

static void decision_06_writing_to_rom_is_eacces(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    rom(guest, 0, PAGE);
    const uint32_t prots[] = { GMF_WRITE | GMF_MAP_ANY, RW | GMF_MAP_ANY };
    for (size_t i = 0; i < COUNT_OF(prots); i++) {
        CHECK_ERR(gasp_map(disk, 0, 8, prots[i], &h), EACCES);
        CHECK_ERR(gasp_map_firmware(0, 8, prots[i], &h), EACCES);
        CHECK_ERR(host_contig(disk, 0, 8, prots[i]), EACCES);
    }
    end(guest);
}

static void decision_07_a_host_discontinuity_shortens(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    window(guest, 0, MIB, 0x1000000000);
    window(guest, MIB, MIB, 0x2000000000);
    uint64_t address = 0x123;
    size_t length = 2 * MIB - 0x123;
    CHECK_OK(gasp_map_host_contig(disk, &address, &length, ANY_READ, &h));
    CHECK(address == 0x1000000123 && length == MIB - 0x123);
    gasp_unmap_handle(&h);
    address = MIB - 1;
    length = MIB;
    CHECK_OK(gasp_map_host_contig(disk, &address, &length, ANY_READ, &h));
    CHECK(address == 0x1000000000 + MIB - 1 && length == 1);
    gasp_unmap_handle(&h);
    end(guest);
}

static void decision_08_a_hole_is_enxio_for_all_of_it(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    ram(guest, 0, 2 * PAGE);
    ram(guest, 3 * PAGE, PAGE);
    CHECK_ERR(gasp_map(disk, 0, 4 * PAGE, RW, &h), ENXIO);
    CHECK_ERR(gasp_map(disk, 0, 2 * PAGE + 1, RW, &h), ENXIO);
    CHECK_ERR(gasp_map_firmware(0, 4 * PAGE, RW, &h), ENXIO);
    CHECK_ERR(host_contig(disk, 0, 4 * PAGE, RW), ENXIO);
    end(guest);
}

static void decision_09_a_prefix_is_efault_for_all_of_it(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *domain = domain_of(guest, disk, "disk", GASP_DOMAIN_IDENTITY);
    window(guest, 0, 4 * PAGE, 0x10000000);
    grant(domain, 0, 2 * PAGE, GMF_READ);
    CHECK_ERR(host_contig(disk, 8, 3 * PAGE, ANY_READ), EFAULT);
    CHECK_ERR(gasp_map(disk, 8, 3 * PAGE, ANY_READ, &h), EFAULT);
    end(guest);
}

static void decision_10_a_refusal_leaves_a_fault_record_and_nothing_else(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *domain = domain_of(guest, disk, "disk", GASP_DOMAIN_IDENTITY);
    struct gasp_fault fault;
    gasp_drain_t *drain;
    ram(guest, 0, 4 * PAGE);
    grant(domain, 0, PAGE, GMF_READ);
    CHECK_ERR(host_contig(disk, 0x10, 8, GMF_WRITE), EFAULT);
    CHECK_ERR(host_contig(disk, 0x10, PAGE, GMF_READ), EFAULT);
    CHECK_OK(gasp_guest_next_fault(guest, &fault));
    CHECK(fault.vdev == disk && fault.device_addr == 0x10 && fault.access == GMF_WRITE);
    CHECK(fault.refusal == GASP_REFUSED_ACCESS && strcmp(fault.name, "disk") == 0);
    CHECK_OK(gasp_guest_next_fault(guest, &fault));
    CHECK(fault.device_addr == PAGE && fault.access == GMF_READ);
    CHECK(fault.refusal == GASP_REFUSED_NOT_GRANTED && fault.dropped == 0);
    CHECK_ERR(gasp_guest_next_fault(guest, &fault), ENOENT);
    CHECK_OK(gasp_domain_revoke(domain, 0, 4 * PAGE, &drain));
    CHECK(drain == NULL); /* nothing is held */
    end(guest);
}

static void decision_11_unaligned_requests_keep_their_offset(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *domain = domain_of(guest, disk, "disk", GASP_DOMAIN_IDENTITY);
    window(guest, 0, 4 * PAGE, 0x10000000);
    grant(domain, 0x1ff8, 0x10, GMF_READ); /* rounded outward to two pages */
    uint64_t address = 0x1fff;
    size_t length = 0x1001;
    CHECK_OK(gasp_map_host_contig(disk, &address, &length, ANY_READ, &h));
    CHECK(address == 0x10001fff && length == 0x1001);
    CHECK((uintptr_t)gasp_get_vaddr(&h) % PAGE == 0xfff);
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_map(disk, PAGE, 2 * PAGE, ANY_READ, &h));
    gasp_unmap_handle(&h);
    CHECK_ERR(gasp_map(disk, PAGE - 1, 2, ANY_READ, &h), EFAULT);
    CHECK_ERR(gasp_map(disk, 3 * PAGE - 1, 2, ANY_READ, &h), EFAULT);
    end(guest);
}

static void decision_12_no_vdev_is_einval_and_firmware_needs_none(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    ram(guest, 0, PAGE);
    CHECK_ERR(gasp_map(NULL, 0, 8, GMF_READ, &h), EINVAL);
    CHECK_ERR(host_contig(NULL, 0, 8, GMF_READ), EINVAL);
    CHECK_ERRNO(gasp_map_vdma(NULL, 0, 8, GMF_READ), NULL, EINVAL);
    CHECK_OK(gasp_map_firmware(0, 8, RW, &h));
    gasp_unmap_handle(&h);
    CHECK(faults(guest) == 0);
    end(guest);
}

static void decision_13_without_an_iommu_all_of_ram_is_allowed(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *domain;
    ram(guest, 0, 4 * PAGE);
    CHECK_OK(gasp_map(disk, 0, 4 * PAGE, RW | GMF_EXEC, &h));
    gasp_unmap_handle(&h);
    CHECK_ERR(gasp_domain_create(guest, "d", GASP_DOMAIN_DENY, NULL, &domain), EINVAL);
    end(guest);
}

static void decision_14_a_device_without_a_domain(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    struct gasp_fault fault;
    ram(guest, 0, PAGE);
    CHECK_ERR(gasp_map(device(guest, "disk"), 0, 8, GMF_READ, &h), EFAULT);
    CHECK_OK(gasp_guest_next_fault(guest, &fault));
    CHECK(fault.refusal == GASP_REFUSED_UNATTACHED);
    end(guest);
    guest = a_guest(GASP_IOMMU_BYPASS);
    ram(guest, 0, PAGE);
    CHECK_OK(gasp_map(device(guest, "disk"), 0, 8, RW, &h));
    gasp_unmap_handle(&h);
    end(guest);
}

static void decision_15_a_revoke_waits_for_the_handle_which_stays_usable(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *domain = domain_of(guest, disk, "disk", GASP_DOMAIN_IDENTITY);
    gasp_map_handle_t other;
    gasp_drain_t *drain;
    uint64_t pending;
    ram(guest, 0, 4 * PAGE);
    grant(domain, 0, 4 * PAGE, RW);
    CHECK_OK(gasp_map(disk, 0, PAGE, RW, &h));
    CHECK_OK(gasp_domain_revoke(domain, 0, PAGE, &drain));
    CHECK_ERR(gasp_map(disk, 0, PAGE, RW, &other), EFAULT); /* at once */
    CHECK_OK(gasp_map(disk, PAGE, PAGE, RW, &other));       /* its neighbour is not affected */
    gasp_unmap_handle(&other);
    CHECK_OK(gasp_drain_pending(drain, &pending));
    CHECK(pending == 1);
    CHECK_OK(gasp_map_check(&h));
    memset(gasp_get_vaddr(&h), 7, PAGE);
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_drain_pending(drain, &pending));
    CHECK(pending == 0);
    CHECK_OK(gasp_drain_wait(drain, NULL));
    end(guest);
}

static void decision_16_memory_is_never_removed_under_a_handle(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    gasp_map_handle_t other;
    gasp_drain_t *drain;
    ram(guest, 0, 2 * PAGE);
    CHECK_OK(gasp_map(disk, 0, PAGE, RW, &h));
    CHECK_OK(gasp_guest_remove(guest, 0, 2 * PAGE, &drain));
    CHECK_ERR(gasp_map(disk, 0, 8, RW, &other), ENXIO);
    CHECK_OK(gasp_drain_abandon(drain));
    CHECK_ERR(gasp_map_check(&h), ESTALE);
    memset(gasp_get_vaddr(&h), 7, PAGE);
    end(guest);
    memset(gasp_get_vaddr(&h), 8, PAGE);
    gasp_unmap_handle(&h);
    CHECK(gasp_get_vaddr(&h) == NULL);
}

static void decisions_17_and_18_unmapping_nothing_and_its_address(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    gasp_map_handle_t zero = { { 0, 0, 0 } };
    ram(guest, 0, PAGE);
    CHECK_OK(gasp_map(disk, 0, 8, RW, &h));
    gasp_unmap_handle(&h);
    gasp_unmap_handle(&h);
    gasp_unmap_handle(&zero);
    gasp_unmap_handle(NULL);
    CHECK(gasp_get_vaddr(&h) == NULL && gasp_get_vaddr(&zero) == NULL);
    CHECK(gasp_get_vaddr(NULL) == NULL);
    end(guest);
}

static void without_privilege(void)
{
    if (geteuid() == 0)
        CHECK(setgid(65534) == 0 && setuid(65534) == 0);
    CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0); /* to see its own /proc again */
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    ram(guest, 0, PAGE);
    CHECK_ERR(host_contig(disk, 0, 8, RW), EPERM);
    CHECK(strstr(gasp_last_error(), "CAP_SYS_ADMIN"));
    CHECK_OK(gasp_map(disk, 0, 8, RW, &h));
    gasp_unmap_handle(&h);
    window(guest, PAGE, PAGE, 0x10000000); /* its address is declared */
    uint64_t address = PAGE;
    size_t length = PAGE;
    CHECK_OK(gasp_map_host_contig(disk, &address, &length, ANY_READ, &h));
    CHECK(address == 0x10000000);
    gasp_unmap_handle(&h);
    end(guest);
}

static void decision_19_without_privilege_host_contig_is_eperm(void)
{
    CHECK(in_child(without_privilege) == 0);
}

static void unpinned(uint32_t allow, errno_t wanted)
{
    struct gasp_guest_options options = GASP_GUEST_OPTIONS_INIT;
    gasp_guest_t *guest;
    uint64_t address = 0;
    size_t length = PAGE;
    options.allow_unpinned = allow;
    CHECK_OK(gasp_guest_create(&options, &guest));
    vdev_t *disk = device(guest, "disk");
    CHECK_OK(gasp_guest_add_ram(guest, &address, PAGE, GASP_PAGES_4K, GASP_RESIDENT));
    CHECK_ERR(gasp_map_host_contig(disk, &address, &length, RW, &h), wanted);
    if (wanted == EOK)
        gasp_unmap_handle(&h);
    else
        CHECK(address == 0 && length == PAGE);
    CHECK_OK(gasp_map(disk, 0, PAGE, RW, &h));
    gasp_unmap_handle(&h);
    end(guest);
}

static void decision_20_addresses_that_can_move_are_eagain_unless_allowed(void)
{
    unpinned(0, EAGAIN);
    unpinned(1, EOK);
}

static const struct test tests[] = {
    TEST(decision_01_arguments_are_checked_before_the_iommu),
    TEST(decision_01_the_iommu_is_asked_before_memory),
    TEST(decision_01_memory_is_looked_at_before_host_addresses),
    TEST(decision_02_length_zero_and_null_pointers_are_einval),
    TEST(decision_03_a_range_that_wraps_or_passes_the_width_is_enxio),
    TEST(decision_04_flags_need_an_access_and_no_unknown_bit),
    TEST(decision_04_write_alone_is_valid),
    TEST(decision_05_rom_and_windows_need_map_any),
    TEST(decision_05_map_any_never_widens_what_the_iommu_allows),
    TEST(decision_06_writing_to_rom_is_eacces),
    TEST(decision_07_a_host_discontinuity_shortens),
    TEST(decision_08_a_hole_is_enxio_for_all_of_it),
    TEST(decision_09_a_prefix_is_efault_for_all_of_it),
    TEST(decision_10_a_refusal_leaves_a_fault_record_and_nothing_else),
    TEST(decision_11_unaligned_requests_keep_their_offset),
    TEST(decision_12_no_vdev_is_einval_and_firmware_needs_none),
    TEST(decision_13_without_an_iommu_all_of_ram_is_allowed),
    TEST(decision_14_a_device_without_a_domain),
    TEST(decision_15_a_revoke_waits_for_the_handle_which_stays_usable),
    TEST(decision_16_memory_is_never_removed_under_a_handle),
    TEST(decisions_17_and_18_unmapping_nothing_and_its_address),
    TEST(decision_19_without_privilege_host_contig_is_eperm),
    TEST_NEEDS(decision_20_addresses_that_can_move_are_eagain_unless_allowed, lacks_frames),
};
RUN(tests)
