// The headers in C++17: every function has C linkage and can be called.
#include <gasp/guest.h>

#include <cstdio>
#include <cstring>
#include <type_traits>

namespace {

static_assert(std::is_trivial_v<gasp_map_handle_t> && sizeof(gasp_map_handle_t) == 24);
static_assert(std::is_standard_layout_v<gasp_region>);
static_assert(std::is_same_v<decltype(&gasp_unmap_handle), void (*)(gasp_map_handle_t *)>);
static_assert(GRF_STICKY == 0x3300 && QSL_NO_LOCATION == UINT64_MAX);

// A mapping that ends with its scope.
class Mapping {
public:
    Mapping(const vdev_t *vdev, uint64_t address, size_t length, gasp_map_flags_t prot)
        : error_(gasp_map(vdev, address, length, prot, &handle_))
    {
    }
    ~Mapping() { gasp_unmap_handle(&handle_); }
    Mapping(const Mapping &) = delete;
    Mapping &operator=(const Mapping &) = delete;

    errno_t error() const { return error_; }
    char *bytes() const { return static_cast<char *>(gasp_get_vaddr(&handle_)); }

private:
    gasp_map_handle_t handle_{};
    errno_t error_;
};

bool maps_and_unmaps()
{
    gasp_guest_options options = GASP_GUEST_OPTIONS_INIT;
    gasp_guest_t *guest = nullptr;
    vdev_t *vdev = nullptr;
    uint64_t start = GASP_ANYWHERE;
    if (gasp_guest_create(&options, &guest) || gasp_vdev_create(guest, "disk", &vdev) ||
        gasp_guest_add_ram(guest, &start, 4096, GASP_PAGES_ANY, GASP_PINNED))
        return false;
    {
        const Mapping mapping(vdev, start, 16, GMF_READ | GMF_WRITE);
        const Mapping hole(vdev, 1 << 20, 16, GMF_READ);
        if (mapping.error() != EOK || hole.error() != ENXIO || hole.bytes())
            return false;
        std::strcpy(mapping.bytes(), "from C++");
    }
    return gasp_guest_destroy(guest) == EOK;
}

} // namespace

int main(int argc, char **argv)
{
    if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
        std::puts("maps_and_unmaps\t");
        return 0;
    }
    const bool done = maps_and_unmaps();
    std::printf("%s maps_and_unmaps: %s\n", done ? "ok" : "not ok", gasp_last_error());
    return done ? 0 : 1;
}
