/* with_asan.h - WITH_ASAN: whether the address sanitizer is in.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Its allocator is not made whole in a child whose parent has other threads.
 */
#ifndef LOAM_TESTS_SUPPORT_WITH_ASAN_H_
#define LOAM_TESTS_SUPPORT_WITH_ASAN_H_

#include "arena/alloc.h"

#define WITH_ASAN LOAM_ASAN

#endif
