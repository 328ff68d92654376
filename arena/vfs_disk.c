/* vfs_disk.c - Files and directories in memory, beside what of them would survive a power cut.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/vfs_disk.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "arena/alloc.h"
#include "arena/poison.h"

/* ---- memory that others write while it is copied ----------------------------------------------
 * A mapped range belongs to the engine's writers; the disk looks at it as a kernel would, without
 * being ordered to their stores. Relaxed word copies keep that defined, and the thread sanitizer
 * is kept from reporting a race that is the meaning of a shared map. */

/* relaxed everywhere: bytes may be stale or half of a store, as on a disk */
OUTSIDE_TSAN static void copy_from_map(uint8_t *to, const uint8_t *from, size_t n)
{
    size_t i = 0;
    if ((uintptr_t)from % 8 == 0) {
        for (; i + 8 <= n; i += 8) {
            uint64_t w = atomic_load_explicit((const _Atomic uint64_t *)(const void *)(from + i),
                                              memory_order_relaxed);
            __builtin_memcpy(to + i, &w, 8);
        }
    }
    for (; i < n; i++) {
        to[i] = atomic_load_explicit((const _Atomic uint8_t *)(const void *)(from + i),
                                     memory_order_relaxed);
    }
}

/* NULL `from`: zeros. */
OUTSIDE_TSAN static void copy_to_map(uint8_t *to, const uint8_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        atomic_store_explicit((_Atomic uint8_t *)(void *)(to + i), from != NULL ? from[i] : 0,
                              memory_order_relaxed);
    }
}

/* ---- pages of a disk with an end -------------------------------------------------------------- */

static bool page_is_ours(const struct disk_page *p)
{
    /* acquire: pairs with the drop of another disk; its reads of the page are over */
    return atom_load(&p->refs, acquire) == 1;
}

/* Bytes that files may still take; the limit may have been set below what they hold. */
static uint64_t room(const struct disk *d)
{
    return d->space > d->used ? d->space - d->used : 0;
}

/* Makes page i of the file's image one that may be written. 0, -ENOMEM, -ENOSPC. */
static int page_own(struct disk *d, struct disk_image *m, uint64_t i)
{
    assert(i < m->capacity);
    struct disk_page *old = m->pages[i];
    if (old != NULL && page_is_ours(old)) {
        atom_store(&old->hash, 0, relaxed); /* relaxed: nobody else knows the page */
        return 0;
    }
    if (old == NULL && room(d) < DISK_PAGE) {
        return -ENOSPC;
    }
    struct disk_page *fresh = disk_page_new(old != NULL ? old->data : NULL);
    if (fresh == NULL) {
        return -ENOMEM;
    }
    d->used += old == NULL ? DISK_PAGE : 0;
    disk_page_drop(old);
    m->pages[i] = fresh;
    return 0;
}

static void page_remove(struct disk *d, struct disk_image *m, uint64_t i)
{
    if (i < m->capacity && m->pages[i] != NULL) {
        disk_page_drop(m->pages[i]);
        m->pages[i] = NULL;
        d->used -= DISK_PAGE;
    }
}

/* ---- nodes ----------------------------------------------------------------------------------- */

struct disk_node *disk_node_new_locked(struct disk *d, bool is_dir)
{
    struct disk_node *n = alloc_zero(alloc_global(), MEM_VFS, sizeof *n);
    if (n == NULL) {
        return NULL;
    }
    n->id = d->next_id++;
    n->is_dir = is_dir;
    n->refs = 1;
    n->next = d->nodes;
    if (d->nodes != NULL) {
        d->nodes->prev = n;
    }
    d->nodes = n;
    return n;
}

static void map_free(struct disk_map *m)
{
    alloc_put_aligned(alloc_global(), MEM_VFS, m->memory, m->len, DISK_PAGE);
    alloc_put(alloc_global(), MEM_VFS, m, sizeof *m);
}

/* What the node itself holds; references to other nodes are the caller's business. */
static void node_free(struct disk *d, struct disk_node *n)
{
    disk_image_clear(&n->now);
    disk_image_clear(&n->synced);
    disk_image_clear(&n->lost);
    while (n->maps != NULL) { /* only when the whole disk goes: a map refers to its node */
        struct disk_map *m = n->maps;
        n->maps = m->next;
        map_free(m);
    }
    if (n->prev != NULL) {
        n->prev->next = n->next;
    } else {
        d->nodes = n->next;
    }
    if (n->next != NULL) {
        n->next->prev = n->prev;
    }
    alloc_put(alloc_global(), MEM_VFS, n, sizeof *n);
}

