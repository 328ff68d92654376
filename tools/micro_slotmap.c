/* micro_slotmap.c - Rows of loam-micro for handles: look-ups, pins, churn, deferred insertion.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "arena/random.h"
#include "arena/slotmap.h"
#include "arena/sync.h"
#include "tools/micro.h"

enum { ORDER = 1 << 16 };

static struct slotmap map;
static uint64_t *handles, order[ORDER];
static uint64_t live;
static int thing;

static void start(uint64_t n, uint64_t seed)
{
    struct random r;
    random_init(&r, seed);
    handles = calloc(n != 0 ? n : 1, sizeof *handles);
    if (handles == NULL || slotmap_init(&map, alloc_global(), 1) < 0) {
        micro_die("no memory for a slotmap");
    }
    live = n;
    for (uint64_t i = 0; i < n; i++) {
        handles[i] = slotmap_insert(&map, &thing);
    }
    for (uint32_t i = 0; n != 0 && i < ORDER; i++) {
        order[i] = handles[random_below(&r, n)];
    }
}

static void stop(void)
{
    slotmap_destroy(&map);
    free(handles);
}

static void get(struct micro_run *r, unsigned index)
{
    epoch_enter();
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        micro_use(slotmap_get(&map, order[n % ORDER]));
    }
    epoch_exit();
}

static void get_seq(struct micro_run *r, unsigned index)
{
    uint64_t at = 0;
    epoch_enter();
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        micro_use(slotmap_get(&map, handles[at]));
        at = at + 1 < live ? at + 1 : 0;
    }
    epoch_exit();
}

static void get_guarded(struct micro_run *r, unsigned index)
{
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        epoch_enter();
        micro_use(slotmap_get(&map, order[n % ORDER]));
        epoch_exit();
    }
}

static void pin(struct micro_run *r, unsigned index)
{
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        void *p = NULL;
        slotmap_pin(&map, order[n % ORDER], &p);
        micro_use(p);
        slotmap_unpin(&map, order[n % ORDER]);
    }
}

static void churn(struct micro_run *r, unsigned index)
{
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        uint64_t h = slotmap_insert(&map, &thing);
        slotmap_erase(&map, h);
    }
}

static void deferred(struct micro_run *r, unsigned index)
{
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        uint64_t h = slotmap_reserve(&map);
        slotmap_commit(&map, h, &thing);
        slotmap_erase(&map, h);
    }
}

static void given_up(struct micro_run *r, unsigned index)
{
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        slotmap_abort(&map, slotmap_reserve(&map));
    }
}

/* A third each: get, insert, erase of what this thread inserted. */
static void mixed(struct micro_run *r, unsigned index)
{
    uint64_t mine[64] = {0};
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        uint64_t *h = &mine[n / 3 % 64];
        if (n % 3 == 2) {
            *h = slotmap_insert(&map, &thing);
        } else if (n % 3 == 1) {
            epoch_enter();
            micro_use(slotmap_get(&map, order[n % ORDER]));
            epoch_exit();
        } else if (*h != 0) {
            slotmap_erase(&map, *h);
        }
    }
}

/* The row's body over `size` live handles. */
static void run_body(struct micro_run *r)
{
    start(r->row->size, r->seed);
    micro_threads(r, r->row->body);
    stop();
}

/* Inserts of an empty map up to n live ones, then erasing them all: the time of one of the two. */
static void fill(struct micro_run *r, unsigned index)
{
    (void)index;
    for (uint64_t i = 0; i < r->num; i++) {
        handles[i] = slotmap_insert(&map, &thing);
    }
}

static void run_fill(struct micro_run *r)
{
    start(r->num, r->seed); /* room for the handles */
    slotmap_clear(&map);
    micro_threads(r, r->row->body);
    stop();
}

static bool count_one(void *arg, uint64_t h, void *payload)
{
    (void)h;
    (void)payload;
    ++*(uint64_t *)arg;
    return true;
}

static void walk(struct micro_run *r, unsigned index)
{
    (void)index;
    uint64_t seen = 0;
    while (seen < r->num) {
        slotmap_foreach(&map, count_one, &seen);
    }
    r->done = seen;
}

const struct micro_row micro_slotmap_rows[] = {
    {"slotmap_get_1k", "random gets inside one section, 1,000 live", 2.0, 40000000, 1, run_body,
     get, 1000},
    {"slotmap_get_20k", "the same, 20,000 live", 2.0, 40000000, 1, run_body, get, 20000},
    {"slotmap_get_seq", "in order", 2.0, 40000000, 1, run_body, get_seq, 20000},
    {"slotmap_get_mt", "random gets, several threads", 0, 80000000, 4, run_body, get, 20000},
    {"slotmap_get_guarded", "a section for each get", 0, 40000000, 1, run_body, get_guarded, 20000},
    {"slotmap_pin", "pin and unpin", 25.0, 10000000, 1, run_body, pin, 20000},
    {"slotmap_pin_mt", "the same, several threads", 0, 10000000, 4, run_body, pin, 20000},
    {"slotmap_fill", "inserts into a map that grows", 0, 1000000, 1, run_fill, fill, 0},
    {"slotmap_churn", "insert and erase, none live", 0, 10000000, 1, run_body, churn, 0},
    {"slotmap_churn_mt", "the same, several threads", 0, 10000000, 4, run_body, churn, 0},
    {"slotmap_reserve_commit_erase", "deferred insertion", 0, 10000000, 1, run_body, deferred, 0},
    {"slotmap_reserve_abort", "a reservation given up", 0, 10000000, 1, run_body, given_up, 0},
    {"slotmap_mixed_mt", "get, insert, erase, a third each", 0, 10000000, 4, run_body, mixed, 5000},
    {"slotmap_foreach", "over 20,000 live ones", 0, 40000000, 1, run_body, walk, 20000},
    {NULL, NULL, 0, 0, 0, NULL, NULL, 0}};
