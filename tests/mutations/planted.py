# planted.py - Plants faults in a copy of the tree, one by one, and runs the test that must find each.
# SPDX-License-Identifier: Apache-2.0
"""What the lists of planted faults share. A fault is a piece of text that stands in exactly one place
and is replaced; a list that no longer fits the tree is told by check(), which costs nothing.

A test counts only when it is green without a fault: each command runs once on the bare copy first."""
import argparse
import ctypes
import fcntl
import glob
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SEED = "20261129"  # of random tests, unless LOAM_SEED says otherwise
NOT_RUN = (2, 126, 127)  # bad flags, or no program
LOG_MAX = 1 << 30  # bytes that a command may print
PR_SET_CHILD_SUBREAPER = 36


class Fault(NamedTuple):
    """`files`: a path, or a pattern for files that may be divided anew. `run`: a program of the build
    with its arguments; the program is also the target to build."""
    name: str
    files: str
    text: str
    instead: str
    run: str


def place_of(tree, fault):
    """(path, contents) of the one file that has the text once; or what is wrong."""
    found = []
    for path in sorted(glob.glob(os.path.join(tree, fault.files))):
        with open(path, encoding="utf-8") as f:
            contents = f.read()
        found += [(path, contents)] * contents.count(fault.text)
    if len(found) != 1:
        return None, f"the text stands in {len(found)} places of {fault.files}"
    if fault.text == fault.instead or not fault.text:
        return None, "it changes nothing"
    return found[0], None


def check(tree, faults):
    """What no longer fits the tree, a line each."""
    wrong = []
    names = [f.name for f in faults]
    for f in faults:
        _, why = place_of(tree, f)
        if names.count(f.name) != 1:
            why = "the name is given twice"
        if why:
            wrong.append(f"{f.name}: {why}")
    return wrong


def copy_tree(to):
    """Brings the copy up to date; what did not change keeps its time, so that builds are incremental."""
    kept = set()
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [d for d in folders if d not in ("build", ".git", "__pycache__")]
        for name in names:
            source = os.path.join(folder, name)
            relative = os.path.relpath(source, ROOT)
            target = os.path.join(to, relative)
            kept.add(relative)
            with open(source, "rb") as f:
                contents = f.read()
            if os.path.exists(target):
                with open(target, "rb") as f:
                    if f.read() == contents:
                        continue
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(source, target)
            os.utime(target)
    for folder, folders, names in os.walk(to):
        folders[:] = [d for d in folders if d != "build"]
        for name in names:
            path = os.path.join(folder, name)
            if os.path.relpath(path, to) not in kept:
                os.remove(path)


