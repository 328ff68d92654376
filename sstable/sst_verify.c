/* sst_verify.c - Reads a whole table from disk and checks everything it says.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/sst_reader.h"

#include "arena/hash.h"
#include "arena/status.h"
#include "sstable/block.h"
#include "sstable/partition.h"
#include "sstable/sst_paged.h"

#include "arena/poison.h"

#define CHUNK        ((size_t)256 << 10) /* bytes read at a time for the whole-file checksum */
#define FILTER_BYTES ((size_t)4 << 20)

struct verifier {
    const struct sst_reader *r;
    struct sst_get_scratch scratch;
    struct sst_part part;   /* the present index partition, from the file */
    struct sst_pages pages; /* of the filter, from the file: those of this pass over the blocks */
    size_t pages_size;      /* of their memory */
    bool again;             /* not the first pass: all but what the filter misses has been told */
    bool missed;            /* the filter misses a key */
    uint8_t *part_key;      /* assembled separators of the partition */
    size_t part_key_cap;
    struct sst_verify_options o;
    int rc; /* first damage, or what ended it: an error, or the damage at which a callback had enough */
    bool stopped; /* a callback had enough */
    uint8_t *key; /* assembled keys, one entry */
    size_t key_cap;
    struct buf last_key;  /* last entry of the blocks so far */
    struct buf separator; /* of the block before, in full */
    struct buf own;       /* of this block */
    uint64_t last_tag;
    bool any;   /* there is a last entry */
    bool first; /* no block came before this one */
    bool oom;   /* a key could not be kept: nothing more can be said */
    uint64_t entries, deletes, raw_bytes, min_seq, max_seq;
    uint64_t before;     /* entries of the blocks before this one */
    uint64_t data_bytes; /* of all blocks, as stored */
};

/* Damage that loam_last_error() describes. */
static void report(struct verifier *v, const struct sst_damage *d)
{
    if (v->o.damage != NULL && v->o.damage(v->o.arg, d) != 0) {
        v->stopped = true;
    }
    v->rc = v->rc == LOAM_OK || v->stopped ? d->rc : v->rc;
}

/* Of the whole table. */
static void report_all(struct verifier *v, uint64_t offset, uint64_t bytes, int rc)
{
    const struct sst_props *p = &v->r->props;
    report(v, &(struct sst_damage){.rc = rc,
                                   .offset = offset,
                                   .bytes = bytes,
                                   .entries = p->entries,
                                   .first = p->smallest,
                                   .last = p->largest});
}

/* A bound that is there: only an open end has no data. */
static loam_slice bound(const struct buf *b)
{
    return b->size != 0 ? buf_slice(b) : loam_bytes("", 0);
}

/* Of a block or partition: between the separator of the one before and its own. What readable blocks
 * held before it is no part of what it can hold. */
static void report_piece(struct verifier *v, const struct sst_piece *at, int rc)
{
    if (v->oom) {
        v->stopped = true;
        return;
    }
    bool told = v->again && !v->missed && (rc == LOAM_E_CORRUPT || rc == LOAM_E_FORMAT);
    v->missed = false;
    if (told) {
        return;
    }
    const struct sst_props *p = &v->r->props;
    report(v, &(struct sst_damage){.rc = rc,
                                   .offset = at->offset,
                                   .bytes = at->size,
                                   .entries =
                                       v->before < p->entries ? p->entries - v->before : p->entries,
                                   .first = v->first ? p->smallest : bound(&v->separator),
                                   .last = bound(&v->own)});
}

static bool pace(struct verifier *v, uint64_t bytes)
{
    int rc = v->o.pace != NULL ? v->o.pace(v->o.arg, bytes) : LOAM_OK;
    if (rc < 0) {
        v->rc = rc;
        v->stopped = true;
    }
    return !v->stopped;
}

static int damaged(const struct verifier *v, uint64_t offset, const char *what)
{
    uint64_t file = v->r->props.file_number;
    return FAIL_CORRUPT(file, offset, "table %llu: %s", (unsigned long long)file, what);
}

