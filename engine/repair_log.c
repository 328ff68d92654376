/* repair_log.c - Turns every readable record of a damaged log into tables.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Segments are taken in the order of the positions they hold, whatever their names say. In each,
 * reading goes on behind damage where a record verifies again.
 */
#include <string.h>

#include "arena/hash.h"
#include "arena/status.h"
#include "engine/op.h"
#include "engine/repair.h"
#include "engine/sort.h"

#include "arena/poison.h"

#define CHUNK_BYTES                                                                                \
    ((size_t)16 << 20) /* of operations gathered before they are sorted and written */

struct log_op {
    uint64_t tag;
    size_t key, value; /* offsets in the gathered bytes */
    uint32_t key_size, ks;
    uint64_t value_size;
};

struct log_segment {
    uint64_t number;
    uint64_t base; /* position of its first readable record, brought back to the file's begin */
};

struct log_repair {
    struct repair *r;
    struct buf ops, bytes; /* struct log_op each; their keys and values */
    struct buf segments;   /* struct log_segment each, in order of base */
    uint64_t last;         /* position behind the last record taken */
    uint64_t segment;      /* being read */
};

/* ---- writing ----------------------------------------------------------------------------------- */

/* When all that was gathered is empty keys and values there is nothing to point into. */
static loam_slice gathered(const struct log_repair *l, size_t at, uint64_t size)
{
    return size != 0 ? loam_bytes(l->bytes.data + at, (size_t)size) : LOAM_LIT("");
}

static loam_slice key_of(const struct log_repair *l, const struct log_op *o)
{
    return gathered(l, o->key, o->key_size);
}

/* By keyspace, key - in byte order where no other is known - and falling tag. */
static bool op_less(const void *ctx, const void *a, const void *b)
{
    const struct log_repair *l = ctx;
    const struct log_op *x = a, *y = b;
    const loam_comparator *cmp = NULL;
    if (x->ks != y->ks) {
        return x->ks < y->ks;
    }
    cmp = repair_order(l->r, x->ks, &cmp) ? cmp : NULL;
    int c = key_compare(cmp, key_of(l, x), key_of(l, y));
    return c != 0 ? c < 0 : x->tag > y->tag;
}

static int write_keyspace(struct log_repair *l, const struct log_op *ops, size_t n)
{
    const loam_comparator *cmp;
    struct repair_output out;
    int rc = LOAM_OK;
    repair_output_init(&out, l->r, ops->ks, 0, !repair_order(l->r, ops->ks, &cmp));
    for (size_t i = 0; i < n && rc == LOAM_OK; i++) {
        const struct entry e = {
            .key = key_of(l, &ops[i]),
            .tag = ops[i].tag,
            .value = gathered(l, ops[i].value, ops[i].value_size)};
        rc = repair_output_add(&out, &e);
    }
    if (rc == LOAM_OK) {
        rc = repair_output_finish(&out);
    }
    repair_output_free(&out);
    return rc;
}

static int write_chunk(struct log_repair *l)
{
    struct log_op *ops = (struct log_op *)(void *)l->ops.data;
    size_t n = l->ops.size / sizeof *ops;
    int rc = LOAM_OK;
    if (n != 0) {
        sort_elements(ops, n, sizeof *ops, op_less, l);
    }
    for (size_t i = 0, end; i < n && rc == LOAM_OK; i = end) {
        for (end = i + 1; end < n && ops[end].ks == ops[i].ks; end++) {
        }
        rc = write_keyspace(l, ops + i, end - i);
    }
    buf_clear(&l->ops);
    buf_clear(&l->bytes);
    return rc;
}

/* ---- reading ----------------------------------------------------------------------------------- */

int repair_note_held(struct repair *r, const struct table_meta *m)
{
    struct repair_held *h = (struct repair_held *)(void *)r->held.data;
    size_t n = r->held.size / sizeof *h, i = 0;
    if (m->max_seq <= r->log_seq) {
        return LOAM_OK;
    }
    while (i < n && h[i].ks != m->ks) {
        i++;
    }
    if (i < n) {
        h[i].seq = m->max_seq > h[i].seq ? m->max_seq : h[i].seq;
    } else {
        const struct repair_held held = {m->max_seq, m->ks};
        buf_append(&r->held, &held, sizeof held);
    }
    return buf_status(&r->held);
}

/* What tables hold of a keyspace is complete up to a number; a hole in the log must not bring an older
 * version before a newer one. */
