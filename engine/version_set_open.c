/* version_set_open.c - Creates and recovers databases, orders keyspaces, cleans the directory.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/version_set.h"

#include <errno.h>
#include <string.h>

#include "arena/status.h"
#include "engine/manifest_replay.h"
#include "engine/sort.h"
#include "engine/table_cache.h"

#include "arena/poison.h"

#define READ_ONLY_ATTEMPTS 5 /* a writer may replace the manifest while we read it */

/* ---- opening --------------------------------------------------------------------------------- */

static void set_db_id(struct version_set *vs, uint64_t db_id)
{
    vs->db_id = db_id;
    if (vs->options.cache != NULL) {
        vs->options.cache->db_id = db_id;
    }
}

int version_set_make(struct version_set *vs, struct version_edit *first)
{
    uint64_t db_id = 0;
    int neg = vs->options.vfs->random(vs->options.vfs->ctx, &db_id, sizeof db_id);
    if (neg < 0) {
        return FAIL_IO(neg, 0, 0, "no random number for the database's id");
    }
    set_db_id(vs, db_id != 0 ? db_id : 1); /* 0 means "none" in files' headers */
    for (uint32_t i = 0; i < first->created_count; i++) {
        uint64_t next = atom_load(&vs->next_ks, relaxed); /* relaxed: no other thread yet */
        if (first->created[i].id >= next) {
            atom_store(&vs->next_ks, (uint64_t)first->created[i].id + 1, relaxed);
        }
    }
    mutex_lock(&vs->mu);
    int rc = version_set_apply_locked_(vs, first);
    mutex_unlock(&vs->mu);
    return rc;
}

struct leftovers {
    bool database; /* something is there that only a complete database has */
};

static int check_leftover(void *arg, loam_slice name)
{
    struct leftovers *l = arg;
    enum file_kind kind;
    uint64_t number;
    if (filename_parse(name, &kind, &number)) {
        /* CURRENT is durable before the first log or table, and before a second manifest. */
        l->database = l->database || kind == FILE_TABLE || kind == FILE_LOG ||
                      (kind == FILE_MANIFEST && number > 1);
    }
    return 0;
}

/* CURRENT is not there: no database, or a damaged one. */
static int no_current(struct version_set *vs)
{
    struct leftovers l = {false};
    int neg = vs->options.vfs->list(vs->options.vfs->ctx, vs->dir, check_leftover, &l);
    if (neg < 0 && neg != -ENOENT && neg != -ENOTDIR) {
        return FAIL_IO(neg, 0, 0, "cannot list the database directory");
    }
    if (l.database) {
        return FAIL_CORRUPT(0, 0, "CURRENT is missing beside files of a database");
    }
    return FAIL(LOAM_E_NOENT, "no database here");
}

static int install_replay(struct version_set *vs, struct manifest_replay *r)
{
    struct keyspace_change change;
    int rc = keyspace_change_prepare(&vs->keyspaces, &r->keyspaces, r->file_id, &change);
    if (rc != LOAM_OK) {
        return rc;
    }
    keyspace_change_commit(&vs->keyspaces, &change);
    uint32_t count = r->table_count;
    struct table **tables = manifest_replay_take(r);
    if (tables == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for %u tables", count);
    }
    vs->build.file_id = r->file_id;
    struct version *v = NULL;
    rc = version_of_tables(&vs->build, tables, count, &v);
    for (uint32_t i = 0; rc != LOAM_OK && i < count; i++) {
        table_free(tables[i]);
    }
    alloc_put(vs->options.alloc, MEM_VERSION, tables, count * sizeof(struct table *));
    if (rc == LOAM_OK) {
        version_set_publish_(vs, v);
        atom_store(&vs->next_file, r->next_file, relaxed); /* relaxed: no other thread yet */
        atom_store(&vs->next_ks, r->next_ks, relaxed);     /* likewise */
        vs->manifest_number = r->file_id;
        vs->log_number = r->log_number;
        vs->log_none = r->log_none;
        vs->last_seq = r->last_seq;
        vs->log_seq = r->log_seq;
        vs->sealed = r->sealed;
        vs->sealed_number = r->sealed_number;
        vs->sealed_position = r->sealed_position;
        version_edit_move_dead(&vs->known, &r->keyspaces);
    }
    return rc;
}

/* Of no weight when it cannot be opened: then the first edit starts a new one. */
static void continue_manifest(struct version_set *vs, const struct manifest_end *end)
{
    if (!vs->options.read_only && end->closed && manifest_continue(&vs->manifest, end) == LOAM_OK) {
        version_set_limit_manifest_(vs);
    }
}

static int recover_once(struct version_set *vs)
{
    struct manifest_current current;
    int rc = manifest_read_current(vs->options.vfs, vs->dir, &current);
    if (rc != LOAM_OK) {
        return rc == LOAM_E_NOENT ? no_current(vs) : rc;
    }
    struct manifest_replay r;
    manifest_replay_init(&r, vs->options.alloc);
    rc = manifest_replay_run(&r, vs->options.vfs, vs->dir, &current);
    if (rc == LOAM_OK) {
        rc = manifest_replay_check_files(&r, vs->options.vfs, vs->dir);
    }
    if (rc == LOAM_OK) {
        set_db_id(vs, current.db_id);
        rc = install_replay(vs, &r);
    }
    if (rc == LOAM_OK) {
        continue_manifest(vs, &r.end);
    }
    manifest_replay_free(&r);
    return rc;
}

