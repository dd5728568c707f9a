/*
 * The error matrix: each row for gasp_map_host_contig(), gasp_map() and
 * gasp_map_firmware(). Its columns for 7.x are in edition_710.c.
 *
 *   pages 0 to 7    a window, consecutive in host-physical memory
 *   pages 8 to 15   another one, elsewhere in host-physical memory
 *   pages 16 to 19  ROM
 *   pages 20 on     no memory
 */
#include "fixture.h"

#define BASE UINT64_C(0xf0000000)

struct matrix {
    gasp_guest_t *guest;
    vdev_t *disk;
    gasp_domain_t *domain;
};

static struct matrix begin(void)
{
    struct matrix m;
    m.guest = a_guest(GASP_IOMMU_DENY);
    window(m.guest, 0, 8 * PAGE, BASE);
    window(m.guest, 8 * PAGE, 8 * PAGE, 2 * BASE);
    rom(m.guest, 16 * PAGE, 4 * PAGE);
    m.disk = device(m.guest, "disk");
    m.domain = domain_of(m.guest, m.disk, "disk", GASP_DOMAIN_IDENTITY);
    return m;
}

/* Checks the results of the three calls, and the length of the first one if it is EOK. */
static void ask(const struct matrix *m, uint64_t at, size_t length, uint32_t prot, errno_t contig,
                size_t mapped, errno_t map, errno_t firmware)
{
    uint64_t address = at;
    size_t got = length;
    gasp_map_handle_t h;
    CHECK_ERR(gasp_map_host_contig(m->disk, &address, &got, prot, &h), contig);
    if (contig == EOK) {
        CHECK(got == mapped);
        gasp_unmap_handle(&h);
    }
    CHECK_ERR(gasp_map(m->disk, at, length, prot, &h), map);
    if (map == EOK)
        gasp_unmap_handle(&h);
    CHECK_ERR(gasp_map_firmware(at, length, prot, &h), firmware);
    if (firmware == EOK)
        gasp_unmap_handle(&h);
}

/* Checks that all three calls have the same result. */
static void ask_all(const struct matrix *m, uint64_t at, size_t length, uint32_t prot, errno_t error)
{
    ask(m, at, length, prot, error, length, error, error);
}

/* Row "success". */
static void success(void)
{
    const struct matrix m = begin();
    uint64_t address = PAGE + 4;
    size_t length = 100;
    gasp_map_handle_t h = { { 0, 0, 0 } };
    grant(m.domain, 0, 8 * PAGE, GMF_READ);
    ask_all(&m, PAGE, PAGE, ANY_READ, EOK);
    CHECK_OK(gasp_map_host_contig(m.disk, &address, &length, ANY_READ, &h));
    CHECK(address == BASE + PAGE + 4 && length == 100 && gasp_get_vaddr(&h));
    gasp_unmap_handle(&h);
    end(m.guest);
}

/* Row "range not available under guest IOMMU config". */
static void range_not_available(void)
{
    const struct matrix m = begin();
    ask(&m, 0, PAGE, ANY_READ, EFAULT, 0, EFAULT, EOK);
    CHECK(faults(m.guest) == 2);
    grant(m.domain, 0, 2 * PAGE, GMF_READ);
    ask(&m, 0, 3 * PAGE, ANY_READ, EFAULT, 0, EFAULT, EOK);
    end(m.guest);
}

/* Row "access type in prot not permitted to this vdev by guest IOMMU". */
static void access_not_permitted(void)
{
    const struct matrix m = begin();
    grant(m.domain, 0, 8 * PAGE, GMF_READ);
    ask(&m, 0, PAGE, RW | GMF_MAP_ANY, EFAULT, 0, EFAULT, EOK);
    ask(&m, 0, PAGE, GMF_EXEC | GMF_MAP_ANY, EFAULT, 0, EFAULT, EOK);
    ask_all(&m, 0, PAGE, ANY_READ, EOK);
    end(m.guest);
}

