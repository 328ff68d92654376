/* fuzz_directory.c - Checks, opens, reads, writes and reopens a database made of files of any bytes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: a byte of flags (1 and 4 read-only, 2 paranoid, 8 repair first), then files: kind, number, flags (1 seal), two
 * bytes of size, bytes; a log segment as fuzz_put_log() takes it. A database that opens and reads
 * without an error must agree with itself - scans both ways, gets - and one that took a write must
 * have it after a reopen.
 *
 * Opening for writing, flushing and closing cost ten times what checking and reading cost, and an
 * input decides little of what they do: one of ten, by its checksum, is opened for writing. The others are
 * checked, and then opened read-only and read, unless the check has already met what the open would.
 */
#include "arena/hash.h"
#include "engine/filename.h"
#include "engine/loam.h"
#include "tests/fuzz/fuzz_support.h"

#define LOG_ZEROS_MAX (64u << 10) /* a segment's capacity here, see lean_support.c */
#define WHOLE_EVERY   10u

static void put_files(const loam_vfs *disk, struct fuzz_input *in)
{
    static const enum file_kind kinds[] = {FILE_LOG,     FILE_TABLE, FILE_MANIFEST,
                                           FILE_CURRENT, FILE_LOCK,  FILE_TEMP};
    for (unsigned i = 0; i < 16 && in->left > 5; i++) {
        char name[FILENAME_BASE_CAP];
        enum file_kind kind = kinds[fuzz_take(in, 1) % 6];
        filename_base(kind, fuzz_take(in, 1), name);
        bool seal = (fuzz_take(in, 1) & 1) != 0;
        size_t n;
        size_t want = (size_t)fuzz_take(in, 2);
        const uint8_t *p = fuzz_bytes(in, want, &n);
        if (kind == FILE_LOG) {
            fuzz_put_log(disk, name, p, n, seal, LOG_ZEROS_MAX);
            continue;
        }
        uint8_t *copy = fuzz_copy(p, n, 0);
        if (seal && kind == FILE_TABLE) {
            fuzz_seal_table(copy, n);
        } else if (seal && kind == FILE_MANIFEST) {
            fuzz_seal_manifest(copy, n);
        } else if (seal && kind == FILE_CURRENT) {
            fuzz_seal_current(copy, n);
        }
        fuzz_put(disk, name, copy, n);
        free(copy);
    }
}

/* The sum of what a scan sees, one way or the other; < 0: an error. */
static int scan(loam_db *db, loam_ks *ks, bool forward, uint64_t *count)
{
    loam_iter *it;
    int rc = loam_iter_open(db, ks, NULL, &it);
    if (rc < 0) {
        return rc;
    }
    *count = 0;
    for (rc = forward ? loam_iter_first(it) : loam_iter_last(it); rc == LOAM_OK && *count < 10000;
         rc = forward ? loam_iter_next(it) : loam_iter_prev(it)) {
        loam_slice key = loam_iter_key(it), value = loam_iter_value(it);
        loam_pin pin = LOAM_PIN_INIT;
        fuzz_touch(value);
        ++*count;
        int got = loam_get_pin(db, ks, key, &pin, NULL);
        if (got == LOAM_OK) {
            CHECK_BYTES(pin.value.data, pin.value.size, value.data, value.size);
        }
        /* A hostile filter may hide a key from gets: sealed, it says what it likes. */
        loam_unpin(&pin);
    }
    loam_iter_close(it);
    return rc == LOAM_NOTFOUND ? LOAM_OK : rc;
}

struct name_list {
    char name[8][256];
    unsigned count;
};

static int note_name(void *ctx, loam_slice name)
{
    struct name_list *l = ctx;
    if (l->count < 8 && name.size < 256) {
        memcpy(l->name[l->count], name.data, name.size);
        l->name[l->count++][name.size] = '\0';
    }
    return 0;
}

