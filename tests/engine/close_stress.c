/* close_stress.c - Closing a database ends the calls that merge or wait in it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Nothing here depends on speed: a merge is held inside its comparator until other threads are told
 * that the database is closed.
 */
#include <stdlib.h>
#include <string.h>

#include "arena/sync.h"
#include "tests/engine/load_support.h"

struct waiter {
    loam_db *db;
    int rc[4];
};

static void waiting_member(struct crew_member *m)
{
    struct waiter *w = m->shared;
    switch (m->index) {
    case 0:
        w->rc[0] = loam_wait_durable(w->db, UINT64_MAX - 1, UINT64_MAX);
        break;
    case 1:
        w->rc[1] = loam_wait_durable(w->db, UINT64_MAX - 1, UINT64_MAX);
        break;
    case 2:
        w->rc[2] = loam_wait_idle(w->db, 0);
        break;
    default:
        thread_sleep_micros(20000);
        GOES(loam_close(w->db));
        break;
    }
}

STRESS(engine, close_ends_waits_without_limit)
{
    struct load_disk disk;
    load_disk_init(&disk, true);
    loam_options o = small_options(NULL);
    o.sync_interval_ms = UINT32_MAX;
    struct waiter w = {.db = load_open(&disk, &o)};
    put_text(w.db, NULL, "k", "v");
    crew_run(4, waiting_member, &w, seed);
    CHECK_EQ(w.rc[0], LOAM_E_CLOSED);
    CHECK_EQ(w.rc[1], LOAM_E_CLOSED);
    CHECK(w.rc[2] == LOAM_OK || w.rc[2] == LOAM_E_CLOSED);
    load_disk_free(&disk);
}

/* ---- a merge ---- */

#define MERGE_KEYS 20000u

struct merge_gate {
    pthread_t merger;
    _Atomic bool armed;
    _Atomic bool reached;     /* the merge is under way */
    _Atomic bool open;        /* it may go on */
    _Atomic uint64_t allowed; /* comparisons before it is held */
};

/* Byte order; holds the merging thread once it is well inside the merge. */
static int gated_compare(void *ctx, loam_slice a, loam_slice b)
{
    struct merge_gate *g = ctx;
    if (atomic_load_explicit(&g->armed, memory_order_acquire) &&
        pthread_equal(pthread_self(), g->merger) &&
        atomic_fetch_sub_explicit(&g->allowed, 1, memory_order_relaxed) == 1) {
        atomic_store_explicit(&g->reached, true, memory_order_release);
        while (!atomic_load_explicit(&g->open, memory_order_acquire)) {
            thread_sleep_micros(100);
        }
    }
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n != 0 ? memcmp(a.data, b.data, n) : 0;
    return c != 0 ? c : (a.size > b.size) - (a.size < b.size);
}

struct merge_close {
    loam_db *db;
    loam_ks *ks;
    struct merge_gate gate;
    int rc_compact, rc_idle;
};

static void await(_Atomic bool *flag)
{
    while (!atomic_load_explicit(flag, memory_order_acquire)) {
        thread_sleep_micros(100);
    }
}

static void merge_member(struct crew_member *m)
{
    struct merge_close *t = m->shared;
    loam_slice all = {NULL, 0};
    switch (m->index) {
    case 0:
        t->gate.merger = pthread_self();
        atomic_store_explicit(&t->gate.armed, true, memory_order_release);
        t->rc_compact = loam_compact(t->db, t->ks, all, all, 0);
        break;
    case 1:
        await(&t->gate.reached);
        t->rc_idle = loam_wait_idle(t->db, 0);
        break;
    case 2:
        await(&t->gate.reached);
        GOES(loam_close(t->db));
        break;
    default: /* opens the gate when nobody can begin a call any more */
        await(&t->gate.reached);
        while (loam_health(t->db, NULL) != LOAM_E_CLOSED) {
            thread_sleep_micros(100);
        }
        atomic_store_explicit(&t->gate.open, true, memory_order_release);
        break;
    }
}

static void fill(loam_db *db, loam_ks *ks, const char *value)
{
    for (unsigned i = 0; i < MERGE_KEYS; i++) {
        struct load_key k = load_key_of(i);
        GOES(loam_put(db, ks, load_key_slice(&k), text(value), NULL));
    }
    GOES(loam_flush(db, NULL));
}

STRESS(engine, close_cancels_a_merge_by_hand)
{
    struct load_disk disk;
    struct merge_close *t = calloc(1, sizeof *t);
    CHECK(t != NULL);
    load_disk_init(&disk, true);
    loam_options o = small_options(NULL);
    o.memory_budget = (uint64_t)16 << 20;
    t->db = load_open(&disk, &o);
    loam_comparator cmp = {sizeof cmp, "gated", gated_compare, NULL, &t->gate};
    loam_ks_options ko = {.struct_size = sizeof ko, .comparator = &cmp};
    GOES(loam_ks_open(t->db, "gated", &ko, &t->ks));
    GOES(loam_pause(t->db, 1));
    fill(t->db, t->ks, "old"); /* two tables that overlap: they cannot just be moved */
    fill(t->db, t->ks, "new");
    t->gate.allowed = MERGE_KEYS / 4;
    crew_run(4, merge_member, t, seed);
    CHECK_EQ(t->rc_compact, LOAM_E_CLOSED);
    CHECK_EQ(t->rc_idle, LOAM_E_CLOSED);
    loam_ks_release(t->ks);

    t->db = load_open(&disk, &o); /* nothing was lost, and the merge can be had another time */
    GOES(loam_ks_open(t->db, "gated", &ko, &t->ks));
    GOES(loam_compact(t->db, t->ks, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    struct load_key k = load_key_of(MERGE_KEYS - 1);
    char buf[8];
    size_t n;
    GOES(loam_get(t->db, t->ks, load_key_slice(&k), buf, sizeof buf, &n, NULL));
    CHECK_BYTES(buf, n, "new", 3);
    GOES(loam_close(t->db));
    loam_ks_release(t->ks);
    load_disk_free(&disk);
    free(t);
}
