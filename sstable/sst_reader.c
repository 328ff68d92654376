/* sst_reader.c - Opens a table and finds keys in it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/sst_reader.h"

#include <assert.h>

#include "arena/status.h"
#include "sstable/block.h"

#include "arena/poison.h"

#define FILE_SIZE_MIN (SST_HEADER_SIZE + SST_FOOTER_SIZE)

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
    sst_unpacker_free(&s->unpacker);
    sst_get_scratch_init(s, s->alloc);
}

/* ---- opening ---- */

/* Stands in for a comparator that a tool does not have: every order is accepted. */
static int unordered_compare(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx, (void)a, (void)b;
    return -1;
}

static const loam_comparator unordered = {
    .struct_size = sizeof unordered, .name = "unordered", .compare = unordered_compare};

static int damaged(const struct sst_reader *r, uint64_t offset, const char *what)
{
    return FAIL_CORRUPT(r->props.file_number, offset, "table %llu: %s",
                        (unsigned long long)r->props.file_number, what);
}

static int open_file(struct sst_reader *r, const struct sst_open_options *o)
{
    uint64_t size = 0;
    int rc = r->vfs->open(r->vfs->ctx, o->path, LOAM_VFS_READ, &r->file);
    if (rc < 0) {
        r->file = NULL;
        return FAIL_IO(rc, o->file_number, 0, "opening table %s", o->path);
    }
    rc = r->vfs->size(r->vfs->ctx, r->file, &size);
    if (rc < 0) {
        return FAIL_IO(rc, o->file_number, 0, "size of table %s", o->path);
    }
    if (size < FILE_SIZE_MIN) {
        return FAIL_CORRUPT(o->file_number, size, "%llu bytes are too few for a table",
                            (unsigned long long)size);
    }
    if (o->size != 0 && o->size != size) {
        return FAIL_CORRUPT(o->file_number, size, "table %llu has %llu bytes instead of %llu",
                            (unsigned long long)o->file_number, (unsigned long long)size,
                            (unsigned long long)o->size);
    }
    r->props.file_size = size;
    return LOAM_OK;
}

/* Header and footer: whose file it is, and where its parts are. */
static int read_frame(struct sst_reader *r, const struct sst_open_options *o)
{
    uint8_t bytes[SST_FOOTER_SIZE];
    struct sst_header h;
    uint64_t size = r->props.file_size;
    int rc = sst_read_full(r->vfs, r->file, o->file_number, bytes, SST_HEADER_SIZE, 0);
    if (rc == LOAM_OK) {
        rc = sst_header_decode(bytes, o->file_number, &h);
    }
    if (rc != LOAM_OK) {
        return rc;
    }
    if (!o->inspect && (h.db_id != o->db_id || h.file_number != o->file_number)) {
        return damaged(r, 0, "the file belongs to another database or number");
    }
    r->props.db_id = h.db_id;
    r->props.file_number = h.file_number;
    r->props.ks = h.ks;
    r->file_seed = sst_file_seed(h.db_id, h.file_number);
    rc = sst_read_full(r->vfs, r->file, h.file_number, bytes, SST_FOOTER_SIZE,
                       size - SST_FOOTER_SIZE);
    return rc == LOAM_OK ? sst_footer_decode(bytes, &h, size, &r->footer) : rc;
}

/* Reads one block of metadata into memory of its own; *payload is inside it. */
static int read_meta(struct sst_reader *r, struct sst_handle h, enum sst_type type,
                     uint8_t **memory, loam_slice *payload)
{
    struct sst_place at = {r->props.file_number, r->file_seed, h.offset};
    struct sst_stored s;
    uint8_t *p = alloc_get_aligned(r->alloc, MEM_TABLE, h.size, CACHE_LINE);
    if (p == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for %llu bytes of table %llu",
                    (unsigned long long)h.size, (unsigned long long)r->props.file_number);
    }
    *memory = p;
    int rc = sst_read_full(r->vfs, r->file, at.file, p, h.size, h.offset);
    if (rc == LOAM_OK) {
        rc = sst_stored_check(at, type, p, h.size, h.size, &s);
    }
    if (rc == LOAM_OK && s.codec != SST_CODEC_NONE) {
        rc = damaged(r, h.offset, "metadata is compressed");
    }
    if (rc == LOAM_OK) {
        *payload = loam_bytes(s.payload, s.size);
    }
    return rc;
}

