/* explore.h - A checker of schedules: what a scenario is, and what it may call.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A scenario is two to four threads that run a few operations of the real modules, and checks. The
 * modules are compiled once more with -DLOAM_MC: each atomic operation, lock and wait of theirs
 * calls the explorer, which runs all threads as coroutines on one thread and decides at each such
 * point who goes on. After a run the world (static data, heap, thread-locals) is put back and the
 * next schedule is tried. What is looked for in every run:
 *
 *     EXPECT() of the scenario, assert() of the modules, a crash
 *     no thread can go on; or one goes on for ever (a step limit)
 *     a plain access that races with another by the happens-before of C11, orders as written
 *     use of freed memory (which is handed out again at once: stale pointers meet new owners)
 *     waits for a thread that was stopped for ever, where an operation promises to be lock-free
 *
 * Words: a schedule is printed and read back as a string: "a12b3~1b" lets thread a take 12 steps,
 * b 3, the last of which reads a value one store old, and so on. See explore_search.c for the ways
 * schedules are chosen, explore_order.c for the memory model, README.md for how to run it.
 */
#ifndef LOAM_TESTS_EXPLORE_EXPLORE_H_
#define LOAM_TESTS_EXPLORE_EXPLORE_H_

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>

#define EXPLORE_THREADS 4

enum scenario_flags {
    LOCK_FREE = 1, /* with a thread stopped for ever at any step, the others finish */
    BROKEN = 2,    /* a model of a known defect: the explorer must find it */
    NO_LAPSE = 4,  /* a wait that ends by its timeout alone is a lost wake-up */
    EXITS = 8      /* threads run their exit hooks, as part of the schedule */
};

struct scenario {
    const char *name;
    const char *says;
    unsigned threads;
    unsigned flags;
    void (*setup)(void);              /* once, before anything; its effects are part of the world */
    void (*prepare)(unsigned thread); /* on the thread, before its schedule begins; may be NULL */
    void (*body)(unsigned thread);
    void (*check)(void); /* after all threads have ended; may be NULL */
    int bound;           /* preemptions in the exhaustive search; -1: any number */
    uint32_t budget;     /* schedules of the exhaustive search; 0: the default */
    struct scenario *next;
};

void scenario_register(struct scenario *s);

#define SCENARIO(id, ...)                                                                          \
    static struct scenario scenario_##id = {.name = #id, __VA_ARGS__};                             \
    __attribute__((constructor)) static void scenario_register_##id(void)                          \
    {                                                                                              \
        scenario_register(&scenario_##id);                                                         \
    }

/* Ends the run as failed. */
_Noreturn void explore_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Runs the calling thread's exit hooks; it may go on as a new thread. */
void thread_exits(void);

#define EXPECT(cond)                                                                               \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            explore_fail("%s:%d: EXPECT(%s)", __FILE__, __LINE__, #cond);                          \
        }                                                                                          \
    } while (0)

#define EXPECT_EQ(a, b)                                                                            \
    do {                                                                                           \
        int64_t expect_a_ = (int64_t)(a), expect_b_ = (int64_t)(b);                                \
        if (expect_a_ != expect_b_) {                                                              \
            explore_fail("%s:%d: %s is %" PRId64 ", not %" PRId64, __FILE__, __LINE__, #a,         \
                         expect_a_, expect_b_);                                                    \
        }                                                                                          \
    } while (0)

/* Memory in the world, never freed; zeroed. For setups. */
void *explore_memory(uint64_t size);
/* Marks `size` bytes as freed: any later access fails the run. For finalisers of scenarios. */
void explore_free(void *p, uint64_t size);

#endif
