/* vfs_disk.h - Files and directories in memory, beside what of them would survive a power cut.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Shared by vfs_disk.c (files), vfs_image.c (their pages), vfs_names.c (directories), vfs_memory.c
 * (the vfs on a disk), vfs_fault.c (faults before it), vfs_clone.c and vfs_cut.c (a new disk as it
 * may be found after the process was killed or power lost), vfs_record.c (every change remembered),
 * vfs_replay.c (cuts at any of them) and vfs_hash.c; nobody else includes it.
 *
 *   node ---- now:    what reads see       image = size + 4 KiB pages, counted and copied on write
 *      \----- synced: what the last sync   an equal page pointer means equal bytes
 *             made durable
 *   dir  ---- now / synced name tables, and in the disk one log of name changes since, in order:
 *             sync_dir moves the log's entries of that directory into the synced tables
 *
 * Keeping what is durable (synced images, synced names, the log) costs memory and copies, so it is
 * off until the disk is wrapped by a fault vfs; what the disk holds then counts as durable.
 *
 * A mapped range has memory of its own, which is the file's content while it is mapped: reads and
 * writes go to it. Stores through it are found by comparing (disk_settle).
 *
 * Invariants, all under disk.mutex:
 *  1. A page is written only while its count is 1.
 *  2. An entry of `pages` beyond `size` is NULL, and bytes of the last page beyond `size` are zero.
 *  3. disk.used counts 4096 for every page entry of the `now` image of every live node.
 *  4. A node lives while a handle, a map, a name table or the log refers to it.
 */
#ifndef LOAM_ARENA_VFS_DISK_H_
#define LOAM_ARENA_VFS_DISK_H_

#include <stdbool.h>

#include "arena/sync.h"
#include "arena/vfs.h"

#define DISK_PAGE     4096u
#define DISK_FILE_MAX ((uint64_t)1 << 38) /* bytes; beyond it -EFBIG */
#define DISK_NAME_MAX 255u

struct disk_page {
    _Atomic uint32_t refs;
    _Atomic uint64_t hash; /* of the bytes; 0: not known */
    uint8_t data[DISK_PAGE] __attribute__((aligned(16)));
};

struct disk_image {
    uint64_t size;
    struct disk_page **pages; /* NULL entry: a hole, reads as zeros and takes no space */
    size_t capacity;
};

struct disk_name {
    char *text;
    struct disk_node *node;
};

/* Sorted by text. */
struct disk_names {
    struct disk_name *at;
    size_t count;
    size_t capacity;
};

/* A mapped range. Two maps of one range share the memory; ranges that overlap otherwise are
 * refused. */
struct disk_map {
    struct disk_map *next;
    struct disk_node *node;
    uint64_t off;
    size_t len;
    uint8_t *memory;
    uint32_t users;
};

struct disk_node {
    struct disk_node *prev, *next; /* all nodes of the disk */
    uint64_t id; /* in this disk, and in the disks that a recording makes of it */
    bool is_dir;
    bool locked;
    bool marked; /* while a sync of directories or a cut gathers them */
    uint32_t refs;
    uint32_t live; /* names now, handles and maps: at 0 only durable tables and the log know it */
    /* files */
    struct disk_image now;
    struct disk_image synced;
    struct disk_image lost; /* pages dropped by a failed sync: pending again once written again */
    struct disk_map *maps;
    /* directories */
    struct disk_node *parent;
    struct disk_names names;
    struct disk_names synced_names;
    /* while a cut is made */
    struct disk_names cut_names;
    struct disk_node *twin;
    uint32_t cut_item; /* the first of its pending items */
};

/* One change of names that no sync_dir has covered: `from` goes (if any) and `to` comes (if any),
 * as one step. */
struct disk_name_op {
    struct disk_name_op *next;
    struct disk_node *from_dir, *to_dir; /* NULL: that half is absent */
    char *from, *to;
    struct disk_node *node;
    bool marked; /* chosen by the sync or cut at work */
};

struct loam_recording;

struct disk {
    struct mutex mutex; /* protects everything below; a leaf but for the allocator */
    struct disk_node *nodes;
    struct disk_node *root;
    struct disk_name_op *log; /* oldest first */
    struct disk_name_op **log_end;
    bool recording;
    uint32_t names_model; /* LOAM_NAMES_* */
    struct disk_page *zeros; /* stands in every reserved and not yet written place */
    uint64_t used;  /* bytes of pages held by files */
    uint64_t space; /* bytes they may hold */
    uint64_t next_id;
    struct loam_recording *recorder; /* NULL, or is told of every change */
};

