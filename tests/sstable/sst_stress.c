/* sst_stress.c - Builders, readers and scans over one small cache, all at once.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Several threads each build a table, open it warm, read it and close it, again and again, through
 * a ring that holds only part of one: every builder evicts blocks of the others. Oracle: the value
 * of a key follows from the key and the table's number.
 */
#include "arena/hash.h"
#include "arena/random.h"
#include "arena/sync.h"
#include "sstable/sst_cursor.h"
#include "tests/support/check.h"
#include "tests/support/memory_disk.h"
#include "tests/support/stress.h"

#define THREADS 3
#define ENTRIES 1500

struct shared {
    loam_vfs *disk;
    struct alloc alloc;
    struct block_cache cache;
    unsigned rounds;
};

static void fill_entry(struct entry *e, uint64_t number, uint64_t i, char *key, char *value)
{
    snprintf(key, 32, "key%09llu", (unsigned long long)i);
    memset(value, (int)('a' + number % 26), 64);
    snprintf(value, 64, "%llu of %llu", (unsigned long long)i, (unsigned long long)number);
    *e = (struct entry){loam_bytes(key, 12), entry_tag(i + 1, ENTRY_PUT),
                        loam_bytes(value, 40 + i % 24)};
}

static struct sst_reader *build_and_open(struct shared *w, uint64_t number, const char *path)
{
    struct sst_builder *b = NULL;
    struct sst_reader *r = NULL;
    struct sst_info info;
    struct sst_warm warm;
    char key[32], value[64];
    struct sst_build_options o = {.vfs = w->disk,
                                  .alloc = &w->alloc,
                                  .cache = &w->cache,
                                  .path = path,
                                  .file_number = number,
                                  .db_id = 1,
                                  .block_bytes = 1024,
                                  .filter_bits = 10};
    CHECK_EQ(sst_builder_open(&b, &o), LOAM_OK);
    for (uint64_t i = 0; i < ENTRIES; i++) {
        struct entry e;
        fill_entry(&e, number, 2 * i, key, value);
        CHECK_EQ(sst_builder_add(b, &e, 0), LOAM_OK);
        if (number % 5 == 0 && i == ENTRIES / 2) {
            sst_builder_free(b); /* every fifth table is abandoned half-way */
            return NULL;
        }
    }
    CHECK_EQ(sst_builder_finish(b, &info), LOAM_OK);
    sst_builder_take_warm(b, &warm);
    sst_builder_free(b);
    struct sst_open_options open = {.vfs = w->disk,
                                    .alloc = &w->alloc,
                                    .cache = &w->cache,
                                    .path = path,
                                    .file_number = number,
                                    .db_id = 1,
                                    .size = info.size,
                                    .paranoid = number % 2 != 0,
                                    .warm = &warm,
                                    .resident_bytes = number % 3 == 0 ? UINT64_MAX : 0};
    CHECK_EQ(sst_open(&open, &r), LOAM_OK);
    return r;
}

static void read_table(struct shared *w, struct sst_reader *r, uint64_t number, struct random *rnd)
{
    struct sst_get_scratch s;
    struct sst_cursor c;
    struct entry want, got;
    char key[32], value[64];
    sst_get_scratch_init(&s, &w->alloc);
    for (int k = 0; k < 300; k++) {
        uint64_t i = random_below(rnd, 2 * ENTRIES);
        fill_entry(&want, number, i, key, value);
        epoch_enter();
        int rc = sst_get(r, want.key, hash_key(want.key.data, want.key.size), SEQ_MAX, &s, &got);
        CHECK_EQ(rc, i % 2 == 0 ? LOAM_OK : LOAM_NOTFOUND);
        if (rc == LOAM_OK) {
            CHECK_BYTES(got.value.data, got.value.size, want.value.data, want.value.size);
        }
        epoch_exit();
    }
    sst_get_scratch_free(&s);
    uint32_t flags = number % 2 != 0 ? SST_CURSOR_BACKGROUND : 0;
    CHECK_EQ(sst_cursor_init(&c, r, &w->alloc, flags, 0), LOAM_OK);
    uint64_t i = 0;
    for (bool ok = sst_cursor_first(&c); ok; ok = sst_cursor_next(&c), i += 2) {
        sst_cursor_entry(&c, &got);
        fill_entry(&want, number, i, key, value);
        CHECK_BYTES(got.key.data, got.key.size, want.key.data, want.key.size);
        CHECK_BYTES(got.value.data, got.value.size, want.value.data, want.value.size);
    }
    CHECK_EQ(sst_cursor_rc(&c), LOAM_OK);
    CHECK_EQ(i, 2 * ENTRIES);
    sst_cursor_free(&c);
}

static void work(struct crew_member *me)
{
    struct shared *w = me->shared;
    struct random rnd;
    random_init(&rnd, me->seed);
    for (unsigned round = 0; round < w->rounds; round++) {
        char path[32];
        uint64_t number = 1 + me->index + (uint64_t)THREADS * round;
        snprintf(path, sizeof path, "/%llu", (unsigned long long)number);
        struct sst_reader *r = build_and_open(w, number, path);
        if (r != NULL) {
            read_table(w, r, number, &rnd);
            sst_close(r);
        }
        CHECK_EQ(w->disk->remove(w->disk->ctx, path), 0);
        epoch_poll();
    }
}

STRESS(sst, tables_share_a_ring)
{
    struct shared w = {.rounds = 12 * (unsigned)stress_scale};
    w.disk = memory_disk();
    alloc_init(&w.alloc, NULL, UINT64_MAX);
    CHECK_EQ(block_cache_init(&w.cache, &w.alloc, 48 << 10, 0), LOAM_OK);
    crew_run(THREADS, work, &w, seed);
    epoch_synchronize();
    block_cache_destroy(&w.cache);
    CHECK_EQ(alloc_used(&w.alloc), 0);
    loam_vfs_free(w.disk);
}
