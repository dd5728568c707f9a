/* Decision 22: no call waits for a mapping that its own thread has created and not unmapped. */
#include "fixture.h"

static vdev_t *disk;

static void quiet(void *context, uint32_t level, const char *line)
{
    (void)context, (void)level, (void)line;
}

static gasp_guest_t *begin(uint32_t iommu)
{
    alarm(60); /* ends a test that hangs */
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, quiet, NULL));
    gasp_guest_t *guest = a_guest(iommu);
    ram(guest, 0, 4 * PAGE);
    disk = device(guest, "disk");
    return guest;
}

static void finish(gasp_guest_t *guest)
{
    end(guest);
    CHECK_OK(gasp_set_log(GASP_LOG_WARN, NULL, NULL));
    alarm(0);
}

static struct gasp_region page(uint64_t number, uint32_t flags)
{
    const struct gasp_region region = {
        flags, 7, NULL, QSL_NO_LOCATION, { number * PAGE, PAGE, QST_MEMORY, 0, 0 }
    };
    return region;
}

static uint32_t access_to(uint64_t number)
{
    struct gasp_region region = page(number, 0);
    if (gasp_region_info(&region.guest, &region) != EOK)
        return GRF_NONE;
    return region.grf_flags & GRF_PASS_ANY;
}

static gasp_map_handle_t mapped(uint64_t number)
{
    gasp_map_handle_t h;
    CHECK_OK(gasp_map(disk, number * PAGE, 8, RW, &h));
    return h;
}

static void soft(struct gasp_region region)
{
    CHECK(gasp_region_set_soft(1, &region) == 1);
}

static void set_refused(unsigned count, const struct gasp_region *regions)
{
    CHECK_ERRNO((gasp_region_set(count, regions), 0), 0, EDEADLK);
    CHECK(strstr(gasp_last_error(), "gasp_region_set") && strstr(gasp_last_error(), "EDEADLK"));
    CHECK_OK(gasp_lock(QST_MEMORY)); /* it is free */
    CHECK_OK(gasp_unlock(QST_MEMORY));
}

static void unlock_refused(void)
{
    CHECK_ERR(gasp_unlock(QST_MEMORY), EDEADLK);
    CHECK(strstr(gasp_last_error(), "gasp_unlock") && strstr(gasp_last_error(), "EDEADLK"));
    CHECK_ERR(gasp_lock(QST_MEMORY), EBUSY); /* this thread still owns it */
}

static void unlock_keeps_the_lock_until_the_mapping_is_gone(void)
{
    gasp_guest_t *guest = begin(GASP_IOMMU_NONE);
    const uint32_t less[] = { GRF_PASS_RD, GRF_NOPERMS, GRF_NONE };
    CHECK_OK(gasp_guest_start(guest));
    for (unsigned i = 0; i < COUNT_OF(less); i++) {
        gasp_map_handle_t h = mapped(i), other = mapped(3);
        CHECK_OK(gasp_lock(QST_MEMORY));
        soft(page(i, less[i]));
        unlock_refused();
        unlock_refused();
        memset(gasp_get_vaddr(&h), 1, 8); /* it is still valid */
        CHECK_OK(gasp_map_check(&h));
        gasp_unmap_handle(&h);
        CHECK_OK(gasp_unlock(QST_MEMORY)); /* the other mapping was not revoked */
        CHECK((access_to(i) & GRF_PASS_WR) == 0);
        gasp_unmap_handle(&other);
    }
    finish(guest);
}

static void unlock_after_the_change_was_undone(void)
{
    gasp_guest_t *guest = begin(GASP_IOMMU_NONE);
    gasp_map_handle_t h = mapped(1);
    CHECK_OK(gasp_guest_start(guest));
    CHECK_OK(gasp_lock(QST_MEMORY));
    soft(page(1, GRF_PASS_RD));
    soft(page(1, GRF_NOPERMS));
    unlock_refused();
    soft(page(1, GRF_PASS_RD)); /* not all of it */
    unlock_refused();
    soft(page(1, GRF_PASS_ANY));
    CHECK_OK(gasp_unlock(QST_MEMORY));
    CHECK_ERR(gasp_map_check(&h), ESTALE); /* it was revoked, and no drain waits for it */
    memset(gasp_get_vaddr(&h), 1, 8);
    gasp_unmap_handle(&h);
    finish(guest);
}

static void *unmap(void *h)
{
    gasp_unmap_handle(h);
    return NULL;
}

