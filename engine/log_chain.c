/* log_chain.c - Walks the log segments of a database.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/log_chain.h"

#include "arena/status.h"
#include "engine/filename.h"
#include "engine/op.h"
#include "engine/sort.h"

#include "arena/poison.h"

/* ---- which segments there are ------------------------------------------------------------------ */

static int note_log(void *ctx, loam_slice name)
{
    struct log_chain *c = ctx;
    enum file_kind kind;
    uint64_t number;
    if (filename_parse(name, &kind, &number) && kind == FILE_LOG && number >= c->o.first_needed) {
        buf_append(&c->list, &number, sizeof number);
    }
    return 0;
}

int log_chain_init(struct log_chain *c, const struct log_chain_options *o)
{
    *c = (struct log_chain){.o = *o};
    buf_init(&c->list, o->alloc, MEM_LOG);
    int neg = o->vfs->list(o->vfs->ctx, o->dir, note_log, c);
    if (neg < 0) {
        return FAIL_IO(neg, 0, 0, "cannot list the database directory");
    }
    if (c->list.oom) {
        return buf_status(&c->list);
    }
    c->numbers = (const uint64_t *)(const void *)c->list.data;
    c->count = c->list.size / sizeof *c->numbers;
    if (c->count != 0) {
        sort_numbers(c->list.data, c->count);
    }
    c->seen = alloc_zero(o->alloc, MEM_LOG, (c->count + 1) * sizeof *c->seen);
    return c->seen != NULL ? LOAM_OK
                            : FAIL(LOAM_E_NOMEM, "no memory to read %zu log segments", c->count);
}

void log_chain_free(struct log_chain *c)
{
    if (c->seen != NULL) {
        alloc_put(c->o.alloc, MEM_LOG, c->seen, (c->count + 1) * sizeof *c->seen);
        c->seen = NULL;
    }
    buf_free(&c->list);
    c->numbers = NULL;
    c->count = 0;
}

/* ---- the walk ------------------------------------------------------------------------------------ */

static int open_segment(const struct log_chain *c, size_t i, struct wal_reader *r)
{
    return wal_reader_open(r, c->o.vfs, c->o.dir, c->o.alloc, c->numbers[i], c->o.db_id);
}

static int check_ops(const struct log_chain *c, uint64_t number, const struct wal_record *record)
{
    struct reader r = reader_of(record->payload.data, record->payload.size);
    struct op o;
    int rc;
    while ((rc = op_read(&r, &o)) == LOAM_OK) {
        if (c->o.next_ks != 0 && o.ks >= c->o.next_ks) {
            return FAIL_CORRUPT(
                number, record->offset,
                "log segment %llu: a write to keyspace %u, of which the manifest knows "
                "nothing",
                (unsigned long long)number, o.ks);
        }
    }
    return rc == LOAM_NOTFOUND ? LOAM_OK
                               : FAIL_AT(rc, number, record->offset,
                                         "log segment %llu: a record holds no valid operations",
                                         (unsigned long long)number);
}

