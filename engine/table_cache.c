/* table_cache.c - Opens tables, and closes those the clock's hand finds unused.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/table_cache.h"

#include <assert.h>

#include "arena/epoch.h"
#include "arena/status.h"
#include "engine/filename.h"
#include "sstable/sst_reader.h"

#include "arena/poison.h"

#define POLL_BATCH 16 /* readers closed between two holds of the mutex */

int table_cache_init(struct table_cache *tc, const struct table_cache_options *o)
{
    *tc = (struct table_cache){.options = *o, .hold = UINT64_MAX};
    mutex_init(&tc->mu, RANK_STRUCT);
    for (unsigned i = 0; i < TABLE_CACHE_STRIPES; i++) {
        mutex_init(&tc->stripes[i], RANK_TABLE);
    }
    return LOAM_OK;
}

void table_cache_destroy(struct table_cache *tc)
{
    assert(tc->count == 0);
    if (tc->closing_count != 0) {
        epoch_synchronize();
        table_cache_poll(tc);
    }
    assert(tc->closing_count == 0);
    alloc_put(tc->options.alloc, MEM_TABLE, tc->clock, tc->cap * sizeof *tc->clock);
    alloc_put(tc->options.alloc, MEM_TABLE, tc->closing, tc->closing_cap * sizeof *tc->closing);
    for (unsigned i = 0; i < TABLE_CACHE_STRIPES; i++) {
        mutex_destroy(&tc->stripes[i]);
    }
    mutex_destroy(&tc->mu);
}

/* ---- the clock ------------------------------------------------------------------------------- */

static bool grow(struct alloc *a, void **array, uint32_t *cap, size_t element)
{
    uint32_t bigger = *cap != 0 ? *cap * 2 : 16;
    void *p = alloc_resize(a, MEM_TABLE, *array, *cap * element, bigger * element);
    if (p == NULL) {
        return false;
    }
    *array = p;
    *cap = bigger;
    return true;
}

/* Takes t out of the clock; the last table gets its place. */
static void clock_remove_locked(struct table_cache *tc, struct table *t)
{
    uint32_t i = t->cache_index - 1;
    assert(t->cache_index != 0 && tc->clock[i] == t);
    tc->clock[i] = tc->clock[--tc->count];
    tc->clock[i]->cache_index = i + 1;
    t->cache_index = 0;
    tc->bytes -= t->cache_bytes;
}

static bool over_limit_locked(const struct table_cache *tc)
{
    return tc->count > tc->options.max_open_files || tc->bytes > tc->options.max_bytes;
}

/* Takes the reader out of t unless it is pinned; it waits in `closing` for its epoch. */
static bool evict_table_locked(struct table_cache *tc, struct table *t)
{
    if (tc->closing_count == tc->closing_cap) {
        void *p = tc->closing;
        if (!grow(tc->options.alloc, &p, &tc->closing_cap, sizeof *tc->closing)) {
            return false;
        }
        tc->closing = p;
    }
    uint32_t none = 0;
    /* acquire: pairs with the release in table_cache_unpin(). */
    if (!atom_cas(&t->pins, &none, TABLE_PIN_CLOSING, acquire, relaxed)) {
        return false;
    }
    /* relaxed: readers that still find the old pointer are waited for through the stamp. */
    struct sst_reader *r = atom_swap(&t->reader, NULL, relaxed);
    clock_remove_locked(tc, t);
    tc->closing[tc->closing_count++] = (struct closing_reader){.reader = r, .stamp = epoch_stamp()};
    /* release: pairs with the acquire in table_cache_pin(), which then finds no reader. */
    atom_store(&t->pins, 0, release);
    atom_add(&tc->evictions, 1, relaxed); /* relaxed: a statistic */
    return true;
}

/* Lets the hand go round until one table other than `spare` is out. False: all are pinned. The
 * first round clears the used bits, so two rounds and a step are enough. */
static bool evict_one_locked(struct table_cache *tc, const struct table *spare)
{
    for (uint64_t steps = 2 * (uint64_t)tc->count + 1; steps > 0 && tc->count != 0; steps--) {
        tc->hand = tc->hand >= tc->count ? 0 : tc->hand;
        struct table *t = tc->clock[tc->hand];
        /* relaxed: a hint; a use that is missed costs one reopening. */
        if (t != spare && atom_load(&t->used, relaxed) == 0 && evict_table_locked(tc, t)) {
            return true;
        }
        atom_store(&t->used, 0, relaxed);
        tc->hand++;
    }
    return false;
}

static void shrink_locked(struct table_cache *tc, const struct table *spare)
{
    while (tc->count > 1 && over_limit_locked(tc) && evict_one_locked(tc, spare)) {
    }
}

