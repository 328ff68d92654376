/* repair_output.c - Builds the tables that a repair makes.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "arena/status.h"
#include "engine/repair.h"
#include "sstable/sst_format.h"

#include "arena/poison.h"

#define TABLE_BYTES ((uint64_t)32 << 20)

/* Whatever comes is taken to be in order. */
static int as_it_comes(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx, (void)a, (void)b;
    return -1;
}

void repair_output_init(struct repair_output *o, struct repair *r, uint32_t ks, uint8_t level,
                        bool by_bytes)
{
    *o = (struct repair_output){.r = r, .ks = ks, .level = level};
    buf_init(&o->last, r->alloc, MEM_BUILD);
    const struct ks_desc *d = repair_ks(r, ks);
    if (by_bytes || d == NULL || repair_order(r, ks, &o->cmp)) {
        o->cmp = by_bytes ? NULL : o->cmp;
        return;
    }
    size_t n = d->comparator.size < sizeof o->name - 1 ? d->comparator.size : sizeof o->name - 1;
    memcpy(o->name, d->comparator.data, n);
    o->name[n] = '\0';
    o->stand_in = (loam_comparator){
        .struct_size = sizeof o->stand_in, .name = o->name, .compare = as_it_comes};
    o->cmp = &o->stand_in;
}

/* The keyspace's, if this build has it. */
static uint32_t compression_of(const struct ks_desc *d)
{
    bool have =
        d == NULL || d->compression != LOAM_COMPRESS_ZSTD || sst_codec_known(SST_CODEC_ZSTD);
    return !have ? LOAM_COMPRESS_LZ4 : d != NULL ? d->compression : LOAM_COMPRESS_DEFAULT;
}

static int begin(struct repair_output *o)
{
    struct repair *r = o->r;
    const struct ks_desc *d = repair_ks(r, o->ks);
    char path[FILENAME_CAP];
    o->number = r->next_file++;
    int rc = filename_make(r->dir, FILE_TABLE, o->number, path);
    if (rc < 0) {
        return rc;
    }
    const struct sst_build_options b = {
        .vfs = r->vfs,
        .alloc = r->alloc,
        .path = path,
        .file_number = o->number,
        .db_id = r->db_id,
        .ks = o->ks,
        .cmp = o->cmp,
        .block_bytes = d != NULL ? d->block_bytes : 0,
        .filter_bits = d != NULL ? d->filter_bits : 10,
        .compression = compression_of(d),
        .level = o->level,
    };
    rc = sst_builder_open(&o->builder, &b);
    o->builder = rc == LOAM_OK ? o->builder : NULL;
    return rc;
}

/* Whether it is the key that was added last, which under a comparator may be spelled otherwise. */
static bool is_same_key(const struct repair_output *o, const struct entry *e)
{
    const loam_comparator *cmp = o->cmp != &o->stand_in ? o->cmp : NULL;
    return o->entries != 0 && key_compare(cmp, buf_slice(&o->last), e->key) == 0;
}

int repair_output_add(struct repair_output *o, const struct entry *e)
{
    bool same_key = is_same_key(o, e);
    if (same_key && o->last_tag == e->tag) {
        return LOAM_OK;
    }
    int rc = LOAM_OK;
    if (o->builder != NULL && !same_key && sst_builder_bytes(o->builder) >= TABLE_BYTES &&
        o->cmp != &o->stand_in) {
        rc = repair_output_finish(o);
    }
    if (rc == LOAM_OK && o->builder == NULL) {
        rc = begin(o);
    }
    if (rc == LOAM_OK) {
        rc = sst_builder_add(o->builder, e, 0);
    }
    if (rc == LOAM_OK) {
        buf_set(&o->last, e->key.data, e->key.size);
        o->last_tag = e->tag;
        o->entries++;
        rc = buf_status(&o->last);
        uint64_t seq = tag_seq(e->tag);
        o->r->last_seq = seq > o->r->last_seq ? seq : o->r->last_seq;
    }
    return rc;
}

int repair_output_finish(struct repair_output *o)
{
    if (o->builder == NULL) {
        return LOAM_OK;
    }
    struct sst_info info;
    int rc = sst_builder_finish(o->builder, &info);
    if (rc == LOAM_OK) {
        const struct table_meta m = table_meta_of(&info, o->number, o->ks, o->level);
        rc = version_edit_add_table(&o->r->state, &m);
    }
    sst_builder_free(o->builder);
    o->builder = NULL;
    return rc;
}

void repair_output_free(struct repair_output *o)
{
    sst_builder_free(o->builder);
    o->builder = NULL;
    buf_free(&o->last);
}
