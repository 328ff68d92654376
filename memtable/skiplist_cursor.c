/* skiplist_cursor.c - Walks over the list in both directions, with nodes fetched ahead of need.
 * SPDX-License-Identifier: Apache-2.0
 *
 *     level 1   n ------------> n ------------> n ------------> n        stretches, found here
 *     level 0   n -> o -> o --> n -> o -> o --> n -> o -> o --> n        one step each in several
 *                    ^cursor         ^lane[0]        ^lane[1]   ^scout
 *
 * Forwards a cursor follows level 0; backwards it searches for the last node before its own, since
 * nodes have no links back. It holds no lock and no count: what it stands on lives as long as the
 * list. Additions beside it may or may not be seen, each version entirely or not at all. Lanes and scout
 * are nodes of the list, wherever additions have put them since: nothing but a prefetch depends on it.
 */
#include <assert.h>

#include "memtable/skiplist.h"
#include "memtable/skiplist_node.h"

#include "arena/poison.h"

#define CLOSE_BYTES 256u /* between nodes of which one was made right after the other, mostly */

/* The version next newer than v, or NULL when v is the newest. */
static const struct skiplist_version *chain_newer(const struct skiplist *s,
                                                  const struct skiplist_node *n,
                                                  const struct skiplist_version *v)
{
    uint64_t tag = version_tag(v);
    const struct skiplist_version *p = node_newest(s, n);
    if (p == v) {
        return NULL;
    }
    for (;;) {
        uint32_t jump = version_jump(p);
        const struct skiplist_version *j = jump != 0 ? version_at(s, jump) : NULL;
        const struct skiplist_version *next = version_at(s, version_next(p));
        if (next == v) {
            return p;
        }
        p = j != NULL && version_tag(j) > tag ? j : next;
    }
}

static const struct skiplist_version *chain_oldest(const struct skiplist *s,
                                                   const struct skiplist_node *n)
{
    const struct skiplist_version *v = node_newest(s, n);
    for (;;) {
        uint32_t older = version_jump(v);
        older = older != 0 ? older : version_next(v);
        if (older == 0) {
            return v;
        }
        v = version_at(s, older);
    }
}

void skiplist_cursor_init(struct skiplist_cursor *c, const struct skiplist *s, uint32_t ks)
{
    skiplist_cursor_init_in(c, s, ks, skiplist_order(s, ks));
}

void skiplist_cursor_init_in(struct skiplist_cursor *c, const struct skiplist *s, uint32_t ks,
                             const loam_comparator *cmp)
{
    *c = (struct skiplist_cursor){.list = s, .cmp = cmp, .ks = ks};
}

static bool cursor_off(struct skiplist_cursor *c)
{
    c->node = NULL;
    return false;
}

/* On the newest version of n, if n is of the cursor's keyspace. */
static bool cursor_enter(struct skiplist_cursor *c, const struct skiplist_node *n)
{
    if (n == NULL || node_ks(n) != c->ks) {
        return cursor_off(c);
    }
    c->node = n;
    c->version = node_newest(c->list, n);
    return true;
}

/* A walk along level 0 waits for one node after the other. So when the cursor enters a stretch
 * between two nodes of height 2, it moves one node further in each of the next stretches (their
 * starts are found along level 1) and fetches that node's version: when it gets there, all has
 * come. */
static void read_ahead(struct skiplist_cursor *c)
{
    const struct skiplist *s = c->list;
    uint32_t kept = c->lanes != 0 ? c->lanes - 1 : 0; /* the nearest stretch is entered now */
    for (uint32_t i = 0; i < kept; i++) {
        const struct skiplist_node *n = c->lane[i + 1];
        /* acquire: pairs with the release that linked the version; its block is in the arena's table. */
        const char *v = (const char *)version_at(s, atom_load(&n->versions, acquire));
        __builtin_prefetch(v);
        __builtin_prefetch(v + CACHE_LINE);
        uint32_t next = node_next(n, 0);
        if (next != 0) {
            n = node_at(s, next);
            __builtin_prefetch(n);
        }
        c->lane[i] = n;
    }
    c->lanes = kept;
    const struct skiplist_node *scout = c->scout != NULL ? c->scout : c->node;
    for (int i = 0; i < 2 && c->lanes < SKIPLIST_LANES; i++) {
        uint32_t next = node_next(scout, 1);
        if (next == 0) {
            break;
        }
        scout = node_at(s, next);
        __builtin_prefetch(scout);
        c->lane[c->lanes++] = scout;
    }
    c->scout = scout;
}

/* A short walk ends before the lanes are of use, and one that takes turns with other sources is slow: until
 * all lanes are taken the next version, and the node behind it, come while the present ones are looked
 * at. */
