/* sst_format.c - Encodes and checks the parts of a table file; compression and checksum of a block.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/sst_format.h"

#include <assert.h>
#include <lz4.h>
#ifdef LOAM_HAVE_ZSTD
#define ZSTD_STATIC_LINKING_ONLY /* contexts in memory of our own */
#include <zstd.h>
#endif

#include "arena/coding.h"
#include "arena/hash.h"
#include "arena/status.h"
#include "arena/vfs_full.h"

#include "arena/poison.h"

#define HEADER_MAGIC   0x0a5453534d414f4cu /* "LOAMSST\n" */
#define FOOTER_MAGIC   0x0a444e454d414f4cu /* "LOAMEND\n" */
#define PACKED_KEPT    ((size_t)96 << 10) /* bytes; what packing a large block took is not kept */
#define OUTSIZED       ((size_t)1 << 20) /* bytes; buffers above it are not kept for small blocks */
#define ZSTD_LEVEL     3
#define CODEC_SIZE_MAX ((size_t)0x7e000000) /* LZ4_MAX_INPUT_SIZE */

_Static_assert(CODEC_SIZE_MAX <= LZ4_MAX_INPUT_SIZE, "every block we compress must fit LZ4");

/* ---- header ---- */

void sst_header_encode(const struct sst_header *h, uint8_t out[SST_HEADER_SIZE])
{
    memset(out, 0, SST_HEADER_SIZE);
    put_fixed64(out, HEADER_MAGIC);
    put_fixed32(out + 8, SST_VERSION);
    put_fixed64(out + 16, h->db_id);
    put_fixed64(out + 24, h->file_number);
    put_fixed32(out + 32, h->ks);
    put_fixed64(out + 40, checksum64(out, 40, 0));
}

int sst_header_decode(const uint8_t in[SST_HEADER_SIZE], uint64_t file, struct sst_header *h)
{
    bool sealed = get_fixed64(in + 40) == checksum64(in, 40, 0);
    if (!sealed) {
        return FAIL_CORRUPT(file, 0, "the header of table %llu is damaged",
                            (unsigned long long)file);
    }
    if (get_fixed64(in) != HEADER_MAGIC) {
        return FAIL_AT(LOAM_E_FORMAT, file, 0, "file %llu is not a table",
                       (unsigned long long)file);
    }
    if (get_fixed32(in + 8) != SST_VERSION || get_fixed32(in + 12) != 0 ||
        get_fixed32(in + 36) != 0) {
        return FAIL_AT(LOAM_E_FORMAT, file, 8,
                       "table %llu has format version %u; this build knows %u",
                       (unsigned long long)file, get_fixed32(in + 8), SST_VERSION);
    }
    h->db_id = get_fixed64(in + 16);
    h->file_number = get_fixed64(in + 24);
    h->ks = get_fixed32(in + 32);
    return LOAM_OK;
}

/* ---- footer ---- */

static void put_handle(uint8_t *p, struct sst_handle h)
{
    put_fixed64(p, h.offset);
    put_fixed64(p + 8, h.size);
}

static struct sst_handle get_handle(const uint8_t *p)
{
    return (struct sst_handle){get_fixed64(p), get_fixed64(p + 8)};
}

static uint64_t footer_sum(const uint8_t *p, uint64_t db_id, uint64_t file_number, uint64_t offset)
{
    uint64_t seed = sst_file_seed(db_id, file_number);
    return checksum64(p + 8, SST_FOOTER_SIZE - 8, seed) ^ sst_mix(offset);
}

