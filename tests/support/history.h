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
 * Lives. A crash ends one life of the store, an open begins the next. The image that the next life opens
 * is taken at a moment within [inv, res] while the threads are in the middle of calls; what they do from
 * then on happens to a process that nobody will ever hear of. Its calls return and tell their numbers all
 * the same, so each life is judged to its last call by the rules above, as if nothing had happened, and
 * every call in flight at the moment is one that may or may not have taken effect in the next life.
 * Lives meet by one rule. What the next life finds first, before it writes, is the state under one number
 * e of the ended life's order, with
 *
 *     floor <= e < ceiling
 *     ceiling: the first write that began after res; nothing of it can be in the image
 *     floor:   killed, closed: the last write that had returned before inv
 *              power cut:      the last write that a promise kept before inv covers. A promise is a
 *                              durable write, a sync, a flush or a durable number that returned before
 *                              inv; it covers what had returned when its call began, and the number
 *                              that it names
 *
 * So what survives is a prefix of the order, with every batch whole and nothing that was promised
 * missing; the suffix behind e never happened for the lives to come, and a read that sees any of it is
 * one of "what nobody wrote". The next life begins with what it found, all of it promised: an open makes
 * durable what it read. Numbers of the lost suffix may be given once more.
 *
 * Threads: each thread records in its own log and nothing is shared, so that recording neither orders
 * the threads nor hides a race. history_check() and history_restart() come after all threads have ended.
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

/* Survives a loss of power after res: what had returned before inv, and everything up to number. */
struct history_promise {
    uint64_t inv, res;
    uint64_t number;
};

struct history_log {
    struct history_op *ops;
    size_t count, cap;
    struct history_cut *cuts;
    size_t cut_count, cut_cap;
    uint64_t *seen; /* `keys` values for each cut */
    size_t seen_count, seen_cap;
    struct history_promise *promises;
    size_t promise_count, promise_cap;
};

/* What a life found of a key when it began; all 0: nothing. */
struct history_version {
    uint64_t value, seq, commit;
};

struct history {
    unsigned threads;
    uint32_t keys;
    struct history_log *logs;      /* by thread; of this life */
    struct history_version *start; /* by key */
    uint64_t base;                 /* the number under which `start` is the state */
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

/* number: 0 when none is named. */
void history_promise(struct history *h, unsigned thread, uint64_t number, uint64_t inv,
                     uint64_t res);

struct history_summary {
    uint64_t writes, reads, cuts;
    uint64_t lost; /* writes that the lives to come never saw */
};

/* Judges this life and adds to *sum. Prints what cannot be explained and aborts. */
void history_check(const struct history *h, struct history_summary *sum);

/* How a life ended: the image for the next one was taken within [inv, res]. */
struct history_end {
    uint64_t inv, res;
    uint32_t promised_only; /* power was cut: only promises count */
};
/* Judges this life, and that the next one found what it must: value and seq of each key. Begins the next
 * life with it. */
void history_restart(struct history *h, const struct history_end *end,
                     const struct history_version *found, struct history_summary *sum);

/* Empties the logs; history_restart() does. */
void history_forget(struct history *h);

#endif
