/* check_open.c - An open database: its version's tables, its manifest and its log, beside all that goes on.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A reference keeps the version's tables from being deleted, not from being superseded: the check is of
 * the moment it began. It rests as long as it works, so that it takes half a disk and half a core at
 * most, and it ends when the database is being closed.
 */
#include "arena/status.h"
#include "engine/check.h"
#include "engine/manifest_replay.h"

#include "arena/poison.h"

#define REST_MAX_US 50000u /* at once; what is owed beyond it is forgotten */

struct open_check {
    struct check c;
    struct db *db;
    uint64_t worked_since;           /* micros */
    char name[256], comparator[256]; /* of the keyspace found last */
};

static bool find_ks(void *arg, uint32_t id, struct check_ks *out)
{
    struct open_check *o = arg;
    struct keyspace *k = keyspace_get(&o->db->versions.keyspaces, id);
    if (k == NULL) {
        return false; /* dropped meanwhile */
    }
    size_t n = keyspace_name(k, o->name);
    size_t cmp_n = strnlen(k->comparator, sizeof o->comparator);
    memcpy(o->comparator, k->comparator, cmp_n);
    /* acquire: as in keyspace_order_find() */
    bool ordered = atom_load(&k->ordered, acquire);
    *out = (struct check_ks){loam_bytes(o->name, n), loam_bytes(o->comparator, cmp_n),
                             ordered ? atom_load(&k->cmp, relaxed) : NULL};
    keyspace_put(k);
    return true;
}

static int rest(void *arg, uint64_t bytes)
{
    struct open_check *o = arg;
    (void)bytes;
    if (atom_load(&o->db->stopping, relaxed)) { /* relaxed: a wish */
        return FAIL(LOAM_E_CLOSED, "the database is being closed");
    }
    uint64_t now = clock_micros();
    uint64_t worked = now - o->worked_since;
    if (worked >= 1000) {
        thread_sleep_micros(worked < REST_MAX_US ? worked : REST_MAX_US);
        o->worked_since = clock_micros();
    }
    return LOAM_OK;
}

static bool always_named(void *arg, uint64_t table)
{
    (void)arg, (void)table;
    return true;
}

/* The manifest's state against what is in memory. The caller holds the version set's mutex. */
static int compare_state(const struct db *db, struct manifest_replay *r,
                         const struct manifest_current *current)
{
    const struct version_set *vs = &db->versions;
    const struct version *v = version_set_current(vs);
    bool same = current->db_id == vs->db_id && current->number == vs->manifest_number &&
                r->table_count == version_table_count(v) && r->log_number == vs->log_number &&
                r->last_seq == vs->last_seq;
    for (uint32_t k = 0; k < v->ks_count && same; k++) {
        for (int n = 0; n < LEVEL_COUNT && same; n++) {
            const struct level *l = &v->ks[k]->level[n];
            for (uint32_t i = 0; i < l->count && same; i++) {
                same = manifest_replay_names(r, l->tables[i]->meta.number);
            }
        }
    }
    return same ? LOAM_OK
                : FAIL_CORRUPT(vs->manifest_number, 0,
                               "the manifest in force does not say what is in memory");
}

static int check_manifest(struct open_check *o)
{
    struct version_set *vs = &o->db->versions;
    struct manifest_current current = {0};
    struct manifest_replay r;
    manifest_replay_init(&r, o->c.alloc);
    mutex_lock(&vs->mu);
    int rc = manifest_read_current(o->c.vfs, o->c.dir, &current);
    bool missing = rc == LOAM_E_NOENT;
    if (missing) {
        rc = FAIL_CORRUPT(0, 0, "CURRENT is missing");
    } else if (rc == LOAM_OK) {
        rc = manifest_replay_run(&r, o->c.vfs, o->c.dir, &current);
    }
    /* In doubt, either of two manifests may be in force. */
    if (rc == LOAM_OK && !version_set_in_doubt(vs)) {
        rc = compare_state(o->db, &r, &current);
    }
    mutex_unlock(&vs->mu);
    manifest_replay_free(&r);
    if (!damage_is(rc)) {
        return rc;
    }
    damage_tell(&o->c.sink,
                &(struct damage){.kind = current.number != 0 ? FILE_MANIFEST : FILE_CURRENT,
                                 .number = current.number,
                                 .code = missing ? LOAM_E_NOENT : 0,
                                 .offset = loam_last_error()->offset,
                                 .keys = DAMAGE_KEYS_UNKNOWN});
    return LOAM_OK;
}

static int check_tables(struct open_check *o, const struct version *v)
{
    int rc = LOAM_OK;
    for (uint32_t k = 0; k < v->ks_count && rc == LOAM_OK; k++) {
        for (int n = 0; n < LEVEL_COUNT && rc == LOAM_OK; n++) {
            const struct level *l = &v->ks[k]->level[n];
            for (uint32_t i = 0; i < l->count && rc == LOAM_OK && !o->c.sink.stopped; i++) {
                rc = check_table(&o->c, &l->tables[i]->meta);
            }
        }
    }
    return rc;
}

/* The segments that hold what no table does. */
static bool log_moved(void *arg, struct log_chain_options *o)
{
    struct version_set *vs = &((struct open_check *)arg)->db->versions;
    mutex_lock(&vs->mu);
    o->first_needed = vs->log_number;
    o->none = vs->log_none;
    o->last_seq = vs->last_seq;
    o->next_ks = version_set_next_ks(vs);
    mutex_unlock(&vs->mu);
    return true;
}

static int check_log(struct open_check *o)
{
    struct db *db = o->db;
    struct log_chain_options log = {.vfs = db->vfs,
                                    .dir = db->dir,
                                    .alloc = &db->alloc,
                                    .db_id = db->versions.db_id,
                                    .upto = db->logging ? wal_durable(&db->wal) : db->replayed_end};
    log_moved(o, &log);
    return check_logs(&o->c, &log, log_moved);
}

int check_open(struct db *db, loam_damage_fn fn, void *ctx)
{
    struct open_check o = {
        .c = {.vfs = db->vfs,
              .dir = db->dir,
              .alloc = &db->alloc,
              .db_id = db->versions.db_id,
              .sink = {.fn = fn, .ctx = ctx},
              .ks = find_ks,
              .in_use = true,
              .pace = rest,
              .named = always_named,
              .arg = &o},
        .db = db,
        .worked_since = clock_micros(),
    };
    if (db->readonly) {
        /* Somebody else's files, which may have moved on: the directory is what there is to check. */
        struct keyspace *k = keyspace_get(&db->versions.keyspaces, KS_DEFAULT);
        const loam_comparator *cmp = k != NULL ? atom_load(&k->cmp, relaxed) : NULL;
        keyspace_put(k);
        return check_directory_paced(&o.c, cmp);
    }
    struct version *v = version_set_ref_current(&db->versions);
    int rc = check_manifest(&o);
    if (rc == LOAM_OK && !o.c.sink.stopped) {
        rc = check_tables(&o, v);
    }
    if (rc == LOAM_OK && !o.c.sink.stopped) {
        rc = check_log(&o);
    }
    const loam_error e = *loam_last_error();
    version_unref(v);
    return rc == LOAM_OK ? damage_result(&o.c.sink) : rc < 0 ? status_raise(&e) : rc;
}
