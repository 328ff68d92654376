/* skiplist_insert.c - Insertion by CAS of nodes and of their versions.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   locate   a search that keeps at each level a node before the key, at even ones the last, and the link
 *            behind that of level 0; or one that was begun ahead is taken on; or nothing at all, when the
 *            gap behind the thread's last insert encloses the key
 *   link     the version; the node, with the guides it takes over; level 0 by CAS, then upwards; the
 *            entry in a guide (skiplist_guide.h)
 *
 * What meets what, and why nothing is lost
 *
 *   A place and nodes that came since.  prev[i] lies before the key and is linked at level i: it was
 *       reached along that level, or is an entry of a guide of which i is the highest level, or a
 *       node of this thread, or the head. That stays so, as nothing is removed. link_level() goes on
 *       from there along level i, comparing, so prev may be as old as it likes; at level 0 the CAS
 *       says whether what followed still does.
 *       So may the place of a search that was begun ahead, before other inserts of this thread; above the
 *       height it has read it sets prev to the head itself.
 *   A node that is not linked at level i yet, and who would link behind it there.  Its inserter's
 *       store of its own link would overwrite the other's. So nobody takes it for prev[i]: a search
 *       meets it on linked levels only, and guides name it when all of its levels are linked
 *       (enter_guide) or the one by which it was reached is its highest (take_guides).
 *   A node's own links and a cursor.  On level 0 a cursor may come to a node before the levels above
 *       are linked, and reads ahead along level 1: it finds 0, or what the inserter has read there,
 *       released again (link_level). It never writes.
 *   The list's height.  Who reads an old one starts lower, and its prev above is the head: prev was
 *       set there by this thread only together with a height that it has read or raised.
 *   Guides, moved while others put.  Both write whole entries that are right for the guide they are
 *       in, or 0. An entry may get lost, or stay where it is no longer looked for.
 *   A node that came second.  It was not linked and is in no guide, so its reference is this thread's
 *       own, and its memory the thread's next allocation. Of the guide it had taken over, what is
 *       lost is lost. A version that is refused was not linked either.
 *   A writer's record and the next owner of its slot.  A slot is given back and taken under a lock
 *       (thread_slot.c): plain fields are handed over by it.
 */
#include <assert.h>
#include <string.h>

#include "arena/copy.h"
#include "arena/status.h"
#include "arena/thread_slot.h"
#include "memtable/skiplist.h"
#include "memtable/skiplist_guide.h"
#include "memtable/skiplist_node.h"

#include "arena/poison.h"

/* Lines that the next additions will write are fetched this far ahead of them: the lists' searches leave the
 * processor no chance to see that memory is filled in order. */
#define AHEAD_BYTES 512u
#define AHEAD_LINES 2u

/* ---- writers ---- */

static _Thread_local struct {
    uint64_t id; /* of the list */
    uint32_t slot;
    struct skiplist_writer *writer;
} writer_cache[ARENA_CACHE_ENTRIES];

/* The list for whose inserts the thread set memory aside when it had no slot. They were promised without a
 * record and without towers, so they make neither, though the thread may get a slot meanwhile. */
static _Thread_local uint64_t stray_in;

static void writer_init(const struct skiplist *s, struct skiplist_writer *w, uint32_t slot)
{
    memset(w, 0, sizeof *w);
    w->slot = slot;
    w->random = (s->id << 32 | slot) * 0x9e3779b97f4a7c15u | 1;
    for (uint32_t i = 0; i < SKIPLIST_MAX_HEIGHT; i++) {
        w->prev[i] = head_node(s);
    }
}

static struct skiplist_writer *writer_make(struct skiplist *s, uint32_t slot)
{
    uint32_t ref;
    struct skiplist_writer *w =
        arena_alloc_ref(s->nodes, sizeof *w, _Alignof(struct skiplist_writer), &ref);
    if (w == NULL) {
        return NULL;
    }
    writer_init(s, w, slot);
    uint32_t first = atom_load(&s->writers, relaxed); /* relaxed: the CAS decides */
    do {
        w->next = first;
        /* release: pairs with the acquire in the walks; the record is complete. */
    } while (!atom_cas(&s->writers, &first, ref, release, relaxed));
    return w;
}

