/* vfs_cut.c - What a disk may hold after a power cut: a new disk from durable and pending state.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Names:  the durable tables plus a choice of the name changes logged since. A rename happens or
 *         does not; it never loses both names. The choice is nothing, all, the oldest k (a journal)
 *         or, when the disk's names are not ordered, any subset (what POSIX allows).
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

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "arena/random.h"

#include "arena/poison.h"

#define SECTOR 512u

enum names_kept { NAMES_SYNCED, NAMES_ALL, NAMES_OLDEST, NAMES_SUBSET, NAMES_ITEMS, NAMES_DRAWN };
enum data_kept {
    DATA_SYNCED,
    DATA_ALL,
    DATA_SIZES,     /* sizes of the moment, synced data, zeros where there is none */
    DATA_BLOCKS,    /* a subset of 4 KiB blocks */
    DATA_SECTORS,   /* 512-byte sectors: kept, dropped, torn at either end, or garbage */
    DATA_PREFIX,    /* in file order up to a byte */
    DATA_STALE,     /* new blocks hold old bytes of other files */
    DATA_ITEMS,     /* the blocks and the size whose bits are set */
    DATA_EACH_FILE, /* one of the above, drawn for each file */
};

struct cut {
    struct disk *from;
    struct disk *to;
    struct random random;
    enum names_kept names;
    enum data_kept data;
    bool killed;   /* only the process went: what a failed sync dropped is still in the cache */
    uint64_t bits; /* NAMES_ITEMS, DATA_ITEMS */
    const struct disk_change *next; /* the write under way, for DATA_PREFIX */
};

static void choose_modes(struct cut *c, const struct disk_cut_spec *spec)
{
    static const struct {
        enum names_kept names;
        enum data_kept data;
    } fixed[] = {
        [LOAM_CUT_ALL] = {NAMES_ALL, DATA_ALL}, /* not used: a clone is made */
        [LOAM_CUT_SYNCED] = {NAMES_SYNCED, DATA_SYNCED},
        [LOAM_CUT_NAMES] = {NAMES_ALL, DATA_SYNCED},
        [LOAM_CUT_DATA] = {NAMES_SYNCED, DATA_ALL},
        [LOAM_CUT_SIZES] = {NAMES_ALL, DATA_SIZES},
        [LOAM_CUT_BLOCKS] = {NAMES_DRAWN, DATA_BLOCKS},
        [LOAM_CUT_SECTORS] = {NAMES_DRAWN, DATA_SECTORS},
        [LOAM_CUT_PREFIX] = {NAMES_DRAWN, DATA_PREFIX},
        [LOAM_CUT_STALE] = {NAMES_DRAWN, DATA_STALE},
        [LOAM_CUT_SUBSET] = {NAMES_ITEMS, DATA_ITEMS},
    };
    c->names = spec->variant != CUT_MIXED ? fixed[spec->variant].names : NAMES_DRAWN;
    c->data = spec->variant != CUT_MIXED ? fixed[spec->variant].data : DATA_EACH_FILE;
    c->bits = spec->seed;
    c->next = spec->next;
    if (c->names == NAMES_DRAWN) {
        bool ordered = c->from->names_model == LOAM_NAMES_ORDERED;
        c->names = (enum names_kept)random_below(&c->random, NAMES_SUBSET + (ordered ? 0 : 1));
    }
}

/* ---- pending items ----------------------------------------------------------------------------- */

static const struct disk_page *page_of(const struct disk_image *m, uint64_t i)
{
    return i < m->capacity ? m->pages[i] : NULL;
}

/* Whether block i may or may not have arrived, and that can be seen. */
static bool block_pending(const struct disk_node *n, uint64_t i)
{
    return page_of(&n->now, i) != page_of(&n->synced, i) && !disk_page_lost(n, i) &&
           memcmp(disk_image_page(&n->now, i), disk_image_page(&n->synced, i), DISK_PAGE) != 0;
}

static uint64_t larger_size(const struct disk_node *n)
{
    return n->now.size > n->synced.size ? n->now.size : n->synced.size;
}

