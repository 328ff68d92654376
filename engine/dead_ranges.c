/* dead_ranges.c - Sets of ranges, replaced whole at each change.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/dead_ranges.h"

#include <assert.h>

#include "arena/poison.h"

#define WORTH      64u  /* keys: about what a seek costs */
#define WORTH_FULL 512u /* when half of the places are taken */

#define BLOCK_MOST  64u /* ranges of a block */
#define BLOCK_LEAST 16u /* unless all are fewer */

/* ---- places ---------------------------------------------------------------------------------- */

static int place_compare(const loam_comparator *cmp, const struct dead_place *a,
                         const struct dead_place *b)
{
    int c = key_compare(cmp, a->key, b->key);
    return c != 0 ? c : (int)a->behind - (int)b->behind;
}

static bool holds(const struct dead_range *r, uint32_t ks, loam_slice key)
{
    const struct dead_place at = {key, false};
    return r->s.ks == ks && place_compare(r->s.cmp, &r->s.lo, &at) <= 0 &&
           place_compare(r->s.cmp, &r->s.hi, &at) > 0;
}

/* Whether the range ends before the place, or, `at_it`, there. */
static bool ends_before(const struct dead_range *r, uint32_t ks, const struct dead_place *place,
                        bool at_it)
{
    if (r->s.ks != ks) {
        return r->s.ks < ks;
    }
    return place_compare(r->s.cmp, &r->s.hi, place) < (at_it ? 1 : 0);
}

/* Where a proven range is; behind the last one, block is their count. */
struct spot {
    uint32_t block, at;
};

static struct dead_range *range_at(const struct dead_set *set, struct spot s)
{
    return s.block < set->blocks ? set->block[s.block]->range[s.at] : NULL;
}

static struct spot behind(const struct dead_set *set, struct spot s)
{
    return s.at + 1 < set->block[s.block]->count ? (struct spot){s.block, s.at + 1}
                                                 : (struct spot){s.block + 1, 0};
}

/* The first range that does not end before the place. */
static struct spot seek(const struct dead_set *set, uint32_t ks, const struct dead_place *place,
                        bool at_it)
{
    struct spot s = {0, 0};
    for (uint32_t hi = set->blocks; s.block < hi;) {
        uint32_t mid = s.block + (hi - s.block) / 2;
        const struct dead_block *b = set->block[mid];
        if (ends_before(b->range[b->count - 1], ks, place, at_it)) {
            s.block = mid + 1;
        } else {
            hi = mid;
        }
    }
    for (uint32_t hi = s.block < set->blocks ? set->block[s.block]->count : 0; s.at < hi;) {
        uint32_t mid = s.at + (hi - s.at) / 2;
        if (ends_before(set->block[s.block]->range[mid], ks, place, at_it)) {
            s.at = mid + 1;
        } else {
            hi = mid;
        }
    }
    return s;
}

/* The proven range that holds the key, and where; NULL: none does. */
static struct dead_range *find(const struct dead_set *set, uint32_t ks, loam_slice key,
                               struct spot *s)
{
    const struct dead_place at = {key, false};
    *s = seek(set, ks, &at, true);
    struct dead_range *r = range_at(set, *s);
    return r != NULL && holds(r, ks, key) ? r : NULL;
}

/* ---- life of ranges and sets ----------------------------------------------------------------- */

static size_t range_bytes(loam_slice lo, loam_slice hi)
{
    return sizeof(struct dead_range) + lo.size + hi.size;
}

static struct dead_range *make_range(struct dead_ranges *d, const struct dead_stretch *s)
{
    size_t bytes = range_bytes(s->lo.key, s->hi.key);
    struct dead_range *r = alloc_get(d->alloc, MEM_VERSION, bytes);
    if (r == NULL) {
        return NULL;
    }
    uint8_t *keys = (uint8_t *)(r + 1);
    r->s = *s;
    r->bytes = bytes;
    atomic_init(&r->used, atom_load(&d->tick, relaxed)); /* relaxed: changes under mu only */
    if (s->lo.key.size != 0) {
        memcpy(keys, s->lo.key.data, s->lo.key.size);
    }
    if (s->hi.key.size != 0) {
        memcpy(keys + s->lo.key.size, s->hi.key.data, s->hi.key.size);
    }
    r->s.lo.key.data = keys;
    r->s.hi.key.data = keys + s->lo.key.size;
    return r;
}

static void free_range(void *alloc, void *range)
{
    struct dead_range *r = range;
    alloc_put(alloc, MEM_VERSION, r, r->bytes);
}

