/* <gasp/guest.h>: guests, their memory, devices, domains, faults and drains; the log. */
#include "fixture.h"

#include <pthread.h>
#include <time.h>

static const char small[] =
    "[guest]\nname = \"small\"\n"
    "[iommu]\nunattached = \"deny\"\n"
    "[[ram]]\nstart = 0\nsize = \"64K\"\n"
    "[[domain]]\nname = \"disk\"\nkind = \"identity\"\n"
    "allow = [{ start = 0, size = \"4K\", access = \"r\" }]\n"
    "[[vdev]]\nname = \"disk\"\ndomain = \"disk\"\n";

static void check_small(gasp_guest_t *guest)
{
    vdev_t *disk = NULL;
    gasp_domain_t *domain = NULL;
    gasp_map_handle_t h;
    CHECK_OK(gasp_vdev_find(guest, "disk", &disk));
    CHECK_OK(gasp_domain_find(guest, "disk", &domain));
    CHECK_OK(gasp_map(disk, 0, PAGE, GMF_READ, &h));
    gasp_unmap_handle(&h);
    CHECK_ERR(gasp_map(disk, 0, PAGE, GMF_WRITE, &h), EFAULT);
}

static void a_guest_from_a_text(void)
{
    gasp_guest_t *guest = NULL;
    CHECK_OK(gasp_guest_parse(small, &guest));
    check_small(guest);
    end(guest);
}

static void a_guest_from_a_file(void)
{
    char path[] = "/tmp/guest-XXXXXX";
    gasp_guest_t *guest = NULL;
    const int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, small, strlen(small)) == (ssize_t)strlen(small));
    close(fd);
    CHECK_OK(gasp_guest_load(path, &guest));
    unlink(path);
    check_small(guest);
    end(guest);
}

static void a_device_of_one_register_from_a_text(void)
{
    gasp_guest_t *guest = NULL;
    struct qvm_state_block block = { 0xfa000000, PAGE, QST_MEMORY, 0, 0 };
    struct gasp_region region;
    CHECK_OK(gasp_guest_parse("[[vdev]]\nname = \"trace\"\n"
                              "[[mmio]]\nvdev = \"trace\"\nstart = 0xfa000000\nsize = 4\n"
                              "[[reserve]]\nstart = 0x1000\nsize = 8\n", &guest));
    CHECK_OK(gasp_region_info(&block, &region));
    CHECK(region.guest.length == 4 && region.vdev);
    block.location = 0x1000;
    CHECK_OK(gasp_region_info(&block, &region));
    CHECK(region.guest.length == 8);
    end(guest);
    CHECK_ERR(gasp_guest_parse("[[ram]]\nstart = 0\nsize = 2048\n", &guest), EINVAL);
}

static void configurations_that_are_wrong(void)
{
    gasp_guest_t *const none = (gasp_guest_t *)(uintptr_t)1;
    gasp_guest_t *guest = none;
    CHECK_ERR(gasp_guest_load("/nowhere/guest.toml", &guest), ENOENT);
    CHECK_ERR(gasp_guest_load(NULL, &guest), EINVAL);
    CHECK_ERR(gasp_guest_load("/nowhere", NULL), EINVAL);
    CHECK_ERR(gasp_guest_parse(NULL, &guest), EINVAL);
    CHECK_ERR(gasp_guest_parse(small, NULL), EINVAL);
    CHECK_ERR(gasp_guest_parse("[guest]\nname = \"a\"\nnaem = 1\n", &guest), EINVAL);
    CHECK(strstr(gasp_last_error(), "3")); /* the line */
    CHECK_ERR(gasp_guest_parse("[[ram]]\nstart = 0\nsize = \"8K\"\n"
                               "[[ram]]\nstart = 4096\nsize = \"8K\"\n", &guest), EEXIST);
    CHECK(guest == none); /* written only on success */
}

static void options_of_a_guest(void)
{
    struct gasp_guest_options options = GASP_GUEST_OPTIONS_INIT;
    gasp_guest_t *guest;
    CHECK_OK(gasp_guest_create(NULL, &guest));
    end(guest);
    CHECK_OK(gasp_guest_create(&options, &guest));
    end(guest);
    CHECK_ERR(gasp_guest_create(NULL, NULL), EINVAL);
    options.iommu = 3;
    CHECK_ERR(gasp_guest_create(&options, &guest), EINVAL);
    options.iommu = GASP_IOMMU_BYPASS;
    options.at_deadline = 2;
    CHECK_ERR(gasp_guest_create(&options, &guest), EINVAL);
    options.at_deadline = GASP_DRAIN_DETACH;
    options.reserved = 1;
    CHECK_ERR(gasp_guest_create(&options, &guest), EINVAL);
    options.reserved = 0;
    options.address_width = 31;
    CHECK_ERR(gasp_guest_create(&options, &guest), EINVAL);
    options.address_width = 53;
    CHECK_ERR(gasp_guest_create(&options, &guest), EINVAL);
    options.address_width = 52;
    options.name = "";
    CHECK_ERR(gasp_guest_create(&options, &guest), EINVAL);
    options.name = "a guest";
    CHECK_OK(gasp_guest_create(&options, &guest));
    end(guest);
}

