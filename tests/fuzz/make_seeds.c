/* make_seeds.c - Writes the inputs that fuzzing begins with: small whole files of every kind.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   fuzz-seeds DIRECTORY     makes DIRECTORY/<target>/seed-<n>; existing ones are replaced
 */
#include <sys/stat.h>

#include "arena/coding.h"
#include "arena/hash.h"
#include "engine/filename.h"
#include "engine/loam.h"
#include "engine/op.h"
#include "engine/version_edit.h"
#include "sstable/sst_builder.h"
#include "sstable/sst_format.h"
#include "tests/fuzz/fuzz_support.h"
#include "tests/support/memory_disk.h"
#include "wal/wal_format.h"

static const char *out_dir;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)data, (void)size;
    return 0;
}

static void save(const char *target, unsigned n, const struct buf *b)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", out_dir, target);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/%s/seed-%u", out_dir, target, n);
    FILE *f = fopen(path, "wb");
    CHECK(f != NULL && !b->oom);
    CHECK(fwrite(b->data, 1, b->size, f) == b->size && fclose(f) == 0);
}

static void start(struct buf *b)
{
    buf_init(b, alloc_global(), MEM_MISC);
}

static loam_slice text(const char *s)
{
    return loam_bytes(s, strlen(s));
}

/* What stands in a file of a disk. */
static void read_file(const loam_vfs *disk, const char *path, struct buf *to)
{
    loam_file *f;
    uint64_t size;
    CHECK_EQ(disk->open(disk->ctx, path, LOAM_VFS_READ, &f), 0);
    CHECK_EQ(disk->size(disk->ctx, f, &size), 0);
    uint8_t *p = buf_room(to, (size_t)size);
    CHECK(p != NULL);
    CHECK_EQ(disk->read(disk->ctx, f, p, (size_t)size, 0), size);
    to->size += (size_t)size;
    disk->close(disk->ctx, f);
}

/* ---- logs ------------------------------------------------------------------------------------ */

static void add_op(struct buf *b, enum entry_kind kind, uint32_t ks, loam_slice key,
                   loam_slice value)
{
    uint8_t head[OP_HEAD_MAX];
    buf_append(b, head, op_put_head(head, kind, ks, key.size, value.size));
    buf_append(b, key.data, key.size);
    buf_append(b, value.data, kind == ENTRY_PUT ? value.size : 0);
}

static void add_record(struct buf *file, uint64_t salt, uint64_t *position,
                       enum wal_record_type type, const struct buf *payload, uint32_t distance)
{
    size_t at = file->size, size = (size_t)wal_record_size(payload->size);
    uint8_t *p = buf_room(file, size);
    CHECK(p != NULL);
    memset(p, 0, size);
    wal_record_header_put(p, *position, (uint32_t)payload->size, type, distance);
    memcpy(p + WAL_RECORD_HEADER, payload->data, payload->size);
    put_fixed64(p, checksum64(p + 8, (size_t)wal_record_covered(type, payload->size), salt));
    file->size = at + size;
    *position += size;
}

static void seed_logs(void)
{
    for (unsigned n = 0; n < 3; n++) {
        struct buf b, payload;
        uint8_t page[WAL_HEADER_PAGE];
        uint64_t position = 64;
        const struct wal_file_header h = {
            .db_id = FUZZ_ID, .number = 7, .salt = 99 + n, .capacity = 1 << 16};
        start(&b);
        start(&payload);
        wal_file_header_encode(page, &h);
        buf_append_u8(&b, (uint8_t)(n * 3));
        buf_append(&b, page, FUZZ_LOG_HEAD - 8);
        buf_append(&b, page + WAL_HEADER_PAGE - 8, 8);
        for (unsigned i = 0; i < 3; i++) {
            buf_clear(&payload);
            add_op(&payload, ENTRY_PUT, i, text("key"), text("a value"));
            add_op(&payload, ENTRY_DELETE, 0, text("gone"), loam_bytes("", 0));
            add_record(&b, h.salt, &position, i == 1 && n == 1 ? WAL_TYPE_VOID : WAL_TYPE_OPS,
                       &payload, n == 2 ? WAL_DURABLE_UNKNOWN : i);
        }
        save("log", n, &b);
        if (n == 0) {
            save("batch", 0, &payload);
        }
        buf_free(&b);
        buf_free(&payload);
    }
}

