/* tombstone_stress.c - Scans over stretches of deleted keys while others put into them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * All keys but a few are deleted at any time, so that readers learn stretches, jump over them, and writers
 * cut them, all the time. Each writer owns the keys of one residue and keeps a log of what of them lives
 * after each of its writes.
 * Oracle: what an iterator shows of a writer's keys, forward or backward from any key, is what lived after
 * one of the writes between the last that had returned when the iterator was opened and the last that
 * had begun when it was open.
 */
#include "arena/epoch.h"
#include "arena/random.h"
#include "engine/db.h"
#include "engine/handles.h"
#include "tests/engine/load_support.h"

enum { WRITERS = 3, READERS = 3, KEYS = 600, LIVE = 3 };

struct alive {
    uint32_t n;
    uint32_t key[LIVE]; /* ascending */
};

struct graveyard {
    loam_db *db;
    uint64_t writes;
    struct {
        _Alignas(64) _Atomic uint64_t begun;
        _Atomic uint64_t done;
        struct alive *log; /* writes + 1 */
    } writer[WRITERS];
    _Atomic unsigned writing;
    struct watchdog dog;
};

static void add_key(struct alive *a, uint32_t key)
{
    uint32_t i = a->n++;
    for (; i > 0 && a->key[i - 1] > key; i--) {
        a->key[i] = a->key[i - 1];
    }
    a->key[i] = key;
}

static void remove_key(struct alive *a, uint32_t i)
{
    a->n--;
    for (; i < a->n; i++) {
        a->key[i] = a->key[i + 1];
    }
}

static bool lives(const struct alive *a, uint32_t key)
{
    bool found = false;
    for (uint32_t i = 0; i < a->n; i++) {
        found = found || a->key[i] == key;
    }
    return found;
}

/* Deletes once more what is dead: merges will have taken the deletes away. */
static void bury(struct graveyard *g, unsigned w, const struct alive *a)
{
    loam_batch *b = loam_batch_new(0);
    for (uint32_t k = w; k < KEYS; k += WRITERS) {
        struct load_key key = load_key_of(k);
        if (!lives(a, k)) {
            GOES(loam_batch_delete(b, NULL, load_key_slice(&key)));
        }
    }
    GOES(loam_write(g->db, b, NULL));
    loam_batch_free(b);
}

/* The next state, and the write that leads to it. */
static void write_next(struct graveyard *g, unsigned w, uint64_t n, loam_batch *b, struct random *r)
{
    struct alive *a = &g->writer[w].log[n];
    *a = g->writer[w].log[n - 1];
    loam_batch_clear(b);
    if (a->n != 0 && (a->n == LIVE || random_below(r, 2) == 0)) {
        uint32_t i = (uint32_t)random_below(r, a->n);
        struct load_key key = load_key_of(a->key[i]);
        GOES(loam_batch_delete(b, NULL, load_key_slice(&key)));
        remove_key(a, i);
    }
    if (a->n < LIVE && (loam_batch_count(b) == 0 || random_below(r, 3) == 0)) {
        uint32_t k = w + WRITERS * (uint32_t)random_below(r, KEYS / WRITERS);
        struct load_key key = load_key_of(k);
        GOES(loam_batch_put(b, NULL, load_key_slice(&key), LOAM_LIT("alive")));
        if (!lives(a, k)) {
            add_key(a, k);
        }
    }
    /* release: the log's entry is there for who finds that the write has begun. */
    atomic_store_explicit(&g->writer[w].begun, n, memory_order_release);
    GOES(loam_write(g->db, b, NULL));
    atomic_store_explicit(&g->writer[w].done, n, memory_order_release);
}

static void writer(struct graveyard *g, unsigned w, struct random *r, unsigned member)
{
    loam_batch *b = loam_batch_new(0);
    for (uint64_t n = 1; n <= g->writes; n++) {
        if (n % 200 == 1) {
            bury(g, w, &g->writer[w].log[n - 1]);
        }
        write_next(g, w, n, b, r);
        watchdog_beat(&g->dog, member);
        if (random_below(r, 4) == 0) {
            thread_yield();
        }
    }
    loam_batch_free(b);
    atomic_fetch_sub_explicit(&g->writing, 1, memory_order_release);
}

/* Whether one of the states [lo, hi] shows exactly these keys in [from, to]. */
static bool explains(const struct graveyard *g, unsigned w, uint64_t lo, uint64_t hi,
                     const struct alive *seen, uint32_t from, uint32_t to)
{
    for (uint64_t i = lo; i <= hi; i++) {
        struct alive want = {0};
        const struct alive *a = &g->writer[w].log[i];
        for (uint32_t k = 0; k < a->n; k++) {
            if (a->key[k] >= from && a->key[k] <= to) {
                want.key[want.n++] = a->key[k];
            }
        }
        if (want.n == seen->n && memcmp(want.key, seen->key, want.n * sizeof *want.key) == 0) {
            return true;
        }
    }
    return false;
}