void disk_node_ref_locked(struct disk_node *n)
{
    n->refs++;
}

void disk_node_enter_locked(struct disk_node *n)
{
    n->live++;
}

void disk_node_leave_locked(struct disk *d, struct disk_node *n)
{
    assert(n->live > 0);
    if (--n->live == 0) {
        d->used -= disk_image_space(&n->now);
    }
}

void disk_node_unref_locked(struct disk *d, struct disk_node *n)
{
    assert(n->refs > 0);
    if (--n->refs > 0) {
        return;
    }
    assert(n->maps == NULL);
    disk_names_clear_locked(d, &n->names);
    disk_names_clear_locked(d, &n->synced_names);
    node_free(d, n);
}

/* ---- file contents --------------------------------------------------------------------------- */

/* The memory of page i when it is mapped, else NULL. */
static uint8_t *mapped_page(const struct disk_node *n, uint64_t i)
{
    for (struct disk_map *m = n->maps; m != NULL; m = m->next) {
        uint64_t first = m->off / DISK_PAGE;
        if (i >= first && i - first < m->len / DISK_PAGE) {
            return m->memory + (i - first) * DISK_PAGE;
        }
    }
    return NULL;
}

int64_t disk_read_locked(const struct disk_node *n, void *buf, size_t size, uint64_t off)
{
    if (off >= n->now.size) {
        return 0;
    }
    uint64_t left = n->now.size - off;
    size_t total = size < left ? size : (size_t)left;
    for (size_t done = 0; done < total;) {
        uint64_t i = (off + done) / DISK_PAGE;
        size_t in = (size_t)((off + done) % DISK_PAGE);
        size_t take = DISK_PAGE - in < total - done ? DISK_PAGE - in : total - done;
        const uint8_t *mapped = mapped_page(n, i);
        if (mapped != NULL) {
            copy_from_map((uint8_t *)buf + done, mapped + in, take);
        } else {
            memcpy((uint8_t *)buf + done, disk_image_page(&n->now, i) + in, take);
        }
        done += take;
    }
    return (int64_t)total;
}

static bool beyond_max(uint64_t off, uint64_t len)
{
    return off > DISK_FILE_MAX || len > DISK_FILE_MAX - off;
}

int64_t disk_write_locked(struct disk *d, struct disk_node *n, const void *buf, size_t size,
                          uint64_t off)
{
    if (beyond_max(off, size)) {
        return -EFBIG;
    }
    int rc = disk_record_stores_locked(d);
    rc = rc == 0 && size != 0 ? disk_image_grow(&n->now, off + size) : rc;
    size_t done = 0;
    while (rc == 0 && done < size) {
        uint64_t i = (off + done) / DISK_PAGE;
        size_t in = (size_t)((off + done) % DISK_PAGE);
        size_t take = DISK_PAGE - in < size - done ? DISK_PAGE - in : size - done;
        uint8_t *mapped = mapped_page(n, i);
        if (mapped != NULL) {
            copy_to_map(mapped + in, (const uint8_t *)buf + done, take);
        } else {
            rc = page_own(d, &n->now, i);
            if (rc != 0) {
                break;
            }
            memcpy(n->now.pages[i]->data + in, (const uint8_t *)buf + done, take);
        }
        done += take;
    }
    if (done > 0 && off + done > n->now.size) {
        n->now.size = off + done;
    }
    if (done > 0) {
        disk_record_locked(d, &(struct disk_change){.kind = CHANGE_WRITE,
                                                    .node = n->id,
                                                    .off = off,
                                                    .len = done,
                                                    .data = buf});
    }
    return done > 0 ? (int64_t)done : rc;
}

