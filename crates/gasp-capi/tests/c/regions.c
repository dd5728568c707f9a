/* Regions of memory and of ports: described and set. */
#include "region.h"

/* Asks again at the end of each answer, until `end`. */
static unsigned tile(uint64_t start, uint64_t end_of_range)
{
    unsigned count = 0;
    while (start < end_of_range) {
        struct gasp_region region;
        CHECK_OK(info(QST_MEMORY, start, end_of_range - start, &region));
        CHECK(region.guest.location == start && region.guest.qst_type == QST_MEMORY);
        CHECK(region.guest.length > 0 && region.guest.length <= end_of_range - start);
        CHECK(region.grf_flags & GRF_ACTIVE);
        start += region.guest.length;
        count++;
    }
    CHECK(start == end_of_range);
    return count;
}

static void answers_tile_a_range(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    ram(guest, 0, MIB);
    rom(guest, MIB, 2 * PAGE);
    window(guest, MIB + 2 * PAGE, 8 * PAGE, 0x10000000);
    CHECK(tile(0x123, MIB + 9 * PAGE) >= 3);
    CHECK(tile(MIB - 1, MIB) == 1);
    end(guest);
}

static void answers_are_consecutive_in_the_host(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    ram(guest, 0, MIB);
    for (uint64_t at = 0x40; at < MIB;) {
        struct gasp_region region;
        uint64_t host = at;
        size_t length = MIB - at;
        gasp_map_handle_t h;
        CHECK_OK(info(QST_MEMORY, at, MIB - at, &region));
        CHECK_OK(gasp_map_host_contig(disk, &host, &length, GMF_READ, &h));
        CHECK(region.host_location == host && region.guest.length == length);
        gasp_unmap_handle(&h);
        at += length;
    }
    end(guest);
}

static void flags_describe_the_region(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    struct gasp_region region;
    ram(guest, 0, PAGE);
    rom(guest, PAGE, PAGE);
    window(guest, 2 * PAGE, PAGE, 0x10000000);
    CHECK_OK(info(QST_MEMORY, 0, 8, &region));
    CHECK(region.grf_flags & GRF_MEMORY && (region.grf_flags & GRF_PASS_ANY) == GRF_PASS_ANY);
    CHECK(region.vdev == NULL && region.guest.length == 8);
    CHECK_OK(info(QST_MEMORY, PAGE, PAGE, &region));
    CHECK((region.grf_flags & (GRF_PASS_RD | GRF_PASS_WR | GRF_MEMORY)) == GRF_PASS_RD);
    CHECK_OK(info(QST_MEMORY, 2 * PAGE + 16, UINT64_MAX / 2, &region));
    CHECK(region.grf_flags & GRF_PASSTHRU && region.host_location == 0x10000010);
    CHECK(region.guest.length == PAGE - 16);
    end(guest);
}

static void what_has_no_region_is_refused(void)
{
    const struct qvm_state_block block = { 0, PAGE, QST_MEMORY, 0, 0 };
    struct gasp_region region;
    CHECK_ERR(gasp_region_info(&block, &region), ENXIO); /* no guest */
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    ram(guest, 0, PAGE);
    CHECK_ERR(gasp_region_info(NULL, &region), EINVAL);
    CHECK_ERR(gasp_region_info(&block, NULL), EINVAL);
    CHECK_ERR(info(QST_MEMORY, 0, 0, &region), EINVAL);
    CHECK_ERR(info(QST_VIRTUAL, 0, 8, &region), EINVAL);
    CHECK_ERR(info(QST_NO_TYPE, 0, 8, &region), EINVAL);
    CHECK_ERR(info(QST_MEMORY, PAGE, 8, &region), ENXIO);
    CHECK_ERR(info(QST_MEMORY, 8, UINT64_MAX, &region), ENXIO);
    CHECK_ERR(info(QST_X86_IO, 0, 8, &region), ENXIO);
    end(guest);
}

