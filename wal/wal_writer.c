/* wal_writer.c - Reserves places in the log, seals records, moves from segment to segment.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "wal/wal_writer.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "arena/hash.h"
#include "arena/status.h"
#include "arena/vfs_full.h"

#include "arena/poison.h"

#define WINDOW_MIN 65536u
#define STILL_MAX  254u /* switches at one position: below what would repeat a tail word */

/* ---- open and close ----------------------------------------------------------------------------
 */

struct leftover {
    struct leftover *next;
    char name[WAL_FILE_NAME_MAX];
};

struct leftovers {
    struct wal *w;
    struct leftover *first;
};

static int note_leftover(void *ctx, loam_slice name)
{
    struct leftovers *all = ctx;
    if (wal_is_temporary_name(name) && name.size < WAL_FILE_NAME_MAX) {
        struct leftover *l = alloc_zero(all->w->place.alloc, MEM_LOG, sizeof *l);
        if (l == NULL) {
            return -ENOMEM;
        }
        memcpy(l->name, name.data, name.size);
        l->next = all->first;
        all->first = l;
    }
    return 0;
}

/* What a crash while preparing left behind. Leaving it does no harm, so nothing here is an error.
 */
static void remove_leftovers(struct wal *w)
{
    struct leftovers all = {.w = w};
    (void)w->place.vfs->list(w->place.vfs->ctx, w->place.dir, note_leftover, &all);
    while (all.first != NULL) {
        struct leftover *l = all.first;
        all.first = l->next;
        wal_place_remove(&w->place, l->name);
        alloc_put(w->place.alloc, MEM_LOG, l, sizeof *l);
    }
}

static int init_place(struct wal_place *place, const struct wal_options *o)
{
    place->vfs = o->vfs;
    place->alloc = o->alloc;
    place->db_id = o->db_id;
    place->dir_size = strlen(o->dir);
    place->dir = alloc_get(o->alloc, MEM_LOG, place->dir_size + 1);
    if (place->dir == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory to open the log");
    }
    memcpy(place->dir, o->dir, place->dir_size + 1);
    return LOAM_OK;
}

static void init_fields(struct wal *w, const struct wal_options *o, uint64_t start)
{
    w->mode = o->no_files ? WAL_NO_FILES : o->vfs->map == NULL ? WAL_BUFFERED : WAL_MAPPED;
    w->window_bytes = o->window_bytes;
    w->segment_bytes = o->segment_bytes;
    w->next_number = o->first_number;
    uint32_t first = o->first_generation != 0 ? o->first_generation : 1;
    w->sync_from = first;
    /* relaxed, all: no other thread knows the log yet. */
    atom_store(&w->tail, start << 8 | (first & 0xff), relaxed);
    atom_store(&w->durable, start, relaxed);
    atom_store(&w->oldest, first, relaxed);
    atom_store(&w->current, first - 1, relaxed);
    w->lap_at = clock_micros();
    w->lap_position = start;
    mutex_init(&w->mu, RANK_WAL);
    cond_init(&w->prepared_cv);
    mutex_init(&w->tail_mu, RANK_WAL_KEEPER);
    cond_init(&w->mapped_cv);
    mutex_init(&w->sync_mu, RANK_WAL_KEEPER);
    cond_init(&w->sync_cv);
}

/* Prepares the first segment; a vfs that refuses to map makes the log a buffered one. */
static int open_first(struct wal *w, uint64_t start)
{
    mutex_lock(&w->mu);
    int rc = wal_prepare_locked(w, w->segment_bytes);
    mutex_unlock(&w->mu);
    if (rc < 0) {
        return rc;
    }
    uint32_t first = atom_load(&w->current, relaxed) + 1; /* relaxed: see init_fields */
    struct wal_segment *seg = wal_slot_of(w, first);
    if (w->mode == WAL_MAPPED) {
        int err = wal_windows_first(w, first);
        if (wal_map_unsupported(err)) {
            w->mode = WAL_BUFFERED;
        } else if (err < 0) {
            return FAIL_IO(err, seg->number, 0, "cannot map log segment %llu",
                           (unsigned long long)seg->number);
        }
    }
    wal_segment_start(seg, start);
    w->next_ready = false;
    atom_store(&w->current, first, relaxed); /* relaxed: see init_fields */
    return LOAM_OK;
}

