/* handles_stress.c - Handles used by many threads while what they name is closed, dropped or starved.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: every call returns a code its contract allows, nothing crashes or hangs (sanitizers, the
 * watchdog), and data in what was not dropped is right.
 */
#include "arena/random.h"
#include "arena/sync.h"
#include "tests/engine/load_support.h"

/* ---- close under load
 * ---------------------------------------------------------------------------- */

#define STALLS 32u /* places where threads leave handles for others */

/* A handle of any kind, taken by one thread, used and released by another. */
struct stall {
    pthread_mutex_t mutex;
    loam_iter *it;
    loam_snap *snap;
    loam_ks *ks;
    loam_pin pin;
};

struct shop {
    loam_db *db;
    bool logged; /* false under LOAM_DUR_MEMORY: nothing to sync */
    struct stall stall[STALLS];
    _Atomic bool closing; /* set before the close begins: from then on E_CLOSED is allowed */
    _Atomic bool closed;  /* set after the close: from then on nothing else is */
    _Atomic uint64_t calls;
    _Atomic unsigned closers_done; /* how many closes returned LOAM_OK */
    struct watchdog dog;
};

/* An answer that is right before, during or after the close. True: go on using the database. */
static bool right(struct shop *s, int rc, bool closed_before)
{
    if (closed_before) {
        CHECK_EQ(rc, LOAM_E_CLOSED);
    }
    if (rc == LOAM_E_CLOSED) {
        CHECK(atomic_load_explicit(&s->closing, memory_order_relaxed));
        return false;
    }
    CHECK(rc >= 0 || rc == LOAM_E_BUSY || (rc == LOAM_E_UNSUPPORTED && !s->logged));
    return true;
}

static int count_entry(void *ctx, loam_slice key, loam_slice value)
{
    CHECK(load_key_number(key) < 1000);
    load_value_id(value);
    ++*(uint64_t *)ctx;
    return 0;
}

static int see_name(void *ctx, loam_slice name)
{
    (void)ctx;
    CHECK(name.size != 0);
    return 0;
}

static int use_database(struct shop *s, struct random *r)
{
    struct load_key k = load_key_of(random_below(r, 1000));
    loam_slice key = load_key_slice(&k);
    uint8_t bytes[LOAD_VALUE_MAX];
    uint64_t number;
    switch (random_below(r, 24)) {
    case 0:
        return loam_flush(s->db, NULL);
    case 1:
        return loam_compact(s->db, NULL, loam_bytes(NULL, 0), key, 3000);
    case 2:
        return loam_wait_idle(s->db, 2000);
    case 3: {
        int rc = loam_pause(s->db, 1);
        return rc < 0 ? rc : loam_pause(s->db, 0);
    }
    case 4:
        return loam_sync(s->db);
    case 5: {
        loam_stats st = {.struct_size = sizeof st};
        return loam_get_stats(s->db, NULL, &st);
    }
    case 6:
        return loam_property(s->db, NULL, "memory_used", &number);
    case 7: {
        size_t need;
        return loam_format_stats(s->db, LOAM_JSON, (char *)bytes, sizeof bytes, &need);
    }
    case 8:
        return loam_resume(s->db);
    case 9:
        return loam_ks_list(s->db, see_name, NULL);
    case 10:
        return loam_wait_durable(s->db, UINT64_MAX - 1, 1000);
    case 11: {
        uint64_t n = 0;
        loam_iter_opts o = {.struct_size = sizeof o, .lower = key};
        return loam_scan(s->db, NULL, &o, 50, count_entry, &n);
    }
    case 12:
    case 13:
    case 14:
    case 15: {
        size_t n = 0;
        return loam_get(s->db, NULL, key, bytes, sizeof bytes, &n, NULL);
    }
    case 16:
        return loam_delete(s->db, NULL, key, NULL);
    default: {
        size_t n = load_value_make(random_next(r), bytes);
        bool durable = random_below(r, 16) == 0 && s->logged;
        loam_write_opts o = {.struct_size = sizeof o, .flags = durable ? LOAM_W_DURABLE : 0};
        return loam_put(s->db, NULL, key, loam_bytes(bytes, n), &o);
    }
    }
}

