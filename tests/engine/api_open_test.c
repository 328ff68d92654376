/* api_open_test.c - Opening: modes, locks, and directories that hold something else.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the comments of loam.h. "Nothing is touched" is checked with a hash over every name, size
 * and byte of the directory before and after.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena/coding.h"
#include "arena/hash.h"
#include "sstable/sst_format.h"
#include "tests/engine/db_support.h"
#include "tests/support/model.h"

static char dir[256];

static void set_up(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/loam-open-XXXXXX", tmp != NULL ? tmp : "/tmp");
    CHECK(mkdtemp(dir) != NULL);
}

static const char *in_dir(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void tear_down(void)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    while (d != NULL && (e = readdir(d)) != NULL) {
        unlink(in_dir(e->d_name));
    }
    if (d != NULL) {
        closedir(d);
    }
    rmdir(dir);
}

TestSuite(api_open, .init = set_up, .fini = tear_down);

/* Order of names does not matter: the files' hashes are added up. */
static uint64_t directory_hash(void)
{
    uint64_t sum = 0;
    DIR *d = opendir(dir);
    CHECK(d != NULL);
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        int fd = open(in_dir(e->d_name), O_RDONLY);
        CHECK(fd >= 0);
        sum += hash_key(e->d_name, strlen(e->d_name)) | 1;
        static char buf[1 << 16];
        ssize_t n;
        uint64_t at = 1;
        while ((n = read(fd, buf, sizeof buf)) > 0) {
            sum += hash_key(buf, (size_t)n) * at;
            at += 2;
        }
        close(fd);
    }
    closedir(d);
    return sum;
}

static int open_with(uint32_t flags, loam_db **db)
{
    loam_options o = small_options(NULL);
    o.flags = flags;
    return loam_open(dir, &o, db);
}

static void fill_database(void)
{
    loam_db *db;
    GOES(open_with(0, &db));
    put_text(db, NULL, "k", "v");
    GOES(loam_flush(db, NULL));
    put_text(db, NULL, "k2", "v2");
    GOES(loam_close(db));
}

/* The first file whose name has this text in it. */
static const char *find_file(const char *part)
{
    static char found[256];
    DIR *d = opendir(dir);
    struct dirent *e;
    found[0] = '\0';
    while ((e = readdir(d)) != NULL) {
        if (strstr(e->d_name, part) != NULL) {
            snprintf(found, sizeof found, "%.200s", e->d_name);
        }
    }
    closedir(d);
    CHECK(found[0] != '\0');
    return in_dir(found);
}

static void write_file(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    CHECK_EQ(write(fd, data, size), (ssize_t)size);
    close(fd);
}

/* ---- modes -------------------------------------------------------------------------------------
 */

Test(api_open, must_exist_new_and_read_only_ask_for_what_is_there)
{
    loam_db *db;
    uint64_t before = directory_hash();
    FAILS(open_with(LOAM_OPEN_READONLY, &db), LOAM_E_NOENT);
    CHECK(db == NULL);
    CHECK_EQ(directory_hash(), before);
    FAILS(open_with(LOAM_OPEN_MUST_EXIST, &db), LOAM_E_NOENT);
    CHECK_EQ(directory_hash(), before);
    GOES(open_with(LOAM_OPEN_NEW, &db));
    put_text(db, NULL, "k", "v");
    GOES(loam_close(db));
    before = directory_hash();
    FAILS(open_with(LOAM_OPEN_NEW, &db), LOAM_E_EXISTS);
    CHECK_EQ(directory_hash(), before);
    GOES(open_with(LOAM_OPEN_MUST_EXIST, &db));
    expect_text(db, NULL, "k", "v");
    GOES(loam_close(db));
}

