/* history.c - Records what threads did, each in a log of its own.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/support/history.h"

#include "arena/sync.h"
#include "tests/support/check.h"

void history_init(struct history *h, unsigned threads, uint32_t keys)
{
    *h = (struct history){.threads = threads, .keys = keys};
    h->logs = calloc(threads, sizeof *h->logs);
    h->start = calloc(keys, sizeof *h->start);
    CHECK(h->logs != NULL && h->start != NULL);
}

void history_free(struct history *h)
{
    for (unsigned i = 0; i < h->threads; i++) {
        free(h->logs[i].ops);
        free(h->logs[i].cuts);
        free(h->logs[i].seen);
        free(h->logs[i].promises);
    }
    free(h->logs);
    free(h->start);
}

uint64_t history_now(void)
{
    return clock_nanos();
}

static void *grown(void *old, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap) {
        return old;
    }
    *cap = need * 2 + 64;
    void *p = realloc(old, *cap * size);
    CHECK(p != NULL);
    return p;
}

static void add(struct history *h, unsigned thread, const struct history_op *op)
{
    struct history_log *l = &h->logs[thread];
    l->ops = grown(l->ops, &l->cap, l->count + 1, sizeof *l->ops);
    l->ops[l->count++] = *op;
}

void history_write(struct history *h, unsigned thread, uint32_t key, uint64_t value, uint64_t seq,
                   uint64_t commit, uint64_t inv, uint64_t res)
{
    CHECK(key < h->keys && seq != 0 && commit != 0 && commit <= seq);
    add(h, thread,
        &(struct history_op){.inv = inv,
                             .res = res,
                             .value = value,
                             .seq = seq,
                             .commit = commit,
                             .key = key,
                             .is_write = 1});
}

void history_read(struct history *h, unsigned thread, uint32_t key, uint64_t value, uint64_t seq,
                  uint64_t inv, uint64_t res)
{
    CHECK(key < h->keys);
    add(h, thread,
        &(struct history_op){.inv = inv, .res = res, .value = value, .seq = seq, .key = key});
}

uint64_t *history_cut(struct history *h, unsigned thread, uint64_t seq, uint64_t inv, uint64_t res)
{
    struct history_log *l = &h->logs[thread];
    l->cuts = grown(l->cuts, &l->cut_cap, l->cut_count + 1, sizeof *l->cuts);
    l->seen = grown(l->seen, &l->seen_cap, l->seen_count + h->keys, sizeof *l->seen);
    l->cuts[l->cut_count++] = (struct history_cut){inv, res, seq, l->seen_count};
    uint64_t *seen = l->seen + l->seen_count;
    memset(seen, 0, h->keys * sizeof *seen);
    l->seen_count += h->keys;
    return seen;
}

void history_promise(struct history *h, unsigned thread, uint64_t number, uint64_t inv,
                     uint64_t res)
{
    struct history_log *l = &h->logs[thread];
    l->promises = grown(l->promises, &l->promise_cap, l->promise_count + 1, sizeof *l->promises);
    l->promises[l->promise_count++] = (struct history_promise){inv, res, number};
}

void history_forget(struct history *h)
{
    for (unsigned i = 0; i < h->threads; i++) {
        struct history_log *l = &h->logs[i];
        l->count = l->cut_count = l->seen_count = l->promise_count = 0;
    }
}
