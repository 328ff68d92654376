/* bench_report.c - The lines a benchmark prints, in the form scripts for db_bench parse.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- header ---------------------------------------------------------------------------------- */

/* The value of the first line `name : value` of /proc/cpuinfo; *lines counts such lines. */
static void cpuinfo(const char *name, char *out, size_t cap, int *lines)
{
    FILE *in = fopen("/proc/cpuinfo", "r");
    char line[512];
    out[0] = '\0';
    *lines = 0;
    while (in != NULL && fgets(line, sizeof(line), in) != NULL) {
        size_t n = strlen(name);
        char *colon = strchr(line, ':');
        if (colon == NULL || strncmp(line, name, n) != 0 || (line[n] != '\t' && line[n] != ' ')) {
            continue;
        }
        if ((*lines)++ == 0) {
            colon += 1 + strspn(colon + 1, " ");
            colon[strcspn(colon, "\n")] = '\0';
            snprintf(out, cap, "%s", colon);
        }
    }
    if (in != NULL) {
        fclose(in);
    }
}

static void print_environment(void)
{
    char model[256], cache[64], date[64] = "";
    int cpus, unused;
    time_t now = time(NULL);
    struct tm local;
    localtime_r(&now, &local);
    strftime(date, sizeof(date), "%a %b %e %H:%M:%S %Y", &local);
    cpuinfo("model name", model, sizeof(model), &cpus);
    cpuinfo("cache size", cache, sizeof(cache), &unused);
    fprintf(stderr, "loam:       %s\n", loam_build_info());
    fprintf(stderr, "Date:       %s\n", date);
    if (cpus > 0) {
        fprintf(stderr, "CPU:        %d * %s\n", cpus, model);
        fprintf(stderr, "CPUCache:   %s\n", cache);
    }
}

static void print_sizes(const struct bench_flags *f, size_t key_bytes)
{
    double value = (double)f->value_size;
    if (strcmp(f->value_size_distribution_type, "uniform") == 0) {
        value = (double)(f->value_size_min + f->value_size_max) / 2;
    }
    double packed = strcmp(f->compression_type, "none") == 0 ? 1 : f->compression_ratio;
    double entries = (double)f->num;
    printf("Keys:       %zu bytes each\n", key_bytes);
    printf("Values:     %.0f bytes each (%.0f bytes after compression)\n", value, value * packed);
    printf("Entries:    %" PRId64 "\n", f->num);
    printf("RawSize:    %.1f MB (estimated)\n", ((double)key_bytes + value) * entries / 1048576);
    printf("FileSize:   %.1f MB (estimated)\n",
           ((double)key_bytes + value * packed) * entries / 1048576);
}

void bench_report_header(const struct bench_flags *f, size_t key_bytes)
{
    print_environment();
    if (f->suite[0] == '\0') { /* the groups of a suite have sizes of their own */
        print_sizes(f, key_bytes);
    }
#if defined(__GNUC__) && !defined(__OPTIMIZE__)
    printf("WARNING: Optimization is disabled: benchmarks unnecessarily slow\n");
#endif
#ifndef NDEBUG
    printf("WARNING: Assertions are enabled; benchmarks unnecessarily slow\n");
#endif
    printf("------------------------------------------------\n");
    fflush(stdout);
}

/* ---- rows ------------------------------------------------------------------------------------ */

void bench_report_init(struct bench_report *r, const struct bench_flags *f, bool show_engine)
{
    memset(r, 0, sizeof(*r));
    r->flags = f;
    r->show_engine = show_engine;
}

void bench_report_destroy(struct bench_report *r)
{
    free(r->rows);
    r->rows = NULL;
}

static void latency_from(struct bench_latency *l, const struct histogram *h)
{
    *l = (struct bench_latency){.count = h->count,
                                .mean = histogram_mean(h),
                                .p50 = histogram_quantile(h, 0.5),
                                .p90 = histogram_quantile(h, 0.9),
                                .p99 = histogram_quantile(h, 0.99),
                                .p999 = histogram_quantile(h, 0.999),
                                .p9999 = histogram_quantile(h, 0.9999),
                                .max = (double)h->max};
}

