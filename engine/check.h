/* check.h - Reads a database's files and tells of everything in them that is not as it was written.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   check_directory()   a directory, by its own manifest: CURRENT, manifest, tables, log
 *   check_open()        an open database: the tables of its version, its manifest, its log
 *     check_table()     one table against what the manifest says of it
 *     check_logs()      the live segments, judged as recovery judges them (log_chain.h)
 *
 * Files are read anew, past every cache of this library. Nothing is locked for longer than reading
 * the manifest takes, and nothing is written. Where a writer works meanwhile, a file that is gone or
 * that has changed is damage only if the manifest of that later moment still needs it.
 */
#ifndef LOAM_ENGINE_CHECK_H_
#define LOAM_ENGINE_CHECK_H_

#include "engine/damage.h"
#include "engine/db.h"
#include "engine/log_chain.h"

/* What is known of a keyspace; lent. */
struct check_ks {
    loam_slice name;
    loam_slice comparator;      /* its name */
    const loam_comparator *cmp; /* NULL: byte order, or not known */
};

struct check {
    const loam_vfs *vfs;
    const char *dir;
    struct alloc *alloc;
    uint64_t db_id;
    struct damage_sink sink;
    /* False: there is no such keyspace. */
    bool (*ks)(void *arg, uint32_t id, struct check_ks *out);
    bool in_use; /* such a keyspace was dropped meanwhile, and its tables are nobody's */
    /* Called after so many bytes read; < 0 ends the check. NULL is allowed. */
    int (*pace)(void *arg, uint64_t bytes);
    /* Whether the table is needed at this moment. */
    bool (*named)(void *arg, uint64_t table);
    void *arg;
    /* of the table being read */
    const struct table_meta *table;
    loam_slice ks_name;
};

/* LOAM_OK: all was read, what was found is in the sink. Otherwise an error that is no finding. */
int check_table(struct check *c, const struct table_meta *m);
/* A table of which only the number is known: what it says of itself. */
int check_lone_table(struct check *c, uint64_t number);
/* Fills in `record`. moved(arg, &o): the manifest's word of a later moment; false: it cannot be had, for the
 * reason in loam_last_error().
 * LOAM_OK, or an error that is no finding; LOAM_E_BUSY: a writer is faster than this. */
int check_logs(struct check *c, const struct log_chain_options *o,
               bool (*moved)(void *arg, struct log_chain_options *o));

/* The two results below: LOAM_OK, LOAM_STOPPED, the worst finding's error, or an error of the check.
 * cmp: the order of "default", or NULL. */
int check_directory(const loam_vfs *vfs, const char *dir, struct alloc *a,
                    const loam_comparator *cmp, loam_damage_fn fn, void *ctx);
/* The same of what c->vfs, dir and alloc name, telling c->sink, at c->pace. */
int check_directory_paced(const struct check *c, const loam_comparator *cmp);
/* REQUIRES: the database is pinned; no section is open. */
int check_open(struct db *db, loam_damage_fn fn, void *ctx);

#endif
