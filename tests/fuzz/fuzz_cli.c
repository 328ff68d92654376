/* fuzz_cli.c - The tool `loam` with any arguments, in a directory of its own.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: arguments, one a line; behind an empty line what the file "in" and standard input hold.
 * Inputs with a slash or two dots are passed over: the tool does what it is told, wherever that is.
 *
 * Databases and what the library reads are on a disk in memory, and have the smallest budget: the linker
 * leads loam_vfs_os() and loam_open() here. What the tool itself opens are files in memory, too, where the
 * system has such.
 */
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena/random.h"
#include "arena/sync.h"
#include "engine/loam.h"
#include "tests/fuzz/fuzz_support.h"

#define ARGS_MAX 16
#define BUDGET   ((uint64_t)1 << 20)

int loam_cli_main(int argc, char **argv); /* main() of loam_cli.c, compiled under another name */

static char home[64];
static loam_vfs *disk;
static loam_vfs system_calls; /* the disk's, with time and chance of its own: the disk asks here for them */
static uint64_t chance;

const loam_vfs *__wrap_loam_vfs_os(void);
int __real_loam_open(const char *dir, const loam_options *opts, loam_db **db);
int __wrap_loam_open(const char *dir, const loam_options *opts, loam_db **db);

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

int __wrap_loam_open(const char *dir, const loam_options *opts, loam_db **db)
{
    loam_options o = *opts;
    o.memory_budget = o.memory_budget != 0 ? o.memory_budget : BUDGET;
    return __real_loam_open(dir, &o, db);
}

static void empty(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char inner[600];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        if (unlink(inner) != 0) {
            empty(inner);
            (void)rmdir(inner);
        }
    }
    if (d != NULL) {
        closedir(d);
    }
}

static void leave(void)
{
    empty(home);
    if (chdir("/") == 0) {
        (void)rmdir(home);
    }
}

static void enter(void)
{
    static bool entered;
    if (!entered) {
        entered = true;
        strcpy(home, "/dev/shm/loam-fuzz-cli-XXXXXX");
        if (mkdtemp(home) == NULL) {
            strcpy(home, "/tmp/loam-fuzz-cli-XXXXXX");
            CHECK(mkdtemp(home) != NULL);
        }
        CHECK(chdir(home) == 0);
        CHECK(freopen("/dev/null", "w", stdout) != NULL);
        atexit(leave);
    }
    empty(home);
}

static void give(const char *text, size_t size)
{
    FILE *f = fopen("in", "w");
    CHECK(f != NULL && fwrite(text, 1, size, f) == size && fclose(f) == 0);
    CHECK(freopen("in", "r", stdin) != NULL);
    loam_file *in;
    CHECK_EQ(loam_vfs_memory(&disk), LOAM_OK);
    system_calls = *disk;
    system_calls.random = draw;
    system_calls.now_us = now_us;
    chance = 1; /* an input does the same each time */
    CHECK_EQ(disk->open(disk->ctx, "in", LOAM_VFS_WRITE | LOAM_VFS_CREATE, &in), 0);
    CHECK_EQ(disk->write(disk->ctx, in, text, size, 0), size);
    CHECK_EQ(disk->close(disk->ctx, in), 0);
}

static bool passed_over(const char *text)
{
    return strchr(text, '/') != NULL || strstr(text, "..") != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = (char *)fuzz_copy(data, size, 1), *argv[ARGS_MAX + 2] = {(char *)"loam"};
    int argc = 1;
    char *rest = strstr(text, "\n\n");
    size_t rest_size = 0;
    if (rest != NULL) {
        *rest = '\0';
        rest += 2;
        rest_size = size - (size_t)(rest - text);
    }
    if (!passed_over(text)) {
        enter();
        give(rest != NULL ? rest : "", rest_size);
        for (char *save, *a = strtok_r(text, "\n", &save); a != NULL && argc <= ARGS_MAX;
             a = strtok_r(NULL, "\n", &save)) {
            argv[argc++] = a;
        }
        optind = 0;
        fuzz_begin();
        int rc = loam_cli_main(argc, argv);
        CHECK(rc >= 0 && rc <= 4);
        fuzz_end(size);
        loam_vfs_free(disk);
    }
    free(text);
    return 0;
}
