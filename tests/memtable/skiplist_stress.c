/* skiplist_stress.c - Writers, readers and cursors at once in one memtable, with threads that come and go.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: an entry's value repeats its tag and its key's hash, so a torn or foreign entry is seen.
 * A thread must find what it added itself, and what others had published before. Cursors must see
 * rising keys and falling tags. At the end all entries are there, and skiplist_check() finds every
 * level sorted and every tower linked.
 */
#include <pthread.h>

#include "arena/hash.h"
#include "arena/random.h"
#include "arena/sync.h"
#include "arena/thread_slot.h"
#include "memtable/memtable.h"
#include "tests/support/check.h"
#include "tests/support/stress.h"

#define KEYS 3000

struct shared {
    struct alloc memory;
    struct chunk_pool pool;
    struct memtable *table;
    _Atomic uint64_t next_seq;
    _Atomic uint64_t published[KEYS]; /* a sequence number that every get must reach */
    uint64_t adds;                    /* per writer */
    uint64_t keys;
};

static void shared_init(struct shared *s, size_t bytes, uint64_t keys, uint64_t adds)
{
    memset(s, 0, sizeof *s);
    alloc_init(&s->memory, NULL, UINT64_MAX);
    CHECK_EQ(chunk_pool_init(&s->pool, &s->memory, 256 << 10, 8), LOAM_OK);
    struct memtable_options o = {.alloc = &s->memory, .pool = &s->pool, .bytes = bytes};
    CHECK_EQ(memtable_create(&o, &s->table), LOAM_OK);
    atom_store(&s->next_seq, 1, relaxed);
    s->adds = adds;
    s->keys = keys;
}

static void key_of(uint64_t number, char key[17])
{
    snprintf(key, 17, "%016llu", (unsigned long long)(number * 2654435761u % 1000000007u));
}

static void publish(struct shared *s, uint64_t number, uint64_t seq)
{
    uint64_t seen = atom_load(&s->published[number], relaxed);
    while (seen < seq && !atom_cas(&s->published[number], &seen, seq, release, relaxed)) {
    }
}

static void add_one(struct shared *s, uint64_t number)
{
    char key[17];
    key_of(number, key);
    uint64_t hash = hash_key(key, 16);
    uint64_t seq = atom_add(&s->next_seq, 1, relaxed);
    uint64_t value[2] = {entry_tag(seq, ENTRY_PUT), hash};
    struct memtable_need need = {0};
    memtable_need_add(&need, number % 2, 16, 16);
    CHECK_EQ(memtable_reserve(s->table, &need), LOAM_OK);
    CHECK_EQ(memtable_add(s->table, number % 2, loam_bytes(key, 16), hash, value[0],
                          loam_bytes(value, 16)),
             LOAM_OK);
    publish(s, number, seq);
}

#define TOGETHER 12

/* The same for several, searched for side by side. */
static void add_some(struct shared *s, const uint64_t *numbers)
{
    char keys[TOGETHER][17];
    uint64_t values[TOGETHER][2];
    struct memtable_op ops[TOGETHER];
    uint64_t first = atom_add(&s->next_seq, TOGETHER, relaxed);
    for (uint64_t i = 0; i < TOGETHER; i++) {
        key_of(numbers[i], keys[i]);
        uint64_t hash = hash_key(keys[i], 16);
        values[i][0] = entry_tag(first + i, ENTRY_PUT);
        values[i][1] = hash;
        ops[i] = (struct memtable_op){.ks = numbers[i] % 2,
                                      .key = loam_bytes(keys[i], 16),
                                      .key_hash = hash,
                                      .tag = values[i][0],
                                      .value = loam_bytes(values[i], 16)};
    }
    CHECK_EQ(memtable_add_batch(s->table, ops, TOGETHER), LOAM_OK);
    for (uint64_t i = 0; i < TOGETHER; i++) {
        publish(s, numbers[i], first + i);
    }
}

static void check_entry(const struct entry *e)
{
    uint64_t value[2];
    CHECK_EQ(e->key.size, 16);
    CHECK_EQ(e->value.size, 16);
    memcpy(value, e->value.data, 16);
    CHECK_EQ(value[0], e->tag);
    CHECK_EQ(value[1], hash_key(e->key.data, 16));
}