/* Closes all files, frees all memory. `remove_spares`: also the names of files without records. */
static void tear_down(struct wal *w, bool remove_spares)
{
    /* relaxed: no other call is running. */
    uint32_t current = atom_load(&w->current, relaxed);
    for (uint32_t i = 0; i < WAL_SLOTS; i++) {
        struct wal_segment *seg = &w->slots[i];
        bool prepared = atom_load(&seg->generation, relaxed) == current + 1;
        wal_windows_drop(w, seg);
        wal_segment_discard(seg, &w->place, remove_spares && prepared);
    }
    for (unsigned i = 0; i < w->idle_count; i++) {
        (void)w->place.vfs->close(w->place.vfs->ctx, w->idle[i].file);
        if (remove_spares) {
            char name[WAL_FILE_NAME_MAX];
            wal_file_name(name, w->idle[i].number);
            wal_place_remove(&w->place, name);
        }
    }
    alloc_put(w->place.alloc, MEM_LOG, atom_load(&w->stage, relaxed), WAL_STAGE_BYTES);
    alloc_put(w->place.alloc, MEM_LOG, w->place.dir, w->place.dir_size + 1);
    cond_destroy(&w->sync_cv);
    mutex_destroy(&w->sync_mu);
    cond_destroy(&w->mapped_cv);
    mutex_destroy(&w->tail_mu);
    cond_destroy(&w->prepared_cv);
    mutex_destroy(&w->mu);
}

int wal_open(struct wal *w, const struct wal_options *o)
{
    if (o->start_position > WAL_POSITION_MAX / 2) {
        return FAIL(LOAM_E_TOOBIG, "the log has used up its positions: it stands at %llu",
                    (unsigned long long)o->start_position);
    }
    uint64_t start = (o->start_position + 7) & ~7ull;
    if (o->window_bytes < WINDOW_MIN || (o->window_bytes & (o->window_bytes - 1)) != 0 ||
        o->segment_bytes == 0 || o->segment_bytes > WAL_CAPACITY_MAX / 2) {
        return FAIL(LOAM_E_INVAL, "log options: segment %llu, window %u",
                    (unsigned long long)o->segment_bytes, o->window_bytes);
    }
    memset(w, 0, sizeof *w);
    int rc = init_place(&w->place, o);
    if (rc < 0) {
        return rc;
    }
    init_fields(w, o, start);
    uint8_t *stage = alloc_get(o->alloc, MEM_LOG, WAL_STAGE_BYTES);
    if (stage == NULL) {
        rc = FAIL(LOAM_E_NOMEM, "no memory to open the log");
        goto out;
    }
    /* relaxed: no other thread knows the log yet. */
    atom_store(&w->stage, stage, relaxed);
    if (w->mode != WAL_NO_FILES) {
        remove_leftovers(w);
    }
    rc = open_first(w, start);
out:
    if (rc < 0) {
        loam_error why = *loam_last_error();
        tear_down(w, true);
        rc = status_raise(&why);
    }
    return rc;
}

/* The youngest live segment that holds a record, and where the log ends; so a manifest that names
 * it says how much must be readable. An all-empty log has end 0. */
static void find_end(struct wal *w, uint64_t *number, uint64_t *end)
{
    /* relaxed: no other call is running. */
    uint64_t position = wal_position(w);
    uint32_t g = atom_load(&w->current, relaxed), oldest = atom_load(&w->oldest, relaxed);
    *number = wal_slot_of(w, g)->number;
    *end = 0;
    for (;; g--) {
        struct wal_segment *seg = wal_slot_of(w, g);
        if (atom_load(&seg->base, relaxed) < position) {
            *number = seg->number;
            *end = position;
            return;
        }
        if (g == oldest) {
            return;
        }
    }
}