int disk_truncate_locked(struct disk *d, struct disk_node *n, uint64_t size)
{
    if (size > DISK_FILE_MAX) {
        return -EFBIG;
    }
    int stores = disk_record_stores_locked(d);
    if (stores != 0) {
        return stores;
    }
    uint64_t kept = disk_pages_of(size);
    size_t in = (size_t)(size % DISK_PAGE);
    if (size < n->now.size) {
        /* The cut page's rest becomes zeros first: it can fail, and then nothing has changed. */
        if (in != 0 && disk_image_at(&n->now, kept - 1) != NULL) {
            int rc = page_own(d, &n->now, kept - 1);
            if (rc != 0) {
                return rc;
            }
            memset(n->now.pages[kept - 1]->data + in, 0, DISK_PAGE - in);
        }
        for (uint64_t i = kept; i < n->now.capacity; i++) {
            page_remove(d, &n->now, i);
        }
        for (struct disk_map *m = n->maps; m != NULL; m = m->next) {
            if (m->off + m->len > size) {
                size_t from = size > m->off ? (size_t)(size - m->off) : 0;
                copy_to_map(m->memory + from, NULL, m->len - from);
            }
        }
    }
    n->now.size = size;
    disk_record_locked(d, &(struct disk_change){.kind = CHANGE_TRUNCATE, .node = n->id, .len = size});
    return 0;
}

int disk_reserve_locked(struct disk *d, struct disk_node *n, uint64_t off, uint64_t len)
{
    if (beyond_max(off, len)) {
        return -EFBIG;
    }
    if (len == 0) {
        return 0;
    }
    int rc = disk_record_stores_locked(d);
    rc = rc == 0 ? disk_image_grow(&n->now, off + len) : rc;
    if (rc != 0) {
        return rc;
    }
    uint64_t end = disk_pages_of(off + len), missing = 0;
    for (uint64_t i = off / DISK_PAGE; i < end; i++) {
        missing += n->now.pages[i] == NULL;
    }
    if (room(d) / DISK_PAGE < missing) {
        return -ENOSPC;
    }
    for (uint64_t i = off / DISK_PAGE; i < end; i++) {
        if (n->now.pages[i] == NULL) {
            n->now.pages[i] = disk_page_share(d->zeros);
            d->used += DISK_PAGE;
        }
    }
    if (off + len > n->now.size) {
        n->now.size = off + len;
    }
    disk_record_locked(
        d, &(struct disk_change){.kind = CHANGE_RESERVE, .node = n->id, .off = off, .len = len});
    return 0;
}

/* ---- maps ------------------------------------------------------------------------------------ */

/* Tells the recording which bytes of page i were stored through a map. */
static void record_store(struct disk *d, const struct disk_node *n, uint64_t i, const uint8_t *bytes)
{
    const uint8_t *old = disk_image_page(&n->now, i);
    uint64_t left = n->now.size - i * DISK_PAGE;
    size_t from = 0, to = left < DISK_PAGE ? (size_t)left : DISK_PAGE;
    while (from < to && bytes[from] == old[from]) {
        from++;
    }
    while (to > from && bytes[to - 1] == old[to - 1]) {
        to--;
    }
    disk_record_locked(d, &(struct disk_change){.kind = CHANGE_WRITE,
                                                .node = n->id,
                                                .off = i * DISK_PAGE + from,
                                                .len = to - from,
                                                .data = bytes + from});
}

int disk_settle_locked(struct disk *d, struct disk_node *n)
{
    for (struct disk_map *m = n->maps; m != NULL; m = m->next) {
        uint64_t first = m->off / DISK_PAGE;
        for (uint64_t i = first; i < first + m->len / DISK_PAGE && i * DISK_PAGE < n->now.size;
             i++) {
            uint8_t bytes[DISK_PAGE];
            copy_from_map(bytes, m->memory + (i - first) * DISK_PAGE, DISK_PAGE);
            uint64_t left = n->now.size - i * DISK_PAGE;
            if (left < DISK_PAGE) {
                memset(bytes + left, 0, DISK_PAGE - (size_t)left);
            }
            if (memcmp(bytes, disk_image_page(&n->now, i), DISK_PAGE) == 0) {
                continue;
            }
            int rc = disk_image_grow(&n->now, (i + 1) * DISK_PAGE);
            if (rc == 0 && d->recorder != NULL) {
                record_store(d, n, i, bytes);
            }
            rc = rc == 0 ? page_own(d, &n->now, i) : rc;
            if (rc != 0) {
                return rc;
            }
            memcpy(n->now.pages[i]->data, bytes, DISK_PAGE);
        }
    }
    return 0;
}

