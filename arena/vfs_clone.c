/* vfs_clone.c - A second disk like the first: what it holds, and what of that is durable.
 * SPDX-License-Identifier: Apache-2.0
 *
 * This is what a killed process leaves: the machine goes on, so pending blocks and names are still
 * pending, and a power cut during the recovery may yet take them. Open handles and maps end with
 * the process; files without a name go with them, unless a durable name still leads there.
 */
#include <errno.h>

#include "arena/vfs_disk.h"

#include "arena/poison.h"

static int make_twins(struct disk *from, struct disk *to)
{
    for (struct disk_node *n = from->nodes; n != NULL; n = n->next) {
        n->twin = n == from->root ? to->root : disk_node_new_locked(to, n->is_dir);
        if (n->twin == NULL) {
            return -ENOMEM;
        }
        n->twin->id = n->id;
    }
    return 0;
}

static int clone_node(const struct disk_node *n)
{
    struct disk_node *twin = n->twin;
    int rc = disk_image_copy(&twin->now, &n->now);
    rc = rc == 0 ? disk_image_copy(&twin->synced, &n->synced) : rc;
    rc = rc == 0 ? disk_image_copy_all(&twin->lost, &n->lost) : rc;
    rc = rc == 0 ? disk_names_clone_locked(&twin->names, &n->names) : rc;
    rc = rc == 0 ? disk_names_clone_locked(&twin->synced_names, &n->synced_names) : rc;
    twin->parent = n->parent != NULL ? n->parent->twin : NULL;
    return rc;
}

/* Names bring a file to life and its space into the count. */
static void settle_lives(struct disk *from, struct disk *to)
{
    for (struct disk_node *n = from->nodes; n != NULL; n = n->next) {
        for (size_t i = 0; i < n->names.count; i++) {
            disk_node_enter_locked(n->names.at[i].node->twin);
        }
    }
    for (struct disk_node *n = from->nodes; n != NULL; n = n->next) {
        if (n->twin->live != 0) {
            to->used += disk_image_space(&n->twin->now);
        }
    }
}

int disk_clone_locked(struct disk *from, struct disk *to)
{
    int rc = 0;
    for (struct disk_node *n = from->nodes; n != NULL; n = n->next) {
        n->twin = NULL;
        rc = rc == 0 ? disk_settle_locked(from, n) : rc;
    }
    rc = rc == 0 ? make_twins(from, to) : rc;
    for (struct disk_node *n = from->nodes; n != NULL && rc == 0; n = n->next) {
        rc = clone_node(n);
    }
    rc = rc == 0 ? disk_log_clone_locked(to, from) : rc;
    if (rc != 0) {
        return rc; /* freeing `to` drops all of it */
    }
    settle_lives(from, to);
    for (struct disk_node *n = from->nodes; n != NULL; n = n->next) {
        if (n != from->root) {
            disk_node_unref_locked(to, n->twin); /* names and the log keep what they lead to */
        }
        n->twin = NULL;
    }
    to->recording = from->recording;
    to->names_model = from->names_model;
    to->next_id = from->next_id;
    return 0;
}
