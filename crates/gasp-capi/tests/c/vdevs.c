/* vdev_t: its members, its address, and pointers that are no vdev any more or never were. */
#include "region.h"
#include "vdev_members.h"

#include <sys/resource.h>

#define VDEVS_MAX 262144
#define VDEVS_OF_A_GUEST 65536
#define GUESTS_MAX 8

/* Page 0 is memory that any device reaches. */
static gasp_guest_t *with_memory(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    window(guest, 0, 4 * PAGE, 0x10000000);
    return guest;
}

static errno_t try_map(vdev_t *vdev)
{
    gasp_map_handle_t h;
    const errno_t error = gasp_map(vdev, 0, 8, ANY_READ, &h);
    if (error == EOK)
        gasp_unmap_handle(&h);
    return error;
}

static vdev_t *page_of(vdev_t *vdev, intptr_t pages)
{
    return (vdev_t *)((uintptr_t)vdev + (uintptr_t)pages * PAGE);
}

static void a_new_vdev_has_its_guest_no_location_and_zeros(void)
{
    gasp_guest_t *guest = with_memory();
    vdev_t *disk = device(guest, "disk"), *net = device(guest, "net");
    check_new(disk, guest);
    check_new(net, guest);
    end(guest);
}

static void a_vdev_of_a_file_has_members_too(void)
{
    gasp_guest_t *guest;
    vdev_t *disk;
    CHECK_OK(gasp_guest_parse("[[vdev]]\nname = \"disk\"\n", &guest));
    CHECK_OK(gasp_vdev_find(guest, "disk", &disk));
    check_new(disk, guest);
    members_of(disk)->v_device = &guest;
    vdev_t *again;
    CHECK_OK(gasp_vdev_find(guest, "disk", &again));
    CHECK(again == disk && members_of(again)->v_device == &guest);
    end(guest);
}

/* Neither what it maps, nor whose it is, depends on what C writes there. */
static void the_library_reads_no_member(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY), *other = with_memory();
    window(guest, 0, PAGE, 0x10000000);
    vdev_t *disk = device(guest, "disk"), *free_one = device(other, "free");
    gasp_domain_t *domain = domain_of(guest, disk, "disk", GASP_DOMAIN_IDENTITY);
    memcpy((void *)disk, (void *)free_one, PAGE); /* a copy of one that reaches more */
    CHECK_ERR(try_map(disk), EFAULT);
    grant(domain, 0, PAGE, GMF_READ);
    for (int byte = 0; byte < 256; byte += 51) {
        scribble(disk, byte);
        CHECK_OK(try_map(disk));
        CHECK_OK(gasp_vdev_detach(disk, NULL));
        CHECK_ERR(try_map(disk), EFAULT);
        CHECK_OK(gasp_vdev_attach(disk, domain, NULL));
    }
    CHECK_OK(try_map(free_one));
    end(guest);
    end(other);
}

static void a_destroyed_vdev_is_refused_by_every_call(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *stale = device(guest, "disk"), *net = device(guest, "net");
    gasp_domain_t *domain = domain_of(guest, net, "net", GASP_DOMAIN_IDENTITY);
    scribble(stale, 0xff);
    CHECK_OK(gasp_vdev_destroy(stale, NULL));
    refuse_vdev(stale, domain);
    vdev_t *again = device(guest, "disk");
    CHECK(again != stale);
    check_new(again, guest);
    refuse_vdev(stale, domain);
    end(guest);
    refuse_vdev(again, domain);
    refuse_vdev(net, domain);
}

/* Sets registers of a vdev in the running phase. */
static unsigned set_registers(vdev_t *vdev)
{
    const struct gasp_region registers = memory(0xfa000000, PAGE, GRF_VIRT_RD, vdev);
    CHECK_OK(gasp_lock(QST_MEMORY));
    const unsigned done = gasp_region_set_soft(1, &registers);
    CHECK_OK(gasp_unlock(QST_MEMORY));
    return done;
}

