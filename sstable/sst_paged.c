/* sst_paged.c - Pages and partitions, from the cache or the file.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/sst_paged.h"

#include <assert.h>

#include "arena/status.h"
#include "sstable/partition.h"

#include "arena/poison.h"

#define BEHIND SST_TRAILER_SIZE /* bytes that must be readable behind a block */

/* ---- keys ---- */

static loam_slice part_of_slice(loam_slice s, size_t from, size_t n)
{
    return n != 0 ? loam_bytes((const uint8_t *)s.data + from, n) : loam_bytes("", 0);
}

bool sst_same_key(loam_slice a, loam_slice a_rest, loam_slice b, loam_slice b_rest)
{
    if (a.size + a_rest.size != b.size + b_rest.size) {
        return false;
    }
    if (a.size > b.size) {
        loam_slice x = a, y = a_rest;
        a = b, a_rest = b_rest;
        b = x, b_rest = y;
    }
    size_t over = b.size - a.size; /* bytes of b that stand against a_rest */
    return bytes_compare(a, part_of_slice(b, 0, a.size)) == 0 &&
           bytes_compare(part_of_slice(a_rest, 0, over), part_of_slice(b, a.size, over)) == 0 &&
           bytes_compare(part_of_slice(a_rest, over, b_rest.size), b_rest) == 0;
}

/* ---- one partition, held ---- */

void sst_part_init(struct sst_part *h, struct alloc *a, enum mem_owner o)
{
    *h = (struct sst_part){.alloc = a, .owner = o, .number = SST_NO_PART};
}

void sst_part_free(struct sst_part *h)
{
    if (h->alloc != NULL) {
        alloc_put(h->alloc, h->owner, h->copy, h->cap);
        sst_part_init(h, h->alloc, h->owner);
    }
}

/* Copies the partition out of the cache. LOAM_NOTFOUND: it is not there. */
static int copy_cached(const struct sst_reader *r, struct sst_part *h, const struct sst_piece *p,
                       bool touch)
{
    size_t size = 0;
    int rc = LOAM_NOTFOUND;
    epoch_enter();
    const void *data = block_cache_peek(r->cache, &r->cached->blocks, p->number, touch, &size);
    if (data != NULL) {
        rc = sst_check_cached(r, p->number, data, size, false);
        if (rc == LOAM_OK) {
            rc = sst_fit(h->alloc, h->owner, &h->copy, &h->cap, size + BEHIND);
        }
        if (rc == LOAM_OK) {
            memcpy(h->copy, data, size);
            memset(h->copy + size, 0, BEHIND);
        }
    }
    epoch_exit();
    return rc;
}

static int copy_stored(const struct sst_reader *r, struct sst_part *h, const struct sst_piece *p,
                       bool offer)
{
    int rc = sst_fit(h->alloc, h->owner, &h->copy, &h->cap, p->size);
    if (rc == LOAM_OK) {
        rc = sst_read_full(r->vfs, r->file, r->props.file_number, h->copy, p->size, p->offset);
    }
    if (rc == LOAM_OK) {
        rc = sst_check_stored(r, p, h->copy);
    }
    if (rc == LOAM_OK && offer) {
        epoch_enter();
        sst_offer_piece(r, p, h->copy, p->size - SST_TRAILER_SIZE);
        epoch_exit();
    }
    return rc;
}

int sst_part_hold(const struct sst_reader *r, struct sst_part *h, uint32_t part,
                  enum sst_part_from from)
{
    if (h->number == part) {
        return LOAM_OK;
    }
    const struct sst_piece p = sst_part_piece(r, part);
    bool cached = r->cached != NULL && !r->resident && from != SST_PART_FILE;
    h->number = SST_NO_PART;
    int rc = cached ? copy_cached(r, h, &p, from == SST_PART_FILL) : LOAM_NOTFOUND;
    if (rc == LOAM_NOTFOUND) {
        rc = copy_stored(r, h, &p, cached && from == SST_PART_FILL);
    }
    if (rc == LOAM_OK) {
        block_init(&h->at, h->copy);
        h->number = part;
    }
    return rc;
}

uint32_t sst_part_of(const struct sst_reader *r, uint32_t block)
{
    uint32_t low = 0;
    uint32_t n = r->props.partitions;
    assert(block < r->props.blocks);
    while (n > 1) {
        uint32_t half = n / 2;
        low += r->part_first[low + half] <= block ? half : 0;
        n -= half;
    }
    return low;
}

static struct sst_piece block_of_part(const struct sst_reader *r, const struct block *part,
                                      uint32_t number, uint32_t i)
{
    struct partition_value v;
    partition_value(part, i, &v);
    return (struct sst_piece){SST_DATA, r->part_first[number] + i, v.number, v.size};
}

