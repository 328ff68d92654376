/* recovery.c - Opens or creates the state on disk.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/recovery.h"

#include <errno.h>

#include "arena/status.h"
#include "engine/dead_known.h"
#include "engine/flush.h"
#include "engine/log_chain.h"
#include "engine/op.h"
#include "wal/wal_renew.h"

#include "arena/poison.h"

#define RENEWED_MOST ((uint64_t)128 << 20) /* bytes of a copy that wal_renew() makes */
#define LAST_SEQ_NEW 7u /* of a new database: its log begins at 8, and 0 is older than everything */

/* ---- replay ------------------------------------------------------------------------------------ */

struct replay {
    struct db *db;
    struct log_chain logs;
    struct memtable *m;  /* receives the entries */
    uint64_t first_log;  /* of m */
    uint32_t generation; /* of the next memtable pushed */
    uint64_t deletes;    /* so far */
    struct version_edit edit; /* the first of this open; tables made meanwhile wait in it */
    uint64_t flushed; /* they hold all positions below; 0: there are none */
    bool held_back;   /* no more of them are made: this open writes nothing, or one could not be made */
};

static int seal_replayed(struct replay *p, uint64_t end)
{
    struct db *db = p->db;
    int rc = memtable_list_push(&db->memtables, p->m, p->first_log);
    if (rc < 0) {
        return rc;
    }
    memtable_list_seal(&db->memtables, p->generation++, end);
    p->m = NULL;
    return LOAM_OK;
}

/* Whether the disk has room for tables of what was replayed, and beside them for all that an open needs. */
static bool has_room(const struct replay *p)
{
    struct db *db = p->db;
    struct disk_account *a = &db->files.account;
    uint64_t needed = memtable_list_bytes(&db->memtables) + 2 * db->options.limits.segment_bytes;
    return (a->budget == 0 || disk_account_left(a) >= needed) &&
           disk_reserve_free(&db->reserve) >= needed + RENEWED_MOST;
}

/* LOAM_OK: the log is as the manifest and it itself say, to its end. */
static int judge_log(const struct replay *p)
{
    struct log_chain_options o = p->logs.o;
    o.record = NULL;
    struct log_chain c;
    int rc = log_chain_init(&c, &o);
    if (rc == LOAM_OK) {
        rc = log_chain_run(&c);
    }
    log_chain_free(&c);
    return rc;
}

static bool keep_every_log(void *ctx, uint64_t number)
{
    (void)ctx;
    (void)number;
    return true;
}

/* Tables that no manifest names may only be made once it does not end with a clean close any more (see
 * manifest_replay.c), and what that says of the log's end is not given up before the log was found so. What
 * opens before this one have left goes first: they may all have been cut off. */
static int begin_tables(const struct replay *p)
{
    struct db *db = p->db;
    struct version_edit nothing;
    version_edit_init(&nothing, &db->alloc);
    int rc = judge_log(p);
    if (rc < 0 || (rc = db_sync_names(db)) < 0 ||
        (rc = version_set_apply(&db->versions, &nothing)) < 0) {
        return rc;
    }
    return version_set_clean_directory(&db->versions, keep_every_log, NULL);
}

/* As many memtables as running would hold are full: a log that was written under a larger budget, or by
 * larger memtables, is no reason for more. Their tables are installed with the end of the log, once that is
 * known and durable; what they came from stays in the log until then. Without them replay goes on in memory. */
static void flush_sealed(struct replay *p, uint64_t end)
{
    struct db *db = p->db;
    if (!has_room(p)) {
        return;
    }
    commit_init(&db->commit, end); /* all of it counts as applied */
    int rc = p->flushed == 0 ? begin_tables(p) : LOAM_OK;
    if (rc == LOAM_OK) {
        rc = flush_replayed(db, &p->edit);
    }
    if (rc == LOAM_OK) {
        p->flushed = end;
    } else {
        p->held_back = true;
        db_log(db, LOAM_LOG_WARN, "the log is replayed into memory alone: %s",
               loam_last_error()->message);
    }
}

/* Makes room for a record at `position`. A memtable is sealed only now: between it and its last record may
 * be void ones, and the log goes on behind them. */
static int make_room(struct replay *p, uint64_t position)
{
    const struct limits *l = &p->db->options.limits;
    struct memtable_list *list = &p->db->memtables;
    if (p->m == NULL || memtable_bytes(p->m) < l->memtable_bytes ||
        memtable_list_count(list) + 2 >= MEMTABLE_SLOTS) {
        return LOAM_OK;
    }
    int rc = seal_replayed(p, position);
    if (rc == LOAM_OK && memtable_list_count(list) >= l->memtables_max && !p->held_back) {
        flush_sealed(p, position);
    }
    return rc;
}