/* ---- tables ---------------------------------------------------------------------------------- */

static void build_table(const loam_vfs *disk, unsigned keys, uint32_t compression, struct buf *to)
{
    const struct sst_build_options o = {.vfs = disk,
                                        .alloc = alloc_global(),
                                        .path = FUZZ_DIR "/000000000005.sst",
                                        .file_number = 5,
                                        .db_id = FUZZ_ID,
                                        .block_bytes = 512,
                                        .filter_bits = keys > 4 ? 10 : 0,
                                        .compression = compression};
    struct sst_builder *b;
    struct sst_info info;
    CHECK_EQ(sst_builder_open(&b, &o), LOAM_OK);
    for (unsigned i = 0; i < keys; i++) {
        char key[16], value[48];
        snprintf(key, sizeof key, "key%03u", i);
        snprintf(value, sizeof value, "value value value %u", i * i);
        for (unsigned v = 0; v <= i % 2; v++) {
            struct entry e = {.key = text(key),
                              .tag = entry_tag(900 - v - i, i % 5 == 4 ? ENTRY_DELETE : ENTRY_PUT),
                              .value = i % 5 == 4 ? loam_bytes("", 0) : text(value)};
            CHECK_EQ(sst_builder_add(b, &e, 0), LOAM_OK);
        }
    }
    CHECK_EQ(sst_builder_finish(b, &info), LOAM_OK);
    sst_builder_free(b);
    read_file(disk, o.path, to);
}

static void seed_tables(void)
{
    static const unsigned keys[] = {1, 12, 40};
    for (unsigned n = 0; n < 9; n++) {
        loam_vfs *disk = fuzz_disk();
        struct buf b;
        start(&b);
        buf_append_u8(&b, n >= 6 ? 8 : n >= 3 ? 5 : 0);
        build_table(disk, keys[n % 3], n >= 3 ? LOAM_COMPRESS_NONE : LOAM_COMPRESS_LZ4, &b);
        save("table", n, &b);
        loam_vfs_free(disk);
        buf_free(&b);
    }
}

/* The parts of an uncompressed table that have targets of their own. */
static void seed_parts(void)
{
    loam_vfs *disk = fuzz_disk();
    struct buf file, b;
    start(&file);
    start(&b);
    build_table(disk, 12, LOAM_COMPRESS_NONE, &file);
    const uint8_t *footer = file.data + file.size - SST_FOOTER_SIZE;
    uint64_t first = SST_HEADER_SIZE + get_fixed32(file.data + SST_HEADER_SIZE + 8);
    uint8_t key_max[2] = {200, 0};
    buf_append(&b, key_max, 2);
    buf_append(&b, file.data + SST_HEADER_SIZE, (size_t)first - SST_HEADER_SIZE);
    save("block", 0, &b);
    buf_set(&b, file.data + get_fixed64(footer + 8),
            (size_t)get_fixed64(footer + 16) - SST_TRAILER_SIZE);
    save("filter", 0, &b);
    buf_free(&file);
    buf_free(&b);
    loam_vfs_free(disk);
}

/* ---- whole databases ------------------------------------------------------------------------- */

struct packing {
    const loam_vfs *disk;
    struct buf *out;
    unsigned logs;
    uint8_t seal;
};

/* A log segment whose header tells of no more room than its records take. */
static void shorten_log(struct buf *b)
{
    CHECK(b->size >= WAL_HEADER_PAGE);
    uint64_t records = b->size - WAL_HEADER_PAGE, page = WAL_HEADER_PAGE;
    put_fixed64(b->data + 40, (records / page + 1) * page); /* the capacity */
    put_fixed64(b->data + page - 8, checksum64(b->data, page - 8, 0));
}

