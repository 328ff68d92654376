/* sst_builder.c - Cuts ascending entries into blocks.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/sst_builder.h"

#include <assert.h>

#include "arena/buf.h"
#include "arena/coding.h"
#include "arena/hash.h"
#include "arena/status.h"
#include "sstable/block.h"
#include "sstable/block_builder.h"
#include "sstable/filter.h"
#include "sstable/index_builder.h"
#include "sstable/sst_output.h"

#include "arena/poison.h"

#define BLOCK_BYTES_DEFAULT 4096u
#define PAGE_BYTES          4096u
#define STRETCH_PART        16u /* of a block: bytes it may have more to end with a page */
#define RAW_FACTOR          8u /* a block is cut, too, when stripped prefixes add up to that */
#define VALUE_MAX           ((uint64_t)1 << 30)
#define BLOCKS_MAX          ((uint32_t)1 << 30) /* pages and partitions are numbered behind them */

struct sst_builder {
    /* constant after open */
    struct alloc *alloc;
    struct block_cache *cache;
    const loam_comparator *cmp;
    uint32_t block_bytes, filter_bits, level;
    uint32_t features; /* SST_FEATURE_* that its blocks need */

    struct sst_output out; /* by its own rules */

    /* the builder's thread */
    int rc; /* first error; later calls return it */
    loam_error error;
    bool finished;
    bool staged; /* stage is initialised and not yet handed over or abandoned */
    struct block_builder block;
    struct index_builder index;
    struct filter_builder filter;
    struct buf smallest;
    struct buf last_key;  /* last key of the blocks that were cut */
    struct buf separator; /* scratch */
    uint64_t last_tag;
    uint32_t blocks; /* cut so far */
    bool dead;       /* the block cut last holds nothing but deletes */
    uint32_t key_max;
    uint64_t block_max; /* bytes of the largest block */
    uint64_t entries, deletes, older, raw_bytes, min_seq, max_seq, cut_bytes;
    struct block_stage stage;
    _Atomic uint64_t *addr; /* ring address per block; not shared yet */
    uint32_t addr_cap;
    uint8_t *image; /* a block on its way around the ring */
    size_t image_cap;
};

/* ---- opening and freeing ---- */

static void set_options(struct sst_builder *b, const struct sst_build_options *o)
{
    b->alloc = o->alloc;
    b->cache = o->cache;
    b->cmp = o->cmp;
    b->level = (uint32_t)o->level;
    b->block_bytes = o->block_bytes == 0 ? BLOCK_BYTES_DEFAULT : o->block_bytes;
    /* Under a comparator keys that differ in bytes may be equal: hashes say nothing. */
    bool filtered = o->filter_bits != UINT32_MAX && o->cmp == NULL;
    b->filter_bits = filtered ? o->filter_bits : 0;
    if (b->filter_bits > FILTER_BITS_MAX) {
        b->filter_bits = FILTER_BITS_MAX;
    }
}

static void init_parts(struct sst_builder *b)
{
    block_builder_init(&b->block, b->alloc, b->cmp == NULL);
    index_builder_init(&b->index, b->alloc);
    filter_builder_init(&b->filter, b->alloc);
    buf_init(&b->smallest, b->alloc, MEM_BUILD);
    buf_init(&b->last_key, b->alloc, MEM_BUILD);
    buf_init(&b->separator, b->alloc, MEM_BUILD);
    b->min_seq = UINT64_MAX;
}

int sst_builder_open(struct sst_builder **out, const struct sst_build_options *o)
{
    assert(o->level >= 0);
    struct sst_builder *b = alloc_get_aligned(o->alloc, MEM_BUILD, sizeof *b, CACHE_LINE);
    if (b == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory to build a table");
    }
    memset(b, 0, sizeof *b);
    set_options(b, o);
    init_parts(b);
    b->block.lent = o->lent;
    int rc = sst_output_open(&b->out, o);
    if (rc == LOAM_OK && b->cache != NULL) {
        rc = block_stage_init(&b->stage, b->cache, sst_output_block, &b->out);
        b->staged = rc == LOAM_OK;
    }
    if (rc != LOAM_OK) {
        sst_builder_free(b);
        return rc;
    }
    *out = b;
    return LOAM_OK;
}

static void drop_image(struct sst_builder *b)
{
    alloc_put(b->alloc, MEM_BUILD, b->image, b->image_cap);
    b->image = NULL;
    b->image_cap = 0;
}

/* Frees what only building needs: a merge keeps the builders of all its tables until they are
 * installed. */
static void free_parts(struct sst_builder *b)
{
    block_builder_free(&b->block);
    index_builder_free(&b->index);
    filter_builder_free(&b->filter);
    buf_free(&b->separator);
    drop_image(b);
}

