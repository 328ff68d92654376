/* oracle_support.h - What a database may hold after a crash: the commits of one writer, and how sure each is.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Data is a prefix of the commits: every one that was promised, none beyond what was begun. A commit
 * whose call failed must not show ever, unless the error said LOAM_ERR_UNKNOWN. Which keyspaces
 * there are changes through the manifest, beside the log: those changes are a prefix of their own.
 *
 * The writer is one thread; oracle_promise() may be read by any other meanwhile.
 */
#ifndef LOAM_TESTS_CRASH_ORACLE_SUPPORT_H_
#define LOAM_TESTS_CRASH_ORACLE_SUPPORT_H_

#include <stdbool.h>
#include <stdint.h>

#include "arena/atomic.h"
#include "arena/random.h"
#include "engine/loam.h"

#define ORACLE_KEYS     20u
#define ORACLE_SPACES   10u /* keyspaces ever created; 0 is "default" */
#define ORACLE_COMMITS  4096u
#define ORACLE_OPS      32768u
#define ORACLE_CONTROLS 48u
#define ORACLE_MAYBES   6u
#define ORACLE_NAME     16u

struct oracle_op {
    uint8_t space, key;
    uint32_t value; /* what identifies it; 0: a deletion */
};

enum oracle_fate { ORACLE_BEGUN, ORACLE_ACKED, ORACLE_FAILED, ORACLE_MAYBE };

struct oracle_commit {
    _Atomic uint32_t fate;
    uint32_t first, count; /* ops */
    uint64_t failed_at;    /* changes of the recorded disk, and 1, when FAILED became its fate */
};

/* The names of all keyspaces, by number; "" where there is none. */
struct oracle_names {
    char name[ORACLE_SPACES][ORACLE_NAME];
};

struct oracle {
    struct oracle_op ops[ORACLE_OPS];
    uint32_t op_count;
    struct oracle_commit commits[ORACLE_COMMITS + 1]; /* from 1 */
    struct oracle_names controls[ORACLE_CONTROLS + 1];
    uint32_t spaces; /* numbers used */
    uint32_t next_value;
    _Atomic uint32_t begun, acked, durable;      /* commits: the highest of each kind */
    _Atomic uint32_t control_begun, control_acked;
    _Atomic uint32_t opened; /* an open has returned: there is a database from then on */
    _Atomic uint32_t unlogged; /* it keeps no log: a kill leaves what is durable */
};

/* What must and what may be there. */
struct oracle_promise {
    bool opened;
    uint32_t low, high; /* commits */
    uint32_t control_low, control_high;
    uint64_t at; /* changes of the recorded disk, and 1: what failed later had not failed; 0: it has */
};

/* What was read out of a database. */
struct oracle_seen {
    struct oracle_names names; /* by the numbers of the control state they match */
    uint32_t control;
    uint32_t value[ORACLE_SPACES][ORACLE_KEYS]; /* 0: absent */
    bool unread[ORACLE_SPACES][ORACLE_KEYS];    /* every call that could have told gave an error */
};

void oracle_init(struct oracle *o);
/* process: the machine goes on, only the process dies. */
struct oracle_promise oracle_promise_low(const struct oracle *o, bool process);
/* What is read while it is open. */
struct oracle_promise oracle_promise_live(const struct oracle *o);
/* Completes a promise taken before an image was, with what was begun by then. */
void oracle_promise_high(const struct oracle *o, struct oracle_promise *p);

/* The bytes of key i and of a value; lent for ever (keys), or until the next call of the thread. */
loam_slice oracle_key(unsigned i);
loam_slice oracle_value(uint32_t value);

/* A database under test as the writer knows it. */
struct oracle_writer {
    struct oracle *o;
    struct random random;
    loam_db *db;
    loam_ks *space[ORACLE_SPACES]; /* NULL where the present state has none */
    bool strict;                   /* every call must succeed */
    uint32_t refused;              /* calls that failed */
    loam_recording *rec;           /* of the disk, by which failures are dated; NULL: they are not */
    void (*before)(void *ctx);     /* called once a commit or a change of keyspaces is begun; NULL: not */
    void (*after)(void *ctx);      /* called after each step; NULL: not */
    void *hook_ctx;
};

/* Opens dir and the keyspaces of the present state. LOAM_OK or the error. Under LOAM_DUR_MEMORY no write is a
 * durable one and oracle_sync() flushes; what a close failed to flush counts as failed when the next open
 * does not find it. */
int oracle_open(struct oracle_writer *w, const char *dir, const loam_options *options);
int oracle_close(struct oracle_writer *w);
/* n random commits: puts, deletes and batches, durable ones among them. big: values up to 20 KB. */
void oracle_write(struct oracle_writer *w, unsigned n, bool big);
/* One put of a key of "default". */
int oracle_put(struct oracle_writer *w, unsigned key, bool durable);
/* One put with a value of up to 20 KB, not durable. */
int oracle_put_long(struct oracle_writer *w, unsigned key);
/* One put with a value of 100 to 200 KB that does not compress, not durable. */
int oracle_put_huge(struct oracle_writer *w, unsigned key);
/* A batch longer than a memtable of the smallest budget. */
int oracle_batch_long(struct oracle_writer *w, bool durable);
int oracle_ks_create(struct oracle_writer *w, const char *name);
int oracle_ks_drop(struct oracle_writer *w, const char *name);
int oracle_ks_rename(struct oracle_writer *w, const char *from, const char *to);
int oracle_sync(struct oracle_writer *w);
int oracle_flush(struct oracle_writer *w);
int oracle_compact(struct oracle_writer *w);

/* Reads everything: keyspaces, a scan of each both ways, a get of every key; they must agree. The
 * keyspaces must be those of one control state within the promise. An error of a call is returned;
 * what contradicts itself or the promise aborts with the context. */
int oracle_read(const struct oracle *o, const struct oracle_promise *p, loam_db *db,
                struct oracle_seen *seen);
/* A call that gave the error rc, which is the thread's last. key: of a get; else -1. */
typedef void oracle_failed_fn(void *ctx, const char *ks, const char *call, int key, int rc);
/* The same of a database where calls may fail: every key of every keyspace by a get, and walks from
 * every key both ways, each up to its error. What one says no other may contradict. */
int oracle_read_beside(const struct oracle *o, const struct oracle_promise *p, loam_db *db,
                       struct oracle_seen *seen, oracle_failed_fn *on_failure, void *ctx);
/* Aborts unless `seen`, but for what is unread, is a prefix within the promise; returns its commit. */
uint32_t oracle_judge(const struct oracle *o, const struct oracle_promise *p,
                      const struct oracle_seen *seen);

/* The number of a keyspace; ORACLE_SPACES when there is none of that name. */
unsigned oracle_find_name(const struct oracle_names *n, const char *name);

/* What to print before a failure; the format's text is kept. */
void oracle_context(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Called before a failure aborts; NULL: nothing. */
extern void (*oracle_on_fail)(void);
_Noreturn void oracle_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
