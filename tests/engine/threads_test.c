/* threads_test.c - Which threads a database has, and what they are called.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "arena/sync.h"
#include "engine/workers.h"
#include "tests/engine/db_support.h"

TestSuite(threads, .timeout = 60);

/* The name of a task of this process; false: it is none, or has just ended. */
static bool name_of(const char *task, char name[32])
{
    char path[300];
    snprintf(path, sizeof path, "/proc/self/task/%.40s/comm", task);
    FILE *f = fopen(path, "r");
    bool found = f != NULL && fgets(name, 32, f) != NULL;
    if (f != NULL) {
        fclose(f);
    }
    name[found ? strcspn(name, "\n") : 0] = '\0';
    return found;
}

/* Threads of this process by this name; NULL: all. */
static unsigned count_threads(const char *name)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    unsigned count = 0;
    cr_assert_not_null(tasks);
    while ((task = readdir(tasks)) != NULL) {
        char have[32];
        count += name_of(task->d_name, have) && (name == NULL || strcmp(have, name) == 0);
    }
    closedir(tasks);
    return count;
}

/* A thread has its name a moment after it began, and is seen a moment after it was joined. */
static void wait_for_threads(const char *name, unsigned count)
{
    while (count_threads(name) != count) {
        thread_sleep_micros(1000);
    }
}

Test(threads, a_database_at_rest_has_one_and_all_have_names)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    o.threads = 2;
    o.sync_interval_ms = UINT32_MAX; /* each sync of the log has a thread while it lasts */
    loam_db *db;
    unsigned before = count_threads(NULL);
    GOES(loam_open("/db", &o, &db));
    wait_for_threads("loam-keeper", 1);
    CHECK_EQ(count_threads(NULL), before + 1);
    GOES(loam_put(db, NULL, LOAM_LIT("k"), LOAM_LIT("v"), NULL));
    CHECK_EQ(count_threads(NULL), before + 1);
    GOES(loam_flush(db, NULL));
    wait_for_threads("loam-flush", 1);
    wait_for_threads("loam-merge", 2);
    CHECK_EQ(count_threads(NULL), before + 4);
    GOES(loam_close(db));
    wait_for_threads(NULL, before);
    loam_vfs_free(disk);
}

Test(threads, workers_end_after_a_while_and_come_back_for_work)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    o.threads = 2;
    o.sync_interval_ms = UINT32_MAX;
    loam_db *db;
    unsigned before = count_threads(NULL);
    GOES(loam_open("/db", &o, &db));
    GOES(loam_put(db, NULL, LOAM_LIT("k"), LOAM_LIT("v"), NULL));
    GOES(loam_flush(db, NULL));
    wait_for_threads("loam-flush", 1);
    wait_for_threads(NULL, before + 1); /* some seconds later */
    CHECK_EQ(count_threads("loam-keeper"), 1);
    GOES(loam_put(db, NULL, LOAM_LIT("k"), LOAM_LIT("w"), NULL));
    GOES(loam_flush(db, NULL));
    wait_for_threads("loam-flush", 1);
    GOES(loam_close(db));
    wait_for_threads(NULL, before);
    loam_vfs_free(disk);
}

/* The nice value of a thread by this name; INT_MIN: there is none. */
static int nice_of(const char *name)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    int found = INT_MIN;
    cr_assert_not_null(tasks);
    while (found == INT_MIN && (task = readdir(tasks)) != NULL) {
        char have[32] = "";
        if (name_of(task->d_name, have) && strcmp(have, name) == 0) {
            errno = 0;
            int value = getpriority(PRIO_PROCESS, (id_t)strtoul(task->d_name, NULL, 10));
            found = errno == 0 ? value : INT_MIN;
        }
    }
    closedir(tasks);
    return found;
}

/* A worker has its priority a moment after it began, and ends some seconds after its work. */
static void work_until_nice(loam_db *db, const char *name, int value)
{
    while (nice_of(name) != value) {
        GOES(loam_put(db, NULL, LOAM_LIT("k"), LOAM_LIT("v"), NULL));
        GOES(loam_flush(db, NULL));
    }
}

Test(threads, workers_leave_processors_to_callers)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    o.threads = 2;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    int own = getpriority(PRIO_PROCESS, 0);
    int lower = own + WORKER_NICE < 19 ? own + WORKER_NICE : 19;
    work_until_nice(db, "loam-flush", lower);
    work_until_nice(db, "loam-merge", lower);
    work_until_nice(db, "loam-keeper", own);
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), own);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

static void *gives_way_last(void *arg)
{
    thread_give_way(WORKER_NICE);
    *(int *)arg = getpriority(PRIO_PROCESS, 0);
    return NULL;
}

/* Gives way, and so does the thread it starts; what that has come to goes to *arg. */
static void *gives_way(void *arg)
{
    pthread_t t;
    thread_give_way(WORKER_NICE);
    *(int *)arg = getpriority(PRIO_PROCESS, 0);
    CHECK_EQ(thread_start(&t, gives_way_last, (int *)arg + 1), 0);
    thread_join(t);
    return NULL;
}

/* A worker is often started by another one. */
Test(threads, a_worker_started_by_a_worker_gives_way_no_further)
{
    pthread_t t;
    int seen[2];
    int own = getpriority(PRIO_PROCESS, 0);
    CHECK_EQ(thread_start(&t, gives_way, seen), 0);
    thread_join(t);
    CHECK_EQ(seen[0], own + WORKER_NICE < 19 ? own + WORKER_NICE : 19);
    CHECK_EQ(seen[1], seen[0]);
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), own);
}

static void *idle_thread(void *arg)
{
    return arg;
}

/* No more threads for this process; false: the system would not have it so. */
static bool forbid_threads(bool forbid)
{
    struct rlimit limit;
    pthread_t t;
    if (getrlimit(RLIMIT_NPROC, &limit) != 0) {
        return false;
    }
    limit.rlim_cur = forbid ? 1 : limit.rlim_max;
    return setrlimit(RLIMIT_NPROC, &limit) == 0 &&
           (!forbid || thread_start(&t, idle_thread, NULL) == -EAGAIN);
}

/* The limit does not bind the superuser, whose place nobody takes. */
Test(threads, a_flush_whose_thread_cannot_be_started_is_made_once_it_can)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    wait_for_threads("loam-keeper", 1);
    cr_assert(geteuid() != 0 || setuid(65534) == 0);
    cr_assert(forbid_threads(true));
    GOES(loam_put(db, NULL, LOAM_LIT("k"), LOAM_LIT("v"), NULL));
    CHECK_EQ(loam_flush(db, NULL), LOAM_E_NOMEM);
    CHECK_EQ(count_threads("loam-flush"), 0);
    cr_assert(forbid_threads(false));
    while (loam_flush(db, NULL) != LOAM_OK) {
        thread_sleep_micros(1000);
    }
    GOES(loam_wait_idle(db, 0));
    CHECK_EQ(loam_health(db, NULL), LOAM_OK);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
