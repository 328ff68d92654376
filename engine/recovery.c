/* recovery.c - Opens or creates the state on disk.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/recovery.h"

#include <errno.h>
#include <stdlib.h>

#include "arena/hash.h"
#include "arena/status.h"
#include "engine/flush.h"
#include "engine/op.h"
#include "wal/wal_reader.h"

#include "arena/poison.h"

#define LAST_SEQ_NEW 7u /* of a new database: its log begins at 8, and 0 is older than everything */

/* ---- which logs there are -------------------------------------------------------------------- */

struct log_list {
    struct buf numbers; /* uint64_t each */
    uint64_t oldest;    /* below it logs are not needed */
};

static int note_log(void *ctx, loam_slice name)
{
    struct log_list *l = ctx;
    enum file_kind kind;
    uint64_t number;
    if (filename_parse(name, &kind, &number) && kind == FILE_LOG && number >= l->oldest) {
        buf_append(&l->numbers, &number, sizeof number);
    }
    return 0;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static int list_logs(struct db *db, struct log_list *l)
{
    buf_init(&l->numbers, &db->alloc, MEM_LOG);
    l->oldest = version_set_log_number(&db->versions);
    int neg = db->vfs->list(db->vfs->ctx, db->dir, note_log, l);
    if (neg < 0) {
        return FAIL_IO(neg, 0, 0, "cannot list the database directory");
    }
    if (l->numbers.oom) {
        return buf_status(&l->numbers);
    }
    if (l->numbers.size != 0) {
        qsort(l->numbers.data, l->numbers.size / 8, 8, compare_numbers);
    }
    return LOAM_OK;
}

/* ---- replay ------------------------------------------------------------------------------------ */

struct replay {
    struct db *db;
    const uint64_t *numbers;
    size_t count;
    uint64_t end;        /* position behind the last record replayed */
    uint64_t sealed_end; /* where the manifest says the log ends; 0: it was not closed */
    uint64_t first_needed; /* the manifest's oldest live segment */
    bool based;          /* a record was met: `end` is exact, not only an upper limit */
    bool cut;            /* segments from `used` on do not follow what was replayed */
    size_t used;         /* segments replayed, whole or in part */
    bool *holds;         /* by segment: it has records */
    struct memtable *m;  /* receives the entries */
    uint64_t first_log;  /* of m */
    uint32_t generation; /* of the next memtable pushed */
};

/* Hands the memtable to the list as sealed and flushes, so that replay needs no more memory than
 * running does. */
static int seal_replayed(struct replay *p)
{
    struct db *db = p->db;
    int rc = memtable_list_push(&db->memtables, p->m, p->first_log);
    if (rc < 0) {
        return rc;
    }
    memtable_list_seal(&db->memtables, p->generation++, p->end);
    p->m = NULL;
    return LOAM_OK;
}

static int replay_ops(struct replay *p, uint64_t number, const struct wal_record *record)
{
    struct reader r = reader_of(record->payload.data, record->payload.size);
    struct op o;
    uint64_t seq = record->position, count = 0, data = 0;
    int rc;
    while ((rc = op_read(&r, &o)) == LOAM_OK) {
        count++;
        data += o.key.size + o.value.size;
    }
    if (rc == LOAM_NOTFOUND) {
        rc = memtable_reserve(p->m, (size_t)count, data);
    }
    if (rc < 0) {
        return rc == LOAM_E_CORRUPT
                   ? FAIL_CORRUPT(number, record->position, "log record at position %llu holds no "
                                                            "valid operations",
                                  (unsigned long long)record->position)
                   : rc;
    }
    r = reader_of(record->payload.data, record->payload.size);
    while (op_read(&r, &o) == LOAM_OK) {
        rc = memtable_add(p->m, o.ks, o.key, hash_key(o.key.data, o.key.size),
                          entry_tag(seq++, o.kind), o.value);
        if (rc < 0) {
            return rc;
        }
    }
    return LOAM_OK;
}

static int replay_records(struct replay *p, struct wal_reader *r, uint64_t number)
{
    struct db *db = p->db;
    struct wal_record record;
    int rc;
    while ((rc = wal_read_next(r, &record)) == LOAM_OK) {
        if (p->m == NULL) {
            rc = db_new_memtable(db, &p->m);
            if (rc < 0) {
                return rc;
            }
            p->first_log = number;
        }
        rc = replay_ops(p, number, &record);
        if (rc < 0) {
            return rc;
        }
        p->end = record.end;
        if (memtable_bytes(p->m) >= db->options.limits.memtable_bytes &&
            memtable_list_count(&db->memtables) + 2 < MEMTABLE_SLOTS) {
            rc = seal_replayed(p);
            if (rc < 0) {
                return rc;
            }
        }
    }
    return rc == LOAM_NOTFOUND ? LOAM_OK : rc;
}

/* The base of the first segment after i that has a record; 0: none. */
static int next_base(struct replay *p, size_t i, uint64_t *base)
{
    *base = 0;
    for (size_t k = i + 1; k < p->count; k++) {
        struct wal_reader r;
        int rc = wal_reader_open(&r, p->db->vfs, p->db->dir, &p->db->alloc, p->numbers[k],
                                 p->db->versions.db_id);
        if (rc == LOAM_OK) {
            rc = wal_reader_peek(&r, base);
        }
        wal_reader_close(&r);
        if (rc != LOAM_NOTFOUND) {
            return rc;
        }
    }
    return LOAM_OK;
}

/* Nothing of segments i and later follows what was replayed. If they hold a promise that the log
 * goes beyond that, it is damage; else they were never promised and are given up. */
static int cut_at(struct replay *p, size_t i)
{
    struct db *db = p->db;
    uint64_t promised = p->sealed_end;
    for (size_t k = i; k < p->count; k++) {
        struct wal_reader r;
        int rc = wal_reader_open(&r, db->vfs, db->dir, &db->alloc, p->numbers[k],
                                 db->versions.db_id);
        if (rc == LOAM_OK) {
            rc = wal_reader_scan(&r);
        }
        if (rc == LOAM_OK) {
            struct wal_reader_end end;
            wal_reader_end(&r, &end);
            promised = end.durable > promised ? end.durable : promised;
        }
        wal_reader_close(&r);
        if (rc < 0) {
            return rc;
        }
    }
    p->cut = true;
    return promised <= p->end
               ? LOAM_OK
               : FAIL_CORRUPT(p->numbers[i], WAL_HEADER_PAGE,
                              "the log was durable up to position %llu, but ends at %llu",
                              (unsigned long long)promised, (unsigned long long)p->end);
}

/* One segment. sealed_end: where the manifest says it ends, or 0. */
static int replay_segment(struct replay *p, size_t i, struct wal_reader *r, uint64_t sealed_end)
{
    uint64_t next, base;
    int rc = wal_reader_peek(r, &base);
    if (rc < 0) {
        return rc;
    }
    if (rc == LOAM_NOTFOUND) {
        if (p->based || p->numbers[i] != p->first_needed) {
            wal_reader_expect(r, p->end); /* else `end` is only an upper limit of its base */
        }
    } else if (!p->based && base <= p->end && p->numbers[i] == p->first_needed) {
        p->end = base; /* its first records are in tables already */
    } else if (!p->based && base > p->end && p->numbers[0] != p->first_needed) {
        return FAIL_CORRUPT(p->first_needed, 0, "log segment %llu is missing",
                            (unsigned long long)p->first_needed);
    } else if (base != p->end) {
        return cut_at(p, i);
    }
    p->based = p->based || rc == LOAM_OK;
    rc = next_base(p, i, &next);
    if (rc < 0) {
        return rc;
    }
    if (next != 0) {
        wal_reader_limit(r, next); /* what lies above was given up after a failed append */
    }
    rc = replay_records(p, r, p->numbers[i]);
    if (rc < 0) {
        return rc;
    }
    struct wal_reader_end end; /* behind the last record, which may be a void one */
    wal_reader_end(r, &end);
    p->end = end.empty ? p->end : end.end;
    p->holds[i] = !end.empty;
    p->used = i + 1;
    rc = wal_reader_check(r, sealed_end);
    return rc == WAL_TORN ? LOAM_OK : rc;
}

static int replay_all(struct replay *p)
{
    struct db *db = p->db;
    uint64_t sealed_number = 0;
    bool sealed = version_set_sealed(&db->versions, &sealed_number, &p->sealed_end);
    bool met = !sealed || sealed_number == 0;
    p->end = version_set_last_seq(&db->versions) + 1;
    p->first_needed = version_set_log_number(&db->versions);
    /* The manifest names a segment only when its name is durable. */
    bool expected = p->first_needed != 0 && !version_set_log_none(&db->versions) &&
                    (!sealed || sealed_number != 0);
    if (expected && (p->count == 0 || p->numbers[0] != p->first_needed)) {
        return FAIL_CORRUPT(p->first_needed, 0, "log segment %llu is missing",
                            (unsigned long long)p->first_needed);
    }
    for (size_t i = 0; i < p->count && !p->cut; i++) {
        struct wal_reader r;
        int rc = wal_reader_open(&r, db->vfs, db->dir, &db->alloc, p->numbers[i],
                                 db->versions.db_id);
        bool last = sealed && p->numbers[i] == sealed_number;
        met = met || last;
        if (rc == LOAM_OK) {
            rc = replay_segment(p, i, &r, last ? p->sealed_end : 0);
        }
        wal_reader_close(&r);
        if (rc < 0) {
            return rc;
        }
    }
    if (!met && !p->cut) {
        return FAIL_CORRUPT(sealed_number, 0, "log segment %llu of the clean close is missing",
                            (unsigned long long)sealed_number);
    }
    /* What tables hold from a live segment was durable there before they were installed. */
    uint64_t last = version_set_last_seq(&db->versions);
    if (p->end <= last) {
        return FAIL_CORRUPT(p->first_needed, 0,
                            "the log ends at position %llu, but tables hold up to %llu",
                            (unsigned long long)p->end, (unsigned long long)last);
    }
    return LOAM_OK;
}

/* What was replayed becomes as durable as what will follow it. */
static int sync_logs(struct db *db, const struct replay *p)
{
    for (size_t i = 0; i < p->used; i++) {
        char path[FILENAME_CAP];
        int rc = filename_make(db->dir, FILE_LOG, p->numbers[i], path);
        if (rc < 0) {
            return rc;
        }
        loam_file *f;
        int neg = db->vfs->open(db->vfs->ctx, path, LOAM_VFS_READ | LOAM_VFS_WRITE, &f);
        if (neg == 0) {
            neg = db->vfs->sync(db->vfs->ctx, f, 1);
            int neg_close = db->vfs->close(db->vfs->ctx, f);
            neg = neg < 0 ? neg : neg_close;
        }
        if (neg < 0) {
            return FAIL_IO(neg, p->numbers[i], 0, "cannot sync a log segment");
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
    return p->count != 0 ? p->numbers[p->count - 1] : 0;
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
        .window_bytes = db->options.limits.window_bytes,
        .no_files = !db->logging,
        .start_position = p->end,
        .first_number = first,
        .first_generation = p->generation,
    };
    int rc = wal_open(&db->wal, &o);
    if (rc < 0) {
        return rc;
    }
    db->log_open = true;
    buf_init(&db->replayed, &db->alloc, MEM_LOG);
    buf_append(&db->replayed, p->numbers, p->used * sizeof *p->numbers);
    for (size_t i = 0; i < p->used; i++) {
        db->replayed_number = p->holds[i] ? p->numbers[i] : db->replayed_number;
    }
    db->replayed_end = p->end;
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
static int first_edit(struct db *db, const struct replay *p)
{
    struct version_edit e;
    version_edit_init(&e, &db->alloc);
    size_t first = 0;
    while (first < p->used && !p->holds[first]) {
        first++;
    }
    if (!db->logging) {
        /* There is no new segment to name; those that were found stay. */
    } else if (first < p->used) {
        version_edit_set_log_number(&e, p->numbers[first], false);
    } else {
        version_edit_set_log_number(&e, wal_segment_number(&db->wal, wal_generation(&db->wal)),
                                    false);
        version_edit_set_last_seq(&e, p->end - 1);
    }
    int rc = version_set_apply(&db->versions, &e);
    version_edit_free(&e);
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
    for (size_t i = 0; i < k->p->used; i++) {
        if (k->p->numbers[i] == number) {
            return k->p->holds[i] || !k->p->db->logging;
        }
    }
    return false;
}

/* Segments behind a cut go before the first new record, so that no later recovery sees them. */
static int drop_logs_behind(struct db *db, const struct replay *p)
{
    if (p->used == p->count) {
        return LOAM_OK;
    }
    for (size_t i = p->used; i < p->count; i++) {
        char path[FILENAME_CAP];
        int rc = filename_make(db->dir, FILE_LOG, p->numbers[i], path);
        if (rc < 0) {
            return rc;
        }
        int neg = db->vfs->remove(db->vfs->ctx, path);
        if (neg < 0) {
            return FAIL_IO(neg, p->numbers[i], 0, "cannot remove a log segment behind the end");
        }
    }
    int neg = db->vfs->sync_dir(db->vfs->ctx, db->dir);
    return neg < 0 ? FAIL_IO(neg, 0, 0, "cannot sync the database directory") : LOAM_OK;
}

static int open_for_writing(struct db *db, struct replay *p)
{
    int rc = sync_logs(db, p);
    if (rc < 0 || (rc = drop_logs_behind(db, p)) < 0 || (rc = adopt_memtables(db, p)) < 0 ||
        (rc = start_log(db, p)) < 0 || (rc = first_edit(db, p)) < 0) {
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
    return LOAM_OK;
}

int recovery_run(struct db *db, bool *created)
{
    *created = false;
    int rc = version_set_recover(&db->versions);
    if (rc == LOAM_E_NOENT && !db->readonly &&
        (db->options.user.flags & LOAM_OPEN_MUST_EXIST) == 0) {
        *created = true;
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
    struct log_list logs = {0};
    struct replay p = {.db = db, .generation = 1};
    rc = list_logs(db, &logs);
    if (rc == LOAM_OK) {
        p.numbers = (const uint64_t *)(const void *)logs.numbers.data;
        p.count = logs.numbers.size / 8;
        p.holds = alloc_zero(&db->alloc, MEM_LOG, (p.count + 1) * sizeof *p.holds);
        rc = p.holds == NULL ? FAIL(LOAM_E_NOMEM, "no memory to replay %zu log segments", p.count)
                             : LOAM_OK;
    }
    if (rc == LOAM_OK) {
        /* Memtables that replay fills take the first generations; the log begins after them. */
        memtable_list_init(&db->memtables, &registry_get()->memtables, p.generation);
        rc = replay_all(&p);
    }
    if (rc == LOAM_OK) {
        rc = db->readonly ? adopt_memtables(db, &p) : open_for_writing(db, &p);
    }
    if (rc == LOAM_OK && db->readonly) {
        commit_init(&db->commit, p.end);
    }
    memtable_destroy(p.m);
    if (p.holds != NULL) {
        alloc_put(&db->alloc, MEM_LOG, p.holds, (p.count + 1) * sizeof *p.holds);
    }
    buf_free(&logs.numbers);
    return rc;
}
