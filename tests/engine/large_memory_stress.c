/* large_memory_stress.c - Values of a megabyte in many hands: what they take stays within the memory budget.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the bytes that the caller's allocator has given out at any moment, and the database's own count,
 * which has the mapped memory, too, each at most a fixed allowance above the budget; and every value read
 * says which key it belongs to. A reader that is refused is told so, and gets what it asked for once
 * others have given back what they hold.
 */
#include "arena/random.h"
#include "arena/sync.h"
#include "tests/engine/load_support.h"
#include "tests/support/meter.h"

#define MIB       ((uint64_t)1 << 20)
#define ALLOWANCE (16 * MIB)
#define VALUE     ((size_t)1 << 20)
#define KEYS      48u
#define HANDLES   200u
#define SCANNERS  8u
#define SNAPSHOTS 200u

/* ---- the database ------------------------------------------------------------------------------ */

struct hall {
    struct load_disk disk;
    struct meter meter;
    loam_allocator allocator;
    loam_db *db;
    uint64_t budget;
    unsigned scanners; /* at once, of whom none may be refused */
    uint8_t *value[SCANNERS]; /* of each writer */
    struct watchdog dog;
    uint64_t rounds;
    _Atomic uint64_t refused;
};

/* Every other value is one that compresses. */
static loam_slice value_make(uint64_t key, uint64_t version, uint8_t *to)
{
    struct random r;
    random_init(&r, key * 1000 + version);
    memset(to, (int)key, VALUE);
    for (size_t at = 0; key % 2 != 0 && at + 8 <= VALUE; at += 8) {
        uint64_t word = random_next(&r);
        memcpy(to + at, &word, 8);
    }
    memcpy(to, &key, 8);
    memcpy(to + VALUE - 8, &key, 8);
    return loam_bytes(to, VALUE);
}

static void value_check(loam_slice value, uint64_t key)
{
    CHECK_EQ(value.size, VALUE);
    CHECK(memcmp(value.data, &key, 8) == 0);
    CHECK(memcmp((const char *)value.data + VALUE - 8, &key, 8) == 0);
}

static void open_hall(struct hall *h)
{
    h->meter.now = h->meter.peak = 0;
    h->allocator = meter_allocator(&h->meter);
    loam_options o = {.struct_size = sizeof o,
                      .memory_budget = h->budget,
                      .threads = 2,
                      .allocator = &h->allocator};
    h->db = load_open(&h->disk, &o);
}

/* Ends a part of the test: what it took, and that all of it came back. */
static void close_hall(struct hall *h, const char *what)
{
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(h->db, NULL, &s));
    printf("    %s: budget %" PRIu64 " KiB, counted peak %" PRIu64 " KiB, of it from the allocator %" PRIu64
           " KiB at once, %" PRIu64 " refused\n",
           what, h->budget >> 10, s.memory_peak >> 10, h->meter.peak >> 10, h->refused);
    fflush(stdout);
    CHECK(s.memory_peak <= h->budget + ALLOWANCE);
    CHECK(h->meter.peak <= h->budget + ALLOWANCE);
    GOES(loam_close(h->db));
    h->refused = 0;
}

static void put_value(struct hall *h, uint64_t key, uint64_t version, uint8_t *room)
{
    struct load_key k = load_key_of(key);
    GOES(loam_put(h->db, NULL, load_key_slice(&k), value_make(key, version, room), NULL));
}

/* Values in several levels. */
static void fill(struct hall *h)
{
    open_hall(h);
    for (uint64_t n = 0; n < 2; n++) {
        for (uint64_t i = 0; i < KEYS; i++) {
            put_value(h, (i * 17) % KEYS, n, h->value[0]);
        }
    }
    close_hall(h, "filling");
}

/* ---- holders ----------------------------------------------------------------------------------- */

static void expect_refusal(struct hall *h, int rc)
{
    CHECK_EQ(rc, LOAM_E_BUDGET);
    CHECK((loam_last_error()->flags & LOAM_ERR_RETRY) != 0);
    h->refused++;
}

