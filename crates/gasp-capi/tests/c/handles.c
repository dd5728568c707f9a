/* Handles: plain data, valid in every copy until one of them is unmapped, harmless after. */
#include "fixture.h"

#include <pthread.h>

struct held {
    gasp_guest_t *guest;
    vdev_t *disk;
    gasp_map_handle_t h;
};

static struct held begin(void)
{
    struct held held;
    held.guest = a_guest(GASP_IOMMU_NONE);
    ram(held.guest, 0, 16 * PAGE);
    held.disk = device(held.guest, "disk");
    CHECK_OK(gasp_map(held.disk, PAGE, 64, RW, &held.h));
    memcpy(gasp_get_vaddr(&held.h), "mine", 5);
    return held;
}

static int is_mine(const gasp_map_handle_t *h)
{
    const char *vaddr = gasp_get_vaddr(h);
    return vaddr && memcmp(vaddr, "mine", 5) == 0 && gasp_map_check(h) == EOK;
}

static int is_over(const gasp_map_handle_t *h)
{
    return gasp_get_vaddr(h) == NULL && gasp_map_check(h) == EBADF;
}

static void has_24_bytes(void)
{
    CHECK(sizeof(gasp_map_handle_t) == 24);
    CHECK(sizeof(((gasp_map_handle_t *)0)->reserved[0]) == 8);
}

static void a_copy_is_as_valid(void)
{
    struct held held = begin();
    gasp_map_handle_t copy = held.h, bytes;
    memcpy(&bytes, &held.h, sizeof bytes);
    memset(&held.h, 0, sizeof held.h);
    CHECK(is_mine(&copy) && is_mine(&bytes) && is_over(&held.h));
    gasp_unmap_handle(&bytes);
    CHECK(is_over(&copy) && is_over(&bytes));
    gasp_unmap_handle(&copy);
    end(held.guest);
}

static void a_stale_handle_does_not_reach_the_next_mapping(void)
{
    struct held held = begin();
    gasp_map_handle_t stale = held.h;
    gasp_unmap_handle(&held.h);
    for (unsigned i = 0; i < rounds(10000); i++) {
        gasp_map_handle_t next;
        CHECK_OK(gasp_map(held.disk, PAGE, 64, RW, &next));
        gasp_unmap_handle(&stale);
        CHECK(is_over(&stale) && is_mine(&next));
        stale = next;
        gasp_unmap_handle(&next);
    }
    end(held.guest);
}

static void null_and_zeroed(void)
{
    gasp_map_handle_t zero = { { 0, 0, 0 } };
    gasp_unmap_handle(NULL);
    gasp_unmap_handle(&zero);
    CHECK(gasp_get_vaddr(NULL) == NULL && is_over(&zero));
    CHECK_ERR(gasp_map_check(NULL), EINVAL);
    CHECK(zero.reserved[0] == 0 && zero.reserved[1] == 0 && zero.reserved[2] == 0);
}

static void unmapping_ends_no_other(void)
{
    struct held held = begin();
    gasp_map_handle_t others[100];
    for (size_t i = 0; i < COUNT_OF(others); i++)
        CHECK_OK(gasp_map(held.disk, PAGE, 64, RW, &others[i]));
    for (size_t i = 0; i < COUNT_OF(others); i += 2) {
        gasp_unmap_handle(&others[i]);
        gasp_unmap_handle(&others[i]);
    }
    for (size_t i = 0; i < COUNT_OF(others); i++)
        CHECK(i % 2 ? is_mine(&others[i]) : is_over(&others[i]));
    for (size_t i = 0; i < COUNT_OF(others); i++)
        gasp_unmap_handle(&others[i]);
    CHECK(is_mine(&held.h));
    gasp_unmap_handle(&held.h);
    end(held.guest);
}

