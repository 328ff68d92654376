/* version_edit_test.c - Edits come back as they were encoded, and hostile bytes never get through.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: encode(decode(encode(e))) == encode(e); a decoded edit always obeys the documented
 * ranges.
 */
#include <criterion/criterion.h>

#include "arena/coding.h"
#include "arena/entry.h"
#include "arena/random.h"
#include "engine/loam.h"
#include "engine/version_edit.h"
#include "tests/support/check.h"
#include "tests/support/seed.h"

static struct table_meta meta(struct random *r, uint8_t keys[64])
{
    struct table_meta m = {.number = 1 + random_below(r, 1000),
                           .size = 1 + (random_next(r) >> random_below(r, 60)),
                           .raw_bytes = random_next(r),
                           .checksum = random_next(r),
                           .ks = (uint32_t)random_below(r, KS_ID_MAX + 1ull),
                           .level = (uint8_t)random_below(r, LEVEL_COUNT)};
    m.entries = 1 + random_below(r, 1 << 20);
    m.deletes = random_below(r, m.entries + 1);
    m.older = random_below(r, 2) != 0 ? random_below(r, m.entries) : 0;
    m.max_seq = random_below(r, SEQ_MAX);
    m.min_seq = random_below(r, m.max_seq + 1);
    for (int i = 0; i < 64; i++) {
        keys[i] = (uint8_t)random_next(r);
    }
    m.smallest = loam_bytes(keys, random_below(r, 33));
    m.largest = loam_bytes(keys + 32, random_below(r, 33));
    return m;
}

static void random_edit(struct version_edit *e, struct random *r)
{
    uint8_t keys[64] = {0};
    for (uint64_t i = random_below(r, 6); i > 0; i--) {
        struct table_meta m = meta(r, keys);
        CHECK_EQ(version_edit_add_table(e, &m), LOAM_OK);
    }
    for (uint64_t i = random_below(r, 6); i > 0; i--) {
        CHECK_EQ(version_edit_remove_table(e, (uint32_t)random_below(r, 9),
                                           (uint8_t)random_below(r, LEVEL_COUNT), random_next(r)),
                 LOAM_OK);
    }
    if (random_below(r, 2) != 0) {
        struct ks_desc d = {.id = (uint32_t)random_below(r, 100),
                            .compression = LOAM_COMPRESS_LZ4,
                            .filter_bits = random_below(r, 2) != 0 ? UINT32_MAX : 10,
                            .block_bytes = 4096,
                            .name = LOAM_LIT("users"),
                            .comparator = random_below(r, 2) != 0 ? LOAM_LIT("rev") : LOAM_LIT("")};
        CHECK_EQ(version_edit_create_ks(e, &d), LOAM_OK);
        CHECK_EQ(version_edit_drop_ks(e, (uint32_t)random_below(r, 100)), LOAM_OK);
        CHECK_EQ(version_edit_rename_ks(e, 3, LOAM_LIT("other")), LOAM_OK);
    }
    if (random_below(r, 2) != 0) {
        version_edit_set_log_number(e, random_next(r), false);
        version_edit_set_next_file(e, random_next(r) / 2);
        version_edit_set_last_seq(e, random_below(r, SEQ_MAX));
    }
    if (random_below(r, 2) != 0) {
        version_edit_set_sealed(e, random_next(r), random_below(r, SEQ_MAX));
        version_edit_set_next_ks(e, (uint32_t)random_below(r, KS_ID_MAX));
        e->snapshot_end = true;
        for (uint64_t i = random_below(r, 3); i > 0; i--) {
            const struct dead_note n = {.ks = (uint32_t)random_below(r, KS_ID_MAX + 1ull),
                                        .lo_behind = random_below(r, 2) != 0,
                                        .hi_behind = random_below(r, 2) != 0,
                                        .from = random_below(r, SEQ_MAX),
                                        .lo = loam_bytes(keys, random_below(r, 33)),
                                        .hi = loam_bytes(keys + 32, random_below(r, 33))};
            CHECK_EQ(version_edit_add_dead(e, &n), LOAM_OK);
        }
    }
}