static void hold_iterators(struct hall *h, bool forward)
{
    static loam_iter *it[HANDLES];
    unsigned held = 0, last = 0;
    for (unsigned i = 0; i < HANDLES; i++) {
        struct load_key k = load_key_of(i % KEYS);
        GOES(loam_iter_open(h->db, NULL, NULL, &it[i]));
        int rc = forward ? loam_iter_seek(it[i], load_key_slice(&k))
                         : loam_iter_seek_le(it[i], load_key_slice(&k));
        if (rc == LOAM_OK) {
            value_check(loam_iter_value(it[i]), i % KEYS);
            held++;
            last = i;
        } else {
            expect_refusal(h, rc);
            CHECK_EQ(loam_iter_value(it[i]).size, 0);
        }
    }
    CHECK(held >= h->scanners);
    for (unsigned i = 0; i <= last; i++) { /* what is lent stays what it is */
        if (loam_iter_key(it[i]).size != 0) {
            value_check(loam_iter_value(it[i]), i % KEYS);
        }
    }
    for (unsigned i = 0; i < HANDLES; i++) { /* what one gives back the next one has */
        if (i > 0) {
            loam_iter_close(it[i - 1]);
        }
        struct load_key k = load_key_of(i % KEYS);
        if (i > last) {
            GOES(loam_iter_seek(it[i], load_key_slice(&k)));
            value_check(loam_iter_value(it[i]), i % KEYS);
        }
    }
    loam_iter_close(it[HANDLES - 1]);
}

static void hold_pins(struct hall *h)
{
    static loam_pin pin[HANDLES];
    unsigned held = 0;
    for (unsigned i = 0; i < HANDLES; i++) {
        struct load_key k = load_key_of(i % KEYS);
        int rc = loam_get_pin(h->db, NULL, load_key_slice(&k), &pin[i], NULL);
        if (rc == LOAM_OK) {
            value_check(pin[i].value, i % KEYS);
            held++;
        } else {
            expect_refusal(h, rc);
            CHECK_EQ(pin[i].value.size, 0);
        }
    }
    CHECK(held >= h->scanners);
    for (unsigned i = 0; i < held; i++) {
        struct load_key k = load_key_of(i % KEYS);
        value_check(pin[i].value, i % KEYS);
        loam_unpin(&pin[i]);
        GOES(loam_get_pin(h->db, NULL, load_key_slice(&k), &pin[i], NULL));
    }
    for (unsigned i = 0; i < HANDLES; i++) {
        loam_unpin(&pin[i]);
    }
}

/* ---- scans ------------------------------------------------------------------------------------- */

static void scan_once(struct hall *h, struct crew_member *m, bool forward)
{
    loam_iter *it;
    uint64_t i = 0;
    GOES(loam_iter_open(h->db, NULL, NULL, &it));
    int rc = forward ? loam_iter_first(it) : loam_iter_last(it);
    for (; rc == LOAM_OK; rc = forward ? loam_iter_next(it) : loam_iter_prev(it)) {
        uint64_t key = forward ? i : KEYS - 1 - i;
        CHECK_EQ(load_key_number(loam_iter_key(it)), key);
        value_check(loam_iter_value(it), key);
        watchdog_beat(&h->dog, m->index);
        i++;
    }
    CHECK_EQ(rc, LOAM_NOTFOUND); /* nobody is refused: one value each has room */
    CHECK_EQ(i, KEYS);
    loam_iter_close(it);
}

static void scanner(struct crew_member *m)
{
    struct hall *h = m->shared;
    for (uint64_t n = 0; n < h->rounds; n++) {
        scan_once(h, m, (n + m->index) % 2 == 0);
    }
    watchdog_rest(&h->dog, m->index);
}

/* ---- everything at once ------------------------------------------------------------------------ */

static void get_some(struct hall *h, struct crew_member *m, struct random *r)
{
    uint64_t key = random_below(r, KEYS);
    struct load_key k = load_key_of(key);
    size_t n = 0;
    GOES(loam_get(h->db, NULL, load_key_slice(&k), h->value[m->index], VALUE, &n, NULL));
    value_check(loam_bytes(h->value[m->index], n), key);
}

