/* vfs_cut.c - What a disk may hold after a power cut: a new disk from durable and pending state.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Names:  the durable tables plus a choice of the name changes logged since. A rename happens or
 *         does not; it never loses both names. The choice is nothing, all, the oldest k (a journal)
 *         or any subset (what POSIX allows).
 * Data:   a file is its durable image with a choice of what differs from it in the image of the
 *         moment. Bytes that do not differ are never touched: sectors are assumed to keep the bytes
 *         around an interrupted write, so a durable record survives a torn one behind it.
 * Size:   the durable one, the one of the moment, or between; what has no data reads as zeros.
 *
 * A new way to lose data is one more mode of `enum names_kept` or `enum data_kept` and one function
 * that builds it. The same disk, seed and variant give the same result: files are visited in the
 * order of their names.
 */
#include "arena/vfs_disk.h"

#include <errno.h>
#include <string.h>

#include "arena/random.h"

#include "arena/poison.h"

#define SECTOR         512u
#define VARIANT_RANDOM 5u /* from here on: a random choice */

enum names_kept { NAMES_SYNCED, NAMES_ALL, NAMES_OLDEST, NAMES_SUBSET };
enum data_kept {
    DATA_SYNCED,
    DATA_ALL,
    DATA_SIZES,     /* sizes of the moment, synced data, zeros where there is none */
    DATA_BLOCKS,    /* a subset of 4 KiB blocks */
    DATA_SECTORS,   /* 512-byte sectors: kept, dropped, torn at either end, or garbage */
    DATA_PREFIX,    /* in file order up to a byte */
    DATA_EACH_FILE, /* one of the above, drawn for each file */
};

struct cut {
    struct disk *from;
    struct disk *to;
    struct random random;
    enum names_kept names;
    enum data_kept data;
    bool killed; /* only the process went: what a failed sync dropped is still in the cache */
};

static void choose_modes(struct cut *c, uint64_t variant)
{
    static const struct {
        enum names_kept names;
        enum data_kept data;
    } fixed[VARIANT_RANDOM] = {
        {NAMES_ALL, DATA_ALL},    {NAMES_SYNCED, DATA_SYNCED}, {NAMES_ALL, DATA_SYNCED},
        {NAMES_SYNCED, DATA_ALL}, {NAMES_ALL, DATA_SIZES},
    };
    c->killed = variant == 0;
    if (variant < VARIANT_RANDOM) {
        c->names = fixed[variant].names;
        c->data = fixed[variant].data;
        return;
    }
    c->names = (enum names_kept)random_below(&c->random, NAMES_SUBSET + 1);
    c->data = DATA_EACH_FILE;
}

/* ---- names ----------------------------------------------------------------------------------- */

static struct disk_names *names_cut(struct disk_node *dir)
{
    return &dir->cut_names;
}

static void mark_kept_ops(struct cut *c)
{
    uint64_t total = 0, i = 0;
    for (struct disk_name_op *op = c->from->log; op != NULL; op = op->next) {
        total++;
    }
    uint64_t oldest = c->names == NAMES_OLDEST ? random_below(&c->random, total + 1) : 0;
    for (struct disk_name_op *op = c->from->log; op != NULL; op = op->next, i++) {
        switch (c->names) {
        case NAMES_SYNCED:
            op->marked = false;
            break;
        case NAMES_ALL:
            op->marked = true;
            break;
        case NAMES_OLDEST:
            op->marked = i < oldest;
            break;
        case NAMES_SUBSET:
            op->marked = random_below(&c->random, 2) == 0;
            break;
        }
    }
}

/* Fills cut_names of every directory. */
static int cut_all_names(struct cut *c)
{
    int rc = 0;
    for (struct disk_node *n = c->from->nodes; n != NULL && rc == 0; n = n->next) {
        rc = disk_names_copy_locked(&n->cut_names, &n->synced_names);
    }
    mark_kept_ops(c);
    for (struct disk_name_op *op = c->from->log; op != NULL; op = op->next) {
        if (op->marked && rc == 0) {
            rc = disk_apply_locked(c->from, op, names_cut);
        }
        op->marked = false;
    }
    return rc;
}

/* ---- data ------------------------------------------------------------------------------------ */

