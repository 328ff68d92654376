/* disk_account.c - Files by name in hashed chains, and the sum of their sizes.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/disk_account.h"

#include <assert.h>
#include <string.h>

#include "arena/hash.h"

#include "arena/poison.h"

#define UNIT 4096u /* what file systems give at a time, most often */

static uint64_t units(uint64_t size)
{
    return size > UINT64_MAX - UNIT ? UINT64_MAX / UNIT * UNIT : (size + UNIT - 1) / UNIT * UNIT;
}

void disk_account_init(struct disk_account *a, struct alloc *alloc, uint64_t budget)
{
    *a = (struct disk_account){.alloc = alloc, .budget = budget};
    mutex_init(&a->mu, RANK_LEAF);
}

void disk_account_destroy(struct disk_account *a)
{
    for (uint32_t i = 0; i < DISK_ACCOUNT_CHAINS && a->chains != NULL; i++) {
        while (a->chains[i] != NULL) {
            struct disk_file *f = a->chains[i];
            a->chains[i] = f->next;
            alloc_put(a->alloc, MEM_VFS, f, sizeof *f);
        }
    }
    alloc_put(a->alloc, MEM_VFS, a->chains, DISK_ACCOUNT_CHAINS * sizeof *a->chains);
    mutex_destroy(&a->mu);
}

void disk_account_enforce(struct disk_account *a)
{
    mutex_lock(&a->mu);
    a->enforced = true;
    mutex_unlock(&a->mu);
}

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static struct disk_file **chain_of(struct disk_account *a, const char *name)
{
    return &a->chains[hash_key(name, strlen(name)) % DISK_ACCOUNT_CHAINS];
}

/* The link that leads to the file; to NULL when it is not known. */
static struct disk_file **find_locked(struct disk_account *a, const char *name)
{
    struct disk_file **at = chain_of(a, name);
    while (*at != NULL && strcmp((*at)->name, name) != 0) {
        at = &(*at)->next;
    }
    return at;
}

static void set_name(struct disk_file *f, const char *name)
{
    size_t n = strlen(name) + 1;
    assert(n <= DISK_NAME_CAP);
    memcpy(f->name, name, n);
}

static bool have_chains_locked(struct disk_account *a)
{
    if (a->chains == NULL) {
        a->chains = alloc_zero(a->alloc, MEM_VFS, DISK_ACCOUNT_CHAINS * sizeof *a->chains);
    }
    return a->chains != NULL;
}

struct disk_file *disk_account_get(struct disk_account *a, const char *path)
{
    struct disk_file *f = NULL;
    mutex_lock(&a->mu);
    if (have_chains_locked(a)) {
        struct disk_file **at = find_locked(a, name_of(path));
        if (*at == NULL) {
            *at = alloc_zero(a->alloc, MEM_VFS, sizeof **at);
            if (*at != NULL) {
                set_name(*at, name_of(path));
            }
        }
        f = *at;
    }
    if (f != NULL) {
        f->users++;
    }
    mutex_unlock(&a->mu);
    return f;
}

/* The file is in no chain any more: its space is free when nobody has it open. */
static void free_space_locked(struct disk_account *a, struct disk_file *f)
{
    if (f->removed && f->users == 0) {
        a->used -= f->size;
        alloc_put(a->alloc, MEM_VFS, f, sizeof *f);
    }
}

static void forget_locked(struct disk_account *a, struct disk_file **at)
{
    struct disk_file *f = *at;
    *at = f->next;
    f->removed = true;
    free_space_locked(a, f);
}

void disk_account_put(struct disk_account *a, struct disk_file *f)
{
    mutex_lock(&a->mu);
    assert(f->users != 0);
    f->users--;
    if (f->users == 0 && f->size == 0 && !f->removed) {
        forget_locked(a, find_locked(a, f->name)); /* it weighs nothing, or could not be made at all */
    } else {
        free_space_locked(a, f);
    }
    mutex_unlock(&a->mu);
}

static void set_size_locked(struct disk_account *a, struct disk_file *f, uint64_t size)
{
    a->used = a->used - f->size + size;
    f->size = size;
}

bool disk_account_grow(struct disk_account *a, struct disk_file *f, uint64_t size)
{
    size = units(size);
    mutex_lock(&a->mu);
    bool fits = true;
    if (size > f->size) {
        uint64_t more = size - f->size;
        fits = !a->enforced || (a->used <= a->budget && more <= a->budget - a->used);
        if (fits) {
            set_size_locked(a, f, size);
        }
    }
    mutex_unlock(&a->mu);
    return fits;
}

void disk_account_settle(struct disk_account *a, struct disk_file *f, uint64_t size)
{
    mutex_lock(&a->mu);
    set_size_locked(a, f, units(size));
    mutex_unlock(&a->mu);
}

void disk_account_remove(struct disk_account *a, const char *path)
{
    mutex_lock(&a->mu);
    struct disk_file **at = a->chains != NULL ? find_locked(a, name_of(path)) : NULL;
    if (at != NULL && *at != NULL) {
        forget_locked(a, at);
    }
    mutex_unlock(&a->mu);
}

void disk_account_rename(struct disk_account *a, const char *from, const char *to)
{
    from = name_of(from);
    to = name_of(to);
    mutex_lock(&a->mu);
    if (a->chains != NULL && strcmp(from, to) != 0) {
        struct disk_file **there = find_locked(a, to);
        if (*there != NULL) {
            forget_locked(a, there);
        }
        struct disk_file **at = find_locked(a, from), *f = *at;
        if (f != NULL) {
            *at = f->next;
            set_name(f, to);
            at = chain_of(a, to);
            f->next = *at;
            *at = f;
        }
    }
    mutex_unlock(&a->mu);
}

uint64_t disk_account_left(struct disk_account *a)
{
    mutex_lock(&a->mu);
    uint64_t left = a->used < a->budget ? a->budget - a->used : 0;
    mutex_unlock(&a->mu);
    return left;
}
