/* version_set.h - The current version, the keyspaces and the counters; changed durably, edit by edit.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   version_set_apply(edit): build version n+1 -> manifest: append, sync -> publish `current`
 *
 * Order of opening: version_set_create(), then version_set_recover(), or version_set_make() when that
 * gave LOAM_E_NOENT. Neither recover nor anything else writes before the first apply, which starts a
 * manifest of its own, and so settles whatever a crash left in the old one. The sealed log of a clean
 * close is known until then; the first apply forgets it, so that apply must come before the first
 * record is written to a log.
 *
 * When an apply fails, nothing has changed in memory. On disk one of three things is true:
 *  - the edit is not there: an error without LOAM_ERR_UNKNOWN;
 *  - it may be there (a manifest append or the switch of CURRENT failed, and the attempt to replace
 *    the manifest by a new one failed too): the error has LOAM_ERR_UNKNOWN | LOAM_ERR_STICKY and
 *    version_set_in_doubt() is true. Nothing must be acknowledged on top of it until an apply or
 *    version_set_resume() succeeds; either writes a new manifest, which says exactly what is in
 *    memory.
 * In all cases the files of the tables that the edit would have added (moves excepted) are the set's
 * from then on: it queues them as obsolete as soon as no manifest can name them.
 *
 * Threads: apply, resume and close_clean are serialised by `mu` (RANK_MANIFEST) and do I/O under it.
 * Reading `current` takes no lock.
 */
#ifndef LOAM_ENGINE_VERSION_SET_H_
#define LOAM_ENGINE_VERSION_SET_H_

#include "arena/sync.h"
#include "arena/vfs.h"
#include "engine/keyspace_table.h"
#include "engine/manifest.h"
#include "engine/obsolete_files.h"
#include "engine/version_build.h"

struct table_cache;

struct version_set_options {
    const loam_vfs *vfs;
    const char *dir; /* copied */
    struct alloc *alloc;
    struct table_cache *cache;       /* closes the readers of obsolete tables. NULL: none is opened */
    struct obsolete_files *obsolete; /* gets the files of obsolete tables. NULL: they stay */
    uint64_t manifest_bytes; /* start a new manifest beyond this size, and beyond 4 times its own
                                snapshot; 0 = 1 MiB. Larger: longer open, fewer rewrites */
    bool read_only;          /* apply and make are refused */
};

struct version_set {
    /* constant after create */
    struct version_set_options options;
    char *dir;
    struct version_build build;
    /* constant after recover or make */
    uint64_t db_id;
    /* guarded by mu */
    struct mutex mu;
    struct manifest manifest;
    uint64_t manifest_number; /* in force, as far as is known */
    uint64_t last_seq, log_number;
    uint64_t log_seq; /* up to it tables hold all; from there to last_seq those alone of some keyspaces */
    bool log_none; /* no segment of that number was made */
    bool sealed; /* recovered from a clean close, no edit since */
    bool closed;
    uint64_t sealed_number, sealed_position;
    struct version_edit known; /* its `dead` alone: see dead_known.h */
    uint64_t roll_at;              /* manifest size that makes the next apply start a new one */
    struct obsolete_file *doubtful; /* to be deleted once the manifest is certain */
    uint32_t doubtful_count, doubtful_cap;
    struct table *zombies; /* obsolete, but their open reader is pinned */
    /* atomic */
    _Atomic(struct version *) current;
    _Atomic uint64_t next_file;
    _Atomic uint64_t next_ks;
    _Atomic bool in_doubt; /* written under mu */
    struct version_graveyard graveyard;
    struct keyspace_table keyspaces;
};

/* Touches no file. LOAM_OK, LOAM_E_INVAL, LOAM_E_NOMEM. */
int version_set_create(struct version_set *vs, const struct version_set_options *o);
/* REQUIRES: quiescent: no section, reference, pin or iterator. Writes nothing. */
void version_set_destroy(struct version_set *vs);

/* Reads CURRENT and its manifest; writes nothing. LOAM_E_NOENT: no database here (a half-created one
 * counts as none); LOAM_E_FORMAT; LOAM_E_CORRUPT with file and offset, also for a table file that is
 * missing. After an error only destroy is allowed, or make after LOAM_E_NOENT. */