static __attribute__((noinline)) struct skiplist_writer *writer_find(struct skiplist *s,
                                                                     uint32_t slot)
{
    if (slot == THREAD_SLOT_NONE || stray_in == s->id) {
        writer_cache[s->id % ARENA_CACHE_ENTRIES].id = 0; /* of a slot it had before, and may get again */
        return NULL;
    }
    struct skiplist_writer *w = NULL;
    /* acquire: pairs with the release in writer_make(). */
    for (uint32_t ref = atom_load(&s->writers, acquire); ref != 0; ref = w->next) {
        w = arena_at(s->nodes, ref);
        if (w->slot == slot) {
            break;
        }
        if (w->next == 0) {
            w = NULL;
            break;
        }
    }
    if (w == NULL) {
        w = writer_make(s, slot);
    }
    if (w != NULL) {
        writer_cache[s->id % ARENA_CACHE_ENTRIES].id = s->id;
        writer_cache[s->id % ARENA_CACHE_ENTRIES].slot = slot;
        writer_cache[s->id % ARENA_CACHE_ENTRIES].writer = w;
    }
    return w;
}

/* The record of this thread, which has that slot; NULL: it has none, had none when it set memory aside, or
 * there is no memory for the record. */
static inline struct skiplist_writer *writer_of(struct skiplist *s, uint32_t slot)
{
    uint64_t at = s->id % ARENA_CACHE_ENTRIES;
    if (__builtin_expect(writer_cache[at].id == s->id && writer_cache[at].slot == slot, 1)) {
        return writer_cache[at].writer;
    }
    return writer_find(s, slot);
}

static inline struct skiplist_writer *writer_self(struct skiplist *s)
{
    return writer_of(s, thread_slot_self());
}

static inline uint32_t next_height(struct skiplist_writer *w)
{
    return w->slot != THREAD_SLOT_NONE ? height_draw(&w->random) : 1;
}

/* ---- insertion ---- */

static void place_init(struct skiplist *s, struct skiplist_place *p)
{
    p->found = NULL;
    p->node = 0;
    p->writer = writer_self(s);
    if (__builtin_expect(p->writer == NULL, 0)) {
        p->writer = &p->stray;
        writer_init(s, p->writer, THREAD_SLOT_NONE);
    }
}

void skiplist_locate_node(struct skiplist *s, struct skiplist_node *n, struct skiplist_place *p)
{
    place_init(s, p);
    p->found = n;
}

void skiplist_locate(struct skiplist *s, const struct skiplist_target *t, struct skiplist_place *p)
{
    p->target = *t;
    place_init(s, p);
    struct skiplist_writer *w = p->writer;
    p->height = next_height(w);
    /* At level 0 the target lies in the gap behind the last insert, so at all levels behind prev. */
    if (w->has_place && compare(s, w->prev[0], t) < 0 &&
        (w->after == 0 || compare(s, node_at(s, w->after), t) > 0)) {
        w->in_order = true;
        return;
    }
    w->in_order = false;
    uint32_t at;
    p->found = skiplist_search_(s, t, w->prev, p->height, &at);
    p->node = p->found != NULL ? at : 0;
    w->after = at;
    w->has_place = false; /* until a node of this thread is there */
}

bool skiplist_ahead_begin(struct skiplist *s, const struct skiplist_target *t, struct skiplist_ahead *a)
{
    struct skiplist_writer *w = writer_self(s);
    if (w == NULL || w->in_order) {
        return false;
    }
    a->target = *t;
    a->height = next_height(w);
    skiplist_ahead_init_(s, a);
    skiplist_ahead_step(s, a);
    return true;
}

void skiplist_locate_ahead(struct skiplist *s, struct skiplist_ahead *a, struct skiplist_place *p)
{
    skiplist_ahead_down_(s, a, 0);
    p->target = a->target;
    place_init(s, p);
    p->height = a->height;
    p->found = a->found;
    if (a->found != NULL) {
        p->node = a->at.known;
        return;
    }
    struct skiplist_writer *w = p->writer;
    w->in_order = w->has_place && w->prev[0] == a->prev[0];
    memcpy(w->prev, a->prev, sizeof w->prev);
    w->after = a->at.known;
    w->has_place = false; /* until a node of this thread is there */
}