static bool in_tables(const struct repair *r, uint32_t ks, uint64_t seq)
{
    const struct repair_held *h = (const struct repair_held *)(const void *)r->held.data;
    bool in = r->whole && seq <= r->log_seq;
    for (size_t i = 0; !in && i < r->held.size / sizeof *h; i++) {
        in = h[i].ks == ks && seq <= h[i].seq;
    }
    return in;
}

static int take_op(struct log_repair *l, const struct op *op, uint64_t seq)
{
    if (in_tables(l->r, op->ks, seq)) {
        return LOAM_OK;
    }
    if (repair_ks(l->r, op->ks) == NULL) {
        bool dropped = l->r->whole && op->ks < l->r->log.next_ks;
        int rc = dropped ? LOAM_OK : repair_add_ks(l->r, op->ks, loam_bytes("", 0));
        if (rc < 0 || repair_ks(l->r, op->ks) == NULL) {
            return rc;
        }
    }
    const struct log_op o = {.tag = entry_tag(seq, op->kind),
                             .key = l->bytes.size,
                             .value = l->bytes.size + op->key.size,
                             .key_size = (uint32_t)op->key.size,
                             .ks = op->ks,
                             .value_size = op->value.size};
    buf_append(&l->bytes, op->key.data, op->key.size);
    buf_append(&l->bytes, op->value.data, op->value.size);
    buf_append(&l->ops, &o, sizeof o);
    return l->ops.oom ? buf_status(&l->ops) : buf_status(&l->bytes);
}

static void tell(struct log_repair *l, uint64_t number, uint64_t offset, uint64_t bytes)
{
    damage_tell(&l->r->sink, &(struct damage){.kind = FILE_LOG,
                                              .number = number,
                                              .offset = offset,
                                              .bytes = bytes,
                                              .keys = DAMAGE_KEYS_UNKNOWN});
}

static int take_record(struct log_repair *l, const struct wal_record *record)
{
    struct reader r = reader_of(record->payload.data, record->payload.size);
    struct op op;
    uint64_t seq = record->position;
    int rc, read;
    /* A record is one batch: all of it or nothing. */
    while ((read = op_read(&r, &op)) == LOAM_OK) {
    }
    if (read != LOAM_NOTFOUND) {
        FAIL_CORRUPT(l->segment, record->offset,
                     "log segment %llu: a record holds no valid operations",
                     (unsigned long long)l->segment);
        tell(l, l->segment, record->offset, record->end - record->position);
        return LOAM_OK;
    }
    r = reader_of(record->payload.data, record->payload.size);
    for (rc = LOAM_OK; rc == LOAM_OK && op_read(&r, &op) == LOAM_OK; seq++) {
        rc = take_op(l, &op, seq);
    }
    if (rc == LOAM_OK && l->bytes.size + l->ops.size >= CHUNK_BYTES) {
        rc = write_chunk(l);
    }
    uint64_t last = record->end - 1;
    l->r->last_seq = last > l->r->last_seq ? last : l->r->last_seq;
    return rc;
}

/* The log has nothing readable between l->last and `position`, which is at `offset`. */
static void tell_hole(struct log_repair *l, uint64_t position, uint64_t offset)
{
    uint64_t hole = position - l->last;
    FAIL_CORRUPT(l->segment, offset, "%llu bytes of the log before this place cannot be read",
                 (unsigned long long)hole);
    tell(l, l->segment, offset > hole ? offset - hole : 0, hole);
}

/* The segment cannot be read from here on: told of, if it is the file's fault. LOAM_STOPPED, or the error. */
static int reading_failed(struct log_repair *l, const struct wal_reader *r, int rc)
{
    struct wal_reader_end end;
    if (!repair_lasting(loam_last_error())) {
        return rc;
    }
    wal_reader_end(r, &end);
    tell(l, l->segment, end.offset, 0);
    return LOAM_STOPPED;
}

/* To the end (LOAM_NOTFOUND), or to a place from which nothing is known any more (LOAM_STOPPED). */
static int take_run(struct log_repair *l, struct wal_reader *r)
{
    struct wal_record record;
    struct wal_reader_end end;
    int rc;
    while ((rc = wal_read_next(r, &record)) == LOAM_OK) {
        rc = take_record(l, &record);
        if (rc < 0) {
            return rc;
        }
    }
    wal_reader_end(r, &end); /* void records count as read */
    l->last = !end.empty && end.end > l->last ? end.end : l->last;
    return rc == LOAM_NOTFOUND ? rc : reading_failed(l, r, rc);
}

