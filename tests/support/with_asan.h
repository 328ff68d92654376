/* with_asan.h - WITH_ASAN: whether the address sanitizer is in.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Its allocator is not made whole in a child whose parent has other threads.
 */
#ifndef LOAM_TESTS_SUPPORT_WITH_ASAN_H_
#define LOAM_TESTS_SUPPORT_WITH_ASAN_H_

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if !defined(WITH_ASAN)
#define WITH_ASAN 0
#endif

#endif
