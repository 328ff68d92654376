/* history.h - Records what threads did to a few keys and when, and checks that one order explains it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Every write puts a value that no other write puts, so a read names the write it saw; 0 stands for
 * "no such key", before the first write and after a delete. The store tells the sequence number of
 * each write, which fixes the order of the writes to a key. So a history can be judged in linear
 * time, without search:
 *
 *     t(i) is the moment at which write i of a key takes effect: within [inv, res] of its call
 *     t(0) < t(1) < t(2) ...          the order of sequence numbers
 *     a read that saw write i took place at or after t(i) and before t(i + 1), within its own call
 *
 * Each operation bounds some t(i) from below or above. The history is linearizable exactly when the
 * bounds leave room; reads of "no such key" may stand behind any of the deletes, and are checked
 * against the bounds of all others.
 *
 * A cut is what a scan, a snapshot, an iterator or a get of many keys saw: the value of every key. It
 * is right when there is one commit number under which each key has the value seen, when no write
 * that had returned before the cut began is behind that number, and none that began after the cut
 * ended is below it. Operations of one batch share their commit number, so a cut through a batch fails.
 *
 * Threads: each thread records in its own log and nothing is shared, so that recording neither orders
 * the threads nor hides a race. history_check() comes after all threads have ended.
 */
#ifndef LOAM_TESTS_SUPPORT_HISTORY_H_
#define LOAM_TESTS_SUPPORT_HISTORY_H_

#include <stddef.h>
#include <stdint.h>

struct history_op {
    uint64_t inv, res; /* nanoseconds */
    uint64_t value;    /* 0: a delete, or a read that found nothing */
    uint64_t seq;      /* of the version written or read; 0: nothing was found */
    uint64_t commit;   /* writes: the number that orders it; one for all writes of a batch */
    uint32_t key;
    uint32_t is_write;
};

struct history_cut {
    uint64_t inv, res;
    uint64_t seq; /* of the snapshot; UINT64_MAX: not known */
    size_t first; /* index of the value of key 0 in the log's `seen` */
};

struct history_log {
    struct history_op *ops;
    size_t count, cap;
    struct history_cut *cuts;
    size_t cut_count, cut_cap;
    uint64_t *seen; /* `keys` values for each cut */
    size_t seen_count, seen_cap;
};

struct history {
    unsigned threads;
    uint32_t keys;
    struct history_log *logs; /* by thread */
};

void history_init(struct history *h, unsigned threads, uint32_t keys);
void history_free(struct history *h);

/* The clock of inv and res. */
uint64_t history_now(void);
/* Called by the thread of that log only. seq is that of this operation, commit that of its batch's
 * first operation. */
void history_write(struct history *h, unsigned thread, uint32_t key, uint64_t value, uint64_t seq,
                   uint64_t commit, uint64_t inv, uint64_t res);
void history_read(struct history *h, unsigned thread, uint32_t key, uint64_t value, uint64_t seq,
                  uint64_t inv, uint64_t res);
/* Room for the h->keys values of a cut, all 0; valid until the thread's next cut. */
uint64_t *history_cut(struct history *h, unsigned thread, uint64_t seq, uint64_t inv, uint64_t res);

struct history_summary {
    uint64_t writes, reads, cuts;
};

/* Prints what cannot be explained and aborts. */
struct history_summary history_check(const struct history *h);

#endif
