/* manifest_salvage.c - Reads on behind damage in a manifest.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/manifest_salvage.h"

#include <errno.h>
#include <string.h>

#include "arena/coding.h"
#include "arena/hash.h"
#include "arena/status.h"
#include "arena/vfs_full.h"
#include "engine/filename.h"

#include "arena/poison.h"

#define FILE_SIZE_MAX ((uint64_t)1 << 30)
#define RECORD_EDIT   1u /* kind of a record */
#define SEARCHES      16u /* of the whole file, at most */

void manifest_salvage_init(struct manifest_salvage *s, struct alloc *a)
{
    *s = (struct manifest_salvage){.alloc = a, .next_file = 1};
    version_edit_init(&s->keyspaces, a);
    buf_init(&s->added, a, MEM_VERSION);
    buf_init(&s->removed, a, MEM_VERSION);
}

void manifest_salvage_free(struct manifest_salvage *s)
{
    version_edit_free(&s->keyspaces);
    buf_free(&s->added);
    buf_free(&s->removed);
}

static bool listed(const struct buf *list, uint64_t number)
{
    for (size_t i = 0; i < list->size; i += sizeof number) {
        uint64_t n;
        memcpy(&n, list->data + i, sizeof n);
        if (n == number) {
            return true;
        }
    }
    return false;
}

bool manifest_salvage_removed(const struct manifest_salvage *s, uint64_t table)
{
    return listed(&s->removed, table);
}

/* ---- edits ------------------------------------------------------------------------------------- */

static uint32_t ks_place(const struct version_edit *k, uint32_t id)
{
    uint32_t i = 0;
    while (i < k->created_count && k->created[i].id != id) {
        i++;
    }
    return i;
}

/* Takes keyspace i out; its names go with it. */
static void ks_drop(struct version_edit *k, uint32_t i)
{
    alloc_put(k->alloc, MEM_VERSION, (void *)(uintptr_t)k->created[i].name.data,
              k->created[i].name.size + k->created[i].comparator.size + 1);
    k->created_count--;
    memmove(&k->created[i], &k->created[i + 1], (k->created_count - i) * sizeof k->created[i]);
}

static int gather_keyspaces(struct manifest_salvage *s, const struct version_edit *e)
{
    struct version_edit *k = &s->keyspaces;
    int rc = LOAM_OK;
    for (uint32_t i = 0; i < e->dropped_count; i++) {
        uint32_t at = ks_place(k, e->dropped[i]);
        if (at < k->created_count) {
            ks_drop(k, at);
        }
    }
    for (uint32_t i = 0; i < e->renamed_count && rc == LOAM_OK; i++) {
        uint32_t at = ks_place(k, e->renamed[i].id);
        if (at < k->created_count) {
            struct ks_desc d = k->created[at];
            d.name = e->renamed[i].name;
            rc = version_edit_create_ks(k, &d); /* copies; the array may move */
            ks_drop(k, at);
        }
    }
    for (uint32_t i = 0; i < e->created_count && rc == LOAM_OK; i++) {
        if (ks_place(k, e->created[i].id) == k->created_count) {
            rc = version_edit_create_ks(k, &e->created[i]);
        }
        s->next_ks = s->next_ks > e->created[i].id ? s->next_ks : e->created[i].id + 1;
    }
    return rc;
}

static void raise(bool has, uint64_t v, uint64_t *to)
{
    *to = has && v > *to ? v : *to;
}

static int gather(struct manifest_salvage *s, const struct version_edit *e)
{
    uint64_t next_ks = s->next_ks;
    raise(e->has_next_file, e->next_file, &s->next_file);
    raise(e->has_last_seq, e->last_seq, &s->last_seq);
    raise(e->has_log_number, e->log_number, &s->log_number);
    raise(e->has_next_ks, e->next_ks, &next_ks);
    s->next_ks = (uint32_t)next_ks;
    for (uint32_t i = 0; i < e->removed_count; i++) {
        bool moved = false;
        for (uint32_t k = 0; k < e->added_count; k++) {
            moved = moved || e->added[k].number == e->removed[i].number;
        }
        if (!moved) {
            buf_append(&s->removed, &e->removed[i].number, sizeof(uint64_t));
        }
    }
    for (uint32_t i = 0; i < e->added_count; i++) {
        buf_append(&s->added, &e->added[i].number, sizeof(uint64_t));
    }
    int rc = gather_keyspaces(s, e);
    return rc != LOAM_OK ? rc : s->added.oom ? buf_status(&s->added) : buf_status(&s->removed);
}

