/*
 * GASP_DEBUG=guard: stray accesses raise SIGSEGV at the faulting line. The library reads the
 * variable when the first guest is created, so each test is a child, and the parent has no guest.
 */
#include "fixture.h"

#include <signal.h>
#include <sys/resource.h>

#define SIZE (4 * MIB)

/* Results and log of a child, in memory that it shares with the parent. */
static struct shared {
    int checked;      /* it has run to its end */
    int faulted;      /* at the expected address */
    void *expected;   /* the expected address */
    unsigned lines;   /* of the log */
    char log[8][512];
} *shared;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    shared->faulted = info->si_code == SEGV_ACCERR && info->si_addr == shared->expected;
    _exit(1);
}

static void on_line(void *context, uint32_t level, const char *line)
{
    (void)context, (void)level;
    const unsigned at = shared->lines++;
    if (at < COUNT_OF(shared->log))
        snprintf(shared->log[at], sizeof shared->log[at], "%s", line);
}

/* Runs a part of a test in a child with this value of the variable. */
static void under(const char *value, void (*run)(void))
{
    if (!shared) {
        shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                      0);
        CHECK(shared != MAP_FAILED);
    }
    memset(shared, 0, sizeof *shared);
    fflush(NULL);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        const struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
        CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
        CHECK(value ? setenv("GASP_DEBUG", value, 1) == 0 : unsetenv("GASP_DEBUG") == 0);
        CHECK_OK(gasp_set_log(GASP_LOG_WARN, on_line, NULL));
        alarm(60);
        run();
        shared->checked = 1;
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
}

static void runs(const char *value, void (*run)(void))
{
    under(value, run);
    CHECK(shared->checked);
}

static void faults_as_expected(void (*run)(void))
{
    under("guard", run);
    CHECK(shared->faulted && !shared->checked);
}

static int said(const char *what)
{
    unsigned count = 0;
    for (unsigned i = 0; i < shared->lines && i < COUNT_OF(shared->log); i++)
        count += strstr(shared->log[i], what) != NULL;
    return count == 1;
}

static gasp_guest_t *guest;
static vdev_t *disk;

static void begin(void)
{
    guest = a_guest(GASP_IOMMU_NONE);
    ram(guest, 0, SIZE);
    disk = device(guest, "disk");
}

static volatile char *mapped(uint64_t at, size_t length, uint32_t prot, gasp_map_handle_t *h)
{
    CHECK_OK(gasp_map(disk, at, length, prot, h));
    volatile char *vaddr = gasp_get_vaddr(h);
    CHECK(vaddr && (uintptr_t)vaddr % PAGE == at % PAGE);
    return vaddr;
}

static void write_at(volatile char *at)
{
    shared->expected = (void *)(uintptr_t)at;
    *at = 1;
}

static void read_at(const volatile char *at)
{
    shared->expected = (void *)(uintptr_t)at;
    (void)*at;
}

/* ---- Faults ------------------------------------------------------------------------- */

static void write_read_only(void)
{
    gasp_map_handle_t h;
    begin();
    volatile char *vaddr = mapped(PAGE + 5, 100, GMF_READ, &h);
    CHECK(vaddr[99] == 0);
    write_at(vaddr + 7);
}

static void write_read_only_firmware(void)
{
    gasp_map_handle_t h;
    begin();
    CHECK_OK(gasp_map_firmware(PAGE, PAGE, GMF_READ, &h));
    write_at(gasp_get_vaddr(&h));
}

static void write_read_only_vdma(void)
{
    begin();
    write_at(gasp_map_vdma(disk, PAGE, PAGE, GMF_READ));
}

static void write_read_only_sys(void)
{
    begin();
    write_at(gasp_map_sys(PAGE, PAGE, GMF_READ));
}

static void write_read_only_host_contig(void)
{
    uint64_t host = 3 * PAGE;
    size_t length = PAGE;
    gasp_map_handle_t h;
    begin();
    CHECK_OK(gasp_map_host_contig(disk, &host, &length, GMF_READ, &h));
    write_at(gasp_get_vaddr(&h));
}

static void write_read_only_contig(void)
{
    uint64_t host = 3 * PAGE;
    size_t length = PAGE;
    begin();
    write_at(gasp_map_contig(disk, &host, &length, GMF_READ));
}

