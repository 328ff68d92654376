/* compaction_shape.h - The sizes levels should have, against those they have.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The last level (6) holds most of the data; level i's target is the target of level i+1 divided by
 * `multiplier`, and a level exists only while its target is at least base_level_bytes. The uppermost
 * of them is the base level: level 0 is merged straight into it. So a database of up to multiplier *
 * base_level_bytes has level 0 and the last level only, and each byte is rewritten about once on its
 * way down. Levels between 0 and the base level are empty; if they are not - the database has shrunk
 * - they are drained.
 *
 * Score of a level = bytes / target, tables whose entries are more than half deletes counted twice.
 * Debt = the bytes to be rewritten until every level is in shape.
 */
#ifndef LOAM_ENGINE_COMPACTION_SHAPE_H_
#define LOAM_ENGINE_COMPACTION_SHAPE_H_

#include "engine/version.h"

struct compaction_tunables {
    uint32_t l0_trigger_files;  /* more: less rewriting, slower reads while writing */
    uint32_t l0_idle_files;     /* an idle database merges level 0 from this many tables on */
    uint32_t multiplier;        /* between levels. More: less space, more rewriting */
    uint64_t base_level_bytes;  /* smallest target of a level; about what level 0 gathers */
    uint64_t target_file_bytes; /* of output tables */
    uint64_t max_input_bytes;   /* of one job from level 1 or deeper */
    uint64_t grandparent_bytes; /* one output table overlaps at most this much of the next level */
    uint32_t space_percent;     /* idle databases shrink until garbage is at most this share */
};

/* Defaults for a memtable of this many bytes. */
void compaction_tunables_init(struct compaction_tunables *t, uint64_t memtable_bytes);

struct compaction_shape {
    int base;                     /* level that level 0 is merged into */
    uint64_t target[LEVEL_COUNT]; /* bytes; 0: the level should be empty */
};

struct compaction_shape compaction_shape_of(const struct ks_version *k,
                                            const struct compaction_tunables *t);

/* Where tables of `level` go: the next level that holds something, at most the base level; from the
 * base level on, the next one. */
int compaction_output_level(const struct ks_version *k, const struct compaction_shape *s,
                            int level);

/* How urgent a merge of the level is; due from 1 on. `oldest` as in compaction_pick(). */
double compaction_level_score(const struct ks_version *k, const struct compaction_shape *s,
                              const struct compaction_tunables *t, int level, uint64_t oldest);

/* Whether the table holds deletes or older versions of its keys, all of which nobody needs at the bottom. */
bool compaction_can_shrink(const struct table *t, uint64_t oldest);

/* Whether what lies above the last level may hide so much of it that the files are larger than
 * (100 + percent) % of what is live. Each entry above is taken to hide one below it. */
bool compaction_wastes_space(const struct ks_version *k, uint32_t percent);

/* Bytes that must still be rewritten until every level is in shape; grows from 0 without jumps. */
uint64_t compaction_debt_bytes(const struct version *v, const struct compaction_tunables *t);
uint64_t compaction_debt_bytes_ks(const struct ks_version *k, const struct compaction_tunables *t);

#endif