/* The jump pointer of a version on top of `older`: the skew binary scheme, by which jump lengths
 * along a chain are 1, 3, 1, 3, 7, ... and any tag is found in O(log n) steps. */
static void version_set_jump(const struct skiplist *s, struct skiplist_version *v,
                             uint32_t older_ref)
{
    uint32_t *words = (uint32_t *)(void *)v;
    words[-2] = older_ref;
    words[-1] = 0;
    if (older_ref == 0) {
        return;
    }
    const struct skiplist_version *older = version_at(s, older_ref);
    uint32_t depth = version_depth(older);
    words[-1] = depth + 1;
    uint32_t jump = version_jump(older);
    if (jump != 0) {
        const struct skiplist_version *j = version_at(s, jump);
        uint32_t jj = version_jump(j);
        if (jj != 0 &&
            depth - version_depth(j) == version_depth(j) - version_depth(version_at(s, jj))) {
            words[-2] = jj;
        }
    }
}

/* The version that keeps v from being the first of a key: one that is no delete, or a newer one. */
static bool stands_in_the_way(const struct skiplist_version *newest,
                              const struct skiplist_version *v)
{
    return tag_kind(version_tag(newest)) != ENTRY_DELETE || version_tag(newest) > version_tag(v);
}

/* Puts the version at its place in the node's chain. in_way NULL: always, and returns true. Else only on
 * top, and only on a delete: false, and *in_way says what is there. */
static bool chain_insert(const struct skiplist *s, struct skiplist_node *n,
                         struct skiplist_version *v, uint32_t ref, struct entry *in_way)
{
    _Atomic uint32_t *link = &n->versions;
    uint64_t tag = version_tag(v);
    for (;;) {
        /* acquire: pairs with the release below, of the version read next. */
        uint32_t older = atom_load(link, acquire);
        if (older != 0) {
            struct skiplist_version *o = version_at(s, older);
            assert(version_tag(o) != tag);
            if (in_way != NULL && stands_in_the_way(o, v)) {
                entry_fill(s, n, o, in_way);
                return false;
            }
            if (version_tag(o) > tag) {
                link = &o->next;
                continue;
            }
        }
        atom_store(&v->next, older, relaxed); /* relaxed: published by the CAS */
        if ((v->size & VERSION_JUMPS) != 0) {
            version_set_jump(s, v, older);
        }
        /* release: pairs with the acquires of version links; v is complete. */
        if (atom_cas(link, &older, ref, release, relaxed)) {
            return true;
        }
    }
}

/* jumps: it goes on top of another version. */
static struct skiplist_version *version_make(struct skiplist *s, uint64_t tag, loam_slice value,
                                             bool jumps, uint32_t *ref)
{
    size_t extra = jumps ? 2 * sizeof(uint32_t) : 0;
    size_t size = extra + sizeof(struct skiplist_version) + ((value.size + 3) & ~(size_t)3);
    char *p = arena_alloc_ref(s->values, size, ARENA_UNIT, ref);
    if (p == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < AHEAD_LINES; i++) {
        /* No pointer: it may lead out of the chunk. */
        uintptr_t ahead = (uintptr_t)p + size + AHEAD_BYTES + i * CACHE_LINE;
        __builtin_prefetch((const void *)ahead, 1);
    }
    struct skiplist_version *v = (struct skiplist_version *)(void *)(p + extra);
    *ref += (uint32_t)(extra / ARENA_UNIT);
    atom_store(&v->next, 0, relaxed); /* relaxed: not shared yet */
    v->size = (uint32_t)value.size | (jumps ? VERSION_JUMPS : 0);
    memcpy(v->tag, &tag, sizeof tag);
    copy_bytes(v->value, value.data, value.size);
    return v;
}

static void version_undo(struct skiplist *s, struct skiplist_version *v)
{
    size_t extra = (v->size & VERSION_JUMPS) != 0 ? 2 * sizeof(uint32_t) : 0;
    arena_undo(s->values, (char *)v - extra,
               extra + sizeof *v + ((version_size(v) + 3) & ~(size_t)3));
}