/* What version.c and version_set.c rely on without checking again. */
static void check_ranges(const struct version_edit *e)
{
    for (uint32_t i = 0; i < e->added_count; i++) {
        const struct table_meta *m = &e->added[i];
        CHECK(m->ks <= KS_ID_MAX && m->level < LEVEL_COUNT && m->number != 0 && m->size != 0);
        CHECK(m->entries != 0 && m->deletes <= m->entries && m->min_seq <= m->max_seq);
        CHECK(m->older < m->entries);
        CHECK(m->max_seq <= SEQ_MAX && m->smallest.size <= LOAM_MAX_KEY);
        CHECK(m->smallest.data != NULL && m->largest.data != NULL);
    }
    for (uint32_t i = 0; i < e->removed_count; i++) {
        CHECK(e->removed[i].ks <= KS_ID_MAX && e->removed[i].level < LEVEL_COUNT);
    }
    for (uint32_t i = 0; i < e->created_count; i++) {
        CHECK(e->created[i].name.size >= 1 && e->created[i].name.size <= LOAM_MAX_KS_NAME);
        CHECK(e->created[i].comparator.size <= LOAM_MAX_KS_NAME);
    }
    for (uint32_t i = 0; i < e->dead_count; i++) {
        const struct dead_note *n = &e->dead[i];
        CHECK(e->has_sealed && n->ks <= KS_ID_MAX && n->from <= SEQ_MAX);
        CHECK(n->lo.size <= LOAM_MAX_KEY && n->hi.size <= LOAM_MAX_KEY);
        CHECK(n->lo.data != NULL && n->hi.data != NULL);
    }
}

Test(version_edit, comes_back_as_it_was)
{
    struct random r;
    random_init(&r, seed_or(42));
    for (int i = 0; i < 3000; i++) {
        struct version_edit a, b;
        struct buf x, y;
        version_edit_init(&a, alloc_global());
        version_edit_init(&b, alloc_global());
        buf_init(&x, alloc_global(), MEM_VERSION);
        buf_init(&y, alloc_global(), MEM_VERSION);
        random_edit(&a, &r);
        version_edit_encode(&a, &x);
        CHECK_EQ(version_edit_decode(&b, buf_slice(&x), 1, 0), LOAM_OK);
        check_ranges(&b);
        version_edit_encode(&b, &y);
        CHECK_BYTES(x.data, x.size, y.data, y.size);
        CHECK_EQ(a.added_count, b.added_count);
        CHECK_EQ(a.removed_count, b.removed_count);
        CHECK_EQ(a.dead_count, b.dead_count);
        version_edit_free(&a);
        version_edit_free(&b);
        buf_free(&x);
        buf_free(&y);
    }
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_VERSION), 0);
}

Test(version_edit, refuses_damage_without_reading_past_it)
{
    struct random r;
    random_init(&r, seed_or(42));
    for (int i = 0; i < 2000; i++) {
        struct version_edit a, b;
        struct buf x;
        version_edit_init(&a, alloc_global());
        version_edit_init(&b, alloc_global());
        buf_init(&x, alloc_global(), MEM_VERSION);
        random_edit(&a, &r);
        version_edit_encode(&a, &x);
        for (int k = 0; k < 20 && x.size != 0; k++) {
            size_t n = random_below(&r, 2) != 0 ? x.size : random_below(&r, x.size);
            uint8_t *copy = malloc(n + 1); /* exact size: ASan sees every byte too far */
            memcpy(copy, x.data, n);
            if (n != 0) {
                copy[random_below(&r, n)] ^= (uint8_t)(1u << random_below(&r, 8));
            }
            uint8_t *exact = realloc(copy, n != 0 ? n : 1);
            int rc = version_edit_decode(&b, loam_bytes(exact, n), 1, 0);
            CHECK(rc == LOAM_OK || rc == LOAM_E_CORRUPT || rc == LOAM_E_FORMAT);
            check_ranges(&b);
            version_edit_free(&b);
            free(exact);
        }
        version_edit_free(&a);
        buf_free(&x);
    }
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_VERSION), 0);
}