void sst_footer_encode(const struct sst_footer *f, uint8_t out[SST_FOOTER_SIZE])
{
    assert(f->file_size > SST_FOOTER_SIZE);
    memset(out, 0, SST_FOOTER_SIZE);
    put_handle(out + 8, f->filter);
    put_handle(out + 24, f->index);
    put_handle(out + 40, f->top);
    put_handle(out + 56, f->props);
    put_handle(out + 72, f->range_deletes);
    put_fixed64(out + 88, f->data_end);
    put_fixed64(out + 96, f->file_size);
    put_fixed64(out + 104, f->db_id);
    put_fixed64(out + 112, f->file_number);
    put_fixed32(out + 120, f->features);
    put_fixed32(out + 128, SST_FOOTER_SIZE);
    put_fixed32(out + 132, SST_VERSION);
    put_fixed64(out + 136, FOOTER_MAGIC);
    put_fixed64(out, footer_sum(out, f->db_id, f->file_number, f->file_size - SST_FOOTER_SIZE));
}

/* The parts behind the data follow each other without gap, in their order, up to the footer. */
static bool footer_tiles(const struct sst_footer *f)
{
    const struct sst_handle parts[] = {f->filter, f->index, f->top, f->props, f->range_deletes};
    uint64_t limit = f->file_size - SST_FOOTER_SIZE;
    uint64_t at = f->data_end;
    if (at < SST_HEADER_SIZE || at > limit) {
        return false;
    }
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i].offset != at || parts[i].size > limit - at) {
            return false;
        }
        at += parts[i].size;
    }
    return at == limit;
}

int sst_footer_decode(const uint8_t in[SST_FOOTER_SIZE], const struct sst_header *h,
                      uint64_t file_size, struct sst_footer *f)
{
    uint64_t at = file_size - SST_FOOTER_SIZE;
    assert(file_size >= SST_HEADER_SIZE + SST_FOOTER_SIZE);
    if (get_fixed64(in) != footer_sum(in, h->db_id, h->file_number, at) ||
        get_fixed64(in + 136) != FOOTER_MAGIC) {
        return FAIL_CORRUPT(h->file_number, at, "the footer of table %llu is damaged or cut off",
                            (unsigned long long)h->file_number);
    }
    if (get_fixed32(in + 132) != SST_VERSION || get_fixed32(in + 128) != SST_FOOTER_SIZE ||
        (get_fixed32(in + 120) & ~SST_FEATURE_STRETCHED) != 0) {
        return FAIL_AT(LOAM_E_FORMAT, h->file_number, file_size - SST_FOOTER_SIZE + 120,
                       "table %llu needs features this build does not know",
                       (unsigned long long)h->file_number);
    }
    struct sst_footer v = {
        .filter = get_handle(in + 8),
        .index = get_handle(in + 24),
        .top = get_handle(in + 40),
        .props = get_handle(in + 56),
        .range_deletes = get_handle(in + 72),
        .data_end = get_fixed64(in + 88),
        .file_size = get_fixed64(in + 96),
        .db_id = get_fixed64(in + 104),
        .file_number = get_fixed64(in + 112),
        .features = get_fixed32(in + 120),
    };
    if (v.file_size != file_size || v.db_id != h->db_id || v.file_number != h->file_number ||
        !footer_tiles(&v)) {
        return FAIL_CORRUPT(h->file_number, at, "the footer of table %llu contradicts the file",
                            (unsigned long long)h->file_number);
    }
    if (v.range_deletes.size != 0) {
        return FAIL_AT(LOAM_E_FORMAT, h->file_number, file_size - SST_FOOTER_SIZE + 72,
                       "table %llu holds range deletes", (unsigned long long)h->file_number);
    }
    *f = v;
    return LOAM_OK;
}

/* ---- properties ---- */

/* Where the byte string of a property is kept; NULL for a number. */
static loam_slice *prop_slice(struct sst_prop_values *v, uint64_t id)
{
    switch (id) {
    case SST_PROP_COMPARATOR:
        return &v->comparator;
    case SST_PROP_SMALLEST:
        return &v->smallest;
    case SST_PROP_LARGEST:
        return &v->largest;
    default:
        return NULL;
    }
}

