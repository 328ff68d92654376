/* descriptors_test.c - A process that is out of descriptors goes on, or is told so and goes on later.
 * SPDX-License-Identifier: Apache-2.0
 *
 * With tables open a database cures the lack itself: everything works with 24 descriptors. What it
 * cannot cure it reports, loses nothing, and serves again by itself once there are some.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "arena/alloc.h"
#include "arena/sync.h"
#include "tests/crash/io_run_support.h"
#include "tests/crash/oom_run_support.h"
#include "tests/support/seed.h"

#define TAKES_DESCRIPTORS (LOAM_CALL_OPEN | LOAM_CALL_SYNC_DIR | LOAM_CALL_LIST | LOAM_CALL_LOCK)

/* ---- at any call ------------------------------------------------------------------------------- */

Test(descriptors, missing_at_any_call_lose_nothing)
{
    uint64_t seed = seed_of_run(), step = LOAM_ASAN ? 5 : 1;
    oom_install();
    oom_warm_up();
    for (int error = 0; error < 2; error++) {
        bool fired = true;
        for (uint64_t n = 1 + seed % step; fired; n += step) {
            struct io_case c = {.name = "descriptors",
                                .plan = {.struct_size = sizeof c.plan,
                                         .seed = seed,
                                         .fail_at = n,
                                         .fail_calls = TAKES_DESCRIPTORS,
                                         .fail_errno = error == 0 ? EMFILE : ENFILE}};
            fired = io_run(&c).fired;
            c.plan.fail_repeat = n % 3 == 0 ? 50 : UINT32_MAX;
            fired |= io_run(&c).fired;
        }
    }
    io_print_totals("descriptors");
}

/* ---- there is none, and then there are some ---------------------------------------------------- */

/* What was refused for lack of descriptors says so, and that it is not for good. */
static void expect_shortage(int rc)
{
    const loam_error *e = loam_last_error();
    if (rc != LOAM_E_IO || e->sys_errno != EMFILE || (e->flags & LOAM_ERR_RETRY) == 0 ||
        (e->flags & LOAM_ERR_STICKY) != 0) {
        oracle_fail("without descriptors: %d, errno %d, flags %u: %s", rc, e->sys_errno, e->flags,
                    e->message);
    }
}

/* From the n-th call on there is none, then all are back. False: so many calls were not made. */
static bool run_out_at(uint64_t n, bool mapped)
{
    static struct io_shortage s;
    oracle_context("no descriptors from call %llu on, %s map", (unsigned long long)n,
                   mapped ? "with" : "no");
    io_shortage_begin(&s, mapped, 5);
    loam_fault_plan plan = s.plan;
    plan.fail_calls = TAKES_DESCRIPTORS;
    plan.fail_errno = EMFILE;
    plan.fail_at = loam_vfs_calls_of(s.fault, TAKES_DESCRIPTORS) + n;
    plan.fail_repeat = UINT32_MAX;
    io_shortage_set(&s, &plan);
    for (int i = 0; i < 6; i++) {
        oracle_write(&s.w, 4, true);
        int rc = oracle_flush(&s.w);
        if (rc < 0) {
            expect_shortage(rc);
        }
    }
    bool fired = loam_vfs_faults(s.fault) != 0;
    io_check_cut(&s.o, s.fault, 0);
    io_shortage_end(&s);
    return fired;
}

Test(descriptors, that_come_back_bring_writes_back_without_a_resume)
{
    for (int mapped = 0; mapped < 2; mapped++) {
        uint64_t n = 1;
        while (run_out_at(n, mapped != 0)) {
            n++;
        }
        CHECK(n > 10);
    }
}

/* ---- 24 of them -------------------------------------------------------------------------------- */

#define FREE     24
#define TABLES   32u
#define PER_TABLE 20u
#define SPACES   2u
#define READERS  2u
#define ITERS    6u

/* Leaves exactly FREE descriptors to be had. */
static void leave_few(void)
{
    rlim_t limit = 0;
    for (int spare = 0; spare < FREE; limit++) {
        spare += fcntl((int)limit, F_GETFD) < 0;
    }
    const struct rlimit few = {limit, limit};
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
}

static loam_slice few_key(uint32_t i, char key[16])
{
    return loam_bytes(key, (size_t)snprintf(key, 16, "%08u", i));
}

static void few_put(loam_db *db, loam_ks *ks, uint32_t i)
{
    char key[16], value[300];
    memset(value, 'a' + (int)(i % 26), sizeof value);
    crash_must(loam_put(db, ks, few_key(i, key), loam_bytes(value, sizeof value), NULL), "put");
}

