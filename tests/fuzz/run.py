#!/usr/bin/env python3
# run.py - Runs fuzz targets under libFuzzer within their limits, and keeps count of the executions.
# SPDX-License-Identifier: Apache-2.0
"""Usage: tests/fuzz/run.py [--build DIR] [--corpus DIR] [--counts FILE] [--until N] [--slice SECONDS]
                         [--seconds N] [TARGET...]

Runs each target of build/fuzz, the one nearest to --until first, in slices until it has had so many
executions, or until --seconds have passed. What is found new stays in --corpus, beside which the one of
the repository is read. The table in README.md (or FILE) is brought up to date after every slice.
Stops with exit code 1 at the first finding, whose input stays in --corpus.

Limits: no single allocation over 64 MiB, 512 MiB in all with what the sanitizers need, a minute of real
time against hangs, which a busy machine does not reach; fuzz_end() holds an input of 1 KiB to 64 MiB and a second of processor time.
"""
import argparse
import datetime
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ROW = re.compile(r"^\| (\w+) \| +([\d,]+) \| (\S+) \|$")
# Large inputs cost time and reach nothing that smaller ones do not; tables need some more room.
SIZE_MAX = {"table": 8192}
SIZE_MAX_ELSE = 4096
LIMITS = ["-rss_limit_mb=512", "-malloc_limit_mb=64", "-timeout=60"]
# Neither stack traces of allocations nor statistics of rare features: twice the executions. What others add
# to the corpus is read by the next slice. Freed memory is kept from use for about two inputs' allocations,
# which a processor's cache holds.
FAST = ["-entropic=0", "-purge_allocator_interval=-1", "-detect_leaks=0", "-print_funcs=0", "-reload=0"]
ASAN = ("malloc_context_size=0:allocator_release_to_os_interval_ms=-1:max_malloc_fill_size=256:"
        "quarantine_size_mb=1:thread_local_quarantine_size_kb=256")


def read_counts(path):
    with open(path, encoding="utf-8") as f:
        rows = [ROW.match(line.rstrip("\n")) for line in f]
    return {m[1]: int(m[2].replace(",", "")) for m in rows if m}


def add_count(path, target, executions):
    """One row of the table, rewritten whole: a stopped run leaves the old file or the new one."""
    today = datetime.date.today().isoformat()
    with open(path, encoding="utf-8") as f:
        lines = f.read().splitlines()
    for i, line in enumerate(lines):
        m = ROW.match(line)
        if m and m[1] == target:
            total = int(m[2].replace(",", "")) + executions
            lines[i] = f"| {target} | {total:,} | {today} |"
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    os.replace(path + ".new", path)


def run_slice(args, target, seconds, runs):
    """Executions done, and whether nothing was found."""
    kept = os.path.join(args.corpus, target)
    os.makedirs(kept, exist_ok=True)
    command = [os.path.join(args.build, "tests/fuzz/libfuzzer-" + target), *LIMITS, *FAST,
               f"-max_len={SIZE_MAX.get(target, SIZE_MAX_ELSE)}", f"-max_total_time={seconds}",
               f"-runs={runs}", "-print_final_stats=1", f"-artifact_prefix={kept}-found-",
               kept, os.path.join(HERE, "corpus", target)]
    env = dict(os.environ, ASAN_OPTIONS=ASAN)
    done = subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          errors="replace", check=False)
    count = re.findall(r"stat::number_of_executed_units: (\d+)", done.stderr)
    if done.returncode != 0:
        print(done.stderr[-8000:])
    return int(count[-1]) if count else 0, done.returncode == 0


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("--build", default=os.path.join(ROOT, "build/fuzz"))
    p.add_argument("--corpus", default=os.path.join(ROOT, "build/fuzz/corpus"))
    p.add_argument("--counts", default=os.path.join(HERE, "README.md"))
    p.add_argument("--until", type=int, default=10_000_000)
    p.add_argument("--slice", type=int, default=60)
    p.add_argument("--seconds", type=int, default=0)
    p.add_argument("targets", nargs="*")
    args = p.parse_args()
    args.build, args.corpus = os.path.abspath(args.build), os.path.abspath(args.corpus)
    end = time.monotonic() + args.seconds if args.seconds else float("inf")
    while time.monotonic() < end:
        left = {t: args.until - n for t, n in read_counts(args.counts).items()
                if n < args.until and (not args.targets or t in args.targets)}
        if not left:
            break
        target = min(left, key=left.get)
        seconds = max(1, int(min(args.slice, end - time.monotonic())))
        executions, sound = run_slice(args, target, seconds, left[target])
        add_count(args.counts, target, executions)
        print(f"{target}: {executions:,} executions, {read_counts(args.counts)[target]:,} in all",
              flush=True)
        if not sound:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
