/* bench_store.c - One engine's database during a run: where it is, what it wrote.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "tools/bench_usage.h"

struct bench_open bench_store_how(const struct bench_store *s)
{
    const struct bench_flags *f = s->flags;
    struct bench_open how = {
        .dir = s->dir,
        .readonly = f->readonly,
        .must_exist = f->use_existing_db,
        .no_log = f->disable_wal,
        .durable = f->sync,
        .compress = strcmp(f->compression_type, "none") != 0,
        .bloom_bits = f->bloom_bits < 0 ? 10 : (uint32_t)f->bloom_bits,
        .mmap_read = f->mmap_read,
        .block_size = (uint32_t)f->block_size,
        .max_open_files = (uint32_t)f->open_files,
        .threads = (uint32_t)f->max_background_jobs,
        .memory_budget = (uint64_t)f->memory_budget,
        .disk_budget = (uint64_t)f->disk_budget,
        .disk_reserve = (uint64_t)f->disk_reserve,
        .write_buffer_size = (uint64_t)f->write_buffer_size,
        .cache_size = (uint64_t)f->cache_size,
    };
    /* One budget and two sizes say the same thing: two memtables of the one and a cache of the
     * other. Whichever the user gave decides the rest. */
    if (f->memory_budget == 0) {
        how.memory_budget = 2 * how.write_buffer_size + how.cache_size;
    } else {
        how.write_buffer_size =
            f->write_buffer_given ? how.write_buffer_size : how.memory_budget / 6;
        how.cache_size = f->cache_given ? how.cache_size : how.memory_budget / 3 * 2;
    }
    return how;
}

int bench_store_init(struct bench_store *s, const struct bench_engine *e,
                     const struct bench_flags *f, const char *parent, bool shared)
{
    s->engine = e;
    s->flags = f;
    s->db = NULL;
    atomic_init(&s->inserted, 0);
    int n = snprintf(s->dir, sizeof(s->dir), "%s%s%s", parent, shared ? "/" : "",
                     shared ? e->name : "");
    return n > 0 && (size_t)n < sizeof(s->dir) ? 0 : -1;
}

int bench_make_dirs(const char *path)
{
    char part[BENCH_PATH_MAX];
    size_t n = strlen(path);
    for (size_t i = 1; i <= n && n < sizeof(part); i++) {
        if (path[i] == '/' || path[i] == '\0') {
            memcpy(part, path, i);
            part[i] = '\0';
            if (mkdir(part, 0700) != 0 && errno != EEXIST) {
                return -1;
            }
        }
    }
    return 0;
}

int bench_store_open(struct bench_store *s)
{
    struct bench_open how = bench_store_how(s);
    return s->db != NULL ? BENCH_OK : s->engine->open(&how, &s->db);
}

int bench_store_close(struct bench_store *s)
{
    void *db = s->db;
    s->db = NULL;
    return db != NULL ? s->engine->close(db) : BENCH_OK;
}

int bench_store_fresh(struct bench_store *s)
{
    int rc = bench_store_close(s);
    rc = rc == BENCH_OK ? s->engine->destroy(s->dir) : rc;
    atomic_store_explicit(&s->inserted, 0, memory_order_relaxed);
    return rc == BENCH_OK ? bench_store_open(s) : rc;
}

/* An idle process has used less than 2 % of one CPU for two fifths of a second. */
static void wait_for_quiet(void)
{
    const struct timespec fifth = {0, 200000000};
    int quiet = 0;
    for (int i = 0; i < 300 && quiet < 2; i++) {
        struct bench_usage before, after;
        bench_usage_now(&before);
        nanosleep(&fifth, NULL);
        bench_usage_now(&after);
        quiet = after.cpu_seconds - before.cpu_seconds < 0.004 ? quiet + 1 : 0;
    }
}

int bench_store_settle(struct bench_store *s)
{
    if (s->engine->wait_idle != NULL) {
        return s->engine->wait_idle(s->db);
    }
    wait_for_quiet();
    return BENCH_OK;
}

bool bench_store_counters(struct bench_store *s, struct bench_counters *c)
{
    return s->db != NULL && s->engine->counters != NULL &&
           s->engine->counters(s->db, c) == BENCH_OK;
}