static char first_byte(void)
{
    gasp_map_handle_t h;
    CHECK_OK(gasp_map_firmware(0, 1, GMF_READ, &h));
    const char byte = *(const char *)gasp_get_vaddr(&h);
    gasp_unmap_handle(&h);
    return byte;
}

static gasp_guest_t *marked(char byte)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    gasp_map_handle_t h;
    ram(guest, 0, PAGE);
    CHECK_OK(gasp_guest_use(guest));
    CHECK_OK(gasp_map_firmware(0, 1, RW, &h));
    *(char *)gasp_get_vaddr(&h) = byte;
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_guest_use(NULL));
    return guest;
}

static void all_of_it(uint64_t *guest_loc, size_t *length)
{
    (void)guest_loc, (void)length;
}

/* Every call that names no guest, on a thread that has chosen none of two. */
static void *has_chosen_none(void *unused)
{
    const struct qvm_state_block block = { 0, PAGE, QST_MEMORY, 0, 0 };
    struct gasp_region region;
    gasp_walk_state_t walk;
    gasp_walk_state_filtered_t filtered;
    gasp_map_handle_t h;
    (void)unused;
    CHECK_ERR(gasp_map_firmware(0, 1, GMF_READ, &h), ENOTUNIQ);
    CHECK(strstr(gasp_last_error(), "gasp_guest_use") && strstr(gasp_last_error(), "ENOTUNIQ"));
    CHECK_ERRNO(gasp_map_sys(0, 1, GMF_READ), NULL, ENOTUNIQ);
    CHECK_ERR(gasp_region_info(&block, &region), ENOTUNIQ);
    memset(&region, 0, sizeof region);
    region.guest = block; /* would delete it */
    CHECK_ERRNO((gasp_region_set(1, &region), 0), 0, ENOTUNIQ);
    CHECK_ERRNO(gasp_region_set_soft(1, &region), 0, ENOTUNIQ);
    CHECK_ERR(gasp_lock(QST_MEMORY), ENOTUNIQ);
    CHECK_ERR(gasp_lock(QST_X86_IO), ENOTUNIQ);
    CHECK_ERRNO(gasp_find_free(QST_MEMORY, 1, 0), QSL_NO_LOCATION, ENOTUNIQ);
    CHECK_ERRNO(gasp_find_free_range(QST_MEMORY, 1, 0, 0, 8), QSL_NO_LOCATION, ENOTUNIQ);
    CHECK_ERRNO(gram_find_free(1, 0, 0), QSL_NO_LOCATION, ENOTUNIQ);
    CHECK_ERRNO(gram_find_free_range(1, 0, 0, 0, 8), QSL_NO_LOCATION, ENOTUNIQ);
    CHECK_ERR(gram_reserve(0, 1), ENOTUNIQ);
    CHECK_ERR(gasp_walk_init(&walk, 0, 0), ENOTUNIQ);
    CHECK_ERRNO(gasp_walk_count(0, 0), 0, ENOTUNIQ);
    CHECK_ERR(gasp_walk_init_filtered(&filtered, 0, 0, all_of_it), ENOTUNIQ);
    CHECK_ERRNO(gasp_walk_count_filtered(0, 0, all_of_it), 0, ENOTUNIQ);
    return NULL;
}

static void quiet(void *context, uint32_t level, const char *line)
{
    (void)context, (void)level, (void)line;
}

static void two_guests_in_one_process(void)
{
    gasp_guest_t *a = marked('a');
    CHECK(first_byte() == 'a'); /* the only guest */
    gasp_guest_t *b = marked('b');
    vdev_t *disk = device(a, "disk");
    gasp_map_handle_t h;
    pthread_t thread;
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, quiet, NULL));
    has_chosen_none(NULL);
    CHECK_OK(gasp_guest_use(b));
    CHECK(first_byte() == 'b');
    CHECK(pthread_create(&thread, NULL, has_chosen_none, NULL) == 0); /* not inherited */
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_OK(gasp_map(disk, 0, 1, GMF_READ, &h)); /* names a's device */
    CHECK(*(char *)gasp_get_vaddr(&h) == 'a');
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_guest_use(NULL));
    has_chosen_none(NULL);
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, NULL, NULL));
    CHECK_OK(gasp_guest_use(b));
    end(b);
    CHECK_ERR(gasp_map_firmware(0, 1, GMF_READ, &h), ENXIO); /* destroyed since */
    CHECK_ERR(gasp_guest_use(b), EINVAL);
    CHECK_OK(gasp_guest_use(NULL));
    b = marked('b');
    end(a);
    CHECK(first_byte() == 'b'); /* the only guest now */
    end(b);
    CHECK_ERR(gasp_map_firmware(0, 1, GMF_READ, &h), ENXIO);
}

struct mapper {
    vdev_t *disk;
    unsigned mapped;
};

