/* random.h - splitmix64 and xoshiro256**: fast, seeded, not for secrets.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ARENA_RANDOM_H_
#define LOAM_ARENA_RANDOM_H_

#include <stdint.h>

static inline uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

struct random {
    uint64_t s[4];
};

static inline void random_init(struct random *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        r->s[i] = splitmix64(&seed);
    }
}

static inline uint64_t random_next(struct random *r)
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

/* Uniform in [0, n); n > 0. The bias is below 2^-32 for n < 2^32. */
static inline uint64_t random_below(struct random *r, uint64_t n)
{
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)(((wide)random_next(r) * n) >> 64);
}

#endif
