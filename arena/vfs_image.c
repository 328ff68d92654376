/* vfs_image.c - What a file holds in memory: pages, counted and shared, and images made of them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <string.h>

#include "arena/alloc.h"
#include "arena/vfs_disk.h"

#include "arena/poison.h"

static const uint8_t zero_bytes[DISK_PAGE];

struct disk_page *disk_page_new(const uint8_t *data)
{
    struct disk_page *p = alloc_get(alloc_global(), MEM_VFS, sizeof *p);
    if (p != NULL) {
        atom_store(&p->refs, 1, relaxed); /* relaxed: not shared yet */
        atom_store(&p->hash, 0, relaxed); /* relaxed: as above */
        memcpy(p->data, data != NULL ? data : zero_bytes, DISK_PAGE);
    }
    return p;
}

struct disk_page *disk_page_share(struct disk_page *p)
{
    if (p != NULL) {
        atom_add(&p->refs, 1, relaxed); /* relaxed: the caller holds a reference that keeps it */
    }
    return p;
}

void disk_page_drop(struct disk_page *p)
{
    /* acq_rel: pairs with itself in other disks' drops; the last one frees after all their reads */
    if (p != NULL && atom_sub(&p->refs, 1, acq_rel) == 1) {
        alloc_put(alloc_global(), MEM_VFS, p, sizeof *p);
    }
}

const uint8_t *disk_image_page(const struct disk_image *m, uint64_t i)
{
    const struct disk_page *p = disk_image_at(m, i);
    return p != NULL ? p->data : zero_bytes;
}

int disk_image_grow(struct disk_image *m, uint64_t size)
{
    uint64_t want = disk_pages_of(size);
    if (want <= m->capacity) {
        return 0;
    }
    size_t capacity = m->capacity < 8 ? 8 : m->capacity + m->capacity / 2;
    if (capacity < want) {
        capacity = (size_t)want;
    }
    struct disk_page **pages = alloc_resize(alloc_global(), MEM_VFS, m->pages,
                                            m->capacity * sizeof *pages, capacity * sizeof *pages);
    if (pages == NULL) {
        return -ENOMEM;
    }
    memset(pages + m->capacity, 0, (capacity - m->capacity) * sizeof *pages);
    m->pages = pages;
    m->capacity = capacity;
    return 0;
}

int disk_image_copy_all(struct disk_image *to, const struct disk_image *from)
{
    int rc = disk_image_grow(to, (uint64_t)from->capacity * DISK_PAGE);
    for (size_t i = 0; rc == 0 && i < from->capacity; i++) {
        to->pages[i] = disk_page_share(from->pages[i]);
    }
    to->size = from->size;
    return rc;
}

int disk_image_copy(struct disk_image *to, const struct disk_image *from)
{
    int rc = disk_image_grow(to, from->size);
    if (rc != 0) {
        return rc;
    }
    uint64_t n = disk_pages_of(from->size);
    for (uint64_t i = 0; i < n; i++) {
        to->pages[i] = disk_page_share(disk_image_at(from, i));
    }
    to->size = from->size;
    return 0;
}

void disk_image_clear(struct disk_image *m)
{
    for (size_t i = 0; i < m->capacity; i++) {
        disk_page_drop(m->pages[i]);
    }
    alloc_put(alloc_global(), MEM_VFS, m->pages, m->capacity * sizeof *m->pages);
    *m = (struct disk_image){0};
}

int disk_image_trim(struct disk_image *m)
{
    size_t in = (size_t)(m->size % DISK_PAGE);
    struct disk_page *p = disk_image_at(m, m->size / DISK_PAGE);
    if (in == 0 || p == NULL || memcmp(p->data + in, zero_bytes, DISK_PAGE - in) == 0) {
        return 0;
    }
    struct disk_page *fresh = disk_page_new(p->data);
    if (fresh == NULL) {
        return -ENOMEM;
    }
    memset(fresh->data + in, 0, DISK_PAGE - in);
    disk_page_drop(p);
    m->pages[m->size / DISK_PAGE] = fresh;
    return 0;
}

uint64_t disk_image_space(const struct disk_image *m)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < m->capacity; i++) {
        bytes += m->pages[i] != NULL ? DISK_PAGE : 0;
    }
    return bytes;
}
