/* Guests, memory and devices for tests, each created by one call that must succeed. */
#ifndef FIXTURE_H
#define FIXTURE_H

#include "check.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE UINT64_C(4096)
#define MIB (UINT64_C(1) << 20)
#define RW (GMF_READ | GMF_WRITE)
#define ANY_READ (GMF_READ | GMF_MAP_ANY)

/* Creates a guest without memory, with a drain deadline of one minute. */
static inline gasp_guest_t *a_guest(uint32_t iommu)
{
    struct gasp_guest_options options = GASP_GUEST_OPTIONS_INIT;
    gasp_guest_t *guest = NULL;
    options.iommu = iommu;
    options.drain_deadline_ms = 60000;
    CHECK_OK(gasp_guest_create(&options, &guest));
    return guest;
}

static inline void ram(gasp_guest_t *guest, uint64_t start, uint64_t size)
{
    CHECK_OK(gasp_guest_add_ram(guest, &start, size, GASP_PAGES_4K, GASP_PINNED));
}

static inline void rom(gasp_guest_t *guest, uint64_t start, uint64_t size)
{
    char *image = calloc(1, size);
    CHECK(image);
    memcpy(image, "rom", 4);
    CHECK_OK(gasp_guest_add_rom(guest, &start, image, size));
    free(image);
}

static inline int memfd(uint64_t size)
{
    const int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    return fd;
}

/* Adds a window declared to be at `host`: its host-physical addresses need no privilege. */
static inline void window(gasp_guest_t *guest, uint64_t start, uint64_t size, uint64_t host)
{
    const int fd = memfd(size);
    CHECK_OK(gasp_guest_add_window(guest, start, size, fd, 0, host, RW));
    close(fd);
}

static inline vdev_t *device(gasp_guest_t *guest, const char *name)
{
    vdev_t *vdev = NULL;
    CHECK_OK(gasp_vdev_create(guest, name, &vdev));
    return vdev;
}

/* Creates a domain and attaches this device to it. */
static inline gasp_domain_t *domain_of(gasp_guest_t *guest, vdev_t *vdev, const char *name,
                                       uint32_t kind)
{
    gasp_domain_t *domain = NULL;
    CHECK_OK(gasp_domain_create(guest, name, kind, NULL, &domain));
    CHECK_OK(gasp_vdev_attach(vdev, domain, NULL));
    return domain;
}

static inline void grant(gasp_domain_t *domain, uint64_t start, uint64_t length, uint32_t access)
{
    CHECK_OK(gasp_domain_grant(domain, start, start, length, access));
}

#if QVM_EDITION == 800
struct map_of_a_thread {
    vdev_t *vdev;
    uint64_t start;
    gasp_map_handle_t h;
};

static inline void *map_in_a_thread(void *context)
{
    struct map_of_a_thread *map = context;
    CHECK_OK(gasp_map(map->vdev, map->start, 8, RW, &map->h));
    return NULL;
}

/* Maps 8 bytes on another thread, so that this one may wait for the mapping. */
static inline gasp_map_handle_t mapped_elsewhere(vdev_t *vdev, uint64_t start)
{
    struct map_of_a_thread map = { vdev, start, { { 0, 0, 0 } } };
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, map_in_a_thread, &map) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    return map.h;
}
#endif

static inline void end(gasp_guest_t *guest)
{
    CHECK_OK(gasp_guest_destroy(guest));
}

/* Every call refuses a drain that has ended, or that never was one. */
static inline void refuse_drain(gasp_drain_t *bad)
{
    struct gasp_drained drained;
    uint64_t pending;
    CHECK_ERR(gasp_drain_pending(bad, &pending), EINVAL);
    CHECK_ERR(gasp_drain_wait(bad, &drained), EINVAL);
    CHECK_ERR(gasp_drain_abandon(bad), EINVAL);
}

/* Every call refuses a vdev that has been destroyed, or that never was one. */
static inline void refuse_vdev(vdev_t *bad, gasp_domain_t *domain)
{
    uint64_t address = 0;
    size_t length = 8;
    CHECK_ERR(gasp_vdev_attach(bad, domain, NULL), EINVAL);
    CHECK_ERR(gasp_vdev_detach(bad, NULL), EINVAL);
    CHECK_ERR(gasp_vdev_destroy(bad, NULL), EINVAL);
#if QVM_EDITION == 800
    gasp_map_handle_t h;
    CHECK_ERR(gasp_map(bad, 0, 8, GMF_READ, &h), EINVAL);
    CHECK_ERR(gasp_map(bad, 0, 2 * PAGE, GMF_READ, &h), EINVAL);
    CHECK_ERR(gasp_map_host_contig(bad, &address, &length, GMF_READ, &h), EINVAL);
    CHECK_ERRNO(gasp_map_contig(bad, &address, &length, GMF_READ), NULL, EINVAL);
    CHECK_ERRNO(gasp_map_vdma(bad, 0, 8, GMF_READ), NULL, EINVAL);
#else
    CHECK_ERRNO(gasp_map_contig(bad, PROT_READ, &address, &length), NULL, EINVAL);
    CHECK_ERRNO(gasp_map_vdma(bad, PROT_READ, 0, 8), NULL, EINVAL);
#endif
    CHECK(address == 0 && length == 8);
}

/* Takes all fault records; returns how many there were. */
static inline unsigned faults(gasp_guest_t *guest)
{
    struct gasp_fault fault;
    unsigned count = 0;
    while (gasp_guest_next_fault(guest, &fault) == EOK)
        count++;
    return count;
}

/* Runs `run` in a child process; returns its exit status, or -1 if a signal ends it. */
static inline int in_child(void (*run)(void))
{
    int status;
    fflush(NULL);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        run();
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The host-physical address of a byte according to the kernel; 0 if it is not readable. */
static inline uint64_t frame_of(const volatile void *vaddr)
{
    uint64_t entry = 0;
    const uintptr_t at = (uintptr_t)vaddr;
    const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    if (pread(fd, &entry, sizeof entry, (off_t)(at / PAGE * sizeof entry)) != sizeof entry)
        entry = 0;
    close(fd);
    const uint64_t frame = entry >> 63 ? entry & ((UINT64_C(1) << 55) - 1) : 0;
    return frame ? frame * PAGE + at % PAGE : 0;
}

static inline const char *lacks_frames(void)
{
    volatile char byte = 1;
    (void)byte;
    return frame_of(&byte) ? NULL : "needs CAP_SYS_ADMIN to learn host-physical addresses";
}

#if QVM_EDITION == 800
/* Why RAM cannot be pinned here, or NULL. */
static inline const char *lacks_pins(void)
{
    if (lacks_frames())
        return lacks_frames();
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *vdev = device(guest, "probe");
    uint64_t address = 0;
    size_t length = 1;
    gasp_map_handle_t h;
    ram(guest, 0, 16 * MIB);
    const errno_t error = gasp_map_host_contig(vdev, &address, &length, GMF_READ, &h);
    if (error == EOK)
        gasp_unmap_handle(&h);
    end(guest);
    return error == EOK ? NULL : "memory cannot be pinned here";
}
#endif

#endif
