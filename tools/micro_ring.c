/* micro_ring.c - Rows of loam-micro for the ring: cycles of an entry, slow writes, second chance.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arena/epoch.h"
#include "arena/ring.h"
#include "arena/sync.h"
#include "tools/bench_keygen.h"
#include "tools/bench_lru.h"
#include "tools/micro.h"

static struct ring ring;
static size_t entry_bytes;

static void start(size_t unit, size_t bytes, unsigned percent, ring_relocate_fn *relocate)
{
    const struct ring_options o = {.alloc = alloc_global(),
                                   .unit = unit,
                                   .bytes = bytes,
                                   .second_chance_percent = percent,
                                   .relocate = relocate};
    if (ring_init(&ring, &o) < 0) {
        micro_die("no memory for a ring of %zu bytes", bytes);
    }
}

static int write_nothing(void *arg, const struct ring_claim *c, enum ring_outcome *outcome)
{
    (void)arg;
    (void)c;
    (void)outcome;
    return 0;
}

static int write_slowly(void *arg, const struct ring_claim *c, enum ring_outcome *outcome)
{
    (void)arg;
    (void)c;
    (void)outcome;
    for (uint64_t end = clock_nanos() + 10000; clock_nanos() < end;) {
    }
    return 0;
}

static int write_and_sync(void *arg, const struct ring_claim *c, enum ring_outcome *outcome)
{
    (void)outcome;
    int fd = *(int *)arg;
    return pwrite(fd, c->data, c->size, 0) == (ssize_t)c->size && fdatasync(fd) == 0 ? 0 : -1;
}

/* Reserve, fill, publish. */
static void put_one(bool fill)
{
    uint64_t addr;
    while (ring_reserve(&ring, RING_DIRTY, entry_bytes, 1, 0, &addr) != 0) {
        ring_wait_space(&ring, entry_bytes, 1000);
    }
    if (fill) {
        memset(ring_data(&ring, addr), 1, entry_bytes);
    }
    ring_publish(&ring, addr);
}

/* One thread does both ends: the bar's row touches no byte of the entry but is the whole protocol. */
static void cycle(struct micro_run *r, unsigned index)
{
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        struct ring_claim c;
        put_one(false);
        if (ring_claim_next(&ring, &c) == 0) {
            ring_complete(&ring, c.addr, RING_KEEP);
        }
    }
}

static void filled_cycle(struct micro_run *r, unsigned index)
{
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        put_one(true);
        ring_evict_one(&ring, write_nothing, NULL, NULL);
    }
}

static void run_cycle(struct micro_run *r)
{
    entry_bytes = 256;
    start(64, (size_t)4 << 20, 0, NULL);
    micro_threads(r, cycle);
    ring_destroy(&ring);
}

static void run_filled(struct micro_run *r, size_t bytes)
{
    entry_bytes = bytes;
    start(64, (size_t)4 << 20, 0, NULL);
    micro_threads(r, filled_cycle);
    double mb = (double)r->num * (double)bytes / 1e6;
    snprintf(r->note, sizeof r->note, "%.0f MB/s", mb / r->seconds);
    ring_destroy(&ring);
}

#define FILLED(name, bytes)                                                                        \
    static void name(struct micro_run *r)                                                          \
    {                                                                                              \
        run_filled(r, bytes);                                                                      \
    }
FILLED(run_filled_64, 64)
FILLED(run_filled_256, 256)
FILLED(run_filled_1024, 1024)
FILLED(run_filled_4096, 4096)

/* The first `evictors` threads write out, the others build, until all is built and written. */
static unsigned evictors;
static _Atomic uint64_t to_write;
static ring_write_fn *writer;
static void *writer_arg;

static void two_ends(struct micro_run *r, unsigned index)
{
    if (index < evictors) {
        while ((int64_t)atom_load(&to_write, relaxed) > 0) { /* relaxed: a count */
            if (ring_evict_one(&ring, writer, writer_arg, NULL) == 0) {
                atom_sub(&to_write, 1, relaxed); /* relaxed: as above */
            } else {
                sched_yield();
            }
        }
        return;
    }
    for (uint64_t n = r->num / (r->threads - evictors); n != 0; n--) {
        put_one(true);
    }
}

static void run_two_ends(struct micro_run *r, unsigned out, ring_write_fn *fn, void *arg)
{
    entry_bytes = 256;
    evictors = out;
    writer = fn;
    writer_arg = arg;
    unsigned producers = r->threads > out ? r->threads - out : 1;
    r->threads = producers + out;
    r->num = r->num / producers * producers;
    atom_store(&to_write, r->num, relaxed); /* relaxed: not shared yet */
    start(64, (size_t)4 << 20, 0, NULL);
    micro_threads(r, two_ends);
    snprintf(r->note, sizeof r->note, "%u build, %u write", producers, out);
    ring_destroy(&ring);
}

