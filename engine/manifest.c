/* manifest.c - Writes and reads the log of version edits, and CURRENT.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/manifest.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "arena/coding.h"
#include "arena/hash.h"
#include "arena/status.h"
#include "arena/vfs_full.h"
#include "engine/filename.h"
#include "engine/sort.h"

#include "arena/poison.h"

#define RECORD_EDIT  1u
#define WINDOW_BYTES ((size_t)256 << 10)

static const char manifest_magic[8] = {'l', 'o', 'a', 'm', 'M', 'A', 'N', 'I'};
static const char current_magic[8] = {'l', 'o', 'a', 'm', 'C', 'U', 'R', 'R'};

/* ---- files ----------------------------------------------------------------------------------- */

/* Creates `path`, which must not be there; replace: what is there goes first. 0 or -errno. */
static int64_t create_file(const loam_vfs *vfs, const char *path, bool replace, loam_file **f)
{
    uint32_t flags = LOAM_VFS_READ | LOAM_VFS_WRITE | LOAM_VFS_NEW;
    int64_t rc = vfs->open(vfs->ctx, path, flags, f);
    if (rc == -EEXIST && replace) {
        rc = vfs->remove(vfs->ctx, path);
        if (rc >= 0) {
            rc = vfs->open(vfs->ctx, path, flags, f);
        }
    }
    return rc < 0 ? rc : 0;
}

/* ---- writing --------------------------------------------------------------------------------- */

int manifest_init(struct manifest *m, const loam_vfs *vfs, const char *dir, struct alloc *a)
{
    *m = (struct manifest){.vfs = vfs, .dir = dir, .alloc = a};
    m->path_bytes = filename_size(dir);
    if (m->path_bytes > FILENAME_CAP) {
        return FAIL(LOAM_E_INVAL, "the directory name is too long (%zu bytes)", strlen(dir));
    }
    m->path = alloc_get(a, MEM_VERSION, m->path_bytes);
    m->path_to = alloc_get(a, MEM_VERSION, m->path_bytes);
    if (m->path == NULL || m->path_to == NULL) {
        manifest_destroy(m);
        return FAIL(LOAM_E_NOMEM, "no memory for the manifest's paths");
    }
    return LOAM_OK;
}

void manifest_close(struct manifest *m)
{
    if (m->file != NULL) {
        /* What matters was synced; an error of close says nothing about it. */
        (void)m->vfs->close(m->vfs->ctx, m->file);
        m->file = NULL;
    }
}

void manifest_destroy(struct manifest *m)
{
    manifest_close(m);
    alloc_put(m->alloc, MEM_VERSION, m->path, m->path_bytes);
    alloc_put(m->alloc, MEM_VERSION, m->path_to, m->path_bytes);
    m->path = m->path_to = NULL;
}

/* Closes the file for good: what it holds behind m->size is not known. */
static int write_failed(struct manifest *m, int64_t neg, const char *what)
{
    int rc = FAIL_IO(neg, m->number, m->size, "%s of manifest %llu failed", what,
                     (unsigned long long)m->number);
    manifest_close(m);
    return rc;
}

int manifest_create(struct manifest *m, uint64_t db_id, uint64_t number, bool replace)
{
    manifest_close(m);
    m->db_id = db_id;
    m->number = number;
    m->size = 0;
    int rc = filename_make(m->dir, FILE_MANIFEST, number, m->path);
    if (rc != LOAM_OK) {
        return rc;
    }
    uint8_t salt[4];
    int64_t neg = m->vfs->random(m->vfs->ctx, salt, sizeof salt);
    if (neg < 0) {
        return FAIL_IO(neg, number, 0, "no random number for manifest %llu",
                       (unsigned long long)number);
    }
    neg = create_file(m->vfs, m->path, replace, &m->file);
    if (neg < 0) {
        m->file = NULL;
        return FAIL_IO(neg, number, 0, "cannot create manifest %llu", (unsigned long long)number);
    }
    uint8_t h[MANIFEST_HEADER_BYTES] = {0};
    memcpy(h, manifest_magic, sizeof manifest_magic);
    put_fixed32(h + 8, MANIFEST_FORMAT);
    memcpy(h + 12, salt, sizeof salt);
    put_fixed64(h + 16, db_id);
    put_fixed64(h + 24, number);
    m->tie = m->chain = checksum64(h, 32, 0);
    put_fixed64(h + 32, m->chain);
    neg = vfs_write_full(m->vfs, m->file, h, sizeof h, 0);
    if (neg < 0) {
        int failed = write_failed(m, neg, "writing the header");
        manifest_discard(m); /* nobody else knows that it is there */
        return failed;
    }
    m->size = sizeof h;
    return LOAM_OK;
}

