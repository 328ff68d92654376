/* arena.c - Cuts leases off chunks, grows by chunks and extents, and takes back to savepoints.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/arena.h"

#include <assert.h>
#include <string.h>

#include "arena/status.h"

#include "arena/poison.h"

#define HUGE_PAGE  ((size_t)2 << 20)
#define SMALL_PAGE ((size_t)4096)
#define MAX_ALIGN  ((size_t)4096)
#define BLOCK_HEAD ((size_t)CACHE_LINE)

/* At the start of each chunk, extent or memory of the caller. */
struct arena_block {
    _Atomic uint64_t mark; /* bytes cut off, head included; may run over the size */
    size_t size;           /* bytes, head included */
    struct arena_block *next;
    uint32_t bias; /* as in struct arena_lease */
    enum block_kind { BLOCK_CHUNK, BLOCK_EXTENT, BLOCK_LENT } kind;
};
_Static_assert(sizeof(struct arena_block) <= BLOCK_HEAD, "leases start on their own cache line");

/* A table that replaced a smaller one. */
struct arena_table {
    struct arena_table *next;
    size_t bytes;
    char *start[];
};

_Thread_local struct arena_lease arena_leases_[ARENA_CACHE_ENTRIES];

static _Atomic uint64_t next_id = 1;

uint64_t arena_new_ids(uint64_t n)
{
    return atom_add(&next_id, n, relaxed); /* relaxed: only uniqueness matters */
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

/* ---- blocks ---- */

static size_t block_bytes(const struct arena *a)
{
    return ((size_t)ARENA_UNIT) << a->block_shift;
}

/* Makes room for n more places. Under the growth lock. */
static int table_grow(struct arena *a, uint32_t n)
{
    if (n <= a->table_size - a->table_used) {
        return LOAM_OK;
    }
    uint64_t places = (uint64_t)a->table_size * 2;
    while (places < (uint64_t)a->table_used + n) {
        places *= 2;
    }
    uint64_t most = ((uint64_t)UINT32_MAX + 1) >> a->block_shift;
    if ((uint64_t)a->table_used + n > most) {
        return FAIL(LOAM_E_BUDGET, "an arena of %u blocks is full", a->table_used);
    }
    places = places < most ? places : most;
    size_t bytes = sizeof(struct arena_table) + (size_t)places * sizeof(char *);
    struct arena_table *t = alloc_get(a->pool->alloc, MEM_MEMTABLE, bytes);
    if (t == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a table of %llu blocks",
                    (unsigned long long)places);
    }
    t->bytes = bytes;
    t->next = a->tables;
    a->tables = t;
    /* relaxed: the lock's owner is the only one that writes the table. */
    memcpy(t->start, atom_load(&a->table, relaxed), a->table_used * sizeof(char *));
    a->table_size = (uint32_t)places;
    /* release: pairs with the acquire in arena_at(). */
    atom_store(&a->table, t->start, release);
    return LOAM_OK;
}

/* Gives the block its numbers. REQUIRES: table_grow() for them. */
static void block_enter(struct arena *a, struct arena_block *b, size_t size, enum block_kind kind)
{
    char **table = atom_load(&a->table, relaxed); /* relaxed: under the lock */
    uint32_t first = a->table_used;
    for (size_t at = 0; at < size; at += block_bytes(a)) {
        table[a->table_used++] = (char *)b + at;
    }
    b->size = size;
    b->kind = kind;
    b->bias = (first << a->block_shift) - (uint32_t)((uintptr_t)b / ARENA_UNIT);
    atom_store(&b->mark, BLOCK_HEAD, relaxed); /* relaxed: not shared yet */
    b->next = a->blocks;
    a->blocks = b;
}

static int budget_take(struct arena *a, size_t bytes)
{
    uint64_t now = atom_load(a->reserved, relaxed); /* relaxed: the CAS decides */
    do {
        if (now > a->budget || bytes > a->budget - now) {
            return FAIL(LOAM_E_BUDGET, "%zu bytes more than an arena's budget of %llu", bytes,
                        (unsigned long long)a->budget);
        }
    } while (!atom_cas(a->reserved, &now, now + bytes, relaxed, relaxed));
    return LOAM_OK;
}

static void budget_give(struct arena *a, size_t bytes)
{
    atom_sub(a->reserved, bytes, relaxed); /* relaxed: a count */
}