static void registers_are_added_changed_and_deleted(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *uart = device(guest, "uart"), *disk = device(guest, "disk");
    struct gasp_region region = memory(0x10000, PAGE, GRF_VIRT_RD | GRF_VIRT_WR, uart);
    gasp_map_handle_t h;
    gasp_region_set(1, &region);
    CHECK_OK(info(QST_MEMORY, 0x10000, PAGE, &region));
    CHECK(region.vdev == uart && region.cookie == 7);
    CHECK((region.grf_flags & GRF_VIRT_ANY) == (GRF_VIRT_RD | GRF_VIRT_WR));
    CHECK(region.host_location == QSL_NO_LOCATION);
    CHECK_ERR(gasp_map(disk, 0x10000, 8, ANY_READ, &h), ENXIO); /* registers have no memory */
    region = memory(0x10000, PAGE, GRF_VIRT_RD, disk);
    region.cookie = 8;
    gasp_region_set(1, &region);
    CHECK_OK(info(QST_MEMORY, 0x10000, PAGE, &region));
    CHECK(region.vdev == disk && region.cookie == 8);
    CHECK((region.grf_flags & GRF_VIRT_ANY) == GRF_VIRT_RD);
    region = memory(0x10000, PAGE, GRF_NONE, NULL);
    gasp_region_set(1, &region);
    CHECK_ERR(info(QST_MEMORY, 0x10000, PAGE, &region), ENXIO);
    end(guest);
}

static void registers_have_any_length(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *uart = device(guest, "uart"), *trace = device(guest, "trace");
    const struct gasp_region many[] = {
        memory(0xe0000010, 0x20, GRF_VIRT_RD | GRF_VIRT_WR, uart),
        memory(0xe0000030, 1, GRF_VIRT_RD, trace),
        memory(0xfa000000, 4, GRF_VIRT_RD | GRF_VIRT_WR, trace),
        memory(0x1000, 8, GRF_NOPERMS, NULL),
    };
    struct gasp_region region;
    uint64_t start = 0xe0000000;
    gasp_map_handle_t h;
    gasp_region_set(COUNT_OF(many), many);
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        const uint64_t first = many[i].guest.location, length = many[i].guest.length;
        CHECK_OK(info(QST_MEMORY, first, MIB, &region));
        CHECK(region.guest.location == first && region.guest.length == length);
        CHECK(region.vdev == many[i].vdev && region.cookie == 7);
        CHECK_OK(info(QST_MEMORY, first + length - 1, 1, &region));
        CHECK_ERR(gasp_map_firmware(first, 1, ANY_READ, &h), ENXIO);
    }
    CHECK_ERR(info(QST_MEMORY, 0xe000000f, 1, &region), ENXIO);
    CHECK_ERR(info(QST_MEMORY, 0xe0000031, 1, &region), ENXIO);
    CHECK_ERR(gasp_guest_add_ram(guest, &start, PAGE, GASP_PAGES_4K, GASP_PINNED), EEXIST);
    CHECK(gasp_find_free_range(QST_MEMORY, 1, 1, 0xe0000010, UINT64_MAX) == 0xe0000031);
    region = memory(0xe0000014, 4, GRF_VIRT_RD, trace); /* one register of the block */
    region.cookie = 8;
    gasp_region_set(1, &region);
    CHECK_OK(info(QST_MEMORY, 0xe0000010, MIB, &region));
    CHECK(region.guest.length == 4 && region.vdev == uart);
    CHECK_OK(info(QST_MEMORY, 0xe0000014, MIB, &region));
    CHECK(region.guest.length == 4 && region.vdev == trace && region.cookie == 8);
    CHECK_OK(info(QST_MEMORY, 0xe0000018, MIB, &region));
    CHECK(region.guest.length == 0x18 && region.vdev == uart);
    region = memory(0xe0000010, 0x21, GRF_NONE, NULL);
    gasp_region_set(1, &region);
    CHECK_ERR(info(QST_MEMORY, 0xe0000030, 1, &region), ENXIO);
    ram(guest, start, PAGE);
    CHECK_OK(gasp_map_firmware(start + 0x10, 0x20, RW, &h));
    gasp_unmap_handle(&h);
    end(guest);
}

