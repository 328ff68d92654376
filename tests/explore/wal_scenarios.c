/* wal_scenarios.c - Group syncs of the log: one leader, followers, failures, switches in between.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The log writes to a disk that is only a list of facts: which records had ended when a sync of
 * their file began, so that they survive. A wal_sync() that returns LOAM_OK promises that every
 * record below survives.
 */
#include "wal/wal_writer.h"

#include <errno.h>
#include <string.h>

#include "arena/epoch.h"
#include "arena/status.h"
#include "engine/commit.h"
#include "tests/explore/explore.h"

enum { RECORDS = 6, PAYLOAD = 16, LARGE = WAL_WRITE_MIN };

struct loam_file {
    unsigned char header[WAL_HEADER_PAGE]; /* the log reads it back */
};

static struct {
    struct wal wal;
    struct commit commit;
    struct loam_file file[4];
    unsigned files;
    struct {
        uint64_t begin, end;
        struct loam_file *file;
        _Atomic uint32_t ended, survives;
    } record[RECORDS];
    _Atomic uint32_t fail_large; /* the write of the next large record */
    uint64_t failed_at;      /* its position */
    struct loam_file *failed;
    _Atomic uint32_t syncs;
    uint32_t fail_at; /* number of the sync that fails; 0: none */
    bool counting;
    bool refused;
} d;

static int disk_open(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    (void)ctx;
    (void)path;
    (void)flags;
    EXPECT(d.files < 4);
    *f = &d.file[d.files++];
    return 0;
}

static int disk_close(void *ctx, loam_file *f)
{
    (void)ctx;
    (void)f;
    return 0;
}

static int64_t disk_write(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    (void)ctx;
    if (off + n <= sizeof f->header) {
        memcpy(f->header + off, buf, n);
    }
    bool fails = n > LARGE && atom_swap(&d.fail_large, 0, relaxed) != 0;
    return fails ? -EIO : (int64_t)n;
}

static int64_t disk_read(void *ctx, loam_file *f, void *buf, size_t n, uint64_t off)
{
    (void)ctx;
    EXPECT(off + n <= sizeof f->header);
    memcpy(buf, f->header + off, n);
    return (int64_t)n;
}

/* A sync takes what had ended when it began, and some time. */
static int disk_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    (void)ctx;
    (void)data_only;
    if (!d.counting) {
        return 0;
    }
    bool ended[RECORDS];
    for (unsigned i = 0; i < RECORDS; i++) {
        ended[i] = atom_load(&d.record[i].ended, acquire) != 0;
    }
    if (atom_add(&d.syncs, 1, relaxed) + 1 == d.fail_at) {
        return -EIO;
    }
    for (unsigned i = 0; i < RECORDS; i++) {
        if (ended[i] && d.record[i].file == f) {
            atom_store(&d.record[i].survives, 1, relaxed);
        }
    }
    return 0;
}

static int disk_reserve(void *ctx, loam_file *f, uint64_t off, uint64_t len)
{
    (void)ctx;
    (void)f;
    (void)off;
    (void)len;
    return 0;
}

static int disk_map(void *ctx, loam_file *f, uint64_t off, size_t len, void **p)
{
    (void)ctx;
    (void)off;
    EXPECT(f != NULL);
    *p = explore_memory(len);
    return 0;
}

static int disk_unmap(void *ctx, void *p, size_t len)
{
    (void)ctx;
    explore_free(p, len);
    return 0;
}

static int disk_advise(void *ctx, loam_file *f, uint64_t off, uint64_t len, uint32_t advice)
{
    (void)ctx;
    (void)f;
    (void)off;
    (void)len;
    (void)advice;
    return 0;
}

static int disk_sync_dir(void *ctx, const char *dir)
{
    (void)ctx;
    (void)dir;
    return 0;
}

static int disk_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    (void)from;
    (void)to;
    return 0;
}

static int disk_remove(void *ctx, const char *path)
{
    (void)ctx;
    (void)path;
    return 0;
}

static int disk_list(void *ctx, const char *dir, loam_name_fn fn, void *arg)
{
    (void)ctx;
    (void)dir;
    (void)fn;
    (void)arg;
    return 0;
}

static int disk_random(void *ctx, void *buf, size_t n)
{
    (void)ctx;
    memset(buf, 0x5c, n);
    return 0;
}

static const loam_vfs disk = {.struct_size = sizeof disk,
                              .name = "facts",
                              .open = disk_open,
                              .close = disk_close,
                              .read = disk_read,
                              .write = disk_write,
                              .sync = disk_sync,
                              .reserve = disk_reserve,
                              .map = disk_map,
                              .unmap = disk_unmap,
                              .advise = disk_advise,
                              .sync_dir = disk_sync_dir,
                              .rename = disk_rename,
                              .remove = disk_remove,
                              .list = disk_list,
                              .random = disk_random};