static void verify_file_sum(struct verifier *v, uint64_t *checksum)
{
    const struct sst_reader *r = v->r;
    struct checksum_stream sum;
    checksum_begin(&sum, 0);
    for (uint64_t at = 0; at < r->props.file_size && !v->stopped; at += CHUNK) {
        uint64_t left = r->props.file_size - at;
        size_t n = left < CHUNK ? (size_t)left : CHUNK;
        int rc = sst_fit(v->scratch.alloc, MEM_ITER, &v->scratch.io, &v->scratch.io_cap, n);
        if (rc == LOAM_OK) {
            rc = sst_read_full(r->vfs, r->file, r->props.file_number, v->scratch.io, n, at);
        }
        if (rc != LOAM_OK) {
            report_all(v, at, n, rc);
            return;
        }
        checksum_add(&sum, v->scratch.io, n);
        pace(v, n);
    }
    if (checksum != NULL) {
        *checksum = checksum_end(&sum);
    }
}

/* The separator of this block becomes key; the one before it is kept. */
static void next_separator(struct verifier *v, loam_slice key, loam_slice rest)
{
    struct buf before = v->separator;
    v->separator = v->own;
    v->own = before;
    buf_set(&v->own, key.data, key.size);
    buf_append(&v->own, rest.data, rest.size);
    v->oom = v->oom || v->own.oom;
}

/* The first entry of a block follows the last one of the block before, and lies beyond the
 * separator between the two unless a key's versions span them. */
static const char *check_seam(const struct verifier *v, uint32_t block, const struct entry *e)
{
    const loam_comparator *cmp = v->r->cmp;
    if (block == 0 && bytes_compare(e->key, v->r->props.smallest) != 0) {
        return "the first key is not the smallest";
    }
    if (!v->any) {
        return NULL;
    }
    int c = key_compare(cmp, buf_slice(&v->last_key), e->key);
    if (c > 0 || (c == 0 && v->last_tag <= e->tag)) {
        return "blocks are out of order";
    }
    int beyond = key_compare(cmp, buf_slice(&v->separator), e->key);
    return beyond < 0 || (c == 0 && beyond == 0) ? NULL : "a key lies before its block";
}

/* Whether the filter may contain the key, as far as its line is among those in memory. */
static bool in_filter(const struct verifier *v, uint64_t hash)
{
    const struct sst_pages *g = &v->pages;
    uint64_t first = (uint64_t)g->first * FILTER_PAGE_LINES,
             end = (uint64_t)g->end * FILTER_PAGE_LINES;
    uint64_t line = g->probes != 0 ? filter_line_of(hash, v->r->shape.lines) : 0;
    return g->probes == 0 || line < first || line >= end ||
           filter_line_has(g->memory + (line - first) * FILTER_LINE, g->probes, hash);
}

static const char *check_hashes(struct verifier *v, const struct block *b, uint32_t i,
                                const struct entry *e)
{
    uint64_t hash = hash_key(e->key.data, e->key.size);
    if (b->data[BLOCK_HEADER_SIZE + i] != fingerprint_of(hash)) {
        return "a fingerprint is wrong";
    }
    v->missed = !in_filter(v, hash);
    return v->missed ? "the filter misses a key" : NULL;
}

static const char *check_entries(struct verifier *v, uint32_t block, const uint8_t *data)
{
    struct block_cursor c;
    block_cursor_init(&c, data, v->key);
    const char *what = NULL;
    for (bool ok = block_cursor_move(&c, 0); ok && what == NULL; ok = block_cursor_next(&c)) {
        const struct entry *e = &c.entry;
        uint64_t seq = tag_seq(e->tag);
        what = c.index == 0 ? check_seam(v, block, e) : NULL;
        what = what == NULL ? check_hashes(v, &c.block, c.index, e) : what;
        v->entries++;
        v->deletes += tag_kind(e->tag) == ENTRY_DELETE;
        v->raw_bytes += e->key.size + e->value.size;
        v->min_seq = seq < v->min_seq ? seq : v->min_seq;
        v->max_seq = seq > v->max_seq ? seq : v->max_seq;
        if (c.index + 1 == c.block.count) {
            buf_set(&v->last_key, e->key.data, e->key.size);
            v->oom = v->oom || v->last_key.oom;
            v->last_tag = e->tag;
            v->any = true;
        }
    }
    if (what == NULL && key_compare(v->r->cmp, buf_slice(&v->last_key), buf_slice(&v->own)) > 0) {
        what = "a key lies behind its block";
    }
    return what;
}