/* The map that holds all of the range; *clash when one holds a part of it. */
static struct disk_map *map_around(struct disk_node *n, uint64_t off, size_t len, bool *clash)
{
    *clash = false;
    for (struct disk_map *m = n->maps; m != NULL; m = m->next) {
        if (off >= m->off && off + len <= m->off + m->len) {
            return m;
        }
        *clash |= off < m->off + m->len && m->off < off + len;
    }
    return NULL;
}

int disk_map_locked(struct disk *d, struct disk_node *n, uint64_t off, size_t len, void **p)
{
    if (off % DISK_PAGE != 0 || len % DISK_PAGE != 0 || len == 0 || off > n->now.size ||
        len > n->now.size - off) {
        return -EINVAL;
    }
    bool clash;
    struct disk_map *m = map_around(n, off, len, &clash);
    if (m != NULL) {
        m->users++;
        *p = m->memory + (off - m->off);
        return 0;
    }
    if (clash) {
        return -EINVAL;
    }
    int rc = disk_reserve_locked(d, n, off, len); /* no later store may lack space */
    if (rc != 0) {
        return rc;
    }
    m = alloc_zero(alloc_global(), MEM_VFS, sizeof *m);
    /* Of the heap, which keeps what it gets back: a crash test maps and unmaps at each open. */
    void *memory = alloc_get_aligned(alloc_global(), MEM_VFS, len, DISK_PAGE);
    if (m == NULL || memory == NULL) {
        alloc_put(alloc_global(), MEM_VFS, m, sizeof *m);
        alloc_put_aligned(alloc_global(), MEM_VFS, memory, len, DISK_PAGE);
        return -ENOMEM;
    }
    disk_read_locked(n, memory, len, off);
    *m = (struct disk_map){
        .next = n->maps, .node = n, .off = off, .len = len, .memory = memory, .users = 1};
    n->maps = m;
    disk_node_ref_locked(n);
    disk_node_enter_locked(n);
    *p = memory;
    return 0;
}

int disk_unmap_locked(struct disk *d, void *p, size_t len)
{
    for (struct disk_node *n = d->nodes; n != NULL; n = n->next) {
        for (struct disk_map **at = &n->maps; *at != NULL; at = &(*at)->next) {
            struct disk_map *m = *at;
            uintptr_t start = (uintptr_t)m->memory, from = (uintptr_t)p;
            if (from < start || from - start >= m->len || len > m->len - (from - start)) {
                continue;
            }
            if (m->users > 1) {
                m->users--;
                return 0;
            }
            int rc = disk_settle_locked(d, n);
            if (rc != 0) {
                return rc; /* the map stays: its stores are nowhere else */
            }
            *at = m->next;
            map_free(m);
            disk_node_leave_locked(d, n);
            disk_node_unref_locked(d, n);
            return 0;
        }
    }
    return -EINVAL;
}

/* ---- durability ------------------------------------------------------------------------------ */

bool disk_page_lost(const struct disk_node *n, uint64_t i)
{
    const struct disk_page *p = disk_image_at(&n->lost, i);
    return p != NULL && p == disk_image_at(&n->now, i);
}

int disk_drop_dirty_locked(struct disk *d, struct disk_node *n)
{
    int stores = disk_record_stores_locked(d);
    if (stores != 0) {
        return stores;
    }
    disk_record_locked(d, &(struct disk_change){.kind = CHANGE_DROP, .node = n->id});
    if (!d->recording) {
        return 0;
    }
    int rc = disk_settle_locked(d, n);
    rc = rc == 0 ? disk_image_grow(&n->lost, n->now.size) : rc;
    if (rc != 0) {
        return rc;
    }
    for (uint64_t i = 0; i < disk_pages_of(n->now.size); i++) {
        struct disk_page *now = disk_image_at(&n->now, i);
        if (now != disk_image_at(&n->synced, i) && now != n->lost.pages[i]) {
            disk_page_drop(n->lost.pages[i]);
            n->lost.pages[i] = disk_page_share(now);
        }
    }
    return 0;
}