int wal_close(struct wal *w, uint64_t *end_number, uint64_t *end_position)
{
    int rc = wal_sync(w, wal_position(w));
    wal_release_rest(w);
    if (rc < 0) {
        loam_error why = *loam_last_error();
        tear_down(w, false);
        return status_raise(&why);
    }
    find_end(w, end_number, end_position);
    tear_down(w, true);
    return LOAM_OK;
}

void wal_abandon(struct wal *w)
{
    tear_down(w, false);
}

/* ---- begin
 * --------------------------------------------------------------------------------------- */

static bool fits(uint64_t position, uint64_t limit, uint64_t size)
{
    return limit >= position && limit - position >= size;
}

/* The last word of a record holds the zeros behind its payload, or payload, which comes later. */
static void clear_padding(uint8_t *payload, uint64_t size)
{
    if (size > WAL_RECORD_HEADER) {
        put_fixed64(payload + size - WAL_RECORD_HEADER - 8, 0);
    }
}

/* Buffered: on LOAM_OK tail_mu stays held, and the tail unmoved, until the record ends. */
static int begin_buffered(struct wal *w, uint64_t size, struct wal_slot *s)
{
    uint8_t *stage = wal_stage_take(w, size);
    if (stage == NULL) {
        return LOAM_E_NOMEM;
    }
    mutex_lock(&w->tail_mu);
    /* relaxed: in this mode all of these change under tail_mu. */
    uint64_t tail = atom_load(&w->tail, relaxed);
    struct wal_segment *seg = wal_slot_of_tail(w, tail);
    if (!fits(tail >> 8, atom_load(&seg->limit, relaxed), size)) {
        mutex_unlock(&w->tail_mu);
        wal_stage_give(w, stage, size);
        return WAL_FULL;
    }
    s->position = tail >> 8;
    s->end = s->position + size;
    s->salt = seg->salt;
    s->generation = atom_load(&seg->generation, relaxed);
    s->staged = true;
    s->given = false;
    s->payload = stage + WAL_RECORD_HEADER;
    clear_padding(s->payload, size);
    return LOAM_OK;
}

static void fill_slot(struct wal_slot *s, const struct wal_segment *seg, uint64_t position,
                      uint64_t size, uint8_t *record)
{
    s->position = position;
    s->end = position + size;
    s->salt = seg->salt;
    /* relaxed: constant while the tail was here. */
    s->generation = atom_load(&seg->generation, relaxed);
    s->staged = false;
    s->given = true;
    s->payload = record != NULL ? record + WAL_RECORD_HEADER : NULL;
}

/* Looks at the tail's slot and, when it has room and the window is there, takes the place.
 * LOAM_OK; WAL_FULL; LOAM_STOPPED: windows have to be seen to. */
static int begin_fast(struct wal *w, uint64_t size, struct wal_slot *s)
{
    bool mapped = w->mode == WAL_MAPPED;
    /* acquire: pairs with the release in wal_switch; the slot's words are set. */
    uint64_t tail = atom_load(&w->tail, acquire);
    for (;;) {
        struct wal_segment *seg = wal_slot_of_tail(w, tail);
        uint64_t position = tail >> 8;
        /* acquire: keeps the second look at the tail behind these. */
        uint64_t base = atom_load(&seg->base, acquire);
        uint64_t limit = atom_load(&seg->limit, acquire);
        uint32_t shift = atom_load(&seg->shift, acquire);
        uint64_t d = position - base, k = d >> shift, in = d & (((uint64_t)1 << shift) - 1);
        uint8_t *window = NULL;
        int answer = LOAM_OK;
        if (!fits(position, limit, size)) {
            answer = WAL_FULL;
        } else if (mapped) {
            if (k < WAL_WINDOWS && in + size <= (uint64_t)1 << shift) {
                /* acquire: pairs with the release in show_locked(). */
                window = atom_load(&seg->window[k], acquire);
            }
            answer = window != NULL ? LOAM_OK : LOAM_STOPPED;
        }
        if (answer != LOAM_OK) {
            /* acquire: as above. An unmoved tail says the slot's words belong together. */
            uint64_t again = atom_load(&w->tail, acquire);
            if (again == tail) {
                return answer;
            }
            tail = again;
            continue;
        }
        /* acq_rel: acquire pairs with wal_switch on a retry; release so that who reads this tail
         * and then syncs sees the same segments. */
        if (atom_cas(&w->tail, &tail, tail + (size << 8), acq_rel, acquire)) {
            fill_slot(s, seg, position, size, mapped ? window + in : NULL);
            if (mapped && in + size == (uint64_t)1 << shift) {
                s->at_edge = true;
                wal_wake_keeper(w);
            }
            return LOAM_OK;
        }
    }
}

