/* The 7.x forms: their columns of the error matrix, and the rest of <qvm/gasp.h>. */
#include "fixture.h"

#define ANY_PROT (PROT_READ | (int)GMF_MAP_ANY)

struct setting {
    struct guest_system *gsp;
    vdev_t *disk;
    gasp_domain_t *domain;
};

/* Windows in pages 0 to 7 and 8 to 15, ROM in 16; the disk may read pages 0 to 63. */
static struct setting begin(void)
{
    struct setting s;
    s.gsp = a_guest(GASP_IOMMU_DENY);
    window(s.gsp, 0, 8 * PAGE, 0x10000000);
    window(s.gsp, 8 * PAGE, 8 * PAGE, 0x20000000);
    rom(s.gsp, 16 * PAGE, PAGE);
    s.disk = device(s.gsp, "disk");
    s.domain = domain_of(s.gsp, s.disk, "disk", GASP_DOMAIN_IDENTITY);
    grant(s.domain, 0, 64 * PAGE, GMF_READ);
    return s;
}

/* Checks that all three calls fail with these errors. */
static void refused(const struct setting *s, int prot, uint64_t at, size_t length, errno_t device,
                    errno_t firmware)
{
    uint64_t address = at;
    size_t mapped = length;
    CHECK_ERRNO(gasp_map_contig(s->disk, prot, &address, &mapped), NULL, device);
    CHECK(address == at && mapped == length);
    CHECK_ERRNO(gasp_map_vdma(s->disk, prot, at, length), NULL, device);
    if (firmware != EOK)
        CHECK_ERRNO(gasp_map_sys(s->gsp, prot, at, length), NULL, firmware);
}

static void success(void)
{
    const struct setting s = begin();
    uint64_t address = 7 * PAGE + 8;
    size_t length = PAGE;
    void *contig = gasp_map_contig(s.disk, ANY_PROT, &address, &length);
    CHECK(contig && address == 0x10000000 + 7 * PAGE + 8);
    CHECK(length == PAGE - 8); /* shortened */
    void *vdma = gasp_map_vdma(s.disk, ANY_PROT, 0, 8 * PAGE);
    void *sys = gasp_map_sys(s.gsp, PROT_READ | PROT_WRITE | (int)GMF_MAP_ANY, 0, 8 * PAGE);
    CHECK(vdma && sys);
    memcpy((char *)sys + 7 * PAGE + 8, "same", 5);
    CHECK(memcmp(contig, "same", 5) == 0);
    CHECK(memcmp((char *)vdma + 7 * PAGE + 8, "same", 5) == 0);
    gasp_unmap(s.gsp, contig, length, 0);
    gasp_unmap(s.gsp, vdma, 8 * PAGE, 0);
    gasp_unmap(s.gsp, sys, 8 * PAGE, 1);
    end(s.gsp);
}

static void failures(void)
{
    const struct setting s = begin();
    const int rw = PROT_READ | PROT_WRITE | (int)GMF_MAP_ANY;
    refused(&s, ANY_PROT, 64 * PAGE, 8, EFAULT, ENXIO); /* not available */
    refused(&s, rw, 0, 8, EFAULT, EOK);                  /* access not permitted */
    refused(&s, ANY_PROT, 20 * PAGE, 8, ENXIO, ENXIO);   /* no memory */
    refused(&s, ANY_PROT, UINT64_MAX, 2, ENXIO, ENXIO);
    refused(&s, PROT_NONE, 0, 8, ENXIO, ENXIO);          /* invalid prot */
    refused(&s, -1, 0, 8, ENXIO, ENXIO);
    refused(&s, PROT_READ | 8, 0, 8, ENXIO, ENXIO);
    refused(&s, PROT_READ, 0, 8, ENXIO, ENXIO);          /* not RAM */
    refused(&s, ANY_PROT, 15 * PAGE, 8 * PAGE, ENXIO, ENXIO);
    refused(&s, ANY_PROT, 0, 0, EINVAL, EINVAL);
    CHECK_ERRNO(gasp_map_sys(s.gsp, rw, 16 * PAGE, 8), NULL, EACCES);
    CHECK_ERRNO(gasp_map_vdma(s.disk, ANY_PROT, 7 * PAGE, 2 * PAGE), NULL, ENXIO);
    end(s.gsp);
}

