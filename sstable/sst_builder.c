/* sst_builder.c - Builds a table file through the ring.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Two sides. The builder's thread gathers entries, cuts blocks and keeps separators and key hashes.
 * The writing side - write_block() on any evicting thread - compresses in a packer of its own and
 * then, under out_mutex, gives the block its place and copies it into the output buffer. That mutex
 * is also held while a full buffer is written, so that the file grows in one sequence.
 */
#include "sstable/sst_builder.h"

#include <assert.h>
#include <errno.h>

#include "arena/buf.h"
#include "arena/hash.h"
#include "arena/status.h"
#include "sstable/block.h"
#include "sstable/block_builder.h"
#include "sstable/filter.h"
#include "sstable/index.h"
#include "sstable/sst_format.h"

#include "arena/poison.h"

#define BLOCK_BYTES_DEFAULT 4096u
#define OUT_BYTES           ((size_t)256 << 10)
#define RAW_FACTOR          8u /* a block is cut, too, when stripped prefixes add up to that */
#define VALUE_MAX           ((uint64_t)1 << 30)

/* One packer of those that evicting threads take in turn. */
struct packer_node {
    struct packer_node *next;
    struct sst_packer packer;
};

struct sst_builder {
    /* constant after open */
    const loam_vfs *vfs;
    struct alloc *alloc;
    struct block_cache *cache;
    const loam_comparator *cmp;
    uint64_t file_number, db_id, file_seed;
    uint32_t ks, block_bytes, filter_bits, level;
    enum sst_codec codec;
    loam_file *file;

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
    uint32_t key_max;
    uint64_t block_max; /* bytes of the largest block */
    uint64_t entries, deletes, raw_bytes, min_seq, max_seq, cut_bytes;
    struct block_stage stage;
    _Atomic uint64_t *addr; /* ring address per block; not shared yet */
    uint32_t addr_cap;
    uint8_t *image; /* a block on its way around the ring */
    size_t image_cap;

    /* guarded by out_mutex */
    struct mutex out_mutex;
    struct packer_node *packers;
    int out_rc; /* first failure to write: nothing is appended behind it */
    loam_error out_error;
    uint8_t *out;
    size_t out_size;
    uint64_t out_offset; /* where out[0] goes in the file */
    uint64_t *offsets;   /* per block */
    uint32_t *sizes;     /* per block */
    uint32_t extent_cap;
    struct checksum_stream sum; /* of all bytes of the file, up to out_offset */

    /* atomic; written under out_mutex */
    _Atomic uint64_t written_raw, written_stored; /* bytes of data blocks */
};

/* ---- output ---- */

static int write_fully(struct sst_builder *b, const uint8_t *p, size_t n)
{
    while (n != 0) {
        int64_t done = b->vfs->write(b->vfs->ctx, b->file, p, n, b->out_offset);
        if (done <= 0 || (uint64_t)done > n) {
            return FAIL_IO(done < 0 ? done : -EIO, b->file_number, b->out_offset,
                           "writing table %llu", (unsigned long long)b->file_number);
        }
        checksum_add(&b->sum, p, (size_t)done);
        p += done;
        n -= (size_t)done;
        b->out_offset += (uint64_t)done;
    }
    return LOAM_OK;
}

static int flush_out_locked(struct sst_builder *b)
{
    mutex_assert_held(&b->out_mutex);
    int rc = write_fully(b, b->out, b->out_size);
    b->out_size = 0;
    return rc;
}

/* Behind all bytes so far. What does not fit the buffer goes to the file at once. */
static int put_locked(struct sst_builder *b, const void *data, size_t n)
{
    mutex_assert_held(&b->out_mutex);
    if (n > OUT_BYTES - b->out_size) {
        int rc = flush_out_locked(b);
        if (rc != LOAM_OK) {
            return rc;
        }
    }
    if (n >= OUT_BYTES) {
        return write_fully(b, data, n);
    }
    if (n != 0) {
        memcpy(b->out + b->out_size, data, n);
        b->out_size += n;
    }
    return LOAM_OK;
}

/* Appends bytes that carry their own checksum, or a packed block when `packed` is given; *h becomes
 * its place. A failure sticks: the file's tail is unknown then. */
