/* vfs_names.c - Name tables of a disk in memory, and the log of changes not yet durable.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/vfs_disk.h"

#include <errno.h>
#include <string.h>

#include "arena/alloc.h"

#include "arena/poison.h"

/* ---- one table --------------------------------------------------------------------------------
 */

/* Where text is, or would be inserted. */
static size_t names_find(const struct disk_names *t, const char *text, bool *found)
{
    size_t lo = 0, hi = t->count;
    *found = false;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(t->at[mid].text, text);
        if (c == 0) {
            *found = true;
            return mid;
        }
        if (c < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

struct disk_node *disk_lookup_locked(const struct disk_names *names, const char *text)
{
    bool found;
    size_t i = names_find(names, text, &found);
    return found ? names->at[i].node : NULL;
}

static char *text_copy(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = alloc_get(alloc_global(), MEM_VFS, n);
    if (copy != NULL) {
        memcpy(copy, text, n);
    }
    return copy;
}

static void text_free(char *text)
{
    if (text != NULL) {
        alloc_put(alloc_global(), MEM_VFS, text, strlen(text) + 1);
    }
}

static int names_grow(struct disk_names *t)
{
    if (t->count < t->capacity) {
        return 0;
    }
    size_t capacity = t->capacity == 0 ? 8 : t->capacity * 2;
    struct disk_name *at = alloc_resize(alloc_global(), MEM_VFS, t->at, t->capacity * sizeof *at,
                                        capacity * sizeof *at);
    if (at == NULL) {
        return -ENOMEM;
    }
    t->at = at;
    t->capacity = capacity;
    return 0;
}

/* 0 or -ENOMEM; then nothing changed. */
static int names_set(struct disk *d, struct disk_names *t, const char *text, struct disk_node *node)
{
    bool found;
    size_t i = names_find(t, text, &found);
    disk_node_ref_locked(node); /* first: node may be the one replaced */
    if (found) {
        disk_node_unref_locked(d, t->at[i].node);
        t->at[i].node = node;
        return 0;
    }
    char *copy = names_grow(t) == 0 ? text_copy(text) : NULL;
    if (copy == NULL) {
        disk_node_unref_locked(d, node);
        return -ENOMEM;
    }
    memmove(t->at + i + 1, t->at + i, (t->count - i) * sizeof *t->at);
    t->at[i] = (struct disk_name){copy, node};
    t->count++;
    return 0;
}

static void names_delete(struct disk *d, struct disk_names *t, const char *text)
{
    bool found;
    size_t i = names_find(t, text, &found);
    if (!found) {
        return;
    }
    struct disk_name gone = t->at[i];
    t->count--;
    memmove(t->at + i, t->at + i + 1, (t->count - i) * sizeof *t->at);
    text_free(gone.text);
    disk_node_unref_locked(d, gone.node);
}

int disk_names_copy_locked(struct disk_names *to, const struct disk_names *from)
{
    for (size_t i = 0; i < from->count; i++) {
        char *copy = names_grow(to) == 0 ? text_copy(from->at[i].text) : NULL;
        if (copy == NULL) {
            return -ENOMEM;
        }
        disk_node_ref_locked(from->at[i].node);
        to->at[to->count++] = (struct disk_name){copy, from->at[i].node};
    }
    return 0;
}

int disk_names_clone_locked(struct disk_names *to, const struct disk_names *from)
{
    for (size_t i = 0; i < from->count; i++) {
        char *copy = names_grow(to) == 0 ? text_copy(from->at[i].text) : NULL;
        if (copy == NULL) {
            return -ENOMEM;
        }
        struct disk_node *twin = from->at[i].node->twin;
        disk_node_ref_locked(twin);
        to->at[to->count++] = (struct disk_name){copy, twin};
    }
    return 0;
}

void disk_names_free(struct disk_names *t)
{
    for (size_t i = 0; i < t->count; i++) {
        text_free(t->at[i].text);
    }
    alloc_put(alloc_global(), MEM_VFS, t->at, t->capacity * sizeof *t->at);
    *t = (struct disk_names){0};
}

void disk_names_clear_locked(struct disk *d, struct disk_names *n)
{
    for (size_t i = 0; i < n->count; i++) {
        disk_node_unref_locked(d, n->at[i].node);
    }
    disk_names_free(n);
}

int disk_apply_locked(struct disk *d, const struct disk_name_op *op, disk_names_of *which)
{
    if (op->to_dir != NULL) {
        int rc = names_set(d, which(op->to_dir), op->to, op->node);
        if (rc != 0) {
            return rc;
        }
    }
    if (op->from_dir != NULL) {
        names_delete(d, which(op->from_dir), op->from);
    }
    return 0;
}

/* ---- the log of name changes ----------------------------------------------------------------- */

static struct disk_names *names_now(struct disk_node *dir)
{
    return &dir->names;
}

static struct disk_names *names_synced(struct disk_node *dir)
{
    return &dir->synced_names;
}

static void op_free(struct disk *d, struct disk_name_op *op)
{
    struct disk_node *held[] = {op->from_dir, op->to_dir, op->node};
    for (size_t i = 0; i < sizeof held / sizeof held[0]; i++) {
        if (held[i] != NULL) {
            disk_node_unref_locked(d, held[i]);
        }
    }
    text_free(op->from);
    text_free(op->to);
    alloc_put(alloc_global(), MEM_VFS, op, sizeof *op);
}

/* A copy for the log, or NULL. */
static struct disk_name_op *op_copy(struct disk *d, const struct disk_name_op *of)
{
    struct disk_name_op *op = alloc_zero(alloc_global(), MEM_VFS, sizeof *op);
    if (op == NULL) {
        return NULL;
    }
    struct disk_node *held[] = {of->from_dir, of->to_dir, of->node};
    for (size_t i = 0; i < sizeof held / sizeof held[0]; i++) {
        if (held[i] != NULL) {
            disk_node_ref_locked(held[i]);
        }
    }
    op->from_dir = of->from_dir;
    op->to_dir = of->to_dir;
    op->node = of->node;
    op->from = of->from != NULL ? text_copy(of->from) : NULL;
    op->to = of->to != NULL ? text_copy(of->to) : NULL;
    if ((of->from != NULL && op->from == NULL) || (of->to != NULL && op->to == NULL)) {
        op_free(d, op);
        return NULL;
    }
    return op;
}

/* What follows for the nodes from a change of the tables of the moment. */
static void names_changed(struct disk *d, const struct disk_name_op *op, struct disk_node *replaced)
{
    if (op->node->is_dir) {
        op->node->parent = op->to_dir;
    }
    if (op->to_dir != NULL) {
        disk_node_enter_locked(op->node);
    }
    if (op->from_dir != NULL) {
        disk_node_leave_locked(d, op->node);
    }
    if (replaced != NULL) {
        disk_node_leave_locked(d, replaced);
    }
}

static void record_names(struct disk *d, const struct disk_name_op *op)
{
    if (d->recorder == NULL) {
        return;
    }
    char texts[2 * (DISK_NAME_MAX + 1)];
    size_t from_size = op->from != NULL ? strlen(op->from) + 1 : 0;
    size_t to_size = op->to != NULL ? strlen(op->to) + 1 : 0;
    if (from_size != 0) {
        memcpy(texts, op->from, from_size);
    }
    if (to_size != 0) {
        memcpy(texts + from_size, op->to, to_size);
    }
    disk_record_locked(
        d, &(struct disk_change){.kind = CHANGE_NAMES,
                                 .is_dir = op->node->is_dir,
                                 .node = op->node->id,
                                 .from_dir = op->from_dir != NULL ? op->from_dir->id : DISK_NO_ID,
                                 .to_dir = op->to_dir != NULL ? op->to_dir->id : DISK_NO_ID,
                                 .len = from_size + to_size,
                                 .data = texts});
}

int disk_rename_locked(struct disk *d, struct disk_node *from_dir, const char *from,
                       struct disk_node *to_dir, const char *to, struct disk_node *node)
{
    /* The copies are only read; the cast spares a const twin of the struct. */
    struct disk_name_op op = {.from_dir = from_dir,
                              .to_dir = to_dir,
                              .from = (char *)from,
                              .to = (char *)to,
                              .node = node};
    struct disk_name_op *logged = NULL;
    int stores = disk_record_stores_locked(d);
    if (stores != 0) {
        return stores;
    }
    if (d->recording) {
        logged = op_copy(d, &op);
        if (logged == NULL) {
            return -ENOMEM;
        }
    }
    struct disk_node *replaced = to_dir != NULL ? disk_lookup_locked(&to_dir->names, to) : NULL;
    disk_node_ref_locked(node); /* across its removal from a table */
    if (replaced != NULL) {
        disk_node_ref_locked(replaced);
    }
    int rc = disk_apply_locked(d, &op, names_now);
    if (rc == 0) {
        names_changed(d, &op, replaced);
        record_names(d, &op);
    }
    if (logged != NULL && rc == 0) {
        *d->log_end = logged;
        d->log_end = &logged->next;
    } else if (logged != NULL) {
        op_free(d, logged);
    }
    if (replaced != NULL) {
        disk_node_unref_locked(d, replaced);
    }
    disk_node_unref_locked(d, node);
    return rc;
}

/* Moves the marked changes from the log into the synced tables, oldest first. */
static int log_apply_marked(struct disk *d)
{
    int rc = 0;
    for (struct disk_name_op **at = &d->log; *at != NULL && rc == 0;) {
        struct disk_name_op *op = *at;
        if (!op->marked) {
            at = &op->next;
            continue;
        }
        rc = disk_apply_locked(d, op, names_synced);
        if (rc == 0) {
            *at = op->next;
            if (*at == NULL) {
                d->log_end = at;
            }
            op_free(d, op);
        }
    }
    for (struct disk_name_op *op = d->log; op != NULL; op = op->next) {
        op->marked = false;
    }
    return rc;
}

/* A rename between directories becomes durable in both at once, so syncing one of them takes along
 * what the other had before. */
int disk_sync_dir_locked(struct disk *d, struct disk_node *dir)
{
    int stores = disk_record_stores_locked(d);
    if (stores != 0) {
        return stores;
    }
    disk_record_locked(d, &(struct disk_change){.kind = CHANGE_SYNC_DIR, .node = dir->id});
    if (!d->recording) {
        return 0;
    }
    dir->marked = true;
    bool more = true;
    while (more) {
        more = false;
        for (struct disk_name_op *op = d->log; op != NULL; op = op->next) {
            bool touched = (op->from_dir != NULL && op->from_dir->marked) ||
                           (op->to_dir != NULL && op->to_dir->marked);
            if (!touched || op->marked) {
                continue;
            }
            op->marked = more = true;
            if (op->from_dir != NULL) {
                op->from_dir->marked = true;
            }
            if (op->to_dir != NULL) {
                op->to_dir->marked = true;
            }
        }
    }
    for (struct disk_node *n = d->nodes; n != NULL; n = n->next) {
        n->marked = false;
    }
    return log_apply_marked(d);
}

int disk_sync_names_locked(struct disk *d)
{
    for (struct disk_name_op *op = d->log; op != NULL; op = op->next) {
        op->marked = true;
    }
    return log_apply_marked(d);
}

int disk_log_clone_locked(struct disk *to, const struct disk *from)
{
    for (const struct disk_name_op *op = from->log; op != NULL; op = op->next) {
        const struct disk_name_op twin = {
            .from_dir = op->from_dir != NULL ? op->from_dir->twin : NULL,
            .to_dir = op->to_dir != NULL ? op->to_dir->twin : NULL,
            .from = op->from,
            .to = op->to,
            .node = op->node->twin,
        };
        struct disk_name_op *copy = op_copy(to, &twin);
        if (copy == NULL) {
            return -ENOMEM;
        }
        *to->log_end = copy;
        to->log_end = &copy->next;
    }
    return 0;
}

void disk_log_clear_locked(struct disk *d)
{
    while (d->log != NULL) {
        struct disk_name_op *op = d->log;
        d->log = op->next;
        op_free(d, op);
    }
    d->log_end = &d->log;
}