static void access_to_ram_is_restricted_and_restored(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    struct gasp_region region = memory(PAGE, PAGE, GRF_PASS_RD, NULL);
    gasp_map_handle_t h;
    ram(guest, 0, 4 * PAGE);
    gasp_region_set(1, &region);
    CHECK_ERR(gasp_map(disk, PAGE, 8, GMF_WRITE, &h), EACCES);
    CHECK_OK(gasp_map(disk, PAGE, 8, GMF_READ, &h));
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_map(disk, 2 * PAGE, 8, RW, &h));
    gasp_unmap_handle(&h);
    CHECK_OK(info(QST_MEMORY, PAGE, PAGE, &region));
    CHECK((region.grf_flags & GRF_PASS_ANY) == GRF_PASS_RD);
    CHECK(region.grf_flags & GRF_MEMORY); /* GRF_STICKY flags stay */
    CHECK(tile(0, 4 * PAGE) >= 3);
    region = memory(PAGE, PAGE, GRF_NOPERMS, NULL);
    gasp_region_set(1, &region);
    CHECK_ERR(gasp_map(disk, PAGE, 8, GMF_READ, &h), EACCES);
    region = memory(PAGE, PAGE, GRF_PASS_ANY, NULL);
    gasp_region_set(1, &region);
    CHECK_OK(gasp_map(disk, 0, 4 * PAGE, RW, &h));
    gasp_unmap_handle(&h);
    end(guest);
}

static void registers_in_ram_keep_their_vdev(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *uart = device(guest, "uart");
    struct gasp_region region = memory(PAGE, PAGE, GRF_VIRT_WR | GRF_PASS_RD, uart);
    gasp_map_handle_t h;
    ram(guest, 0, 4 * PAGE);
    gasp_region_set(1, &region);
    CHECK_OK(info(QST_MEMORY, PAGE, MIB, &region));
    CHECK(region.guest.length == PAGE && region.vdev == uart && region.cookie == 7);
    CHECK((region.grf_flags & GRF_VIRT_ANY) == GRF_VIRT_WR);
    CHECK((region.grf_flags & GRF_PASS_ANY) == GRF_PASS_RD);
    CHECK(region.grf_flags & GRF_MEMORY);
    CHECK_ERR(gasp_map_firmware(PAGE, 8, GMF_WRITE, &h), EACCES);
    CHECK_OK(gasp_map_firmware(PAGE, 8, GMF_READ, &h));
    gasp_unmap_handle(&h);
    CHECK_OK(info(QST_MEMORY, 2 * PAGE, PAGE, &region));
    CHECK(region.vdev == NULL && (region.grf_flags & GRF_VIRT_ANY) == 0);
    region = memory(PAGE, PAGE, GRF_PASS_ANY, NULL);
    gasp_region_set(1, &region);
    CHECK_OK(info(QST_MEMORY, PAGE, PAGE, &region));
    CHECK(region.vdev == NULL && (region.grf_flags & GRF_VIRT_ANY) == 0);
    end(guest);
}

static void noperms_of_ram_is_reported_and_kept(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    struct gasp_region region = memory(PAGE, PAGE, GRF_NOPERMS, NULL);
    uint64_t address = PAGE;
    size_t length = 8;
    gasp_map_handle_t h;
    ram(guest, 0, 4 * PAGE);
    gasp_region_set(1, &region);
    CHECK_OK(info(QST_MEMORY, PAGE, PAGE, &region));
    CHECK(region.grf_flags & GRF_NOPERMS && region.grf_flags & GRF_MEMORY);
    CHECK((region.grf_flags & GRF_PASS_ANY) == 0);
    CHECK_ERR(gasp_map(disk, PAGE, 8, GMF_READ, &h), EACCES);
    CHECK_ERR(gasp_map(disk, 0, 2 * PAGE, GMF_READ, &h), EACCES);
    CHECK_ERR(gasp_map_firmware(PAGE, 8, RW | GMF_MAP_ANY, &h), EACCES);
    CHECK_ERR(gasp_map_host_contig(disk, &address, &length, GMF_READ, &h), EACCES);
    region = memory(PAGE, PAGE, GRF_PASS_ANY, NULL);
    gasp_region_set(1, &region);
    CHECK_OK(info(QST_MEMORY, PAGE, PAGE, &region));
    CHECK((region.grf_flags & GRF_NOPERMS) == 0);
    end(guest);
}