static int take_records(struct log_repair *l, struct wal_reader *r, uint64_t base)
{
    if (l->last != 0 && base > l->last) {
        tell_hole(l, base, WAL_HEADER_PAGE);
    }
    int rc = take_run(l, r);
    while (rc == LOAM_NOTFOUND) {
        struct wal_reader_end end;
        rc = wal_reader_skip(r);
        if (rc != LOAM_OK) {
            return rc == LOAM_NOTFOUND ? LOAM_OK : reading_failed(l, r, rc);
        }
        wal_reader_end(r, &end);
        if (l->last != 0 && end.end > l->last) {
            tell_hole(l, end.end, end.offset);
        }
        rc = take_run(l, r);
    }
    return rc;
}

static int open_segment(const struct log_repair *l, uint64_t number, struct wal_reader *r)
{
    const struct log_chain_options *o = &l->r->log;
    return wal_reader_open_damaged(r, o->vfs, o->dir, o->alloc, number, o->db_id);
}

/* ---- segments ---------------------------------------------------------------------------------- */

static bool segment_less(const void *ctx, const void *a, const void *b)
{
    const struct log_segment *x = a, *y = b;
    (void)ctx;
    return x->base != y->base ? x->base < y->base : x->number < y->number;
}

/* Which segments have anything to read, and where each begins. All are set aside. */
static int survey(struct log_repair *l, const struct log_chain *chain)
{
    for (size_t i = 0; i < chain->count; i++) {
        struct wal_reader r;
        struct log_segment s = {.number = chain->numbers[i]};
        int rc = open_segment(l, s.number, &r);
        if (rc == LOAM_OK) {
            rc = wal_reader_peek(&r, &s.base);
            if (rc == LOAM_NOTFOUND && (rc = wal_reader_skip(&r)) == LOAM_OK) {
                s.base = r.base;
            }
        }
        wal_reader_close(&r);
        if (rc < 0 && !repair_lasting(loam_last_error())) {
            return rc;
        }
        if (rc < 0) {
            tell(l, s.number, loam_last_error()->offset, 0);
        }
        if (rc == LOAM_OK) {
            buf_append(&l->segments, &s, sizeof s);
        }
        rc = repair_set_aside(l->r, FILE_LOG, s.number);
        if (rc < 0) {
            return rc;
        }
    }
    struct log_segment *s = (struct log_segment *)(void *)l->segments.data;
    if (l->segments.size != 0) {
        sort_elements(s, l->segments.size / sizeof *s, sizeof *s, segment_less, NULL);
    }
    return buf_status(&l->segments);
}

static int take_segments(struct log_repair *l)
{
    const struct log_segment *s = (const struct log_segment *)(const void *)l->segments.data;
    size_t n = l->segments.size / sizeof *s;
    int rc = LOAM_OK;
    for (size_t i = 0; i < n && rc == LOAM_OK; i++) {
        struct wal_reader r;
        l->segment = s[i].number;
        rc = open_segment(l, s[i].number, &r);
        if (rc == LOAM_OK) {
            if (i + 1 < n) {
                wal_reader_limit(&r, s[i + 1].base); /* what lies above was given up */
            }
            rc = take_records(l, &r, s[i].base);
            rc = rc == LOAM_STOPPED ? LOAM_OK : rc;
        }
        wal_reader_close(&r);
    }
    return rc;
}

int repair_log(struct repair *r)
{
    struct log_repair l = {.r = r};
    struct log_chain chain;
    struct log_chain_options o = r->log;
    uint64_t found = r->sink.found;
    loam_error why = *loam_last_error(); /* that the log is not sound */
    o.first_needed = r->whole ? o.first_needed : r->log_from;
    buf_init(&l.ops, r->alloc, MEM_BUILD);
    buf_init(&l.bytes, r->alloc, MEM_BUILD);
    buf_init(&l.segments, r->alloc, MEM_BUILD);
    l.last = r->whole ? r->log_seq + 1 : 0;
    int rc = log_chain_init(&chain, &o);
    if (rc == LOAM_OK) {
        rc = survey(&l, &chain);
    }
    if (rc == LOAM_OK) {
        rc = take_segments(&l);
    }
    if (rc == LOAM_OK) {
        rc = write_chunk(&l);
    }
    if (rc == LOAM_OK && r->whole && r->sink.found == found) {
        /* Nothing is missing between what was read: then it is behind it. */
        status_raise(&why);
        tell(&l, why.file_id, why.offset, 0);
    }
    log_chain_free(&chain);
    buf_free(&l.ops);
    buf_free(&l.bytes);
    buf_free(&l.segments);
    return rc;
}
