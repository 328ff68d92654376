/* table.c - Copies what a version knows of a table.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/table.h"

#include <assert.h>
#include <string.h>

#include "sstable/sst_builder.h"

#include "arena/poison.h"

struct table_meta table_meta_of(const struct sst_info *info, uint64_t number, uint32_t ks,
                                uint8_t level)
{
    return (struct table_meta){
        .number = number,
        .size = info->size,
        .entries = info->entries,
        .deletes = info->deletes,
        .older = info->older,
        .raw_bytes = info->raw_bytes,
        .checksum = info->checksum,
        .min_seq = info->min_seq,
        .max_seq = info->max_seq,
        .ks = ks,
        .level = level,
        .smallest = info->smallest,
        .largest = info->largest,
    };
}

struct table *table_create(struct alloc *a, const struct table_meta *m)
{
    size_t bytes = sizeof(struct table) + m->smallest.size + m->largest.size;
    struct table *t = alloc_zero(a, MEM_VERSION, bytes);
    if (t == NULL) {
        return NULL;
    }
    t->meta = *m;
    t->alloc = a;
    t->bytes = bytes;
    uint8_t *keys = (uint8_t *)(t + 1);
    if (m->smallest.size != 0) {
        memcpy(keys, m->smallest.data, m->smallest.size);
    }
    t->meta.smallest.data = keys;
    keys += m->smallest.size;
    if (m->largest.size != 0) {
        memcpy(keys, m->largest.data, m->largest.size);
    }
    t->meta.largest.data = keys;
    return t;
}

void table_free(struct table *t)
{
    if (t == NULL) {
        return;
    }
    assert(t->refs == 0);
    /* relaxed: nobody else can reach the table. */
    assert(atom_load(&t->reader, relaxed) == NULL);
    alloc_put(t->alloc, MEM_VERSION, t, t->bytes);
}

bool table_overlaps(const struct table *t, const loam_comparator *cmp, loam_slice lo, loam_slice hi)
{
    return (lo.data == NULL || key_compare(cmp, t->meta.largest, lo) >= 0) &&
           (hi.data == NULL || key_compare(cmp, t->meta.smallest, hi) <= 0);
}
