/* explore_core.h - What the explorer's own files share: fibers, operations, the state of a run.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   loam_explore.c      the command line
 *   explore_search.c    which schedules: exhaustive, by priorities, replayed, with a stopped thread
 *   explore_races.c     which choices of a run must be tried the other way, too
 *   explore_run.c       one run: coroutines, who can go on, the world put back
 *   explore_order.c     atomics: stores a load may see, happens-before, seq_cst
 *   explore_plain.c     plain accesses: races, freed memory
 *   explore_doors.c     stand-ins for arena/alloc.c, arena/sync.c and thread exit
 *
 * All state that outlives a run is in *X, which is mapped outside of the world.
 */
#ifndef LOAM_TESTS_EXPLORE_CORE_H_
#define LOAM_TESTS_EXPLORE_CORE_H_

#include <setjmp.h>
#include <stddef.h>
#include <ucontext.h>

#include "tests/explore/explore.h"

#define MAIN_FIBER  EXPLORE_THREADS /* runs setup, check and the search */
#define FIBERS      (EXPLORE_THREADS + 1)
#define STACK_BYTES (128u << 10)
#define TLS_MAX     (16u << 10)
#define STEPS_MAX   (1u << 16)

/* What a fiber is about to do. */
enum op_kind { OP_BEGIN, OP_READ, OP_WRITE, OP_LOCK, OP_UNLOCK, OP_RESUME, OP_YIELD, OP_BARRIER };

struct op {
    enum op_kind kind;
    const volatile void *at; /* the object; for OP_LOCK, OP_UNLOCK the owner word of the mutex */
    const char *name;
    const char *where;
};

enum fiber_state { FIBER_READY, FIBER_ASLEEP, FIBER_DONE };

/* A vector clock: for each thread, how many of its operations are known. */
struct view {
    uint32_t of[EXPLORE_THREADS];
};

struct fiber {
    enum fiber_state state;
    bool started;
    bool timed;     /* asleep with a time limit */
    bool timed_out; /* why it woke */
    bool nudged;    /* may go on after a yield although nobody has stored anything */
    struct op next;
    const volatile void *asleep_on;
    uint64_t others_seen; /* X->writes - own_writes when it last went on after a yield */
    uint64_t own_writes;
    uint32_t steps;
    uint32_t last_step;   /* X->steps when it last went on */
    uint32_t clock;       /* of its own operations; never 0 in a run */
    struct view happened; /* happens-before */
    struct view seen;     /* what it cannot overlook: happened, and by seq_cst barriers */
    int held[16];         /* ranks of the mutexes it holds */
    unsigned held_count;
    sigjmp_buf at;
    ucontext_t start;
    char *stack;
    unsigned char tls[TLS_MAX];
};

enum run_phase { PHASE_QUIET, PHASE_PREPARE, PHASE_RUN };

/* How the next thread, and the age of a value, are chosen. */
struct chooser {
    unsigned (*thread)(uint32_t enabled, unsigned current);
    unsigned (*age)(unsigned count); /* 0: the newest of count stores */
};

struct explorer {
    const struct scenario *scenario;
    const struct chooser *chooser;
    enum run_phase phase;
    bool weak; /* loads may see old stores */
    bool trace;
    unsigned current;
    uint32_t run; /* number of this run; stamps the tables */
    uint32_t steps;
    uint32_t step_limit; /* of a run; more is taken for a loop without end */
    uint64_t writes;
    uint64_t clock; /* microseconds, of the world */
    uint32_t idle_rounds;
    unsigned frozen;     /* a thread that is stopped after ... */
    uint32_t frozen_at;  /* ... that many steps; frozen == FIBERS: none */
    struct view barrier; /* what every seq_cst operation so far has known */
    bool failed;
    bool cut; /* the chooser gave the run up: another one covers it */
    char message[512];
    sigjmp_buf out;
    uint32_t log_length;
    unsigned char log[STEPS_MAX]; /* thread chosen; or 0x80 | age of a value */
    struct fiber fiber[FIBERS];
};

extern struct explorer *X;

static inline struct fiber *self(void)
{
    return &X->fiber[X->current];
}

/* ---- explore_run.c ----------------------------------------------------------------------- */

void explorer_open(void);
/* Runs setup and remembers the world after it. */
void world_begin(const struct scenario *s);
enum run_result { RUN_PASSED, RUN_FAILED, RUN_CUT };
enum run_result run_once(const struct chooser *c);
/* A point of the schedule: returns when it is this thread's turn to perform the operation. */
void point(enum op_kind kind, const volatile void *at, const char *name, const char *where);
/* Sleeps until another thread calls wake on the object; false: time has run out. */
bool sleep_on(const volatile void *at, bool timed, const char *where);
unsigned wake(const volatile void *at, unsigned most);
/* The calling thread has changed something that others may wait for. */
void wrote(void);
void data_segment(unsigned char **start, size_t *size);
void trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- explore_order.c --------------------------------------------------------------------- */

void order_open(void);
/* The calling thread learns what was left at a lock, or leaves what it knows there. */
void order_acquire(const volatile void *lock);
void order_release(const volatile void *lock);
/* All stores so far become visible to the calling thread: a loop does not see an old value for
 * ever. That orders nothing. */
void order_catch_up(void);
bool view_has(const struct view *v, unsigned thread, uint32_t clock);

/* ---- explore_plain.c --------------------------------------------------------------------- */

enum access_kind { PLAIN_READ, PLAIN_WRITE, ATOMIC_READ, ATOMIC_WRITE, FREE };
void plain_open(unsigned char *heap, size_t heap_size);
void plain_access(const volatile void *p, size_t n, enum access_kind kind, const char *where);
void plain_allocated(const void *p, size_t n);

/* ---- explore_doors.c --------------------------------------------------------------------- */

void heap_open(void);
void *heap_used(size_t *size); /* start, and bytes handed out so far */

/* ---- explore_races.c --------------------------------------------------------------------- */

void races_open(void);
bool ops_commute(const struct op *a, const struct op *b);
void races_begin(void); /* of a run */
/* Choice number i of the run, the first being 0, is for the thread and its next operation. fresh: in
 * this run the first time after the choices before it. */
void races_choice(uint32_t i, bool fresh, unsigned thread, uint32_t enabled);
/* The threads that must be tried at that choice, so far. */
uint32_t races_backtrack(uint32_t i);

/* ---- explore_search.c -------------------------------------------------------------------- */

struct search_options {
    uint64_t seed;
    int bound;         /* -2: the scenario's */
    int stale;         /* old values a run may see */
    uint32_t budget;   /* schedules of the exhaustive search; 0: the scenario's */
    uint32_t random;   /* schedules by priorities */
    unsigned depth;    /* changes of priority in each */
    const char *modes; /* letters: e exhaustive, p priorities, w old values, s stopped threads */
    const char *schedule;
    uint32_t step_limit;
    bool first; /* of the command line: stop at the first failure */
    bool verbose;
};
/* True: as it should be. */
bool search_scenario(const struct scenario *s, const struct search_options *o);

#endif
