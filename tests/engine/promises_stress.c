/* promises_stress.c - What a returned write promises: who is told of it can read it, and a durable one outlives a power cut.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/random.h"
#include "arena/sync.h"
#include "tests/engine/load_support.h"

/* ---- messages beside the store
 * ------------------------------------------------------------------- */

#define PAIRS 4u

struct mail {
    loam_db *db;
    uint64_t letters;
    struct {
        _Alignas(64) _Atomic uint64_t sent;
    } box[PAIRS];
    struct watchdog dog;
};

/* Even members put and then tell; odd members hear and then get. */
static void mail_member(struct crew_member *m)
{
    struct mail *x = m->shared;
    unsigned pair = m->index / 2;
    struct load_key k = load_key_of(pair);
    uint8_t bytes[LOAD_VALUE_MAX];
    uint64_t heard = 0;
    for (uint64_t i = 1; i <= x->letters && m->index % 2 == 0; i++) {
        size_t n = load_value_make(i, bytes);
        GOES(loam_put(x->db, NULL, load_key_slice(&k), loam_bytes(bytes, n), NULL));
        /* release: pairs with the reader's load, as any message between threads does. */
        atomic_store_explicit(&x->box[pair].sent, i, memory_order_release);
        watchdog_beat(&x->dog, m->index);
    }
    while (heard < x->letters && m->index % 2 != 0) {
        uint64_t sent = atomic_load_explicit(&x->box[pair].sent, memory_order_acquire);
        if (sent == heard) {
            thread_yield();
        }
        watchdog_beat(&x->dog, m->index);
        size_t n;
        int rc = loam_get(x->db, NULL, load_key_slice(&k), bytes, sizeof bytes, &n, NULL);
        CHECK(rc == LOAM_OK || (rc == LOAM_NOTFOUND && sent == 0));
        uint64_t id = rc == LOAM_OK ? load_value_id(loam_bytes(bytes, n)) : 0;
        CHECK(id >= sent && id >= heard);
        heard = sent;
    }
    watchdog_rest(&x->dog, m->index);
}

STRESS(engine, what_is_told_can_be_read)
{
    struct load_disk disk;
    load_disk_init(&disk, true);
    struct mail *x = aligned_alloc(64, sizeof *x);
    CHECK(x != NULL);
    memset(x, 0, sizeof *x);
    x->db = load_open(&disk, NULL);
    x->letters = 3000 * stress_scale;
    struct janitor j;
    janitor_start(&j, x->db, 1000, splitmix64(&seed));
    watchdog_start(&x->dog, "messages");
    crew_run(2 * PAIRS, mail_member, x, splitmix64(&seed));
    watchdog_stop(&x->dog);
    janitor_stop(&j);
    GOES(loam_close(x->db));
    free(x);
    load_disk_free(&disk);
}

/* ---- power cuts under durable writers
 * ------------------------------------------------------------ */

#define DURABLE_WRITERS 8u

struct durable {
    loam_db *db;
    uint64_t steps;
    struct {
        _Alignas(64) _Atomic uint64_t acked;
    } writer[DURABLE_WRITERS];
    struct watchdog dog;
};

static void durable_member(struct crew_member *m)
{
    struct durable *d = m->shared;
    struct load_key k = load_key_of(m->index);
    uint8_t bytes[LOAD_VALUE_MAX];
    for (uint64_t i = 1; i <= d->steps; i++) {
        size_t n = load_value_make(i, bytes);
        uint64_t seq = 0;
        bool wait = i % 8 == 0; /* these leave the syncing to the background */
        loam_write_opts o = {
            .struct_size = sizeof o, .seq = &seq, .flags = wait ? LOAM_W_RELAXED : LOAM_W_DURABLE};
        GOES(loam_put(d->db, NULL, load_key_slice(&k), loam_bytes(bytes, n), &o));
        if (wait) {
            int rc;
            do {
                rc = loam_wait_durable(d->db, seq, 2000000);
                watchdog_beat(&d->dog, m->index);
            } while (rc == LOAM_STOPPED);
            GOES(rc);
        }
        CHECK(loam_durable_seq(d->db) >= seq);
        /* release: pairs with the load before a power cut. */
        atomic_store_explicit(&d->writer[m->index].acked, i, memory_order_release);
        watchdog_beat(&d->dog, m->index);
    }
    watchdog_rest(&d->dog, m->index);
}

struct cutter {
    struct durable *d;
    loam_vfs *fault;
    _Atomic bool stop;
    uint64_t seed, cuts;
};

/* Cuts power at any time; what was acknowledged before must be in what is left. */
static void *cutter_main(void *arg)
{
    struct cutter *c = arg;
    struct random r;
    random_init(&r, c->seed);
    while (!atomic_load_explicit(&c->stop, memory_order_relaxed)) {
        uint64_t acked[DURABLE_WRITERS];
        for (unsigned i = 0; i < DURABLE_WRITERS; i++) {
            acked[i] = atomic_load_explicit(&c->d->writer[i].acked, memory_order_acquire);
        }
        loam_vfs *left;
        GOES(loam_vfs_power_cut(c->fault, 1 + random_below(&r, 40), &left));
        loam_options o = small_options(left);
        loam_db *db;
        GOES(loam_open("/db", &o, &db));
        for (unsigned i = 0; i < DURABLE_WRITERS; i++) {
            struct load_key k = load_key_of(i);
            uint8_t bytes[LOAD_VALUE_MAX];
            size_t n = 0;
            int rc = loam_get(db, NULL, load_key_slice(&k), bytes, sizeof bytes, &n, NULL);
            CHECK(rc == LOAM_OK || (rc == LOAM_NOTFOUND && acked[i] == 0));
            CHECK(rc == LOAM_NOTFOUND || load_value_id(loam_bytes(bytes, n)) >= acked[i]);
        }
        GOES(loam_close(db));
        loam_vfs_free(left);
        c->cuts++;
        thread_sleep_micros(random_below(&r, 20000));
    }
    return NULL;
}

STRESS(engine, durable_writes_survive_power_cuts)
{
    loam_vfs *disk = memory_disk(), *fault;
    const loam_fault_plan none = {.struct_size = sizeof none};
    GOES(loam_vfs_fault(disk, &none, &fault));
    struct durable *d = aligned_alloc(64, sizeof *d);
    CHECK(d != NULL);
    memset(d, 0, sizeof *d);
    loam_options o = small_options(fault);
    o.sync_interval_ms = 2;
    GOES(loam_open("/db", &o, &d->db));
    GOES(loam_sync(d->db));
    d->steps = 300 * stress_scale;
    struct cutter c = {.d = d, .fault = fault, .seed = splitmix64(&seed)};
    pthread_t thread;
    struct janitor j;
    janitor_start(&j, d->db, 5000, splitmix64(&seed));
    CHECK_EQ(pthread_create(&thread, NULL, cutter_main, &c), 0);
    watchdog_start(&d->dog, "durable writers");
    crew_run(DURABLE_WRITERS, durable_member, d, splitmix64(&seed));
    watchdog_stop(&d->dog);
    atomic_store_explicit(&c.stop, true, memory_order_relaxed);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    janitor_stop(&j);
    GOES(loam_close(d->db));
    printf("    durable: %u threads, %" PRIu64 " writes, %" PRIu64 " power cuts\n", DURABLE_WRITERS,
           d->steps * DURABLE_WRITERS, c.cuts);
    free(d);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}
