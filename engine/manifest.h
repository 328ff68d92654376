/* manifest.h - The log of version edits, and CURRENT, which says which manifest is in force.
 * SPDX-License-Identifier: Apache-2.0
 *
 * All numbers are little-endian. Checksums are XXH3-64.
 *
 * MANIFEST-n: a header, then records without gaps.
 *
 *   offset  size  header
 *        0     8  "loamMANI"
 *        8     4  format version, 1. A reader refuses a larger one (LOAM_E_FORMAT)
 *       12     4  salt: random, of this file alone
 *       16     8  database id: random, made with the database
 *       24     8  manifest number n
 *       32     8  checksum of bytes 0 to 31, seed 0
 *
 *   offset  size  record
 *        0     4  size of the payload, at least 1
 *        4     4  kind: 1 = version edit (version_edit.h)
 *        8     8  checksum of bytes 0 to 7 and the payload; its seed is the checksum of the record
 *                 before - for the first record of the header - plus that of the header
 *       16        payload
 *
 * The chain of seeds ties each record to everything before it: a record from another place, another
 * manifest or an older copy does not verify. Nor do two records in a row that an old manifest left in
 * a block of the disk: each seed knows the header, whose salt is another even where a number is used
 * again, as after a crash that came before CURRENT named it. The first records are a snapshot of the whole state;
 * the last of them carries the field "snapshot end". Each later record is one edit.
 *
 * CURRENT: 64 bytes.
 *
 *   offset  size
 *        0     8  "loamCURR"
 *        8     4  format version, 1
 *       12     4  1 = the database was closed cleanly on this manifest; else 0
 *       16     8  database id
 *       24     8  manifest number
 *       32     8  closed: exact size of the manifest in bytes; else 0
 *       40     8  closed: checksum of its last record; else 0
 *       48     8  0
 *       56     8  checksum of bytes 0 to 55, seed 0
 *
 * Order of writing. A manifest is created under a name never used before, written, synced, and its
 * name synced; then CURRENT is replaced by a synced temporary file through rename, and the directory
 * synced. So CURRENT always names a manifest whose snapshot is whole. An edit is one write and one
 * data sync at the end of the manifest, before anything relies on it. An open after a clean close goes
 * on at the end of the manifest it finds, until that has grown long; after any other end, and behind
 * an append that failed, the next edit starts a new one.
 *
 * What reading accepts. Up to the end of the snapshot everything must verify. Behind it a record that
 * does not verify is taken for the append that a crash cut short - never acknowledged - if it is the
 * last thing in the file; if a record that continues the chain is found anywhere behind it, the
 * manifest is damaged; but not if that is a copy of one before, which a block of the disk may still have. Up to where a clean close left it there is no such grace: a record must end at
 * the size that CURRENT says, with the checksum it says. A manifest that is no longer than this is
 * that of a closed database; what follows is of those that opened it since.
 */
#ifndef LOAM_ENGINE_MANIFEST_H_
#define LOAM_ENGINE_MANIFEST_H_

#include "arena/buf.h"
#include "arena/vfs.h"

#define MANIFEST_FORMAT 1u
#define MANIFEST_HEADER_BYTES 40u
#define MANIFEST_RECORD_BYTES 16u
#define MANIFEST_CURRENT_BYTES 64u

/* How a manifest ends that was read. */
struct manifest_end {
    uint64_t db_id;
    uint64_t number;
    uint64_t size;          /* bytes, without an append that was cut short */
    uint64_t tie;           /* checksum of the header */
    uint64_t chain;         /* checksum of the last record */
    uint64_t snapshot_size; /* bytes up to the end of the snapshot */
    bool torn;              /* an append that was cut short was ignored */
    bool closed;            /* nothing was added since the clean close */
};

/* ---- writing: one thread at a time ----------------------------------------------------------- */