/* ---- records ----------------------------------------------------------------------------------- */

static bool fits(size_t size, size_t at, size_t *payload, const uint8_t *p)
{
    if (at >= size || size - at <= MANIFEST_RECORD_BYTES) {
        return false;
    }
    *payload = get_fixed32(p + at);
    return *payload != 0 && *payload <= size - at - MANIFEST_RECORD_BYTES;
}

static uint64_t sum_of(const uint8_t *p, size_t payload, uint64_t seed)
{
    struct checksum_stream s;
    checksum_begin(&s, seed);
    checksum_add(&s, p, 8);
    checksum_add(&s, p + MANIFEST_RECORD_BYTES, payload);
    return checksum_end(&s);
}

/* A checksum of which two values are possible: the one that is stored, and the one the bytes have. A
 * damaged record, or header, has one of the two right. */
struct either {
    uint64_t stored, right;
};

/* Whether a record verifies with one of the header's and one of the last record's checksums; the
 * header's is certain from then on. */
static bool verifies(const uint8_t *p, size_t payload, struct either *tie,
                     const struct either *chain)
{
    const uint64_t ties[] = {tie->stored, tie->right}, chains[] = {chain->stored, chain->right};
    for (unsigned t = 0; t < 2; t++) {
        for (unsigned c = 0; c < 2; c++) {
            if (sum_of(p, payload, ties[t] + chains[c]) == get_fixed64(p + 8)) {
                tie->stored = tie->right = ties[t];
                return true;
            }
        }
    }
    return false;
}

static int gather_record(struct manifest_salvage *s, const uint8_t *p, size_t payload,
                         uint64_t number, size_t at)
{
    struct version_edit e;
    version_edit_init(&e, s->alloc);
    int rc = version_edit_decode(&e, loam_bytes(p + MANIFEST_RECORD_BYTES, payload), number, at);
    if (rc == LOAM_OK) {
        rc = gather(s, &e);
    } else if (rc == LOAM_E_CORRUPT) {
        rc = LOAM_OK;
    }
    version_edit_free(&e);
    return rc;
}

/* Where reading is. */
struct place {
    const uint8_t *p;
    size_t size;
    size_t at;           /* of a record */
    struct either tie;   /* the header's checksum */
    struct either chain; /* that of the record before */
    uint64_t budget;     /* bytes that may still be hashed in searches: keeps hostile files linear */
};

static bool looks_like_record(const struct place *c, size_t at, size_t *payload)
{
    return fits(c->size, at, payload, c->p) && get_fixed32(c->p + at + 4) == RECORD_EDIT;
}

/* Whether a record stands there whose seed is that checksum: then reading goes on with it. */
static bool goes_on(struct place *c, size_t at, struct either chain)
{
    size_t payload;
    if (!looks_like_record(c, at, &payload) || c->budget < payload) {
        return false;
    }
    c->budget -= payload;
    if (!verifies(c->p + at, payload, &c->tie, &chain)) {
        return false;
    }
    c->at = at;
    c->chain = chain;
    return true;
}

static struct either certain(uint64_t checksum)
{
    return (struct either){checksum, checksum};
}

/* Behind a record that does not verify: the next one that does. Its seed is the checksum of the damaged one,
 * at whose end it stands unless that one's size is damaged, too; or that of any later thing that looks like a
 * record and ends where it begins. False: none is left. */
