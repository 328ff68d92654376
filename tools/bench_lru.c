/* bench_lru.c - A cache of equal blocks that drops the least recently used: what others are held to.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_lru.h"

#include <stdlib.h>
#include <string.h>

int bench_lru_init(struct bench_lru *l, uint32_t blocks, uint32_t capacity)
{
    memset(l, 0, sizeof(*l));
    l->blocks = blocks;
    l->capacity = capacity;
    l->next = malloc(((size_t)blocks + 1) * sizeof(*l->next));
    l->prev = malloc(((size_t)blocks + 1) * sizeof(*l->prev));
    if (l->next == NULL || l->prev == NULL) {
        bench_lru_destroy(l);
        return -1;
    }
    for (uint32_t i = 0; i <= blocks; i++) {
        l->next[i] = l->prev[i] = i;
    }
    return 0;
}

void bench_lru_destroy(struct bench_lru *l)
{
    free(l->next);
    free(l->prev);
    l->next = l->prev = NULL;
}

static void take_out(struct bench_lru *l, uint32_t b)
{
    l->next[l->prev[b]] = l->next[b];
    l->prev[l->next[b]] = l->prev[b];
    l->next[b] = l->prev[b] = b;
}

static void put_first(struct bench_lru *l, uint32_t b)
{
    uint32_t head = l->blocks;
    l->next[b] = l->next[head];
    l->prev[b] = head;
    l->prev[l->next[head]] = b;
    l->next[head] = b;
}

bool bench_lru_use(struct bench_lru *l, uint32_t block)
{
    bool hit = l->next[block] != block;
    if (hit) {
        take_out(l, block);
    } else if (l->cached == l->capacity) {
        take_out(l, l->prev[l->blocks]);
    } else {
        l->cached++;
    }
    put_first(l, block);
    l->hits += hit;
    l->misses += !hit;
    return hit;
}
