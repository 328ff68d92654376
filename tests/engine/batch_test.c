/* batch_test.c - Batches append, reserve, rewind, and keep their error.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include "arena/random.h"
#include "arena/status.h"
#include "engine/batch.h"
#include "tests/engine/db_support.h"

static struct batch b;

static void set_up(void)
{
    batch_init(&b, alloc_global());
}

static void tear_down(void)
{
    batch_free(&b);
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_BATCH), 0);
}

TestSuite(batch, .init = set_up, .fini = tear_down);

static int put(uint64_t db, uint32_t ks, const char *key, const char *value)
{
    const struct op o = {ENTRY_PUT, ks, loam_bytes(key, strlen(key)),
                         loam_bytes(value, strlen(value))};
    return batch_add(&b, db, &o);
}

Test(batch, operations_come_out_in_order)
{
    CHECK_EQ(put(0, 0, "a", "1"), LOAM_OK);
    const struct op del = {ENTRY_DELETE, 3, LOAM_LIT("b"), {NULL, 0}};
    CHECK_EQ(batch_add(&b, 9, &del), LOAM_OK);
    memcpy(batch_reserve(&b, 9, 4, LOAM_LIT("c"), 5), "value", 5);
    CHECK_EQ(b.count, 3);
    CHECK_EQ(b.data, 1 + 1 + 1 + 1 + 5);
    CHECK_EQ(b.value_max, 5);
    CHECK_EQ(b.db, 9);
    struct reader r = reader_of(b.ops.data, b.ops.size);
    struct op o;
    CHECK_EQ(op_read(&r, &o), LOAM_OK);
    CHECK_BYTES(o.value.data, o.value.size, "1", 1);
    CHECK_EQ(op_read(&r, &o), LOAM_OK);
    CHECK(o.kind == ENTRY_DELETE && o.ks == 3);
    CHECK_EQ(op_read(&r, &o), LOAM_OK);
    CHECK_BYTES(o.value.data, o.value.size, "value", 5);
    CHECK_EQ(op_read(&r, &o), LOAM_NOTFOUND);
}

Test(batch, rewinding_restores_every_count)
{
    CHECK_EQ(put(0, 0, "a", "1"), LOAM_OK);
    struct batch before = b;
    CHECK_EQ(put(5, 2, "long key", "a longer value"), LOAM_OK);
    CHECK(batch_reserve(&b, 5, 2, LOAM_LIT("r"), 100000) != NULL);
    CHECK_EQ(batch_rewind(&b, before.ops.size), LOAM_OK);
    CHECK_EQ(b.count, before.count);
    CHECK_EQ(b.data, before.data);
    CHECK_EQ(b.value_max, before.value_max);
    CHECK_EQ(batch_rewind(&b, before.ops.size - 1), LOAM_E_INVAL); /* inside an operation */
    CHECK_EQ(b.count, 1);
    CHECK_EQ(batch_rewind(&b, before.ops.size + 1), LOAM_E_INVAL);
    CHECK_EQ(batch_rewind(&b, 0), LOAM_OK);
    CHECK_EQ(b.count, 0);
    CHECK_EQ(b.db, 0); /* free for another database */
    CHECK_EQ(put(6, 2, "k", "v"), LOAM_OK);
}

/* ---- keyspaces ---------------------------------------------------------------------------------- */

static void expect_spaces(const uint32_t *ids, uint32_t n)
{
    CHECK_EQ(batch_space_count(&b), n);
    for (uint32_t i = 0; i < n; i++) {
        CHECK_EQ(batch_space(&b, i), ids[i]);
    }
}

Test(batch, its_keyspaces_are_known_once_each)
{
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(put(0, KS_DEFAULT, "a", "1"), LOAM_OK);
        CHECK_EQ(put(1, 7, "a", "1"), LOAM_OK);
        CHECK_EQ(put(1, 3, "a", "1"), LOAM_OK);
    }
    size_t mark = b.ops.size;
    CHECK_EQ(put(1, 5, "a", "1"), LOAM_OK);
    CHECK_EQ(put(1, 3, "a", "1"), LOAM_OK);
    expect_spaces((const uint32_t[]){3, 5, 7}, 3);
    CHECK_EQ(batch_rewind(&b, mark), LOAM_OK);
    expect_spaces((const uint32_t[]){3, 7}, 2);
    CHECK_EQ(put(1, 5, "a", "1"), LOAM_OK);
    expect_spaces((const uint32_t[]){3, 5, 7}, 3);
    batch_clear(&b);
    expect_spaces(NULL, 0);
    CHECK_EQ(put(1, 7, "a", "1"), LOAM_OK);
    expect_spaces((const uint32_t[]){7}, 1);
}

