/* bench_store.h - One engine's database during a run: where it is, what it wrote.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_BENCH_STORE_H_
#define LOAM_TOOLS_BENCH_STORE_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tools/bench_engine.h"
#include "tools/bench_flags.h"

enum { BENCH_PATH_MAX = 3072 };

struct bench_store {
    const struct bench_engine *engine;
    const struct bench_flags *flags;
    char dir[BENCH_PATH_MAX];
    void *db; /* NULL: closed */
    /* Keys that YCSB inserts have added after the first `num`. relaxed: a ticket counter */
    _Atomic uint64_t inserted;
};

/* The options that the flags ask for. */
struct bench_open bench_store_how(const struct bench_store *s);
/* Puts the engine's directory under `parent`, in a folder of its own if several engines share it.
 * Returns: 0, or -1 when the path is too long. */
int bench_store_init(struct bench_store *s, const struct bench_engine *e,
                     const struct bench_flags *f, const char *parent, bool shared);
/* BENCH_OK or BENCH_ERROR. */
int bench_store_open(struct bench_store *s);
int bench_store_close(struct bench_store *s);
/* Closes, removes and opens again: an empty database. */
int bench_store_fresh(struct bench_store *s);
/* Returns when the engine's background work is done, or after 60 s of guessing by CPU time when
 * the engine cannot tell. */
int bench_store_settle(struct bench_store *s);
/* Bytes written since open; false when the engine does not know. */
bool bench_store_counters(struct bench_store *s, struct bench_counters *c);

/* Makes a directory and its parents; 0, or -1 with errno. */
int bench_make_dirs(const char *path);

#endif