struct manifest {
    /* constant after init */
    const loam_vfs *vfs;
    const char *dir; /* the owner's */
    struct alloc *alloc;
    char *path, *path_to; /* scratch of path_bytes each */
    size_t path_bytes;
    /* of the open file */
    loam_file *file; /* NULL: none, or it failed and must not be appended to */
    uint64_t db_id;
    uint64_t number;
    uint64_t size;          /* bytes written and synced */
    uint64_t tie;           /* checksum of the header */
    uint64_t chain;         /* checksum of the last record */
    uint64_t snapshot_size; /* bytes up to the end of the snapshot */
};

/* Touches no file. LOAM_OK, LOAM_E_INVAL (the directory's name is too long) or LOAM_E_NOMEM. */
int manifest_init(struct manifest *m, const loam_vfs *vfs, const char *dir, struct alloc *a);
void manifest_destroy(struct manifest *m); /* closes the file */

/* Creates the file and writes its header; records follow by manifest_write(). An open file is closed
 * first. replace: a leftover of that name is removed first. */
int manifest_create(struct manifest *m, uint64_t db_id, uint64_t number, bool replace);
/* Goes on at the end of a manifest that was read whole and ends as it was closed. An open file is closed
 * first; the file is opened and nothing is written. */
int manifest_continue(struct manifest *m, const struct manifest_end *end);
/* Adds a record without syncing. record: MANIFEST_RECORD_BYTES of room, then the payload. */
int manifest_write(struct manifest *m, struct buf *record);
/* Syncs file and directory: the snapshot is whole and its name durable. */
int manifest_finish_snapshot(struct manifest *m);
/* manifest_write() and a data sync. After an error the record may or may not be found by a later
 * open; the file is closed for good and another manifest must take its place. */
int manifest_append(struct manifest *m, struct buf *record);
/* Puts the manifest in force. *renamed: whether CURRENT may have been replaced, so that after an
 * error either manifest may be found in force. */
int manifest_set_current(struct manifest *m, bool closed, bool *renamed);
void manifest_close(struct manifest *m); /* the file alone */
/* Removes the file of a manifest that never came into force; errors are ignored. */
void manifest_discard(struct manifest *m);
static inline bool manifest_is_open(const struct manifest *m)
{
    return m->file != NULL;
}

/* An empty record with room for its header. */
void manifest_record_begin(struct buf *record);

/* ---- reading --------------------------------------------------------------------------------- */

struct manifest_current {
    uint64_t db_id;
    uint64_t number;
    bool closed;    /* cleanly, once: at `size` */
    uint64_t size;  /* then */
    uint64_t chain; /* then */
};

/* LOAM_OK, LOAM_E_NOENT without a recorded error (no CURRENT), LOAM_E_CORRUPT, LOAM_E_FORMAT,
 * LOAM_E_IO. */
int manifest_read_current(const loam_vfs *vfs, const char *dir, struct manifest_current *out);

struct manifest_reader {
    const loam_vfs *vfs;
    loam_file *file;
    struct manifest_current expect;
    uint64_t file_size;
    uint64_t offset; /* of the next record */
    uint64_t tie, chain; /* checksums of the header and of the record before */
    uint64_t snapshot_size; /* set by the caller once it has seen the end of the snapshot; else 0 */
    bool torn;           /* the file ends in an append cut short */
    struct buf window;   /* bytes of the file from window_offset on */
    uint64_t window_offset;
};

/* Opens the manifest that CURRENT names and checks its header. */
int manifest_reader_open(struct manifest_reader *r, const loam_vfs *vfs, const char *dir,
                         struct alloc *a, const struct manifest_current *current);
/* The next payload, lent until the next call, and the offset of its record. LOAM_NOTFOUND at the
 * end; LOAM_E_CORRUPT for damage. */
int manifest_read_next(struct manifest_reader *r, loam_slice *payload, uint64_t *offset);
/* After LOAM_NOTFOUND. */
struct manifest_end manifest_reader_end(const struct manifest_reader *r);
void manifest_reader_close(struct manifest_reader *r);

#endif
