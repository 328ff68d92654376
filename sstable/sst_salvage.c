/* sst_salvage.c - Finds readable blocks in a damaged table file.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/sst_salvage.h"

#include <errno.h>

#include "arena/hash.h"
#include "arena/status.h"
#include "arena/vfs_full.h"
#include "sstable/block.h"

#include "arena/poison.h"

#define FILE_SIZE_MAX ((uint64_t)1 << 30) /* bytes; a search reads the whole file */
/* Bytes that may be summed or looked at in vain for each of the file: keeps files that are made of trailers
 * linear. */
#define SUM_TIMES 64u
#define SUM_BASE  ((uint64_t)1 << 20)
#define REACH_FIRST ((size_t)16 << 10) /* bytes: a few blocks as they mostly are */
#define LOOK_TIMES  16u /* bytes looked at for each in reach, before it is made to reach farther */

struct salvage {
    const struct sst_salvage_options *o;
    struct sst_get_scratch scratch;
    uint8_t *key; /* assembled keys */
    size_t key_cap;
    struct buf last; /* key given out last */
    uint64_t last_tag;
    bool any;
    /* of a search */
    uint8_t *file;
    size_t size;
    uint64_t seed, budget;
    struct buf found; /* struct found_block each */
};

struct found_block {
    uint64_t offset, size; /* stored bytes, trailer included */
    size_t key, key_size;  /* its first key, in `keys` */
    uint64_t tag;          /* and that one's version */
};

/* ---- entries ----------------------------------------------------------------------------------- */

static bool in_order(const struct salvage *v, const struct entry *e)
{
    if (!v->any || !v->o->ordered) {
        return true;
    }
    int c = key_compare(v->o->cmp, buf_slice(&v->last), e->key);
    return c < 0 || (c == 0 && v->last_tag > e->tag);
}

/* All entries of a block that was checked; those that do not follow what was given out are passed
 * over, and *passed says so. */
static int give_block(struct salvage *v, const uint8_t *data, bool *passed)
{
    struct block_cursor c;
    block_cursor_init(&c, data, v->key);
    for (bool ok = block_cursor_move(&c, 0); ok; ok = block_cursor_next(&c)) {
        if (!in_order(v, &c.entry)) {
            *passed = true;
            continue;
        }
        int rc = v->o->entry(v->o->arg, &c.entry);
        if (rc < 0) {
            return rc;
        }
        buf_set(&v->last, c.entry.key.data, c.entry.key.size);
        v->last_tag = c.entry.tag;
        v->any = true;
        if (v->last.oom) {
            return buf_status(&v->last);
        }
    }
    return LOAM_OK;
}

/* ---- with an index ----------------------------------------------------------------------------- */

static void separator(const struct sst_reader *r, uint32_t i, struct buf *out)
{
    loam_slice prefix = index_prefix(&r->index), rest = index_rest(&r->index, i);
    buf_set(out, prefix.data, prefix.size);
    buf_append(out, rest.data, rest.size);
}

static void tell_block(struct salvage *v, const struct sst_reader *r, uint32_t i, int rc)
{
    struct buf before, own;
    buf_init(&before, r->alloc, MEM_ITER);
    buf_init(&own, r->alloc, MEM_ITER);
    separator(r, i, &own);
    if (i != 0) {
        separator(r, i - 1, &before);
    }
    v->o->damage(v->o->arg,
                 &(struct sst_damage){.rc = rc,
                                      .offset = r->index.offsets[i],
                                      .bytes = index_size(&r->index, i),
                                      .entries = r->props.entries,
                                      .first = i == 0 ? r->props.smallest : buf_slice(&before),
                                      .last = buf_slice(&own)});
    buf_free(&before);
    buf_free(&own);
}

static int salvage_indexed(struct salvage *v, struct sst_reader *r)
{
    for (uint32_t i = 0; i < r->index.count; i++) {
        const uint8_t *data;
        size_t size;
        bool passed = false;
        const struct sst_piece at = sst_block_piece(r, i);
        int rc = sst_read_piece(r, &at, &v->scratch, &data, &size);
        if (rc == LOAM_E_NOMEM) {
            return rc;
        }
        if (rc == LOAM_OK) {
            rc = give_block(v, data, &passed);
            if (rc < 0) {
                return rc;
            }
            rc = !passed ? LOAM_OK
                         : FAIL_CORRUPT(r->props.file_number, r->index.offsets[i],
                                        "block %u of table %llu is out of order", i,
                                        (unsigned long long)r->props.file_number);
        }
        if (rc < 0) {
            tell_block(v, r, i, rc);
        }
    }
    return LOAM_OK;
}

/* ---- by searching ------------------------------------------------------------------------------ */

static bool plausible_trailer(const uint8_t *t)
{
    return t[0] <= SST_CODEC_ZSTD && t[1] >= SST_DATA && t[1] <= SST_TYPE_MAX && t[2] == 0 &&
           t[3] == 0;
}

