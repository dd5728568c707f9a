/* Walks of the guest's RAM and ROM. */
#include "fixture.h"

/* The walked memory: RAM in pages 0 to 3, ROM in 4 and 5, RAM in 10 to 14. */
static gasp_guest_t *begin(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    ram(guest, 0, 4 * PAGE);
    rom(guest, 4 * PAGE, 2 * PAGE);
    ram(guest, 10 * PAGE, 5 * PAGE);
    window(guest, 20 * PAGE, PAGE, 0x10000000);
    return guest;
}

static int is_at(const gasp_walk_state_t *ws, uint64_t page, uint64_t pages)
{
    return ws->gw_guest_loc == page * PAGE && ws->gw_length == pages * PAGE;
}

static void every_entry_in_order(void)
{
    gasp_guest_t *guest = begin();
    gasp_walk_state_t ws;
    CHECK_OK(gasp_walk_init(&ws, 0, GWS_NONE));
    CHECK_OK(gasp_walk_next(&ws));
    CHECK(is_at(&ws, 0, 4) && ws.gw_host_loc == QSL_NO_LOCATION);
    CHECK_OK(gasp_walk_next(&ws));
    CHECK(is_at(&ws, 4, 2));
    CHECK_OK(gasp_walk_next(&ws));
    CHECK(is_at(&ws, 10, 5));
    const gasp_walk_state_t last = ws;
    CHECK_ERR(gasp_walk_next(&ws), ENOENT);
    CHECK_ERR(gasp_walk_next(&ws), ENOENT);
    CHECK(ws.gw_guest_loc == last.gw_guest_loc && ws.gw_length == last.gw_length);
    CHECK(gasp_walk_count(0, GWS_NONE) == 3);
    end(guest);
}

static void no_entry_is_longer_than_max_length(void)
{
    gasp_guest_t *guest = begin();
    const uint64_t limits[] = { 1000, PAGE, 2 * PAGE, 3 * PAGE + 1, MIB };
    for (size_t i = 0; i < COUNT_OF(limits); i++) {
        gasp_walk_state_t ws;
        unsigned count = 0;
        uint64_t total = 0;
        CHECK_OK(gasp_walk_init(&ws, limits[i], GWS_NONE));
        CHECK(ws.gw_max_length == limits[i]);
        for (; gasp_walk_next(&ws) == EOK; count++) {
            CHECK(ws.gw_length > 0 && ws.gw_length <= limits[i]);
            total += ws.gw_length;
        }
        CHECK(total == 11 * PAGE && count == gasp_walk_count(limits[i], GWS_NONE));
    }
    end(guest);
}

static void without_memory_there_is_no_entry(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    gasp_walk_state_t ws;
    CHECK_OK(gasp_walk_init(&ws, 0, GWS_NONE));
    CHECK_ERR(gasp_walk_next(&ws), ENOENT);
    CHECK_ERRNO(gasp_walk_count(0, GWS_NONE), 0, 0);
    end(guest);
}

static void arguments_that_are_not_valid_are_refused(void)
{
    gasp_walk_state_t ws = { NULL, 0, 0, 0, 0, 0 };
    CHECK_ERR(gasp_walk_init(&ws, 0, GWS_NONE), ENXIO); /* no guest */
    CHECK_ERRNO(gasp_walk_count(0, GWS_NONE), 0, ENXIO);
    CHECK_ERR(gasp_walk_next(&ws), EINVAL);
    gasp_guest_t *guest = begin();
    CHECK_ERR(gasp_walk_init(NULL, 0, GWS_NONE), EINVAL);
    CHECK_ERR(gasp_walk_init(&ws, 0, 2), EINVAL);
    CHECK_ERR(gasp_walk_next(NULL), EINVAL);
    CHECK_ERRNO(gasp_walk_count(0, 2), 0, EINVAL);
    CHECK_OK(gasp_walk_init(&ws, 0, GWS_NONE));
    end(guest);
    CHECK_ERR(gasp_walk_next(&ws), EINVAL);
}

static void regions_may_change_during_a_walk(void)
{
    gasp_guest_t *guest = begin();
    gasp_walk_state_t ws;
    CHECK_OK(gasp_walk_init(&ws, 0, GWS_NONE));
    CHECK_OK(gasp_walk_next(&ws));
    CHECK_OK(gasp_guest_remove(guest, 0, 6 * PAGE, NULL));
    ram(guest, 6 * PAGE, PAGE);
    CHECK_OK(gasp_walk_next(&ws));
    CHECK(is_at(&ws, 6, 1));
    CHECK_OK(gasp_walk_next(&ws));
    CHECK(is_at(&ws, 10, 5));
    end(guest);
}

static void host_addresses_are_those_of_host_contig(void)
{
    gasp_guest_t *guest = begin();
    vdev_t *disk = device(guest, "disk");
    gasp_walk_state_t ws;
    uint64_t total = 0;
    unsigned count = 0;
    CHECK_OK(gasp_walk_init(&ws, 0, GWS_HOST));
    for (; gasp_walk_next(&ws) == EOK; count++) {
        uint64_t address = ws.gw_guest_loc;
        size_t length = ws.gw_length;
        gasp_map_handle_t h;
        CHECK_OK(gasp_map_host_contig(disk, &address, &length, ANY_READ, &h));
        CHECK(address == ws.gw_host_loc && length == ws.gw_length);
        gasp_unmap_handle(&h);
        total += ws.gw_length;
    }
    CHECK(total == 11 * PAGE && count == gasp_walk_count(0, GWS_HOST));
    end(guest);
}