/* Uses what is at the stall, or fills it. */
static int use_stall_locked(struct shop *s, struct stall *t, struct random *r)
{
    struct load_key k = load_key_of(random_below(r, 1000));
    loam_slice key = load_key_slice(&k);
    int rc;
    switch (random_below(r, 10)) {
    case 0:
        loam_iter_close(t->it);
        t->it = NULL;
        return loam_iter_open(s->db, NULL, NULL, &t->it);
    case 1:
        loam_snap_release(t->snap);
        t->snap = NULL;
        return loam_snap_take(s->db, &t->snap);
    case 2:
        loam_ks_release(t->ks);
        t->ks = NULL;
        return loam_ks_open(s->db, random_below(r, 2) != 0 ? "one" : "two", NULL, &t->ks);
    case 3:
        if (t->pin.value.data != NULL) {
            load_value_id(t->pin.value); /* still whole */
        }
        loam_unpin(&t->pin);
        return loam_get_pin(s->db, NULL, key, &t->pin, NULL);
    case 4:
    case 5:
    case 6: {
        if (t->it == NULL) {
            return loam_iter_open(s->db, NULL, NULL, &t->it);
        }
        rc = loam_iter_seek(t->it, key);
        for (unsigned i = 0; rc == LOAM_OK && i < 10; i++) {
            load_value_id(loam_iter_value(t->it));
            rc = random_below(r, 3) != 0 ? loam_iter_next(t->it) : loam_iter_prev(t->it);
        }
        return rc;
    }
    case 7: {
        loam_read_opts o = {.struct_size = sizeof o, .snap = t->snap};
        return loam_get(s->db, NULL, key, NULL, 0, NULL, &o);
    }
    case 8: {
        uint8_t bytes[LOAD_VALUE_MAX];
        size_t n = load_value_make(random_next(r), bytes);
        return loam_put(s->db, t->ks, key, loam_bytes(bytes, n), NULL);
    }
    default:
        return t->it != NULL ? loam_iter_refresh(t->it, t->snap)
                             : loam_iter_open(s->db, NULL, NULL, &t->it);
    }
}

static void release_stall(struct stall *t)
{
    loam_iter_close(t->it);
    loam_snap_release(t->snap);
    loam_ks_release(t->ks);
    if (t->pin.value.data != NULL) {
        load_value_id(t->pin.value);
    }
    loam_unpin(&t->pin);
    t->it = NULL;
    t->snap = NULL;
    t->ks = NULL;
}

/* Member 0 and 1 close; the others use the database until well after it is gone. */
static void shop_member(struct crew_member *m)
{
    struct shop *s = m->shared;
    struct random r;
    random_init(&r, m->seed);
    if (m->index < 2) {
        thread_sleep_micros(2000 + random_below(&r, 8000));
        atomic_store_explicit(&s->closing, true, memory_order_relaxed);
        int rc = loam_close(s->db);
        CHECK(rc == LOAM_OK || rc == LOAM_E_CLOSED);
        if (rc == LOAM_OK) {
            atomic_fetch_add_explicit(&s->closers_done, 1, memory_order_relaxed);
            atomic_store_explicit(&s->closed, true, memory_order_release);
        }
        return;
    }
    unsigned after = 0;
    uint64_t calls = 0;
    while (after < 40) {
        bool closed = atomic_load_explicit(&s->closed, memory_order_acquire);
        if (random_below(&r, 2) != 0) {
            struct stall *t = &s->stall[random_below(&r, STALLS)];
            CHECK_EQ(pthread_mutex_lock(&t->mutex), 0);
            if (closed && random_below(&r, 4) == 0) {
                release_stall(t);
            } else {
                right(s, use_stall_locked(s, t, &r), closed);
            }
            CHECK_EQ(pthread_mutex_unlock(&t->mutex), 0);
        } else {
            right(s, use_database(s, &r), closed);
        }
        after += closed;
        calls++;
        watchdog_beat(&s->dog, m->index);
    }
    atomic_fetch_add_explicit(&s->calls, calls, memory_order_relaxed);
    watchdog_rest(&s->dog, m->index);
}

