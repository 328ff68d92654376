/* wal_reader.c - Replays a segment and tells a torn tail from damage.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "wal/wal_reader.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "arena/hash.h"
#include "arena/status.h"
#include "arena/vfs_full.h"
#include "wal/wal_segment.h"

#include "arena/poison.h"

/* What the search behind the end may spend on records that turn out not to be any: a file whose own
 * bytes lead to more was made to. */
#define WASTE_BASE  (1u << 20)
#define WASTE_TIMES 4u
#define LONE_MAX    4096u /* bytes; see worth_summing */

/* ---- errors and memory ------------------------------------------------------------------------ */

static int keep_error(struct wal_reader *r, int rc)
{
    r->failed = rc;
    r->error = *loam_last_error();
    return rc;
}

int wal_reader_io_error_(struct wal_reader *r, int64_t rc, uint64_t offset)
{
    return keep_error(r, FAIL_IO((int)rc, r->number, offset, "cannot read log segment %llu",
                                 (unsigned long long)r->number));
}

void wal_reader_drop_big_(struct wal_reader *r)
{
    if (r->big != NULL) {
        alloc_put(r->alloc, MEM_LOG, r->big, (size_t)r->big_size);
        r->big = NULL;
        r->big_size = 0;
    }
}

/* ---- bytes
 * --------------------------------------------------------------------------------------- */

static uint64_t left_at(const struct wal_reader *r, uint64_t off)
{
    return off < r->size ? r->size - off : 0;
}

/* Makes the buffer, whose bytes are lost, larger when `want` needs that or the file is read on behind it. */
static int grow_buffer(struct wal_reader *r, uint64_t off, size_t want)
{
    bool read_on = r->buffer_size == r->buffer_cap && off >= r->buffer_offset;
    if (r->buffer_cap == r->buffer_most || (want <= r->buffer_cap && !read_on)) {
        return LOAM_OK;
    }
    size_t cap = r->buffer_cap;
    while (cap < want || cap == r->buffer_cap) {
        cap *= 4;
    }
    cap = cap < r->buffer_most ? cap : r->buffer_most;
    uint8_t *larger = alloc_get_aligned(r->alloc, MEM_LOG, cap, WAL_HEADER_PAGE);
    if (larger == NULL) {
        return keep_error(r, FAIL(LOAM_E_NOMEM, "no memory to read the log"));
    }
    alloc_put_aligned(r->alloc, MEM_LOG, r->buffer, r->buffer_cap, WAL_HEADER_PAGE);
    r->buffer = larger;
    r->buffer_cap = cap;
    r->buffer_size = 0;
    return LOAM_OK;
}

/* Bytes of the file from off on, at least `want` unless the file ends: *have of them at the result.
 * NULL with the error kept when reading fails. want is at most buffer_most. */
static const uint8_t *bytes_at(struct wal_reader *r, uint64_t off, size_t want, size_t *have)
{
    assert(off % 8 == 0);
    uint64_t left = left_at(r, off);
    if (want > left) {
        want = (size_t)left;
    }
    uint64_t end = r->buffer_offset + r->buffer_size;
    if (off < r->buffer_offset || off > end || end - off < want) {
        if (grow_buffer(r, off, want) < 0) {
            return NULL;
        }
        size_t n = left < r->buffer_cap ? (size_t)left : r->buffer_cap;
        int64_t got = vfs_read_full(r->vfs, r->file, r->buffer, n, off);
        if (got < 0) {
            r->buffer_size = 0;
            (void)wal_reader_io_error_(r, got, off);
            return NULL;
        }
        r->buffer_offset = off;
        r->buffer_size = (size_t)got;
        if ((size_t)got < n) {
            r->size = off + (uint64_t)got; /* the file was cut while it is read */
        }
    }
    *have = (size_t)(r->buffer_offset + r->buffer_size - off);
    return r->buffer + (off - r->buffer_offset);
}