bool sst_place_held(const struct sst_reader *r, const struct sst_part *h, uint32_t block,
                    struct sst_piece *p)
{
    if (r->resident) {
        *p = sst_block_piece(r, block);
        return true;
    }
    if (h->number == SST_NO_PART || block < r->part_first[h->number] ||
        block >= r->part_first[h->number + 1]) {
        return false;
    }
    *p = block_of_part(r, &h->at, h->number, block - r->part_first[h->number]);
    return true;
}

int sst_place_block_paged(const struct sst_reader *r, struct sst_part *h, uint32_t block,
                          enum sst_part_from from, struct sst_piece *p)
{
    if (sst_place_held(r, h, block, p)) {
        return LOAM_OK;
    }
    int rc = sst_part_hold(r, h, sst_part_of(r, block), from);
    if (rc == LOAM_OK) {
        *p = block_of_part(r, &h->at, h->number, block - r->part_first[h->number]);
    }
    return rc;
}

int sst_find_block_paged(const struct sst_reader *r, struct sst_part *h, loam_slice key,
                         enum sst_part_from from, uint32_t *block)
{
    uint32_t part = index_find(&r->top, key);
    if (part == r->props.partitions) {
        *block = (uint32_t)r->props.blocks;
        return LOAM_OK;
    }
    int rc = sst_part_hold(r, h, part, from);
    if (rc == LOAM_OK) {
        *block = r->part_first[part] + block_seek(&h->at, r->cmp, key, UINT64_MAX);
    }
    return rc;
}

bool sst_block_dead(const struct sst_reader *r, const struct sst_part *h, uint32_t block)
{
    if (r->resident) {
        return index_dead(&r->index, block);
    }
    struct partition_value v;
    uint32_t part = sst_part_of(r, block);
    if (index_dead(&r->top, part)) {
        return true;
    }
    if (h->number != part) {
        return false;
    }
    partition_value(&h->at, block - r->part_first[part], &v);
    return v.dead;
}

/* Holds what sst_block_dead() needs of the block. */
static int hold_mark(const struct sst_reader *r, struct sst_part *h, enum sst_part_from from,
                     uint32_t block)
{
    uint32_t part = r->resident ? 0 : sst_part_of(r, block);
    return r->resident || index_dead(&r->top, part) ? LOAM_OK : sst_part_hold(r, h, part, from);
}

/* The separator of a block whose mark is held; of its partition where nothing else is known of it. */
static void append_separator(const struct sst_reader *r, const struct sst_part *h, uint32_t block,
                             struct buf *out)
{
    const struct index *x = r->resident ? &r->index : &r->top;
    uint32_t i = r->resident ? block : sst_part_of(r, block);
    if (r->resident || index_dead(x, i)) {
        loam_slice prefix = index_prefix(x), rest = index_rest(x, i);
        buf_append(out, prefix.data, prefix.size);
        buf_append(out, rest.data, rest.size);
        return;
    }
    struct block_item item;
    block_item(&h->at, block - r->part_first[i], &item);
    buf_append(out, h->at.prefix, h->at.prefix_size);
    buf_append(out, item.rest, item.rest_size);
}

int sst_next_dead(const struct sst_reader *r, struct sst_part *h, enum sst_part_from from,
                  uint32_t *block, struct buf *out)
{
    uint32_t i = *block, count = (uint32_t)r->props.blocks;
    bool found = false;
    int rc = LOAM_OK;
    for (; i < count && (rc = hold_mark(r, h, from, i)) == LOAM_OK; i++) {
        bool dead = sst_block_dead(r, h, i);
        if (found && !dead) {
            break;
        }
        if (dead && !found) {
            append_separator(r, h, i, out);
            found = true;
        }
    }
    *block = i;
    return rc != LOAM_OK ? rc : found ? LOAM_OK : LOAM_NOTFOUND;
}

/* ---- get ---- */

static int get_piece(const struct sst_reader *r, const struct sst_piece *p,
                     struct sst_get_scratch *s, const uint8_t **data)
{
    int rc = r->cached != NULL ? sst_peek_piece(r, p->number, s, data) : LOAM_NOTFOUND;
    return rc == LOAM_NOTFOUND ? sst_miss_piece(r, p, s, data) : rc;
}

/* LOAM_NOTFOUND: the filter has no key with this hash. */
static int ask_page(const struct sst_reader *r, uint64_t key_hash, struct sst_get_scratch *s)
{
    const uint8_t *data;
    uint64_t line = filter_line_of(key_hash, r->shape.lines);
    const struct sst_piece p = sst_page_piece(r, (uint32_t)(line / FILTER_PAGE_LINES));
    int rc = get_piece(r, &p, s, &data);
    if (rc != LOAM_OK) {
        return rc;
    }
    return filter_page_may_contain(data, r->shape.lines, key_hash) ? LOAM_OK : LOAM_NOTFOUND;
}

