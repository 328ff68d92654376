/* memtable.c - A skip list, filter and index before it and two arenas under it, as one write buffer.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   get:  filter word --no--> not here       add:  known to the filter? index, else list
 *           | maybe                                 new key: filter bits, link, index slot
 *         index bucket --node of the key--> its versions
 *           | none, and bucket full
 *         list search
 *
 * Who adds a version to a node that the index did not lead to, or is refused because of what it has,
 * enters the node into the index before it returns: its maker may not have come that far, and a get
 * that follows must not miss the key.
 */
#include "memtable/memtable.h"

#include <assert.h>
#include <string.h>

#include "arena/arena.h"
#include "arena/status.h"
#include "memtable/key_filter.h"
#include "memtable/key_index.h"

#include "arena/poison.h"

/* One byte of each for so many expected bytes of data. Together they fit one chunk of 2 MiB for a
 * memtable of 64 MiB; with entries of 150 bytes that is 7 bits of filter and 0.9 slots a key. */
#define FILTER_SHARE 168
#define INDEX_SHARE  42
#define LEASE_SHARE  1024
#define GET_GROUP                                                                                  \
    8 /* keys whose lines are fetched together: about what a core has misses under way */
#define LEASE_MIN ((size_t)4 << 10)
#define LEASE_MAX ((size_t)64 << 10)

struct memtable {
    struct skiplist list;
    struct key_filter filter;
    struct key_index index;
    struct arena nodes;  /* nodes with short keys, filter and index, the writers' records */
    struct arena values; /* versions and long keys */
    struct alloc *alloc;
    uint64_t filter_used; /* what nodes had handed out for filter and index */
    uint64_t limit;       /* constant: bytes of memory, UINT64_MAX = none */
    uint64_t id;
    _Atomic uint64_t expected; /* bytes: see memtable_expect() */
    _Atomic bool frozen;
};

static size_t clamp(size_t n, size_t low, size_t high)
{
    return n < low ? low : n > high ? high : n;
}

/* Filter and index come from the arena of nodes: recycled pages, counted in the budget. */
static int filter_make(struct memtable *m, size_t expected)
{
    size_t lines = clamp(expected / FILTER_SHARE / CACHE_LINE, 4, UINT32_MAX / 8);
    size_t buckets = clamp(expected / INDEX_SHARE / CACHE_LINE, 16, UINT32_MAX);
    size_t bytes = (lines + buckets) * CACHE_LINE;
    char *p = arena_alloc(&m->nodes, bytes, CACHE_LINE);
    if (p == NULL) {
        return loam_last_error()->code;
    }
    memset(p, 0, bytes);
    key_index_init(&m->index, (struct key_index_bucket *)(void *)p, (uint32_t)buckets);
    key_filter_init(&m->filter, (_Atomic uint64_t *)(void *)(p + buckets * CACHE_LINE),
                    (uint32_t)(lines * CACHE_LINE / sizeof(uint64_t)));
    m->filter_used = arena_used(&m->nodes);
    return LOAM_OK;
}

int memtable_create(const struct memtable_options *o, struct memtable **out)
{
    struct memtable *m =
        alloc_get_aligned(o->alloc, MEM_MEMTABLE, sizeof *m, _Alignof(struct memtable));
    if (m == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a memtable");
    }
    memset((void *)m, 0, sizeof *m);
    m->alloc = o->alloc;
    m->id = o->id;
    uint64_t limit = o->hard_limit != 0 ? o->hard_limit : ARENA_NO_LIMIT;
    m->limit = limit;
    size_t lease = clamp(o->bytes / LEASE_SHARE, LEASE_MIN, LEASE_MAX);
    /* Neighbouring ids: a thread's leases of both never displace each other. */
    uint64_t ids = arena_new_ids(2);
    int rc = arena_init(&m->nodes, o->pool, ids, lease, limit);
    assert(rc == LOAM_OK);
    rc = arena_init(&m->values, o->pool, ids + 1, lease, limit);
    assert(rc == LOAM_OK);
    arena_share_budget(&m->values, &m->nodes);
    skiplist_init(&m->list, &m->nodes, &m->values, o->comparator, o->comparator_ctx);
    rc = filter_make(m, o->bytes);
    if (rc != LOAM_OK) {
        memtable_destroy(m);
        return rc;
    }
    *out = m;
    return LOAM_OK;
}