/* Whether the index says rightly that all entries of a block are deletes. */
static const char *check_dead(const struct verifier *v, bool dead, uint64_t entries,
                              uint64_t deletes)
{
    bool is = v->entries - entries == v->deletes - deletes;
    return is == dead ? NULL : "its index is wrong about deletes";
}

static void verify_block(struct verifier *v, const struct sst_piece *at, bool dead)
{
    const struct sst_reader *r = v->r;
    const uint8_t *data = NULL;
    size_t size = 0;
    uint64_t deletes = v->deletes;
    v->before = v->entries;
    int rc = sst_read_piece(r, at, &v->scratch, &data, &size);
    if (rc == LOAM_OK && !block_sum_matches(data, size, r->file_seed, at->number)) {
        rc = FAIL_CORRUPT(r->props.file_number, at->offset,
                          "block %u of table %llu was written with changed contents", at->number,
                          (unsigned long long)r->props.file_number);
    }
    const char *what = rc == LOAM_OK ? check_entries(v, at->number, data) : NULL;
    sst_get_scratch_rest(&v->scratch); /* reports and pauses may take long */
    if (rc != LOAM_OK) {
        report_piece(v, at, rc);
        return;
    }
    what = what == NULL ? check_dead(v, dead, v->before, deletes) : what;
    if (what != NULL) {
        report_piece(v, at, damaged(v, at->offset, what));
    }
    pace(v, size);
}

/* The partition itself, from the file. */
static int load_part(struct verifier *v, const struct sst_piece *at, uint32_t part)
{
    const struct sst_reader *r = v->r;
    int rc = sst_part_hold(r, &v->part, part, SST_PART_FILE);
    if (rc == LOAM_OK &&
        !block_sum_matches(v->part.copy, at->size - SST_TRAILER_SIZE, r->file_seed, at->number)) {
        rc = damaged(v, at->offset, "an index partition was written with changed contents");
        v->part.number = SST_NO_PART;
    }
    return rc;
}

/* The blocks of a partition; of a damaged one none can be found. */
static void verify_part(struct verifier *v, uint32_t part)
{
    const struct sst_reader *r = v->r;
    const struct sst_piece at = sst_part_piece(r, part);
    uint32_t first = r->part_first[part];
    int rc = load_part(v, &at, part);
    if (rc != LOAM_OK) {
        v->before = v->entries;
        next_separator(v, index_prefix(&r->top), index_rest(&r->top, part));
        report_piece(v, &at, rc);
        v->first = false;
        return;
    }
    struct block_cursor c;
    bool dead = true;
    block_cursor_init(&c, v->part.copy, v->part_key);
    for (uint32_t i = 0; i < c.block.count && !v->stopped; i++) {
        struct sst_piece p;
        struct partition_value value;
        block_cursor_move(&c, i);
        partition_value(&c.block, i, &value);
        p = (struct sst_piece){SST_DATA, first + i, value.number, value.size};
        next_separator(v, c.entry.key, loam_bytes("", 0));
        verify_block(v, &p, value.dead);
        v->first = false;
        v->data_bytes += p.size;
        dead = dead && value.dead;
    }
    if (!v->stopped && dead != index_dead(&r->top, part)) {
        report_piece(v, &at, damaged(v, at.offset, "the top is wrong about deletes"));
    }
}

static void report_page(void *arg, const struct sst_piece *page, int rc)
{
    report_all(arg, page->offset, page->size, rc);
}