static void run_shop(struct load_disk *disk, const loam_options *o, uint64_t seed, uint64_t *calls)
{
    struct shop *s = aligned_alloc(64, sizeof *s);
    CHECK(s != NULL);
    memset(s, 0, sizeof *s);
    s->db = load_open(disk, o);
    s->logged = o->durability != LOAM_DUR_MEMORY;
    for (unsigned i = 0; i < STALLS; i++) {
        s->stall[i].pin = (loam_pin)LOAM_PIN_INIT;
        CHECK_EQ(pthread_mutex_init(&s->stall[i].mutex, NULL), 0);
    }
    watchdog_start(&s->dog, "close under load");
    crew_run(10, shop_member, s, splitmix64(&seed));
    watchdog_stop(&s->dog);
    CHECK_EQ(s->closers_done, 1);
    *calls += s->calls;
    if (seed % 2 != 0) { /* handles of a closed database may outlive its next opening, too */
        loam_db *again = load_open(disk, o);
        for (unsigned i = 0; i < STALLS; i++) {
            release_stall(&s->stall[i]);
        }
        GOES(loam_close(again));
    }
    for (unsigned i = 0; i < STALLS; i++) {
        release_stall(&s->stall[i]);
        CHECK_EQ(pthread_mutex_destroy(&s->stall[i].mutex), 0);
    }
    free(s);
}

STRESS(engine, close_ends_calls_of_all_threads)
{
    uint64_t calls = 0;
    uint64_t rounds = 15 * stress_scale;
    static const uint32_t durability[] = {LOAM_DUR_DEFAULT, LOAM_DUR_MEMORY, LOAM_DUR_POWER};
    for (unsigned memory = 0; memory < 2; memory++) {
        struct load_disk disk;
        load_disk_init(&disk, memory != 0);
        for (uint64_t i = memory; i < rounds; i += 2) {
            loam_options o = small_options(NULL);
            o.threads = 1 + (uint32_t)(i % 3);
            o.durability = durability[i / 2 % 3];
            run_shop(&disk, &o, splitmix64(&seed), &calls);
        }
        load_disk_free(&disk);
    }
    printf("    close under load: %" PRIu64 " rounds, %" PRIu64 " calls\n", rounds, calls);
}

/* ---- keyspaces that come and go
 * ------------------------------------------------------------------ */

struct street {
    loam_db *db;
    uint64_t steps;
    struct watchdog dog;
    _Atomic uint64_t writes, refused, drops;
};

