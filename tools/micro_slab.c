/* micro_slab.c - Rows of loam-micro for objects of 64 bytes: the slab against malloc.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdlib.h>

#include "arena/random.h"
#include "arena/slab.h"
#include "tools/micro.h"

enum { OBJECT = 64, HELD = 4096, PIPE = 1024 };

static struct slab slab;
static bool use_malloc;

static void *take(void)
{
    void *p = use_malloc ? malloc(OBJECT) : slab_take(&slab);
    if (p == NULL) {
        micro_die("no memory for an object");
    }
    return p;
}

static void give(void *p)
{
    if (use_malloc) {
        free(p);
    } else {
        slab_give(&slab, p);
    }
}

/* The allocator is fixed at compile time here, as in a program. */
static void slab_pairs(struct micro_run *r, unsigned index)
{
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        void *p = slab_take(&slab);
        micro_use(p);
        slab_give(&slab, p);
    }
}

static void malloc_pairs(struct micro_run *r, unsigned index)
{
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        void *p = malloc(OBJECT);
        micro_use(p);
        free(p);
    }
}

/* Takes HELD, gives them in random order, and so on: half of the operations each. */
static void shuffled(struct micro_run *r, unsigned index)
{
    static _Thread_local void *held[HELD];
    static _Thread_local uint32_t order[HELD];
    struct random random;
    random_init(&random, r->seed + index);
    for (uint32_t i = 0; i < HELD; i++) {
        uint32_t k = (uint32_t)random_below(&random, i + 1);
        order[i] = order[k];
        order[k] = i;
    }
    uint64_t rounds = micro_share(r, index) / HELD;
    micro_start();
    for (uint64_t n = 0; n < rounds; n++) {
        for (uint32_t i = 0; i < HELD; i++) {
            held[i] = take();
        }
        for (uint32_t i = 0; i < HELD; i++) {
            give(held[order[i]]);
        }
    }
    micro_stop();
}

/* Even threads take, odd ones give; between two of them a small ring of pointers. */
static struct pipe {
    _Alignas(CACHE_LINE) _Atomic uint64_t head;
    _Alignas(CACHE_LINE) _Atomic uint64_t tail;
    void *item[PIPE];
} pipes[64];

static void producer_consumer(struct micro_run *r, unsigned index)
{
    struct pipe *p = &pipes[index / 2 % 64];
    for (uint64_t n = r->num / (r->threads / 2); n != 0;) {
        uint64_t head = atom_load(&p->head, acquire), tail = atom_load(&p->tail, acquire);
        if (index % 2 == 0 && tail - head < PIPE) {
            p->item[tail % PIPE] = take();
            atom_store(&p->tail, tail + 1, release); /* pairs with the acquire of the consumer */
            n--;
        } else if (index % 2 == 1 && tail != head) {
            give(p->item[head % PIPE]);
            atom_store(&p->head, head + 1, release); /* pairs with the acquire of the producer */
            n--;
        } else {
            sched_yield();
        }
    }
}

/* size of a row: of these. */
enum { WITH_MALLOC = 1, SINGLE = 2 };

static void run(struct micro_run *r)
{
    const struct slab_options o = {.object_size = OBJECT,
                                   .single_thread = (r->row->size & SINGLE) != 0};
    use_malloc = (r->row->size & WITH_MALLOC) != 0;
    if (slab_init(&slab, alloc_global(), &o) < 0) {
        micro_die("no memory for a slab");
    }
    micro_threads(r, r->row->body);
    slab_destroy(&slab);
}

static void run_pipe(struct micro_run *r)
{
    r->threads += r->threads % 2;
    for (size_t i = 0; i < sizeof pipes / sizeof *pipes; i++) {
        pipes[i].head = pipes[i].tail = 0;
    }
    run(r);
}

const struct micro_row micro_slab_rows[] = {
    {"slab_pair", "take and give, last in first out", 10.0, 40000000, 1, run, slab_pairs, 0},
    {"slab_pair_single", "the same in a slab of one thread", 0, 40000000, 1, run, slab_pairs,
     SINGLE},
    {"slab_pair_mt", "the same, several threads", 0, 40000000, 4, run, slab_pairs, 0},
    {"malloc_pair", "for comparison: malloc and free", 0, 40000000, 1, run, malloc_pairs,
     WITH_MALLOC},
    {"slab_shuffled", "4,096 taken, given in random order", 0, 8000000, 1, run, shuffled, 0},
    {"malloc_shuffled", "for comparison: malloc and free", 0, 8000000, 1, run, shuffled,
     WITH_MALLOC},
    {"slab_pipe_mt", "half of the threads take, half give", 0, 4000000, 4, run_pipe,
     producer_consumer, 0},
    {"malloc_pipe_mt", "for comparison: malloc and free", 0, 4000000, 4, run_pipe,
     producer_consumer, WITH_MALLOC},
    {NULL, NULL, 0, 0, 0, NULL, NULL, 0}};