static void few_get(loam_db *db, loam_ks *ks, uint32_t i)
{
    char key[16], value[300], want[300];
    size_t n = 0;
    memset(want, 'a' + (int)(i % 26), sizeof want);
    crash_must(loam_get(db, ks, few_key(i, key), value, sizeof value, &n, NULL), "get");
    CHECK_BYTES(value, n, want, sizeof want);
}

struct few {
    loam_db *db;
    loam_ks *ks[SPACES];
    _Atomic bool stop;
};

/* Reads among what was there before the readers began. */
static void *few_reader(void *arg)
{
    struct few *f = arg;
    uint64_t s = (uint64_t)(uintptr_t)&s;
    while (!atomic_load(&f->stop)) {
        few_get(f->db, f->ks[splitmix64(&s) % SPACES],
                (uint32_t)(splitmix64(&s) % (TABLES * PER_TABLE)));
        thread_sleep_micros(200); /* the others want the disk, too */
    }
    return NULL;
}

static void few_open(struct few *f, const char *dir)
{
    const loam_options o = {.struct_size = sizeof o, .memory_budget = 1 << 20, .threads = 2};
    crash_must(loam_open(dir, &o, &f->db), "open");
    for (unsigned k = 0; k < SPACES; k++) {
        char name[8];
        snprintf(name, sizeof name, "ks%u", k);
        crash_must(loam_ks_open(f->db, name, NULL, &f->ks[k]), "open a keyspace");
    }
}

static void few_close(struct few *f)
{
    for (unsigned k = 0; k < SPACES; k++) {
        loam_ks_release(f->ks[k]);
    }
    crash_must(loam_close(f->db), "close");
}

static void few_scan(struct few *f, uint32_t count)
{
    loam_iter *it[ITERS];
    for (unsigned i = 0; i < ITERS; i++) {
        crash_must(loam_iter_open(f->db, f->ks[i % SPACES], NULL, &it[i]), "open an iterator");
        crash_must(loam_iter_first(it[i]), "first");
    }
    for (uint32_t n = 0; n < count; n++) {
        for (unsigned i = 0; i < ITERS; i++) { /* in turn: each one reads other tables */
            char key[16];
            loam_slice want = few_key(n, key);
            CHECK_BYTES(loam_iter_key(it[i]).data, loam_iter_key(it[i]).size, want.data, want.size);
            int rc = loam_iter_next(it[i]);
            crash_must(rc, "next");
            CHECK_EQ(rc, n + 1 < count ? LOAM_OK : LOAM_NOTFOUND);
        }
    }
    for (unsigned i = 0; i < ITERS; i++) {
        loam_iter_close(it[i]);
    }
}

/* One table of each keyspace a round; each holds keys all over the range. */
static void few_fill(struct few *f, uint32_t from, uint32_t rounds)
{
    for (uint32_t r = 0; r < rounds; r++) {
        for (uint32_t i = 0; i < PER_TABLE; i++) {
            for (unsigned k = 0; k < SPACES; k++) {
                few_put(f->db, f->ks[k], from + i * rounds + r);
            }
        }
        crash_must(loam_flush(f->db, NULL), "flush");
    }
}

static void live_on_few(void)
{
    char dir[] = "/tmp/loam-few-XXXXXX", db_dir[sizeof dir + 8];
    CHECK(mkdtemp(dir) != NULL);
    snprintf(db_dir, sizeof db_dir, "%s/db", dir);
    oracle_context("with %d descriptors", FREE);
    crash_alarm(280);
    leave_few();
    struct few f = {0};
    few_open(&f, db_dir);
    crash_must(loam_pause(f.db, 1), "pause"); /* the tables stay apart */
    few_fill(&f, 0, TABLES);
    few_scan(&f, TABLES * PER_TABLE);
    pthread_t t[READERS];
    for (unsigned i = 0; i < READERS; i++) {
        CHECK_EQ(pthread_create(&t[i], NULL, few_reader, &f), 0);
    }
    crash_must(loam_pause(f.db, 0), "pause");
    few_fill(&f, TABLES * PER_TABLE, TABLES / 4);
    const loam_slice all = {NULL, 0};
    for (unsigned k = 0; k < SPACES; k++) {
        crash_must(loam_compact(f.db, f.ks[k], all, all, 0), "compact");
    }
    atomic_store(&f.stop, true);
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(t[i], NULL);
    }
    few_scan(&f, TABLES * PER_TABLE * 5 / 4);
    CHECK_EQ(loam_verify(f.db, NULL, NULL), LOAM_OK);
    few_close(&f);
    few_open(&f, db_dir);
    few_scan(&f, TABLES * PER_TABLE * 5 / 4);
    few_close(&f);
    CHECK_EQ(loam_destroy(db_dir, NULL), LOAM_OK);
    CHECK_EQ(rmdir(dir), 0);
    crash_alarm(0);
}

Test(descriptors, of_which_24_are_enough)
{
    live_on_few();
}