/* Does `covered` bytes from off + 8 have the checksum? In pieces, through the buffer. */
static int check_in_pieces(struct wal_reader *r, uint64_t off, uint64_t covered, uint64_t checksum,
                           bool *right)
{
    struct checksum_stream stream;
    checksum_begin(&stream, r->header.salt);
    *right = false;
    for (off += 8; covered != 0;) {
        size_t have;
        const uint8_t *p = bytes_at(r, off, r->buffer_most & ~(size_t)7, &have);
        if (p == NULL) {
            return r->failed;
        }
        if (have == 0) {
            return LOAM_OK;
        }
        size_t n = (have < covered ? have : (size_t)covered);
        checksum_add(&stream, p, n);
        off += n;
        covered -= n;
        if (covered != 0 && (off & 7) != 0) {
            return LOAM_OK; /* the file ended in the middle of a word */
        }
    }
    *right = checksum_end(&stream) == checksum;
    return LOAM_OK;
}

/* ---- records
 * ------------------------------------------------------------------------------------- */

/* What is at an offset. */
enum found { FOUND_NONE, FOUND_ATTEMPT, FOUND_RECORD };

/* Could these header bytes, at off, begin a record that ends inside the file? */
static bool plausible(const struct wal_reader *r, const struct wal_record_header *h, uint64_t off)
{
    uint64_t left = left_at(r, off);
    return h->type != 0 && h->length <= WAL_PAYLOAD_MAX && wal_record_size(h->length) <= left &&
           (h->position & 7) == 0 && h->position <= WAL_POSITION_MAX &&
           h->position >= off - WAL_HEADER_PAGE &&
           (!r->based || h->position == r->base + (off - WAL_HEADER_PAGE));
}

/* Without a base, user data is easily taken for a header. A long record is worth summing only when
 * the header of the next one follows it. */
static int worth_summing(struct wal_reader *r, uint64_t off, const struct wal_record_header *h,
                         bool *worth)
{
    uint64_t size = wal_record_size(h->length);
    *worth = r->based || off == r->next || size <= LONE_MAX;
    if (*worth) {
        return LOAM_OK;
    }
    size_t have;
    const uint8_t *p = bytes_at(r, off + size, WAL_RECORD_HEADER, &have);
    if (p == NULL) {
        return r->failed;
    }
    if (have >= WAL_RECORD_HEADER) {
        struct wal_record_header next = wal_record_header_get(p);
        *worth = next.type != 0 && next.position == h->position + size;
    }
    return LOAM_OK;
}

/* Reads the header at off, and on FOUND_RECORD has verified the checksum. *spent: bytes summed. */
static int probe(struct wal_reader *r, uint64_t off, struct wal_record_header *h, enum found *found,
                 uint64_t *spent)
{
    *found = FOUND_NONE;
    *spent = 0;
    size_t have;
    const uint8_t *p = bytes_at(r, off, WAL_RECORD_HEADER, &have);
    if (p == NULL) {
        return r->failed;
    }
    if (have < WAL_RECORD_HEADER) {
        return LOAM_OK;
    }
    *h = wal_record_header_get(p);
    if (!plausible(r, h, off)) {
        /* With a base the position alone gives an attempt away: no stale record has it. */
        bool ours = r->based && h->position == r->base + (off - WAL_HEADER_PAGE);
        *found = ours ? FOUND_ATTEMPT : FOUND_NONE;
        return LOAM_OK;
    }
    bool right = false, worth;
    int rc = worth_summing(r, off, h, &worth);
    if (rc < 0 || !worth) {
        return rc;
    }
    uint64_t covered = wal_record_covered(h->type, h->length);
    *spent = covered;
    if (covered + 8 <= r->buffer_most) {
        p = bytes_at(r, off, (size_t)covered + 8, &have);
        if (p == NULL) {
            return r->failed;
        }
        right = have >= covered + 8 &&
                checksum64(p + 8, (size_t)covered, r->header.salt) == h->checksum;
    } else {
        rc = check_in_pieces(r, off, covered, h->checksum, &right);
        if (rc < 0) {
            return rc;
        }
    }
    *found = right ? FOUND_RECORD : r->based ? FOUND_ATTEMPT : FOUND_NONE;
    return LOAM_OK;
}

