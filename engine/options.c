/* options.c - Defaults, ranges and the division of the memory budget.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/options.h"

#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "arena/status.h"

#include "arena/poison.h"

#define BUDGET_MIN ((uint64_t)1 << 20)
#define MIB        ((uint64_t)1 << 20)
#define RING_MAX   ((uint64_t)1 << 43) /* with what it is lent a ring has 2^24 units of 1 MiB */
#define DISK_BUDGET_MIN   (4 * MIB)
#define DISK_RESERVE_MIN  ((uint64_t)64 << 10)
#define DISK_RESERVE_MAX  ((uint64_t)1 << 46)
#define DISK_RESERVE_UNIT ((uint64_t)4 << 10)

/* What a newer caller has behind the fields known here must be zero. */
static int check_tail(const void *opts, size_t size, size_t known, const char *what)
{
    if (size > ((size_t)1 << 16)) {
        return FAIL(LOAM_E_INVAL, "%s.struct_size is %zu: not initialised?", what, size);
    }
    const unsigned char *bytes = opts;
    for (size_t i = known; i < size; i++) {
        if (bytes[i] != 0) {
            return FAIL(LOAM_E_INVAL, "%s sets a field this version of the library does not know",
                        what);
        }
    }
    return LOAM_OK;
}

int options_check_size_(const void *opts, size_t size, size_t known, const char *what)
{
    return size < known
               ? FAIL(LOAM_E_INVAL, "%s.struct_size is %zu, at least %zu", what, size, known)
               : check_tail(opts, size, known, what);
}

int options_copy(void *dst, size_t dst_size, const void *src, size_t src_size, size_t min_size,
                 const char *what)
{
    memset(dst, 0, dst_size);
    if (src == NULL) {
        return LOAM_OK;
    }
    if (src_size < min_size) {
        return FAIL(LOAM_E_INVAL, "%s.struct_size is %zu, at least %zu", what, src_size, min_size);
    }
    int rc = check_tail(src, src_size, dst_size, what);
    if (rc < 0) {
        return rc;
    }
    memcpy(dst, src, src_size < dst_size ? src_size : dst_size);
    return LOAM_OK;
}

/* The memory limit of this process's control group, or UINT64_MAX. */
static uint64_t cgroup_limit(void)
{
    static const char *const paths[] = {"/sys/fs/cgroup/memory.max",
                                        "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    const loam_vfs *os = loam_vfs_os();
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        loam_file *f;
        if (os->open(os->ctx, paths[i], LOAM_VFS_READ, &f) < 0) {
            continue;
        }
        char text[32];
        int64_t n = os->read(os->ctx, f, text, sizeof text - 1, 0);
        os->close(os->ctx, f);
        uint64_t v = 0;
        for (int64_t k = 0; k < n && text[k] >= '0' && text[k] <= '9'; k++) {
            v = v * 10 + (uint64_t)(text[k] - '0');
        }
        if (v != 0) { /* "max" parses as 0 */
            return v;
        }
    }
    return UINT64_MAX;
}

static uint64_t default_budget(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page = sysconf(_SC_PAGESIZE);
    uint64_t ram = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 1024 * MIB;
    uint64_t limit = cgroup_limit();
    uint64_t budget = (limit < ram ? limit : ram) / 8;
    return budget > BUDGET_MIN ? budget : BUDGET_MIN;
}

static uint32_t default_threads(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t n = cores > 1 ? (uint32_t)cores / 2 : 1;
    return n < 4 ? n : 4;
}

static uint32_t default_open_files(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur == RLIM_INFINITY) {
        return 4096;
    }
    uint64_t n = r.rlim_cur / 2;
    return n < 16 ? 16 : n > 4096 ? 4096 : (uint32_t)n;
}

