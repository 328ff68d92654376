/* oom_support.c - Counts allocations, refuses the chosen ones, keeps the balance of the rest.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/crash/oom_support.h"

#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arena/alloc.h"
#include "arena/atomic.h"
#include "arena/vfs_disk.h"
#include "tests/support/check.h"

#define PLACE_DEPTH 24
#define FROM_DEPTH  12

static _Atomic unsigned armed; /* kinds; 0: off */
static _Atomic uint64_t counted, refuse_at, refused;
static _Atomic bool refuse_on;
static _Atomic int64_t bytes_of[2], mapped, blocks; /* bytes_of: hook, global */
static void *place[PLACE_DEPTH];
static int place_depth;

/* Whether this request is to fail. */
static bool refuses(unsigned kind)
{
    /* All relaxed: one counter decides, and the plan changes while nothing else runs. */
    if ((atom_load(&armed, relaxed) & kind) == 0) {
        return false;
    }
    uint64_t n = atom_add(&counted, 1, relaxed) + 1, at = atom_load(&refuse_at, relaxed);
    if (at == 0 || n < at || (n > at && !atom_load(&refuse_on, relaxed))) {
        return false;
    }
    if (atom_add(&refused, 1, relaxed) == 0) {
        place_depth = backtrace(place, PLACE_DEPTH);
    }
    return true;
}

/* Size and alignment stand before each block: what is given back must be what was taken. */
struct head {
    struct head *next, **at; /* all blocks, newest first */
    size_t size, align;
    uint64_t number; /* blocks are numbered as they come */
    unsigned kind;
    int depth; /* of from */
    void *from[FROM_DEPTH];
    uint64_t magic[2];
};
static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct head *list;
static uint64_t last_number;
static bool remember; /* LOAM_BLOCKS: where each block comes from */

static void list_add(struct head *h)
{
    pthread_mutex_lock(&list_mutex);
    h->number = ++last_number;
    h->at = &list;
    h->next = list;
    if (list != NULL) {
        list->at = &h->next;
    }
    list = h;
    pthread_mutex_unlock(&list_mutex);
}

static void list_remove(struct head *h)
{
    pthread_mutex_lock(&list_mutex);
    *h->at = h->next;
    if (h->next != NULL) {
        h->next->at = h->at;
    }
    pthread_mutex_unlock(&list_mutex);
}

void oom_print_blocks(uint64_t after)
{
    pthread_mutex_lock(&list_mutex);
    for (struct head *h = list; h != NULL && h->number > after; h = h->next) {
        fprintf(stderr, "block %llu of %zu bytes%s\n", (unsigned long long)h->number, h->size,
                h->depth == 0 ? " (LOAM_BLOCKS=1 tells from where)" : ":");
        backtrace_symbols_fd(h->from, h->depth, STDERR_FILENO);
    }
    pthread_mutex_unlock(&list_mutex);
}

#define MAGIC 0x6c6f616d6f6f6d21u

_Static_assert(sizeof(struct head) % 16 == 0, "blocks are aligned behind it");

static size_t head_room(size_t align)
{
    return (sizeof(struct head) + align - 1) / align * align;
}

static void *take(unsigned kind, size_t align, size_t size)
{
    /* A memory disk's pages are the disk and not memory. */
    if (size != sizeof(struct disk_page) && refuses(kind)) {
        return NULL;
    }
    void *raw = NULL;
    size_t room = head_room(align);
    CHECK(posix_memalign(&raw, align < 16 ? 16 : align, room + size) == 0);
    char *p = (char *)raw + room;
    memset(p, 0xa5, size < 4096 ? size : 4096); /* nobody may count on zeros */
    struct head *h = &((struct head *)(void *)p)[-1];
    *h = (struct head){.size = size, .align = align, .kind = kind, .magic = {MAGIC, MAGIC}};
    h->depth = remember ? backtrace(h->from, FROM_DEPTH) : 0;
    list_add(h);
    atom_add(&bytes_of[kind == OOM_GLOBAL], (int64_t)size, relaxed); /* relaxed: a balance */
    atom_add(&blocks, 1, relaxed);
    return p;
}