/* Of 10 to 14, 11 and 13: the documented example. */
static void pages_11_and_13(uint64_t *guest_loc, size_t *length)
{
    const uint64_t end = *guest_loc + *length;
    const uint64_t next = *guest_loc <= 11 * PAGE ? 11 * PAGE : 13 * PAGE;
    *length = *guest_loc <= 13 * PAGE && next < end ? PAGE : 0;
    *guest_loc = next;
}

static void a_filter_selects_parts(void)
{
    gasp_guest_t *guest = begin();
    gasp_walk_state_filtered_t ws;
    CHECK_OK(gasp_guest_remove(guest, 0, 6 * PAGE, NULL));
    CHECK_OK(gasp_walk_init_filtered(&ws, 0, GWS_NONE, pages_11_and_13));
    CHECK_OK(gasp_walk_next_filtered(&ws));
    CHECK(is_at(&ws.ws, 11, 1));
    CHECK_OK(gasp_walk_next_filtered(&ws));
    CHECK(is_at(&ws.ws, 13, 1));
    CHECK_ERR(gasp_walk_next_filtered(&ws), ENOENT);
    CHECK(gasp_walk_count_filtered(0, GWS_NONE, pages_11_and_13) == 2);
    end(guest);
}

static void everything(uint64_t *guest_loc, size_t *length)
{
    (void)guest_loc;
    (void)length;
}

static void nothing(uint64_t *guest_loc, size_t *length)
{
    (void)guest_loc;
    *length = 0;
}

/* A filter that returns more than the remainder. */
static void too_much(uint64_t *guest_loc, size_t *length)
{
    *guest_loc = 0;
    *length = SIZE_MAX;
}

static unsigned walk_filtered(gasp_walk_filter_t filter, uint64_t max_length, uint64_t *total)
{
    gasp_walk_state_filtered_t ws;
    unsigned count = 0;
    *total = 0;
    CHECK_OK(gasp_walk_init_filtered(&ws, max_length, GWS_NONE, filter));
    for (; gasp_walk_next_filtered(&ws) == EOK; count++)
        *total += ws.ws.gw_length;
    CHECK(gasp_walk_count_filtered(max_length, GWS_NONE, filter) == count);
    return count;
}

static void filters_of_all_and_nothing(void)
{
    gasp_guest_t *guest = begin();
    uint64_t total;
    CHECK(walk_filtered(everything, 0, &total) == 3 && total == 11 * PAGE);
    CHECK(walk_filtered(everything, PAGE, &total) == 11 && total == 11 * PAGE);
    CHECK(walk_filtered(nothing, 0, &total) == 0);
    CHECK(walk_filtered(too_much, 0, &total) == 3 && total == 11 * PAGE);
    end(guest);
}

/* A filter may call the library. */
static void calls_back(uint64_t *guest_loc, size_t *length)
{
    gasp_map_handle_t h;
    CHECK_OK(gasp_lock(QST_MEMORY));
    CHECK_OK(gasp_map_firmware(*guest_loc, *length, ANY_READ, &h));
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_unlock(QST_MEMORY));
}

static void a_filter_is_called_without_a_lock(void)
{
    gasp_guest_t *guest = begin();
    uint64_t total;
    CHECK(walk_filtered(calls_back, 0, &total) == 3);
    end(guest);
}

/* Accepts one page at a time. */
static void page_by_page(uint64_t *guest_loc, size_t *length)
{
    (void)guest_loc;
    if (*length > PAGE)
        *length = PAGE;
}

static void removed_memory_is_not_walked(void)
{
    gasp_guest_t *guest = begin();
    gasp_walk_state_filtered_t ws;
    CHECK_OK(gasp_walk_init_filtered(&ws, 0, GWS_NONE, page_by_page));
    CHECK_OK(gasp_walk_next_filtered(&ws));
    CHECK(is_at(&ws.ws, 0, 1));
    CHECK_OK(gasp_guest_remove(guest, 0, 3 * PAGE, NULL)); /* after the call of the filter */
    CHECK_OK(gasp_walk_next_filtered(&ws));
    CHECK(is_at(&ws.ws, 3, 1));
    CHECK_OK(gasp_walk_next_filtered(&ws));
    CHECK(is_at(&ws.ws, 4, 1));
    CHECK_OK(gasp_guest_remove(guest, 5 * PAGE, PAGE, NULL));
    CHECK_OK(gasp_guest_remove(guest, 10 * PAGE, 5 * PAGE, NULL));
    CHECK_ERR(gasp_walk_next_filtered(&ws), ENOENT);
    end(guest);
}

/* Accepts one page, and then all of the rest. */
static void first_page_alone(uint64_t *guest_loc, size_t *length)
{
    if (*guest_loc == 0)
        *length = PAGE;
}