static size_t block_bytes(uint32_t n)
{
    return sizeof(struct dead_block) + n * sizeof(struct dead_range *);
}

static struct dead_block *make_block(struct dead_ranges *d, uint32_t n)
{
    struct dead_block *b = alloc_get(d->alloc, MEM_VERSION, block_bytes(n));
    if (b != NULL) {
        b->count = n;
    }
    return b;
}

static void free_block(void *alloc, void *block)
{
    struct dead_block *b = block;
    alloc_put(alloc, MEM_VERSION, b, block_bytes(b->count));
}

static size_t set_bytes(uint32_t blocks)
{
    return sizeof(struct dead_set) + blocks * sizeof(struct dead_block *);
}

/* Its blocks are left to fill in; what is announced stays. old: NULL is allowed. */
static struct dead_set *make_set(struct dead_ranges *d, const struct dead_set *old, uint32_t blocks)
{
    struct dead_set *set = alloc_get(d->alloc, MEM_VERSION, set_bytes(blocks));
    if (set != NULL) {
        *set = (struct dead_set){.blocks = blocks};
        set->announced = old != NULL ? old->announced : 0;
        for (uint32_t i = 0; i < set->announced; i++) {
            set->early[i] = old->early[i];
        }
    }
    return set;
}

static void free_set(void *alloc, void *set)
{
    struct dead_set *s = set;
    alloc_put(alloc, MEM_VERSION, s, set_bytes(s->blocks));
}

static void retire_range(struct dead_ranges *d, struct dead_range *r)
{
    epoch_retire_node(&r->retire, free_range, d->alloc, r);
}

static struct dead_set *present(struct dead_ranges *d)
{
    mutex_assert_held(&d->mu);
    return atom_load(&d->set, relaxed); /* relaxed: changes under mu only */
}

/* fresh: NULL or a set with a range. */
static void publish(struct dead_ranges *d, struct dead_set *fresh)
{
    atom_store(&d->tick, atom_load(&d->tick, relaxed) + 1, relaxed); /* relaxed: an age */
    /* release: the ranges are complete; pairs with the acquire of readers and writers. */
    struct dead_set *old = atom_swap(&d->set, fresh, acq_rel);
    if (old != NULL) {
        epoch_retire_node(&old->retire, free_set, d->alloc, old);
    }
}

static void retire_block(struct dead_ranges *d, struct dead_block *b)
{
    epoch_retire_node(&b->retire, free_block, d->alloc, b);
}

/* Without memory for a smaller set there is one that needs none. */
static void forget_all(struct dead_ranges *d)
{
    struct dead_set *set = present(d);
    publish(d, NULL); /* set itself lives while the caller's section does */
    for (uint32_t k = 0; set != NULL && k < set->blocks; k++) {
        for (uint32_t i = 0; i < set->block[k]->count; i++) {
            retire_range(d, set->block[k]->range[i]);
        }
        retire_block(d, set->block[k]);
    }
    for (uint32_t i = 0; set != NULL && i < set->announced; i++) {
        retire_range(d, set->early[i]);
    }
    d->bytes = 0;
}

void dead_ranges_init(struct dead_ranges *d, struct alloc *a)
{
    d->alloc = a;
    d->bytes = 0;
    d->hand = 0;
    mutex_init(&d->mu, RANK_STRUCT);
    atomic_init(&d->set, NULL);
    atomic_init(&d->tick, 0);
    atomic_init(&d->proven, 0);
    atomic_init(&d->cut, 0);
}

void dead_ranges_destroy(struct dead_ranges *d)
{
    struct dead_set *set = atom_load(&d->set, relaxed); /* relaxed: nobody else is left */
    for (uint32_t k = 0; set != NULL && k < set->blocks; k++) {
        for (uint32_t i = 0; i < set->block[k]->count; i++) {
            free_range(d->alloc, set->block[k]->range[i]);
        }
        free_block(d->alloc, set->block[k]);
    }
    for (uint32_t i = 0; set != NULL && i < set->announced; i++) {
        free_range(d->alloc, set->early[i]);
    }
    if (set != NULL) {
        free_set(d->alloc, set);
    }
    mutex_destroy(&d->mu);
}

/* ---- changes, all under the mutex ------------------------------------------------------------ */

/* Some proven ranges in a row, to be replaced by others. */
struct change {
    struct spot at;
    uint32_t gone;
    struct dead_range *add[2];
    uint32_t add_count;
};

/* The blocks that a change makes anew: [first, end). Of their ranges the first `kept` stay, `gone` go. */
struct rework {
    uint32_t first, end, count, kept;
};