static int add_chunk(struct arena *a)
{
    size_t size = a->pool->chunk_bytes;
    int rc = table_grow(a, 1);
    if (rc == LOAM_OK) {
        rc = budget_take(a, size);
    }
    if (rc != LOAM_OK) {
        return rc;
    }
    struct arena_block *b = chunk_pool_take(a->pool);
    if (b == NULL) {
        budget_give(a, size);
        return FAIL(LOAM_E_NOMEM, "no memory for a chunk of %zu bytes", size);
    }
    block_enter(a, b, size, BLOCK_CHUNK);
    atom_add(&a->chunks, 1, relaxed); /* relaxed: a statistic */
    /* release: pairs with the acquire in cut(); the block's head and table entry are complete. */
    atom_store(&a->current, b, release);
    return LOAM_OK;
}

/* Replaces the chunk `seen`, unless another thread did so already. */
static int grow(struct arena *a, const struct arena_block *seen)
{
    if (a->pool == NULL) {
        return FAIL(LOAM_E_BUDGET, "an arena in lent memory is full");
    }
    mutex_lock(&a->grow);
    /* relaxed: the lock orders it. */
    int rc = atom_load(&a->current, relaxed) == seen ? add_chunk(a) : LOAM_OK;
    mutex_unlock(&a->grow);
    return rc;
}

static struct arena_range range_of(struct arena_block *b, size_t at, size_t size)
{
    char *start = (char *)b + at;
    return (struct arena_range){start, start + size, start, b->bias};
}

/* A mapping of its own for one request. */
static int add_extent(struct arena *a, size_t need, struct arena_range *r)
{
    size_t size = round_up(need + BLOCK_HEAD, SMALL_PAGE);
    bool huge = size >= HUGE_PAGE;
    mutex_lock(&a->grow);
    int rc = table_grow(a, (uint32_t)((size + block_bytes(a) - 1) >> (a->block_shift + 2)));
    if (rc == LOAM_OK) {
        rc = budget_take(a, size);
    }
    if (rc == LOAM_OK) {
        struct arena_block *b = alloc_map(a->pool->alloc, MEM_MEMTABLE, size,
                                          huge ? HUGE_PAGE : SMALL_PAGE, huge, false);
        if (b == NULL) {
            budget_give(a, size);
            rc = FAIL(LOAM_E_NOMEM, "no memory for an extent of %zu bytes", size);
        } else {
            block_enter(a, b, size, BLOCK_EXTENT);
            atom_add(&a->extents, 1, relaxed); /* relaxed: statistics */
            atom_add(&a->used, size - BLOCK_HEAD, relaxed);
            *r = range_of(b, BLOCK_HEAD, size - BLOCK_HEAD);
        }
    }
    mutex_unlock(&a->grow);
    return rc;
}

/* ---- leases ---- */

/* Cuts `want` bytes off b, or what is left when that is at least `need`. */
static bool cut_from(struct arena *a, struct arena_block *b, size_t need, size_t want,
                     struct arena_range *r)
{
    /* relaxed, both: the mark only divides the block up; its contents are published by the user. */
    uint64_t at = atom_load(&b->mark, relaxed);
    if (at >= b->size || b->size - at < need) {
        return false;
    }
    at = atom_add(&b->mark, want, relaxed);
    if (at >= b->size || b->size - at < need) {
        return false;
    }
    size_t size = b->size - at < want ? b->size - (size_t)at : want;
    atom_add(&a->used, size, relaxed); /* relaxed: statistics, one update a lease */
    atom_add(&a->leases, 1, relaxed);
    *r = range_of(b, (size_t)at, size);
    return true;
}

static size_t block_left(const struct arena_block *b)
{
    uint64_t at = atom_load(&b->mark, relaxed); /* relaxed: as above */
    return at < b->size ? b->size - (size_t)at : 0;
}