static uint64_t room_below_locked(const struct table_cache *tc, uint64_t limit)
{
    /* When files are short tables come and go: reading more of each than is asked for is no gain. */
    return tc->count < tc->options.max_open_files && tc->bytes < limit ? limit - tc->bytes : 0;
}

static uint64_t room_locked(const struct table_cache *tc)
{
    uint64_t most = tc->options.max_bytes;
    return room_below_locked(tc, tc->hold < most ? tc->hold : most);
}

uint64_t table_cache_room(struct table_cache *tc)
{
    mutex_lock(&tc->mu);
    uint64_t n = room_locked(tc);
    mutex_unlock(&tc->mu);
    return n;
}

/* Memory has become free: closes tables that would fit as resident ones, which is how they will be
 * opened when they are needed next. */
static void promote_locked(struct table_cache *tc)
{
    uint64_t room = room_locked(tc);
    for (uint32_t i = tc->count; i-- > 0;) {
        struct table *t = tc->clock[i]; /* its place is taken by one that was looked at */
        uint64_t want = t->cache_want;
        if (want != 0 && want <= room && evict_table_locked(tc, t)) {
            room -= want;
        }
    }
}

static bool install(struct table_cache *tc, struct table *t, struct sst_reader *r)
{
    mutex_lock(&tc->mu);
    bool ok = tc->count < tc->cap;
    if (!ok) {
        void *p = tc->clock;
        ok = grow(tc->options.alloc, &p, &tc->cap, sizeof *tc->clock);
        tc->clock = p;
    }
    if (ok) {
        tc->clock[tc->count++] = t;
        t->cache_index = tc->count;
        t->cache_bytes = sst_memory(r);
        t->cache_want = sst_want(r);
        tc->bytes += t->cache_bytes;
        if (t->cache_want > tc->held_back && tc->hold < tc->options.max_bytes &&
            t->cache_want <= room_below_locked(tc, tc->options.max_bytes)) {
            tc->held_back = t->cache_want;
        }
        atom_store(&t->used, 1, relaxed); /* relaxed: a hint */
        /* release: pairs with the acquire in table_cache_get(). */
        atom_store(&t->reader, r, release);
        shrink_locked(tc, t);
    }
    mutex_unlock(&tc->mu);
    return ok;
}

/* ---- closing --------------------------------------------------------------------------------- */

void table_cache_poll(struct table_cache *tc)
{
    uint32_t n;
    do {
        struct sst_reader *passed[POLL_BATCH];
        n = 0;
        mutex_lock(&tc->mu);
        for (uint32_t i = tc->closing_count; i-- > 0 && n < POLL_BATCH;) {
            if (epoch_passed(tc->closing[i].stamp)) {
                passed[n++] = tc->closing[i].reader;
                tc->closing[i] = tc->closing[--tc->closing_count];
            }
        }
        mutex_unlock(&tc->mu);
        for (uint32_t i = 0; i < n; i++) {
            sst_close(passed[i]);
        }
    } while (n == POLL_BATCH);
}

bool table_cache_drop(struct table_cache *tc, struct table *t)
{
    uint32_t none = 0;
    /* acquire: pairs with the release in table_cache_unpin(): the holder is done with the reader.
     */
    if (!atom_cas(&t->pins, &none, TABLE_PIN_CLOSING, acquire, relaxed)) {
        return false;
    }
    mutex_lock(&tc->mu);
    struct sst_reader *r = atom_swap(&t->reader, NULL, acquire); /* pairs with install_locked() */
    if (r != NULL) {
        clock_remove_locked(tc, t);
        promote_locked(tc);
    }
    mutex_unlock(&tc->mu);
    sst_close(r);
    return true;
}

/* ---- opening --------------------------------------------------------------------------------- */

static int open_reader(struct table_cache *tc, const struct table *t, struct sst_reader **r)
{
    char path[FILENAME_CAP];
    int rc = filename_make(tc->options.dir, FILE_TABLE, t->meta.number, path);
    if (rc != LOAM_OK) {
        return rc;
    }
    struct sst_open_options o = {.vfs = tc->options.vfs,
                                 .alloc = tc->options.alloc,
                                 .cache = tc->options.blocks,
                                 .large = tc->options.large,
                                 .path = path,
                                 .file_number = t->meta.number,
                                 .db_id = tc->db_id,
                                 .size = t->meta.size,
                                 .paranoid = tc->options.paranoid,
                                 .resident_bytes = table_cache_room(tc)};
    o.order_later = !tc->options.order.find(tc->options.order.ctx, t->meta.ks, &o.cmp);
    if (o.order_later && !tc->options.order_later) {
        return FAIL(LOAM_E_FORMAT, "the comparator of keyspace %u was not given", t->meta.ks);
    }
    atom_add(&tc->opens, 1, relaxed); /* relaxed: a statistic */
    rc = sst_open(&o, r);
    return rc == LOAM_E_NOENT ? FAIL_CORRUPT(t->meta.number, 0, "table %llu is missing",
                                             (unsigned long long)t->meta.number)
                              : rc;
}

