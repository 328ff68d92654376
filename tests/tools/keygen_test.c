/* keygen_test.c - The key generators draw the distributions they are named after.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracles: the Zipf law summed term by term; the constants YCSB publishes (zeta of 10^10 items at
 * 0.99, the FNV hash); and the literal key bytes of LevelDB's and RocksDB's db_bench.
 */
#include "tools/bench_keygen.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "tests/support/check.h"
#include "tests/support/seed.h"

/* zeta(10^10, 0.99), the ZETAN constant of YCSB's ScrambledZipfianGenerator. */
#define YCSB_ZETAN 26.46902820178302

/* Six standard deviations of a binomial count: one false alarm in 10^9. */
static void check_share(uint64_t hits, uint64_t draws, double p, const char *what)
{
    double expected = (double)draws * p, sigma = sqrt(expected * (1 - p));
    cr_assert(fabs((double)hits - expected) <= 6 * sigma + 1, "%s: %llu of %llu, expected %.0f",
              what, (unsigned long long)hits, (unsigned long long)draws, expected);
}

static void check_zipf_law(uint64_t n, double theta, uint64_t seed)
{
    enum { DRAWS = 400000 };
    struct bench_rng r;
    struct zipf z;
    bench_rng_init(&r, seed);
    zipf_init(&z, n, theta);
    uint64_t *hits = calloc(n, sizeof(*hits));
    for (int i = 0; i < DRAWS; i++) {
        uint64_t rank = zipf_next(&z, &r);
        CHECK(rank < n);
        hits[rank]++;
    }
    double zeta = 0, chi = 0;
    for (uint64_t k = 1; k <= n; k++) {
        zeta += pow((double)k, -theta);
    }
    for (uint64_t k = 1; k <= n; k++) {
        double expected = DRAWS * pow((double)k, -theta) / zeta;
        double d = (double)hits[k - 1] - expected;
        chi += d * d / expected;
    }
    free(hits);
    /* Chi squared has mean n - 1 and deviation sqrt(2 (n - 1)). */
    double limit = (double)(n - 1) + 7 * sqrt(2.0 * (double)n) + 20;
    cr_assert(chi <= limit, "n %llu theta %.2f: chi squared %.1f, limit %.1f",
              (unsigned long long)n, theta, chi, limit);
}

Test(keygen, zipf_follows_the_law_at_every_rank)
{
    uint64_t seed = seed_or(1);
    check_zipf_law(1, 0.99, seed);
    check_zipf_law(2, 0.99, seed);
    check_zipf_law(1000, 0.99, seed);
    check_zipf_law(1000, 0.5, seed);
    check_zipf_law(1000, 1.0, seed);
    check_zipf_law(200, 1.2, seed);
}

Test(keygen, hottest_ranks_have_the_frequencies_ycsb_publishes)
{
    enum { DRAWS = 1000000 };
    struct bench_rng r;
    struct zipf z;
    bench_rng_init(&r, seed_or(2));
    zipf_init(&z, ZIPF_YCSB_ITEMS, 0.99);
    uint64_t hits[4] = {0}, first_thousand = 0;
    for (int i = 0; i < DRAWS; i++) {
        uint64_t rank = zipf_next(&z, &r);
        if (rank < 4) {
            hits[rank]++;
        }
        first_thousand += rank < 1000;
    }
    double sum = 0;
    for (int k = 1; k <= 1000; k++) {
        sum += pow(k, -0.99);
    }
    for (int k = 0; k < 4; k++) {
        check_share(hits[k], DRAWS, pow(k + 1, -0.99) / YCSB_ZETAN, "rank");
    }
    check_share(first_thousand, DRAWS, sum / YCSB_ZETAN, "first thousand ranks");
}

Test(keygen, scramble_is_the_fnv_hash_of_the_eight_bytes)
{
    /* FNV-1a 64 of eight zero bytes, from the published test vectors' recurrence. */
    uint64_t hash = 0xcbf29ce484222325u;
    for (int i = 0; i < 8; i++) {
        hash *= 0x100000001b3u;
    }
    CHECK(zipf_scramble(0) == hash);
    CHECK(zipf_scramble(1) != zipf_scramble(256));
}

