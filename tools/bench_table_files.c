/* bench_table_files.c - The table of a comparison as CSV and as JSON.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/bench_table.h"

static int file_error(const char *path)
{
    fprintf(stderr, "loam-bench: %s: %s\n", path, strerror(errno));
    return -1;
}

/* Latencies in microseconds, or empty fields. */
static void latency_csv(const struct bench_entry *e, FILE *out)
{
    if (e->timed) {
        fprintf(out, "%.3f,%.3f,%.3f,%.3f,", e->p50_ns * 1e-3, e->p99_ns * 1e-3, e->p999_ns * 1e-3,
                e->longest_ns * 1e-3);
    } else {
        fputs(",,,,", out);
    }
}

/* A further field: a number, or nothing where it is negative. */
static void known_csv(double value, FILE *out)
{
    fputc(',', out);
    if (value >= 0) {
        fprintf(out, "%.4f", value);
    }
}

static void entry_csv(const struct bench_entry *e, FILE *out)
{
    fprintf(out, "%s,%s,%s,%zu,%.0f,%.4f,", e->group->name, e->label, e->engine->name, e->runs,
            e->speed, e->spread);
    latency_csv(e, out);
    if (e->amp >= 0) {
        fprintf(out, "%.3f", e->amp);
    }
    fprintf(out, ",%.0f,%.0f,%.3f,", e->disk_bytes, e->peak_rss, e->cpu_micros);
    if (e->background >= 0) {
        fprintf(out, "%.0f", e->background);
    }
    if (e->than == NULL) {
        fputs(",,,,", out);
    } else if (e->ratio.bounded) {
        fprintf(out, ",%.4f,%.4f,%.4f,%s", e->ratio.mid, e->ratio.lo, e->ratio.hi, e->than->name);
    } else {
        fprintf(out, ",%.4f,,,%s", e->ratio.mid, e->than->name);
    }
    if (e->cached_share > 0) {
        fprintf(out, ",%.5f,%.5f,", e->hit_ratio, e->lru_ratio);
    } else {
        fputs(",,,", out);
    }
    if (e->worst_second >= 0) {
        fprintf(out, "%.4f", e->worst_second);
    }
    fputc(',', out);
    if (e->units > 0) {
        fprintf(out, "%.4f", e->units);
    }
    known_csv(e->background_ns, out);
    known_csv(e->settle_seconds, out);
    known_csv(e->space, out);
    known_csv(e->bar > 0 ? e->bar : -1, out);
    known_csv(e->background_bar > 0 ? e->background_bar : -1, out);
    fputc('\n', out);
}

int bench_table_write_csv(const struct bench_table *t, const char *path)
{
    FILE *out = fopen(path, "w");
    if (out == NULL) {
        return file_error(path);
    }
    fputs("group,row,engine,runs,ops_per_sec,spread,p50_us,p99_us,p99.9_us,longest_us,"
          "bytes_written_per_user_byte,disk_bytes,peak_rss_bytes,cpu_micros_per_op,"
          "background_ops_per_sec,ratio,ratio_lo,ratio_hi,ratio_to,cache_hit_ratio,lru_hit_ratio,"
          "worst_second_of_median,units_per_op,background_cpu_ns_per_user_byte,settle_seconds,"
          "disk_bytes_per_live_byte,bar,background_bar\n",
          out);
    for (size_t i = 0; i < t->count; i++) {
        entry_csv(&t->entries[i], out);
    }
    return fclose(out) == 0 ? 0 : file_error(path);
}

static json_t *ratio_json(const struct bench_entry *e)
{
    json_t *o = json_pack("{s:s, s:f}", "to", e->than->name, "times", e->ratio.mid);
    if (e->ratio.bounded) {
        json_object_set_new(o, "lo", json_real(e->ratio.lo));
        json_object_set_new(o, "hi", json_real(e->ratio.hi));
    }
    return o;
}

