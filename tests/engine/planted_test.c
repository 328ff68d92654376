/* planted_test.c - Links, pipes, devices and directories planted under a database's file names.
 * SPDX-License-Identifier: Apache-2.0
 *
 * On the real file system. Each case plants one thing under one name of a closed database - names that
 * are in use and names that the next open will use - then checks, opens, reads, writes, flushes and
 * closes. The directory's own path is the caller's: it may be a link. Oracle: nothing waits; what is read is
 * right; the file outside, which links lead to and which hard links are, is as it was, and nothing appears
 * beside it.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "engine/filename.h"
#include "tests/engine/db_support.h"

#define KEYS 50u

static char home[] = "/tmp/loam-planted-XXXXXX";
static char dir[128], outside[128];
static const char secret[] = "a file outside of the database";

enum plant {
    PLANT_LINK,
    PLANT_DANGLING,
    PLANT_SELF,
    PLANT_HARD,
    PLANT_PIPE,
    PLANT_DIRECTORY,
    PLANT_DEVICE,
    PLANTS
};

static void hangs(int sig)
{
    (void)sig;
    static const char text[] = "an open waits for something planted\n";
    (void)!write(2, text, sizeof text - 1);
    abort();
}

static void remove_all(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char inner[512];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        if (unlink(inner) != 0) {
            remove_all(inner);
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    (void)rmdir(path);
}

static void begin(void)
{
    struct stat st;
    signal(SIGALRM, hangs);
    CHECK(mkdtemp(home) != NULL);
    snprintf(dir, sizeof dir, "%s/db", home);
    snprintf(outside, sizeof outside, "%s/outside", home);
    FILE *f = fopen(outside, "w");
    CHECK(f != NULL && fputs(secret, f) >= 0 && fclose(f) == 0);
    CHECK(stat(outside, &st) == 0);
}

static unsigned entries_at_home(void)
{
    unsigned n = 0;
    DIR *d = opendir(home);
    CHECK(d != NULL);
    while (readdir(d) != NULL) {
        n++;
    }
    closedir(d);
    return n - 2;
}

static void check_outside(void)
{
    char text[64] = "";
    struct stat st;
    FILE *f = fopen(outside, "r");
    CHECK(f != NULL && fread(text, 1, sizeof text, f) == strlen(secret));
    fclose(f);
    CHECK(strcmp(text, secret) == 0);
    CHECK(lstat(outside, &st) == 0 && S_ISREG(st.st_mode));
    CHECK_EQ(entries_at_home(),
             2); /* the database and the file: nothing went past a dangling link */
}

static loam_options small(void)
{
    return small_options(NULL);
}

static void make_database(void)
{
    loam_options o = small();
    loam_db *db;
    remove_all(dir);
    GOES(loam_open(dir, &o, &db));
    for (unsigned i = 0; i < KEYS; i++) {
        GOES(loam_put(db, NULL, loam_bytes(&i, sizeof i), LOAM_LIT("value"), NULL));
        if (i == KEYS / 2) {
            GOES(loam_flush(db, NULL));
        }
    }
    GOES(loam_close(db));
}

/* False: this machine does not let us. */
static bool plant(const char *name, enum plant what)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (unlink(path) != 0 && access(path, F_OK) == 0) {
        remove_all(path);
    }
    switch (what) {
    case PLANT_LINK:
        return symlink("../outside", path) == 0;
    case PLANT_DANGLING:
        return symlink("../not-there", path) == 0;
    case PLANT_SELF:
        return symlink(name, path) == 0;
    case PLANT_HARD:
        return link(outside, path) == 0;
    case PLANT_PIPE:
        return mkfifo(path, 0600) == 0;
    case PLANT_DIRECTORY:
        return mkdir(path, 0700) == 0;
    default:
        return mknod(path, S_IFCHR | 0600, makedev(1, 5)) == 0; /* zeros without end */
    }
}

