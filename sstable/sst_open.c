/* sst_open.c - Opens a table by the head and the tail of its file.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/sst_reader.h"

#include <assert.h>

#include "arena/status.h"
#include "sstable/block.h"
#include "sstable/partition.h"
#include "sstable/sst_paged.h"
#include "sstable/sst_residence.h"

#include "arena/poison.h"

#define FILE_SIZE_MIN (SST_HEADER_SIZE + SST_FOOTER_SIZE)
#define TAIL_BYTES    4096u /* read at once: footer, properties and top of all but large tables */
#define BLOCKS_MAX    ((uint64_t)1 << 30)

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

/* The last bytes of the file. */
struct tail {
    uint64_t offset; /* of bytes[0] in the file */
    uint8_t bytes[TAIL_BYTES];
};

/* Header and footer: whose file it is, and where its parts are. */
static int read_frame(struct sst_reader *r, const struct sst_open_options *o, struct tail *t)
{
    uint8_t head[SST_HEADER_SIZE];
    struct sst_header h;
    uint64_t size = r->props.file_size;
    size_t n = size < TAIL_BYTES ? (size_t)size : TAIL_BYTES;
    t->offset = size - n;
    int rc = sst_read_full(r->vfs, r->file, o->file_number, head, SST_HEADER_SIZE, 0);
    if (rc == LOAM_OK) {
        rc = sst_header_decode(head, o->file_number, &h);
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
    rc = sst_read_full(r->vfs, r->file, h.file_number, t->bytes, n, t->offset);
    return rc == LOAM_OK ? sst_footer_decode(t->bytes + n - SST_FOOTER_SIZE, &h, size, &r->footer)
                         : rc;
}

/* Reads properties or top into memory of its own; *payload is inside it. */
static int read_meta(struct sst_reader *r, const struct tail *t, struct sst_handle h,
                     enum sst_type type, uint8_t **memory, loam_slice *payload)
{
    struct sst_place at = {r->props.file_number, r->file_seed, h.offset};
    struct sst_stored s;
    uint8_t *p = alloc_get_aligned(r->alloc, MEM_TABLE, h.size, CACHE_LINE);
    if (p == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for %llu bytes of table %llu",
                    (unsigned long long)h.size, (unsigned long long)r->props.file_number);
    }
    *memory = p;
    int rc = LOAM_OK;
    if (h.size != 0 && h.offset >= t->offset) {
        memcpy(p, t->bytes + (h.offset - t->offset), h.size); /* parts end before the footer */
    } else {
        rc = sst_read_full(r->vfs, r->file, at.file, p, h.size, h.offset);
    }
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
        r->top.cmp = cmp;
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
    return p->blocks != 0 && p->blocks <= BLOCKS_MAX && p->entries >= p->blocks &&
           p->deletes <= p->entries && p->max_key <= SST_KEY_MAX &&
           p->max_block <= SST_BLOCK_SIZE_MAX && p->min_seq <= p->max_seq &&
           p->max_seq <= SEQ_MAX && p->smallest.size <= p->max_key &&
           p->largest.size <= p->max_key && p->filter_keys <= p->entries;
}

static int read_props(struct sst_reader *r, const struct sst_open_options *o, const struct tail *t)
{
    struct sst_handle h = r->footer.props;
    struct sst_props *p = &r->props;
    struct sst_prop_values v;
    loam_slice payload;
    int rc = read_meta(r, t, h, SST_PROPS, &r->props_memory, &payload);
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
    p->top_size = r->footer.top.size;
    p->filter_size = r->footer.filter.size;
    p->props_size = h.size;
    if (!narrow || !props_plausible(p)) {
        return damaged(r, h.offset, "its properties contradict each other");
    }
    return take_comparator(r, o);
}

/* ---- the top ---- */

static void next_of_top(void *arg, uint32_t i, struct index_item *item)
{
    struct sst_walk *w = arg;
    struct partition_value v;
    if (i == 0) {
        block_cursor_init(&w->at, w->image, w->key);
        w->offset = w->r->footer.index.offset;
    }
    block_cursor_move(&w->at, i);
    partition_value(&w->at.block, i, &v);
    *item = (struct index_item){w->at.entry.key, w->offset, v.size, v.dead};
    w->r->part_first[i] = (uint32_t)v.number;
    w->offset += v.size;
}

static int take_top(struct sst_reader *r, const uint8_t *top)
{
    struct block b;
    struct sst_walk w = {.r = r, .image = top};
    block_init(&b, top);
    r->part_first = alloc_get(r->alloc, MEM_TABLE, ((size_t)b.count + 1) * sizeof *r->part_first);
    if (r->part_first == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory to open table %llu",
                    (unsigned long long)r->props.file_number);
    }
    r->props.partitions = b.count;
    r->part_first[b.count] = (uint32_t)r->props.blocks;
    int rc = sst_build_index(&r->top, &w, b.count, UINT64_MAX, next_of_top);
    if (rc != LOAM_OK) {
        return rc;
    }
    /* The last separator is the largest key itself. */
    if (!sst_same_key(index_prefix(&r->top), index_rest(&r->top, r->top.count - 1),
                      r->props.largest, loam_bytes("", 0))) {
        return damaged(r, r->footer.top.offset, "its index contradicts its properties");
    }
    return LOAM_OK;
}