static json_t *entry_json(const struct bench_entry *e)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:I, s:f, s:f, s:f, s:f, s:f}", "group", e->group->name,
                          "row", e->label, "engine", e->engine->name, "runs", (json_int_t)e->runs,
                          "ops_per_sec", e->speed, "spread", e->spread, "disk_bytes", e->disk_bytes,
                          "peak_rss_bytes", e->peak_rss, "cpu_micros_per_op", e->cpu_micros);
    if (e->timed) {
        json_object_set_new(o, "p50_us", json_real(e->p50_ns * 1e-3));
        json_object_set_new(o, "p99_us", json_real(e->p99_ns * 1e-3));
        json_object_set_new(o, "p99.9_us", json_real(e->p999_ns * 1e-3));
        json_object_set_new(o, "longest_us", json_real(e->longest_ns * 1e-3));
    }
    if (e->amp >= 0) {
        json_object_set_new(o, "bytes_written_per_user_byte", json_real(e->amp));
    }
    if (e->background >= 0) {
        json_object_set_new(o, "background_ops_per_sec", json_real(e->background));
    }
    if (e->units > 0) {
        json_object_set_new(o, "units_per_op", json_real(e->units));
    }
    if (e->worst_second >= 0) {
        json_object_set_new(o, "worst_second_of_median", json_real(e->worst_second));
    }
    if (e->cached_share > 0) {
        json_object_set_new(o, "cache_hit_ratio", json_real(e->hit_ratio));
        json_object_set_new(o, "lru_hit_ratio", json_real(e->lru_ratio));
        json_object_set_new(o, "cached_share", json_real(e->cached_share));
    }
    if (e->background_ns >= 0) {
        json_object_set_new(o, "background_cpu_ns_per_user_byte", json_real(e->background_ns));
    }
    if (e->settle_seconds >= 0) {
        json_object_set_new(o, "settle_seconds", json_real(e->settle_seconds));
    }
    if (e->space >= 0) {
        json_object_set_new(o, "disk_bytes_per_live_byte", json_real(e->space));
    }
    if (e->note[0] != '\0') {
        json_object_set_new(o, "note", json_string(e->note));
    }
    if (e->than != NULL) {
        json_object_set_new(o, "ratio", ratio_json(e));
    }
    if (e->bar > 0) {
        json_object_set_new(o, "bar", json_real(e->bar));
    }
    if (e->background_bar > 0) {
        json_object_set_new(o, "background_bar", json_real(e->background_bar));
    }
    return o;
}

static json_t *engines_json(struct bench_store *const *stores, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        const struct bench_engine *e = stores[i]->engine;
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:b}", "name", e->name, "version",
                                              e->version(), "note", e->note, "unsafe", e->unsafe));
    }
    return list;
}

static json_t *samples_json(const struct bench_samples *samples, const struct bench_suite *suite)
{
    json_t *list = json_array();
    for (size_t i = 0; i < samples->count; i++) {
        const struct bench_sample *s = &samples->all[i];
        json_t *o = bench_row_json(&s->row);
        json_object_set_new(o, "group", json_string(suite->groups[s->group].name));
        json_object_set_new(o, "round", json_integer(s->round));
        json_array_append_new(list, o);
    }
    return list;
}

int bench_table_write_json(const struct bench_table *t, const struct bench_suite *suite,
                           const struct bench_samples *samples, const struct bench_flags *base,
                           struct bench_store *const *stores, size_t n, const char *path)
{
    char date[32];
    bench_utc_date(date, sizeof(date));
    json_t *table = json_array();
    for (size_t i = 0; i < t->count; i++) {
        json_array_append_new(table, entry_json(&t->entries[i]));
    }
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:I, s:o, s:o, s:o, s:o}", "suite", suite->name, "loam", loam_build_info(),
        "date", date, "rounds", (json_int_t)samples->rounds, "engines", engines_json(stores, n),
        "flags", bench_flags_json(base), "table", table, "runs", samples_json(samples, suite));
    int rc =
        root == NULL ? -1 : json_dump_file(root, path, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(root);
    return rc == 0 ? 0 : file_error(path);
}