static bool target_is_wide(const struct skiplist_target *t)
{
    return t->size > KEY_INLINE || t->ks >= KS_WIDE;
}

/* Guides and upper links lie before a node. */
static size_t before_node(uint32_t height)
{
    return guides_of(height) * GUIDE_SLOTS * sizeof(uint64_t) + (height - 1) * sizeof(uint32_t);
}

static size_t node_bytes(const struct skiplist_target *t, uint32_t height)
{
    size_t area = (t->size + 3) & ~(size_t)3;
    if (target_is_wide(t)) {
        area = sizeof(struct wide_key);
    } else if (area < KEY_AREA_MIN) {
        area = KEY_AREA_MIN;
    }
    return before_node(height) + sizeof(struct skiplist_node) + area;
}

/* The guides of a node of height 3 or more start with those entries of the node's predecessors that
 * lie behind it. Behind the head, which has none, they are collected from the list. */
static void take_guides(const struct skiplist *s, const struct skiplist_writer *w,
                        const struct skiplist_target *t, const struct skiplist_node *n)
{
    loam_slice key = loam_bytes(t->data, t->size);
    for (uint32_t j = 1; j <= guides_of(node_height(n)); j++) {
        _Atomic uint64_t *guide = node_guide(n, j);
        guide_clear(guide);
        const struct skiplist_node *x = w->prev[2 * j];
        if (t->cmp != NULL) {
            continue;
        }
        if (x != head_node(s) && node_ks(x) == t->ks) {
            guide_move(s, node_guide(x, j), node_key(s, x), guide, key);
            continue;
        }
        uint32_t ref = node_next(w->prev[2 * j - 2], 2 * j - 2);
        uint32_t from = 0;
        for (uint32_t i = 0; i < GUIDE_SLOTS && ref != 0; i++) {
            const struct skiplist_node *b = node_at(s, ref);
            uint32_t height = node_height(b);
            /* It may have come since the place was found, and lie before. */
            if (node_ks(b) != t->ks || height > 2 * j || compare(s, b, t) <= 0) {
                break;
            }
            /* One of height 2j may still have to be linked at its highest level: who linked there
             * behind it would be lost. */
            if (height < 2 * j) {
                guide_put(guide, key, node_key(s, b), false, ref, &from);
            }
            ref = node_next(b, 2 * j - 2);
        }
    }
}

/* A node that is linked at all of its levels becomes an entry of the guide that covers it. */
static void enter_guide(const struct skiplist *s, struct skiplist_writer *w,
                        const struct skiplist_target *t, uint32_t ref, uint32_t height)
{
    uint32_t j = (height + 1) / 2;
    if (t->cmp != NULL || 2 * j >= SKIPLIST_MAX_HEIGHT) {
        return;
    }
    const struct skiplist_node *x = w->prev[2 * j];
    if (x == head_node(s) || node_ks(x) != t->ks) {
        return;
    }
    /* Keys in order enter one guide one after the other. What others move out of it meanwhile is room
     * that is not found. */
    if (x != w->guided || j != w->guide) {
        w->guided = x;
        w->guide = j;
        w->guide_from = 0;
    }
    guide_put(node_guide(x, j), node_key(s, x), loam_bytes(t->data, t->size), height % 2 == 0, ref,
              &w->guide_from);
}

