/* fuzz_cli.c - The tool `loam` with any arguments, on a disk of its own.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: arguments, one a line; behind an empty line what the file "in" and standard input hold.
 *
 * Nothing of it is a real file. Databases and what the library reads are on a disk in memory; the linker
 * leads loam_vfs_os() here, and fopen(), by which the tool itself reads and writes. What it prints goes
 * nowhere.
 */
#include <errno.h>
#include <getopt.h>

#include "arena/random.h"
#include "arena/sync.h"
#include "engine/loam.h"
#include "tests/fuzz/fuzz_support.h"
#include "tests/support/memory_disk.h"

#define ARGS_MAX 16

int loam_cli_main(int argc, char **argv); /* main() of loam_cli.c, compiled under another name */

static struct {
    char *text;
    size_t size;
    bool used; /* the tool runs */
} given;
static FILE *nowhere;
static loam_vfs *disk;
static loam_vfs system_calls; /* the disk's, with time and chance of its own: the disk asks here for them */
static uint64_t chance;

const loam_vfs *__wrap_loam_vfs_os(void);
FILE *__real_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode);

const loam_vfs *__wrap_loam_vfs_os(void)
{
    return &system_calls;
}

static int draw(void *ctx, void *buf, size_t n)
{
    (void)ctx;
    for (size_t i = 0; i < n; i++) {
        ((uint8_t *)buf)[i] = (uint8_t)(splitmix64(&chance) >> 32);
    }
    return 0;
}

static uint64_t now_us(void *ctx)
{
    (void)ctx;
    return clock_micros();
}

static ssize_t swallow(void *cookie, const char *buf, size_t n)
{
    (void)cookie, (void)buf;
    return (ssize_t)n;
}

static FILE *open_nowhere(void)
{
    return fopencookie(NULL, "w", (cookie_io_functions_t){.write = swallow});
}

FILE *__wrap_fopen(const char *path, const char *mode)
{
    if (!given.used) {
        return __real_fopen(path, mode);
    }
    if (mode[0] == 'w') {
        return open_nowhere();
    }
    if (strcmp(path, "in") == 0) {
        return fmemopen(given.text, given.size, "r");
    }
    errno = ENOENT;
    return NULL;
}

/* The disk, with the file "in". */
static void make_disk(void)
{
    loam_file *in;
    disk = memory_disk();
    system_calls = *disk;
    system_calls.random = draw;
    system_calls.now_us = now_us;
    chance = 1; /* an input does the same each time */
    CHECK_EQ(disk->open(disk->ctx, "in", LOAM_VFS_WRITE | LOAM_VFS_CREATE, &in), 0);
    CHECK_EQ(disk->write(disk->ctx, in, given.text, given.size, 0), given.size);
    CHECK_EQ(disk->close(disk->ctx, in), 0);
}

static int run_tool(int argc, char **argv)
{
    FILE *const out = stdout, *const err = stderr, *const in = stdin;
    nowhere = nowhere != NULL ? nowhere : open_nowhere();
    stdin = fmemopen(given.text, given.size, "r");
    CHECK(nowhere != NULL && stdin != NULL);
    stdout = stderr = nowhere;
    optind = 0;
    given.used = true;
    int rc = loam_cli_main(argc, argv);
    given.used = false;
    (void)fclose(stdin);
    stdin = in;
    stdout = out;
    stderr = err;
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = (char *)fuzz_copy(data, size, 1), *argv[ARGS_MAX + 2] = {(char *)"loam"};
    int argc = 1;
    char *rest = strstr(text, "\n\n");
    given.text = rest != NULL ? rest + 2 : text + size;
    given.size = (size_t)(text + size - given.text);
    if (rest != NULL) {
        *rest = '\0';
    }
    for (char *save, *a = strtok_r(text, "\n", &save); a != NULL && argc <= ARGS_MAX;
         a = strtok_r(NULL, "\n", &save)) {
        argv[argc++] = a;
    }
    fuzz_begin();
    make_disk();
    int rc = run_tool(argc, argv);
    CHECK(rc >= 0 && rc <= 4);
    loam_vfs_free(disk);
    fuzz_end(size);
    free(text);
    return 0;
}
