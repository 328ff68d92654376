/* sst_residence.c - Brings index and filter of a table into memory.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/sst_residence.h"

#include "arena/status.h"
#include "sstable/partition.h"
#include "sstable/sst_paged.h"

#include "arena/poison.h"

static int damaged(const struct sst_reader *r, uint64_t offset, const char *what)
{
    return FAIL_CORRUPT(r->props.file_number, offset, "table %llu: %s",
                        (unsigned long long)r->props.file_number, what);
}

static uint32_t shared_bytes(loam_slice a, loam_slice b)
{
    const uint8_t *x = a.data, *y = b.data;
    uint32_t n = 0;
    while (n < a.size && n < b.size && x[n] == y[n]) {
        n++;
    }
    return n;
}

static void next_of_parts(void *arg, uint32_t i, struct index_item *item)
{
    struct sst_walk *w = arg;
    struct partition_value v;
    w->part = i == 0 ? 0 : w->part;
    w->part += i != 0 && i == w->r->part_first[w->part + 1];
    uint32_t first = w->r->part_first[w->part];
    if (i == first) {
        uint64_t at = w->r->top.offsets[w->part] - w->r->footer.index.offset;
        block_cursor_init(&w->at, w->image + at, w->key);
    }
    block_cursor_move(&w->at, i - first);
    partition_value(&w->at.block, i - first, &v);
    *item = (struct index_item){w->at.entry.key, v.number, v.size, v.dead};
}

static uint8_t *key_room(const struct sst_reader *r, size_t *size)
{
    *size = (size_t)r->props.max_key + SST_TRAILER_SIZE;
    return alloc_get(r->alloc, MEM_TABLE, *size);
}

int sst_build_index(struct index *x, struct sst_walk *w, uint32_t count, uint64_t max,
                    void (*next)(void *arg, uint32_t i, struct index_item *item))
{
    const struct sst_reader *r = w->r;
    size_t key_size;
    uint8_t *key = key_room(r, &key_size);
    if (key == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory to open table %llu",
                    (unsigned long long)r->props.file_number);
    }
    w->key = key;
    struct index_item first;
    next(w, 0, &first);
    const struct index_source from = {
        .next = next,
        .arg = w,
        .count = count,
        /* The last separator is the largest key; where it is not, the caller finds out. */
        .shared = shared_bytes(first.separator, r->props.largest),
        .memory_max = max < SIZE_MAX ? (size_t)max : SIZE_MAX,
    };
    struct sst_place at = {r->props.file_number, r->file_seed, r->footer.index.offset};
    int rc = index_open(x, r->alloc, r->cmp, &from, at);
    alloc_put(r->alloc, MEM_TABLE, key, key_size);
    return rc;
}

void sst_leave_residence(struct sst_reader *r)
{
    index_close(&r->index);
    if (r->filter_memory != NULL) {
        alloc_put_aligned(r->alloc, MEM_TABLE, r->filter_memory, r->filter_memory_size, CACHE_LINE);
    }
    r->filter_memory = NULL;
    r->filter_memory_size = 0;
    r->filter.probes = 0;
    r->resident = false;
}

/* Data blocks tile the file from the header to the end of data, by the sum of their sizes. */
static bool blocks_fill_file(const struct sst_reader *r)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < r->index.count; i++) {
        sum += index_size(&r->index, i);
    }
    return sum == r->props.data_size;
}

/* Partitions lie at `image` as stored. */
static int take_parts(struct sst_reader *r, const uint8_t *image, uint64_t max)
{
    for (uint32_t i = 0; i < r->props.partitions; i++) {
        const struct sst_piece p = sst_part_piece(r, i);
        int rc = sst_check_stored(r, &p, image + (p.offset - r->footer.index.offset));
        if (rc != LOAM_OK) {
            return rc;
        }
    }
    struct sst_walk w = {.r = r, .image = image};
    int rc = sst_build_index(&r->index, &w, (uint32_t)r->props.blocks, max, next_of_parts);
    if (rc == LOAM_OK && !blocks_fill_file(r)) {
        rc = damaged(r, r->footer.index.offset, "its blocks do not fill the file");
    }
    return rc;
}

static int load_index(struct sst_reader *r, uint64_t max)
{
    struct sst_handle h = r->footer.index;
    uint8_t *image = alloc_get(r->alloc, MEM_TABLE, h.size);
    if (image == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for %llu bytes of table %llu",
                    (unsigned long long)h.size, (unsigned long long)r->props.file_number);
    }
    int rc = sst_read_full(r->vfs, r->file, r->props.file_number, image, h.size, h.offset);
    if (rc == LOAM_OK) {
        rc = take_parts(r, image, max);
    }
    alloc_put(r->alloc, MEM_TABLE, image, h.size);
    return rc;
}

static int load_filter(struct sst_reader *r)
{
    size_t size = r->footer.filter.size;
    if (size == 0) {
        return LOAM_OK;
    }
    r->filter_memory = alloc_get_aligned(r->alloc, MEM_TABLE, size, CACHE_LINE);
    r->filter_memory_size = r->filter_memory != NULL ? size : 0;
    if (r->filter_memory == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a filter of %zu bytes", size);
    }
    struct sst_pages g = {.end = r->props.filter_pages, .memory = r->filter_memory};
    int rc = sst_gather_pages(r, &g, NULL, NULL);
    r->filter = (struct filter){g.memory, r->shape.lines, rc == LOAM_OK ? g.probes : 0};
    return rc;
}

/* LOAM_OK: resident. LOAM_STOPPED: it takes more than `max`. */
static int take_residence(struct sst_reader *r, uint64_t max)
{
    uint64_t around = r->footer.filter.size + 8 * r->props.blocks;
    int rc = around < max ? load_index(r, max - around) : LOAM_STOPPED;
    if (rc == LOAM_OK) {
        rc = load_filter(r);
    }
    r->resident = rc == LOAM_OK;
    if (rc != LOAM_OK) {
        sst_leave_residence(r);
    }
    return rc;
}

/* About what it takes: arrays, tree and addresses per block, and what is stored. */
static uint64_t residence_estimate(const struct sst_reader *r)
{
    return r->props.blocks * 36 + r->footer.index.size + r->footer.filter.size;
}

int sst_settle(struct sst_reader *r, const struct sst_open_options *o)
{
    r->want = residence_estimate(r);
    int rc = o->paranoid && !o->whole ? sst_check_paged(r) : LOAM_OK;
    if (rc == LOAM_OK && o->whole) {
        /* No separator is longer than a key of its block, and no block larger than its codec allows. */
        r->want = 0;
        rc = take_residence(r, r->props.file_size * (SST_RATIO_MAX + 1));
        return rc == LOAM_STOPPED ? damaged(r, r->footer.index.offset, "its index is too large")
                                  : rc;
    }
    /* What keeps it from being resident is met, and told, by who needs the part. */
    if (rc == LOAM_OK && r->want <= o->resident_bytes) {
        int taken = take_residence(r, o->resident_bytes);
        /* Want of memory may pass. */
        r->want = taken == LOAM_OK ? 0 : taken == LOAM_E_NOMEM ? r->want : UINT64_MAX;
    }
    return rc;
}
