/* tombstone_oracle_test.c - Random stretches of deletes, refilled in part, against an oracle, across kills.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Stretches are deleted that lie in memtables and on several levels at once, while iterators and snapshots
 * stand in them; parts are put again; the database flushes, merges, is closed and killed. (Power cuts among
 * such stretches: tests/model.)
 * Oracle: an array of what lives, and a copy of it for each iterator and snapshot; each write counts itself in a
 * key of its own. After each operation no range that the database believes dead holds a key that lives.
 * Prints its seed; LOAM_SEED replays.
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>

#include "arena/epoch.h"
#include "arena/random.h"
#include "engine/db.h"
#include "engine/handles.h"
#include "tests/engine/tombstone_support.h"
#include "tests/support/seed.h"

TestSuite(tombstone_oracle);

enum { SPACES = 2, ROWS = 1500, ITERS = 4, OPS = 6000, LONGEST = 900, NOWHERE = -1 };

/* What lives: the number of the write that put it, or 0. Rows are in the order of their keyspace. */
struct world {
    uint32_t put[SPACES][ROWS];
};

struct stander {
    loam_iter *it;
    struct world sees;
    uint32_t space;
    int32_t row; /* it stands there; or NOWHERE */
};

struct plot {
    loam_vfs *disk, *front;
    loam_db *db;
    loam_ks *ks[SPACES];
    loam_batch *batch;
    struct random r;
    struct world now, at_snap;
    loam_snap *snap;
    struct stander stander[ITERS];
    uint32_t op;     /* writes so far */
    uint64_t proven; /* ranges, by databases that are gone */
};

static uint32_t below(struct plot *p, uint32_t n)
{
    return (uint32_t)random_below(&p->r, n);
}

static loam_slice key_of(uint32_t space, uint32_t row, char to[16])
{
    uint32_t n = space == 1 ? ROWS - 1 - row : row;
    return loam_bytes(to, (size_t)snprintf(to, 16, "row%05u", n));
}

/* ---- the database's life ------------------------------------------------------------------------- */

static void attach_disk(struct plot *p, loam_vfs *disk)
{
    const loam_fault_plan none = {.struct_size = sizeof none};
    p->disk = disk;
    GOES(loam_vfs_fault(disk, &none, &p->front));
}

static struct db *inside(const struct plot *p)
{
    return slotmap_get(&registry_get()->dbs, HANDLE_OF(p->db));
}

static void open_db(struct plot *p)
{
    static const char *const names[SPACES] = {"forward", "backwards"};
    loam_options o = small_options(p->front);
    if (loam_open("/db", &o, &p->db) < 0) {
        CHECK_FAIL_("%s", loam_last_error()->message);
    }
    for (uint32_t s = 0; s < SPACES; s++) {
        loam_ks_options k = {.struct_size = sizeof k,
                             .comparator = s == 1 ? &town_backwards : NULL};
        CHECK(loam_ks_open(p->db, names[s], &k, &p->ks[s]) >= 0);
    }
}

static void close_db(struct plot *p)
{
    for (uint32_t i = 0; i < ITERS; i++) {
        loam_iter_close(p->stander[i].it);
        p->stander[i].it = NULL;
    }
    loam_snap_release(p->snap);
    p->snap = NULL;
    for (uint32_t s = 0; s < SPACES; s++) {
        loam_ks_release(p->ks[s]);
    }
    epoch_enter();
    p->proven += atom_load(&inside(p)->dead.proven, relaxed);
    epoch_exit();
    GOES(loam_close(p->db));
}

/* How many writes are there. */
static uint32_t count_found(const struct plot *p)
{
    char text_of[16] = {0};
    size_t n = 0;
    int rc = loam_get(p->db, NULL, LOAM_LIT("writes"), text_of, sizeof text_of - 1, &n, NULL);
    CHECK(rc == LOAM_OK || (rc == LOAM_NOTFOUND && p->op == 0));
    return rc == LOAM_OK ? (uint32_t)strtoul(text_of, NULL, 10) : 0;
}

/* The process is killed: all that was written is there. */
static void kill_db(struct plot *p)
{
    loam_vfs *after;
    GOES(loam_vfs_power_cut(p->front, LOAM_CUT_ALL, &after));
    close_db(p);
    loam_vfs_free(p->front);
    loam_vfs_free(p->disk);
    attach_disk(p, after);
    open_db(p);
    CHECK_EQ(count_found(p), p->op);
}