static uint64_t clamp(uint64_t v, uint64_t lo, uint64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

/* The largest power of two <= v. */
static uint64_t power_of_two_below(uint64_t v)
{
    return (uint64_t)1 << (63 - __builtin_clzll(v));
}

/* A third goes to memtables (above 64 MiB they gain little and make the list's cache misses dearer), a
 * sixteenth to iterators, the log and the rest, and an eighth, at most 6 MiB, to what the log has mapped behind
 * writers and merges have in hand at the worst of times. Of what is left 16 % go to indexes and filters,
 * which is what tables of about five times the budget need, and the rest to the cache, its directory for
 * tables that are not resident included. Indexes may take half of the memtables' share beyond that: a
 * smaller memtable costs some rewriting, an index that is not resident a page and a partition of cache
 * for each lookup. */
static void divide_budget(uint64_t budget, uint64_t disk, struct limits *l)
{
    l->budget = budget;
    uint64_t memtables = budget / 3;
    l->memtable_bytes = clamp(memtables / 3, 32 * 1024, 64 * MIB);
    if (disk != 0) { /* the log has several segments of about this size, and the reserve some more */
        l->memtable_bytes = clamp(disk / 32, 32 * 1024, l->memtable_bytes);
    }
    l->memtables_max = (uint32_t)clamp(memtables / l->memtable_bytes, 3, 6);
    memtables = l->memtable_bytes * l->memtables_max;
    l->chunk_bytes = power_of_two_below(clamp(l->memtable_bytes / 16, 16 * 1024, 2 * MIB));
    l->lease_bytes = clamp(l->chunk_bytes / 32, 4096, 64 * 1024);
    l->other_bytes = budget / 16 + clamp(budget / 8, 0, 6 * MIB);
    uint64_t rest = budget - memtables - l->other_bytes;
    l->table_bytes = rest / 25 * 4;
    l->table_bytes_most = l->table_bytes + memtables / 2;
    l->ring_bytes = clamp(rest - l->table_bytes, 0, RING_MAX);
    l->lent_bytes_most = clamp((memtables + l->table_bytes) / 8 * 7, 0, RING_MAX / 2);
    l->iter_bytes = clamp(budget / 32, 64 * 1024, UINT64_MAX);
    /* Eight scans of 1 MiB values at once; of a small budget, fewer. */
    l->held_bytes = clamp(budget / 64, clamp(budget / 2, 0, 8 * MIB) + MIB / 4, UINT64_MAX);
    /* Two values of 1 MiB at once; of a small budget, one. */
    l->passing_bytes = clamp(budget / 128, clamp(budget / 8, MIB, 2 * MIB) + MIB / 8, UINT64_MAX);
    /* However many tables it walks, and however far it is told to read ahead: else a few iterators would take
     * more in one move than is ever trimmed in time. */
    l->readahead_bytes = (uint32_t)clamp(budget / 1024, MIB, 64 * MIB);
    if (l->readahead_bytes > l->iter_bytes) {
        l->readahead_bytes = (uint32_t)l->iter_bytes;
    }
    l->scan_read_bytes = (uint32_t)clamp(budget / 1024, 8 * 1024, 64 * 1024);
    l->merge_read_bytes = (uint32_t)clamp(budget / 256, 16 * 1024, 256 * 1024);
    l->merge_reads_bytes = clamp(budget / 192, 64 * 1024, UINT64_MAX);
    l->segment_bytes = l->memtable_bytes + l->memtable_bytes / 4;
    l->segment_bytes_first = clamp(4 * MIB, 0, l->segment_bytes);
    l->manifest_bytes = clamp(budget / 128, 8 * 1024, MIB);
    l->window_bytes =
        (uint32_t)power_of_two_below(clamp(l->memtable_bytes / 8, 64 * 1024, 256 * 1024));
    l->value_max = clamp(budget / 4, 1, LOAM_MAX_VALUE);
    l->batch_max = clamp(budget / 2, 1, LOAM_MAX_VALUE + 16 * MIB);
    /* Of the memtables' share three quarters: the log still has the batch before. And a quarter of what may be
     * taken beside the budget, so that a small one, too, has room for some ten thousands of operations. */
    l->batch_small_max = clamp(budget / 4, 0, 256 * MIB) + 4 * MIB;
    l->target_file_bytes = clamp(l->memtable_bytes, 256 * 1024, 64 * MIB);
}

int options_resolve_ks(const loam_ks_options *opts, loam_ks_options *out)
{
    int rc = options_copy(out, sizeof *out, opts, opts != NULL ? opts->struct_size : 0,
                          sizeof(loam_ks_options), "ks_options");
    if (rc < 0) {
        return rc;
    }
    out->struct_size = sizeof *out;
    if (out->comparator != NULL) {
        const loam_comparator *c = out->comparator;
        if (c->struct_size < sizeof *c || c->compare == NULL || c->name == NULL ||
            c->name[0] == '\0' || strlen(c->name) > 255) {
            return FAIL(LOAM_E_INVAL, "ks_options.comparator needs struct_size, a name of 1 to 255 "
                                      "bytes and compare");
        }
    }
    if (out->compression > LOAM_COMPRESS_ZSTD) {
        return FAIL(LOAM_E_INVAL, "ks_options.compression is %u, at most %d", out->compression,
                    LOAM_COMPRESS_ZSTD);
    }
#if !defined(LOAM_HAVE_ZSTD)
    if (out->compression == LOAM_COMPRESS_ZSTD) {
        return FAIL(LOAM_E_UNSUPPORTED, "ks_options.compression: zstd is not built in");
    }
#endif
    if (out->compression == LOAM_COMPRESS_DEFAULT) {
        out->compression = LOAM_COMPRESS_LZ4;
    }
    if (out->filter_bits == 0) {
        out->filter_bits = 10;
    } else if (out->filter_bits == UINT32_MAX) {
        out->filter_bits = 0;
    } else if (out->filter_bits > 32) {
        return FAIL(LOAM_E_INVAL, "ks_options.filter_bits is %u, at most 32", out->filter_bits);
    }
    if (out->block_bytes == 0) {
        out->block_bytes = 4096;
    }
    if (out->block_bytes < 512 || out->block_bytes > 65536) {
        return FAIL(LOAM_E_INVAL, "ks_options.block_bytes is %u, 512 to 65536", out->block_bytes);
    }
    for (size_t i = 0; i < sizeof out->reserved_ / sizeof *out->reserved_; i++) {
        if (out->reserved_[i] != 0) {
            return FAIL(LOAM_E_INVAL, "ks_options.reserved_ is not zero");
        }
    }
    return LOAM_OK;
}

/* All calls but map, unmap, write_durable and is_named must be there; either both of the first two or none. */
static int check_vfs(const loam_vfs *v)
{
    const size_t least = offsetof(loam_vfs, write_durable); /* the first that came later */
    if (v->struct_size < least) {
        return FAIL(LOAM_E_INVAL, "options.vfs.struct_size is %zu, at least %zu", v->struct_size,
                    least);
    }
    const struct {
        const char *name;
        bool present;
    } calls[] = {
        {"open", v->open != NULL},       {"close", v->close != NULL},
        {"read", v->read != NULL},       {"write", v->write != NULL},
        {"sync", v->sync != NULL},       {"truncate", v->truncate != NULL},
        {"reserve", v->reserve != NULL}, {"size", v->size != NULL},
        {"advise", v->advise != NULL},   {"sync_dir", v->sync_dir != NULL},
        {"mkdir", v->mkdir != NULL},     {"rename", v->rename != NULL},
        {"link", v->link != NULL},       {"remove", v->remove != NULL},
        {"list", v->list != NULL},       {"lock", v->lock != NULL},
        {"space", v->space != NULL},     {"now_us", v->now_us != NULL},
        {"random", v->random != NULL},   {"unmap", v->map == NULL || v->unmap != NULL},
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (!calls[i].present) {
            return FAIL(LOAM_E_INVAL, "options.vfs.%s is NULL", calls[i].name);
        }
    }
    return LOAM_OK;
}

static int check_pointers(const loam_options *u)
{
    int rc = u->vfs != NULL ? check_vfs(u->vfs) : LOAM_OK;
    if (rc < 0) {
        return rc;
    }
    if (u->allocator != NULL && (u->allocator->struct_size < sizeof *u->allocator ||
                                 u->allocator->alloc == NULL || u->allocator->free == NULL)) {
        return FAIL(LOAM_E_INVAL, "options.allocator needs struct_size, alloc and free");
    }
    if (u->reserved0_ != 0) {
        return FAIL(LOAM_E_INVAL, "options.reserved0_ is not zero");
    }
    for (size_t i = 0; i < sizeof u->reserved_ / sizeof *u->reserved_; i++) {
        if (u->reserved_[i] != 0) {
            return FAIL(LOAM_E_INVAL, "options.reserved_ is not zero");
        }
    }
    return LOAM_OK;
}

static int check_reserve(const loam_options *u)
{
    uint64_t most = u->disk_budget != 0 ? u->disk_budget / 2 : DISK_RESERVE_MAX;
    if (u->disk_reserve != 0 && (u->disk_reserve < DISK_RESERVE_MIN || u->disk_reserve > most)) {
        return FAIL(LOAM_E_INVAL, "options.disk_reserve is %llu, at least %llu and at most %llu%s",
                    (unsigned long long)u->disk_reserve, (unsigned long long)DISK_RESERVE_MIN,
                    (unsigned long long)most, u->disk_budget != 0 ? ", half of disk_budget" : "");
    }
    return LOAM_OK;
}

static int check_numbers(const loam_options *u)
{
    int rc;
    const uint32_t known =
        LOAM_OPEN_MUST_EXIST | LOAM_OPEN_NEW | LOAM_OPEN_READONLY | LOAM_OPEN_PARANOID;
    if ((u->flags & ~known) != 0) {
        return FAIL(LOAM_E_INVAL, "options.flags has unknown bits 0x%x", u->flags & ~known);
    }
    if ((u->flags & LOAM_OPEN_NEW) != 0 &&
        (u->flags & (LOAM_OPEN_MUST_EXIST | LOAM_OPEN_READONLY)) != 0) {
        return FAIL(LOAM_E_INVAL, "options.flags: NEW goes with neither MUST_EXIST nor READONLY");
    }
    if (u->durability > LOAM_DUR_POWER) {
        return FAIL(LOAM_E_INVAL, "options.durability is %u, at most %d", u->durability,
                    LOAM_DUR_POWER);
    }
    if (u->threads > 64) {
        return FAIL(LOAM_E_INVAL, "options.threads is %u, at most 64", u->threads);
    }
    if (u->memory_budget != 0 && u->memory_budget < BUDGET_MIN) {
        return FAIL(LOAM_E_INVAL, "options.memory_budget is %llu, at least %llu",
                    (unsigned long long)u->memory_budget, (unsigned long long)BUDGET_MIN);
    }
    if (u->memory_budget > (uint64_t)1 << 46) {
        return FAIL(LOAM_E_INVAL, "options.memory_budget is over 64 TiB");
    }
    if (u->disk_budget != 0 && u->disk_budget < DISK_BUDGET_MIN) {
        return FAIL(LOAM_E_INVAL, "options.disk_budget is %llu, at least %llu",
                    (unsigned long long)u->disk_budget, (unsigned long long)DISK_BUDGET_MIN);
    }
    if ((rc = check_reserve(u)) < 0) {
        return rc;
    }
    if (u->max_open_files != 0 && u->max_open_files < 16) {
        return FAIL(LOAM_E_INVAL, "options.max_open_files is %u, at least 16", u->max_open_files);
    }
    if (u->log_level > LOAM_LOG_DEBUG) {
        return FAIL(LOAM_E_INVAL, "options.log_level is %u, at most %d", u->log_level,
                    LOAM_LOG_DEBUG);
    }
    return LOAM_OK;
}

int options_resolve(const loam_options *opts, struct options *out)
{
    loam_options *u = &out->user;
    int rc = options_copy(u, sizeof *u, opts, opts != NULL ? opts->struct_size : 0,
                          sizeof(loam_options), "options");
    if (rc < 0 || (rc = check_numbers(u)) < 0 || (rc = check_pointers(u)) < 0 ||
        (rc = options_resolve_ks(u->default_ks, &out->default_ks)) < 0) {
        return rc;
    }
    u->struct_size = sizeof *u;
    u->disk_reserve = (u->disk_reserve + DISK_RESERVE_UNIT - 1) / DISK_RESERVE_UNIT * DISK_RESERVE_UNIT;
    u->durability = u->durability != LOAM_DUR_DEFAULT ? u->durability : LOAM_DUR_PROCESS;
    u->sync_interval_ms = u->sync_interval_ms != 0 ? u->sync_interval_ms : 1000;
    u->threads = u->threads != 0 ? u->threads : default_threads();
    u->memory_budget = u->memory_budget != 0 ? u->memory_budget : default_budget();
    u->max_open_files = u->max_open_files != 0 ? u->max_open_files : default_open_files();
    u->max_write_pause_us = u->max_write_pause_us != 0 ? u->max_write_pause_us : 2000;
    u->log_level = u->log_level != 0 ? u->log_level : LOAM_LOG_WARN;
    u->vfs = u->vfs != NULL ? u->vfs : loam_vfs_os();
    divide_budget(u->memory_budget, u->disk_budget, &out->limits);
    return LOAM_OK;
}
