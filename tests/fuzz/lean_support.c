/* lean_support.c - Makes opening a database cheap enough for thousands a second.
 * SPDX-License-Identifier: Apache-2.0
 *
 * An input holds a few hundred bytes, an open database maps a megabyte and starts threads. Programs
 * linked with the --wrap options of CMakeLists.txt are led here, and to tools/reuse.c for threads and
 * mappings. None of it changes what is read, checked or written.
 */
#include "arena/sync.h"
#include "engine/options.h"

#define BUDGET    ((uint64_t)1 << 20) /* the smallest */
#define BATCH_MAX ((size_t)16 << 10)

loam_batch *__real_loam_batch_new(size_t reserve);
loam_batch *__wrap_loam_batch_new(size_t reserve);
void __wrap_thread_sleep_micros(uint64_t micros);
int __real_options_resolve(const loam_options *opts, struct options *out);
int __wrap_options_resolve(const loam_options *opts, struct options *out);

/* Nobody outside the process is there to wait for. */
void __wrap_thread_sleep_micros(uint64_t micros)
{
    (void)micros;
    thread_yield();
}

/* Divides less than the smallest budget that is allowed: what an input holds fits many times over. */
int __wrap_options_resolve(const loam_options *opts, struct options *out)
{
    loam_options full;
    if (opts != NULL && opts->struct_size == sizeof full) {
        full = *opts; /* what is not given is not asked of the system */
        full.memory_budget = full.memory_budget != 0 ? full.memory_budget : BUDGET;
        full.threads = full.threads != 0 ? full.threads : 1;
        full.max_open_files = full.max_open_files != 0 ? full.max_open_files : 64;
        opts = &full;
    }
    int rc = __real_options_resolve(opts, out);
    if (rc != LOAM_OK) {
        return rc;
    }
    loam_options least = out->user;
    least.memory_budget = BUDGET;
    rc = __real_options_resolve(&least, out);
    if (rc == LOAM_OK) {
        struct limits *l = &out->limits;
        l->memtable_bytes = 32 << 10;
        l->chunk_bytes = 8 << 10;
        l->lease_bytes = 1 << 10;
        l->segment_bytes = 8 << 10;
        l->ring_bytes = 64 << 10;
        l->lent_bytes_most = 64 << 10;
    }
    return rc;
}

/* A megabyte that nobody writes to is mapped and cleared by a sanitizer all the same. */
loam_batch *__wrap_loam_batch_new(size_t reserve)
{
    return __real_loam_batch_new(reserve < BATCH_MAX ? reserve : BATCH_MAX);
}