static int append_locked(struct sst_builder *b, const void *data, size_t n,
                         struct sst_packed *packed, struct sst_handle *h)
{
    mutex_assert_held(&b->out_mutex);
    if (b->out_rc != LOAM_OK) {
        return status_raise(&b->out_error);
    }
    h->offset = b->out_offset + b->out_size;
    h->size = n;
    int rc = put_locked(b, data, n);
    if (rc == LOAM_OK && packed != NULL) {
        h->size += SST_TRAILER_SIZE;
        sst_trailer_finish(packed, h->offset);
        rc = put_locked(b, packed->trailer, SST_TRAILER_SIZE);
    }
    if (rc != LOAM_OK) {
        b->out_rc = rc;
        b->out_error = *loam_last_error();
    }
    return rc;
}

static struct packer_node *take_packer(struct sst_builder *b)
{
    mutex_lock(&b->out_mutex);
    struct packer_node *n = b->packers;
    if (n != NULL) {
        b->packers = n->next;
    }
    mutex_unlock(&b->out_mutex);
    if (n == NULL) {
        n = alloc_zero(b->alloc, MEM_BUILD, sizeof *n);
        if (n != NULL) {
            n->packer.alloc = b->alloc;
        }
    }
    return n;
}

/* block_write_fn: any background thread, several at once. */
static int write_block(void *arg, uint32_t number, const void *data, size_t size)
{
    struct sst_builder *b = arg;
    if (!block_sum_matches(data, size, b->file_seed, number)) {
        return FAIL_CORRUPT(b->file_number, 0, "block %u of table %llu changed in memory", number,
                            (unsigned long long)b->file_number);
    }
    struct packer_node *node = take_packer(b);
    struct sst_packer none = {.alloc = b->alloc};
    struct sst_packed packed;
    struct sst_handle at;
    sst_pack(node != NULL ? &node->packer : &none, node != NULL ? b->codec : SST_CODEC_NONE,
             SST_DATA, b->file_seed, data, size, &packed);
    mutex_lock(&b->out_mutex);
    int rc = append_locked(b, packed.payload, packed.size, &packed, &at);
    if (rc == LOAM_OK) {
        b->offsets[number] = at.offset;
        b->sizes[number] = (uint32_t)at.size;
        /* relaxed: they only feed an estimate. */
        atom_add(&b->written_raw, size, relaxed);
        atom_add(&b->written_stored, at.size, relaxed);
    }
    if (node != NULL) {
        sst_packer_trim(&node->packer);
        node->next = b->packers;
        b->packers = node;
    }
    mutex_unlock(&b->out_mutex);
    return rc;
}

/* ---- opening and freeing ---- */

static int codec_of(uint32_t compression, enum sst_codec *codec)
{
    /* LOAM_COMPRESS_*: 0 default, 1 none, 2 LZ4, 3 zstd. */
    static const enum sst_codec codecs[] = {SST_CODEC_LZ4, SST_CODEC_NONE, SST_CODEC_LZ4,
                                            SST_CODEC_ZSTD};
    if (compression >= sizeof codecs / sizeof codecs[0]) {
        return FAIL(LOAM_E_INVAL, "no compression has the number %u", compression);
    }
    *codec = codecs[compression];
    if (!sst_codec_known(*codec)) {
        return FAIL(LOAM_E_UNSUPPORTED, "compression %u is not built in", compression);
    }
    return LOAM_OK;
}

static int write_header(struct sst_builder *b)
{
    struct sst_header h = {b->db_id, b->file_number, b->ks};
    uint8_t bytes[SST_HEADER_SIZE];
    struct sst_handle at;
    sst_header_encode(&h, bytes);
    mutex_lock(&b->out_mutex);
    int rc = append_locked(b, bytes, sizeof bytes, NULL, &at);
    mutex_unlock(&b->out_mutex);
    return rc;
}

