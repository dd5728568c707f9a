/* A guest's memory: RAM, ROM, shared memory, and its removal. */
#include "fixture.h"

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

static const struct test tests[] = {
    TEST(ram_of_a_guest),
    TEST(rom_of_a_guest),
    TEST(rom_that_is_far_too_long),
    TEST(memory_that_its_owner_can_take_away_is_refused),
    TEST(shared_memory_of_a_guest),
    TEST(removed_memory),
};
RUN(tests)
