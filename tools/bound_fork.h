/* bound_fork.h - A fork whose child does not outlive the process that made it.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_BOUND_FORK_H_
#define LOAM_TOOLS_BOUND_FORK_H_

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

/* As fork(). The child works on for ever unless somebody ends it: a parent that is killed cannot. */
static inline pid_t bound_fork(void)
{
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(4);
        }
    }
    return child;
}

#endif
