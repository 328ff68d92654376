/* filter_test.c - Blocked Bloom filters: never a false no, false yes as seldom as computed.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/filter.h"

#include <criterion/criterion.h>
#include <math.h>

#include "arena/coding.h"
#include "tests/sstable/model.h"

/* The rate a blocked filter should have: keys per line follow a Poisson distribution, and the rate is
 * the mean over it. */
static double expected_rate(const struct filter *f, uint64_t keys)
{
    double mean = (double)keys / (double)f->line_count;
    double weight = exp(-mean);
    double rate = 0;
    for (int n = 0; n < 2000; n++) {
        double filled = 1.0 - pow(1.0 - 1.0 / (8.0 * FILTER_LINE), (double)n * f->probes);
        rate += weight * pow(filled, f->probes);
        weight *= mean / (n + 1);
    }
    return rate;
}

struct stored {
    struct filter f;
    uint8_t *bytes;
    size_t size;
    uint64_t keys;
};

static uint64_t hash_of(uint64_t i)
{
    return hash_key(&i, sizeof i);
}

static void make(struct stored *s, uint64_t keys, uint32_t bits)
{
    struct filter_builder b;
    filter_builder_init(&b, alloc_global());
    for (uint64_t i = 0; i < keys; i++) {
        CHECK(filter_builder_add(&b, hash_of(i)));
        CHECK(filter_builder_add(&b, hash_of(i))); /* a further version */
    }
    CHECK_EQ(b.keys, keys);
    s->size = filter_builder_size(&b, bits);
    s->bytes = aligned_alloc(FILTER_LINE, s->size);
    filter_builder_emit(&b, bits, s->bytes);
    filter_builder_free(&b);
    CHECK(filter_open(s->bytes, s->size, &s->f, &s->keys) == NULL);
}

Test(filter, never_misses_a_key_and_errs_about_as_often_as_computed)
{
    static const uint32_t bits[] = {1, 2, 4, 8, 10, 16, 24, 32};
    for (size_t k = 0; k < sizeof bits / sizeof bits[0]; k++) {
        struct stored s;
        const uint64_t keys = 20000;
        const uint64_t probes = 400000;
        uint64_t wrong = 0;
        make(&s, keys, bits[k]);
        CHECK_EQ(s.keys, keys);
        CHECK(s.size <= keys * bits[k] / 8 + 2 * FILTER_LINE + FILTER_HEAD);
        for (uint64_t i = 0; i < keys; i++) {
            CHECK(filter_may_contain(&s.f, hash_of(i)));
        }
        for (uint64_t i = keys; i < keys + probes; i++) {
            wrong += filter_may_contain(&s.f, hash_of(i));
        }
        double rate = (double)wrong / (double)probes;
        double expected = expected_rate(&s.f, keys);
        fprintf(stderr, "%2u bits, %2u probes: %.5f, computed %.5f\n", bits[k], s.f.probes, rate,
                expected);
        CHECK(rate < expected * 1.25 + 0.0005);
        CHECK(rate > expected * 0.75 - 0.0005);
        CHECK(bits[k] < 10 || rate < 0.015);
        free(s.bytes);
    }
}

Test(filter, works_for_any_small_number_of_keys)
{
    for (uint64_t keys = 0; keys < 200; keys++) {
        struct stored s;
        make(&s, keys, 10);
        for (uint64_t i = 0; i < keys; i++) {
            CHECK(filter_may_contain(&s.f, hash_of(i)));
        }
        free(s.bytes);
    }
}

Test(filter, grows_over_many_chunks)
{
    struct stored s;
    make(&s, 50000, 10);
    for (uint64_t i = 0; i < 50000; i++) {
        CHECK(filter_may_contain(&s.f, hash_of(i)));
    }
    free(s.bytes);
}

Test(filter, refuses_a_damaged_head_or_size)
{
    struct stored s;
    struct filter f;
    uint64_t keys;
    make(&s, 1000, 10);
    for (size_t size = 0; size < s.size; size += 7) {
        CHECK(filter_open(s.bytes, size, &f, &keys) != NULL);
    }
    for (size_t at = 0; at < FILTER_HEAD; at++) {
        s.bytes[at] ^= 0x40;
        bool counted = at >= 16 && at < 24; /* the number of keys is compared with the properties */
        bool probes = at == 4;              /* more probes than were set: only the sum can tell */
        if (filter_open(s.bytes, s.size, &f, &keys) == NULL) {
            CHECK(counted || probes);
            filter_may_contain(&f, UINT64_MAX);
        }
        s.bytes[at] ^= 0x40;
    }
    free(s.bytes);
}
