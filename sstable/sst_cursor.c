/* sst_cursor.c - Loads block after block and keeps the position between them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/sst_cursor.h"

#include <assert.h>

#include "arena/epoch.h"

#include "arena/poison.h"

#define READ_MAX            (64u << 10)
#define READ_MAX_BACKGROUND (256u << 10)
#define READ_FIRST          (8u << 10) /* first read of a walk that turned out to be sequential */
#define WALK_MAX            (16u << 10) /* read at once after a seek for the walk that will follow */
#define GAP_MAX             (64u << 10) /* blocks not yet due are read along up to this distance */
#define BEHIND              16u         /* bytes that must be readable behind a block */
#define NO_BLOCK            UINT32_MAX

/* ---- life ---- */

static enum mem_owner owner_of(const struct sst_cursor *c)
{
    return (c->flags & SST_CURSOR_BACKGROUND) != 0 ? MEM_BUILD : MEM_ITER;
}

/* The assembled key, and room to remember one. */
static int fit_key(struct sst_cursor *c)
{
    size_t each = (size_t)c->r->props.max_key + 2 * BEHIND;
    return sst_fit(c->alloc, owner_of(c), &c->key, &c->key_cap, 2 * each);
}

/* A merge leaves the cache as it is. */
static enum sst_part_from parts_from(const struct sst_cursor *c)
{
    return (c->flags & SST_CURSOR_BACKGROUND) != 0 ? SST_PART_CACHE : SST_PART_FILL;
}

/* Gives up the large block in memory; its entry stays known. */
__attribute__((cold, noinline)) static void let_go(struct sst_cursor *c)
{
    if (c->large.data != NULL) {
        large_give(&c->large);
        if (c->seat != NULL) {
            c->seat->holder = NULL;
        }
    }
    c->at.entry.value.data = NULL;
}

static void forget_block(struct sst_cursor *c)
{
    if (__builtin_expect(c->single, 0)) {
        let_go(c);
        c->single = false;
    }
    c->block = NO_BLOCK;
    c->at.block.count = 0;
    c->at.index = NO_BLOCK;
}

int sst_cursor_init(struct sst_cursor *c, struct sst_reader *r, struct alloc *a, uint32_t flags,
                    uint32_t readahead)
{
    memset(c, 0, sizeof *c);
    c->alloc = a;
    c->unpacker.alloc = a;
    sst_part_init(&c->part, a, (flags & SST_CURSOR_BACKGROUND) != 0 ? MEM_BUILD : MEM_ITER);
    c->flags = flags;
    return sst_cursor_rebind(c, r, readahead);
}

int sst_cursor_rebind(struct sst_cursor *c, struct sst_reader *r, uint32_t readahead)
{
    bool background = (c->flags & SST_CURSOR_BACKGROUND) != 0;
    c->read_max = readahead != 0 ? readahead : background ? READ_MAX_BACKGROUND : READ_MAX;
    c->r = r;
    c->rc = LOAM_OK;
    c->count = (uint32_t)r->props.blocks;
    c->part.number = SST_NO_PART;
    c->window_size = 0;
    c->read_next = READ_FIRST;
    forget_block(c);
    return fit_key(c);
}

void sst_cursor_free(struct sst_cursor *c)
{
    if (c->alloc == NULL) {
        return;
    }
    alloc_put(c->alloc, owner_of(c), c->window, c->window_cap);
    alloc_put(c->alloc, owner_of(c), c->copy, c->copy_cap);
    alloc_put(c->alloc, owner_of(c), c->key, c->key_cap);
    forget_block(c);
    sst_part_free(&c->part);
    sst_unpacker_free(&c->unpacker);
    memset(c, 0, sizeof *c);
}

/* ---- large blocks ---- */

void sst_seat_drop(struct sst_seat *s)
{
    if (s->holder != NULL) {
        let_go(s->holder);
    }
}

void sst_seat_clear(struct sst_seat *s)
{
    sst_seat_drop(s);
    large_give(&s->copy);
}

void sst_seat_keep(struct sst_seat *s, struct sst_cursor *c)
{
    assert(s->holder == c && s->copy.data == NULL);
    s->copy = c->large;
    c->large = (struct large){0};
    s->holder = NULL;
}