static void use(const char *what)
{
    loam_options o = small();
    loam_db *db;
    alarm(30);
    int rc = loam_check(dir, &o, NULL, NULL);
    bool sound = rc == LOAM_OK;
    for (unsigned readonly = 0; readonly < 2; readonly++) {
        o.flags = LOAM_OPEN_MUST_EXIST | (readonly != 0 ? LOAM_OPEN_READONLY : 0);
        rc = loam_open(dir, &o, &db);
        if (rc < 0) {
            CHECK(loam_last_error()->message[0] != '\0');
            if (sound && readonly != 0) {
                CHECK_FAIL_("%s: sound, but read-only: %s", what, loam_last_error()->message);
            }
            continue;
        }
        for (unsigned i = 0; i < KEYS; i++) {
            char value[8];
            rc = loam_get(db, NULL, loam_bytes(&i, sizeof i), value, sizeof value, NULL, NULL);
            CHECK(rc < 0 || (rc == LOAM_OK && memcmp(value, "value", 5) == 0));
        }
        if (readonly == 0 &&
            loam_put(db, NULL, LOAM_LIT("more"), LOAM_LIT("value"), NULL) == LOAM_OK) {
            rc = loam_flush(db, NULL);
            CHECK(rc <= 0);
        }
        (void)loam_close(db);
    }
    alarm(0);
    check_outside();
}

struct names {
    char name[32][FILENAME_BASE_CAP + 8];
    unsigned count;
};

static void add(struct names *n, const char *name)
{
    CHECK(n->count < 32);
    snprintf(n->name[n->count++], sizeof n->name[0], "%s", name);
}

/* Names in use, and those of the next files of each kind. */
static void collect(struct names *n)
{
    uint64_t highest = 0;
    n->count = 0;
    DIR *d = opendir(dir);
    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        enum file_kind kind;
        uint64_t number;
        if (filename_parse(text(e->d_name), &kind, &number)) {
            add(n, e->d_name);
            highest = number > highest ? number : highest;
        }
    }
    closedir(d);
    static const enum file_kind kinds[] = {FILE_LOG, FILE_TABLE, FILE_MANIFEST, FILE_TEMP};
    for (unsigned k = 0; k < 4; k++) {
        for (uint64_t ahead = 1; ahead <= 2; ahead++) {
            char name[FILENAME_BASE_CAP + 8];
            filename_base(kinds[k], highest + ahead, name);
            add(n, name);
            if (kinds[k] == FILE_LOG) {
                strcat(name, ".new");
                add(n, name);
            }
        }
    }
}

Test(planted, things_under_the_names_of_files_are_refused_and_never_followed)
{
    struct names names;
    unsigned cases = 0;
    begin();
    make_database();
    collect(&names);
    for (unsigned i = 0; i < names.count; i++) {
        for (enum plant p = 0; p < PLANTS; p++) {
            char what[64];
            snprintf(what, sizeof what, "%s, %d", names.name[i], (int)p);
            make_database();
            if (plant(names.name[i], p)) {
                use(what);
                cases++;
            }
        }
    }
    fprintf(stderr, "%u names, %u cases\n", names.count, cases);
    CHECK(cases >= names.count * (PLANTS - 1));
    remove_all(home);
}

Test(planted, in_place_of_the_directory_is_an_error)
{
    begin();
    loam_options o = small();
    loam_db *db;
    alarm(30);
    CHECK(mkfifo(dir, 0600) == 0);
    CHECK(loam_open(dir, &o, &db) < 0);
    CHECK(loam_check(dir, &o, NULL, NULL) < 0);
    CHECK(unlink(dir) == 0 && symlink("outside", dir) == 0);
    CHECK(loam_open(dir, &o, &db) < 0);
    CHECK(unlink(dir) == 0 && symlink("not-there", dir) == 0);
    CHECK(loam_open(dir, &o, &db) < 0);
    CHECK(unlink(dir) == 0 && symlink("db", dir) == 0);
    CHECK(loam_open(dir, &o, &db) < 0);
    alarm(0);
    CHECK(unlink(dir) == 0);
    FILE *f = fopen(dir, "w");
    CHECK(f != NULL && fclose(f) == 0);
    CHECK(loam_open(dir, &o, &db) < 0);
    check_outside();
    remove_all(home);
}