/* Each device gets what its own domain allows. */
static void verdict_of_each_device(void)
{
    const struct matrix m = begin();
    vdev_t *net = device(m.guest, "net");
    gasp_domain_t *other = domain_of(m.guest, net, "net", GASP_DOMAIN_IDENTITY);
    gasp_map_handle_t h;
    grant(m.domain, 0, PAGE, GMF_READ);
    grant(other, PAGE, PAGE, GMF_READ);
    CHECK_OK(gasp_map(m.disk, 0, 8, ANY_READ, &h));
    gasp_unmap_handle(&h);
    CHECK_ERR(gasp_map(net, 0, 8, ANY_READ, &h), EFAULT);
    CHECK_ERR(gasp_map(m.disk, PAGE, 8, ANY_READ, &h), EFAULT);
    CHECK_OK(gasp_map(net, PAGE, 8, ANY_READ, &h));
    gasp_unmap_handle(&h);
    end(m.guest);
}

/* Row "guest-physical address invalid (nothing there)". */
static void address_invalid(void)
{
    const struct matrix m = begin();
    grant(m.domain, 0, 64 * PAGE, RW | GMF_EXEC);
    ask_all(&m, 20 * PAGE, 8, ANY_READ, ENXIO);
    ask_all(&m, UINT64_C(1) << 48, 8, ANY_READ, ENXIO);
    ask_all(&m, UINT64_MAX, 1, ANY_READ, ENXIO);
    ask_all(&m, UINT64_MAX, 2, ANY_READ, ENXIO);
    ask_all(&m, 0, (UINT64_C(1) << 48) + 1, ANY_READ, ENXIO);
    ask_all(&m, PAGE, SIZE_MAX - PAGE, ANY_READ, ENXIO);
    CHECK(faults(m.guest) == 0);
    end(m.guest);
}

/* Row "invalid prot combination". */
static void prot_invalid(void)
{
    const struct matrix m = begin();
    const uint32_t prots[] = { 0, GMF_MAP_ANY, 8, UINT32_C(1) << 31, UINT32_MAX };
    for (size_t i = 0; i < COUNT_OF(prots); i++)
        ask_all(&m, 0, PAGE, prots[i], ENXIO);
    CHECK(faults(m.guest) == 0);
    end(m.guest);
}

/* Row "no contiguous guest-physical range can hold the request". */
static void not_contiguous(void)
{
    const struct matrix m = begin();
    grant(m.domain, 0, 64 * PAGE, RW);
    ask_all(&m, 15 * PAGE, 6 * PAGE, ANY_READ, ENXIO);
    ask(&m, 7 * PAGE, 2 * PAGE, ANY_READ, EOK, PAGE, ENXIO, ENXIO);
    ask_all(&m, 0, 8, GMF_READ, ENXIO); /* memory of a kind that needs GMF_MAP_ANY */
    ask_all(&m, 16 * PAGE, 8, GMF_READ, ENXIO);
    end(m.guest);
}

/* Row "out of address space / memory while mapping": any mmap() error comes through. */
static void an_error_of_mmap(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    errno_t error = EOK;
    /* 16 TiB, nine times: more than the address space of the process. */
    const uint64_t huge = UINT64_C(16) << 40;
    for (uint64_t i = 0; i < 9 && error == EOK; i++) {
        uint64_t start = i * huge;
        error = gasp_guest_add_ram(guest, &start, huge, GASP_PAGES_4K, GASP_ON_DEMAND);
    }
    CHECK(error == ENOMEM || error == EINVAL); /* the latter under valgrind */
    CHECK(strstr(gasp_last_error(), "mmap"));
    end(guest);
}

/* An mmap() error of the map itself: write access to what is read-only. */
static void read_only_memory(void)
{
    const struct matrix m = begin();
    grant(m.domain, 0, 64 * PAGE, RW | GMF_EXEC);
    ask_all(&m, 16 * PAGE, 8, GMF_WRITE | GMF_MAP_ANY, EACCES);
    end(m.guest);
}