/* Bits that tell the choices of names apart. */
static uint32_t name_items(const struct disk *d)
{
    uint32_t changes = 0, bits = 0;
    for (const struct disk_name_op *op = d->log; op != NULL; op = op->next) {
        changes++;
    }
    if (d->names_model != LOAM_NAMES_ORDERED) {
        return changes;
    }
    while ((uint64_t)1 << bits <= changes) { /* the oldest 0 to `changes` of them */
        bits++;
    }
    return bits;
}

/* Gives each file that a cut can leave the numbers of its items: its pending blocks in order, then
 * its size. Returns how many there are with the names, which come first. */
static uint32_t number_items(struct disk *d)
{
    for (struct disk_node *n = d->nodes; n != NULL; n = n->next) {
        for (size_t i = 0; i < n->synced_names.count; i++) {
            n->synced_names.at[i].node->marked = true;
        }
    }
    for (struct disk_name_op *op = d->log; op != NULL; op = op->next) {
        op->node->marked = true;
    }
    uint32_t items = name_items(d);
    for (struct disk_node *n = d->nodes; n != NULL; n = n->next) {
        n->cut_item = items;
        for (uint64_t i = 0; n->marked && !n->is_dir && i * DISK_PAGE < larger_size(n); i++) {
            items += block_pending(n, i);
        }
        items += n->marked && !n->is_dir && n->now.size != n->synced.size;
        n->marked = false;
    }
    return items;
}

/* Whether item i arrived; the bits end at 64. */
static bool arrived(const struct cut *c, uint32_t i)
{
    return i < 64 && (c->bits >> i & 1) != 0;
}

/* ---- names ----------------------------------------------------------------------------------- */

static struct disk_names *names_cut(struct disk_node *dir)
{
    return &dir->cut_names;
}

static bool keep_op(struct cut *c, uint64_t i, uint64_t oldest)
{
    switch (c->names) {
    case NAMES_ALL:
        return true;
    case NAMES_OLDEST:
        return i < oldest;
    case NAMES_SUBSET:
        return random_below(&c->random, 2) == 0;
    case NAMES_ITEMS:
        return c->from->names_model == LOAM_NAMES_ORDERED ? i < oldest : arrived(c, (uint32_t)i);
    default:
        return false;
    }
}

