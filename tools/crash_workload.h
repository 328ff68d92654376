/* crash_workload.h - A random workload on a recorded disk, by one thread, noted in the model as it goes.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_CRASH_WORKLOAD_H_
#define LOAM_TOOLS_CRASH_WORKLOAD_H_

#include "tools/crash_model.h"

#define CRASH_DIR "/db"

#define CRASH_ROLLS_MAX 64u

/* The changes of the disk between which a session replaced its manifest because of its size. */
struct crash_roll {
    uint64_t from, to;
};

struct crash_workload {
    struct model *model;
    loam_recording *rec;
    const loam_vfs *vfs;
    uint64_t seed; /* moves on */
    uint32_t durable_one_in; /* writes of this session */
    bool unlogged_some;      /* every other session keeps no log */
    bool unlogged;           /* this one */
    bool larger_last;        /* the last session has a larger budget than those that recover from it */
    bool larger;             /* this one has */
    bool whole;              /* of many steps: deeper, and its later states take longer to check */
    bool many_names;         /* most steps are of keyspaces, and the manifest grows long */
    bool long_batches;       /* some batches are longer than a memtable */
    loam_db *db;
    loam_ks *ks[MODEL_SPACES];
    char manifest[32]; /* name of the newest */
    bool own_manifest; /* it is of this session */
    struct crash_roll rolls[CRASH_ROLLS_MAX];
    unsigned roll_count;
    char why[MODEL_WHY]; /* of the call that failed */
};

/* Options of every open that recovers: the smallest budget, one worker, no syncs but those asked for. */
loam_options crash_options(const loam_vfs *vfs);

/* How many manifests the disk holds; the name of the newest, "" if none. */
unsigned crash_manifests(const loam_vfs *vfs, char newest[32]);

/* Several sessions from the first open on: writes alone and in batches, over keyspaces that come, go
 * and change names, flushes, merges, and closes that flush nothing. False when a call failed. */
bool crash_workload_run(struct crash_workload *w);

#endif
