/* table_output.h - Sorted entries of one keyspace to finished, synced tables and the edit that adds them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Owns the files it made until table_output_installed(); before that, freeing it removes them.
 */
#ifndef LOAM_ENGINE_TABLE_OUTPUT_H_
#define LOAM_ENGINE_TABLE_OUTPUT_H_

#include "engine/db.h"
#include "sstable/sst_builder.h"

struct table_made {
    struct table_meta meta; /* keys live in the builder */
    struct sst_builder *builder;
};

struct table_output {
    struct db *db;
    struct keyspace *space; /* borrowed */
    const loam_comparator *cmp;
    uint8_t level;
    bool lent; /* the bytes of what is added stay where they are until the table is cut */
    uint64_t background_bytes; /* written */
    uint64_t trimmed, trimmed_for; /* of the new tables, see compaction_trim.c; 0: nothing */
    struct sst_builder *builder; /* the table being built, or NULL */
    uint64_t number;
    struct table_made *made;
    uint32_t made_count, made_cap;
};

void table_output_init(struct table_output *o, struct db *db, struct keyspace *space,
                       uint8_t level);
/* Appends an entry; begins a table when none is open. */
int table_output_add(struct table_output *o, const struct entry *e);
/* Bytes of the table being built; 0: none. */
uint64_t table_output_bytes(const struct table_output *o);
/* Ends the table being built, if any. */
int table_output_cut(struct table_output *o);
/* Adds the finished tables to an edit. */
int table_output_describe(const struct table_output *o, struct version_edit *e);
/* The edit was applied: opens the tables warm, with the blocks that are still in the ring. */
void table_output_installed(struct table_output *o);
/* applying: the version set has taken charge of the files, whatever came of it. */
void table_output_disown(struct table_output *o);
void table_output_free(struct table_output *o);

#endif