static void registers_need_a_vdev_that_exists(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_NONE);
    vdev_t *stale = device(guest, "stale"), *disk = device(guest, "disk");
    struct gasp_region region;
    CHECK_OK(gasp_guest_use(guest));
    CHECK_OK(gasp_vdev_destroy(stale, NULL));
    begin_running(guest);
    vdev_t *const bad[] = { stale, NULL, page_of(disk, 1), page_of(disk, -1),
                            (vdev_t *)((char *)disk + 8), (vdev_t *)(void *)guest };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        errno = 0;
        CHECK(set_registers(bad[i]) == 0);
        CHECK(strstr(gasp_last_error(), "(EINVAL)"));
    }
    CHECK(set_registers(disk) == 1);
    CHECK_OK(info(QST_MEMORY, 0xfa000000, 4, &region));
    CHECK(region.vdev == disk);
    CHECK_OK(gasp_vdev_destroy(disk, NULL));
    CHECK_OK(info(QST_MEMORY, 0xfa000000, 4, &region));
    CHECK(region.vdev == NULL);
    CHECK_OK(gasp_guest_use(NULL));
    end(guest);
}

static void pointers_that_never_were_a_vdev_are_refused_by_every_call(void)
{
    gasp_guest_t *guest = a_guest(GASP_IOMMU_DENY);
    vdev_t *disk = device(guest, "disk");
    gasp_domain_t *domain = domain_of(guest, disk, "disk", GASP_DOMAIN_IDENTITY);
    char like_a_vdev[2 * PAGE];
    memset(like_a_vdev, 0, sizeof like_a_vdev);
    char *aligned = like_a_vdev + (PAGE - (uintptr_t)like_a_vdev % PAGE) % PAGE;
    memcpy(aligned, (void *)disk, PAGE); /* all of its content, but not its address */
    refuse_vdev((vdev_t *)(void *)aligned, domain);
    refuse_vdev(NULL, domain);
    refuse_vdev((vdev_t *)(void *)guest, domain);
    refuse_vdev((vdev_t *)(void *)domain, domain);
    /* Pages that no vdev has had yet, in this generation of the index and in later ones. */
    for (intptr_t page = 1; page < 40; page++)
        refuse_vdev(page_of(disk, page), domain);
    for (intptr_t generation = -16; generation <= 16; generation++)
        if (generation != 0)
            refuse_vdev(page_of(disk, generation * VDEVS_MAX), domain);
    for (int bit = 0; bit < 64; bit++) {
        refuse_vdev((vdev_t *)((uintptr_t)disk ^ (UINT64_C(1) << bit)), domain);
        refuse_vdev((vdev_t *)(UINT64_C(1) << bit), domain);
        refuse_vdev((vdev_t *)(UINTPTR_MAX << bit), domain);
    }
    end(guest);
}

static void an_access_to_a_destroyed_vdev_faults(void)
{
    gasp_guest_t *guest = with_memory();
    vdev_t *stale = device(guest, "stale"), *last = device(guest, "last");
    volatile char *bytes = (volatile char *)(void *)stale;
    for (int write = 0; write < 2; write++)
        CHECK(!faults_at(bytes, write) && !faults_at(bytes + PAGE - 1, write));
    CHECK_OK(gasp_vdev_destroy(stale, NULL));
    for (int write = 0; write < 2; write++)
        CHECK(faults_at(bytes, write) && faults_at(bytes + PAGE - 1, write));
    /* Nor is there anything to read after the last vdev. */
    volatile char *after = (volatile char *)(void *)last + PAGE;
    CHECK(faults_at(after, 0) && faults_at(after, 1));
    end(guest);
    CHECK(faults_at((volatile char *)(void *)last, 0));
}

static void a_destroyed_vdev_s_memory_is_given_back(void)
{
    gasp_guest_t *guest = with_memory();
    vdev_t *disk = device(guest, "disk");
    unsigned char present = 0;
    scribble(disk, 0xff);
    CHECK(mincore((void *)disk, PAGE, &present) == 0 && (present & 1));
    CHECK_OK(gasp_vdev_destroy(disk, NULL));
    CHECK(mincore((void *)disk, PAGE, &present) == 0 && !(present & 1));
    end(guest);
}

static int by_address(const void *a, const void *b)
{
    const uintptr_t left = *(const uintptr_t *)a, right = *(const uintptr_t *)b;
    return left < right ? -1 : left > right;
}