def adopt():
    """Makes what a test leaves behind a child of this process, not of init, so that descendants() finds it; and
    a signal that ends this process ends its test, too."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))


def descendants():
    """What this process started, and what that started. No process group has them all: each of a test
    framework's workers leads a session of its own."""
    children = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", "rb") as f:
                parent = int(f.read().rpartition(b")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
        children.setdefault(parent, []).append(int(entry))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def none_left(p):
    """Whether the command and all that it left have ended."""
    if p.poll() is None:
        return False
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
        return False
    except ChildProcessError:
        return True


def end_all(p):
    """Ends the command and everything it started. A fault may make a test loop for ever; going on beside the
    tests that follow, it would take their processor, and with it their verdicts."""
    until = time.monotonic() + 60
    while not none_left(p):
        if time.monotonic() > until:
            sys.exit(f"cannot be ended: {descendants()}")
        for pid in descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)


def wait(p, seconds, log):
    """Exit code of the process, or in words which limit it is over."""
    until = time.monotonic() + seconds
    while True:
        try:
            return p.wait(1)
        except subprocess.TimeoutExpired:
            if os.fstat(log.fileno()).st_size > LOG_MAX:
                return "prints without end"
            if time.monotonic() >= until:
                return f"not done in {seconds} s"


def finish(command, tree, seconds, log):
    """What wait() says of the command in the tree; nothing that it started goes on."""
    env = dict(os.environ)
    env.setdefault("LOAM_SEED", SEED)
    p = subprocess.Popen(command, cwd=tree, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                         start_new_session=True)
    try:
        return wait(p, seconds, log)
    finally:
        end_all(p)


class Copy:
    """A built copy of the tree."""

    def __init__(self, directory, jobs, seconds):
        self.tree = os.path.join(directory, "tree")
        self.jobs, self.seconds = jobs, seconds
        self.limits = {}  # seconds of a command once it has run without a fault
        os.makedirs(self.tree, exist_ok=True)
        self.log = open(os.path.join(directory, "log"), "a+", encoding="utf-8", errors="replace")
        try:
            fcntl.flock(self.log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another run uses {directory}")
        self.log.truncate(0)
        copy_tree(self.tree)
        command = ["cmake", "-S", ".", "-B", "build/release", "-DCMAKE_BUILD_TYPE=Release",
                   "-DLOAM_WERROR=OFF", "-DLOAM_BUILD_TESTS=ON"]
        if shutil.which("ninja"):
            command += ["-G", "Ninja"]
        if shutil.which("ccache"):
            command += ["-DCMAKE_C_COMPILER_LAUNCHER=ccache"]
        if finish(command, self.tree, 600, self.log) != 0:
            sys.exit("the copy cannot be configured:\n" + self.tail())

    def tail(self, lines=25):
        self.log.seek(0)
        return "".join(self.log.readlines()[-lines:])

    def try_run(self, run):
        """Builds and runs: "green", "red (what failed)", or what went wrong."""
        self.log.seek(0)
        self.log.truncate()
        program, *arguments = run.split()
        build = ["cmake", "--build", "build/release", "-j", str(self.jobs), "--target", program]
        if finish(build, self.tree, 1800, self.log) != 0:
            return "does not build"
        paths = [p for p in (f"build/release/{program}", f"build/release/tests/{program}")
                 if os.path.exists(os.path.join(self.tree, p))]
        if not paths:
            return "does not run"
        self.log.seek(0)
        self.log.truncate()
        start = time.monotonic()
        rc = finish([paths[0]] + arguments, self.tree, self.limits.get(run, self.seconds), self.log)
        if rc in NOT_RUN:
            return "does not run"
        if rc != 0:
            return f"red ({self.cause(rc)})"
        took = int(time.monotonic() - start)
        self.limits.setdefault(run, min(60 + 10 * took, 300 + 3 * took))
        return "green"

    def cause(self, rc):
        if isinstance(rc, str):
            return rc
        self.log.seek(0)
        for line in self.log:
            for mark in ("FAIL ", "[FAIL] "):
                if line.startswith(mark):
                    return line[len(mark):].split()[0].rstrip(":")
        return f"exit {rc}"

    def try_fault(self, fault):
        place, why = place_of(self.tree, fault)
        if why:
            return "does not apply: " + why
        path, contents = place
        with open(path, "w", encoding="utf-8") as f:
            f.write(contents.replace(fault.text, fault.instead))
        try:
            return self.try_run(fault.run)
        finally:
            with open(path, "w", encoding="utf-8") as f:
                f.write(contents)


def report(verdict, name, start):
    print(f"{name:40} {verdict:60} {time.monotonic() - start:6.1f} s", flush=True)


def arguments_of(description):
    p = argparse.ArgumentParser(description=description)
    p.add_argument("names", nargs="*", help="faults whose name contains one of these; default: all")
    p.add_argument("--check", action="store_true", help="only see that each fault still applies")
    p.add_argument("--jobs", type=int, default=2, help="of a build; tests run one by one (default 2)")
    p.add_argument("--seconds", type=int, default=1800, help="for a test without a fault (default 1800); with one it "
                   "gets some times as long as it took then, and over that is red")
    p.add_argument("--part", type=part, default=(1, 1), metavar="I/N", help="every Nth fault from the Ith on, in a "
                   "copy of its own, beside the other parts")
    p.add_argument("--verbose", action="store_true", help="what the test of a survivor printed")
    return p.parse_args()


def part(text):
    i, n = map(int, text.split("/"))
    if not 1 <= i <= n:
        raise ValueError
    return i, n


def main(name, faults, description):
    """Exit code: 0 when every fault was found, 1 otherwise."""
    a = arguments_of(description)
    i, n = a.part
    wanted = [f for f in faults if not a.names or any(word in f.name for word in a.names)][i - 1::n]
    if a.check:
        wrong = check(ROOT, wanted)
        print("\n".join(wrong + [f"{len(wanted) - len(wrong)} passed, {len(wrong)} failed"]))
        return 1 if wrong else 0
    adopt()
    copy = Copy(os.path.join(ROOT, "build", "mutations", name if n == 1 else f"{name}-{i}-of-{n}"), a.jobs, a.seconds)
    bare = dict.fromkeys(f.run for f in wanted)
    for run in bare:
        start = time.monotonic()
        bare[run] = copy.try_run(run)
        report(bare[run] + (" without a fault" if bare[run] == "green" else " WITHOUT A FAULT"), run, start)
        if bare[run] != "green":
            print(copy.tail(), flush=True)
    found = 0
    for fault in wanted:
        start = time.monotonic()
        if bare[fault.run] != "green":
            report("not tried", fault.name, start)
            continue
        verdict = copy.try_fault(fault)
        found += verdict.startswith("red")
        report(verdict if verdict != "green" else "SURVIVED", fault.name, start)
        if a.verbose and not verdict.startswith("red"):
            print(copy.tail(), flush=True)
    print(f"{found} passed, {len(wanted) - found} failed")
    return 0 if found == len(wanted) else 1
