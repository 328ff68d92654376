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
    as_root=
    [ "$(id -u)" -eq 0 ] || as_root=sudo
    line="apt-get install -y --no-install-recommends$missing"
    if [ "$install" = no ]; then
        echo "packages missing; install them with: ${as_root:+$as_root }$line"
        return 1
    fi
    echo "packages: installing$missing"
    # A list of words is meant: neither variable holds anything but names.
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $as_root $line ||
        { $as_root apt-get update && DEBIAN_FRONTEND=noninteractive $as_root $line; }
}
