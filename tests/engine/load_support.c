/* load_support.c - Disks, values, the janitor and the watchdog of the engine's stress tests.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/engine/load_support.h"

#include <unistd.h>

#include "arena/random.h"
#include "arena/sync.h"

/* ---- disks -------------------------------------------------------------------------------------
 */

static const loam_vfs *vfs_of(const struct load_disk *d)
{
    return d->fault != NULL ? &d->slow : d->memory;
}

/* What other threads do while the disk works is what these disks are for. */
#define SYNC_US 100u

static loam_vfs quick; /* the calls of any fault vfs */

static int slow_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    thread_sleep_micros(SYNC_US);
    return quick.sync(ctx, f, data_only);
}

static int slow_sync_dir(void *ctx, const char *dir)
{
    thread_sleep_micros(SYNC_US);
    return quick.sync_dir(ctx, dir);
}

void load_make_mortal(struct load_disk *d, uint64_t seed)
{
    d->seed = seed;
    const loam_fault_plan plan = {.struct_size = sizeof plan,
                                  .seed = splitmix64(&d->seed),
                                  .names = seed % 2 == 0 ? LOAM_NAMES_POSIX : LOAM_NAMES_ORDERED};
    GOES(loam_vfs_fault(d->memory, &plan, &d->fault));
    quick = *d->fault;
    d->slow = *d->fault;
    d->slow.sync = slow_sync;
    d->slow.sync_dir = slow_sync_dir;
}

void load_cut(struct load_disk *d, uint64_t variant)
{
    GOES(loam_vfs_power_cut(d->fault, variant, &d->after));
}

void load_reboot(struct load_disk *d, loam_db *db)
{
    const loam_fault_plan dead = {.struct_size = sizeof dead, .crash_at = 1};
    GOES(loam_vfs_set_plan(d->fault, &dead));
    (void)loam_close(db); /* of a process that is no more: only its memory is given back */
    loam_vfs_free(d->fault);
    loam_vfs_free(d->memory);
    d->memory = d->after;
    load_make_mortal(d, d->seed);
}

void load_disk_init(struct load_disk *d, bool memory)
{
    *d = (struct load_disk){0};
    if (memory) {
        d->memory = memory_disk();
        strcpy(d->dir, "/db");
        return;
    }
    const char *tmp = getenv("TMPDIR");
    snprintf(d->dir, sizeof d->dir, "%s/loam-stress-XXXXXX", tmp != NULL ? tmp : "/tmp");
    CHECK(mkdtemp(d->dir) != NULL);
}

void load_disk_free(struct load_disk *d)
{
    loam_options o = {.struct_size = sizeof o, .vfs = vfs_of(d)};
    GOES(loam_destroy(d->dir, &o));
    if (d->memory != NULL) {
        loam_vfs_free(d->fault);
        loam_vfs_free(d->memory);
    } else {
        CHECK(access(d->dir, F_OK) != 0); /* nothing foreign was left in it */
    }
}

loam_db *load_open(const struct load_disk *d, const loam_options *more)
{
    loam_options o = more != NULL ? *more : small_options(NULL);
    o.struct_size = sizeof o;
    o.vfs = vfs_of(d);
    loam_db *db;
    GOES(loam_open(d->dir, &o, &db));
    return db;
}

/* ---- keys and values ---------------------------------------------------------------------------
 */

struct load_key load_key_of(uint64_t number)
{
    struct load_key k;
    snprintf(k.bytes, sizeof k.bytes, "k%08u", (unsigned)(number % 100000000));
    return k;
}

uint64_t load_key_number(loam_slice key)
{
    CHECK_EQ(key.size, 9);
    char digits[9];
    memcpy(digits, (const char *)key.data + 1, 8);
    digits[8] = '\0';
    return strtoull(digits, NULL, 10);
}

static size_t value_size(uint64_t id)
{
    uint64_t s = id;
    uint64_t r = splitmix64(&s);
    return 8 + (size_t)(r % 16 != 0 ? r / 16 % 120 : r / 16 % (LOAD_VALUE_MAX - 8));
}

size_t load_value_make(uint64_t id, uint8_t out[LOAD_VALUE_MAX])
{
    size_t n = value_size(id);
    memcpy(out, &id, 8);
    for (size_t i = 8; i < n; i++) {
        out[i] = (uint8_t)(id * 31 + i * 7);
    }
    return n;
}

uint64_t load_value_id(loam_slice value)
{
    CHECK(value.size >= 8);
    uint64_t id;
    memcpy(&id, value.data, 8);
    uint8_t want[LOAD_VALUE_MAX];
    size_t n = load_value_make(id, want);
    CHECK_BYTES(value.data, value.size, want, n);
    return id;
}

/* ---- janitor -----------------------------------------------------------------------------------
 */

