/* skiplist.c - The order of keys, the search down the levels, and what reads through it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Defects of earlier lists that cannot occur here by construction: a snapshot number is taken by
 * the caller from one ordered counter, not by the list (F10); versions never change, so a delete
 * cannot reach into older snapshots (F11); counts are per thread and only grow, nothing underflows
 * (F12, F18).
 */
#include "memtable/skiplist.h"

#include <string.h>

#include "memtable/skiplist_guide.h"
#include "memtable/skiplist_node.h"

#include "arena/poison.h"

/* ---- order ---- */

static int compare_always(void *ctx, loam_slice a, loam_slice b)
{
    (void)a;
    (void)b;
    return *(const int *)ctx;
}

static int behind = 1;
static int before = -1;
const loam_comparator skiplist_all_behind_ = {.compare = compare_always, .ctx = &behind};
const loam_comparator skiplist_all_before_ = {.compare = compare_always, .ctx = &before};

/* ---- search ---- */

/* What the guide of x says about the target; false: nothing. last_higher: whether that is wanted. */
static inline bool ask_guide(const struct skiplist *s, const struct skiplist_node *x,
                             uint32_t level, const struct skiplist_target *t, bool last_higher,
                             struct guide_answer *a)
{
    if (t->cmp != NULL || node_ks(x) != t->ks) {
        return false;
    }
    uint32_t code = guide_code(node_key(s, x), loam_bytes(t->data, t->size));
    if (code == 0) {
        return false;
    }
    guide_find(node_guide(x, level / 2), code, last_higher, a);
    return (a->last | a->first) != 0;
}

static inline struct skiplist_finger finger_at_head(const struct skiplist *s)
{
    /* relaxed: with a smaller height the search starts lower and takes longer. */
    return (struct skiplist_finger){.node = head_node(s), .level = atom_load(&s->height, relaxed)};
}

/* Moves the finger down to level `end`, which is even, or to the one below, where a guide may lead. The node of
 * the target, if it is met, else NULL; f->known is then its reference. With `lower`, an equal node counts as
 * behind. prev, if wanted, becomes a node before the target at each level passed, at even levels the last, at odd
 * ones below `height` one that is close (when the node is found, levels below are not filled). */
static inline __attribute__((always_inline)) struct skiplist_node *
descend(const struct skiplist *s, const struct skiplist_target *t, struct skiplist_finger *f,
        uint32_t end, struct skiplist_node **prev, uint32_t height, bool lower)
{
    struct skiplist_node *const head = head_node(s);
    struct skiplist_node *x = f->node;
    uint32_t known = f->known;
    uint32_t level = f->level;
    while (level > end) {
        level--;
        bool guides =
            level != 0 && level % 2 == 0; /* nodes of the level have one, but not the head */
        struct guide_answer a;
        bool asked = false, told = false;
        uint32_t ref;
        while ((ref = node_next(x, level)) != known && ref != 0) {
            struct skiplist_node *n = node_at(s, ref);
            /* Where the search goes on if n is behind the target. */
            if (level == 2 && x != head) {
                /* Far away as a rule, as n is: both come at once, and the guide is read meanwhile. */
                __builtin_prefetch(n);
                asked = true;
                told = ask_guide(s, x, level, t, level <= height, &a);
                if (told && a.last != 0) {
                    __builtin_prefetch(node_at(s, a.last));
                }
            } else if (guides && x != head) {
                guide_prefetch(node_guide(x, level / 2));
            } else if (level != 0) {
                __builtin_prefetch(node_at(s, node_next(x, level - 1)));
            }
            int c = compare(s, n, t);
            if (c == 0 && !lower) {
                f->known = ref;
                return n;
            }
            if (c >= 0) {
                known = ref;
                break;
            }
            x = n;
            asked = false;
        }
        if (prev != NULL) {
            prev[level] = x;
        }
        if (!asked) {
            told = guides && x != head && ask_guide(s, x, level, t, level <= height, &a);
        }
        if (told) {
            level--;
            if (prev != NULL) {
                prev[level] = a.last_higher != 0 ? node_at(s, a.last_higher) : x;
            }
            if (a.last != 0) {
                x = node_at(s, a.last);
                if (level != 1) { /* its guide is next; entries of this one are `level` high or 1 more */
                    guide_prefetch(guide_of(x, level + a.higher, level / 2));
                    __builtin_prefetch(x->key);
                }
            }
            known = a.first != 0 ? a.first : known;
        }
    }
    if (end != 0) {
        __builtin_prefetch(x); /* by when it goes on, this is there */
    }
    *f = (struct skiplist_finger){.node = x, .level = level, .known = known};
    return NULL;
}

