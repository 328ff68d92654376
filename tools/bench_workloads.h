/* bench_workloads.h - The bodies behind the names of benchmarks.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A body runs on each thread of a job: it asks bench_more() before each operation and reports each
 * with bench_stats_done(). An admin function does a whole benchmark from the main thread.
 */
#ifndef LOAM_TOOLS_BENCH_WORKLOADS_H_
#define LOAM_TOOLS_BENCH_WORKLOADS_H_

#include "tools/bench_run.h"

/* bench_fill.c: writes */
void bench_fill_sequential(struct bench_thread *t);
void bench_fill_random(struct bench_thread *t);
void bench_fill_unique(struct bench_thread *t); /* each key once, in random order */
void bench_delete_sequential(struct bench_thread *t);
void bench_delete_random(struct bench_thread *t);
void bench_crash_write(struct bench_thread *t);          /* as unique, then SIGKILL */
uint64_t bench_fill_seed(const struct bench_context *c); /* of the order of bench_fill_unique */

/* bench_read.c: gets and scans */
void bench_read_random(struct bench_thread *t);
void bench_read_missing(struct bench_thread *t);
void bench_read_hot(struct bench_thread *t);
void bench_read_many(struct bench_thread *t);
void bench_read_forward(struct bench_thread *t);
void bench_read_reverse(struct bench_thread *t);
void bench_seek_random(struct bench_thread *t);
void bench_seek_ordered(struct bench_thread *t);
void bench_seek_deleted(struct bench_thread *t);
void bench_iter_new(struct bench_thread *t);

/* bench_mixed.c: reads and writes at once */
void bench_read_while_writing(struct bench_thread *t);
void bench_read_while_scanning(struct bench_thread *t);
void bench_seek_while_writing(struct bench_thread *t);
void bench_read_write(struct bench_thread *t);
void bench_update(struct bench_thread *t);
void bench_read_write_message(const struct bench_stats *s, char *out, size_t cap);
void bench_update_message(const struct bench_stats *s, char *out, size_t cap);

/* bench_ycsb.c */
void bench_ycsb_a(struct bench_thread *t);
void bench_ycsb_b(struct bench_thread *t);
void bench_ycsb_c(struct bench_thread *t);
void bench_ycsb_d(struct bench_thread *t);
void bench_ycsb_e(struct bench_thread *t);
void bench_ycsb_f(struct bench_thread *t);

/* bench_cache.c: the block cache against a simulated one */
void bench_cache_zipf(struct bench_thread *t);
void bench_cache_uniform(struct bench_thread *t);
void bench_cache_scan(struct bench_thread *t);
void bench_cache_shift(struct bench_thread *t);
void bench_cache_message(const struct bench_stats *s, char *out, size_t cap);

/* bench_micro.c: parts measured alone, without a database */
void bench_micro_xxh3(struct bench_thread *t);
void bench_micro_pauses(struct bench_thread *t);
void bench_micro_lz4_pack(struct bench_thread *t);
void bench_micro_lz4_unpack(struct bench_thread *t);
void bench_micro_lz4_message(const struct bench_stats *s, char *out, size_t cap);

/* bench_admin.c: opening, keeping house, numbers */
void bench_open_close(struct bench_thread *t);
void bench_open_new(struct bench_thread *t); /* an empty database is made each time */
void bench_open_message(const struct bench_stats *s, char *out, size_t cap);
void bench_flush(struct bench_thread *t);
void bench_compact(struct bench_thread *t);
void bench_wait_idle(struct bench_thread *t);
void bench_verify(struct bench_thread *t);
int bench_recover(struct bench_context *c, struct bench_store *s);
int bench_memtable(struct bench_context *c, struct bench_store *s);
int bench_print_stats(struct bench_context *c, struct bench_store *s);
int bench_print_levels(struct bench_context *c, struct bench_store *s);
int bench_print_memory(struct bench_context *c, struct bench_store *s);

#endif