static uint64_t random64(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void random_handles_are_harmless(void)
{
    struct held held = begin();
    uint64_t state = 0x9e3779b97f4a7c15;
    for (unsigned i = 0; i < rounds(1000000); i++) {
        gasp_map_handle_t h = { { random64(&state), random64(&state), random64(&state) } };
        CHECK(gasp_get_vaddr(&h) == NULL);
        gasp_unmap_handle(&h);
    }
    CHECK(is_mine(&held.h));
    gasp_unmap_handle(&held.h);
    end(held.guest);
}

/* Handles that are nearly valid: one bit is flipped, or words of several are mixed. */
static void damaged_handles_are_harmless(void)
{
    struct held held = begin();
    gasp_map_handle_t other;
    CHECK_OK(gasp_map(held.disk, 2 * PAGE, 64, RW, &other));
    for (unsigned bit = 0; bit < 192; bit++) {
        gasp_map_handle_t damaged = held.h;
        damaged.reserved[bit / 64] ^= UINT64_C(1) << bit % 64;
        (void)gasp_map_check(&damaged);
        (void)gasp_get_vaddr(&damaged);
    }
    for (unsigned mix = 1; mix < 7; mix++) {
        gasp_map_handle_t mixed = held.h;
        for (unsigned word = 0; word < 3; word++)
            if (mix >> word & 1)
                mixed.reserved[word] = other.reserved[word];
        (void)gasp_get_vaddr(&mixed);
    }
    CHECK(is_mine(&held.h));
    gasp_unmap_handle(&other);
    gasp_unmap_handle(&held.h);
    end(held.guest);
}

static void *unmap(void *h)
{
    gasp_unmap_handle(h);
    return NULL;
}

static void unmapped_by_another_thread(void)
{
    struct held held = begin();
    gasp_map_handle_t copy = held.h;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, unmap, &copy) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(is_over(&held.h) && is_over(&copy));
    gasp_unmap_handle(&held.h);
    end(held.guest);
}

struct race {
    pthread_barrier_t barrier;
    gasp_map_handle_t h;
    unsigned count;
};

static void *unmap_at_once(void *context)
{
    struct race *race = context;
    for (unsigned i = 0; i < race->count; i++) {
        pthread_barrier_wait(&race->barrier); /* the new handle is published */
        gasp_map_handle_t copy = race->h;
        gasp_unmap_handle(&copy);
        pthread_barrier_wait(&race->barrier); /* both have unmapped it */
    }
    return NULL;
}

static void two_threads_unmap_the_same_handle(void)
{
    struct held held = begin();
    struct race race;
    pthread_t thread;
    race.count = rounds(2000);
    CHECK(pthread_barrier_init(&race.barrier, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, unmap_at_once, &race) == 0);
    for (unsigned i = 0; i < race.count; i++) {
        CHECK_OK(gasp_map(held.disk, PAGE, 64, RW, &race.h));
        pthread_barrier_wait(&race.barrier);
        gasp_map_handle_t copy = race.h;
        gasp_unmap_handle(&copy);
        pthread_barrier_wait(&race.barrier);
        CHECK(is_over(&race.h));
    }
    CHECK(pthread_join(thread, NULL) == 0);
    pthread_barrier_destroy(&race.barrier);
    CHECK(is_mine(&held.h));
    gasp_unmap_handle(&held.h);

    /* No unmap was counted twice: a removal finds no held mapping. */
    gasp_drain_t *drain = NULL;
    CHECK_OK(gasp_guest_remove(held.guest, 0, 16 * PAGE, &drain));
    CHECK(drain == NULL);
    end(held.guest);
}

static void outlives_its_vdev_and_its_guest(void)
{
    struct held held = begin();
    gasp_drain_t *drain;
    CHECK_OK(gasp_vdev_destroy(held.disk, &drain));
    CHECK_OK(gasp_drain_abandon(drain));
    end(held.guest);
    CHECK(memcmp(gasp_get_vaddr(&held.h), "mine", 5) == 0);
    gasp_unmap_handle(&held.h);
    CHECK(is_over(&held.h));
}

