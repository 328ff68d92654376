/* vfs_posix_home.h - A fresh temporary directory for each test of the operating system's vfs.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_ARENA_VFS_POSIX_HOME_H_
#define LOAM_TESTS_ARENA_VFS_POSIX_HOME_H_

#include <stdlib.h>

#include "tests/arena/vfs_contract.h"

static char dir[64];
static struct contract c;

static void setup(void)
{
    snprintf(dir, sizeof dir, "/tmp/loam-vfs-XXXXXX");
    CHECK(mkdtemp(dir) != NULL);
    c = (struct contract){.vfs = loam_vfs_os(), .dir = dir};
}

static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    CHECK_EQ(system(command), 0);
}

#endif