/* Whether it says that it ends a block of n stored bytes: what is packed is smaller than before. */
static bool could_end(const uint8_t *t, size_t n)
{
    uint64_t raw = get_fixed32(t + 4);
    return t[0] == SST_CODEC_NONE ? raw == n : n <= raw && raw / SST_RATIO_MAX <= n;
}

static bool spend(struct salvage *v, uint64_t bytes)
{
    bool have = v->budget >= bytes;
    v->budget -= have ? bytes : v->budget;
    return have;
}

/* The trailer that ends a block beginning at `at`, at most `reach` bytes on; 0: none proves to. */
static size_t find_end(struct salvage *v, size_t at, size_t reach)
{
    size_t limit = v->size - at > reach ? at + reach : v->size;
    for (size_t t = at + 1; t < limit && v->size - t >= SST_TRAILER_SIZE; t++) {
        const uint8_t *trailer = v->file + t;
        if (!plausible_trailer(trailer) || !could_end(trailer, t - at)) {
            continue;
        }
        if (!spend(v, t - at)) {
            return 0;
        }
        uint64_t sum =
            checksum64(v->file + at, t - at, sst_mix(v->seed ^ get_fixed64(trailer))) ^ sst_mix(at);
        if (sum == get_fixed64(trailer + 8)) {
            return t;
        }
    }
    (void)spend(v, limit - at); /* looked at in vain */
    return 0;
}

/* Behind a damaged block: the end of any later one may be where the next begins. 0: none does, as far as
 * this reaches and is worth looking. */
static size_t find_begin(struct salvage *v, size_t at, size_t reach)
{
    size_t limit = v->size - at > reach ? at + reach : v->size;
    uint64_t worth = LOOK_TIMES * (uint64_t)reach;
    uint64_t least = v->budget > worth ? v->budget - worth : 0;
    for (size_t t = at + 1; t < limit && v->size - t > SST_TRAILER_SIZE && v->budget > least; t++) {
        if (plausible_trailer(v->file + t) && find_end(v, t + SST_TRAILER_SIZE, reach) != 0) {
            return t + SST_TRAILER_SIZE;
        }
    }
    return 0;
}

/* The end of the block at `at`, or 0 and in *next where the next one begins; 0: nowhere. Near places first: else
 * each damaged block would be looked for in all that is behind it, and a few of them spend the budget.
 * Nothing is passed over: within reach of a block that is larger than that no other begins. */
static size_t find_block(struct salvage *v, size_t at, size_t *next)
{
    size_t end = 0;
    *next = 0;
    for (size_t reach = REACH_FIRST;; reach *= 4) {
        end = find_end(v, at, reach);
        *next = end == 0 ? find_begin(v, at, reach) : 0;
        if (end != 0 || *next != 0 || reach >= v->size) {
            return end;
        }
    }
}

/* Unpacks a found block. LOAM_OK with the data, or an error. */
static int unpack(struct salvage *v, const struct found_block *b, const uint8_t **data)
{
    struct sst_place at = {v->o->file_number, v->seed, b->offset};
    struct sst_stored s;
    const char *what = NULL;
    int rc = sst_stored_check(at, SST_DATA, v->file + b->offset, (size_t)b->size,
                              SST_BLOCK_SIZE_MAX, &s);
    if (rc == LOAM_OK) {
        rc = sst_fit(v->o->alloc, MEM_ITER, &v->scratch.raw, &v->scratch.raw_cap, s.raw_size + 16);
    }
    if (rc == LOAM_OK) {
        rc = sst_unpack(&v->scratch.unpacker, at, &s, v->scratch.raw);
    }
    if (rc == LOAM_OK) {
        rc = block_check(v->scratch.raw, s.raw_size, v->o->cmp, SST_KEY_MAX, &what);
    }
    *data = v->scratch.raw;
    return rc;
}

static int note_block(struct salvage *v, size_t at, size_t end, struct buf *keys)
{
    struct found_block b = {.offset = at, .size = end + SST_TRAILER_SIZE - at};
    const uint8_t *data;
    struct block_cursor c;
    if (v->file[end + 1] != SST_DATA) {
        return LOAM_OK;
    }
    int rc = unpack(v, &b, &data);
    if (rc != LOAM_OK) {
        return rc == LOAM_E_NOMEM ? rc : LOAM_OK;
    }
    block_cursor_init(&c, data, v->key);
    block_cursor_move(&c, 0);
    b.key = keys->size;
    b.key_size = c.entry.key.size;
    b.tag = c.entry.tag;
    buf_append(keys, c.entry.key.data, c.entry.key.size);
    buf_append(&v->found, &b, sizeof b);
    return keys->oom ? buf_status(keys) : buf_status(&v->found);
}

static int find_blocks(struct salvage *v, struct buf *keys)
{
    size_t at = SST_HEADER_SIZE;
    while (at != 0 && at < v->size) {
        size_t next, end = find_block(v, at, &next);
        if (end == 0) {
            at = next;
            continue;
        }
        int rc = note_block(v, at, end, keys);
        if (rc < 0) {
            return rc;
        }
        at = end + SST_TRAILER_SIZE;
    }
    return LOAM_OK;
}

