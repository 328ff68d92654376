/* poison.h - Included last in each .c file: what must go through one door is a compile error elsewhere.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Memory comes from arena/alloc, files from the vfs, threads and locks from arena/sync. The files
 * that are those doors do not include this header.
 */
#ifndef LOAM_ARENA_POISON_H_
#define LOAM_ARENA_POISON_H_

#if defined(__GNUC__)
#pragma GCC poison malloc calloc realloc strdup strndup posix_memalign aligned_alloc
#pragma GCC poison mmap munmap fopen fwrite fread fclose pread pwrite fsync fdatasync
#pragma GCC poison pthread_mutex_lock pthread_mutex_unlock pthread_create pthread_cond_wait
#pragma GCC poison strcpy strcat sprintf rand srand
#endif

#endif