int manifest_continue(struct manifest *m, const struct manifest_end *end)
{
    manifest_close(m);
    int rc = filename_make(m->dir, FILE_MANIFEST, end->number, m->path);
    if (rc != LOAM_OK) {
        return rc;
    }
    int64_t neg = m->vfs->open(m->vfs->ctx, m->path, LOAM_VFS_READ | LOAM_VFS_WRITE, &m->file);
    if (neg < 0) {
        m->file = NULL;
        return FAIL_IO(neg, end->number, 0, "cannot open manifest %llu to go on with it",
                       (unsigned long long)end->number);
    }
    m->db_id = end->db_id;
    m->number = end->number;
    m->size = end->size;
    m->tie = end->tie;
    m->chain = end->chain;
    m->snapshot_size = end->snapshot_size;
    return LOAM_OK;
}

void manifest_record_begin(struct buf *record)
{
    static const uint8_t room[MANIFEST_RECORD_BYTES];
    buf_clear(record);
    buf_append(record, room, sizeof room);
}

static uint64_t record_checksum(const uint8_t *record, size_t payload, uint64_t tie, uint64_t chain)
{
    struct checksum_stream s;
    checksum_begin(&s, tie + chain);
    checksum_add(&s, record, 8);
    checksum_add(&s, record + MANIFEST_RECORD_BYTES, payload);
    return checksum_end(&s);
}

int manifest_write(struct manifest *m, struct buf *record)
{
    int rc = buf_status(record);
    if (rc != LOAM_OK) {
        return rc;
    }
    assert(m->file != NULL);
    assert(record->size > MANIFEST_RECORD_BYTES);
    size_t payload = record->size - MANIFEST_RECORD_BYTES;
    if (payload > UINT32_MAX) {
        return FAIL(LOAM_E_TOOBIG, "a version edit of %zu bytes", payload);
    }
    put_fixed32(record->data, (uint32_t)payload);
    put_fixed32(record->data + 4, RECORD_EDIT);
    uint64_t chain = record_checksum(record->data, payload, m->tie, m->chain);
    put_fixed64(record->data + 8, chain);
    int64_t neg = vfs_write_full(m->vfs, m->file, record->data, record->size, m->size);
    if (neg < 0) {
        return write_failed(m, neg, "appending to the end");
    }
    m->size += record->size;
    m->chain = chain;
    return LOAM_OK;
}

int manifest_finish_snapshot(struct manifest *m)
{
    assert(m->file != NULL);
    int64_t neg = m->vfs->sync(m->vfs->ctx, m->file, 0);
    if (neg < 0) {
        return write_failed(m, neg, "syncing the snapshot");
    }
    neg = m->vfs->sync_dir(m->vfs->ctx, m->dir);
    if (neg < 0) {
        return write_failed(m, neg, "syncing the name");
    }
    m->snapshot_size = m->size;
    return LOAM_OK;
}

int manifest_append(struct manifest *m, struct buf *record)
{
    uint64_t size = m->size;
    int rc = manifest_write(m, record);
    if (rc != LOAM_OK) {
        return rc;
    }
    int64_t neg = m->vfs->sync(m->vfs->ctx, m->file, 1);
    if (neg < 0) {
        m->size = size;
        return write_failed(m, neg, "syncing an edit");
    }
    return LOAM_OK;
}

void manifest_discard(struct manifest *m)
{
    manifest_close(m);
    if (filename_make(m->dir, FILE_MANIFEST, m->number, m->path) == LOAM_OK) {
        (void)m->vfs->remove(m->vfs->ctx, m->path);
    }
}

