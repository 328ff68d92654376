/* sst_reader.c - Loads the pieces of a table and finds keys in them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/sst_reader.h"

#include <assert.h>

#include "arena/status.h"
#include "sstable/block.h"
#include "sstable/partition.h"
#include "sstable/sst_paged.h"

#include "arena/poison.h"

/* ---- scratch ---- */

void sst_get_scratch_init(struct sst_get_scratch *s, struct alloc *a)
{
    *s = (struct sst_get_scratch){.alloc = a, .unpacker = {.alloc = a}};
}

void sst_get_scratch_free(struct sst_get_scratch *s)
{
    if (s->alloc == NULL) {
        return;
    }
    alloc_put(s->alloc, MEM_ITER, s->io, s->io_cap);
    alloc_put(s->alloc, MEM_ITER, s->raw, s->raw_cap);
    large_give(&s->large);
    sst_unpacker_free(&s->unpacker);
    sst_get_scratch_init(s, s->alloc);
}

/* ---- pieces ---- */

struct sst_piece sst_page_piece(const struct sst_reader *r, uint32_t page)
{
    return (struct sst_piece){
        .type = SST_FILTER,
        .number = (uint32_t)r->props.blocks + page,
        .offset = r->footer.filter.offset + (uint64_t)page * (FILTER_PAGE_BYTES + SST_TRAILER_SIZE),
        .size = filter_page_size(r->shape.lines, page) + SST_TRAILER_SIZE,
    };
}

struct sst_piece sst_part_piece(const struct sst_reader *r, uint32_t part)
{
    return (struct sst_piece){
        .type = SST_INDEX,
        .number = (uint32_t)r->props.blocks + r->props.filter_pages + part,
        .offset = r->top.offsets[part],
        .size = index_size(&r->top, part),
    };
}

static const char *piece_name(enum sst_type type)
{
    return type == SST_DATA ? "block" : type == SST_INDEX ? "index partition" : "filter page";
}

/* The partition covers what the top says of it. */
static int check_part(const struct sst_reader *r, uint32_t part, const void *data, size_t size,
                      const char **what)
{
    const struct partition_bounds bounds = {
        .cmp = r->cmp,
        .key_max = r->props.max_key,
        .count = r->part_first[part + 1] - r->part_first[part],
        .begin = SST_HEADER_SIZE,
        .end = r->footer.data_end,
    };
    int rc = partition_check(data, size, &bounds, what);
    if (rc != LOAM_OK) {
        return rc;
    }
    struct block b;
    struct block_item last;
    block_init(&b, data);
    block_item(&b, b.count - 1, &last);
    loam_slice prefix = index_prefix(&r->top), rest = index_rest(&r->top, part);
    if (!sst_same_key(loam_bytes(b.prefix, b.prefix_size), loam_bytes(last.rest, last.rest_size),
                      prefix, rest)) {
        *what = "it does not end where the top says";
        return LOAM_E_CORRUPT;
    }
    return LOAM_OK;
}

int sst_check_piece(const struct sst_reader *r, const struct sst_piece *p, const void *data,
                    size_t size)
{
    const char *what = NULL;
    int rc = LOAM_OK;
    uint32_t blocks = (uint32_t)r->props.blocks;
    switch (p->type) {
    case SST_DATA:
        rc = block_check(data, size, r->cmp, r->props.max_key, &what);
        break;
    case SST_INDEX:
        rc = check_part(r, p->number - blocks - r->props.filter_pages, data, size, &what);
        break;
    default:
        what = filter_page_check(data, size, &r->shape, p->number - blocks);
        rc = what == NULL ? LOAM_OK : LOAM_E_CORRUPT;
    }
    if (rc == LOAM_OK && r->paranoid && !block_sum_matches(data, size, r->file_seed, p->number)) {
        rc = LOAM_E_CORRUPT;
        what = "its own checksum does not match";
    }
    if (rc == LOAM_OK) {
        return LOAM_OK;
    }
    struct fail_info info = {.code = rc, .file_id = r->props.file_number, .offset = p->offset};
    return status_fail(info, __FILE__, __LINE__, "%s %u of table %llu: %s", piece_name(p->type),
                       p->number, (unsigned long long)r->props.file_number, what);
}