static void expect_keys(const char *path, unsigned count)
{
    loam_options o = small();
    loam_db *db;
    o.flags = LOAM_OPEN_MUST_EXIST;
    GOES(loam_check(path, &o, NULL, NULL));
    GOES(loam_open(path, &o, &db));
    for (unsigned i = 0; i < count; i++) {
        char value[16];
        size_t n;
        GOES(loam_get(db, NULL, loam_bytes(&i, sizeof i), value, sizeof value, &n, NULL));
        CHECK_BYTES(value, n, "value", 5);
    }
    GOES(loam_close(db));
}

Test(planted, but_the_directory_itself_may_be_reached_through_a_link)
{
    char way[160];
    loam_options o = small();
    loam_db *db;
    begin();
    make_database();
    snprintf(way, sizeof way, "%s/way", home);
    CHECK(symlink("db", way) == 0);
    GOES(loam_open(way, &o, &db));
    unsigned i = KEYS;
    GOES(loam_put(db, NULL, loam_bytes(&i, sizeof i), LOAM_LIT("value"), NULL));
    GOES(loam_flush(db, NULL));
    loam_db *other;
    FAILS(loam_open(dir, &o, &other), LOAM_E_LOCKED); /* it is the same one */
    GOES(loam_close(db));
    expect_keys(way, KEYS + 1);
    expect_keys(dir, KEYS + 1);
    remove_all(home);
}

static void link_all(const char *from, const char *to)
{
    DIR *d = opendir(from);
    CHECK(d != NULL && mkdir(to, 0700) == 0);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char name[512], other[512];
        snprintf(name, sizeof name, "%s/%s", from, e->d_name);
        snprintf(other, sizeof other, "%s/%s", to, e->d_name);
        CHECK(e->d_name[0] == '.' || link(name, other) == 0);
    }
    closedir(d);
}

/* What people make with cp -al: the tables are not written again, and nothing else may be. */
Test(planted, a_copy_of_hard_links_stays_as_it_was_when_the_other_is_used)
{
    char copy[160];
    loam_options o = small();
    begin();
    make_database();
    snprintf(copy, sizeof copy, "%s/copy", home);
    link_all(dir, copy);
    for (unsigned round = 0; round < 3; round++) {
        loam_db *db;
        uint64_t reserve;
        GOES(loam_open(dir, &o, &db));
        GOES(loam_property(db, NULL, "disk_reserve", &reserve));
        CHECK(reserve != 0); /* it has one of its own */
        for (unsigned i = 0; i < KEYS; i++) {
            GOES(loam_put(db, NULL, loam_bytes(&i, sizeof i), LOAM_LIT("other"), NULL));
        }
        GOES(loam_flush(db, NULL));
        GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
        GOES(loam_close(db));
        o.flags = LOAM_OPEN_READONLY;
        GOES(loam_check(copy, &o, NULL, NULL));
        o.flags = 0;
    }
    expect_keys(copy, KEYS);
    GOES(loam_check(dir, &o, NULL, NULL));
    remove_all(home);
}

/* The lock of one is a name of the other's: yet the directory where it stands is not that of the database. */
Test(planted, a_copy_of_hard_links_in_the_place_of_an_open_database_stays_as_it_was)
{
    char copy[160], moved[160];
    loam_options o = small();
    loam_db *db;
    begin();
    make_database();
    snprintf(copy, sizeof copy, "%s/copy", home);
    snprintf(moved, sizeof moved, "%s/moved", home);
    link_all(dir, copy);
    GOES(loam_open(dir, &o, &db));
    CHECK(rename(dir, moved) == 0 && rename(copy, dir) == 0);
    for (unsigned i = KEYS; i < 2 * KEYS; i++) {
        GOES(loam_put(db, NULL, loam_bytes(&i, sizeof i), LOAM_LIT("value"), NULL));
    }
    FAILS(loam_flush(db, NULL), LOAM_E_IO);
    CHECK_EQ(loam_last_error()->sys_errno, ESTALE);
    FAILS(loam_close(db), LOAM_E_IO);
    expect_keys(dir, KEYS);
    expect_keys(moved, 2 * KEYS);
    remove_all(home);
}

