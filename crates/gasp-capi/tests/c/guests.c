/* <gasp/guest.h>: guests from files and options, several guests, and objects that are none. */
#include "fixture.h"

#include <pthread.h>

static const char small[] =
    "[guest]\nname = \"small\"\n"
    "[iommu]\nunattached = \"deny\"\n"
    "[[ram]]\nstart = 0\nsize = \"64K\"\n"
    "[[domain]]\nname = \"disk\"\nkind = \"identity\"\n"
    "grant-identity = [{ start = 0, size = \"4K\", access = \"r\" }]\n"
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

static void refuse_domain(gasp_domain_t *bad, vdev_t *vdev)
{
    CHECK_ERR(gasp_domain_grant(bad, 0, 0, PAGE, RW), EINVAL);
    CHECK_ERR(gasp_domain_revoke(bad, 0, PAGE, NULL), EINVAL);
    CHECK_ERR(gasp_domain_destroy(bad), EINVAL);
    CHECK_ERR(gasp_vdev_attach(vdev, bad, NULL), EINVAL);
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
};
RUN(tests)