/* How a large block is taken. PASSING: only its key is wanted now. */
static enum large_way way_of(const struct sst_cursor *c)
{
    const struct sst_seat *s = c->seat;
    if (s == NULL) {
        return LARGE_WORK;
    }
    return s->keys_only || s->holder != NULL || s->copy.data != NULL ? LARGE_PASSING : s->way;
}

/* What was refused as held may still be read for its key. */
static bool may_pass(const struct sst_cursor *c, int rc)
{
    return rc == LOAM_E_BUDGET && !c->showing;
}

/* Memory for a large block of so many bytes. */
__attribute__((noinline)) static int take_large(struct sst_cursor *c, size_t size)
{
    int rc = large_take(c->r->large, c->alloc, &c->large, way_of(c), owner_of(c), size);
    return may_pass(c, rc) ? large_take(c->r->large, c->alloc, &c->large, LARGE_PASSING, owner_of(c), size)
                           : rc;
}

__attribute__((noinline)) static int read_large(struct sst_cursor *c, const struct sst_piece *p, const uint8_t **data, size_t *size)
{
    enum mem_owner o = owner_of(c);
    int rc = sst_read_large(c->r, p, &c->unpacker, &c->large, way_of(c), o, data, size);
    return may_pass(c, rc) ? sst_read_large(c->r, p, &c->unpacker, &c->large, LARGE_PASSING, o, data, size)
                           : rc;
}

/* Remembers the one entry of a block, with a key of its own. False: there are several. */
__attribute__((noinline)) static bool remember(struct sst_cursor *c, const void *data)
{
    struct block b;
    struct block_item item;
    block_init(&b, data);
    if (b.count != 1) {
        return false;
    }
    block_item(&b, 0, &item);
    memcpy(c->key, b.prefix, b.prefix_size);
    memcpy(c->key + b.prefix_size, item.rest, item.rest_size);
    c->at = (struct block_cursor){
        .block = b,
        .index = NO_BLOCK,
        .key = c->key,
        .entry = {.key = loam_bytes(c->key, (size_t)b.prefix_size + item.rest_size),
                  .value = loam_bytes(item.rest + item.rest_size, item.value_size),
                  .tag = item.tag},
    };
    c->single = true;
    return true;
}

/* The block is read and in c->large: remembers its entry, and keeps the block or not. */
__attribute__((noinline)) static int settle_large(struct sst_cursor *c, const uint8_t *data, size_t size)
{
    int rc = LOAM_OK;
    if (!remember(c, data)) { /* of long keys: as any other block */
        rc = sst_fit(c->alloc, owner_of(c), &c->copy, &c->copy_cap, size + BEHIND);
        if (rc == LOAM_OK) {
            memcpy(c->copy, data, size + BEHIND);
            block_cursor_init(&c->at, c->copy, c->key);
        }
        large_give(&c->large);
    } else if (c->large.way == LARGE_PASSING) {
        large_give(&c->large);
        c->at.entry.value.data = NULL;
    } else if (c->seat != NULL) {
        c->seat->holder = c;
    }
    return rc;
}

/* ---- loading a block ---- */

/* Copies the block out of the cache. LOAM_NOTFOUND: it is not there. */
static int load_cached(struct sst_cursor *c, uint32_t i, bool sequential, const uint8_t **data,
                       size_t *block_size)
{
    const struct sst_reader *r = c->r;
    /* Only what somebody looked for counts as used, not what a walk came by. */
    bool touch = !sequential && (c->flags & SST_CURSOR_BACKGROUND) == 0;
    size_t size = 0;
    int rc = LOAM_NOTFOUND;
    if (r->cached == NULL) {
        return rc;
    }
    epoch_enter();
    const void *p = block_cache_peek(r->cache, &r->cached->blocks, i, touch, &size);
    if (p != NULL) {
        rc = sst_check_cached(r, i, p, size, false);
        bool large = sst_is_large(r, size);
        if (rc == LOAM_OK && large && way_of(c) == LARGE_PASSING && remember(c, p)) {
            c->at.entry.value.data = NULL;
        } else if (rc == LOAM_OK) {
            rc = large ? take_large(c, size + BEHIND)
                       : sst_fit(c->alloc, owner_of(c), &c->copy, &c->copy_cap, size + BEHIND);
        }
        if (rc == LOAM_OK && !c->single) {
            uint8_t *to = large ? c->large.data : c->copy;
            memcpy(to, p, size);
            memset(to + size, 0, BEHIND);
            *data = to;
            *block_size = size;
        }
    }
    epoch_exit();
    return rc;
}