static void *map_until_refused(void *context)
{
    struct mapper *mapper = context;
    gasp_map_handle_t h;
    errno_t error;
    while ((error = gasp_map(mapper->disk, 0, 8, RW, &h)) == EOK) {
        memset(gasp_get_vaddr(&h), 1, 8);
        gasp_unmap_handle(&h);
        __atomic_add_fetch(&mapper->mapped, 1, __ATOMIC_SEQ_CST);
    }
    CHECK_ERR(error, EINVAL);
    return NULL;
}

static void destroyed_while_another_thread_maps(void)
{
    for (unsigned i = 0; i < rounds(100); i++) {
        gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
        struct mapper mapper = { device(guest, "disk"), 0 };
        pthread_t thread;
        ram(guest, 0, PAGE);
        CHECK(pthread_create(&thread, NULL, map_until_refused, &mapper) == 0);
        while (__atomic_load_n(&mapper.mapped, __ATOMIC_SEQ_CST) == 0)
            ;
        end(guest);
        CHECK(pthread_join(thread, NULL) == 0);
    }
}

/* Every call refuses a pointer that is not an existing object of the right kind. */
static void refuse_guest(gasp_guest_t *bad)
{
    struct gasp_fault fault;
    vdev_t *vdev;
    gasp_domain_t *domain;
    uint64_t start = 0;
    CHECK_ERR(gasp_guest_destroy(bad), EINVAL);
    CHECK_ERR(gasp_guest_start(bad), EINVAL);
    CHECK_ERR(gasp_guest_next_fault(bad, &fault), EINVAL);
    CHECK_ERR(gasp_guest_add_ram(bad, &start, PAGE, 0, 0), EINVAL);
    CHECK_ERR(gasp_guest_add_rom(bad, &start, "x", 1), EINVAL);
    CHECK_ERR(gasp_guest_add_shared(bad, &start, PAGE, 0, 0, RW, GASP_OWNER_UNTRUSTED), EINVAL);
    CHECK_ERR(gasp_guest_add_window(bad, 0, PAGE, 0, 0, 0, RW), EINVAL);
    CHECK_ERR(gasp_guest_remove(bad, 0, PAGE, NULL), EINVAL);
    CHECK_ERR(gasp_vdev_create(bad, "x", &vdev), EINVAL);
    CHECK_ERR(gasp_vdev_find(bad, "x", &vdev), EINVAL);
    CHECK_ERR(gasp_domain_create(bad, "x", 0, NULL, &domain), EINVAL);
    CHECK_ERR(gasp_domain_find(bad, "x", &domain), EINVAL);
    if (bad)
        CHECK_ERR(gasp_guest_use(bad), EINVAL);
}

static void refuse_vdev(vdev_t *bad, gasp_domain_t *domain)
{
    gasp_map_handle_t h;
    uint64_t address = 0;
    size_t length = 8;
    CHECK_ERR(gasp_vdev_attach(bad, domain, NULL), EINVAL);
    CHECK_ERR(gasp_vdev_detach(bad, NULL), EINVAL);
    CHECK_ERR(gasp_vdev_destroy(bad, NULL), EINVAL);
    CHECK_ERR(gasp_map(bad, 0, 8, GMF_READ, &h), EINVAL);
    CHECK_ERR(gasp_map_host_contig(bad, &address, &length, GMF_READ, &h), EINVAL);
    CHECK_ERRNO(gasp_map_vdma(bad, 0, 8, GMF_READ), NULL, EINVAL);
}

static void refuse_domain(gasp_domain_t *bad, vdev_t *vdev)
{
    CHECK_ERR(gasp_domain_grant(bad, 0, 0, PAGE, RW), EINVAL);
    CHECK_ERR(gasp_domain_revoke(bad, 0, PAGE, NULL), EINVAL);
    CHECK_ERR(gasp_domain_destroy(bad), EINVAL);
    CHECK_ERR(gasp_vdev_attach(vdev, bad, NULL), EINVAL);
}

static void refuse_drain(gasp_drain_t *bad)
{
    struct gasp_drained drained;
    uint64_t pending;
    CHECK_ERR(gasp_drain_pending(bad, &pending), EINVAL);
    CHECK_ERR(gasp_drain_wait(bad, &drained), EINVAL);
    CHECK_ERR(gasp_drain_abandon(bad), EINVAL);
}

static void pointers_that_are_no_objects_are_refused(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *domain = domain_of(guest, disk, "disk", GASP_DOMAIN_IDENTITY);
    char not_an_object[64] = { 0 };
    void *const bad[] = { (void *)(uintptr_t)1, (void *)UINTPTR_MAX, not_an_object, (char *)guest + 1 };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        refuse_guest(bad[i]);
        refuse_vdev(bad[i], domain);
        refuse_domain(bad[i], disk);
        refuse_drain(bad[i]);
    }
    refuse_guest(NULL);
    refuse_vdev(NULL, domain);
    refuse_domain(NULL, disk);
    /* Of another kind. */
    refuse_guest((gasp_guest_t *)(void *)disk);
    refuse_guest((gasp_guest_t *)(void *)domain);
    refuse_vdev((vdev_t *)(void *)guest, domain);
    refuse_vdev((vdev_t *)(void *)domain, domain);
    refuse_domain((gasp_domain_t *)(void *)disk, disk);
    refuse_drain((gasp_drain_t *)(void *)disk);
    end(guest);
}

