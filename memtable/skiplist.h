/* skiplist.h - A lock-free ordered set of keys, each with its chain of versions; nothing is removed.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   head [3]------------------------------> node --------------------------------> 0
 *        [2]-------------> node ----------> node --------------------------------> 0
 *        [1]-------------> node ----------> node ----------> node ---------------> 0
 *        [0]----> node --> node --> node -> node --> node -> node --> node ------> 0
 *                  |        |                |
 *                version  version          version    newest tag first, in the arena of values
 *                           |
 *                         version
 *
 * In memory (all links are 32-bit arena references, 0 = none):
 *
 *   node:     | guides | next[h-1] .. next[1] | next[0] | versions | ks:16 size:10 height:6 | key ... |
 *                                             ^ the node's reference
 *   version:  [ jump | depth ] | next | size:30 flags:2 | tag | value ... |
 *                              ^ the version's reference
 *
 * A typical node of a 16-byte key is 28 bytes, so its link, its size and the first bytes of its key
 * come with one cache line, and those first 8 bytes, read big-endian, decide most comparisons. Keys
 * over 1,023 bytes and keyspace ids over 65,534 use the wide form: there the key area holds the first
 * 8 bytes, keyspace id, size, and the reference of the key in the arena of values.
 *
 * Nodes of height 3 or more, one in 16, carry guides: short arrays of what lies behind them, by which a
 * search skips most of the nodes in between without touching them (skiplist_guide.h).
 *
 * A version that was added on top of another has a jump pointer to a much older one (Myers' skew
 * binary scheme), so a chain of a million versions is searched by tag in some 20 steps.
 *
 * Invariants
 *   1. Level 0 holds every node once, in strictly rising order of (ks, key).
 *   2. Level i holds a subset of level i-1, in the same order; once its insert has returned, a node
 *      is linked at every level of its height.
 *   3. A chain's tags strictly fall; a jump pointer leads to an older version of the same chain.
 *   4. A node has at least one version when it becomes reachable.
 *   5. A guide's entry lies behind the guide's node, has the guide's level, and its code is right.
 *   6. Apart from links and guides, nodes and versions never change once they are reachable.
 * Ordering guarantees
 *   A link is stored with release and loaded with acquire: whoever reaches a node or a version sees
 *   all of its bytes, and its older versions. What meets what in the midst of an insert is argued at
 *   the head of skiplist_insert.c.
 * Progress guarantees
 *   Searches are wait-free but for the length of the list. Inserts are lock-free: a failed CAS means
 *   that another insert linked its node or version at the same place; the search continues from the
 *   known predecessor at that level, comparing keys, until the node is linked.
 */
#ifndef LOAM_MEMTABLE_SKIPLIST_H_
#define LOAM_MEMTABLE_SKIPLIST_H_

#include <stdbool.h>
#include <stdint.h>

#include "arena/arena.h"
#include "arena/coding.h"
#include "arena/entry.h"

#define SKIPLIST_MAX_HEIGHT 16 /* at p = 1/4: 4^16 keys */
#define SKIPLIST_LANES      16 /* stretches of a list a cursor reads ahead in */

struct skiplist_node;
struct skiplist_version;

typedef const loam_comparator *skiplist_order_fn(void *ctx, uint32_t ks); /* NULL: byte order */

/* What one thread keeps per list: its last place, its entry count. Lives in the arena of nodes; found
 * through a thread-local cache under the list's id and the thread's slot, which no two live threads
 * share: a later thread with the same slot takes over the record. */
struct skiplist_writer {
    _Alignas(CACHE_LINE) _Atomic uint64_t count; /* entries added; written by the owner only */
    uint64_t random;
    uint32_t slot;  /* thread slot of the owner */
    uint32_t next;  /* reference of the list's next writer */
    bool in_order;  /* the last key it looked for lay in the gap behind the one before */
    bool has_place; /* prev is the place behind the node inserted last, prev[0] that node */
    uint32_t after; /* reference: what follows prev[0] */
    uint32_t guide;      /* of `guided`: the one that was entered last */
    uint32_t guide_from; /* its slots before this are taken */
    const struct skiplist_node *guided;
    struct skiplist_node *prev[SKIPLIST_MAX_HEIGHT]; /* by level: before the key */
};