static int decode(const uint8_t *p, size_t n)
{
    struct version_edit e;
    version_edit_init(&e, alloc_global());
    int rc = version_edit_decode(&e, loam_bytes(p, n), 1, 0);
    version_edit_free(&e);
    return rc;
}

Test(version_edit, skips_unknown_optional_fields_and_refuses_required_ones)
{
    CHECK_EQ(decode((const uint8_t *)"\x19\x03"
                                     "abc",
                    5),
             LOAM_OK);
    CHECK_EQ(decode((const uint8_t *)"\x1a\x00", 2), LOAM_E_FORMAT);
    CHECK_EQ(decode((const uint8_t *)"\x00\x00", 2), LOAM_E_FORMAT);
    CHECK_EQ(decode((const uint8_t *)"\x19\x04"
                                     "abc",
                    5),
             LOAM_E_CORRUPT);
}

Test(version_edit, refuses_values_out_of_range)
{
    CHECK_EQ(decode((const uint8_t *)"\x04\x03\x00\x07\x01", 5), LOAM_E_CORRUPT); /* level 7 */
    CHECK_EQ(decode((const uint8_t *)"\x04\x03\x00\x06\x01", 5), LOAM_OK);
    CHECK_EQ(decode((const uint8_t *)"\x04\x04\x00\x06\x01\x00", 6), LOAM_E_CORRUPT); /* long */
    CHECK_EQ(decode((const uint8_t *)"\x10\x04\x80\x80\x80\x08", 6), LOAM_E_CORRUPT); /* id 2^24 */
    CHECK_EQ(decode((const uint8_t *)"\x06\x01\x05\x06\x01\x05", 6), LOAM_E_CORRUPT); /* twice */
    CHECK_EQ(decode((const uint8_t *)"\x12\x02\x01\x00", 4), LOAM_E_CORRUPT);     /* empty name */
    CHECK_EQ(decode((const uint8_t *)"\x12\x03\x01\x01\x00", 5), LOAM_E_CORRUPT); /* NUL in it */
}

Test(version_edit, survives_running_out_of_memory)
{
    struct random r;
    random_init(&r, seed_or(42));
    struct version_edit a;
    struct buf x;
    version_edit_init(&a, alloc_global());
    buf_init(&x, alloc_global(), MEM_VERSION);
    while (a.added_count < 3 || a.created_count == 0 || a.dead_count == 0) {
        random_edit(&a, &r);
        a.has_log_number = a.has_sealed = a.has_next_ks = a.snapshot_end = false;
    }
    version_edit_set_sealed(&a, 5, 64);
    version_edit_encode(&a, &x);
    for (uint64_t limit = 0;; limit += 16) {
        static struct alloc small;
        struct version_edit b;
        alloc_init(&small, NULL, limit);
        version_edit_init(&b, &small);
        int rc = version_edit_decode(&b, buf_slice(&x), 1, 0);
        version_edit_free(&b);
        CHECK_EQ(alloc_used(&small), 0);
        if (rc == LOAM_OK) {
            break;
        }
        CHECK_EQ(rc, LOAM_E_NOMEM);
    }
    version_edit_free(&a);
    buf_free(&x);
}

/* Beside a sealed log: keyspace 3, since 300, from behind "a" to before "bc". */
#define SEALED     "\x0c\x02\x05\x40"
#define DEAD_RANGE "\x1b\x09\x03\xac\x02\x01\x01" "a\x02" "bc"