int sst_set_comparator(struct sst_reader *r, const loam_comparator *cmp)
{
    loam_slice name = r->props.comparator;
    loam_slice want = cmp == NULL ? loam_bytes("", 0) : loam_bytes(cmp->name, strlen(cmp->name));
    if (bytes_compare(name, want) == 0) {
        r->cmp = cmp;
        r->index.cmp = cmp;
        return LOAM_OK;
    }
    return FAIL_AT(LOAM_E_FORMAT, r->props.file_number, r->footer.props.offset,
                   "table %llu was built with the comparator \"%.*s\"",
                   (unsigned long long)r->props.file_number,
                   (int)(name.size < 255 ? name.size : 255), (const char *)name.data);
}

static int take_comparator(struct sst_reader *r, const struct sst_open_options *o)
{
    if (o->order_later || o->inspect) {
        r->cmp = r->props.comparator.size == 0 ? NULL : &unordered;
    }
    if (o->order_later) {
        return LOAM_OK;
    }
    int rc = sst_set_comparator(r, o->cmp);
    return o->inspect ? LOAM_OK : rc;
}

/* Numbers that contradict each other or the file. */
static bool props_plausible(const struct sst_props *p)
{
    return p->blocks != 0 && p->entries >= p->blocks && p->deletes <= p->entries &&
           p->max_key <= SST_KEY_MAX && p->max_block <= SST_BLOCK_SIZE_MAX &&
           p->min_seq <= p->max_seq && p->max_seq <= SEQ_MAX && p->smallest.size <= p->max_key &&
           p->largest.size <= p->max_key && p->filter_keys <= p->entries;
}

static int read_props(struct sst_reader *r, const struct sst_open_options *o)
{
    struct sst_handle h = r->footer.props;
    struct sst_props *p = &r->props;
    struct sst_prop_values v;
    loam_slice payload;
    int rc = read_meta(r, h, SST_PROPS, &r->props_memory, &payload);
    r->props_memory_size = h.size;
    if (rc == LOAM_OK) {
        rc = sst_props_decode(payload, p->file_number, h.offset, &v);
    }
    if (rc != LOAM_OK) {
        return rc;
    }
    bool narrow = v.number[SST_PROP_LEVEL] <= UINT32_MAX &&
                  v.number[SST_PROP_BLOCK_BYTES] <= UINT32_MAX &&
                  v.number[SST_PROP_MAX_KEY] <= UINT32_MAX;
    p->level = (uint32_t)v.number[SST_PROP_LEVEL];
    p->block_bytes = (uint32_t)v.number[SST_PROP_BLOCK_BYTES];
    p->blocks = v.number[SST_PROP_BLOCKS];
    p->entries = v.number[SST_PROP_ENTRIES];
    p->deletes = v.number[SST_PROP_DELETES];
    p->raw_bytes = v.number[SST_PROP_RAW_BYTES];
    p->min_seq = v.number[SST_PROP_MIN_SEQ];
    p->max_seq = v.number[SST_PROP_MAX_SEQ];
    p->max_key = (uint32_t)v.number[SST_PROP_MAX_KEY];
    p->max_block = v.number[SST_PROP_MAX_BLOCK];
    p->filter_keys = v.number[SST_PROP_FILTER_KEYS];
    p->comparator = v.comparator;
    p->smallest = v.smallest;
    p->largest = v.largest;
    p->data_size = r->footer.data_end - SST_HEADER_SIZE;
    p->index_size = r->footer.index.size;
    p->filter_size = r->footer.filter.size;
    p->props_size = h.size;
    if (!narrow || !props_plausible(p)) {
        return damaged(r, h.offset, "its properties contradict each other");
    }
    return take_comparator(r, o);
}