/* The versions of a key may begin more than one block, the newest the first. */
static bool comes_before(const struct salvage *v, const struct buf *keys, const struct found_block *a,
                         const struct found_block *b)
{
    int c = key_compare(v->o->cmp, loam_bytes(keys->data + a->key, a->key_size),
                        loam_bytes(keys->data + b->key, b->key_size));
    return c < 0 || (c == 0 && a->tag > b->tag);
}

/* Blocks stand in the file in the order in which they were evicted: about that of their keys. */
static void sort_blocks(struct salvage *v, const struct buf *keys)
{
    struct found_block *b = (struct found_block *)(void *)v->found.data;
    size_t n = v->found.size / sizeof *b;
    for (size_t i = 1; i < n; i++) {
        struct found_block x = b[i];
        size_t k = i;
        while (k > 0 && comes_before(v, keys, &x, &b[k - 1])) {
            b[k] = b[k - 1];
            k--;
        }
        b[k] = x;
    }
}

static int read_file(struct salvage *v)
{
    const loam_vfs *vfs = v->o->vfs;
    loam_file *f;
    uint64_t size = 0;
    int neg = vfs->open(vfs->ctx, v->o->path, LOAM_VFS_READ, &f);
    if (neg < 0) {
        return FAIL_IO(neg, v->o->file_number, 0, "cannot open table %llu",
                       (unsigned long long)v->o->file_number);
    }
    neg = vfs->size(vfs->ctx, f, &size);
    size = neg < 0 || size > FILE_SIZE_MAX ? 0 : size;
    v->size = (size_t)size;
    v->file = alloc_get(v->o->alloc, MEM_ITER, v->size);
    size_t got = 0;
    while (v->file != NULL && got < v->size) {
        size_t piece = v->size - got < 4096 ? v->size - got : 4096;
        if (vfs_read_full(vfs, f, v->file + got, piece, got) != (int64_t)piece) {
            memset(v->file + got, 0, piece); /* an unreadable part is damage as any other */
        }
        got += piece;
    }
    (void)vfs->close(vfs->ctx, f);
    return v->file != NULL ? LOAM_OK : FAIL(LOAM_E_NOMEM, "no memory to search a table");
}

static int salvage_searched(struct salvage *v)
{
    struct buf keys;
    buf_init(&keys, v->o->alloc, MEM_ITER);
    int rc = read_file(v);
    v->seed = sst_file_seed(v->o->db_id, v->o->file_number);
    v->budget = SUM_BASE + SUM_TIMES * (uint64_t)v->size;
    if (rc == LOAM_OK) {
        rc = find_blocks(v, &keys);
    }
    if (rc == LOAM_OK) {
        sort_blocks(v, &keys);
    }
    const struct found_block *b = (const struct found_block *)(const void *)v->found.data;
    for (size_t i = 0; rc == LOAM_OK && i < v->found.size / sizeof *b; i++) {
        const uint8_t *data;
        bool passed;
        rc = unpack(v, &b[i], &data);
        if (rc == LOAM_OK) {
            rc = give_block(v, data, &passed);
        }
    }
    buf_free(&keys);
    return rc;
}

int sst_salvage(const struct sst_salvage_options *o, struct sst_salvaged *out)
{
    struct salvage v = {.o = o};
    struct sst_reader *r = NULL;
    const struct sst_open_options open = {.vfs = o->vfs,
                                          .alloc = o->alloc,
                                          .path = o->path,
                                          .file_number = o->file_number,
                                          .db_id = o->db_id,
                                          .cmp = o->cmp,
                                          .inspect = true,
                                          .whole = true};
    *out = (struct sst_salvaged){.opened = false};
    sst_get_scratch_init(&v.scratch, o->alloc);
    buf_init(&v.last, o->alloc, MEM_ITER);
    buf_init(&v.found, o->alloc, MEM_ITER);
    int rc = sst_fit(o->alloc, MEM_ITER, &v.key, &v.key_cap, SST_KEY_MAX + 32);
    int opened = rc == LOAM_OK ? sst_open(&open, &r) : rc;
    if (opened == LOAM_OK) {
        const struct sst_props *p = sst_props(r);
        *out = (struct sst_salvaged){true, p->ks, p->level, p->entries};
        /* Another table's file is no remains of this one. */
        rc = p->file_number == o->file_number && p->db_id == o->db_id ? salvage_indexed(&v, r)
                                                                      : LOAM_OK;
    } else if (rc == LOAM_OK && opened != LOAM_E_NOENT && opened != LOAM_E_NOMEM) {
        rc = o->ordered ? salvage_searched(&v) : LOAM_OK;
    } else {
        rc = opened;
    }
    sst_close(r);
    alloc_put(o->alloc, MEM_ITER, v.file, v.size);
    alloc_put(o->alloc, MEM_ITER, v.key, v.key_cap);
    buf_free(&v.last);
    buf_free(&v.found);
    sst_get_scratch_free(&v.scratch);
    return rc;
}