static void addresses_are_not_used_again_soon(void)
{
    const unsigned count = rounds(20000);
    uintptr_t *seen = calloc(count, sizeof *seen);
    gasp_guest_t *guest = with_memory();
    CHECK(seen);
    for (unsigned i = 0; i < count; i++) {
        vdev_t *vdev = device(guest, "passing");
        CHECK_OK(try_map(vdev));
        CHECK_OK(gasp_vdev_destroy(vdev, NULL));
        CHECK_ERR(try_map(vdev), EINVAL);
        seen[i] = (uintptr_t)vdev;
    }
    qsort(seen, count, sizeof *seen, by_address);
    for (unsigned i = 1; i < count; i++)
        CHECK(seen[i - 1] != seen[i]);
    free(seen);
    end(guest);
}

/* All vdevs that the library allows, in several guests. */
struct crowd {
    gasp_guest_t *guests[GUESTS_MAX];
    size_t guest_count;
    vdev_t *vdevs[VDEVS_MAX];
    size_t count;
};
static struct crowd crowd;

/* In order of these names, every other vdev comes before the rest. */
static void name_of(size_t index, char name[17])
{
    uint64_t reversed = 0;
    for (int bit = 0; bit < 64; bit++)
        reversed |= ((uint64_t)index >> bit & 1) << (63 - bit);
    snprintf(name, 17, "%016llx", (unsigned long long)reversed);
}

static errno_t add_to_crowd(void)
{
    char name[17];
    if (crowd.count == crowd.guest_count * VDEVS_OF_A_GUEST) {
        CHECK(crowd.guest_count < GUESTS_MAX);
        crowd.guests[crowd.guest_count++] = with_memory();
    }
    name_of(crowd.count, name);
    vdev_t *vdev;
    const errno_t error = gasp_vdev_create(crowd.guests[crowd.guest_count - 1], name, &vdev);
    if (error == EOK) {
        CHECK(crowd.count < VDEVS_MAX);
        crowd.vdevs[crowd.count++] = vdev;
    }
    return error;
}

static void end_crowd(void)
{
    for (size_t i = 0; i < crowd.guest_count; i++)
        end(crowd.guests[i]);
    for (size_t i = 0; i < crowd.count; i++)
        CHECK_ERR(try_map(crowd.vdevs[i]), EINVAL);
    memset(&crowd, 0, sizeof crowd);
}

static void check_crowd(void)
{
    for (size_t i = 0; i < crowd.count; i++) {
        CHECK_OK(try_map(crowd.vdevs[i]));
        members_of(crowd.vdevs[i])->v_device = &crowd.vdevs[i];
    }
    for (size_t i = 0; i < crowd.count; i++)
        CHECK(members_of(crowd.vdevs[i])->v_device == &crowd.vdevs[i]);
}

static const char *lacks_speed(void)
{
    return getenv("CHECK_SLOW") ? "takes too long under a tool" : NULL;
}

static unsigned warnings;

static void on_line(void *context, uint32_t level, const char *line)
{
    (void)context;
    (void)level;
    CHECK(strstr(line, "vm.max_map_count"));
    __atomic_add_fetch(&warnings, 1, __ATOMIC_RELAXED);
}

static void as_many_as_the_limit_and_no_more(void)
{
    errno_t error;
    while ((error = add_to_crowd()) == EOK)
        ;
    CHECK_ERR(error, ENOSPC);
    CHECK(strstr(gasp_last_error(), "the limit of 262144 objects of this kind"));
    CHECK(crowd.count == VDEVS_MAX);
    check_crowd();
    /* One that goes makes room for one, at the next address of its index: 15 times. */
    gasp_guest_t *guest = crowd.guests[0];
    uintptr_t seen[16];
    char name[17];
    name_of(7, name);
    for (size_t i = 0; i < COUNT_OF(seen); i++) {
        vdev_t *last = crowd.vdevs[7];
        seen[i] = (uintptr_t)last;
        for (size_t before = 0; before < i; before++) {
            CHECK(seen[before] != seen[i]);
            CHECK_ERR(try_map((vdev_t *)seen[before]), EINVAL);
        }
        CHECK_OK(gasp_vdev_destroy(last, NULL));
        crowd.vdevs[7] = device(guest, name);
        CHECK_ERR(add_to_crowd(), ENOSPC);
    }
    CHECK((uintptr_t)crowd.vdevs[7] == seen[0]); /* all generations have passed */
    /* A guest's vdevs end in an order that needs no further mappings. */
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, on_line, NULL));
    end_crowd();
    CHECK(warnings == 0);
}

