/* baseline_test.c - Entries find their times in the JSON of an earlier run, and no others'.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_baseline.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench_calibrate.h"

static const struct bench_engine one = {.name = "one"}, two = {.name = "two"};
static const struct bench_suite_group group = {.name = "G"};

static char path[] = "/tmp/loam-baseline-XXXXXX";

static void write_file(const char *text)
{
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

Test(baseline, entries_are_found_by_group_row_and_engine)
{
    struct bench_entry e[] = {
        {.group = &group, .label = "readrandom", .engine = &one, .units = 3},
        {.group = &group, .label = "readrandom", .engine = &two, .units = 3},
        {.group = &group, .label = "readseq", .engine = &one, .units = 3},
    };
    struct bench_table t = {e, 3};
    char *text = NULL;
    size_t size = 0;
    write_file("{\"table\": [{\"group\": \"H\", \"row\": \"readseq\", \"engine\": \"one\", "
               "\"units_per_op\": 9}, {\"group\": \"G\", \"row\": \"readrandom\", \"engine\": "
               "\"one\", \"units_per_op\": 2}, {\"group\": \"G\", \"row\": \"readrandom\", "
               "\"engine\": \"two\"}, 7]}");
    cr_assert_eq(bench_baseline_read(&t, path), 0);
    unlink(path);
    cr_assert(fabs(e[0].baseline - 2) < 1e-9);
    cr_assert(fabs(e[1].baseline) < 1e-9);
    cr_assert(fabs(e[2].baseline) < 1e-9);
    FILE *out = open_memstream(&text, &size);
    bench_baseline_print(&t, out);
    fclose(out);
    cr_assert_str_eq(text, "slower: readrandom takes 1.50 times what it took\n"
                           "1 of 1 rows known from the baseline take over a tenth longer\n");
    free(text);
}

Test(baseline, other_files_are_refused)
{
    struct bench_table t = {NULL, 0};
    cr_assert_eq(bench_baseline_read(&t, "/nonexistent"), -1);
    write_file("{\"rows\": []}");
    cr_assert_eq(bench_baseline_read(&t, path), -1);
    unlink(path);
}

Test(baseline, a_unit_takes_time)
{
    cr_assert_gt(bench_calibrate(), 0);
}