static void a_reserved_range_is_added(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    struct gasp_region region = memory(0, MIB, GRF_NOPERMS, NULL);
    gasp_map_handle_t h;
    gasp_region_set(1, &region);
    CHECK_OK(info(QST_MEMORY, 0, MIB, &region));
    CHECK(region.grf_flags & GRF_NOPERMS);
    CHECK(gasp_find_free(QST_MEMORY, PAGE, 0) == MIB);
    CHECK_ERR(gasp_map_firmware(0, 8, ANY_READ, &h), ENXIO);
    end(guest);
}

static void ports_are_added_changed_and_deleted(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *uart = device(guest, "uart");
    struct gasp_region region = entry(QST_X86_IO, 0x3f8, 8, GRF_VIRT_ANY, uart);
    gasp_region_set(1, &region);
    CHECK_OK(info(QST_X86_IO, 0x3fa, 100, &region));
    CHECK(region.guest.location == 0x3fa && region.guest.length == 6);
    CHECK(region.vdev == uart && region.cookie == 7 && region.grf_flags & GRF_ACTIVE);
    region = entry(QST_X86_IO, 0x3f8, 4, GRF_NONE, NULL);
    gasp_region_set(1, &region);
    CHECK_ERR(info(QST_X86_IO, 0x3fb, 1, &region), ENXIO);
    CHECK_OK(info(QST_X86_IO, 0x3fc, 1, &region));
    end(guest);
}

static void a_destroyed_vdev_is_not_shown(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *uart = device(guest, "uart");
    struct gasp_region many[] = {
        memory(MIB, PAGE, GRF_VIRT_RD, uart),
        entry(QST_X86_IO, 0x3f8, 8, GRF_VIRT_RD, uart),
    };
    gasp_region_set(2, many);
    CHECK_OK(gasp_vdev_destroy(uart, NULL));
    CHECK_OK(info(QST_X86_IO, 0x3f8, 8, &many[1]));
    CHECK(many[1].vdev == NULL && many[1].cookie == 7 && many[1].grf_flags & GRF_VIRT_RD);
    CHECK_OK(info(QST_MEMORY, MIB, PAGE, &many[0]));
    CHECK(many[0].vdev == NULL && many[0].cookie == 7);
    end(guest);
}

static void soft_needs_the_running_phase_and_the_lock(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    struct gasp_region region = memory(0, PAGE, GRF_NONE, NULL);
    ram(guest, 0, PAGE);
    CHECK_OK(gasp_lock(QST_MEMORY));
    CHECK_ERRNO(gasp_region_set_soft(1, &region), 0, EPERM); /* startup */
    CHECK_OK(gasp_unlock(QST_MEMORY));
    begin_running(guest);
    CHECK_ERRNO(gasp_region_set_soft(1, &region), 0, EPERM); /* no lock */
    CHECK_OK(gasp_lock(QST_X86_IO));
    CHECK_ERRNO(gasp_region_set_soft(1, &region), 0, EPERM); /* the other lock */
    CHECK_OK(gasp_unlock(QST_X86_IO));
    CHECK_OK(info(QST_MEMORY, 0, PAGE, &region));
    region = memory(0, PAGE, GRF_NONE, NULL);
    CHECK_OK(gasp_lock(QST_MEMORY));
    CHECK(gasp_region_set_soft(1, &region) == 1);
    CHECK_OK(gasp_unlock(QST_MEMORY));
    CHECK_ERR(info(QST_MEMORY, 0, PAGE, &region), ENXIO);
    end(guest);
}

