/* bench_keygen.c - Chooses key numbers and writes them as keys: uniform, Zipf, latest, permuted.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_keygen.h"

#include <math.h>
#include <string.h>

static uint64_t mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void bench_rng_init(struct bench_rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        seed += 0x9e3779b97f4a7c15u;
        r->s[i] = mix64(seed);
    }
}

/* The density 1 / x^theta, its integral from 1, and the inverse of that. The forms with expm1 and
 * log1p stay exact when theta is near 1, where the plain ones cancel. */
static double density(double theta, double x)
{
    return exp(-theta * log(x));
}

static double integral(double theta, double x)
{
    double log_x = log(x), t = (1 - theta) * log_x;
    return fabs(t) > 1e-8 ? expm1(t) / t * log_x : (1 + t / 2) * log_x;
}

static double integral_inverse(double theta, double y)
{
    double t = y * (1 - theta);
    t = t < -1 ? -1 : t;
    return exp(fabs(t) > 1e-8 ? log1p(t) / t * y : (1 - t / 2) * y);
}

void zipf_init(struct zipf *z, uint64_t n, double theta)
{
    z->n = n;
    z->theta = theta;
    z->integral_1 = integral(theta, 1.5) - 1;
    z->integral_n = integral(theta, (double)n + 0.5);
    z->slack = 2 - integral_inverse(theta, integral(theta, 2.5) - density(theta, 2));
}

uint64_t zipf_next(const struct zipf *z, struct bench_rng *r)
{
    for (;;) {
        double u = z->integral_n + bench_rng_unit(r) * (z->integral_1 - z->integral_n);
        double x = integral_inverse(z->theta, u);
        double k = floor(x + 0.5);
        k = k < 1 ? 1 : k > (double)z->n ? (double)z->n : k;
        /* Nearly every draw passes the first test, which needs no further logarithm. */
        if (k - x <= z->slack || u >= integral(z->theta, k + 0.5) - density(z->theta, k)) {
            return (uint64_t)k - 1;
        }
    }
}

uint64_t zipf_scramble(uint64_t rank)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (int i = 0; i < 8; i++) {
        hash = (hash ^ (rank & 0xff)) * 1099511628211u;
        rank >>= 8;
    }
    return hash;
}

void permutation_init(struct permutation *p, uint64_t n, uint64_t seed)
{
    struct bench_rng r;
    bench_rng_init(&r, seed);
    for (int i = 0; i < 4; i++) {
        p->keys[i] = bench_rng_next(&r);
    }
    p->n = n;
    p->half_bits = 1;
    while (p->half_bits < 32 && (UINT64_C(1) << (2 * p->half_bits)) < n) {
        p->half_bits++;
    }
}

uint64_t permutation_at(const struct permutation *p, uint64_t i)
{
    uint64_t mask = (UINT64_C(1) << p->half_bits) - 1;
    /* The network permutes a power of four of at most 4n; walking its cycle until a number is below
     * n restricts it to [0, n). */
    do {
        uint64_t left = i >> p->half_bits, right = i & mask;
        for (int round = 0; round < 4; round++) {
            uint64_t next = left ^ (mix64(right + p->keys[round]) & mask);
            left = right;
            right = next;
        }
        i = left << p->half_bits | right;
    } while (i >= p->n);
    return i;
}

static void write_decimal(uint64_t k, char *out, size_t width)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                                "25262728293031323334353637383940414243444546474849"
                                "50515253545556575859606162636465666768697071727374"
                                "75767778798081828384858687888990919293949596979899";
    size_t at = width;
    while (at >= 2) {
        memcpy(out + at - 2, pairs + k % 100 * 2, 2);
        k /= 100;
        at -= 2;
    }
    if (at == 1) {
        out[0] = (char)('0' + k % 10);
    }
}

size_t key_format_write(const struct key_format *f, uint64_t k, char *out)
{
    if (f->kind == KEY_LEVELDB) {
        memset(out, 'a', f->prefix);
        write_decimal(k, out + f->prefix, f->size);
        return f->prefix + f->size;
    }
    size_t n = f->size < 8 ? f->size : 8;
    for (size_t i = 0; i < n; i++) {
        out[i] = (char)(k >> (8 * (n - i - 1)));
    }
    memset(out + n, '0', f->size - n);
    return f->size;
}

uint64_t key_format_limit(const struct key_format *f)
{
    uint64_t limit = 1, base = f->kind == KEY_LEVELDB ? 10 : 256;
    for (size_t i = 0; i < f->size; i++) {
        if (limit > UINT64_MAX / base) {
            return UINT64_MAX;
        }
        limit *= base;
    }
    return limit;
}

void keygen_init(struct keygen *g, enum keygen_kind kind, uint64_t n, double theta)
{
    g->kind = kind;
    zipf_init(&g->zipf, kind == KEYGEN_ZIPF ? ZIPF_YCSB_ITEMS : n, theta);
}

uint64_t keygen_next(struct keygen *g, struct bench_rng *r, uint64_t n)
{
    if (g->kind == KEYGEN_UNIFORM) {
        return bench_rng_below(r, n);
    }
    if (g->kind == KEYGEN_ZIPF) {
        return zipf_scramble(zipf_next(&g->zipf, r)) % n;
    }
    /* A thousandth more keys does not move the distribution measurably. */
    if (n > g->zipf.n + g->zipf.n / 1024) {
        zipf_init(&g->zipf, n, g->zipf.theta);
    }
    return n - 1 - zipf_next(&g->zipf, r);
}
