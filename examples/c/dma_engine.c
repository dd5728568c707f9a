/*
 * A DMA engine as a device model: it copies between buffers of a guest.
 *
 * Real hardware is programmed with host-physical addresses, and a buffer that is contiguous
 * for the guest often consists of several runs in the host. gasp_map_host_contig() returns
 * the address and length of a run; the engine continues at the end of it, until the buffer is
 * done. Each call consults the guest's IOMMU, so the guest decides what the engine reaches.
 *
 *     cc dma_engine.c $(pkg-config --cflags --libs gasp) && ./a.out
 */
#include <gasp/guest.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PAGE 4096
/* The guest's buffers. */
#define SOURCE UINT64_C(0x10000)
#define TARGET UINT64_C(0x40000)
#define LENGTH (4 * PAGE)

/* Maps the first run of [address, address + *length) and returns its host-physical address. */
static errno_t map_run(const vdev_t *engine, uint64_t address, size_t *length,
                       gasp_map_flags_t prot, uint64_t *host, gasp_map_handle_t *h)
{
    *host = address; /* in: the device's address; out: the host's */
    return gasp_map_host_contig(engine, host, length, prot, h);
}

/*
 * Copies as much as is contiguous on both sides, and returns in *length how much that was.
 *
 * A driver of real hardware would write both addresses and the length to its registers here,
 * and keep both handles until the hardware has finished. memcpy() stands in for it.
 */
static errno_t copy_run(const vdev_t *engine, uint64_t to, uint64_t from, size_t *length)
{
    gasp_map_handle_t source, target;
    uint64_t source_host, target_host;
    errno_t error = map_run(engine, from, length, GMF_READ, &source_host, &source);
    if (error != EOK)
        return error;
    /* The target's run may be shorter than the source's: *length can shrink again. */
    error = map_run(engine, to, length, GMF_WRITE, &target_host, &target);
    if (error == EOK) {
        printf("  run: 0x%" PRIx64 " -> 0x%" PRIx64 ", %zu bytes\n", source_host, target_host,
               *length);
        memcpy(gasp_get_vaddr(&target), gasp_get_vaddr(&source), *length);
        gasp_unmap_handle(&target);
    }
    gasp_unmap_handle(&source);
    return error;
}

/* Copies through maps of the whole buffers, which need no host-physical addresses. */
static errno_t copy_by_cpu(const vdev_t *engine, uint64_t to, uint64_t from, size_t length)
{
    gasp_map_handle_t source, target;
    errno_t error = gasp_map(engine, from, length, GMF_READ, &source);
    if (error != EOK)
        return error;
    error = gasp_map(engine, to, length, GMF_WRITE, &target);
    if (error == EOK) {
        memcpy(gasp_get_vaddr(&target), gasp_get_vaddr(&source), length);
        gasp_unmap_handle(&target);
    }
    gasp_unmap_handle(&source);
    return error;
}

/* The engine's command: copy `length` bytes. */
static errno_t copy(const vdev_t *engine, uint64_t to, uint64_t from, size_t length)
{
    while (length > 0) {
        size_t run = length; /* in: all that is left; out: the length of the run */
        const errno_t error = copy_run(engine, to, from, &run);
        if (error == EPERM || error == EAGAIN) {
            /* Addresses are not disclosed to this process, or the memory can move. */
            printf("  no host-physical addresses: %s\n", gasp_last_error());
            return copy_by_cpu(engine, to, from, length);
        }
        if (error != EOK)
            return error;
        to += run;
        from += run;
        length -= run;
    }
    return EOK;
}

/* A guest with 1 MiB of RAM, and an engine that may read SOURCE and write TARGET. */
static errno_t make_guest(gasp_guest_t **guest, vdev_t **engine)
{
    struct gasp_guest_options options = GASP_GUEST_OPTIONS_INIT;
    gasp_domain_t *domain;
    uint64_t start = 0;
    errno_t error;
    options.iommu = GASP_IOMMU_DENY;
    if ((error = gasp_guest_create(&options, guest)) != EOK ||
        (error = gasp_guest_add_ram(*guest, &start, 1 << 20, GASP_PAGES_4K, GASP_PINNED)) != EOK ||
        (error = gasp_vdev_create(*guest, "dma", engine)) != EOK ||
        (error = gasp_domain_create(*guest, "dma", GASP_DOMAIN_IDENTITY, NULL, &domain)) != EOK ||
        (error = gasp_vdev_attach(*engine, domain, NULL)) != EOK ||
        (error = gasp_domain_grant(domain, SOURCE, SOURCE, LENGTH, GMF_READ)) != EOK)
        return error;
    return gasp_domain_grant(domain, TARGET, TARGET, LENGTH, GMF_WRITE);
}

/* The guest's CPU, which bypasses the IOMMU: fills SOURCE, then checks TARGET. */
static int cpu_fills_and_checks(vdev_t *engine)
{
    gasp_map_handle_t source, target;
    if (gasp_map_firmware(SOURCE, LENGTH, GMF_READ | GMF_WRITE, &source) != EOK)
        return 0;
    memset(gasp_get_vaddr(&source), 0x5a, LENGTH);
    int same = 0;
    if (gasp_map_firmware(TARGET, LENGTH, GMF_READ, &target) == EOK) {
        printf("copy of %d bytes from 0x10008 to 0x40000\n", LENGTH - 8);
        same = copy(engine, TARGET, SOURCE + 8, LENGTH - 8) == EOK &&
               memcmp(gasp_get_vaddr(&target), gasp_get_vaddr(&source), LENGTH - 8) == 0;
        gasp_unmap_handle(&target);
    }
    gasp_unmap_handle(&source);
    return same;
}

int main(void)
{
    gasp_guest_t *guest = NULL;
    vdev_t *engine = NULL;
    struct gasp_fault fault;
    if (make_guest(&guest, &engine) != EOK || !cpu_fills_and_checks(engine)) {
        fprintf(stderr, "%s\n", gasp_last_error());
        return 1;
    }
    printf("copied\ncopy back, which the guest does not allow\n");
    if (copy(engine, SOURCE, TARGET, LENGTH) != EFAULT)
        return 1;
    printf("  refused: %s\n", gasp_last_error());
    while (gasp_guest_next_fault(guest, &fault) == EOK)
        printf("fault record: device %s, address 0x%" PRIx64 ", access %u, reason %u\n", fault.name,
               fault.device_addr, fault.access, fault.refusal);
    return gasp_guest_destroy(guest) == EOK ? 0 : 1;
}