void sst_builder_free(struct sst_builder *b)
{
    if (b == NULL) {
        return;
    }
    if (b->staged) {
        block_stage_abandon(&b->stage);
    }
    sst_output_free(&b->out); /* after the stage, which writes to it */
    free_parts(b);
    buf_free(&b->smallest);
    buf_free(&b->last_key);
    alloc_put(b->alloc, MEM_TABLE, (void *)b->addr, b->addr_cap * sizeof *b->addr);
    alloc_put_aligned(b->alloc, MEM_BUILD, b, sizeof *b, CACHE_LINE);
}

/* ---- cutting blocks ---- */

/* Remembers the first error for all later calls. */
static int latch(struct sst_builder *b, int rc)
{
    if (rc != LOAM_OK && b->rc == LOAM_OK) {
        b->rc = rc;
        b->error = *loam_last_error();
    }
    return rc;
}

static int grow_addresses(struct sst_builder *b)
{
    uint32_t cap = b->addr_cap == 0 ? 256 : b->addr_cap * 2;
    void *p = alloc_resize(b->alloc, MEM_TABLE, (void *)b->addr, b->addr_cap * sizeof *b->addr,
                           cap * sizeof *b->addr);
    if (p == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for the addresses of %u blocks", cap);
    }
    b->addr = p;
    b->addr_cap = cap;
    return LOAM_OK;
}

/* Room for what is kept of block number b->blocks. */
static int reserve_block(struct sst_builder *b)
{
    if (b->blocks == BLOCKS_MAX) {
        return FAIL(LOAM_E_TOOBIG, "a table has more than 2^30 blocks");
    }
    int rc = sst_output_reserve(&b->out, b->blocks);
    if (rc == LOAM_OK && b->cache != NULL && b->blocks == b->addr_cap) {
        rc = grow_addresses(b);
    }
    return rc;
}

/* Around the ring: laid out in private memory and written by this thread. */
static int write_directly(struct sst_builder *b, const struct block_input *in, uint32_t n,
                          const struct block_shape *s)
{
    bool in_turn = s->size > SST_TURN;
    uint64_t turn = 2 * s->size; /* as it is, and packed */
    if (in_turn) {
        large_pass_begin(b->out.large, turn);
    }
    int rc = sst_fit(b->alloc, MEM_BUILD, &b->image, &b->image_cap, s->size);
    if (rc == LOAM_OK) {
        block_emit(in, n, s, b->out.file_seed, b->blocks, b->image);
        rc = sst_output_block_in_turn(&b->out, b->blocks, b->image, s->size); /* small ones need none */
    }
    if (in_turn) {
        drop_image(b);
        large_pass_end(b->out.large, turn);
    }
    return rc;
}

static int write_through_ring(struct sst_builder *b, const struct block_input *in, uint32_t n,
                              const struct block_shape *s, uint64_t *addr)
{
    void *room = block_stage_begin(&b->stage, s->size, addr);
    if (room == NULL) {
        return loam_last_error()->code;
    }
    block_emit(in, n, s, b->out.file_seed, b->blocks, room);
    int rc = block_stage_end(&b->stage, *addr, b->blocks, s->size);
    return rc == LOAM_OK ? block_stage_evict_some(&b->stage) : rc;
}

static bool all_deletes(const struct block_input *in, uint32_t n)
{
    uint32_t i = 0;
    while (i < n && tag_kind(in[i].tag) == ENTRY_DELETE) {
        i++;
    }
    return i == n;
}

/* Sends n >= 1 inputs off as the next block. */
static int cut(struct sst_builder *b, const struct block_input *in, uint32_t n,
               const struct block_shape *s)
{
    if (s->size > SST_BLOCK_SIZE_MAX) {
        return FAIL(LOAM_E_TOOBIG, "a block of %llu bytes", (unsigned long long)s->size);
    }
    int rc = reserve_block(b);
    if (rc != LOAM_OK) {
        return rc;
    }
    uint64_t addr = 0;
    bool in_ring = b->cache != NULL && s->size <= block_stage_max(b->cache);
    rc = in_ring ? write_through_ring(b, in, n, s, &addr) : write_directly(b, in, n, s);
    if (rc != LOAM_OK) {
        return rc;
    }
    if (b->cache != NULL) {
        atomic_init(&b->addr[b->blocks], addr);
    }
    b->blocks++;
    b->dead = all_deletes(in, n);
    b->cut_bytes += s->size;
    b->block_max = s->size > b->block_max ? s->size : b->block_max;
    buf_set(&b->last_key, in[n - 1].key, in[n - 1].key_size);
    return buf_status(&b->last_key);
}

