/* As prototypes.c, for 7.x. */
#include "check.h"

#define IS(name, type) _Static_assert(_Generic(&(name), type: 1, default: 0), #name)
#define MEMBER(struct_type, member, type) \
    _Static_assert(_Generic(&((struct_type *)0)->member, type *: 1, default: 0), #member)

IS(gasp_map_contig, void *(*)(const vdev_t *, int, uint64_t *, size_t *));
IS(gasp_map_vdma, void *(*)(const vdev_t *, int, uint64_t, size_t));
IS(gasp_map_sys, void *(*)(struct guest_system *, int, uint64_t, size_t));
IS(gasp_unmap, void (*)(struct guest_system *, const void *, size_t, int const));

IS(gasp_region_info,
   int (*)(struct guest_system *, const struct qvm_state_block *, struct gasp_region *));
IS(gasp_region_set, void (*)(struct guest_system *, unsigned, const struct gasp_region *));
IS(gasp_region_set_soft, unsigned (*)(struct guest_system *, unsigned, const struct gasp_region *));
IS(gasp_lock, int (*)(struct guest_system *, uint16_t));
IS(gasp_unlock, int (*)(struct guest_system *, uint16_t));

IS(gasp_find_free, uint64_t (*)(const struct guest_system *, unsigned, uint64_t, uint64_t));
IS(gasp_find_free_range,
   uint64_t (*)(const struct guest_system *, unsigned, uint64_t, uint64_t, uint64_t, uint64_t));
IS(gram_find_free,
   uint64_t (*)(struct guest_system *const, uint64_t const, uint64_t const, unsigned const));
IS(gram_find_free_range,
   uint64_t (*)(struct guest_system *, uint64_t, uint64_t, unsigned, uint64_t, uint64_t));
IS(gram_reserve, errno_t (*)(struct guest_system *, uint64_t, uint64_t));

IS(gasp_walk_init, int (*)(struct gasp_walk_state *, struct guest_system *, uint64_t, unsigned));
IS(gasp_walk_next, int (*)(struct gasp_walk_state *));
IS(gasp_walk_count, unsigned (*)(const struct guest_system *, uint64_t, unsigned));
IS(gasp_walk_init_filtered, int (*)(struct gasp_walk_state_filtered *, struct guest_system *,
                                    uint64_t, unsigned, gasp_walk_filter_t));
IS(gasp_walk_next_filtered, int (*)(struct gasp_walk_state_filtered *));
IS(gasp_walk_count_filtered,
   unsigned (*)(const struct guest_system *, uint64_t, unsigned, gasp_walk_filter_t));

_Static_assert(sizeof(struct qvm_state_block) == 16, "struct qvm_state_block");
MEMBER(struct qvm_state_block, location, uint64_t);
MEMBER(struct qvm_state_block, length, uint32_t);
MEMBER(struct qvm_state_block, type, uint16_t);
MEMBER(struct qvm_state_block, flags, uint16_t);
MEMBER(struct gasp_region, flags, uint32_t);
MEMBER(struct gasp_region, guest, struct qvm_state_block);
MEMBER(struct gasp_walk_state, span, void *);
MEMBER(struct gasp_walk_state, gsp, struct guest_system *);
MEMBER(struct gasp_walk_state, guest_loc, uint64_t);
MEMBER(struct gasp_walk_state, host_loc, uint64_t);
MEMBER(struct gasp_walk_state, length, uint64_t);
MEMBER(struct gasp_walk_state, max_length, uint64_t);
MEMBER(struct gasp_walk_state, flags, unsigned);
MEMBER(struct gasp_walk_state_filtered, ws, struct gasp_walk_state);
MEMBER(struct gasp_walk_state_filtered, filter, gasp_walk_filter_t);
MEMBER(struct gasp_walk_state_filtered, remaining_guest_loc, uint64_t);
MEMBER(struct gasp_walk_state_filtered, remaining_length, uint64_t);

typedef void (*any_function)(void);
static any_function volatile const all[] = {
    (any_function)gasp_map_contig, (any_function)gasp_map_vdma,
    (any_function)gasp_map_sys, (any_function)gasp_unmap,
    (any_function)gasp_region_info, (any_function)gasp_region_set,
    (any_function)gasp_region_set_soft, (any_function)gasp_lock,
    (any_function)gasp_unlock, (any_function)gasp_find_free,
    (any_function)gasp_find_free_range, (any_function)gram_find_free,
    (any_function)gram_find_free_range, (any_function)gram_reserve,
    (any_function)gasp_walk_init, (any_function)gasp_walk_next,
    (any_function)gasp_walk_count, (any_function)gasp_walk_init_filtered,
    (any_function)gasp_walk_next_filtered, (any_function)gasp_walk_count_filtered,
};

static void every_function_is_there(void)
{
    for (size_t i = 0; i < COUNT_OF(all); i++)
        CHECK(all[i] != NULL);
}

static const struct test tests[] = { TEST(every_function_is_there) };
RUN(tests)