static struct skiplist_node *node_make(struct skiplist *s, const struct skiplist_target *t,
                                       uint32_t height, uint32_t version, uint32_t *ref)
{
    bool wide = target_is_wide(t);
    uint32_t key_ref = 0;
    if (wide) {
        void *copy = arena_alloc_ref(s->values, t->size + 1, ARENA_UNIT, &key_ref);
        if (copy == NULL) {
            return NULL;
        }
        memcpy(copy, t->size != 0 ? t->data : (const unsigned char *)"", t->size);
    }
    size_t align = guides_of(height) != 0 ? sizeof(uint64_t) : ARENA_UNIT;
    char *p = arena_alloc_ref(s->nodes, node_bytes(t, height), align, ref);
    if (p == NULL) {
        return NULL;
    }
    *ref += (uint32_t)(before_node(height) / ARENA_UNIT);
    struct skiplist_node *n = (struct skiplist_node *)(void *)(p + before_node(height));
    atom_store(&n->versions, version, relaxed); /* relaxed: published by the first link */
    for (uint32_t i = 1; i < height; i++) {
        /* A cursor on level 0 may read ahead along level 1 before this node is linked there.
         * relaxed: as above. */
        atom_store(node_link(n, i), 0, relaxed);
    }
    if (wide) {
        struct wide_key *w = (struct wide_key *)(void *)n->key;
        for (unsigned i = 0; i < 8; i++) {
            w->prefix[i] = (unsigned char)(t->prefix >> (56 - 8 * i));
        }
        w->ks = t->ks;
        w->size = (uint32_t)t->size;
        w->key = key_ref;
        n->meta = KS_WIDE << 16 | height;
    } else {
        n->meta = t->ks << 16 | (uint32_t)t->size << 6 | height;
        memset(n->key, 0, KEY_AREA_MIN);
        copy_bytes(n->key, t->data, t->size);
    }
    return n;
}

/* Links the node at one level behind prev of the place, which is moved on first while nodes before the
 * target follow. 0; or the node that holds the same key already (only at level 0). */
static uint32_t link_level(struct skiplist *s, const struct skiplist_target *t,
                           struct skiplist_writer *w, struct skiplist_node *n, uint32_t ref,
                           uint32_t level)
{
    /* At level 0 the place knows what follows, and that it lies behind. */
    uint32_t next = level == 0 ? w->after : node_next(w->prev[level], level);
    bool compared = level == 0;
    for (;;) {
        if (next != 0 && !compared) {
            struct skiplist_node *other = node_at(s, next);
            int c = compare(s, other, t);
            if (c == 0) {
                assert(level == 0);
                return next;
            }
            if (c < 0) {
                w->prev[level] = other;
                next = node_next(other, level);
                continue;
            }
        }
        /* release: pairs with the acquire in node_next() of a cursor that has come to n along level 0 and
         * reads ahead along the levels above it; what follows is visible to it. */
        atom_store(node_link(n, level), next, release);
        uint32_t seen = next;
        /* release: pairs with the acquire in node_next(). */
        if (atom_cas(node_link(w->prev[level], level), &seen, ref, release, relaxed)) {
            w->after = level == 0 ? next : w->after;
            return 0;
        }
        next = node_next(w->prev[level], level);
        compared = false;
    }
}

/* link_level at level 0, where the place knows what follows and nobody else is at it, mostly. */
static inline uint32_t link_bottom(struct skiplist *s, const struct skiplist_target *t,
                                   struct skiplist_writer *w, struct skiplist_node *n, uint32_t ref)
{
    uint32_t seen = w->after;
    atom_store(node_link(n, 0), seen, relaxed); /* relaxed: published by the CAS */
    /* release: as in link_level(). */
    if (__builtin_expect(atom_cas(node_link(w->prev[0], 0), &seen, ref, release, relaxed), 1)) {
        return 0;
    }
    return link_level(s, t, w, n, ref, 0);
}

static void raise_height(struct skiplist *s, uint32_t height)
{
    /* relaxed, both: see finger_at_head(); the links of the new levels carry the order. */
    uint32_t now = atom_load(&s->height, relaxed);
    while (now < height && !atom_cas(&s->height, &now, height, relaxed, relaxed)) {
    }
}

static void count_one(struct skiplist *s, struct skiplist_writer *w)
{
    if (__builtin_expect(w->slot == THREAD_SLOT_NONE, 0)) {
        atom_add(&s->stray_count, 1, relaxed); /* relaxed: a count */
        return;
    }
    /* relaxed, both: only this thread writes it. */
    atom_store(&w->count, atom_load(&w->count, relaxed) + 1, relaxed);
}