Test(api_open, must_exist_does_not_make_the_directory)
{
    CHECK_EQ(rmdir(dir), 0);
    loam_db *db;
    FAILS(open_with(LOAM_OPEN_MUST_EXIST, &db), LOAM_E_NOENT);
    FAILS(open_with(LOAM_OPEN_READONLY, &db), LOAM_E_NOENT);
    FAILS(loam_destroy(dir, NULL), LOAM_E_NOENT);
    CHECK(access(dir, F_OK) != 0);
}

Test(api_open, a_read_only_database_refuses_every_change_and_changes_nothing)
{
    fill_database();
    uint64_t before = directory_hash();
    loam_db *db, *second;
    GOES(open_with(LOAM_OPEN_READONLY, &db));
    GOES(open_with(LOAM_OPEN_READONLY, &second)); /* many readers */
    expect_text(db, NULL, "k", "v");
    expect_text(second, NULL, "k2", "v2");
    FAILS(loam_put(db, NULL, text("a"), text("b"), NULL), LOAM_E_READONLY);
    FAILS(loam_delete(db, NULL, text("k"), NULL), LOAM_E_READONLY);
    FAILS(loam_flush(db, NULL), LOAM_E_READONLY);
    FAILS(loam_compact(db, NULL, text(""), text(""), 0), LOAM_E_READONLY);
    loam_ks *ks;
    FAILS(loam_ks_open(db, "new", NULL, &ks), LOAM_E_READONLY);
    FAILS(loam_ks_drop(db, "default"), LOAM_E_READONLY);
    loam_batch *b = loam_batch_new(0);
    GOES(loam_batch_put(b, NULL, text("a"), text("b")));
    FAILS(loam_write(db, b, NULL), LOAM_E_READONLY);
    loam_batch_free(b);
    GOES(loam_close(second));
    GOES(loam_close(db));
    CHECK_EQ(directory_hash(), before);
}

Test(api_open, a_reader_works_beside_a_writer)
{
    fill_database();
    loam_db *writer, *reader;
    GOES(open_with(0, &writer));
    GOES(open_with(LOAM_OPEN_READONLY, &reader));
    put_text(writer, NULL, "later", "x");
    expect_none(reader, NULL, "later"); /* the view of the moment */
    expect_text(reader, NULL, "k", "v");
    GOES(loam_compact(writer, NULL, text(""), loam_bytes(NULL, 0), 0));
    expect_text(reader, NULL, "k", "v");
    expect_text(reader, NULL, "k2", "v2");
    GOES(loam_close(reader));
    GOES(loam_close(writer));
}

/* ---- the lock ----------------------------------------------------------------------------------
 */