static int read_index(struct sst_reader *r)
{
    struct sst_handle h = r->footer.index;
    struct sst_place at = {r->props.file_number, r->file_seed, h.offset};
    uint8_t *memory = NULL;
    loam_slice payload;
    int rc = read_meta(r, h, SST_INDEX, &memory, &payload);
    if (rc == LOAM_OK) {
        rc = index_open(&r->index, r->alloc, r->cmp, payload, at, r->footer.data_end);
    }
    if (memory != NULL) {
        alloc_put_aligned(r->alloc, MEM_TABLE, memory, h.size, CACHE_LINE);
    }
    if (rc != LOAM_OK) {
        return rc;
    }
    /* The last separator is the largest key itself. */
    loam_slice prefix = index_prefix(&r->index);
    loam_slice rest = index_rest(&r->index, r->index.count - 1);
    loam_slice largest = r->props.largest;
    if (r->index.count != r->props.blocks || largest.size != prefix.size + rest.size ||
        (prefix.size != 0 && memcmp(largest.data, prefix.data, prefix.size) != 0) ||
        (rest.size != 0 &&
         memcmp((const uint8_t *)largest.data + prefix.size, rest.data, rest.size) != 0)) {
        return damaged(r, h.offset, "its index contradicts its properties");
    }
    return LOAM_OK;
}

static int read_filter(struct sst_reader *r)
{
    struct sst_handle h = r->footer.filter;
    loam_slice payload;
    uint64_t keys = 0;
    if (h.size == 0) {
        return LOAM_OK;
    }
    int rc = read_meta(r, h, SST_FILTER, &r->filter_memory, &payload);
    r->filter_memory_size = h.size;
    if (rc != LOAM_OK) {
        return rc;
    }
    const char *what = filter_open(payload.data, payload.size, &r->filter, &keys);
    if (what == NULL && (keys != r->props.filter_keys || r->cmp != NULL)) {
        what = "it contradicts the properties";
    }
    if (what != NULL) {
        r->filter.probes = 0;
        return FAIL_CORRUPT(r->props.file_number, h.offset, "the filter of table %llu is wrong: %s",
                            (unsigned long long)r->props.file_number, what);
    }
    return LOAM_OK;
}

static void free_cached(void *arg, void *ptr)
{
    struct sst_cached *c = ptr;
    (void)arg;
    alloc_put(c->alloc, MEM_TABLE, (void *)c->blocks.addr,
              c->blocks.count * sizeof *c->blocks.addr);
    alloc_put(c->alloc, MEM_TABLE, c, sizeof *c);
}

/* Enters the table into the cache under the builder's handle, or a new one. */
static int join_cache(struct sst_reader *r, struct sst_warm *warm)
{
    if (r->cache == NULL) {
        return LOAM_OK;
    }
    size_t n = r->index.count;
    struct sst_cached *c = alloc_zero(r->alloc, MEM_TABLE, sizeof *c);
    if (c == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory to open table %llu",
                    (unsigned long long)r->props.file_number);
    }
    c->alloc = r->alloc;
    c->blocks.count = r->index.count;
    if (warm->handle != 0 && warm->count == n && warm->alloc == r->alloc &&
        warm->cache == r->cache) {
        c->blocks.handle = warm->handle;
        c->blocks.addr = warm->addr;
        *warm = (struct sst_warm){0};
    } else {
        c->blocks.addr = alloc_zero(r->alloc, MEM_TABLE, n * sizeof *c->blocks.addr);
        c->blocks.handle = c->blocks.addr != NULL ? slotmap_reserve(&r->cache->tables) : 0;
    }
    int rc = LOAM_OK;
    if (c->blocks.handle == 0) {
        rc = FAIL(LOAM_E_NOMEM, "no memory to open table %llu",
                  (unsigned long long)r->props.file_number);
    } else {
        rc = slotmap_commit(&r->cache->tables, c->blocks.handle, &c->blocks);
    }
    if (rc != LOAM_OK) {
        free_cached(NULL, c);
        return rc;
    }
    r->cached = c;
    return LOAM_OK;
}

