/* trim_test.c - One table is rewritten without what newer tables hide in it, and nothing else changes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Merges are paused; the test picks and runs trims itself. Oracle: the number of entries that must be left
 * in the tables, and every key read.
 */
#include <criterion/criterion.h>

#include "arena/sync.h"
#include "engine/compaction.h"
#include "engine/registry.h"
#include "tests/engine/db_inside.h"
#include "tests/engine/db_support.h"

enum { KEYS = 1200, VALUE = 300 };

struct trimmed {
    loam_vfs *disk;
    loam_db *db;
    struct db *in; /* stays: it is closed by the test alone */
};

static void start_within(struct trimmed *t, uint64_t budget)
{
    t->disk = memory_disk();
    loam_options o = small_options(t->disk);
    o.disk_budget = budget;
    GOES(loam_open("/db", &o, &t->db));
    GOES(loam_pause(t->db, 1));
    t->in = db_behind(t->db);
}

static void start(struct trimmed *t)
{
    start_within(t, 0);
}

static void stop(struct trimmed *t)
{
    GOES(loam_close(t->db));
    loam_vfs_free(t->disk);
}

static loam_slice value_of(int key, int round)
{
    static uint8_t value[VALUE];
    memset(value, key * 7 + round * 31, sizeof value);
    return loam_bytes(value, sizeof value);
}

static loam_slice key_of(int key)
{
    static char name[16];
    snprintf(name, sizeof name, "%06d", key);
    return loam_bytes(name, 6);
}

/* Every `step`-th key of [from, to), then a table of them in level 0. */
static void put_part(struct trimmed *t, int from, int to, int step, int round)
{
    for (int k = from; k < to; k += step) {
        GOES(loam_put(t->db, NULL, key_of(k), value_of(k, round), NULL));
    }
    GOES(loam_flush(t->db, NULL));
}

static void put_table(struct trimmed *t, int from, int step, int round)
{
    put_part(t, from, KEYS, step, round);
}

/* Every key, in the last level. */
static void fill_the_bottom(struct trimmed *t)
{
    put_table(t, 0, 1, 0);
    const loam_slice all = {NULL, 0};
    GOES(loam_compact(t->db, NULL, all, all, 0));
}

/* The tables of level 0 whose keys are all at or behind `from` move into a level between that and the last, as
 * those do that stand alone. */
static void move_down(struct trimmed *t, int from)
{
    struct version *v = version_set_ref_current(&t->in->versions);
    const struct level *l = &version_ks(v, 0)->level[0];
    struct version_edit e;
    version_edit_init(&e, &t->in->alloc);
    for (uint32_t i = 0; i < l->count; i++) {
        struct table_meta m = l->tables[i]->meta;
        if (key_compare(NULL, m.smallest, key_of(from)) >= 0) {
            GOES(version_edit_remove_table(&e, 0, 0, m.number));
            m.level = LEVEL_COUNT - 2;
            GOES(version_edit_add_table(&e, &m));
        }
    }
    CHECK(e.added_count != 0);
    GOES(db_apply_edit(t->in, &e));
    version_edit_free(&e);
    mutex_lock(&t->in->mu);
    version_unref(v);
    mutex_unlock(&t->in->mu);
}

static int pick(struct trimmed *t, struct compaction **c)
{
    mutex_lock(&t->in->mu);
    struct version *v = version_set_ref_current(&t->in->versions);
    uint64_t oldest = snapshot_oldest(&t->in->snapshots, &t->in->commit);
    int rc = compaction_pick_trim(&t->in->picker, v, oldest, false, c);
    version_unref(v);
    mutex_unlock(&t->in->mu);
    return rc;
}

/* Trims until nothing is left to trim; how many there were. */
static int trim(struct trimmed *t)
{
    for (int n = 0;; n++) {
        struct compaction *c;
        int rc = pick(t, &c);
        if (rc == LOAM_NOTFOUND) {
            return n;
        }
        GOES(rc);
        GOES(compaction_run(t->in, c));
        CHECK(n < 100);
    }
}

