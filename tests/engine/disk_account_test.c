/* disk_account_test.c - The account of a disk budget costs memory for files that are there, not for names tried.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <stdio.h>

#include "engine/disk_account.h"
#include "tests/support/check.h"

enum { UNIT = 4096, NAMES = 1000 };

TestSuite(disk_account);

/* Each try of a flush on a disk that makes no new file has a name of its own. */
Test(disk_account, names_of_files_that_could_not_be_made_are_forgotten)
{
    struct alloc a;
    struct disk_account d;
    alloc_init(&a, NULL, UINT64_MAX);
    disk_account_init(&d, &a, 100 * UNIT);
    disk_account_put(&d, disk_account_get(&d, "/db/first"));
    uint64_t before = alloc_used_by(&a, MEM_VFS);
    for (int i = 0; i < NAMES; i++) {
        char path[32];
        snprintf(path, sizeof path, "/db/%06d", i);
        struct disk_file *f = disk_account_get(&d, path);
        CHECK(f != NULL);
        disk_account_put(&d, f);
    }
    CHECK_EQ(alloc_used_by(&a, MEM_VFS), before);
    disk_account_destroy(&d);
    CHECK_EQ(alloc_used(&a), 0);
}

Test(disk_account, what_is_closed_and_empty_is_found_anew)
{
    struct alloc a;
    struct disk_account d;
    alloc_init(&a, NULL, UINT64_MAX);
    disk_account_init(&d, &a, 100 * UNIT);
    struct disk_file *f = disk_account_get(&d, "/db/a"), *again = disk_account_get(&d, "/db/a");
    CHECK(f == again);
    disk_account_put(&d, again);
    CHECK(disk_account_grow(&d, f, UNIT + 1)); /* still open once */
    CHECK_EQ(disk_account_left(&d), 98 * UNIT);
    disk_account_put(&d, f);
    CHECK_EQ(disk_account_left(&d), 98 * UNIT); /* it is there, if closed */
    disk_account_rename(&d, "/db/a", "/db/b");
    f = disk_account_get(&d, "/db/b");
    disk_account_settle(&d, f, 0);
    disk_account_put(&d, f);
    CHECK_EQ(disk_account_left(&d), 100 * UNIT);
    f = disk_account_get(&d, "/db/b");
    disk_account_settle(&d, f, 3 * UNIT);
    disk_account_remove(&d, "/db/b");
    CHECK_EQ(disk_account_left(&d), 97 * UNIT); /* until it is closed */
    disk_account_put(&d, f);
    CHECK_EQ(disk_account_left(&d), 100 * UNIT);
    f = disk_account_get(&d, "/db/c");
    disk_account_settle(&d, f, 2 * UNIT);
    disk_account_put(&d, f);
    disk_account_rename(&d, "/db/empty", "/db/c"); /* nobody knows it, and yet it takes the name */
    CHECK_EQ(disk_account_left(&d), 100 * UNIT);
    disk_account_destroy(&d);
    CHECK_EQ(alloc_used(&a), 0);
}