static void get_one(struct shared *s, uint64_t number)
{
    char key[17];
    key_of(number, key);
    uint64_t seq = atom_load(&s->published[number], acquire);
    struct entry e;
    int rc =
        memtable_get(s->table, number % 2, loam_bytes(key, 16), hash_key(key, 16), SEQ_MAX, &e);
    if (rc != LOAM_OK) {
        CHECK_EQ(rc, LOAM_NOTFOUND);
        CHECK_EQ(seq, 0);
        return;
    }
    CHECK(tag_seq(e.tag) >= seq);
    check_entry(&e);
    if (seq != 0) {
        CHECK_EQ(
            memtable_get(s->table, number % 2, loam_bytes(key, 16), hash_key(key, 16), seq, &e),
            LOAM_OK);
        CHECK_EQ(tag_seq(e.tag), seq);
    }
}

/* Walks a keyspace; returns the number of entries seen. */
static uint64_t walk(struct shared *s, uint32_t ks, bool forward)
{
    struct memtable_cursor c;
    memtable_cursor_init(&c, s->table, ks);
    uint64_t n = 0;
    struct entry last = {.tag = 0}, e;
    bool ok = forward ? memtable_cursor_first(&c) : memtable_cursor_last(&c);
    while (ok) {
        memtable_cursor_entry(&c, &e);
        check_entry(&e);
        if (n++ != 0) {
            int order = bytes_compare(last.key, e.key);
            order = order != 0 ? order : (last.tag < e.tag) - (last.tag > e.tag);
            CHECK(forward ? order < 0 : order > 0);
        }
        last = e;
        ok = forward ? memtable_cursor_next(&c) : memtable_cursor_prev(&c);
    }
    return n;
}

static void mixed_work(struct crew_member *m)
{
    struct shared *s = m->shared;
    struct random r;
    random_init(&r, m->seed);
    for (uint64_t i = 0; i < s->adds; i++) {
        if (m->index % 2 == 0) {
            uint64_t number = random_below(&r, s->keys);
            add_one(s, number);
            get_one(s, number);
            if (i % 8 == 0) {
                uint64_t numbers[TOGETHER];
                for (unsigned k = 0; k < TOGETHER; k++) {
                    numbers[k] = random_below(&r, s->keys);
                }
                add_some(s, numbers);
                get_one(s, numbers[i % TOGETHER]);
            }
        }
        get_one(s, random_below(&r, s->keys));
        if (m->index % 2 == 1 && i % 500 == 0) {
            walk(s, (uint32_t)random_below(&r, 2), random_below(&r, 2) == 0);
        }
    }
}

static void finish(struct shared *s)
{
    uint64_t added = atom_load(&s->next_seq, relaxed) - 1;
    CHECK_EQ(memtable_count(s->table), added);
    CHECK_EQ(walk(s, 0, true) + walk(s, 1, true), added);
    CHECK_EQ(walk(s, 0, false) + walk(s, 1, false), added);
    struct memtable_cursor c;
    memtable_cursor_init(&c, s->table, 0);
    const char *broken = skiplist_check(c.at.list);
    if (broken != NULL) {
        CHECK_FAIL_("%s", broken);
    }
    memtable_destroy(s->table);
    CHECK_EQ(chunk_pool_stats(&s->pool).out, 0);
    chunk_pool_destroy(&s->pool);
    CHECK_EQ(alloc_used(&s->memory), 0);
}

STRESS(skiplist, F15_F16_F17_writers_readers_and_cursors_agree)
{
    static struct shared s;
    shared_init(&s, 1 << 20, KEYS, 3000 * stress_scale);
    crew_run(8, mixed_work, &s, seed);
    finish(&s);
}

STRESS(skiplist, few_hot_keys_with_a_filter_and_index_too_small)
{
    static struct shared s;
    shared_init(&s, 0, 5, 2000 * stress_scale);
    crew_run(8, mixed_work, &s, seed);
    finish(&s);
    shared_init(&s, 0, KEYS, 2000 * stress_scale);
    crew_run(8, mixed_work, &s, seed);
    finish(&s);
}