/* The bytes [*from, *to) of a sector in which two versions differ; false when they are equal. */
static bool difference(const uint8_t *a, const uint8_t *b, size_t n, size_t *from, size_t *to)
{
    size_t lo = 0, hi = n;
    while (lo < n && a[lo] == b[lo]) {
        lo++;
    }
    while (hi > lo && a[hi - 1] == b[hi - 1]) {
        hi--;
    }
    *from = lo;
    *to = hi;
    return lo < hi;
}

/* One sector on its way to the disk when the power went; `out` holds what was synced. */
static void cut_sector(struct random *r, uint8_t *out, const uint8_t *now)
{
    size_t from, to;
    if (!difference(out, now, SECTOR, &from, &to)) {
        return;
    }
    size_t tear = from + (size_t)random_below(r, to - from + 1);
    switch (random_below(r, 6)) {
    case 0:
    case 1:
        memcpy(out + from, now + from, to - from);
        break;
    case 2: /* the front arrived */
        memcpy(out + from, now + from, tear - from);
        break;
    case 3: /* the back arrived */
        memcpy(out + tear, now + tear, to - tear);
        break;
    case 4: /* garbage */
        for (size_t i = from; i < to; i++) {
            out[i] = (uint8_t)random_next(r);
        }
        break;
    default: /* dropped */
        break;
    }
}

/* What a file's cut is made of. */
struct file_cut {
    const struct disk_node *node;
    const struct disk_image *now;
    const struct disk_image *synced;
    enum data_kept mode;
    uint32_t keep_of_4; /* DATA_BLOCKS: the chance of a block */
    uint64_t prefix;    /* DATA_PREFIX: bytes before this arrived */
};

/* Builds page i of a file into out; synced and now are its two versions and differ. */
static void cut_page(struct random *r, const struct file_cut *f, uint64_t i, uint8_t *out)
{
    const uint8_t *now = disk_image_page(f->now, i);
    memcpy(out, disk_image_page(f->synced, i), DISK_PAGE);
    if (f->mode == DATA_BLOCKS) {
        if (random_below(r, 4) < f->keep_of_4) {
            memcpy(out, now, DISK_PAGE);
        }
    } else if (f->mode == DATA_PREFIX) {
        uint64_t start = i * DISK_PAGE;
        if (f->prefix > start) {
            uint64_t n = f->prefix - start;
            memcpy(out, now, n < DISK_PAGE ? (size_t)n : DISK_PAGE);
        }
    } else {
        for (size_t at = 0; at < DISK_PAGE; at += SECTOR) {
            cut_sector(r, out + at, now + at);
        }
    }
}

static uint64_t choose_size(struct random *r, const struct file_cut *f)
{
    uint64_t a = f->synced->size, b = f->now->size;
    if (a == b) {
        return a;
    }
    switch (random_below(r, 4)) {
    case 0:
        return a;
    case 1:
        return a < b ? a + random_below(r, b - a) : b + random_below(r, a - b);
    default:
        return b;
    }
}

/* Pages of which only some of the pending bytes arrived. `to` holds the synced image, grown. */
static int cut_mixed(struct cut *c, struct file_cut *f, struct disk_image *to)
{
    uint64_t larger = f->now->size > f->synced->size ? f->now->size : f->synced->size;
    f->keep_of_4 = 1 + (uint32_t)random_below(&c->random, 3);
    f->prefix = random_below(&c->random, larger + 1);
    for (uint64_t i = 0; i * DISK_PAGE < larger; i++) {
        const struct disk_page *now = i < f->now->capacity ? f->now->pages[i] : NULL;
        const struct disk_page *synced = i < f->synced->capacity ? f->synced->pages[i] : NULL;
        if (now == synced || disk_page_lost(f->node, i)) {
            continue;
        }
        uint8_t bytes[DISK_PAGE];
        cut_page(&c->random, f, i, bytes);
        struct disk_page *page = disk_page_new(bytes);
        if (page == NULL) {
            return -ENOMEM;
        }
        disk_page_drop(to->pages[i]);
        to->pages[i] = page;
    }
    to->size = larger;
    return 0;
}

