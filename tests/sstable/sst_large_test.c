/* sst_large_test.c - Offsets beyond 4 GiB: a table of 4.5 GiB, whose file has holes where its values are zeros.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <unistd.h>

#include "arena/alloc.h"
#include "arena/hash.h"
#include "sstable/sst_cursor.h"
#include "tests/sstable/sst_support.h"

#define VALUE_BYTES (4u << 20)
#define ENTRIES     1152u /* 4.5 GiB */
#define HOLE        (64u << 10)

static const loam_vfs *os;

static bool all_zeros(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Leaves whole units of zeros out; the file's size is what it would be. */
static int64_t write_sparse(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    const uint8_t *p = buf;
    uint64_t size;
    for (size_t at = 0; at < n;) {
        size_t step = HOLE - (off + at) % HOLE < n - at ? HOLE - (off + at) % HOLE : n - at;
        if (!all_zeros(p + at, step)) {
            int64_t done = os->write(ctx, f, p + at, step, off + at);
            if (done < 0) {
                return done;
            }
            step = (size_t)done;
        }
        at += step;
    }
    int rc = os->size(ctx, f, &size);
    if (rc == 0 && size < off + n) {
        rc = os->truncate(ctx, f, off + n);
    }
    return rc < 0 ? rc : (int64_t)n;
}

/* Zeros but for the first and the last bytes. */
static uint8_t value[VALUE_BYTES];

static struct entry entry_of(uint32_t i, char key[16])
{
    memcpy(value, &i, sizeof i);
    memcpy(value + VALUE_BYTES - sizeof i, &i, sizeof i);
    return (struct entry){.key = loam_bytes(key, (size_t)snprintf(key, 16, "%08u", i)),
                          .tag = entry_tag(i + 1, ENTRY_PUT),
                          .value = loam_bytes(value, VALUE_BYTES)};
}

static void check_entry(struct sst_reader *r, uint32_t i, struct sst_get_scratch *scratch)
{
    char key[16];
    struct entry want = entry_of(i, key), got;
    CHECK_EQ(sst_get(r, want.key, hash_key(want.key.data, want.key.size), UINT64_MAX >> 8, scratch,
                     &got),
             LOAM_OK);
    CHECK_EQ(got.tag, want.tag);
    CHECK_EQ(got.value.size, VALUE_BYTES);
    CHECK(memcmp(got.value.data, want.value.data, VALUE_BYTES) == 0);
}

/* Too slow under a sanitizer. */
Test(sst, offsets_beyond_4_gib_are_found, .disabled = LOAM_ASAN)
{
    struct sst_world w;
    char path[] = "/tmp/loam-large-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    unlink(path);
    os = loam_vfs_os();
    loam_vfs sparse = *os;
    sparse.write = write_sparse;
    sst_world_init(&w, 0, NULL);
    w.build.vfs = &sparse;
    w.build.path = path;
    w.build.compression = 1; /* none */
    struct sst_builder *b;
    CHECK_EQ(sst_builder_open(&b, &w.build), LOAM_OK);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        char key[16];
        struct entry e = entry_of(i, key);
        CHECK_EQ(sst_builder_add(b, &e, 0), LOAM_OK);
    }
    CHECK_EQ(sst_builder_finish(b, &w.info), LOAM_OK);
    CHECK(w.info.size > (uint64_t)ENTRIES * VALUE_BYTES);
    sst_builder_free(b);
    struct sst_open_options o = sst_world_open_options(&w);
    o.vfs = &sparse;
    o.path = path;
    struct sst_reader *r;
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    struct sst_get_scratch scratch;
    sst_get_scratch_init(&scratch, &w.alloc);
    for (uint32_t i = 0; i < ENTRIES; i += i < 1000 ? 100 : 8) {
        check_entry(r, i, &scratch);
    }
    check_entry(r, ENTRIES - 1, &scratch);
    sst_get_scratch_free(&scratch);
    struct sst_cursor c;
    struct entry e;
    CHECK_EQ(sst_cursor_init(&c, r, &w.alloc, 0, 0), LOAM_OK);
    uint32_t n = 0;
    for (bool on = sst_cursor_last(&c); on && n < 200; on = sst_cursor_prev(&c), n++) {
        char key[16];
        struct entry want = entry_of(ENTRIES - 1 - n, key);
        sst_cursor_entry(&c, &e);
        CHECK_BYTES(e.key.data, e.key.size, want.key.data, want.key.size);
        CHECK(memcmp(e.value.data, want.value.data, VALUE_BYTES) == 0);
    }
    CHECK_EQ(n, 200);
    sst_cursor_free(&c);
    sst_close(r);
    unlink(path);
    sst_world_end(&w);
}
