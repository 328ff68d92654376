/* version_edit.h - One change to the set of tables and keyspaces, as a struct and as bytes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Encoding: a sequence of fields {varint tag, varint size, that many bytes}. An even tag must be
 * understood (LOAM_E_FORMAT otherwise), an odd one may be skipped. v = varint, 8 = eight bytes little
 * endian, s = varint size and bytes:
 *
 *    2 table added      v ks, v level, v number, v size, v entries, v deletes, v raw_bytes,
 *                       8 checksum, v min_seq, v max_seq, s smallest, s largest
 *    4 table removed    v ks, v level, v number
 *    6 log number       v oldest log segment still needed
 *    8 next file        v every file number in use is below it
 *   10 last sequence    v no table holds a higher one; beside 6: and up to it tables hold all
 *   12 sealed log       v segment number, v position after its last record
 *   14 keyspace created v id, s name, s comparator name (empty: byte order), v compression,
 *                       v filter_bits, v block_bytes
 *   16 keyspace dropped v id; its tables go with it
 *   18 keyspace renamed v id, s name
 *   20 snapshot end     empty; the records up to here are the whole state
 *   22 next keyspace    v every id ever given out is below it
 *   24 no log            empty; beside 6: no segment of that number was made
 *   27 dead range        v ks, v from, v places (1: lo is behind its key, 2: hi is), s lo, s hi; only
 *                       beside 12: a proven range of dead_ranges.h when the log was sealed. Not to know
 *                       it does no harm, and the next edit of anybody forgets it
 *   29 older versions    v number, v of its entries, behind a newer one of their key; only behind the 2 of the
 *                       table, and not for none. Not to know it leaves them where they are
 *
 * Fields 6, 8, 10, 12, 20, 22 and 24 appear at most once in an edit. They take effect in the order:
 * tables removed, keyspaces dropped, renamed, created, tables added. A table that moves to another
 * level is removed and added under one number in one edit.
 */
#ifndef LOAM_ENGINE_VERSION_EDIT_H_
#define LOAM_ENGINE_VERSION_EDIT_H_

#include <stdbool.h>

#include "arena/alloc.h"
#include "arena/buf.h"
#include "arena/types.h"

#define LEVEL_COUNT 7
#define KS_DEFAULT 0u          /* id of the keyspace "default" */
#define KS_ID_MAX 0x00ffffffu  /* ids are never used again, even after a drop */

/* What the manifest knows of one table. */
struct table_meta {
    uint64_t number;    /* of the file */
    uint64_t size;      /* bytes of the file */
    uint64_t entries;   /* versions of keys in it, deletes included */
    uint64_t deletes;   /* of them */
    uint64_t older;     /* of them: behind a newer version of their key in this table */
    uint64_t raw_bytes; /* keys and values before compression */
    uint64_t checksum;  /* of the whole file */
    uint64_t min_seq;
    uint64_t max_seq;
    uint32_t ks;
    uint8_t level;
    loam_slice smallest, largest; /* user keys; data is never NULL once owned by an edit or table */
};

struct removed_table {
    uint64_t number;
    uint32_t ks;
    uint8_t level;
};

/* What the manifest knows of one keyspace. */
struct ks_desc {
    uint32_t id;
    uint32_t compression; /* LOAM_COMPRESS_* */
    uint32_t filter_bits; /* per key; UINT32_MAX: no filters */
    uint32_t block_bytes;
    loam_slice name;
    loam_slice comparator; /* its name; empty: byte order */
};

struct ks_rename {
    uint32_t id;
    loam_slice name;
};

/* A range of keys that holds nothing live; see dead_ranges.h. */
struct dead_note {
    uint32_t ks;
    bool lo_behind, hi_behind;
    uint64_t from;
    loam_slice lo, hi;
};

struct version_edit {
    struct alloc *alloc;
    struct table_meta *added; /* each with its keys in one allocation */
    struct removed_table *removed;
    struct ks_desc *created; /* each with its names in one allocation */
    uint32_t *dropped;
    struct ks_rename *renamed;
    struct dead_note *dead; /* each with its keys in one allocation */
    uint32_t added_count, added_cap;
    uint32_t removed_count, removed_cap;
    uint32_t created_count, created_cap;
    uint32_t dropped_count, dropped_cap;
    uint32_t renamed_count, renamed_cap;
    uint32_t dead_count, dead_cap;
    bool has_log_number, has_next_file, has_last_seq, has_sealed, has_next_ks;
    bool log_none; /* with has_log_number: that segment was never made */
    bool snapshot_end;
    uint32_t next_ks;
    uint64_t log_number;
    uint64_t next_file; /* version_set_apply() fills it in */
    uint64_t last_seq;
    uint64_t sealed_number, sealed_position;
};

/* Nothing is allocated before the first addition. */
void version_edit_init(struct version_edit *e, struct alloc *a);
void version_edit_free(struct version_edit *e); /* back to the state after init */

/* All copy what they are given. Return LOAM_OK or LOAM_E_NOMEM; then the edit is as before. */
int version_edit_add_table(struct version_edit *e, const struct table_meta *m);
int version_edit_remove_table(struct version_edit *e, uint32_t ks, uint8_t level, uint64_t number);
int version_edit_create_ks(struct version_edit *e, const struct ks_desc *d);
int version_edit_drop_ks(struct version_edit *e, uint32_t id);
int version_edit_rename_ks(struct version_edit *e, uint32_t id, loam_slice name);
int version_edit_add_dead(struct version_edit *e, const struct dead_note *n);
/* none: there is no such file, because nothing is logged; older ones are not needed all the same. */
void version_edit_set_log_number(struct version_edit *e, uint64_t number, bool none);
void version_edit_set_next_file(struct version_edit *e, uint64_t number);
void version_edit_set_last_seq(struct version_edit *e, uint64_t seq);
void version_edit_set_sealed(struct version_edit *e, uint64_t number, uint64_t position);
void version_edit_set_next_ks(struct version_edit *e, uint32_t id);

/* Takes added table i out again, keeping the order of the others. */
void version_edit_drop_added(struct version_edit *e, uint32_t i);
/* Likewise dead range i. */
void version_edit_drop_dead(struct version_edit *e, uint32_t i);
/* The dead ranges of `to` become those of `from`, which has none then. */
void version_edit_move_dead(struct version_edit *to, struct version_edit *from);

/* Appends the encoding to out; an out-of-memory state sticks to out. */
void version_edit_encode(const struct version_edit *e, struct buf *out);

/* Fills an edit that is as after init. Hostile bytes are expected: every field is range-checked.
 * file_id and offset name the record in errors. Returns LOAM_OK, LOAM_E_CORRUPT, LOAM_E_FORMAT or
 * LOAM_E_NOMEM; on error the edit is empty. */
int version_edit_decode(struct version_edit *e, loam_slice bytes, uint64_t file_id,
                        uint64_t offset);

#endif
