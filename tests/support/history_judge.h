/* history_judge.h - The writes of one life in order, for the files that judge it; nobody else includes it.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_SUPPORT_HISTORY_JUDGE_H_
#define LOAM_TESTS_SUPPORT_HISTORY_JUDGE_H_

#include "tests/support/history.h"

/* lo and hi bound the moment the write took effect. Slot 0 is what the life began with. */
struct slot {
    struct history_op op;
    uint64_t lo, hi;
};

struct lane {
    struct slot *slots;
    size_t count;
    size_t *by_value; /* indexes of slots, ordered by value; deletes first */
};

struct judge {
    const struct history *h;
    struct lane *lanes; /* by key */
};

void judge_init(struct judge *j, const struct history *h);
void judge_free(struct judge *j);
/* Every read and cut of the life. Prints what cannot be explained and aborts. */
void judge_life(struct judge *j, struct history_summary *sum);

/* The write that put a value; SIZE_MAX: none. value is not 0. */
size_t lane_slot_of_value(const struct lane *n, uint64_t value);
/* The last write of the lane with a commit number <= number. */
size_t lane_last_committed(const struct lane *n, uint64_t number);
void history_show(const char *what, const struct history_op *o);

#endif