/* Makes pages [first, end) durable. */
static int sync_pages(struct disk *d, struct disk_node *n, uint64_t first, uint64_t end)
{
    int rc = disk_settle_locked(d, n);
    rc = rc == 0 ? disk_image_grow(&n->synced, n->now.size) : rc;
    if (rc != 0) {
        return rc;
    }
    for (uint64_t i = first; i < end && i < n->synced.capacity; i++) {
        struct disk_page *now = disk_image_at(&n->now, i);
        if (now != n->synced.pages[i] && !disk_page_lost(n, i)) {
            disk_page_drop(n->synced.pages[i]);
            n->synced.pages[i] = disk_page_share(now);
        }
    }
    return 0;
}

int disk_sync_locked(struct disk *d, struct disk_node *n)
{
    int stores = disk_record_stores_locked(d);
    if (stores != 0) {
        return stores;
    }
    disk_record_locked(d, &(struct disk_change){.kind = CHANGE_SYNC, .node = n->id});
    if (!d->recording) {
        return 0;
    }
    int rc = sync_pages(d, n, 0, UINT64_MAX);
    if (rc != 0) {
        return rc;
    }
    n->synced.size = n->now.size;
    rc = disk_image_trim(&n->synced); /* a page that was given up may be of a longer file */
    if (rc == 0 && d->names_model == LOAM_NAMES_ORDERED) {
        rc = disk_sync_names_locked(d);
    }
    return rc;
}

int disk_sync_range_locked(struct disk *d, struct disk_node *n, uint64_t off, uint64_t len)
{
    int stores = disk_record_stores_locked(d);
    if (stores != 0 || len == 0) {
        return stores;
    }
    const struct disk_change c = {
        .kind = CHANGE_SYNC_RANGE, .node = n->id, .off = off, .len = len};
    disk_record_locked(d, &c);
    if (!d->recording) {
        return 0;
    }
    uint64_t end = off + len;
    int rc = sync_pages(d, n, off / DISK_PAGE, (end - 1) / DISK_PAGE + 1);
    if (rc == 0 && n->synced.size < end) {
        n->synced.size = end < n->now.size ? end : n->now.size;
        rc = disk_image_trim(&n->synced); /* what stands behind the written bytes is still pending */
    }
    return rc;
}

/* ---- the disk -------------------------------------------------------------------------------- */

int disk_create(struct disk **out)
{
    struct disk *d = alloc_zero(alloc_global(), MEM_VFS, sizeof *d);
    if (d == NULL) {
        return -ENOMEM;
    }
    mutex_init(&d->mutex, RANK_VFS);
    d->log_end = &d->log;
    d->space = UINT64_MAX;
    d->zeros = disk_page_new(NULL);
    d->root = disk_node_new_locked(d, true);
    if (d->zeros == NULL || d->root == NULL) {
        disk_free(d);
        return -ENOMEM;
    }
    *out = d;
    return 0;
}

void disk_free(struct disk *d)
{
    disk_record_end_locked(d);
    disk_log_clear_locked(d);
    /* The rest goes without counting references: nobody is left to use them. */
    while (d->nodes != NULL) {
        struct disk_node *n = d->nodes;
        disk_names_free(&n->names);
        disk_names_free(&n->synced_names);
        node_free(d, n);
    }
    disk_page_drop(d->zeros);
    mutex_destroy(&d->mutex);
    alloc_put(alloc_global(), MEM_VFS, d, sizeof *d);
}

int disk_record(struct disk *d)
{
    mutex_lock(&d->mutex);
    int rc = 0;
    for (struct disk_node *n = d->recording ? NULL : d->nodes; n != NULL && rc == 0; n = n->next) {
        rc = disk_settle_locked(d, n);
        rc = rc == 0 ? disk_image_copy(&n->synced, &n->now) : rc;
        rc = rc == 0 ? disk_names_copy_locked(&n->synced_names, &n->names) : rc;
    }
    if (rc == 0) {
        d->recording = true;
    } else {
        for (struct disk_node *n = d->nodes; n != NULL; n = n->next) {
            disk_image_clear(&n->synced);
            disk_names_clear_locked(d, &n->synced_names);
        }
    }
    mutex_unlock(&d->mutex);
    return rc;
}

void disk_set_space(struct disk *d, uint64_t bytes)
{
    mutex_lock(&d->mutex);
    d->space = bytes != 0 ? bytes : UINT64_MAX;
    mutex_unlock(&d->mutex);
}

void disk_set_names_model(struct disk *d, uint32_t model)
{
    mutex_lock(&d->mutex);
    d->names_model = model;
    mutex_unlock(&d->mutex);
}