Test(version_edit, dead_ranges_have_their_golden_bytes)
{
    static const char golden[] = SEALED DEAD_RANGE;
    const struct dead_note n = {
        .ks = 3, .lo_behind = true, .from = 300, .lo = LOAM_LIT("a"), .hi = LOAM_LIT("bc")};
    struct version_edit e, back;
    struct buf b;
    version_edit_init(&e, alloc_global());
    version_edit_init(&back, alloc_global());
    buf_init(&b, alloc_global(), MEM_VERSION);
    version_edit_set_sealed(&e, 5, 64);
    CHECK_EQ(version_edit_add_dead(&e, &n), LOAM_OK);
    version_edit_encode(&e, &b);
    CHECK_BYTES(b.data, b.size, golden, sizeof golden - 1);
    CHECK_EQ(version_edit_decode(&back, buf_slice(&b), 1, 0), LOAM_OK);
    CHECK_EQ(back.dead_count, 1);
    CHECK(back.dead[0].ks == 3 && back.dead[0].from == 300);
    CHECK(back.dead[0].lo_behind && !back.dead[0].hi_behind);
    CHECK_BYTES(back.dead[0].lo.data, back.dead[0].lo.size, "a", 1);
    CHECK_BYTES(back.dead[0].hi.data, back.dead[0].hi.size, "bc", 2);
    version_edit_free(&e);
    version_edit_free(&back);
    buf_free(&b);
}

/* Table 5 of 9 entries, and that 3 of them are older versions. */
#define TABLE "\x02\x15\x00\x06\x05\x64\x09\x00\x1e" "checksum" "\x01\x02\x01" "a\x01" "b"
#define OLDER "\x1d\x02\x05\x03"

Test(version_edit, older_versions_have_their_golden_bytes)
{
    static const char golden[] = TABLE OLDER;
    struct version_edit e, back;
    struct buf b;
    version_edit_init(&e, alloc_global());
    version_edit_init(&back, alloc_global());
    buf_init(&b, alloc_global(), MEM_VERSION);
    CHECK_EQ(version_edit_decode(&e, loam_bytes(TABLE, sizeof TABLE - 1), 1, 0), LOAM_OK);
    CHECK_EQ(e.added[0].older, 0);
    e.added[0].older = 3;
    version_edit_encode(&e, &b);
    CHECK_BYTES(b.data, b.size, golden, sizeof golden - 1);
    CHECK_EQ(version_edit_decode(&back, buf_slice(&b), 1, 0), LOAM_OK);
    CHECK_EQ(back.added_count, 1);
    CHECK_EQ(back.added[0].older, 3);
    version_edit_free(&e);
    version_edit_free(&back);
    buf_free(&b);
}

#define REFUSED(bytes) CHECK_EQ(decode((const uint8_t *)(bytes), sizeof(bytes) - 1), LOAM_E_CORRUPT)

Test(version_edit, dead_ranges_are_refused_that_cannot_be)
{
    REFUSED(DEAD_RANGE);                                                 /* the log is open */
    REFUSED(SEALED "\x1b\x09\x03\xac\x02\x04\x01" "a\x02" "bc");        /* unknown places */
    REFUSED(SEALED "\x1b\x08\x03\xac\x02\x01\x01" "a\x02" "b");         /* cut off */
    REFUSED(SEALED "\x1b\x0c\x80\x80\x80\x08\xac\x02\x01\x01" "a\x02" "bc"); /* keyspace 2^24 */
    REFUSED(SEALED "\x1b\x10\x03\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x01\x01"
                   "a\x02" "bc"); /* a sequence number beyond the last */
}

Test(version_edit, older_versions_are_refused_that_cannot_be)
{
    REFUSED(OLDER);                          /* of no table */
    REFUSED(TABLE "\x1d\x02\x06\x03");       /* of another one */
    REFUSED(TABLE "\x1d\x02\x05\x00");       /* none */
    REFUSED(TABLE "\x1d\x02\x05\x09");       /* all entries */
    REFUSED(TABLE "\x1d\x01\x05");           /* cut off */
    REFUSED(TABLE OLDER OLDER);              /* twice */
}
