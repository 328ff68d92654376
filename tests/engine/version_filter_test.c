/* version_filter_test.c - What a merge may drop, against reading before and after.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: for every held number, and for every number newer than the last held one, a reader finds
 * the same version of every key in what was kept as in what went in (a tombstone counts as nothing
 * at the bottom). And it is sharp: one stripe keeps one version.
 */
#include <criterion/criterion.h>

#include "arena/alloc.h"
#include "arena/random.h"
#include "engine/version_filter.h"
#include "tests/support/check.h"
#include "tests/support/model.h"

static struct entry version(const char *key, uint64_t seq, enum entry_kind kind)
{
    return (struct entry){loam_bytes(key, strlen(key)), entry_tag(seq, kind), {NULL, 0}};
}

struct case_input {
    const struct entry *in;
    size_t count;
    const uint64_t *held;
    size_t held_count;
    bool bottom;
};

static size_t filter_way(const struct case_input *c, bool lent, bool *kept)
{
    struct version_filter f;
    version_filter_init(&f, alloc_global(), c->held, c->held_count, NULL, c->bottom);
    f.lent = lent;
    size_t n = 0;
    for (size_t i = 0; i < c->count; i++) {
        bool same;
        enum version_verdict v = version_filter_next(&f, &c->in[i], &same);
        CHECK(v != VERSION_OOM);
        CHECK_EQ(same, i != 0 && key_compare(NULL, c->in[i - 1].key, c->in[i].key) == 0);
        kept[i] = v == VERSION_KEEP;
        n += kept[i];
    }
    CHECK_EQ(f.dropped, c->count - n);
    version_filter_free(&f);
    return n;
}

/* Filters; kept[i] tells about in[i]. */
static size_t filter(const struct case_input *c, bool *kept)
{
    size_t lent = filter_way(c, true, kept);
    CHECK_EQ(filter_way(c, false, kept), lent);
    return lent;
}

Test(version_filter, one_stripe_keeps_its_newest_version)
{
    const struct entry in[] = {version("k", 9, ENTRY_PUT), version("k", 7, ENTRY_PUT),
                               version("k", 4, ENTRY_PUT), version("k", 2, ENTRY_PUT)};
    const uint64_t none[] = {10}, two[] = {4, 10};
    bool kept[4];
    CHECK_EQ(filter(&(struct case_input){in, 4, none, 1, false}, kept), 1);
    CHECK(kept[0]);
    CHECK_EQ(filter(&(struct case_input){in, 4, two, 2, false}, kept), 2);
    CHECK(kept[0] && kept[2]);
}

Test(version_filter, versions_newer_than_every_held_number_all_stay)
{
    const struct entry in[] = {version("k", 9, ENTRY_PUT), version("k", 8, ENTRY_DELETE),
                               version("k", 7, ENTRY_PUT)};
    const uint64_t held[] = {5};
    bool kept[3];
    CHECK_EQ(filter(&(struct case_input){in, 3, held, 1, true}, kept), 3);
}

Test(version_filter, a_tombstone_goes_only_at_the_bottom_and_in_the_oldest_stripe)
{
    const struct entry in[] = {version("k", 9, ENTRY_DELETE), version("k", 3, ENTRY_PUT)};
    const uint64_t one[] = {10}, two[] = {5, 10};
    bool kept[2];
    CHECK_EQ(filter(&(struct case_input){in, 2, one, 1, false}, kept), 1);
    CHECK(kept[0]);
    CHECK_EQ(filter(&(struct case_input){in, 2, one, 1, true}, kept), 0);
    CHECK_EQ(filter(&(struct case_input){in, 2, two, 2, true}, kept), 2);
}

Test(version_filter, keys_that_a_comparator_takes_for_equal_share_stripes)
{
    const uint64_t held[] = {10};
    struct version_filter f;
    version_filter_init(&f, alloc_global(), held, 1, model_comparator(MODEL_NOCASE), false);
    struct entry upper = version("KEY", 9, ENTRY_PUT), lower = version("key", 8, ENTRY_PUT);
    bool same;
    CHECK_EQ(version_filter_next(&f, &upper, &same), VERSION_KEEP);
    CHECK(!same);
    CHECK_EQ(version_filter_next(&f, &lower, &same), VERSION_DROP);
    CHECK(same);
    version_filter_free(&f);
}

/* The newest version <= seq of a key among those marked; NULL: none, or a tombstone. */
static const struct entry *read_at(const struct case_input *c, const bool *kept, char key,
                                   uint64_t seq)
{
    for (size_t i = 0; i < c->count; i++) {
        const char *k = c->in[i].key.data;
        if (k[0] == key && (kept == NULL || kept[i]) && tag_seq(c->in[i].tag) <= seq) {
            return tag_kind(c->in[i].tag) == ENTRY_DELETE ? NULL : &c->in[i];
        }
    }
    return NULL;
}

Test(version_filter, every_reader_sees_the_same_before_and_after)
{
    struct random r;
    random_init(&r, 11);
    for (int round = 0; round < 3000; round++) {
        static const char *const keys[] = {"a", "b", "c"};
        struct entry in[60];
        uint64_t held[8];
        size_t n = 0, held_count = 0;
        for (uint64_t s = random_below(&r, 10); held_count < 8; s += 1 + random_below(&r, 12)) {
            held[held_count++] = s;
            if (random_below(&r, 3) == 0) {
                break;
            }
        }
        for (int k = 0; k < 3; k++) {
            for (uint64_t seq = 60; seq > 0; seq--) {
                if (random_below(&r, 4) == 0 && n < 60) {
                    in[n++] =
                        version(keys[k], seq, random_below(&r, 3) == 0 ? ENTRY_DELETE : ENTRY_PUT);
                }
            }
        }
        const struct case_input c = {in, n, held, held_count, random_below(&r, 2) != 0};
        bool kept[60];
        filter(&c, kept);
        for (int k = 0; k < 3; k++) {
            for (size_t h = 0; h < held_count; h++) {
                CHECK(read_at(&c, NULL, *keys[k], held[h]) == read_at(&c, kept, *keys[k], held[h]));
            }
            for (uint64_t s = held[held_count - 1]; s <= 61; s++) {
                CHECK(read_at(&c, NULL, *keys[k], s) == read_at(&c, kept, *keys[k], s));
            }
        }
    }
}
