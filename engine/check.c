/* check.c - A whole directory: CURRENT, the manifest, every table it names, the log.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/check.h"

#include <errno.h>
#include <string.h>

#include "arena/status.h"
#include "engine/manifest_replay.h"

#include "arena/poison.h"

#define MANIFEST_ATTEMPTS 4 /* a writer may replace the manifest while it is read */
#define REST_US           200u

struct directory_check {
    struct check c;
    const struct check *whose; /* its pace is kept */
    const loam_comparator *default_cmp;
    struct manifest_current current;
    struct manifest_replay replay;
    struct table **tables; /* Owns */
    uint32_t table_count;
};

/* ---- the manifest's word ----------------------------------------------------------------------- */

static bool find_ks(void *arg, uint32_t id, struct check_ks *out)
{
    const struct directory_check *d = arg;
    const struct version_edit *k = &d->replay.keyspaces;
    for (uint32_t i = 0; i < k->created_count; i++) {
        if (k->created[i].id != id) {
            continue;
        }
        *out = (struct check_ks){k->created[i].name, k->created[i].comparator, NULL};
        const loam_comparator *cmp = id == KS_DEFAULT ? d->default_cmp : NULL;
        if (cmp != NULL &&
            bytes_compare(out->comparator, loam_bytes(cmp->name, strlen(cmp->name))) == 0) {
            out->cmp = cmp;
        }
        return true;
    }
    return false;
}

/* The order of a keyspace for version_of_tables(); false leaves its tables unordered. */
static bool find_order(void *arg, uint32_t id, const loam_comparator **cmp)
{
    struct check_ks ks;
    if (!find_ks(arg, id, &ks)) {
        return false;
    }
    *cmp = ks.cmp;
    return ks.comparator.size == 0 || ks.cmp != NULL;
}

/* The state of this moment, to be freed with manifest_replay_free() in any case. */
static int read_again(const struct directory_check *d, struct manifest_replay *r)
{
    struct manifest_current current;
    manifest_replay_init(r, d->c.alloc);
    int rc = manifest_read_current(d->c.vfs, d->c.dir, &current);
    return rc == LOAM_OK ? manifest_replay_run(r, d->c.vfs, d->c.dir, &current) : rc;
}

static bool still_named(void *arg, uint64_t table)
{
    struct manifest_replay r;
    bool named = read_again(arg, &r) != LOAM_OK || manifest_replay_names(&r, table);
    manifest_replay_free(&r);
    return named;
}

static void log_options(const struct check *c, const struct manifest_replay *r,
                        struct log_chain_options *o)
{
    *o = (struct log_chain_options){.vfs = c->vfs,
                                    .dir = c->dir,
                                    .alloc = c->alloc,
                                    .db_id = c->db_id,
                                    .first_needed = r->log_number,
                                    .none = r->log_none,
                                    .last_seq = r->last_seq,
                                    .next_ks = r->next_ks,
                                    .sealed = r->sealed,
                                    .sealed_number = r->sealed_number,
                                    .sealed_position = r->sealed_position,
                                    .record = o->record,
                                    .ctx = o->ctx};
}

static bool log_moved(void *arg, struct log_chain_options *o)
{
    struct directory_check *d = arg;
    struct manifest_replay r;
    bool read = read_again(d, &r) == LOAM_OK;
    if (read) {
        log_options(&d->c, &r, o);
    }
    manifest_replay_free(&r);
    return read;
}

/* ---- parts ------------------------------------------------------------------------------------- */

static void tell_manifest(struct directory_check *d, enum file_kind kind, int code)
{
    damage_tell(&d->c.sink, &(struct damage){.kind = kind,
                                             .number = d->current.number,
                                             .code = code,
                                             .offset = loam_last_error()->offset,
                                             .keys = DAMAGE_KEYS_UNKNOWN});
}

struct directory_walk {
    struct buf tables; /* numbers */
    bool database;     /* something is there that only a complete database has */
};

