/* bench_table_print.c - The table of a comparison as text.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/bench_bars.h"
#include "tools/bench_table.h"

static void print_engines(const struct bench_table *t, FILE *out)
{
    const struct bench_engine *seen[16];
    size_t n = 0;
    for (size_t i = 0; i < t->count && n < 16; i++) {
        const struct bench_engine *e = t->entries[i].engine;
        bool again = false;
        for (size_t j = 0; j < n; j++) {
            again |= seen[j] == e;
        }
        if (!again) {
            seen[n++] = e;
            fprintf(out, "%-8s%s %s: %s\n", e->name, e->unsafe ? "!" : " ", e->version(), e->note);
        }
    }
}

static void print_group(const struct bench_suite_group *g, const struct bench_flags *base,
                        unsigned rounds, FILE *out)
{
    const struct bench_suite_row none = {.benchmark = ""};
    struct bench_flags f;
    bench_suite_row_flags(g, &none, base, &f);
    fprintf(out,
            "\n%s%s%" PRId64 " keys of %" PRId64 " bytes, values of %" PRId64
            ", memtable %.1f MiB, cache %.1f MiB, compression %s; ",
            g->name, g->name[0] != '\0' ? ": " : "", f.num, f.key_size, f.value_size,
            (double)f.write_buffer_size / 1048576, (double)f.cache_size / 1048576,
            f.compression_type);
    if (rounds < base->rounds) {
        fprintf(out, "%u of %" PRId64 " rounds: no time for more\n", rounds, base->rounds);
    } else {
        fprintf(out, "%u round%s\n", rounds, rounds == 1 ? "" : "s");
    }
    fprintf(out, "%-18s %-8s %10s %7s %9s %9s %9s %10s %6s %8s %7s %8s %7s %8s  %s\n", "row",
            "engine", "kops/s", "spread", "p50 us", "p99 us", "p99.9 us", "longest ms", "B/B",
            "disk MiB", "RSS MiB", "CPU us", "bg ns/B", "settle s", "first / this [95 %], bar");
}

static void print_latency(const struct bench_entry *e, FILE *out)
{
    if (e->timed) {
        fprintf(out, " %9.2f %9.2f %9.2f %10.2f", e->p50_ns * 1e-3, e->p99_ns * 1e-3,
                e->p999_ns * 1e-3, e->longest_ns * 1e-6);
    } else {
        fprintf(out, " %9s %9s %9s %10s", "-", "-", "-", "-");
    }
}

/* A number, or a dash where it is negative: nobody knows. */
static void print_known(double value, int width, int digits, FILE *out)
{
    if (value >= 0) {
        fprintf(out, " %*.*f", width, digits, value);
    } else {
        fprintf(out, " %*s", width, "-");
    }
}

static void print_ratio(const struct bench_entry *e, const struct bench_entry *mine, FILE *out)
{
    bool first = e == mine;
    if (e->than != NULL) {
        fprintf(out, "  %.2fx", e->ratio.mid);
        if (e->ratio.bounded) {
            fprintf(out, " [%.2f, %.2f]", e->ratio.lo, e->ratio.hi);
        }
        if (first) {
            fprintf(out, " of %s%s", e->than->name, e->than->unsafe ? "!" : "");
        } else if (e->bar > 0) {
            fprintf(out, "  bar %.2fx %s", e->bar, bench_bar_met(e, mine) ? "met" : "MISSED");
        }
    }
}

/* mine: of the first engine, on the same row. */
static void print_entry(const struct bench_entry *e, const struct bench_entry *mine, FILE *out)
{
    char name[16];
    bool first = e == mine;
    snprintf(name, sizeof(name), "%s%s", e->engine->name, e->engine->unsafe ? "!" : "");
    fprintf(out, "%-18s %-8s %10.1f %6.1f%%", first ? e->label : "", name, e->speed * 1e-3,
            e->spread * 100);
    print_latency(e, out);
    print_known(e->amp, 6, 2, out);
    fprintf(out, " %8.1f %7.0f %8.2f", e->disk_bytes / 1048576, e->peak_rss / 1048576,
            e->cpu_micros);
    print_known(e->background_ns, 7, 2, out);
    print_known(e->settle_seconds, 8, 2, out);
    print_ratio(e, mine, out);
    if (e->space >= 0) {
        fprintf(out, "  disk %.2f of live data", e->space);
    }
    if (e->note[0] != '\0') {
        fprintf(out, "  %s", e->note);
    }
    if (e->background >= 0) {
        fprintf(out, "  beside %.1f kops/s of writes", e->background * 1e-3);
    }
    if (e->worst_second >= 0) {
        fprintf(out, "  worst second %.2f of the median", e->worst_second);
    }
    if (e->units > 0) {
        fprintf(out, "  %.3f units of CPU", e->units);
    }
    if (e->units > 0 && e->baseline > 0) {
        fprintf(out, ", %.2f of the baseline", e->units / e->baseline);
    }
    if (e->cached_share > 0) {
        fprintf(out, "  hits %.4f, LRU %.4f; %.1f %% cached", e->hit_ratio, e->lru_ratio,
                e->cached_share * 100);
    }
    fputc('\n', out);
}

void bench_table_print(const struct bench_table *t, const struct bench_flags *base,
                       const struct bench_samples *samples, FILE *out)
{
    fputc('\n', out);
    print_engines(t, out);
    bool unsafe = false;
    const struct bench_entry *mine = NULL;
    for (size_t i = 0; i < t->count; i++) {
        const struct bench_entry *e = &t->entries[i], *last = i > 0 ? e - 1 : NULL;
        if (last == NULL || last->group != e->group) {
            print_group(e->group, base, samples->rounds, out);
        }
        bool first = last == NULL || last->group != e->group || last->label != e->label;
        mine = first ? e : mine;
        print_entry(e, mine, out);
        unsafe |= e->engine->unsafe;
    }
    fprintf(out,
            "\nMedians of all rounds; longest operation and RSS are the worst of them. B/B: bytes "
            "written to files\nper user byte, by the kernel's count, and CPU per operation: both "
            "with the background work that the\nrow caused; bg: the part of the engine's own "
            "threads, per user byte; settle: until all of it was done.\nFirst / this: how many "
            "times faster the first engine is, by pairs of one round; on its own line, than\nthe "
            "fastest other.%s\n",
            unsafe ? " !: a power cut may damage all of the file." : "");
    fflush(out);
}
