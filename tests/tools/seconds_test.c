/* seconds_test.c - Seconds are summed up by their slowest and their middle one.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_seconds.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

Test(seconds, the_worst_second_is_the_slowest)
{
    const struct bench_second all[] = {{300, 1}, {100, 9}, {500, 1}, {200, 1}, {400, 1}};
    struct bench_seconds_summary s = bench_seconds_sum_up(all, 5);
    cr_assert_eq(s.count, 5);
    cr_assert(fabs(s.worst - 100) < 1e-9);
    cr_assert(fabs(s.median - 300) < 1e-9);
    cr_assert_eq(bench_seconds_sum_up(all, 0).count, 0);
}

Test(seconds, the_file_has_a_line_a_second_after_its_head)
{
    char path[] = "/tmp/loam-seconds-XXXXXX", text[256];
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    close(fd);
    struct bench_second all[] = {{300, 1500}, {100, 9000000}};
    struct bench_seconds s = {.all = all, .count = 2};
    cr_assert_eq(bench_seconds_create(path), 0);
    cr_assert_eq(bench_seconds_append(&s, path, "loam", "overwrite", 7), 0);
    FILE *in = fopen(path, "r");
    size_t n = fread(text, 1, sizeof(text) - 1, in);
    fclose(in);
    unlink(path);
    text[n] = '\0';
    cr_assert_str_eq(text, "engine,benchmark,run,second,ops_per_sec,longest_us\n"
                           "loam,overwrite,7,1,300,1.5\n"
                           "loam,overwrite,7,2,100,9000.0\n");
    cr_assert(bench_seconds_append(&s, "/nonexistent/x", "loam", "overwrite", 7) != 0);
}