struct skiplist_node *skiplist_search_(const struct skiplist *s, const struct skiplist_target *t,
                                       struct skiplist_node **prev, uint32_t height, uint32_t *at)
{
    struct skiplist_finger f = finger_at_head(s);
    struct skiplist_node *n = descend(s, t, &f, 0, prev, height, false);
    *at = f.known;
    return n;
}

void skiplist_ahead_init_(const struct skiplist *s, struct skiplist_ahead *a)
{
    a->steps = 0;
    a->found = NULL;
    a->at = finger_at_head(s);
    /* Not the places of this thread: its inserts until then may raise the list, and lie behind the target. */
    for (uint32_t level = a->at.level; level < SKIPLIST_MAX_HEIGHT; level++) {
        a->prev[level] = head_node(s);
    }
}

void skiplist_ahead_down_(const struct skiplist *s, struct skiplist_ahead *a, uint32_t end)
{
    if (a->found == NULL) {
        a->found = descend(s, &a->target, &a->at, end, a->prev, a->height, false);
    }
}

_Static_assert(SKIPLIST_AHEAD_STEPS % 2 == 0, "down to even levels, and each time a fetch");

void skiplist_ahead_step(const struct skiplist *s, struct skiplist_ahead *a)
{
    uint32_t step = a->steps;
    if (step == SKIPLIST_AHEAD_STEPS) {
        return;
    }
    a->steps++;
    if (step % 2 == 0) {
        skiplist_ahead_down_(s, a, SKIPLIST_AHEAD_STEPS - step);
    } else {
        __builtin_prefetch(node_at(s, node_next(a->at.node, a->at.level - 1)));
    }
}

struct skiplist_node *skiplist_find(const struct skiplist *s, const struct skiplist_target *t)
{
    struct skiplist_finger f = finger_at_head(s);
    return descend(s, t, &f, 0, NULL, 0, false);
}

struct skiplist_node *skiplist_match(const struct skiplist *s, uint32_t ref,
                                     const struct skiplist_target *t)
{
    struct skiplist_node *n = node_at(s, ref);
    return compare(s, n, t) == 0 ? n : NULL;
}

struct skiplist_node *skiplist_find_ge_(const struct skiplist *s, const struct skiplist_target *t)
{
    struct skiplist_finger f = finger_at_head(s);
    struct skiplist_node *n = descend(s, t, &f, 0, NULL, 0, false);
    return n != NULL || f.known == 0 ? n : node_at(s, f.known);
}

struct skiplist_node *skiplist_find_lt_(const struct skiplist *s, const struct skiplist_target *t)
{
    struct skiplist_finger f = finger_at_head(s);
    descend(s, t, &f, 0, NULL, 0, true);
    return f.node != head_node(s) ? f.node : NULL;
}

/* ---- reading ---- */

int skiplist_node_get(const struct skiplist *s, const struct skiplist_node *n, uint64_t max_tag,
                      struct entry *e)
{
    const struct skiplist_version *v = chain_find(s, n, max_tag);
    if (v == NULL) {
        return LOAM_NOTFOUND;
    }
    entry_fill(s, n, v, e);
    return LOAM_OK;
}

int skiplist_get(const struct skiplist *s, uint32_t ks, loam_slice key, uint64_t max_tag,
                 struct entry *e)
{
    struct skiplist_target t = skiplist_target(s, ks, key);
    const struct skiplist_node *n = skiplist_find(s, &t);
    return n != NULL ? skiplist_node_get(s, n, max_tag, e) : LOAM_NOTFOUND;
}

uint64_t skiplist_count(const struct skiplist *s)
{
    uint64_t n = atom_load(&s->stray_count, relaxed); /* relaxed, as below: a count */
    /* acquire: pairs with the release in writer_make(). */
    for (uint32_t ref = atom_load(&s->writers, acquire); ref != 0;) {
        const struct skiplist_writer *w = arena_at(s->nodes, ref);
        n += atom_load(&w->count, relaxed);
        ref = w->next;
    }
    return n;
}

bool skiplist_empty(const struct skiplist *s)
{
    return node_next(head_node(s), 0) == 0;
}

int skiplist_next_ks(const struct skiplist *s, uint32_t ks, uint32_t *found)
{
    struct skiplist_target t = {.cmp = &skiplist_all_behind_, .ks = ks};
    const struct skiplist_node *n = skiplist_find_ge_(s, &t);
    if (n == NULL) {
        return LOAM_NOTFOUND;
    }
    *found = node_ks(n);
    return LOAM_OK;
}

void skiplist_init(struct skiplist *s, struct arena *nodes, struct arena *values,
                   skiplist_order_fn *order, void *order_ctx)
{
    memset(s, 0, sizeof *s);
    s->id = arena_new_ids(1);
    s->nodes = nodes;
    s->values = values;
    s->order = order;
    s->order_ctx = order_ctx;
    atom_store(&s->height, 1, relaxed); /* relaxed: not shared yet */
}