static void objects_that_were_destroyed(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk"), *net = device(guest, "net");
    gasp_domain_t *domain = domain_of(guest, disk, "disk", GASP_DOMAIN_IDENTITY);
    gasp_domain_t *other = domain_of(guest, net, "net", GASP_DOMAIN_IDENTITY);
    vdev_t *found;
    CHECK_ERR(gasp_domain_destroy(domain), EBUSY);
    CHECK_OK(gasp_vdev_destroy(disk, NULL));
    CHECK_OK(gasp_domain_destroy(domain));
    CHECK_ERR(gasp_vdev_find(guest, "disk", &found), ENOENT);
    refuse_vdev(disk, other);
    refuse_domain(domain, net);
    CHECK(device(guest, "disk") != disk); /* a new one is not the old one */
    refuse_vdev(disk, other);
    end(guest);
    refuse_guest(guest);
    refuse_vdev(net, other);
    refuse_domain(other, net);
}

static void names(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    char name[130];
    vdev_t *vdev;
    gasp_domain_t *domain;
    memset(name, 'n', sizeof name);
    name[129] = 0;
    const char *const bad[] = { NULL, "", "a\nb", "\x7f", "\xff\xfe", name };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        CHECK_ERR(gasp_vdev_create(guest, bad[i], &vdev), EINVAL);
        CHECK_ERR(gasp_vdev_find(guest, bad[i], &vdev), EINVAL);
        CHECK_ERR(gasp_domain_create(guest, bad[i], GASP_DOMAIN_DENY, NULL, &domain), EINVAL);
        CHECK_ERR(gasp_domain_find(guest, bad[i], &domain), EINVAL);
        if (bad[i])
            CHECK_ERR(gasp_domain_create(guest, "d", GASP_DOMAIN_DENY, bad[i], &domain), EINVAL);
    }
    name[128] = 0;
    CHECK_OK(gasp_vdev_create(guest, name, &vdev));
    CHECK_ERR(gasp_vdev_create(guest, name, &vdev), EEXIST);
    CHECK_OK(gasp_domain_create(guest, name, GASP_DOMAIN_DENY, NULL, &domain));
    CHECK_ERR(gasp_domain_create(guest, name, GASP_DOMAIN_DENY, NULL, &domain), EEXIST);
    CHECK_ERR(gasp_domain_create(guest, "kind", 4, NULL, &domain), EINVAL);
    CHECK_ERR(gasp_vdev_create(guest, "place", NULL), EINVAL);
    CHECK_ERR(gasp_domain_create(guest, "place", GASP_DOMAIN_DENY, NULL, NULL), EINVAL);
    end(guest);
}

static void ram_of_a_guest(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    gasp_map_handle_t h;
    uint64_t start = GASP_ANYWHERE;
    CHECK_OK(gasp_guest_add_ram(guest, &start, 4 * PAGE, GASP_PAGES_ANY, GASP_PINNED));
    CHECK(start == 0);
    CHECK_OK(gasp_map_firmware(0, 4 * PAGE, GMF_READ, &h));
    for (size_t i = 0; i < 4 * PAGE; i++)
        CHECK(((const char *)gasp_get_vaddr(&h))[i] == 0);
    gasp_unmap_handle(&h);
    start = GASP_ANYWHERE;
    CHECK_OK(gasp_guest_add_ram(guest, &start, PAGE, GASP_PAGES_4K, GASP_ON_DEMAND));
    CHECK(start == 4 * PAGE); /* after the highest RAM */
    CHECK_ERR(gasp_guest_add_ram(guest, NULL, PAGE, 0, 0), EINVAL);
    CHECK_ERR(gasp_guest_add_ram(guest, &start, PAGE, 0, 0), EEXIST);
    start = MIB;
    CHECK_ERR(gasp_guest_add_ram(guest, &start, PAGE + 1, GASP_PAGES_4K, 0), EINVAL);
    CHECK_ERR(gasp_guest_add_ram(guest, &start, 0, GASP_PAGES_4K, 0), EINVAL);
    CHECK_ERR(gasp_guest_add_ram(guest, &start, PAGE, 16, 0), EINVAL);
    CHECK_ERR(gasp_guest_add_ram(guest, &start, PAGE, 0, 3), EINVAL);
    start = MIB + 8;
    CHECK_ERR(gasp_guest_add_ram(guest, &start, PAGE, GASP_PAGES_4K, 0), EINVAL);
    start = (UINT64_C(1) << 48) - PAGE;
    CHECK_ERR(gasp_guest_add_ram(guest, &start, 2 * PAGE, GASP_PAGES_4K, 0), ENXIO);
    CHECK(start == (UINT64_C(1) << 48) - PAGE);
    end(guest);
}

