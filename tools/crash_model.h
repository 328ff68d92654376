/* crash_model.h - What a database may hold after a crash: the commits of one writer, and when each was sure.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Data is a prefix of the commits: all that were promised, none beyond what was begun. Which
 * keyspaces there are changes through the manifest, beside the log: a prefix of its own. Promises
 * are dated by the recording of the disk, so that one run serves every crash of it.
 */
#ifndef LOAM_TOOLS_CRASH_MODEL_H_
#define LOAM_TOOLS_CRASH_MODEL_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/loam.h"

#define MODEL_KEYS      20u
#define MODEL_SPACES    10u /* keyspaces ever created; 0 is "default" */
#define MODEL_NAME      256u
#define MODEL_VALUE_MAX 20480u
#define MODEL_WHY       512u

/* splitmix64. */
static inline uint64_t model_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline uint32_t model_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)((model_random(state) >> 32) * n >> 32);
}

/* The values of all keys after a commit: what identifies each; 0 for none. */
struct model_state {
    uint32_t value[MODEL_SPACES][MODEL_KEYS];
};

/* The keyspaces by number; "" where there is none. */
struct model_names {
    char name[MODEL_SPACES][MODEL_NAME];
};

/* What must and what may be there. */
struct model_promise {
    bool opened;        /* an open has returned: there is a database */
    uint32_t low, high; /* commits */
    uint32_t control_low, control_high;
    bool extra; /* the put that followed a recovery */
};

/* From `at` changes of the disk on. */
struct model_event {
    uint64_t at;
    bool opened;
    bool unlogged; /* the session has no log: a kill leaves what is durable */
    uint32_t begun, acked, durable;
    uint32_t control_begun, control_acked;
};

struct model {
    struct model_state *states; /* [0 .. commits] */
    struct model_names *controls;
    struct model_event *events;
    uint32_t commits, controls_last;
    size_t states_cap, controls_cap, event_count, events_cap;
    uint32_t spaces, next_value;
    struct model_event now;
};

/* What was read out of a database. */
struct model_seen {
    uint32_t commit, control;
    struct model_state state;
    bool has_extra; /* the key that the check itself put */
};

void model_init(struct model *m);
void model_free(struct model *m);

/* The next state, to be changed before the call is made; then model_begun() with the moment, and
 * model_acked() when the call has returned. */
struct model_state *model_next_state(struct model *m);
struct model_names *model_next_names(struct model *m);
void model_begun(struct model *m, uint64_t at, bool control);
void model_acked(struct model *m, uint64_t at, bool control, bool durable);
/* Everything acknowledged is durable. */
void model_synced(struct model *m, uint64_t at);
void model_opened(struct model *m, uint64_t at);
/* The next session keeps a log, or none. Before it is opened: what the one before it wrote is durable. */
void model_session(struct model *m, bool unlogged);

/* What holds after the first `at` changes. killed: the process died and the machine did not. */
struct model_promise model_promise(const struct model *m, uint64_t at, bool killed);
/* Finds the last commit within the promise that gives `seen` for the keyspaces of seen->control.
 * False, with a reason in `why`. */
bool model_judge(const struct model *m, const struct model_promise *p, struct model_seen *seen,
                 char why[MODEL_WHY]);

/* The bytes of key i; lent for ever. MODEL_KEYS: the key of the check itself. */
loam_slice model_key(unsigned i);
/* The value that an identity stands for, written into buf of MODEL_VALUE_MAX + 8 bytes. */
loam_slice model_value(uint32_t value, uint8_t *buf);
/* The keyspaces with odd numbers beyond 2 are in descending order. */
const loam_ks_options *model_ks_options(unsigned space);

#endif