/* A piece of at least `need` bytes, `want` if it can be had cheaply; both multiples of a line. */
static int cut(struct arena *a, size_t need, size_t want, struct arena_range *r)
{
    for (;;) {
        /* acquire: pairs with the release in add_chunk(). */
        struct arena_block *b = atom_load(&a->current, acquire);
        if (b != NULL && cut_from(a, b, need, want, r)) {
            return LOAM_OK;
        }
        if (a->pool != NULL) {
            /* What would waste more than an eighth of a chunk at its end gets pages of its own;
             * a first chunk has no end to waste. */
            size_t room = a->pool->chunk_bytes - BLOCK_HEAD;
            if (need > room || (b != NULL && block_left(b) > room / 8)) {
                return add_extent(a, need, r);
            }
        }
        int rc = grow(a, b);
        if (rc != LOAM_OK) {
            return rc;
        }
    }
}

/* This thread's cache entry for the arena, emptied when it was another's. */
static struct arena_lease *lease_of(struct arena *a)
{
    struct arena_lease *l = &arena_leases_[a->id % ARENA_CACHE_ENTRIES];
    if (l->id != a->id) {
        *l = (struct arena_lease){.id = a->id};
    }
    return l;
}

static size_t left_in(const struct arena_range *r)
{
    return (size_t)(r->end - r->at);
}

/* The range ends where its chunk is cut next: makes it `more` bytes longer, or as much as the chunk still
 * has when that is at least `least`. */
static bool range_extend(struct arena *a, struct arena_range *r, size_t least, size_t more)
{
    /* acquire: pairs with the release in add_chunk(). */
    struct arena_block *b = atom_load(&a->current, acquire);
    if (b == NULL) {
        return false;
    }
    /* relaxed, both: as in cut_from(). Another block's range is at no mark of this one. */
    uint64_t at = atom_load(&b->mark, relaxed);
    if ((uintptr_t)r->end - (uintptr_t)b != at || at > b->size || b->size - at < least) {
        return false;
    }
    size_t size = b->size - at < more ? b->size - (size_t)at : more;
    if (!atom_cas(&b->mark, &at, at + size, relaxed, relaxed)) {
        return false;
    }
    r->end += size;
    atom_add(&a->used, size, relaxed); /* relaxed: statistics, as in cut_from() */
    atom_add(&a->leases, 1, relaxed);
    return true;
}

static void swap_side(struct arena_lease *l)
{
    struct arena_range r = l->now;
    l->now = l->side;
    l->side = r;
}

/* Gives the lease at least `need` bytes. It doubles from the first request on, so what is left over
 * when the thread loses it is at most about what the thread used. */
static int lease_renew(struct arena *a, struct arena_lease *l, size_t need)
{
    if (need <= left_in(&l->side)) {
        swap_side(l);
        return LOAM_OK;
    }
    size_t want = l->grow_bytes < a->lease_bytes ? l->grow_bytes : a->lease_bytes;
    size_t lack = round_up(need - left_in(&l->now), CACHE_LINE);
    if (range_extend(a, &l->now, lack, lack > want ? lack : want)) {
        l->grow_bytes = want * 2 > lack ? want * 2 : lack;
        return LOAM_OK;
    }
    need = round_up(need, CACHE_LINE);
    want = want > need ? want : need;
    struct arena_range r;
    int rc = cut(a, need, want, &r);
    if (rc != LOAM_OK) {
        return rc;
    }
    if (left_in(&l->now) > left_in(&l->side)) {
        l->side = l->now;
    }
    l->now = r;
    l->grow_bytes = want * 2;
    return LOAM_OK;
}

void *arena_alloc_slow_(struct arena *a, size_t size, size_t align, uint32_t *ref)
{
    assert(align >= ARENA_UNIT && align <= MAX_ALIGN && (align & (align - 1)) == 0);
    if (size > ARENA_MAX_BYTES / 4) {
        FAIL(LOAM_E_TOOBIG, "%zu bytes asked of an arena", size);
        return NULL;
    }
    struct arena_lease *l = lease_of(a);
    size_t need = size + align;
    if (need > a->lease_bytes / 4 && need > left_in(&l->side)) {
        struct arena_range r;
        /* It starts on a cache line; only a wider alignment needs slack. */
        need = round_up(size + (align > CACHE_LINE ? align : 0), CACHE_LINE);
        if (cut(a, need, need, &r) != LOAM_OK) {
            return NULL;
        }
        char *at = r.at + (round_up((uintptr_t)r.at, align) - (uintptr_t)r.at);
        *ref = arena_ref_of_(at, r.bias);
        return at;
    }
    if (lease_renew(a, l, need) != LOAM_OK) {
        return NULL;
    }
    return arena_alloc_ref(a, size, align, ref);
}

