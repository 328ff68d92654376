/* manifest_replay.c - Adds up the edits of a manifest.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/manifest_replay.h"

#include <errno.h>
#include <string.h>

#include "arena/status.h"
#include "engine/filename.h"
#include "sstable/sst_format.h"

#include "arena/poison.h"

#define SLOTS_MIN 64u

/* Stands in slots whose table was removed, so that searches go on behind it. */
static struct table removed_table;
#define REMOVED (&removed_table)

void manifest_replay_init(struct manifest_replay *r, struct alloc *a)
{
    *r = (struct manifest_replay){.alloc = a, .next_file = 1};
    version_edit_init(&r->keyspaces, a);
}

void manifest_replay_free(struct manifest_replay *r)
{
    for (uint32_t i = 0; i < r->slot_count; i++) {
        if (r->slots[i] != NULL && r->slots[i] != REMOVED) {
            table_free(r->slots[i]);
        }
    }
    alloc_put(r->alloc, MEM_VERSION, r->slots, r->slot_count * sizeof(struct table *));
    version_edit_free(&r->keyspaces);
    r->slots = NULL;
    r->slot_count = r->slots_used = r->table_count = 0;
}

/* ---- the map --------------------------------------------------------------------------------- */

static uint32_t slot_of(uint64_t number, uint32_t slot_count)
{
    return (uint32_t)((number * 0x9e3779b97f4a7c15u) >> 32) & (slot_count - 1);
}

/* The slot that holds the number, or NULL. Ends because a free slot always remains. */
static struct table **map_find(struct manifest_replay *r, uint64_t number)
{
    if (r->slot_count == 0) {
        return NULL;
    }
    for (uint32_t i = slot_of(number, r->slot_count);; i = (i + 1) & (r->slot_count - 1)) {
        if (r->slots[i] == NULL) {
            return NULL;
        }
        if (r->slots[i] != REMOVED && r->slots[i]->meta.number == number) {
            return &r->slots[i];
        }
    }
}

static void map_place(struct table **slots, uint32_t slot_count, struct table *t)
{
    uint32_t i = slot_of(t->meta.number, slot_count);
    while (slots[i] != NULL) {
        i = (i + 1) & (slot_count - 1);
    }
    slots[i] = t;
}

/* Keeps at least a quarter of the slots free. */
static bool map_make_room(struct manifest_replay *r)
{
    if (r->slots_used + 1 <= r->slot_count / 4 * 3) {
        return true;
    }
    uint32_t count = SLOTS_MIN;
    while (count / 2 <= r->table_count) {
        if (count > UINT32_MAX / 4) {
            return false;
        }
        count *= 2;
    }
    struct table **slots = alloc_zero(r->alloc, MEM_VERSION, count * sizeof(struct table *));
    if (slots == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < r->slot_count; i++) {
        if (r->slots[i] != NULL && r->slots[i] != REMOVED) {
            map_place(slots, count, r->slots[i]);
        }
    }
    alloc_put(r->alloc, MEM_VERSION, r->slots, r->slot_count * sizeof(struct table *));
    r->slots = slots;
    r->slot_count = count;
    r->slots_used = r->table_count;
    return true;
}

/* ---- edits ----------------------------------------------------------------------------------- */

static int no_memory(void)
{
    return FAIL(LOAM_E_NOMEM, "no memory to read the manifest");
}

