/* magazine.c - Exchange of whole magazines between threads' caches, the depot and the source.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The depot is a bounded queue of cells with sequence numbers: a cell at position p is writable
 * when its sequence is p, readable when it is p + 1, and becomes writable again as p +
 * MAGAZINE_DEPOT.
 */
#include "arena/magazine.h"

#include <assert.h>
#include <string.h>

#include "arena/status.h"

#include "arena/poison.h"

/* ---- depot ---------------------------------------------------------------------------------- */

static void copy_items(struct magazine *to, const struct magazine *from)
{
    to->count = from->count;
    memcpy(to->item, from->item, from->count * sizeof from->item[0]);
}

/* False: the depot is full. */
static bool depot_put(struct magazine_set *s, const struct magazine *m)
{
    uint64_t at = atom_load(&s->tail, relaxed); /* relaxed: a guess; the sequence decides */
    for (;;) {
        struct magazine_cell *c = &s->cells[at % MAGAZINE_DEPOT];
        /* acquire: pairs with the release in depot_get(); the cell has been read out. */
        uint64_t sequence = atom_load(&c->sequence, acquire);
        if (sequence < at) {
            return false;
        }
        if (sequence > at) {
            at = atom_load(&s->tail, relaxed);
            continue;
        }
        if (atom_cas(&s->tail, &at, at + 1, relaxed, relaxed)) { /* relaxed: claims only */
            copy_items(&c->magazine, m);
            /* release: pairs with the acquire in depot_get(); makes the items visible. */
            atom_store(&c->sequence, at + 1, release);
            return true;
        }
    }
}

/* False: the depot is empty. */
static bool depot_get(struct magazine_set *s, struct magazine *m)
{
    uint64_t at = atom_load(&s->head, relaxed); /* relaxed: a guess; the sequence decides */
    for (;;) {
        struct magazine_cell *c = &s->cells[at % MAGAZINE_DEPOT];
        /* acquire: pairs with the release in depot_put(). */
        uint64_t sequence = atom_load(&c->sequence, acquire);
        if (sequence < at + 1) {
            return false;
        }
        if (sequence > at + 1) {
            at = atom_load(&s->head, relaxed);
            continue;
        }
        if (atom_cas(&s->head, &at, at + 1, relaxed, relaxed)) { /* relaxed: claims only */
            copy_items(m, &c->magazine);
            /* release: pairs with the acquire in depot_put(). */
            atom_store(&c->sequence, at + MAGAZINE_DEPOT, release);
            return true;
        }
    }
}

/* ---- caches --------------------------------------------------------------------------------- */

/* Slot numbers from MAGAZINE_NEAR on: array k has MAGAZINE_NEAR << k entries. */
static unsigned far_array(uint32_t slot)
{
    return 31u - (unsigned)__builtin_clz(slot / MAGAZINE_NEAR);
}

static uint32_t far_first(unsigned k)
{
    return (uint32_t)MAGAZINE_NEAR << k;
}

struct magazine_cache *magazine_cache_far_(const struct magazine_set *s, uint32_t slot)
{
    if (slot == THREAD_SLOT_NONE || far_array(slot) >= MAGAZINE_FAR) {
        return NULL;
    }
    unsigned k = far_array(slot);
    /* acquire, twice: pair with the releases in cache_place() and cache_create(). */
    struct magazine_cache *_Atomic *array = atom_load(&s->far[k], acquire);
    return array == NULL ? NULL : atom_load(&array[slot - far_first(k)], acquire);
}

static struct magazine_cache *cache_of(const struct magazine_set *s, uint32_t slot)
{
    /* acquire: pairs with the release in cache_create(). */
    return slot < MAGAZINE_NEAR ? atom_load(&s->near[slot], acquire) : magazine_cache_far_(s, slot);
}