/* Takes in a neighbour rather than leave a block that is nearly empty. */
static struct rework rework_of(const struct dead_set *set, const struct change *c)
{
    struct rework w = {.first = c->at.block, .kept = c->at.at};
    uint32_t blocks = set != NULL ? set->blocks : 0;
    if (w.first == blocks && blocks != 0) { /* behind the last one */
        w.first--;
        w.kept = set->block[w.first]->count;
    }
    w.end = w.first;
    while (w.end < blocks && (w.end == w.first || w.count < w.kept + c->gone)) {
        w.count += set->block[w.end++]->count;
    }
    if (w.count - c->gone + c->add_count < BLOCK_LEAST) {
        if (w.end < blocks) {
            w.count += set->block[w.end++]->count;
        } else if (w.first > 0) {
            uint32_t more = set->block[--w.first]->count;
            w.count += more;
            w.kept += more;
        }
    }
    return w;
}

/* Blocks for n ranges, about as many in each. False: no memory, and there are none. */
static bool make_blocks(struct dead_ranges *d, struct dead_block **to, uint32_t blocks, uint32_t n)
{
    for (uint32_t i = 0; i < blocks; i++) {
        to[i] = make_block(d, n / blocks + (i < n % blocks));
        if (to[i] == NULL) {
            while (i-- > 0) {
                free_block(d->alloc, to[i]);
            }
            return false;
        }
    }
    return true;
}

/* Where the next range goes. */
struct pour {
    struct dead_block **to;
    uint32_t at;
};

static void pour(struct pour *p, struct dead_range *r)
{
    if (p->at == (*p->to)->count) {
        p->to++;
        p->at = 0;
    }
    (*p->to)->range[p->at++] = r;
}

static void pour_all(struct pour *p, const struct dead_set *old, const struct rework *w,
                     const struct change *c)
{
    struct spot from = {w->first, 0};
    for (uint32_t i = 0; i <= w->count; i++) {
        for (uint32_t k = 0; i == w->kept && k < c->add_count; k++) {
            pour(p, c->add[k]);
        }
        if (i == w->count) {
            break;
        }
        if (i < w->kept || i >= w->kept + c->gone) {
            pour(p, range_at(old, from));
        }
        from = behind(old, from);
    }
}

/* What the change has taken out of the set. */
static void retire_gone(struct dead_ranges *d, const struct dead_set *old, const struct rework *w,
                        const struct change *c)
{
    struct spot s = c->at;
    for (uint32_t i = 0; i < c->gone; i++) {
        struct dead_range *r = range_at(old, s);
        s = behind(old, s);
        d->bytes -= r->bytes;
        retire_range(d, r);
    }
    for (uint32_t k = w->first; k < w->end; k++) {
        retire_block(d, old->block[k]);
    }
}

/* On false nothing has changed, and what was to be added is the caller's. */
static bool change_set(struct dead_ranges *d, const struct change *c)
{
    struct dead_set *old = present(d);
    struct rework w = rework_of(old, c);
    uint32_t n = w.count - c->gone + c->add_count, made = (n + BLOCK_MOST - 1) / BLOCK_MOST;
    uint32_t blocks = (old != NULL ? old->blocks : 0) - (w.end - w.first) + made;
    if (blocks == 0 && (old == NULL || old->announced == 0)) {
        forget_all(d);
        return true;
    }
    struct dead_set *fresh = make_set(d, old, blocks);
    if (fresh == NULL || !make_blocks(d, fresh->block + w.first, made, n)) {
        if (fresh != NULL) {
            free_set(d->alloc, fresh);
        }
        return false;
    }
    fresh->count = (old != NULL ? old->count : 0) - c->gone + c->add_count;
    for (uint32_t k = 0; k < w.first; k++) {
        fresh->block[k] = old->block[k];
    }
    for (uint32_t k = w.first + made; k < blocks; k++) {
        fresh->block[k] = old->block[k - made - w.first + w.end];
    }
    pour_all(&(struct pour){.to = fresh->block + w.first}, old, &w, c);
    for (uint32_t k = 0; k < c->add_count; k++) {
        d->bytes += c->add[k]->bytes;
    }
    publish(d, fresh); /* old itself lives while the caller's section does */
    retire_gone(d, old, &w, c);
    return true;
}

/* False: there was no memory for that, and all are forgotten. */
static bool drop(struct dead_ranges *d, struct spot at)
{
    bool dropped = change_set(d, &(struct change){.at = at, .gone = 1});
    if (!dropped) {
        forget_all(d);
    }
    return dropped;
}

