/* limits_test.c - Extremes of what a process and a caller may bring: keys, stacks, file sizes, signals.
 * SPDX-License-Identifier: Apache-2.0
 *
 * On the operating system's files. What is written under a limit is read back, then and after a
 * reopen; where a limit is met, the call that meets it says so.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include "arena/random.h"
#include "arena/sync.h"
#include "tests/engine/db_support.h"

static char dir[] = "/tmp/loam-limits-XXXXXX";
static char db_dir[sizeof dir + 8];

static void set_up(void)
{
    CHECK(mkdtemp(dir) != NULL);
    snprintf(db_dir, sizeof db_dir, "%s/db", dir);
}

static void tear_down(void)
{
    GOES(loam_destroy(db_dir, NULL));
    CHECK_EQ(rmdir(dir), 0);
}

TestSuite(limits, .init = set_up, .fini = tear_down);

static loam_db *open_here(void)
{
    return open_small(NULL, db_dir);
}

/* ---- keys and values --------------------------------------------------------------------------- */

#define EDGE_KEYS 12u

/* In byte order. */
static loam_slice edge_key(unsigned i)
{
    static uint8_t longest[LOAM_MAX_KEY], ones[300];
    static const uint8_t zeros[3];
    memset(longest, 'k', sizeof longest);
    memset(ones, 0xff, sizeof ones);
    const loam_slice keys[EDGE_KEYS] = {
        loam_bytes(NULL, 0),
        loam_bytes(zeros, 1),
        loam_bytes(zeros, 2),
        loam_bytes(zeros, 3),
        LOAM_LIT("a"),
        LOAM_LIT("a\0"),
        LOAM_LIT("a\0b"),
        loam_bytes(longest, 1),
        loam_bytes(longest, LOAM_MAX_KEY - 1),
        loam_bytes(longest, LOAM_MAX_KEY),
        loam_bytes(ones, 1),
        loam_bytes(ones, sizeof ones),
    };
    return keys[i];
}

static void check_edges(loam_db *db)
{
    loam_iter *it;
    unsigned i = 0;
    GOES(loam_iter_open(db, NULL, NULL, &it));
    for (int rc = loam_iter_first(it); rc == LOAM_OK; rc = loam_iter_next(it), i++) {
        loam_slice want = edge_key(i);
        CHECK_BYTES(loam_iter_key(it).data, loam_iter_key(it).size, want.data, want.size);
        CHECK_EQ(loam_iter_value(it).size, i % 2 == 0 ? 0 : want.size);
    }
    CHECK_EQ(i, EDGE_KEYS);
    for (int rc = loam_iter_last(it); rc == LOAM_OK; rc = loam_iter_prev(it)) {
        i--;
        loam_pin pin = LOAM_PIN_INIT;
        GOES(loam_get_pin(db, NULL, edge_key(i), &pin, NULL));
        CHECK_BYTES(pin.value.data, pin.value.size, loam_iter_value(it).data,
                    loam_iter_value(it).size);
        loam_unpin(&pin);
    }
    CHECK_EQ(i, 0);
    loam_iter_close(it);
}

Test(limits, keys_of_no_byte_and_of_the_most_bytes_keep_their_order)
{
    loam_db *db = open_here();
    for (unsigned i = EDGE_KEYS; i-- > 0;) {
        loam_slice key = edge_key(i);
        GOES(loam_put(db, NULL, key, i % 2 == 0 ? loam_bytes(NULL, 0) : key, NULL));
    }
    check_edges(db);
    GOES(loam_flush(db, NULL));
    check_edges(db);
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    check_edges(db);
    GOES(loam_close(db));
    db = open_here();
    check_edges(db);
    static uint8_t over[LOAM_MAX_KEY + 1];
    FAILS(loam_put(db, NULL, loam_bytes(over, sizeof over), LOAM_LIT(""), NULL), LOAM_E_TOOBIG);
    FAILS(loam_put(db, NULL, LOAM_LIT("k"), loam_bytes(over, SIZE_MAX / 2), NULL), LOAM_E_TOOBIG);
    GOES(loam_close(db));
}

/* ---- small stacks ------------------------------------------------------------------------------ */

static int count_entry(void *ctx, loam_slice key, loam_slice value)
{
    (void)key;
    (void)value;
    ++*(unsigned *)ctx;
    return 0;
}

