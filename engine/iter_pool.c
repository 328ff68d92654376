/* iter_pool.c - Reuse of closed iterators, and what open ones give up when memory is short.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/iter_pool.h"

#include "engine/iter_lend.h"
#include "engine/object.h"

#include "arena/poison.h"

#define IDLE_MAX         32u /* kept for reuse, on a shelf */
#define IDLE_SOURCES_MAX 64u /* an iterator with more is freed instead */
#define IDLE_BUFFER_MAX  (64u * 1024)

void iter_pool_init(struct iter_pool *p, struct alloc *a, uint64_t limit)
{
    p->alloc = a;
    p->limit = limit;
    for (uint32_t i = 0; i < ITER_SHELVES; i++) {
        struct iter_shelf *s = &p->shelf[i];
        mutex_init(&s->mu, RANK_LEAF);
        s->idle = NULL;
        s->idle_count = 0;
        atomic_init(&s->open, 0);
    }
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
    if (it->next_handle != 0) {
        (void)slotmap_abort(&registry_get()->iters, it->next_handle);
    }
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
    for (uint32_t i = 0; i < ITER_SHELVES; i++) {
        struct iter_shelf *s = &p->shelf[i];
        while (s->idle != NULL) {
            struct db_iter *it = s->idle;
            s->idle = it->next_idle;
            free_iter(NULL, it);
        }
        s->idle_count = 0;
        mutex_destroy(&s->mu);
    }
}

static struct iter_shelf *own_shelf(struct iter_pool *p)
{
    return &p->shelf[thread_slot_self() % ITER_SHELVES];
}

uint32_t iter_pool_open(const struct iter_pool *p)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < ITER_SHELVES; i++) {
        sum += atom_load(&p->shelf[i].open, relaxed); /* relaxed: a statistic, and a rough share */
    }
    return sum;
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
    struct iter_shelf *s = own_shelf(p);
    mutex_lock(&s->mu);
    struct db_iter *it = s->idle;
    if (it != NULL) {
        s->idle = it->next_idle;
        s->idle_count--;
    }
    mutex_unlock(&s->mu);
    if (it == NULL) {
        it = iter_pool_make(db);
    }
    if (it != NULL) {
        atom_add(&s->open, 1, relaxed); /* relaxed: as in iter_pool_open() */
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

/* Puts the iterator on the thread's shelf, if there is room. */
static bool keep(struct iter_pool *p, struct db_iter *it)
{
    struct iter_shelf *s = own_shelf(p);
    atom_sub(&s->open, 1, relaxed); /* relaxed: as in iter_pool_open() */
    mutex_lock(&s->mu);
    bool kept = s->idle_count < IDLE_MAX && it->source_cap <= IDLE_SOURCES_MAX && !iter_pool_short(p);
    if (kept) {
        it->next_idle = s->idle;
        s->idle = it;
        s->idle_count++;
    }
    mutex_unlock(&s->mu);
    return kept;
}

static void leave_space(struct db_iter *it)
{
    keyspace_put(it->space);
    it->space = NULL;
}

void iter_pool_give(struct iter_pool *p, struct db_iter *it)
{
    sst_seat_clear(&it->seat);
    if (p != NULL) {
        trim_buffer(&it->lower);
        trim_buffer(&it->upper);
        trim_buffer(&it->key);
        trim_buffer(&it->value);
        trim_buffer(&it->mark);
        /* relaxed: dropped later, it is held until the iterator is opened on another one. */
        if (it->space != NULL && atom_load(&it->space->dropped, relaxed)) {
            leave_space(it);
        }
        if (keep(p, it)) {
            return;
        }
        leave_space(it);
    }
    epoch_retire_node(&it->retire, free_iter, NULL, it);
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