/* Index of the first keyspace with an id >= `id`. */
static uint32_t ks_index(const struct manifest_replay *r, uint32_t id)
{
    uint32_t lo = 0;
    uint32_t hi = r->keyspaces.created_count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (r->keyspaces.created[mid].id < id) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static bool ks_exists(const struct manifest_replay *r, uint32_t id)
{
    uint32_t i = ks_index(r, id);
    return i < r->keyspaces.created_count && r->keyspaces.created[i].id == id;
}

/* Takes keyspace i out; its allocation goes with the copy that the caller makes or frees. */
static struct ks_desc ks_take(struct manifest_replay *r, uint32_t i)
{
    struct version_edit *k = &r->keyspaces;
    struct ks_desc d = k->created[i];
    k->created_count--;
    memmove(&k->created[i], &k->created[i + 1], (k->created_count - i) * sizeof d);
    return d;
}

static void ks_free(struct manifest_replay *r, struct ks_desc d)
{
    alloc_put(r->alloc, MEM_VERSION, (void *)(uintptr_t)d.name.data,
              d.name.size + d.comparator.size + 1);
}

static int ks_insert(struct manifest_replay *r, const struct ks_desc *d)
{
    struct version_edit *k = &r->keyspaces;
    uint32_t i = ks_index(r, d->id);
    int rc = version_edit_create_ks(k, d);
    if (rc != LOAM_OK) {
        return rc;
    }
    struct ks_desc last = k->created[k->created_count - 1];
    memmove(&k->created[i + 1], &k->created[i], (k->created_count - 1 - i) * sizeof last);
    k->created[i] = last;
    return LOAM_OK;
}

static int replay_keyspaces(struct manifest_replay *r, const struct version_edit *e,
                            uint64_t offset)
{
    for (uint32_t i = 0; i < e->dropped_count; i++) {
        if (!ks_exists(r, e->dropped[i])) {
            return FAIL_CORRUPT(r->file_id, offset, "drops keyspace %u, which is not there",
                                e->dropped[i]);
        }
        ks_free(r, ks_take(r, ks_index(r, e->dropped[i])));
    }
    for (uint32_t i = 0; i < e->renamed_count; i++) {
        if (!ks_exists(r, e->renamed[i].id)) {
            return FAIL_CORRUPT(r->file_id, offset, "renames keyspace %u, which is not there",
                                e->renamed[i].id);
        }
        struct ks_desc old = ks_take(r, ks_index(r, e->renamed[i].id));
        struct ks_desc d = old;
        d.name = e->renamed[i].name;
        int rc = ks_insert(r, &d);
        ks_free(r, old);
        if (rc != LOAM_OK) {
            return rc;
        }
    }
    for (uint32_t i = 0; i < e->created_count; i++) {
        const struct ks_desc *d = &e->created[i];
        /* next_ks is known to be above every id ever used, so a used one cannot come back. */
        if (ks_exists(r, d->id) || (e->has_next_ks && d->id >= e->next_ks)) {
            return FAIL_CORRUPT(r->file_id, offset, "creates keyspace %u twice, or out of range",
                                d->id);
        }
        int rc = ks_insert(r, d);
        if (rc != LOAM_OK) {
            return rc;
        }
        r->next_ks = r->next_ks > d->id ? r->next_ks : d->id + 1;
    }
    return LOAM_OK;
}

static int replay_tables(struct manifest_replay *r, const struct version_edit *e, uint64_t offset)
{
    for (uint32_t i = 0; i < e->removed_count; i++) {
        const struct removed_table *x = &e->removed[i];
        struct table **slot = map_find(r, x->number);
        if (slot == NULL || (*slot)->meta.ks != x->ks || (*slot)->meta.level != x->level) {
            return FAIL_CORRUPT(r->file_id, offset, "removes table %llu, which is not there",
                                (unsigned long long)x->number);
        }
        table_free(*slot);
        *slot = REMOVED;
        r->table_count--;
    }
    for (uint32_t i = 0; i < e->added_count; i++) {
        const struct table_meta *m = &e->added[i];
        if (map_find(r, m->number) != NULL || !ks_exists(r, m->ks)) {
            return FAIL_CORRUPT(r->file_id, offset,
                                "adds table %llu twice, or to a keyspace that is not there",
                                (unsigned long long)m->number);
        }
        struct table *t = map_make_room(r) ? table_create(r->alloc, m) : NULL;
        if (t == NULL) {
            return no_memory();
        }
        map_place(r->slots, r->slot_count, t);
        r->slots_used++;
        r->table_count++;
    }
    return LOAM_OK;
}

/* Counters only ever grow. */
static bool raise(bool has, uint64_t v, uint64_t *to)
{
    if (has && v < *to) {
        return false;
    }
    *to = has ? v : *to;
    return true;
}

static int replay_edit(struct manifest_replay *r, struct version_edit *e, uint64_t offset)
{
    uint64_t next_ks = r->next_ks;
    if (!raise(e->has_log_number, e->log_number, &r->log_number) ||
        !raise(e->has_next_file, e->next_file, &r->next_file) ||
        !raise(e->has_last_seq, e->last_seq, &r->last_seq) ||
        !raise(e->has_next_ks, e->next_ks, &next_ks)) {
        return FAIL_CORRUPT(r->file_id, offset, "a number in the manifest goes back");
    }
    r->log_none = e->has_log_number ? e->log_none : r->log_none;
    r->log_seq = e->has_log_number && e->has_last_seq ? r->last_seq : r->log_seq;
    r->sealed = e->has_sealed;
    r->sealed_number = e->sealed_number;
    r->sealed_position = e->sealed_position;
    version_edit_move_dead(&r->keyspaces, e);
    int rc = replay_keyspaces(r, e, offset);
    r->next_ks = r->next_ks > next_ks ? r->next_ks : (uint32_t)next_ks;
    return rc == LOAM_OK ? replay_tables(r, e, offset) : rc;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Forgets the tables of dropped keyspaces; the rest must be in range. */
static int settle_tables(struct manifest_replay *r)
{
    for (uint32_t i = 0; i < r->slot_count; i++) {
        struct table *t = r->slots[i];
        if (t == NULL || t == REMOVED) {
            continue;
        }
        if (!ks_exists(r, t->meta.ks)) {
            table_free(t);
            r->slots[i] = REMOVED;
            r->table_count--;
        } else if (t->meta.number >= r->next_file || t->meta.max_seq > r->last_seq) {
            return FAIL_CORRUPT(r->file_id, 0,
                                "table %llu has a file or sequence number beyond the last",
                                (unsigned long long)t->meta.number);
        }
    }
    return LOAM_OK;
}

/* Tables that were made after the last edit, by their names. */
struct later_tables {
    struct buf numbers;
    uint64_t from;
};

static int note_later(void *arg, loam_slice name)
{
    struct later_tables *l = arg;
    enum file_kind kind;
    uint64_t number;
    if (filename_parse(name, &kind, &number) && kind == FILE_TABLE && number >= l->from &&
        number - l->from < MANIFEST_REPLAY_GAP) {
        buf_append(&l->numbers, &number, sizeof number);
    }
    return 0;
}

/* Whether there is a table of this database by this number: anything may have been planted there. */
static bool table_exists(const struct manifest_replay *r, const loam_vfs *vfs, const char *dir,
                         uint64_t number)
{
    char path[FILENAME_CAP];
    loam_file *f;
    if (filename_make(dir, FILE_TABLE, number, path) != LOAM_OK ||
        vfs->open(vfs->ctx, path, LOAM_VFS_READ, &f) < 0) {
        return false;
    }
    uint8_t head[SST_HEADER_SIZE];
    struct sst_header h;
    bool ours = sst_read_full(vfs, f, number, head, sizeof head, 0) == LOAM_OK &&
                sst_header_decode(head, number, &h) == LOAM_OK && h.file_number == number &&
                h.db_id == r->end.db_id;
    (void)vfs->close(vfs->ctx, f);
    return ours;
}

int manifest_replay_later_table(const struct manifest_replay *r, const loam_vfs *vfs,
                                const char *dir, uint64_t *later)
{
    struct later_tables l = {.from = r->next_file};
    *later = 0;
    buf_init(&l.numbers, r->alloc, MEM_VERSION);
    int neg = vfs->list(vfs->ctx, dir, note_later, &l);
    int rc = neg < 0 ? FAIL_IO(neg, 0, 0, "cannot list the database directory")
                     : buf_status(&l.numbers);
    for (size_t i = 0; rc == LOAM_OK && *later == 0 && i < l.numbers.size; i += sizeof(uint64_t)) {
        uint64_t number;
        memcpy(&number, l.numbers.data + i, sizeof number);
        *later = table_exists(r, vfs, dir, number) ? number : 0;
    }
    buf_free(&l.numbers);
    return rc;
}

/* After a clean close the manifest goes on in place, and CURRENT does not say when edits behind it are
 * missing. But an open adds its first edit before anything makes a table: one that is there all the
 * same says it. Without one, nothing is missing: what the log held until then it still holds, and a
 * table that a missing edit removed is missed itself. */
static int check_close(const struct manifest_replay *r, const loam_vfs *vfs, const char *dir)
{
    uint64_t later;
    int rc = manifest_replay_later_table(r, vfs, dir, &later);
    return rc == LOAM_OK && later != 0
               ? FAIL_CORRUPT(r->file_id, r->end.size,
                              "the manifest ends with a clean close, and table %llu was made after it",
                              (unsigned long long)later)
               : rc;
}

static int replay_records(struct manifest_replay *r, struct manifest_reader *in)
{
    for (;;) {
        loam_slice payload;
        uint64_t offset;
        int rc = manifest_read_next(in, &payload, &offset);
        if (rc != LOAM_OK) {
            return rc == LOAM_NOTFOUND ? LOAM_OK : rc;
        }
        struct version_edit e;
        version_edit_init(&e, r->alloc);
        rc = version_edit_decode(&e, payload, r->file_id, offset);
        if (rc == LOAM_OK && e.snapshot_end) {
            rc = in->snapshot_size != 0
                     ? FAIL_CORRUPT(r->file_id, offset, "a manifest with two snapshots")
                     : LOAM_OK;
            in->snapshot_size = in->offset;
        }
        if (rc == LOAM_OK) {
            rc = replay_edit(r, &e, offset);
        }
        version_edit_free(&e);
        if (rc != LOAM_OK) {
            return rc;
        }
    }
}

int manifest_replay_run(struct manifest_replay *r, const loam_vfs *vfs, const char *dir,
                        const struct manifest_current *current)
{
    struct manifest_reader in;
    r->file_id = current->number;
    int rc = manifest_reader_open(&in, vfs, dir, r->alloc, current);
    if (rc != LOAM_OK) {
        return rc;
    }
    rc = replay_records(r, &in);
    r->end = manifest_reader_end(&in);
    if (rc == LOAM_OK && in.snapshot_size == 0) {
        rc = FAIL_CORRUPT(r->file_id, in.offset, "the manifest ends inside its snapshot");
    }
    if (rc == LOAM_OK && r->end.closed && !r->sealed) {
        rc = FAIL_CORRUPT(r->file_id, in.offset, "the manifest does not end with a clean close");
    }
    if (rc == LOAM_OK && current->number >= r->next_file) {
        rc = FAIL_CORRUPT(r->file_id, in.offset, "the manifest's own number is beyond the last");
    }
    if (rc == LOAM_OK && !ks_exists(r, KS_DEFAULT)) {
        rc = FAIL_CORRUPT(r->file_id, in.offset, "the manifest knows no keyspace \"default\"");
    }
    manifest_reader_close(&in);
    if (rc == LOAM_OK) {
        rc = settle_tables(r);
    }
    return rc == LOAM_OK && r->sealed ? check_close(r, vfs, dir) : rc;
}

static int check_name(void *arg, loam_slice name)
{
    struct manifest_replay *r = arg;
    enum file_kind kind;
    uint64_t number;
    if (!filename_parse(name, &kind, &number)) {
        return 0;
    }
    if (number >= r->next_file && number < FILENAME_COUNTED) {
        r->next_file = number + 1;
    }
    if (kind == FILE_TABLE) {
        struct table **slot = map_find(r, number);
        if (slot != NULL) {
            (*slot)->compacting = true; /* borrowed as "the file is there" until it is taken */
        }
    }
    return 0;
}

int manifest_replay_check_files(struct manifest_replay *r, const loam_vfs *vfs, const char *dir)
{
    int neg = vfs->list(vfs->ctx, dir, check_name, r);
    if (neg < 0) {
        return FAIL_IO(neg, 0, 0, "cannot list the database directory");
    }
    for (uint32_t i = 0; i < r->slot_count; i++) {
        struct table *t = r->slots[i];
        if (t != NULL && t != REMOVED) {
            if (!t->compacting) {
                return FAIL_CORRUPT(t->meta.number, 0, "table %llu is missing",
                                    (unsigned long long)t->meta.number);
            }
            t->compacting = false;
        }
    }
    return LOAM_OK;
}

bool manifest_replay_names(struct manifest_replay *r, uint64_t table)
{
    return map_find(r, table) != NULL;
}

struct table **manifest_replay_take(struct manifest_replay *r)
{
    struct table **all = alloc_get(r->alloc, MEM_VERSION, r->table_count * sizeof(struct table *));
    if (all == NULL) {
        return NULL;
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->slot_count; i++) {
        if (r->slots[i] != NULL && r->slots[i] != REMOVED) {
            all[n++] = r->slots[i];
            r->slots[i] = NULL;
        }
    }
    return all;
}