static void give(unsigned kind, void *p, size_t align, size_t size)
{
    struct head *h = &((struct head *)p)[-1];
    CHECK(h->magic[0] == MAGIC && h->magic[1] == MAGIC);
    CHECK(h->kind == kind && h->size == size && h->align == align);
    list_remove(h);
    h->magic[0] = h->magic[1] = 0;
    atom_sub(&bytes_of[kind == OOM_GLOBAL], (int64_t)size, relaxed); /* relaxed: a balance */
    atom_sub(&blocks, 1, relaxed);
    free((char *)p - head_room(align));
}

static void *hook_alloc(void *ctx, size_t align, size_t size)
{
    return take((unsigned)(uintptr_t)ctx, align, size);
}

static void hook_free(void *ctx, void *p, size_t align, size_t size)
{
    give((unsigned)(uintptr_t)ctx, p, align, size);
}

const loam_allocator *oom_allocator(void)
{
    static const loam_allocator hooks = {sizeof hooks, hook_alloc, hook_free,
                                         (void *)(uintptr_t)OOM_HOOK};
    return &hooks;
}

void oom_install(void)
{
    struct alloc *a = alloc_global();
    CHECK_EQ(alloc_used(a), 0);
    a->hooks =
        (loam_allocator){sizeof a->hooks, hook_alloc, hook_free, (void *)(uintptr_t)OOM_GLOBAL};
    remember = getenv("LOAM_BLOCKS") != NULL;
    void *warm[2]; /* backtrace() allocates at its first call */
    (void)backtrace(warm, 2);
}

void oom_arm(unsigned kinds, uint64_t at, bool persist)
{
    atom_store(&counted, 0, relaxed); /* relaxed, all: as in refuses() */
    atom_store(&refused, 0, relaxed);
    atom_store(&refuse_at, at, relaxed);
    atom_store(&refuse_on, persist, relaxed);
    place_depth = 0;
    atom_store(&armed, kinds, relaxed);
}

uint64_t oom_disarm(void)
{
    atom_store(&armed, 0, relaxed); /* relaxed: as in refuses() */
    return atom_load(&refused, relaxed);
}

uint64_t oom_calls(void)
{
    return atom_load(&counted, relaxed); /* relaxed: as in refuses() */
}

struct oom_live oom_live(void)
{
    return (struct oom_live){
        .hook_bytes = atom_load(&bytes_of[0], relaxed), /* relaxed, all: a balance */
        .global_bytes = atom_load(&bytes_of[1], relaxed),
        .mapped_bytes = atom_load(&mapped, relaxed),
        .blocks = atom_load(&blocks, relaxed),
        .last_number = last_number,
    };
}

void oom_print_place(void)
{
    fprintf(stderr, "the memory ran out at:\n");
    backtrace_symbols_fd(place, place_depth, STDERR_FILENO);
}

/* ---- wrapped by the linker --------------------------------------------------------------------- */

void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off);
int __real_munmap(void *p, size_t n);
int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off);
int __wrap_munmap(void *p, size_t n);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg);

void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
    if (refuses(OOM_MAP)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *p = __real_mmap(at, n, prot, flags, fd, off);
    if (p != MAP_FAILED) {
        atom_add(&mapped, (int64_t)n, relaxed); /* relaxed: a balance */
    }
    return p;
}

int __wrap_munmap(void *p, size_t n)
{
    int rc = __real_munmap(p, n);
    if (rc == 0) {
        atom_sub(&mapped, (int64_t)n, relaxed); /* relaxed: a balance */
    }
    return rc;
}

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg)
{
    return refuses(OOM_THREAD) ? EAGAIN : __real_pthread_create(t, a, fn, arg);
}