Test(keygen, scrambled_zipf_spreads_hot_keys_and_keeps_their_share)
{
    enum { DRAWS = 500000, N = 5000 };
    struct bench_rng r;
    struct keygen g;
    bench_rng_init(&r, seed_or(3));
    keygen_init(&g, KEYGEN_ZIPF, N, 0.99);
    uint64_t *hits = calloc(N, sizeof(*hits));
    for (int i = 0; i < DRAWS; i++) {
        hits[keygen_next(&g, &r, N)]++;
    }
    /* Its own share, plus its part of the long tail that lands anywhere. */
    uint64_t hottest = zipf_scramble(0) % N;
    double share = (double)hits[hottest] / DRAWS;
    cr_assert(share > 0.0362 && share < 0.0400, "hottest key has %.4f", share);
    uint64_t left_half = 0;
    for (int i = 0; i < N / 2; i++) {
        left_half += hits[i];
    }
    free(hits);
    cr_assert(left_half > DRAWS * 0.4 && left_half < DRAWS * 0.6);
}

Test(keygen, latest_prefers_the_newest_and_follows_growth)
{
    enum { DRAWS = 200000 };
    struct bench_rng r;
    struct keygen g;
    bench_rng_init(&r, seed_or(4));
    keygen_init(&g, KEYGEN_LATEST, 1000, 0.99);
    uint64_t newest = 0, n = 1000;
    double expected = 0, zeta = 0;
    for (int k = 1; k <= 1000; k++) {
        zeta += pow(k, -0.99);
    }
    for (int i = 0; i < DRAWS; i++) {
        uint64_t k = keygen_next(&g, &r, n);
        CHECK(k < n);
        newest += k == n - 1;
        expected += 1 / zeta;
        if (i % 2 == 0) {
            n++;
            zeta += pow((double)n, -0.99);
        }
    }
    cr_assert(fabs((double)newest - expected) < 7 * sqrt(expected) + expected / 500);
}

Test(keygen, uniform_covers_the_range_evenly)
{
    enum { DRAWS = 300000, N = 100 };
    struct bench_rng r;
    bench_rng_init(&r, seed_or(5));
    uint64_t hits[N] = {0};
    for (int i = 0; i < DRAWS; i++) {
        hits[bench_rng_below(&r, N)]++;
    }
    for (int i = 0; i < N; i++) {
        check_share(hits[i], DRAWS, 1.0 / N, "uniform key");
    }
}

Test(keygen, a_permutation_visits_each_number_once)
{
    static const uint64_t sizes[] = {1, 2, 3, 5, 63, 64, 65, 1000, 4097, 100000};
    uint64_t seed = seed_or(6);
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        struct permutation p;
        permutation_init(&p, sizes[s], seed);
        uint8_t *seen = calloc(sizes[s], 1);
        uint64_t fixed = 0;
        for (uint64_t i = 0; i < sizes[s]; i++) {
            uint64_t to = permutation_at(&p, i);
            CHECK(to < sizes[s]);
            CHECK_EQ(seen[to], 0);
            seen[to] = 1;
            fixed += to == i;
        }
        free(seen);
        CHECK(sizes[s] < 1000 || fixed < 20);
    }
}

Test(keygen, leveldb_keys_are_decimal_and_zero_padded)
{
    struct key_format f = {KEY_LEVELDB, 0, 16};
    char out[64];
    CHECK_BYTES(out, key_format_write(&f, 0, out), "0000000000000000", 16);
    CHECK_BYTES(out, key_format_write(&f, 1234567, out), "0000000001234567", 16);
    CHECK_BYTES(out, key_format_write(&f, 9999999999999999, out), "9999999999999999", 16);
    f = (struct key_format){KEY_LEVELDB, 3, 5};
    CHECK_BYTES(out, key_format_write(&f, 42, out), "aaa00042", 8);
    CHECK(key_format_limit(&f) == 100000);
}

Test(keygen, rocksdb_keys_are_big_endian_and_padded)
{
    struct key_format f = {KEY_ROCKSDB, 0, 16};
    char out[64];
    CHECK_BYTES(out, key_format_write(&f, 0x0102030405060708, out),
                "\1\2\3\4\5\6\7\10"
                "00000000",
                16);
    CHECK(key_format_limit(&f) == UINT64_MAX);
    f.size = 4;
    CHECK_BYTES(out, key_format_write(&f, 0x01020304, out), "\1\2\3\4", 4);
    CHECK(key_format_limit(&f) == UINT64_C(1) << 32);
}

Test(keygen, random_numbers_match_the_published_vectors)
{
    /* The first outputs of xoshiro256** from the state 1, 2, 3, 4. */
    struct bench_rng r = {{1, 2, 3, 4}};
    static const uint64_t vector[] = {11520, 0, 1509978240, 1215971899390074240};
    for (int i = 0; i < 4; i++) {
        CHECK(bench_rng_next(&r) == vector[i]);
    }
}
