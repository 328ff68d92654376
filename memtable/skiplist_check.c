/* skiplist_check.c - Verifies the invariants of a list that nobody changes.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "memtable/skiplist.h"
#include "memtable/skiplist_guide.h"
#include "memtable/skiplist_node.h"

#include "arena/poison.h"

static const char *check_chain(const struct skiplist *s, const struct skiplist_node *n)
{
    uint32_t ref = atom_load(&n->versions, acquire); /* acquire: as in node_newest() */
    if (ref == 0) {
        return "a node has no version";
    }
    const struct skiplist_version *v = version_at(s, ref);
    for (;;) {
        uint32_t jump = version_jump(v);
        if (jump != 0 && version_tag(version_at(s, jump)) >= version_tag(v)) {
            return "a jump leads to a newer version";
        }
        uint32_t next = version_next(v);
        if (next == 0) {
            return NULL;
        }
        const struct skiplist_version *older = version_at(s, next);
        if (version_tag(older) >= version_tag(v)) {
            return "a chain's tags do not fall";
        }
        v = older;
    }
}

static const char *check_guides(const struct skiplist *s, const struct skiplist_node *n)
{
    uint32_t ks = node_ks(n);
    struct skiplist_target t = skiplist_target(s, ks, node_key(s, n));
    for (uint32_t j = 1; j <= guides_of(node_height(n)); j++) {
        for (uint32_t i = 0; i < GUIDE_SLOTS; i++) {
            uint64_t entry =
                atom_load(&node_guide(n, j)[i], acquire); /* acquire: as in guide_search() */
            if (entry == 0) {
                continue;
            }
            const struct skiplist_node *e = node_at(s, (uint32_t)entry);
            if (t.cmp != NULL || node_ks(e) != ks || compare(s, e, &t) <= 0) {
                return "a guide has an entry that is not behind its node";
            }
            if (node_height(e) != 2 * j - ((entry & GUIDE_HIGHER) == 0)) {
                return "a guide has an entry of another height";
            }
            if (guide_code(node_key(s, n), node_key(s, e)) != entry >> GUIDE_CODE_SHIFT) {
                return "a guide's code is not that of the entry's key";
            }
        }
    }
    return NULL;
}

const char *skiplist_check(const struct skiplist *s)
{
    /* Every level is walked in step with level 0: a node must be the next one at each level of its
     * height and at no other. */
    uint32_t at[SKIPLIST_MAX_HEIGHT];
    for (uint32_t i = 0; i < SKIPLIST_MAX_HEIGHT; i++) {
        at[i] = node_next(head_node(s), i);
    }
    const struct skiplist_node *last = NULL;
    while (at[0] != 0) {
        uint32_t ref = at[0];
        const struct skiplist_node *n = node_at(s, ref);
        if (last != NULL) {
            uint32_t ks = node_ks(last);
            struct skiplist_target t = skiplist_target(s, ks, node_key(s, last));
            if (compare(s, n, &t) <= 0) {
                return "level 0 is not in rising order";
            }
        }
        if (node_height(n) == 0 || node_height(n) > atom_load(&s->height, relaxed)) {
            return "a tower is higher than the list"; /* relaxed above: no insert runs */
        }
        for (uint32_t i = 0; i < node_height(n); i++) {
            if (at[i] != ref) {
                return "a tower is not linked, or not in order, at one of its levels";
            }
            at[i] = node_next(n, i);
        }
        const char *broken = check_chain(s, n);
        broken = broken == NULL ? check_guides(s, n) : broken;
        if (broken != NULL) {
            return broken;
        }
        last = n;
    }
    for (uint32_t i = 0; i < SKIPLIST_MAX_HEIGHT; i++) {
        if (at[i] != 0) {
            return "an upper level holds a node that level 0 does not";
        }
    }
    return NULL;
}