void sst_props_encode(const struct sst_prop_values *v, struct buf *out)
{
    struct sst_prop_values copy = *v;
    for (uint64_t id = 1; id < SST_PROP_COUNT; id++) {
        loam_slice *s = prop_slice(&copy, id);
        buf_append_varint(out, id);
        if (s != NULL) {
            buf_append_slice(out, *s);
        } else {
            buf_append_varint(out, varint64_size(v->number[id]));
            buf_append_varint(out, v->number[id]);
        }
    }
}

int sst_props_decode(loam_slice data, uint64_t file, uint64_t offset, struct sst_prop_values *v)
{
    struct reader r = reader_of(data.data, data.size);
    uint64_t seen = 0;
    uint64_t last = 0;
    bool wrong = false;
    memset(v, 0, sizeof *v);
    while (!r.bad && reader_left(&r) != 0) {
        uint64_t id = read_varint64(&r);
        loam_slice value = read_slice(&r);
        wrong = wrong || id <= last;
        last = id;
        if (id == 0 || id >= SST_PROP_COUNT) {
            continue;
        }
        seen |= (uint64_t)1 << id;
        loam_slice *s = prop_slice(v, id);
        if (s != NULL) {
            *s = value;
            continue;
        }
        struct reader n = reader_of(value.data, value.size);
        v->number[id] = read_varint64(&n);
        wrong = wrong || n.bad || reader_left(&n) != 0;
    }
    uint64_t all = ((uint64_t)1 << SST_PROP_COUNT) - 2;
    if (r.bad || wrong || seen != all) {
        return FAIL_CORRUPT(file, offset, "the properties of table %llu do not parse",
                            (unsigned long long)file);
    }
    return LOAM_OK;
}

/* ---- packing ---- */

bool sst_codec_known(enum sst_codec codec)
{
#ifdef LOAM_HAVE_ZSTD
    return codec <= SST_CODEC_ZSTD;
#else
    return codec <= SST_CODEC_LZ4;
#endif
}

int sst_fit(struct alloc *a, enum mem_owner o, uint8_t **p, size_t *cap, size_t need)
{
    bool outsized = *cap > OUTSIZED && need < *cap / 4;
    if (need <= *cap && !outsized) {
        return LOAM_OK;
    }
    alloc_put(a, o, *p, *cap);
    /* Rounded up, so that blocks that differ a little share one allocation. */
    size_t cap_new = need < OUTSIZED ? (need + 4095) & ~(size_t)4095 : need;
    *p = alloc_get(a, o, cap_new);
    *cap = *p != NULL ? cap_new : 0;
    return *p != NULL ? LOAM_OK : FAIL(LOAM_E_NOMEM, "no memory for a block of %zu bytes", need);
}

/* Compresses into at most `cap` bytes of p->out; 0: it did not fit, or a context has no memory. */
static size_t pack_lz4(struct sst_packer *p, const void *data, size_t size, size_t cap)
{
    if (p->lz4 == NULL) {
        p->lz4 = alloc_get(p->alloc, MEM_BUILD, (size_t)LZ4_sizeofState());
        if (p->lz4 == NULL) {
            return 0;
        }
    }
    int n = LZ4_compress_fast_extState(p->lz4, data, (char *)p->out, (int)size, (int)cap, 1);
    return n > 0 ? (size_t)n : 0;
}

static size_t pack_zstd(struct sst_packer *p, const void *data, size_t size, size_t cap)
{
#ifdef LOAM_HAVE_ZSTD
    if (p->zstd == NULL) {
        p->zstd_size = ZSTD_estimateCCtxSize(ZSTD_LEVEL);
        p->zstd = alloc_get(p->alloc, MEM_BUILD, p->zstd_size);
        if (p->zstd == NULL) {
            return 0;
        }
    }
    ZSTD_CCtx *ctx = ZSTD_initStaticCCtx(p->zstd, p->zstd_size);
    if (ctx == NULL) {
        return 0;
    }
    size_t n = ZSTD_compressCCtx(ctx, p->out, cap, data, size, ZSTD_LEVEL);
    /* A reader does not believe a larger ratio; LZ4 cannot reach it. */
    return ZSTD_isError(n) || n < size / SST_RATIO_MAX + 1 ? 0 : n;
#else
    (void)p, (void)data, (void)size, (void)cap;
    return 0;
#endif
}