static void set_options(struct sst_builder *b, const struct sst_build_options *o)
{
    b->vfs = o->vfs;
    b->alloc = o->alloc;
    b->cache = o->cache;
    b->cmp = o->cmp;
    b->file_number = o->file_number;
    b->db_id = o->db_id;
    b->file_seed = sst_file_seed(o->db_id, o->file_number);
    b->ks = o->ks;
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
    mutex_init(&b->out_mutex, RANK_TABLE_OUT);
    checksum_begin(&b->sum, 0);
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
    enum sst_codec codec = SST_CODEC_NONE;
    int rc = codec_of(o->compression, &codec);
    if (rc != LOAM_OK) {
        return rc;
    }
    struct sst_builder *b = alloc_get_aligned(o->alloc, MEM_BUILD, sizeof *b, CACHE_LINE);
    if (b == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory to build a table");
    }
    memset(b, 0, sizeof *b);
    set_options(b, o);
    b->codec = codec;
    init_parts(b);
    b->out = alloc_get(b->alloc, MEM_BUILD, OUT_BYTES);
    if (b->out == NULL) {
        rc = FAIL(LOAM_E_NOMEM, "no memory to build a table");
        goto fail;
    }
    rc = b->vfs->open(b->vfs->ctx, o->path, LOAM_VFS_WRITE | LOAM_VFS_NEW, &b->file);
    if (rc < 0) {
        b->file = NULL;
        rc = FAIL_IO(rc, b->file_number, 0, "creating table %s", o->path);
        goto fail;
    }
    rc = write_header(b);
    if (rc != LOAM_OK) {
        goto fail;
    }
    if (b->cache != NULL) {
        rc = block_stage_init(&b->stage, b->cache, write_block, b);
        if (rc != LOAM_OK) {
            goto fail;
        }
        b->staged = true;
    }
    *out = b;
    return LOAM_OK;
fail:
    sst_builder_free(b);
    return rc;
}

static void free_packers(struct sst_builder *b)
{
    while (b->packers != NULL) {
        struct packer_node *n = b->packers;
        b->packers = n->next;
        sst_packer_free(&n->packer);
        alloc_put(b->alloc, MEM_BUILD, n, sizeof *n);
    }
}