static void encode_current(const struct manifest *m, bool closed, uint8_t c[MANIFEST_CURRENT_BYTES])
{
    memset(c, 0, MANIFEST_CURRENT_BYTES);
    memcpy(c, current_magic, sizeof current_magic);
    put_fixed32(c + 8, MANIFEST_FORMAT);
    put_fixed32(c + 12, closed ? 1 : 0);
    put_fixed64(c + 16, m->db_id);
    put_fixed64(c + 24, m->number);
    put_fixed64(c + 32, closed ? m->size : 0);
    put_fixed64(c + 40, closed ? m->chain : 0);
    put_fixed64(c + 56, checksum64(c, 56, 0));
}

/* Writes and syncs the temporary file m->path. */
static int write_current(struct manifest *m, bool closed)
{
    uint8_t c[MANIFEST_CURRENT_BYTES];
    encode_current(m, closed, c);
    loam_file *f = NULL;
    int64_t neg = create_file(m->vfs, m->path, true, &f);
    if (neg < 0) {
        return FAIL_IO(neg, m->number, 0, "cannot create a temporary file for CURRENT");
    }
    neg = vfs_write_full(m->vfs, f, c, sizeof c, 0);
    if (neg >= 0) {
        neg = m->vfs->sync(m->vfs->ctx, f, 0);
    }
    int64_t close_neg = m->vfs->close(m->vfs->ctx, f);
    neg = neg < 0 ? neg : close_neg;
    if (neg < 0) {
        int rc = FAIL_IO(neg, m->number, 0, "cannot write a temporary file for CURRENT");
        (void)m->vfs->remove(m->vfs->ctx, m->path);
        return rc;
    }
    return LOAM_OK;
}