int version_set_recover(struct version_set *vs);
/* Creates the database with `first` (the default keyspace, say) as its first edit.
 * REQUIRES: recover gave LOAM_E_NOENT. May be tried again after an error. */
int version_set_make(struct version_set *vs, struct version_edit *first);

/* Makes the edit durable, then current. Sets the edit's next_file. Tables of keyspaces that were
 * dropped meanwhile are taken out of the edit and their files queued as obsolete.
 * REQUIRES: added tables are synced, and so are their names in the directory. */
int version_set_apply(struct version_set *vs, struct version_edit *e);
/* Settles a doubt by writing a new manifest. LOAM_OK at once when there is none. */
int version_set_resume(struct version_set *vs);
bool version_set_in_doubt(const struct version_set *vs);
/* The last edit of a clean close: the log ends at `position` in segment `number` (0: no log), and the
 * manifest at its present size; it takes `known` along. Nothing may be applied afterwards. */
int version_set_close_clean(struct version_set *vs, uint64_t number, uint64_t position);

/* Valid until the caller's epoch section ends. */
static inline struct version *version_set_current(const struct version_set *vs)
{
    /* acquire: pairs with the release in version_set_publish_(); makes the version's contents visible. */
    return atom_load(&vs->current, acquire);
}
/* The current version with a reference for the caller. */
struct version *version_set_ref_current(struct version_set *vs);
/* Bytes of all tables of the current version. Any thread. */
uint64_t version_set_bytes(struct version_set *vs);

uint64_t version_set_new_file(struct version_set *vs); /* a number never used before. Any thread */
uint64_t version_set_new_ks_id(struct version_set *vs); /* likewise; above KS_ID_MAX: none is left */
uint32_t version_set_next_ks(const struct version_set *vs); /* every id given out is below it */
/* Every number below it may have been used; for choosing names of recycled files. */
uint64_t version_set_next_file(const struct version_set *vs);
uint64_t version_set_last_seq(struct version_set *vs);
uint64_t version_set_log_number(struct version_set *vs);
bool version_set_log_none(struct version_set *vs); /* there is no file of that number */
/* True when the database was closed cleanly and no edit has been made since. number 0: no log. */
bool version_set_sealed(struct version_set *vs, uint64_t *number, uint64_t *position);

/* Keyspaces: keyspace_table.h on &vs->keyspaces. Here: the comparator of a keyspace whose name of a
 * comparator is not empty, given at its first open. LOAM_OK, LOAM_E_FORMAT when the names differ (cmp
 * NULL: byte order), LOAM_E_CORRUPT when the tables do not fit that order. Checks the name also when
 * the comparator is known already. */
int version_set_order_ks(struct version_set *vs, uint32_t id, const loam_comparator *cmp);

/* Frees versions that nobody can reach, closes the readers of obsolete tables and queues their files
 * (obsolete_files_purge() deletes them). Skips when an apply is running, which does the same at its
 * end. For background threads, after jobs and now and then; not inside an epoch section. */
void version_set_reap(struct version_set *vs);

/* Deletes what a crash left behind: tables, manifests, temporary files that nothing names, and logs
 * for which keep_log(ctx, number) is false (NULL: those below the log number). After the first apply
 * of an open for writing. */
int version_set_clean_directory(struct version_set *vs, bool (*keep_log)(void *ctx, uint64_t number),
                                void *ctx);

/* Between version_set.c, version_set_open.c and version_set_roll.c; the caller holds mu. */
int version_set_apply_locked_(struct version_set *vs, struct version_edit *e);
/* Starts a manifest with the state of the moment and `edit` (NULL: none) and puts it in force. On
 * error the one before stays in force, or - *unsure - either may be found by the next open. */
int version_set_roll_(struct version_set *vs, struct version_edit *edit, bool *unsure);
/* Gives the edit the counters as they are now. */
/* Sets from which size on the manifest has grown long. */
void version_set_limit_manifest_(struct version_set *vs);
void version_set_stamp_(struct version_set *vs, struct version_edit *e);
/* The file is nobody's: at once, or as soon as no manifest that may be found can name it. */
void version_set_discard_(struct version_set *vs, enum file_kind kind, uint64_t number);
void version_set_doubt_(struct version_set *vs, enum file_kind kind, uint64_t number);
void version_set_publish_(struct version_set *vs, struct version *v); /* takes v's reference over */

#endif