static int begin(struct wal *w, uint64_t payload_size, struct wal_slot *s)
{
    if (payload_size > WAL_PAYLOAD_MAX) {
        return FAIL(LOAM_E_TOOBIG, "log record of %llu bytes, at most %u",
                    (unsigned long long)payload_size, WAL_PAYLOAD_MAX);
    }
    uint64_t size = wal_record_size(payload_size);
    s->size = (uint32_t)payload_size;
    s->at_edge = false;
    if (w->mode == WAL_BUFFERED) {
        return begin_buffered(w, size, s);
    }
    int rc = begin_fast(w, size, s);
    if (rc == LOAM_STOPPED) {
        rc = wal_windows_reserve(w, size, s);
    }
    if (rc == LOAM_OK && s->payload != NULL) {
        clear_padding(s->payload, size);
    }
    return rc;
}

int wal_begin(struct wal *w, uint64_t payload_size, struct wal_slot *s)
{
    s->source = NULL;
    return begin(w, payload_size, s);
}

int wal_begin_copy(struct wal *w, loam_slice payload, struct wal_slot *s)
{
    s->source = payload.data;
    return begin(w, payload.size, s);
}

/* ---- end and void
 * -------------------------------------------------------------------------------- */

static void seal(uint8_t *record, const struct wal_slot *s, enum wal_record_type type,
                 uint32_t durable_distance)
{
    wal_record_header_put(record, s->position, s->size, type, durable_distance);
    put_fixed64(record, checksum64(record + 8, (size_t)wal_record_covered(type, s->size), s->salt));
}

/* A part of the record may have landed, or all of it: the segment takes no further record, and what
 * landed is made unreadable. Returns the error of `rc`, UNKNOWN unless that worked. */
static int append_failed(struct wal *w, struct wal_segment *seg, const struct wal_slot *s, int rc)
{
    uint64_t offset = WAL_HEADER_PAGE + (s->position - atom_load(&seg->base, relaxed));
    uint64_t number = seg->number; /* another one's as soon as tail_mu is free, some switches later */
    /* relaxed: read under tail_mu in this mode. */
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
    return gone ? rc : status_add_flags(rc, LOAM_ERR_UNKNOWN);
}

static int end_buffered(struct wal *w, struct wal_slot *s)
{
    mutex_assert_held(&w->tail_mu);
    struct wal_segment *seg = wal_slot_of(w, s->generation);
    uint8_t *record = s->payload - WAL_RECORD_HEADER;
    uint64_t size = s->end - s->position;
    /* relaxed: base and, in this mode, the tail change under tail_mu. */
    uint64_t offset = WAL_HEADER_PAGE + (s->position - atom_load(&seg->base, relaxed));
    int rc = vfs_write_full(w->place.vfs, seg->file, record, (size_t)size, offset);
    if (rc < 0) {
        rc = append_failed(w, seg, s, rc);
    } else {
        uint64_t tail = atom_load(&w->tail, relaxed);
        /* release: pairs with the readers of the tail; acquire: with wal_fence(). */
        atom_swap(&w->tail, tail + (size << 8), acq_rel);
        s->given = true;
        mutex_unlock(&w->tail_mu);
    }
    wal_stage_give(w, record, size);
    s->payload = NULL;
    s->staged = false;
    return rc;
}