void memtable_destroy(struct memtable *m)
{
    if (m == NULL) {
        return;
    }
    arena_destroy(&m->values);
    arena_destroy(&m->nodes);
    alloc_put_aligned(m->alloc, MEM_MEMTABLE, m, sizeof *m, _Alignof(struct memtable));
}

uint64_t memtable_id(const struct memtable *m)
{
    return m->id;
}

int memtable_reserve(struct memtable *m, const struct memtable_need *need)
{
    return skiplist_ensure(&m->list, &need->of);
}

bool memtable_expect(struct memtable *m, uint64_t bytes, uint64_t limit)
{
    uint64_t others = atom_load(&m->expected, relaxed); /* relaxed, all: a count */
    do {
        bool alone = others == 0 && memtable_untouched(m);
        if (!alone && memtable_bytes(m) + others + bytes > limit) {
            return false;
        }
    } while (!atom_cas(&m->expected, &others, others + bytes, relaxed, relaxed));
    return true;
}

void memtable_came(struct memtable *m, uint64_t bytes)
{
    atom_sub(&m->expected, bytes, relaxed); /* relaxed: as above */
}

/* Under a comparator keys of different bytes may be one key: their hashes say nothing then. */
static bool uses_hash(const struct skiplist_target *t)
{
    return t->cmp == NULL;
}

/* The node of the target by way of the index. NULL: see *absent. */
static struct skiplist_node *index_find(const struct memtable *m, uint64_t hash,
                                        const struct skiplist_target *t, bool *absent)
{
    const struct key_index_bucket *b = key_index_bucket(&m->index, hash);
    /* Before the slots are read: a free last slot then means that none was left out earlier. */
    *absent = key_index_complete(b);
    uint32_t at = 0, ref;
    while ((ref = key_index_next(b, hash, &at)) != 0) {
        struct skiplist_node *n = skiplist_match(&m->list, ref, t);
        if (n != NULL) {
            *absent = false;
            return n;
        }
    }
    return NULL;
}

static int check_add(const struct memtable *m, loam_slice key, loam_slice value)
{
    if (key.size > MEMTABLE_MAX_KEY || value.size > MEMTABLE_MAX_VALUE) {
        return FAIL(LOAM_E_TOOBIG, "a key of %zu bytes with a value of %zu", key.size, value.size);
    }
    /* relaxed: who freezes has waited for the additions under way. */
    if (__builtin_expect(atom_load(&m->frozen, relaxed), 0)) {
        return FAIL(LOAM_E_CLOSED, "memtable %llu takes no more entries",
                    (unsigned long long)m->id);
    }
    return LOAM_OK;
}

/* ahead NULL: nothing was searched yet. in_way NULL: whatever the key has. */
static inline int add(struct memtable *m, const loam_comparator *cmp, const struct memtable_op *o,
                      struct skiplist_ahead *ahead, struct entry *in_way)
{
    uint64_t key_hash = o->key_hash;
    int rc = check_add(m, o->key, o->value);
    if (rc != LOAM_OK) {
        return rc;
    }
    struct skiplist_target t = skiplist_target_in(cmp, o->ks, o->key);
    bool hashed = uses_hash(&t);
    struct skiplist_node *known = NULL;
    if (hashed) {
        key_index_prefetch(&m->index, key_hash);
        bool absent;
        if (key_filter_may_contain(&m->filter, key_hash)) {
            known = index_find(m, key_hash, &t, &absent);
        }
    }
    struct skiplist_place place;
    if (known != NULL) {
        skiplist_locate_node(&m->list, known, &place);
    } else {
        if (ahead != NULL) {
            skiplist_locate_ahead(&m->list, ahead, &place);
        } else {
            skiplist_locate(&m->list, &t, &place);
        }
        if (hashed && place.found == NULL) {
            key_filter_add(&m->filter, key_hash);
        }
    }
    rc = in_way == NULL ? skiplist_link(&m->list, &place, o->tag, o->value)
                        : skiplist_link_new(&m->list, &place, o->tag, o->value, in_way);
    if ((rc == LOAM_OK || rc == LOAM_E_EXISTS) && hashed && place.node != 0) {
        if (place.found == NULL) {
            key_index_add_new(&m->index, key_hash, place.node);
        } else {
            key_index_add(&m->index, key_hash, place.node);
        }
    }
    return rc;
}