struct skiplist {
    uint64_t id; /* never used twice in a process */
    struct arena *nodes;
    struct arena *values;
    skiplist_order_fn *order;
    void *order_ctx;
    _Alignas(CACHE_LINE) _Atomic uint32_t height;  /* levels in use; only grows */
    _Atomic uint32_t head[SKIPLIST_MAX_HEIGHT];    /* head[MAX-1-i] is level i, as in a node */
    _Alignas(CACHE_LINE) _Atomic uint32_t writers; /* reference of the first, push only */
    _Atomic uint64_t stray_count;                  /* entries added by threads without a slot */
};

/* A key as searches want it. */
struct skiplist_target {
    uint64_t prefix; /* first 8 bytes, big-endian, zero padded */
    const unsigned char *data;
    size_t size;
    const loam_comparator *cmp;
    uint32_t ks;
};

/* Where a search has come to on its way down. */
struct skiplist_finger {
    struct skiplist_node *node; /* before the target, and linked at the next level */
    uint32_t level;             /* those from here up are done */
    uint32_t known;             /* reference: a node behind the target, or that of it; 0 = the end */
};

#define SKIPLIST_AHEAD_STEPS 4u /* the level down to which the first goes; each looks at lines the one before fetched */

/* The search for an insert to come. */
struct skiplist_ahead {
    uint32_t steps;  /* taken */
    uint32_t height; /* of the node, if one is made */
    struct skiplist_finger at;
    struct skiplist_node *found; /* NULL: not yet */
    struct skiplist_target target;
    struct skiplist_node *prev[SKIPLIST_MAX_HEIGHT]; /* as a writer's; from at.level up */
};

/* Where a key is, or belongs; from skiplist_locate for skiplist_link. */
struct skiplist_place {
    struct skiplist_target target;
    struct skiplist_node *found; /* NULL: the key is not in the list, or link made its node */
    uint32_t node;               /* reference of `found`, or after link of the node made; 0: the
                                    caller knew the node */
    uint32_t height;             /* of the node, if one is made */
    struct skiplist_writer *writer;
    struct skiplist_writer stray; /* used by threads without a slot */
};

/* `nodes` and `values` are lent and may be the same arena. order NULL: byte order everywhere. */
void skiplist_init(struct skiplist *s, struct arena *nodes, struct arena *values,
                   skiplist_order_fn *order, void *order_ctx);

/* The memory that inserts take at most, but for the heights of nodes: each a node, and a version on top of
 * another. Begins with zeros. */
struct skiplist_need {
    uint64_t count;         /* inserts */
    uint64_t nodes, values; /* bytes in each arena */
};
/* One insert more. */
void skiplist_need_add(struct skiplist_need *need, uint32_t ks, size_t key_size, uint64_t value_size);
/* Bytes, with heights as they mostly are. */
uint64_t skiplist_cost(const struct skiplist_need *need);
/* After LOAM_OK the calling thread's next inserts, those of the need in any order, cannot fail. Until then it does
 * not call thread_slot_detach(). LOAM_E_BUDGET or E_NOMEM. */
int skiplist_ensure(struct skiplist *s, const struct skiplist_need *need);

/* Adding a version takes two steps, so that the caller can make the key known elsewhere (a filter)
 * between the search and the first link, and can leave out the search when it knows the node. One
 * thread does both, with nothing between that inserts into the same list. REQUIRES: key <= 65535
 * bytes, value <= 1 GiB; (key, tag) is not in the list. link copies key and value. LOAM_OK;
 * LOAM_E_BUDGET or E_NOMEM: nothing was added. */
void skiplist_locate(struct skiplist *s, const struct skiplist_target *t, struct skiplist_place *p);
/* The same for a key whose search was begun, by the same thread. Other inserts, of this thread too, may have come
 * in between: those of the same key are found. */
void skiplist_locate_ahead(struct skiplist *s, struct skiplist_ahead *a, struct skiplist_place *p);
/* Begins one: true; false: it is not worth it, as keys come in order, or not possible. At most one for each insert
 * that the thread has ensured. The target's key is lent until it is located. */
bool skiplist_ahead_begin(struct skiplist *s, const struct skiplist_target *t, struct skiplist_ahead *a);
/* Goes on, if steps are left. Between two of them something else is to be done, so that what the first one has
 * fetched is there: searches of several keys by turns. */
