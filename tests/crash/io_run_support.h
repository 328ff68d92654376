/* io_run_support.h - Runs a workload on a disk whose calls fail by plan, and checks all that must hold then.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Whatever fails, in every run:
 *  - a call that meets a fault reports it or gives right data; what is read meanwhile is right;
 *  - a file whose sync failed is never synced again;
 *  - on the disk of a killed process, and of one whose power is cut, acknowledged writes are there,
 *    and those that failed are not, unless their error said that it does not know;
 *  - if the case says so, the same of a crash at every later change of the disk: while calls fail, while
 *    the database is brought back and while it is closed (dated_support.h);
 *  - with the fault gone, resume (or a first open) brings the database back, and after a close
 *    nothing is still allocated, mapped or open, and no file is left that no manifest names.
 */
#ifndef LOAM_TESTS_CRASH_IO_RUN_SUPPORT_H_
#define LOAM_TESTS_CRASH_IO_RUN_SUPPORT_H_

#include "tests/crash/crash_support.h"
#include "tests/crash/oom_support.h"
#include "tests/crash/oracle_support.h"
#include "tests/crash/tap_support.h"
#include "tests/support/check.h"

#define IO_DIR "/db"

/* One fault, or two: the second plan takes over once the first has fired; its fail_at counts from
 * there. */
struct io_case {
    const char *name; /* of the sweep */
    loam_fault_plan plan, second;
    bool two;
    unsigned swept; /* the disk is crashed at every change from the fault to the close, in so many ways more
                       than with what was synced; 0: it is not */
    uint32_t durability; /* of every session (LOAM_DUR_*) */
    bool strict; /* no call may fail: the faults are legal behaviour of a healthy disk */
    /* What the workload begins with; NULL: an empty disk. */
    loam_vfs *image;
    const struct oracle *known;
    void (*work)(struct oracle_writer *w, const loam_vfs *vfs); /* NULL: io_workload */
};

struct io_result {
    uint64_t calls, of_kind; /* made by the workload: all, and of the plan's kinds */
    bool fired;
};

struct io_totals {
    uint64_t runs, fired, refused, resumed, disks;
};
extern struct io_totals io_totals;

/* Opens the database, in a second try when the first fails. */
bool io_open(struct oracle_writer *w, const loam_vfs *vfs);
/* Twice opened; writes of all kinds, flushes, merges, keyspaces. Leaves the database open when it
 * can be opened. */
void io_workload(struct oracle_writer *w, const loam_vfs *vfs);
/* What is read is right, or an error. */
void io_read_live(struct oracle_writer *w);
struct io_result io_run(const struct io_case *c);
void io_print_totals(const char *name);
/* 1, or LOAM_SCALE: how much of what could be tried is. */
unsigned io_scale(void);

/* ---- a shortage that passes -------------------------------------------------------------------- */

/* A database that lacks something for a while and serves again by itself, without a resume or a reopen. */
struct io_shortage {
    struct oracle o;
    struct oracle_writer w; /* open, with some writes done */
    loam_vfs *disk, *fault;
    loam_fault_plan plan;   /* of a healthy disk */
};

void io_shortage_begin(struct io_shortage *s, bool mapped, unsigned writes);
void io_shortage_set(struct io_shortage *s, const loam_fault_plan *plan);
/* Ends it, waits for service, judges what is there, and frees it all. Returns the micros from the end to
 * service. */
uint64_t io_shortage_end(struct io_shortage *s);

/* ---- judging ----------------------------------------------------------------------------------- */

/* Opens the disk, judges it by the promise and frees it. */
void io_check_disk(const struct oracle *o, const struct oracle_promise *p, loam_vfs *disk);
/* The same of the disk as a kill (variant 0) or a power cut leaves it. */
void io_check_cut(const struct oracle *o, loam_vfs *fault, uint64_t variant);

#endif