void bench_row_from_stats(struct bench_row *row, const struct bench_stats *s)
{
    row->ops = s->done;
    row->thread_seconds = s->seconds;
    row->seconds = s->finish_ns > s->start_ns ? (double)(s->finish_ns - s->start_ns) * 1e-9 : 0;
    row->bytes = s->bytes;
    row->put_bytes = s->put_bytes;
    row->tried = s->tried;
    row->found = s->found;
    row->hit_ratio = s->hit_ratio;
    row->lru_ratio = s->lru_ratio;
    row->cached_share = s->cached_share;
    row->timed = s->timed;
    struct histogram *all = s->timed ? malloc(sizeof(*all)) : NULL;
    if (all == NULL) {
        row->timed = false;
        return;
    }
    histogram_reset(all);
    for (int op = 0; op < OP_COUNT; op++) {
        if (s->hist[op] != NULL) {
            histogram_merge(all, s->hist[op]);
            latency_from(&row->by_op[op], s->hist[op]);
        }
    }
    latency_from(&row->all, all);
    free(all);
}

void bench_row_add_usage(struct bench_row *row)
{
    const struct bench_usage *before = &row->before;
    struct bench_usage after;
    bench_usage_now(&after);
    row->cpu_seconds = after.cpu_seconds - before->cpu_seconds;
    row->kernel_amp = -1;
    /* Extra threads write too, and their bytes are not in the row. */
    if (after.bytes_known && row->put_bytes > 0 && row->background_ops < 0) {
        uint64_t bytes = after.bytes_written - before->bytes_written;
        row->kernel_amp = (double)bytes / (double)row->put_bytes;
    }
}

double bench_row_cpu_micros(const struct bench_row *row)
{
    return row->cpu_seconds * 1e6 / (double)(row->ops < 1 ? 1 : row->ops);
}

double bench_row_background_ns(const struct bench_row *row)
{
    if (row->put_bytes == 0 || row->background_ops >= 0) {
        return -1; /* the bytes of extra threads are not in the row */
    }
    double seconds = row->cpu_seconds - row->own_cpu_seconds;
    return seconds > 0 ? seconds * 1e9 / (double)row->put_bytes : 0;
}

double bench_row_micros(const struct bench_row *row)
{
    return row->thread_seconds * 1e6 / (double)(row->ops < 1 ? 1 : row->ops);
}

double bench_row_units(const struct bench_row *row)
{
    return row->calibration_ns > 0 ? bench_row_cpu_micros(row) * 1e3 / row->calibration_ns : 0;
}

double bench_row_speed(const struct bench_row *row)
{
    return row->seconds > 0 ? (double)row->ops / row->seconds : 0;
}

double bench_row_mbytes(const struct bench_row *row)
{
    return row->seconds > 0 ? (double)row->bytes / 1048576 / row->seconds : 0;
}

static void print_engine(const struct bench_report *r, const char *engine)
{
    if (r->show_engine) {
        printf("%-8s ", engine);
    }
}

static void keep_row(struct bench_report *r, const struct bench_row *row)
{
    if (r->count == r->cap) {
        size_t cap = r->cap == 0 ? 64 : 2 * r->cap;
        struct bench_row *rows = realloc(r->rows, cap * sizeof(*rows));
        if (rows == NULL) {
            return; /* the line was printed; only the files at the end lack it */
        }
        r->rows = rows;
        r->cap = cap;
    }
    r->rows[r->count++] = *row;
}

void bench_report_row(struct bench_report *r, const struct bench_row *row,
                      const struct bench_stats *s)
{
    char rate[32] = "";
    if (row->bytes > 0) {
        snprintf(rate, sizeof(rate), "%6.1f MB/s%s", bench_row_mbytes(row),
                 row->message[0] != '\0' ? " " : "");
    }
    print_engine(r, row->engine);
    printf("%-12s : %11.3f micros/op %ld ops/sec %.3f seconds %" PRIu64 " operations;%s%s%s\n",
           row->name, bench_row_micros(row), (long)bench_row_speed(row), row->seconds, row->ops,
           rate[0] != '\0' || row->message[0] != '\0' ? " " : "", rate, row->message);
    for (int op = 0; s != NULL && r->flags->histogram && op < OP_COUNT; op++) {
        if (s->hist[op] != NULL) {
            printf("Microseconds per %s:\n", bench_op_names[op]);
            histogram_print_micros(s->hist[op], stdout);
            printf("\n");
        }
    }
    fflush(stdout);
    keep_row(r, row);
}

void bench_report_skip(struct bench_report *r, const char *engine, const char *name,
                       const char *why)
{
    print_engine(r, engine);
    printf("%-12s : skipped (%s)\n", name, why);
    fflush(stdout);
}

