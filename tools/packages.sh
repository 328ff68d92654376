# packages.sh - Installs the Debian packages that are missing; sourced by tools/check and tools/run.
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh

# need_packages yes|no NAME...: with "no" it only says what to type, and fails.
need_packages() {
    install=$1
    shift
    if ! command -v dpkg >/dev/null 2>&1; then
        echo "packages: no dpkg here; taking it on trust that these are present: $*"
        return 0
    fi
    missing=
    for package in "$@"; do
        if ! dpkg -s "$package" 2>/dev/null | grep -q '^Status: .* installed$'; then
            missing="$missing $package"
        fi
    done
    if [ -z "$missing" ]; then
        echo "packages: all present"
        return 0
    fi
    line="apt-get install -y --no-install-recommends$missing"
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        as_root=sudo
        if ! command -v sudo >/dev/null 2>&1; then install=no; fi
    fi
    if [ "$install" = no ]; then
        echo "packages missing; install them as root with: $line"
        return 1
    fi
    echo "packages: installing$missing"
    mkdir -p build
    # Lists of words are meant: neither variable holds anything but names. Another package manager
    # that is at work, as on a machine that has just started, is waited for.
    # shellcheck disable=SC2086
    apt_get() {
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@" \
            </dev/null
    }
    # shellcheck disable=SC2086
    if ! { apt_get ${line#apt-get } || { apt_get update && apt_get ${line#apt-get }; }; } \
        >build/packages.log 2>&1; then
        tail -n 20 build/packages.log
        echo "packages: that failed; all of it is in build/packages.log"
        return 1
    fi
}