/* Seals the record of a source and stores it, across windows. */
static void store_source(struct wal *w, const struct wal_slot *s, uint32_t durable_distance)
{
    static const uint8_t zeros[8];
    uint8_t head[WAL_RECORD_HEADER];
    uint64_t at = s->position + WAL_RECORD_HEADER;
    size_t padding = (size_t)(s->end - at - s->size);
    struct checksum_stream sum;
    wal_record_header_put(head, s->position, s->size, WAL_TYPE_OPS, durable_distance);
    checksum_begin(&sum, s->salt);
    checksum_add(&sum, head + 8, sizeof head - 8);
    checksum_add(&sum, s->source, s->size);
    checksum_add(&sum, zeros, padding);
    put_fixed64(head, checksum_end(&sum));
    wal_windows_store(w, s->position, s->generation, head, sizeof head);
    wal_windows_store(w, at, s->generation, s->source, s->size);
    wal_windows_store(w, at + s->size, s->generation, zeros, padding);
}

int wal_end(struct wal *w, struct wal_slot *s, uint64_t durable)
{
    if (w->mode == WAL_NO_FILES) {
        return LOAM_OK;
    }
    uint32_t distance = wal_durable_distance(s->position, durable);
    if (s->payload == NULL) {
        assert(s->source != NULL && w->mode == WAL_MAPPED);
        store_source(w, s, distance);
        return LOAM_OK;
    }
    if (s->source != NULL) {
        memcpy(s->payload, s->source, s->size);
    }
    uint8_t *record = s->payload - WAL_RECORD_HEADER;
    seal(record, s, WAL_TYPE_OPS, distance);
    if (!s->staged) {
        return LOAM_OK;
    }
    if (w->mode == WAL_BUFFERED) {
        return end_buffered(w, s);
    }
    uint64_t size = s->end - s->position;
    wal_windows_store(w, s->position, s->generation, record, size);
    wal_stage_give(w, record, size);
    s->payload = NULL;
    s->staged = false;
    return LOAM_OK;
}

static int void_buffered(struct wal *w, struct wal_slot *s)
{
    if (!s->given) {
        if (s->payload != NULL) { /* else wal_end has failed and given everything back */
            mutex_assert_held(&w->tail_mu);
            mutex_unlock(&w->tail_mu);
            wal_stage_give(w, s->payload - WAL_RECORD_HEADER, s->end - s->position);
            s->payload = NULL;
        }
        return WAL_UNUSED;
    }
    struct wal_segment *seg = wal_slot_of(w, s->generation);
    uint8_t header[WAL_RECORD_HEADER];
    seal(header, s, WAL_TYPE_VOID, WAL_DURABLE_UNKNOWN);
    /* relaxed: the record is not published, so the segment stays. */
    uint64_t offset = WAL_HEADER_PAGE + (s->position - atom_load(&seg->base, relaxed));
    int rc = vfs_write_full(w->place.vfs, seg->file, header, sizeof header, offset);
    return rc < 0 ? FAIL_IO(rc, seg->number, offset, "cannot void a log record") : LOAM_OK;
}

int wal_void(struct wal *w, struct wal_slot *s)
{
    if (w->mode == WAL_NO_FILES) {
        return LOAM_OK;
    }
    if (w->mode == WAL_BUFFERED) {
        return void_buffered(w, s);
    }
    uint8_t header[WAL_RECORD_HEADER];
    seal(header, s, WAL_TYPE_VOID, WAL_DURABLE_UNKNOWN);
    wal_windows_store(w, s->position, s->generation, header, sizeof header);
    if (s->staged) {
        wal_stage_give(w, s->payload - WAL_RECORD_HEADER, s->end - s->position);
        s->staged = false;
    }
    s->payload = NULL;
    return LOAM_OK;
}

/* ---- switch
 * -------------------------------------------------------------------------------------- */