static void soft_returns_the_first_entry_that_failed(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *uart = device(guest, "uart");
    ram(guest, 0, PAGE);
    begin_running(guest);
    const struct gasp_region many[] = {
        memory(MIB, PAGE, GRF_VIRT_RD, uart),
        memory(2 * MIB, PAGE, GRF_NOPERMS, NULL),
        memory(3 * MIB, PAGE, GRF_NONE, NULL),
        memory(4 * MIB, PAGE, GRF_NOPERMS, NULL),
    };
    struct gasp_region region;
    CHECK_OK(gasp_lock(QST_MEMORY));
    CHECK_ERRNO(gasp_region_set_soft(4, many), 2, ENOENT);
    CHECK(gasp_region_set_soft(0, NULL) == 0);
    CHECK_ERRNO(gasp_region_set_soft(1, NULL), 0, EINVAL);
    CHECK_OK(gasp_unlock(QST_MEMORY));
    CHECK_OK(info(QST_MEMORY, MIB, PAGE, &region));
    CHECK_OK(info(QST_MEMORY, 2 * MIB, PAGE, &region));
    CHECK_ERR(info(QST_MEMORY, 4 * MIB, PAGE, &region), ENXIO);
    end(guest);
}

/* Checks the errno of one entry that is not valid. */
static void wrong(struct gasp_region region, errno_t wanted)
{
    CHECK_ERRNO(gasp_region_set_soft(1, &region), 0, wanted);
}

static void entries_that_are_not_valid_are_refused(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE), *second = a_guest(GASP_IOMMU_NONE);
    vdev_t *uart = device(guest, "uart"), *others = device(second, "uart");
    CHECK_OK(gasp_guest_use(guest));
    ram(guest, 0, PAGE);
    begin_running(guest);
    CHECK_OK(gasp_lock(QST_MEMORY));
    CHECK_OK(gasp_lock(QST_X86_IO));
    wrong(memory(MIB, PAGE, GRF_NONE, NULL), ENOENT);
    wrong(memory(0, 2 * PAGE, GRF_NOPERMS, NULL), EEXIST);
    wrong(memory(MIB, 0, GRF_NOPERMS, NULL), EINVAL);
    wrong(memory(1, 8, GRF_NOPERMS, NULL), EINVAL); /* memory is split at multiples of a page */
    wrong(memory(8, PAGE - 8, GRF_NONE, NULL), EINVAL);
    wrong(memory(PAGE - 1, 2, GRF_NOPERMS, NULL), EEXIST);
    wrong(memory(MIB, PAGE, GRF_VIRT_RD, NULL), EINVAL);
    wrong(memory(MIB, PAGE, GRF_VIRT_RD, others), EINVAL);
    wrong(memory(MIB, PAGE, GRF_NOCACHE, NULL), EINVAL);
    wrong(memory(MIB, PAGE, GRF_PASS_RD, NULL), EINVAL); /* a window without a host_location */
    wrong(memory(UINT64_MAX - PAGE + 1, 2 * PAGE, GRF_NOPERMS, NULL), ENXIO);
    wrong(memory(UINT64_C(1) << 48, PAGE, GRF_NOPERMS, NULL), ENXIO);
    wrong(entry(QST_VIRTUAL, 0, 8, GRF_VIRT_RD, uart), EINVAL);
    wrong(entry(QST_X86_IO, 0xffff, 2, GRF_VIRT_RD, uart), ENXIO);
    wrong(entry(QST_X86_IO, 0, 1, GRF_NONE, NULL), ENOENT);
    CHECK_OK(gasp_unlock(QST_X86_IO));
    CHECK_OK(gasp_unlock(QST_MEMORY));
    CHECK_OK(gasp_guest_use(NULL));
    end(guest);
    end(second);
}

/* Checks the errno of one entry, and that the region at its beginning has not changed. */
static void leaves(struct gasp_region region, errno_t wanted)
{
    struct gasp_region before, after;
    CHECK_OK(info(QST_MEMORY, region.guest.location, region.guest.length, &before));
    wrong(region, wanted);
    CHECK_OK(info(QST_MEMORY, region.guest.location, region.guest.length, &after));
    CHECK(before.grf_flags == after.grf_flags && before.cookie == after.cookie);
    CHECK(before.vdev == after.vdev && before.host_location == after.host_location);
    CHECK(before.guest.length == after.guest.length);
}