static int count_name(void *ctx, loam_slice name)
{
    CHECK(name.size != 0);
    ++*(unsigned *)ctx;
    return 0;
}

static void look_at_numbers(loam_db *db, struct random *r)
{
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    CHECK(s.memory_used <= s.memory_peak);
    char text_buf[8192];
    size_t need;
    int rc = loam_format_stats(db, random_below(r, 2) != 0 ? LOAM_JSON : LOAM_TEXT, text_buf,
                               sizeof text_buf, &need);
    CHECK(rc == LOAM_OK || (rc == LOAM_TRUNCATED && need >= sizeof text_buf));
    static const char *const names[] = {"memory_used",         "levels",          "level.0.files",
                                        "sealed_memtables",    "memtables",       "last_seq",
                                        "running_compactions", "pending_flushes", "level.1.bytes"};
    uint64_t v;
    GOES(loam_property(db, NULL, names[random_below(r, sizeof names / sizeof *names)], &v));
    loam_hist h;
    GOES(loam_get_hist(db, (int)random_below(r, LOAM_HIST_COUNT), &h));
    unsigned spaces = 0;
    GOES(loam_ks_list(db, count_name, &spaces));
    CHECK(spaces >= 1);
    CHECK_EQ(loam_health(db, NULL), LOAM_HEALTHY);
}

static void *janitor_main(void *arg)
{
    struct janitor *j = arg;
    struct random r;
    random_init(&r, j->seed);
    while (!atomic_load_explicit(&j->stop, memory_order_relaxed)) {
        switch (random_below(&r, 12)) {
        case 0:
        case 1:
            GOES(loam_compact(j->db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
            break;
        case 2:
            GOES(loam_pause(j->db, 1));
            GOES(loam_flush(j->db, NULL));
            GOES(loam_pause(j->db, 0));
            break;
        case 3: {
            int rc = loam_wait_idle(j->db, 5000);
            CHECK(rc == LOAM_OK || rc == LOAM_STOPPED);
            break;
        }
        case 4:
            look_at_numbers(j->db, &r);
            break;
        case 5: {
            int rc = loam_sync(j->db);
            CHECK(rc == LOAM_OK || rc == LOAM_E_UNSUPPORTED); /* there is no log */
            break;
        }
        case 6:
            GOES(loam_resume(j->db));
            break;
        default:
            GOES(loam_flush(j->db, NULL));
            break;
        }
        j->jobs++;
        thread_sleep_micros(random_below(&r, 2 * (uint64_t)j->micros + 1));
    }
    return NULL;
}

void janitor_start(struct janitor *j, loam_db *db, uint32_t micros, uint64_t seed)
{
    *j = (struct janitor){.db = db, .micros = micros, .seed = seed};
    CHECK_EQ(pthread_create(&j->thread, NULL, janitor_main, j), 0);
}

void janitor_stop(struct janitor *j)
{
    atomic_store_explicit(&j->stop, true, memory_order_relaxed);
    CHECK_EQ(pthread_join(j->thread, NULL), 0);
}

/* ---- watchdog ----------------------------------------------------------------------------------
 */

#define LOOK_US 100000u
#define NAP_US  1000u /* its end is waited for */
#define PATIENCE 600u /* looks; a loaded machine lets a thread, or the disk, wait for long */

static void *watchdog_main(void *arg)
{
    struct watchdog *w = arg;
    uint64_t last[WATCH_MAX] = {0};
    unsigned still[WATCH_MAX] = {0}, naps = 0;
    while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
        thread_sleep_micros(NAP_US);
        if (++naps % (LOOK_US / NAP_US) != 0) {
            continue;
        }
        for (unsigned i = 0; i < WATCH_MAX; i++) {
            uint64_t beats = atomic_load_explicit(&w->member[i].beats, memory_order_relaxed);
            still[i] = beats != 0 && beats == last[i] ? still[i] + 1 : 0;
            last[i] = beats;
            if (still[i] >= PATIENCE) {
                CHECK_FAIL_("%s: thread %u has made no progress for %u ms after %" PRIu64 " steps",
                            w->what, i, PATIENCE * LOOK_US / 1000, beats);
            }
        }
    }
    return NULL;
}

void watchdog_start(struct watchdog *w, const char *what)
{
    memset(w, 0, sizeof *w);
    w->what = what;
    CHECK_EQ(pthread_create(&w->thread, NULL, watchdog_main, w), 0);
}

uint64_t watchdog_beats(const struct watchdog *w)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < WATCH_MAX; i++) {
        sum += atomic_load_explicit(&w->member[i].beats, memory_order_relaxed); /* relaxed: a guess */
    }
    return sum;
}

void watchdog_stop(struct watchdog *w)
{
    atomic_store_explicit(&w->stop, true, memory_order_relaxed);
    CHECK_EQ(pthread_join(w->thread, NULL), 0);
}
