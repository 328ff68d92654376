/* runner_leaks.c - Leaks are looked for where tests run, not in Criterion's own runner.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each test runs in a worker, a process of its own, which is asked as ever. The runner executes nothing
 * of the product, and Criterion 2.4.1 leaves the note of a time limit behind now and then.
 */
#include <errno.h>
#include <string.h>

int __lsan_is_turned_off(void);

int __lsan_is_turned_off(void)
{
    return strcmp(program_invocation_short_name, "boxfort-worker") != 0;
}