static void registers_and_reserved_ranges_stay_what_they_are(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *uart = device(guest, "uart");
    const struct gasp_region many[] = {
        memory(MIB, 2 * PAGE, GRF_VIRT_RD | GRF_VIRT_WR, uart),
        memory(2 * MIB, 2 * PAGE, GRF_NOPERMS, NULL),
    };
    gasp_region_set(2, many);
    begin_running(guest);
    CHECK_OK(gasp_lock(QST_MEMORY));
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        struct gasp_region region = memory(many[i].guest.location, PAGE, GRF_PASS_RD, NULL);
        region.cookie = 8;
        leaves(region, EINVAL);
        region.host_location = 0;
        leaves(region, EINVAL);
        region.grf_flags = GRF_PASS_ANY;
        leaves(region, EINVAL);
        region.grf_flags = GRF_NOPERMS;
        leaves(region, EINVAL);
    }
    leaves(memory(2 * MIB, PAGE, GRF_VIRT_RD, uart), EINVAL);
    CHECK_OK(gasp_unlock(QST_MEMORY));
    end(guest);
}

static void a_range_that_partly_passes_the_width(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *uart = device(guest, "uart");
    const uint64_t last = (UINT64_C(1) << 48) - PAGE;
    struct gasp_region region;
    ram(guest, last - PAGE, PAGE);
    begin_running(guest);
    CHECK_OK(gasp_lock(QST_MEMORY));
    wrong(memory(last, 2 * PAGE, GRF_VIRT_RD, uart), ENXIO);
    wrong(memory(last, 2 * PAGE, GRF_NOPERMS, NULL), ENXIO);
    leaves(memory(last - PAGE, 3 * PAGE, GRF_NOPERMS, NULL), ENXIO); /* even if part of it is RAM */
    CHECK_ERR(info(QST_MEMORY, last, PAGE, &region), ENXIO);
    region = memory(last, PAGE, GRF_VIRT_RD, uart);
    CHECK(gasp_region_set_soft(1, &region) == 1);
    leaves(memory(last, 2 * PAGE, GRF_VIRT_WR, uart), ENXIO);
    CHECK_OK(gasp_unlock(QST_MEMORY));
    end(guest);
}

static void spare_is_zero(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *uart = device(guest, "uart");
    const uint16_t types[] = { QST_MEMORY, QST_X86_IO };
    ram(guest, 0, PAGE);
    begin_running(guest);
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        struct gasp_region region = entry(types[i], 4 * PAGE, PAGE, GRF_VIRT_RD, uart), found;
        region.guest.spare = 1;
        CHECK_OK(gasp_lock(types[i]));
        wrong(region, EINVAL);
        CHECK_ERR(info(types[i], 4 * PAGE, PAGE, &found), ENXIO);
        region.guest.spare = 0;
        CHECK(gasp_region_set_soft(1, &region) == 1);
        CHECK_OK(gasp_unlock(types[i]));
        region.guest.spare = UINT32_C(1) << 31;
        CHECK_ERR(gasp_region_info(&region.guest, &found), EINVAL);
    }
    end(guest);
}

static const struct test tests[] = {
    TEST(answers_tile_a_range),
    TEST_NEEDS(answers_are_consecutive_in_the_host, lacks_pins),
    TEST(flags_describe_the_region),
    TEST(what_has_no_region_is_refused),
    TEST(registers_are_added_changed_and_deleted),
    TEST(registers_have_any_length),
    TEST(access_to_ram_is_restricted_and_restored),
    TEST(registers_in_ram_keep_their_vdev),
    TEST(noperms_of_ram_is_reported_and_kept),
    TEST(a_reserved_range_is_added),
    TEST(ports_are_added_changed_and_deleted),
    TEST(a_destroyed_vdev_is_not_shown),
    TEST(soft_needs_the_running_phase_and_the_lock),
    TEST(soft_returns_the_first_entry_that_failed),
    TEST(entries_that_are_not_valid_are_refused),
    TEST(registers_and_reserved_ranges_stay_what_they_are),
    TEST(a_range_that_partly_passes_the_width),
    TEST(spare_is_zero),
};
RUN(tests)
