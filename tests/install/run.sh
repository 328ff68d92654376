#!/bin/sh
# run.sh - Installs into a temporary place and uses the library in every way a user may.
# SPDX-License-Identifier: Apache-2.0
#
# run.sh SOURCE BUILD CC CMAKE; prints a line a check and "N passed, M failed".
set -u
source_dir=$1 build=$2 cc=$3 cmake=$4
here=$source_dir/tests/install
work=$(mktemp -d "${TMPDIR:-/tmp}/loam-install-XXXXXX")
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix
passed=0 failed=0

# check NAME COMMAND...: its output is shown only when it fails.
check() {
    name=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        passed=$((passed + 1))
        echo "ok    $name"
    else
        failed=$((failed + 1))
        echo "FAIL  $name"
        sed 's/^/      /' "$work/log" | tail -n 40
    fi
}

strict="-Wall -Wextra -pedantic -Werror"

installs() {
    "$cmake" --install "$build" --prefix "$prefix"
}

one_header() {
    [ "$(find "$prefix/include" -type f)" = "$prefix/include/loam/loam.h" ] &&
        ! grep -n '#include "' "$prefix/include/loam/loam.h"
}

# Word splitting is wanted wherever flags come from a variable or from pkg-config.
# shellcheck disable=SC2046,SC2086
c_header() {
    for standard in c99 c11 c17; do
        "$cc" -std=$standard $strict -I"$prefix/include" -fsyntax-only "$here/consumer.c" || return 1
        echo '#include <loam.h>' | "$cc" -std=$standard $strict $(pkg-config --cflags loam) \
            -fsyntax-only -x c - || return 1
    done
}

# shellcheck disable=SC2046,SC2086
cxx_header() {
    "$1" -std=c++11 $strict "$here/header.cc" -o "$work/header_cc" \
        $(pkg-config --cflags --libs loam) && "$work/header_cc"
}

# shellcheck disable=SC2046,SC2086
pkg_config_shared() {
    "$cc" $strict "$here/consumer.c" -o "$work/shared" $(pkg-config --cflags --libs loam) &&
        readelf -d "$work/shared" | grep -q 'NEEDED.*libloam\.so\.0' && "$work/shared"
}

# shellcheck disable=SC2046,SC2086
pkg_config_static() {
    "$cc" -static $strict "$here/consumer.c" -o "$work/static" \
        $(pkg-config --static --cflags --libs loam) && "$work/static"
}

cmake_project() {
    "$cmake" -S "$here/$1" -B "$work/$1" -DCMAKE_C_COMPILER="$cc" -DCMAKE_PREFIX_PATH="$prefix" \
        -DLOAM_SOURCE="$source_dir" && "$cmake" --build "$work/$1" -j 2 &&
        "$work/$1/with_loam" && "$work/$1/with_loam_static"
}

# shellcheck disable=SC2086
dlopened() {
    "$cc" -std=c11 -Wall -Wextra -Werror -I"$prefix/include" "$here/dlopen.c" -o "$work/dlopened" \
        -ldl && "$work/dlopened" "$lib/libloam.so.0"
}

needs_little() {
    readelf -d "$lib/libloam.so" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' >"$work/needed"
    cat "$work/needed"
    ! grep -vE '^(libxxhash\.so\.0|liblz4\.so\.1|libzstd\.so\.1|libc\.so\.6|ld-linux.*)$' "$work/needed"
}

has_soname() {
    readelf -d "$lib/libloam.so" | grep 'SONAME.*\[libloam\.so\.0\]'
}

# The names that the shared library exports, without their version.
exported() {
    nm -D --defined-only "$lib/libloam.so" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort
}

exports_only_its_own() {
    exported >"$work/exported"
    test -s "$work/exported" && ! grep -v '^loam_' "$work/exported"
}

archive_shows_only_its_own() {
    nm -g --defined-only "$lib/libloam.a" | awk 'NF == 3 { print $3 }' | sort >"$work/global"
    test -s "$work/global" && ! grep -v '^loam_' "$work/global"
}

exports_what_is_declared() {
    grep -v '^#' "$prefix/include/loam/loam.h" | tr '\n' ' ' | grep -o 'LOAM_API [^;(]*(' |
        sed 's/.*[ *]\(loam_[a-z0-9_]*\)($/\1/' | sort -u >"$work/declared"
    exported | comm -3 "$work/declared" - | tee "$work/differ"
    test -s "$work/declared" && ! test -s "$work/differ"
}

hardened() {
    readelf -lW "$lib/libloam.so" | grep -q GNU_RELRO &&
        readelf -dW "$lib/libloam.so" | grep -q BIND_NOW &&
        ! readelf -lW "$lib/libloam.so" | grep 'GNU_STACK.*E '
}

# The first C block of the README with a main(), its database moved into the work directory.
# shellcheck disable=SC2046,SC2086
readme_example() {
    awk '/^```c$/ { on = 1; text = ""; next }
         /^```$/ { if (on && text ~ /int main\(/) { printf "%s", text; exit } on = 0 }
         on { text = text $0 "\n" }' "$source_dir/README.md" |
        sed 's|"/tmp/|"|' >"$work/readme.c"
    test -s "$work/readme.c" &&
        "$cc" -std=c11 -Wall -Wextra -Werror "$work/readme.c" -o "$work/readme" \
            $(pkg-config --cflags --libs loam) &&
        (mkdir "$work/readme_dir" && cd "$work/readme_dir" && test "$("$work/readme")" = world)
}

# What the header shows, with the header that is installed.
# shellcheck disable=SC2046,SC2086
header_examples() {
    for example in "$source_dir"/tests/examples/*.c; do
        "$cc" -std=c11 $strict "$example" -o "$work/example" $(pkg-config --cflags --libs loam) &&
            "$work/example" || return 1
    done
}

check "installs" installs
if [ "$failed" -ne 0 ]; then
    echo "$passed passed, $failed failed"
    exit 1
fi
lib=$(dirname "$(find "$prefix" -name libloam.a)")
export PKG_CONFIG_PATH="$lib/pkgconfig" LD_LIBRARY_PATH="$lib"
check "one self-contained header" one_header
check "header compiles as C99, C11 and C17" c_header
for cxx in g++ clang++-14 clang++; do
    if command -v "$cxx" >/dev/null 2>&1; then
        check "header compiles as C++11 with $cxx" cxx_header "$cxx"
    fi
done
check "pkg-config, shared" pkg_config_shared
check "pkg-config --static" pkg_config_static
check "find_package" cmake_project find_package
check "add_subdirectory" cmake_project add_subdirectory
check "dlopen" dlopened
check "python3 ctypes" python3 "$here/ctypes_test.py" "$lib/libloam.so.0" "$work/python_db"
check "needs only libxxhash, liblz4 and libc" needs_little
check "SONAME is libloam.so.0" has_soname
check "exports loam_* alone" exports_only_its_own
check "the archive shows loam_* alone" archive_shows_only_its_own
check "exports what the header declares, and nothing else" exports_what_is_declared
check "hardened" hardened
check "the README's example" readme_example
check "the header's examples" header_examples
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
