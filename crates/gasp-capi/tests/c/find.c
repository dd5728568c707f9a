/* Free space between regions and among ports, and unreserved ranges inside RAM. */
#include "fixture.h"

#include <limits.h>

static void lowest_free_address(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    ram(guest, 0, 4 * PAGE);
    ram(guest, 6 * PAGE, 2 * PAGE);
    CHECK(gasp_find_free(QST_MEMORY, PAGE, 0) == 4 * PAGE);
    CHECK(gasp_find_free(QST_MEMORY, 2 * PAGE, PAGE) == 4 * PAGE);
    CHECK(gasp_find_free(QST_MEMORY, 3 * PAGE, PAGE) == 8 * PAGE);
    CHECK(gasp_find_free(QST_MEMORY, PAGE, MIB) == MIB);
    CHECK(gasp_find_free(QST_MEMORY, PAGE, 0) == 4 * PAGE); /* the search does not reserve it */
    end(guest);
}

static void within_a_range(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    ram(guest, 0, 4 * PAGE);
    CHECK(gasp_find_free_range(QST_MEMORY, PAGE, 0, 0, 5 * PAGE - 1) == 4 * PAGE);
    CHECK(gasp_find_free_range(QST_MEMORY, PAGE, 0, 7 * PAGE, UINT64_MAX) == 7 * PAGE);
    CHECK_ERRNO(gasp_find_free_range(QST_MEMORY, PAGE, 0, 0, 5 * PAGE - 2), QSL_NO_LOCATION, ENOSPC);
    CHECK_ERRNO(gasp_find_free_range(QST_MEMORY, PAGE, 0, 0, PAGE), QSL_NO_LOCATION, ENOSPC);
    end(guest);
}

static void arguments_that_are_not_valid_are_refused(void)
{
    CHECK_ERRNO(gasp_find_free(QST_MEMORY, PAGE, 0), QSL_NO_LOCATION, ENXIO); /* no guest */
    CHECK_ERRNO(gram_find_free(PAGE, 0, 0), QSL_NO_LOCATION, ENXIO);
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    ram(guest, 0, 4 * PAGE);
    CHECK_ERRNO(gasp_find_free(QST_MEMORY, PAGE, 3), QSL_NO_LOCATION, EINVAL);
    CHECK_ERRNO(gasp_find_free(QST_MEMORY, 0, 0), QSL_NO_LOCATION, EINVAL);
    CHECK_ERRNO(gasp_find_free(QST_VIRTUAL, PAGE, 0), QSL_NO_LOCATION, EINVAL);
    CHECK_ERRNO(gasp_find_free(UINT_MAX, PAGE, 0), QSL_NO_LOCATION, EINVAL);
    CHECK_ERRNO(gasp_find_free(QST_MEMORY, UINT64_MAX, 0), QSL_NO_LOCATION, ENOSPC);
    CHECK_ERRNO(gram_find_free(PAGE, 3, 0), QSL_NO_LOCATION, EINVAL);
    CHECK_ERRNO(gram_find_free(0, 0, 0), QSL_NO_LOCATION, EINVAL);
    CHECK_ERRNO(gram_find_free(PAGE, 0, 1), QSL_NO_LOCATION, EINVAL);
    CHECK_ERRNO(gram_find_free(5 * PAGE, 0, 0), QSL_NO_LOCATION, ENOSPC);
    end(guest);
}

static void ports(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    struct gasp_region region = { GRF_VIRT_ANY, 1, device(guest, "uart"), QSL_NO_LOCATION,
                                  { 0, 0x3f8, QST_X86_IO, 0, 0 } };
    CHECK(gasp_find_free(QST_X86_IO, 8, 8) == 0);
    gasp_region_set(1, &region);
    CHECK(gasp_find_free(QST_X86_IO, 8, 8) == 0x3f8);
    CHECK(gasp_find_free_range(QST_X86_IO, 1, 0, 0xffff, UINT64_MAX) == 0xffff);
    CHECK_ERRNO(gasp_find_free_range(QST_X86_IO, 2, 0, 0xffff, UINT64_MAX), QSL_NO_LOCATION, ENOSPC);
    CHECK_ERRNO(gasp_find_free(QST_X86_IO, 0, 0), QSL_NO_LOCATION, EINVAL);
    CHECK_ERRNO(gasp_find_free(QST_X86_IO, 1, 6), QSL_NO_LOCATION, EINVAL);
#if defined(__x86_64__)
    CHECK(gasp_find_free(QST_PCI_IO, 8, 8) == 0x3f8);
#endif
    end(guest);
}

static void inside_ram_no_two_overlap(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    uint64_t found, next = 0;
    ram(guest, 0, 16 * PAGE);
    while ((found = gram_find_free(1000, 8, GRAM_HINT_NONE)) != QSL_NO_LOCATION) {
        CHECK(found >= next && found % 8 == 0);
        next = found + 1000;
    }
    CHECK(next <= 16 * PAGE && next > 15 * PAGE);
    CHECK_ERRNO(gram_find_free(1000, 8, 0), QSL_NO_LOCATION, ENOSPC);
    end(guest);
}

static void inside_ram_within_a_range(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    ram(guest, 4 * PAGE, 4 * PAGE);
    rom(guest, 8 * PAGE, PAGE);
    CHECK(gram_find_free_range(PAGE, PAGE, 0, 6 * PAGE, 7 * PAGE - 1) == 6 * PAGE);
    CHECK_ERRNO(gram_find_free_range(PAGE, PAGE, 0, 6 * PAGE, 7 * PAGE - 1), QSL_NO_LOCATION, ENOSPC);
    CHECK(gram_find_free_range(16, 0, 0, 8 * PAGE, UINT64_MAX) == 8 * PAGE); /* in the ROM */
    CHECK(gram_find_free(2 * PAGE, 0, 0) == 4 * PAGE);
    CHECK(gram_find_free(PAGE, 0, 0) == 7 * PAGE);
    end(guest);
}

static void a_reserved_range_is_left_out(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    ram(guest, 0, 4 * PAGE);
    CHECK_OK(gram_reserve(0, PAGE));
    CHECK_OK(gram_reserve(PAGE + 8, 8));
    CHECK_ERR(gram_reserve(PAGE + 15, 8), EEXIST);
    CHECK_ERR(gram_reserve(4 * PAGE - 1, 2), ENXIO);
    CHECK_ERR(gram_reserve(UINT64_MAX, 2), ENXIO);
    CHECK_ERR(gram_reserve(0, 0), EINVAL);
    CHECK(gram_find_free(8, 0, 0) == PAGE);
    CHECK(gram_find_free(8, 0, 0) == PAGE + 16);
    end(guest);
}

static const struct test tests[] = {
    TEST(lowest_free_address),
    TEST(within_a_range),
    TEST(arguments_that_are_not_valid_are_refused),
    TEST(ports),
    TEST(inside_ram_no_two_overlap),
    TEST(inside_ram_within_a_range),
    TEST(a_reserved_range_is_left_out),
};
RUN(tests)
