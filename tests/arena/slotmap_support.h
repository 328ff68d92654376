/* slotmap_support.h - The map of the slotmap's tests: made before each, and its books looked at behind it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * For one file of tests each, whose suite has setup and teardown.
 */
#ifndef LOAM_TESTS_ARENA_SLOTMAP_SUPPORT_H_
#define LOAM_TESTS_ARENA_SLOTMAP_SUPPORT_H_

#include "arena/slotmap.h"
#include "arena/status.h"
#include "tests/support/check.h"

#define KIND 5

static struct alloc memory;
static struct slotmap map;
static int things[64];
static unsigned finalised;

static inline void count_finalised(void *arg, void *payload)
{
    (void)payload;
    ++*(unsigned *)arg;
}

static inline void setup(void)
{
    alloc_init(&memory, NULL, UINT64_MAX);
    CHECK_EQ(slotmap_init(&map, &memory, KIND), LOAM_OK);
    finalised = 0;
}

static inline void check_census(void)
{
    struct slotmap_census c;
    slotmap_census(&map, &c);
    CHECK_EQ(c.free + c.reserved + c.live + c.closing + c.retired, c.carved);
    CHECK_EQ(c.live, slotmap_len(&map));
    CHECK_EQ(c.retired, slotmap_retired(&map));
    CHECK_EQ(c.occupancy_errors, 0);
}

static inline void teardown(void)
{
    check_census();
    slotmap_destroy(&map);
    CHECK_EQ(alloc_used(&memory), 0);
}

static inline void *get(uint64_t h)
{
    epoch_enter();
    void *p = slotmap_get(&map, h);
    epoch_exit();
    return p;
}

static inline int get_or_stale(uint64_t h)
{
    void *p;
    epoch_enter();
    int rc = slotmap_get_or_stale(&map, h, &p);
    epoch_exit();
    return rc;
}

#endif
