/* iter_pool.c - Reuse of closed iterators, and what open ones give up when memory is short.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/iter_pool.h"

#include "engine/iter_lend.h"
#include "engine/object.h"

#include "arena/poison.h"

#define IDLE_MAX         64u /* kept for reuse */
#define IDLE_SOURCES_MAX 64u /* an iterator with more is freed instead */
#define IDLE_BUFFER_MAX  (64u * 1024)

void iter_pool_init(struct iter_pool *p, struct alloc *a, uint64_t limit)
{
    p->alloc = a;
    p->limit = limit;
    p->idle = NULL;
    p->idle_count = 0;
    atomic_init(&p->open, 0);
    mutex_init(&p->mu, RANK_LEAF);
}

static void free_sources(struct db_iter *it)
{
    for (uint32_t i = 0; i < it->source_cap; i++) {
        struct source *s = it->sources[i];
        if (s != NULL) {
            source_free(s);
            object_give(&it->shell->alloc, OBJECT_SOURCE, s);
            it->sources[i] = NULL;
        }
    }
    it->source_count = 0;
    it->top = NULL;
    it->view_number = 0; /* the next call builds them anew */
}

static void free_iter(void *arg, void *ptr)
{
    (void)arg;
    struct db_iter *it = ptr;
    struct db *shell = it->shell;
    struct alloc *a = &shell->alloc;
    free_sources(it);
    sst_seat_clear(&it->seat);
    alloc_put(a, MEM_ITER, it->sources, it->source_cap * sizeof *it->sources);
    alloc_put(a, MEM_ITER, it->heap, it->source_cap * sizeof *it->heap);
    buf_free(&it->lower);
    buf_free(&it->upper);
    buf_free(&it->key);
    buf_free(&it->value);
    buf_free(&it->mark);
    object_give(a, OBJECT_ITER, it);
    db_unref(shell);
}

void iter_pool_destroy(struct iter_pool *p)
{
    struct db_iter *it = p->idle;
    p->idle = NULL;
    p->idle_count = 0;
    while (it != NULL) {
        struct db_iter *next = it->next_idle;
        free_iter(NULL, it);
        it = next;
    }
    mutex_destroy(&p->mu);
}

struct db_iter *iter_pool_make(struct db *db)
{
    struct db_iter *it = object_take(&db->alloc, OBJECT_ITER);
    if (it != NULL) {
        db_ref(db);
        it->shell = db;
        it->db_handle = db->handle;
        buf_init(&it->lower, &db->alloc, MEM_ITER);
        buf_init(&it->upper, &db->alloc, MEM_ITER);
        buf_init(&it->key, &db->alloc, MEM_ITER);
        buf_init(&it->value, &db->alloc, MEM_ITER);
        buf_init(&it->mark, &db->alloc, MEM_ITER);
    }
    return it;
}

void iter_pool_unmake(struct db_iter *it)
{
    if (it != NULL) {
        free_iter(NULL, it);
    }
}

struct db_iter *iter_pool_take(struct iter_pool *p, struct db *db)
{
    mutex_lock(&p->mu);
    struct db_iter *it = p->idle;
    if (it != NULL) {
        p->idle = it->next_idle;
        p->idle_count--;
    }
    mutex_unlock(&p->mu);
    if (it == NULL) {
        it = iter_pool_make(db);
    }
    if (it != NULL) {
        atom_add(&p->open, 1, relaxed); /* relaxed: as in iter_pool_open() */
    }
    return it;
}

static void trim_buffer(struct buf *b)
{
    if (b->cap > IDLE_BUFFER_MAX) {
        buf_free(b);
    }
    buf_clear(b);
}

void iter_pool_give(struct iter_pool *p, struct db_iter *it)
{
    bool kept = false;
    sst_seat_clear(&it->seat);
    if (p != NULL) {
        trim_buffer(&it->lower);
        trim_buffer(&it->upper);
        trim_buffer(&it->key);
        trim_buffer(&it->value);
        trim_buffer(&it->mark);
        atom_sub(&p->open, 1, relaxed); /* relaxed: as in iter_pool_open() */
        mutex_lock(&p->mu);
        kept = p->idle_count < IDLE_MAX && it->source_cap <= IDLE_SOURCES_MAX &&
               !iter_pool_short(p);
        if (kept) {
            it->next_idle = p->idle;
            p->idle = it;
            p->idle_count++;
        }
        mutex_unlock(&p->mu);
    }
    if (!kept) {
        epoch_retire_node(&it->retire, free_iter, NULL, it);
    }
}

void iter_pool_trim(struct iter_pool *p, struct db_iter *it)
{
    uint64_t own = 0, share = p->limit / (iter_pool_open(p) + 1);
    for (uint32_t i = 0; i < it->source_cap; i++) {
        own += it->sources[i] != NULL ? source_memory(it->sources[i]) : 0;
    }
    if (own > share && iter_lend_own(it)) {
        free_sources(it);
    }
}
