#!/usr/bin/env python3
# planted_test.py - A test under a planted fault ends, with all that it started, whatever the fault makes of it.
# SPDX-License-Identifier: Apache-2.0
"""Prints "N passed, M failed", and before that what failed."""
import os
import signal
import sys
import tempfile

import planted


def a_worker_in_a_session_of_its_own_ends_with_its_test(log):
    rc = planted.finish(["sh", "-c", "setsid sleep 600 & wait"], "/", 1, log)
    return rc == "not done in 1 s"


def what_a_finished_test_leaves_ends(log):
    rc = planted.finish(["sh", "-c", "setsid sh -c 'sleep 600 & sleep 600' & exit 3"], "/", 60, log)
    return rc == 3


def a_test_that_prints_without_end_is_ended(log):
    planted.LOG_MAX = 1000
    rc = planted.finish(["sh", "-c", "seq 1000; sleep 600"], "/", 60, log)
    return rc == "prints without end"


def a_test_that_ends_is_judged_by_its_code(log):
    return [planted.finish(["sh", "-c", f"exit {code}"], "/", 60, log) for code in (0, 1)] == [0, 1]


def a_run_that_is_ended_ends_its_test(log):
    """The run is a child, so that this process can adopt what it leaves."""
    run = ("import planted, os, signal, threading; planted.adopt(); "
           "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start(); "
           "planted.finish(['sh', '-c', 'setsid sleep 600 & wait'], '/', 600, None)")
    here = os.path.dirname(os.path.abspath(__file__))
    pid = os.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", f"import sys; sys.path.insert(0, {here!r}); {run}"])
    rc = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return rc == 128 + signal.SIGTERM and planted.descendants() == []


TESTS = [a_worker_in_a_session_of_its_own_ends_with_its_test, what_a_finished_test_leaves_ends,
         a_test_that_prints_without_end_is_ended, a_test_that_ends_is_judged_by_its_code,
         a_run_that_is_ended_ends_its_test]


def main():
    planted.adopt()
    failed = 0
    for test in TESTS:
        with tempfile.TemporaryFile("w+") as log:
            good = test(log) and planted.descendants() == []
        if not good:
            print("FAIL", test.__name__, planted.descendants())
            failed += 1
    print(f"{len(TESTS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