static void rom_of_a_guest(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    gasp_map_handle_t h;
    uint64_t start = GASP_ANYWHERE;
    CHECK_OK(gasp_guest_add_rom(guest, &start, "content", 7));
    CHECK_OK(gasp_map_firmware(start, PAGE, ANY_READ, &h));
    const char *bytes = gasp_get_vaddr(&h);
    CHECK(memcmp(bytes, "content", 7) == 0 && bytes[7] == 0 && bytes[PAGE - 1] == 0);
    gasp_unmap_handle(&h);
    start = MIB;
    CHECK_ERR(gasp_guest_add_rom(guest, &start, NULL, 7), EINVAL);
    CHECK_ERR(gasp_guest_add_rom(guest, &start, "", 0), EINVAL);
    start = 0;
    CHECK_ERR(gasp_guest_add_rom(guest, &start, "x", 1), EEXIST);
    end(guest);
}

/* For the test below: allocations can fail under the sanitizer, too. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static void rom_that_is_far_too_long(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    gasp_map_handle_t h;
    volatile size_t huge = SIZE_MAX / 4; /* none of it is read */
    uint64_t start = MIB;
    CHECK(gasp_guest_add_rom(guest, &start, "x", huge) != EOK && start == MIB);
    CHECK_ERR(gasp_guest_add_rom(guest, &start, "x", huge), ENOMEM);
    CHECK_ERR(gasp_map_firmware(MIB, 1, ANY_READ, &h), ENXIO);
    CHECK_OK(gasp_guest_add_rom(guest, &start, "x", 1)); /* later calls succeed */
    end(guest);
}