Test(api_open, a_second_opener_is_locked_out_in_this_process_and_another)
{
    loam_db *db, *second;
    GOES(open_with(0, &db));
    put_text(db, NULL, "k", "v");
    for (int i = 0; i < 20; i++) {
        FAILS(open_with(0, &second), LOAM_E_LOCKED);
        CHECK(second == NULL);
    }
    FAILS(loam_destroy(dir, NULL), LOAM_E_LOCKED);
    pid_t child = fork();
    if (child == 0) {
        loam_db *theirs;
        _exit(open_with(0, &theirs) == LOAM_E_LOCKED ? 0 : 1);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    int fd = open(in_dir("LOCK"), O_RDWR); /* closing another descriptor must not drop the lock */
    CHECK(fd >= 0);
    close(fd);
    FAILS(open_with(0, &second), LOAM_E_LOCKED);
    expect_text(db, NULL, "k", "v");
    GOES(loam_close(db));
    GOES(open_with(0, &second));
    GOES(loam_close(second));
}

Test(api_open, the_lock_of_a_killed_process_is_free_at_once)
{
    int pipes[2];
    CHECK_EQ(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        loam_db *theirs;
        if (open_with(0, &theirs) != LOAM_OK ||
            loam_put(theirs, NULL, text("k"), text("v"), NULL) != LOAM_OK ||
            write(pipes[1], "x", 1) != 1) {
            _exit(1);
        }
        pause();
        _exit(1);
    }
    char c;
    CHECK_EQ(read(pipes[0], &c, 1), 1);
    loam_db *db;
    FAILS(open_with(0, &db), LOAM_E_LOCKED);
    kill(child, SIGKILL);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    GOES(open_with(0, &db));
    expect_text(db, NULL, "k", "v");
    GOES(loam_close(db));
}

/* ---- what is not ours --------------------------------------------------------------------------
 */

static void untouched(uint32_t flags, int expected)
{
    uint64_t before = directory_hash();
    loam_db *db;
    FAILS(open_with(flags, &db), expected);
    CHECK(db == NULL);
    CHECK_EQ(directory_hash(), before);
}

Test(api_open, a_current_file_of_something_else_is_refused_and_left_alone)
{
    write_file(in_dir("LOCK"), "", 0);
    write_file(in_dir("CURRENT"), "MANIFEST-000004\n", 16); /* as LevelDB writes it */
    write_file(in_dir("MANIFEST-000004"), "junk", 4);
    untouched(0, LOAM_E_FORMAT);
    untouched(LOAM_OPEN_READONLY, LOAM_E_FORMAT);
}

/* Adds one to the number at `offset` of a file. */
static void raise_version(const char *part, off_t offset)
{
    uint8_t v;
    int fd = open(find_file(part), O_RDWR);
    CHECK(fd >= 0);
    CHECK_EQ(pread(fd, &v, 1, offset), 1);
    v++;
    CHECK_EQ(pwrite(fd, &v, 1, offset), 1);
    close(fd);
}

/* Version numbers stand before any checksum is asked: a newer format may have another one. */
Test(api_open, a_newer_format_of_each_file_is_refused_and_left_alone)
{
    static const struct {
        const char *name;
        off_t offset;
    } files[] = {{"CURRENT", 8}, {"MANIFEST-", 8}, {".log", 8}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        fill_database();
        raise_version(files[i].name, files[i].offset);
        untouched(0, LOAM_E_FORMAT);
        untouched(LOAM_OPEN_MUST_EXIST, LOAM_E_FORMAT);
        untouched(LOAM_OPEN_READONLY, LOAM_E_FORMAT);
        tear_down();
        CHECK_EQ(mkdir(dir, 0700), 0);
    }
}

/* A table's header is under a checksum, version and all; tables are opened when they are read. */
Test(api_open, a_newer_format_of_a_table_is_an_error_of_reads)
{
    fill_database();
    uint8_t header[SST_HEADER_SIZE];
    int fd = open(find_file(".sst"), O_RDWR);
    CHECK(fd >= 0);
    CHECK_EQ(pread(fd, header, sizeof header, 0), sizeof header);
    put_fixed32(header + 8, SST_VERSION + 1);
    put_fixed64(header + 40, checksum64(header, 40, 0));
    CHECK_EQ(pwrite(fd, header, sizeof header, 0), sizeof header);
    close(fd);
    untouched(LOAM_OPEN_READONLY, LOAM_E_FORMAT);
    loam_db *db;
    GOES(open_with(0, &db));
    FAILS(loam_get(db, NULL, text("k"), NULL, 0, NULL, NULL), LOAM_E_FORMAT);
    expect_text(db, NULL, "k2", "v2"); /* from the log */
    GOES(loam_close(db));
}

Test(api_open, a_manifest_of_something_else_is_refused_and_left_alone)
{
    fill_database();
    raise_version("MANIFEST-", 0);
    uint64_t before = directory_hash();
    loam_db *db;
    FAILS(open_with(0, &db), LOAM_E_CORRUPT); /* CURRENT vouches for a manifest */
    CHECK_EQ(directory_hash(), before);
}

Test(api_open, another_comparator_is_refused_and_nothing_is_touched)
{
    loam_ks_options reverse = {.struct_size = sizeof reverse,
                               .comparator = model_comparator(MODEL_REVERSE)};
    loam_options o = small_options(NULL);
    o.default_ks = &reverse;
    loam_db *db;
    GOES(loam_open(dir, &o, &db));
    put_text(db, NULL, "a", "1");
    put_text(db, NULL, "b", "2");
    loam_ks *ks;
    GOES(loam_ks_open(db, "plain", NULL, &ks));
    loam_ks *wrong;
    FAILS(loam_ks_open(db, "plain", &reverse, &wrong), LOAM_E_FORMAT);
    CHECK(wrong == NULL);
    loam_ks_release(ks);
    GOES(loam_flush(db, NULL));
    GOES(loam_close(db));
    untouched(0, LOAM_E_FORMAT);
    loam_ks_options nocase = {.struct_size = sizeof nocase,
                              .comparator = model_comparator(MODEL_NOCASE)};
    o.default_ks = &nocase;
    uint64_t before = directory_hash();
    FAILS(loam_open(dir, &o, &db), LOAM_E_FORMAT);
    CHECK_EQ(directory_hash(), before);
    o.default_ks = &reverse;
    GOES(loam_open(dir, &o, &db));
    loam_iter *it;
    GOES(loam_iter_open(db, NULL, NULL, &it));
    GOES(loam_iter_first(it));
    CHECK_BYTES(loam_iter_key(it).data, loam_iter_key(it).size, "b", 1);
    loam_iter_close(it);
    GOES(loam_close(db));
}

Test(api_open, a_file_in_place_of_the_directory_is_an_error)
{
    write_file(in_dir("file"), "x", 1);
    loam_options o = small_options(NULL);
    loam_db *db;
    static const uint32_t flags[] = {0, LOAM_OPEN_MUST_EXIST, LOAM_OPEN_READONLY};
    uint64_t before = directory_hash();
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        o.flags = flags[i];
        FAILS(loam_open(in_dir("file"), &o, &db), LOAM_E_NOENT);
        CHECK(db == NULL);
        FAILS(loam_open(in_dir("file/below"), &o, &db), LOAM_E_NOENT);
        FAILS(loam_open(in_dir("none/below"), &o, &db), LOAM_E_NOENT);
    }
    FAILS(loam_destroy(in_dir("file"), NULL), LOAM_E_NOENT);
    CHECK_EQ(directory_hash(), before);
}