/* Moves the tail into the prepared segment; returns the boundary. */
static uint64_t enter_next_locked(struct wal *w, struct wal_segment *next)
{
    /* Buffered appends are kept out; mapped ones make the CAS try again, each with progress. */
    mutex_lock(&w->tail_mu);
    uint64_t tail = atom_load(&w->tail, relaxed);
    for (;;) {
        wal_segment_start(next, tail >> 8);
        uint64_t generation = (uint64_t)atom_load(&next->generation, relaxed) & 0xff;
        uint64_t entered = (tail & ~0xffull) | generation;
        /* release: publishes the slot to writers; acquire: base of the old one is set. */
        if (atom_cas(&w->tail, &tail, entered, acq_rel, acquire)) {
            break;
        }
    }
    mutex_unlock(&w->tail_mu);
    return tail >> 8;
}

/* Bytes a segment needs so that a record of this payload fits, also behind small ones. */
static uint64_t capacity_for(const struct wal *w, uint64_t payload)
{
    uint64_t need = wal_record_size(payload);
    return need <= w->segment_bytes ? w->segment_bytes : need + w->segment_bytes;
}

/* REQUIRES: mu, which may be released meanwhile. Sees that the next slot is prepared and holds `capacity` bytes. */
static int need_next_locked(struct wal *w, uint64_t capacity)
{
    struct wal_segment *next = wal_slot_of(w, atom_load(&w->current, relaxed) + 1);
    while (w->preparing) {
        cond_wait(&w->prepared_cv, &w->mu);
    }
    if (w->next_ready && next->capacity < capacity) {
        w->next_ready = false;
        wal_windows_drop(w, next);
        wal_segment_discard(next, &w->place, true);
    }
    return w->next_ready ? LOAM_OK : wal_prepare_locked(w, capacity);
}

static int switch_locked(struct wal *w, uint64_t hint, uint64_t *boundary, uint32_t *generation)
{
    /* relaxed: current and the live bases are written under mu. */
    uint32_t current = atom_load(&w->current, relaxed);
    uint64_t position = wal_position(w);
    bool still = atom_load(&wal_slot_of(w, current)->base, relaxed) == position;
    if (still && w->still >= STILL_MAX) {
        return FAIL(LOAM_E_BUSY, "%u log segments in a row without a record", STILL_MAX);
    }
    int rc = need_next_locked(w, capacity_for(w, hint));
    if (rc < 0) {
        return rc;
    }
    uint32_t next = current + 1;
    *boundary = enter_next_locked(w, wal_slot_of(w, next));
    *generation = next;
    w->still = *boundary == atom_load(&wal_slot_of(w, current)->base, relaxed) ? w->still + 1 : 0;
    w->next_ready = false;
    /* release: pairs with wal_generation. */
    atom_store(&w->current, next, release);
    return LOAM_OK;
}

/* Whether an old generation still has the slot of the next one. */
static bool slot_taken(struct wal *w)
{
    mutex_lock(&w->mu);
    /* relaxed: current and the generations of slots are written under mu. */
    uint32_t next = atom_load(&w->current, relaxed) + 1;
    bool taken = !w->next_ready && !w->preparing &&
                 atom_load(&wal_slot_of(w, next)->generation, relaxed) != 0;
    mutex_unlock(&w->mu);
    return taken;
}

int wal_switch(struct wal *w, uint64_t payload_size_hint, uint64_t *boundary,
               uint32_t *new_generation)
{
    if (payload_size_hint > WAL_PAYLOAD_MAX) {
        return FAIL(LOAM_E_TOOBIG, "log record of %llu bytes, at most %u",
                    (unsigned long long)payload_size_hint, WAL_PAYLOAD_MAX);
    }
    if (slot_taken(w)) {
        wal_release_wait(w);
    }
    mutex_lock(&w->mu);
    int rc = switch_locked(w, payload_size_hint, boundary, new_generation);
    mutex_unlock(&w->mu);
    if (rc == LOAM_OK) {
        wal_wake_keeper(w);
    }
    return rc;
}

uint64_t wal_segment_number(struct wal *w, uint32_t generation)
{
    mutex_lock(&w->mu);
    struct wal_segment *seg = wal_slot_of(w, generation);
    /* relaxed: slots come and go under mu. */
    bool alive = generation != 0 && atom_load(&seg->generation, relaxed) == generation;
    uint64_t number = alive ? seg->number : 0;
    mutex_unlock(&w->mu);
    return number;
}