static bool is_cached(const struct sst_cursor *c, uint32_t i)
{
    const struct sst_reader *r = c->r;
    size_t size;
    if (r->cached == NULL) {
        return false;
    }
    epoch_enter();
    bool there = block_cache_peek(r->cache, &r->cached->blocks, i, false, &size) != NULL;
    epoch_exit();
    return there;
}

static int read_window(struct sst_cursor *c, uint64_t start, size_t n)
{
    const struct sst_reader *r = c->r;
    c->window_size = 0;
    int rc = sst_fit(c->alloc, owner_of(c), &c->window, &c->window_cap, n);
    if (rc == LOAM_OK) {
        rc = sst_read_full(r->vfs, r->file, r->props.file_number, c->window, n, start);
    }
    if (rc == LOAM_OK) {
        c->window_offset = start;
        c->window_size = n;
    }
    return rc;
}

/* Bytes of a block and of those behind it that the walk from here will want if it comes as far as the
 * last one did: a read costs more than the bytes of a block or two. */
static uint64_t walk_size(const struct sst_cursor *c, const struct sst_piece *p)
{
    uint64_t size = p->size, most = c->read_max < WALK_MAX ? c->read_max : WALK_MAX;
    struct sst_piece next;
    /* As far as places are known: not beyond the partition. */
    for (uint32_t n = c->walked, i = p->number + 1;
         n > 0 && i < c->count && sst_place_held(c->r, &c->part, i, &next) &&
         size + next.size <= most;
         n--, i++) {
        if (next.offset != p->offset + size || is_cached(c, i)) {
            break;
        }
        size += next.size;
    }
    return size;
}

/* Where the next read of a sequential walk begins, and its size; it brings block i, which is at offset
 * and has size bytes. */
static uint64_t read_ahead(struct sst_cursor *c, uint64_t offset, uint64_t size, uint64_t *n)
{
    /* Blocks written by several evictors are out of order by a little: what was skipped so far is
     * still to come, so the next window begins where the last one ended. */
    uint64_t window_end = c->window_offset + c->window_size;
    bool near = c->window_size != 0 && offset > window_end && offset - window_end <= GAP_MAX;
    uint64_t start = near ? window_end : offset;
    uint64_t ahead = (c->flags & SST_CURSOR_BACKGROUND) != 0 ? c->read_max : c->read_next;
    uint64_t need = offset + size - start;
    uint64_t left = c->r->footer.data_end - start;
    *n = need > ahead ? need : ahead;
    *n = *n < left ? *n : left;
    c->read_next = c->read_next < c->read_max / 2 ? c->read_next * 2 : c->read_max;
    return start;
}

/* Brings the stored block into the window, and what will probably be asked for next. */
static int fill_window(struct sst_cursor *c, const struct sst_piece *p, bool sequential)
{
    uint64_t offset = p->offset;
    uint64_t size = p->size;
    uint64_t window_end = c->window_offset + c->window_size;
    if (c->window_size != 0 && offset >= c->window_offset && offset + size <= window_end) {
        return LOAM_OK;
    }
    uint64_t start = offset, n;
    if (sequential) {
        start = read_ahead(c, offset, size, &n);
    } else {
        n = walk_size(c, p);
        c->read_next = READ_FIRST;
    }
    int rc = read_window(c, start, n);
    if (rc != LOAM_OK && n != size) {
        /* The trouble may be in bytes that nobody asked for. */
        rc = read_window(c, offset, size);
    }
    return rc;
}

/* The block through the window: in place there, or unpacked. */
static int load_through_window(struct sst_cursor *c, const struct sst_piece *p, bool sequential,
                               const uint8_t **data, size_t *size)
{
    struct sst_stored s;
    int rc = fill_window(c, p, sequential);
    if (rc != LOAM_OK) {
        return rc;
    }
    struct sst_place at = sst_place_of(c->r, p);
    const uint8_t *stored = c->window + (at.offset - c->window_offset);
    rc = sst_stored_check(at, SST_DATA, stored, p->size, c->r->props.max_block, &s);
    if (rc != LOAM_OK) {
        return rc;
    }
    *data = s.payload; /* its trailer is BEHIND bytes */
    *size = s.raw_size;
    if (s.codec != SST_CODEC_NONE) {
        bool large = sst_is_large(c->r, s.raw_size);
        rc = large ? take_large(c, s.raw_size + BEHIND)
                   : sst_fit(c->alloc, owner_of(c), &c->copy, &c->copy_cap, s.raw_size + BEHIND);
        uint8_t *to = large ? c->large.data : c->copy;
        if (rc == LOAM_OK) {
            rc = sst_unpack(&c->unpacker, at, &s, to);
            memset(to + s.raw_size, 0, BEHIND);
        }
        *data = to;
    }
    return rc == LOAM_OK ? sst_check_piece(c->r, p, *data, s.raw_size) : rc;
}

