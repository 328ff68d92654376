/* vfs_replay.c - Makes the changes of a recording again, and cuts the power at any of them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One replay goes with the recording and moves forward; asking for an earlier moment, or for the
 * other model of names, begins anew. It keeps removed files alive: their bytes are what stale
 * blocks are made of.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "arena/alloc.h"
#include "arena/status.h"
#include "arena/vfs_record.h"

#include "arena/poison.h"

void replay_end(struct replay *p)
{
    if (p->disk != NULL) {
        disk_free(p->disk);
    }
    alloc_put(alloc_global(), MEM_VFS, p->nodes, p->capacity * sizeof *p->nodes);
    *p = (struct replay){0};
}

static int note_node(struct replay *p, struct disk_node *n)
{
    if (n->id >= p->capacity) {
        size_t capacity = p->capacity != 0 ? p->capacity * 2 : 64;
        capacity = capacity > n->id ? capacity : (size_t)n->id + 1;
        struct disk_node **nodes =
            alloc_resize(alloc_global(), MEM_VFS, p->nodes, p->capacity * sizeof *nodes,
                         capacity * sizeof *nodes);
        if (nodes == NULL) {
            return -ENOMEM;
        }
        memset(nodes + p->capacity, 0, (capacity - p->capacity) * sizeof *nodes);
        p->nodes = nodes;
        p->capacity = capacity;
    }
    disk_node_ref_locked(n);
    disk_node_enter_locked(n); /* it counts in the disk's space: a handle may have been left of it */
    p->nodes[n->id] = n;
    return 0;
}

static int replay_begin(struct replay *p, struct loam_recording *r, uint32_t names)
{
    const struct disk_cut_spec whole = {.variant = LOAM_CUT_ALL};
    replay_end(p);
    int rc = disk_cut(r->base, &whole, &p->disk);
    if (rc != 0) {
        return rc;
    }
    p->names = names;
    disk_set_names_model(p->disk, names);
    rc = disk_record(p->disk);
    for (struct disk_node *n = p->disk->nodes; n != NULL && rc == 0; n = n->next) {
        rc = note_node(p, n);
    }
    return rc;
}

/* The node of an id; one that was not met before is new. */
static int node_of(struct replay *p, uint64_t id, bool is_dir, struct disk_node **n)
{
    *n = id < p->capacity ? p->nodes[id] : NULL;
    if (*n != NULL) {
        return 0;
    }
    *n = disk_node_new_locked(p->disk, is_dir);
    if (*n == NULL) {
        return -ENOMEM;
    }
    (*n)->id = id;
    int rc = note_node(p, *n);
    disk_node_unref_locked(p->disk, *n); /* the table keeps it */
    return rc;
}

static int replay_names(struct replay *p, const struct disk_change *c, struct disk_node *node)
{
    struct disk_node *from = NULL, *to = NULL;
    const char *text = c->from_dir != DISK_NO_ID ? c->data : NULL;
    const char *to_text = NULL; /* a removal has none, and nothing lies behind its one name */
    if (c->to_dir != DISK_NO_ID) {
        to_text = text != NULL ? text + strlen(text) + 1 : c->data;
    }
    int rc = 0;
    if (c->from_dir != DISK_NO_ID) {
        rc = node_of(p, c->from_dir, true, &from);
    }
    if (rc == 0 && c->to_dir != DISK_NO_ID) {
        rc = node_of(p, c->to_dir, true, &to);
    }
    return rc == 0 ? disk_rename_locked(p->disk, from, text, to, to_text, node) : rc;
}

