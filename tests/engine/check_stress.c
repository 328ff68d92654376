/* check_stress.c - A sound database in full use is never called damaged.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Writers, flushes and merges go on while one thread verifies the open database and another checks
 * its directory as a stranger would. Oracle: loam_verify gives LOAM_OK; loam_check gives LOAM_OK, or
 * LOAM_E_BUSY when the log was faster.
 */
#include "arena/random.h"
#include "arena/sync.h"
#include "tests/engine/db_support.h"
#include "tests/support/stress.h"

#define WRITERS 2u

struct scene {
    loam_db *db;
    loam_options options;
    _Atomic bool stop;
    _Atomic uint32_t verified, checked, busy;
    uint64_t seed;
};

static void *write_on(void *arg)
{
    struct scene *s = arg;
    static _Atomic uint32_t nth;
    struct random r;
    random_init(&r, s->seed + atom_add(&nth, 1, relaxed));
    uint8_t value[400] = {0};
    while (!atom_load(&s->stop, relaxed)) {
        uint64_t key = random_below(&r, 3000);
        loam_write_opts w = {.struct_size = sizeof w,
                             .flags = random_below(&r, 8) == 0 ? LOAM_W_DURABLE : 0};
        for (size_t i = 0; i < sizeof value; i += 8) {
            uint64_t word = random_next(&r);
            memcpy(value + i, &word, 8);
        }
        GOES(loam_put(s->db, NULL, loam_bytes(&key, sizeof key),
                      loam_bytes(value, random_below(&r, sizeof value)), &w));
        if (random_below(&r, 2000) == 0) {
            GOES(loam_flush(s->db, NULL));
        }
    }
    return NULL;
}

static int no_finding(void *ctx, const loam_damage *d)
{
    (void)ctx;
    CHECK_FAIL_("%s at %llu: %s", d->file, (unsigned long long)d->offset,
                loam_last_error()->message);
}

static void *verify_on(void *arg)
{
    struct scene *s = arg;
    while (!atom_load(&s->stop, relaxed)) {
        int rc = loam_verify(s->db, no_finding, NULL);
        CHECK(rc == LOAM_OK || rc == LOAM_E_BUSY);
        atom_add(&s->verified, rc == LOAM_OK, relaxed);
    }
    return NULL;
}

static void *check_on(void *arg)
{
    struct scene *s = arg;
    while (!atom_load(&s->stop, relaxed)) {
        int rc = loam_check("/db", &s->options, no_finding, NULL);
        CHECK(rc == LOAM_OK || rc == LOAM_E_BUSY);
        atom_add(rc == LOAM_OK ? &s->checked : &s->busy, 1, relaxed);
    }
    return NULL;
}

STRESS(check, a_sound_database_in_use_is_never_called_damaged)
{
    loam_vfs *disk = memory_disk();
    struct scene s = {.options = small_options(disk), .seed = seed};
    GOES(loam_open("/db", &s.options, &s.db));
    pthread_t t[WRITERS + 2];
    for (unsigned i = 0; i < WRITERS + 2; i++) {
        void *(*fn)(void *) = i < WRITERS ? write_on : i == WRITERS ? verify_on : check_on;
        CHECK_EQ(thread_start(&t[i], fn, &s), 0);
    }
    thread_sleep_micros(stress_scale * 1500000);
    atom_store(&s.stop, true, relaxed);
    for (unsigned i = 0; i < WRITERS + 2; i++) {
        thread_join(t[i]);
    }
    CHECK(atom_load(&s.verified, relaxed) != 0);
    fprintf(stderr, "verified %u, checked %u, busy %u\n", atom_load(&s.verified, relaxed),
            atom_load(&s.checked, relaxed), atom_load(&s.busy, relaxed));
    GOES(loam_close(s.db));
    loam_vfs_free(disk);
}