static int note_file(void *arg, loam_slice name)
{
    struct directory_walk *w = arg;
    enum file_kind kind;
    uint64_t number;
    if (filename_parse(name, &kind, &number)) {
        w->database = w->database || kind == FILE_TABLE || kind == FILE_LOG ||
                      (kind == FILE_MANIFEST && number > 1);
        if (kind == FILE_TABLE) {
            buf_append(&w->tables, &number, sizeof number);
        }
    }
    return 0;
}

/* Nothing says what must be there: whatever tables are there are looked at by themselves. */
static int check_without_manifest(struct directory_check *d, const struct directory_walk *w)
{
    int rc = LOAM_OK;
    for (size_t i = 0; i < w->tables.size && rc == LOAM_OK && !d->c.sink.stopped; i += 8) {
        uint64_t number;
        memcpy(&number, w->tables.data + i, sizeof number);
        rc = check_lone_table(&d->c, number);
    }
    return rc;
}

/* Keyspaces of one name, tables that overlap where they must not. */
static int check_structure(struct directory_check *d)
{
    struct alloc *a = d->c.alloc;
    struct keyspace_table spaces;
    struct keyspace_change change;
    struct version_graveyard graveyard;
    struct version *v = NULL;
    int rc = keyspace_table_init(&spaces, a);
    if (rc != LOAM_OK) {
        return rc;
    }
    rc = keyspace_change_prepare(&spaces, &d->replay.keyspaces, d->current.number, &change);
    if (rc == LOAM_OK) {
        keyspace_change_abort(&spaces, &change);
        version_graveyard_init(&graveyard);
        const struct version_build build = {.alloc = a,
                                            .graveyard = &graveyard,
                                            .order = {find_order, d},
                                            .file_id = d->current.number};
        rc = version_of_tables(&build, d->tables, d->table_count, &v);
        if (rc == LOAM_OK) {
            /* The tables stay ours: the version gives them back unreferenced. */
            struct table *dead = NULL;
            version_free(v, &dead);
        }
        version_graveyard_destroy(&graveyard);
    }
    keyspace_table_destroy(&spaces);
    if (damage_is(rc)) {
        tell_manifest(d, FILE_MANIFEST, 0);
        rc = LOAM_OK;
    }
    return rc;
}

/* Whether no edit that a writer added meanwhile made it. */
static bool still_later(const struct directory_check *d, uint64_t table)
{
    struct manifest_replay r;
    bool later = read_again(d, &r) == LOAM_OK && r.next_file <= table;
    manifest_replay_free(&r);
    return later;
}

/* Without its last edits the manifest is of an earlier state, whose files may rightly be gone. One that ends
 * where a record does bears no trace of it, but what the edits made may be there. misfit: a file is missing, or
 * the log is not as the manifest has it. */
static int check_end(struct directory_check *d, bool misfit)
{
    uint64_t later = 0;
    if (d->replay.end.torn) {
        FAIL_CORRUPT(d->current.number, d->replay.end.size,
                     "the last record of the manifest does not verify, and what comes before it does "
                     "not fit the files");
        tell_manifest(d, FILE_MANIFEST, 0);
        return LOAM_OK;
    }
    int rc = misfit ? manifest_replay_later_table(&d->replay, d->c.vfs, d->c.dir, &later) : LOAM_OK;
    if (later != 0 && still_later(d, later)) {
        FAIL_CORRUPT(d->current.number, d->replay.end.size,
                     "the manifest does not fit the files, and table %llu was made after its last record: "
                     "others may have followed it",
                     (unsigned long long)later);
        tell_manifest(d, FILE_MANIFEST, 0);
    }
    return rc;
}

static int check_all(struct directory_check *d)
{
    struct log_chain_options o = {0};
    d->table_count = d->replay.table_count;
    d->tables = d->table_count != 0 ? manifest_replay_take(&d->replay) : NULL;
    if (d->table_count != 0 && d->tables == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for %u tables", d->table_count);
    }
    int rc = check_structure(d);
    for (uint32_t i = 0; i < d->table_count && rc == LOAM_OK && !d->c.sink.stopped; i++) {
        rc = check_table(&d->c, &d->tables[i]->meta);
    }
    const uint64_t in_tables = d->c.sink.found;
    if (rc == LOAM_OK && !d->c.sink.stopped) {
        log_options(&d->c, &d->replay, &o);
        rc = check_logs(&d->c, &o, log_moved);
    }
    return rc == LOAM_OK && d->c.sink.found != 0 && !d->c.sink.stopped
               ? check_end(d, d->c.sink.missing || d->c.sink.found != in_tables)
               : rc;
}