/* The codec used, and in *n the bytes in p->out. */
static enum sst_codec compress(struct sst_packer *p, enum sst_codec codec, const void *data,
                               size_t size, size_t *n)
{
    size_t cap = size - size / 8; /* the most that is worth it */
    if (codec == SST_CODEC_NONE || size < 64 || size > CODEC_SIZE_MAX || cap == size ||
        sst_fit(p->alloc, MEM_BUILD, &p->out, &p->out_cap, cap) != LOAM_OK) {
        return SST_CODEC_NONE;
    }
    if (codec == SST_CODEC_ZSTD && (*n = pack_zstd(p, data, size, cap)) != 0) {
        return SST_CODEC_ZSTD;
    }
    if ((*n = pack_lz4(p, data, size, cap)) != 0) {
        return SST_CODEC_LZ4;
    }
    return SST_CODEC_NONE;
}

static uint64_t payload_sum(uint64_t file_seed, const uint8_t *trailer, const void *payload,
                            size_t size)
{
    return checksum64(payload, size, sst_mix(file_seed ^ get_fixed64(trailer)));
}

void sst_pack(struct sst_packer *p, enum sst_codec codec, enum sst_type type, uint64_t file_seed,
              const void *data, size_t size, struct sst_packed *out)
{
    assert(size <= SST_BLOCK_SIZE_MAX);
    size_t n = 0;
    codec = compress(p, codec, data, size, &n);
    out->payload = codec == SST_CODEC_NONE ? data : p->out;
    out->size = codec == SST_CODEC_NONE ? size : n;
    memset(out->trailer, 0, sizeof out->trailer);
    out->trailer[0] = (uint8_t)codec;
    out->trailer[1] = (uint8_t)type;
    put_fixed32(out->trailer + 4, (uint32_t)size);
    put_fixed64(out->trailer + 8, payload_sum(file_seed, out->trailer, out->payload, out->size));
}

void sst_trailer_finish(struct sst_packed *b, uint64_t offset)
{
    put_fixed64(b->trailer + 8, get_fixed64(b->trailer + 8) ^ sst_mix(offset));
}

void sst_packer_trim(struct sst_packer *p)
{
    if (p->out_cap > PACKED_KEPT) {
        alloc_put(p->alloc, MEM_BUILD, p->out, p->out_cap);
        p->out = NULL;
        p->out_cap = 0;
    }
}

void sst_packer_free(struct sst_packer *p)
{
    alloc_put(p->alloc, MEM_BUILD, p->out, p->out_cap);
    alloc_put(p->alloc, MEM_BUILD, p->lz4, (size_t)LZ4_sizeofState());
    alloc_put(p->alloc, MEM_BUILD, p->zstd, p->zstd_size);
    *p = (struct sst_packer){.alloc = p->alloc};
}

/* ---- unpacking ---- */

