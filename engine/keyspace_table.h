/* keyspace_table.h - The keyspaces of a database, found by id without a lock and by name with one.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The array by id is replaced whole at each change and published by one release store; readers load
 * it inside an epoch section. A keyspace object stays the same through renames and lives until its
 * last reference is gone and an epoch has passed.
 */
#ifndef LOAM_ENGINE_KEYSPACE_TABLE_H_
#define LOAM_ENGINE_KEYSPACE_TABLE_H_

#include "arena/atomic.h"
#include "arena/sync.h"
#include "arena/vfs.h"
#include "engine/version.h"
#include "engine/version_edit.h"

struct keyspace {
    /* constant */
    uint32_t id;
    uint32_t compression, filter_bits, block_bytes;
    struct keyspace_table *table;
    char *comparator; /* its name, NUL terminated; "" = byte order */
    size_t bytes;     /* of this allocation */
    /* atomic */
    _Atomic uint32_t refs; /* one is the table's until the drop */
    _Atomic bool dropped;
    _Atomic bool ordered; /* cmp is known; from the start for byte order */
    _Atomic(const loam_comparator *) cmp; /* NULL: byte order. Set once, before `ordered` */
    _Atomic uint64_t stamp; /* epoch in which the last reference went; KEYSPACE_HELD before */
    /* guarded by the table's mutex */
    size_t name_size;
    char name[256]; /* NUL terminated */
    struct keyspace *dead_next; /* from the drop on it is in the table's list of the dead */
};
#define KEYSPACE_HELD UINT64_MAX

struct keyspace_list {
    uint32_t count;
    uint64_t stamp;
    struct keyspace_list *dead_next; /* guarded by the table's mutex */
    struct keyspace *by_id[];        /* ascending ids */
};

struct keyspace_table {
    struct alloc *alloc;
    _Atomic(struct keyspace_list *) list; /* never NULL after init */
    struct mutex mu; /* RANK_LEAF; guards names, by_name and the lists of the dead */
    struct keyspace **by_name; /* ascending names; as many as list->count */
    struct keyspace *dead;
    struct keyspace_list *dead_lists;
};

int keyspace_table_init(struct keyspace_table *t, struct alloc *a);
/* REQUIRES: quiescent; references still out are void. */
void keyspace_table_destroy(struct keyspace_table *t);

/* ---- reading --------------------------------------------------------------------------------- */

/* NULL: no such keyspace. REQUIRES: inside an epoch section, whose end ends the loan. */
struct keyspace *keyspace_find(struct keyspace_table *t, uint32_t id);
/* With a reference for the caller, or NULL. Any thread. */
struct keyspace *keyspace_get(struct keyspace_table *t, uint32_t id);
struct keyspace *keyspace_get_by_name(struct keyspace_table *t, loam_slice name);
/* One more reference. k is lent by the section; false: it is on its way out. */
bool keyspace_ref(struct keyspace *k);
void keyspace_put(struct keyspace *k); /* gives a reference back; NULL is fine */
/* The present name, NUL terminated; returns its size. */
size_t keyspace_name(struct keyspace *k, char out[256]);
/* Calls fn with a copy of each name, outside of any lock, in the order of ids. LOAM_OK,
 * LOAM_STOPPED (fn returned non-zero) or LOAM_E_NOMEM. */
int keyspace_table_names(struct keyspace_table *t, loam_name_fn fn, void *ctx);
uint32_t keyspace_table_count(struct keyspace_table *t);
/* The version_order over this table; ctx is the table. Enters its own epoch section. */
bool keyspace_order_find(void *table, uint32_t ks, const loam_comparator **cmp);

/* ---- changing: one thread at a time (the version set's mutex) -------------------------------- */

/* A change made ready so that committing it cannot fail. */
struct keyspace_change {
    struct keyspace_list *list; /* NULL: nothing changes */
    struct keyspace **by_name;
    uint32_t cap; /* of list and by_name */
    uint32_t created_count;
    struct keyspace **created;
    const struct version_edit *edit;
};

/* LOAM_OK, LOAM_E_NOMEM, or LOAM_E_CORRUPT when the edit does not fit (an id or name that is taken
 * or missing). The edit must stay until commit or abort. */
int keyspace_change_prepare(struct keyspace_table *t, const struct version_edit *e,
                            uint64_t file_id, struct keyspace_change *c);
void keyspace_change_commit(struct keyspace_table *t, struct keyspace_change *c);
void keyspace_change_abort(struct keyspace_table *t, struct keyspace_change *c);
/* Appends a "created" for every keyspace. LOAM_OK or LOAM_E_NOMEM. */
int keyspace_table_describe(struct keyspace_table *t, struct version_edit *e);
/* Frees what no section can reach any more. Any thread. */
void keyspace_table_reap(struct keyspace_table *t);

#endif