static int pack_file(void *ctx, loam_slice name)
{
    struct packing *p = ctx;
    enum file_kind kind;
    uint64_t number;
    char path[64];
    struct buf b;
    if (!filename_parse(name, &kind, &number) || kind == FILE_LOCK || kind == FILE_RESERVE) {
        return 0; /* no part of the state */
    }
    start(&b);
    snprintf(path, sizeof path, FUZZ_DIR "/%.*s", (int)name.size, (const char *)name.data);
    read_file(p->disk, path, &b);
    if (kind == FILE_LOG) {
        while (b.size > WAL_HEADER_PAGE && b.data[b.size - 1] == 0) {
            b.size--;
        }
        shorten_log(&b);
        memmove(b.data + FUZZ_LOG_HEAD - 8, b.data + WAL_HEADER_PAGE - 8,
                b.size - (WAL_HEADER_PAGE - 8));
        b.size -= WAL_HEADER_PAGE - FUZZ_LOG_HEAD;
    }
    CHECK(b.size <= UINT16_MAX);
    const uint8_t head[] = {(uint8_t)kind, (uint8_t)number, p->seal, (uint8_t)b.size,
                            (uint8_t)(b.size >> 8)};
    buf_append(p->out, head, sizeof head);
    buf_append(p->out, b.data, b.size);
    buf_free(&b);
    return 0;
}

static void fill(loam_db *db, unsigned n)
{
    loam_ks *ks = NULL;
    CHECK_EQ(loam_put(db, NULL, LOAM_LIT("a"), LOAM_LIT("1"), NULL), LOAM_OK);
    if (n % 3 != 0) {
        CHECK_EQ(loam_ks_open(db, "other", NULL, &ks), LOAM_OK);
        CHECK_EQ(loam_put(db, ks, LOAM_LIT("b"), LOAM_LIT("22"), NULL), LOAM_OK);
        CHECK_EQ(loam_flush(db, NULL), LOAM_OK);
        CHECK_EQ(loam_delete(db, NULL, LOAM_LIT("a"), NULL), LOAM_OK);
        CHECK_EQ(loam_put(db, ks, LOAM_LIT("c"), LOAM_LIT("333"), NULL), LOAM_OK);
    }
    if (n % 3 == 2) {
        CHECK_EQ(loam_compact(db, ks, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0), LOAM_OK);
        CHECK_EQ(loam_put(db, ks, LOAM_LIT("d"), LOAM_LIT("4"), NULL), LOAM_OK);
        CHECK_EQ(loam_ks_rename(db, "other", "renamed"), LOAM_OK);
    }
    loam_ks_release(ks);
}

