/* bench_report_files.c - The rows of a run as JSON and as CSV.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tools/bench_report.h"

static int file_error(const char *path)
{
    fprintf(stderr, "loam-bench: %s: %s\n", path, strerror(errno));
    return -1;
}

static json_t *latency_json(const struct bench_latency *l)
{
    return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "count", (json_int_t)l->count,
                     "mean_us", l->mean * 1e-3, "p50_us", l->p50 * 1e-3, "p90_us", l->p90 * 1e-3,
                     "p99_us", l->p99 * 1e-3, "p99.9_us", l->p999 * 1e-3, "p99.99_us",
                     l->p9999 * 1e-3, "max_us", l->max * 1e-3);
}

json_t *bench_row_json(const struct bench_row *row)
{
    json_t *o = json_pack(
        "{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:I, s:I}", "name", row->name, "engine",
        row->engine, "threads", (json_int_t)row->threads, "ops", (json_int_t)row->ops, "seconds",
        row->seconds, "micros_per_op", bench_row_micros(row), "ops_per_sec", bench_row_speed(row),
        "mb_per_sec", bench_row_mbytes(row), "bytes", (json_int_t)row->bytes, "user_bytes_written",
        (json_int_t)row->put_bytes, "peak_rss_bytes", (json_int_t)row->peak_rss);
    if (row->tried > 0) {
        json_object_set_new(o, "reads", json_integer((json_int_t)row->tried));
        json_object_set_new(o, "found", json_integer((json_int_t)row->found));
    }
    if (row->seconds_seen.count > 0) {
        json_object_set_new(
            o, "by_second",
            json_pack("{s:I, s:f, s:f}", "count", (json_int_t)row->seconds_seen.count, "worst_ops",
                      row->seconds_seen.worst, "median_ops", row->seconds_seen.median));
    }
    if (row->calibration_ns > 0) {
        json_object_set_new(o, "calibration_ns", json_real(row->calibration_ns));
        json_object_set_new(o, "units_per_op", json_real(bench_row_units(row)));
    }
    if (row->cached_share > 0) {
        json_object_set_new(o, "cache_hit_ratio", json_real(row->hit_ratio));
        json_object_set_new(o, "lru_hit_ratio", json_real(row->lru_ratio));
        json_object_set_new(o, "cached_share", json_real(row->cached_share));
    }
    if (row->background_ops >= 0) {
        json_object_set_new(o, "background_ops_per_sec", json_real(row->background_ops));
    }
    json_object_set_new(o, "cpu_micros_per_op", json_real(bench_row_cpu_micros(row)));
    if (bench_row_background_ns(row) >= 0) {
        json_object_set_new(o, "background_cpu_ns_per_user_byte",
                            json_real(bench_row_background_ns(row)));
    }
    if (row->settle_seconds >= 0) {
        json_object_set_new(o, "settle_seconds", json_real(row->settle_seconds));
    }
    if (row->live_bytes > 0) {
        json_object_set_new(o, "live_bytes", json_integer((json_int_t)row->live_bytes));
    }
    if (row->kernel_amp >= 0) {
        json_object_set_new(o, "kernel_bytes_written_per_user_byte", json_real(row->kernel_amp));
    }
    if (row->disk_bytes > 0) {
        json_object_set_new(o, "disk_bytes", json_integer((json_int_t)row->disk_bytes));
    }
    if (row->write_amp >= 0) {
        json_object_set_new(o, "bytes_written_per_user_byte", json_real(row->write_amp));
    }
    if (row->timed) {
        json_object_set_new(o, "latency", latency_json(&row->all));
        json_t *kinds = json_object();
        for (int op = 0; op < OP_COUNT; op++) {
            if (row->by_op[op].count > 0) {
                json_object_set_new(kinds, bench_op_names[op], latency_json(&row->by_op[op]));
            }
        }
        json_object_set_new(o, "latency_by_op", kinds);
    }
    return o;
}

json_t *bench_flags_json(const struct bench_flags *f)
{
    json_t *o = json_object();
#define JSON_BOOL(value)  json_boolean(value)
#define JSON_COUNT(value) json_integer(value)
#define JSON_SIZE(value)  json_integer(value)
#define JSON_REAL(value)  json_real(value)
#define JSON_TEXT(value)  json_string(value)
#define GROUP(title)
#define FLAG(type, name, def, help) json_object_set_new(o, #name, JSON_##type(f->name));
    BENCH_FLAGS_MAP(GROUP, FLAG)
#undef FLAG
#undef GROUP
    return o;
}

void bench_utc_date(char *out, size_t cap)
{
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    if (strftime(out, cap, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0) {
        out[0] = '\0';
    }
}

int bench_report_write_json(const struct bench_report *r, const char *path)
{
    char date[32];
    bench_utc_date(date, sizeof(date));
    json_t *rows = json_array();
    for (size_t i = 0; i < r->count; i++) {
        json_array_append_new(rows, bench_row_json(&r->rows[i]));
    }
    json_t *root = json_pack("{s:s, s:s, s:o, s:o}", "loam", loam_build_info(), "date", date,
                             "flags", bench_flags_json(r->flags), "rows", rows);
    int rc =
        root == NULL ? -1 : json_dump_file(root, path, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(root);
    return rc == 0 ? 0 : file_error(path);
}

static void row_csv(const struct bench_row *row, FILE *out)
{
    fprintf(out, "%s,%s,%" PRIu64 ",%" PRIu64 ",%.6f,%.3f,%.0f,%.1f,", row->name, row->engine,
            row->threads, row->ops, row->seconds, bench_row_micros(row), bench_row_speed(row),
            bench_row_mbytes(row));
    if (row->timed) {
        fprintf(out, "%.3f,%.3f,%.3f,%.3f,%.3f,", row->all.p50 * 1e-3, row->all.p99 * 1e-3,
                row->all.p999 * 1e-3, row->all.p9999 * 1e-3, row->all.max * 1e-3);
    } else {
        fprintf(out, ",,,,,");
    }
    if (row->write_amp >= 0) {
        fprintf(out, "%.3f", row->write_amp);
    }
    fprintf(out, ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",", row->peak_rss, row->tried, row->found);
    if (row->background_ops >= 0) {
        fprintf(out, "%.0f", row->background_ops);
    }
    fputc('\n', out);
}

int bench_report_write_csv(const struct bench_report *r, const char *path)
{
    FILE *out = fopen(path, "w");
    if (out == NULL) {
        return file_error(path);
    }
    fprintf(out, "name,engine,threads,ops,seconds,micros_per_op,ops_per_sec,mb_per_sec,p50_us,"
                 "p99_us,p99.9_us,p99.99_us,max_us,bytes_written_per_user_byte,peak_rss_bytes,"
                 "reads,found,background_ops_per_sec\n");
    for (size_t i = 0; i < r->count; i++) {
        row_csv(&r->rows[i], out);
    }
    return fclose(out) == 0 ? 0 : file_error(path);
}