void *arena_alloc_zero(struct arena *a, size_t size, size_t align)
{
    void *p = arena_alloc(a, size, align);
    if (p != NULL) {
        memset(p, 0, size);
    }
    return p;
}

void *arena_copy(struct arena *a, loam_slice bytes)
{
    char *p = arena_alloc(a, bytes.size != 0 ? bytes.size : 1, ARENA_UNIT);
    if (p != NULL && bytes.size != 0) {
        memcpy(p, bytes.data, bytes.size);
    }
    return p;
}

void arena_adopt_drops_(struct arena *a, struct arena_drop *newest)
{
    struct arena_drop *oldest = newest;
    while (oldest->next != NULL) {
        oldest = oldest->next;
    }
    struct arena_drop *head = atom_load(&a->drops, relaxed); /* relaxed: the CAS decides */
    do {
        oldest->next = head;
        /* release: pairs with the acquire in run_drops(); the records are complete. */
    } while (!atom_cas(&a->drops, &head, newest, release, relaxed));
}

int arena_at_drop(struct arena *a, void (*fn)(void *ptr), void *ptr)
{
    struct arena_drop *d = arena_alloc(a, sizeof *d, _Alignof(struct arena_drop));
    if (d == NULL) {
        return loam_last_error()->code;
    }
    *d = (struct arena_drop){NULL, fn, ptr};
    arena_adopt_drops_(a, d);
    return LOAM_OK;
}

static void run_drops(struct arena *a)
{
    /* acquire: pairs with the release in arena_adopt_drops_(). */
    for (struct arena_drop *d = atom_swap(&a->drops, NULL, acquire); d != NULL; d = d->next) {
        d->fn(d->ptr);
    }
}

void arena_undo(struct arena *a, void *p, size_t size)
{
    struct arena_lease *l = lease_of(a);
    if (l->now.at == (char *)p + size) {
        l->now.at = p;
    }
}

int arena_ensure(struct arena *a, size_t bytes, size_t n)
{
    if (n > ARENA_MAX_BYTES / 64 || bytes > ARENA_MAX_BYTES / 2) {
        return FAIL(LOAM_E_BUDGET, "%zu bytes in %zu pieces asked of an arena", bytes, n);
    }
    size_t need = bytes + n * 8; /* each may lose up to 7 to its alignment */
    struct arena_lease *l = lease_of(a);
    return need <= left_in(&l->now) ? LOAM_OK : lease_renew(a, l, need);
}

/* ---- savepoints ---- */

struct arena_mark arena_checkpoint(struct arena *a)
{
    const struct arena_lease *l = lease_of(a);
    return (struct arena_mark){l->now, l->side};
}

/* What came into the range since the mark is gone; all of it, when the mark does not know the range. */
static void range_rewind(struct arena_range *r, const struct arena_mark *m)
{
    r->at = r->start == m->now.start    ? m->now.at
            : r->start == m->side.start ? m->side.at
                                        : r->start;
}

void arena_rewind(struct arena *a, struct arena_mark m)
{
    struct arena_lease *l = lease_of(a);
    range_rewind(&l->now, &m);
    range_rewind(&l->side, &m);
    if (l->now.start != m.now.start && l->side.start != m.now.start &&
        left_in(&m.now) > left_in(&l->now)) {
        l->now = m.now;
    }
}

/* ---- life ---- */

static void arena_clear(struct arena *a, uint64_t id)
{
    a->id = id;
    a->table_used = 0;
    a->table_size = ARENA_FIRST_TABLE;
    a->tables = NULL;
    a->blocks = NULL;
    /* relaxed: the arena is not shared while it is set up; the caller publishes it. */
    atom_store(&a->table, a->first_table, relaxed);
    atom_store(&a->current, NULL, relaxed);
    atom_store(&a->used, 0, relaxed);
    atom_store(&a->leases, 0, relaxed);
    atom_store(&a->chunks, 0, relaxed);
    atom_store(&a->extents, 0, relaxed);
}

static void arena_setup(struct arena *a, uint64_t id, size_t lease_bytes)
{
    memset(a, 0, sizeof *a);
    mutex_init(&a->grow, RANK_STRUCT);
    a->lease_bytes = round_up(lease_bytes < 1024 ? 1024 : lease_bytes, CACHE_LINE);
    a->reserved = &a->own_reserved;
    arena_clear(a, id);
}