static struct mutex *stripe_of(struct table_cache *tc, const struct table *t)
{
    return &tc->stripes[t->meta.number % TABLE_CACHE_STRIPES];
}

int table_cache_open_(struct table_cache *tc, struct table *t, struct sst_reader **out)
{
    table_cache_poll(tc);
    struct mutex *stripe = stripe_of(tc, t);
    mutex_lock(stripe);
    int rc = LOAM_OK;
    /* acquire: as in table_cache_get(); another thread may have opened it meanwhile. */
    struct sst_reader *r = atom_load(&t->reader, acquire);
    if (r == NULL) {
        rc = open_reader(tc, t, &r);
        if (rc == LOAM_OK && !install(tc, t, r)) {
            sst_close(r);
            rc = FAIL(LOAM_E_NOMEM, "no memory to keep a table open");
        }
    }
    mutex_unlock(stripe);
    if (rc == LOAM_OK) {
        *out = r;
    }
    return rc;
}

void table_cache_adopt(struct table_cache *tc, struct table *t, struct sst_reader *r)
{
    struct mutex *stripe = stripe_of(tc, t);
    mutex_lock(stripe);
    /* relaxed: only whether there is one matters. */
    if (atom_load(&t->reader, relaxed) != NULL || !install(tc, t, r)) {
        sst_close(r);
    }
    mutex_unlock(stripe);
}

/* ---- pins ------------------------------------------------------------------------------------ */

int table_cache_pin(struct table_cache *tc, struct table *t, struct sst_reader **out)
{
    uint32_t n = atom_load(&t->pins, relaxed);
    /* acquire: pairs with the release in evict_table_locked(), whose NULL reader is then seen. */
    while (n == TABLE_PIN_CLOSING || !atom_cas(&t->pins, &n, n + 1, acquire, relaxed)) {
        if (n == TABLE_PIN_CLOSING) {
            spin_pause(); /* the clock is between two stores */
            n = atom_load(&t->pins, relaxed);
        }
    }
    struct sst_reader *r = atom_load(&t->reader, acquire); /* acquire: as in table_cache_get() */
    int rc = r != NULL ? LOAM_OK : table_cache_open_(tc, t, &r);
    if (rc != LOAM_OK) {
        table_cache_unpin(tc, t);
        return rc;
    }
    *out = r;
    return LOAM_OK;
}

void table_cache_unpin(struct table_cache *tc, struct table *t)
{
    (void)tc;
    /* release: pairs with the acquire in evict_table_locked() and table_cache_drop(). */
    uint32_t before = atom_sub(&t->pins, 1, release);
    assert(before != 0 && before != TABLE_PIN_CLOSING);
    (void)before;
}

/* ---- limits ---------------------------------------------------------------------------------- */

void table_cache_set_max_bytes(struct table_cache *tc, uint64_t max_bytes)
{
    mutex_lock(&tc->mu);
    tc->options.max_bytes = max_bytes;
    shrink_locked(tc, NULL);
    promote_locked(tc);
    mutex_unlock(&tc->mu);
}

void table_cache_hold(struct table_cache *tc, uint64_t bytes)
{
    mutex_lock(&tc->mu);
    bool more = bytes > tc->hold;
    tc->hold = bytes;
    if (more) {
        promote_locked(tc);
    }
    mutex_unlock(&tc->mu);
}

uint64_t table_cache_held_back(struct table_cache *tc)
{
    mutex_lock(&tc->mu);
    uint64_t bytes = tc->held_back;
    tc->held_back = 0;
    mutex_unlock(&tc->mu);
    return bytes;
}

uint64_t table_cache_held_room(struct table_cache *tc)
{
    mutex_lock(&tc->mu);
    uint64_t n = tc->hold == UINT64_MAX ? UINT64_MAX : tc->hold > tc->bytes ? tc->hold - tc->bytes : 0;
    mutex_unlock(&tc->mu);
    return n;
}

uint64_t table_cache_bytes(struct table_cache *tc)
{
    mutex_lock(&tc->mu);
    uint64_t n = tc->bytes;
    mutex_unlock(&tc->mu);
    return n;
}

uint64_t table_cache_bytes_of(struct table_cache *tc, uint32_t ks)
{
    uint64_t n = 0;
    mutex_lock(&tc->mu);
    for (uint32_t i = 0; i < tc->count; i++) {
        n += tc->clock[i]->meta.ks == ks ? tc->clock[i]->cache_bytes : 0;
    }
    mutex_unlock(&tc->mu);
    return n;
}

uint32_t table_cache_open_count(struct table_cache *tc)
{
    mutex_lock(&tc->mu);
    uint32_t n = tc->count;
    mutex_unlock(&tc->mu);
    return n;
}