static void look_ahead(const struct skiplist_cursor *c)
{
    const struct skiplist *s = c->list;
    uint32_t next = node_next(c->node, 0);
    if (next == 0) {
        return;
    }
    const struct skiplist_node *n = node_at(s, next);
    /* acquire: as in read_ahead(). */
    const char *v = (const char *)version_at(s, atom_load(&n->versions, acquire));
    __builtin_prefetch(v);
    __builtin_prefetch(v + CACHE_LINE);
    next = node_next(n, 0);
    if (next != 0) {
        __builtin_prefetch(node_at(s, next));
    }
}

static void read_ahead_stop(struct skiplist_cursor *c)
{
    c->lanes = 0;
    c->scout = NULL;
}

static bool cursor_enter_oldest(struct skiplist_cursor *c, const struct skiplist_node *n)
{
    if (!cursor_enter(c, n)) {
        return false;
    }
    c->version = chain_oldest(c->list, n);
    return true;
}

bool skiplist_cursor_first(struct skiplist_cursor *c)
{
    struct skiplist_target t = {.cmp = &skiplist_all_behind_, .ks = c->ks};
    read_ahead_stop(c);
    return cursor_enter(c, skiplist_find_ge_(c->list, &t));
}

bool skiplist_cursor_last(struct skiplist_cursor *c)
{
    struct skiplist_target t = {.cmp = &skiplist_all_before_, .ks = c->ks};
    read_ahead_stop(c);
    return cursor_enter_oldest(c, skiplist_find_lt_(c->list, &t));
}

bool skiplist_cursor_seek(struct skiplist_cursor *c, loam_slice key, uint64_t tag)
{
    struct skiplist_target t = skiplist_target_in(c->cmp, c->ks, key);
    const struct skiplist_node *n = skiplist_find_ge_(c->list, &t);
    read_ahead_stop(c);
    if (!cursor_enter(c, n)) {
        return false;
    }
    look_ahead(c);
    if (version_tag(c->version) <= tag || compare(c->list, n, &t) != 0) {
        return true;
    }
    c->version = chain_find(c->list, n, tag);
    return c->version != NULL || skiplist_cursor_next_key(c);
}

/* Not a seek and a step back from there: what others add in between, behind the place, would be met. */
bool skiplist_cursor_seek_before(struct skiplist_cursor *c, loam_slice key, uint64_t tag)
{
    struct skiplist_target t = skiplist_target_in(c->cmp, c->ks, key);
    read_ahead_stop(c);
    if (tag != UINT64_MAX && cursor_enter(c, skiplist_find_ge_(c->list, &t)) &&
        compare(c->list, c->node, &t) == 0) {
        /* Versions of the key above the tag come before the place. */
        const struct skiplist_version *at = chain_find(c->list, c->node, tag);
        const struct skiplist_version *above = at != NULL ? chain_newer(c->list, c->node, at)
                                                          : chain_oldest(c->list, c->node);
        while (above != NULL && version_tag(above) <= tag) { /* added since */
            above = chain_newer(c->list, c->node, above);
        }
        if (above != NULL) {
            c->version = above;
            return true;
        }
    }
    return cursor_enter_oldest(c, skiplist_find_lt_(c->list, &t));
}

/* Nodes of keys that were put in their order lie side by side, and so do their versions: the processor
 * itself reads ahead in such memory, at no cost of steps in lanes. */
static bool lies_close_behind(const struct skiplist_node *n, const struct skiplist_node *before)
{
    return (uintptr_t)n - (uintptr_t)before <= CLOSE_BYTES;
}

bool skiplist_cursor_next_key(struct skiplist_cursor *c)
{
    if (c->node == NULL) {
        return false;
    }
    const struct skiplist_node *before = c->node;
    uint32_t next = node_next(before, 0);
    if (!cursor_enter(c, next != 0 ? node_at(c->list, next) : NULL)) {
        return false;
    }
    if (lies_close_behind(c->node, before)) {
        read_ahead_stop(c);
    } else if (node_height(c->node) > 1) {
        read_ahead(c);
    }
    if (c->lanes < SKIPLIST_LANES) {
        look_ahead(c);
    }
    return true;
}

bool skiplist_cursor_next(struct skiplist_cursor *c)
{
    if (c->node == NULL) {
        return false;
    }
    uint32_t older = version_next(c->version);
    if (older != 0) {
        c->version = version_at(c->list, older);
        return true;
    }
    return skiplist_cursor_next_key(c);
}

bool skiplist_cursor_prev(struct skiplist_cursor *c)
{
    if (c->node == NULL) {
        return false;
    }
    const struct skiplist_version *newer = chain_newer(c->list, c->node, c->version);
    if (newer != NULL) {
        c->version = newer;
        return true;
    }
    struct skiplist_target t = skiplist_target_in(c->cmp, c->ks, node_key(c->list, c->node));
    read_ahead_stop(c);
    return cursor_enter_oldest(c, skiplist_find_lt_(c->list, &t));
}

void skiplist_cursor_entry(const struct skiplist_cursor *c, struct entry *e)
{
    entry_fill(c->list, c->node, c->version, e);
}