static void note_durable(struct wal_reader *r, uint64_t durable)
{
    if (r->durable < durable) {
        r->durable = durable;
    }
}

/* A verified record's payload, contiguous: in the buffer, or in memory of its own. */
static int lend_payload(struct wal_reader *r, uint64_t off, const struct wal_record_header *h,
                        loam_slice *payload)
{
    uint64_t size = wal_record_size(h->length);
    if (size <= r->buffer_most) {
        size_t have;
        const uint8_t *p = bytes_at(r, off, (size_t)size, &have);
        if (p == NULL) {
            return r->failed;
        }
        *payload = loam_bytes(p + WAL_RECORD_HEADER, h->length);
        return LOAM_OK;
    }
    r->big = alloc_get(r->alloc, MEM_LOG, (size_t)size);
    if (r->big == NULL) {
        return keep_error(r,
                          FAIL(LOAM_E_NOMEM, "no memory for a log record of %u bytes", h->length));
    }
    r->big_size = size;
    int64_t n = vfs_read_full(r->vfs, r->file, r->big, (size_t)size, off);
    if (n < 0) {
        return wal_reader_io_error_(r, n, off);
    }
    /* Read a second time, so checked a second time. */
    uint64_t covered = wal_record_covered(h->type, h->length);
    if ((uint64_t)n != size ||
        checksum64(r->big + 8, (size_t)covered, r->header.salt) != h->checksum) {
        return keep_error(r,
                          FAIL_CORRUPT(r->number, off, "log segment %llu reads differently twice",
                                       (unsigned long long)r->number));
    }
    *payload = loam_bytes(r->big + WAL_RECORD_HEADER, h->length);
    return LOAM_OK;
}

/* The record at r->next, void ones included, not yet stepped over. LOAM_NOTFOUND at the end. */
static int look_next(struct wal_reader *r, struct wal_record_header *h)
{
    if (r->failed != 0) {
        return status_raise(&r->error);
    }
    if (r->ended) {
        return LOAM_NOTFOUND;
    }
    enum found found;
    uint64_t spent;
    int rc = probe(r, r->next, h, &found, &spent);
    if (rc < 0) {
        return rc;
    }
    if (found == FOUND_RECORD && h->type > WAL_TYPE_VOID) {
        return keep_error(r, FAIL_AT(LOAM_E_FORMAT, r->number, r->next,
                                     "log segment %llu: record of unknown type %u",
                                     (unsigned long long)r->number, h->type));
    }
    if (found != FOUND_RECORD || h->position >= r->limit) {
        r->ended = true;
        r->torn = found == FOUND_ATTEMPT;
        return LOAM_NOTFOUND;
    }
    return LOAM_OK;
}

/* Over the record that look_next found. */
static void step(struct wal_reader *r, const struct wal_record_header *h)
{
    if (!r->based) {
        r->based = true;
        r->base = h->position - (r->next - WAL_HEADER_PAGE);
    }
    r->next += wal_record_size(h->length);
    note_durable(r, wal_record_durable(h));
}

int wal_reader_peek(struct wal_reader *r, uint64_t *base)
{
    assert(r->next == WAL_HEADER_PAGE);
    struct wal_record_header h = {0};
    int rc = look_next(r, &h);
    if (rc == LOAM_OK) {
        *base = h.position;
    }
    return rc;
}

void wal_reader_expect(struct wal_reader *r, uint64_t base)
{
    assert(r->next == WAL_HEADER_PAGE && !r->scanned);
    if (r->failed == 0) {
        r->based = true;
        r->base = base;
        r->ended = false;
    }
}

void wal_reader_limit(struct wal_reader *r, uint64_t position)
{
    r->limit = position;
}

void wal_reader_promise(struct wal_reader *r, uint64_t durable)
{
    note_durable(r, durable);
}