static void unlock_after_another_thread_has_unmapped(void)
{
    gasp_guest_t *guest = begin(GASP_IOMMU_NONE);
    gasp_map_handle_t h = mapped(1);
    pthread_t thread;
    CHECK_OK(gasp_guest_start(guest));
    CHECK_OK(gasp_lock(QST_MEMORY));
    soft(page(1, GRF_NONE));
    unlock_refused();
    CHECK(pthread_create(&thread, NULL, unmap, &h) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_OK(gasp_unlock(QST_MEMORY));
    finish(guest);
}

/* The locks of several guests: changes under them do not change which was taken last. */
static void unlock_of_two_guests(void)
{
    gasp_guest_t *guest = begin(GASP_IOMMU_NONE), *second = a_guest(GASP_IOMMU_NONE);
    gasp_map_handle_t h = mapped(1);
    CHECK_OK(gasp_guest_start(guest));
    CHECK_OK(gasp_guest_use(guest));
    CHECK_OK(gasp_lock(QST_MEMORY));
    CHECK_OK(gasp_guest_use(second));
    CHECK_OK(gasp_lock(QST_MEMORY));
    CHECK_OK(gasp_guest_use(guest));
    soft(page(1, GRF_PASS_RD));
    CHECK_OK(gasp_unlock(QST_MEMORY)); /* that of the second guest */
    unlock_refused();
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_unlock(QST_MEMORY));
    CHECK_OK(gasp_guest_use(NULL));
    end(second);
    finish(guest);
}

static void set_changes_nothing(void)
{
    gasp_guest_t *guest = begin(GASP_IOMMU_NONE);
    gasp_map_handle_t h = mapped(2), again;
    const struct gasp_region less[] = {
        page(2, GRF_PASS_RD), page(2, GRF_NOPERMS), page(2, GRF_NONE)
    };
    for (size_t i = 0; i < COUNT_OF(less); i++) {
        const struct gasp_region many[] = { page(1, GRF_PASS_RD), page(3, GRF_NONE), less[i] };
        set_refused(1, &less[i]);
        set_refused(3, many);
        for (uint64_t number = 0; number < 4; number++)
            CHECK(access_to(number) == GRF_PASS_ANY);
    }
    CHECK_OK(gasp_map(disk, 0, 4 * PAGE, RW, &again));
    gasp_unmap_handle(&again);
    gasp_unmap_handle(&h);
    gasp_region_set(1, &less[0]);
    CHECK(access_to(2) == GRF_PASS_RD);
    finish(guest);
}

static void set_that_gives_and_takes_away_again(void)
{
    gasp_guest_t *guest = begin(GASP_IOMMU_NONE);
    const struct gasp_region only_read = page(1, GRF_PASS_RD), all = page(1, GRF_PASS_ANY);
    const struct gasp_region both[] = { all, only_read };
    gasp_map_handle_t h;
    gasp_region_set(1, &only_read);
    CHECK_OK(gasp_map(disk, PAGE, 8, GMF_READ, &h));
    set_refused(2, both);
    CHECK(access_to(1) == GRF_PASS_RD);
    errno = 0;
    gasp_region_set(1, &only_read); /* nothing is taken away */
    gasp_region_set(1, &all);
    CHECK(errno == 0 && access_to(1) == GRF_PASS_ANY);
    gasp_unmap_handle(&h);
    finish(guest);
}

static void mappings_of_every_kind_count(void)
{
    gasp_guest_t *guest = begin(GASP_IOMMU_DENY);
    const struct gasp_region none = page(1, GRF_NONE), read_only = page(1, GRF_PASS_RD);
    gasp_domain_t *domain = domain_of(guest, disk, "disk", GASP_DOMAIN_TRANSLATE);
    CHECK_OK(gasp_domain_grant(domain, 64 * PAGE, PAGE, PAGE, RW));
    gasp_map_handle_t h;
    CHECK_OK(gasp_map(disk, 64 * PAGE, 8, RW, &h));
    set_refused(1, &none);
    set_refused(1, &read_only);
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_map_firmware(PAGE, 8, RW, &h));
    set_refused(1, &read_only);
    gasp_unmap_handle(&h);
    void *vaddr = gasp_map_vdma(disk, 64 * PAGE, 8, RW);
    CHECK(vaddr);
    set_refused(1, &none);
    gasp_unmap(vaddr, 8, 0);
    gasp_region_set(1, &none);
    CHECK(access_to(1) == GRF_NONE);
    finish(guest);
}

static void a_drain_stays_until_it_can_be_waited_for(void)
{
    gasp_guest_t *guest = begin(GASP_IOMMU_NONE);
    gasp_map_handle_t h = mapped(1), second = mapped(2);
    gasp_drain_t *drain;
    uint64_t pending;
    CHECK_OK(gasp_guest_remove(guest, PAGE, PAGE, &drain));
    for (unsigned i = 0; i < 2; i++)
        CHECK_ERR(gasp_drain_wait(drain, NULL), EDEADLK);
    CHECK(strstr(gasp_last_error(), "gasp_drain_wait"));
    CHECK_OK(gasp_drain_pending(drain, &pending));
    CHECK(pending == 1);
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_drain_wait(drain, NULL));
    CHECK_OK(gasp_guest_remove(guest, 2 * PAGE, PAGE, &drain));
    CHECK_ERR(gasp_drain_wait(drain, NULL), EDEADLK);
    CHECK_OK(gasp_drain_abandon(drain));
    CHECK_ERR(gasp_map_check(&second), ESTALE);
    gasp_unmap_handle(&second);
    finish(guest);
}

