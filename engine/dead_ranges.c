/* dead_ranges.c - Sets of ranges, replaced whole at each change.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/dead_ranges.h"

#include <assert.h>

#include "arena/poison.h"

#define WORTH      64u  /* keys: about what a seek costs */
#define WORTH_FULL 512u /* when half of the places are taken */

/* ---- places ---------------------------------------------------------------------------------- */

static int place_compare(const loam_comparator *cmp, const struct dead_place *a,
                         const struct dead_place *b)
{
    int c = key_compare(cmp, a->key, b->key);
    return c != 0 ? c : (int)a->behind - (int)b->behind;
}

static bool ends_before(const struct dead_stretch *s, loam_slice key)
{
    int c = key_compare(s->cmp, s->hi.key, key);
    return c < 0 || (c == 0 && !s->hi.behind);
}

static bool begins_behind(const struct dead_stretch *s, loam_slice key)
{
    int c = key_compare(s->cmp, s->lo.key, key);
    return c > 0 || (c == 0 && s->lo.behind);
}

static bool holds(const struct dead_range *r, uint32_t ks, loam_slice key)
{
    return r->s.ks == ks && !begins_behind(&r->s, key) && !ends_before(&r->s, key);
}

/* Index of the proven range that holds the key; the count when none does. */
static uint32_t find(const struct dead_set *set, uint32_t ks, loam_slice key)
{
    uint32_t lo = 0, hi = set->count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const struct dead_stretch *s = &set->ranges[mid]->s;
        if (s->ks < ks || (s->ks == ks && ends_before(s, key))) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < set->count && holds(set->ranges[lo], ks, key) ? lo : set->count;
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

static size_t set_bytes(uint32_t n)
{
    return sizeof(struct dead_set) + n * sizeof(struct dead_range *);
}

static void free_set(void *alloc, void *set)
{
    struct dead_set *s = set;
    alloc_put(alloc, MEM_VERSION, s, set_bytes(s->count + s->announced));
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

/* Without memory for a smaller set there is one that needs none. */
static void forget_all(struct dead_ranges *d)
{
    struct dead_set *set = present(d);
    uint32_t n = set != NULL ? set->count + set->announced : 0;
    for (uint32_t i = 0; i < n; i++) {
        retire_range(d, set->ranges[i]);
    }
    d->bytes = 0;
    publish(d, NULL);
}

void dead_ranges_init(struct dead_ranges *d, struct alloc *a)
{
    d->alloc = a;
    d->bytes = 0;
    mutex_init(&d->mu, RANK_STRUCT);
    atomic_init(&d->set, NULL);
    atomic_init(&d->tick, 0);
    atomic_init(&d->proven, 0);
    atomic_init(&d->cut, 0);
}

void dead_ranges_destroy(struct dead_ranges *d)
{
    struct dead_set *set = atom_load(&d->set, relaxed); /* relaxed: nobody else is left */
    for (uint32_t i = 0; set != NULL && i < set->count + set->announced; i++) {
        free_range(d->alloc, set->ranges[i]);
    }
    if (set != NULL) {
        free_set(d->alloc, set);
    }
    mutex_destroy(&d->mu);
}

/* ---- changes, all under the mutex ------------------------------------------------------------ */

/* A stretch of the set's ranges to be replaced by others. */
struct change {
    uint32_t at, gone;
    struct dead_range *add[2];
    uint32_t add_count;
    bool announced; /* `at` is behind the proven ones */
};

/* On false nothing has changed, and what was to be added is the caller's. */
static bool change_set(struct dead_ranges *d, const struct change *c)
{
    struct dead_set *old = present(d);
    uint32_t total = old != NULL ? old->count + old->announced : 0;
    uint32_t n = total - c->gone + c->add_count;
    if (n == 0) {
        forget_all(d);
        return true;
    }
    struct dead_set *fresh = alloc_get(d->alloc, MEM_VERSION, set_bytes(n));
    if (fresh == NULL) {
        return false;
    }
    uint32_t fewer = c->announced ? 0 : c->gone, more = c->announced ? 0 : c->add_count;
    fresh->count = (old != NULL ? old->count : 0) - fewer + more;
    fresh->announced = n - fresh->count;
    uint32_t k = 0;
    for (uint32_t i = 0; i < c->at; i++) {
        fresh->ranges[k++] = old->ranges[i];
    }
    for (uint32_t i = 0; i < c->add_count; i++) {
        fresh->ranges[k++] = c->add[i];
        d->bytes += c->add[i]->bytes;
    }
    for (uint32_t i = c->at + c->gone; i < total; i++) {
        fresh->ranges[k++] = old->ranges[i];
    }
    assert(k == n);
    publish(d, fresh); /* old itself lives while the caller's section does */
    for (uint32_t i = c->at; i < c->at + c->gone; i++) {
        d->bytes -= old->ranges[i]->bytes;
        retire_range(d, old->ranges[i]);
    }
    return true;
}

/* False: there was no memory for that, and all are forgotten. */
static bool drop(struct dead_ranges *d, uint32_t i, bool announced)
{
    struct change c = {.at = i, .gone = 1, .announced = announced};
    bool dropped = change_set(d, &c);
    if (!dropped) {
        forget_all(d);
    }
    return dropped;
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
        uint32_t victim = 0;
        for (uint32_t i = 1; i < set->count; i++) {
            /* relaxed: an age */
            if (atom_load(&set->ranges[i]->used, relaxed) <
                atom_load(&set->ranges[victim]->used, relaxed)) {
                victim = i;
            }
        }
        if (!drop(d, victim, false)) {
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
    uint32_t i = set != NULL ? find(set, ks, key) : 0;
    if (set == NULL || i == set->count || set->ranges[i]->s.from > seq) {
        return NULL;
    }
    struct dead_range *r = set->ranges[i];
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
    if (r != NULL) {
        struct change c = {
            .at = set != NULL ? set->count : 0, .add = {r}, .add_count = 1, .announced = true};
        if (!change_set(d, &c)) {
            free_range(d->alloc, r);
            r = NULL;
        }
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
    uint32_t n = set != NULL ? set->count : 0;
    while (c.at < n && (set->ranges[c.at]->s.ks < s.ks ||
                        (set->ranges[c.at]->s.ks == s.ks &&
                         place_compare(s.cmp, &set->ranges[c.at]->s.hi, &s.lo) < 0))) {
        c.at++;
    }
    for (; c.at + c.gone < n; c.gone++) {
        const struct dead_stretch *o = &set->ranges[c.at + c.gone]->s;
        if (o->ks != s.ks || place_compare(s.cmp, &o->lo, &s.hi) > 0) {
            break;
        }
        s.lo = place_compare(s.cmp, &o->lo, &s.lo) < 0 ? o->lo : s.lo;
        s.hi = place_compare(s.cmp, &o->hi, &s.hi) > 0 ? o->hi : s.hi;
        s.from = o->from > s.from ? o->from : s.from;
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
        uint32_t i = set != NULL ? set->count : 0, end = set != NULL ? i + set->announced : 0;
        while (i < end && set->ranges[i] != r) {
            i++;
        }
        if (i == end) {
            break; /* a put came */
        }
        /* It stays announced until it is proven, so that no writer overlooks it in between. */
        if (pass == 0) {
            add_proven(d, r->s);
        } else {
            (void)drop(d, i, true);
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
    for (uint32_t i = 0; set != NULL && i < set->count && fn(arg, &set->ranges[i]->s); i++) {
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
    bool held = find(set, ks, key) != set->count;
    for (uint32_t i = set->count; i < set->count + set->announced && !held; i++) {
        held = holds(set->ranges[i], ks, key);
    }
    return held;
}

/* Cuts the proven range that holds the key around it. */
static void cut_proven(struct dead_ranges *d, uint32_t ks, loam_slice key)
{
    (void)evict(d, range_bytes(key, key)); /* what is forgotten is cut as well */
    const struct dead_set *set = present(d);
    struct change c = {.at = set != NULL ? find(set, ks, key) : 0, .gone = 1};
    if (set == NULL || c.at == set->count) {
        return;
    }
    const struct dead_range *r = set->ranges[c.at];
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
    set = present(d);
    for (uint32_t i = set != NULL ? set->count + set->announced : 0;
         i-- > (set != NULL ? set->count : 0);) {
        if (holds(set->ranges[i], ks, key)) {
            (void)drop(d, i, true);
            set = present(d);
            if (set == NULL) {
                break;
            }
        }
    }
    mutex_unlock(&d->mu);
}