static uint64_t entries(struct trimmed *t, bool upper)
{
    uint64_t sum = 0;
    struct version *v = version_set_ref_current(&t->in->versions);
    const struct ks_version *k = version_ks(v, 0);
    for (int n = upper ? 0 : 1; n < (upper ? 1 : LEVEL_COUNT); n++) {
        for (uint32_t i = 0; i < k->level[n].count; i++) {
            sum += k->level[n].tables[i]->meta.entries;
        }
    }
    mutex_lock(&t->in->mu);
    version_unref(v);
    mutex_unlock(&t->in->mu);
    return sum;
}

static void expect(struct trimmed *t, int key, const loam_read_opts *o, int round)
{
    char buf[VALUE];
    size_t n;
    if (round < 0) {
        CHECK_EQ(loam_get(t->db, NULL, key_of(key), buf, sizeof buf, &n, o), LOAM_NOTFOUND);
        return;
    }
    GOES(loam_get(t->db, NULL, key_of(key), buf, sizeof buf, &n, o));
    loam_slice want = value_of(key, round);
    CHECK_BYTES(buf, n, want.data, want.size);
}

Test(trim, takes_what_overwrites_hide_out_of_deep_tables)
{
    struct trimmed t;
    start(&t);
    fill_the_bottom(&t);
    CHECK_EQ(entries(&t, false), KEYS);
    put_table(&t, 0, 3, 1);
    CHECK(trim(&t) >= 1);
    CHECK_EQ(entries(&t, false), KEYS - KEYS / 3);
    CHECK_EQ(entries(&t, true), KEYS / 3); /* only read */
    CHECK_EQ(trim(&t), 0);
    for (int k = 0; k < KEYS; k++) {
        expect(&t, k, NULL, k % 3 == 0);
    }
    stop(&t);
}

Test(trim, takes_what_overwrites_hide_out_of_older_tables_of_level_0)
{
    struct trimmed t;
    start(&t);
    put_table(&t, 0, 1, 0);
    put_table(&t, 0, 2, 1);
    put_table(&t, 0, 3, 2);
    CHECK_EQ(entries(&t, true), KEYS + KEYS / 2 + KEYS / 3);
    CHECK(trim(&t) >= 2);
    CHECK_EQ(entries(&t, true), KEYS);
    CHECK_EQ(trim(&t), 0);
    for (int k = 0; k < KEYS; k++) {
        expect(&t, k, NULL, k % 3 == 0 ? 2 : k % 2 == 0);
    }
    stop(&t);
}

/* Tables of a level between may be newer than those of level 0, of other keys: both hide something. */
Test(trim, takes_what_an_older_table_of_an_upper_level_hides)
{
    struct trimmed t;
    start(&t);
    fill_the_bottom(&t);
    put_part(&t, 0, KEYS / 2, 2, 1);
    put_part(&t, KEYS / 2, KEYS, 2, 1);
    move_down(&t, KEYS / 2);
    CHECK(trim(&t) >= 1);
    CHECK_EQ(entries(&t, true), KEYS / 4);
    CHECK_EQ(entries(&t, false), KEYS / 2 + KEYS / 4); /* the last level has half of them */
    CHECK_EQ(trim(&t), 0);
    for (int k = 0; k < KEYS; k++) {
        expect(&t, k, NULL, k % 2 == 0);
    }
    stop(&t);
}

/* Deletes are worth a trim however few they are, and stay themselves. */
Test(trim, takes_what_deletes_hide_and_leaves_the_deletes)
{
    struct trimmed t;
    start(&t);
    fill_the_bottom(&t);
    GOES(loam_delete(t.db, NULL, key_of(5), NULL));
    GOES(loam_flush(t.db, NULL));
    CHECK_EQ(trim(&t), 1);
    CHECK_EQ(entries(&t, false), KEYS - 1);
    CHECK_EQ(entries(&t, true), 1);
    for (int k = 0; k < KEYS; k++) {
        expect(&t, k, NULL, k == 5 ? -1 : 0);
    }
    stop(&t);
}