/* A vfs that loam_vfs_free() frees: what both kinds begin with. */
struct disk_vfs {
    loam_vfs vfs;
    void (*destroy)(struct disk_vfs *v);
};

/* ---- the disk (vfs_disk.c) ---------------------------------------------------------------------
 * Calls named _locked want the mutex held, or a disk that no other thread knows yet. */

/* 0 or -ENOMEM. */
int disk_create(struct disk **out);
void disk_free(struct disk *d);
/* From here on the disk remembers what is durable. 0 or -ENOMEM; then nothing changed. */
int disk_record(struct disk *d);
/* 0 = unlimited. */
void disk_set_space(struct disk *d, uint64_t bytes);
void disk_set_names_model(struct disk *d, uint32_t model);

struct disk_node *disk_node_new_locked(struct disk *d, bool is_dir); /* one reference, no name */
void disk_node_ref_locked(struct disk_node *n);
void disk_node_unref_locked(struct disk *d, struct disk_node *n);
/* A name, handle or map more or less; each comes beside a reference. The last one frees the file's
 * space, as removing it on a real disk does, though a power cut may bring it back. */
void disk_node_enter_locked(struct disk_node *n);
void disk_node_leave_locked(struct disk *d, struct disk_node *n);

/* Bytes moved, or -errno. Writing, fewer than n when the space ends. */
int64_t disk_read_locked(const struct disk_node *n, void *buf, size_t size, uint64_t off);
int64_t disk_write_locked(struct disk *d, struct disk_node *n, const void *buf, size_t size,
                          uint64_t off);
int disk_truncate_locked(struct disk *d, struct disk_node *n, uint64_t size);
int disk_reserve_locked(struct disk *d, struct disk_node *n, uint64_t off, uint64_t len);
int disk_map_locked(struct disk *d, struct disk_node *n, uint64_t off, size_t len, void **p);
int disk_unmap_locked(struct disk *d, void *p, size_t len);
/* Brings stores made through maps into the pages. 0, -ENOMEM or -ENOSPC. */
int disk_settle_locked(struct disk *d, struct disk_node *n);
/* What is in the file now becomes what a power cut leaves. */
int disk_sync_locked(struct disk *d, struct disk_node *n);
/* Likewise of [off, off+len) alone, in whole pages, and of no names. */
int disk_sync_range_locked(struct disk *d, struct disk_node *n, uint64_t off, uint64_t len);
/* A sync has failed and the kernel gave its dirty pages up: a later sync does not cover them. */
int disk_drop_dirty_locked(struct disk *d, struct disk_node *n);
bool disk_page_lost(const struct disk_node *n, uint64_t i); /* page i is given up so */

/* ---- names (vfs_names.c) ---------------------------------------------------------------------- */

/* NULL when absent. */
struct disk_node *disk_lookup_locked(const struct disk_names *names, const char *text);
/* Puts node under `to` in to_dir, replacing what is there, and takes `from` out of from_dir, as one
 * step; either half may be left out with a NULL directory. 0 or -ENOMEM; then nothing changed. */
int disk_rename_locked(struct disk *d, struct disk_node *from_dir, const char *from,
                       struct disk_node *to_dir, const char *to, struct disk_node *node);
/* The names of the directory become what a power cut leaves. */
int disk_sync_dir_locked(struct disk *d, struct disk_node *dir);
/* The names of every directory do. */
int disk_sync_names_locked(struct disk *d);
void disk_log_clear_locked(struct disk *d);
void disk_names_free(struct disk_names *t); /* drops no references */

/* ---- pages and images (vfs_image.c) ------------------------------------------------------------ */