static void *live_on_little(void *arg)
{
    (void)arg;
    loam_db *db = open_here();
    unsigned n = 0;
    for (int i = 0; i < 200; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%d", i);
        put_text(db, NULL, key, "value");
    }
    loam_ks *ks;
    GOES(loam_ks_open(db, "other", NULL, &ks));
    put_text(db, ks, "k", "v");
    GOES(loam_flush(db, NULL));
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    GOES(loam_scan(db, NULL, NULL, 0, count_entry, &n));
    CHECK_EQ(n, 200);
    expect_text(db, ks, "k", "v");
    loam_stats stats = {.struct_size = sizeof stats};
    GOES(loam_get_stats(db, NULL, &stats));
    loam_ks_release(ks);
    GOES(loam_ks_drop(db, "other"));
    GOES(loam_close(db));
    db = open_here();
    expect_text(db, NULL, "key7", "value");
    GOES(loam_close(db));
    return NULL;
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BIG_FRAMES true /* and much memory for each object */
#endif
#endif
#if !defined(BIG_FRAMES)
#if defined(__SANITIZE_ADDRESS__) || !defined(NDEBUG)
#define BIG_FRAMES true
#else
#define BIG_FRAMES false
#endif
#endif

Test(limits, every_call_lives_on_a_stack_of_64_kib, .disabled = BIG_FRAMES)
{
    pthread_attr_t a;
    pthread_t t;
    CHECK_EQ(pthread_attr_init(&a), 0);
    CHECK_EQ(pthread_attr_setstacksize(&a, 64 << 10), 0);
    CHECK_EQ(pthread_create(&t, &a, live_on_little, NULL), 0);
    pthread_join(t, NULL);
    pthread_attr_destroy(&a);
}

/* ---- file sizes -------------------------------------------------------------------------------- */

static void put_numbers(loam_db *db, unsigned from, unsigned to)
{
    char value[400];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = 0;
    for (unsigned i = from; i < to; i++) {
        char key[16];
        snprintf(key, sizeof key, "%06u", i);
        put_text(db, NULL, key, value);
    }
}

Test(limits, a_limit_on_file_sizes_is_an_error_and_no_loss)
{
    signal(SIGXFSZ, SIG_IGN); /* the application's choice; loam changes no signal */
    loam_db *db = open_here();
    put_numbers(db, 0, 100);
    struct rlimit small = {16 << 10, RLIM_INFINITY};
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc = loam_flush(db, NULL);
    CHECK(rc < 0);
    unsigned n = 0;
    GOES(loam_scan(db, NULL, NULL, 0, count_entry, &n));
    CHECK_EQ(n, 100);
    small.rlim_cur = RLIM_INFINITY;
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    GOES(loam_resume(db));
    put_numbers(db, 100, 200);
    GOES(loam_flush(db, NULL));
    GOES(loam_close(db));
    db = open_here();
    n = 0;
    GOES(loam_scan(db, NULL, NULL, 0, count_entry, &n));
    CHECK_EQ(n, 200);
    GOES(loam_close(db));
}

/* ---- signals ----------------------------------------------------------------------------------- */

static volatile sig_atomic_t alarms;

static void count_alarm(int sig)
{
    (void)sig;
    alarms++;
}

/* System calls of this thread are interrupted all the time, and not restarted. */
Test(limits, signals_interrupt_no_call)
{
    struct sigaction act = {.sa_handler = count_alarm};
    const struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    CHECK_EQ(sigaction(SIGALRM, &act, NULL), 0);
    CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (unsigned round = 0; round < 5; round++) {
        loam_db *db = open_here();
        put_numbers(db, round * 100, round * 100 + 100);
        GOES(loam_sync(db));
        GOES(loam_flush(db, NULL));
        GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
        unsigned n = 0;
        GOES(loam_scan(db, NULL, NULL, 0, count_entry, &n));
        CHECK_EQ(n, round * 100 + 100);
        GOES(loam_close(db));
    }
    CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
    CHECK(alarms > 10);
}

/* ---- held for long ----------------------------------------------------------------------------- */

#define SNAPSHOTS (BIG_FRAMES ? 100000u : 1000000u)
#define TENTH     (SNAPSHOTS / 10)

Test(limits, a_million_snapshots_cost_little_each)
{
    loam_db *db = open_here();
    loam_snap **snaps = malloc(SNAPSHOTS * sizeof *snaps);
    CHECK(snaps != NULL);
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    for (uint32_t i = 0; i < SNAPSHOTS; i++) {
        if (i % TENTH == 0) {
            put_numbers(db, i / TENTH, i / TENTH + 1);
        }
        GOES(loam_snap_take(db, &snaps[i]));
    }
    getrusage(RUSAGE_SELF, &after);
    CHECK((after.ru_maxrss - before.ru_maxrss) / 1024 < 512); /* MiB */
    for (uint32_t i = 0; i < 10; i++) {
        unsigned n = 0;
        const loam_iter_opts o = {.struct_size = sizeof o, .snap = snaps[i * TENTH + 5]};
        GOES(loam_scan(db, NULL, &o, 0, count_entry, &n));
        CHECK_EQ(n, i + 1);
    }
    GOES(loam_flush(db, NULL));
    for (uint32_t i = 0; i < SNAPSHOTS; i++) {
        loam_snap_release(snaps[(uint64_t)i * 7919 % SNAPSHOTS]);
    }
    free(snaps);
    uint64_t left;
    GOES(loam_property(db, NULL, "snapshots", &left));
    CHECK_EQ(left, 0);
    GOES(loam_close(db));
}

#define HELD_KEYS   500u
#define HELD_WRITES 100000u

/* The iterator stands still while all it shows is written over, flushed and merged. */
Test(limits, an_iterator_sees_its_moment_through_a_hundred_thousand_writes)
{
    loam_db *db = open_here();
    struct random r;
    random_init(&r, 3);
    char key[16], value[32];
    for (unsigned i = 0; i < HELD_KEYS; i++) {
        snprintf(key, sizeof key, "%06u", i);
        put_text(db, NULL, key, "first");
    }
    loam_iter *it;
    GOES(loam_iter_open(db, NULL, NULL, &it));
    GOES(loam_iter_first(it));
    for (unsigned i = 0; i < HELD_WRITES; i++) {
        snprintf(key, sizeof key, "%06u", (unsigned)random_below(&r, 2 * HELD_KEYS));
        snprintf(value, sizeof value, "later %u", i);
        if (i % 5 == 0) {
            GOES(loam_delete(db, NULL, text(key), NULL));
        } else {
            put_text(db, NULL, key, value);
        }
    }
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    unsigned n = 0;
    int rc = LOAM_OK;
    for (; rc == LOAM_OK; rc = loam_iter_next(it), n++) {
        snprintf(key, sizeof key, "%06u", n);
        CHECK_BYTES(loam_iter_key(it).data, loam_iter_key(it).size, key, strlen(key));
        CHECK_BYTES(loam_iter_value(it).data, loam_iter_value(it).size, "first", 5);
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    CHECK_EQ(n, HELD_KEYS);
    loam_iter_close(it);
    GOES(loam_close(db));
}