static void memory_that_its_owner_can_take_away_is_refused(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    const int open_ended = memfd_create("open-ended", MFD_CLOEXEC); /* cannot be sealed */
    const int sealable = memfd_create("sealable", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    uint64_t start = 0;
    CHECK(ftruncate(open_ended, PAGE) == 0 && ftruncate(sealable, PAGE) == 0);
    CHECK_ERR(gasp_guest_add_shared(guest, &start, PAGE, open_ended, 0, RW, GASP_OWNER_UNTRUSTED),
              EPERM);
    CHECK_OK(gasp_guest_add_shared(guest, &start, PAGE, sealable, 0, RW, GASP_OWNER_UNTRUSTED));
    CHECK(fcntl(sealable, F_GET_SEALS) & F_SEAL_SHRINK);
    CHECK(ftruncate(sealable, 0) == -1);
    start = PAGE;
    CHECK_OK(gasp_guest_add_shared(guest, &start, PAGE, open_ended, 0, RW, GASP_OWNER_TRUSTED));
    close(open_ended);
    close(sealable);
    end(guest);
}

static void shared_memory_of_a_guest(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    const int fd = memfd(4 * PAGE);
    gasp_map_handle_t h;
    uint64_t start = 0;
    char byte = 0;
    CHECK_ERR(gasp_guest_add_shared(guest, &start, 2 * PAGE, fd, PAGE, RW, 2), EINVAL);
    CHECK_OK(gasp_guest_add_shared(guest, &start, 2 * PAGE, fd, PAGE, RW, GASP_OWNER_TRUSTED));
    CHECK_OK(gasp_map_firmware(PAGE, 1, RW, &h));
    *(char *)gasp_get_vaddr(&h) = 's';
    gasp_unmap_handle(&h);
    CHECK(pread(fd, &byte, 1, 2 * PAGE) == 1 && byte == 's');
    start = GASP_ANYWHERE;
    CHECK_OK(gasp_guest_add_shared(guest, &start, PAGE, fd, 0, GMF_READ, GASP_OWNER_TRUSTED));
    CHECK(start == 2 * PAGE);
    CHECK_ERR(gasp_map_firmware(start, 1, GMF_WRITE, &h), EACCES);
    start = MIB;
    CHECK_ERR(gasp_guest_add_shared(guest, &start, PAGE, -1, 0, RW, GASP_OWNER_UNTRUSTED), EBADF);
    CHECK_ERR(gasp_guest_add_shared(guest, &start, PAGE, 1 << 20, 0, RW, GASP_OWNER_UNTRUSTED), EBADF);
    CHECK_ERR(gasp_guest_add_shared(guest, &start, 8 * PAGE, fd, 0, RW, GASP_OWNER_UNTRUSTED), EINVAL); /* too short */
    CHECK(fcntl(fd, F_GETFD) != -1); /* it remains the caller's */
    close(fd);
    CHECK_OK(gasp_map_firmware(0, 2 * PAGE, RW, &h));
    gasp_unmap_handle(&h);
    end(guest);
}

static void removed_memory(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    gasp_map_handle_t h;
    ram(guest, 0, 4 * PAGE);
    CHECK_ERR(gasp_guest_remove(guest, MIB, PAGE, NULL), ENOENT);
    CHECK_ERR(gasp_guest_remove(guest, 0, PAGE + 1, NULL), EINVAL);
    CHECK_ERR(gasp_guest_remove(guest, 1, PAGE, NULL), EINVAL);
    CHECK_ERR(gasp_guest_remove(guest, 0, 0, NULL), EINVAL);
    CHECK_OK(gasp_guest_remove(guest, PAGE, PAGE, NULL));
    CHECK_ERR(gasp_map_firmware(PAGE, 1, GMF_READ, &h), ENXIO);
    CHECK_OK(gasp_map_firmware(2 * PAGE, PAGE, GMF_READ, &h));
    gasp_unmap_handle(&h);
    end(guest);
}

static void kinds_of_domains(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *all = device(guest, "all"), *none = device(guest, "none"), *net = device(guest, "net");
    gasp_domain_t *bypass = domain_of(guest, all, "bypass", GASP_DOMAIN_BYPASS);
    gasp_domain_t *deny = domain_of(guest, none, "deny", GASP_DOMAIN_DENY);
    gasp_domain_t *translate = domain_of(guest, net, "net", GASP_DOMAIN_TRANSLATE);
    struct gasp_fault fault;
    gasp_map_handle_t h;
    ram(guest, 0, 4 * PAGE);
    CHECK_OK(gasp_map(all, 0, 4 * PAGE, RW, &h));
    gasp_unmap_handle(&h);
    CHECK_ERR(gasp_map(none, 0, 8, GMF_READ, &h), EFAULT);
    CHECK_OK(gasp_guest_next_fault(guest, &fault));
    CHECK(fault.refusal == GASP_REFUSED_DENY_DOMAIN && fault.vdev == none);
    CHECK_ERR(gasp_domain_grant(bypass, 0, 0, PAGE, RW), EINVAL);
    CHECK_ERR(gasp_domain_grant(deny, 0, 0, PAGE, RW), EINVAL);
    CHECK_OK(gasp_domain_grant(translate, MIB, 0, PAGE, GMF_READ));
    CHECK_OK(gasp_domain_grant(translate, MIB, 0, PAGE, GMF_WRITE)); /* access is added */
    CHECK_OK(gasp_map(net, MIB, PAGE, RW, &h));
    gasp_unmap_handle(&h);
    CHECK_ERR(gasp_domain_grant(translate, MIB, PAGE, PAGE, RW), EEXIST);
    CHECK_ERR(gasp_domain_grant(translate, MIB, 0, 0, RW), EINVAL);
    CHECK_ERR(gasp_domain_grant(translate, UINT64_MAX - PAGE + 1, 0, 2 * PAGE, RW), ENXIO);
    CHECK_ERR(gasp_domain_grant(translate, 0, UINT64_C(1) << 48, PAGE, RW), ENXIO);
    end(guest);
}

static void owners_of_domains(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *mine, *also_mine, *theirs;
    CHECK_OK(gasp_domain_create(guest, "mine", GASP_DOMAIN_IDENTITY, NULL, &mine));
    CHECK_OK(gasp_domain_create(guest, "also mine", GASP_DOMAIN_IDENTITY, "guest", &also_mine));
    CHECK_OK(gasp_domain_create(guest, "theirs", GASP_DOMAIN_IDENTITY, "firmware", &theirs));
    CHECK_OK(gasp_vdev_attach(disk, mine, NULL));
    CHECK_ERR(gasp_vdev_attach(disk, theirs, NULL), EBUSY);
    CHECK_OK(gasp_vdev_attach(disk, also_mine, NULL));
    CHECK_OK(gasp_domain_destroy(mine));
    CHECK_OK(gasp_vdev_detach(disk, NULL));
    CHECK_OK(gasp_vdev_attach(disk, theirs, NULL));
    end(guest);
}

static void moving_a_device_revokes_its_mappings(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *old = domain_of(guest, disk, "old", GASP_DOMAIN_IDENTITY), *next;
    gasp_map_handle_t h;
    gasp_drain_t *drain;
    ram(guest, 0, PAGE);
    grant(old, 0, PAGE, RW);
    CHECK_OK(gasp_domain_create(guest, "next", GASP_DOMAIN_BYPASS, NULL, &next));
    CHECK_OK(gasp_map(disk, 0, 8, RW, &h));
    CHECK_OK(gasp_vdev_attach(disk, next, &drain));
    CHECK_OK(gasp_drain_abandon(drain));
    CHECK_ERR(gasp_map_check(&h), ESTALE);
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_map(disk, 0, 8, RW, &h));
    CHECK_OK(gasp_vdev_detach(disk, &drain));
    CHECK_OK(gasp_drain_abandon(drain));
    CHECK_ERR(gasp_map_check(&h), ESTALE);
    gasp_unmap_handle(&h);
    CHECK_ERR(gasp_map(disk, 0, 8, RW, &h), EFAULT);
    end(guest);
}

static void fault_records_are_64_and_then_counted(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    struct gasp_fault fault;
    gasp_map_handle_t h;
    ram(guest, 0, PAGE);
    for (unsigned i = 0; i < 70; i++)
        CHECK_ERR(gasp_map(disk, i, 8, GMF_READ, &h), EFAULT);
    for (unsigned i = 0; i < 64; i++) {
        CHECK_OK(gasp_guest_next_fault(guest, &fault));
        CHECK(fault.device_addr == i && fault.dropped == (i ? 0 : 6));
    }
    CHECK_ERR(gasp_guest_next_fault(guest, &fault), ENOENT);
    CHECK_ERR(gasp_guest_next_fault(guest, NULL), EINVAL);
    CHECK_ERR(gasp_map(disk, 0, 8, GMF_READ, &h), EFAULT);
    CHECK_OK(gasp_vdev_destroy(disk, NULL));
    CHECK_OK(gasp_guest_next_fault(guest, &fault));
    CHECK(fault.vdev == NULL && strcmp(fault.name, "disk") == 0);
    end(guest);
}