int version_set_recover(struct version_set *vs)
{
    mutex_lock(&vs->mu);
    int rc = recover_once(vs);
    /* Without the lock a writer may remove the manifest or a table between two of our steps. */
    for (int i = 1; vs->options.read_only && rc == LOAM_E_CORRUPT && i < READ_ONLY_ATTEMPTS &&
                    keyspace_table_count(&vs->keyspaces) == 0;
         i++) {
        rc = recover_once(vs);
    }
    mutex_unlock(&vs->mu);
    return rc;
}

/* ---- keyspaces and files --------------------------------------------------------------------- */

struct given_order {
    struct version_order others;
    uint32_t ks;
    const loam_comparator *cmp;
};

static bool find_given_order(void *ctx, uint32_t ks, const loam_comparator **cmp)
{
    struct given_order *g = ctx;
    if (ks != g->ks) {
        return g->others.find(g->others.ctx, ks, cmp);
    }
    *cmp = g->cmp;
    return true;
}

static int order_ks_locked(struct version_set *vs, struct keyspace *k, const loam_comparator *cmp)
{
    if (atom_load(&k->ordered, acquire)) { /* acquire: as in keyspace_order_find() */
        return LOAM_OK;
    }
    struct given_order given = {.others = vs->build.order, .ks = k->id, .cmp = cmp};
    struct version_build build = vs->build;
    build.order = (struct version_order){find_given_order, &given};
    build.file_id = vs->manifest_number;
    const struct version *base = version_set_current(vs);
    if (version_ks(base, k->id) != NULL) {
        struct version *v;
        int rc = version_reorder(&build, base, k->id, &v);
        if (rc != LOAM_OK) {
            return rc;
        }
        version_set_publish_(vs, v);
    }
    atom_store(&k->cmp, cmp, relaxed); /* relaxed: the release below publishes it */
    /* release: pairs with the acquire in keyspace_order_find(). */
    atom_store(&k->ordered, true, release);
    return LOAM_OK;
}

int version_set_order_ks(struct version_set *vs, uint32_t id, const loam_comparator *cmp)
{
    struct keyspace *k = keyspace_get(&vs->keyspaces, id);
    if (k == NULL) {
        return FAIL(LOAM_E_NOENT, "no keyspace with id %u", id);
    }
    int rc;
    if (strcmp(k->comparator, cmp != NULL ? cmp->name : "") != 0) {
        rc = FAIL(LOAM_E_FORMAT, "keyspace %u has another comparator: \"%s\"", id, k->comparator);
    } else {
        mutex_lock(&vs->mu);
        rc = order_ks_locked(vs, k, cmp);
        mutex_unlock(&vs->mu);
    }
    keyspace_put(k);
    return rc;
}

struct live_files {
    uint64_t *tables; /* ascending numbers */
    uint64_t count;
    uint64_t manifest, log_number, next_file;
    bool (*keep_log)(void *ctx, uint64_t number);
    void *ctx;
};

static bool is_live(void *arg, enum file_kind kind, uint64_t number)
{
    const struct live_files *l = arg;
    if (kind == FILE_MANIFEST) {
        return number == l->manifest;
    }
    if (kind == FILE_LOG) {
        return l->keep_log != NULL ? l->keep_log(l->ctx, number) : number >= l->log_number;
    }
    if (kind != FILE_TABLE) {
        return false;
    }
    uint64_t lo = 0;
    uint64_t hi = l->count;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (l->tables[mid] < number) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < l->count && l->tables[lo] == number;
}

static void collect_live(const struct version *v, struct live_files *l)
{
    for (uint32_t k = 0; k < v->ks_count; k++) {
        for (int n = 0; n < LEVEL_COUNT; n++) {
            const struct level *level = &v->ks[k]->level[n];
            for (uint32_t i = 0; i < level->count; i++) {
                l->tables[l->count++] = level->tables[i]->meta.number;
            }
        }
    }
    sort_numbers(l->tables, (size_t)l->count);
}

int version_set_clean_directory(struct version_set *vs,
                                bool (*keep_log)(void *ctx, uint64_t number), void *ctx)
{
    if (vs->options.obsolete == NULL) {
        return LOAM_OK;
    }
    /* The lock keeps edits out, so that no table is added behind the list's back; files that are
     * still being written are the caller's business: none may be, yet. */
    mutex_lock(&vs->mu);
    const struct version *v = version_set_current(vs);
    size_t bytes = (size_t)version_table_count(v) * sizeof(uint64_t);
    struct live_files live = {.manifest = vs->manifest_number,
                              .log_number = vs->log_number,
                              .keep_log = keep_log,
                              .ctx = ctx};
    live.tables = alloc_get(vs->options.alloc, MEM_VERSION, bytes);
    int rc = LOAM_OK;
    if (live.tables == NULL) {
        rc = FAIL(LOAM_E_NOMEM, "no memory to clean the directory");
    } else if (!version_set_in_doubt(vs) && manifest_is_open(&vs->manifest)) {
        collect_live(v, &live);
        rc = obsolete_files_scan(vs->options.obsolete, is_live, &live);
    }
    alloc_put(vs->options.alloc, MEM_VERSION, live.tables, bytes);
    mutex_unlock(&vs->mu);
    return rc;
}