/* Row "vdev NULL". */
static void vdev_null(void)
{
    struct matrix m = begin();
    m.disk = NULL;
    ask(&m, 0, PAGE, ANY_READ, EINVAL, 0, EINVAL, EOK);
    end(m.guest);
}

/* Row "h / ppaddr / plength NULL, *plength == 0". */
static void pointers_null_and_length_0(void)
{
    const struct matrix m = begin();
    gasp_map_handle_t h;
    uint64_t address = 0;
    size_t length = PAGE;
    grant(m.domain, 0, 8 * PAGE, GMF_READ);
    CHECK_ERR(gasp_map_host_contig(m.disk, NULL, &length, ANY_READ, &h), EINVAL);
    CHECK_ERR(gasp_map_host_contig(m.disk, &address, NULL, ANY_READ, &h), EINVAL);
    CHECK_ERR(gasp_map_host_contig(m.disk, &address, &length, ANY_READ, NULL), EINVAL);
    CHECK_ERR(gasp_map(m.disk, 0, PAGE, ANY_READ, NULL), EINVAL);
    CHECK_ERR(gasp_map_firmware(0, PAGE, ANY_READ, NULL), EINVAL);
    ask_all(&m, 0, 0, ANY_READ, EINVAL);
    CHECK(address == 0 && length == PAGE);
    end(m.guest);
}

/* Row "second unmap of same handle". */
static void second_unmap(void)
{
    const struct matrix m = begin();
    uint64_t address = 0;
    size_t length = PAGE;
    gasp_map_handle_t handles[3];
    grant(m.domain, 0, 8 * PAGE, GMF_READ);
    CHECK_OK(gasp_map_host_contig(m.disk, &address, &length, ANY_READ, &handles[0]));
    CHECK_OK(gasp_map(m.disk, 0, PAGE, ANY_READ, &handles[1]));
    CHECK_OK(gasp_map_firmware(0, PAGE, ANY_READ, &handles[2]));
    for (unsigned twice = 0; twice < 2; twice++)
        for (size_t i = 0; i < COUNT_OF(handles); i++)
            gasp_unmap_handle(&handles[i]);
    end(m.guest);
}

/* gasp_map_vdma() and gasp_unmap() in their 8.0 form. */
static void vdma_in_8_0_form(void)
{
    const struct matrix m = begin();
    grant(m.domain, 0, 64 * PAGE, GMF_READ);
    CHECK_ERRNO(gasp_map_vdma(m.disk, 0, 8, RW | GMF_MAP_ANY), NULL, EFAULT);
    CHECK_ERRNO(gasp_map_vdma(m.disk, 20 * PAGE, 8, ANY_READ), NULL, ENXIO);
    CHECK_ERRNO(gasp_map_vdma(m.disk, 0, 8, 0), NULL, ENXIO);
    void *vaddr = gasp_map_vdma(m.disk, 0, 8, ANY_READ);
    gasp_drain_t *drain;
    uint64_t pending;
    CHECK(vaddr);
    CHECK_OK(gasp_domain_revoke(m.domain, 0, PAGE, &drain));
    CHECK_OK(gasp_drain_pending(drain, &pending));
    CHECK(pending == 1);
    gasp_unmap(vaddr, 8, 1);
    gasp_unmap(vaddr, 8, 0); /* already unmapped */
    gasp_unmap(NULL, 8, 0);
    CHECK_OK(gasp_drain_pending(drain, &pending));
    CHECK(pending == 0);
    CHECK_OK(gasp_drain_wait(drain, NULL));
    end(m.guest);
}

static const struct test tests[] = {
    TEST(success),
    TEST(range_not_available),
    TEST(access_not_permitted),
    TEST(verdict_of_each_device),
    TEST(address_invalid),
    TEST(prot_invalid),
    TEST(not_contiguous),
    TEST(an_error_of_mmap),
    TEST(read_only_memory),
    TEST(vdev_null),
    TEST(pointers_null_and_length_0),
    TEST(second_unmap),
    TEST(vdma_in_8_0_form),
};
RUN(tests)
