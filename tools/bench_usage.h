/* bench_usage.h - What this process takes: processor time, memory, bytes written, room on disk.
 * SPDX-License-Identifier: Apache-2.0
 *
 * All by the kernel's own count, so that every engine is measured by the same ruler.
 */
#ifndef LOAM_TOOLS_BENCH_USAGE_H_
#define LOAM_TOOLS_BENCH_USAGE_H_

#include <stdbool.h>
#include <stdint.h>

struct bench_usage {
    double cpu_seconds; /* of all threads, in user code and in the kernel */
    /* Pages made dirty in files, times their size: what write() and stores into mapped files make
     * the disk write, unless the file is removed first. */
    uint64_t bytes_written;
    bool bytes_known; /* the kernel keeps count */
};

void bench_usage_now(struct bench_usage *u);

/* Begins to measure memory anew, and the most used since (bytes). */
void bench_rss_reset(void);
uint64_t bench_rss_peak(void);

/* Memory held (bytes) and threads alive at the moment. */
uint64_t bench_rss_now(void);
unsigned bench_threads_now(void);

/* Blocks taken by the files under a directory, in bytes; 0 when there is none. */
uint64_t bench_disk_bytes(const char *dir);

#endif
