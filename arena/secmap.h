/* secmap.h - A second value under the handles of a slotmap, kept in parallel pages.
 * SPDX-License-Identifier: Apache-2.0
 *
 *     entry   generation:32 | version:30 | state:2, value     16 bytes; pages as in slotmap.h
 *
 * An entry belongs to the newest generation that was ever set in it; an older handle is refused,
 * never taken for the new one. Values are 64-bit words; the map owns nothing they may point to.
 *
 * Ordering guarantees
 *   What was written before a set is visible after the get that returns its value.
 * Progress guarantees
 *   set and del take the entry by one compare-and-swap and hold it for four stores; others at the
 *   same entry spin meanwhile. get retries when the entry changed under it. Entries do not affect
 *   one another. A new page comes from the system.
 */
#ifndef LOAM_ARENA_SECMAP_H_
#define LOAM_ARENA_SECMAP_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena/alloc.h"
#include "arena/slotmap.h"

struct secmap {
    char *_Atomic page[SLOTMAP_PAGES + 1]; /* the last one stays NULL */
    struct alloc *alloc;                   /* constant after init */
    unsigned kind;                         /* constant after init */
    _Atomic uint64_t count;
};

/* kind: that of the handles. Allocates nothing. LOAM_OK or LOAM_E_INVAL. */
int secmap_init(struct secmap *s, struct alloc *a, unsigned kind);
void secmap_destroy(struct secmap *s); /* quiescent */

/* Sets the value of h, replacing that of h or of an older generation of its slot. Any thread.
 * Returns: LOAM_OK; LOAM_E_CLOSED: a newer generation was set before; LOAM_E_INVAL: null or
 * foreign; LOAM_E_NOMEM. */
int secmap_set(struct secmap *s, uint64_t h, uint64_t value);
/* LOAM_OK and *value; LOAM_NOTFOUND: nothing set for h; LOAM_E_CLOSED: the entry has a newer
 * generation; LOAM_E_INVAL. Any thread. */
int secmap_get(const struct secmap *s, uint64_t h, uint64_t *value);
/* Removes the value of h; *value (may be NULL) receives it. Returns as get. */
int secmap_del(struct secmap *s, uint64_t h, uint64_t *value);
bool secmap_contains(const struct secmap *s, uint64_t h);
size_t secmap_len(const struct secmap *s); /* values set, those of stale handles included */

/* Calls fn for each value until it returns false; weakly consistent. Returns the calls made. */
size_t secmap_foreach(const struct secmap *s, bool (*fn)(void *arg, uint64_t h, uint64_t value),
                      void *arg);
/* Removes what keep() refuses; what changes meanwhile is kept. Returns how many. */
size_t secmap_retain(struct secmap *s, bool (*keep)(void *arg, uint64_t h, uint64_t value),
                     void *arg);
size_t secmap_clear(struct secmap *s);
/* Removes the values whose handle is not live in m. Returns how many. */
size_t secmap_sweep(struct secmap *s, struct slotmap *m);

#endif
