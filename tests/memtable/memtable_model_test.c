/* memtable_model_test.c - The write buffer against a sorted list of versions.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: an array of all versions added, sorted by (keyspace, key in its order, tag falling). Gets
 * at random snapshots and random walks of cursors are compared with it entry by entry.
 */
#include <criterion/criterion.h>

#include "arena/random.h"
#include "tests/memtable/memtable_support.h"
#include "tests/support/seed.h"

struct version {
    uint32_t ks;
    uint64_t tag;
    unsigned char key[1400];
    size_t key_size;
    size_t value_size; /* bytes (unsigned char)(tag >> 8 + i) */
};

static int version_order(const void *x, const void *y)
{
    const struct version *a = x, *b = y;
    if (a->ks != b->ks) {
        return a->ks < b->ks ? -1 : 1;
    }
    int c = key_compare(memtable_fix_order(NULL, a->ks), loam_bytes(a->key, a->key_size),
                        loam_bytes(b->key, b->key_size));
    return c != 0 ? c : (a->tag < b->tag) - (a->tag > b->tag);
}

static const uint32_t spaces[] = {0, 1, 2, 7, 65534, 65535, 65536, UINT32_MAX};

/* Few distinct keys, many that differ late or only in length. */
static void random_key(struct random *r, struct version *v)
{
    static const unsigned char letters[] = {0, 1, 'a', 0x7f, 0x80, 0xff};
    v->ks = spaces[random_below(r, 8)];
    v->key_size = random_below(r, random_below(r, 30) == 0 ? 1400 : 12);
    memset(v->key, 'k', sizeof v->key);
    for (size_t i = 0; i < 3 && v->key_size != 0; i++) {
        v->key[random_below(r, v->key_size)] = letters[random_below(r, 6)];
    }
}

static void check_entry(const struct entry *e, const struct version *v)
{
    unsigned char value[600];
    CHECK_BYTES(e->key.data, e->key.size, v->key, v->key_size);
    CHECK_EQ(e->tag, v->tag);
    for (size_t i = 0; i < v->value_size; i++) {
        value[i] = (unsigned char)((v->tag >> 8) + i);
    }
    CHECK_BYTES(e->value.data, e->value.size, value, v->value_size);
}

/* Versions that are added together. */
struct together {
    size_t count, most;
    struct memtable_op ops[40];
    unsigned char values[40][600];
};

/* As many as are to be together, else one by one, with a reservation or without. */
static void add_random(struct memtable *m, struct random *r, struct version *v, uint64_t seq,
                       struct together *b)
{
    unsigned char *value = b->values[b->count];
    random_key(r, v);
    bool put = random_below(r, 4) != 0;
    v->tag = entry_tag(seq, put ? ENTRY_PUT : ENTRY_DELETE);
    v->value_size = put ? random_below(r, 600) : 0;
    for (size_t i = 0; i < v->value_size; i++) {
        value[i] = (unsigned char)(seq + i);
    }
    loam_slice key = loam_bytes(v->key, v->key_size);
    if (b->most != 0) {
        b->ops[b->count++] = (struct memtable_op){.ks = v->ks,
                                                  .key = key,
                                                  .key_hash = hash_key(key.data, key.size),
                                                  .tag = v->tag,
                                                  .value = loam_bytes(value, v->value_size)};
        return;
    }
    if (random_below(r, 2) == 0) {
        CHECK_EQ(reserve_one(m, v->ks, v->key_size, v->value_size), LOAM_OK);
    }
    CHECK_EQ(add(m, v->ks, key, v->tag, loam_bytes(value, v->value_size)), LOAM_OK);
}

static void add_together(struct memtable *m, struct random *r, struct together *b)
{
    if (b->count == b->most) {
        CHECK_EQ(memtable_add_batch(m, b->ops, b->count), LOAM_OK);
        b->count = 0;
        b->most = random_below(r, 3) == 0 ? 0 : random_below(r, 41);
    }
}

static bool same_key(const struct version *a, const struct version *b)
{
    return a->ks == b->ks && a->key_size == b->key_size && memcmp(a->key, b->key, a->key_size) == 0;
}