void sst_builder_free(struct sst_builder *b)
{
    if (b == NULL) {
        return;
    }
    if (b->staged) {
        block_stage_abandon(&b->stage);
    }
    if (b->file != NULL) {
        b->vfs->close(b->vfs->ctx, b->file); /* unfinished: the caller removes it */
    }
    free_packers(b);
    block_builder_free(&b->block);
    index_builder_free(&b->index);
    filter_builder_free(&b->filter);
    buf_free(&b->smallest);
    buf_free(&b->last_key);
    buf_free(&b->separator);
    alloc_put(b->alloc, MEM_TABLE, (void *)b->addr, b->addr_cap * sizeof *b->addr);
    alloc_put(b->alloc, MEM_BUILD, b->image, b->image_cap);
    alloc_put(b->alloc, MEM_BUILD, b->out, OUT_BYTES);
    alloc_put(b->alloc, MEM_BUILD, b->offsets, b->extent_cap * sizeof *b->offsets);
    alloc_put(b->alloc, MEM_BUILD, b->sizes, b->extent_cap * sizeof *b->sizes);
    mutex_destroy(&b->out_mutex);
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

/* Room for the place of one more block; writers of earlier blocks may be storing theirs. */
static int grow_extents_locked(struct sst_builder *b)
{
    mutex_assert_held(&b->out_mutex);
    uint32_t cap = b->extent_cap == 0 ? 256 : b->extent_cap * 2;
    uint64_t *offsets = alloc_get(b->alloc, MEM_BUILD, cap * sizeof *offsets);
    uint32_t *sizes = alloc_get(b->alloc, MEM_BUILD, cap * sizeof *sizes);
    if (offsets == NULL || sizes == NULL) {
        alloc_put(b->alloc, MEM_BUILD, offsets, cap * sizeof *offsets);
        alloc_put(b->alloc, MEM_BUILD, sizes, cap * sizeof *sizes);
        return FAIL(LOAM_E_NOMEM, "no memory for the places of %u blocks", cap);
    }
    if (b->extent_cap != 0) {
        memcpy(offsets, b->offsets, b->extent_cap * sizeof *offsets);
        memcpy(sizes, b->sizes, b->extent_cap * sizeof *sizes);
    }
    alloc_put(b->alloc, MEM_BUILD, b->offsets, b->extent_cap * sizeof *offsets);
    alloc_put(b->alloc, MEM_BUILD, b->sizes, b->extent_cap * sizeof *sizes);
    b->offsets = offsets;
    b->sizes = sizes;
    b->extent_cap = cap;
    return LOAM_OK;
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

/* Room in both arrays for block number b->blocks. */
static int reserve_block(struct sst_builder *b)
{
    int rc = LOAM_OK;
    if (b->blocks == UINT32_MAX - 1) {
        return FAIL(LOAM_E_TOOBIG, "a table has more than 2^32 blocks");
    }
    if (b->blocks == b->extent_cap) {
        mutex_lock(&b->out_mutex);
        rc = grow_extents_locked(b);
        mutex_unlock(&b->out_mutex);
    }
    if (rc == LOAM_OK && b->cache != NULL && b->blocks == b->addr_cap) {
        rc = grow_addresses(b);
    }
    return rc;
}

/* Around the ring: laid out in private memory and written by this thread. */
static int write_directly(struct sst_builder *b, const struct block_input *in, uint32_t n,
                          const struct block_shape *s)
{
    int rc = sst_fit(b->alloc, MEM_BUILD, &b->image, &b->image_cap, s->size);
    if (rc != LOAM_OK) {
        return rc;
    }
    block_emit(in, n, s, b->file_seed, b->blocks, b->image);
    return write_block(b, b->blocks, b->image, s->size);
}

static int write_through_ring(struct sst_builder *b, const struct block_input *in, uint32_t n,
                              const struct block_shape *s, uint64_t *addr)
{
    void *room = block_stage_begin(&b->stage, s->size, addr);
    if (room == NULL) {
        return loam_last_error()->code;
    }
    block_emit(in, n, s, b->file_seed, b->blocks, room);
    int rc = block_stage_end(&b->stage, *addr, b->blocks, s->size);
    return rc == LOAM_OK ? block_stage_evict_some(&b->stage) : rc;
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
    b->cut_bytes += s->size;
    b->block_max = s->size > b->block_max ? s->size : b->block_max;
    buf_set(&b->last_key, in[n - 1].key, in[n - 1].key_size);
    return buf_status(&b->last_key);
}

static int cut_gathered(struct sst_builder *b)
{
    struct block_shape s;
    if (b->block.count == 0) {
        return LOAM_OK;
    }
    block_builder_shape(&b->block, &s);
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
    index_builder_add(&b->index, buf_slice(&b->separator));
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

static int check_entry(const struct sst_builder *b, const struct entry *e)
{
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
                    (unsigned long long)b->file_number);
    }
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
    size_t size = e->key.size + e->value.size;
    bool full = block_builder_estimate(&b->block) + size > b->block_bytes + b->block.prefix ||
                b->block.bytes_size > (size_t)RAW_FACTOR * b->block_bytes;
    int rc = full ? cut_gathered(b) : LOAM_OK;
    if (rc == LOAM_OK && b->block.count == 0) {
        rc = separate(b, e->key);
    }
    return rc == LOAM_OK ? block_builder_add(&b->block, e, fingerprint) : rc;
}

static void count_entry(struct sst_builder *b, const struct entry *e)
{
    uint64_t seq = tag_seq(e->tag);
    b->entries++;
    b->deletes += tag_kind(e->tag) == ENTRY_DELETE;
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
    int rc = check_entry(b, e);
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
    count_entry(b, e);
    return latch(b, rc);
}

uint64_t sst_builder_bytes(const struct sst_builder *b)
{
    /* relaxed: an estimate. */
    uint64_t raw = atom_load(&b->written_raw, relaxed);
    uint64_t stored = atom_load(&b->written_stored, relaxed);
    uint64_t waiting = b->cut_bytes > raw ? b->cut_bytes - raw : 0;
    waiting += b->block.count != 0 ? block_builder_estimate(&b->block) : 0;
    double ratio = raw != 0 && stored < raw ? (double)stored / (double)raw : 1.0;
    return SST_HEADER_SIZE + SST_FOOTER_SIZE + stored + (uint64_t)((double)waiting * ratio) +
           index_builder_size(&b->index) + b->filter.keys * b->filter_bits / 8;
}

uint64_t sst_builder_entries(const struct sst_builder *b)
{
    return b->entries;
}

/* ---- finishing ---- */

static int append_meta(struct sst_builder *b, enum sst_type type, const void *data, size_t size,
                       struct sst_handle *h)
{
    struct sst_packer none = {.alloc = b->alloc};
    struct sst_packed packed;
    sst_pack(&none, SST_CODEC_NONE, type, b->file_seed, data, size, &packed);
    mutex_lock(&b->out_mutex);
    int rc = append_locked(b, packed.payload, packed.size, &packed, h);
    mutex_unlock(&b->out_mutex);
    return rc;
}

static int write_filter(struct sst_builder *b, struct sst_handle *h)
{
    if (b->filter_bits == 0) {
        mutex_lock(&b->out_mutex);
        *h = (struct sst_handle){b->out_offset + b->out_size, 0};
        mutex_unlock(&b->out_mutex);
        return LOAM_OK;
    }
    uint64_t size = filter_builder_size(&b->filter, b->filter_bits);
    void *p = alloc_get(b->alloc, MEM_BUILD, size);
    if (p == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a filter of %llu bytes", (unsigned long long)size);
    }
    filter_builder_emit(&b->filter, b->filter_bits, p);
    int rc = append_meta(b, SST_FILTER, p, size, h);
    alloc_put(b->alloc, MEM_BUILD, p, size);
    return rc;
}

static int write_index(struct sst_builder *b, struct sst_handle *h)
{
    struct buf out;
    buf_init(&out, b->alloc, MEM_BUILD);
    index_builder_add(&b->index, buf_slice(&b->last_key));
    assert(b->index.count == b->blocks);
    int rc = index_builder_emit(&b->index, b->offsets, b->sizes, &out);
    if (rc == LOAM_OK) {
        rc = append_meta(b, SST_INDEX, out.data, out.size, h);
    }
    buf_free(&out);
    return rc;
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
        rc = append_meta(b, SST_PROPS, out.data, out.size, h);
    }
    buf_free(&out);
    return rc;
}