/* A guest with a held mapping, whose drains reach `at_deadline` after some milliseconds. */
static gasp_guest_t *held(uint32_t at_deadline, uint32_t ms, gasp_map_handle_t *h)
{
    struct gasp_guest_options options = GASP_GUEST_OPTIONS_INIT;
    gasp_guest_t *guest;
    options.at_deadline = at_deadline;
    options.drain_deadline_ms = ms;
    CHECK_OK(gasp_guest_create(&options, &guest));
    ram(guest, 0, PAGE);
    *h = mapped_elsewhere(device(guest, "disk"), 0);
    return guest;
}

static void *unmap_after_20_ms(void *h)
{
    const struct timespec time = { 0, 20000000 };
    nanosleep(&time, NULL);
    gasp_unmap_handle(h);
    return NULL;
}

static void a_drain_is_waited_for(void)
{
    gasp_map_handle_t h;
    gasp_guest_t *guest = held(GASP_DRAIN_WAIT, 60000, &h);
    struct gasp_drained drained;
    gasp_drain_t *drain;
    pthread_t thread;
    CHECK_OK(gasp_guest_remove(guest, 0, PAGE, &drain));
    CHECK_ERR(gasp_drain_pending(drain, NULL), EINVAL);
    CHECK(pthread_create(&thread, NULL, unmap_after_20_ms, &h) == 0);
    CHECK_OK(gasp_drain_wait(drain, &drained));
    CHECK(drained.holders == 1 && drained.detached == 0 && drained.waited_ns > 0);
    CHECK(pthread_join(thread, NULL) == 0);
    refuse_drain(drain); /* it has ended */
    end(guest);
}

static void a_deadline_can_detach(void)
{
    gasp_map_handle_t h;
    gasp_guest_t *guest = held(GASP_DRAIN_DETACH, 10, &h);
    struct gasp_drained drained;
    gasp_drain_t *drain;
    CHECK_OK(gasp_set_log(GASP_LOG_OFF, NULL, NULL));
    CHECK_OK(gasp_map_check(&h));
    CHECK_OK(gasp_guest_remove(guest, 0, PAGE, &drain));
    CHECK_OK(gasp_drain_wait(drain, &drained));
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, NULL, NULL));
    CHECK(drained.holders == 1 && drained.detached == 1);
    CHECK_ERR(gasp_map_check(&h), ESTALE);
    memset(gasp_get_vaddr(&h), 1, 8); /* its memory remains */
    gasp_unmap_handle(&h);
    CHECK_ERR(gasp_map_check(&h), EBADF);
    end(guest);
}

static void null_is_a_drain_that_has_ended(void)
{
    struct gasp_drained drained = { 1, 1, 1 };
    uint64_t pending = 1;
    CHECK_OK(gasp_drain_pending(NULL, &pending));
    CHECK_OK(gasp_drain_wait(NULL, NULL));
    CHECK_OK(gasp_drain_wait(NULL, &drained));
    CHECK_OK(gasp_drain_abandon(NULL));
    CHECK(pending == 0 && drained.holders == 0 && drained.detached == 0 && drained.waited_ns == 0);
}

static void *has_no_error_yet(void *unused)
{
    (void)unused;
    CHECK(strcmp(gasp_last_error(), "") == 0);
    return NULL;
}

static void the_last_error_is_a_sentence_of_this_thread(void)
{
    gasp_map_handle_t h;
    pthread_t thread;
    CHECK(strcmp(gasp_version(), "0.1.0") == 0);
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    ram(guest, 0, PAGE);
    CHECK_ERR(gasp_map(disk, 0x123, 0x45, GMF_READ, &h), EFAULT);
    const char *text = gasp_last_error();
    CHECK(strstr(text, "disk") && strstr(text, "0x123") && strstr(text, "69 bytes"));
    CHECK(strstr(text, "EFAULT"));
    CHECK_OK(gasp_map_firmware(0, 8, GMF_READ, &h));
    gasp_unmap_handle(&h);
    CHECK(gasp_last_error() == text && strstr(text, "0x123")); /* a success does not change it */
    CHECK(pthread_create(&thread, NULL, has_no_error_yet, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    end(guest);
}

struct seen {
    unsigned lines;
    uint32_t level;
};

static void see(void *context, uint32_t level, const char *line)
{
    struct seen *seen = context;
    CHECK(line && *line && !strchr(line, '\n'));
    seen->lines++;
    seen->level = level;
}

static void levels_of_the_log(void)
{
    struct seen seen = { 0, 0 };
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    CHECK_ERR(gasp_set_log(GASP_LOG_DEBUG + 1, see, &seen), EINVAL);
    CHECK_OK(gasp_set_log(GASP_LOG_OFF, see, &seen));
    CHECK_ERR(gasp_unlock(QST_MEMORY), EPERM);
    CHECK_OK(gasp_set_log(GASP_LOG_ERROR, see, &seen));
    CHECK_ERR(gasp_unlock(QST_MEMORY), EPERM);
    CHECK(seen.lines == 0);
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, see, &seen));
    CHECK_ERR(gasp_map(NULL, 0, 8, GMF_READ, NULL), EINVAL); /* no warning */
    CHECK(seen.lines == 0);
    CHECK_ERR(gasp_unlock(QST_MEMORY), EPERM);
    CHECK(seen.lines == 1 && seen.level == GASP_LOG_WARN);
    CHECK_OK(gasp_set_log(GASP_LOG_DEBUG, see, &seen));
    seen.lines = 0;
    CHECK_ERR(gasp_map(NULL, 0, 8, GMF_READ, NULL), EINVAL);
    CHECK(seen.lines == 1 && seen.level == GASP_LOG_DEBUG);
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, NULL, NULL));
    end(guest);
}