/* *data is the checked block. */
static int load_stored(struct sst_cursor *c, uint32_t i, bool sequential, const uint8_t **data, size_t *size)
{
    struct sst_piece p;
    int rc = sst_place_block(c->r, &c->part, i, parts_from(c), &p);
    if (rc == LOAM_OK) {
        c->read_bytes += p.size;
        rc = sst_is_large(c->r, p.size) ? read_large(c, &p, data, size)
                                        : load_through_window(c, &p, sequential, data, size);
    }
    if (rc == LOAM_OK && (c->flags & SST_CURSOR_BACKGROUND) == 0 && c->r->cached != NULL) {
        epoch_enter();
        sst_offer_piece(c->r, &p, *data, *size);
        epoch_exit();
    }
    return rc;
}

_Static_assert(BEHIND <= SST_TRAILER_SIZE, "a block in the window has its trailer behind it");

/* A walk goes on behind block i, which is at data: see block_cursor_fetch_ahead(). */
static uintptr_t fetch_next(const struct sst_cursor *c, uint32_t i, const uint8_t *data)
{
    const struct sst_reader *r = c->r;
    const void *next = r->cached != NULL && i + 1 < c->count
                           ? block_cache_prefetch(r->cache, &r->cached->blocks, i + 1)
                           : NULL;
    return next != NULL ? (uintptr_t)next - (uintptr_t)data : 0;
}

/* Reads block i. */
static int bring(struct sst_cursor *c, uint32_t i, bool sequential)
{
    const uint8_t *data = NULL;
    size_t size = 0;
    forget_block(c);
    int rc = load_cached(c, i, sequential, &data, &size);
    if (rc == LOAM_OK) {
        c->cache_hits++;
    } else if (rc == LOAM_NOTFOUND) {
        c->cache_misses++;
        rc = load_stored(c, i, sequential, &data, &size);
    }
    if (rc == LOAM_OK && c->large.data != NULL) {
        rc = settle_large(c, data, size);
    } else if (rc == LOAM_OK && !c->single) {
        block_cursor_init(&c->at, data, c->key);
        c->at.ahead = fetch_next(c, i, data);
    }
    if (rc == LOAM_OK) {
        c->block = i;
    } else {
        large_give(&c->large);
        c->rc = rc;
    }
    return rc;
}

/* Makes block i the present one, not yet at an entry. False: an error, in c->rc. */
static bool load(struct sst_cursor *c, uint32_t i)
{
    assert(i < c->count);
    if (c->block == i) {
        return true;
    }
    bool background = (c->flags & SST_CURSOR_BACKGROUND) != 0;
    bool sequential = c->block != NO_BLOCK ? i == c->block + 1 : background;
    if (bring(c, i, sequential) != LOAM_OK) {
        return false;
    }
    c->walked = sequential ? c->walked + 1 : 0;
    return true;
}

int sst_cursor_show(struct sst_cursor *c)
{
    if (sst_cursor_shown(c)) {
        return LOAM_OK;
    }
    size_t size = c->at.entry.value.size;
    sst_seat_clear(c->seat);
    c->showing = true;
    int rc = bring(c, c->block, false);
    c->showing = false;
    if (rc == LOAM_OK) {
        c->at.index = 0;
    }
    return rc == LOAM_E_BUDGET ? large_refused(size) : rc;
}

/* ---- moving ---- */

/* To entry i of the present block, which is not looked at when it is a large one: it may be gone. */
static bool move_to(struct sst_cursor *c, uint32_t i)
{
    if (__builtin_expect(!c->single, 1)) {
        return block_cursor_move(&c->at, i);
    }
    c->at.index = i;
    return i < c->at.block.count;
}

