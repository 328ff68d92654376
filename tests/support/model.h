/* model.h - An in-memory oracle of a database: every version of every key, by commit number.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Keys come from a fixed universe made from a seed: edge cases (empty, 0x00, 0xff runs, 64 KiB), runs
 * with shared prefixes, mixed case. For each key order the universe is sorted once into rows; keys
 * that an order takes for equal share a row. So a state is an array by row, and "the next key" is the
 * next row with a value: nothing clever that could be wrong in the way the engine is.
 *
 * Commits are numbered 1, 2, ... in the order of their writes. The state as of commit c is what a
 * reader at that moment sees; 0 is the empty database. Values are kept as a number and a size, from
 * which the bytes are made again. One thread.
 */
#ifndef LOAM_TESTS_SUPPORT_MODEL_H_
#define LOAM_TESTS_SUPPORT_MODEL_H_

#include <stdbool.h>
#include <stdint.h>

#include "engine/loam.h"

#define MODEL_KS_MAX 12u
#define MODEL_NONE UINT32_MAX /* no row, no key, no keyspace */

enum model_order { MODEL_BYTES, MODEL_REVERSE, MODEL_NOCASE, MODEL_ORDERS };

/* NULL for MODEL_BYTES. Static. */
const loam_comparator *model_comparator(enum model_order order);

struct model_version {
    uint64_t commit;
    uint64_t seq;      /* the engine's number; 0 until the commit is done */
    uint64_t value_id; /* of model_value() */
    uint32_t size;     /* of the value */
    uint32_t key;      /* as it was written; matters where keys of one row differ */
    bool present;      /* false: deleted */
};

struct model_chain {
    struct model_version *v; /* oldest first */
    uint32_t count, cap;
};

struct model_ks {
    bool live;
    char name[32];
    enum model_order order;
    struct model_chain *rows; /* one for each row of the order */
};

struct model {
    /* the universe; constant after init */
    loam_slice *keys;
    uint32_t key_count;
    uint32_t *row_of[MODEL_ORDERS];  /* by key */
    uint32_t *key_at[MODEL_ORDERS];  /* by row: one of its keys */
    uint32_t row_count[MODEL_ORDERS];
    /* the state */
    struct model_ks ks[MODEL_KS_MAX];
    uint64_t now;        /* commits done */
    uint64_t *first_seq; /* by commit */
    uint64_t first_seq_cap;
    /* the commit being made */
    struct model_pending {
        uint32_t ks, row;
    } * pending;
    uint32_t pending_count, pending_cap;
};

void model_init(struct model *m, uint64_t seed, uint32_t key_count);
void model_free(struct model *m);

/* A live keyspace in the first free slot; MODEL_NONE: all are taken. */
uint32_t model_ks_add(struct model *m, const char *name, enum model_order order);
void model_ks_drop(struct model *m, uint32_t ks);
void model_ks_rename(struct model *m, uint32_t ks, const char *name);

/* One commit: any number of operations, later ones win, then done or abort. */
void model_put(struct model *m, uint32_t ks, uint32_t key, uint64_t value_id, uint32_t size);
void model_delete(struct model *m, uint32_t ks, uint32_t key);
/* seq: the engine's number of the first operation; 0: not known. */
void model_commit(struct model *m, uint64_t seq);
void model_abort(struct model *m);
/* Forgets all commits after `commit`. */
void model_truncate(struct model *m, uint64_t commit);
/* The last commit whose first operation has a number <= seq. */
uint64_t model_commit_of_seq(const struct model *m, uint64_t seq);

/* What a reader as of `commit` sees in a row; NULL: no value. */
const struct model_version *model_get(const struct model *m, uint32_t ks, uint32_t row,
                                      uint64_t commit);
/* The first row >= (step 1) or <= (step -1) `row`, inside [lo, hi), that has a value as of `commit`;
 * MODEL_NONE: there is none. */
uint32_t model_find(const struct model *m, uint32_t ks, int64_t row, int step, uint32_t lo,
                    uint32_t hi, uint64_t commit);
/* Writes the value's bytes to `to`. Half of all values compress well. */
void model_value(uint64_t value_id, uint32_t size, uint8_t *to);
bool model_value_is(uint64_t value_id, uint32_t size, loam_slice bytes);

#endif