int sst_open(const struct sst_open_options *o, struct sst_reader **out)
{
    struct sst_warm warm = {0};
    if (o->warm != NULL) {
        warm = *o->warm;
        *o->warm = (struct sst_warm){0};
    }
    int rc = LOAM_OK;
    struct sst_reader *r = alloc_zero(o->alloc, MEM_TABLE, sizeof *r);
    if (r == NULL) {
        rc = FAIL(LOAM_E_NOMEM, "no memory to open table %llu", (unsigned long long)o->file_number);
        goto out;
    }
    r->vfs = o->vfs;
    r->alloc = o->alloc;
    r->cache = o->cache;
    r->paranoid = o->paranoid;
    r->props.file_number = o->file_number;
    rc = open_file(r, o);
    if (rc == LOAM_OK) {
        rc = read_frame(r, o);
    }
    if (rc == LOAM_OK) {
        rc = read_props(r, o);
    }
    if (rc == LOAM_OK) {
        rc = read_index(r);
    }
    if (rc == LOAM_OK) {
        rc = read_filter(r);
    }
    if (rc == LOAM_OK) {
        rc = join_cache(r, &warm);
    }
out:
    sst_warm_drop(&warm);
    if (rc != LOAM_OK) {
        sst_close(r);
        return rc;
    }
    *out = r;
    return LOAM_OK;
}

void sst_close(struct sst_reader *r)
{
    if (r == NULL) {
        return;
    }
    if (r->cached != NULL) {
        slotmap_erase(&r->cache->tables, r->cached->blocks.handle);
        epoch_retire_node(&r->cached->node, free_cached, NULL, r->cached);
    }
    if (r->file != NULL) {
        r->vfs->close(r->vfs->ctx, r->file); /* opened for reading: nothing can be lost */
    }
    index_close(&r->index);
    if (r->filter_memory != NULL) {
        alloc_put_aligned(r->alloc, MEM_TABLE, r->filter_memory, r->filter_memory_size, CACHE_LINE);
    }
    if (r->props_memory != NULL) {
        alloc_put_aligned(r->alloc, MEM_TABLE, r->props_memory, r->props_memory_size, CACHE_LINE);
    }
    alloc_put(r->alloc, MEM_TABLE, r, sizeof *r);
}

/* ---- loading blocks ---- */

int sst_check_block(const struct sst_reader *r, uint32_t block, const void *data, size_t size)
{
    const char *what = NULL;
    int rc = block_check(data, size, r->cmp, r->props.max_key, &what);
    if (rc == LOAM_OK && r->paranoid && !block_sum_matches(data, size, r->file_seed, block)) {
        rc = LOAM_E_CORRUPT;
        what = "its own checksum does not match";
    }
    if (rc == LOAM_OK) {
        return LOAM_OK;
    }
    struct fail_info info = {
        .code = rc, .file_id = r->props.file_number, .offset = r->index.offsets[block]};
    return status_fail(info, __FILE__, __LINE__, "block %u of table %llu: %s", block,
                       (unsigned long long)r->props.file_number, what);
}

int sst_check_cached(const struct sst_reader *r, uint32_t block, const void *data, size_t size,
                     bool verify)
{
    if ((r->paranoid || verify) && !block_sum_matches(data, size, r->file_seed, block)) {
        return FAIL_CORRUPT(r->props.file_number, r->index.offsets[block],
                            "block %u of table %llu changed in memory", block,
                            (unsigned long long)r->props.file_number);
    }
    return LOAM_OK;
}