static bool find_next(struct place *c)
{
    size_t bad = c->at, payload, next;
    if (bad >= c->size || c->size - bad <= MANIFEST_RECORD_BYTES) {
        return false;
    }
    uint64_t stored = get_fixed64(c->p + bad + 8);
    if (fits(c->size, bad, &payload, c->p)) {
        struct either chain = {stored, sum_of(c->p + bad, payload, c->tie.stored + c->chain.right)};
        if (goes_on(c, bad + MANIFEST_RECORD_BYTES + payload, chain)) {
            return true;
        }
    }
    for (size_t at = bad + 1; c->size - at > MANIFEST_RECORD_BYTES; at++) {
        if (!looks_like_record(c, at, &payload)) {
            continue;
        }
        next = at + MANIFEST_RECORD_BYTES + payload;
        if (goes_on(c, at, certain(stored)) ||
            goes_on(c, next, certain(get_fixed64(c->p + at + 8)))) {
            return true;
        }
    }
    return false;
}

static int gather_records(struct manifest_salvage *s, const uint8_t *p, size_t size,
                          uint64_t number)
{
    struct either tie = {get_fixed64(p + 32), checksum64(p, 32, 0)};
    struct place c = {p, size, MANIFEST_HEADER_BYTES, tie, tie, SEARCHES * (uint64_t)size};
    bool hole = false;
    int rc = LOAM_OK;
    while (rc == LOAM_OK) {
        size_t payload;
        if (fits(size, c.at, &payload, p) && verifies(p + c.at, payload, &c.tie, &c.chain)) {
            s->holes = s->holes || hole;
            rc = gather_record(s, p + c.at, payload, number, c.at);
            c.chain = certain(get_fixed64(p + c.at + 8));
            c.at += MANIFEST_RECORD_BYTES + payload;
        } else if (find_next(&c)) {
            hole = true;
        } else {
            break;
        }
    }
    return rc;
}

static int read_file(struct manifest_salvage *s, const loam_vfs *vfs, const char *dir,
                     uint64_t number, struct buf *to)
{
    char path[FILENAME_CAP];
    loam_file *f;
    uint64_t size = 0;
    int rc = filename_make(dir, FILE_MANIFEST, number, path);
    int neg = rc == LOAM_OK ? vfs->open(vfs->ctx, path, LOAM_VFS_READ, &f) : 0;
    if (rc < 0 || neg < 0) {
        return rc < 0 ? rc : FAIL_IO(neg, number, 0, "cannot open a manifest");
    }
    (void)s;
    neg = vfs->size(vfs->ctx, f, &size);
    size = neg < 0 || size > FILE_SIZE_MAX ? 0 : size;
    uint8_t *p = buf_room(to, (size_t)size + 1);
    while (p != NULL && to->size < size) {
        size_t left = (size_t)size - to->size, piece = left < 4096 ? left : 4096;
        int64_t n = vfs_read_full(vfs, f, p + to->size, piece, to->size);
        if (n <= 0) {
            break;
        }
        to->size += (size_t)n;
    }
    (void)vfs->close(vfs->ctx, f);
    return buf_status(to);
}

int manifest_salvage_read(struct manifest_salvage *s, const loam_vfs *vfs, const char *dir,
                          uint64_t number)
{
    struct buf b;
    buf_init(&b, s->alloc, MEM_VERSION);
    int rc = read_file(s, vfs, dir, number, &b);
    if (rc == LOAM_OK && b.size >= MANIFEST_HEADER_BYTES) {
        s->header = memcmp(b.data, "loamMANI", 8) == 0 &&
                    get_fixed64(b.data + 32) == checksum64(b.data, 32, 0);
        if (s->header && get_fixed32(b.data + 8) > MANIFEST_FORMAT) {
            rc = FAIL_AT(LOAM_E_FORMAT, number, 8, "manifest %llu is of a newer format",
                         (unsigned long long)number);
        } else {
            s->db_id = get_fixed64(b.data + 16);
            rc = gather_records(s, b.data, b.size, number);
        }
    }
    buf_free(&b);
    return rc;
}
