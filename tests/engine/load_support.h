/* load_support.h - What stress tests of the engine share: disks, self-describing values, a janitor that forces flushes and merges, and a watchdog.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_ENGINE_LOAD_SUPPORT_H_
#define LOAM_TESTS_ENGINE_LOAD_SUPPORT_H_

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "engine/loam.h"
#include "tests/engine/db_support.h"
#include "tests/support/history.h"
#include "tests/support/stress.h"

#define LOAD_VALUE_MAX 1024u /* bytes */

/* A directory for one database, in memory or in $TMPDIR. */
struct load_disk {
    loam_vfs *memory; /* NULL: the operating system's */
    loam_vfs *fault;  /* before it, so that the process can be killed; NULL: it cannot */
    loam_vfs *after;  /* between a cut and a reboot: what the cut left */
    uint64_t seed;    /* of the next cut */
    loam_vfs slow;    /* of a mortal disk: `fault` with syncs that take their time, as disks' do */
    char dir[512];
};
void load_disk_init(struct load_disk *d, bool memory);
/* From now on load_cut() can be called; before the first open. Memory only. */
void load_make_mortal(struct load_disk *d, uint64_t seed);
/* Keeps the disk as a death of the process (variant LOAM_CUT_ALL) or a loss of power would leave it at this
 * moment. Any thread may be in the middle of any call; what they do to the disk from now on is lost. */
void load_cut(struct load_disk *d, uint64_t variant);
/* Goes on with the disk that was kept. Calls of the caller's threads have ended. The database is gone. */
void load_reboot(struct load_disk *d, loam_db *db);
/* The database is closed and removed with its directory. */
void load_disk_free(struct load_disk *d);
loam_db *load_open(const struct load_disk *d, const loam_options *more);

/* "k" and the number in eight digits; key numbers and key bytes have one order. */
struct load_key {
    char bytes[12];
};
struct load_key load_key_of(uint64_t number);
static inline loam_slice load_key_slice(const struct load_key *k)
{
    return loam_bytes(k->bytes, 9);
}
uint64_t load_key_number(loam_slice key);
/* A value that tells its number in its first 8 bytes; length and all other bytes follow from it. */
size_t load_value_make(uint64_t id, uint8_t out[LOAD_VALUE_MAX]);
/* The number of a value; aborts when any byte is not what it must be. */
uint64_t load_value_id(loam_slice value);

/* Flushes, merges, pauses and asks for numbers every few milliseconds, in a thread of its own. */
struct janitor {
    loam_db *db;
    uint64_t seed;
    uint32_t micros; /* between two jobs */
    _Atomic bool stop;
    uint64_t jobs;
    pthread_t thread;
};
void janitor_start(struct janitor *j, loam_db *db, uint32_t micros, uint64_t seed);
void janitor_stop(struct janitor *j);

/* Aborts when a member has not moved for too long: 5 s, 30 s under sanitizers. */
#define WATCH_MAX 64u
struct watchdog {
    struct {
        _Alignas(64) _Atomic uint64_t beats; /* 0: not on watch */
    } member[WATCH_MAX];
    const char *what;
    _Atomic bool stop;
    pthread_t thread;
};
void watchdog_start(struct watchdog *w, const char *what);
void watchdog_stop(struct watchdog *w);
/* Steps of all members on watch. */
uint64_t watchdog_beats(const struct watchdog *w);
/* On watch from the first beat to the rest. */
static inline void watchdog_beat(struct watchdog *w, unsigned i)
{
    /* relaxed: it must not order the threads it watches. */
    atomic_fetch_add_explicit(&w->member[i].beats, 1, memory_order_relaxed);
}
static inline void watchdog_rest(struct watchdog *w, unsigned i)
{
    atomic_store_explicit(&w->member[i].beats, 0, memory_order_relaxed); /* relaxed: as above */
}

#endif