/* The addresses that this process has, in bytes. */
static uint64_t address_space(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file && fscanf(file, "%llu", &pages) == 1);
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void with_few_addresses(void)
{
    const struct rlimit limit = { address_space() + 256 * MIB, RLIM_INFINITY };
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    const uint64_t before = address_space();
    gasp_guest_t *guest = with_memory();
    vdev_t *first = device(guest, "first");
    CHECK(address_space() - before < 200 * MIB); /* something is left for the program */
    CHECK_OK(try_map(first));
    errno_t error = EOK;
    while (crowd.count < 60000 && (error = add_to_crowd()) == EOK)
        ;
    CHECK(crowd.count >= 63);
    if (error != EOK) {
        CHECK_ERR(error, ENOSPC);
        CHECK(strstr(gasp_last_error(), "the limit of "));
    }
    check_crowd();
    end_crowd();
    CHECK_OK(try_map(first));
    vdev_t *last = first;
    for (int i = 0; i < 63; i++) {
        CHECK_OK(gasp_vdev_destroy(last, NULL));
        CHECK_ERR(try_map(last), EINVAL);
        last = device(guest, "first");
        CHECK(last != first);
    }
    end(guest);
}

static void fewer_if_the_process_may_have_few_addresses(void)
{
    CHECK(in_child(with_few_addresses) == 0);
}

static void without_any_address(void)
{
    gasp_guest_t *guest = with_memory();
    const struct rlimit limit = { address_space(), RLIM_INFINITY };
    const struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };
    vdev_t *vdev;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    const errno_t error = gasp_vdev_create(guest, "disk", &vdev);
    CHECK(setrlimit(RLIMIT_AS, &none) == 0);
    CHECK_ERR(error, ENOMEM);
    CHECK(strstr(gasp_last_error(), "ulimit -v"));
    CHECK_OK(try_map(device(guest, "disk"))); /* the name is free, and so are addresses */
    end(guest);
}

static void an_error_if_there_is_no_address_at_all(void)
{
    CHECK(in_child(without_any_address) == 0);
}

static const char *lacks_addresses(void)
{
    return getenv("CHECK_SLOW") ? "a tool needs addresses itself" : NULL;
}

/* Each gap between two vdevs is two mappings more; there are not as many. */
static void with_many_gaps(void)
{
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, on_line, NULL));
    while (crowd.count < VDEVS_OF_A_GUEST)
        CHECK_OK(add_to_crowd());
    for (size_t i = 0; i < crowd.count; i += 2)
        CHECK_OK(gasp_vdev_destroy(crowd.vdevs[i], NULL));
    CHECK(warnings > 0);
    for (size_t i = 0; i < crowd.count; i++)
        CHECK_ERR(try_map(crowd.vdevs[i]), i % 2 ? EOK : EINVAL);
    /* A new one needs a mapping, unless its page is beside that of another. */
    vdev_t *vdev;
    const errno_t error = gasp_vdev_create(crowd.guests[0], "new", &vdev);
    CHECK(error == EOK || error == ENOMEM);
    /* Without the gaps everything is as before. */
    for (size_t i = 1; i < crowd.count; i += 2)
        CHECK_OK(gasp_vdev_destroy(crowd.vdevs[i], NULL));
    vdev = device(crowd.guests[0], "last");
    check_new(vdev, crowd.guests[0]);
    CHECK_OK(try_map(vdev));
    end_crowd();
}

static void at_the_limit_of_mappings_vdevs_can_be_destroyed(void)
{
    CHECK(in_child(with_many_gaps) == 0);
}

static const char *lacks_gaps(void)
{
    unsigned long most = 0;
    FILE *file = fopen("/proc/sys/vm/max_map_count", "r");
    if (file && fscanf(file, "%lu", &most) != 1)
        most = 0;
    if (file)
        fclose(file);
    if (most == 0 || most >= VDEVS_OF_A_GUEST)
        return "vm.max_map_count is larger than the vdevs of a guest";
    return lacks_speed();
}