/* Lets the block end where a page of the file does if that takes few bytes: then the next one begins there, and
 * a block of a page is read from one page, not two. */
static void stretch(struct sst_builder *b, struct block_shape *s)
{
    /* As long as blocks come to the file in their order, which a few do not. */
    uint64_t place = SST_HEADER_SIZE + b->cut_bytes + (uint64_t)b->blocks * SST_TRAILER_SIZE;
    uint64_t more = -(place + s->size + SST_TRAILER_SIZE) % PAGE_BYTES;
    if (b->out.codec == SST_CODEC_NONE && more != 0 && more <= s->size / STRETCH_PART) {
        s->size += more;
        b->features |= SST_FEATURE_STRETCHED;
    }
}

static int cut_gathered(struct sst_builder *b)
{
    struct block_shape s;
    if (b->block.count == 0) {
        return LOAM_OK;
    }
    block_builder_shape(&b->block, &s);
    stretch(b, &s);
    int rc = cut(b, b->block.inputs, b->block.count, &s);
    block_builder_clear(&b->block);
    return rc;
}

/* Before the first entry of a block: the separator behind the block before it. */
static int separate(struct sst_builder *b, loam_slice key)
{
    if (b->blocks == 0) {
        buf_set(&b->smallest, key.data, key.size);
        return buf_status(&b->smallest);
    }
    index_separator(b->cmp, buf_slice(&b->last_key), key, &b->separator);
    if (buf_status(&b->separator) != LOAM_OK) {
        return LOAM_E_NOMEM;
    }
    index_builder_add(&b->index, buf_slice(&b->separator), b->dead);
    return LOAM_OK;
}

/* ---- adding ---- */

static loam_slice last_key(const struct sst_builder *b)
{
    if (b->block.count == 0) {
        return buf_slice(&b->last_key);
    }
    const struct block_input *in = block_builder_last(&b->block);
    return loam_bytes(in->key, in->key_size);
}

/* *older: a newer version of the key is right before it. */
static int check_entry(const struct sst_builder *b, const struct entry *e, bool *older)
{
    *older = false;
    if (e->key.size > SST_KEY_MAX || e->value.size > VALUE_MAX) {
        return FAIL(LOAM_E_TOOBIG, "an entry has a key of %zu and a value of %zu bytes",
                    e->key.size, e->value.size);
    }
    if (tag_kind(e->tag) > ENTRY_PUT || (tag_kind(e->tag) == ENTRY_DELETE && e->value.size != 0)) {
        return FAIL(LOAM_E_FORMAT, "a table cannot hold an entry of kind %d", tag_kind(e->tag));
    }
    if (b->entries == 0) {
        return LOAM_OK;
    }
    /* No assert: a damaged input table with valid checksums can get here, too. */
    int c = key_compare(b->cmp, last_key(b), e->key);
    if (c > 0 || (c == 0 && b->last_tag <= e->tag)) {
        return FAIL(LOAM_E_INTERNAL, "entries for table %llu are out of order",
                    (unsigned long long)b->out.file_number);
    }
    *older = c == 0;
    return LOAM_OK;
}

/* An entry beyond the block target gets a block of its own, laid out from the caller's memory. */
static int add_large(struct sst_builder *b, const struct entry *e, uint8_t fingerprint)
{
    struct block_shape s;
    struct block_input in = {.key = e->key.data,
                             .value = e->value.data,
                             .key_size = (uint32_t)e->key.size,
                             .value_size = (uint32_t)e->value.size,
                             .tag = e->tag,
                             .fingerprint = fingerprint};
    int rc = cut_gathered(b);
    if (rc == LOAM_OK) {
        rc = separate(b, e->key);
    }
    if (rc != LOAM_OK) {
        return rc;
    }
    block_shape_single(&in, b->cmp == NULL, &s);
    return cut(b, &in, 1, &s);
}

static int add_small(struct sst_builder *b, const struct entry *e, uint8_t fingerprint)
{
    size_t trailer = b->block_bytes > 2 * SST_TRAILER_SIZE ? SST_TRAILER_SIZE : 0; /* of a page, too */
    bool full = !block_builder_fits(&b->block, e, b->block_bytes - trailer) ||
                b->block.bytes_size > (size_t)RAW_FACTOR * b->block_bytes;
    int rc = full ? cut_gathered(b) : LOAM_OK;
    if (rc == LOAM_OK && b->block.count == 0) {
        rc = separate(b, e->key);
    }
    return rc == LOAM_OK ? block_builder_add(&b->block, e, fingerprint) : rc;
}