/* One thread builds a keyspace of its own, fills it, finds exactly that in it, and drops it. */
static void own_keyspace(struct street *s, unsigned index, struct random *r)
{
    char name[32];
    snprintf(name, sizeof name, "own-%u", index);
    loam_ks *ks;
    GOES(loam_ks_open(s->db, name, NULL, &ks));
    uint64_t n = 0;
    GOES(loam_scan(s->db, ks, NULL, 0, count_entry, &n));
    CHECK_EQ(n, 0); /* nothing is left of the one dropped before */
    uint64_t want = 1 + random_below(r, 100);
    uint8_t bytes[LOAD_VALUE_MAX];
    for (uint64_t i = 0; i < want; i++) {
        struct load_key k = load_key_of(i);
        size_t size = load_value_make(i + 1, bytes);
        GOES(loam_put(s->db, ks, load_key_slice(&k), loam_bytes(bytes, size), NULL));
    }
    GOES(loam_scan(s->db, ks, NULL, 0, count_entry, &n));
    CHECK_EQ(n, want);
    char other[32];
    snprintf(other, sizeof other, "moved-%u", index);
    bool moved = random_below(r, 2) != 0;
    if (moved) {
        GOES(loam_ks_rename(s->db, name, other));
    }
    loam_iter *it;
    GOES(loam_iter_open(s->db, ks, NULL, &it));
    GOES(loam_iter_first(it));
    GOES(loam_ks_drop(s->db, moved ? other : name));
    CHECK_EQ(loam_get(s->db, ks, LOAM_LIT("k"), NULL, 0, NULL, NULL), LOAM_E_NOENT);
    CHECK_EQ(loam_put(s->db, ks, LOAM_LIT("k"), LOAM_LIT("v"), NULL), LOAM_E_NOENT);
    int rc = loam_iter_next(it); /* a dropped keyspace may end the walk, and may not crash it */
    CHECK(rc == LOAM_OK || rc == LOAM_NOTFOUND || rc == LOAM_E_NOENT);
    loam_iter_close(it);
    loam_ks_release(ks);
    atomic_fetch_add_explicit(&s->drops, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->writes, want, memory_order_relaxed);
}

/* Keyspaces that anybody drops at any time. */
static void shared_keyspace(struct street *s, struct random *r)
{
    static const char *const names[] = {"red", "green", "blue"};
    const char *name = names[random_below(r, 3)];
    if (random_below(r, 6) == 0) {
        int rc = loam_ks_drop(s->db, name);
        CHECK(rc == LOAM_OK || rc == LOAM_E_NOENT);
        return;
    }
    loam_ks *ks;
    GOES(loam_ks_open(s->db, name, NULL, &ks));
    uint8_t bytes[LOAD_VALUE_MAX];
    loam_batch *b = loam_batch_new(0);
    for (unsigned i = 0; i < 60; i++) {
        struct load_key k = load_key_of(random_below(r, 100));
        size_t size = load_value_make(random_next(r), bytes);
        int rc;
        if (random_below(r, 4) == 0) {
            loam_batch_clear(b);
            loam_batch_put(b, NULL, load_key_slice(&k), loam_bytes(bytes, size));
            loam_batch_put(b, ks, load_key_slice(&k), loam_bytes(bytes, size));
            rc = loam_write(s->db, b, NULL);
        } else {
            rc = loam_put(s->db, ks, load_key_slice(&k), loam_bytes(bytes, size), NULL);
        }
        CHECK(rc == LOAM_OK || rc == LOAM_E_NOENT);
        atomic_fetch_add_explicit(rc == LOAM_OK ? &s->writes : &s->refused, 1,
                                  memory_order_relaxed);
        uint64_t n = 0;
        rc = i % 20 == 0 ? loam_scan(s->db, ks, NULL, 0, count_entry, &n)
                         : loam_get(s->db, ks, load_key_slice(&k), NULL, 0, NULL, NULL);
        if (rc < 0 && rc != LOAM_E_NOENT) {
            fprintf(stderr, "a read gives %d: %s\n", rc, loam_last_error()->message);
        }
        CHECK(rc >= 0 || rc == LOAM_E_NOENT);
    }
    loam_batch_free(b);
    loam_ks_release(ks);
}

static void street_member(struct crew_member *m)
{
    struct street *s = m->shared;
    struct random r;
    random_init(&r, m->seed);
    for (uint64_t i = 0; i < s->steps; i++) {
        if (m->index % 2 == 0) {
            own_keyspace(s, m->index, &r);
        } else {
            shared_keyspace(s, &r);
        }
        watchdog_beat(&s->dog, m->index);
    }
    watchdog_rest(&s->dog, m->index);
}

