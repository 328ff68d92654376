/* bench_calibrate.c - A fixed piece of work to hold other times against, whatever the machine.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_calibrate.h"

#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <xxhash.h>

#include "tools/bench_interval.h"
#include "tools/bench_keygen.h"

enum {
    LINES = 1 << 19,
    LINE_WORDS = 64 / sizeof(uint32_t),
    HASHED = 512,
    UNITS = 100000,
    LOOKS = 5
};

/* One cycle through all lines in random order (Sattolo's shuffle); the first word of a line is the
 * number of the next. */
static void make_cycle(uint32_t *words)
{
    struct bench_rng r;
    bench_rng_init(&r, 1);
    for (uint32_t i = 0; i < LINES; i++) {
        words[(size_t)i * LINE_WORDS] = i;
    }
    for (uint32_t i = LINES - 1; i > 0; i--) {
        uint32_t j = (uint32_t)bench_rng_below(&r, i);
        uint32_t keep = words[(size_t)i * LINE_WORDS];
        words[(size_t)i * LINE_WORDS] = words[(size_t)j * LINE_WORDS];
        words[(size_t)j * LINE_WORDS] = keep;
    }
}

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double look(const uint32_t *words, uint32_t *line)
{
    double start = cpu_ns();
    uint64_t sum = 0;
    for (int i = 0; i < UNITS; i++) {
        *line = words[(size_t)*line * LINE_WORDS];
        /* The same 4 KiB again and again, which stay cached. */
        const uint32_t *at = words + (sum & 7) * (HASHED / sizeof(uint32_t));
        sum = XXH3_64bits(at, HASHED) + *line;
    }
    double ns = (cpu_ns() - start) / UNITS;
    *line = (*line + (uint32_t)(sum & 1)) % LINES; /* or the compiler sees that nobody asks */
    return ns;
}

double bench_calibrate(void)
{
    uint32_t *words = aligned_alloc(64, (size_t)LINES * 64);
    double looks[LOOKS];
    uint32_t line = 0;
    if (words == NULL) {
        return 0;
    }
    make_cycle(words);
    for (int i = 0; i < LOOKS; i++) {
        looks[i] = look(words, &line);
    }
    free(words);
    return bench_median(looks, LOOKS);
}