int memtable_add(struct memtable *m, uint32_t ks, loam_slice key, uint64_t key_hash, uint64_t tag,
                 loam_slice value)
{
    const struct memtable_op o = {ks, key, key_hash, tag, value};
    return add(m, skiplist_order(&m->list, ks), &o, NULL, NULL);
}

void memtable_prefetch(const struct memtable *m, uint64_t key_hash)
{
    key_filter_prefetch(&m->filter, key_hash);
    key_index_prefetch(&m->index, key_hash);
}

int memtable_add_new(struct memtable *m, uint32_t ks, loam_slice key, uint64_t key_hash,
                     uint64_t tag, loam_slice value, struct entry *in_way)
{
    const struct memtable_op o = {ks, key, key_hash, tag, value};
    return add(m, skiplist_order(&m->list, ks), &o, NULL, in_way);
}

int memtable_add_batch(struct memtable *m, const struct memtable_op *ops, size_t n)
{
    struct memtable_need need = {0};
    int rc = LOAM_OK;
    for (size_t i = 0; i < n && rc == LOAM_OK; i++) {
        rc = check_add(m, ops[i].key, ops[i].value);
        memtable_need_add(&need, ops[i].ks, ops[i].key.size, ops[i].value.size);
    }
    if (rc == LOAM_OK) {
        rc = memtable_reserve(m, &need);
    }
    if (rc == LOAM_OK) {
        struct memtable_pipeline p;
        memtable_pipeline_begin(&p, m);
        for (size_t i = 0; i < n; i++) {
            memtable_pipeline_add(&p, &ops[i]);
        }
        memtable_pipeline_end(&p);
    }
    return rc;
}

void memtable_pipeline_begin(struct memtable_pipeline *p, struct memtable *m)
{
    p->m = m;
    p->taken = p->added = 0;
    p->ks = 0;
    p->order = skiplist_order(&m->list, 0);
}

/* Takes the search for an addition to come a step further. */
static void look_ahead(struct memtable *m, struct memtable_stage *g)
{
    if (g->search == STAGE_SEARCHED) {
        skiplist_ahead_step(&m->list, &g->ahead);
    } else if (g->search == STAGE_NEW) {
        struct skiplist_target t = skiplist_target_in(g->order, g->op.ks, g->op.key);
        /* A key that is there is found by the index when it is its turn. */
        bool known = uses_hash(&t) && key_filter_may_contain(&m->filter, g->op.key_hash);
        bool begun = !known && skiplist_ahead_begin(&m->list, &t, &g->ahead);
        g->search = begun ? STAGE_SEARCHED : STAGE_NOT_SEARCHED;
    }
}

/* Adds the oldest one that waits. */
static void add_next(struct memtable_pipeline *p)
{
    uint64_t at = p->added++;
    for (uint64_t i = at + 1; i < p->taken && i <= at + SKIPLIST_AHEAD_STEPS; i++) {
        look_ahead(p->m, &p->stages[i % MEMTABLE_STAGES]);
    }
    struct memtable_stage *g = &p->stages[at % MEMTABLE_STAGES];
    int rc = add(p->m, g->order, &g->op, g->search == STAGE_SEARCHED ? &g->ahead : NULL, NULL);
    assert(rc == LOAM_OK);
    (void)rc;
}

void memtable_pipeline_add(struct memtable_pipeline *p, const struct memtable_op *o)
{
    memtable_prefetch(p->m, o->key_hash);
    if (__builtin_expect(o->ks != p->ks, 0)) {
        p->ks = o->ks;
        p->order = skiplist_order(&p->m->list, o->ks);
    }
    struct memtable_stage *g = &p->stages[p->taken++ % MEMTABLE_STAGES];
    g->op = *o;
    g->order = p->order;
    g->search = STAGE_NEW;
    if (p->taken - p->added == MEMTABLE_STAGES) {
        add_next(p);
    }
}

void memtable_pipeline_end(struct memtable_pipeline *p)
{
    while (p->added != p->taken) {
        add_next(p);
    }
}