STRESS(engine, keyspaces_come_and_go_under_writes)
{
    struct load_disk disk;
    load_disk_init(&disk, true);
    struct street *s = aligned_alloc(64, sizeof *s);
    CHECK(s != NULL);
    memset(s, 0, sizeof *s);
    s->steps = 12 * stress_scale;
    for (unsigned round = 0; round < 2; round++) {
        s->db = load_open(&disk, NULL);
        struct janitor j;
        janitor_start(&j, s->db, 3000, splitmix64(&seed));
        watchdog_start(&s->dog, "keyspaces that come and go");
        crew_run(6, street_member, s, splitmix64(&seed));
        watchdog_stop(&s->dog);
        janitor_stop(&j);
        GOES(loam_close(s->db));
    }
    printf("    keyspaces: %" PRIu64 " writes, %" PRIu64 " refused, %" PRIu64 " drops\n", s->writes,
           s->refused, s->drops);
    free(s);
    load_disk_free(&disk);
}

static int backwards(void *ctx, loam_slice a, loam_slice b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int c = memcmp(b.data, a.data, n);
    (void)ctx;
    return c != 0 ? c : (b.size > a.size) - (b.size < a.size);
}

/* Where a keyspace with an order of its own is read until it is gone. */
struct dropping {
    loam_db *db;
    _Atomic(loam_ks *) ks; /* with one key; NULL: not yet */
    unsigned rounds;
};

/* Until there is a keyspace, or none; mostly without giving the processor up, for what is looked for is over
 * soon. */
static loam_ks *wait_for_keyspace(struct dropping *s, bool some)
{
    loam_ks *ks;
    for (unsigned n = 1; ((ks = atomic_load(&s->ks)) != NULL) != some; n++) {
        if (n % 1024 == 0) {
            thread_yield();
        } else {
            spin_pause();
        }
    }
    return ks;
}

static void drop_or_read(struct crew_member *m)
{
    static const loam_comparator order = {
        .struct_size = sizeof order, .name = "backwards", .compare = backwards};
    const loam_ks_options how = {.struct_size = sizeof how, .comparator = &order};
    struct dropping *s = m->shared;
    for (unsigned i = 0; i < s->rounds; i++) {
        loam_ks *ks;
        if (m->index == 0) {
            GOES(loam_ks_open(s->db, "ordered", &how, &ks));
            put_text(s->db, ks, "key", "value");
            atomic_store(&s->ks, ks);
            for (volatile unsigned n = 0; n < 3000 + i % 3000; n++) {
            }
            GOES(loam_ks_drop(s->db, "ordered"));
            wait_for_keyspace(s, false);
            loam_ks_release(ks);
            continue;
        }
        ks = wait_for_keyspace(s, true);
        int rc;
        do {
            rc = loam_get(s->db, ks, text("key"), NULL, 0, NULL, NULL);
        } while (rc == LOAM_OK);
        CHECK_EQ(rc, LOAM_E_NOENT); /* it never seems to be there without the key */
        atomic_store(&s->ks, NULL);
    }
}

STRESS(engine, a_dropped_keyspace_is_gone_with_its_keys)
{
    loam_vfs *disk = memory_disk();
    struct dropping s = {.db = open_small(disk, "/db"), .rounds = 20000 * stress_scale};
    crew_run(2, drop_or_read, &s, seed);
    GOES(loam_close(s.db));
    loam_vfs_free(disk);
}

/* A keyspace that is dropped while handles name it, and then the database closed: the handles are
 * given back last. What they name must be freed all the same (leak checkers look). */
