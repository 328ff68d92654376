#!/usr/bin/env python3
# check_style.py - Holds each file to the habits of the house that a script can see.
# SPDX-License-Identifier: Apache-2.0
"""Usage: tools/check_style.py. Exit 1 on an error; long files are only warned about."""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBRARY = ("arena", "memtable", "wal", "sstable", "engine")
FOLDERS = LIBRARY + ("tools", "tests")
# The doors to memory, files and threads: what poison.h forbids is their business.
DOORS = {"arena/alloc.c", "arena/sync.c", "arena/vfs_map.c", "arena/vfs_posix.c", "arena/thread_slot.c"}
LINES_WARN = 700
DEFECTS = "tests/arena/defects_test.c"
EXAMPLES_OF = "arena/vfs.h"
COMMENT_REACH = 3  # lines above an atomic operation in which its comment may end
SPDX = "SPDX-License-Identifier: Apache-2.0"
ATOMIC = re.compile(r"\batom_(?:load|store|swap|add|sub|or|and|cas)\s*\(")
ORDERED = re.compile(r"\b(?:acquire|release|acq_rel|seq_cst)\b")


def files():
    yield from ("CMakeLists.txt",)
    for folder in FOLDERS:
        for where, dirs, names in os.walk(os.path.join(ROOT, folder)):
            dirs.sort()
            for name in sorted(names):
                yield os.path.relpath(os.path.join(where, name), ROOT)


def is_text(path):
    return path.endswith((".c", ".h", ".py", ".sh", ".md", ".cmake", ".in", ".map", ".txt")) or (
        "." not in os.path.basename(path) and os.access(os.path.join(ROOT, path), os.X_OK))


def check_opening(path, lines, errors):
    """Line 1 says what the file is for, line 2 names the licence; scripts have #! before."""
    name = os.path.basename(path)
    if name.endswith((".c", ".h")):
        first, second = f"/* {name} - ", f" * {SPDX}"
    elif name.endswith((".py", ".sh", ".cmake")) or name == "CMakeLists.txt" or "." not in name:
        first, second = f"# {name} - ", f"# {SPDX}"
    else:
        return
    start = 1 if lines and lines[0].startswith("#!") else 0
    if len(lines) < start + 2:
        errors.append(f"{path}: too short to say what it is")
        return
    if not re.match(re.escape(first) + r"\S", lines[start]):
        errors.append(f"{path}:{start + 1}: does not open with '{first}<sentence>'")
    if lines[start + 1] != second:
        errors.append(f"{path}:{start + 2}: is not '{second}'")


def check_whitespace(path, text, errors):
    for i, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            errors.append(f"{path}:{i}: trailing whitespace")
        if "\t" in line and not path.endswith(".md"):
            errors.append(f"{path}:{i}: tab")
    if text and not text.endswith("\n"):
        errors.append(f"{path}: no newline at the end")


def check_poison(path, text, errors):
    """poison.h is the last include of a library file, and absent from the doors."""
    includes = re.findall(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', text, re.M)
    if path in DOORS:
        return
    if "arena/poison.h" not in includes:
        errors.append(f"{path}: does not include arena/poison.h")
    elif includes[-1] != "arena/poison.h":
        errors.append(f"{path}: arena/poison.h is not the last include")


def call_end(text, at):
    """The index after the parenthesis that closes the call opened before `at`."""
    depth = 1
    while at < len(text) and depth > 0:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return at


def without_comments(text):
    """Comments blanked out, so that words in them are not taken for code."""
    return re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)


def check_atomics(path, text, errors):
    code, lines = without_comments(text), text.split("\n")
    for match in ATOMIC.finditer(code):
        end = call_end(code, match.end())
        if not ORDERED.search(code[match.end():end]):
            continue
        first = code.count("\n", 0, match.start())  # from 0
        last = code.count("\n", 0, end)
        near = lines[max(0, first - COMMENT_REACH):last + 1]
        if not any("/*" in l or "*/" in l for l in near):
            errors.append(f"{path}:{first + 1}: an ordered atomic operation without a comment")


def check_defects(errors):
    """Each numbered defect is in a test's name, or listed in DEFECTS with why it cannot occur."""
    names, listed = set(), set()
    for where, _, files_here in os.walk(os.path.join(ROOT, "tests")):
        for name in files_here:
            if name.endswith(".c"):
                with open(os.path.join(where, name), encoding="utf-8") as f:
                    text = f.read()
                for test in re.findall(r"^(?:Test|STRESS)\(\w+, (\w+)", text, re.M):
                    names.update(re.findall(r"(?:^|_)([SFCAD]\d+)(?=_)", test))
                if name == os.path.basename(DEFECTS):
                    listed.update(re.findall(r"^ \*     ([SFCAD]\d+)  ", text, re.M))
    for letter, last in {"S": 14, "F": 22, "C": 14, "A": 9, "D": 9}.items():
        for number in range(1, last + 1):
            if f"{letter}{number}" not in names | listed:
                errors.append(f"{DEFECTS}: {letter}{number} is neither tested nor listed")


def shown_in_header(name):
    """The code that a comment of the header shows as tests/examples/NAME.c; notes begin with '...'."""
    with open(os.path.join(ROOT, EXAMPLES_OF), encoding="utf-8") as f:
        match = re.search(rf"tests/examples/{name}\b.*\n \*\n((?: \*     .*\n)+)", f.read())
    return match.group(1).split("\n")[:-1] if match else []


def shown_by_example(text):
    match = re.search(r"/\* ---- vfs\.h shows .*\n((?:.*\n)*?) +/\* ---- as far as here", text)
    lines = match.group(1).split("\n")[:-1] if match else [""]
    return [" * " + re.sub(r" */\* (.*) \*/$", r"  ... \1", line) for line in lines]


def check_examples(errors):
    """What the header shows is what the tests compile and run."""
    for name in sorted(os.listdir(os.path.join(ROOT, "tests/examples"))):
        with open(os.path.join(ROOT, "tests/examples", name), encoding="utf-8") as f:
            if shown_by_example(f.read()) != shown_in_header(name):
                errors.append(f"tests/examples/{name}: {EXAMPLES_OF} shows something else")


def main():
    errors, warnings, count = [], [], 0
    check_defects(errors)
    check_examples(errors)
    for path in files():
        if not is_text(path) or not os.path.isfile(os.path.join(ROOT, path)):
            continue
        with open(os.path.join(ROOT, path), encoding="utf-8", newline="") as f:
            text = f.read()
        count += 1
        lines = text.split("\n")
        check_opening(path, lines, errors)
        check_whitespace(path, text, errors)
        if path.split("/")[0] in LIBRARY:
            if path.endswith(".c"):
                check_poison(path, text, errors)
            if path.endswith((".c", ".h")) and path != "arena/atomic.h":
                check_atomics(path, text, errors)
        if path.endswith((".c", ".h")) and len(lines) > LINES_WARN:
            warnings.append(f"{path}: {len(lines)} lines")
    for w in warnings:
        print("warning: " + w)
    for e in errors:
        print(e)
    print(f"style: {count} files, {len(warnings)} warnings, {len(errors)} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