/* The same blocks, and what is announced for the caller to change. NULL: no memory. */
static struct dead_set *copy_set(struct dead_ranges *d, const struct dead_set *old)
{
    struct dead_set *fresh = make_set(d, old, old != NULL ? old->blocks : 0);
    if (fresh != NULL && old != NULL) {
        fresh->count = old->count;
        memcpy(fresh->block, old->block, old->blocks * sizeof old->block[0]);
    }
    return fresh;
}

/* False: no memory. */
static bool add_early(struct dead_ranges *d, struct dead_range *r)
{
    struct dead_set *fresh = copy_set(d, present(d));
    if (fresh == NULL) {
        return false;
    }
    fresh->early[fresh->announced++] = r;
    d->bytes += r->bytes;
    publish(d, fresh);
    return true;
}

static void drop_early(struct dead_ranges *d, uint32_t i)
{
    struct dead_set *old = present(d);
    struct dead_range *r = old->early[i];
    struct dead_set *fresh = old->count + old->announced > 1 ? copy_set(d, old) : NULL;
    if (fresh == NULL) {
        forget_all(d);
        return;
    }
    fresh->early[i] = fresh->early[--fresh->announced];
    publish(d, fresh);
    d->bytes -= r->bytes;
    retire_range(d, r);
}

/* Makes room for one more range, and for `bytes`. False: all are forgotten, what is announced, too; from then
 * on puts pass it unseen. */
static bool evict(struct dead_ranges *d, size_t bytes)
{
    for (;;) {
        const struct dead_set *set = present(d);
        if (set == NULL || set->count == 0 ||
            (set->count < DEAD_RANGES_MAX && d->bytes + bytes <= DEAD_RANGES_BYTES)) {
            return true;
        }
        struct spot victim = {d->hand++ % set->blocks, 0};
        const struct dead_block *b = set->block[victim.block];
        for (uint32_t i = 1; i < b->count; i++) {
            /* relaxed: an age */
            if (atom_load(&b->range[i]->used, relaxed) <
                atom_load(&b->range[victim.at]->used, relaxed)) {
                victim.at = i;
            }
        }
        if (!drop(d, victim)) {
            return false;
        }
    }
}

/* ---- readers --------------------------------------------------------------------------------- */

const struct dead_range *dead_ranges_find(struct dead_ranges *d, uint32_t ks, loam_slice key,
                                          uint64_t seq)
{
    /* acquire: pairs with the release in publish(). */
    const struct dead_set *set = atom_load(&d->set, acquire);
    struct spot at;
    struct dead_range *r = set != NULL ? find(set, ks, key, &at) : NULL;
    if (r == NULL || r->s.from > seq) {
        return NULL;
    }
    uint64_t tick = atom_load(&d->tick, relaxed); /* relaxed: an age */
    if (atom_load(&r->used, relaxed) != tick) {
        atom_store(&r->used, tick, relaxed);
    }
    return r;
}

uint32_t dead_ranges_worth(const struct dead_ranges *d)
{
    /* acquire: pairs with the release in publish(). */
    const struct dead_set *set = atom_load(&d->set, acquire);
    return set == NULL || set->count < DEAD_RANGES_MAX / 2 ? WORTH : WORTH_FULL;
}

struct dead_range *dead_ranges_announce(struct dead_ranges *d, const struct dead_stretch *s)
{
    assert(place_compare(s->cmp, &s->lo, &s->hi) < 0);
    mutex_lock(&d->mu);
    const struct dead_set *set = present(d);
    struct dead_range *r = NULL;
    if (set == NULL || set->announced < DEAD_RANGES_ANNOUNCED) {
        r = make_range(d, s);
    }
    if (r != NULL && !add_early(d, r)) {
        free_range(d->alloc, r);
        r = NULL;
    }
    mutex_unlock(&d->mu);
    return r;
}

