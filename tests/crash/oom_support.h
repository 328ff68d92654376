/* oom_support.h - Memory that runs out on demand: every allocation, mapping and thread start is counted.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Stands behind the allocator hooks of databases and of the library itself; mmap, munmap and
 * pthread_create of the test program are wrapped by the linker (see tests/CMakeLists.txt).
 */
#ifndef LOAM_TESTS_CRASH_OOM_SUPPORT_H_
#define LOAM_TESTS_CRASH_OOM_SUPPORT_H_

#include <stdbool.h>
#include <stdint.h>

#include "engine/loam.h"

/* What is counted and refused. */
#define OOM_HOOK 0x1u   /* the allocator given to databases */
#define OOM_GLOBAL 0x2u /* what belongs to no database: handles, batches, threads' records */
#define OOM_MAP 0x4u    /* mmap */
#define OOM_THREAD 0x8u /* pthread_create */
#define OOM_ALL 0xfu

/* Takes the place of the library's own allocator; before its first use in the process. */
void oom_install(void);
const loam_allocator *oom_allocator(void);

/* From here on requests of these kinds are counted from 1, and the one numbered `at` is refused (0:
 * none), or with `persist` that one and all after it. */
void oom_arm(unsigned kinds, uint64_t at, bool persist);
/* Nothing is refused or counted any more. Returns how many were refused. */
uint64_t oom_disarm(void);
uint64_t oom_calls(void); /* counted since oom_arm() */

/* What is allocated and mapped now. Blocks: allocations not yet freed. */
struct oom_live {
    int64_t hook_bytes, global_bytes, mapped_bytes, blocks;
    uint64_t last_number; /* of the newest block */
};
struct oom_live oom_live(void);

/* Prints the blocks that came after that one and are still there; from where, with LOAM_BLOCKS. */
void oom_print_blocks(uint64_t after);
/* Prints where the last request was refused. */
void oom_print_place(void);

#endif