/* Under load: what was acknowledged is there under the new name, and what cannot go on says so. */
Test(planted, a_directory_that_is_renamed_loses_nothing_acknowledged)
{
    char moved[160];
    loam_options o = small();
    loam_db *db;
    unsigned acked = KEYS;
    begin();
    make_database();
    snprintf(moved, sizeof moved, "%s/moved", home);
    alarm(60);
    GOES(loam_open(dir, &o, &db));
    for (int rc = LOAM_OK; rc == LOAM_OK && acked < 200000; acked += rc == LOAM_OK) {
        if (acked == 3 * KEYS) {
            CHECK(rename(dir, moved) == 0);
        }
        rc = loam_put(db, NULL, loam_bytes(&acked, sizeof acked), LOAM_LIT("value"), NULL);
        CHECK(rc == LOAM_OK || loam_last_error()->message[0] != '\0');
    }
    CHECK(acked > 3 * KEYS && acked < 200000); /* tables and logs have nowhere to go */
    CHECK(loam_flush(db, NULL) < 0);
    (void)loam_close(db);
    CHECK(access(dir, F_OK) != 0);
    expect_keys(moved, acked);
    alarm(0);
    remove_all(home);
}

/* Writers beside the test's thread, each with keys of its own. */
struct writer {
    loam_db *db;
    unsigned first, acked; /* keys */
    loam_error why;        /* of the put that was refused */
    pthread_t thread;
};

static void *write_until_refused(void *arg)
{
    struct writer *w = arg;
    for (int rc = LOAM_OK; rc == LOAM_OK; w->acked += rc == LOAM_OK) {
        unsigned key = w->first + w->acked;
        rc = loam_put(w->db, NULL, loam_bytes(&key, sizeof key), LOAM_LIT("value"), NULL);
        w->why = *loam_last_error();
        CHECK(w->acked < 1000000);
    }
    return NULL;
}

static void start_writers(struct writer w[2], loam_db *db)
{
    for (unsigned i = 0; i < 2; i++) {
        w[i] = (struct writer){.db = db, .first = (i + 1) << 24};
        CHECK_EQ(pthread_create(&w[i].thread, NULL, write_until_refused, &w[i]), 0);
    }
}

/* ENOENT: it went between the look at its lock and the call. */
static bool is_gone(const loam_error *e)
{
    return e->sys_errno == ESTALE || e->sys_errno == ENOENT;
}

static void expect_refused(struct writer w[2], loam_db *db)
{
    loam_error why;
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ(pthread_join(w[i].thread, NULL), 0);
        CHECK_EQ(w[i].why.code, LOAM_E_IO);
        CHECK(is_gone(&w[i].why));
    }
    CHECK_EQ(loam_health(db, &why), LOAM_REFUSING_WRITES);
    CHECK_EQ(why.code, LOAM_E_IO);
    CHECK(is_gone(&why));
    CHECK(why.message[0] != '\0');
    FAILS(loam_resume(db), LOAM_E_IO); /* the cause is still there */
    CHECK_EQ(loam_health(db, NULL), LOAM_REFUSING_WRITES);
}