int wal_read_next(struct wal_reader *r, struct wal_record *record)
{
    wal_reader_drop_big_(r);
    for (;;) {
        struct wal_record_header h = {0};
        int rc = look_next(r, &h);
        if (rc != LOAM_OK) {
            return rc;
        }
        uint64_t off = r->next;
        if (h.type == WAL_TYPE_OPS) {
            rc = lend_payload(r, off, &h, &record->payload);
            if (rc < 0) {
                return rc;
            }
        }
        step(r, &h);
        if (h.type == WAL_TYPE_OPS) {
            record->position = h.position;
            record->offset = off;
            record->end = h.position + wal_record_size(h.length);
            return LOAM_OK;
        }
    }
}

/* ---- the end
 * ------------------------------------------------------------------------------------- */

void wal_reader_end(const struct wal_reader *r, struct wal_reader_end *end)
{
    end->empty = r->next == WAL_HEADER_PAGE;
    end->end = r->based ? r->base + (r->next - WAL_HEADER_PAGE) : 0;
    end->offset = r->next;
    end->torn = r->torn;
    end->durable = r->durable;
}

static int read_to_the_end(struct wal_reader *r)
{
    wal_reader_drop_big_(r);
    struct wal_record_header h = {0};
    int rc;
    while ((rc = look_next(r, &h)) == LOAM_OK) {
        step(r, &h);
    }
    return rc == LOAM_NOTFOUND ? LOAM_OK : rc;
}

#define ZEROS_STEP 64u

/* From i on, over places where no record can begin since position and type are zero: most of what lies behind
 * an end, looked at in steps. */
static size_t skip_zeros(const uint8_t *p, size_t i, size_t have)
{
    while (have - i >= ZEROS_STEP + WAL_RECORD_HEADER && get_fixed64(p + i + 8) == 0) {
        uint64_t any = 0;
        for (size_t at = 8; at < ZEROS_STEP + WAL_RECORD_HEADER; at += 8) {
            any |= get_fixed64(p + i + at);
        }
        if (any != 0) {
            break;
        }
        i += ZEROS_STEP;
    }
    return i;
}

/* Whether a record of this position may begin here. Without a base the type is the quickest thing that zeros
 * lack. */
static bool may_begin(const struct wal_reader *r, const uint8_t *p, uint64_t position)
{
    return r->based ? get_fixed64(p + 8) == position : (p[20] & 15u) != 0;
}

/* The next offset from off on whose header could be a record's; r->size when there is none. */
static int next_candidate(struct wal_reader *r, uint64_t *at)
{
    uint64_t off = *at;
    while (left_at(r, off) >= WAL_RECORD_HEADER) {
        size_t have;
        const uint8_t *p = bytes_at(r, off, WAL_RECORD_HEADER, &have);
        if (p == NULL) {
            return r->failed;
        }
        uint64_t position = r->base + (off - WAL_HEADER_PAGE);
        size_t i = skip_zeros(p, 0, have);
        while (have - i >= WAL_RECORD_HEADER && !may_begin(r, p + i, position + i)) {
            i = skip_zeros(p, i + 8, have);
        }
        if (have - i >= WAL_RECORD_HEADER) {
            *at = off + i;
            return LOAM_OK;
        }
        if (i == 0) {
            break;
        }
        off += i;
    }
    *at = r->size;
    return LOAM_OK;
}