/* A revoke is refused without a pointer for the drain, and carried out with one. */
static void calls_that_wait_change_nothing(void)
{
    gasp_guest_t *guest = begin(GASP_IOMMU_DENY);
    gasp_domain_t *domain = domain_of(guest, disk, "disk", GASP_DOMAIN_IDENTITY), *other;
    gasp_drain_t *drain;
    CHECK_OK(gasp_domain_create(guest, "other", GASP_DOMAIN_IDENTITY, NULL, &other));
    grant(domain, 0, 4 * PAGE, RW);
    gasp_map_handle_t h = mapped(1), again;
    CHECK_ERR(gasp_guest_remove(guest, 0, 2 * PAGE, NULL), EDEADLK);
    CHECK_ERR(gasp_domain_revoke(domain, PAGE, 1, NULL), EDEADLK);
    CHECK_ERR(gasp_vdev_attach(disk, other, NULL), EDEADLK);
    CHECK_ERR(gasp_vdev_detach(disk, NULL), EDEADLK);
    CHECK_ERR(gasp_vdev_destroy(disk, NULL), EDEADLK);
    CHECK(strstr(gasp_last_error(), "EDEADLK"));
    CHECK_OK(gasp_map(disk, 0, 4 * PAGE, RW, &again));
    gasp_unmap_handle(&again);
    CHECK_OK(gasp_vdev_attach(disk, domain, NULL));        /* nothing changes */
    CHECK_OK(gasp_domain_revoke(domain, 2 * PAGE, 1, NULL)); /* no mapping is held */
    CHECK_OK(gasp_guest_remove(guest, 3 * PAGE, PAGE, NULL));
    CHECK_OK(gasp_vdev_attach(disk, other, &drain));
    CHECK(drain);
    CHECK_ERR(gasp_map(disk, 0, 8, RW, &again), EFAULT);
    gasp_unmap_handle(&h);
    CHECK_OK(gasp_drain_wait(drain, NULL));
    CHECK_OK(gasp_vdev_destroy(disk, NULL));
    finish(guest);
}

static void from_one_bypass_to_another_waits_for_nothing(void)
{
    gasp_guest_t *guest = begin(GASP_IOMMU_BYPASS);
    gasp_domain_t *first, *second;
    gasp_map_handle_t h = mapped(1);
    CHECK_OK(gasp_domain_create(guest, "first", GASP_DOMAIN_BYPASS, NULL, &first));
    CHECK_OK(gasp_domain_create(guest, "second", GASP_DOMAIN_BYPASS, NULL, &second));
    CHECK_OK(gasp_vdev_attach(disk, first, NULL));
    CHECK_OK(gasp_vdev_attach(disk, second, NULL));
    CHECK_OK(gasp_vdev_detach(disk, NULL));
    CHECK_OK(gasp_map_check(&h));
    gasp_unmap_handle(&h);
    finish(guest);
}

/* A policy that detaches at the deadline ends every wait. */
static void a_deadline_that_detaches_is_waited_for(void)
{
    struct gasp_guest_options options = GASP_GUEST_OPTIONS_INIT;
    gasp_guest_t *guest;
    options.drain_deadline_ms = 5;
    options.at_deadline = GASP_DRAIN_DETACH;
    alarm(60);
    CHECK_OK(gasp_guest_create(&options, &guest));
    ram(guest, 0, 4 * PAGE);
    disk = device(guest, "disk");
    gasp_map_handle_t h[4] = { mapped(0), mapped(1), mapped(2), mapped(3) };
    const struct gasp_region none = page(0, GRF_NONE);
    gasp_region_set(1, &none);
    CHECK_OK(gasp_guest_remove(guest, PAGE, PAGE, NULL));
    CHECK_OK(gasp_guest_start(guest));
    CHECK_OK(gasp_lock(QST_MEMORY));
    soft(page(2, GRF_PASS_RD));
    CHECK_OK(gasp_unlock(QST_MEMORY));
    for (unsigned i = 0; i < 4; i++) {
        CHECK_ERR(gasp_map_check(&h[i]), i < 3 ? ESTALE : EOK);
        gasp_unmap_handle(&h[i]);
    }
    end(guest);
    alarm(0);
}

static const struct test tests[] = {
    TEST(unlock_keeps_the_lock_until_the_mapping_is_gone),
    TEST(unlock_after_the_change_was_undone),
    TEST(unlock_after_another_thread_has_unmapped),
    TEST(unlock_of_two_guests),
    TEST(set_changes_nothing),
    TEST(set_that_gives_and_takes_away_again),
    TEST(mappings_of_every_kind_count),
    TEST(a_drain_stays_until_it_can_be_waited_for),
    TEST(calls_that_wait_change_nothing),
    TEST(from_one_bypass_to_another_waits_for_nothing),
    TEST(a_deadline_that_detaches_is_waited_for),
};
RUN(tests)