static void scan(struct graveyard *g, loam_iter *it, const uint64_t *lo, const uint64_t *hi,
                 struct random *r)
{
    struct alive seen[WRITERS] = {{0}};
    bool forward = random_below(r, 2) == 0;
    uint32_t start = (uint32_t)random_below(r, KEYS);
    struct load_key key = load_key_of(start);
    int rc = forward ? loam_iter_seek(it, load_key_slice(&key))
                     : loam_iter_seek_le(it, load_key_slice(&key));
    for (; rc == LOAM_OK; rc = forward ? loam_iter_next(it) : loam_iter_prev(it)) {
        uint32_t k = (uint32_t)load_key_number(loam_iter_key(it));
        CHECK(forward ? k >= start : k <= start);
        CHECK(seen[k % WRITERS].n < LIVE);
        add_key(&seen[k % WRITERS], k);
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    for (unsigned w = 0; w < WRITERS; w++) {
        if (!explains(g, w, lo[w], hi[w], &seen[w], forward ? start : 0, forward ? KEYS : start)) {
            CHECK_FAIL_("%s from %u: %u keys of writer %u (the first %u), which no state in [%llu, "
                        "%llu] has",
                        forward ? "forward" : "backward", start, seen[w].n, w, seen[w].key[0],
                        (unsigned long long)lo[w], (unsigned long long)hi[w]);
        }
    }
}

static void reader(struct graveyard *g, struct random *r, unsigned member)
{
    /* acquire: the writers' logs are complete. */
    while (atomic_load_explicit(&g->writing, memory_order_acquire) != 0) {
        uint64_t lo[WRITERS], hi[WRITERS];
        for (unsigned w = 0; w < WRITERS; w++) {
            lo[w] = atomic_load_explicit(&g->writer[w].done, memory_order_acquire);
        }
        loam_iter *it;
        GOES(loam_iter_open(g->db, NULL, NULL, &it));
        for (unsigned w = 0; w < WRITERS; w++) {
            hi[w] = atomic_load_explicit(&g->writer[w].begun, memory_order_acquire);
        }
        for (uint64_t n = 1 + random_below(r, 4); n > 0; n--) {
            scan(g, it, lo, hi, r);
            watchdog_beat(&g->dog, member);
        }
        loam_iter_close(it);
    }
}

static void graveyard_member(struct crew_member *m)
{
    struct graveyard *g = m->shared;
    struct random r;
    random_init(&r, m->seed);
    if (m->index < WRITERS) {
        writer(g, m->index, &r, m->index);
    } else {
        reader(g, &r, m->index);
    }
    watchdog_rest(&g->dog, m->index);
}

static void graveyard(uint64_t seed, bool mapped, uint64_t writes)
{
    struct load_disk disk;
    load_disk_init(&disk, !mapped);
    struct graveyard *g = aligned_alloc(64, sizeof *g);
    CHECK(g != NULL);
    memset(g, 0, sizeof *g);
    g->writes = writes;
    g->db = load_open(&disk, NULL);
    atomic_init(&g->writing, WRITERS);
    for (unsigned w = 0; w < WRITERS; w++) {
        g->writer[w].log = calloc(writes + 1, sizeof(struct alive));
        CHECK(g->writer[w].log != NULL);
    }
    struct janitor j;
    janitor_start(&j, g->db, 3000, splitmix64(&seed));
    watchdog_start(&g->dog, "graveyard");
    crew_run(WRITERS + READERS, graveyard_member, g, splitmix64(&seed));
    watchdog_stop(&g->dog);
    janitor_stop(&j);
    epoch_enter();
    struct db *db = slotmap_get(&registry_get()->dbs, HANDLE_OF(g->db));
    CHECK(atom_load(&db->dead.proven, relaxed) != 0 && atom_load(&db->dead.cut, relaxed) != 0);
    epoch_exit();
    GOES(loam_close(g->db));
    for (unsigned w = 0; w < WRITERS; w++) {
        free(g->writer[w].log);
    }
    free(g);
    load_disk_free(&disk);
}

STRESS(engine, scans_over_stretches_of_deletes_see_what_is_put_into_them)
{
    graveyard(splitmix64(&seed), true, 4000 * stress_scale);
    graveyard(splitmix64(&seed), false, 1500 * stress_scale);
}