void memtable_freeze(struct memtable *m)
{
    atom_store(&m->frozen, true, relaxed); /* relaxed: see check_add() */
}

bool memtable_frozen(const struct memtable *m)
{
    return atom_load(&m->frozen, relaxed); /* relaxed: as above */
}

int memtable_get(struct memtable *m, uint32_t ks, loam_slice key, uint64_t key_hash,
                 uint64_t snapshot, struct entry *e)
{
    if (skiplist_empty(&m->list)) {
        return LOAM_NOTFOUND; /* as when writers rest: its filter would be a line from memory */
    }
    struct skiplist_target t = skiplist_target(&m->list, ks, key);
    const struct skiplist_node *n = NULL;
    bool absent = false;
    if (uses_hash(&t)) {
        key_index_prefetch(&m->index, key_hash);
        if (!key_filter_may_contain(&m->filter, key_hash)) {
            return LOAM_NOTFOUND;
        }
        n = index_find(m, key_hash, &t, &absent);
    }
    if (n == NULL && !absent) {
        n = skiplist_find(&m->list, &t);
    }
    if (n == NULL) {
        return LOAM_NOTFOUND;
    }
    /* The largest tag of the snapshot, whatever the kind. */
    uint64_t max_tag = snapshot >= SEQ_MAX ? UINT64_MAX : (snapshot << 8 | 0xff);
    return skiplist_node_get(&m->list, n, max_tag, e);
}

void memtable_get_many(struct memtable *m, uint32_t ks, const loam_slice *keys,
                       const uint64_t *key_hashes, size_t n, uint64_t snapshot,
                       struct entry *entries, int *codes)
{
    for (size_t first = 0; first < n; first += GET_GROUP) {
        size_t end = n - first < GET_GROUP ? n : first + GET_GROUP;
        for (size_t i = first; i < end; i++) {
            memtable_prefetch(m, key_hashes[i]);
        }
        for (size_t i = first; i < end; i++) {
            codes[i] = memtable_get(m, ks, keys[i], key_hashes[i], snapshot, &entries[i]);
        }
    }
}

uint64_t memtable_bytes(const struct memtable *m)
{
    return arena_used(&m->nodes) - m->filter_used + arena_used(&m->values);
}

uint64_t memtable_reserved(const struct memtable *m)
{
    return arena_reserved(&m->nodes);
}

uint64_t memtable_count(const struct memtable *m)
{
    return skiplist_count(&m->list);
}

bool memtable_under_pressure(const struct memtable *m)
{
    return m->limit != ARENA_NO_LIMIT &&
           memtable_reserved(m) >= m->limit / 100 * MEMTABLE_PRESSURE_PERCENT;
}

void memtable_stats(const struct memtable *m, struct memtable_stats *out)
{
    uint64_t taken = memtable_bytes(m) + m->filter_used;
    uint64_t reserved = memtable_reserved(m);
    *out = (struct memtable_stats){.entries = memtable_count(m),
                                   .bytes = memtable_bytes(m),
                                   .reserved = reserved,
                                   .limit = m->limit,
                                   .idle = reserved > taken ? reserved - taken : 0,
                                   .under_pressure = memtable_under_pressure(m),
                                   .frozen = memtable_frozen(m)};
    if (out->entries != 0) {
        out->entry_bytes = (uint32_t)(out->bytes / out->entries);
    }
    if (reserved != 0) {
        out->percent_used = (uint32_t)((reserved - out->idle) * 100 / reserved);
    }
}

bool memtable_empty(const struct memtable *m)
{
    return skiplist_empty(&m->list);
}

bool memtable_untouched(const struct memtable *m)
{
    return memtable_bytes(m) == 0;
}

int memtable_next_ks(struct memtable *m, uint32_t ks, uint32_t *found)
{
    return skiplist_next_ks(&m->list, ks, found);
}

void memtable_cursor_init(struct memtable_cursor *c, struct memtable *m, uint32_t ks)
{
    skiplist_cursor_init(&c->at, &m->list, ks);
}

void memtable_cursor_init_in(struct memtable_cursor *c, struct memtable *m, uint32_t ks,
                             const loam_comparator *cmp)
{
    skiplist_cursor_init_in(&c->at, &m->list, ks, cmp);
}
