/* Threads map, unmap and inspect, while others revoke and remove what they use. */
#include "fixture.h"

#include <pthread.h>
#include <time.h>

#define PAGES 64

/* State that all threads share. */
struct stage {
    vdev_t *disk;
    gasp_domain_t *domain;
    gasp_guest_t *guest;
    int over;
    uint64_t mapped;
    uint64_t refused;
};

static int is_over(struct stage *stage)
{
    return __atomic_load_n(&stage->over, __ATOMIC_RELAXED);
}

static void count(uint64_t *counter)
{
    __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

/* Maps, writes, unmaps; twice, and through a copy. Only the IOMMU may refuse. */
static void *map_and_unmap(void *context)
{
    struct stage *stage = context;
    for (uint64_t i = 0; !is_over(stage); i++) {
        gasp_map_handle_t h;
        const errno_t error = gasp_map(stage->disk, i % PAGES * PAGE + 8, 64, RW | GMF_MAP_ANY, &h);
        if (error == EFAULT) {
            count(&stage->refused);
            continue;
        }
        CHECK_OK(error);
        gasp_map_handle_t copy = h;
        memset(gasp_get_vaddr(&h), (int)i, 64);
        gasp_unmap_handle(&copy);
        gasp_unmap_handle(&h);
        count(&stage->mapped);
    }
    return NULL;
}

static void *map_host_contig(void *context)
{
    struct stage *stage = context;
    while (!is_over(stage)) {
        for (uint64_t at = 0; at < PAGES * PAGE;) {
            uint64_t host = at;
            size_t length = PAGES * PAGE - at;
            gasp_map_handle_t h;
            const errno_t error = gasp_map_host_contig(stage->disk, &host, &length, ANY_READ, &h);
            if (error == EFAULT) {
                CHECK(host == at);
                break;
            }
            CHECK_OK(error);
            CHECK(host % PAGE == at % PAGE && length > 0 && gasp_get_vaddr(&h));
            gasp_unmap_handle(&h);
            at += length;
        }
    }
    return NULL;
}

/* Each revoke returns only when the mappings created before it are unmapped. */
static void *revoke_and_grant(void *context)
{
    struct stage *stage = context;
    for (uint64_t i = 0; !is_over(stage); i++) {
        const uint64_t at = i * 7 % PAGES * PAGE;
        CHECK_OK(gasp_domain_revoke(stage->domain, at, PAGE, NULL));
        (void)faults(stage->guest);
        CHECK_OK(gasp_domain_grant(stage->domain, at, at, PAGE, RW));
    }
    return NULL;
}

static void *come_and_go(void *context)
{
    struct stage *stage = context;
    while (!is_over(stage)) {
        vdev_t *vdev = device(stage->guest, "passing");
        gasp_map_handle_t h;
        gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
        vdev_t *other = device(guest, "passing");
        CHECK_ERR(gasp_map(vdev, 0, 8, ANY_READ, &h), EFAULT);
        CHECK_ERR(gasp_map(other, 0, 8, ANY_READ, &h), EFAULT);
        CHECK_OK(gasp_vdev_destroy(vdev, NULL));
        CHECK_ERR(gasp_map(vdev, 0, 8, ANY_READ, &h), EINVAL);
        end(guest);
        CHECK_ERR(gasp_map(other, 0, 8, ANY_READ, &h), EINVAL);
    }
    return NULL;
}

/* Adds and removes a reserved range after what the devices use, under the lock. */
static void *change_regions(void *context)
{
    struct stage *stage = context;
    CHECK_OK(gasp_guest_use(stage->guest)); /* other guests come and go */
    while (!is_over(stage)) {
        const struct gasp_region add = { GRF_NOPERMS, 0, NULL, QSL_NO_LOCATION,
                                         { MIB, PAGE, QST_MEMORY, 0, 0 } };
        const struct gasp_region remove = { GRF_NONE, 0, NULL, QSL_NO_LOCATION,
                                            { MIB, PAGE, QST_MEMORY, 0, 0 } };
        CHECK_OK(gasp_lock(QST_MEMORY));
        CHECK(gasp_region_set_soft(1, &add) == 1);
        CHECK(gasp_region_set_soft(1, &remove) == 1);
        CHECK_OK(gasp_unlock(QST_MEMORY));
        CHECK(gasp_walk_count(PAGE, GWS_NONE) == 0); /* windows are not walked */
    }
    return NULL;
}

static void map_while_others_take_it_away(void)
{
    void *(*const parts[])(void *) = { map_and_unmap, map_and_unmap, map_host_contig,
                                       revoke_and_grant, come_and_go, change_regions };
    pthread_t threads[COUNT_OF(parts)];
    const struct timespec time = { 2, 0 };
    struct stage stage = { NULL, NULL, a_guest(GASP_IOMMU_DENY), 0, 0, 0 };
    CHECK_OK(gasp_set_log(GASP_LOG_ERROR, NULL, NULL));
    window(stage.guest, 0, PAGES / 2 * PAGE, 0x1000000000);
    window(stage.guest, PAGES / 2 * PAGE, PAGES / 2 * PAGE, 0x2000000000);
    stage.disk = device(stage.guest, "disk");
    stage.domain = domain_of(stage.guest, stage.disk, "disk", GASP_DOMAIN_IDENTITY);
    grant(stage.domain, 0, PAGES * PAGE, RW);
    CHECK_OK(gasp_guest_start(stage.guest));
    for (size_t i = 0; i < COUNT_OF(parts); i++)
        CHECK(pthread_create(&threads[i], NULL, parts[i], &stage) == 0);
    nanosleep(&time, NULL);
    __atomic_store_n(&stage.over, 1, __ATOMIC_RELAXED);
    for (size_t i = 0; i < COUNT_OF(parts); i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(stage.mapped > 0);
    fprintf(stderr, "%llu mapped, %llu refused\n", (unsigned long long)stage.mapped,
            (unsigned long long)stage.refused);

    gasp_drain_t *drain;
    CHECK_OK(gasp_domain_revoke(stage.domain, 0, PAGES * PAGE, &drain));
    CHECK(drain == NULL); /* no mapping is left */
    end(stage.guest);
}

static const struct test tests[] = { TEST(map_while_others_take_it_away) };
RUN(tests)
