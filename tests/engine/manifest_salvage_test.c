/* manifest_salvage_test.c - Behind damage of any field of a record the records that verify are gathered.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: each of a row of keyspaces was created by a record of its own; all must be known but those whose
 * records are damaged.
 */
#include <criterion/criterion.h>

#include <stdio.h>

#include "arena/coding.h"
#include "engine/filename.h"
#include "engine/manifest_salvage.h"
#include "tests/engine/db_support.h"
#include "tests/support/disk_files.h"

#define SPACES  6u
#define BYTES   65536u

static loam_vfs *disk;
static struct file_on_disk manifest;
static uint8_t whole[BYTES], bytes[BYTES];
static size_t size, record[SPACES]; /* where the one of each keyspace begins */

static bool has(const uint8_t *p, size_t n, const char *name)
{
    return memmem(p, n, name, strlen(name)) != NULL;
}

static void name_of(unsigned i, char *name)
{
    snprintf(name, 16, "space-%u", i);
}

static void set_up(void)
{
    disk = memory_disk();
    loam_db *db = open_small(disk, "/db");
    for (unsigned i = 0; i < SPACES; i++) {
        char name[16];
        loam_ks *ks;
        name_of(i, name);
        GOES(loam_ks_open(db, name, NULL, &ks));
        loam_ks_release(ks);
    }
    GOES(loam_close(db));
    manifest = disk_file_of(disk, "/db", FILE_MANIFEST, 0);
    loam_file *f;
    CHECK_EQ(disk->open(disk->ctx, manifest.path, LOAM_VFS_READ, &f), 0);
    size = (size_t)disk->read(disk->ctx, f, whole, sizeof whole, 0);
    CHECK(size > MANIFEST_HEADER_BYTES && size < sizeof whole);
    disk->close(disk->ctx, f);
    unsigned found = 0;
    for (size_t at = MANIFEST_HEADER_BYTES; at < size;) {
        size_t end = at + MANIFEST_RECORD_BYTES + get_fixed32(whole + at);
        for (unsigned i = 0; i < SPACES; i++) {
            char name[16];
            name_of(i, name);
            if (has(whole + at, end - at, name)) {
                record[i] = at;
                found++;
            }
        }
        at = end;
    }
    CHECK_EQ(found, SPACES); /* one record each */
    memcpy(bytes, whole, size);
}

static void tear_down(void)
{
    loam_vfs_free(disk);
}

TestSuite(manifest_salvage, .init = set_up, .fini = tear_down);

/* Bit i: the keyspace is known. */
static unsigned known_spaces(bool *holes)
{
    disk_file_write(disk, manifest.path, bytes, size);
    struct manifest_salvage s;
    manifest_salvage_init(&s, alloc_global());
    GOES(manifest_salvage_read(&s, disk, "/db", manifest.number));
    unsigned known = 0;
    for (uint32_t k = 0; k < s.keyspaces.created_count; k++) {
        for (unsigned i = 0; i < SPACES; i++) {
            char name[16];
            name_of(i, name);
            loam_slice has_name = s.keyspaces.created[k].name;
            known |= (unsigned)(has_name.size == strlen(name) && memcmp(has_name.data, name, strlen(name)) == 0)
                     << i;
        }
    }
    *holes = s.holes;
    manifest_salvage_free(&s);
    memcpy(bytes, whole, size);
    return known;
}

#define ALL ((1u << SPACES) - 1)

static void expect_all_but(unsigned lost)
{
    bool holes;
    CHECK_EQ(known_spaces(&holes), ALL & ~lost);
    CHECK_EQ(holes, lost != 0);
}

Test(manifest_salvage, a_damaged_size_costs_its_record_alone)
{
    expect_all_but(0);
    uint32_t right = get_fixed32(whole + record[2]);
    const uint32_t wrong[] = {0, 1, right - 1, right + 1, right + 16, 2 * right, (uint32_t)size, UINT32_MAX};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        put_fixed32(bytes + record[2], wrong[i]);
        expect_all_but(1u << 2);
    }
}

Test(manifest_salvage, two_damaged_sizes_in_a_row_cost_no_third_record)
{
    put_fixed32(bytes + record[1], 7);
    put_fixed32(bytes + record[2], 1000000);
    bool holes;
    unsigned known = known_spaces(&holes);
    CHECK((known & ~8u) == (ALL & ~8u & ~(1u << 1 | 1u << 2))); /* the one behind has no seed that is known */
    CHECK(holes);
}

Test(manifest_salvage, any_damaged_byte_costs_its_record_at_most)
{
    size_t end = record[3] + MANIFEST_RECORD_BYTES + get_fixed32(whole + record[3]);
    for (size_t at = record[3]; at < end; at++) {
        bool holes;
        bytes[at] ^= 0x21;
        CHECK_EQ(known_spaces(&holes) | 1u << 3, ALL);
    }
}

/* A whole record in zeros: no size, no kind, no checksum. */
Test(manifest_salvage, a_record_that_is_gone_costs_itself_and_the_next)
{
    size_t end = record[1] + MANIFEST_RECORD_BYTES + get_fixed32(whole + record[1]);
    memset(bytes + record[1], 0, end - record[1]);
    bool holes;
    CHECK_EQ(known_spaces(&holes), ALL & ~(1u << 1 | 1u << 2));
    CHECK(holes);
}

static int stop(void *ctx, const loam_damage *d)
{
    (void)ctx, (void)d;
    return 1;
}

/* A number of the manifest's says how many files there may have been; a repair that ends looks for its own alone. */
Test(manifest_salvage, a_number_far_beyond_all_files_costs_a_repair_nothing, .timeout = 20)
{
    struct manifest m;
    struct version_edit e;
    struct buf record;
    buf_init(&record, alloc_global(), MEM_VERSION);
    version_edit_init(&e, alloc_global());
    version_edit_set_next_file(&e, (uint64_t)1 << 50);
    GOES(manifest_init(&m, disk, "/db", alloc_global()));
    GOES(manifest_create(&m, 1, manifest.number + 1, false));
    manifest_record_begin(&record);
    version_edit_encode(&e, &record);
    GOES(manifest_write(&m, &record));
    manifest_destroy(&m);
    buf_free(&record);
    version_edit_free(&e);
    CHECK_EQ(disk->remove(disk->ctx, "/db/CURRENT"), 0);
    const loam_options o = small_options(disk);
    CHECK_EQ(loam_repair("/db", &o, stop, NULL), LOAM_STOPPED);
}