int arena_init(struct arena *a, struct chunk_pool *p, uint64_t id, size_t lease_bytes,
               uint64_t budget_bytes)
{
    if (id == 0) {
        return FAIL(LOAM_E_INVAL, "an arena without an id");
    }
    /* A lease is at most a quarter of a chunk, so that a chunk's end is not the common case. */
    size_t most = p->chunk_bytes / 4;
    arena_setup(a, id, lease_bytes < most ? lease_bytes : most);
    a->pool = p;
    a->budget = budget_bytes;
    a->block_shift = (uint32_t)__builtin_ctzll(p->chunk_bytes / ARENA_UNIT);
    return LOAM_OK;
}

int arena_init_memory(struct arena *a, void *memory, size_t size, uint64_t id, size_t lease_bytes)
{
    size_t skip = round_up((uintptr_t)memory, CACHE_LINE) - (uintptr_t)memory;
    if (id == 0 || size < skip + BLOCK_HEAD + CACHE_LINE || size > ARENA_MAX_BYTES / 2) {
        return FAIL(LOAM_E_INVAL, "%zu bytes lent to an arena", size);
    }
    arena_setup(a, id, lease_bytes);
    struct arena_block *b = (struct arena_block *)((char *)memory + skip);
    size = (size - skip) & ~(size_t)(CACHE_LINE - 1);
    uint64_t units = size / ARENA_UNIT;
    a->block_shift = 64u - (uint32_t)__builtin_clzll(units - 1);
    a->budget = size;
    block_enter(a, b, size, BLOCK_LENT);
    atom_store(a->reserved, size, relaxed); /* relaxed, both: not shared yet */
    atom_store(&a->current, b, relaxed);
    return LOAM_OK;
}

void arena_share_budget(struct arena *a, struct arena *other)
{
    assert(a->blocks == NULL);
    a->reserved = other->reserved;
    a->budget = other->budget;
}

/* Gives everything back but lent memory, which is returned. */
static struct arena_block *release_blocks(struct arena *a)
{
    struct arena_block *lent = NULL;
    for (struct arena_block *b = a->blocks, *next; b != NULL; b = next) {
        next = b->next;
        if (b->kind == BLOCK_LENT) {
            lent = b;
            continue;
        }
        budget_give(a, b->size);
        if (b->kind == BLOCK_CHUNK) {
            chunk_pool_give(a->pool, b);
        } else {
            alloc_unmap(a->pool->alloc, MEM_MEMTABLE, b, b->size, false);
        }
    }
    for (struct arena_table *t = a->tables, *next; t != NULL; t = next) {
        next = t->next;
        alloc_put(a->pool->alloc, MEM_MEMTABLE, t, t->bytes);
    }
    return lent;
}

void arena_destroy(struct arena *a)
{
    run_drops(a);
    release_blocks(a);
    arena_clear(a, 0);
    mutex_destroy(&a->grow);
}

void arena_reset(struct arena *a, uint64_t new_id)
{
    assert(new_id != 0 && new_id != a->id);
    run_drops(a);
    struct arena_block *lent = release_blocks(a);
    arena_clear(a, new_id);
    if (lent != NULL) {
        block_enter(a, lent, lent->size, BLOCK_LENT);
        atom_store(&a->current, lent, relaxed); /* relaxed: not shared now */
    }
}

/* ---- numbers ---- */

uint64_t arena_used(const struct arena *a)
{
    return atom_load(&a->used, relaxed); /* relaxed: a statistic */
}

uint64_t arena_reserved(const struct arena *a)
{
    return atom_load(a->reserved, relaxed); /* relaxed: a statistic */
}

struct arena_stats arena_stats(struct arena *a)
{
    /* relaxed: statistics. */
    uint64_t used = arena_used(a), reserved = arena_reserved(a);
    return (struct arena_stats){.used = used,
                                .idle = reserved > used ? reserved - used : 0,
                                .reserved = reserved,
                                .budget = a->budget,
                                .leases = atom_load(&a->leases, relaxed),
                                .chunks = atom_load(&a->chunks, relaxed),
                                .extents = atom_load(&a->extents, relaxed)};
}