/* LOAM_OK: the manifest is read. LOAM_E_NOENT without a finding: no database. */
static int read_manifest(struct directory_check *d)
{
    int rc = LOAM_E_INTERNAL;
    for (int i = 0; i < MANIFEST_ATTEMPTS && rc != LOAM_OK; i++) {
        if (i != 0) {
            thread_sleep_micros(REST_US);
        }
        manifest_replay_free(&d->replay);
        manifest_replay_init(&d->replay, d->c.alloc);
        d->current = (struct manifest_current){0};
        rc = manifest_read_current(d->c.vfs, d->c.dir, &d->current);
        if (rc == LOAM_E_NOENT || rc == LOAM_E_NOMEM) {
            break;
        }
        if (rc == LOAM_OK) {
            rc = manifest_replay_run(&d->replay, d->c.vfs, d->c.dir, &d->current);
        }
    }
    return rc;
}

static int check_whole(struct directory_check *d)
{
    struct directory_walk w = {.database = false};
    int rc = read_manifest(d);
    if (rc == LOAM_OK) {
        d->c.db_id = d->current.db_id;
        return check_all(d);
    }
    const loam_error e = *loam_last_error();
    buf_init(&w.tables, d->c.alloc, MEM_VERSION);
    int neg = d->c.vfs->list(d->c.vfs->ctx, d->c.dir, note_file, &w);
    if (rc == LOAM_E_NOENT && neg < 0 && neg != -ENOENT && neg != -ENOTDIR) {
        rc = FAIL_IO(neg, 0, 0, "cannot list the database directory");
    } else if (rc == LOAM_E_NOENT && !w.database) {
        rc = FAIL(LOAM_E_NOENT, "no database here");
    } else if (rc == LOAM_E_NOENT) {
        FAIL_CORRUPT(0, 0, "CURRENT is missing beside files of a database");
        tell_manifest(d, FILE_CURRENT, LOAM_E_NOENT);
        rc = check_without_manifest(d, &w);
    } else if (damage_is(rc)) {
        status_raise(&e);
        tell_manifest(d, d->current.number != 0 ? FILE_MANIFEST : FILE_CURRENT, 0);
        /* What another format means by the other files is not for us to say. */
        rc = rc == LOAM_E_FORMAT ? LOAM_OK : check_without_manifest(d, &w);
    }
    buf_free(&w.tables);
    return rc;
}

static int pace(void *arg, uint64_t bytes)
{
    const struct check *c = ((struct directory_check *)arg)->whose;
    return c->pace != NULL ? c->pace(c->arg, bytes) : LOAM_OK;
}

int check_directory_paced(const struct check *c, const loam_comparator *cmp)
{
    struct alloc *a = c->alloc;
    struct directory_check d = {
        .c = {.vfs = c->vfs,
              .dir = c->dir,
              .alloc = a,
              .sink = c->sink,
              .ks = find_ks,
              .pace = pace,
              .named = still_named,
              .arg = &d},
        .whose = c,
        .default_cmp = cmp,
    };
    manifest_replay_init(&d.replay, a);
    int rc = check_whole(&d);
    const loam_error e = *loam_last_error();
    for (uint32_t i = 0; i < d.table_count && d.tables != NULL; i++) {
        table_free(d.tables[i]);
    }
    alloc_put(a, MEM_VERSION, d.tables, d.table_count * sizeof(struct table *));
    manifest_replay_free(&d.replay);
    return rc == LOAM_OK ? damage_result(&d.c.sink) : rc < 0 ? status_raise(&e) : rc;
}

int check_directory(const loam_vfs *vfs, const char *dir, struct alloc *a,
                    const loam_comparator *cmp, loam_damage_fn fn, void *ctx)
{
    const struct check c = {.vfs = vfs, .dir = dir, .alloc = a, .sink = {.fn = fn, .ctx = ctx}};
    return check_directory_paced(&c, cmp);
}