/* The pages of the next pass. One that is wrong must not make keys look as if they were missing. */
static void load_pages(struct verifier *v)
{
    const struct sst_reader *r = v->r;
    struct sst_pages *g = &v->pages;
    size_t most = v->o.filter_bytes != 0 ? v->o.filter_bytes : FILTER_BYTES;
    uint32_t left = r->props.filter_pages - g->end;
    uint32_t n = (uint32_t)(most / (FILTER_PAGE_BYTES + SST_TRAILER_SIZE));
    n += n == 0;
    g->first = g->end;
    g->end += n < left ? n : left;
    if (g->first == g->end || v->stopped) {
        return;
    }
    size_t size = sst_pages_size(r, g);
    if (g->memory == NULL) { /* later parts are no larger */
        v->pages_size = size;
        g->memory = alloc_get_aligned(r->alloc, MEM_ITER, size, CACHE_LINE);
    }
    int rc = g->memory != NULL ? sst_gather_pages(r, g, report_page, v)
                               : FAIL(LOAM_E_NOMEM, "no memory for %zu bytes of a filter", size);
    if (rc != LOAM_OK) {
        g->probes = 0; /* nothing is missed by what is not there */
        report_all(v, r->footer.filter.offset, r->footer.filter.size, rc);
    }
}

/* All blocks, and what of the filter is in memory. */
static void verify_blocks(struct verifier *v)
{
    v->entries = v->deletes = v->raw_bytes = v->data_bytes = v->max_seq = 0;
    v->min_seq = UINT64_MAX;
    v->any = false;
    v->first = true;
    for (uint32_t i = 0; i < v->r->props.partitions && !v->stopped; i++) {
        verify_part(v, i);
    }
}

static void verify_totals(struct verifier *v)
{
    const struct sst_props *p = &v->r->props;
    if (v->entries != p->entries || v->deletes != p->deletes || v->raw_bytes != p->raw_bytes ||
        v->min_seq != p->min_seq || v->max_seq != p->max_seq || v->data_bytes != p->data_size) {
        report_all(
            v, v->r->footer.props.offset, p->props_size,
            damaged(v, v->r->footer.props.offset, "the properties do not match the entries"));
    }
}

int sst_verify(struct sst_reader *r, const struct sst_verify_options *o, uint64_t *checksum)
{
    struct verifier v = {.r = r};
    if (o != NULL) {
        v.o = *o;
    }
    sst_get_scratch_init(&v.scratch, r->alloc);
    buf_init(&v.last_key, r->alloc, MEM_ITER);
    buf_init(&v.separator, r->alloc, MEM_ITER);
    buf_init(&v.own, r->alloc, MEM_ITER);
    sst_part_init(&v.part, r->alloc, MEM_ITER);
    v.rc = sst_fit(r->alloc, MEM_ITER, &v.key, &v.key_cap, (size_t)r->props.max_key + 16);
    if (v.rc == LOAM_OK) {
        v.rc = sst_fit(r->alloc, MEM_ITER, &v.part_key, &v.part_key_cap,
                       (size_t)r->props.max_key + 16);
    }
    if (v.rc == LOAM_OK) {
        verify_file_sum(&v, checksum);
        do {
            load_pages(&v);
            verify_blocks(&v);
            v.again = true;
        } while (v.pages.end < r->props.filter_pages && !v.stopped);
    }
    if (v.rc == LOAM_OK && !v.stopped) {
        verify_totals(&v);
    }
    if (v.oom) {
        v.rc = FAIL(LOAM_E_NOMEM, "no memory to verify table %llu",
                    (unsigned long long)r->props.file_number);
    }
    alloc_put(r->alloc, MEM_ITER, v.key, v.key_cap);
    alloc_put(r->alloc, MEM_ITER, v.part_key, v.part_key_cap);
    if (v.pages.memory != NULL) {
        alloc_put_aligned(r->alloc, MEM_ITER, v.pages.memory, v.pages_size, CACHE_LINE);
    }
    sst_part_free(&v.part);
    buf_free(&v.last_key);
    buf_free(&v.separator);
    buf_free(&v.own);
    sst_get_scratch_free(&v.scratch);
    return v.rc;
}