Test(planted, health_tells_of_a_directory_that_was_renamed_until_it_is_back)
{
    char moved[160], value[8];
    loam_options o = small();
    loam_db *db;
    struct writer w[2];
    begin();
    make_database();
    snprintf(moved, sizeof moved, "%s/moved", home);
    alarm(120);
    GOES(loam_open(dir, &o, &db));
    CHECK_EQ(loam_health(db, NULL), LOAM_HEALTHY);
    start_writers(w, db);
    CHECK(rename(dir, moved) == 0);
    expect_refused(w, db);
    CHECK(rename(moved, dir) == 0);
    GOES(loam_resume(db));
    CHECK_EQ(loam_health(db, NULL), LOAM_HEALTHY);
    put_text(db, NULL, "after", "value");
    GOES(loam_flush(db, NULL));
    GOES(loam_close(db));
    expect_keys(dir, KEYS);
    GOES(loam_open(dir, &o, &db));
    expect_text(db, NULL, "after", "value");
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned key = w[i].first; key < w[i].first + w[i].acked; key++) {
            GOES(loam_get(db, NULL, loam_bytes(&key, sizeof key), value, sizeof value, NULL, NULL));
        }
    }
    GOES(loam_close(db));
    alarm(0);
    remove_all(home);
}

/* Without a call: while only the log is concerned the keeper tries again. */
Test(planted, a_renamed_directory_that_is_back_is_noticed)
{
    char moved[160];
    loam_options o = small();
    loam_db *db;
    struct writer w[1];
    begin();
    make_database();
    snprintf(moved, sizeof moved, "%s/moved", home);
    alarm(120);
    GOES(loam_open(dir, &o, &db));
    loam_error why;
    CHECK(rename(dir, moved) == 0);
    *w = (struct writer){.db = db, .first = 1u << 24};
    (void)write_until_refused(w);
    CHECK_EQ(w->why.code, LOAM_E_IO);
    CHECK_EQ(loam_health(db, &why), LOAM_REFUSING_WRITES);
    CHECK(rename(moved, dir) == 0);
    if ((why.flags & LOAM_ERR_STICKY) != 0) { /* a flush was under way when it went */
        GOES(loam_resume(db));
    }
    while (loam_health(db, NULL) != LOAM_HEALTHY) {
        usleep(1000);
    }
    put_text(db, NULL, "after", "value");
    GOES(loam_close(db));
    expect_keys(dir, KEYS);
    alarm(0);
    remove_all(home);
}

Test(planted, health_tells_of_a_directory_that_was_removed)
{
    loam_options o = small();
    loam_db *db;
    struct writer w[2];
    begin();
    make_database();
    alarm(120);
    GOES(loam_open(dir, &o, &db));
    start_writers(w, db);
    for (unsigned i = 0; i < 1000 && access(dir, F_OK) == 0; i++) {
        remove_all(dir); /* again, as long as files appear in it */
    }
    CHECK(access(dir, F_OK) != 0);
    expect_refused(w, db);
    (void)loam_close(db);
    CHECK(access(dir, F_OK) != 0);
    alarm(0);
    remove_all(home);
}

Test(planted, files_are_for_their_owner_alone)
{
    begin();
    mode_t mask = umask(0);
    make_database();
    umask(mask);
    struct stat st;
    CHECK(stat(dir, &st) == 0);
    CHECK_EQ(st.st_mode & 07777, 0700);
    DIR *d = opendir(dir);
    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        CHECK(lstat(path, &st) == 0);
        if (!S_ISDIR(st.st_mode)) {
            CHECK_EQ(st.st_mode & 07777, 0600);
        }
    }
    closedir(d);
    remove_all(home);
}

Test(planted, open_files_are_not_inherited_by_programs_that_are_started)
{
    begin();
    loam_options o = small();
    loam_db *db;
    GOES(loam_open(dir, &o, &db));
    put_text(db, NULL, "key", "value");
    GOES(loam_flush(db, NULL));
    char command[256];
    snprintf(command, sizeof command, "ls -l /proc/self/fd | grep -q '%s'", dir);
    int rc = system(command);
    CHECK(rc != -1 && WIFEXITED(rc) && WEXITSTATUS(rc) == 1);
    GOES(loam_close(db));
    remove_all(home);
}