static void setup(void)
{
    const struct wal_options o = {.vfs = &disk,
                                  .dir = "log",
                                  .alloc = alloc_global(),
                                  .segment_bytes = 1 << 16,
                                  .window_bytes = 1 << 16,
                                  .start_position = 8,
                                  .first_number = 1,
                                  .first_generation = 1};
    EXPECT_EQ(wal_open(&d.wal, &o), LOAM_OK);
    commit_init(&d.commit, wal_position(&d.wal));
    d.counting = true;
}

static void setup_failing(void)
{
    setup();
    d.fail_at = 1;
}

/* Logs record i and publishes it; returns its end. */
static uint64_t log_one(unsigned i)
{
    struct wal_slot s;
    EXPECT_EQ(wal_begin(&d.wal, PAYLOAD, &s), LOAM_OK);
    d.record[i].end = s.end;
    d.record[i].file = wal_slot_of(&d.wal, s.generation)->file;
    memset(s.payload, (int)i, PAYLOAD);
    EXPECT_EQ(wal_end(&d.wal, &s, wal_durable(&d.wal)), LOAM_OK);
    atom_store(&d.record[i].ended, 1, release);
    commit_publish(&d.commit, s.position, s.end);
    return s.end;
}

/* Every record below `end`, all of which this thread knows to be published, survives. */
static void expect_survival(uint64_t end)
{
    for (unsigned i = 0; i < RECORDS; i++) {
        /* acquire: the fields above are set. A record without the mark is published later. */
        if (atom_load(&d.record[i].ended, acquire) != 0 && d.record[i].end <= end) {
            EXPECT(atom_load(&d.record[i].survives, relaxed) != 0);
        }
    }
}

static void put_durable(unsigned i)
{
    uint64_t end = log_one(i);
    int rc = wal_sync(&d.wal, end);
    if (rc == LOAM_OK) {
        EXPECT(wal_durable(&d.wal) >= end);
        expect_survival(end);
    } else {
        EXPECT(d.fail_at != 0);
        EXPECT_EQ(rc, LOAM_E_IO);
    }
}

static void group_body(unsigned thread)
{
    put_durable(thread);
    if (thread == 0) {
        put_durable(3);
    }
}

static void sync_check(void)
{
    expect_survival(wal_durable(&d.wal));
    EXPECT(d.fail_at != 0 || wal_durable(&d.wal) == wal_position(&d.wal));
}

SCENARIO(wal_sync_group, .says = "three ask for durability, one leads", .threads = 3,
         .flags = NO_LAPSE, .setup = setup, .body = group_body, .check = sync_check, .bound = 1)
SCENARIO(wal_sync_fails, .says = "the first sync fails: nobody is acknowledged behind it",
         .threads = 3, .flags = NO_LAPSE, .setup = setup_failing, .body = group_body,
         .check = sync_check, .bound = 1)

/* Switches to the next segment; returns its generation. boundary: of the one before. */
static uint32_t switch_segment(uint64_t *boundary)
{
    uint32_t next;
    EXPECT_EQ(wal_switch(&d.wal, PAYLOAD, boundary, &next), LOAM_OK);
    return next;
}

/* A switch in the midst: the records below lie in two files. */
static void switch_body(unsigned thread)
{
    if (thread == 0) {
        put_durable(0);
        put_durable(1);
    } else if (thread == 1) {
        uint64_t boundary;
        switch_segment(&boundary);
        put_durable(2);
    } else {
        put_durable(3);
    }
}

SCENARIO(wal_sync_switch, .says = "syncs over a switch of segments", .threads = 3,
         .flags = NO_LAPSE, .setup = setup, .body = switch_body, .check = sync_check, .bound = 1)

/* What runs behind the writers: windows mapped, segments released and recycled. */
static void release_body(unsigned thread)
{
    if (thread == 0) {
        put_durable(0);
        uint64_t boundary;
        uint32_t next = switch_segment(&boundary);
        commit_wait(&d.commit, boundary);
        for (unsigned i = 0; i < RECORDS; i++) { /* the flush has made these durable elsewhere */
            if (atom_load(&d.record[i].ended, acquire) != 0 && d.record[i].end <= boundary) {
                atom_store(&d.record[i].survives, 1, relaxed);
            }
        }
        wal_release(&d.wal, next);
    } else if (thread == 1) {
        put_durable(1);
        put_durable(2);
    } else {
        bool more;
        EXPECT_EQ(wal_keep(&d.wal, commit_visible(&d.commit), &more), LOAM_OK);
    }
}

SCENARIO(wal_release, .says = "a segment is released while others log, sync and map", .threads = 3,
         .flags = NO_LAPSE, .setup = setup, .body = release_body, .check = sync_check, .bound = 1)

/* The next segment is made while others write, and one of them wants it. */
static void prepare_body(unsigned thread)
{
    if (thread == 0) {
        put_durable(0);
        uint64_t boundary;
        switch_segment(&boundary);
        put_durable(1);
    } else if (thread == 1) {
        EXPECT_EQ(wal_prepare(&d.wal), LOAM_OK);
    } else {
        put_durable(2);
        EXPECT_EQ(wal_prepare(&d.wal), LOAM_OK);
    }
}

