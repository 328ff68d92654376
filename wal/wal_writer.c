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
    /* Without files nothing is saved. */
    bool whole = o->first_bytes == 0 || o->first_bytes > o->segment_bytes || o->no_files;
    w->first_bytes = whole ? o->segment_bytes : o->first_bytes;
    w->next_number = o->first_number;
    uint32_t first = o->first_generation != 0 ? o->first_generation : 1;
    w->sync_from = first;
    /* relaxed, all: no other thread knows the log yet. */
    atom_store(&w->tail, start << 8 | (first & 0xff), relaxed);
    atom_store(&w->durable, start, relaxed);
    atom_store(&w->oldest, first, relaxed);
    atom_store(&w->current, first - 1, relaxed);
    w->lap_at = clock_micros();
    w->lap_stored = w->kept_stored = start;
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
    int rc = wal_prepare_locked(w, w->first_bytes);
    mutex_unlock(&w->mu);
    if (rc < 0) {
        return rc;
    }
    uint32_t first = atom_load(&w->current, relaxed) + 1; /* relaxed: see init_fields */
    struct wal_segment *seg = wal_slot_of(w, first);
    if (w->mode == WAL_MAPPED) {
        int err = wal_windows_first(w, first, false);
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
    alloc_put(w->place.alloc, MEM_LOG, atom_load(&w->stage, relaxed), WAL_STAGE_ROOM);
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
    uint8_t *stage = alloc_get(o->alloc, MEM_LOG, WAL_STAGE_ROOM);
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

static void fill_slot(struct wal_slot *s, const struct wal_segment *seg, uint64_t position,
                      uint64_t size, uint8_t *record)
{
    s->position = position;
    s->end = position + size;
    s->salt = seg->salt;
    /* relaxed: constant while the tail was here. */
    s->generation = atom_load(&seg->generation, relaxed);
    s->staged = s->written = false;
    s->given = true;
    s->payload = record != NULL ? record + WAL_RECORD_HEADER : NULL;
}

/* Looks at the tail's slot and, when it has room and the window is there, takes the place.
 * LOAM_OK; WAL_FULL; LOAM_STOPPED: windows have to be seen to, or the tail is held. */
static int begin_fast(struct wal *w, uint64_t size, struct wal_slot *s)
{
    bool mapped = w->mode == WAL_MAPPED;
    /* acquire: pairs with the release in wal_switch; the slot's words are set. */
    uint64_t tail = atom_load(&w->tail, acquire);
    for (;;) {
        if ((tail & WAL_TAIL_HELD) != 0) {
            return LOAM_STOPPED;
        }
        struct wal_segment *seg = wal_slot_of_tail(w, tail);
        uint64_t position = wal_tail_position(tail);
        /* acquire: keeps the second look at the tail behind these. */
        uint64_t base = atom_load(&seg->base, acquire);
        uint64_t limit = atom_load(&seg->limit, acquire);
        uint32_t shift = atom_load(&seg->shift, acquire);
        uint64_t d = position - base, k = d >> shift, in = d & (((uint64_t)1 << shift) - 1);
        uint8_t *window = NULL;
        int answer = LOAM_OK;
        if (!wal_fits(position, limit, size)) {
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

/* A long record that the caller is still to fill in would need a buffer as long: windows are there for that. */
static bool is_written(const struct wal *w, uint64_t size, const struct wal_slot *s)
{
    bool large = size >= WAL_WRITE_MIN && (s->source != NULL || size <= WAL_STAGE_BYTES);
    return w->mode == WAL_BUFFERED || (w->mode == WAL_MAPPED && large);
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
    if (is_written(w, size, s)) {
        return wal_append_begin(w, size, s);
    }
    int rc = begin_fast(w, size, s);
    if (rc == LOAM_STOPPED) {
        rc = wal_windows_reserve(w, size, s);
    }
    if (rc == LOAM_OK && s->payload != NULL) {
        wal_clear_padding(s->payload, size);
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

void wal_seal(uint8_t *record, const struct wal_slot *s, enum wal_record_type type,
              uint32_t durable_distance)
{
    wal_record_header_put(record, s->position, s->size, type, durable_distance);
    put_fixed64(record, checksum64(record + 8, (size_t)wal_record_covered(type, s->size), s->salt));
}

int wal_end(struct wal *w, struct wal_slot *s, uint64_t durable)
{
    if (w->mode == WAL_NO_FILES) {
        return LOAM_OK;
    }
    uint32_t distance = wal_durable_distance(s->position, durable);
    if (s->written) {
        return wal_append_end(w, s, distance);
    }
    if (s->source != NULL) {
        memcpy(s->payload, s->source, s->size);
    }
    uint8_t *record = s->payload - WAL_RECORD_HEADER;
    wal_seal(record, s, WAL_TYPE_OPS, distance);
    if (!s->staged) {
        return LOAM_OK;
    }
    uint64_t size = s->end - s->position;
    wal_windows_store(w, s->position, s->generation, record, size);
    wal_stage_give(w, record, size);
    s->payload = NULL;
    s->staged = false;
    return LOAM_OK;
}

int wal_void(struct wal *w, struct wal_slot *s)
{
    if (w->mode == WAL_NO_FILES) {
        return LOAM_OK;
    }
    if (s->written) {
        return wal_append_void(w, s);
    }
    uint8_t header[WAL_RECORD_HEADER];
    wal_seal(header, s, WAL_TYPE_VOID, WAL_DURABLE_UNKNOWN);
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
        wal_segment_start(next, wal_tail_position(tail));
        uint64_t generation = (uint64_t)atom_load(&next->generation, relaxed) & 0xff;
        uint64_t entered = wal_tail_position(tail) << 8 | generation;
        /* release: publishes the slot to writers; acquire: base of the old one is set. */
        if (atom_cas(&w->tail, &tail, entered, acq_rel, acquire)) {
            break;
        }
    }
    mutex_unlock(&w->tail_mu);
    return wal_tail_position(tail);
}

/* Bytes a segment needs so that a record of this payload fits, also behind small ones. */
static uint64_t capacity_for_locked(struct wal *w, uint64_t payload)
{
    uint64_t need = wal_record_size(payload), next = wal_next_bytes_locked(w);
    return need <= next ? next : need <= w->segment_bytes ? w->segment_bytes : need + w->segment_bytes;
}

/* REQUIRES: mu, which may be released meanwhile. Sees that the next slot is prepared and holds such a record. */
static int need_next_locked(struct wal *w, uint64_t payload)
{
    struct wal_segment *next = wal_slot_of(w, atom_load(&w->current, relaxed) + 1);
    while (w->preparing) {
        cond_wait(&w->prepared_cv, &w->mu);
    }
    if (w->next_ready && next->capacity < wal_record_size(payload)) {
        w->next_ready = false;
        wal_windows_drop(w, next);
        wal_segment_discard(next, &w->place, true);
    }
    return w->next_ready ? LOAM_OK : wal_prepare_locked(w, capacity_for_locked(w, payload));
}

static int switch_locked(struct wal *w, uint64_t hint, uint64_t *boundary, uint32_t *generation)
{
    /* relaxed: current and the live bases are written under mu. */
    uint32_t current = atom_load(&w->current, relaxed);
    if (!wal_is_used_locked(w) && w->still >= STILL_MAX) {
        return FAIL(LOAM_E_BUSY, "%u log segments in a row without a record", STILL_MAX);
    }
    int rc = need_next_locked(w, hint);
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