/* What the trailer says of a piece. */
static int check_trailer(const struct sst_reader *r, const struct sst_piece *p, const void *stored,
                         struct sst_stored *s)
{
    uint64_t raw_max = p->type == SST_DATA ? r->props.max_block : p->size;
    int rc = sst_stored_check(sst_place_of(r, p), p->type, stored, p->size, raw_max, s);
    if (rc == LOAM_OK && p->type != SST_DATA && s->codec != SST_CODEC_NONE) {
        return FAIL_CORRUPT(r->props.file_number, p->offset, "%s %u of table %llu is compressed",
                            piece_name(p->type), p->number,
                            (unsigned long long)r->props.file_number);
    }
    return rc;
}

int sst_check_stored(const struct sst_reader *r, const struct sst_piece *p, const void *stored)
{
    struct sst_stored s;
    int rc = check_trailer(r, p, stored, &s);
    return rc == LOAM_OK ? sst_check_piece(r, p, s.payload, s.raw_size) : rc;
}

int sst_check_cached(const struct sst_reader *r, uint32_t number, const void *data, size_t size,
                     bool verify)
{
    if ((r->paranoid || verify) && !block_sum_matches(data, size, r->file_seed, number)) {
        return FAIL_CORRUPT(r->props.file_number, 0, "block %u of table %llu changed in memory",
                            number, (unsigned long long)r->props.file_number);
    }
    return LOAM_OK;
}

void sst_offer_piece(const struct sst_reader *r, const struct sst_piece *p, const void *data,
                     size_t size)
{
    uint64_t addr = 0;
    /* A page or partition enters at its first miss: a page serves some three thousand keys, a partition
     * a hundred blocks and more, so it is asked for again even where each key is asked for once; and
     * all of them together are a sixtieth of the data, so they push little out. */
    bool meta = p->type != SST_DATA;
    if (r->cached == NULL || (r->resident && meta) ||
        (!meta && !block_cache_admits(r->cache, &r->cached->blocks, p->number, size))) {
        return;
    }
    void *room = block_cache_fill_begin(r->cache, size, &addr);
    if (room != NULL) {
        memcpy(room, data, size);
        /* A data block is not hot yet, whoever reads it: the second use shows what is worth a second
         * chance. */
        block_cache_fill_end(r->cache, &r->cached->blocks, p->number, addr, true, meta);
    }
}

/* ---- large blocks ---- */

/* LZ4 unpacks in place when what is packed ends so far behind what it becomes (lz4.h). */
static size_t margin(size_t packed)
{
    return (packed >> 8) + 32;
}

/* Bytes that a stored block and what it becomes take together; the stored one stands at the end. */
static size_t room_for(const struct sst_piece *p, enum sst_codec codec, size_t raw)
{
    size_t need = raw + SST_TRAILER_SIZE;
    need += codec == SST_CODEC_LZ4 ? margin(p->size) : codec == SST_CODEC_ZSTD ? p->size : 0;
    return need > p->size ? need : p->size;
}

/* What its trailer, not checked yet, says of a stored block: so that one buffer of the right size does. */
static int ask_trailer(const struct sst_reader *r, const struct sst_piece *p, enum sst_codec *codec,
                       size_t *raw)
{
    uint8_t trailer[SST_TRAILER_SIZE];
    int rc = sst_read_full(r->vfs, r->file, r->props.file_number, trailer, sizeof trailer,
                           p->offset + p->size - sizeof trailer);
    if (rc == LOAM_OK) {
        *codec = trailer[0] <= SST_CODEC_ZSTD ? (enum sst_codec)trailer[0] : SST_CODEC_NONE;
        *raw = *codec != SST_CODEC_NONE ? get_fixed32(trailer + 4) : p->size - SST_TRAILER_SIZE;
        *raw = *raw <= r->props.max_block ? *raw : 0; /* which will be found wrong */
    }
    return rc;
}

