/* wal_append.c - Records that are written to their segment's file, not stored through a map of it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * In a log without maps these are all records. In a mapped one they are those of WAL_WRITE_MIN bytes and
 * more: a page that is mapped, populated and unmapped again costs several times what the kernel takes to
 * copy 4 KiB into it, and one call of the system is little beside a record of that size. What is written and
 * what is stored through a window meet in the page cache.
 *
 *   begin   tail_mu, WAL_TAIL_HELD in the tail word -> the tail stands still: who wants to reserve waits
 *   end     write -> the tail moves behind the record, tail_mu is free
 *           it fails -> the tail stays, and stays held, until a switch takes it to another segment
 *   void    as if there had been no begin
 *
 * So no record comes behind one that may yet fail, and nobody loses time by that: what is behind a record
 * is published after it. A tail word that a failure has left held does not come back unheld: else a writer
 * that has read the limit before the failure could still take a place in the segment.
 */
#include <assert.h>
#include <string.h>

#include "arena/hash.h"
#include "arena/status.h"
#include "arena/vfs_full.h"
#include "wal/wal_writer.h"

#include "arena/poison.h"

#define WAKE_BYTES ((uint64_t)1 << 20) /* behind so many the keeper is to look what is due */

/* Bytes of the buffer: a longer record that lies together elsewhere goes through it piece by piece. */
static uint64_t stage_bytes(const struct wal_slot *s, uint64_t size)
{
    return s->source != NULL && size > WAL_STAGE_BYTES ? WAL_STAGE_BYTES : size;
}

/* Gives back what begin has taken, with the tail word as it is to be. */
static void let_go_locked(struct wal *w, uint64_t tail)
{
    mutex_assert_held(&w->tail_mu);
    /* release: pairs with the readers of the tail; acquire: with wal_fence(). */
    atom_swap(&w->tail, tail, acq_rel);
    mutex_unlock(&w->tail_mu);
}

int wal_append_begin(struct wal *w, uint64_t size, struct wal_slot *s)
{
    uint64_t room = stage_bytes(s, size);
    uint8_t *stage = wal_stage_take(w, room);
    if (stage == NULL) {
        return LOAM_E_NOMEM;
    }
    mutex_lock(&w->tail_mu);
    /* acq_rel: as every change of the tail; see wal_fence(). */
    uint64_t tail = atom_or(&w->tail, WAL_TAIL_HELD, acq_rel);
    struct wal_segment *seg = wal_slot_of_tail(w, tail);
    uint64_t position = wal_tail_position(tail);
    /* relaxed: the tail is here, and stays. */
    uint64_t limit = atom_load(&seg->limit, relaxed);
    if ((tail & WAL_TAIL_HELD) != 0 || !wal_fits(position, limit, size)) {
        let_go_locked(w, tail);
        wal_stage_give(w, stage, room);
        return WAL_FULL;
    }
    s->position = position;
    s->end = position + size;
    s->salt = seg->salt;
    s->generation = atom_load(&seg->generation, relaxed); /* relaxed: as above */
    s->staged = true;
    s->written = true;
    s->given = false;
    s->payload = stage + WAL_RECORD_HEADER;
    wal_clear_padding(s->payload, room);
    return LOAM_OK;
}

/* A part of the record may have landed, or all of it: the segment takes no further record, and what
 * landed is made unreadable. Returns the error of `rc`, UNKNOWN unless that worked. */
static int append_failed(struct wal *w, struct wal_segment *seg, const struct wal_slot *s, int rc)
{
    uint64_t offset = WAL_HEADER_PAGE + (s->position - atom_load(&seg->base, relaxed));
    uint64_t number = seg->number; /* another one's as soon as tail_mu is free, some switches later */
    /* relaxed: who reserves without tail_mu finds the tail held. */
    atom_store(&seg->limit, 0, relaxed);
    atom_store(&seg->write_failed, true, relaxed);
    static const uint8_t zeros[WAL_RECORD_HEADER];
    bool gone = vfs_write_full(w->place.vfs, seg->file, zeros, sizeof zeros, offset) == 0;
    mutex_unlock(&w->tail_mu);
    if (gone) {
        wal_sync_lock(w);
        /* Others may have switched and flushed meanwhile; what is released is never read again.
         * relaxed: slots change under leadership. */
        bool released = atom_load(&seg->generation, relaxed) != s->generation;
        gone = released || (!seg->sync_failed && wal_sync_segment(w, seg) == LOAM_OK);
        wal_sync_unlock(w);
    }
    rc = FAIL_IO(rc, number, offset, "cannot write to log segment %llu",
                 (unsigned long long)number);
    uint32_t sticky = wal_poisoned(w) ? LOAM_ERR_STICKY : 0; /* whatever the write failed with */
    return gone ? rc : status_add_flags(rc, LOAM_ERR_UNKNOWN | sticky);
}

static size_t padding_of(const struct wal_slot *s)
{
    return (size_t)(s->end - s->position - WAL_RECORD_HEADER - s->size);
}

/* Zeros from the end of a record to the end of its page, behind it in the buffer. A page of a recycled file may
 * have left the page cache: one that is written in part is read first, and the writer waits for that. */