Test(api_open, a_directory_of_other_files_is_no_database)
{
    write_file(in_dir("notes.txt"), "x", 1);
    untouched(LOAM_OPEN_MUST_EXIST, LOAM_E_NOENT);
    untouched(LOAM_OPEN_READONLY, LOAM_E_NOENT);
    uint64_t before = directory_hash();
    FAILS(loam_destroy(dir, NULL), LOAM_E_NOENT);
    CHECK_EQ(directory_hash(), before);
}

Test(api_open, a_name_that_is_too_long_is_refused)
{
    static char name[1 << 16];
    memset(name, 'd', sizeof name - 1);
    loam_db *db;
    FAILS(loam_open(name, NULL, &db), LOAM_E_INVAL);
    CHECK(db == NULL);
    FAILS(loam_destroy(name, NULL), LOAM_E_INVAL);
}

Test(api_open, unknown_files_stay_and_destroy_leaves_them)
{
    fill_database();
    write_file(in_dir("notes.txt"), "mine", 4);
    loam_db *db;
    GOES(open_with(0, &db));
    GOES(loam_close(db));
    CHECK_EQ(access(in_dir("notes.txt"), F_OK), 0);
    GOES(loam_destroy(dir, NULL));
    CHECK_EQ(access(in_dir("notes.txt"), F_OK), 0);
    CHECK(access(in_dir("CURRENT"), F_OK) != 0);
    FAILS(loam_destroy(dir, NULL), LOAM_E_NOENT);
}

static const loam_vfs *below_refusing;
static bool refuse_lock;

