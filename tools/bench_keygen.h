/* bench_keygen.h - Chooses key numbers and writes them as keys: uniform, Zipf, latest, permuted.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Everything here is a pure function of its seed: two engines given one seed see the same keys.
 */
#ifndef LOAM_TOOLS_BENCH_KEYGEN_H_
#define LOAM_TOOLS_BENCH_KEYGEN_H_

#include <stddef.h>
#include <stdint.h>

/* xoshiro256**, seeded by splitmix64. The library has one, too (arena/random.h), which is none of a tool's
 * business: tools see engine/loam.h alone, and what keys a seed stands for must not hang on the library. */
struct bench_rng {
    uint64_t s[4];
};

void bench_rng_init(struct bench_rng *r, uint64_t seed);

static inline uint64_t bench_rng_next(struct bench_rng *r)
{
    uint64_t m = r->s[1] * 5;
    uint64_t result = (m << 7 | m >> 57) * 9;
    uint64_t t = r->s[1] << 17;
    r->s[2] ^= r->s[0];
    r->s[3] ^= r->s[1];
    r->s[1] ^= r->s[2];
    r->s[0] ^= r->s[3];
    r->s[2] ^= t;
    r->s[3] = r->s[3] << 45 | r->s[3] >> 19;
    return result;
}

__extension__ typedef unsigned __int128 bench_u128;

/* Uniform in [0, n); n > 0. */
static inline uint64_t bench_rng_below(struct bench_rng *r, uint64_t n)
{
    return (uint64_t)(((bench_u128)bench_rng_next(r) * n) >> 64);
}

/* Uniform in [0, 1). */
static inline double bench_rng_unit(struct bench_rng *r)
{
    return (double)(bench_rng_next(r) >> 11) * 0x1.0p-53;
}

/* ---- Zipf ------------------------------------------------------------------------------------ */

/* Ranks 0 .. n-1 with probability proportional to 1 / (rank + 1)^theta, exactly (Hoermann and
 * Derflinger's rejection-inversion); one logarithm and one exponential a draw. */
struct zipf {
    uint64_t n;
    double theta;
    double integral_1, integral_n, slack;
};

/* theta > 0 and n > 0. Constant time, so a growing n is cheap. */
void zipf_init(struct zipf *z, uint64_t n, double theta);
uint64_t zipf_next(const struct zipf *z, struct bench_rng *r);

/* YCSB's scrambled Zipf draws ranks over this many items whatever the size of the database. */
#define ZIPF_YCSB_ITEMS UINT64_C(10000000000)
/* YCSB's 64-bit FNV hash of a number: spreads hot ranks over the key space. */
uint64_t zipf_scramble(uint64_t rank);

/* ---- a random order that visits each number once --------------------------------------------- */

/* A bijection of [0, n) from a four-round Feistel network: no memory, unlike a shuffled array. */
struct permutation {
    uint64_t n;
    uint64_t keys[4];
    unsigned half_bits;
};

void permutation_init(struct permutation *p, uint64_t n, uint64_t seed);
uint64_t permutation_at(const struct permutation *p, uint64_t i); /* i < n */

/* ---- numbers as keys ------------------------------------------------------------------------- */

enum key_kind {
    KEY_LEVELDB, /* 'a' * prefix, then the number in decimal, zero-padded to `size` digits */
    KEY_ROCKSDB  /* 8 bytes big-endian, then '0' up to `size` bytes */
};

struct key_format {
    enum key_kind kind;
    size_t prefix; /* bytes; KEY_LEVELDB only */
    size_t size;   /* bytes, without the prefix */
};

/* Writes key number k; returns its length, prefix + size. `out` has room for that. */
size_t key_format_write(const struct key_format *f, uint64_t k, char *out);
/* How many different keys the format can write; UINT64_MAX when 64 bits fit. */
uint64_t key_format_limit(const struct key_format *f);

/* ---- the choice of the next key -------------------------------------------------------------- */

enum keygen_kind {
    KEYGEN_UNIFORM, /* every key alike */
    KEYGEN_ZIPF,    /* Zipf, hot keys scattered over the space as in YCSB */
    KEYGEN_LATEST   /* Zipf from the newest key backwards */
};

struct keygen {
    enum keygen_kind kind;
    struct zipf zipf;
};

void keygen_init(struct keygen *g, enum keygen_kind kind, uint64_t n, double theta);
/* A key number in [0, n). n may grow from call to call. */
uint64_t keygen_next(struct keygen *g, struct bench_rng *r, uint64_t n);

#endif