Test(batch, one_filled_before_a_drop_is_refused_whole)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_small(disk, "/db");
    loam_ks *gone, *stays;
    GOES(loam_ks_open(db, "gone", NULL, &gone));
    GOES(loam_ks_open(db, "stays", NULL, &stays));
    loam_batch *filled = loam_batch_new(0);
    GOES(loam_batch_put(filled, NULL, LOAM_LIT("a"), LOAM_LIT("1")));
    GOES(loam_batch_put(filled, stays, LOAM_LIT("b"), LOAM_LIT("2")));
    size_t mark = loam_batch_mark(filled);
    GOES(loam_batch_put(filled, gone, LOAM_LIT("c"), LOAM_LIT("3")));
    GOES(loam_ks_drop(db, "gone"));
    FAILS(loam_write(db, filled, NULL), LOAM_E_NOENT);
    loam_ks_release(gone);
    GOES(loam_ks_open(db, "gone", NULL, &gone)); /* another one of that name */
    FAILS(loam_write(db, filled, NULL), LOAM_E_NOENT);
    expect_none(db, NULL, "a");
    expect_none(db, stays, "b");
    GOES(loam_batch_rewind(filled, mark));
    GOES(loam_write(db, filled, NULL));
    expect_text(db, NULL, "a", "1");
    expect_text(db, stays, "b", "2");
    loam_batch_free(filled);
    loam_ks_release(gone);
    loam_ks_release(stays);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(batch, the_first_error_sticks_until_clear_or_rewind)
{
    CHECK_EQ(put(1, 1, "a", "1"), LOAM_OK);
    size_t mark = b.ops.size;
    CHECK_EQ(put(2, 1, "b", "2"), LOAM_E_INVAL); /* another database */
    CHECK_EQ(put(1, 1, "b", "2"), LOAM_E_INVAL);
    CHECK(batch_reserve(&b, 1, 1, LOAM_LIT("c"), 1) == NULL);
    CHECK_EQ(batch_stick(&b, FAIL(LOAM_E_NOMEM, "later")), LOAM_E_NOMEM);
    CHECK_EQ(b.error.code, LOAM_E_INVAL);
    CHECK_EQ(b.count, 1);
    CHECK_EQ(batch_rewind(&b, mark), LOAM_OK);
    CHECK_EQ(put(1, 1, "b", "2"), LOAM_OK);
    CHECK_EQ(put(2, 1, "b", "2"), LOAM_E_INVAL);
    batch_clear(&b);
    CHECK_EQ(b.error.code, LOAM_OK);
    CHECK_EQ(put(2, 1, "b", "2"), LOAM_OK);
}

Test(batch, sizes_over_the_limits_are_refused_without_overflow)
{
    static uint8_t key[LOAM_MAX_KEY + 1];
    CHECK(batch_reserve(&b, 0, 0, loam_bytes(key, sizeof key), 1) == NULL);
    CHECK_EQ(b.error.code, LOAM_E_TOOBIG);
    batch_clear(&b);
    CHECK(batch_reserve(&b, 0, 0, LOAM_LIT("k"), SIZE_MAX) == NULL);
    CHECK_EQ(b.error.code, LOAM_E_TOOBIG);
    batch_clear(&b);
    CHECK(batch_reserve(&b, 0, 0, LOAM_LIT("k"), (size_t)LOAM_MAX_VALUE + 1) == NULL);
    CHECK_EQ(b.error.code, LOAM_E_TOOBIG);
    batch_clear(&b);
    CHECK(batch_reserve(&b, 0, 0, loam_bytes(key, LOAM_MAX_KEY), 1) != NULL);
    CHECK_EQ(b.count, 1);
}