static void check_gets(struct memtable *m, struct random *r, const struct version *all, size_t n,
                       uint64_t top)
{
    for (int i = 0; i < 3000; i++) {
        struct version want;
        if (random_below(r, 2) == 0) {
            random_key(r, &want);
        } else {
            want = all[random_below(r, n)];
        }
        uint64_t snapshot = random_below(r, 3) == 0 ? UINT64_MAX : random_below(r, top + 2);
        const struct version *expected = NULL;
        for (size_t k = 0; k < n; k++) {
            if (same_key(&all[k], &want) && tag_seq(all[k].tag) <= snapshot &&
                (expected == NULL || expected->tag < all[k].tag)) {
                expected = &all[k];
            }
        }
        struct entry e;
        int rc = get(m, want.ks, loam_bytes(want.key, want.key_size), snapshot, &e);
        CHECK_EQ(rc, expected != NULL ? LOAM_OK : LOAM_NOTFOUND);
        if (expected != NULL) {
            check_entry(&e, expected);
        }
    }
}

/* The range of one keyspace in the sorted array. */
static void range_of(const struct version *all, size_t n, uint32_t ks, size_t *from, size_t *to)
{
    for (*from = 0; *from < n && all[*from].ks < ks; (*from)++) {
    }
    for (*to = *from; *to < n && all[*to].ks == ks; (*to)++) {
    }
}

static void check_walks(struct memtable *m, struct random *r, const struct version *all, size_t n)
{
    for (int walk = 0; walk < 300; walk++) {
        uint32_t ks = spaces[random_below(r, 8)];
        size_t from, to;
        range_of(all, n, ks, &from, &to);
        struct memtable_cursor c;
        memtable_cursor_init(&c, m, ks);
        CHECK(!memtable_cursor_valid(&c));
        CHECK(!memtable_cursor_next(&c) && !memtable_cursor_prev(&c));
        size_t at; /* `to` or SIZE_MAX: off */
        bool ok;
        uint64_t how = random_below(r, 4);
        if (how == 0) {
            ok = memtable_cursor_first(&c);
            at = from;
        } else if (how == 1) {
            ok = memtable_cursor_last(&c);
            at = to - 1;
        } else {
            struct version want;
            random_key(r, &want);
            if (how == 2 && from != to) {
                want = all[from + random_below(r, to - from)];
            }
            want.ks = ks;
            want.tag = random_below(r, 2) == 0 ? UINT64_MAX : random_below(r, 4000) << 8;
            ok = memtable_cursor_seek(&c, loam_bytes(want.key, want.key_size), want.tag);
            for (at = from; at < to && version_order(&all[at], &want) < 0; at++) {
            }
        }
        for (int step = 0; step < 100; step++) {
            bool valid = at >= from && at < to;
            CHECK_EQ(ok, valid);
            CHECK_EQ(memtable_cursor_valid(&c), valid);
            if (!valid) {
                CHECK(!memtable_cursor_next(&c) && !memtable_cursor_next_key(&c));
                break;
            }
            struct entry e;
            memtable_cursor_entry(&c, &e);
            check_entry(&e, &all[at]);
            uint64_t move = random_below(r, 10);
            if (move < 5) {
                ok = memtable_cursor_next(&c);
                at++;
            } else if (move < 9) {
                ok = memtable_cursor_prev(&c);
                at = at == from ? to : at - 1;
            } else {
                ok = memtable_cursor_next_key(&c);
                size_t key = at;
                while (at < to && same_key(&all[at], &all[key])) {
                    at++;
                }
            }
        }
    }
}

static void model(size_t n, size_t bytes)
{
    struct random r;
    random_init(&r, seed_of_run());
    struct memtable *m = make(bytes, 0);
    struct version *all = calloc(n, sizeof *all);
    CHECK(all != NULL);
    CHECK(memtable_empty(m));
    static struct together b;
    b.count = b.most = 0;
    for (size_t i = 0; i < n; i++) {
        /* Mostly in order of sequence, sometimes a bit late, as concurrent writers are. */
        add_random(m, &r, &all[i], (i ^ (random_below(&r, 8) == 0 ? 0u : 1u)) * 2 + i % 2, &b);
        add_together(m, &r, &b);
    }
    b.most = b.count;
    add_together(m, &r, &b);
    CHECK_EQ(memtable_count(m), n);
    CHECK(!memtable_empty(m));
    check_gets(m, &r, all, n, 2 * n + 2);
    qsort(all, n, sizeof *all, version_order);
    check_walks(m, &r, all, n);
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t found = 1;
        size_t k = 0;
        while (k < n && all[k].ks < spaces[i]) {
            k++;
        }
        CHECK_EQ(memtable_next_ks(m, spaces[i], &found), k < n ? LOAM_OK : LOAM_NOTFOUND);
        CHECK(k == n || found == all[k].ks);
    }
    free(all);
    memtable_destroy(m);
}

Test(memtable, agrees_with_the_model)
{
    model(2000, 4 << 20);
}

Test(memtable, agrees_with_the_model_when_filter_and_index_are_far_too_small)
{
    model(3000, 0);
}