/* All threads insert the same ascending keys at once: every level-0 link is fought for. */
static void ascend(struct crew_member *m)
{
    struct shared *s = m->shared;
    for (uint64_t i = 0; i < KEYS; i++) {
        add_one(s, i);
        get_one(s, i);
    }
}

STRESS(skiplist, the_same_keys_inserted_by_all_at_once)
{
    static struct shared s;
    shared_init(&s, 1 << 20, KEYS, 0);
    crew_run(8, ascend, &s, seed);
    finish(&s);
}

static void *short_life(void *arg)
{
    struct shared *s = arg;
    for (uint64_t i = 0; i < 20; i++) {
        add_one(s, i * 37 % KEYS);
        get_one(s, i * 37 % KEYS);
    }
    return NULL;
}

static void churn(struct crew_member *m)
{
    for (int i = 0; i < 40; i++) {
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, short_life, m->shared), 0);
        short_life(m->shared);
        if (i % 8 == 0) {
            thread_slot_detach();
        }
        CHECK_EQ(pthread_join(t, NULL), 0);
    }
}

STRESS(skiplist, F2_F12_threads_may_come_and_go)
{
    static struct shared s;
    shared_init(&s, 1 << 20, KEYS, 0);
    crew_run(8, churn, &s, seed);
    finish(&s);
}

/* All threads try to be the first of each key, in rounds that end with a delete: one wins each. */
struct first_of {
    struct shared *s;
    pthread_barrier_t barrier;
    _Atomic uint32_t wins[KEYS];
};

static void be_first(struct crew_member *m)
{
    struct first_of *f = m->shared;
    for (uint64_t round = 0; round < 4; round++) {
        for (uint64_t i = 0; i < KEYS; i++) {
            char key[17];
            key_of(i, key);
            uint64_t hash = hash_key(key, 16), seq = atom_add(&f->s->next_seq, 1, relaxed);
            uint64_t value[2] = {entry_tag(seq, ENTRY_PUT), hash};
            struct entry in_way;
            int rc = memtable_add_new(f->s->table, 0, loam_bytes(key, 16), hash, value[0],
                                      loam_bytes(value, 16), &in_way);
            if (rc == LOAM_OK) {
                atom_add(&f->wins[i], 1, relaxed);
            } else {
                CHECK_EQ(rc, LOAM_E_EXISTS);
                CHECK_EQ(tag_kind(in_way.tag), ENTRY_PUT);
                check_entry(&in_way);
            }
        }
        pthread_barrier_wait(&f->barrier);
        for (uint64_t i = m->index; i < KEYS; i += m->count) {
            char key[17];
            key_of(i, key);
            CHECK_EQ(atom_load(&f->wins[i], relaxed), round + 1);
            CHECK_EQ(memtable_add(f->s->table, 0, loam_bytes(key, 16), hash_key(key, 16),
                                  entry_tag(atom_add(&f->s->next_seq, 1, relaxed), ENTRY_DELETE),
                                  loam_bytes(NULL, 0)),
                     LOAM_OK);
        }
        pthread_barrier_wait(&f->barrier);
    }
}

STRESS(skiplist, F13_of_threads_that_race_to_add_a_new_key_one_wins)
{
    static struct shared s;
    static struct first_of f;
    shared_init(&s, 1 << 20, KEYS, 0);
    memset(&f, 0, sizeof f);
    f.s = &s;
    CHECK_EQ(pthread_barrier_init(&f.barrier, NULL, 6), 0);
    crew_run(6, be_first, &f, seed);
    pthread_barrier_destroy(&f.barrier);
    CHECK_EQ(memtable_count(s.table), 2 * 4 * KEYS);
    struct memtable_cursor c;
    memtable_cursor_init(&c, s.table, 0);
    const char *broken = skiplist_check(c.at.list);
    if (broken != NULL) {
        CHECK_FAIL_("%s", broken);
    }
    memtable_destroy(s.table);
    chunk_pool_destroy(&s.pool);
    CHECK_EQ(alloc_used(&s.memory), 0);
}