static void a_write_through_a_read_only_mapping_faults(void)
{
    faults_as_expected(write_read_only);
    faults_as_expected(write_read_only_firmware);
    faults_as_expected(write_read_only_vdma);
    faults_as_expected(write_read_only_sys);
}

static void a_write_through_a_read_only_host_contiguous_mapping_faults(void)
{
    faults_as_expected(write_read_only_host_contig);
    faults_as_expected(write_read_only_contig);
}

/* Maps from offset 5 of one page into the next: accessible up to the end of the second. */
static volatile char *two_pages(void)
{
    gasp_map_handle_t h;
    begin();
    volatile char *vaddr = mapped(PAGE + 5, PAGE + 10, RW, &h);
    vaddr[PAGE + 9] = 1;
    return vaddr - 5;
}

static void write_past(void)
{
    write_at(two_pages() + 2 * PAGE);
}

static void read_past(void)
{
    read_at(two_pages() + 2 * PAGE);
}

static void read_before(void)
{
    read_at(two_pages() - 1);
}

static void an_access_past_the_pages_faults(void)
{
    faults_as_expected(write_past);
    faults_as_expected(read_past);
    faults_as_expected(read_before);
}

/* ---- What the mode does not change -------------------------------------------------- */

static unsigned lines_of_maps(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    CHECK(maps);
    unsigned lines = 0;
    for (int c; (c = fgetc(maps)) != EOF;)
        lines += c == '\n';
    fclose(maps);
    return lines;
}

static void use_without_the_mode(void)
{
    gasp_map_handle_t h[100];
    begin();
    volatile char *all = mapped(0, SIZE, RW, &h[0]);
    const unsigned before = lines_of_maps();
    for (unsigned i = 1; i < COUNT_OF(h); i++)
        CHECK(mapped(i * PAGE, 8, GMF_READ, &h[i]) == all + i * PAGE);
    CHECK(lines_of_maps() <= before + 2);
}

static void without_the_mode_mappings_have_no_pages_of_their_own(void)
{
    runs(NULL, use_without_the_mode);
    CHECK(shared->lines == 0);
    runs("", use_without_the_mode);
    CHECK(shared->lines == 0);
    runs("gard", use_without_the_mode);
    CHECK(shared->lines == 1 && said("unknown word \"gard\"; the only one is guard"));
}

static void map_and_unmap(void)
{
    gasp_map_handle_t h, other;
    begin();
    volatile char *first = mapped(PAGE, 64, RW, &h), *second = mapped(PAGE, 64, RW, &other);
    CHECK(first != second);
    first[3] = 7;
    CHECK(second[3] == 7);
    gasp_unmap_handle(&other);
    CHECK(gasp_get_vaddr(&other) == NULL && gasp_get_vaddr(&h) == (void *)(uintptr_t)first);
    gasp_unmap_handle(&other);
    const gasp_map_handle_t copy = h;
    gasp_unmap_handle(&h);
    CHECK(gasp_get_vaddr(&copy) == NULL);
    const unsigned before = lines_of_maps();
    for (unsigned i = 0; i < 200; i++) {
        first = mapped(i * PAGE, 2 * PAGE, RW, &h);
        gasp_unmap_handle(&h);
        volatile char *vdma = gasp_map_vdma(disk, i * PAGE, PAGE, RW);
        vdma[0] = 1;
        gasp_unmap((const void *)(uintptr_t)vdma, PAGE, 0);
    }
    CHECK(lines_of_maps() <= before + 2);
    CHECK(gasp_map(disk, SIZE, 8, RW, &h) == ENXIO && gasp_map(disk, 0, 8, 0, &h) == ENXIO);
    end(guest);
}

static void handles_are_as_without_it_and_nothing_stays_mapped(void)
{
    runs("guard", map_and_unmap);
    CHECK(shared->lines == 1 && said("GASP_DEBUG=guard: each mapping"));
    runs(" ,guard,gard", map_and_unmap);
    CHECK(shared->lines == 2 && said("each mapping") && said("\"gard\""));
}

static void use_after_unmap(void)
{
    gasp_map_handle_t h;
    begin();
    volatile char *vaddr = mapped(PAGE, 64, RW, &h);
    gasp_unmap_handle(&h);
    *vaddr = 1;
}

static void an_access_after_the_unmap_faults(void)
{
    under("guard", use_after_unmap);
    CHECK(!shared->checked); /* the addresses are not mapped at all */
}