struct disk_page *disk_page_new(const uint8_t *data); /* NULL data: zeros; NULL: no memory */
struct disk_page *disk_page_share(struct disk_page *p); /* NULL is allowed */
void disk_page_drop(struct disk_page *p);               /* NULL is allowed */
/* The bytes of page i: zeros for a hole and beyond the end. */
const uint8_t *disk_image_page(const struct disk_image *m, uint64_t i);
/* Makes room for pages up to `size` bytes; sets no size. */
int disk_image_grow(struct disk_image *m, uint64_t size);
int disk_image_copy(struct disk_image *to, const struct disk_image *from); /* `to` is empty */
void disk_image_clear(struct disk_image *m);
/* Zeros behind the end in the last page, which may be shared: it is replaced. 0 or -ENOMEM. */
int disk_image_trim(struct disk_image *m);
uint64_t disk_image_space(const struct disk_image *m); /* bytes of its pages */
int disk_image_copy_all(struct disk_image *to, const struct disk_image *from); /* beyond its size, too */

static inline uint64_t disk_pages_of(uint64_t size)
{
    return (size + DISK_PAGE - 1) / DISK_PAGE;
}

/* NULL: a hole, or beyond the end. */
static inline struct disk_page *disk_image_at(const struct disk_image *m, uint64_t i)
{
    return i < m->capacity ? m->pages[i] : NULL;
}

/* ---- pieces of the disk that a cut needs ------------------------------------------------------- */

int disk_names_copy_locked(struct disk_names *to, const struct disk_names *from); /* `to` empty */
/* The same with the twins of the nodes. */
int disk_names_clone_locked(struct disk_names *to, const struct disk_names *from);
int disk_log_clone_locked(struct disk *to, const struct disk *from);
void disk_names_clear_locked(struct disk *d, struct disk_names *n);
/* Applies one logged change to the tables `which` picks. */
typedef struct disk_names *disk_names_of(struct disk_node *dir);
int disk_apply_locked(struct disk *d, const struct disk_name_op *op, disk_names_of *which);

/* ---- the other files --------------------------------------------------------------------------- */

/* vfs_memory.c: a vfs on `d`, which it then owns. */
int disk_vfs_new(struct disk *d, loam_vfs **vfs);
struct disk *disk_of_vfs(const loam_vfs *vfs); /* NULL unless a memory disk */
struct disk_node *disk_node_of_file(loam_file *f);

/* How the power is cut (vfs_cut.c). */
struct disk_cut_spec {
    uint64_t seed;
    uint64_t variant; /* CUT_MIXED or LOAM_CUT_* */
    const struct disk_change *next; /* NULL, or the change that was being made */
};
#define CUT_MIXED UINT64_MAX /* each file in a way of its own */

/* vfs_clone.c: makes the new disk `to` like `from`, durable and pending. 0 or -ENOMEM. */
int disk_clone_locked(struct disk *from, struct disk *to);

/* A new disk as after a power cut now; LOAM_CUT_ALL: a clone. 0, -ENOMEM, -ENOSPC. */
int disk_cut(struct disk *d, const struct disk_cut_spec *spec, struct disk **after);
/* What may or may not have reached the disk: names, blocks and sizes; LOAM_CUT_SUBSET takes a bit
 * of its seed for each. */
int disk_pending(struct disk *d, uint32_t *items);

/* vfs_hash.c: of all names, sizes and bytes. */
uint64_t disk_hash(struct disk *d);

/* ---- recordings (vfs_record.c, vfs_replay.c) --------------------------------------------------- */

enum disk_change_kind {
    CHANGE_WRITE, /* also what was stored through a map */
    CHANGE_TRUNCATE,
    CHANGE_RESERVE,
    CHANGE_SYNC,
    CHANGE_SYNC_RANGE,
    CHANGE_DROP, /* a failed sync gave dirty pages up */
    CHANGE_SYNC_DIR,
    CHANGE_NAMES, /* `from` goes, `to` comes: as struct disk_name_op */
};

#define DISK_NO_ID UINT64_MAX

/* One change of a disk. Nodes are named by their ids. */
struct disk_change {
    enum disk_change_kind kind;
    bool is_dir; /* the node, where it may be new */
    uint64_t node;
    uint64_t from_dir, to_dir; /* DISK_NO_ID: that half is absent */
    uint64_t off, len;
    const void *data; /* WRITE: len bytes; NAMES: both texts, each with its NUL, `from` first */
};

/* Before a change: brings stores through maps into the recording, if there is one. */
int disk_record_stores_locked(struct disk *d);
/* After a change of `d`: appends it to the recording, if there is one. */
void disk_record_locked(struct disk *d, const struct disk_change *c);
/* The recording outlives the disk. */
void disk_record_end_locked(struct disk *d);

#endif