static int replay_ops(struct replay *p, const struct wal_record *record)
{
    struct reader r = reader_of(record->payload.data, record->payload.size);
    struct op o;
    struct memtable_need need = {0};
    uint64_t seq = record->position;
    while (op_read(&r, &o) == LOAM_OK) {
        memtable_need_add(&need, o.ks, o.key.size, o.value.size);
    }
    int rc = memtable_reserve(p->m, &need);
    if (rc != LOAM_OK) {
        return rc;
    }
    struct memtable_pipeline additions;
    memtable_pipeline_begin(&additions, p->m);
    r = reader_of(record->payload.data, record->payload.size);
    while (op_read(&r, &o) == LOAM_OK) {
        const struct memtable_op next = op_addition(&o, seq++);
        memtable_pipeline_add(&additions, &next);
        p->deletes += o.kind == ENTRY_DELETE;
    }
    memtable_pipeline_end(&additions);
    return LOAM_OK;
}

static int replay_record(void *ctx, uint64_t number, const struct wal_record *record)
{
    struct replay *p = ctx;
    int rc = make_room(p, record->position);
    if (rc == LOAM_OK && p->m == NULL) {
        rc = db_new_memtable(p->db, &p->m);
        p->first_log = number;
    }
    return rc == LOAM_OK ? replay_ops(p, record) : rc;
}

static int list_logs(struct replay *p)
{
    struct db *db = p->db;
    struct log_chain_options o = {
        .vfs = db->vfs,
        .dir = db->dir,
        .alloc = &db->alloc,
        .db_id = db->versions.db_id,
        .first_needed = version_set_log_number(&db->versions),
        .none = version_set_log_none(&db->versions),
        .last_seq = version_set_last_seq(&db->versions),
        .next_ks = version_set_next_ks(&db->versions),
        .record = replay_record,
        .ctx = p,
    };
    o.sealed = version_set_sealed(&db->versions, &o.sealed_number, &o.sealed_position);
    return log_chain_init(&p->logs, &o);
}

/* What was replayed becomes as durable as what will follow it. Up to the highest mark of the log
 * that is so; what lies beyond was perhaps never synced, or in vain (see wal_renew.h). */
static int renew_logs(struct db *db, const struct replay *p)
{
    const struct wal_place place = {.vfs = db->vfs,
                                    .alloc = &db->alloc,
                                    .dir = db->dir,
                                    .dir_size = strlen(db->dir),
                                    .db_id = db->versions.db_id};
    const struct log_chain *c = &p->logs;
    uint64_t durable = c->o.last_seq + 1;
    if (c->o.sealed && c->o.sealed_position > durable) {
        durable = c->o.sealed_position;
    }
    for (size_t i = 0; i < c->used; i++) {
        durable = c->seen[i].durable > durable ? c->seen[i].durable : durable;
    }
    for (size_t i = 0; i < c->used; i++) {
        const struct wal_reader_end *s = &c->seen[i];
        if (!s->empty && s->end > durable) {
            int rc = wal_renew(&place, c->numbers[i], s->offset);
            if (rc < 0) {
                return rc;
            }
        }
    }
    return LOAM_OK;
}

/* ---- assembling the running state -------------------------------------------------------------- */

static int describe_default_ks(struct db *db, struct version_edit *e)
{
    const loam_ks_options *o = &db->options.default_ks;
    const char *order = o->comparator != NULL ? o->comparator->name : "";
    const struct ks_desc desc = {
        .id = KS_DEFAULT,
        .compression = o->compression,
        .filter_bits = o->filter_bits != 0 ? o->filter_bits : UINT32_MAX,
        .block_bytes = o->block_bytes,
        .name = LOAM_LIT("default"),
        .comparator = loam_bytes(order, strlen(order)),
    };
    return version_edit_create_ks(e, &desc);
}