static void null_arguments(void)
{
    const struct setting s = begin();
    uint64_t address = 0;
    size_t length = 8;
    CHECK_ERRNO(gasp_map_contig(NULL, ANY_PROT, &address, &length), NULL, EINVAL);
    CHECK_ERRNO(gasp_map_contig(s.disk, ANY_PROT, NULL, &length), NULL, EINVAL);
    CHECK_ERRNO(gasp_map_contig(s.disk, ANY_PROT, &address, NULL), NULL, EINVAL);
    CHECK_ERRNO(gasp_map_vdma(NULL, ANY_PROT, 0, 8), NULL, EINVAL);
    CHECK_ERRNO(gasp_map_sys(NULL, ANY_PROT, 0, 8), NULL, EINVAL);
    gasp_unmap(s.gsp, NULL, 8, 0);
    gasp_unmap(NULL, &address, 8, 0);
    end(s.gsp);
}

static uint64_t pending(gasp_drain_t *drain)
{
    uint64_t holders = 0;
    CHECK_OK(gasp_drain_pending(drain, &holders));
    return holders;
}

static void unmap_ends_one_mapping_of_this_guest(void)
{
    const struct setting s = begin();
    struct guest_system *other = a_guest(GASP_IOMMU_NONE);
    gasp_drain_t *drain;
    void *small = gasp_map_vdma(s.disk, ANY_PROT, 0, 8);
    void *large = gasp_map_vdma(s.disk, ANY_PROT, 0, PAGE);
    CHECK(small && small == large);
    CHECK_OK(gasp_domain_revoke(s.domain, 0, PAGE, &drain));
    CHECK(pending(drain) == 2);
    gasp_unmap(other, small, 8, 0); /* of another guest */
    CHECK(pending(drain) == 2);
    gasp_unmap(s.gsp, large, PAGE, 0);
    CHECK(pending(drain) == 1);
    gasp_unmap(s.gsp, small, 8, 0);
    CHECK(pending(drain) == 0);
    gasp_unmap(s.gsp, small, 8, 0); /* already unmapped */
    CHECK_OK(gasp_drain_wait(drain, NULL));
    end(other);
    end(s.gsp);
}

static void regions_and_locks(void)
{
    const struct setting s = begin();
    struct gasp_region region = { GRF_VIRT_RD, 9, s.disk, QSL_NO_LOCATION,
                                  { MIB, PAGE, QST_MEMORY, 0 } };
    const struct qvm_state_block block = { MIB, 8 * PAGE, QST_MEMORY, 0 };
    const struct gasp_region gone = { GRF_NONE, 0, NULL, QSL_NO_LOCATION, { MIB, PAGE, QST_MEMORY, 0 } };
    gasp_region_set(s.gsp, 1, &region);
    CHECK_OK(gasp_region_info(s.gsp, &block, &region));
    CHECK(region.flags == (GRF_VIRT_RD | GRF_ACTIVE) && region.cookie == 9 && region.vdev == s.disk);
    CHECK(region.guest.location == MIB && region.guest.length == PAGE);
    CHECK(region.guest.type == QST_MEMORY);
    CHECK_ERR(gasp_region_info(s.gsp, NULL, &region), EINVAL);
    CHECK_ERR(gasp_region_info(NULL, &block, &region), EINVAL);
    CHECK_OK(gasp_guest_start(s.gsp));
    CHECK_OK(gasp_set_log(GASP_LOG_OFF, NULL, NULL));
    CHECK_ERRNO(gasp_region_set_soft(s.gsp, 1, &gone), 0, EPERM);
    CHECK_OK(gasp_lock(s.gsp, QST_MEMORY));
    CHECK_ERR(gasp_lock(s.gsp, QST_MEMORY), EBUSY);
    CHECK(gasp_region_set_soft(s.gsp, 1, &gone) == 1);
    CHECK_ERRNO(gasp_region_set_soft(s.gsp, 1, &gone), 0, ENOENT);
    CHECK_OK(gasp_unlock(s.gsp, QST_MEMORY));
    CHECK_ERR(gasp_unlock(s.gsp, QST_MEMORY), EPERM);
    CHECK_ERR(gasp_lock(NULL, QST_MEMORY), EINVAL);
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, NULL, NULL));
    CHECK_ERR(gasp_region_info(s.gsp, &block, &region), ENXIO);
    end(s.gsp);
}

