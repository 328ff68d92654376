/* sst_output.c - Gives every block its place in the file.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/sst_output.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "arena/status.h"
#include "sstable/block.h"
#include "sstable/sst_builder.h"

#include "arena/poison.h"

#define OUT_BYTES ((size_t)256 << 10)
/* The disk is kept at work while a table is built: its sync would wait for all of it otherwise. Not for
 * less at a time: it makes a request of its own. Only for whole pages: the last one is still filled. */
#define WRITEBACK_BYTES ((uint64_t)1 << 20)
#define WRITEBACK_PAGE  ((uint64_t)64 << 10)

/* One packer of those that evicting threads take in turn. */
struct packer_node {
    struct packer_node *next;
    struct sst_packer packer;
};

/* ---- bytes ---- */

static int begin_writeback(struct sst_output *o)
{
    uint64_t end = o->offset & ~(WRITEBACK_PAGE - 1);
    if (end < o->begun + WRITEBACK_BYTES) {
        return LOAM_OK;
    }
    int rc = o->vfs->advise(o->vfs->ctx, o->file, o->begun, end - o->begun, LOAM_ADVISE_WRITEBACK);
    o->begun = end;
    if (rc < 0 && rc != -EINVAL && rc != -ENOSYS && rc != -EOPNOTSUPP) {
        return FAIL_IO(rc, o->file_number, end, "writing table %llu to the disk",
                       (unsigned long long)o->file_number);
    }
    return LOAM_OK;
}

static int write_fully(struct sst_output *o, const uint8_t *p, size_t n)
{
    while (n != 0) {
        int64_t done = o->vfs->write(o->vfs->ctx, o->file, p, n, o->offset);
        if (done <= 0 || (uint64_t)done > n) {
            return FAIL_IO(done < 0 ? done : -EIO, o->file_number, o->offset, "writing table %llu",
                           (unsigned long long)o->file_number);
        }
        checksum_add(&o->sum, p, (size_t)done);
        p += done;
        n -= (size_t)done;
        o->offset += (uint64_t)done;
    }
    return begin_writeback(o);
}

static int flush_locked(struct sst_output *o)
{
    mutex_assert_held(&o->mutex);
    int rc = write_fully(o, o->buffer, o->buffered);
    o->buffered = 0;
    return rc;
}

/* Behind all bytes so far. What does not fit the buffer goes to the file at once. */
static int put_locked(struct sst_output *o, const void *data, size_t n)
{
    mutex_assert_held(&o->mutex);
    if (n > OUT_BYTES - o->buffered) {
        int rc = flush_locked(o);
        if (rc != LOAM_OK) {
            return rc;
        }
    }
    if (n >= OUT_BYTES) {
        return write_fully(o, data, n);
    }
    if (n != 0) {
        memcpy(o->buffer + o->buffered, data, n);
        o->buffered += n;
    }
    return LOAM_OK;
}

/* Appends bytes that carry their own checksum, or a packed block when `packed` is given; *h becomes
 * its place. A failure sticks: the file's tail is unknown then. */
static int append_locked(struct sst_output *o, const void *data, size_t n,
                         struct sst_packed *packed, struct sst_handle *h)
{
    mutex_assert_held(&o->mutex);
    if (o->rc != LOAM_OK) {
        return status_raise(&o->error);
    }
    h->offset = o->offset + o->buffered;
    h->size = n;
    int rc = put_locked(o, data, n);
    if (rc == LOAM_OK && packed != NULL) {
        h->size += SST_TRAILER_SIZE;
        sst_trailer_finish(packed, h->offset);
        rc = put_locked(o, packed->trailer, SST_TRAILER_SIZE);
    }
    if (rc != LOAM_OK) {
        o->rc = rc;
        o->error = *loam_last_error();
    }
    return rc;
}