int sst_stored_check(struct sst_place at, enum sst_type type, const void *data, size_t size,
                     uint64_t raw_max, struct sst_stored *s)
{
    if (size < SST_TRAILER_SIZE) {
        return FAIL_CORRUPT(at.file, at.offset, "a block of table %llu is shorter than its trailer",
                            (unsigned long long)at.file);
    }
    size_t n = size - SST_TRAILER_SIZE;
    const uint8_t *trailer = (const uint8_t *)data + n;
    uint64_t sum = payload_sum(at.file_seed, trailer, data, n) ^ sst_mix(at.offset);
    if (get_fixed64(trailer + 8) != sum) {
        return FAIL_CORRUPT(at.file, at.offset, "checksum of a block of table %llu does not match",
                            (unsigned long long)at.file);
    }
    uint64_t raw = get_fixed32(trailer + 4);
    unsigned codec = trailer[0];
    if (codec > SST_CODEC_ZSTD) {
        return FAIL_AT(LOAM_E_FORMAT, at.file, at.offset,
                       "a block of table %llu has the unknown codec %u",
                       (unsigned long long)at.file, codec);
    }
    bool sized = codec == SST_CODEC_NONE ? raw == n : n != 0 && raw / SST_RATIO_MAX <= n;
    if (trailer[1] != (unsigned)type || trailer[2] != 0 || trailer[3] != 0 || !sized ||
        raw > raw_max) {
        return FAIL_CORRUPT(at.file, at.offset, "the trailer of a block of table %llu is wrong",
                            (unsigned long long)at.file);
    }
    *s = (struct sst_stored){data, n, (size_t)raw, (enum sst_codec)codec};
    return LOAM_OK;
}

#ifdef LOAM_HAVE_ZSTD
static int unpack_zstd(struct sst_unpacker *u, const struct sst_stored *s, void *out, bool *good)
{
    if (u->zstd == NULL) {
        u->zstd_size = ZSTD_estimateDCtxSize();
        u->zstd = alloc_get(u->alloc, MEM_ITER, u->zstd_size);
        if (u->zstd == NULL) {
            return FAIL(LOAM_E_NOMEM, "no memory to decompress a block");
        }
    }
    ZSTD_DCtx *ctx = ZSTD_initStaticDCtx(u->zstd, u->zstd_size);
    size_t n = ctx != NULL ? ZSTD_decompressDCtx(ctx, out, s->raw_size, s->payload, s->size) : 0;
    *good = !ZSTD_isError(n) && n == s->raw_size;
    return LOAM_OK;
}
#endif

int sst_unpack(struct sst_unpacker *u, struct sst_place at, const struct sst_stored *s, void *out)
{
    bool good = false;
    switch (s->codec) {
    case SST_CODEC_NONE:
        memcpy(out, s->payload, s->size);
        good = true;
        break;
    case SST_CODEC_LZ4:
        good = s->size <= CODEC_SIZE_MAX && s->raw_size <= CODEC_SIZE_MAX &&
               LZ4_decompress_safe((const char *)s->payload, out, (int)s->size, (int)s->raw_size) ==
                   (int)s->raw_size;
        break;
    case SST_CODEC_ZSTD:
#ifdef LOAM_HAVE_ZSTD
    {
        int rc = unpack_zstd(u, s, out, &good);
        if (rc != LOAM_OK) {
            return rc;
        }
        break;
    }
#else
        (void)u;
        return FAIL(LOAM_E_UNSUPPORTED, "table %llu is compressed with zstd, which is not built in",
                    (unsigned long long)at.file);
#endif
    }
    if (!good) {
        return FAIL_CORRUPT(at.file, at.offset, "a block of table %llu does not decompress",
                            (unsigned long long)at.file);
    }
    return LOAM_OK;
}

void sst_unpacker_free(struct sst_unpacker *u)
{
    alloc_put(u->alloc, MEM_ITER, u->zstd, u->zstd_size);
    *u = (struct sst_unpacker){.alloc = u->alloc};
}

/* ---- files ---- */

int sst_read_full(const loam_vfs *vfs, loam_file *f, uint64_t file, void *buf, size_t n,
                  uint64_t offset)
{
    int64_t got = vfs_read_full(vfs, f, buf, n, offset);
    if (got < 0) {
        return FAIL_IO(got, file, offset, "reading table %llu at %llu", (unsigned long long)file,
                       (unsigned long long)offset);
    }
    if ((uint64_t)got < n) {
        offset += (uint64_t)got;
        return FAIL_CORRUPT(file, offset, "table %llu ends early, at %llu",
                            (unsigned long long)file, (unsigned long long)offset);
    }
    return LOAM_OK;
}