/* Reads the block to the end of l and unpacks it to its beginning. */
static int fill_large(const struct sst_reader *r, const struct sst_piece *p, struct sst_unpacker *u,
                      struct large *l, size_t raw, const uint8_t **data, size_t *size)
{
    struct sst_stored s;
    uint8_t *stored = l->data + (l->size - p->size);
    int rc = sst_read_full(r->vfs, r->file, r->props.file_number, stored, p->size, p->offset);
    if (rc == LOAM_OK) {
        rc = check_trailer(r, p, stored, &s);
    }
    if (rc != LOAM_OK) {
        return rc;
    }
    *data = s.payload; /* its trailer is behind it */
    *size = s.raw_size;
    if (s.codec != SST_CODEC_NONE) {
        if (s.raw_size != raw) {
            return FAIL_CORRUPT(r->props.file_number, p->offset, "block %u of table %llu changed in between",
                                p->number, (unsigned long long)r->props.file_number);
        }
        rc = sst_unpack(u, sst_place_of(r, p), &s, l->data);
        memset(l->data + raw, 0, SST_TRAILER_SIZE);
        *data = l->data;
    }
    return rc == LOAM_OK ? sst_check_piece(r, p, *data, *size) : rc;
}

int sst_read_large(const struct sst_reader *r, const struct sst_piece *p, struct sst_unpacker *u,
                   struct large *l, enum large_way way, enum mem_owner owner, const uint8_t **data,
                   size_t *size)
{
    enum sst_codec codec;
    size_t raw;
    int rc = ask_trailer(r, p, &codec, &raw);
    if (rc == LOAM_OK) {
        rc = large_take(r->large, u->alloc, l, way, owner, room_for(p, codec, raw));
    }
    if (rc != LOAM_OK) {
        return rc;
    }
    rc = fill_large(r, p, u, l, raw, data, size);
    if (rc != LOAM_OK) {
        large_give(l);
    }
    return rc;
}

/* ---- pieces through a scratch ---- */

/* Unpacks a checked piece into a buffer of s, or leaves it where it is. */
static int unpack(const struct sst_reader *r, const struct sst_piece *p, const struct sst_stored *stored,
                  struct sst_get_scratch *s, const uint8_t **data)
{
    *data = stored->payload;
    if (stored->codec == SST_CODEC_NONE) {
        return LOAM_OK;
    }
    size_t need = stored->raw_size + SST_TRAILER_SIZE;
    bool large = sst_is_large(r, stored->raw_size);
    int rc = large ? large_take(r->large, s->alloc, &s->large, LARGE_PASSING, MEM_ITER, need)
                   : sst_fit(s->alloc, MEM_ITER, &s->raw, &s->raw_cap, need);
    if (rc == LOAM_OK) {
        uint8_t *raw = large ? s->large.data : s->raw;
        rc = sst_unpack(&s->unpacker, sst_place_of(r, p), stored, raw);
        memset(raw + stored->raw_size, 0, SST_TRAILER_SIZE);
        *data = raw;
    }
    return rc;
}

int sst_read_piece(const struct sst_reader *r, const struct sst_piece *p, struct sst_get_scratch *s,
                   const uint8_t **data, size_t *size)
{
    struct sst_place at = sst_place_of(r, p);
    struct sst_stored stored;
    sst_get_scratch_rest(s);
    if (p->type == SST_DATA && sst_is_large(r, p->size)) {
        return sst_read_large(r, p, &s->unpacker, &s->large, LARGE_PASSING, MEM_ITER, data, size);
    }
    int rc = sst_fit(s->alloc, MEM_ITER, &s->io, &s->io_cap, p->size);
    if (rc == LOAM_OK) {
        rc = sst_read_full(r->vfs, r->file, at.file, s->io, p->size, at.offset);
    }
    if (rc == LOAM_OK) {
        rc = check_trailer(r, p, s->io, &stored);
    }
    const uint8_t *raw = NULL;
    if (rc == LOAM_OK) {
        rc = unpack(r, p, &stored, s, &raw);
    }
    if (rc == LOAM_OK) {
        rc = sst_check_piece(r, p, raw, stored.raw_size);
    }
    if (rc == LOAM_OK) {
        *data = raw;
        *size = stored.raw_size;
    } else {
        sst_get_scratch_rest(s);
    }
    return rc;
}