/* ---- repeated runs --------------------------------------------------------------------------- */

struct spread {
    double mean, margin, median; /* margin: half of the 95 % confidence interval */
};

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static struct spread spread_of(double *values, size_t n)
{
    struct spread s = {0, 0, 0};
    double squares = 0;
    for (size_t i = 0; i < n; i++) {
        s.mean += values[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        squares += (values[i] - s.mean) * (values[i] - s.mean);
    }
    if (n > 1) {
        s.margin = 1.959964 * sqrt(squares / (double)(n - 1)) / sqrt((double)n);
    }
    qsort(values, n, sizeof(*values), compare_double);
    s.median = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
    return s;
}

static void print_repeats(const struct bench_report *r, const char *engine, const char *name,
                          size_t runs, struct spread ops, struct spread mb)
{
    print_engine(r, engine);
    if (r->flags->confidence_interval_only) {
        printf("%s [CI95 %zu runs] : (%.0f, %.0f) ops/sec; (%.1f, %.1f) MB/sec\n", name, runs,
               ops.mean - ops.margin, ops.mean + ops.margin, mb.mean - mb.margin,
               mb.mean + mb.margin);
        return;
    }
    if (mb.mean > 0) {
        printf(
            "%s [AVG    %zu runs] : %.0f (\xC2\xB1 %.0f) ops/sec; %6.1f (\xC2\xB1 %.1f) MB/sec\n",
            name, runs, ops.mean, ops.margin, mb.mean, mb.margin);
        print_engine(r, engine);
        printf("%s [MEDIAN %zu runs] : %.0f ops/sec; %6.1f MB/sec\n", name, runs, ops.median,
               mb.median);
        return;
    }
    printf("%s [AVG    %zu runs] : %.0f (\xC2\xB1 %.0f) ops/sec\n", name, runs, ops.mean,
           ops.margin);
    print_engine(r, engine);
    printf("%s [MEDIAN %zu runs] : %.0f ops/sec\n", name, runs, ops.median);
}

void bench_report_repeats(struct bench_report *r, const char *engine, const char *name, size_t runs)
{
    double *speed = calloc(2 * runs, sizeof(*speed)), *mb = speed + runs;
    size_t n = 0;
    for (size_t i = r->count; speed != NULL && i > 0 && n < runs; i--) {
        const struct bench_row *row = &r->rows[i - 1];
        if (row->engine == engine && strcmp(row->name, name) == 0) {
            speed[n] = bench_row_speed(row);
            mb[n++] = bench_row_mbytes(row);
        }
    }
    if (n > 1) {
        print_repeats(r, engine, name, n, spread_of(speed, n), spread_of(mb, n));
        fflush(stdout);
    }
    free(speed);
}

/* ---- other forms ----------------------------------------------------------------------------- */

void bench_report_ycsb(const struct bench_row *row)
{
    static const struct {
        enum bench_op op;
        const char *name;
    } kinds[] = {{OP_READ, "READ"},
                 {OP_UPDATE, "UPDATE"},
                 {OP_INSERT, "INSERT"},
                 {OP_SCAN, "SCAN"},
                 {OP_MODIFY, "READ-MODIFY-WRITE"}};
    printf("[OVERALL], RunTime(ms), %.0f\n", row->seconds * 1e3);
    printf("[OVERALL], Throughput(ops/sec), %.3f\n", bench_row_speed(row));
    for (size_t i = 0; row->timed && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const struct bench_latency *l = &row->by_op[kinds[i].op];
        if (l->count > 0) {
            printf("[%s], Operations, %" PRIu64 "\n", kinds[i].name, l->count);
            printf("[%s], AverageLatency(us), %.3f\n", kinds[i].name, l->mean * 1e-3);
            printf("[%s], 50thPercentileLatency(us), %.3f\n", kinds[i].name, l->p50 * 1e-3);
            printf("[%s], 90thPercentileLatency(us), %.3f\n", kinds[i].name, l->p90 * 1e-3);
            printf("[%s], 99thPercentileLatency(us), %.3f\n", kinds[i].name, l->p99 * 1e-3);
            printf("[%s], MaxLatency(us), %.3f\n", kinds[i].name, l->max * 1e-3);
            printf("[%s], Return=OK, %" PRIu64 "\n", kinds[i].name, l->count);
        }
    }
    fflush(stdout);
}