static void run_one_evictor(struct micro_run *r)
{
    run_two_ends(r, 1, write_nothing, NULL);
}

static void run_two_evictors(struct micro_run *r)
{
    run_two_ends(r, 2, write_nothing, NULL);
}

static void run_slow_evictors(struct micro_run *r)
{
    run_two_ends(r, 2, write_slowly, NULL);
}

static void run_synced(struct micro_run *r)
{
    char path[] = "/tmp/loam-micro-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0) {
        micro_die("no file in /tmp");
    }
    unlink(path);
    run_two_ends(r, 1, write_and_sync, &fd);
    close(fd);
}

/* ---- hits of a cache over the ring, against the least recently used ------------------------------- */

enum { BLOCKS = 20000, UNIT = 4096 };
static _Atomic uint64_t block_addr[BLOCKS];

static bool relocate(void *arg, uint64_t owner, uint64_t cookie, uint64_t old_addr,
                     uint64_t new_addr)
{
    (void)arg;
    (void)owner;
    /* relaxed: the ring orders the bytes. */
    return new_addr == 0 ? atom_load(&block_addr[cookie], relaxed) == old_addr
                         : atom_cas(&block_addr[cookie], &old_addr, new_addr, relaxed, relaxed);
}

static void run_second_chance(struct micro_run *r)
{
    struct bench_lru lru;
    struct bench_rng random;
    struct zipf zipf;
    bench_rng_init(&random, r->seed);
    zipf_init(&zipf, BLOCKS, 0.9);
    if (bench_lru_init(&lru, BLOCKS, BLOCKS / 10) < 0) {
        micro_die("no memory for a cache of %d blocks", BLOCKS);
    }
    start(UNIT, (size_t)BLOCKS / 10 * UNIT, 25, relocate);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        atom_store(&block_addr[i], 0, relaxed); /* relaxed: one thread */
    }
    uint64_t hits = 0, begin = clock_nanos();
    for (uint64_t n = 0; n < r->num; n++) {
        uint32_t b = (uint32_t)(zipf_next(&zipf, &random) * 7919 % BLOCKS); /* scattered */
        size_t size;
        bench_lru_use(&lru, b);
        epoch_enter();
        uint64_t addr = atom_load(&block_addr[b], relaxed); /* relaxed: one thread */
        bool hit = addr != 0 && ring_read(&ring, addr, true, &size) != NULL;
        epoch_exit();
        hits += hit;
        if (!hit && ring_reserve(&ring, RING_FILL, UNIT, 1, b, &addr) == 0) {
            ring_publish_clean(&ring, addr, false);
            atom_store(&block_addr[b], addr, relaxed); /* relaxed: as above */
        }
    }
    r->seconds = (double)(clock_nanos() - begin) * 1e-9;
    snprintf(r->note, sizeof r->note, "Zipf 0.9, room for a tenth: %.1f%% hits, LRU %.1f%%",
             100.0 * (double)hits / (double)r->num, 100.0 * (double)lru.hits / (double)r->num);
    bench_lru_destroy(&lru);
    ring_destroy(&ring);
}

const struct micro_row micro_ring_rows[] = {
    {"ring_cycle_256", "reserve, publish, claim, complete", 60.0, 10000000, 1, run_cycle, NULL, 0},
    {"ring_fill_cycle_64", "the same by evict_one, 64 bytes filled", 0, 10000000, 1, run_filled_64,
     NULL, 0},
    {"ring_fill_cycle_256", "256 bytes", 0, 10000000, 1, run_filled_256, NULL, 0},
    {"ring_fill_cycle_1024", "1,024 bytes", 0, 4000000, 1, run_filled_1024, NULL, 0},
    {"ring_fill_cycle_4096", "4,096 bytes", 0, 2000000, 1, run_filled_4096, NULL, 0},
    {"ring_1_evictor_mt", "several build, one writes to nowhere", 0, 2000000, 4, run_one_evictor,
     NULL, 0},
    {"ring_2_evictors_mt", "two write", 0, 2000000, 4, run_two_evictors, NULL, 0},
    {"ring_slow_evictors_mt", "two write, 10 us an entry", 0, 100000, 4, run_slow_evictors, NULL,
     0},
    {"ring_synced_mt", "one writes with fdatasync", 0, 2000, 2, run_synced, NULL, 0},
    {"ring_second_chance", "hits and cost of reads and fills", 0, 2000000, 1, run_second_chance,
     NULL, 0},
    {NULL, NULL, 0, 0, 0, NULL, NULL, 0}};
