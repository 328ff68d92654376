/* micro.h - Rows of loam-micro: one structure or a database, one workload, some threads, a time.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_MICRO_H_
#define LOAM_TOOLS_MICRO_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct micro_row;

/* What a row is given, and what it tells. */
struct micro_run {
    const struct micro_row *row;
    uint64_t num; /* operations in all threads together, or entries, as the row says */
    unsigned threads;
    uint64_t seed;
    void *shared; /* of set_up, for the threads */
    double seconds;
    double cpu_seconds; /* processor time of all threads */
    uint64_t done;      /* operations */
    char note[160];     /* printed behind the line */
};

typedef void micro_fn(struct micro_run *r);
typedef void micro_body(struct micro_run *r, unsigned index); /* what one thread does */

struct micro_row {
    const char *name;
    const char *what; /* for --list */
    double bar_nanos; /* processor time per operation; 0: none */
    uint64_t num;     /* unless --num is given */
    unsigned threads;
    micro_fn *run;
    /* What rows of one `run` differ in; as it says. */
    micro_body *body;
    uint64_t size;
};

/* Runs fn(r, index) on r->threads threads that start together; r->seconds is the longest of their
 * times, measured inside each, r->cpu_seconds the sum of their processor times. */
void micro_threads(struct micro_run *r, micro_body *fn);
/* Between the two, the calling thread's time counts; for rows that set up inside fn. */
void micro_start(void);
void micro_stop(void);

/* Kept by the compiler. */
static inline void micro_use(const volatile void *p)
{
    __asm__ volatile("" : : "r"(p) : "memory");
}

/* The operations of thread `index`: num / threads, the rest to the first. */
static inline uint64_t micro_share(const struct micro_run *r, unsigned index)
{
    return r->num / r->threads + (index == 0 ? r->num % r->threads : 0);
}

/* Ends the program with a sentence. */
__attribute__((noreturn, format(printf, 1, 2))) void micro_die(const char *fmt, ...);

extern const struct micro_row micro_arena_rows[], micro_slotmap_rows[], micro_slab_rows[],
    micro_ring_rows[], micro_memtable_rows[], micro_db_rows[];

#endif
