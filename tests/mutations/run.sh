#!/bin/sh
# run.sh - Plants one bug after the other in a copy of the tree and expects the suite named with it to fail.
# SPDX-License-Identifier: Apache-2.0
#
# tests/mutations/run.sh [PATTERN]   mutations whose name contains PATTERN (default: all)
#
# A mutation is a file NAME.patch: lines `What:`, `Build:` (a target of the build) and `Run:` (a program
# of the build with its arguments), then a patch to be applied with -p1. The program must end with
# another exit code than 0; a build that fails or a patch that does not apply is an error of the list.
# Exit 0: all were killed.
set -u
cd "$(dirname "$0")/../.." || exit 1
root=$PWD
copy=$root/build/mutations
pattern=${1:-}
seconds=300 # for one program

field() { sed -n "s/^$1: *//p" "$2" | head -n 1; }

mkdir -p "$copy/tree"
git ls-files -z | xargs -0 cp --parents -p -t "$copy/tree" || exit 1
cd "$copy/tree" || exit 1
if command -v ninja >/dev/null 2>&1; then export CMAKE_GENERATOR=Ninja; fi
cmake --preset release -DLOAM_BUILD_TESTS=ON >"$copy/configure.log" 2>&1 || {
    tail -n 5 "$copy/configure.log"
    exit 1
}

killed=0 survived=0
for patch in "$root"/tests/mutations/*"$pattern"*.patch; do
    name=$(basename "$patch" .patch)
    target=$(field Build "$patch")
    # shellcheck disable=SC2046 # a program and its arguments
    set -- $(field Run "$patch")
    program=$1
    shift
    start=$(date +%s) verdict=survived
    if ! patch -s -p1 <"$patch" >"$copy/$name.log" 2>&1; then
        verdict="does not apply"
    elif ! cmake --build build/release -j 2 --target "$target" >>"$copy/$name.log" 2>&1; then
        verdict="does not build"
    else
        for path in "build/release/$program" "build/release/tests/$program"; do
            if [ -x "$path" ]; then program=$path; fi
        done
        timeout "$seconds" "$program" "$@" >>"$copy/$name.log" 2>&1
        rc=$?
        case $rc in
        0) ;;
        2 | 126 | 127) verdict="does not run" ;; # bad flags, or no program
        *) verdict=killed ;;
        esac
    fi
    patch -s -R -p1 <"$patch" >/dev/null 2>&1
    if [ "$verdict" = killed ]; then killed=$((killed + 1)); else survived=$((survived + 1)); fi
    printf '%-8s %-32s %4d s   %s\n' "$verdict" "$name" $(($(date +%s) - start)) \
        "$(field What "$patch")"
done
echo "$killed passed, $survived failed"
[ "$survived" -eq 0 ]