static void count_entry(struct sst_builder *b, const struct entry *e, bool older)
{
    uint64_t seq = tag_seq(e->tag);
    b->entries++;
    b->deletes += tag_kind(e->tag) == ENTRY_DELETE;
    b->older += older;
    b->raw_bytes += e->key.size + e->value.size;
    b->min_seq = seq < b->min_seq ? seq : b->min_seq;
    b->max_seq = seq > b->max_seq ? seq : b->max_seq;
    b->key_max = e->key.size > b->key_max ? (uint32_t)e->key.size : b->key_max;
    b->last_tag = e->tag;
}

int sst_builder_add(struct sst_builder *b, const struct entry *e, uint64_t key_hash)
{
    assert(!b->finished);
    if (b->rc != LOAM_OK) {
        return status_raise(&b->error);
    }
    bool older;
    int rc = check_entry(b, e, &older);
    if (rc != LOAM_OK) {
        return latch(b, rc);
    }
    if (key_hash == 0) {
        key_hash = hash_key(e->key.data, e->key.size);
    }
    uint8_t fingerprint = fingerprint_of(key_hash);
    bool large = e->key.size + e->value.size >= b->block_bytes;
    rc = large ? add_large(b, e, fingerprint) : add_small(b, e, fingerprint);
    if (rc == LOAM_OK && b->filter_bits != 0 && !filter_builder_add(&b->filter, key_hash)) {
        rc = FAIL(LOAM_E_NOMEM, "no memory for a filter of %llu keys",
                  (unsigned long long)b->filter.keys);
    }
    count_entry(b, e, older);
    return latch(b, rc);
}

uint64_t sst_builder_bytes(const struct sst_builder *b)
{
    /* relaxed: an estimate. */
    uint64_t raw = atom_load(&b->out.written_raw, relaxed);
    uint64_t stored = atom_load(&b->out.written_stored, relaxed);
    uint64_t waiting = b->cut_bytes > raw ? b->cut_bytes - raw : 0;
    waiting += b->block.count != 0 ? block_builder_estimate(&b->block) : 0;
    double ratio = raw != 0 && stored < raw ? (double)stored / (double)raw : 1.0;
    return SST_HEADER_SIZE + SST_FOOTER_SIZE + stored + (uint64_t)((double)waiting * ratio) +
           index_builder_size(&b->index) + b->filter.keys * b->filter_bits / 8;
}

/* ---- finishing ---- */

/* Seals and appends the pages that stand one behind the other at p. */
static int write_pages(struct sst_builder *b, uint8_t *p, uint64_t lines, struct sst_handle *all)
{
    int rc = LOAM_OK;
    uint64_t pages = filter_page_count(lines);
    for (uint64_t i = 0; i < pages && rc == LOAM_OK; i++) {
        uint32_t size = filter_page_size(lines, i);
        struct sst_handle h = {0};
        put_fixed64(p, block_sum(p, size, b->out.file_seed, b->blocks + (uint32_t)i));
        rc = sst_output_part(&b->out, SST_FILTER, p, size, &h);
        all->size += h.size;
        p += size;
    }
    return rc;
}

static int write_filter(struct sst_builder *b, struct sst_handle *h)
{
    *h = (struct sst_handle){sst_output_end(&b->out), 0};
    if (b->filter_bits == 0) {
        return LOAM_OK;
    }
    uint64_t lines = filter_builder_lines(&b->filter, b->filter_bits);
    uint64_t size = (lines + filter_page_count(lines)) * FILTER_LINE;
    void *p = alloc_get(b->alloc, MEM_BUILD, size);
    if (p == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a filter of %llu bytes", (unsigned long long)size);
    }
    filter_builder_emit(&b->filter, b->filter_bits, p);
    int rc = write_pages(b, p, lines, h);
    alloc_put(b->alloc, MEM_BUILD, p, size);
    return rc;
}

static int put_part(void *arg, enum sst_type type, const void *data, size_t size,
                    struct sst_handle *h)
{
    return sst_output_part(arg, type, data, size, h);
}

static int write_index(struct sst_builder *b, struct sst_footer *f)
{
    uint64_t lines = b->filter_bits != 0 ? filter_builder_lines(&b->filter, b->filter_bits) : 0;
    const struct index_emit how = {
        .put = put_part,
        .arg = &b->out,
        .offsets = b->out.offsets,
        .sizes = b->out.sizes,
        .file_seed = b->out.file_seed,
        .first_number = b->blocks + (uint32_t)filter_page_count(lines),
        .strip = b->cmp == NULL,
    };
    index_builder_add(&b->index, buf_slice(&b->last_key), b->dead);
    assert(b->index.count == b->blocks);
    return index_builder_emit(&b->index, &how, &f->index, &f->top);
}