/* The functions of 8.0 without handles. */
static void maps_without_handles(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *domain = domain_of(guest, disk, "disk", GASP_DOMAIN_IDENTITY);
    uint64_t host = MIB + 8;
    size_t length = 4 * PAGE;
    ram(guest, 0, 4 * PAGE);
    window(guest, MIB, 2 * PAGE, 0x10000000);
    CHECK_ERRNO(gasp_map_contig(disk, &host, &length, ANY_READ), NULL, EFAULT);
    CHECK(host == MIB + 8 && length == 4 * PAGE);
    grant(domain, MIB, 2 * PAGE, RW);
    length = 2 * PAGE - 8;
    char *vaddr = gasp_map_contig(disk, &host, &length, RW | GMF_MAP_ANY);
    CHECK(vaddr && host == 0x10000008 && length == 2 * PAGE - 8);
    vaddr[0] = 'c';
    CHECK_ERRNO(gasp_map_contig(disk, NULL, &length, RW), NULL, EINVAL);
    CHECK_ERRNO(gasp_map_contig(NULL, &host, &length, RW), NULL, EINVAL);
    char *sys = gasp_map_sys(MIB + 8, 1, RW | GMF_MAP_ANY); /* past the guest's IOMMU */
    CHECK(sys && *sys == 'c');
    CHECK_ERRNO(gasp_map_sys(16 * MIB, 1, GMF_READ), NULL, ENXIO);
    CHECK_ERRNO(gasp_map_sys(0, 1, 0), NULL, ENXIO);
    gasp_drain_t *drain;
    uint64_t pending;
    CHECK_OK(gasp_guest_remove(guest, MIB, PAGE, &drain));
    CHECK_OK(gasp_drain_pending(drain, &pending));
    CHECK(pending == 2);
    gasp_unmap(sys, 1, 1);
    gasp_unmap(vaddr, 2 * PAGE - 8, 0);
    gasp_unmap(vaddr, 2 * PAGE - 8, 0); /* no mapping begins there */
    CHECK_OK(gasp_drain_wait(drain, NULL));
    end(guest);
    CHECK_ERRNO(gasp_map_sys(0, 1, GMF_READ), NULL, ENXIO); /* no guest */
}

/* Each text names the operation and the address. */
static void texts_name_the_operation(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    struct qvm_state_block block = { 0x7000, PAGE, QST_MEMORY, 0, 0 };
    struct gasp_region region;
    CHECK_ERR(gasp_region_info(&block, &region), ENXIO);
    CHECK(strstr(gasp_last_error(), "look-up of a region") && strstr(gasp_last_error(), "0x7000"));
    block.length = 0;
    CHECK_ERR(gasp_region_info(&block, &region), EINVAL);
    CHECK(strstr(gasp_last_error(), "look-up of a region"));
    CHECK_ERR(gram_reserve(0x7000, 8), ENXIO);
    CHECK(strstr(gasp_last_error(), "reservation") && strstr(gasp_last_error(), "0x7000"));
    CHECK_ERR(gram_reserve(0x7000, 0), EINVAL);
    CHECK(strstr(gasp_last_error(), "reservation"));
    end(guest);
}

static const struct test tests[] = {
    TEST(has_24_bytes),
    TEST(a_copy_is_as_valid),
    TEST(a_stale_handle_does_not_reach_the_next_mapping),
    TEST(null_and_zeroed),
    TEST(unmapping_ends_no_other),
    TEST(random_handles_are_harmless),
    TEST(damaged_handles_are_harmless),
    TEST(unmapped_by_another_thread),
    TEST(two_threads_unmap_the_same_handle),
    TEST(outlives_its_vdev_and_its_guest),
    TEST(maps_without_handles),
    TEST(texts_name_the_operation),
};
RUN(tests)