static size_t fill_page(const struct wal_segment *seg, uint8_t *behind, uint64_t end)
{
    size_t n = seg->reused ? (size_t)(-end & (WAL_PAGE - 1)) : 0;
    memset(behind, 0, n);
    return n;
}

static void seal_source(uint8_t *head, const struct wal_slot *s, uint32_t durable_distance)
{
    static const uint8_t zeros[8];
    struct checksum_stream sum;
    wal_record_header_put(head, s->position, s->size, WAL_TYPE_OPS, durable_distance);
    checksum_begin(&sum, s->salt);
    checksum_add(&sum, head + 8, WAL_RECORD_HEADER - 8);
    checksum_add(&sum, s->source, s->size);
    checksum_add(&sum, zeros, padding_of(s));
    put_fixed64(head, checksum_end(&sum));
}

/* Header, source and padding, through the buffer. 0 or -errno. */
static int write_pieces(struct wal *w, struct wal_segment *seg, const struct wal_slot *s,
                        uint32_t durable_distance, uint64_t offset)
{
    uint8_t *stage = s->payload - WAL_RECORD_HEADER;
    size_t used = WAL_RECORD_HEADER, taken = 0;
    int rc = 0;
    seal_source(stage, s, durable_distance);
    while (rc == 0 && taken < s->size) {
        size_t room = WAL_STAGE_BYTES - 8 - used; /* 8: for the padding behind the last piece */
        size_t part = s->size - taken < room ? s->size - taken : room;
        memcpy(stage + used, s->source + taken, part);
        taken += part;
        used += part;
        if (taken == s->size) {
            memset(stage + used, 0, padding_of(s));
            used += padding_of(s);
            used += fill_page(seg, stage + used, offset + used);
        }
        rc = vfs_write_full(w->place.vfs, seg->file, stage, used, offset);
        offset += used;
        used = 0;
    }
    return rc;
}

static int write_whole(struct wal *w, struct wal_segment *seg, const struct wal_slot *s,
                       uint32_t durable_distance, uint64_t offset)
{
    uint8_t *record = s->payload - WAL_RECORD_HEADER;
    size_t size = (size_t)(s->end - s->position);
    if (s->source != NULL) {
        memcpy(s->payload, s->source, s->size);
    }
    wal_seal(record, s, WAL_TYPE_OPS, durable_distance);
    if (size >= WAL_WRITE_MIN && size <= WAL_STAGE_BYTES) {
        size += fill_page(seg, record + size, offset + size);
    }
    return vfs_write_full(w->place.vfs, seg->file, record, size, offset);
}

static void give_stage(struct wal *w, struct wal_slot *s)
{
    wal_stage_give(w, s->payload - WAL_RECORD_HEADER, stage_bytes(s, s->end - s->position));
    s->payload = NULL;
    s->staged = false;
}

int wal_append_end(struct wal *w, struct wal_slot *s, uint32_t durable_distance)
{
    mutex_assert_held(&w->tail_mu);
    struct wal_segment *seg = wal_slot_of(w, s->generation);
    uint64_t size = s->end - s->position;
    /* relaxed, here and below: the tail is held. */
    uint64_t offset = WAL_HEADER_PAGE + (s->position - atom_load(&seg->base, relaxed));
    int rc = stage_bytes(s, size) < size ? write_pieces(w, seg, s, durable_distance, offset)
                                         : write_whole(w, seg, s, durable_distance, offset);
    if (rc < 0) {
        rc = append_failed(w, seg, s, rc);
    } else {
        uint64_t tail = atom_load(&w->tail, relaxed) & ~(uint64_t)WAL_TAIL_HELD;
        s->given = true;
        atom_store(&w->written, atom_load(&w->written, relaxed) + size, relaxed);
        let_go_locked(w, tail + (size << 8));
        if (s->position / WAKE_BYTES != s->end / WAKE_BYTES) {
            wal_wake_keeper(w);
        }
    }
    give_stage(w, s);
    return rc;
}

int wal_append_void(struct wal *w, struct wal_slot *s)
{
    if (!s->given) {
        if (s->payload != NULL) { /* else wal_end has failed and given everything back */
            uint64_t tail = atom_load(&w->tail, relaxed); /* relaxed: held */
            let_go_locked(w, tail & ~(uint64_t)WAL_TAIL_HELD);
            give_stage(w, s);
        }
        return WAL_UNUSED;
    }
    struct wal_segment *seg = wal_slot_of(w, s->generation);
    uint8_t header[WAL_RECORD_HEADER];
    wal_seal(header, s, WAL_TYPE_VOID, WAL_DURABLE_UNKNOWN);
    /* relaxed: the record is not published, so the segment stays. */
    uint64_t offset = WAL_HEADER_PAGE + (s->position - atom_load(&seg->base, relaxed));
    int rc = vfs_write_full(w->place.vfs, seg->file, header, sizeof header, offset);
    return rc < 0 ? FAIL_IO(rc, seg->number, offset, "cannot void a log record") : LOAM_OK;
}
