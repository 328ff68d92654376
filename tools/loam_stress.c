/* loam_stress.c - Kills a writing process again and again and counts what it had been promised.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A child process writes batches from several threads and notes in shared memory, after each call
 * returned, how far it has come. The parent kills it with SIGKILL at a random moment, opens the
 * database and looks for everything that was acknowledged: each key there, each value right, each
 * batch whole. Then the next cycle writes on.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/loam.h"
#include "tools/bound_fork.h"

#define THREADS_MAX 64
#define BATCH_MAX 8u

struct settings {
    const char *db;
    double seconds;
    unsigned cycles, threads, value_size;
    uint64_t seed, memory_budget;
    bool kill, durable, json, keep;
};

/* Shared by parent and child. */
struct progress {
    _Atomic uint64_t acked[THREADS_MAX]; /* batches */
    _Atomic int failed;                  /* a call in the child returned an error */
};

struct writer {
    const struct settings *s;
    struct progress *p;
    loam_db *db;
    unsigned thread;
    uint64_t first; /* batch */
};

struct totals {
    uint64_t acked, found, lost, wrong, torn, keys;
    double recovery_seconds;
};

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "loam-stress: %s: %s\n", what, loam_last_error()->message);
    exit(4);
}

/* Operations in a batch: known from its number, so that the parent can tell what belongs to it. */
static unsigned batch_size(uint64_t batch)
{
    return (unsigned)(mix(batch) % BATCH_MAX) + 1;
}

static size_t make_key(char key[48], unsigned thread, uint64_t batch, unsigned i)
{
    /* The hash spreads the keys, so that flushes and merges have work to do. */
    return (size_t)snprintf(key, 48, "%08" PRIx32 "-%02u-%010" PRIu64 "-%u",
                            (uint32_t)mix(batch * 64 + thread), thread, batch, i);
}

static void make_value(char *value, size_t size, unsigned thread, uint64_t batch, unsigned i)
{
    uint64_t x = mix(batch << 16 | (uint64_t)thread << 8 | i);
    for (size_t k = 0; k < size; k++) {
        value[k] = (char)(x >> (k % 8 * 8));
    }
}

/* ---- child ------------------------------------------------------------------------------------- */

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    const struct settings *s = w->s;
    char *value = malloc(s->value_size + 1);
    loam_batch *b = loam_batch_new(0);
    if (value == NULL || b == NULL) {
        atomic_store(&w->p->failed, 1);
        return NULL;
    }
    loam_write_opts o = {.struct_size = sizeof o, .flags = s->durable ? LOAM_W_DURABLE : 0};
    for (uint64_t batch = w->first;; batch++) {
        loam_batch_clear(b);
        for (unsigned i = 0; i < batch_size(batch); i++) {
            char key[48];
            size_t n = make_key(key, w->thread, batch, i);
            make_value(value, s->value_size, w->thread, batch, i);
            loam_batch_put(b, NULL, loam_bytes(key, n), loam_bytes(value, s->value_size));
        }
        if (loam_write(w->db, b, &o) < 0) {
            fprintf(stderr, "loam-stress: write: %s\n", loam_last_error()->message);
            atomic_store(&w->p->failed, 1);
            return NULL;
        }
        atomic_store(&w->p->acked[w->thread], batch + 1);
    }
}

static loam_db *open_db(const struct settings *s)
{
    loam_options o = {.struct_size = sizeof o, .memory_budget = s->memory_budget};
    loam_db *db;
    if (loam_open(s->db, &o, &db) < 0) {
        die("open");
    }
    return db;
}

static _Noreturn void child_main(const struct settings *s, struct progress *p)
{
    loam_db *db = open_db(s);
    struct writer w[THREADS_MAX];
    pthread_t t[THREADS_MAX];
    for (unsigned i = 0; i < s->threads; i++) {
        w[i] = (struct writer){s, p, db, i, atomic_load(&p->acked[i])};
        if (pthread_create(&t[i], NULL, writer_main, &w[i]) != 0) {
            die("thread");
        }
    }
    for (unsigned i = 0; i < s->threads; i++) {
        pthread_join(t[i], NULL);
    }
    _exit(atomic_load(&p->failed) ? 4 : 0);
}

/* ---- parent ------------------------------------------------------------------------------------ */

