/* vfs_stress.c - Threads write, map, rename and cut the power of one memory disk at once.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The oracle: each thread owns a file whose bytes all hold the number of its last synced round or a
 * later one, in every cut that keeps only what was synced.
 */
#include "arena/vfs.h"

#include "arena/atomic.h"
#include "tests/support/check.h"
#include "tests/support/stress.h"

#define FILE_BYTES        16384u
#define VFS(v, call, ...) ((v)->call((v)->ctx, __VA_ARGS__))

struct shared {
    loam_vfs *vfs;
    _Atomic unsigned writers;
    _Atomic uint32_t synced[8]; /* round that each writer's file surely holds */
};

static void name_of(char *path, unsigned i)
{
    snprintf(path, 16, "/f%u", i);
}

static void write_rounds(struct crew_member *m)
{
    struct shared *s = m->shared;
    char path[16], other[16];
    name_of(path, m->index);
    snprintf(other, sizeof other, "/t%u", m->index);
    loam_file *f;
    void *p;
    CHECK_EQ(VFS(s->vfs, open, path, LOAM_VFS_READ | LOAM_VFS_WRITE, &f), 0);
    CHECK_EQ(VFS(s->vfs, map, f, 4096, FILE_BYTES / 2, &p), 0);
    uint8_t bytes[FILE_BYTES];
    for (uint32_t round = 1; round < 100 * stress_scale && round < 250; round++) {
        memset(bytes, (int)round, sizeof bytes);
        memcpy(p, bytes, FILE_BYTES / 2);
        CHECK_EQ(VFS(s->vfs, write, f, bytes, 4096, 0), 4096);
        CHECK_EQ(VFS(s->vfs, write, f, bytes, 4096, 12288), 4096);
        CHECK_EQ(VFS(s->vfs, sync, f, 1), 0);
        /* release: pairs with the acquire of the cutter; a cut begun after it holds the round */
        atom_store(&s->synced[m->index], round, release);
        CHECK_EQ(VFS(s->vfs, rename, path, other), 0);
        CHECK_EQ(VFS(s->vfs, rename, other, path), 0);
    }
    CHECK_EQ(VFS(s->vfs, unmap, p, FILE_BYTES / 2), 0);
    CHECK_EQ(VFS(s->vfs, close, f), 0);
    atom_sub(&s->writers, 1, release); /* pairs with the acquire below; only ends the test */
}

static void check_cut(struct shared *s, unsigned writers)
{
    uint32_t least[8];
    for (unsigned i = 0; i < writers; i++) {
        least[i] = atom_load(&s->synced[i], acquire); /* pairs with the release of the writer */
    }
    loam_vfs *after;
    CHECK_EQ(loam_vfs_power_cut(s->vfs, 1, &after), LOAM_OK);
    for (unsigned i = 0; i < writers; i++) {
        char path[16];
        name_of(path, i);
        loam_file *f;
        uint8_t bytes[FILE_BYTES];
        CHECK_EQ(VFS(after, open, path, LOAM_VFS_READ, &f), 0);
        CHECK_EQ(VFS(after, read, f, bytes, sizeof bytes, 0), FILE_BYTES);
        for (size_t b = 0; b < sizeof bytes; b++) {
            CHECK(bytes[b] == bytes[0]);
        }
        CHECK(bytes[0] >= least[i]);
        CHECK_EQ(VFS(after, close, f), 0);
    }
    loam_vfs_free(after);
}

static void member(struct crew_member *m)
{
    struct shared *s = m->shared;
    if (m->index + 1 < m->count) {
        write_rounds(m);
        return;
    }
    while (atom_load(&s->writers, acquire) != 0) { /* pairs with the release of each writer */
        check_cut(s, m->count - 1);
    }
    check_cut(s, m->count - 1);
}

STRESS(vfs, synced_rounds_survive_every_cut)
{
    static struct shared s;
    loam_vfs *disk;
    loam_fault_plan plan = {.struct_size = sizeof plan, .seed = seed};
    CHECK_EQ(loam_vfs_memory(&disk), LOAM_OK);
    CHECK_EQ(loam_vfs_fault(disk, &plan, &s.vfs), LOAM_OK);
    atom_store(&s.writers, 3, relaxed); /* relaxed: threads start later */
    for (unsigned i = 0; i < 3; i++) {
        char path[16];
        name_of(path, i);
        loam_file *f;
        CHECK_EQ(VFS(s.vfs, open, path, LOAM_VFS_WRITE | LOAM_VFS_NEW, &f), 0);
        CHECK_EQ(VFS(s.vfs, reserve, f, 0, FILE_BYTES), 0);
        CHECK_EQ(VFS(s.vfs, sync, f, 0), 0);
        CHECK_EQ(VFS(s.vfs, close, f), 0);
    }
    CHECK_EQ(VFS(s.vfs, sync_dir, "/"), 0);
    crew_run(4, member, &s, seed);
    loam_vfs_free(s.vfs);
    loam_vfs_free(disk);
}