int sst_miss_piece(const struct sst_reader *r, const struct sst_piece *p, struct sst_get_scratch *s,
                   const uint8_t **data)
{
    size_t size = 0;
    s->cache_misses++;
    int rc = sst_read_piece(r, p, s, data, &size);
    if (rc == LOAM_OK && !s->no_fill) {
        sst_offer_piece(r, p, *data, size);
    }
    return rc;
}

/* ---- looking up ---- */

/* The block, from the cache or through the scratch. */
static int get_block(const struct sst_reader *r, uint32_t block, struct sst_get_scratch *s,
                     const uint8_t **data)
{
    int rc = r->cached != NULL ? sst_peek_piece(r, block, s, data) : LOAM_NOTFOUND;
    if (rc == LOAM_NOTFOUND) {
        const struct sst_piece p = sst_block_piece(r, block);
        rc = sst_miss_piece(r, &p, s, data);
    }
    return rc;
}

void sst_expect(const struct sst_reader *r, loam_slice key, uint64_t key_hash)
{
    if (!r->resident) {
        return;
    }
    if (r->filter.probes != 0) {
        filter_prefetch(&r->filter, key_hash);
    }
    uint32_t first = index_prefetch(&r->index, key);
    if (r->cached != NULL) {
        block_cache_prefetch_addresses(&r->cached->blocks, first);
    }
}

int sst_get(struct sst_reader *r, loam_slice key, uint64_t key_hash, uint64_t snapshot,
            struct sst_get_scratch *s, struct entry *e)
{
    if (__builtin_expect(!r->resident, 0)) {
        return sst_get_paged(r, key, key_hash, snapshot, s, e);
    }
    /* Usually one block; more when the key's versions go on in the next. */
    for (uint32_t i = index_find(&r->index, key); i < r->index.count; i++) {
        const uint8_t *data;
        int rc = get_block(r, i, s, &data);
        if (rc == LOAM_OK) {
            rc = block_get(data, r->cmp, key, key_hash, snapshot, e);
        }
        if (rc != BLOCK_GET_MORE) {
            return rc;
        }
    }
    return LOAM_NOTFOUND;
}

/* ---- the table as a whole ---- */

uint64_t sst_memory(const struct sst_reader *r)
{
    uint64_t addresses = r->cached != NULL ? sizeof *r->cached : 0;
    if (r->cached != NULL && r->cached->blocks.addr != NULL) {
        addresses += 8 * (uint64_t)r->cached->blocks.count;
    }
    return sizeof *r + r->index.memory_size + r->filter_memory_size + r->props_memory_size +
           r->top.memory_size + sizeof *r->part_first * ((uint64_t)r->props.partitions + 1) +
           addresses;
}

uint64_t sst_offset_of(const struct sst_reader *r, loam_slice key)
{
    /* By rank, not by place: blocks may stand in the file in another order. */
    uint32_t rank =
        r->resident ? index_find(&r->index, key) : r->part_first[index_find(&r->top, key)];
    double share = (double)rank / (double)r->props.blocks;
    return SST_HEADER_SIZE + (uint64_t)(share * (double)r->props.data_size);
}

void sst_split_key(const struct sst_reader *r, uint64_t num, uint64_t den, struct buf *out)
{
    assert(num < den);
    const struct index *x = r->resident ? &r->index : &r->top;
    uint32_t i = (uint32_t)((double)x->count * ((double)num / (double)den));
    i = i < x->count ? i : x->count - 1;
    loam_slice prefix = index_prefix(x);
    loam_slice rest = index_rest(x, i);
    buf_append(out, prefix.data, prefix.size);
    buf_append(out, rest.data, rest.size);
}