static void mark_kept_ops(struct cut *c)
{
    uint64_t total = 0, i = 0, oldest = 0;
    for (struct disk_name_op *op = c->from->log; op != NULL; op = op->next) {
        total++;
    }
    if (c->names == NAMES_OLDEST) {
        oldest = random_below(&c->random, total + 1);
    } else if (c->names == NAMES_ITEMS) {
        uint32_t bits = name_items(c->from);
        oldest = bits < 64 ? c->bits & (((uint64_t)1 << bits) - 1) : c->bits;
    }
    for (struct disk_name_op *op = c->from->log; op != NULL; op = op->next, i++) {
        op->marked = keep_op(c, i, oldest);
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
    if (memcmp(a, b, n) == 0) { /* most sectors, and much faster seen so */
        return false;
    }
    while (lo < n && a[lo] == b[lo]) {
        lo++;
    }
    while (hi > lo && a[hi - 1] == b[hi - 1]) {
        hi--;
    }
    *from = lo;
    *to = hi;
    return true;
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
    uint32_t keep_of_4; /* DATA_BLOCKS, DATA_STALE: the chance of a block */
    uint64_t prefix;    /* DATA_PREFIX: bytes before this arrived */
    uint32_t item;      /* DATA_ITEMS: of the next pending block */
    uint64_t end;       /* DATA_ITEMS: behind the last block that arrived */
};

/* A block of some file's present or durable image, preferably of the same place. */
static const uint8_t *stale_block(struct cut *c, uint64_t i)
{
    const struct disk_page *found = NULL;
    uint64_t seen = 0;
    bool same_place = random_below(&c->random, 2) == 0;
    for (const struct disk_node *n = c->from->nodes; n != NULL; n = n->next) {
        const struct disk_image *m = random_below(&c->random, 2) == 0 ? &n->now : &n->synced;
        uint64_t at = same_place || m->capacity == 0 ? i : random_below(&c->random, m->capacity);
        const struct disk_page *p = page_of(m, at);
        if (p != NULL && random_below(&c->random, ++seen) == 0) {
            found = p;
        }
    }
    return found != NULL ? found->data : disk_image_page(&c->from->root->now, 0);
}

/* What is left of block i. */
static void cut_page(struct cut *c, struct file_cut *f, uint64_t i, uint8_t *out)
{
    struct random *r = &c->random;
    const uint8_t *now = disk_image_page(f->now, i);
    uint64_t start = i * DISK_PAGE;
    memcpy(out, disk_image_page(f->synced, i), DISK_PAGE);
    switch (f->mode) {
    case DATA_STALE:
        if (page_of(f->synced, i) == NULL && random_below(r, 4) >= f->keep_of_4) {
            memcpy(out, stale_block(c, i), DISK_PAGE);
            break;
        }
        __attribute__((fallthrough));
    case DATA_BLOCKS:
        if (random_below(r, 4) < f->keep_of_4) {
            memcpy(out, now, DISK_PAGE);
        }
        break;
    case DATA_PREFIX:
        if (f->prefix > start) {
            uint64_t n = f->prefix - start;
            memcpy(out, now, n < DISK_PAGE ? (size_t)n : DISK_PAGE);
        }
        break;
    case DATA_ITEMS:
        if (block_pending(f->node, i) && arrived(c, f->item++)) {
            memcpy(out, now, DISK_PAGE);
            f->end = start + DISK_PAGE;
        }
        break;
    default:
        for (size_t at = 0; at < DISK_PAGE; at += SECTOR) {
            cut_sector(r, out + at, now + at);
        }
        break;
    }
}

static uint64_t choose_size(struct cut *c, const struct file_cut *f)
{
    struct random *r = &c->random;
    uint64_t a = f->synced->size, b = f->now->size;
    if (a == b) {
        return a;
    }
    if (f->mode == DATA_ITEMS) { /* a block that arrived takes the size with it */
        return arrived(c, f->item) ? b : f->end <= a ? a : f->end < b ? f->end : b;
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

/* A page of these bytes: that of either image, where it holds them, so that disks share it and its hash. */
static struct disk_page *page_with(const struct file_cut *f, uint64_t i, const uint8_t *bytes)
{
    struct disk_page *either[] = {disk_image_at(f->now, i), disk_image_at(f->synced, i)};
    for (size_t k = 0; k < 2; k++) {
        if (either[k] != NULL && memcmp(either[k]->data, bytes, DISK_PAGE) == 0) {
            return disk_page_share(either[k]);
        }
    }
    return disk_page_new(bytes);
}

/* Pages of which only some of the pending bytes arrived. `to` holds the synced image, grown. */
static int cut_mixed(struct cut *c, struct file_cut *f, struct disk_image *to)
{
    uint64_t larger = larger_size(f->node);
    f->keep_of_4 = 1 + (uint32_t)random_below(&c->random, 3);
    f->prefix = random_below(&c->random, larger + 1);
    f->item = f->node->cut_item;
    for (uint64_t i = 0; i * DISK_PAGE < larger; i++) {
        if (page_of(f->now, i) == page_of(f->synced, i) || disk_page_lost(f->node, i)) {
            continue;
        }
        uint8_t bytes[DISK_PAGE];
        cut_page(c, f, i, bytes);
        struct disk_page *page = page_with(f, i, bytes);
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
            to->pages[i] =
                i < from->synced.capacity ? disk_page_share(from->synced.pages[i]) : NULL;
        }
    }
}

/* How this file is cut: where the way is drawn for each, some files arrive whole or not at all. */
static enum data_kept file_mode(struct cut *c)
{
    static const enum data_kept drawn[] = {DATA_SYNCED,  DATA_ALL,     DATA_SIZES,
                                           DATA_BLOCKS,  DATA_BLOCKS,  DATA_SECTORS,
                                           DATA_SECTORS, DATA_SECTORS, DATA_PREFIX};
    switch (c->data) {
    case DATA_EACH_FILE:
        return drawn[random_below(&c->random, sizeof drawn / sizeof drawn[0])];
    case DATA_BLOCKS:
    case DATA_SECTORS:
    case DATA_PREFIX:
    case DATA_STALE:
        switch (random_below(&c->random, 6)) {
        case 0:
            return DATA_SYNCED;
        case 1:
            return DATA_ALL;
        default:
            return c->data;
        }
    default:
        return c->data;
    }
}

/* Fills the new file `to` with what is left of `from`. */
static int cut_file(struct cut *c, const struct disk_node *from, struct disk_node *to)
{
    struct file_cut f = {.node = from, .now = &from->now, .synced = &from->synced};
    f.mode = file_mode(c);
    uint64_t size;
    int rc = disk_image_copy(&to->now, f.mode == DATA_ALL ? f.now : f.synced);
    if (rc != 0) {
        return rc;
    }
    switch (f.mode) {
    case DATA_ALL:
        give_up_lost(from, &to->now);
        size = to->now.size;
        break;
    case DATA_SYNCED:
        size = to->now.size;
        break;
    case DATA_SIZES:
        size = f.now->size;
        break;
    default:
        rc = disk_image_grow(&to->now, larger_size(from));
        rc = rc == 0 ? cut_mixed(c, &f, &to->now) : rc;
        size = choose_size(c, &f);
        break;
    }
    c->to->used += disk_image_space(&to->now);
    rc = rc == 0 ? disk_truncate_locked(c->to, to, size) : rc;
    return rc == 0 ? disk_image_trim(&to->now) : rc; /* old and stale pages may hold more */
}

/* A part of the write under way, where its file is left. */
static int tear_next(struct cut *c)
{
    if (c->data != DATA_PREFIX || c->next == NULL || c->next->kind != CHANGE_WRITE) {
        return 0;
    }
    for (struct disk_node *n = c->from->nodes; n != NULL; n = n->next) {
        if (n->id == c->next->node && n->twin != NULL) {
            size_t part = (size_t)random_below(&c->random, c->next->len);
            int64_t done =
                part != 0 ? disk_write_locked(c->to, n->twin, c->next->data, part, c->next->off)
                          : 0;
            return done < 0 ? (int)done : 0;
        }
    }
    return 0;
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
            child->twin->id = child->id;
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
    if (c->data == DATA_ITEMS) {
        number_items(c->from);
    }
    rc = rc == 0 ? cut_all_names(c) : rc;
    if (rc == 0) {
        c->from->root->twin = c->to->root;
        rc = cut_dir(c, c->from->root, c->to->root);
        rc = rc == 0 ? tear_next(c) : rc;
        c->to->next_id = c->from->next_id;
    }
    /* Clearing drops references only; a node that lives by cut_names alone does not exist, since
     * every name there comes from a synced table or the log. */
    for (struct disk_node *n = c->from->nodes; n != NULL; n = n->next) {
        disk_names_clear_locked(c->from, &n->cut_names);
    }
    return rc;
}

int disk_cut(struct disk *d, const struct disk_cut_spec *spec, struct disk **after)
{
    struct cut c = {.from = d};
    assert(d->recording || spec->variant == LOAM_CUT_ALL);
    random_init(&c.random, spec->seed);
    int rc = disk_create(&c.to);
    if (rc != 0) {
        return rc;
    }
    mutex_lock(&d->mutex);
    if (spec->variant == LOAM_CUT_ALL) {
        rc = disk_clone_locked(d, c.to);
    } else {
        choose_modes(&c, spec);
        rc = cut_locked(&c);
    }
    mutex_unlock(&d->mutex);
    if (rc != 0) {
        disk_free(c.to);
        return rc;
    }
    *after = c.to;
    return 0;
}

int disk_pending(struct disk *d, uint32_t *items)
{
    int rc = 0;
    mutex_lock(&d->mutex);
    for (struct disk_node *n = d->nodes; n != NULL && rc == 0; n = n->next) {
        rc = disk_settle_locked(d, n);
    }
    *items = number_items(d);
    mutex_unlock(&d->mutex);
    return rc;
}
