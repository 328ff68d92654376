/* rest.c - Looks at the number of the last write, and at what the active memtable holds.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/rest.h"

#include <assert.h>

#include "engine/db.h"

#include "arena/poison.h"

#define PAUSE_US  200000u /* without a write: whoever writes now and then may pause as long */
#define FLOW_PART 16u     /* of what flushes take a second: slower writers leave merges all the time they need */

uint64_t rest_micros_locked(struct db *db)
{
    mutex_assert_held(&db->mu);
    struct rest *r = &db->rest;
    uint64_t now = clock_micros(), seq = commit_visible(&db->commit);
    if (seq != r->seq) {
        r->seq = seq;
        r->since = now;
    }
    return now - r->since;
}

bool rest_is_far_locked(struct db *db, uint64_t drain)
{
    struct memtable *m = memtable_list_find(&db->memtables, wal_generation(&db->wal));
    if (m == NULL || rest_micros_locked(db) > PAUSE_US) {
        return false;
    }
    uint64_t micros = clock_micros() - db->rest.sealed_at + 1;
    double rate = (double)memtable_bytes(m) * 1e6 / (double)micros;
    return rate > (double)drain / FLOW_PART;
}

/* Seeks that passed through the memtable of this generation, about. */
static uint64_t seeks_of(struct rest *r, uint32_t generation)
{
    if (r->generation != generation) {
        r->generation = generation;
        atom_store(&r->seeks, 0, relaxed); /* relaxed, as below: a count */
    }
    return atom_load(&r->seeks, relaxed);
}

bool rest_flush_due_locked(struct db *db, uint64_t room)
{
    mutex_assert_held(&db->mu);
    assert(!db->rest.sealing);
    if (db->readonly || db->rest.refused_seq == commit_visible(&db->commit)) {
        return false;
    }
    uint32_t generation = wal_generation(&db->wal);
    struct memtable *m = memtable_list_find(&db->memtables, generation);
    if (m == NULL || memtable_empty(m)) {
        return false;
    }
    uint64_t bytes = memtable_bytes(m), seeks = seeks_of(&db->rest, generation);
    bool paid = bytes >= db_memtable_limit(db) / REST_PART ||
                (bytes >= REST_BYTES && seeks >= memtable_count(m));
    return paid && bytes <= room / 2; /* a table, and what the log needs to go on */
}

void rest_flush_locked(struct db *db)
{
    uint32_t generation = wal_generation(&db->wal);
    uint64_t seq = commit_visible(&db->commit);
    db->rest.sealing = true; /* in the midst of it neither memtable looks as if there were something to do */
    mutex_unlock(&db->mu);
    int rc = db_seal(db, generation, 0);
    mutex_lock(&db->mu);
    db->rest.sealing = false;
    if (rc != LOAM_OK) {
        db->rest.refused_seq = seq;
    }
}