/* The vdev that all threads use at the moment. */
struct stage {
    vdev_t *vdev;
    gasp_guest_t *guest;
    int over;
    uint64_t mapped, refused;
};

static void *map_what_is_there(void *context)
{
    struct stage *stage = context;
    while (!__atomic_load_n(&stage->over, __ATOMIC_RELAXED)) {
        vdev_t *vdev = __atomic_load_n(&stage->vdev, __ATOMIC_ACQUIRE);
        uint64_t host = 8;
        size_t length = 8;
        gasp_map_handle_t h;
        errno_t error = gasp_map(vdev, 0, 8, ANY_READ, &h);
        if (error == EOK)
            gasp_unmap_handle(&h);
        else
            CHECK_ERR(error, EINVAL);
        __atomic_add_fetch(error == EOK ? &stage->mapped : &stage->refused, 1, __ATOMIC_RELAXED);
        error = gasp_map_host_contig(vdev, &host, &length, ANY_READ, &h);
        if (error == EOK)
            gasp_unmap_handle(&h);
        else
            CHECK_ERR(error, EINVAL);
        CHECK(error != EOK || host == 0x10000008);
    }
    return NULL;
}

/* Two compete to destroy each vdev: one succeeds. */
static void *destroy_it(void *context)
{
    struct stage *stage = context;
    const errno_t error = gasp_vdev_destroy(__atomic_load_n(&stage->vdev, __ATOMIC_ACQUIRE), NULL);
    CHECK(error == EOK || error == EINVAL);
    return error == EOK ? stage : NULL;
}

static int have_both(struct stage *stage)
{
    return __atomic_load_n(&stage->mapped, __ATOMIC_RELAXED) > 0
        && __atomic_load_n(&stage->refused, __ATOMIC_RELAXED) > 0;
}

static void threads_map_while_others_destroy(void)
{
    struct stage stage = { NULL, with_memory(), 0, 0, 0 };
    pthread_t users[2], rival;
    CHECK_OK(gasp_set_log(GASP_LOG_ERROR, NULL, NULL));
    for (size_t i = 0; i < COUNT_OF(users); i++)
        CHECK(pthread_create(&users[i], NULL, map_what_is_there, &stage) == 0);
    const unsigned count = rounds(2000);
    /* At least as many, and until both have happened. */
    for (unsigned i = 0; i < count || !have_both(&stage); i++) {
        vdev_t *vdev = device(stage.guest, "passing");
        void *won;
        __atomic_store_n(&stage.vdev, vdev, __ATOMIC_RELEASE);
        scribble(vdev, (int)i); /* as its owner does at any time */
        CHECK(pthread_create(&rival, NULL, destroy_it, &stage) == 0);
        const int own = destroy_it(&stage) != NULL;
        CHECK(pthread_join(rival, &won) == 0);
        CHECK(own != (won != NULL));
    }
    __atomic_store_n(&stage.over, 1, __ATOMIC_RELAXED);
    for (size_t i = 0; i < COUNT_OF(users); i++)
        CHECK(pthread_join(users[i], NULL) == 0);
    end(stage.guest);
}

static const struct test tests[] = {
    TEST(fewer_if_the_process_may_have_few_addresses), /* in children: before the first vdev */
    TEST_NEEDS(an_error_if_there_is_no_address_at_all, lacks_addresses),
    TEST(a_new_vdev_has_its_guest_no_location_and_zeros),
    TEST(a_vdev_of_a_file_has_members_too),
    TEST(the_library_reads_no_member),
    TEST(a_destroyed_vdev_is_refused_by_every_call),
    TEST(registers_need_a_vdev_that_exists),
    TEST(pointers_that_never_were_a_vdev_are_refused_by_every_call),
    TEST_NEEDS(an_access_to_a_destroyed_vdev_faults, lacks_silence),
    TEST(a_destroyed_vdev_s_memory_is_given_back),
    TEST(addresses_are_not_used_again_soon),
    TEST(threads_map_while_others_destroy),
    TEST_NEEDS(at_the_limit_of_mappings_vdevs_can_be_destroyed, lacks_gaps),
    TEST_NEEDS(as_many_as_the_limit_and_no_more, lacks_speed),
};
RUN(tests)