/* How many keys of a batch are there; wrong values are counted. */
static unsigned look_up(loam_db *db, const struct settings *s, unsigned thread, uint64_t batch,
                        char *want, char *got, struct totals *t)
{
    unsigned found = 0;
    for (unsigned i = 0; i < batch_size(batch); i++) {
        char key[48];
        size_t n = make_key(key, thread, batch, i), len = 0;
        int rc = loam_get(db, NULL, loam_bytes(key, n), got, s->value_size + 1, &len, NULL);
        if (rc < 0) {
            die("get");
        }
        if (rc == LOAM_OK) {
            make_value(want, s->value_size, thread, batch, i);
            found++;
            t->wrong += len != s->value_size || memcmp(want, got, len) != 0;
        }
    }
    return found;
}

static void check(const struct settings *s, struct progress *p, struct totals *t)
{
    char *want = malloc(s->value_size + 1), *got = malloc(s->value_size + 1);
    if (want == NULL || got == NULL) {
        die("memory");
    }
    double start = now_seconds();
    loam_db *db = open_db(s);
    t->recovery_seconds += now_seconds() - start;
    for (unsigned thread = 0; thread < s->threads; thread++) {
        uint64_t acked = atomic_load(&p->acked[thread]);
        for (uint64_t batch = 0; batch < acked; batch++) {
            unsigned found = look_up(db, s, thread, batch, want, got, t);
            t->keys += batch_size(batch);
            t->found += found == batch_size(batch);
            t->lost += found == 0;
            t->torn += found != 0 && found != batch_size(batch);
        }
        t->acked += acked;
        /* The batch in flight may be there or not, but whole. */
        unsigned found = look_up(db, s, thread, acked, want, got, t);
        if (found != 0) {
            t->torn += found != batch_size(acked);
            atomic_store(&p->acked[thread], acked + 1);
        }
    }
    if (loam_close(db) < 0) {
        die("close");
    }
    free(want);
    free(got);
}

static void one_cycle(const struct settings *s, struct progress *p, unsigned cycle)
{
    fflush(stdout);
    pid_t child = bound_fork();
    if (child < 0) {
        perror("loam-stress: fork");
        exit(4);
    }
    if (child == 0) {
        child_main(s, p);
    }
    double share = (double)(mix(s->seed + cycle) % 1000) / 1000;
    double wait = s->seconds / s->cycles * (s->kill ? 0.5 + share / 2 : 1.0);
    struct timespec t = {(time_t)wait, (long)((wait - (double)(time_t)wait) * 1e9)};
    nanosleep(&t, NULL);
    kill(child, SIGKILL);
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFSIGNALED(status)) {
        fprintf(stderr, "loam-stress: the writer ended by itself, status %d\n", status);
        exit(4);
    }
}

static void usage(FILE *f)
{
    fputs("usage: loam-stress [flags]\n"
          "Writes from a child process, kills it with SIGKILL, reopens and counts every\n"
          "acknowledged batch. Exit 0: nothing lost; 3: something was; 2: bad flags.\n\n"
          "  --db DIR             database directory, removed first (default /tmp/loam-stress)\n"
          "  --seconds N          time to write in all cycles together (default 3)\n"
          "  --cycles N           kills (default 1)\n"
          "  --threads N          writing threads, at most 64 (default 2)\n"
          "  --value_size N       bytes, at most 1 MiB (default 100)\n"
          "  --memory_budget N    bytes (default 64 MiB)\n"
          "  --durable            each write survives power loss, too\n"
          "  --kill               kill at a random moment of the second half of a cycle\n"
          "  --keep               leave the database there\n"
          "  --seed N             of the random moments (default: the time)\n"
          "  --json               print one JSON object\n",
          f);
}

static bool in_range(int flag, uint64_t n)
{
    switch (flag) {
    case 'c': return n >= 1 && n <= 1000000;
    case 't': return n >= 1 && n <= THREADS_MAX;
    case 'v': return n <= (1u << 20);
    default: return true;
    }
}

