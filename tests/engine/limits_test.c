/* limits_test.c - Extremes of what a process and a caller may bring: keys, stacks, file sizes, signals, forks.
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
#include <sys/wait.h>
#include <unistd.h>

#include "arena/alloc.h"
#include "arena/random.h"
#include "arena/sync.h"
#include "tests/engine/db_support.h"
#include "tests/support/resident.h"

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

static int take_name(void *ctx, loam_slice name)
{
    (void)name;
    ++*(unsigned *)ctx;
    return 0;
}

static void write_on_little(loam_db *db, loam_ks *ks)
{
    for (int i = 0; i < 200; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%d", i);
        put_text(db, NULL, key, "value");
    }
    put_text(db, ks, "k", "v");
    GOES(loam_delete(db, NULL, LOAM_LIT("absent"), NULL));
    loam_batch *b = loam_batch_new(0);
    GOES(loam_batch_put(b, ks, LOAM_LIT("a"), LOAM_LIT("1")));
    size_t mark = loam_batch_mark(b);
    memset(loam_batch_reserve(b, NULL, LOAM_LIT("reserved"), 5), 'x', 5);
    GOES(loam_batch_delete(b, ks, LOAM_LIT("a")));
    CHECK_EQ(loam_batch_count(b), 3);
    GOES(loam_batch_rewind(b, mark));
    const loam_write_opts durable = {.struct_size = sizeof durable, .flags = LOAM_W_DURABLE};
    GOES(loam_write(db, b, &durable));
    loam_batch_clear(b);
    loam_batch_free(b);
    GOES(loam_sync(db));
    GOES(loam_wait_durable(db, loam_durable_seq(db), 1000));
}

static void read_on_little(loam_db *db, loam_ks *ks)
{
    unsigned n = 0;
    loam_snap *snap;
    loam_iter *it;
    GOES(loam_snap_take(db, &snap));
    CHECK(loam_snap_seq(snap) != 0);
    const loam_iter_opts o = {
        .struct_size = sizeof o, .snap = snap, .lower = LOAM_LIT("key"), .upper = LOAM_LIT("kez")};
    GOES(loam_iter_open(db, NULL, &o, &it));
    GOES(loam_iter_first(it));
    GOES(loam_iter_next(it));
    GOES(loam_iter_prev(it));
    GOES(loam_iter_last(it));
    GOES(loam_iter_seek(it, LOAM_LIT("key5")));
    GOES(loam_iter_seek_le(it, LOAM_LIT("key5")));
    CHECK_EQ(loam_iter_key(it).size, 4);
    CHECK_EQ(loam_iter_value(it).size, 5);
    CHECK(loam_iter_seq(it) != 0);
    GOES(loam_iter_refresh(it, NULL));
    loam_iter_close(it);
    GOES(loam_scan(db, NULL, &o, 0, count_entry, &n));
    CHECK_EQ(n, 200);
    loam_snap_release(snap);
    const loam_slice keys[2] = {LOAM_LIT("key1"), LOAM_LIT("none")};
    loam_pin pins[2] = {LOAM_PIN_INIT, LOAM_PIN_INIT};
    int rcs[2];
    GOES(loam_get_many(db, NULL, keys, 2, pins, rcs, NULL));
    CHECK(rcs[0] == LOAM_OK && rcs[1] == LOAM_NOTFOUND);
    loam_unpin(&pins[0]);
    GOES(loam_get_pin(db, ks, LOAM_LIT("k"), &pins[0], NULL));
    loam_unpin(&pins[0]);
    expect_text(db, ks, "k", "v");
}

static void look_on_little(loam_db *db)
{
    char json[8192];
    loam_stats stats = {.struct_size = sizeof stats};
    loam_hist hist;
    loam_error why;
    uint64_t value;
    unsigned n = 0;
    GOES(loam_get_stats(db, NULL, &stats));
    GOES(loam_get_hist(db, LOAM_HIST_PUT, &hist));
    GOES(loam_format_stats(db, LOAM_JSON, json, sizeof json, NULL));
    GOES(loam_property(db, NULL, "levels", &value));
    CHECK_EQ(loam_health(db, &why), LOAM_HEALTHY);
    GOES(loam_resume(db));
    GOES(loam_ks_list(db, take_name, &n));
    CHECK_EQ(n, 2);
    CHECK(loam_path(db)[0] != '\0');
    CHECK(loam_put(db, NULL, loam_bytes(NULL, 1), LOAM_LIT(""), NULL) == LOAM_E_INVAL);
    CHECK(loam_last_error()->message[0] != '\0' && loam_strerror(LOAM_E_IO)[0] != '\0');
}

static void *live_on_little(void *arg)
{
    (void)arg;
    loam_db *db = open_here();
    loam_ks *ks;
    GOES(loam_ks_open(db, "old name", NULL, &ks));
    GOES(loam_ks_rename(db, "old name", "other"));
    write_on_little(db, ks);
    read_on_little(db, ks);
    GOES(loam_flush(db, NULL));
    read_on_little(db, ks);
    GOES(loam_pause(db, 1));
    GOES(loam_pause(db, 0));
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    GOES(loam_wait_idle(db, 0));
    read_on_little(db, ks);
    look_on_little(db);
    GOES(loam_verify(db, NULL, NULL));
    loam_ks_release(ks);
    GOES(loam_ks_drop(db, "other"));
    GOES(loam_close(db));
    GOES(loam_check(db_dir, NULL, NULL, NULL));
    GOES(loam_repair(db_dir, NULL, NULL, NULL));
    db = open_here();
    expect_text(db, NULL, "key7", "value");
    GOES(loam_close(db));
    GOES(loam_destroy(db_dir, NULL));
    GOES(loam_close(open_here()));
    return NULL;
}

#if defined(NDEBUG)
#define BIG_FRAMES LOAM_ASAN /* and much memory for each object */
#else
#define BIG_FRAMES true
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

