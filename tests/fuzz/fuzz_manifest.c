/* fuzz_manifest.c - Reads CURRENT and a manifest of any bytes, and builds the state they describe.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: a byte of flags (1 seal), 64 bytes for CURRENT, the manifest.
 */
#include "engine/keyspace_table.h"
#include "engine/manifest_replay.h"
#include "engine/version_build.h"
#include "tests/fuzz/fuzz_support.h"

static bool any_order(void *arg, uint32_t ks, const loam_comparator **cmp)
{
    (void)arg, (void)ks;
    *cmp = NULL;
    return true;
}

/* As opening does. */
static void install(struct manifest_replay *r)
{
    struct keyspace_table spaces;
    struct keyspace_change change;
    struct version_graveyard graveyard;
    CHECK_EQ(keyspace_table_init(&spaces, fuzz_alloc()), LOAM_OK);
    if (keyspace_change_prepare(&spaces, &r->keyspaces, r->file_id, &change) == LOAM_OK) {
        keyspace_change_commit(&spaces, &change);
    }
    uint32_t count = r->table_count;
    struct table **tables = manifest_replay_take(r);
    CHECK(tables != NULL);
    version_graveyard_init(&graveyard);
    const struct version_build b = {.alloc = fuzz_alloc(),
                                    .graveyard = &graveyard,
                                    .order = {any_order, NULL},
                                    .file_id = r->file_id};
    struct version *v;
    if (version_of_tables(&b, tables, count, &v) == LOAM_OK) {
        struct table *dead = NULL;
        CHECK_EQ(version_table_count(v), count);
        version_free(v, &dead);
    }
    for (uint32_t i = 0; i < count; i++) {
        table_free(tables[i]);
    }
    alloc_put(fuzz_alloc(), MEM_VERSION, tables, count * sizeof *tables);
    version_graveyard_destroy(&graveyard);
    keyspace_table_destroy(&spaces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    unsigned flags = (unsigned)fuzz_take(&in, 1);
    size_t current_size, n;
    const uint8_t *current_bytes = fuzz_bytes(&in, MANIFEST_CURRENT_BYTES, &current_size);
    const uint8_t *bytes = fuzz_bytes(&in, size, &n);
    uint8_t *current = fuzz_copy(current_bytes, current_size, 0),
            *manifest = fuzz_copy(bytes, n, 0);
    if ((flags & 1) != 0) {
        fuzz_seal_current(current, current_size);
        fuzz_seal_manifest(manifest, n);
    }
    fuzz_begin();
    loam_vfs *disk = fuzz_disk();
    fuzz_put(disk, "CURRENT", current, current_size);
    fuzz_put(disk, "MANIFEST-000000000001", manifest, n);
    struct manifest_current c;
    struct manifest_replay r;
    manifest_replay_init(&r, fuzz_alloc());
    if (manifest_read_current(disk, FUZZ_DIR, &c) == LOAM_OK &&
        manifest_replay_run(&r, disk, FUZZ_DIR, &c) == LOAM_OK) {
        (void)manifest_replay_check_files(&r, disk, FUZZ_DIR);
        install(&r);
    }
    manifest_replay_free(&r);
    loam_vfs_free(disk);
    free(current);
    free(manifest);
    fuzz_end(size);
    return 0;
}
