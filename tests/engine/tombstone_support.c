/* tombstone_support.c - See tombstone_support.h.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/engine/tombstone_support.h"

#include <stdio.h>

#include "arena/epoch.h"
#include "engine/db.h"
#include "engine/handles.h"

loam_slice town_key(uint32_t i, char to[16])
{
    return loam_bytes(to, (size_t)snprintf(to, 16, "key%07u", i));
}

void town_put(struct town *t, uint32_t i)
{
    char key[16];
    GOES(loam_put(t->db, t->ks, town_key(i, key), text("value"), NULL));
}

void town_delete(struct town *t, uint32_t i)
{
    char key[16];
    GOES(loam_delete(t->db, t->ks, town_key(i, key), NULL));
}

static int reverse(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    size_t n = a.size < b.size ? a.size : b.size;
    int c = memcmp(b.data, a.data, n);
    return c != 0 ? c : (b.size > a.size) - (b.size < a.size);
}

const loam_comparator town_backwards = {
    .struct_size = sizeof town_backwards, .name = "tombstone.reverse", .compare = reverse};

static void set_up(struct town *t, loam_vfs *disk)
{
    const loam_fault_plan none = {.struct_size = sizeof none};
    t->disk = disk;
    GOES(loam_vfs_fault(disk, &none, &t->front));
}

static void tear_down(struct town *t)
{
    loam_vfs_free(t->front);
    loam_vfs_free(t->disk);
}

void town_open_db(struct town *t, uint32_t flags)
{
    loam_options o = small_options(t->front);
    o.memory_budget = (uint64_t)64 << 20; /* nothing is flushed but by hand */
    o.flags = flags;
    GOES(loam_open("/db", &o, &t->db));
    if ((flags & LOAM_OPEN_READONLY) == 0) {
        GOES(loam_pause(t->db, 1));
    }
}

void town_open_ks(struct town *t)
{
    loam_ks_options k = {.struct_size = sizeof k, .comparator = t->reversed ? &town_backwards : NULL};
    if (loam_ks_open(t->db, "town", &k, &t->ks) < 0) {
        CHECK_FAIL_("%s", loam_last_error()->message);
    }
}

void town_open(struct town *t, bool reversed)
{
    *t = (struct town){.reversed = reversed};
    set_up(t, memory_disk());
    town_open_db(t, 0);
    town_open_ks(t);
}

void town_fill(struct town *t, enum layout layout)
{
    for (uint32_t i = 0; i < KEYS; i++) {
        town_put(t, i);
    }
    GOES(loam_snap_take(t->db, &t->before));
    if (layout == PUTS_AT_BOTTOM) {
        GOES(loam_pause(t->db, 0));
        GOES(loam_compact(t->db, t->ks, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
        GOES(loam_pause(t->db, 1));
    } else if (layout != IN_MEMORY) {
        GOES(loam_flush(t->db, NULL));
    }
    for (uint32_t i = 0; i < DEAD; i++) {
        town_delete(t, FIRST + (uint32_t)((uint64_t)i * 1009 % DEAD));
        if (layout == DELETES_SPREAD && i % (DEAD / 4) == DEAD / 8) {
            GOES(loam_flush(t->db, NULL));
        }
    }
    if (layout == BOTH_FLUSHED || layout == PUTS_AT_BOTTOM) {
        GOES(loam_flush(t->db, NULL));
    }
}

void town_close_db(struct town *t)
{
    loam_snap_release(t->before);
    loam_ks_release(t->ks);
    t->before = NULL;
    t->ks = NULL;
    GOES(loam_close(t->db));
}

void town_crash(struct town *t)
{
    loam_vfs *after;
    GOES(loam_vfs_power_cut(t->front, LOAM_CUT_ALL, &after));
    town_close_db(t);
    tear_down(t);
    set_up(t, after);
}

void town_close(struct town *t)
{
    town_close_db(t);
    tear_down(t);
}

uint64_t town_passed(const struct town *t)
{
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(t->db, NULL, &s));
    return s.tombstones_skipped;
}

loam_iter *town_iter(const struct town *t, const loam_snap *snap)
{
    loam_iter *it;
    loam_iter_opts o = {.struct_size = sizeof o, .snap = snap};
    GOES(loam_iter_open(t->db, t->ks, &o, &it));
    return it;
}

void town_stands_on(loam_iter *it, int rc, uint32_t i)
{
    if (i == NONE) {
        CHECK_EQ(rc, LOAM_NOTFOUND);
        return;
    }
    char key[16];
    loam_slice expected = town_key(i, key), found;
    CHECK_EQ(rc, LOAM_OK);
    found = loam_iter_key(it);
    CHECK_BYTES(found.data, found.size, expected.data, expected.size);
}

uint32_t town_place(const struct town *t, uint32_t n)
{
    return t->reversed ? KEYS - 1 - n : n;
}

void town_seek(const struct town *t, loam_iter *it, uint32_t from, bool forward,
                 uint32_t expected)
{
    char key[16];
    loam_slice k = town_key(town_place(t, from), key);
    town_stands_on(it, forward ? loam_iter_seek(it, k) : loam_iter_seek_le(it, k),
              expected == NONE ? NONE : town_place(t, expected));
}

void town_learn(const struct town *t, uint32_t from, bool forward, uint32_t expected)
{
    for (int n = 0; n < TRIES; n++) {
        loam_iter *it = town_iter(t, NULL);
        uint64_t start = town_passed(t);
        town_seek(t, it, from, forward, expected);
        loam_iter_close(it);
        if (town_passed(t) - start <= FEW) {
            return;
        }
    }
    CHECK_FAIL_("%d walks, and still not known", TRIES);
}

void town_moves_are_cheap(const struct town *t)
{
    loam_iter *it = town_iter(t, NULL);
    static const uint32_t from[] = {FIRST, FIRST + 1, FIRST + DEAD / 3, LAST - 100, LAST - 1};
    for (size_t i = 0; i < sizeof from / sizeof *from; i++) {
        CHEAP(t, town_seek(t, it, from[i], true, LAST));
        CHEAP(t, town_seek(t, it, from[i], false, FIRST - 1));
    }
    town_seek(t, it, FIRST - 1, true, FIRST - 1);
    CHEAP(t, town_stands_on(it, loam_iter_next(it), town_place(t, LAST)));
    CHEAP(t, town_stands_on(it, loam_iter_prev(it), town_place(t, FIRST - 1)));
    CHEAP(t, town_stands_on(it, loam_iter_next(it), town_place(t, LAST)));
    loam_iter_close(it);
}

void town_old_snapshot_sees_all(const struct town *t)
{
    loam_iter *old = town_iter(t, t->before);
    uint64_t start = town_passed(t);
    int rc = loam_iter_first(old);
    for (uint32_t n = 0; n < KEYS; n++, rc = loam_iter_next(old)) {
        town_stands_on(old, rc, town_place(t, n));
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    rc = loam_iter_last(old);
    for (uint32_t n = KEYS; n-- > 0; rc = loam_iter_prev(old)) {
        town_stands_on(old, rc, town_place(t, n));
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    CHECK_EQ(town_passed(t), start);
    loam_iter_close(old);
}

bool town_knows(const struct town *t, uint32_t ks, uint32_t margin)
{
    char key[16];
    bool known = true;
    epoch_enter();
    struct db *db = slotmap_get(&registry_get()->dbs, HANDLE_OF(t->db));
    for (uint32_t i = FIRST + margin; i < LAST - margin && known; i++) {
        known = dead_ranges_find(&db->dead, ks, town_key(i, key), UINT64_MAX) != NULL;
    }
    epoch_exit();
    return known;
}
