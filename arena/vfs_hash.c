/* vfs_hash.c - One number for all names, sizes and bytes of a disk in memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A page keeps its hash while its bytes stay, and disks share pages: the many disks that are cut
 * from one recording cost little more than their names.
 */
#include <string.h>

#include "arena/hash.h"
#include "arena/vfs_disk.h"

#include "arena/poison.h"

static uint64_t mix(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
}

static uint64_t hash_page(struct disk_page *p)
{
    uint64_t h = atom_load(&p->hash, relaxed); /* relaxed: whoever computes it gets the same */
    if (h == 0) {
        h = checksum64(p->data, DISK_PAGE, 0);
        h += h == 0;
        atom_store(&p->hash, h, relaxed); /* relaxed: as above */
    }
    return h;
}

/* A block of zeros and a hole read alike. */
static uint64_t hash_file(const struct disk_node *n, uint64_t zeros)
{
    uint64_t h = mix(1, n->now.size);
    for (uint64_t i = 0; i < n->now.capacity && i * DISK_PAGE < n->now.size; i++) {
        uint64_t page = n->now.pages[i] != NULL ? hash_page(n->now.pages[i]) : zeros;
        if (page != zeros) {
            h = mix(mix(h, i), page);
        }
    }
    return h;
}

/* Names are sorted, so equal trees give equal numbers. Depth is bounded by the path length. */
static uint64_t hash_dir(const struct disk_node *dir, uint64_t zeros)
{
    uint64_t h = 2;
    for (size_t i = 0; i < dir->names.count; i++) {
        const struct disk_name *name = &dir->names.at[i];
        h = mix(h, checksum64(name->text, strlen(name->text), 0));
        h = mix(h, name->node->is_dir ? hash_dir(name->node, zeros) : hash_file(name->node, zeros));
    }
    return h;
}

uint64_t disk_hash(struct disk *d)
{
    mutex_lock(&d->mutex);
    for (struct disk_node *n = d->nodes; n != NULL; n = n->next) {
        /* Without memory the stores of the moment are left out; the caller compares, no more. */
        (void)disk_settle_locked(d, n);
    }
    uint64_t h = hash_dir(d->root, hash_page(d->zeros));
    mutex_unlock(&d->mutex);
    return h;
}