void sst_offer_block(const struct sst_reader *r, uint32_t block, const void *data, size_t size)
{
    uint64_t addr = 0;
    if (r->cached == NULL || !block_cache_admits(r->cache, &r->cached->blocks, block, size)) {
        return;
    }
    void *room = block_cache_fill_begin(r->cache, size, &addr);
    if (room != NULL) {
        memcpy(room, data, size);
        /* Not hot yet, whoever reads it: the second use shows what is worth a second chance. */
        block_cache_fill_end(r->cache, &r->cached->blocks, block, addr, true, false);
    }
}

int sst_read_block(const struct sst_reader *r, uint32_t block, struct sst_get_scratch *s,
                   const uint8_t **data, size_t *size)
{
    struct sst_place at = sst_place_of(r, block);
    struct sst_stored stored;
    size_t n = r->index.sizes[block];
    int rc = sst_fit(s->alloc, MEM_ITER, &s->io, &s->io_cap, n);
    if (rc == LOAM_OK) {
        rc = sst_read_full(r->vfs, r->file, at.file, s->io, n, at.offset);
    }
    if (rc == LOAM_OK) {
        rc = sst_stored_check(at, SST_DATA, s->io, n, r->props.max_block, &stored);
    }
    if (rc != LOAM_OK) {
        return rc;
    }
    const uint8_t *raw = stored.payload;
    if (stored.codec != SST_CODEC_NONE) {
        rc = sst_fit(s->alloc, MEM_ITER, &s->raw, &s->raw_cap, stored.raw_size + SST_TRAILER_SIZE);
        if (rc == LOAM_OK) {
            rc = sst_unpack(&s->unpacker, at, &stored, s->raw);
            memset(s->raw + stored.raw_size, 0, SST_TRAILER_SIZE);
        }
        raw = s->raw;
    }
    if (rc == LOAM_OK) {
        rc = sst_check_block(r, block, raw, stored.raw_size);
    }
    if (rc == LOAM_OK) {
        *data = raw;
        *size = stored.raw_size;
    }
    return rc;
}

/* ---- looking up ---- */

/* The block, from the cache or through the scratch. */
static int get_block(const struct sst_reader *r, uint32_t block, struct sst_get_scratch *s,
                     const uint8_t **data)
{
    size_t size = 0;
    if (r->cached != NULL) {
        const void *p = block_cache_peek(r->cache, &r->cached->blocks, block, true, &size);
        if (p != NULL) {
            s->cache_hits++;
            *data = p;
            return sst_check_cached(r, block, p, size, s->verify);
        }
    }
    s->cache_misses++;
    int rc = sst_read_block(r, block, s, data, &size);
    if (rc == LOAM_OK && !s->no_fill) {
        sst_offer_block(r, block, *data, size);
    }
    return rc;
}

int sst_get(struct sst_reader *r, loam_slice key, uint64_t key_hash, uint64_t snapshot,
            struct sst_get_scratch *s, struct entry *e)
{
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
    uint64_t addresses = r->cached != NULL ? sizeof *r->cached + 8 * (uint64_t)r->index.count : 0;
    return sizeof *r + r->index.memory_size + r->filter_memory_size + r->props_memory_size +
           addresses;
}

uint64_t sst_offset_of(const struct sst_reader *r, loam_slice key)
{
    /* By rank, not by place: blocks may stand in the file in another order. */
    double share = (double)index_find(&r->index, key) / (double)r->index.count;
    return SST_HEADER_SIZE + (uint64_t)(share * (double)r->props.data_size);
}

void sst_split_key(const struct sst_reader *r, uint64_t num, uint64_t den, struct buf *out)
{
    assert(num < den);
    uint32_t i = (uint32_t)((double)r->index.count * ((double)num / (double)den));
    i = i < r->index.count ? i : r->index.count - 1;
    loam_slice prefix = index_prefix(&r->index);
    loam_slice rest = index_rest(&r->index, i);
    buf_append(out, prefix.data, prefix.size);
    buf_append(out, rest.data, rest.size);
}