/* ---- writes -------------------------------------------------------------------------------------- */

static void change(struct plot *p, uint32_t space, uint32_t row, bool put)
{
    char key[16], value[32];
    loam_slice k = key_of(space, row, key);
    if (put) {
        int n = snprintf(value, sizeof value, "%u", p->op);
        GOES(loam_batch_put(p->batch, p->ks[space], k, loam_bytes(value, (size_t)n)));
    } else {
        GOES(loam_batch_delete(p->batch, p->ks[space], k));
    }
    p->now.put[space][row] = put ? p->op : 0;
}

static void begin_write(struct plot *p)
{
    loam_batch_clear(p->batch);
    p->op++;
}

static void end_write(struct plot *p)
{
    char n[16];
    snprintf(n, sizeof n, "%u", p->op);
    GOES(loam_batch_put(p->batch, NULL, LOAM_LIT("writes"), text(n)));
    GOES(loam_write(p->db, p->batch, NULL));
}

static void write_one(struct plot *p, bool put)
{
    begin_write(p);
    change(p, below(p, SPACES), below(p, ROWS), put);
    end_write(p);
}

/* In one write, or key by key in no order, so that flushes come in between. */
static void delete_stretch(struct plot *p)
{
    uint32_t space = below(p, SPACES), n = 70 + below(p, LONGEST - 70), first = below(p, ROWS - n);
    uint32_t many = below(p, 3) == 0 ? n : 1 + below(p, 40);
    for (uint32_t i = 0; i < n; i++) {
        if (i % many == 0) {
            begin_write(p);
        }
        change(p, space, first + (uint32_t)((uint64_t)i * 1009 % n), false); /* 1009 > n is prime */
        if ((i + 1) % many == 0 || i + 1 == n) {
            end_write(p);
        }
    }
}

static void refill(struct plot *p)
{
    uint32_t space = below(p, SPACES), n = 1 + below(p, LONGEST), first = below(p, ROWS - n);
    uint32_t every = 1 + below(p, 64);
    begin_write(p);
    for (uint32_t i = first; i < first + n; i += every) {
        change(p, space, i, true);
    }
    end_write(p);
}

/* ---- reads --------------------------------------------------------------------------------------- */

/* The live row from `row` on in a direction; NOWHERE: none. */
static int32_t live_from(const struct world *w, uint32_t space, int32_t row, bool forward)
{
    while (row >= 0 && row < ROWS && w->put[space][row] == 0) {
        row += forward ? 1 : -1;
    }
    return row >= 0 && row < ROWS ? row : NOWHERE;
}

static void stands_on(struct stander *s, int rc, int32_t row)
{
    char key[16], value[32];
    s->row = row;
    if (row == NOWHERE) {
        CHECK_EQ(rc, LOAM_NOTFOUND);
        return;
    }
    CHECK_EQ(rc, LOAM_OK);
    loam_slice k = key_of(s->space, (uint32_t)row, key), found = loam_iter_key(s->it);
    CHECK_BYTES(found.data, found.size, k.data, k.size);
    int n = snprintf(value, sizeof value, "%u", s->sees.put[s->space][row]);
    found = loam_iter_value(s->it);
    CHECK_BYTES(found.data, found.size, value, (size_t)n);
}

static void move(struct plot *p, struct stander *s)
{
    bool forward = below(p, 2) == 0;
    if (s->row != NOWHERE && below(p, 3) != 0) {
        stands_on(s, forward ? loam_iter_next(s->it) : loam_iter_prev(s->it),
                  live_from(&s->sees, s->space, s->row + (forward ? 1 : -1), forward));
        return;
    }
    char key[16];
    uint32_t row = below(p, ROWS);
    loam_slice k = key_of(s->space, row, key);
    stands_on(s, forward ? loam_iter_seek(s->it, k) : loam_iter_seek_le(s->it, k),
              live_from(&s->sees, s->space, (int32_t)row, forward));
}