/* n / 3: 0 closed, 1 killed. */
static void seed_directory(unsigned n, uint8_t seal)
{
    loam_vfs *disk, *fault, *after;
    loam_fault_plan plan = {.struct_size = sizeof plan};
    disk = memory_disk();
    CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
    const loam_options o = {.struct_size = sizeof o,
                            .memory_budget = 1 << 20,
                            .threads = 1,
                            .sync_interval_ms = UINT32_MAX,
                            .vfs = fault};
    loam_db *db;
    struct buf b;
    start(&b);
    CHECK_EQ(loam_open(FUZZ_DIR, &o, &db), LOAM_OK);
    fill(db, n);
    if (n / 3 == 0) {
        CHECK_EQ(loam_close(db), LOAM_OK);
    }
    CHECK_EQ(loam_vfs_power_cut(fault, 0, &after), LOAM_OK);
    buf_append_u8(&b, n == 5 ? 5 : (uint8_t)(n & 2));
    struct packing p = {.disk = after, .out = &b, .seal = seal};
    CHECK(after->list(after->ctx, FUZZ_DIR, pack_file, &p) >= 0);
    save("directory", n + 6 * seal, &b);
    buf_clear(&b);
    buf_append_u8(&b, seal);
    read_file(after, FUZZ_DIR "/CURRENT", &b);
    read_file(after, FUZZ_DIR "/MANIFEST-000000000001", &b);
    save("manifest", n + 6 * seal, &b);
    if (n / 3 != 0) {
        CHECK_EQ(loam_close(db), LOAM_OK);
    }
    buf_free(&b);
    loam_vfs_free(after);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void seed_edit(void)
{
    struct version_edit e;
    struct buf b;
    start(&b);
    version_edit_init(&e, alloc_global());
    const struct table_meta m = {.number = 5,
                                 .size = 1000,
                                 .entries = 10,
                                 .deletes = 1,
                                 .raw_bytes = 500,
                                 .checksum = 77,
                                 .min_seq = 8,
                                 .max_seq = 20,
                                 .smallest = LOAM_LIT("a"),
                                 .largest = LOAM_LIT("z")};
    const struct ks_desc d = {.id = 1,
                              .compression = LOAM_COMPRESS_LZ4,
                              .filter_bits = 10,
                              .block_bytes = 4096,
                              .name = LOAM_LIT("name"),
                              .comparator = LOAM_LIT("order")};
    const struct dead_note n = {
        .ks = 1, .hi_behind = true, .from = 20, .lo = LOAM_LIT("b"), .hi = LOAM_LIT("y")};
    CHECK_EQ(version_edit_add_table(&e, &m), LOAM_OK);
    CHECK_EQ(version_edit_create_ks(&e, &d), LOAM_OK);
    CHECK_EQ(version_edit_remove_table(&e, 1, 3, 4), LOAM_OK);
    CHECK_EQ(version_edit_rename_ks(&e, 1, LOAM_LIT("other")), LOAM_OK);
    CHECK_EQ(version_edit_drop_ks(&e, 2), LOAM_OK);
    version_edit_set_log_number(&e, 3, false);
    version_edit_set_next_file(&e, 9);
    version_edit_set_last_seq(&e, 30);
    version_edit_set_sealed(&e, 3, 64);
    version_edit_set_next_ks(&e, 3);
    CHECK_EQ(version_edit_add_dead(&e, &n), LOAM_OK);
    version_edit_encode(&e, &b);
    save("edit", 0, &b);
    version_edit_free(&e);
    buf_free(&b);
}

static void seed_plain(void)
{
    static const char *const commands[] = {
        "--db\nd\nput\n--create\nkey\nvalue\n\n",
        "d\nget\nkey\n--raw\n\n",
        ("d\nload\n-f\nin\n\nVERSION=3\nformat=print\ntype=btree\nHEADER=END\n key\n val\\0aue\n"
         "DATA=END\n"),
        "d\nload\n\nVERSION=3\nformat=bytevalue\ndatabase=ks\nHEADER=END\n 6b\n 76\nDATA=END\n",
        "d\nscan\n--hex\n--from\n00ff\n--limit\n3\n--reverse\n\n",
        "sst\nin\n--entries\n\nLOAMSST\n",
        "wal\nin\n\nloamlog\n",
        "verify\nd\n--json\n\n",
        "d\ndump\n--all\n-p\n\n",
        "--help\n\n",
    };
    static const uint8_t coding[] = {0, 0xff, 0x80, 1, 1, 5, 2, 3, 'a', 'b', 'c', 3, 1, 2, 3,
                                     4, 4,    1,    2, 3, 4, 5, 6, 7,   8,   5,   2, 9, 9};
    struct buf b;
    start(&b);
    for (unsigned i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        buf_set(&b, commands[i], strlen(commands[i]));
        save("cli", i, &b);
    }
    buf_set(&b, coding, sizeof coding);
    save("coding", 0, &b);
    for (unsigned i = 0; i < 2; i++) {
        const loam_ks_options k = {.struct_size = sizeof k, .block_bytes = 4096 * i};
        const loam_options o = {
            .struct_size = sizeof o, .memory_budget = (uint64_t)i << 22, .threads = 2 * i};
        buf_clear(&b);
        buf_append_u8(&b, (uint8_t)(31 * i));
        buf_append(&b, &k, sizeof k);
        buf_append(&b, &o, sizeof o);
        save("options", i, &b);
    }
    buf_free(&b);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    out_dir = argv[1];
    mkdir(out_dir, 0755);
    seed_logs();
    seed_tables();
    seed_parts();
    for (unsigned n = 0; n < 6; n++) {
        seed_directory(n, 0);
        seed_directory(n, 1);
    }
    seed_edit();
    seed_plain();
    return 0;
}