static int replay_change(struct replay *p, const struct disk_change *c)
{
    struct disk *d = p->disk;
    struct disk_node *n;
    int rc = node_of(p, c->node, c->is_dir, &n);
    if (rc != 0) {
        return rc;
    }
    switch (c->kind) {
    case CHANGE_WRITE: {
        int64_t done = disk_write_locked(d, n, c->data, (size_t)c->len, c->off);
        return done < 0 ? (int)done : (uint64_t)done == c->len ? 0 : -ENOSPC;
    }
    case CHANGE_TRUNCATE:
        return disk_truncate_locked(d, n, c->len);
    case CHANGE_RESERVE:
        return disk_reserve_locked(d, n, c->off, c->len);
    case CHANGE_SYNC:
        return disk_sync_locked(d, n);
    case CHANGE_SYNC_RANGE:
        return disk_sync_range_locked(d, n, c->off, c->len);
    case CHANGE_DROP:
        return disk_drop_dirty_locked(d, n);
    case CHANGE_SYNC_DIR:
        return disk_sync_dir_locked(d, n);
    case CHANGE_NAMES:
        return replay_names(p, c, n);
    }
    return -EINVAL;
}

static int replay_to(struct loam_recording *r, uint64_t at, uint32_t names)
{
    struct replay *p = &r->replay;
    int rc = 0;
    if (p->disk == NULL || p->at > at || p->names != names) {
        rc = replay_begin(p, r, names);
    }
    if (rc == 0) {
        mutex_lock(&p->disk->mutex);
        while (rc == 0 && p->at < at) {
            rc = replay_change(p, &r->changes[p->at]);
            p->at += rc == 0;
        }
        mutex_unlock(&p->disk->mutex);
    }
    if (rc != 0) {
        replay_end(p);
        return FAIL_IO(rc, 0, 0, "cannot replay a recording");
    }
    return LOAM_OK;
}

static int check_moment(const struct loam_recording *r, uint64_t at, uint32_t names)
{
    if (r == NULL || at > r->count || names > LOAM_NAMES_ORDERED) {
        return FAIL(LOAM_E_INVAL, "a crash wants a recording, a moment of it and a model of names");
    }
    return !r->incomplete ? LOAM_OK : FAIL(LOAM_E_NOMEM, "memory was short for the recording");
}

LOAM_API int loam_recording_crash(loam_recording *rec, const loam_crash *crash, loam_vfs **after)
{
    if (crash == NULL || after == NULL || crash->struct_size < sizeof *crash ||
        crash->variant > LOAM_CUT_SUBSET) {
        return FAIL(LOAM_E_INVAL, "a crash wants its struct_size, a variant and an out pointer");
    }
    int rc = check_moment(rec, crash->at, crash->names);
    rc = rc == LOAM_OK ? replay_to(rec, crash->at, crash->names) : rc;
    if (rc < 0) {
        return rc;
    }
    const struct disk_cut_spec spec = {
        .seed = crash->seed,
        .variant = crash->variant,
        .next = crash->at < rec->count ? &rec->changes[crash->at] : NULL,
    };
    struct disk *d;
    int neg = disk_cut(rec->replay.disk, &spec, &d);
    if (neg == 0) {
        neg = disk_vfs_new(d, after);
        if (neg != 0) {
            disk_free(d);
        }
    }
    return neg == 0 ? LOAM_OK : FAIL_IO(neg, 0, 0, "cannot make the disk after a crash");
}

LOAM_API int loam_recording_pending(loam_recording *rec, uint64_t at, uint32_t names,
                                    uint32_t *items)
{
    if (items == NULL) {
        return FAIL(LOAM_E_INVAL, "nowhere to put the number of pending items");
    }
    int rc = check_moment(rec, at, names);
    rc = rc == LOAM_OK ? replay_to(rec, at, names) : rc;
    if (rc < 0) {
        return rc;
    }
    int neg = disk_pending(rec->replay.disk, items);
    return neg == 0 ? LOAM_OK : FAIL_IO(neg, 0, 0, "cannot count what is pending");
}

LOAM_API uint64_t loam_vfs_hash(const loam_vfs *memory_disk)
{
    struct disk *d = disk_of_vfs(memory_disk);
    return d != NULL ? disk_hash(d) : 0;
}
