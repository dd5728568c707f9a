/* gasp_map_host_contig() over RAM: it reports the addresses that the kernel reports. */
#include "fixture.h"

#define SIZE (4 * MIB)

struct setting {
    gasp_guest_t *guest;
    vdev_t *disk;
};

static struct setting begin(void)
{
    struct setting s = { a_guest(GASP_IOMMU_NONE), NULL };
    ram(s.guest, 0, SIZE);
    s.disk = device(s.guest, "disk");
    return s;
}

/* Fills guest memory as a vCPU does: each page begins with its own address. */
static void number_pages(uint64_t size)
{
    gasp_map_handle_t h;
    CHECK_OK(gasp_map_firmware(0, size, RW, &h));
    char *vaddr = gasp_get_vaddr(&h);
    for (uint64_t at = 0; at < size; at += PAGE)
        memcpy(vaddr + at, &at, sizeof at);
    gasp_unmap_handle(&h);
}

/* Maps as much as possible of the rest of a range; returns the length. */
static size_t step(const vdev_t *disk, uint64_t at, size_t left)
{
    uint64_t host = at;
    size_t length = left;
    gasp_map_handle_t h;
    CHECK_OK(gasp_map_host_contig(disk, &host, &length, GMF_READ, &h));
    CHECK(0 < length && length <= left);
    const char *vaddr = gasp_get_vaddr(&h);
    CHECK(vaddr && host != 0);
    CHECK((uintptr_t)vaddr % PAGE == at % PAGE && host % PAGE == at % PAGE);
    for (size_t i = 0; i < length; i += PAGE)
        CHECK(frame_of(vaddr + i) == host + i);
    CHECK(frame_of(vaddr + length - 1) == host + length - 1);
    gasp_unmap_handle(&h);
    return length;
}

static void walk_all_of_it(uint64_t from, uint64_t to)
{
    const struct setting s = begin();
    number_pages(SIZE);
    uint64_t at = from;
    while (at < to)
        at += step(s.disk, at, to - at);
    CHECK(at == to);
    end(s.guest);
}

static void a_loop_over_shortened_lengths_covers_a_range(void)
{
    walk_all_of_it(0, SIZE);
}

static void a_range_that_is_not_aligned_keeps_its_offset(void)
{
    walk_all_of_it(0x123, SIZE - 0x45);
}

static void the_bytes_at_vaddr_are_the_guests(void)
{
    const struct setting s = begin();
    number_pages(SIZE);
    for (uint64_t at = 0; at < SIZE; at += 7 * PAGE) {
        uint64_t host = at, number;
        size_t length = PAGE;
        gasp_map_handle_t h;
        CHECK_OK(gasp_map_host_contig(s.disk, &host, &length, RW, &h));
        CHECK(length == PAGE);
        memcpy(&number, gasp_get_vaddr(&h), sizeof number);
        CHECK(number == at);
        gasp_unmap_handle(&h);
    }
    end(s.guest);
}

static void a_handle_covers_the_shortened_length_only(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    uint64_t host = 0;
    size_t length = 2 * MIB;
    gasp_map_handle_t h;
    gasp_drain_t *drain;
    window(guest, 0, MIB, 0x1000000000);
    window(guest, MIB, MIB, 0x2000000000);
    CHECK_OK(gasp_map_host_contig(disk, &host, &length, ANY_READ, &h));
    CHECK(length == MIB);
    CHECK_OK(gasp_guest_remove(guest, MIB, MIB, &drain));
    CHECK(drain == NULL); /* no mapping is held */
    CHECK_OK(gasp_guest_remove(guest, MIB - PAGE, PAGE, &drain));
    CHECK(drain != NULL);
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_drain_wait(drain, NULL));
    end(guest);
}