static int remove_no_lock(void *ctx, const char *path)
{
    size_t n = strlen(path);
    return refuse_lock && n >= 4 && strcmp(path + n - 4, "LOCK") == 0
               ? -EIO
               : below_refusing->remove(ctx, path);
}

/* It goes last: a call that could not remove it was told that there was no database, and LOCK stayed. */
Test(api_open, destroy_made_again_removes_a_lock_that_is_left)
{
    loam_vfs *disk = memory_disk(), refusing = *disk;
    below_refusing = disk;
    refusing.remove = remove_no_lock;
    loam_options o = small_options(&refusing);
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    GOES(loam_close(db));
    refuse_lock = true;
    FAILS(loam_destroy("/db", &o), LOAM_E_IO);
    FAILS(loam_destroy("/db", &o), LOAM_E_IO);
    refuse_lock = false;
    GOES(loam_destroy("/db", &o));
    FAILS(loam_destroy("/db", &o), LOAM_E_NOENT);
    o.flags = LOAM_OPEN_MUST_EXIST;
    FAILS(loam_open("/db", &o, &db), LOAM_E_NOENT);
    loam_vfs_free(disk);
}

Test(api_open, files_are_the_owners_alone)
{
    umask(0);
    char below[300];
    snprintf(below, sizeof below, "%s/db", dir);
    loam_db *db;
    loam_options o = small_options(NULL);
    GOES(loam_open(below, &o, &db));
    CHECK_EQ(strcmp(loam_path(db), below), 0);
    struct stat st;
    CHECK_EQ(stat(below, &st), 0);
    CHECK_EQ(st.st_mode & 077, 0);
    put_text(db, NULL, "k", "v");
    GOES(loam_flush(db, NULL));
    GOES(loam_close(db));
    DIR *d = opendir(below);
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        CHECK_EQ(fstatat(dirfd(d), e->d_name, &st, 0), 0);
        CHECK(strcmp(e->d_name, "..") == 0 || (st.st_mode & 077) == 0);
    }
    closedir(d);
    GOES(loam_destroy(below, NULL));
    CHECK(access(below, F_OK) != 0);
}

/* The log of the first session is still on disk when the second one, which writes none, has put newer
 * entries into tables: replaying it over them would bring the old ones back. */
Test(api_open, an_older_log_does_not_undo_a_session_without_one)
{
    loam_db *db;
    loam_options o = small_options(NULL);
    GOES(loam_open(dir, &o, &db));
    put_text(db, NULL, "k", "old");
    GOES(loam_close(db));
    loam_options memory = o;
    memory.durability = LOAM_DUR_MEMORY;
    GOES(loam_open(dir, &memory, &db));
    put_text(db, NULL, "k", "new");
    GOES(loam_close(db));
    for (int i = 0; i < 2; i++) {
        GOES(loam_open(dir, &o, &db));
        char value[8];
        size_t size = 0;
        GOES(loam_get(db, NULL, LOAM_LIT("k"), value, sizeof value, &size, NULL));
        CHECK(size == 3 && memcmp(value, i == 0 ? "new" : "top", 3) == 0);
        put_text(db, NULL, "k", "top");
        GOES(loam_flush(db, NULL));
        GOES(loam_close(db));
    }
}

Test(api_open, an_iterator_of_a_dropped_keyspace_reports_it)
{
    loam_db *db;
    loam_ks *ks;
    loam_iter *it;
    loam_options o = small_options(NULL);
    GOES(loam_open(dir, &o, &db));
    GOES(loam_ks_open(db, "gone", NULL, &ks));
    put_text(db, ks, "a", "1");
    put_text(db, ks, "b", "2");
    GOES(loam_iter_open(db, ks, NULL, &it));
    GOES(loam_iter_first(it));
    GOES(loam_ks_drop(db, "gone"));
    FAILS(loam_iter_next(it), LOAM_E_NOENT);
    loam_iter_close(it);
    loam_ks_release(ks);
    GOES(loam_close(db));
}
