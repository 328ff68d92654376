/* repair.h - Makes a database that can be opened out of what is readable of a damaged one.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   check -> sound: done, nothing was touched
 *         -> new tables out of readable blocks, and out of log records when the log is damaged
 *         -> the damaged files get a second name, NAME.damaged
 *         -> a new manifest in force (CURRENT is switched)
 *         -> the damaged files lose their own names
 *
 * The manifest in force decides what the database is, so a crash at any point leaves the damaged
 * database or the repaired one, and repairing again ends in the same place. Files that are set aside
 * have names that are not the database's: nothing of it reads or removes them.
 *
 * With a readable manifest the tables keep their places: a damaged one is replaced by what its
 * readable blocks hold. A damaged log is read to its last readable record, across holes, and becomes
 * tables of level 0. Without a manifest all tables of the directory are taken that the readable part
 * of the newest manifest does not call removed; where tables overlap in a keyspace, they and the log
 * are merged by sequence numbers; logs are left out that the readable part says to be in tables, if it
 * has no hole and these are whole. What compactions had dropped may then show again.
 *
 * With a readable manifest a table that no readable edit names is not taken, even when it is whole and
 * newer than everything the manifest knows, and the log begins behind it. A kill never makes one that
 * is needed: the log is given up only after the edit that names the table is durable. After damage that
 * cut the manifest short, it cannot be told from a table that later, lost edits removed. Say it holds
 * a put, and a younger table held the delete; both were merged into nothing, and the younger file is
 * gone while the older one waits for its removal. Taking it would bring deleted data back, and neither its
 * numbers, nor where the log begins, nor what is left of the last edit, which no checksum covers, can
 * exclude that. So the gap in the log is told of, and stays a loss.
 */
#ifndef LOAM_ENGINE_REPAIR_H_
#define LOAM_ENGINE_REPAIR_H_

#include "engine/check.h"
#include "engine/manifest_salvage.h"
#include "engine/obsolete_files.h"
#include "sstable/sst_builder.h"

/* A damaged file. */
struct repair_aside {
    struct obsolete_file file;
    bool linked; /* this repair gave it its second name */
};

/* A flush over many keyspaces was cut off when some of them were in tables. */
struct repair_held {
    uint64_t seq; /* up to which all of the keyspace is */
    uint32_t ks;
};

struct repair {
    const loam_vfs *vfs;
    const char *dir;
    struct alloc *alloc;
    const loam_comparator *default_cmp; /* NULL: byte order, or not known */
    struct damage_sink sink;
    bool whole; /* the manifest is readable: tables keep their places */
    uint64_t db_id;
    struct version_edit state; /* the new state, as one edit */
    uint64_t next_file, last_seq;
    uint32_t next_ks;
    struct buf aside; /* struct repair_aside each */
    bool log_kept;    /* the log is sound and stays; else it becomes tables */
    struct log_chain_options log;
    uint64_t log_seq;  /* with a manifest: up to it tables hold all */
    struct buf held;   /* struct repair_held each: keyspaces of which they hold more */
    uint64_t log_from; /* without a manifest: logs below are in tables that are all there; 0: not known */
};

/* Repairs the database, with its lock held by the caller's process through this call. LOAM_OK: sound
 * or repaired; what was found went to fn. E_NOENT, E_LOCKED, E_FORMAT (a newer format: untouched), E_IO,
 * E_NOSPACE, E_NOMEM: nothing has changed. LOAM_STOPPED: fn ended it, nothing has changed. */
int repair_directory(const loam_vfs *vfs, const char *dir, struct alloc *a,
                     const loam_comparator *default_cmp, loam_damage_fn fn, void *ctx);

/* ---- parts ------------------------------------------------------------------------------------- */

/* The description of a keyspace in the new state; NULL: none. */
const struct ks_desc *repair_ks(const struct repair *r, uint32_t id);
/* Adds one that is only known by its id, under a made-up name. */
int repair_add_ks(struct repair *r, uint32_t id, loam_slice comparator);
/* Whether the order of a keyspace is known; *cmp NULL: byte order. */
bool repair_order(const struct repair *r, uint32_t id, const loam_comparator **cmp);
/* Whether an error speaks of what is on the disk, so that trying again would not help. */
bool repair_lasting(const loam_error *e);
/* Notes a file for setting aside. */
int repair_set_aside(struct repair *r, enum file_kind kind, uint64_t number);

/* repair_output.c: a table in the making; adds itself to the new state when it is finished. */
struct repair_output {
    struct repair *r;
    uint32_t ks;
    uint8_t level;
    const loam_comparator *cmp;
    loam_comparator stand_in; /* for an order that is not known: keeps the one entries come in */
    char name[256];
    struct sst_builder *builder; /* NULL: none begun */
    uint64_t number;
    struct buf last; /* key added last */
    uint64_t last_tag;
    uint64_t entries;
};
/* by_bytes: in byte order whatever the keyspace's is, as entries are whose order is not known yet. */
void repair_output_init(struct repair_output *o, struct repair *r, uint32_t ks, uint8_t level,
                        bool by_bytes);
/* The same version again is passed over. Cuts between keys when a table is large enough. */
int repair_output_add(struct repair_output *o, const struct entry *e);
int repair_output_finish(struct repair_output *o);
void repair_output_free(struct repair_output *o);

/* repair_table.c: takes a table into the new state, whole or what is left of it. m->smallest NULL:
 * only its number is known. */
int repair_table(struct repair *r, const struct table_meta *m);
/* repair_log.c: all readable records of the segments from r->log.first_needed on become tables. */
int repair_log(struct repair *r);
/* Before that, for each table of the manifest: remembers what of the log it holds. */
int repair_note_held(struct repair *r, const struct table_meta *m);
/* repair_merge.c: puts the state's tables where they may stand, merging those that overlap. */
int repair_place(struct repair *r);
/* Whether they may stand where the state has them. LOAM_OK or LOAM_E_NOMEM. */
int repair_fits(struct repair *r, bool *fit);

#endif
