/* replay_main.c - Feeds a target its corpus, and random changes of it, without libFuzzer.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   fuzz-log [--mutations=N] [--seed=N] FILE-OR-DIRECTORY...
 *
 * An input that fails is written to the file "crash-input" in the working directory; giving that file
 * alone replays it.
 */
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "arena/random.h"
#include "tests/fuzz/fuzz_support.h"

#define INPUT_MAX  ((size_t)1 << 20)
#define HANG_AFTER 60 /* seconds */

struct inputs {
    uint8_t **data; /* Owns */
    size_t *size;
    size_t count;
};

static const uint8_t *running;
static size_t running_size;

static void keep_input(int sig)
{
    FILE *f = fopen("crash-input", "wb");
    if (f != NULL) {
        (void)fwrite(running, 1, running_size, f);
        (void)fclose(f);
    }
    signal(sig, SIG_DFL);
    raise(sig);
}

static void run(const uint8_t *data, size_t size)
{
    running = data;
    running_size = size;
    alarm(HANG_AFTER);
    LLVMFuzzerTestOneInput(data, size);
    alarm(0);
}

static void load_file(struct inputs *in, const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(INPUT_MAX);
    CHECK(f != NULL && data != NULL);
    size_t n = fread(data, 1, INPUT_MAX, f);
    fclose(f);
    in->data = realloc(in->data, (in->count + 1) * sizeof *in->data);
    in->size = realloc(in->size, (in->count + 1) * sizeof *in->size);
    CHECK(in->data != NULL && in->size != NULL);
    in->data[in->count] = realloc(data, n + 1);
    in->size[in->count++] = n;
}

static void load(struct inputs *in, const char *path)
{
    struct stat st;
    CHECK(stat(path, &st) == 0);
    if (!S_ISDIR(st.st_mode)) {
        load_file(in, path);
        return;
    }
    struct dirent **list;
    int n = scandir(path, &list, NULL, alphasort);
    CHECK(n >= 0);
    for (int i = 0; i < n; i++) {
        char inner[4096];
        snprintf(inner, sizeof inner, "%s/%s", path, list[i]->d_name);
        if (list[i]->d_name[0] != '.') {
            load(in, inner);
        }
        free(list[i]);
    }
    free(list);
}

/* One change of the kinds that find things: bits, bytes, numbers at the edges, moved and missing
 * pieces, the tail of another input. Returns the new size. */
static size_t change(uint8_t *p, size_t n, const struct inputs *all, struct random *r)
{
    static const uint64_t edges[] = {0,      1,          0x7f,       0x80,      0xff,      0x7fff,
                                     0xffff, 0x7fffffff, 0xffffffff, INT64_MAX, UINT64_MAX};
    size_t at = (size_t)random_below(r, n + 1), len = (size_t)random_below(r, 16) + 1;
    if (n == 0 || at == n) {
        p[n] = (uint8_t)random_next(r);
        return n + 1 < INPUT_MAX ? n + 1 : n;
    }
    len = len < n - at ? len : n - at;
    switch (random_below(r, 7)) {
    case 0:
        p[at] ^= (uint8_t)(1u << random_below(r, 8));
        return n;
    case 1:
        p[at] = (uint8_t)random_next(r);
        return n;
    case 2: {
        uint64_t v = edges[random_below(r, sizeof edges / sizeof edges[0])];
        memcpy(p + at, &v, len < 8 ? len : 8);
        return n;
    }
    case 3: /* taken out */
        memmove(p + at, p + at + len, n - at - len);
        return n - len;
    case 4: /* twice */
        if (n + len > INPUT_MAX) {
            return n;
        }
        memmove(p + at + len, p + at, n - at);
        return n + len;
    case 5:
        return at;
    default: {
        size_t k = (size_t)random_below(r, all->count);
        size_t from = (size_t)random_below(r, all->size[k] + 1), more = all->size[k] - from;
        more = more < INPUT_MAX - at ? more : INPUT_MAX - at;
        memcpy(p + at, all->data[k] + from, more);
        return at + more;
    }
    }
}

static void mutate(const struct inputs *in, uint64_t count, uint64_t seed)
{
    struct random r;
    uint8_t *p = malloc(INPUT_MAX + 16);
    CHECK(p != NULL);
    random_init(&r, seed);
    for (uint64_t i = 0; i < count; i++) {
        size_t k = (size_t)random_below(&r, in->count), n = in->size[k];
        memcpy(p, in->data[k], n);
        for (uint64_t changes = 1 + random_below(&r, 4); changes != 0; changes--) {
            n = change(p, n, in, &r);
        }
        run(p, n);
    }
    free(p);
}

int main(int argc, char **argv)
{
    uint64_t mutations = 0, seed = (uint64_t)time(NULL);
    struct inputs in = {0};
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        signal(signals[i], keep_input);
    }
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--mutations=", 12) == 0) {
            mutations = strtoull(argv[i] + 12, NULL, 0);
        } else if (strncmp(argv[i], "--seed=", 7) == 0) {
            seed = strtoull(argv[i] + 7, NULL, 0);
        } else {
            load(&in, argv[i]);
        }
    }
    CHECK(in.count != 0);
    for (size_t i = 0; i < in.count; i++) {
        run(in.data[i], in.size[i]);
    }
    if (mutations != 0) {
        fprintf(stderr, "--seed=%llu\n", (unsigned long long)seed);
        mutate(&in, mutations, seed);
    }
    fprintf(stderr, "%zu inputs, %llu changes of them\n", in.count, (unsigned long long)mutations);
    for (size_t i = 0; i < in.count; i++) {
        free(in.data[i]);
    }
    free(in.data);
    free(in.size);
    return 0;
}