static int read_all(loam_db *db)
{
    static struct name_list l;
    l.count = 0;
    int worst = loam_ks_list(db, note_name, &l);
    for (unsigned i = 0; i < l.count; i++) {
        loam_ks *ks = NULL;
        uint64_t forward = 0, backward = 0;
        int rc = loam_ks_open(db, l.name[i], NULL, &ks);
        rc = rc < 0 ? rc : scan(db, ks, true, &forward);
        rc = rc < 0 ? rc : scan(db, ks, false, &backward);
        if (rc == LOAM_OK) {
            CHECK_EQ(forward, backward);
        }
        worst = rc < 0 ? rc : worst;
        loam_ks_release(ks);
    }
    return worst;
}

/* Whatever it is: only what must not happen is a failure here. */
static void any(int rc)
{
    (void)rc;
}

static void write_some(loam_db *db, const loam_options *o)
{
    const loam_write_opts w = {.struct_size = sizeof w, .flags = LOAM_W_DURABLE};
    char buf[16];
    size_t n;
    bool wrote = loam_put(db, NULL, LOAM_LIT("~new"), LOAM_LIT("value"), &w) == LOAM_OK;
    any(loam_flush(db, NULL));
    int rc = loam_close(db);
    if (!wrote || loam_open(FUZZ_DIR, o, &db) < 0) {
        /* What a flush or a merge met is not for this target to judge. */
        return;
    }
    rc = loam_get(db, NULL, LOAM_LIT("~new"), buf, sizeof buf, &n, NULL);
    if (rc >= 0) {
        CHECK_EQ(rc, LOAM_OK);
        CHECK_BYTES(buf, n, "value", 5);
    }
    (void)read_all(db);
    (void)loam_close(db);
}

/* What a check, or a repair and a check, say of the directory. */
static int judge(const loam_options *o, bool repair)
{
    int checked = loam_check(FUZZ_DIR, o, NULL, NULL);
    if (repair && loam_repair(FUZZ_DIR, o, NULL, NULL) == LOAM_OK) {
        checked = loam_check(FUZZ_DIR, o, NULL, NULL);
        if (checked != LOAM_OK) {
            CHECK_FAIL_("repaired, but: %s", loam_last_error()->message);
        }
    }
    return checked;
}

/* Opens and reads it, and writes to it when it opens for writing. */
static int use(const loam_options *o)
{
    loam_db *db;
    int rc = loam_open(FUZZ_DIR, o, &db);
    if (rc != LOAM_OK) {
        return rc;
    }
    rc = read_all(db);
    any(loam_verify(db, NULL, NULL));
    if ((o->flags & LOAM_OPEN_READONLY) != 0) {
        (void)loam_close(db);
    } else {
        write_some(db, o);
    }
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    unsigned flags = (unsigned)fuzz_take(&in, 1);
    bool whole = checksum64(data, size, 0) % WHOLE_EVERY == 0;
    bool read_only = (flags & 5) == 5;
    fuzz_begin();
    loam_vfs *disk = fuzz_disk();
    put_files(disk, &in);
    loam_options o = {.struct_size = sizeof o,
                      .flags = LOAM_OPEN_MUST_EXIST | ((flags & 2) != 0 ? LOAM_OPEN_PARANOID : 0),
                      .memory_budget = 1 << 20,
                      .threads = 1,
                      .sync_interval_ms = UINT32_MAX,
                      .vfs = disk,
                      .allocator = fuzz_allocator()};
    int checked = judge(&o, (flags & 8) != 0), rc = LOAM_OK;
    o.flags |= read_only || !whole ? LOAM_OPEN_READONLY : 0;
    if (whole || checked == LOAM_OK) {
        rc = use(&o);
    }
    /* What the check calls sound can be opened and read. */
    if (checked == LOAM_OK && rc != LOAM_OK && rc != LOAM_E_FORMAT && rc != LOAM_E_TOOBIG &&
        rc != LOAM_E_BUDGET) {
        CHECK_FAIL_("the check finds nothing, but: %s", loam_last_error()->message);
    }
    loam_vfs_free(disk);
    fuzz_end(size);
    return 0;
}