/* A log function that calls the library, although it must not. */
struct caller {
    unsigned lines, depth, deepest;
};

static void enter(struct caller *caller)
{
    caller->lines++;
    if (++caller->depth > caller->deepest)
        caller->deepest = caller->depth;
}

static void fail_again(void *context, uint32_t level, const char *line)
{
    struct caller *caller = context;
    vdev_t *vdev;
    (void)level;
    (void)line;
    enter(caller);
    if (caller->depth < 50)
        CHECK_ERR(gasp_vdev_find(NULL, "x", &vdev), EINVAL);
    caller->depth--;
}

static void a_log_that_fails_does_not_recurse(void)
{
    struct caller caller = { 0, 0, 0 };
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    alarm(30);
    CHECK_OK(gasp_set_log(GASP_LOG_DEBUG, fail_again, &caller));
    for (unsigned i = 1; i < 4; i++) {
        CHECK_ERR(gasp_lock(QST_VIRTUAL), EINVAL);
        CHECK(caller.lines == i && caller.deepest == 1); /* later lines are logged, too */
    }
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, NULL, NULL));
    alarm(0);
    end(guest);
}

static void make_a_guest(void *context, uint32_t level, const char *line)
{
    gasp_guest_t *guest;
    (void)level;
    (void)line;
    enter(context);
    CHECK_OK(gasp_guest_create(NULL, &guest));
    end(guest);
    ((struct caller *)context)->depth--;
}

static void a_log_that_makes_guests_does_not_hang(void)
{
    struct caller caller = { 0, 0, 0 };
    alarm(30);
    CHECK_OK(gasp_set_log(GASP_LOG_DEBUG, make_a_guest, &caller));
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE); /* the process's first if run alone */
    ram(guest, 0, PAGE);
    CHECK_ERR(gasp_lock(QST_VIRTUAL), EINVAL);
    CHECK(caller.lines >= 1 && caller.deepest == 1);
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, NULL, NULL));
    alarm(0);
    end(guest);
}

static void without_a_function_the_log_is_stderr(void)
{
    char text[256] = { 0 };
    int ends[2];
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    const int kept = dup(STDERR_FILENO);
    CHECK(kept >= 0 && pipe(ends) == 0 && dup2(ends[1], STDERR_FILENO) >= 0);
    const int error = gasp_unlock(QST_MEMORY);
    CHECK(dup2(kept, STDERR_FILENO) >= 0);
    CHECK_ERR(error, EPERM);
    CHECK(read(ends[0], text, sizeof text - 1) > 0 && strstr(text, "gasp_unlock"));
    CHECK(text[strlen(text) - 1] == '\n');
    close(ends[0]);
    close(ends[1]);
    close(kept);
    end(guest);
}

static const struct test tests[] = {
    TEST(a_guest_from_a_text),
    TEST(a_guest_from_a_file),
    TEST(a_device_of_one_register_from_a_text),
    TEST(configurations_that_are_wrong),
    TEST(options_of_a_guest),
    TEST(two_guests_in_one_process),
    TEST(destroyed_while_another_thread_maps),
    TEST(pointers_that_are_no_objects_are_refused),
    TEST(objects_that_were_destroyed),
    TEST(names),
    TEST(ram_of_a_guest),
    TEST(rom_of_a_guest),
    TEST(rom_that_is_far_too_long),
    TEST(memory_that_its_owner_can_take_away_is_refused),
        TEST(memory_that_its_owner_can_take_away_is_refused),
        TEST(shared_memory_of_a_guest),
    TEST(removed_memory),
    TEST(kinds_of_domains),
    TEST(owners_of_domains),
    TEST(moving_a_device_revokes_its_mappings),
    TEST(fault_records_are_64_and_then_counted),
    TEST(a_drain_is_waited_for),
    TEST(a_deadline_can_detach),
    TEST(null_is_a_drain_that_has_ended),
    TEST(the_last_error_is_a_sentence_of_this_thread),
    TEST(levels_of_the_log),
    TEST(a_log_that_fails_does_not_recurse),
    TEST(a_log_that_makes_guests_does_not_hang),
    TEST(without_a_function_the_log_is_stderr),
};
RUN(tests)
