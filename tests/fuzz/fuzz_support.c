/* fuzz_support.c - Input in pieces, files, and what an input may cost.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/fuzz/fuzz_support.h"

#include <time.h>

#include "tests/support/memory_disk.h"
#include "wal/wal_format.h"

#define INPUT_SMALL ((size_t)1 << 10)
#define BYTES_MAX   ((uint64_t)64 << 20)
#define SECONDS_MAX 1.0 /* of processor time, with or without sanitizers */

/* ---- input ----------------------------------------------------------------------------------- */

uint64_t fuzz_take(struct fuzz_input *in, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes && in->left != 0; i++, in->p++, in->left--) {
        v |= (uint64_t)*in->p << (8 * i);
    }
    return v;
}

const uint8_t *fuzz_bytes(struct fuzz_input *in, size_t n, size_t *got)
{
    const uint8_t *p = in->p != NULL ? in->p : (const uint8_t *)"";
    *got = n < in->left ? n : in->left;
    in->p = p + *got;
    in->left -= *got;
    return p;
}

uint8_t *fuzz_copy(const uint8_t *p, size_t size, size_t slack)
{
    uint8_t *c = calloc(1, size + slack + 1);
    CHECK(c != NULL);
    if (size != 0) {
        memcpy(c, p, size);
    }
    return c;
}

void fuzz_touch(loam_slice s)
{
    static volatile uint8_t sum;
    const uint8_t *p = s.data;
    for (size_t i = 0; i < s.size; i++) {
        sum = (uint8_t)(sum + p[i]);
    }
}

/* ---- cost ------------------------------------------------------------------------------------ */

static struct alloc counted;
static struct timespec began;
/* Through the hooks alone, whatever struct alloc is before them. */
static _Atomic uint64_t live, peak;

static void *count_alloc(void *ctx, size_t align, size_t size)
{
    (void)ctx;
    if (size > ((size_t)1 << 32)) {
        return NULL;
    }
    void *p = NULL;
    if (posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size) != 0) {
        return NULL;
    }
    uint64_t now = atom_add(&live, size, relaxed) + size;
    uint64_t was = atom_load(&peak, relaxed);
    while (now > was && !atom_cas(&peak, &was, now, relaxed, relaxed)) {
    }
    return p;
}

static void count_free(void *ctx, void *p, size_t align, size_t size)
{
    (void)ctx, (void)align;
    if (p != NULL) {
        atom_sub(&live, size, relaxed);
        free(p);
    }
}

static const loam_allocator hooks = {
    .struct_size = sizeof hooks, .alloc = count_alloc, .free = count_free};

const loam_allocator *fuzz_allocator(void)
{
    return &hooks;
}

struct alloc *fuzz_alloc(void)
{
    return &counted;
}

void fuzz_begin(void)
{
    alloc_init(&counted, &hooks, UINT64_MAX);
    atom_store(&live, 0, relaxed);
    atom_store(&peak, 0, relaxed);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &began);
}

void fuzz_end(size_t input_size)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    double seconds =
        (double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) / 1e9;
    CHECK_EQ(alloc_used(&counted), 0);
    if (input_size > INPUT_SMALL) {
        return;
    }
    if (atom_load(&peak, relaxed) > BYTES_MAX) {
        CHECK_FAIL_("an input of %zu bytes took %llu bytes of memory", input_size,
                    (unsigned long long)atom_load(&peak, relaxed));
    }
    if (seconds > SECONDS_MAX) {
        CHECK_FAIL_("an input of %zu bytes took %.1f s", input_size, seconds);
    }
}

/* ---- files ----------------------------------------------------------------------------------- */

loam_vfs *fuzz_disk(void)
{
    return memory_disk_with(FUZZ_DIR);
}

void fuzz_put(const loam_vfs *disk, const char *name, const void *data, size_t size)
{
    char path[64];
    loam_file *f;
    snprintf(path, sizeof path, FUZZ_DIR "/%s", name);
    CHECK_EQ(disk->open(disk->ctx, path, LOAM_VFS_WRITE | LOAM_VFS_CREATE | LOAM_VFS_TRUNCATE, &f),
             0);
    CHECK_EQ(disk->write(disk->ctx, f, data, size, 0), size);
    disk->close(disk->ctx, f);
}

static void extend(const loam_vfs *disk, const char *name, uint64_t size)
{
    char path[64];
    loam_file *f;
    snprintf(path, sizeof path, FUZZ_DIR "/%s", name);
    CHECK_EQ(disk->open(disk->ctx, path, LOAM_VFS_WRITE, &f), 0);
    CHECK_EQ(disk->truncate(disk->ctx, f, size), 0);
    disk->close(disk->ctx, f);
}

void fuzz_put_log(const loam_vfs *disk, const char *name, const uint8_t *packed, size_t size,
                  bool seal, uint64_t zeros_max)
{
    size_t head = size < FUZZ_LOG_HEAD - 8 ? size : FUZZ_LOG_HEAD - 8;
    size_t records = size > FUZZ_LOG_HEAD ? size - FUZZ_LOG_HEAD : 0;
    uint8_t *p = fuzz_copy(NULL, 0, WAL_HEADER_PAGE + records);
    memcpy(p, packed, head);
    if (size >= FUZZ_LOG_HEAD) {
        memcpy(p + WAL_HEADER_PAGE - 8, packed + head, 8);
    }
    if (records != 0) {
        memcpy(p + WAL_HEADER_PAGE, packed + FUZZ_LOG_HEAD, records);
    }
    if (seal) {
        fuzz_seal_log(p, WAL_HEADER_PAGE + records);
    }
    fuzz_put(disk, name, p, WAL_HEADER_PAGE + records);
    uint64_t capacity = get_fixed64(p + 40);
    if ((p[12] & WAL_FLAG_FULL_SIZE) != 0 && capacity > records && capacity <= zeros_max) {
        extend(disk, name, WAL_HEADER_PAGE + capacity);
    }
    free(p);
}