/* Place of the partition's block *i, or, when that is UINT32_MAX, of the one that may hold the key. */
static int seek_in_part(const struct sst_reader *r, uint32_t part, loam_slice key,
                        struct sst_get_scratch *s, uint32_t *i, struct sst_piece *p)
{
    const struct sst_piece at = sst_part_piece(r, part);
    const uint8_t *data;
    struct block b;
    int rc = get_piece(r, &at, s, &data);
    if (rc == LOAM_OK) {
        block_init(&b, data);
        *i = *i == UINT32_MAX ? block_seek(&b, r->cmp, key, UINT64_MAX) : *i;
        *p = block_of_part(r, &b, part, *i);
    }
    return rc;
}

int sst_get_paged(struct sst_reader *r, loam_slice key, uint64_t key_hash, uint64_t snapshot,
                  struct sst_get_scratch *s, struct entry *e)
{
    int rc = r->shape.lines != 0 ? ask_page(r, key_hash, s) : LOAM_OK;
    s->ruled_out = rc == LOAM_NOTFOUND;
    if (rc != LOAM_OK) {
        return rc;
    }
    uint32_t part = index_find(&r->top, key);
    uint32_t i = UINT32_MAX; /* of the block in its partition; not known yet */
    /* Usually one block; more when the key's versions go on in the next. */
    while (part < r->props.partitions) {
        struct sst_piece p;
        const uint8_t *data;
        rc = seek_in_part(r, part, key, s, &i, &p);
        if (rc == LOAM_OK) {
            rc = get_piece(r, &p, s, &data);
        }
        if (rc == LOAM_OK) {
            rc = block_get(data, r->cmp, key, key_hash, snapshot, e);
        }
        if (rc != BLOCK_GET_MORE) {
            return rc;
        }
        i++;
        if (i == r->part_first[part + 1] - r->part_first[part]) {
            part++;
            i = 0;
        }
    }
    return LOAM_NOTFOUND;
}

/* ---- all of them ---- */

size_t sst_pages_size(const struct sst_reader *r, const struct sst_pages *g)
{
    if (g->first == g->end) {
        return 0;
    }
    const struct sst_piece last = sst_page_piece(r, g->end - 1);
    return (size_t)(last.offset + last.size - sst_page_piece(r, g->first).offset);
}

int sst_gather_pages(const struct sst_reader *r, struct sst_pages *g,
                     void (*bad)(void *arg, const struct sst_piece *page, int rc), void *arg)
{
    uint64_t begin = sst_page_piece(r, g->first).offset;
    uint8_t *to = g->memory; /* lines move down over heads and trailers */
    int rc = sst_read_full(r->vfs, r->file, r->props.file_number, g->memory, sst_pages_size(r, g),
                           begin);
    if (rc != LOAM_OK) {
        return rc;
    }
    for (uint32_t i = g->first; i < g->end; i++) {
        const struct sst_piece p = sst_page_piece(r, i);
        const uint8_t *page = g->memory + (p.offset - begin);
        size_t lines = p.size - SST_TRAILER_SIZE - FILTER_HEAD;
        rc = sst_check_stored(r, &p, page);
        if (rc == LOAM_OK && bad != NULL) {
            rc = sst_check_cached(r, p.number, page, FILTER_HEAD + lines, true);
        }
        if (rc == LOAM_OK && g->probes != 0 && filter_page_probes(page) != g->probes) {
            rc = FAIL_CORRUPT(r->props.file_number, p.offset,
                              "the filter pages of table %llu differ in their probes",
                              (unsigned long long)r->props.file_number);
        }
        if (rc == LOAM_OK) {
            g->probes = filter_page_probes(page);
            memmove(to, page + FILTER_HEAD, lines);
        } else if (bad == NULL) {
            return rc;
        } else {
            bad(arg, &p, rc);
            memset(to, 0xff, lines);
        }
        to += lines;
    }
    return LOAM_OK;
}

int sst_check_paged(const struct sst_reader *r)
{
    struct sst_part h;
    struct sst_get_scratch s;
    const uint8_t *data;
    size_t size;
    int rc = LOAM_OK;
    sst_part_init(&h, r->alloc, MEM_ITER);
    sst_get_scratch_init(&s, r->alloc);
    for (uint32_t i = 0; i < r->props.partitions && rc == LOAM_OK; i++) {
        rc = sst_part_hold(r, &h, i, SST_PART_FILE);
    }
    for (uint32_t i = 0; i < r->props.filter_pages && rc == LOAM_OK; i++) {
        const struct sst_piece p = sst_page_piece(r, i);
        rc = sst_read_piece(r, &p, &s, &data, &size);
    }
    sst_part_free(&h);
    sst_get_scratch_free(&s);
    return rc;
}