static int write_props(struct sst_builder *b, struct sst_handle *h)
{
    struct sst_prop_values v = {
        .comparator =
            b->cmp == NULL ? loam_bytes("", 0) : loam_bytes(b->cmp->name, strlen(b->cmp->name)),
        .smallest = buf_slice(&b->smallest),
        .largest = buf_slice(&b->last_key),
    };
    v.number[SST_PROP_LEVEL] = b->level;
    v.number[SST_PROP_BLOCK_BYTES] = b->block_bytes;
    v.number[SST_PROP_BLOCKS] = b->blocks;
    v.number[SST_PROP_ENTRIES] = b->entries;
    v.number[SST_PROP_DELETES] = b->deletes;
    v.number[SST_PROP_RAW_BYTES] = b->raw_bytes;
    v.number[SST_PROP_MIN_SEQ] = b->min_seq;
    v.number[SST_PROP_MAX_SEQ] = b->max_seq;
    v.number[SST_PROP_MAX_KEY] = b->key_max;
    v.number[SST_PROP_MAX_BLOCK] = b->block_max;
    v.number[SST_PROP_FILTER_KEYS] = b->filter_bits != 0 ? b->filter.keys : 0;
    struct buf out;
    buf_init(&out, b->alloc, MEM_BUILD);
    sst_props_encode(&v, &out);
    int rc = buf_status(&out);
    if (rc == LOAM_OK) {
        rc = sst_output_part(&b->out, SST_PROPS, out.data, out.size, h);
    }
    buf_free(&out);
    return rc;
}

static int write_tail(struct sst_builder *b, struct sst_footer *f, uint64_t *checksum)
{
    int rc = write_filter(b, &f->filter);
    f->data_end = f->filter.offset;
    if (rc == LOAM_OK) {
        rc = write_index(b, f);
    }
    if (rc == LOAM_OK) {
        rc = write_props(b, &f->props);
    }
    return rc == LOAM_OK ? sst_output_finish(&b->out, f, checksum) : rc;
}

int sst_builder_finish(struct sst_builder *b, struct sst_info *info)
{
    assert(!b->finished);
    if (b->rc != LOAM_OK) {
        return status_raise(&b->error);
    }
    if (b->entries == 0) {
        return latch(b, FAIL(LOAM_E_INVAL, "a table without entries"));
    }
    struct sst_footer footer = {.features = b->features};
    uint64_t checksum = 0;
    int rc = cut_gathered(b);
    if (rc == LOAM_OK && b->staged) {
        rc = block_stage_drain(&b->stage);
    }
    if (rc == LOAM_OK) {
        rc = write_tail(b, &footer, &checksum);
    }
    if (rc != LOAM_OK) {
        return latch(b, rc);
    }
    b->finished = true;
    sst_output_trim(&b->out);
    free_parts(b);
    *info = (struct sst_info){
        .size = footer.file_size,
        .entries = b->entries,
        .deletes = b->deletes,
        .older = b->older,
        .raw_bytes = b->raw_bytes,
        .checksum = checksum,
        .min_seq = b->min_seq,
        .max_seq = b->max_seq,
        .blocks = b->blocks,
        .smallest = buf_slice(&b->smallest),
        .largest = buf_slice(&b->last_key),
    };
    return LOAM_OK;
}

/* ---- handing over ---- */

void sst_builder_take_warm(struct sst_builder *b, struct sst_warm *warm)
{
    assert(b->finished);
    *warm = (struct sst_warm){0};
    if (!b->staged) {
        return;
    }
    /* To the exact size, by which it will be freed. Shrinking does not fail in any allocator we
     * know; if it does, the blocks are not handed over. */
    void *p = alloc_resize(b->alloc, MEM_TABLE, (void *)b->addr, b->addr_cap * sizeof *b->addr,
                           b->blocks * sizeof *b->addr);
    if (p == NULL) {
        return;
    }
    *warm = (struct sst_warm){
        .handle = b->stage.handle,
        .addr = p,
        .count = b->blocks,
        .alloc = b->alloc,
        .cache = b->cache,
    };
    b->staged = false;
    b->addr = NULL;
    b->addr_cap = 0;
}

void sst_warm_drop(struct sst_warm *warm)
{
    if (warm->handle != 0) {
        slotmap_abort(&warm->cache->tables, warm->handle);
        alloc_put(warm->alloc, MEM_TABLE, (void *)warm->addr, warm->count * sizeof *warm->addr);
    }
    *warm = (struct sst_warm){0};
}
