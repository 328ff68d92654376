/* version_set_support.h - A version set without a database around it, its tables empty files.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_ENGINE_VERSION_SET_SUPPORT_H_
#define LOAM_TESTS_ENGINE_VERSION_SET_SUPPORT_H_

#include "arena/epoch.h"
#include "engine/loam.h"
#include "engine/version_set.h"
#include "tests/support/check.h"
#include "tests/support/memory_disk.h"

#define TABLES_MAX 256

/* In /db. */
struct db {
    const loam_vfs *vfs;
    struct alloc alloc;
    struct obsolete_files obsolete;
    struct version_set vs;
};

static inline void db_start(struct db *d, const loam_vfs *vfs, bool read_only,
                            uint64_t manifest_bytes)
{
    memset(d, 0, sizeof *d);
    d->vfs = vfs;
    alloc_init(&d->alloc, NULL, UINT64_MAX);
    obsolete_files_init(&d->obsolete, vfs, "/db", &d->alloc);
    struct version_set_options o = {.vfs = vfs,
                                    .dir = "/db",
                                    .alloc = &d->alloc,
                                    .obsolete = &d->obsolete,
                                    .manifest_bytes = manifest_bytes,
                                    .read_only = read_only};
    CHECK_EQ(version_set_create(&d->vs, &o), LOAM_OK);
}

static inline void db_stop(struct db *d)
{
    version_set_destroy(&d->vs);
    obsolete_files_destroy(&d->obsolete);
    CHECK_EQ(alloc_used(&d->alloc), 0);
}

static inline void default_ks(struct version_edit *e)
{
    struct ks_desc k = {.id = KS_DEFAULT,
                        .compression = LOAM_COMPRESS_LZ4,
                        .filter_bits = 10,
                        .block_bytes = 4096,
                        .name = LOAM_LIT("default")};
    CHECK_EQ(version_edit_create_ks(e, &k), LOAM_OK);
}

static inline int make_db(struct db *d)
{
    struct version_edit e;
    version_edit_init(&e, &d->alloc);
    default_ks(&e);
    int rc = version_set_make(&d->vs, &e);
    version_edit_free(&e);
    return rc;
}

/* Makes a database on an empty disk. */
static inline void db_new(struct db *d, const loam_vfs *vfs, uint64_t manifest_bytes)
{
    db_start(d, vfs, false, manifest_bytes);
    CHECK_EQ(version_set_recover(&d->vs), LOAM_E_NOENT);
    CHECK_EQ(make_db(d), LOAM_OK);
}

static inline void db_reopen(struct db *d, const loam_vfs *vfs, uint64_t manifest_bytes)
{
    db_stop(d);
    db_start(d, vfs, false, manifest_bytes);
    CHECK_EQ(version_set_recover(&d->vs), LOAM_OK);
}

/* A table's file, made as the engine does: written, synced, its name synced. */
static inline int make_file(const loam_vfs *vfs, uint64_t number)
{
    char path[FILENAME_CAP];
    loam_file *f;
    CHECK_EQ(filename_make("/db", FILE_TABLE, number, path), LOAM_OK);
    int rc = vfs->open(vfs->ctx, path, LOAM_VFS_WRITE | LOAM_VFS_NEW, &f);
    if (rc < 0) {
        return rc;
    }
    rc = vfs->sync(vfs->ctx, f, 0);
    int rc2 = vfs->close(vfs->ctx, f);
    rc = rc < 0 ? rc : rc2;
    return rc < 0 ? rc : vfs->sync_dir(vfs->ctx, "/db");
}

static inline void add_table(struct version_edit *e, uint32_t ks, uint8_t level, uint64_t number)
{
    char key[16];
    int n = snprintf(key, sizeof key, "k%06llu", (unsigned long long)number);
    struct table_meta m = {.number = number,
                           .size = 1000,
                           .entries = 10,
                           .raw_bytes = 2000,
                           .checksum = number * 77,
                           .min_seq = number,
                           .max_seq = number,
                           .ks = ks,
                           .level = level,
                           .smallest = loam_bytes(key, (size_t)n),
                           .largest = loam_bytes(key, (size_t)n)};
    CHECK_EQ(version_edit_add_table(e, &m), LOAM_OK);
}

struct numbers { /* of tables */
    uint64_t n[TABLES_MAX];
    uint32_t count;
};

static inline bool contains(const struct numbers *s, uint64_t n)
{
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->n[i] == n) {
            return true;
        }
    }
    return false;
}

static inline struct numbers tables_of(struct version_set *vs)
{
    struct numbers s = {.count = 0};
    epoch_enter();
    const struct version *v = version_set_current(vs);
    for (uint32_t k = 0; k < v->ks_count; k++) {
        for (int l = 0; l < LEVEL_COUNT; l++) {
            for (uint32_t i = 0; i < v->ks[k]->level[l].count; i++) {
                CHECK(s.count < TABLES_MAX);
                s.n[s.count++] = v->ks[k]->level[l].tables[i]->meta.number;
            }
        }
    }
    epoch_exit();
    return s;
}

static inline bool same(const struct numbers *a, const struct numbers *b)
{
    bool ok = a->count == b->count;
    for (uint32_t i = 0; ok && i < a->count; i++) {
        ok = contains(b, a->n[i]);
    }
    return ok;
}

/* One edit: a table comes, and sometimes the oldest goes. Returns apply's result; *after is what
 * the edit would lead to. */
static inline int step(struct db *d, const struct numbers *before, bool drop_oldest,
                       struct numbers *after)
{
    struct version_edit e;
    version_edit_init(&e, &d->alloc);
    uint64_t number = version_set_new_file(&d->vs);
    *after = *before;
    int rc = make_file(d->vfs, number);
    if (rc >= 0) {
        if (drop_oldest && after->count != 0) {
            CHECK_EQ(version_edit_remove_table(&e, KS_DEFAULT, 0, after->n[0]), LOAM_OK);
            memmove(after->n, after->n + 1, --after->count * sizeof after->n[0]);
        }
        add_table(&e, KS_DEFAULT, 0, number);
        after->n[after->count++] = number;
        version_edit_set_log_number(&e, number, false);
        rc = version_set_apply(&d->vs, &e);
    } else {
        rc = LOAM_E_IO;
        *after = *before;
    }
    version_edit_free(&e);
    obsolete_files_purge(&d->obsolete);
    return rc;
}

#endif