int manifest_set_current(struct manifest *m, bool closed, bool *renamed)
{
    *renamed = false;
    int rc = filename_make(m->dir, FILE_TEMP, m->number, m->path);
    if (rc == LOAM_OK) {
        rc = filename_make(m->dir, FILE_CURRENT, 0, m->path_to);
    }
    if (rc == LOAM_OK) {
        rc = write_current(m, closed);
    }
    if (rc != LOAM_OK) {
        return rc;
    }
    *renamed = true;
    int64_t neg = m->vfs->rename(m->vfs->ctx, m->path, m->path_to);
    if (neg < 0) {
        return FAIL_IO(neg, m->number, 0, "cannot replace CURRENT");
    }
    neg = m->vfs->sync_dir(m->vfs->ctx, m->dir);
    if (neg < 0) {
        return FAIL_IO(neg, m->number, 0, "cannot sync the directory after replacing CURRENT");
    }
    return LOAM_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

static int wrong_format(uint64_t id, const char *what)
{
    return status_fail((struct fail_info){.code = LOAM_E_FORMAT, .file_id = id}, __FILE__, __LINE__,
                       "%s", what);
}

static int decode_current(const uint8_t *c, size_t size, struct manifest_current *out)
{
    if (size >= sizeof current_magic && memcmp(c, current_magic, sizeof current_magic) != 0) {
        return wrong_format(0, "CURRENT is not of a loam database");
    }
    if (size >= 12 && get_fixed32(c + 8) > MANIFEST_FORMAT) {
        return wrong_format(0, "CURRENT is of a newer format");
    }
    if (size != MANIFEST_CURRENT_BYTES) {
        return FAIL_CORRUPT(0, size, "CURRENT has the wrong size");
    }
    if (get_fixed64(c + 56) != checksum64(c, 56, 0)) {
        return FAIL_CORRUPT(0, 0, "CURRENT: wrong checksum");
    }
    uint32_t flags = get_fixed32(c + 12);
    if (get_fixed32(c + 8) != MANIFEST_FORMAT || flags > 1 || get_fixed64(c + 48) != 0) {
        return wrong_format(0, "CURRENT is of an unknown format");
    }
    *out = (struct manifest_current){.db_id = get_fixed64(c + 16),
                                     .number = get_fixed64(c + 24),
                                     .closed = flags == 1,
                                     .size = get_fixed64(c + 32),
                                     .chain = get_fixed64(c + 40)};
    return LOAM_OK;
}

int manifest_read_current(const loam_vfs *vfs, const char *dir, struct manifest_current *out)
{
    char path[FILENAME_CAP];
    int rc = filename_make(dir, FILE_CURRENT, 0, path);
    if (rc != LOAM_OK) {
        return rc;
    }
    loam_file *f = NULL;
    int64_t n = vfs->open(vfs->ctx, path, LOAM_VFS_READ, &f);
    if (n == -ENOENT || n == -ENOTDIR) {
        return LOAM_E_NOENT;
    }
    if (n < 0) {
        return FAIL_IO(n, 0, 0, "cannot open CURRENT");
    }
    uint8_t c[MANIFEST_CURRENT_BYTES + 1];
    n = vfs_read_full(vfs, f, c, sizeof c, 0);
    (void)vfs->close(vfs->ctx, f);
    if (n < 0) {
        return FAIL_IO(n, 0, 0, "cannot read CURRENT");
    }
    return decode_current(c, (size_t)n, out);
}

static int check_header(struct manifest_reader *r)
{
    uint64_t id = r->expect.number;
    uint8_t h[MANIFEST_HEADER_BYTES];
    int64_t n = vfs_read_full(r->vfs, r->file, h, sizeof h, 0);
    if (n < 0) {
        return FAIL_IO(n, id, 0, "cannot read the manifest");
    }
    if ((size_t)n != sizeof h || memcmp(h, manifest_magic, sizeof manifest_magic) != 0) {
        return FAIL_CORRUPT(id, 0, "the manifest has no header");
    }
    if (get_fixed32(h + 8) > MANIFEST_FORMAT) {
        return wrong_format(id, "the manifest is of a newer format");
    }
    r->tie = r->chain = get_fixed64(h + 32);
    if (r->chain != checksum64(h, 32, 0)) {
        return FAIL_CORRUPT(id, 0, "manifest header: wrong checksum");
    }
    if (get_fixed32(h + 8) != MANIFEST_FORMAT) {
        return wrong_format(id, "the manifest is of an unknown format");
    }
    if (get_fixed64(h + 16) != r->expect.db_id || get_fixed64(h + 24) != id) {
        return FAIL_CORRUPT(id, 16, "the manifest is of another database, or of another number");
    }
    r->offset = sizeof h;
    return LOAM_OK;
}

static int open_manifest_file(struct manifest_reader *r, const char *dir)
{
    char path[FILENAME_CAP];
    uint64_t id = r->expect.number;
    int rc = filename_make(dir, FILE_MANIFEST, id, path);
    if (rc != LOAM_OK) {
        return rc;
    }
    int64_t n = r->vfs->open(r->vfs->ctx, path, LOAM_VFS_READ, &r->file);
    if (n < 0) {
        r->file = NULL;
        return n == -ENOENT ? FAIL_CORRUPT(id, 0, "the manifest that CURRENT names is missing")
                            : FAIL_IO(n, id, 0, "cannot open the manifest");
    }
    n = r->vfs->size(r->vfs->ctx, r->file, &r->file_size);
    return n < 0 ? FAIL_IO(n, id, 0, "cannot size the manifest") : LOAM_OK;
}

int manifest_reader_open(struct manifest_reader *r, const loam_vfs *vfs, const char *dir,
                         struct alloc *a, const struct manifest_current *current)
{
    *r = (struct manifest_reader){.vfs = vfs, .expect = *current};
    buf_init(&r->window, a, MEM_VERSION);
    int rc = open_manifest_file(r, dir);
    if (rc == LOAM_OK) {
        rc = check_header(r);
    }
    if (rc == LOAM_OK && current->closed && r->file_size < current->size) {
        rc = FAIL_CORRUPT(current->number, r->file_size,
                          "the manifest has %llu bytes, %llu when the database was closed",
                          (unsigned long long)r->file_size, (unsigned long long)current->size);
    }
    if (rc != LOAM_OK) {
        manifest_reader_close(r);
    }
    return rc;
}

struct manifest_end manifest_reader_end(const struct manifest_reader *r)
{
    return (struct manifest_end){
        .db_id = r->expect.db_id,
        .number = r->expect.number,
        .size = r->offset,
        .tie = r->tie,
        .chain = r->chain,
        .snapshot_size = r->snapshot_size,
        .torn = r->torn,
        .closed = r->expect.closed && !r->torn && r->offset == r->expect.size,
    };
}

void manifest_reader_close(struct manifest_reader *r)
{
    if (r->file != NULL) {
        (void)r->vfs->close(r->vfs->ctx, r->file);
        r->file = NULL;
    }
    buf_free(&r->window);
}

/* Makes [offset, offset + n) of the file available; the caller has checked that it is inside. */
static int fetch(struct manifest_reader *r, uint64_t offset, size_t n, const uint8_t **p)
{
    if (offset >= r->window_offset && offset - r->window_offset <= r->window.size &&
        n <= r->window.size - (size_t)(offset - r->window_offset)) {
        *p = r->window.data + (offset - r->window_offset);
        return LOAM_OK;
    }
    uint64_t left = r->file_size - offset;
    size_t want = n > WINDOW_BYTES ? n : WINDOW_BYTES;
    want = want < left ? want : (size_t)left;
    buf_clear(&r->window);
    uint8_t *to = buf_room(&r->window, want);
    if (to == NULL) {
        return buf_status(&r->window);
    }
    int64_t got = vfs_read_full(r->vfs, r->file, to, want, offset);
    if (got < 0) {
        return FAIL_IO(got, r->expect.number, offset, "cannot read the manifest");
    }
    if ((size_t)got < n) {
        return FAIL_CORRUPT(r->expect.number, offset, "the manifest shrank while it was read");
    }
    r->window.size = (size_t)got;
    r->window_offset = offset;
    *p = to;
    return LOAM_OK;
}

/* ---- telling a torn tail from damage --------------------------------------------------------- */

/* The bytes from the record that does not verify to the end of the file. */
struct rest {
    const uint8_t *p;
    size_t n;
    uint64_t tie;
    uint64_t budget; /* bytes that may still be hashed: keeps hostile files linear */
    const uint64_t *known; /* checksums of the records before it, ascending */
    size_t known_count;
};

/* The checksums of all records that were read. */
static int gather_known(struct manifest_reader *r, struct buf *known)
{
    const uint8_t *p;
    int rc = LOAM_OK;
    for (uint64_t at = MANIFEST_HEADER_BYTES; rc == LOAM_OK && at < r->offset;) {
        rc = fetch(r, at, MANIFEST_RECORD_BYTES, &p);
        if (rc == LOAM_OK) {
            uint64_t checksum = get_fixed64(p + 8);
            buf_append(known, &checksum, sizeof checksum);
            at += MANIFEST_RECORD_BYTES + get_fixed32(p);
        }
    }
    if (rc == LOAM_OK && (rc = buf_status(known)) == LOAM_OK) {
        sort_numbers(known->data, known->size / sizeof(uint64_t));
    }
    return rc;
}

/* Whether the record is a copy of one before: a block of the disk may still have what the file had there
 * when it was shorter, where blocks move as they grow. */
static bool is_copy(const struct rest *t, uint64_t checksum)
{
    size_t lo = 0, hi = t->known_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (t->known[mid] < checksum) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < t->known_count && t->known[lo] == checksum;
}

/* Whether a record could begin at `at`; *payload is its size. */
static bool looks_like_record(const struct rest *t, size_t at, size_t *payload)
{
    if (at > t->n || t->n - at <= MANIFEST_RECORD_BYTES) {
        return false;
    }
    *payload = get_fixed32(t->p + at);
    return get_fixed32(t->p + at + 4) == RECORD_EDIT && *payload != 0 &&
           *payload <= t->n - at - MANIFEST_RECORD_BYTES;
}

/* Whether the record at `at` continues a chain that stood at `chain`. A spent budget counts as yes:
 * so many bytes that look like records are no torn write. */
static bool continues(struct rest *t, size_t at, uint64_t chain)
{
    size_t payload;
    if (!looks_like_record(t, at, &payload)) {
        return false;
    }
    if (t->budget < payload + MANIFEST_RECORD_BYTES) {
        return true;
    }
    t->budget -= payload + MANIFEST_RECORD_BYTES;
    uint64_t stored = get_fixed64(t->p + at + 8);
    return stored == record_checksum(t->p + at, payload, t->tie, chain) && !is_copy(t, stored);
}

/* Whether a good record follows the bad one at the start: one whose seed is the checksum stored in
 * the bad one, or the checksum the bad one should have, or that of any later thing that looks like
 * a record and ends where this one begins. */
static bool good_record_follows(struct rest *t, uint64_t chain)
{
    if (t->n <= MANIFEST_RECORD_BYTES) {
        return false;
    }
    size_t payload;
    uint64_t stored = get_fixed64(t->p + 8);
    if (looks_like_record(t, 0, &payload) &&
        continues(t, MANIFEST_RECORD_BYTES + payload,
                  record_checksum(t->p, payload, t->tie, chain))) {
        return true;
    }
    for (size_t at = 0; t->n - at > MANIFEST_RECORD_BYTES; at++) {
        if (!looks_like_record(t, at, &payload)) {
            continue;
        }
        if ((at != 0 && continues(t, at, stored)) ||
            continues(t, at + MANIFEST_RECORD_BYTES + payload, get_fixed64(t->p + at + 8))) {
            return true;
        }
    }
    return false;
}

/* Whether the next record is one that was there when the database was closed cleanly. */
static bool within_closed(const struct manifest_reader *r)
{
    return r->expect.closed && r->offset < r->expect.size;
}

static int bad_record(struct manifest_reader *r)
{
    uint64_t id = r->expect.number;
    if (r->snapshot_size == 0 || within_closed(r)) {
        return FAIL_CORRUPT(id, r->offset, "a manifest record does not verify");
    }
    uint64_t left = r->file_size - r->offset;
    if (left > SIZE_MAX / 2) {
        return FAIL_CORRUPT(id, r->offset, "the manifest is too long");
    }
    struct rest t = {.n = (size_t)left, .tie = r->tie, .budget = 4 * left + 65536};
    struct buf known;
    buf_init(&known, r->window.alloc, MEM_VERSION);
    int rc = gather_known(r, &known);
    rc = rc == LOAM_OK ? fetch(r, r->offset, t.n, &t.p) : rc;
    if (rc == LOAM_OK) {
        t.known = (const uint64_t *)(const void *)known.data;
        t.known_count = known.size / sizeof *t.known;
        r->torn = !good_record_follows(&t, r->chain);
        rc = r->torn ? LOAM_NOTFOUND
                     : FAIL_CORRUPT(id, r->offset,
                                    "a manifest record does not verify, and others follow it");
    }
    buf_free(&known);
    return rc;
}

int manifest_read_next(struct manifest_reader *r, loam_slice *payload, uint64_t *offset)
{
    if (r->torn) {
        return LOAM_NOTFOUND;
    }
    if (r->expect.closed && r->offset == r->expect.size && r->chain != r->expect.chain) {
        return FAIL_CORRUPT(r->expect.number, r->offset,
                            "the manifest is not the one that was closed");
    }
    uint64_t left = (within_closed(r) ? r->expect.size : r->file_size) - r->offset;
    if (left == 0) {
        return LOAM_NOTFOUND;
    }
    if (left <= MANIFEST_RECORD_BYTES) {
        return bad_record(r);
    }
    const uint8_t *p;
    int rc = fetch(r, r->offset, MANIFEST_RECORD_BYTES, &p);
    if (rc != LOAM_OK) {
        return rc;
    }
    uint32_t size = get_fixed32(p);
    if (size == 0 || size > left - MANIFEST_RECORD_BYTES) {
        return bad_record(r);
    }
    rc = fetch(r, r->offset, MANIFEST_RECORD_BYTES + size, &p);
    if (rc != LOAM_OK) {
        return rc;
    }
    uint64_t stored = get_fixed64(p + 8);
    if (stored != record_checksum(p, size, r->tie, r->chain)) {
        return bad_record(r);
    }
    if (get_fixed32(p + 4) != RECORD_EDIT) {
        return wrong_format(r->expect.number, "a manifest record is of a newer format");
    }
    *payload = loam_bytes(p + MANIFEST_RECORD_BYTES, size);
    *offset = r->offset;
    r->offset += MANIFEST_RECORD_BYTES + size;
    r->chain = stored;
    return LOAM_OK;
}