void skiplist_ahead_step(const struct skiplist *s, struct skiplist_ahead *a);
/* locate for a key whose node is known, from skiplist_match. */
void skiplist_locate_node(struct skiplist *s, struct skiplist_node *n, struct skiplist_place *p);
int skiplist_link(struct skiplist *s, struct skiplist_place *p, uint64_t tag, loam_slice value);
/* link for a key that has no version yet, or a delete older than tag as the newest: else LOAM_E_EXISTS
 * (no error is recorded), and *in_way is the newest version. Of those who race one links. */
int skiplist_link_new(struct skiplist *s, struct skiplist_place *p, uint64_t tag, loam_slice value,
                      struct entry *in_way);

/* The order of a keyspace; NULL: of bytes. */
static inline const loam_comparator *skiplist_order(const struct skiplist *s, uint32_t ks)
{
    return s->order != NULL ? s->order(s->order_ctx, ks) : NULL;
}
/* The target in a keyspace of this order. */
static inline struct skiplist_target skiplist_target_in(const loam_comparator *cmp, uint32_t ks,
                                                        loam_slice key)
{
    return (struct skiplist_target){.prefix = key_prefix64(key.data, key.size),
                                    .data = key.data,
                                    .size = key.size,
                                    .cmp = cmp,
                                    .ks = ks};
}
static inline struct skiplist_target skiplist_target(const struct skiplist *s, uint32_t ks,
                                                     loam_slice key)
{
    return skiplist_target_in(skiplist_order(s, ks), ks, key);
}
/* The node under the reference, if it holds the target, else NULL. */
struct skiplist_node *skiplist_match(const struct skiplist *s, uint32_t ref,
                                     const struct skiplist_target *t);
/* The node of the target, or NULL. */
struct skiplist_node *skiplist_find(const struct skiplist *s, const struct skiplist_target *t);
/* The version of a node as in skiplist_get. */
int skiplist_node_get(const struct skiplist *s, const struct skiplist_node *n, uint64_t max_tag,
                      struct entry *e);
/* The newest version of key with a tag <= max_tag. LOAM_OK or LOAM_NOTFOUND. */
int skiplist_get(const struct skiplist *s, uint32_t ks, loam_slice key, uint64_t max_tag,
                 struct entry *e);

uint64_t skiplist_count(const struct skiplist *s); /* entries; exact when no insert runs */
bool skiplist_empty(const struct skiplist *s);
int skiplist_next_ks(const struct skiplist *s, uint32_t ks, uint32_t *found);

/* Verifies the invariants; REQUIRES: no insert runs. Returns NULL or the sentence that is broken.
 * For tests. */
const char *skiplist_check(const struct skiplist *s);

struct skiplist_cursor {
    const struct skiplist *list;
    const loam_comparator *cmp;
    const struct skiplist_node *node; /* NULL: off the end */
    const struct skiplist_version *version;
    uint32_t ks;
    /* Read-ahead: places in the next stretches between nodes of height 2, nearest first, and the start
     * of the last of them. Hints only. */
    uint32_t lanes;
    const struct skiplist_node *lane[SKIPLIST_LANES];
    const struct skiplist_node *scout;
};
void skiplist_cursor_init(struct skiplist_cursor *c, const struct skiplist *s, uint32_t ks);
/* The same for whom knows the order of the keyspace. */
void skiplist_cursor_init_in(struct skiplist_cursor *c, const struct skiplist *s, uint32_t ks,
                             const loam_comparator *cmp);
bool skiplist_cursor_first(struct skiplist_cursor *c);
bool skiplist_cursor_last(struct skiplist_cursor *c);
bool skiplist_cursor_seek(struct skiplist_cursor *c, loam_slice key, uint64_t tag);
bool skiplist_cursor_seek_before(struct skiplist_cursor *c, loam_slice key, uint64_t tag);
bool skiplist_cursor_next(struct skiplist_cursor *c);
bool skiplist_cursor_prev(struct skiplist_cursor *c);
bool skiplist_cursor_next_key(struct skiplist_cursor *c);
void skiplist_cursor_entry(const struct skiplist_cursor *c, struct entry *e);
static inline bool skiplist_cursor_valid(const struct skiplist_cursor *c)
{
    return c->node != NULL;
}

#endif