static struct packer_node *take_packer(struct sst_output *o)
{
    mutex_lock(&o->mutex);
    struct packer_node *n = o->packers;
    if (n != NULL) {
        o->packers = n->next;
    }
    mutex_unlock(&o->mutex);
    if (n == NULL) {
        n = alloc_zero(o->alloc, MEM_BUILD, sizeof *n);
        if (n != NULL) {
            n->packer.alloc = o->alloc;
        }
    }
    return n;
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

static int write_header(struct sst_output *o, uint32_t ks)
{
    struct sst_header h = {o->db_id, o->file_number, ks};
    uint8_t bytes[SST_HEADER_SIZE];
    struct sst_handle at;
    sst_header_encode(&h, bytes);
    mutex_lock(&o->mutex);
    int rc = append_locked(o, bytes, sizeof bytes, NULL, &at);
    mutex_unlock(&o->mutex);
    return rc;
}

int sst_output_open(struct sst_output *o, const struct sst_build_options *options)
{
    *o = (struct sst_output){
        .vfs = options->vfs,
        .alloc = options->alloc,
        .large = options->large,
        .file_number = options->file_number,
        .db_id = options->db_id,
        .file_seed = sst_file_seed(options->db_id, options->file_number),
    };
    mutex_init(&o->mutex, RANK_TABLE_OUT);
    checksum_begin(&o->sum, 0);
    int rc = codec_of(options->compression, &o->codec);
    if (rc != LOAM_OK) {
        return rc;
    }
    o->buffer = alloc_get(o->alloc, MEM_BUILD, OUT_BYTES);
    if (o->buffer == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory to build a table");
    }
    rc = o->vfs->open(o->vfs->ctx, options->path, LOAM_VFS_WRITE | LOAM_VFS_NEW, &o->file);
    if (rc < 0) {
        o->file = NULL;
        return FAIL_IO(rc, o->file_number, 0, "creating table %s", options->path);
    }
    return write_header(o, options->ks);
}

static void free_packers(struct sst_output *o)
{
    while (o->packers != NULL) {
        struct packer_node *n = o->packers;
        o->packers = n->next;
        sst_packer_free(&n->packer);
        alloc_put(o->alloc, MEM_BUILD, n, sizeof *n);
    }
}

void sst_output_trim(struct sst_output *o)
{
    free_packers(o);
    alloc_put(o->alloc, MEM_BUILD, o->buffer, OUT_BYTES);
    alloc_put(o->alloc, MEM_BUILD, o->offsets, o->place_cap * sizeof *o->offsets);
    alloc_put(o->alloc, MEM_BUILD, o->sizes, o->place_cap * sizeof *o->sizes);
    o->buffer = NULL;
    o->offsets = NULL;
    o->sizes = NULL;
    o->place_cap = 0;
}

void sst_output_free(struct sst_output *o)
{
    if (o->file != NULL) {
        o->vfs->close(o->vfs->ctx, o->file); /* unfinished: the caller removes it */
    }
    sst_output_trim(o);
    mutex_destroy(&o->mutex);
}

/* ---- blocks ---- */

/* Room for the place of one more block; writers of earlier blocks may be storing theirs. */
static int grow_places_locked(struct sst_output *o)
{
    mutex_assert_held(&o->mutex);
    uint32_t cap = o->place_cap == 0 ? 256 : o->place_cap * 2;
    uint64_t *offsets = alloc_get(o->alloc, MEM_BUILD, cap * sizeof *offsets);
    uint32_t *sizes = alloc_get(o->alloc, MEM_BUILD, cap * sizeof *sizes);
    if (offsets == NULL || sizes == NULL) {
        alloc_put(o->alloc, MEM_BUILD, offsets, cap * sizeof *offsets);
        alloc_put(o->alloc, MEM_BUILD, sizes, cap * sizeof *sizes);
        return FAIL(LOAM_E_NOMEM, "no memory for the places of %u blocks", cap);
    }
    if (o->place_cap != 0) {
        memcpy(offsets, o->offsets, o->place_cap * sizeof *offsets);
        memcpy(sizes, o->sizes, o->place_cap * sizeof *sizes);
    }
    alloc_put(o->alloc, MEM_BUILD, o->offsets, o->place_cap * sizeof *offsets);
    alloc_put(o->alloc, MEM_BUILD, o->sizes, o->place_cap * sizeof *sizes);
    o->offsets = offsets;
    o->sizes = sizes;
    o->place_cap = cap;
    return LOAM_OK;
}

int sst_output_reserve(struct sst_output *o, uint32_t number)
{
    int rc = LOAM_OK;
    /* Nobody else changes the capacity. */
    if (number == o->place_cap) {
        mutex_lock(&o->mutex);
        rc = grow_places_locked(o);
        mutex_unlock(&o->mutex);
    }
    return rc;
}

int sst_output_block(void *output, uint32_t number, const void *data, size_t size)
{
    struct sst_output *o = output;
    bool turn = size > SST_TURN;
    if (turn) {
        large_pass_begin(o->large, size);
    }
    int rc = sst_output_block_in_turn(o, number, data, size);
    if (turn) {
        large_pass_end(o->large, size);
    }
    return rc;
}

int sst_output_block_in_turn(void *output, uint32_t number, const void *data, size_t size)
{
    struct sst_output *o = output;
    if (!block_sum_matches(data, size, o->file_seed, number)) {
        return FAIL_CORRUPT(o->file_number, 0, "block %u of table %llu changed in memory", number,
                            (unsigned long long)o->file_number);
    }
    struct packer_node *node = take_packer(o);
    struct sst_packer none = {.alloc = o->alloc};
    struct sst_packed packed;
    struct sst_handle at;
    sst_pack(node != NULL ? &node->packer : &none, node != NULL ? o->codec : SST_CODEC_NONE,
             SST_DATA, o->file_seed, data, size, &packed);
    mutex_lock(&o->mutex);
    int rc = append_locked(o, packed.payload, packed.size, &packed, &at);
    if (rc == LOAM_OK) {
        o->offsets[number] = at.offset;
        o->sizes[number] = (uint32_t)at.size;
        /* relaxed: they only feed an estimate. */
        atom_add(&o->written_raw, size, relaxed);
        atom_add(&o->written_stored, at.size, relaxed);
    }
    if (node != NULL) {
        sst_packer_trim(&node->packer);
        node->next = o->packers;
        o->packers = node;
    }
    mutex_unlock(&o->mutex);
    return rc;
}

int sst_output_part(struct sst_output *o, enum sst_type type, const void *data, size_t size,
                    struct sst_handle *h)
{
    struct sst_packer none = {.alloc = o->alloc};
    struct sst_packed packed;
    sst_pack(&none, SST_CODEC_NONE, type, o->file_seed, data, size, &packed);
    mutex_lock(&o->mutex);
    int rc = append_locked(o, packed.payload, packed.size, &packed, h);
    mutex_unlock(&o->mutex);
    return rc;
}

uint64_t sst_output_end(struct sst_output *o)
{
    mutex_lock(&o->mutex);
    uint64_t end = o->offset + o->buffered;
    mutex_unlock(&o->mutex);
    return end;
}

/* ---- finishing ---- */

/* The footer, and everything out of the buffer. */
static int write_footer(struct sst_output *o, struct sst_footer *f)
{
    uint8_t bytes[SST_FOOTER_SIZE];
    struct sst_handle at;
    f->range_deletes = (struct sst_handle){f->props.offset + f->props.size, 0};
    f->file_size = f->range_deletes.offset + SST_FOOTER_SIZE;
    f->db_id = o->db_id;
    f->file_number = o->file_number;
    sst_footer_encode(f, bytes);
    mutex_lock(&o->mutex);
    int rc = append_locked(o, bytes, sizeof bytes, NULL, &at);
    assert(rc != LOAM_OK || at.offset == f->range_deletes.offset);
    if (rc == LOAM_OK) {
        rc = flush_locked(o);
    }
    mutex_unlock(&o->mutex);
    return rc;
}

static int sync_and_close(struct sst_output *o)
{
    int rc = o->vfs->sync(o->vfs->ctx, o->file, 1);
    if (rc < 0) {
        return FAIL_IO(rc, o->file_number, 0, "syncing table %llu",
                       (unsigned long long)o->file_number);
    }
    loam_file *f = o->file;
    o->file = NULL;
    rc = o->vfs->close(o->vfs->ctx, f);
    if (rc < 0) {
        return FAIL_IO(rc, o->file_number, 0, "closing table %llu",
                       (unsigned long long)o->file_number);
    }
    return LOAM_OK;
}

int sst_output_finish(struct sst_output *o, struct sst_footer *f, uint64_t *checksum)
{
    int rc = write_footer(o, f);
    if (rc == LOAM_OK) {
        rc = sync_and_close(o);
    }
    if (rc == LOAM_OK) {
        *checksum = checksum_end(&o->sum);
    }
    return rc;
}