static void the_remainder_ends_where_its_memory_ends(void)
{
    gasp_guest_t *guest = begin();
    gasp_walk_state_filtered_t ws;
    CHECK_OK(gasp_walk_init_filtered(&ws, 0, GWS_NONE, first_page_alone));
    CHECK_OK(gasp_walk_next_filtered(&ws));
    CHECK(is_at(&ws.ws, 0, 1));
    CHECK_OK(gasp_guest_remove(guest, 2 * PAGE, 2 * PAGE, NULL));
    CHECK_OK(gasp_walk_next_filtered(&ws));
    CHECK(is_at(&ws.ws, 1, 1));
    CHECK_OK(gasp_walk_next_filtered(&ws));
    CHECK(is_at(&ws.ws, 4, 2));
    end(guest);
}

/* Parts that are shorter than the host-physical runs. */
static void a_quarter_of_a_page(uint64_t *guest_loc, size_t *length)
{
    (void)guest_loc;
    if (*length > PAGE / 4)
        *length = PAGE / 4;
}

/* Advances; returns whether the part is at this address, with the host address of a map. */
static int goes_to(gasp_walk_state_filtered_t *ws, const vdev_t *vdev, uint64_t at)
{
    uint64_t address = at;
    size_t length = PAGE / 4;
    gasp_map_handle_t h;
    CHECK_OK(gasp_walk_next_filtered(ws));
    CHECK_OK(gasp_map_host_contig(vdev, &address, &length, ANY_READ, &h));
    gasp_unmap_handle(&h);
    return ws->ws.gw_guest_loc == at && ws->ws.gw_host_loc == address && ws->ws.gw_length == length;
}

static void host_addresses_are_of_the_present_memory(void)
{
    gasp_guest_t *guest = begin();
    vdev_t *disk = device(guest, "disk");
    gasp_walk_state_filtered_t ws;
    CHECK_OK(gasp_walk_init_filtered(&ws, 0, GWS_HOST, a_quarter_of_a_page));
    CHECK(goes_to(&ws, disk, 0));
    CHECK_OK(gasp_guest_remove(guest, 0, PAGE, NULL));
    CHECK(goes_to(&ws, disk, PAGE));
    CHECK_OK(gasp_guest_remove(guest, PAGE, PAGE, NULL));
    ram(guest, PAGE, PAGE); /* other memory */
    for (uint64_t at = PAGE + PAGE / 4; at < 6 * PAGE; at += PAGE / 4)
        CHECK(goes_to(&ws, disk, at));
    CHECK_OK(gasp_guest_remove(guest, 10 * PAGE, 4 * PAGE, NULL));
    CHECK(goes_to(&ws, disk, 14 * PAGE));
    end(guest);
}

static gasp_guest_t *shrinking;

/* Removes the entry at 0 from the guest, and accepts it. */
static void removes_the_first(uint64_t *guest_loc, size_t *length)
{
    if (*guest_loc == 0)
        CHECK_OK(gasp_guest_remove(shrinking, 0, *length, NULL));
}

static void a_filter_may_remove_memory(void)
{
    gasp_walk_state_filtered_t ws;
    shrinking = begin();
    CHECK_OK(gasp_walk_init_filtered(&ws, 0, GWS_NONE, removes_the_first));
    CHECK_OK(gasp_walk_next_filtered(&ws));
    CHECK(is_at(&ws.ws, 4, 2));
    end(shrinking);
}

static void filters_that_are_not_valid_are_refused(void)
{
    gasp_guest_t *guest = begin();
    gasp_walk_state_filtered_t ws;
    CHECK_ERR(gasp_walk_init_filtered(&ws, 0, GWS_NONE, NULL), EINVAL);
    CHECK_ERR(gasp_walk_init_filtered(NULL, 0, GWS_NONE, everything), EINVAL);
    CHECK_ERR(gasp_walk_init_filtered(&ws, 0, 2, everything), EINVAL);
    CHECK_ERR(gasp_walk_next_filtered(NULL), EINVAL);
    CHECK_ERRNO(gasp_walk_count_filtered(0, GWS_NONE, NULL), 0, EINVAL);
    CHECK_ERRNO(gasp_walk_count_filtered(0, 2, everything), 0, EINVAL);
    end(guest);
}

static const struct test tests[] = {
    TEST(every_entry_in_order),
    TEST(no_entry_is_longer_than_max_length),
    TEST(without_memory_there_is_no_entry),
    TEST(arguments_that_are_not_valid_are_refused),
    TEST(regions_may_change_during_a_walk),
    TEST_NEEDS(host_addresses_are_those_of_host_contig, lacks_pins),
    TEST(a_filter_selects_parts),
    TEST(filters_of_all_and_nothing),
    TEST(a_filter_is_called_without_a_lock),
    TEST(removed_memory_is_not_walked),
    TEST(the_remainder_ends_where_its_memory_ends),
    TEST_NEEDS(host_addresses_are_of_the_present_memory, lacks_pins),
    TEST(a_filter_may_remove_memory),
    TEST(filters_that_are_not_valid_are_refused),
};
RUN(tests)