/* Where the pointer to the slot's cache lives; makes the array. NULL: no memory. */
static struct magazine_cache *_Atomic *cache_place(struct magazine_set *s, uint32_t slot)
{
    if (slot < MAGAZINE_NEAR) {
        return &s->near[slot];
    }
    unsigned k = far_array(slot);
    if (k >= MAGAZINE_FAR) {
        return NULL;
    }
    struct magazine_cache *_Atomic *array = atom_load(&s->far[k], acquire); /* as below */
    if (array == NULL) {
        size_t bytes = far_first(k) * sizeof *array;
        struct magazine_cache *_Atomic *fresh =
            alloc_zero(s->options.alloc, s->options.owner, bytes);
        if (fresh == NULL) {
            return NULL;
        }
        /* release: the zeroes are visible through the pointer. acquire: the winner's are. */
        if (atom_cas(&s->far[k], &array, fresh, acq_rel, acquire)) {
            array = fresh;
        } else {
            alloc_put(s->options.alloc, s->options.owner, fresh, bytes);
        }
    }
    return &array[slot - far_first(k)];
}

/* The calling thread's cache, made at first use. NULL: no slot number or no memory. */
static struct magazine_cache *cache_create(struct magazine_set *s)
{
    struct magazine_cache *c = magazine_cache_self(s);
    if (c != NULL) {
        return c;
    }
    uint32_t slot = thread_slot_self();
    if (slot == THREAD_SLOT_NONE) {
        return NULL;
    }
    struct magazine_cache *_Atomic *place = cache_place(s, slot);
    if (place == NULL) {
        return NULL;
    }
    c = alloc_get_aligned(s->options.alloc, s->options.owner, sizeof *c, CACHE_LINE);
    if (c == NULL) {
        return NULL;
    }
    memset(c, 0, sizeof *c);
    /* release: pairs with the acquire in magazine_counted() and of the slot's later owners. */
    atom_store(place, c, release);
    return c;
}

/* ---- exchange ------------------------------------------------------------------------------- */

static bool take_from(struct magazine_set *s, struct magazine_cache *c, uint64_t *item)
{
    struct magazine *m = &c->magazine[c->loaded];
    struct magazine *other = &c->magazine[c->loaded ^ 1];
    if (m->count == 0 && (!s->options.fifo || !depot_get(s, m)) && other->count != 0) {
        c->loaded ^= 1;
        m = other;
    }
    if (m->count == 0 && (s->options.fifo || !depot_get(s, m))) {
        m->count = s->options.refill(s->options.arg, m->item, s->options.limit);
        assert(m->count <= s->options.limit);
    }
    if (m->count == 0) {
        return false;
    }
    *item = m->item[--m->count];
    return true;
}

/* Empties m into the depot or, when that is full, the source. */
static void put_away(struct magazine_set *s, struct magazine *m)
{
    if (m->count != 0 && !depot_put(s, m)) {
        s->options.spill(s->options.arg, m->item, m->count);
    }
    m->count = 0;
}

static void give_to(struct magazine_set *s, struct magazine_cache *c, uint64_t item)
{
    if (!s->options.fifo && c->magazine[c->loaded].count == s->options.limit) {
        c->loaded ^= 1; /* the full one stays as the reserve; the older reserve makes room */
    }
    struct magazine *m = &c->magazine[c->loaded ^ (uint32_t)s->options.fifo];
    if (m->count == s->options.limit) {
        put_away(s, m);
    }
    m->item[m->count++] = item;
}

bool magazine_take_slow_(struct magazine_set *s, uint64_t *item)
{
    struct magazine_cache *c = cache_create(s);
    if (c != NULL) {
        return take_from(s, c, item);
    }
    mutex_lock(&s->mutex);
    bool taken = take_from(s, &s->shared, item);
    mutex_unlock(&s->mutex);
    return taken;
}

void magazine_give_slow_(struct magazine_set *s, uint64_t item)
{
    struct magazine_cache *c = cache_create(s);
    if (c != NULL) {
        give_to(s, c, item);
        return;
    }
    mutex_lock(&s->mutex);
    give_to(s, &s->shared, item);
    mutex_unlock(&s->mutex);
}

static void cache_flush(struct magazine_set *s, struct magazine_cache *c)
{
    put_away(s, &c->magazine[c->loaded ^ 1]);
    put_away(s, &c->magazine[c->loaded]);
    c->hint = NULL;
}

