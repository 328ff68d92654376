/* bench_micro.c - Parts measured alone: the hash and the compressor, on blocks of 4 KiB, and the machine.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "tools/bench_workloads.h"

enum { BLOCK = 4096 };
#define HASH_BYTES (UINT64_C(500) << 20)
#define PACK_BYTES (UINT64_C(512) << 20)

/* Where the i-th block of the value pool begins. */
static const char *block_at(const struct bench_thread *t, uint64_t i)
{
    const struct bench_pool *pool = &t->job->context->pool;
    return pool->data + i * BLOCK % (pool->size - BLOCK);
}

static void hash_blocks(struct bench_thread *t, uint64_t turns)
{
    uint64_t sum = 0;
    bench_thread_limit(t, turns);
    while (bench_more(t)) {
        sum += XXH3_64bits(block_at(t, t->turn), BLOCK);
        t->stats.bytes += BLOCK;
        bench_stats_done(&t->stats, OP_HASH, 1);
    }
    t->stats.found = sum & 1; /* or the compiler sees that nobody asks */
    t->stats.found = 0;
}

void bench_micro_xxh3(struct bench_thread *t)
{
    hash_blocks(t, HASH_BYTES / BLOCK);
}

/* The longest operation is what scheduler and hypervisor take at once from threads that never wait. */
void bench_micro_pauses(struct bench_thread *t)
{
    t->stats.warn = false;
    hash_blocks(t, t->job->reads);
}

void bench_micro_lz4_pack(struct bench_thread *t)
{
    char out[LZ4_COMPRESSBOUND(BLOCK)];
    void *state = malloc((size_t)LZ4_sizeofState());
    bench_thread_limit(t, PACK_BYTES / BLOCK);
    while (state != NULL && bench_more(t)) {
        int n = LZ4_compress_fast_extState(state, block_at(t, t->turn), out, BLOCK, sizeof(out), 1);
        t->stats.bytes += BLOCK;
        t->stats.put_bytes += (uint64_t)n;
        bench_stats_done(&t->stats, OP_COMPRESS, 1);
    }
    free(state);
}

void bench_micro_lz4_unpack(struct bench_thread *t)
{
    char packed[LZ4_COMPRESSBOUND(BLOCK)], out[BLOCK];
    int n = LZ4_compress_default(block_at(t, 1), packed, BLOCK, sizeof(packed));
    bench_thread_limit(t, PACK_BYTES / BLOCK);
    while (bench_more(t)) {
        if (LZ4_decompress_safe(packed, out, n, BLOCK) != BLOCK) {
            bench_engine_fail("LZ4 does not give back what it was given");
            bench_die(t->store, "lz4");
        }
        t->stats.bytes += BLOCK;
        t->stats.put_bytes += (uint64_t)n;
        bench_stats_done(&t->stats, OP_UNCOMPRESS, 1);
    }
}

void bench_micro_lz4_message(const struct bench_stats *s, char *out, size_t cap)
{
    snprintf(out, cap, "(output: %.1f%%)",
             s->bytes == 0 ? 0 : 100.0 * (double)s->put_bytes / (double)s->bytes);
}
