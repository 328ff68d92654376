/* tombstone_support.h - A keyspace full of deletes: made, looked over, closed and crashed.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_ENGINE_TOMBSTONE_SUPPORT_H_
#define LOAM_TESTS_ENGINE_TOMBSTONE_SUPPORT_H_

#include <stdbool.h>
#include <stdint.h>

#include "tests/engine/db_support.h"

enum {
    KEYS = 3000,
    FIRST = 10, /* [FIRST, LAST) are deleted */
    LAST = KEYS - 10,
    DEAD = LAST - FIRST,
    FEW = 8,    /* deletes a move may pass where all is known */
    WORTH = 64, /* fewer, beside what is known, are not worth a range */
    TRIES = 10 /* walks until a range is known: one, and one more when a view changes meanwhile */
};

/* Where puts and deletes are when the seeks begin. */
enum layout { IN_MEMORY, PUTS_FLUSHED, BOTH_FLUSHED, PUTS_AT_BOTTOM, DELETES_SPREAD, LAYOUTS };

#define NONE UINT32_MAX

struct town {
    loam_vfs *disk, *front; /* databases are on front, which can be cut off */
    loam_db *db;
    loam_ks *ks;
    loam_snap *before; /* of all keys */
    bool reversed;
};

extern const loam_comparator town_backwards;

loam_slice town_key(uint32_t i, char to[16]);
void town_put(struct town *t, uint32_t i);
void town_delete(struct town *t, uint32_t i);

/* A database without merges, its keyspace "town" with id 1. */
void town_open(struct town *t, bool reversed);
void town_open_db(struct town *t, uint32_t flags); /* likewise, of what is on the disk; LOAM_OPEN_* */
void town_open_ks(struct town *t);
void town_close_db(struct town *t);
void town_close(struct town *t);
/* The process is killed: the disk is as it was in that moment, and the database not open. */
void town_crash(struct town *t);
/* All keys, a snapshot, then the deletes. */
void town_fill(struct town *t, enum layout layout);

/* Deletes passed so far. */
uint64_t town_passed(const struct town *t);
loam_iter *town_iter(const struct town *t, const loam_snap *snap);
/* The iterator stands on this key; NONE: on none. */
void town_stands_on(loam_iter *it, int rc, uint32_t i);
/* Keys in the order of the keyspace: the n-th is i, or KEYS - 1 - i. */
uint32_t town_place(const struct town *t, uint32_t n);
void town_seek(const struct town *t, loam_iter *it, uint32_t from, bool forward, uint32_t expected);
/* Seeks until the stretch around `from` is known, and no longer. */
void town_learn(const struct town *t, uint32_t from, bool forward, uint32_t expected);
/* Every kind of move over the stretch, all of it known. */
void town_moves_are_cheap(const struct town *t);
/* Whoever may still see the keys sees them. */
void town_old_snapshot_sees_all(const struct town *t);
/* Whether ranges hold the stretch but for `margin` keys at each end. */
bool town_knows(const struct town *t, uint32_t ks, uint32_t margin);

/* One move that must pass few deletes. */
#define CHEAP(t, move)                                                                             \
    do {                                                                                           \
        uint64_t start_ = town_passed(t);                                                               \
        move;                                                                                      \
        uint64_t n_ = town_passed(t) - start_;                                                          \
        if (n_ > FEW) {                                                                            \
            CHECK_FAIL_("%s passed %llu deletes", #move, (unsigned long long)n_);                  \
        }                                                                                          \
    } while (0)

#endif