/* The directory's own name must survive power loss before anything in it is promised to. */
static int sync_parent(struct db *db)
{
    char path[FILENAME_CAP];
    size_t n = strlen(db->dir);
    while (n > 1 && db->dir[n - 1] == '/') {
        n--;
    }
    while (n > 0 && db->dir[n - 1] != '/') {
        n--;
    }
    while (n > 1 && db->dir[n - 1] == '/') {
        n--;
    }
    if (n >= sizeof path) {
        return FAIL(LOAM_E_INVAL, "the directory name has %zu bytes, too long", n);
    }
    memcpy(path, n != 0 ? db->dir : ".", n != 0 ? n : 1);
    path[n != 0 ? n : 1] = '\0';
    int neg = db->vfs->sync_dir(db->vfs->ctx, path);
    /* A parent that may not be read cannot be synced; whoever made it so answers for the name. */
    return neg < 0 && neg != -EACCES && neg != -EPERM
               ? FAIL_IO(neg, 0, 0, "cannot sync the parent of the database directory")
               : LOAM_OK;
}

static int make_database(struct db *db)
{
    struct version_edit e;
    version_edit_init(&e, &db->alloc);
    int rc = sync_parent(db);
    if (rc == LOAM_OK) {
        rc = describe_default_ks(db, &e);
    }
    if (rc == LOAM_OK) {
        version_edit_set_last_seq(&e, LAST_SEQ_NEW);
        rc = version_set_make(&db->versions, &e);
    }
    version_edit_free(&e);
    return rc;
}

static uint64_t newest_number(const struct replay *p)
{
    return p->logs.count != 0 ? p->logs.numbers[p->logs.count - 1] : 0;
}

/* Whether segment i of the log that was found stays until it is recycled. The others are removed, and
 * must not be recycled as well: a removal that fails is tried again later. */
static bool log_is_kept(const struct replay *p, size_t i)
{
    return !p->logs.seen[i].empty || !p->db->logging;
}

/* The log continues in a new segment; the memtable that took the last entries is the active one. */
static int start_log(struct db *db, struct replay *p)
{
    uint64_t first = version_set_new_file(&db->versions);
    uint64_t live = version_set_log_number(&db->versions); /* logs number their files themselves */
    first = first < live ? live : first;
    if (first <= newest_number(p)) {
        first = newest_number(p) + 1;
    }
    const struct wal_options o = {
        .vfs = db->vfs,
        .dir = db->dir,
        .alloc = &db->alloc,
        .db_id = db->versions.db_id,
        .segment_bytes = db->options.limits.segment_bytes,
        .first_bytes = log_is_much(db) ? db->options.limits.segment_bytes_first : 0,
        .window_bytes = db->options.limits.window_bytes,
        .no_files = !db->logging,
        .start_position = p->logs.end,
        .first_number = first,
        .first_generation = p->generation,
    };
    int rc = wal_open(&db->wal, &o);
    if (rc < 0) {
        return rc;
    }
    db->log_open = true;
    buf_init(&db->replayed, &db->alloc, MEM_LOG);
    for (size_t i = 0; i < p->logs.used; i++) {
        if (log_is_kept(p, i)) {
            buf_append(&db->replayed, &p->logs.numbers[i], sizeof *p->logs.numbers);
        }
        db->replayed_number = !p->logs.seen[i].empty ? p->logs.numbers[i] : db->replayed_number;
    }
    db->replayed_end = p->logs.end;
    commit_init(&db->commit, wal_position(&db->wal));
    return LOAM_OK;
}

/* The memtable that took the last entries, or a new one, becomes the active one. */
static int adopt_memtables(struct db *db, struct replay *p)
{
    int rc = LOAM_OK;
    if (p->m == NULL) {
        p->first_log = 0; /* nothing of the old log is in it */
        rc = db_new_memtable(db, &p->m);
    }
    if (rc == LOAM_OK) {
        rc = memtable_list_push(&db->memtables, p->m, p->first_log);
        if (rc == LOAM_OK) {
            p->m = NULL;
        }
    }
    return rc;
}

/* The first segment that the memtables came from, or the new one, and where the log begins then.
 * Segments without records are given up, or each open would leave one more. */
static int first_edit(struct db *db, struct replay *p)
{
    struct version_edit *e = &p->edit;
    size_t first = 0;
    while (first < p->logs.used && p->logs.seen[first].empty) {
        first++;
    }
    if (p->flushed != 0) {
        flush_set_log(db, db->memtables.oldest, p->flushed, e);
    } else if (!db->logging) {
        /* There is no new segment to name; those that were found stay. */
    } else if (first < p->logs.used) {
        version_edit_set_log_number(e, p->logs.numbers[first], false);
    } else {
        version_edit_set_log_number(e, wal_segment_number(&db->wal, wal_generation(&db->wal)),
                                    false);
        version_edit_set_last_seq(e, p->logs.end - 1);
    }
    int rc = version_set_apply(&db->versions, e);
    version_edit_free(e); /* its tables are the version set's, whatever came of it */
    return rc;
}