static void never_called(int sig)
{
    (void)sig;
    abort();
}

static void meet_a_size_limit(void (*disposition)(int))
{
    char other_dir[sizeof db_dir + 8];
    loam_db *other;
    loam_options o = small_options(NULL);
    snprintf(other_dir, sizeof other_dir, "%s-other", db_dir);
    signal(SIGXFSZ, disposition); /* the application's choice, which stays */
    loam_db *db = open_here();
    GOES(loam_pause(db, 1)); /* nothing is flushed before the limit is there */
    put_numbers(db, 0, 100);
    struct rlimit small = {16 << 10, RLIM_INFINITY};
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    FAILS(loam_open(other_dir, &o, &other), LOAM_E_NOSPACE); /* its log is made by this thread */
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
    CHECK(signal(SIGXFSZ, SIG_DFL) == disposition);
    sigset_t pending;
    CHECK_EQ(sigpending(&pending), 0);
    CHECK_EQ(sigismember(&pending, SIGXFSZ), 0);
    GOES(loam_destroy(db_dir, NULL));
    CHECK(loam_destroy(other_dir, NULL) <= LOAM_OK); /* whatever was made of it */
    rmdir(other_dir);
}

Test(limits, a_limit_on_file_sizes_is_an_error_no_signal_and_no_loss)
{
    meet_a_size_limit(SIG_IGN);
    meet_a_size_limit(SIG_DFL); /* which would kill */
    meet_a_size_limit(never_called);
    GOES(loam_close(open_here()));
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

/* ---- fork -------------------------------------------------------------------------------------- */

struct busy {
    loam_db *db;
    _Atomic bool stop;
};

static void *keep_busy(void *arg)
{
    struct busy *b = arg;
    for (unsigned i = 0; !b->stop; i++) {
        char key[16];
        snprintf(key, sizeof key, "%06u", i % 1000);
        put_text(b->db, NULL, key, "busy");
        if (i % 100 == 0) {
            GOES(loam_flush(b->db, NULL));
        }
    }
    return NULL;
}

static void use_as_child(loam_db *db, loam_iter *it, loam_snap *snap)
{
    loam_snap *more;
    FAILS(loam_put(db, NULL, LOAM_LIT("k"), LOAM_LIT("v"), NULL), LOAM_E_MISUSE);
    FAILS(loam_get(db, NULL, LOAM_LIT("k"), NULL, 0, NULL, NULL), LOAM_E_MISUSE);
    FAILS(loam_flush(db, NULL), LOAM_E_MISUSE);
    FAILS(loam_iter_next(it), LOAM_E_MISUSE);
    FAILS(loam_snap_take(db, &more), LOAM_E_MISUSE);
    loam_iter_close(it);
    loam_snap_release(snap);
    FAILS(loam_close(db), LOAM_E_MISUSE);
}

Test(limits, a_fork_at_any_moment_leaves_the_child_a_code_and_the_parent_its_data)
{
    struct busy b = {.db = open_here()};
    loam_iter *it;
    loam_snap *snap;
    pthread_t t[2];
    put_text(b.db, NULL, "held", "value");
    GOES(loam_snap_take(b.db, &snap));
    GOES(loam_iter_open(b.db, NULL, NULL, &it));
    GOES(loam_iter_first(it));
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ(pthread_create(&t[i], NULL, keep_busy, &b), 0);
    }
    for (unsigned i = 0; i < 40; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(30);
            use_as_child(b.db, it, snap);
            _exit(0);
        }
        int status;
        CHECK_EQ(waitpid(child, &status, 0), child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    b.stop = true;
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(t[i], NULL);
    }
    loam_iter_close(it);
    loam_snap_release(snap);
    GOES(loam_close(b.db));
    b.db = open_here();
    expect_text(b.db, NULL, "held", "value");
    GOES(loam_close(b.db));
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

#define ITERATORS (BIG_FRAMES ? 10000u : 100000u)
#define EACH_MOST 4096u /* bytes of memory of one that stands still */

/* Each stands on an entry, half of them before the next entry is put behind it and half after. */
Test(limits, a_hundred_thousand_iterators_keep_their_places_and_moments)
{
    loam_db *db = open_here();
    loam_iter **its = malloc(ITERATORS * sizeof *its);
    CHECK(its != NULL);
    put_numbers(db, 0, 100);
    GOES(loam_flush(db, NULL));
    uint64_t before = resident_bytes();
    for (uint32_t i = 0; i < ITERATORS; i++) {
        if (i == ITERATORS / 2) {
            put_numbers(db, 100, 200);
        }
        GOES(loam_iter_open(db, NULL, NULL, &its[i]));
        CHECK_EQ(i % 3 == 0 ? loam_iter_last(its[i]) : loam_iter_first(its[i]), LOAM_OK);
    }
    CHECK(BIG_FRAMES || resident_bytes() < before + (uint64_t)ITERATORS * EACH_MOST + (16 << 20));
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    for (uint32_t i = 0; i < ITERATORS; i++) {
        uint32_t left = 0;
        CHECK_EQ(loam_iter_value(its[i]).size, 399);
        if (i % (ITERATORS / 100) == 0) {
            while (loam_iter_next(its[i]) == LOAM_OK) {
                left++;
            }
            CHECK_EQ(left, i % 3 == 0 ? 0 : i < ITERATORS / 2 ? 99 : 199);
        }
        loam_iter_close(its[i]);
    }
    free(its);
    uint64_t open;
    GOES(loam_property(db, NULL, "iterators", &open));
    CHECK_EQ(open, 0);
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