static void windows_side_by_side_in_the_host_are_reported_as_they_are(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *disk = device(guest, "disk");
    const uint64_t base = 0x1000000000;
    uint64_t at = 0x10;
    window(guest, 0, 4 * PAGE, base);
    window(guest, 4 * PAGE, 4 * PAGE, base + 4 * PAGE);
    while (at < 8 * PAGE) {
        uint64_t host = at;
        size_t length = 8 * PAGE - at;
        gasp_map_handle_t h;
        CHECK_OK(gasp_map_host_contig(disk, &host, &length, ANY_READ, &h));
        CHECK(host == base + at && length > 0);
        CHECK(gasp_get_vaddr(&h));
        gasp_unmap_handle(&h);
        at += length;
    }
    CHECK(at == 8 * PAGE);
    end(guest);
}

static void through_a_domain_that_translates(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *net = device(guest, "net");
    gasp_domain_t *domain = domain_of(guest, net, "net", GASP_DOMAIN_TRANSLATE);
    gasp_map_handle_t h;
    uint64_t address = 0x100008;
    size_t length = 2 * PAGE - 8;
    window(guest, 0, 16 * PAGE, 0x1000000000);
    CHECK_OK(gasp_domain_grant(domain, 0x100000, 4 * PAGE, PAGE, GMF_READ));
    CHECK_OK(gasp_domain_grant(domain, 0x101000, 9 * PAGE, PAGE, GMF_READ));
    CHECK_OK(gasp_map_host_contig(net, &address, &length, ANY_READ, &h));
    CHECK(address == 0x1000000000 + 4 * PAGE + 8 && length == PAGE - 8);
    gasp_unmap_handle(&h);
    CHECK_ERR(gasp_map(net, 0x100008, 2 * PAGE - 8, ANY_READ, &h), ENXIO); /* decision 21 */
    end(guest);
}

/* Memory with one word in the table, whose pages are swapped in pairs. */
static void a_run_inside_a_page_of_the_table_is_held_for_what_it_is(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *domain = domain_of(guest, disk, "disk", GASP_DOMAIN_IDENTITY);
    const uint64_t size = 2 * MIB;
    const int fd = memfd(size);
    uint64_t start = 0;
    unsigned shortened = 0;
    for (uint64_t page = 0; page < size / PAGE; page++)
        CHECK(pwrite(fd, "1", 1, (off_t)((page ^ 1) * PAGE)) == 1);
    CHECK_OK(gasp_guest_add_shared(guest, &start, size, fd, 0, RW, GASP_OWNER_TRUSTED));
    close(fd);
    for (uint64_t at = 0; at < 64 * PAGE; at += PAGE) {
        uint64_t host = at, holders;
        size_t length = size - at;
        gasp_map_handle_t h;
        gasp_drain_t *after, *under;
        grant(domain, 0, size, RW);
        CHECK_OK(gasp_map_host_contig(disk, &host, &length, GMF_READ, &h));
        if (length < size - at) {
            shortened++;
            CHECK_OK(gasp_domain_revoke(domain, at + length, size - at - length, &after));
            CHECK_OK(gasp_drain_pending(after, &holders));
            CHECK(holders == 0);
            CHECK_OK(gasp_domain_revoke(domain, at + length - PAGE, PAGE, &under));
            CHECK_OK(gasp_drain_pending(under, &holders));
            CHECK(holders == 1);
            gasp_unmap_handle(&h);
            CHECK_OK(gasp_drain_wait(after, NULL));
            CHECK_OK(gasp_drain_wait(under, NULL));
        } else {
            gasp_unmap_handle(&h);
        }
        CHECK_OK(gasp_domain_revoke(domain, 0, size, NULL));
    }
    CHECK(shortened > 0);
    end(guest);
}

static const struct test tests[] = {
    TEST_NEEDS(a_loop_over_shortened_lengths_covers_a_range, lacks_pins),
    TEST_NEEDS(a_range_that_is_not_aligned_keeps_its_offset, lacks_pins),
    TEST_NEEDS(the_bytes_at_vaddr_are_the_guests, lacks_pins),
    TEST_NEEDS(a_run_inside_a_page_of_the_table_is_held_for_what_it_is, lacks_pins),
    TEST(a_handle_covers_the_shortened_length_only),
    TEST(windows_side_by_side_in_the_host_are_reported_as_they_are),
    TEST(through_a_domain_that_translates),
};
RUN(tests)