STRESS(engine, handles_of_dropped_keyspaces_outlive_the_database)
{
    (void)seed;
    struct load_disk disk;
    load_disk_init(&disk, true);
    loam_db *db = load_open(&disk, NULL);
    loam_ks *ks, *again;
    loam_iter *it;
    GOES(loam_ks_open(db, "gone", NULL, &ks));
    GOES(loam_ks_open(db, "gone", NULL, &again));
    put_text(db, ks, "k", "v");
    GOES(loam_iter_open(db, ks, NULL, &it));
    GOES(loam_ks_drop(db, "gone"));
    loam_ks_release(again);
    GOES(loam_close(db));
    CHECK_EQ(loam_iter_first(it), LOAM_E_CLOSED);
    CHECK_EQ(loam_put(db, ks, LOAM_LIT("k"), LOAM_LIT("v"), NULL), LOAM_E_CLOSED);
    loam_ks_release(ks);
    loam_iter_close(it);
    load_disk_free(&disk);
}

/* ---- admission
 * ----------------------------------------------------------------------------------- */

#define PRESSERS 8u
#define BIG      16384u /* bytes of a value: a few fill a memtable */

struct press {
    loam_db *db;
    uint64_t steps;
    uint64_t admitted[PRESSERS], busy[PRESSERS]; /* by its own thread */
    struct watchdog dog;
};

static void press_member(struct crew_member *m)
{
    struct press *p = m->shared;
    struct random r;
    random_init(&r, m->seed);
    uint8_t *bytes = malloc(BIG);
    CHECK(bytes != NULL);
    memset(bytes, (int)m->index, BIG);
    struct load_key k = load_key_of(m->index);
    for (uint64_t i = 1; i <= p->steps; i++) {
        bool nowait = random_below(&r, 2) != 0;
        loam_write_opts o = {.struct_size = sizeof o,
                             .flags = nowait ? LOAM_W_NOWAIT : 0,
                             .deadline_us = nowait ? 0 : 1 + random_below(&r, 2000)};
        memcpy(bytes, &i, sizeof i);
        int rc = loam_put(p->db, NULL, load_key_slice(&k), loam_bytes(bytes, BIG), &o);
        if (rc == LOAM_E_BUSY) {
            p->busy[m->index]++;
        } else {
            GOES(rc);
            p->admitted[m->index] = i;
        }
        if (i % 8 == 0) { /* nobody else writes this key: the last one admitted must be there */
            uint64_t found = 0;
            size_t n = 0;
            rc = loam_get(p->db, NULL, load_key_slice(&k), &found, sizeof found, &n, NULL);
            CHECK(p->admitted[m->index] != 0 ? rc == LOAM_TRUNCATED && n == BIG
                                             : rc == LOAM_NOTFOUND);
            CHECK_EQ(found, p->admitted[m->index]);
        }
        watchdog_beat(&p->dog, m->index);
    }
    free(bytes);
    watchdog_rest(&p->dog, m->index);
}

STRESS(engine, refused_writes_leave_nothing)
{
    struct load_disk disk;
    load_disk_init(&disk, true);
    struct press *p = aligned_alloc(64, sizeof *p);
    CHECK(p != NULL);
    memset(p, 0, sizeof *p);
    p->steps = 400 * stress_scale;
    p->db = load_open(&disk, NULL);
    watchdog_start(&p->dog, "admission");
    crew_run(PRESSERS, press_member, p, seed);
    watchdog_stop(&p->dog);
    GOES(loam_close(p->db));
    p->db = load_open(&disk, NULL);
    uint64_t busy = 0;
    for (unsigned i = 0; i < PRESSERS; i++) {
        struct load_key k = load_key_of(i);
        uint64_t found = 0;
        int rc = loam_get(p->db, NULL, load_key_slice(&k), &found, sizeof found, NULL, NULL);
        CHECK_EQ(rc, p->admitted[i] != 0 ? LOAM_TRUNCATED : LOAM_NOTFOUND);
        CHECK_EQ(found, p->admitted[i]);
        busy += p->busy[i];
    }
    GOES(loam_close(p->db));
    printf("    admission: %" PRIu64 " of %" PRIu64 " writes refused\n", busy, p->steps * PRESSERS);
    free(p);
    load_disk_free(&disk);
}
