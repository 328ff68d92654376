/* log_chain.h - Goes through a database's log segments in order and judges where the log ends.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The first live segment begins at or before the number after the manifest's last sequence number (a
 * flush of replayed entries may end inside a segment), and each one must begin where the one before it
 * ended; so a segment that is missing is noticed.
 *
 * The chain ends at the first record that does not parse. If anything in the logs says that a position
 * beyond it was durable, or the manifest says that the log was closed cleanly at another place, that
 * is damage: LOAM_E_CORRUPT naming file and offset. Otherwise it is the torn end of writes that nobody
 * was promised, and what lies behind it is given up for good.
 *
 * A record whose operations do not parse, or are on a keyspace of which the manifest cannot know, is
 * damage, too: a keyspace is durable before its first write.
 *
 * Recovery, checking and repair all judge by this one walk. Writes nothing.
 */
#ifndef LOAM_ENGINE_LOG_CHAIN_H_
#define LOAM_ENGINE_LOG_CHAIN_H_

#include "arena/buf.h"
#include "wal/wal_reader.h"

/* Where the segments are and what the manifest says of them. */
struct log_chain_options {
    const loam_vfs *vfs;
    const char *dir;
    struct alloc *alloc;
    uint64_t db_id;
    uint64_t first_needed; /* oldest live segment; 0: none is named */
    bool none;             /* no segment of that number was made */
    uint64_t last_seq;     /* of what the tables hold, as far as they say */
    uint32_t next_ks;      /* every keyspace id ever given out is below it; 0: not known */
    bool sealed;           /* closed cleanly: the log ends in segment sealed_number (0: there is none) */
    uint64_t sealed_number, sealed_position;
    uint64_t upto; /* what lies at or behind this position is not looked at, and everything below it
                      is there for certain; 0: the log's own end counts */
    /* Gets every record of operations in order, which was checked; < 0 ends the walk with that error.
     * NULL is allowed. */
    int (*record)(void *ctx, uint64_t number, const struct wal_record *record);
    void *ctx;
};

struct log_chain {
    struct log_chain_options o;
    struct buf list; /* Owns: numbers */
    const uint64_t *numbers; /* of the segments from first_needed on, ascending */
    size_t count;
    struct wal_reader_end *seen; /* by segment walked: where it ended */
    size_t used;   /* segments walked, whole or in part */
    uint64_t end;  /* position behind the last record */
    bool based;    /* a record was met: `end` is exact, not only an upper limit */
    bool cut;      /* segments from `used` on do not follow what was walked */
};

/* Lists the directory. LOAM_OK, E_IO, E_NOMEM. log_chain_free() in any case. */
int log_chain_init(struct log_chain *c, const struct log_chain_options *o);
void log_chain_free(struct log_chain *c);
/* LOAM_OK, or the first error: damage (above), of reading, or of the callback. Once per init. */
int log_chain_run(struct log_chain *c);

#endif