static int walk_records(struct log_chain *c, struct wal_reader *r, uint64_t number)
{
    struct wal_record record;
    int rc;
    while ((rc = wal_read_next(r, &record)) == LOAM_OK) {
        c->end = record.end;
        rc = check_ops(c, number, &record);
        if (rc == LOAM_OK && c->o.record != NULL) {
            rc = c->o.record(c->o.ctx, number, &record);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return rc == LOAM_NOTFOUND ? LOAM_OK : rc;
}

/* The base of the first segment after i that has a record; 0: none. */
static int next_base(const struct log_chain *c, size_t i, uint64_t *base)
{
    *base = 0;
    for (size_t k = i + 1; k < c->count; k++) {
        struct wal_reader r;
        int rc = open_segment(c, k, &r);
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

/* Nothing of segments i and later follows what was walked. If they hold a promise that the log
 * goes beyond that, it is damage; else they were never promised and are given up. */
static int cut_at(struct log_chain *c, size_t i)
{
    uint64_t promised = c->o.sealed ? c->o.sealed_position : 0;
    for (size_t k = i; k < c->count; k++) {
        struct wal_reader r;
        int rc = open_segment(c, k, &r);
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
    c->cut = true;
    return promised <= c->end
               ? LOAM_OK
               : FAIL_CORRUPT(c->numbers[i], WAL_HEADER_PAGE,
                              "the log was durable up to position %llu, but ends at %llu",
                              (unsigned long long)promised, (unsigned long long)c->end);
}

static int missing(uint64_t number, const char *what)
{
    return FAIL_CORRUPT(number, 0, "log segment %llu%s is missing", (unsigned long long)number,
                        what);
}

/* Where segment i begins against where the log stands. LOAM_STOPPED: the log ends before it. */
static int settle_base(struct log_chain *c, size_t i, struct wal_reader *r)
{
    uint64_t base, needed = c->o.first_needed;
    int rc = wal_reader_peek(r, &base);
    if (rc < 0) {
        return rc;
    }
    if (rc == LOAM_NOTFOUND) {
        if (c->based || c->numbers[i] != needed) {
            wal_reader_expect(r, c->end); /* else `end` is only an upper limit of its base */
        }
        return LOAM_OK;
    }
    if (!c->based && base <= c->end && c->numbers[i] == needed) {
        c->end = base; /* its first records are in tables already */
    } else if (!c->based && base > c->end && c->numbers[0] != needed) {
        return missing(needed, "");
    } else if (base != c->end) {
        rc = cut_at(c, i);
        return rc < 0 ? rc : LOAM_STOPPED;
    }
    c->based = true;
    return LOAM_OK;
}

/* sealed_end: where the manifest says the segment ends, or 0. */
static int walk_segment(struct log_chain *c, size_t i, struct wal_reader *r, uint64_t sealed_end)
{
    uint64_t next;
    int rc = settle_base(c, i, r);
    if (rc != LOAM_OK) {
        return rc == LOAM_STOPPED ? LOAM_OK : rc;
    }
    rc = next_base(c, i, &next);
    if (rc < 0) {
        return rc;
    }
    if (next != 0) {
        wal_reader_limit(r, next); /* what lies above was given up after a failed append */
    }
    if (c->o.upto != 0) {
        wal_reader_limit(r, next != 0 && next < c->o.upto ? next : c->o.upto);
    }
    rc = walk_records(c, r, c->numbers[i]);
    if (rc < 0) {
        return rc;
    }
    struct wal_reader_end end; /* behind the last record, which may be a void one */
    wal_reader_end(r, &end);
    c->end = end.empty ? c->end : end.end;
    c->seen[i] = end;
    c->used = i + 1;
    if (c->end < c->o.upto && (next == 0 || next >= c->o.upto)) {
        return FAIL_CORRUPT(c->numbers[i], end.offset,
                            "log segment %llu: durable up to %llu, readable to %llu",
                            (unsigned long long)c->numbers[i], (unsigned long long)c->o.upto,
                            (unsigned long long)c->end);
    }
    if (end.empty && c->o.sealed && c->o.sealed_number == 0) {
        return LOAM_OK; /* nothing was logged, says the manifest: no need to search it to its end */
    }
    rc = wal_reader_check(r, sealed_end);
    return rc == WAL_TORN ? LOAM_OK : rc;
}

static bool come_far_enough(const struct log_chain *c)
{
    return c->o.upto != 0 && c->end >= c->o.upto;
}

int log_chain_run(struct log_chain *c)
{
    const struct log_chain_options *o = &c->o;
    bool met = !o->sealed || o->sealed_number == 0;
    c->end = o->last_seq + 1;
    /* The manifest names a segment only when its name is durable. */
    bool expected = o->first_needed != 0 && !o->none && (!o->sealed || o->sealed_number != 0);
    if (come_far_enough(c)) {
        return LOAM_OK;
    }
    if (expected && (c->count == 0 || c->numbers[0] != o->first_needed)) {
        return missing(o->first_needed, "");
    }
    for (size_t i = 0; i < c->count && !c->cut && !come_far_enough(c); i++) {
        struct wal_reader r;
        bool last = o->sealed && c->numbers[i] == o->sealed_number;
        met = met || last;
        int rc = open_segment(c, i, &r);
        if (rc == LOAM_OK) {
            rc = walk_segment(c, i, &r, last ? o->sealed_position : 0);
        }
        wal_reader_close(&r);
        if (rc < 0) {
            return rc;
        }
    }
    if (o->upto != 0 && c->end < o->upto) {
        return FAIL_CORRUPT(c->count != 0 ? c->numbers[c->count - 1] : o->first_needed, 0,
                            "the log is durable up to position %llu, but ends at %llu",
                            (unsigned long long)o->upto, (unsigned long long)c->end);
    }
    if (o->upto != 0) {
        return LOAM_OK;
    }
    if (!met && !c->cut) {
        return missing(o->sealed_number, " of the clean close");
    }
    /* What tables hold from a live segment was durable there before they were installed. */
    return c->end > o->last_seq
               ? LOAM_OK
               : FAIL_CORRUPT(o->first_needed, 0,
                              "the log ends at position %llu, but tables hold up to %llu",
                              (unsigned long long)c->end, (unsigned long long)o->last_seq);
}