/* in_way: as in chain_insert(). */
static int link_version(struct skiplist *s, struct skiplist_place *p, uint64_t tag,
                        loam_slice value, struct entry *in_way)
{
    struct skiplist_writer *w = p->writer;
    uint32_t version_ref;
    struct skiplist_version *v = version_make(s, tag, value, p->found != NULL, &version_ref);
    if (v == NULL) {
        return loam_last_error()->code;
    }
    struct skiplist_node *found = p->found;
    if (found == NULL) {
        uint32_t height = p->height;
        uint32_t ref;
        struct skiplist_node *n = node_make(s, &p->target, height, version_ref, &ref);
        if (n == NULL) {
            version_undo(s, v);
            return loam_last_error()->code;
        }
        take_guides(s, w, &p->target, n);
        uint32_t other = link_bottom(s, &p->target, w, n, ref);
        if (other == 0) {
            p->node = ref;
            w->prev[0] = n;
            w->has_place = true;
            raise_height(s, height);
            for (uint32_t level = 1; level < height; level++) {
                link_level(s, &p->target, w, n, ref, level);
                w->prev[level] = n;
            }
            enter_guide(s, w, &p->target, ref, height);
        } else {
            /* Another thread inserted the key meanwhile: its node takes the version. */
            p->found = found = node_at(s, other);
            p->node = other;
            size_t size = node_bytes(&p->target, height);
            arena_undo(s->nodes, (char *)n - before_node(height), size);
            w->has_place = false;
        }
    }
    if (found != NULL && !chain_insert(s, found, v, version_ref, in_way)) {
        version_undo(s, v);
        return LOAM_E_EXISTS;
    }
    count_one(s, w);
    return LOAM_OK;
}

int skiplist_link(struct skiplist *s, struct skiplist_place *p, uint64_t tag, loam_slice value)
{
    return link_version(s, p, tag, value, NULL);
}

int skiplist_link_new(struct skiplist *s, struct skiplist_place *p, uint64_t tag, loam_slice value,
                      struct entry *in_way)
{
    return link_version(s, p, tag, value, in_way);
}

/* Guides and upper links of a node on average: 1/3 of a link, and of guides 1/15. */
#define TOWER_MEAN 7u

static uint64_t in_units(uint64_t bytes)
{
    return (bytes + ARENA_UNIT - 1) & ~(uint64_t)(ARENA_UNIT - 1);
}

void skiplist_need_add(struct skiplist_need *need, uint32_t ks, size_t key_size, uint64_t value_size)
{
    const struct skiplist_target t = {.ks = ks, .size = key_size};
    need->count++;
    need->nodes += node_bytes(&t, 1);
    need->values += sizeof(struct skiplist_version) + 2 * sizeof(uint32_t) + in_units(value_size) +
                    (target_is_wide(&t) ? in_units(key_size + 1) : 0);
}

uint64_t skiplist_cost(const struct skiplist_need *need)
{
    return need->nodes + need->values + need->count * TOWER_MEAN;
}

int skiplist_ensure(struct skiplist *s, const struct skiplist_need *need)
{
    if (need->count > UINT32_MAX || skiplist_cost(need) > ARENA_MAX_BYTES) {
        return FAIL(LOAM_E_BUDGET, "%llu entries of %llu bytes for a memtable",
                    (unsigned long long)need->count, (unsigned long long)skiplist_cost(need));
    }
    uint32_t slot = thread_slot_self();
    stray_in = slot == THREAD_SLOT_NONE ? s->id : 0;
    struct skiplist_writer *w = writer_of(s, slot);
    if (w == NULL && slot != THREAD_SLOT_NONE) {
        return loam_last_error()->code; /* its record would be made out of what is set aside here */
    }
    /* The heights of the nodes to come are known: towers cost what they will cost. */
    uint64_t towers = 0;
    size_t guided = 0;
    if (w != NULL) {
        uint64_t random = w->random;
        for (uint64_t i = 0; i < need->count; i++) {
            uint32_t height = height_draw(&random);
            towers += before_node(height);
            guided += guides_of(height) != 0;
        }
    }
    /* Only nodes with guides lose anything to their alignment: all else is in units, but for a piece that may
     * be there already. */
    uint64_t nodes = need->nodes + towers;
    if (s->nodes == s->values) {
        return arena_ensure(s->nodes, nodes + need->values, guided + 1);
    }
    int rc = arena_ensure(s->nodes, nodes, guided + 1);
    return rc == LOAM_OK ? arena_ensure(s->values, need->values, 1) : rc;
}
