/* list_seed.h - A writer's random number of which the next node gets the height that a test wants.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_SUPPORT_LIST_SEED_H_
#define LOAM_TESTS_SUPPORT_LIST_SEED_H_

#include "memtable/skiplist_node.h"

static inline uint64_t seed_of_height(uint32_t height)
{
    uint64_t seed = 0, random;
    do {
        random = ++seed;
    } while (height_draw(&random) != height);
    return seed;
}

#endif