/* Adds the stretch, joined with the ranges it meets. */
static void add_proven(struct dead_ranges *d, struct dead_stretch s)
{
    if (!evict(d, range_bytes(s.lo.key, s.hi.key))) {
        return;
    }
    const struct dead_set *set = present(d);
    struct change c = {.add_count = 1};
    if (set != NULL) {
        c.at = seek(set, s.ks, &s.lo, false);
    }
    for (struct spot at = c.at; set != NULL && at.block < set->blocks; at = behind(set, at)) {
        const struct dead_stretch *o = &range_at(set, at)->s;
        if (o->ks != s.ks || place_compare(s.cmp, &o->lo, &s.hi) > 0) {
            break;
        }
        s.lo = place_compare(s.cmp, &o->lo, &s.lo) < 0 ? o->lo : s.lo;
        s.hi = place_compare(s.cmp, &o->hi, &s.hi) > 0 ? o->hi : s.hi;
        s.from = o->from > s.from ? o->from : s.from;
        c.gone++;
    }
    c.add[0] = make_range(d, &s);
    if (c.add[0] == NULL) {
        return;
    }
    if (!change_set(d, &c)) {
        free_range(d->alloc, c.add[0]);
        return;
    }
    atom_add(&d->proven, 1, relaxed); /* relaxed: a statistic */
}

void dead_ranges_settle(struct dead_ranges *d, struct dead_range *r, bool proven)
{
    mutex_lock(&d->mu);
    for (int pass = proven ? 0 : 1; pass < 2; pass++) {
        const struct dead_set *set = present(d);
        uint32_t i = 0, end = set != NULL ? set->announced : 0;
        while (i < end && set->early[i] != r) {
            i++;
        }
        if (i == end) {
            break; /* a put came */
        }
        /* It stays announced until it is proven, so that no writer overlooks it in between. */
        if (pass == 0) {
            add_proven(d, r->s);
        } else {
            drop_early(d, i);
        }
    }
    mutex_unlock(&d->mu);
}

/* ---- across a close ----------------------------------------------------------------------------- */

void dead_ranges_each(struct dead_ranges *d, bool (*fn)(void *arg, const struct dead_stretch *s),
                      void *arg)
{
    mutex_lock(&d->mu);
    const struct dead_set *set = present(d);
    struct spot at = {0, 0};
    while (set != NULL && at.block < set->blocks && fn(arg, &range_at(set, at)->s)) {
        at = behind(set, at);
    }
    mutex_unlock(&d->mu);
}

void dead_ranges_restore(struct dead_ranges *d, const struct dead_stretch *s)
{
    if (place_compare(s->cmp, &s->lo, &s->hi) >= 0) {
        return;
    }
    mutex_lock(&d->mu);
    add_proven(d, *s);
    mutex_unlock(&d->mu);
}

/* ---- writers --------------------------------------------------------------------------------- */

static bool held_by_any(const struct dead_set *set, uint32_t ks, loam_slice key)
{
    struct spot at;
    bool held = find(set, ks, key, &at) != NULL;
    for (uint32_t i = 0; i < set->announced && !held; i++) {
        held = holds(set->early[i], ks, key);
    }
    return held;
}

/* Cuts the proven range that holds the key around it. */
static void cut_proven(struct dead_ranges *d, uint32_t ks, loam_slice key)
{
    (void)evict(d, range_bytes(key, key)); /* what is forgotten is cut as well */
    const struct dead_set *set = present(d);
    struct change c = {.gone = 1};
    const struct dead_range *r = set != NULL ? find(set, ks, key, &c.at) : NULL;
    if (r == NULL) {
        return;
    }
    struct dead_stretch part[2] = {r->s, r->s};
    part[0].hi = (struct dead_place){key, false};
    part[1].lo = (struct dead_place){key, true};
    for (int i = 0; i < 2; i++) {
        if (place_compare(r->s.cmp, &part[i].lo, &part[i].hi) >= 0) {
            continue;
        }
        struct dead_range *p = make_range(d, &part[i]);
        if (p != NULL) {
            /* relaxed: an age */
            atom_store(&p->used, atom_load(&r->used, relaxed), relaxed);
            c.add[c.add_count++] = p;
        }
    }
    if (!change_set(d, &c)) {
        for (uint32_t i = 0; i < c.add_count; i++) {
            free_range(d->alloc, c.add[i]);
        }
        forget_all(d);
    }
    atom_add(&d->cut, 1, relaxed); /* relaxed: a statistic */
}

void dead_ranges_cut_(struct dead_ranges *d, uint32_t ks, loam_slice key)
{
    /* acquire: pairs with the release in publish(). */
    const struct dead_set *set = atom_load(&d->set, acquire);
    if (set == NULL || !held_by_any(set, ks, key)) {
        return;
    }
    mutex_lock(&d->mu);
    cut_proven(d, ks, key);
    for (uint32_t i = DEAD_RANGES_ANNOUNCED; i-- > 0;) {
        set = present(d); /* one less at each drop */
        if (set != NULL && i < set->announced && holds(set->early[i], ks, key)) {
            drop_early(d, i);
        }
    }
    mutex_unlock(&d->mu);
}