int wal_reader_scan(struct wal_reader *r)
{
    int rc = read_to_the_end(r);
    if (rc < 0 || r->scanned) {
        return rc;
    }
    uint64_t waste = 0, allowed = WASTE_BASE + WASTE_TIMES * r->size;
    /* Without a base one record is not believed about it: damage may have put a whole one elsewhere.
     * The lowest base that any of them gives makes the promises of all count. */
    uint64_t lowest = UINT64_MAX;
    /* The end itself is no record, unless the limit made it the end: that one was given up. */
    uint64_t off = r->next;
    while (left_at(r, off) >= WAL_RECORD_HEADER) {
        struct wal_record_header h = {0};
        enum found found;
        uint64_t spent;
        rc = next_candidate(r, &off);
        if (rc < 0 || left_at(r, off) == 0) {
            break;
        }
        rc = probe(r, off, &h, &found, &spent);
        if (rc < 0) {
            break;
        }
        if (found == FOUND_RECORD) {
            uint64_t base = h.position - (off - WAL_HEADER_PAGE);
            lowest = base < lowest ? base : lowest;
            if (h.position < r->limit) {
                r->beyond = r->torn = true;
                note_durable(r, wal_record_durable(&h));
            }
            off += wal_record_size(h.length);
            continue;
        }
        waste += spent;
        if (waste > allowed && !r->based) {
            break; /* old data in a recycled file; nothing is known to be missing */
        }
        if (waste > allowed) {
            return keep_error(r, FAIL_CORRUPT(r->number, off,
                                              "log segment %llu is made of false records",
                                              (unsigned long long)r->number));
        }
        off += 8;
    }
    if (!r->based && lowest != UINT64_MAX) {
        r->based = true;
        r->base = lowest;
    }
    r->scanned = rc >= 0;
    return rc;
}

/* The segment ends where the clean close said, and no record that was read promises more. What lies
 * behind that end was given up before the close, so there is nothing to look for. */
static bool ends_as_sealed(const struct wal_reader *r, uint64_t sealed_end)
{
    return sealed_end != 0 && r->based && r->base + (r->next - WAL_HEADER_PAGE) == sealed_end &&
           (r->durable <= sealed_end || r->limit <= sealed_end);
}

int wal_reader_skip(struct wal_reader *r)
{
    uint64_t waste = 0, allowed = WASTE_BASE + WASTE_TIMES * r->size;
    wal_reader_drop_big_(r);
    if (r->failed != 0) {
        return status_raise(&r->error);
    }
    for (uint64_t off = r->next + 8; waste <= allowed && left_at(r, off) >= WAL_RECORD_HEADER;) {
        struct wal_record_header h = {0};
        enum found found;
        uint64_t spent;
        int rc = next_candidate(r, &off);
        if (rc < 0 || left_at(r, off) == 0) {
            return rc < 0 ? rc : LOAM_NOTFOUND;
        }
        rc = probe(r, off, &h, &found, &spent);
        if (rc < 0) {
            return rc;
        }
        if (found == FOUND_RECORD && h.position < r->limit) {
            r->base = r->based ? r->base : h.position - (off - WAL_HEADER_PAGE);
            r->based = true;
            r->next = off;
            r->ended = false;
            return LOAM_OK;
        }
        waste += spent;
        off += found == FOUND_RECORD ? wal_record_size(h.length) : 8;
    }
    return LOAM_NOTFOUND;
}

int wal_reader_check(struct wal_reader *r, uint64_t sealed_end)
{
    int rc = read_to_the_end(r);
    if (rc == LOAM_OK && ends_as_sealed(r, sealed_end)) {
        return LOAM_OK;
    }
    rc = rc == LOAM_OK ? wal_reader_scan(r) : rc;
    if (rc < 0) {
        return rc;
    }
    /* A record behind the end has told the base even when the first one is lost. */
    uint64_t end = r->based ? r->base + (r->next - WAL_HEADER_PAGE) : 0;
    /* Records beyond the end are no offence: a recovery may have given them up before the close. */
    if (sealed_end != 0 && (!r->based || end != sealed_end)) {
        return keep_error(r, FAIL_CORRUPT(r->number, r->next,
                                          "log segment %llu was closed at %llu and ends at %llu",
                                          (unsigned long long)r->number,
                                          (unsigned long long)sealed_end, (unsigned long long)end));
    }
    uint64_t promised = r->durable < r->limit ? r->durable : r->limit;
    if (r->based && promised > end) {
        return keep_error(r, FAIL_CORRUPT(r->number, r->next,
                                          "log segment %llu: durable up to %llu, readable to %llu",
                                          (unsigned long long)r->number,
                                          (unsigned long long)promised, (unsigned long long)end));
    }
    return r->torn ? WAL_TORN : LOAM_OK;
}
