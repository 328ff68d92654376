/* block_cache.c - Blocks in ring memory: staged by builders, cached for readers.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A ring entry's owner is the table's handle and its cookie the block number. While the handle is
 * only reserved, the same number finds the stage that knows how to write the block; there are as
 * many stages as background threads, so a list under a mutex is enough for a step that compresses a
 * block anyway.
 *
 * Invariants
 *   1. addr[block], and a slot of the directory, only ever changes by CAS from an address that is
 *      stale, or whose entry the reclaimer is moving, to that of an entry whose owner is the table
 *      (in the directory, of any table; there a slot may be taken from an entry that lives, too).
 *      Addresses are never used again, so the CAS cannot succeed by mistake.
 *   2. A filler enters its address before it publishes: who reads it meanwhile misses, and a
 *      loser's entry was never known to anybody and can be given back.
 *   3. stage.pending counts the stage's entries that are READY, or claimed and not yet accounted
 *      for. A stage leaves the list, and its memory may go, only when pending is 0; an evictor
 *      touches a stage only under the mutex or while its claimed entry is counted in pending.
 */
#include "sstable/block_cache.h"

#include <assert.h>
#include <string.h>

#include "arena/epoch.h"
#include "arena/status.h"

#include "arena/poison.h"

#define UNIT_BYTES   1024u
#define BUCKET       8u /* slots: one cache line */
#define ADDRESS_BITS 52 /* of a ring address that a slot of the directory holds; the rest is hash */
#define ADDRESS_MAX  (((uint64_t)1 << ADDRESS_BITS) - 1)
/* Share of hits by loam-bench --suite=cache, 20 and 43 % of the data cached, with an LRU of as many bytes in
 * brackets: Zipf 0.99 0.686 [0.676] and 0.793 [0.818], with walks between 0.684 [0.670] and 0.791 [0.807],
 * uniform 0.191 [0.208] and 0.410 [0.446], a hot set that shifts 0.896 [0.917] and 0.910 [0.941]. 75 % gives
 * the same and copies more. Blocks that enter as if used would take the chances of those that are. */
#define SECOND_CHANCE_PERCENT 50
#define DIRTY_LIMIT_BYTES     ((uint64_t)256 << 10) /* blocks are compressed while still in L2 */
#define WAIT_MICROS           1000u
#define REACH_BYTES           ((size_t)1 << 20) /* some tenths of a millisecond */

/* ---- the directory --------------------------------------------------------------------------- */

