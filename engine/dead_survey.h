/* dead_survey.h - Finds the stretches of deletes that an open leaves unknown.
 * SPDX-License-Identifier: Apache-2.0
 *
 * What was known of dead ranges is gone with a crash (dead_known.h has it from a clean close). Then the open
 * itself looks, before anybody can read: the memtables that the log's replay has filled are gone through
 * for runs of deletes, and the tables for what their indexes mark as nothing but deletes. From each such
 * place it walks both ways as a scout does (dead_scout.h), so what is added is proven as any range is:
 * against all that recovery has left, and nothing less can come back. A keyspace whose comparator comes
 * later is looked at when it comes.
 *
 * Cost: a look at each entry of the memtables if deletes are in them, so in proportion to the log, and
 * DEAD_SURVEY_WORK beside a unit for each delete replayed: a dead key passed is one, so are so many bytes
 * read on the way, and a table costs what opening it costs. It is counted, never timed. Tables with
 * the most deletes come first. What is left over, the worker does (by the same order, a share in
 * each round), and until then readers walk. Nothing fails; an error ends a walk, for readers to report.
 *
 * After a clean close the worker alone looks, and only at tables of which most entries are deletes: there
 * may have been more ranges than could be kept.
 *
 * A table whose walks do not end - there is no room for what they find - is given up after as many rounds as
 * its deletes and the tables they lie over fill, twice.
 */
#ifndef LOAM_ENGINE_DEAD_SURVEY_H_
#define LOAM_ENGINE_DEAD_SURVEY_H_

#include <stdbool.h>
#include <stdint.h>

struct db;
struct db_iter;
struct keyspace;

#define DEAD_SURVEY_WORK   262144u /* units of an open, or of a comparator that is given */
#define DEAD_SURVEY_TABLE  256u    /* deletes of a table that is worth a look */
#define DEAD_SURVEY_PLACES 16u     /* spread over a table from which to walk, at most */

/* Of the worker: what of the tables is still to be looked at. */
struct dead_survey {
    _Atomic bool again; /* from the beginning */
    bool all;           /* tables with few deletes, too; constant after the open */
    /* of whoever runs a scout's round */
    bool on;                  /* there are tables to look at */
    uint32_t tries;           /* rounds spent on the next one */
    uint64_t deletes, number; /* of the table that was looked at last */
};

void dead_survey_init(struct dead_survey *s);
/* At the end of an open. known: it came after a clean close, and nothing was logged since. deletes: that
 * were replayed. REQUIRES: the view is published, nobody else uses the database yet. */
void dead_survey_open(struct db *db, bool known, uint64_t deletes);
/* The keyspace has its order now. REQUIRES: nobody has a handle of it yet; outside of sections. */
void dead_survey_order(struct db *db, struct keyspace *space);
/* A worker's share, out of *left. True: more is to be done. REQUIRES: a scout's round runs. */
bool dead_survey_step(struct db *db, struct db_iter *it, uint64_t *left);

#endif