static void space_is_found(void)
{
    struct guest_system *gsp = a_guest(GASP_IOMMU_NONE);
    ram(gsp, 0, 4 * PAGE);
    CHECK(gasp_find_free(gsp, QST_MEMORY, PAGE, 0) == 4 * PAGE);
    CHECK(gasp_find_free_range(gsp, QST_MEMORY, PAGE, 0, MIB, UINT64_MAX) == MIB);
    CHECK(gasp_find_free(gsp, QST_X86_IO, 8, 8) == 0);
    CHECK(gram_find_free(gsp, PAGE, 0, 0) == 0);
    CHECK(gram_find_free_range(gsp, PAGE, 0, 0, 2 * PAGE, UINT64_MAX) == 2 * PAGE);
    CHECK_OK(gram_reserve(gsp, PAGE, PAGE));
    CHECK_ERR(gram_reserve(gsp, PAGE, PAGE), EEXIST);
    CHECK(gram_find_free(gsp, PAGE, 0, 0) == 3 * PAGE);
    CHECK_ERRNO(gram_find_free(gsp, 1, 0, 0), QSL_NO_LOCATION, ENOSPC);
    CHECK_ERRNO(gasp_find_free(NULL, QST_MEMORY, PAGE, 0), QSL_NO_LOCATION, EINVAL);
    end(gsp);
}

static void even_pages(uint64_t *guest_loc, size_t *length)
{
    const uint64_t end = *guest_loc + *length;
    const uint64_t next = (*guest_loc + 2 * PAGE - 1) / (2 * PAGE) * (2 * PAGE);
    *length = next < end ? PAGE : 0;
    *guest_loc = next;
}

static void walks(void)
{
    struct guest_system *gsp = a_guest(GASP_IOMMU_NONE);
    struct gasp_walk_state ws;
    struct gasp_walk_state_filtered filtered;
    ram(gsp, PAGE, 4 * PAGE);
    CHECK_OK(gasp_walk_init(&ws, gsp, 3 * PAGE, GWS_NONE));
    CHECK(ws.gsp == gsp && ws.max_length == 3 * PAGE);
    CHECK_OK(gasp_walk_next(&ws));
    CHECK(ws.guest_loc == PAGE && ws.length > 0 && ws.length <= 3 * PAGE);
    CHECK(gasp_walk_count(gsp, PAGE, GWS_NONE) == 4);
    CHECK_OK(gasp_walk_init_filtered(&filtered, gsp, 0, GWS_NONE, even_pages));
    CHECK_OK(gasp_walk_next_filtered(&filtered));
    CHECK(filtered.ws.guest_loc == 2 * PAGE && filtered.ws.length == PAGE);
    CHECK_OK(gasp_walk_next_filtered(&filtered));
    CHECK(filtered.ws.guest_loc == 4 * PAGE && filtered.ws.length == PAGE);
    CHECK_ERR(gasp_walk_next_filtered(&filtered), ENOENT);
    CHECK(gasp_walk_count_filtered(gsp, 0, GWS_NONE, even_pages) == 2);
    CHECK_ERR(gasp_walk_init(&ws, NULL, 0, GWS_NONE), EINVAL);
    CHECK_ERR(gasp_walk_init(NULL, gsp, 0, GWS_NONE), EINVAL);
    CHECK_ERRNO(gasp_walk_count(NULL, 0, GWS_NONE), 0, EINVAL);
    end(gsp);
    CHECK_ERR(gasp_walk_next_filtered(&filtered), EINVAL);
}

/* Each form names its guest, whatever the thread has chosen. */
static void the_guest_is_the_one_that_is_named(void)
{
    struct guest_system *first = a_guest(GASP_IOMMU_NONE), *second = a_guest(GASP_IOMMU_NONE);
    ram(second, 0, PAGE);
    CHECK_ERRNO(gasp_map_sys(first, PROT_READ, 0, 8), NULL, ENXIO);
    void *vaddr = gasp_map_sys(second, PROT_READ, 0, 8);
    CHECK(vaddr);
    gasp_unmap(second, vaddr, 8, 0);
    end(first);
    end(second);
}

static const struct test tests[] = {
    TEST(success),
    TEST(failures),
    TEST(null_arguments),
    TEST(unmap_ends_one_mapping_of_this_guest),
    TEST(regions_and_locks),
    TEST(space_is_found),
    TEST(walks),
    TEST(the_guest_is_the_one_that_is_named),
};
RUN(tests)