/* Opens the iterator, of the newest state or the snapshot's. */
static void stand(struct plot *p, struct stander *s)
{
    bool old = p->snap != NULL && below(p, 3) == 0;
    loam_iter_opts o = {.struct_size = sizeof o, .snap = old ? p->snap : NULL};
    loam_iter_close(s->it);
    s->space = below(p, SPACES);
    s->sees = old ? p->at_snap : p->now;
    s->row = NOWHERE;
    GOES(loam_iter_open(p->db, p->ks[s->space], &o, &s->it));
}

/* All of a keyspace both ways, as a new iterator sees it. */
static void scan(struct plot *p)
{
    struct stander *s = &p->stander[0];
    stand(p, s);
    stands_on(s, loam_iter_first(s->it), live_from(&s->sees, s->space, 0, true));
    while (s->row != NOWHERE) {
        stands_on(s, loam_iter_next(s->it), live_from(&s->sees, s->space, s->row + 1, true));
    }
    stands_on(s, loam_iter_last(s->it), live_from(&s->sees, s->space, ROWS - 1, false));
    while (s->row != NOWHERE) {
        stands_on(s, loam_iter_prev(s->it), live_from(&s->sees, s->space, s->row - 1, false));
    }
}

/* No range holds a key that lives. */
static void check_ranges(const struct plot *p)
{
    char key[16];
    epoch_enter();
    struct db *db = inside(p);
    for (uint32_t s = 0; s < SPACES; s++) {
        for (uint32_t row = 0; row < ROWS; row++) {
            if (p->now.put[s][row] != 0 &&
                dead_ranges_find(&db->dead, s + 1, key_of(s, row, key), UINT64_MAX) != NULL) {
                CHECK_FAIL_("row %u of keyspace %u lives, and is in a dead range", row, s);
            }
        }
    }
    epoch_exit();
}

/* ---- the whole ----------------------------------------------------------------------------------- */

static void take_snapshot(struct plot *p)
{
    loam_snap_release(p->snap);
    p->snap = NULL;
    if (below(p, 2) == 0) {
        GOES(loam_snap_take(p->db, &p->snap));
        p->at_snap = p->now;
    }
}

static void compact(struct plot *p)
{
    char lo[16], hi[16];
    uint32_t space = below(p, SPACES), row = below(p, ROWS);
    loam_slice none = loam_bytes(NULL, 0);
    bool part = below(p, 2) == 0;
    GOES(loam_compact(p->db, p->ks[space], part ? key_of(space, row, lo) : none,
                      part ? key_of(space, row + below(p, ROWS - row), hi) : none, 0));
}

static void reopen(struct plot *p)
{
    uint32_t how = below(p, 8);
    if (how < 2) {
        close_db(p);
        open_db(p);
    } else {
        kill_db(p);
    }
    check_ranges(p); /* what the open has found out */
    scan(p);
}

static void step(struct plot *p)
{
    uint32_t what = below(p, 1000);
    if (what < 60) {
        delete_stretch(p);
    } else if (what < 120) {
        refill(p);
    } else if (what < 260) {
        write_one(p, what < 190);
    } else if (what < 300) {
        stand(p, &p->stander[below(p, ITERS)]);
    } else if (what < 950) {
        struct stander *s = &p->stander[below(p, ITERS)];
        if (s->it == NULL) {
            stand(p, s);
        }
        move(p, s);
    } else if (what < 965) {
        GOES(loam_flush(p->db, NULL));
    } else if (what < 970) {
        compact(p);
    } else if (what < 980) {
        take_snapshot(p);
    } else if (what < 991) {
        reopen(p);
    } else {
        scan(p);
    }
    check_ranges(p);
}

static void run(uint64_t seed)
{
    struct plot *p = calloc(1, sizeof *p);
    CHECK(p != NULL);
    printf("tombstone_oracle LOAM_SEED=%llu\n", (unsigned long long)seed);
    random_init(&p->r, seed);
    p->batch = loam_batch_new(0);
    attach_disk(p, memory_disk());
    open_db(p);
    for (uint32_t i = 0; i < OPS; i++) {
        step(p);
    }
    close_db(p);
    CHECK(p->proven > OPS / 100);
    loam_vfs_free(p->front);
    loam_vfs_free(p->disk);
    loam_batch_free(p->batch);
    free(p);
}

Test(tombstone_oracle, no_live_key_is_hidden_and_no_dead_one_shown)
{
    uint64_t seed = seed_or(11);
    for (uint32_t i = 0; i < 3; i++) {
        run(seed + i);
    }
}