struct kept_logs {
    const struct replay *p;
    uint64_t first_new;
};

static bool keep_log(void *ctx, uint64_t number)
{
    const struct kept_logs *k = ctx;
    if (number >= k->first_new) {
        return true;
    }
    for (size_t i = 0; i < k->p->logs.used; i++) {
        if (k->p->logs.numbers[i] == number) {
            return log_is_kept(k->p, i);
        }
    }
    return false;
}

/* Segments behind a cut go before the first new record, so that no later recovery sees them. */
static int drop_logs_behind(struct db *db, const struct replay *p)
{
    if (p->logs.used == p->logs.count) {
        return LOAM_OK;
    }
    for (size_t i = p->logs.used; i < p->logs.count; i++) {
        char path[FILENAME_CAP];
        int rc = filename_make(db->dir, FILE_LOG, p->logs.numbers[i], path);
        if (rc < 0) {
            return rc;
        }
        int neg = db->vfs->remove(db->vfs->ctx, path);
        if (neg < 0) {
            return FAIL_IO(neg, p->logs.numbers[i], 0,
                           "cannot remove a log segment behind the end");
        }
    }
    return db_sync_names(db);
}

static int open_for_writing(struct db *db, struct replay *p)
{
    /* CURRENT may be of an open that could not sync it: nothing may stand on it before it is durable,
     * a new log as little as the removal of what it replaced. */
    int rc = db_sync_names(db);
    if (rc < 0 || (rc = renew_logs(db, p)) < 0 || (rc = drop_logs_behind(db, p)) < 0 ||
        (rc = adopt_memtables(db, p)) < 0 || (rc = start_log(db, p)) < 0 ||
        (rc = first_edit(db, p)) < 0) {
        return rc;
    }
    struct kept_logs kept = {p, wal_segment_number(&db->wal, wal_generation(&db->wal))};
    if (!db->logging) {
        kept.first_new = UINT64_MAX;
    }
    rc = version_set_clean_directory(&db->versions, keep_log, &kept);
    if (rc < 0) {
        db_log(db, LOAM_LOG_WARN, "orphans stay: %s", loam_last_error()->message);
    }
    flush_give_up_replayed(db);
    return LOAM_OK;
}

/* Whether nothing was logged since the clean close. */
static bool ends_as_closed(const struct log_chain *c)
{
    return c->o.sealed &&
           (c->o.sealed_number != 0 ? c->end <= c->o.sealed_position : !c->based);
}

int recovery_run(struct db *db, struct recovery_found *found)
{
    int rc = version_set_recover(&db->versions);
    if (rc == LOAM_E_NOENT && !db->readonly &&
        (db->options.user.flags & LOAM_OPEN_MUST_EXIST) == 0) {
        rc = make_database(db);
    } else if (rc == LOAM_OK && (db->options.user.flags & LOAM_OPEN_NEW) != 0) {
        rc = FAIL(LOAM_E_EXISTS, "there is a database already, and LOAM_OPEN_NEW was given");
    }
    if (rc < 0) {
        return rc;
    }
    rc = version_set_order_ks(&db->versions, KS_DEFAULT, db->options.default_ks.comparator);
    if (rc < 0) {
        return rc;
    }
    struct replay p = {.db = db, .generation = 1, .held_back = db->readonly};
    version_edit_init(&p.edit, &db->alloc);
    rc = list_logs(&p);
    if (rc == LOAM_OK) {
        /* Memtables that replay fills take the first generations; the log begins after them. */
        memtable_list_init(&db->memtables, &registry_get()->memtables, p.generation);
        rc = log_chain_run(&p.logs);
    }
    if (rc == LOAM_OK) {
        rc = db->readonly ? adopt_memtables(db, &p) : open_for_writing(db, &p);
    }
    if (rc == LOAM_OK && db->readonly) {
        commit_init(&db->commit, p.logs.end);
    }
    if (rc == LOAM_OK) {
        *found = (struct recovery_found){ends_as_closed(&p.logs), p.deletes};
        dead_known_open(db, found->as_closed);
    }
    memtable_destroy(p.m);
    flush_drop_tables(db, &p.edit, 0); /* there are some if the open fails */
    version_edit_free(&p.edit);
    log_chain_free(&p.logs);
    return rc;
}
