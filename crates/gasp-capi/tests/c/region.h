/* Entries for gasp_region_set(), and questions about regions. */
#ifndef REGION_H
#define REGION_H

#include "fixture.h"

/* An entry with the cookie 7. */
static inline struct gasp_region entry(uint16_t type, uint64_t start, uint64_t length,
                                       uint32_t flags, vdev_t *vdev)
{
    const struct gasp_region region = {
        flags, 7, vdev, QSL_NO_LOCATION, { start, length, type, 0, 0 }
    };
    return region;
}

static inline struct gasp_region memory(uint64_t start, uint64_t length, uint32_t flags,
                                        vdev_t *vdev)
{
    return entry(QST_MEMORY, start, length, flags, vdev);
}

/* gasp_region_info() of a range. */
static inline int info(uint16_t type, uint64_t start, uint64_t length, struct gasp_region *region)
{
    const struct qvm_state_block block = { start, length, type, 0, 0 };
    return gasp_region_info(&block, region);
}

static inline void begin_running(gasp_guest_t *guest)
{
    CHECK_OK(gasp_guest_start(guest));
}

#endif