static void thread_exit_hook(void *arg, uint32_t slot)
{
    struct magazine_set *s = arg;
    struct magazine_cache *c = cache_of(s, slot);
    if (c != NULL) {
        cache_flush(s, c);
    }
}

void magazine_flush_self(struct magazine_set *s)
{
    struct magazine_cache *c = magazine_cache_self(s);
    if (c != NULL) {
        cache_flush(s, c);
    }
}

void magazine_drain(struct magazine_set *s)
{
    magazine_flush_self(s);
    if (!s->options.single_thread) {
        mutex_lock(&s->mutex);
        cache_flush(s, &s->shared);
        mutex_unlock(&s->mutex);
    }
    struct magazine m;
    /* At most one round: others may be filling the depot meanwhile. */
    for (unsigned i = 0; i < MAGAZINE_DEPOT && depot_get(s, &m); i++) {
        s->options.spill(s->options.arg, m.item, m.count);
    }
}

uint64_t magazine_counted(const struct magazine_set *s, enum magazine_counter which)
{
    uint64_t sum = atom_load(&s->shared.counter[which], relaxed); /* relaxed: see magazine_count */
    uint32_t bound = s->options.single_thread ? 0 : thread_slot_bound();
    for (uint32_t slot = 0; slot < bound; slot++) {
        const struct magazine_cache *c = cache_of(s, slot);
        if (c != NULL) {
            sum += atom_load(&c->counter[which], relaxed); /* relaxed: as above */
        }
    }
    return sum;
}

/* ---- lifetime ------------------------------------------------------------------------------- */

int magazine_set_init(struct magazine_set *s, const struct magazine_options *o)
{
    assert(o->limit >= 1 && o->limit <= MAGAZINE_ITEMS);
    memset(s, 0, sizeof *s);
    s->options = *o;
    size_t bytes = MAGAZINE_DEPOT * sizeof *s->cells;
    s->cells = alloc_get_aligned(o->alloc, o->owner, bytes, CACHE_LINE);
    if (s->cells == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a depot of %zu bytes", bytes);
    }
    for (uint64_t i = 0; i < MAGAZINE_DEPOT; i++) {
        s->cells[i].sequence = i;
        s->cells[i].magazine.count = 0;
    }
    mutex_init(&s->mutex, RANK_STRUCT);
    if (!o->single_thread) {
        int rc = thread_slot_add_exit_hook(thread_exit_hook, s);
        if (rc != LOAM_OK) {
            mutex_destroy(&s->mutex);
            alloc_put_aligned(o->alloc, o->owner, s->cells, bytes, CACHE_LINE);
            return rc;
        }
    }
    return LOAM_OK;
}

static void cache_free(struct magazine_set *s, struct magazine_cache *c)
{
    alloc_put_aligned(s->options.alloc, s->options.owner, c, sizeof *c, CACHE_LINE);
}

void magazine_set_destroy(struct magazine_set *s)
{
    if (!s->options.single_thread) {
        thread_slot_remove_exit_hook(thread_exit_hook, s);
    }
    /* relaxed throughout: the caller promises that no other thread is left in here. */
    for (uint32_t i = 0; i < MAGAZINE_NEAR; i++) {
        cache_free(s, atom_load(&s->near[i], relaxed));
    }
    for (unsigned k = 0; k < MAGAZINE_FAR; k++) {
        struct magazine_cache *_Atomic *array = atom_load(&s->far[k], relaxed);
        for (uint32_t i = 0; array != NULL && i < far_first(k); i++) {
            cache_free(s, atom_load(&array[i], relaxed));
        }
        alloc_put(s->options.alloc, s->options.owner, array, far_first(k) * sizeof *array);
    }
    alloc_put_aligned(s->options.alloc, s->options.owner, s->cells,
                      MAGAZINE_DEPOT * sizeof *s->cells, CACHE_LINE);
    mutex_destroy(&s->mutex);
}

void magazine_fork_prepare(struct magazine_set *s)
{
    mutex_lock_unranked(&s->mutex);
}

void magazine_fork_done(struct magazine_set *s)
{
    mutex_unlock(&s->mutex);
}
