/*
 * Each function and structure has exactly the type that is published for 8.0, or ours if none is
 * published.
 */
#include "check.h"

/* A compile-time error if `name` is not of this type. */
#define IS(name, type) _Static_assert(_Generic(&(name), type: 1, default: 0), #name)
#define MEMBER(struct_type, member, type) \
    _Static_assert(_Generic(&((struct_type *)0)->member, type *: 1, default: 0), #member)
#define SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)

IS(gasp_map_host_contig,
   errno_t (*)(const vdev_t *, uint64_t *, size_t *, gasp_map_flags_t, gasp_map_handle_t *));
IS(gasp_map_firmware, errno_t (*)(uint64_t, size_t, gasp_map_flags_t, gasp_map_handle_t *));
IS(gasp_map, errno_t (*)(const vdev_t *, uint64_t, size_t, gasp_map_flags_t, gasp_map_handle_t *));
IS(gasp_get_vaddr, void *(*)(const gasp_map_handle_t *));
IS(gasp_unmap_handle, void (*)(gasp_map_handle_t *));
IS(gasp_map_vdma, void *(*)(const vdev_t *, uint64_t, size_t, gasp_map_flags_t));
IS(gasp_map_contig, void *(*)(const vdev_t *, uint64_t *, size_t *, gasp_map_flags_t));
IS(gasp_map_sys, void *(*)(uint64_t, size_t, gasp_map_flags_t));
IS(gasp_unmap, void (*)(const void *, size_t, int));

IS(gasp_region_info, int (*)(const struct qvm_state_block *, struct gasp_region *));
IS(gasp_region_set, void (*)(unsigned, const struct gasp_region *));
IS(gasp_region_set_soft, unsigned (*)(unsigned, const struct gasp_region *));
IS(gasp_lock, int (*)(uint16_t));
IS(gasp_unlock, int (*)(uint16_t));

IS(gasp_find_free, uint64_t (*)(unsigned, uint64_t, uint64_t));
IS(gasp_find_free_range, uint64_t (*)(unsigned, uint64_t, uint64_t, uint64_t, uint64_t));
IS(gram_find_free, uint64_t (*)(uint64_t, uint64_t, gram_hint_flags_t));
IS(gram_find_free_range, uint64_t (*)(uint64_t, uint64_t, gram_hint_flags_t, uint64_t, uint64_t));
IS(gram_reserve, errno_t (*)(uint64_t, uint64_t));

IS(gasp_walk_init, int (*)(gasp_walk_state_t *, uint64_t, gasp_walk_flags_t));
IS(gasp_walk_next, int (*)(gasp_walk_state_t *));
IS(gasp_walk_count, unsigned (*)(uint64_t, gasp_walk_flags_t));
IS(gasp_walk_init_filtered,
   int (*)(gasp_walk_state_filtered_t *, uint64_t, gasp_walk_flags_t, gasp_walk_filter_t));
IS(gasp_walk_next_filtered, int (*)(gasp_walk_state_filtered_t *));
IS(gasp_walk_count_filtered, unsigned (*)(uint64_t, gasp_walk_flags_t, gasp_walk_filter_t));
_Static_assert(_Generic((gasp_walk_filter_t)0, void (*)(uint64_t *, size_t *): 1, default: 0),
               "gasp_walk_filter_t");

SIZE(gasp_map_handle_t, 24);
SIZE(struct qvm_state_block, 24);
MEMBER(struct qvm_state_block, location, uint64_t);
MEMBER(struct qvm_state_block, length, uint64_t);
MEMBER(struct qvm_state_block, qst_type, qvm_state_types_t);
MEMBER(struct qvm_state_block, qst_flags, qvm_state_flags_t);
MEMBER(struct qvm_state_block, spare, uint32_t);
MEMBER(struct gasp_region, grf_flags, gasp_region_flags_t);
MEMBER(struct gasp_region, cookie, uint32_t);
MEMBER(struct gasp_region, vdev, vdev_t *);
MEMBER(struct gasp_region, host_location, uint64_t);
MEMBER(struct gasp_region, guest, struct qvm_state_block);
MEMBER(gasp_walk_state_t, gw_span, void *);
MEMBER(gasp_walk_state_t, gw_guest_loc, uint64_t);
MEMBER(gasp_walk_state_t, gw_host_loc, uint64_t);
MEMBER(gasp_walk_state_t, gw_length, uint64_t);
MEMBER(gasp_walk_state_t, gw_max_length, uint64_t);
MEMBER(gasp_walk_state_t, gwf_flags, gasp_walk_flags_t);

#define VALUE(name, value) _Static_assert((name) == (value), #name)
VALUE(EOK, 0);
VALUE(GRF_NONE, 0);
VALUE(GRF_VIRT_ANY, 0x7);
VALUE(GRF_PASS_RD, 0x8);
VALUE(GRF_PASS_WR, 0x10);
VALUE(GRF_PASS_EX, 0x20);
VALUE(GRF_PASS_ANY, 0x38);
VALUE(GRF_NOCACHE, 0x40);
VALUE(GRF_ACTIVE, 0x80);
VALUE(GRF_MEMORY, 0x100);
VALUE(GRF_PASSTHRU, 0x200);
VALUE(GRF_DMA_USES, 0x400);
VALUE(GRF_DMA_NO_USE, 0x800);
VALUE(GRF_DMA_SOURCE, 0x1000);
VALUE(GRF_DMA_TARGET, 0x2000);
VALUE(GRF_PRECIOUS, 0x4000);
VALUE(GRF_NOPERMS, 0x8000);
VALUE(GRF_BACKUP_MASK, 0xf0000000);
VALUE(GRF_BACKUP_SHIFT, 25);
VALUE(GRF_STICKY, 0x3300);
VALUE(QST_MEMORY, 0);
VALUE(QST_PCI_IO, 6);
VALUE(QST_IMMEDIATE, 7);
VALUE(QST_ARCH_SPECIFIC, 0x8000);
VALUE(QST_X86_IO, 0x8000);
VALUE(QST_X86_MSR, 0x8004);
VALUE(QST_NO_TYPE, 0xffff);
VALUE(QSF_ZEXT_SHIFT, 4);
VALUE(QSF_EXT_MASK, 0xf);
VALUE(QSF_FORCE_WRITE, 0x4000);
VALUE(QSF_REPORT_EXCEPTION, 0x8000);

/* The functions are not only declared: the library exports them. */
typedef void (*any_function)(void);
static any_function volatile const all[] = {
    (any_function)gasp_map_host_contig, (any_function)gasp_map_firmware,
    (any_function)gasp_map, (any_function)gasp_get_vaddr,
    (any_function)gasp_unmap_handle, (any_function)gasp_map_vdma,
    (any_function)gasp_unmap, (any_function)gasp_region_info,
    (any_function)gasp_region_set, (any_function)gasp_region_set_soft,
    (any_function)gasp_lock, (any_function)gasp_unlock,
    (any_function)gasp_find_free, (any_function)gasp_find_free_range,
    (any_function)gram_find_free, (any_function)gram_find_free_range,
    (any_function)gram_reserve, (any_function)gasp_walk_init,
    (any_function)gasp_walk_next, (any_function)gasp_walk_count,
    (any_function)gasp_walk_init_filtered, (any_function)gasp_walk_next_filtered,
    (any_function)gasp_walk_count_filtered,
};

static void every_function_is_there(void)
{
    for (size_t i = 0; i < COUNT_OF(all); i++)
        CHECK(all[i] != NULL);
}

static const struct test tests[] = { TEST(every_function_is_there) };
RUN(tests)
