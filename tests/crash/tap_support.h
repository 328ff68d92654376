/* tap_support.h - A vfs that takes pictures of the disk between the calls of a workload.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Stands before a fault vfs. Before each call whose index is due, and where the workload asks, it
 * cuts the power in every variant and keeps the resulting disks with what was promised by then.
 */
#ifndef LOAM_TESTS_CRASH_TAP_SUPPORT_H_
#define LOAM_TESTS_CRASH_TAP_SUPPORT_H_

#include "arena/sync.h"
#include "tests/crash/oracle_support.h"

struct tap_image {
    loam_vfs *disk;
    struct oracle_promise promise;
    struct oracle_promise after_cut; /* what is left of it when power goes before a recovery ends */
    uint64_t index, variant;
};

#define TAP_FAILED 16u

struct tap {
    loam_vfs vfs; /* what the database is opened on */
    loam_vfs *disk, *fault;
    const struct oracle *oracle;
    const loam_fault_plan *second; /* takes over once a fault has fired, its fail_at counted from
                                      there; NULL: no more faults. Set while nothing runs */
    loam_recording *rec; /* of the disk; NULL: none. Set while nothing runs */
    struct mutex mu; /* guards what follows; held while pictures are taken */
    loam_file *failed[TAP_FAILED]; /* open files with a failed sync: another one fails the test */

    uint64_t quiet; /* changes recorded before the call that met the first fault */
    uint64_t calls;
    uint64_t stride, phase; /* calls with index % stride == phase are due; stride 0: none */
    const uint64_t *variants;
    unsigned variant_count;
    bool fixed; /* the promise is not taken from the oracle: of a kill, of a power cut */
    struct oracle_promise promise, after_cut;
    struct tap_image *images; /* Owns: the disks */
    size_t count, cap;
};

/* Wraps a memory disk, which the tap takes over. */
void tap_create(struct tap *t, loam_vfs *disk, const loam_fault_plan *plan,
                const struct oracle *o);
void tap_destroy(struct tap *t);
/* Pictures now, when the index is due. Any thread. */
void tap_cut(void *tap);

/* From now on a failure copies /db of this disk (NULL: nothing) into the directory that LOAM_DUMP
 * names, for a look with `loam dump`. */
void tap_dump_on_failure(const loam_vfs *disk);

#endif