/* Everything but what a failed sync gave up. */
static void give_up_lost(const struct disk_node *from, struct disk_image *to)
{
    for (uint64_t i = 0; i < from->lost.capacity && i < to->capacity; i++) {
        if (disk_page_lost(from, i)) {
            disk_page_drop(to->pages[i]);
            to->pages[i] = i < from->synced.capacity ? disk_page_share(from->synced.pages[i]) : NULL;
        }
    }
}

/* Fills the new file `to` with what is left of `from`. */
static int cut_file(struct cut *c, const struct disk_node *from, struct disk_node *to)
{
    static const enum data_kept drawn[] = {DATA_SYNCED,  DATA_ALL,     DATA_SIZES,
                                           DATA_BLOCKS,  DATA_BLOCKS,  DATA_SECTORS,
                                           DATA_SECTORS, DATA_SECTORS, DATA_PREFIX};
    struct file_cut f = {.node = from, .now = &from->now, .synced = &from->synced, .mode = c->data};
    uint64_t size;
    if (f.mode == DATA_EACH_FILE) {
        f.mode = drawn[random_below(&c->random, sizeof drawn / sizeof drawn[0])];
    }
    int rc = disk_image_copy(&to->now, f.mode == DATA_ALL ? f.now : f.synced);
    if (rc != 0) {
        return rc;
    }
    switch (f.mode) {
    case DATA_ALL:
        if (!c->killed) {
            give_up_lost(from, &to->now);
        }
        size = to->now.size;
        break;
    case DATA_SYNCED:
        size = to->now.size;
        break;
    case DATA_SIZES:
        size = f.now->size;
        break;
    default:
        size = f.now->size > f.synced->size ? f.now->size : f.synced->size;
        rc = disk_image_grow(&to->now, size);
        rc = rc == 0 ? cut_mixed(c, &f, &to->now) : rc;
        size = choose_size(&c->random, &f);
        break;
    }
    c->to->used += disk_image_space(&to->now);
    return rc == 0 ? disk_truncate_locked(c->to, to, size) : rc;
}

/* ---- the tree -------------------------------------------------------------------------------- */

/* Copies what cut_names of `from` leads to into `to`. */
static int cut_dir(struct cut *c, struct disk_node *from, struct disk_node *to)
{
    for (size_t i = 0; i < from->cut_names.count; i++) {
        struct disk_node *child = from->cut_names.at[i].node;
        if (child->twin != NULL && child->is_dir) {
            continue; /* a half-done pair of renames; a directory has one name */
        }
        bool first = child->twin == NULL;
        if (first) {
            child->twin = disk_node_new_locked(c->to, child->is_dir);
            if (child->twin == NULL) {
                return -ENOMEM;
            }
        }
        int rc = disk_rename_locked(c->to, NULL, NULL, to, from->cut_names.at[i].text, child->twin);
        if (first) {
            disk_node_unref_locked(c->to, child->twin); /* its names keep it */
            if (rc == 0) {
                rc = child->is_dir ? cut_dir(c, child, child->twin)
                                   : cut_file(c, child, child->twin);
            }
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int cut_locked(struct cut *c)
{
    int rc = 0;
    for (struct disk_node *n = c->from->nodes; n != NULL && rc == 0; n = n->next) {
        n->twin = NULL;
        rc = disk_settle_locked(c->from, n);
    }
    rc = rc == 0 ? cut_all_names(c) : rc;
    if (rc == 0) {
        c->from->root->twin = c->to->root;
        rc = cut_dir(c, c->from->root, c->to->root);
    }
    /* Clearing drops references only; a node that lives by cut_names alone does not exist, since
     * every name there comes from a synced table or the log. */
    for (struct disk_node *n = c->from->nodes; n != NULL; n = n->next) {
        disk_names_clear_locked(c->from, &n->cut_names);
    }
    return rc;
}

int disk_cut(struct disk *d, uint64_t seed, uint64_t variant, struct disk **after)
{
    struct cut c = {.from = d};
    uint64_t mixed = seed ^ (variant * 0x9e3779b97f4a7c15u);
    random_init(&c.random, mixed);
    choose_modes(&c, variant);
    int rc = disk_create(&c.to);
    if (rc != 0) {
        return rc;
    }
    mutex_lock(&d->mutex);
    rc = cut_locked(&c);
    mutex_unlock(&d->mutex);
    if (rc != 0) {
        disk_free(c.to);
        return rc;
    }
    *after = c.to;
    return 0;
}