static int read_top(struct sst_reader *r, const struct tail *t)
{
    struct sst_handle h = r->footer.top;
    const struct partition_bounds bounds = {
        .cmp = r->cmp,
        .key_max = r->props.max_key,
        .begin = r->footer.index.offset,
        .end = r->footer.index.offset + r->footer.index.size,
        .blocks = (uint32_t)r->props.blocks,
    };
    uint8_t *memory = NULL;
    loam_slice payload;
    const char *what = NULL;
    int rc = read_meta(r, t, h, SST_TOP, &memory, &payload);
    if (rc == LOAM_OK) {
        rc = top_check(payload.data, payload.size, &bounds, &what);
        if (rc == LOAM_OK &&
            !block_sum_matches(payload.data, payload.size, r->file_seed, PARTITION_TOP)) {
            rc = LOAM_E_CORRUPT;
            what = "its own checksum does not match";
        }
        if (rc != LOAM_OK) {
            rc = FAIL_AT(rc, r->props.file_number, h.offset, "the top of table %llu: %s",
                         (unsigned long long)r->props.file_number, what);
        }
    }
    if (rc == LOAM_OK) {
        rc = take_top(r, payload.data);
    }
    if (memory != NULL) {
        alloc_put_aligned(r->alloc, MEM_TABLE, memory, h.size, CACHE_LINE);
    }
    return rc;
}

/* Shape of the filter, from its size. */
static int measure_filter(struct sst_reader *r)
{
    struct sst_handle h = r->footer.filter;
    r->shape.keys = r->props.filter_keys;
    r->shape.lines = h.size != 0 ? filter_lines_of_size(h.size, SST_TRAILER_SIZE) : 0;
    r->props.filter_pages = (uint32_t)filter_page_count(r->shape.lines);
    if (h.size != 0 && (r->shape.lines == 0 || r->cmp != NULL)) {
        return damaged(r, h.offset, "its filter cannot be");
    }
    return LOAM_OK;
}

/* ---- the cache ---- */

static void free_cached(void *arg, void *ptr)
{
    struct sst_cached *c = ptr;
    (void)arg;
    if (c->blocks.addr != NULL) {
        alloc_put(c->alloc, MEM_TABLE, (void *)c->blocks.addr,
                  c->blocks.count * sizeof *c->blocks.addr);
    }
    alloc_put(c->alloc, MEM_TABLE, c, sizeof *c);
}

static bool is_warm(const struct sst_reader *r, const struct sst_warm *warm)
{
    return warm->handle != 0 && warm->count == r->props.blocks && warm->alloc == r->alloc &&
           warm->cache == r->cache;
}

/* Enters the blocks a builder left into the directory, and frees the array of their addresses. */
static void adopt_blocks(struct sst_reader *r, struct sst_cached *c, struct sst_warm *warm)
{
    for (uint32_t i = 0; i < warm->count; i++) {
        uint64_t addr = atom_load(&warm->addr[i], relaxed); /* relaxed: nobody else has the array */
        if (addr != 0) {
            block_cache_adopt(r->cache, &c->blocks, i, addr);
        }
    }
    alloc_put(warm->alloc, MEM_TABLE, (void *)warm->addr, warm->count * sizeof *warm->addr);
    *warm = (struct sst_warm){0};
}

/* Sets up c under the builder's handle, or a new one; its handle is 0 for want of memory. */
static void prepare_cached(struct sst_reader *r, struct sst_cached *c, struct sst_warm *warm)
{
    c->alloc = r->alloc;
    c->blocks.count = (uint32_t)r->props.blocks;
    if (!r->resident) {
        c->blocks.count += r->props.filter_pages + r->props.partitions;
        c->blocks.handle = is_warm(r, warm) ? warm->handle : slotmap_reserve(&r->cache->tables);
    } else if (is_warm(r, warm)) {
        c->blocks.handle = warm->handle;
        c->blocks.addr = warm->addr;
        *warm = (struct sst_warm){0};
    } else {
        c->blocks.addr = alloc_zero(r->alloc, MEM_TABLE, c->blocks.count * sizeof *c->blocks.addr);
        c->blocks.handle = c->blocks.addr != NULL ? slotmap_reserve(&r->cache->tables) : 0;
    }
}

/* Enters the table into the cache. */
static int join_cache(struct sst_reader *r, struct sst_warm *warm)
{
    if (r->cache == NULL) {
        return LOAM_OK;
    }
    struct sst_cached *c = alloc_zero(r->alloc, MEM_TABLE, sizeof *c);
    if (c == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory to open table %llu",
                    (unsigned long long)r->props.file_number);
    }
    prepare_cached(r, c, warm);
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
    if (warm->handle == c->blocks.handle) {
        adopt_blocks(r, c, warm);
    }
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
    struct tail tail;
    struct sst_reader *r = alloc_zero(o->alloc, MEM_TABLE, sizeof *r);
    if (r == NULL) {
        rc = FAIL(LOAM_E_NOMEM, "no memory to open table %llu", (unsigned long long)o->file_number);
        goto out;
    }
    r->vfs = o->vfs;
    r->alloc = o->alloc;
    r->cache = o->cache;
    r->large = o->large;
    r->paranoid = o->paranoid;
    r->props.file_number = o->file_number;
    rc = open_file(r, o);
    if (rc == LOAM_OK) {
        rc = read_frame(r, o, &tail);
    }
    if (rc == LOAM_OK) {
        rc = read_props(r, o, &tail);
    }
    if (rc == LOAM_OK) {
        rc = measure_filter(r);
    }
    if (rc == LOAM_OK) {
        rc = read_top(r, &tail);
    }
    if (rc == LOAM_OK) {
        rc = sst_settle(r, o);
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
    sst_leave_residence(r);
    index_close(&r->top);
    if (r->part_first != NULL) {
        alloc_put(r->alloc, MEM_TABLE, r->part_first,
                  ((size_t)r->props.partitions + 1) * sizeof *r->part_first);
    }
    if (r->props_memory != NULL) {
        alloc_put_aligned(r->alloc, MEM_TABLE, r->props_memory, r->props_memory_size, CACHE_LINE);
    }
    alloc_put(r->alloc, MEM_TABLE, r, sizeof *r);
}