static int parse(int argc, char **argv, struct settings *s)
{
    static const struct option flags[] = {
        {"db", required_argument, NULL, 'd'},         {"seconds", required_argument, NULL, 's'},
        {"cycles", required_argument, NULL, 'c'},     {"threads", required_argument, NULL, 't'},
        {"value_size", required_argument, NULL, 'v'}, {"memory_budget", required_argument, NULL, 'm'},
        {"durable", no_argument, NULL, 'D'},          {"kill", no_argument, NULL, 'k'},
        {"keep", no_argument, NULL, 'K'},             {"seed", required_argument, NULL, 'S'},
        {"json", no_argument, NULL, 'j'},             {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    int c;
    opterr = 0;
    while ((c = getopt_long_only(argc, argv, ":", flags, NULL)) != -1) {
        uint64_t n = 0;
        char *end = NULL;
        if (c == 's') {
            s->seconds = strtod(optarg, &end);
            end = s->seconds > 0 && s->seconds < 1e6 ? end : optarg;
        } else if (strchr("ctvmS", c) != NULL) {
            n = strtoull(optarg, &end, 0);
            end = in_range(c, n) && *optarg != '-' ? end : optarg;
        }
        if (end != NULL && (end == optarg || *end != '\0')) {
            fprintf(stderr, "loam-stress: bad value '%s' for %s (try --help)\n", optarg,
                    argv[optind - 1] == optarg ? argv[optind - 2] : argv[optind - 1]);
            return 2;
        }
        switch (c) {
        case 'd': s->db = optarg; break;
        case 's': break;
        case 'c': s->cycles = (unsigned)n; break;
        case 't': s->threads = (unsigned)n; break;
        case 'v': s->value_size = (unsigned)n; break;
        case 'm': s->memory_budget = n; break;
        case 'S': s->seed = n; break;
        case 'D': s->durable = true; break;
        case 'k': s->kill = true; break;
        case 'K': s->keep = true; break;
        case 'j': s->json = true; break;
        case 'h': usage(stdout); exit(0);
        default:
            fprintf(stderr, "loam-stress: %s '%s' (try --help)\n",
                    c == ':' ? "no value given for" : "unknown flag", argv[optind - 1]);
            return 2;
        }
    }
    if (optind != argc) {
        fprintf(stderr, "loam-stress: not a flag: '%s' (try --help)\n", argv[optind]);
        return 2;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct settings s = {.db = "/tmp/loam-stress", .seconds = 3, .cycles = 1, .threads = 2,
                         .value_size = 100, .memory_budget = (uint64_t)64 << 20,
                         .seed = (uint64_t)time(NULL)};
    int rc = parse(argc, argv, &s);
    if (rc != 0) {
        return rc;
    }
    struct progress *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                              -1, 0);
    if (p == MAP_FAILED) {
        perror("loam-stress: mmap");
        return 4;
    }
    rc = loam_destroy(s.db, NULL);
    if (rc < 0 && rc != LOAM_E_NOENT) {
        die("destroy");
    }
    struct totals t = {0};
    for (unsigned i = 0; i < s.cycles; i++) {
        one_cycle(&s, p, i);
        double seconds = t.recovery_seconds;
        t = (struct totals){.recovery_seconds = seconds};
        check(&s, p, &t);
        if (t.lost + t.torn + t.wrong != 0) {
            break;
        }
    }
    if (s.json) {
        printf("{\"cycles\":%u,\"acked\":%" PRIu64 ",\"found\":%" PRIu64 ",\"lost\":%" PRIu64
               ",\"torn\":%" PRIu64 ",\"wrong\":%" PRIu64 ",\"keys\":%" PRIu64
               ",\"recovery_seconds\":%.3f,\"seed\":%" PRIu64 "}\n",
               s.cycles, t.acked, t.found, t.lost, t.torn, t.wrong, t.keys, t.recovery_seconds,
               s.seed);
    } else {
        printf("kill -9 during writes: %" PRIu64 " batches acked (%" PRIu64 " keys), %" PRIu64
               " found, %" PRIu64 " lost, %" PRIu64 " torn, %" PRIu64
               " wrong; recovered in %.3f s (%u kills, seed %" PRIu64 ")\n",
               t.acked, t.keys, t.found, t.lost, t.torn, t.wrong, t.recovery_seconds / s.cycles,
               s.cycles, s.seed);
    }
    if (!s.keep && t.lost + t.torn + t.wrong == 0) {
        (void)!loam_destroy(s.db, NULL);
    }
    return t.lost + t.torn + t.wrong == 0 ? 0 : 3;
}