/* splitmix64's finaliser over both. */
static uint64_t hash_block(uint64_t handle, uint64_t block)
{
    uint64_t x = handle * 0x9e3779b97f4a7c15u + block;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static _Atomic uint64_t *bucket_of(const struct block_cache *c, uint64_t hash)
{
    return c->directory + (((hash & UINT32_MAX) * (c->directory_slots / BUCKET)) >> 32) * BUCKET;
}

static uint64_t slot_value(uint64_t hash, uint64_t addr)
{
    assert(addr != 0 && addr <= ADDRESS_MAX);
    return (hash & ~ADDRESS_MAX) | addr;
}

/* Whether a slot may be the hash's. */
static bool slot_fits(uint64_t slot, uint64_t hash)
{
    return slot != 0 && ((slot ^ hash) & ~ADDRESS_MAX) == 0;
}

/* relocate() for a table without an array. */
static bool directory_move(struct block_cache *c, const struct cached_blocks *t, uint64_t block,
                           uint64_t old_addr, uint64_t new_addr)
{
    if (old_addr > ADDRESS_MAX || new_addr > ADDRESS_MAX) {
        return false;
    }
    uint64_t hash = hash_block(t->handle, block);
    _Atomic uint64_t *slot = bucket_of(c, hash);
    for (unsigned i = 0; i < BUCKET; i++) {
        uint64_t old = slot_value(hash, old_addr);
        /* relaxed: the swap decides. */
        if (atom_load(&slot[i], relaxed) == old) {
            /* release: pairs with the acquire in directory_peek(); the copy is published. */
            return new_addr == 0 ||
                   atom_cas(&slot[i], &old, slot_value(hash, new_addr), acq_rel, relaxed);
        }
    }
    return false;
}

static const void *directory_peek(struct block_cache *c, const struct cached_blocks *t,
                                  uint32_t block, bool touch, size_t *size)
{
    uint64_t hash = hash_block(t->handle, block);
    const _Atomic uint64_t *slot = bucket_of(c, hash);
    for (unsigned i = 0; i < BUCKET; i++) {
        /* acquire: pairs with the releases in directory_enter() and directory_move(). */
        uint64_t seen = atom_load(&slot[i], acquire);
        if (!slot_fits(seen, hash)) {
            continue;
        }
        const void *p =
            ring_read_owned(&c->ring, seen & ADDRESS_MAX, t->handle, block, touch, size);
        if (p != NULL) {
            return p;
        }
    }
    return NULL;
}

/* Puts the address into an empty slot, one whose entry is gone, or else any. False: another thread was
 * at the same one. */
static bool directory_enter(struct block_cache *c, const struct cached_blocks *t, uint32_t block,
                            uint64_t addr)
{
    if (addr > ADDRESS_MAX) {
        return false; /* after 2^28 times round the ring */
    }
    uint64_t hash = hash_block(t->handle, block);
    _Atomic uint64_t *slot = bucket_of(c, hash);
    unsigned at = (unsigned)(addr % BUCKET);
    uint64_t seen = atom_load(&slot[at], relaxed); /* relaxed: taken whatever it is */
    for (unsigned i = 0; i < BUCKET; i++) {
        /* acquire: whether the entry lives is looked up as of its entering at least. */
        uint64_t there = atom_load(&slot[i], acquire);
        if (there == 0 || !ring_live(&c->ring, there & ADDRESS_MAX)) {
            at = i;
            seen = there; /* and not what another thread has entered since */
            break;
        }
    }
    /* release: pairs with the acquire in directory_peek(). */
    return atom_cas(&slot[at], &seen, slot_value(hash, addr), acq_rel, relaxed);
}

void block_cache_adopt(struct block_cache *c, const struct cached_blocks *t, uint32_t block,
                       uint64_t addr)
{
    assert(t->addr == NULL && block < t->count);
    (void)directory_enter(c, t, block, addr);
}

/* ---- life ------------------------------------------------------------------------------------ */

/* The reclaimer moved a block, or asks whether moving it is worth while. */
static bool relocate(void *arg, uint64_t owner, uint64_t cookie, uint64_t old_addr,
                     uint64_t new_addr)
{
    struct block_cache *c = arg;
    bool known = false;
    epoch_enter();
    struct cached_blocks *t = slotmap_get(&c->tables, owner);
    if (t != NULL && cookie < t->count && t->addr == NULL) {
        known = directory_move(c, t, cookie, old_addr, new_addr);
    } else if (t != NULL && cookie < t->count) {
        _Atomic uint64_t *slot = &t->addr[cookie];
        /* release: pairs with the acquire in block_cache_peek(); the copy is published. relaxed for
         * the question: the swap decides. */
        known = new_addr == 0 ? atom_load(slot, relaxed) == old_addr
                              : atom_cas(slot, &old_addr, new_addr, acq_rel, relaxed);
    }
    epoch_exit();
    return known;
}

/* Of a cache of so many bytes: as many misses are remembered as the smallest blocks fit. */
static size_t missed_count(size_t bytes)
{
    return (size_t)1 << (63 - __builtin_clzll(bytes / UNIT_BYTES));
}

static size_t tables_bytes(const struct block_cache *c)
{
    return c->directory_slots * sizeof *c->directory + c->missed_count * sizeof *c->missed;
}

/* The directory and the marks, all zero. Mapped, so that pages nobody has looked at take no memory:
 * a cache of gigabytes has tens of megabytes of them. */
static int map_tables(struct block_cache *c, struct alloc *a, size_t missed)
{
    c->alloc = a;
    c->missed_count = missed;
    void *p = alloc_map(a, MEM_RING, tables_bytes(c), 4096, true, false);
    if (p == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a block cache");
    }
    c->directory = p;
    c->missed = (_Atomic uint16_t *)(void *)(c->directory + c->directory_slots);
    return LOAM_OK;
}

int block_cache_init(struct block_cache *c, struct alloc *a, size_t bytes, size_t lent_most)
{
    memset(c, 0, sizeof *c);
    size_t unit = UNIT_BYTES;
    /* A slot of the directory for each unit: four for a block of 4096 bytes, and when all blocks are as
     * small as a unit, one of seven is lost. */
    const size_t around = sizeof(struct ring_desc) + sizeof *c->directory;
    if (bytes < 16 * UNIT_BYTES || lent_most > 4 * bytes) {
        return FAIL(LOAM_E_INVAL, "a block cache of %zu bytes and %zu lent; the least is 16 KiB", bytes,
                    lent_most);
    }
    while ((bytes + lent_most) / (unit + around) > RING_UNITS_MAX) {
        unit *= 2;
    }
    size_t lent = lent_most / unit; /* units, as is the next */
    size_t marks = missed_count(bytes + lent_most) * sizeof *c->missed;
    size_t own = (bytes - marks - lent * around) / (unit + around);
    c->directory_slots = (own + lent) / BUCKET * BUCKET;
    const struct ring_options o = {
        .alloc = a,
        .unit = unit,
        .bytes = (own + lent) * unit,
        .bytes_own = own * unit,
        .second_chance_percent = SECOND_CHANCE_PERCENT,
        .relocate = relocate,
        .relocate_arg = c,
    };
    int rc = ring_init(&c->ring, &o);
    if (rc != LOAM_OK) {
        return rc;
    }
    rc = slotmap_init(&c->tables, a, BLOCK_CACHE_TABLE_KIND);
    if (rc != LOAM_OK) {
        ring_destroy(&c->ring);
        return rc;
    }
    rc = map_tables(c, a, marks / sizeof *c->missed);
    if (rc != LOAM_OK) {
        slotmap_destroy(&c->tables);
        ring_destroy(&c->ring);
        return rc;
    }
    c->first = atom_load(&c->ring.evict, relaxed); /* relaxed: nobody else yet */
    uint64_t sixteenth = o.bytes_own / 16;
    c->dirty_limit = sixteenth < DIRTY_LIMIT_BYTES ? sixteenth : DIRTY_LIMIT_BYTES;
    mutex_init(&c->stage_mutex, RANK_STRUCT);
    cond_init(&c->stage_done);
    return LOAM_OK;
}

void block_cache_destroy(struct block_cache *c)
{
    if (c->ring.desc == NULL) {
        return;
    }
    assert(c->stages == NULL);
    alloc_unmap(c->alloc, MEM_RING, (void *)c->directory, tables_bytes(c), false);
    slotmap_destroy(&c->tables);
    ring_destroy(&c->ring);
    cond_destroy(&c->stage_done);
    mutex_destroy(&c->stage_mutex);
}

/* ---- lent memory ----------------------------------------------------------------------------- */

void block_cache_lend(struct block_cache *c, size_t bytes)
{
    ring_lend(&c->ring, (size_t)(c->ring.own << c->ring.unit_shift) + bytes);
}

bool block_cache_reach_lent(struct block_cache *c)
{
    return ring_reach_lent(&c->ring, REACH_BYTES);
}

bool block_cache_take_back(struct block_cache *c, size_t bytes)
{
    return ring_take_back(&c->ring, (size_t)(c->ring.own << c->ring.unit_shift) + bytes);
}

size_t block_cache_lent(const struct block_cache *c)
{
    return (size_t)(c->ring.lent << c->ring.unit_shift);
}

bool block_cache_roomy(struct block_cache *c)
{
    uint64_t kept = ring_capacity(&c->ring) / 8, least = 16 * UNIT_BYTES;
    return ring_spare_bytes(&c->ring) > (kept > least ? kept : least);
}

/* ---- read side ------------------------------------------------------------------------------- */

const void *block_cache_peek(struct block_cache *c, const struct cached_blocks *t, uint32_t block,
                             bool touch, size_t *size)
{
    assert(epoch_inside() && block < t->count);
    if (__builtin_expect(t->addr == NULL, 0)) {
        return directory_peek(c, t, block, touch, size);
    }
    /* acquire: pairs with the releases in relocate() and block_cache_fill_end(). */
    uint64_t addr = atom_load(&t->addr[block], acquire);
    if (addr == 0 || ring_has_passed(&c->ring, addr)) {
        return NULL;
    }
    ring_prefetch(&c->ring, addr); /* the bytes come beside the descriptor, not after it */
    return ring_read(&c->ring, addr, touch, size);
}

bool block_cache_admits(struct block_cache *c, const struct cached_blocks *t, uint32_t block,
                        size_t size)
{
    static _Thread_local uint32_t lot = 1;
    /* relaxed: a hint. */
    if (atom_load(&c->ring.evict, relaxed) == c->first || block_cache_roomy(c)) {
        return true;
    }
    /* Mixed well: a walk's blocks must not take one place after the other, which no mark outlives. */
    uint64_t h = hash_block(t->handle, block);
    uint64_t fit = ring_capacity(&c->ring) / (size < UNIT_BYTES ? UNIT_BYTES : size);
    _Atomic uint16_t *seen = &c->missed[fit < 2 ? 0 : h >> (__builtin_clzll(fit) + 1)];
    uint16_t mark = (uint16_t)(h >> 8) | 1; /* never that of an empty place */
    uint16_t there = atom_load(seen, relaxed); /* relaxed: a lost mark costs one more read */
    if (there == mark) {
        return true;
    }
    lot = lot * 1664525u + 1013904223u;
    if (there == 0 || lot >> 29 != 0) { /* or two in one place, by turns, would never enter */
        atom_store(seen, mark, relaxed);
    }
    return false;
}

void *block_cache_fill_begin(struct block_cache *c, size_t size, uint64_t *addr)
{
    if (size == 0 || size > ring_entry_max(&c->ring) ||
        ring_reserve(&c->ring, RING_FILL, size, 0, 0, addr) != LOAM_OK) {
        atom_add(&c->fills_refused, 1, relaxed); /* relaxed: a statistic */
        return NULL;
    }
    return ring_data(&c->ring, *addr);
}

/* Makes the address known to readers; they miss until it is published. False: a copy came first. */
static bool enter_address(struct block_cache *c, struct cached_blocks *t, uint32_t block,
                          uint64_t addr)
{
    if (t->addr == NULL) {
        size_t size;
        return directory_peek(c, t, block, false, &size) == NULL &&
               directory_enter(c, t, block, addr);
    }
    /* acquire: whether the entry lives is looked up as of its entering at least. */
    uint64_t seen = atom_load(&t->addr[block], acquire);
    /* release: pairs with the acquire in block_cache_peek(). */
    return (seen == 0 || !ring_live(&c->ring, seen)) &&
           atom_cas(&t->addr[block], &seen, addr, acq_rel, relaxed);
}

void block_cache_fill_end(struct block_cache *c, struct cached_blocks *t, uint32_t block,
                          uint64_t addr, bool keep, bool hot)
{
    if (!keep) {
        ring_discard(&c->ring, addr);
        return;
    }
    assert(epoch_inside() && block < t->count);
    ring_set_owner(&c->ring, addr, t->handle, block);
    if (!enter_address(c, t, block, addr)) {
        ring_discard(&c->ring, addr);
        atom_add(&c->fills_lost, 1, relaxed); /* relaxed: a statistic */
        return;
    }
    ring_publish_clean(&c->ring, addr, hot);
    atom_add(&c->fills, 1, relaxed); /* relaxed: a statistic */
}

/* ---- build side ------------------------------------------------------------------------------ */

static void stage_list_locked(struct block_stage *s)
{
    if (!s->listed) {
        s->next = s->cache->stages;
        s->cache->stages = s;
        s->listed = true;
    }
}

static void stage_unlist_locked(struct block_stage *s)
{
    struct block_stage **at = &s->cache->stages;
    while (s->listed && *at != s) {
        at = &(*at)->next;
    }
    if (s->listed) {
        *at = s->next;
        s->listed = false;
    }
}

static void stage_latch_locked(struct block_stage *s, int rc)
{
    if (s->rc == LOAM_OK) {
        s->rc = rc;
        s->error = *loam_last_error();
        s->error.code = rc; /* also when the writer recorded nothing */
    }
}

static void stage_settle_locked(struct block_stage *s, uint64_t blocks)
{
    assert(s->pending >= blocks);
    s->pending -= (uint32_t)blocks;
    if (s->pending == 0) {
        cond_broadcast(&s->cache->stage_done);
    }
}

/* LOAM_OK, or the first error made the thread's. */
static int stage_error(struct block_stage *s)
{
    mutex_lock(&s->cache->stage_mutex);
    int rc = s->rc;
    mutex_unlock(&s->cache->stage_mutex);
    return rc == LOAM_OK ? LOAM_OK : status_raise(&s->error); /* constant once latched */
}

/* ring_write_fn: hands a block to the stage it belongs to. The entry counts in pending, so the
 * stage stays until this has settled it. */
static int write_staged(void *arg, const struct ring_claim *claim, enum ring_outcome *outcome)
{
    struct block_cache *c = arg;
    mutex_lock(&c->stage_mutex);
    struct block_stage *s = c->stages;
    while (s != NULL && s->handle != claim->owner) {
        s = s->next;
    }
    assert(s != NULL);
    int rc = s->rc;
    mutex_unlock(&c->stage_mutex);

    bool tried = rc == LOAM_OK;
    if (tried) {
        rc = s->write(s->arg, (uint32_t)claim->cookie, claim->data, claim->size);
    }
    *outcome = rc < 0 ? RING_GONE : RING_KEEP;

    mutex_lock(&c->stage_mutex);
    if (tried && rc < 0) {
        stage_latch_locked(s, rc);
    }
    stage_settle_locked(s, 1);
    mutex_unlock(&c->stage_mutex);
    return LOAM_OK; /* an error is the stage's, not the evicting thread's */
}

int block_stage_init(struct block_stage *s, struct block_cache *c, block_write_fn *write, void *arg)
{
    memset(s, 0, sizeof *s);
    s->cache = c;
    s->write = write;
    s->arg = arg;
    s->handle = slotmap_reserve(&c->tables);
    if (s->handle == 0) {
        return FAIL(LOAM_E_NOMEM, "no memory for a table's handle");
    }
    return LOAM_OK;
}

size_t block_stage_max(const struct block_cache *c)
{
    return ring_entry_max(&c->ring);
}

/* Makes room by writing and reclaiming until the reservation succeeds. */
static int reserve_slowly(struct block_stage *s, size_t size_max, uint64_t *addr)
{
    struct ring *r = &s->cache->ring;
    int rc = LOAM_STOPPED;
    ring_hold_fills(r);
    while (rc == LOAM_STOPPED) {
        rc = stage_error(s);
        if (rc == LOAM_OK && ring_evict_one(r, write_staged, s->cache, NULL) != LOAM_OK) {
            rc = ring_wait_space(r, size_max, WAIT_MICROS);
        }
        if (rc >= 0) {
            rc = ring_reserve(r, RING_DIRTY, size_max, s->handle, 0, addr);
        }
    }
    ring_release_fills(r);
    return rc;
}

void *block_stage_begin(struct block_stage *s, size_t size_max, uint64_t *addr)
{
    struct ring *r = &s->cache->ring;
    assert(!epoch_inside());
    if (s->open != 0) {
        (void)FAIL(LOAM_E_MISUSE, "a second block begins before the first has ended");
        return NULL;
    }
    int rc = stage_error(s);
    if (rc == LOAM_OK) {
        rc = ring_reserve(r, RING_DIRTY, size_max, s->handle, 0, addr);
    }
    if (rc == LOAM_STOPPED) {
        rc = reserve_slowly(s, size_max, addr);
    }
    if (rc != LOAM_OK) {
        return NULL;
    }
    s->open = *addr;
    return ring_data(r, *addr);
}

int block_stage_end(struct block_stage *s, uint64_t addr, uint32_t block, size_t used)
{
    struct ring *r = &s->cache->ring;
    if (addr == 0 || s->open != addr) {
        return FAIL(LOAM_E_MISUSE, "the block that ends is not the one that began");
    }
    s->open = 0;
    mutex_lock(&s->cache->stage_mutex);
    int rc = s->rc;
    if (rc == LOAM_OK) {
        stage_list_locked(s);
        s->pending++;
    }
    mutex_unlock(&s->cache->stage_mutex);
    if (rc != LOAM_OK) {
        ring_discard(r, addr);
        return status_raise(&s->error);
    }
    ring_set_owner(r, addr, s->handle, block);
    ring_shrink(r, addr, used);
    ring_publish(r, addr);
    return LOAM_OK;
}

int block_stage_evict_some(struct block_stage *s)
{
    struct block_cache *c = s->cache;
    while (ring_unsettled_bytes(&c->ring) > c->dirty_limit) {
        if (ring_evict_one(&c->ring, write_staged, c, NULL) != LOAM_OK) {
            break; /* what is dirty is being written by others */
        }
    }
    return stage_error(s);
}

/* Drops the stage's blocks that wait, waits for those being written by others, and unlists it. */
static void stage_drop(struct block_stage *s)
{
    struct block_cache *c = s->cache;
    mutex_lock(&c->stage_mutex);
    if (s->pending != 0) {
        mutex_unlock(&c->stage_mutex);
        uint64_t dropped = ring_drop_owner(&c->ring, s->handle);
        mutex_lock(&c->stage_mutex);
        stage_settle_locked(s, dropped);
    }
    while (s->pending != 0) {
        cond_wait(&c->stage_done, &c->stage_mutex);
    }
    stage_unlist_locked(s);
    mutex_unlock(&c->stage_mutex);
}

int block_stage_drain(struct block_stage *s)
{
    struct block_cache *c = s->cache;
    assert(!epoch_inside() && s->open == 0);
    bool done = false;
    while (!done && stage_error(s) == LOAM_OK) {
        bool helped = ring_evict_one(&c->ring, write_staged, c, NULL) == LOAM_OK;
        mutex_lock(&c->stage_mutex);
        if (!helped && s->pending != 0) {
            /* Others are writing the rest. Not without end: a claim may also have stopped at a
             * block that was just being reserved. */
            cond_wait_for(&c->stage_done, &c->stage_mutex, WAIT_MICROS);
        }
        done = s->pending == 0;
        mutex_unlock(&c->stage_mutex);
    }
    stage_drop(s);
    return stage_error(s);
}

void block_stage_abandon(struct block_stage *s)
{
    struct block_cache *c = s->cache;
    if (s->open != 0) {
        ring_discard(&c->ring, s->open);
        s->open = 0;
    }
    mutex_lock(&c->stage_mutex);
    if (s->rc == LOAM_OK) {
        s->rc = LOAM_E_CANCELED;
        s->error = (loam_error){.code = LOAM_E_CANCELED};
    }
    mutex_unlock(&c->stage_mutex);
    stage_drop(s);
    int rc = slotmap_abort(&c->tables, s->handle);
    assert(rc == LOAM_OK);
    (void)rc;
}

void block_cache_metrics(struct block_cache *c, struct cache_metrics *m)
{
    struct ring *r = &c->ring;
    uint64_t capacity = ring_capacity(r), spare = ring_spare_bytes(r);
    /* relaxed: figures of about the same moment. */
    *m = (struct cache_metrics){
        .capacity_bytes = capacity,
        .bytes_used = spare < capacity ? capacity - spare : 0,
        .dirty_bytes = ring_dirty_bytes(r),
        .evicted = atom_load(&r->evicted_units, relaxed) << r->unit_shift,
        .relocated = atom_load(&r->relocated_units, relaxed) << r->unit_shift,
        .fills = atom_load(&c->fills, relaxed),
        .fills_refused = atom_load(&c->fills_refused, relaxed),
        .fills_lost = atom_load(&c->fills_lost, relaxed),
    };
}
