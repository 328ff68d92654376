/* list_world.h - The list that the skip list's scenarios share, and what their threads do with it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Behind every schedule the list is checked as a whole: level 0 in strict order, every tower linked
 * at each of its levels, each level a part of the one below, tags of chains falling, guides' entries
 * behind their nodes with the right codes.
 */
#ifndef LOAM_TESTS_EXPLORE_LIST_WORLD_H_
#define LOAM_TESTS_EXPLORE_LIST_WORLD_H_

#include "memtable/memtable.h"

#include <string.h>

#include "arena/status.h"
#include "arena/thread_slot.h"
#include "tests/explore/explore.h"
#include "tests/support/list_seed.h"

enum {
    CHUNK = 16384,
    TALL = 3,    /* with a guide for level 2 */
    HIGHEST = 5, /* and one for level 4 */
};

static struct {
    struct chunk_pool pool;
    struct arena arena;
    struct skiplist list;
    struct memtable *m;
    struct skiplist_writer *writer[EXPLORE_THREADS];
    uint64_t seed[HIGHEST + 1]; /* by the height that is drawn next */
} w;

static inline loam_slice slice(const char *s)
{
    return loam_bytes(s, strlen(s));
}

/* Values tell their tag, in every byte. */
static inline loam_slice value_of(uint64_t tag, unsigned char buf[8])
{
    memset(buf, (int)('0' + tag), 8);
    return loam_bytes(buf, 8);
}

static inline void expect_value(const struct entry *e)
{
    EXPECT_EQ(e->value.size, 8);
    const unsigned char *p = e->value.data;
    for (unsigned i = 0; i < 8; i++) {
        EXPECT_EQ(p[i], '0' + e->tag);
    }
}

static inline void add_in(uint32_t ks, const char *key, uint64_t tag)
{
    unsigned char buf[8];
    struct skiplist_target t = skiplist_target(&w.list, ks, slice(key));
    struct skiplist_place p;
    skiplist_locate(&w.list, &t, &p);
    EXPECT_EQ(skiplist_link(&w.list, &p, tag, value_of(tag, buf)), LOAM_OK);
}

static inline void add(const char *key, uint64_t tag)
{
    add_in(0, key, tag);
}

static inline bool has_in(uint32_t ks, const char *key, uint64_t min_tag)
{
    struct entry e;
    if (skiplist_get(&w.list, ks, slice(key), UINT64_MAX, &e) != LOAM_OK) {
        return false;
    }
    expect_value(&e);
    return e.tag >= min_tag;
}

static inline bool has(const char *key, uint64_t min_tag)
{
    return has_in(0, key, min_tag);
}

/* With chunks that were used before. */
static inline void setup_pool(void)
{
    EXPECT_EQ(chunk_pool_init(&w.pool, alloc_global(), CHUNK, 4), LOAM_OK);
    void *a = chunk_pool_take(&w.pool), *b = chunk_pool_take(&w.pool);
    EXPECT(a != NULL && b != NULL);
    memset(a, 0xa5, CHUNK);
    memset(b, 0xa5, CHUNK);
    chunk_pool_give(&w.pool, a);
    chunk_pool_give(&w.pool, b);
}

static inline void setup_empty(void)
{
    for (uint32_t h = 1; h <= HIGHEST; h++) {
        w.seed[h] = seed_of_height(h);
    }
    setup_pool();
    EXPECT_EQ(arena_init(&w.arena, &w.pool, arena_new_ids(1), 2048, ARENA_NO_LIMIT), LOAM_OK);
    skiplist_init(&w.list, &w.arena, &w.arena, NULL, NULL);
}

static inline void setup_list(void)
{
    setup_empty();
    add("m", 1);
}

/* A writer's record for each thread, and room, so that schedules are about links. */
static inline void prepare(unsigned thread)
{
    struct skiplist_need need = {0};
    for (unsigned i = 0; i < 4; i++) {
        skiplist_need_add(&need, 0, 64, 64);
    }
    EXPECT_EQ(skiplist_ensure(&w.list, &need), LOAM_OK);
    uint32_t ref = w.list.writers;
    struct skiplist_writer *r = arena_at(&w.arena, ref);
    while (r->slot != thread_slot_self()) {
        r = arena_at(&w.arena, r->next);
    }
    r->random = w.seed[TALL];
    w.writer[thread] = r;
}

static inline void add_high_in(unsigned thread, uint32_t height, uint32_t ks, const char *key,
                               uint64_t tag)
{
    w.writer[thread]->random = w.seed[height];
    add_in(ks, key, tag);
    EXPECT(has_in(ks, key, tag));
}

static inline void add_high(unsigned thread, uint32_t height, const char *key, uint64_t tag)
{
    add_high_in(thread, height, 0, key, tag);
}

/* In two parts: the search for a node of that height is begun and taken some steps down. */
static inline void begin_high(unsigned thread, uint32_t height, const char *key, uint32_t steps,
                              struct skiplist_ahead *a)
{
    w.writer[thread]->random = w.seed[height];
    struct skiplist_target t = skiplist_target(&w.list, 0, slice(key));
    EXPECT(skiplist_ahead_begin(&w.list, &t, a));
    for (uint32_t i = 1; i < steps; i++) {
        skiplist_ahead_step(&w.list, a);
    }
}

static inline void end_high(struct skiplist_ahead *a, uint64_t tag)
{
    unsigned char buf[8];
    struct skiplist_place p;
    skiplist_locate_ahead(&w.list, a, &p);
    EXPECT_EQ(skiplist_link(&w.list, &p, tag, value_of(tag, buf)), LOAM_OK);
}

static inline void add_tall(unsigned thread, const char *key, uint64_t tag)
{
    add_high(thread, TALL, key, tag);
}

static inline void list_check(void)
{
    const char *broken = skiplist_check(&w.list);
    if (broken != NULL) {
        explore_fail("%s", broken);
    }
}

/* "k" has the versions 1 to 3. */
static inline void same_key_check(void)
{
    list_check();
    EXPECT_EQ(skiplist_count(&w.list), 4);
    struct entry e;
    for (uint64_t tag = 1; tag <= 3; tag++) {
        EXPECT_EQ(skiplist_get(&w.list, 0, slice("k"), tag, &e), LOAM_OK);
        EXPECT_EQ(e.tag, tag);
        expect_value(&e);
    }
}

#endif
