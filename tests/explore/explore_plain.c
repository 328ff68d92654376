/* explore_plain.c - Plain accesses of the modules: races by happens-before, freed memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The modules are compiled with the instrumentation of the thread sanitizer, but linked with the
 * functions of this file instead of its library. Each access of heap or static data is compared
 * with the last accesses of the other threads to the same bytes: two of them, at least one a store
 * and at least one plain, race unless one happened before the other. Memory given back is
 * forbidden until it is allocated again, and giving it back counts as a store to all of it.
 */
#include "tests/explore/explore_core.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { ROW_PLAIN_READ, ROW_PLAIN_WRITE, ROW_ATOMIC_READ, ROW_ATOMIC_WRITE, ROWS };

/* What the threads did last to 8 bytes. */
struct cell {
    uint32_t run;
    uint8_t freed;                        /* by byte */
    uint8_t bytes[ROWS][EXPLORE_THREADS]; /* touched at that clock */
    uint32_t clock[ROWS][EXPLORE_THREADS];
};

struct area {
    unsigned char *start;
    size_t size;
    struct cell *cells;
};

extern const char __executable_start; /* by the linker */

static struct area areas[2]; /* heap, static data */

static const void *access_pc; /* of the plain access that is checked */

/* The source line of a plain access is not known here; addr2line tells, from the offset. */
static const char *place(const char *where)
{
    static char text[48];
    if (where != NULL) {
        return where;
    }
    snprintf(text, sizeof text, "code +0x%zx",
             (size_t)((uintptr_t)access_pc - (uintptr_t)&__executable_start));
    return text;
}

static struct cell *cells_for(size_t size)
{
    size_t bytes = (size / 8 + 1) * sizeof(struct cell);
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) {
        explore_fail("no address space for the shadow of %zu bytes", size);
    }
    return p;
}

void plain_open(unsigned char *heap, size_t heap_size)
{
    areas[0] = (struct area){heap, heap_size, cells_for(heap_size)};
    areas[1].start = NULL;
    unsigned char *data;
    size_t size;
    data_segment(&data, &size);
    areas[1] = (struct area){data, size, cells_for(size)};
}

static struct cell *cell_at(uintptr_t p)
{
    for (unsigned i = 0; i < 2; i++) {
        uintptr_t start = (uintptr_t)areas[i].start & ~(uintptr_t)7;
        if (p >= start && p - start < areas[i].size) {
            struct cell *c = &areas[i].cells[(p - start) / 8];
            if (c->run != X->run) {
                memset(c, 0, sizeof *c);
                c->run = X->run;
            }
            return c;
        }
    }
    return NULL;
}

static const char *const row_name[ROWS] = {"plain load", "plain store", "atomic load",
                                           "atomic store"};

static void check_row(const struct cell *c, unsigned row, uint8_t bytes, uintptr_t p,
                      const char *what, const char *where)
{
    for (unsigned t = 0; t < X->scenario->threads; t++) {
        if (t != X->current && (c->bytes[row][t] & bytes) != 0 &&
            !view_has(&self()->happened, t, c->clock[row][t])) {
            explore_fail("race: %s by thread %c at %s with %s by thread %c, at %p", what,
                         'a' + X->current, place(where), row_name[row], 'a' + t, (void *)p);
        }
    }
}

static void touch(struct cell *c, unsigned row, uint8_t bytes)
{
    uint32_t now = self()->clock;
    if (c->clock[row][X->current] != now) {
        c->clock[row][X->current] = now;
        c->bytes[row][X->current] = 0;
    }
    c->bytes[row][X->current] |= bytes;
}

static void access_cell(struct cell *c, uint8_t bytes, uintptr_t p, enum access_kind kind,
                        const char *where)
{
    if ((c->freed & bytes) != 0) {
        explore_fail("%s freed memory at %p (%s)", kind == FREE ? "freed again:" : "use of",
                     (void *)p, place(where));
    }
    bool store = kind == PLAIN_WRITE || kind == ATOMIC_WRITE || kind == FREE;
    bool plain = kind == PLAIN_READ || kind == PLAIN_WRITE || kind == FREE;
    unsigned row = (plain ? ROW_PLAIN_READ : ROW_ATOMIC_READ) + (store ? 1u : 0u);
    const char *what = kind == FREE ? "free" : row_name[row];
    check_row(c, ROW_PLAIN_WRITE, bytes, p, what, where);
    if (store) {
        check_row(c, ROW_PLAIN_READ, bytes, p, what, where);
    }
    if (plain) {
        check_row(c, ROW_ATOMIC_WRITE, bytes, p, what, where);
        if (store) {
            check_row(c, ROW_ATOMIC_READ, bytes, p, what, where);
        }
    }
    touch(c, row, bytes);
}