static void prepare_check(void)
{
    sync_check();
    EXPECT(d.files <= 3); /* nobody makes what another is making */
}

SCENARIO(wal_prepare, .says = "two prepare the next segment while one switches to it", .threads = 3,
         .flags = NO_LAPSE, .setup = setup, .body = prepare_body, .check = prepare_check, .bound = 1)

/* A segment's window is mapped ahead while its last record is written and the segment is dropped. */
static void setup_drop(void)
{
    uint64_t boundary;
    setup();
    EXPECT_EQ(switch_segment(&boundary), 2);
}

static void drop_body(unsigned thread)
{
    if (thread == 1) {
        EXPECT_EQ(wal_windows_first(&d.wal, 2, true), 0);
        return;
    }
    uint64_t boundary;
    (void)log_one(0);
    wal_release(&d.wal, switch_segment(&boundary));
    const struct wal_segment *gone = wal_slot_of(&d.wal, 2);
    EXPECT_EQ(atom_load(&gone->generation, relaxed), 0);
    for (unsigned k = 0; k < 2; k++) {
        EXPECT(atom_load(&gone->window[k], relaxed) == NULL);
    }
}

static void drop_check(void)
{
    /* What comes into the slot next must find no window of the old file. */
    EXPECT(atom_load(&wal_slot_of(&d.wal, 2)->window[0], relaxed) == NULL);
}

SCENARIO(wal_drop, .says = "a window is mapped ahead in a segment that is dropped", .threads = 2,
         .flags = NO_LAPSE, .setup = setup_drop, .body = drop_body, .check = drop_check, .bound = 1)

/* A large record is written at the tail while another thread reserves there, with switches when it must. */
static void setup_failing_append(void)
{
    setup();
    atom_store(&d.fail_large, 1, relaxed);
}

static void note(unsigned i, const struct wal_slot *s)
{
    d.record[i].begin = s->position;
    d.record[i].end = s->end;
    d.record[i].file = wal_slot_of(&d.wal, s->generation)->file;
}

static void append_large(unsigned i)
{
    struct wal_slot s;
    if (wal_begin(&d.wal, LARGE, &s) != LOAM_OK) {
        return; /* behind a failed one: full */
    }
    memset(s.payload, (int)i, LARGE);
    struct loam_file *file = wal_slot_of(&d.wal, s.generation)->file;
    if (wal_end(&d.wal, &s, 0) == LOAM_OK) {
        note(i, &s);
        commit_publish(&d.commit, s.position, s.end);
    } else {
        EXPECT_EQ(wal_void(&d.wal, &s), WAL_UNUSED);
        d.failed = file;
        d.failed_at = s.position;
    }
}

static void append_body(unsigned thread)
{
    if (thread == 0) {
        append_large(0);
        append_large(1);
        return;
    }
    for (unsigned i = 2; i < 4; i++) {
        struct wal_slot s;
        uint64_t boundary;
        while (wal_begin(&d.wal, PAYLOAD, &s) == WAL_FULL) {
            switch_segment(&boundary);
        }
        note(i, &s);
        memset(s.payload, (int)i, PAYLOAD);
        EXPECT_EQ(wal_end(&d.wal, &s, 0), LOAM_OK);
        commit_publish(&d.commit, s.position, s.end);
    }
}

static void append_check(void)
{
    for (unsigned i = 0; i < RECORDS; i++) {
        for (unsigned k = 0; k < i; k++) {
            EXPECT(d.record[i].end <= d.record[k].begin || d.record[k].end <= d.record[i].begin);
        }
        EXPECT(d.failed == NULL || d.record[i].file != d.failed || d.record[i].end <= d.failed_at);
    }
}

SCENARIO(wal_append, .says = "large records are written while small ones are stored", .threads = 2,
         .flags = NO_LAPSE, .setup = setup, .body = append_body, .check = append_check, .bound = 2)
SCENARIO(wal_append_fails, .says = "nothing follows a write that failed in its file", .threads = 2,
         .flags = NO_LAPSE, .setup = setup_failing_append, .body = append_body,
         .check = append_check, .bound = 2)

/* The keeper tells bytes that were written from bytes that were stored, whenever it looks. */
static void keep_body(unsigned thread)
{
    if (thread == 0) {
        append_large(0);
        append_large(1);
        return;
    }
    bool more;
    EXPECT_EQ(wal_keep(&d.wal, commit_visible(&d.commit), &more), LOAM_OK);
}

static void keep_check(void)
{
    EXPECT_EQ(d.wal.kept_stored, 8); /* where the log began */
}

SCENARIO(wal_keep, .says = "the keeper counts while large records are written", .threads = 2,
         .flags = NO_LAPSE, .setup = setup, .body = keep_body, .check = keep_check, .bound = 2)