Test(trim, leaves_what_a_snapshot_can_still_read)
{
    struct trimmed t;
    start(&t);
    fill_the_bottom(&t);
    loam_snap *s;
    GOES(loam_snap_take(t.db, &s));
    put_table(&t, 0, 2, 1);
    put_table(&t, 0, 2, 2);
    trim(&t);
    CHECK_EQ(entries(&t, false), KEYS);
    CHECK_EQ(entries(&t, true), KEYS / 2); /* nobody can see the first round */
    const loam_read_opts o = {.struct_size = sizeof o, .snap = s};
    for (int k = 0; k < KEYS; k++) {
        expect(&t, k, &o, 0);
        expect(&t, k, NULL, k % 2 == 0 ? 2 : 0);
    }
    loam_snap_release(s);
    stop(&t);
}

/* A trim that had to leave them is no reason to leave them for ever; nor to try while they can be read. */
Test(trim, takes_what_a_released_snapshot_could_read)
{
    struct trimmed t;
    start(&t);
    fill_the_bottom(&t);
    loam_snap *s;
    GOES(loam_snap_take(t.db, &s));
    put_table(&t, 0, 2, 1);
    CHECK(trim(&t) >= 1);
    CHECK_EQ(trim(&t), 0);
    CHECK_EQ(entries(&t, false), KEYS);
    loam_snap_release(s);
    CHECK(trim(&t) >= 1);
    CHECK_EQ(trim(&t), 0);
    CHECK_EQ(entries(&t, false), KEYS / 2);
    for (int k = 0; k < KEYS; k++) {
        expect(&t, k, NULL, k % 2 == 0);
    }
    stop(&t);
}

/* To rewrite all of it for a little would wear out the disk. */
Test(trim, is_not_worth_while_for_few_overwrites)
{
    struct trimmed t;
    start(&t);
    fill_the_bottom(&t);
    put_table(&t, 0, 40, 1);
    CHECK_EQ(trim(&t), 0);
    put_table(&t, 1, 40, 1);
    put_table(&t, 2, 40, 1);
    put_table(&t, 3, 40, 1);
    CHECK(trim(&t) >= 1);
    CHECK_EQ(entries(&t, false), KEYS - 4 * (KEYS / 40));
    stop(&t);
}

/* As a merge that finds the disk full. */
static void spend_reserve(struct trimmed *t)
{
    CHECK(db_spend_reserve(t->in, disk_reserve_missing(&t->in->reserve)));
    CHECK(disk_reserve_spent(&t->in->reserve));
}

static void wait_for_reserve(struct trimmed *t)
{
    while (disk_reserve_spent(&t->in->reserve)) {
        thread_sleep_micros(2000);
    }
}

/* Else it fails, has it given up again, and so for ever. */
Test(trim, has_the_space_that_the_reserve_was_given_up_for_until_it_ends)
{
    struct trimmed t;
    struct compaction *c;
    start_within(&t, (uint64_t)16 << 20);
    fill_the_bottom(&t);
    put_table(&t, 0, 2, 1);
    GOES(pick(&t, &c)); /* it runs, as far as the database can tell */
    spend_reserve(&t);
    wait_for_reserve(&t); /* there is space for both */
    struct disk_account *a = &t.in->files.account;
    struct disk_file *others = disk_account_get(a, "/db/others");
    spend_reserve(&t);
    disk_account_settle(a, others, disk_account_left(a) - t.in->reserve.bytes);
    thread_sleep_micros(500000); /* a few looks at the disk */
    CHECK(disk_reserve_spent(&t.in->reserve));
    mutex_lock(&t.in->mu);
    compaction_free(&t.in->picker, c);
    mutex_unlock(&t.in->mu);
    wait_for_reserve(&t);
    disk_account_settle(a, others, 0);
    disk_account_put(a, others);
    stop(&t);
}
