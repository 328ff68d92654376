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
    struct filter_shape shape;
    uint8_t *bytes; /* the pages */
    uint8_t *lines; /* brought together */
    uint64_t pages;
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
    s->shape = (struct filter_shape){filter_builder_lines(&b, bits), keys};
    s->pages = filter_page_count(s->shape.lines);
    s->bytes = aligned_alloc(FILTER_LINE, (s->shape.lines + s->pages) * FILTER_LINE);
    s->lines = aligned_alloc(FILTER_LINE, s->shape.lines * FILTER_LINE);
    filter_builder_emit(&b, bits, s->bytes);
    filter_builder_free(&b);
    uint8_t *to = s->lines;
    for (uint64_t i = 0; i < s->pages; i++) {
        const uint8_t *page = s->bytes + i * FILTER_PAGE_BYTES;
        uint32_t size = filter_page_size(s->shape.lines, i);
        CHECK(filter_page_check(page, size, &s->shape, i) == NULL);
        memcpy(to, page + FILTER_HEAD, size - FILTER_HEAD);
        to += size - FILTER_HEAD;
    }
    CHECK_EQ((size_t)(to - s->lines), s->shape.lines * FILTER_LINE);
    s->f = (struct filter){s->lines, s->shape.lines, filter_page_probes(s->bytes)};
}

static void drop(struct stored *s)
{
    free(s->bytes);
    free(s->lines);
}

/* What the one page says that decides, which must be what the whole filter says. */
static bool may_contain(const struct stored *s, uint64_t hash)
{
    uint64_t page = filter_line_of(hash, s->shape.lines) / FILTER_PAGE_LINES;
    bool answer = filter_may_contain(&s->f, hash);
    CHECK_EQ(filter_page_may_contain(s->bytes + page * FILTER_PAGE_BYTES, s->shape.lines, hash),
             answer);
    return answer;
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
        CHECK(s.shape.lines * FILTER_LINE <= keys * bits[k] / 8 + FILTER_LINE);
        for (uint64_t i = 0; i < keys; i++) {
            CHECK(may_contain(&s, hash_of(i)));
        }
        for (uint64_t i = keys; i < keys + probes; i++) {
            wrong += may_contain(&s, hash_of(i));
        }
        double rate = (double)wrong / (double)probes;
        double expected = expected_rate(&s.f, keys);
        fprintf(stderr, "%2u bits, %2u probes: %.5f, computed %.5f\n", bits[k], s.f.probes, rate,
                expected);
        CHECK(rate < expected * 1.25 + 0.0005);
        CHECK(rate > expected * 0.75 - 0.0005);
        CHECK(bits[k] < 10 || rate < 0.015);
        drop(&s);
    }
}

Test(filter, works_for_any_small_number_of_keys)
{
    for (uint64_t keys = 0; keys < 200; keys++) {
        struct stored s;
        make(&s, keys, 10);
        for (uint64_t i = 0; i < keys; i++) {
            CHECK(may_contain(&s, hash_of(i)));
        }
        drop(&s);
    }
}

Test(filter, grows_over_many_chunks)
{
    struct stored s;
    make(&s, 50000, 10);
    for (uint64_t i = 0; i < 50000; i++) {
        CHECK(may_contain(&s, hash_of(i)));
    }
    drop(&s);
}

Test(filter, refuses_a_damaged_head_or_size)
{
    struct stored s;
    make(&s, 10000, 10);
    CHECK(s.pages > 2);
    for (uint64_t i = 0; i < s.pages; i++) {
        uint8_t *page = s.bytes + i * FILTER_PAGE_BYTES;
        uint32_t size = filter_page_size(s.shape.lines, i);
        for (size_t n = 0; n < size; n += 7) {
            CHECK(filter_page_check(page, n, &s.shape, i) != NULL);
        }
        CHECK(filter_page_check(page, size, &s.shape, i + 1) != NULL);
        for (size_t at = 0; at < FILTER_HEAD; at++) {
            page[at] ^= 0x40;
            bool sum = at < 8;      /* looked at by whoever is paranoid */
            bool probes = at == 12; /* more probes than were set: only the sum can tell */
            CHECK((filter_page_check(page, size, &s.shape, i) == NULL) == sum || probes);
            page[at] ^= 0x40;
        }
    }
    drop(&s);
}

Test(filter, size_tells_the_number_of_lines)
{
    for (uint64_t lines = 1; lines < 500; lines++) {
        uint64_t size = 0;
        for (uint64_t i = 0; i < filter_page_count(lines); i++) {
            size += filter_page_size(lines, i) + 16;
        }
        CHECK_EQ(filter_lines_of_size(size, 16), lines);
        CHECK_EQ(filter_lines_of_size(size - 1, 16), 0);
        CHECK_EQ(filter_lines_of_size(size + 1, 16), 0);
    }
    CHECK_EQ(filter_lines_of_size(0, 16), 0);
    CHECK_EQ(filter_lines_of_size(UINT64_MAX, 16), 0);
}
