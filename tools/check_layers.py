#!/usr/bin/env python3
# check_layers.py - Holds the source tree to its law: who includes whom, and what stands where.
# SPDX-License-Identifier: Apache-2.0
"""Usage: tools/check_layers.py [--graph]. Exit 1 when the law is broken."""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBRARY = ("arena", "memtable", "wal", "sstable", "engine")
FOLDERS = LIBRARY + ("tools", "tests")
TOP_LEVEL = set(FOLDERS) | {"CMakeLists.txt", "CMakePresets.json", "LICENSE", "README.md"}
README_LINES_MAX = 80

# Arrows point downward only.
MAY_INCLUDE = {
    "arena": {"arena"},
    "memtable": {"memtable", "arena"},
    "wal": {"wal", "arena"},
    "sstable": {"sstable", "arena"},
    "engine": set(LIBRARY),
    "tools": {"tools"},  # and the one header below
    "tests": set(FOLDERS),
}
PUBLIC_HEADER = "engine/loam.h"
# The tool that prints files byte by byte may read how they are laid out.
READS_FORMATS = re.compile(r"tools/\w*dump\w*\.[ch]$")
# The program that times the memory structures alone sees those, and nothing above them.
TIMES_STRUCTURES = re.compile(r"tools/micro_\w+\.[ch]$")
STRUCTURES = {"arena", "memtable"}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', re.M)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def sources():
    """Every .c and .h file below the folders, as paths from the root."""
    for folder in FOLDERS:
        for where, dirs, files in os.walk(os.path.join(ROOT, folder)):
            dirs.sort()
            for name in sorted(files):
                if name.endswith((".c", ".h")):
                    yield os.path.relpath(os.path.join(where, name), ROOT)


def allowed(path, target):
    folder, goal = path.split("/")[0], target.split("/")[0]
    if goal in MAY_INCLUDE[folder]:
        return True
    if TIMES_STRUCTURES.match(path) and goal in STRUCTURES:
        return True
    return folder == "tools" and (target == PUBLIC_HEADER or bool(READS_FORMATS.match(path)))


def check_includes(edges, errors):
    for path in sources():
        for match in INCLUDE.finditer(read(path)):
            target, line = match.group(1), read(path).count("\n", 0, match.start()) + 1
            here = f"{path}:{line}: "
            if not os.path.isfile(os.path.join(ROOT, target)):
                errors.append(here + f'"{target}" is no file from the root')
            elif not allowed(path, target):
                errors.append(here + f"may not include {target}")
            edges.append((path, target))


def check_top_level(errors):
    for name in sorted(os.listdir(ROOT)):
        if name.startswith(".") or name == "build" or name.startswith("build-"):
            continue
        if name not in TOP_LEVEL:
            errors.append(f"{name}: does not belong to the top level")
    for name in sorted(TOP_LEVEL):
        if not os.path.exists(os.path.join(ROOT, name)):
            errors.append(f"{name}: missing")


def check_readmes(errors):
    for folder in FOLDERS:
        path = f"{folder}/README.md"
        if not os.path.isfile(os.path.join(ROOT, path)):
            errors.append(f"{path}: missing")
        elif read(path).count("\n") > README_LINES_MAX:
            errors.append(f"{path}: {read(path).count(chr(10))} lines, at most {README_LINES_MAX}")


def check_source_lists(errors):
    code = re.sub(r"#.*", "", read("CMakeLists.txt"))
    listed = set(re.findall(r"\b\w+/\w+\.c\b", code))
    present = {p for p in sources() if p.endswith(".c") and not p.startswith("tests/")}
    errors += [f"CMakeLists.txt: {p} is not listed" for p in sorted(present - listed)]
    errors += [f"CMakeLists.txt: {p} does not exist" for p in sorted(listed - present)]


def module(path):
    return os.path.splitext(path)[0]


def print_graph(edges):
    between, out, into = {}, {}, {}
    for source, target in edges:
        if source.startswith("tests/"):
            continue
        pair = (source.split("/")[0], target.split("/")[0])
        between[pair] = between.get(pair, 0) + 1
        if module(source) != module(target):
            out.setdefault(module(source), set()).add(module(target))
            into.setdefault(module(target), set()).add(module(source))
    print("folders (#include lines)")
    for (a, b), n in sorted(between.items()):
        print(f"  {a:9} -> {b:9} {n:4}")
    print("modules (edges out, edges in)")
    for m in sorted(set(out) | set(into)):
        print(f"  {m:32} {len(out.get(m, ())):4} {len(into.get(m, ())):4}")
    total = sum(len(v) for v in out.values())
    print(f"{len(set(out) | set(into))} modules, {total} edges")


def main():
    errors, edges = [], []
    check_includes(edges, errors)
    check_top_level(errors)
    check_readmes(errors)
    check_source_lists(errors)
    if "--graph" in sys.argv[1:]:
        print_graph(edges)
    for e in errors:
        print(e)
    print(f"layers: {len(edges)} includes, {len(errors)} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