void plain_access(const volatile void *address, size_t n, enum access_kind kind, const char *where)
{
    if (X == NULL || X->phase == PHASE_QUIET || X->current == MAIN_FIBER) {
        return;
    }
    uintptr_t p = (uintptr_t)address, end = p + n;
    while (p < end) {
        uintptr_t next = (p | 7) + 1;
        uintptr_t stop = next < end ? next : end;
        struct cell *c = cell_at(p);
        if (c != NULL) {
            uint8_t bytes = (uint8_t)((0xffu << (p & 7)) & (0xffu >> (next - stop)));
            access_cell(c, bytes, p, kind, where);
            if (kind == FREE) {
                c->freed |= bytes;
            }
        }
        p = stop;
    }
}

void plain_allocated(const void *address, size_t n)
{
    if (X->phase == PHASE_QUIET) {
        return;
    }
    for (uintptr_t p = (uintptr_t)address & ~(uintptr_t)7; p < (uintptr_t)address + n; p += 8) {
        struct cell *c = cell_at(p);
        if (c != NULL) {
            memset(c, 0, sizeof *c);
            c->run = X->run;
            touch(c, ROW_PLAIN_WRITE, 0xff);
        }
    }
}

/* ---- what the compiler calls ------------------------------------------------------------- */

#define HOOK(name, size, kind)                                                                     \
    void name(void *p);                                                                            \
    void name(void *p)                                                                             \
    {                                                                                              \
        if (X != NULL && X->phase != PHASE_QUIET) {                                                \
            access_pc = __builtin_return_address(0);                                               \
            plain_access(p, size, kind, NULL);                                                     \
        }                                                                                          \
    }
#define HOOK_RANGE(name, kind)                                                                     \
    void name(void *p, unsigned long n);                                                           \
    void name(void *p, unsigned long n)                                                            \
    {                                                                                              \
        access_pc = __builtin_return_address(0);                                                   \
        plain_access(p, n, kind, NULL);                                                            \
    }

HOOK(__tsan_read1, 1, PLAIN_READ)
HOOK(__tsan_read2, 2, PLAIN_READ)
HOOK(__tsan_read4, 4, PLAIN_READ)
HOOK(__tsan_read8, 8, PLAIN_READ)
HOOK(__tsan_read16, 16, PLAIN_READ)
HOOK(__tsan_write1, 1, PLAIN_WRITE)
HOOK(__tsan_write2, 2, PLAIN_WRITE)
HOOK(__tsan_write4, 4, PLAIN_WRITE)
HOOK(__tsan_write8, 8, PLAIN_WRITE)
HOOK(__tsan_write16, 16, PLAIN_WRITE)
HOOK(__tsan_unaligned_read2, 2, PLAIN_READ)
HOOK(__tsan_unaligned_read4, 4, PLAIN_READ)
HOOK(__tsan_unaligned_read8, 8, PLAIN_READ)
HOOK(__tsan_unaligned_read16, 16, PLAIN_READ)
HOOK(__tsan_unaligned_write2, 2, PLAIN_WRITE)
HOOK(__tsan_unaligned_write4, 4, PLAIN_WRITE)
HOOK(__tsan_unaligned_write8, 8, PLAIN_WRITE)
HOOK(__tsan_unaligned_write16, 16, PLAIN_WRITE)
HOOK_RANGE(__tsan_read_range, PLAIN_READ)
HOOK_RANGE(__tsan_write_range, PLAIN_WRITE)

void __tsan_init(void);
void __tsan_init(void)
{
}
void __tsan_func_entry(void *pc);
void __tsan_func_entry(void *pc)
{
    (void)pc;
}
void __tsan_func_exit(void);
void __tsan_func_exit(void)
{
}
void __tsan_atomic_signal_fence(int order);
void __tsan_atomic_signal_fence(int order)
{
    (void)order;
}
/* atomic_init(), and checks that read an atomic variable by its name. */
#define HOOK_ATOMIC(bits)                                                                          \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t *p, uint##bits##_t v, int order);     \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t *p, uint##bits##_t v, int order)      \
    {                                                                                              \
        (void)order;                                                                               \
        *p = v;                                                                                    \
    }                                                                                              \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *p, int order);        \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *p, int order)         \
    {                                                                                              \
        (void)order;                                                                               \
        return *p;                                                                                 \
    }
HOOK_ATOMIC(32)
HOOK_ATOMIC(64)

/* The modules' calls of these functions come here by their names (see tests/CMakeLists.txt). */
void *mc_memcpy(void *to, const void *from, size_t n);
void *mc_memcpy(void *to, const void *from, size_t n)
{
    access_pc = __builtin_return_address(0);
    plain_access(from, n, PLAIN_READ, NULL);
    plain_access(to, n, PLAIN_WRITE, NULL);
    return memcpy(to, from, n);
}
void *mc_memset(void *to, int c, size_t n);
void *mc_memset(void *to, int c, size_t n)
{
    access_pc = __builtin_return_address(0);
    plain_access(to, n, PLAIN_WRITE, NULL);
    return memset(to, c, n);
}
int mc_memcmp(const void *a, const void *b, size_t n);
int mc_memcmp(const void *a, const void *b, size_t n)
{
    access_pc = __builtin_return_address(0);
    plain_access(a, n, PLAIN_READ, NULL);
    plain_access(b, n, PLAIN_READ, NULL);
    return memcmp(a, b, n);
}