static void unmap_in_a_thread_after_the_guest(void)
{
    begin();
    gasp_map_handle_t h = mapped_elsewhere(disk, PAGE);
    volatile char *vaddr = gasp_get_vaddr(&h);
    end(guest);
    vaddr[0] = 1;
    gasp_unmap_handle(&h);
    CHECK(gasp_get_vaddr(&h) == NULL);
}

static void a_mapping_outlives_its_guest_and_thread(void)
{
    runs("guard", unmap_in_a_thread_after_the_guest);
}

static void compare_frames(void)
{
    begin();
    for (uint64_t at = 5; at < SIZE; at += 64 * PAGE) {
        uint64_t host = at;
        size_t length = 16 * PAGE;
        gasp_map_handle_t h;
        CHECK_OK(gasp_map_host_contig(disk, &host, &length, RW, &h));
        volatile char *vaddr = gasp_get_vaddr(&h);
        for (size_t i = 0; i < length; i += PAGE) {
            vaddr[i] = 1;
            CHECK(frame_of(vaddr + i) == host + i);
        }
        gasp_unmap_handle(&h);
    }
}

static void the_host_physical_address_is_that_of_the_memory(void)
{
    runs("guard", compare_frames);
}

static void map_what_cannot_be_mapped_again(void)
{
    CHECK_OK(gasp_guest_parse("[[ram]]\nsize = \"1M\"\nexclusive = true\n", &guest));
    disk = device(guest, "disk");
    gasp_map_handle_t h, other;
    volatile char *vaddr = mapped(PAGE, 8, RW, &h);
    *vaddr = 7;
    CHECK(mapped(PAGE, 8, RW, &other) == vaddr); /* the library's own pages */
    volatile char *reader = gasp_map_vdma(disk, PAGE, 8, GMF_READ);
    CHECK(reader != vaddr && *reader == 7);
    gasp_unmap_handle(&h);
    gasp_unmap_handle(&other);
    CHECK(!gasp_get_vaddr(&h) && !gasp_get_vaddr(&other));
}

static void what_cannot_be_mapped_again_has_no_guard_pages_and_is_logged_once(void)
{
    runs("guard", map_what_cannot_be_mapped_again);
    CHECK(shared->lines == 2 && said("no guard pages") && said("EPERM"));
}

/* The limit would apply to a tool's own memory as well. */
static const char *lacks_a_limit(void)
{
    return getenv("CHECK_SLOW") ? "the tool would be short of address space, too" : NULL;
}

static void map_too_many(void)
{
    begin();
    gasp_map_handle_t h = { { 1, 2, 3 } };
    uint64_t host = PAGE;
    size_t length = PAGE;
    const struct rlimit none = { 0, 0 };
    CHECK(setrlimit(RLIMIT_AS, &none) == 0);
    CHECK_ERR(gasp_map(disk, PAGE, 8, RW, &h), ENOMEM);
    CHECK(strstr(gasp_last_error(), "mmap") && strstr(gasp_last_error(), "0x1000"));
    CHECK_ERRNO(gasp_map_vdma(disk, PAGE, 8, RW), NULL, ENOMEM);
    const errno_t error = gasp_map_host_contig(disk, &host, &length, RW, &h);
    CHECK((error == ENOMEM || error == EPERM) && host == PAGE && length == PAGE);
    CHECK(h.reserved[0] == 1 && h.reserved[1] == 2 && h.reserved[2] == 3);
}

static void without_address_space_a_map_fails_and_changes_nothing(void)
{
    runs("guard", map_too_many);
}

static const struct test tests[] = {
    TEST(a_write_through_a_read_only_mapping_faults),
    TEST_NEEDS(a_write_through_a_read_only_host_contiguous_mapping_faults, lacks_frames),
    TEST(an_access_past_the_pages_faults),
    TEST(without_the_mode_mappings_have_no_pages_of_their_own),
    TEST(handles_are_as_without_it_and_nothing_stays_mapped),
    TEST(an_access_after_the_unmap_faults),
    TEST(a_mapping_outlives_its_guest_and_thread),
    TEST(what_cannot_be_mapped_again_has_no_guard_pages_and_is_logged_once),
    TEST_NEEDS(without_address_space_a_map_fails_and_changes_nothing, lacks_a_limit),
    TEST_NEEDS(the_host_physical_address_is_that_of_the_memory, lacks_frames),
};

RUN(tests)