/* The footer, and everything out of the buffer. */
static int write_footer(struct sst_builder *b, struct sst_footer *f)
{
    uint8_t bytes[SST_FOOTER_SIZE];
    struct sst_handle at;
    f->range_deletes = (struct sst_handle){f->props.offset + f->props.size, 0};
    f->file_size = f->range_deletes.offset + SST_FOOTER_SIZE;
    f->db_id = b->db_id;
    f->file_number = b->file_number;
    sst_footer_encode(f, bytes);
    mutex_lock(&b->out_mutex);
    int rc = append_locked(b, bytes, sizeof bytes, NULL, &at);
    assert(rc != LOAM_OK || at.offset == f->range_deletes.offset);
    if (rc == LOAM_OK) {
        rc = flush_out_locked(b);
    }
    mutex_unlock(&b->out_mutex);
    return rc;
}

static int sync_and_close(struct sst_builder *b)
{
    int rc = b->vfs->sync(b->vfs->ctx, b->file, 1);
    if (rc < 0) {
        return FAIL_IO(rc, b->file_number, 0, "syncing table %llu",
                       (unsigned long long)b->file_number);
    }
    loam_file *f = b->file;
    b->file = NULL;
    rc = b->vfs->close(b->vfs->ctx, f);
    if (rc < 0) {
        return FAIL_IO(rc, b->file_number, 0, "closing table %llu",
                       (unsigned long long)b->file_number);
    }
    return LOAM_OK;
}

static int write_tail(struct sst_builder *b, struct sst_footer *f)
{
    int rc = write_filter(b, &f->filter);
    f->data_end = f->filter.offset;
    if (rc == LOAM_OK) {
        rc = write_index(b, &f->index);
    }
    if (rc == LOAM_OK) {
        rc = write_props(b, &f->props);
    }
    if (rc == LOAM_OK) {
        rc = write_footer(b, f);
    }
    return rc == LOAM_OK ? sync_and_close(b) : rc;
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
    struct sst_footer footer = {0};
    int rc = cut_gathered(b);
    if (rc == LOAM_OK && b->staged) {
        rc = block_stage_drain(&b->stage);
    }
    if (rc == LOAM_OK) {
        rc = write_tail(b, &footer);
    }
    if (rc != LOAM_OK) {
        return latch(b, rc);
    }
    b->finished = true;
    *info = (struct sst_info){
        .size = footer.file_size,
        .entries = b->entries,
        .deletes = b->deletes,
        .raw_bytes = b->raw_bytes,
        .checksum = checksum_end(&b->sum),
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