/* Index of the first entry of the present block >= (key, tag). */
static uint32_t seek_in(const struct sst_cursor *c, loam_slice key, uint64_t tag)
{
    if (__builtin_expect(!c->single, 1)) {
        return block_seek(&c->at.block, c->r->cmp, key, tag);
    }
    int order = key_compare(c->r->cmp, c->at.entry.key, key);
    return order > 0 || (order == 0 && c->at.entry.tag <= tag) ? 0 : 1;
}

/* A placement from anywhere: earlier errors are over, the cursor is not valid unless it succeeds.
 */
static void start(struct sst_cursor *c)
{
    c->rc = LOAM_OK;
    c->at.index = NO_BLOCK;
}

bool sst_cursor_first(struct sst_cursor *c)
{
    start(c);
    return load(c, 0) && move_to(c, 0);
}

bool sst_cursor_last(struct sst_cursor *c)
{
    start(c);
    return load(c, c->count - 1) && move_to(c, c->at.block.count - 1);
}

void sst_cursor_aim(struct sst_cursor *c, loam_slice key)
{
    const struct sst_reader *r = c->r;
    start(c);
    c->aim = NO_BLOCK;
    if (r->resident) {
        c->aim = index_find(&r->index, key);
        if (r->cached != NULL && c->aim < c->count && c->aim != c->block) {
            block_cache_prefetch(r->cache, &r->cached->blocks, c->aim);
        }
    }
}

bool sst_cursor_land(struct sst_cursor *c, loam_slice key, uint64_t tag)
{
    uint32_t i = c->aim;
    int rc = i != NO_BLOCK ? LOAM_OK : sst_find_block(c->r, &c->part, key, parts_from(c), &i);
    if (rc != LOAM_OK) {
        forget_block(c);
        c->rc = rc;
        return false;
    }
    /* One block, or the next one when the key is in the gap behind the block's last entry or its
     * versions go on there. */
    for (; i < c->count; i++) {
        if (!load(c, i)) {
            return false;
        }
        if (move_to(c, seek_in(c, key, tag))) {
            return true;
        }
    }
    c->at.index = NO_BLOCK;
    return false;
}

bool sst_cursor_seek(struct sst_cursor *c, loam_slice key, uint64_t tag)
{
    sst_cursor_aim(c, key);
    return sst_cursor_land(c, key, tag);
}

bool sst_cursor_seek_before(struct sst_cursor *c, loam_slice key, uint64_t tag)
{
    if (sst_cursor_seek(c, key, tag)) {
        return sst_cursor_prev(c);
    }
    return c->rc == LOAM_OK && sst_cursor_last(c);
}

bool sst_cursor_next_block(struct sst_cursor *c)
{
    c->at.index = NO_BLOCK;
    if (c->rc != LOAM_OK || c->block == NO_BLOCK || c->block + 1 >= c->count) {
        return false;
    }
    return load(c, c->block + 1) && move_to(c, 0);
}

bool sst_cursor_prev_block(struct sst_cursor *c)
{
    c->at.index = NO_BLOCK;
    if (c->rc != LOAM_OK || c->block == NO_BLOCK || c->block == 0) {
        return false;
    }
    return load(c, c->block - 1) && move_to(c, c->at.block.count - 1);
}

bool sst_cursor_next_key(struct sst_cursor *c)
{
    assert(sst_cursor_valid(c));
    /* Inside the block the rests can be compared where they are. */
    const struct block *b = &c->at.block;
    const loam_comparator *cmp = c->r->cmp;
    struct block_item now, next;
    for (uint32_t i = c->at.index + 1; i < b->count; i++) {
        block_item(b, c->at.index, &now);
        block_item(b, i, &next);
        if (key_compare(cmp, loam_bytes(now.rest, now.rest_size),
                        loam_bytes(next.rest, next.rest_size)) != 0) {
            return block_cursor_move(&c->at, i);
        }
    }
    uint8_t *saved = c->key + c->key_cap / 2;
    size_t size = c->at.entry.key.size;
    memcpy(saved, c->at.entry.key.data, size);
    bool valid = sst_cursor_next_block(c);
    while (valid && key_compare(cmp, c->at.entry.key, loam_bytes(saved, size)) == 0) {
        valid = sst_cursor_next(c);
    }
    return valid;
}