static void pin_some(struct hall *h, struct random *r)
{
    uint64_t key = random_below(r, KEYS);
    struct load_key k = load_key_of(key);
    loam_pin pin = LOAM_PIN_INIT;
    int rc = loam_get_pin(h->db, NULL, load_key_slice(&k), &pin, NULL);
    if (rc < 0) {
        expect_refusal(h, rc);
    } else {
        value_check(pin.value, key);
    }
    loam_unpin(&pin);
}

static void seek_some(struct hall *h, struct random *r, loam_iter *it)
{
    uint64_t key = random_below(r, KEYS);
    struct load_key k = load_key_of(key);
    int rc = loam_iter_seek(it, load_key_slice(&k));
    for (; rc == LOAM_OK && random_below(r, 3) != 0; key++) {
        value_check(loam_iter_value(it), key);
        rc = loam_iter_next(it);
    }
    if (rc < 0) {
        expect_refusal(h, rc);
    }
}

static void bustle(struct crew_member *m)
{
    struct hall *h = m->shared;
    struct random r;
    loam_iter *it;
    random_init(&r, m->seed);
    GOES(loam_iter_open(h->db, NULL, NULL, &it));
    for (uint64_t n = 0; n < 40 * h->rounds; n++) {
        switch (m->index < 2 ? 0 : random_below(&r, 4)) {
        case 0:
            if (m->index < 3) {
                put_value(h, random_below(&r, KEYS), 10 + n, h->value[m->index]);
            }
            break;
        case 1:
            get_some(h, m, &r);
            break;
        case 2:
            pin_some(h, &r);
            break;
        default:
            seek_some(h, &r, it);
        }
        watchdog_beat(&h->dog, m->index);
    }
    loam_iter_close(it);
    watchdog_rest(&h->dog, m->index);
}

static void under_snapshots(struct hall *h, uint64_t seed)
{
    static loam_snap *snap[SNAPSHOTS];
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        if (i % 4 == 0) {
            put_value(h, i / 4 % KEYS, 5, h->value[0]);
        }
        GOES(loam_snap_take(h->db, &snap[i]));
    }
    watchdog_start(&h->dog, "large values");
    crew_run(SCANNERS, bustle, h, seed);
    watchdog_stop(&h->dog);
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        loam_snap_release(snap[i]);
    }
}

/* ---- the test ---------------------------------------------------------------------------------- */

static void run_hall(uint64_t budget, uint64_t seed)
{
    struct hall *h = aligned_alloc(64, (sizeof *h + 63) & ~(size_t)63);
    CHECK(h != NULL);
    memset(h, 0, sizeof *h);
    h->budget = budget;
    h->scanners = budget / 2 < SCANNERS * VALUE ? (unsigned)(budget / 2 / VALUE) : SCANNERS;
    h->rounds = 2 * stress_scale;
    for (unsigned i = 0; i < SCANNERS; i++) {
        h->value[i] = malloc(VALUE);
        CHECK(h->value[i] != NULL);
    }
    load_disk_init(&h->disk, false);
    fill(h);
    open_hall(h);
    hold_iterators(h, true);
    close_hall(h, "iterators");
    open_hall(h);
    hold_iterators(h, false);
    close_hall(h, "iterators, backward");
    open_hall(h);
    hold_pins(h);
    close_hall(h, "pins");
    open_hall(h);
    watchdog_start(&h->dog, "large scans");
    crew_run(h->scanners, scanner, h, seed);
    watchdog_stop(&h->dog);
    close_hall(h, "scans");
    open_hall(h);
    under_snapshots(h, seed);
    close_hall(h, "all at once");
    load_disk_free(&h->disk);
    CHECK_EQ(h->meter.now, 0);
    for (unsigned i = 0; i < SCANNERS; i++) {
        free(h->value[i]);
    }
    free(h);
}

STRESS(engine, large_values_stay_within_a_small_budget)
{
    run_hall(8 * MIB, seed);
}

STRESS(engine, large_values_stay_within_a_middling_budget)
{
    run_hall(64 * MIB, seed);
}
