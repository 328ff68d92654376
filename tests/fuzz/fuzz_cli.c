/* fuzz_cli.c - The tool `loam` with any arguments, in a directory of its own.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: arguments, one a line; behind an empty line what the file "in" and standard input hold.
 * Inputs with a slash or two dots are passed over: the tool does what it is told, wherever that is.
 */
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/fuzz_support.h"

#define ARGS_MAX 16

int loam_cli_main(int argc, char **argv); /* main() of loam_cli.c, compiled under another name */

static char home[] = "/tmp/loam-fuzz-cli-XXXXXX";

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
        CHECK(mkdtemp(home) != NULL);
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
        fuzz_end(SIZE_MAX); /* the default budget is a share of the machine's memory */
    }
    free(text);
    return 0;
}
