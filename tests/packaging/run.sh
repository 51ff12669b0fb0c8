#!/bin/bash
# Builds the packages and tests them, as root:
#
#   tests/packaging/run.sh              all of them
#   tests/packaging/run.sh deb          the Debian package in an empty Debian: installed, started, upgraded, removed, purged
#   tests/packaging/run.sh systemd      the same under systemd, in a virtual machine (tests/vm/systemd/package.sh)
#   tests/packaging/run.sh static       the static programs: on an old Debian, in an empty folder, and for arm64 if told; the one for devices
#   tests/packaging/run.sh image        the container image: built, started, revoked in, stopped
#   tests/packaging/run.sh files        scripts and configuration files for routers and containers
#
# PACKAGING_TARGETS="x86_64-unknown-linux-musl aarch64-unknown-linux-musl": with the static program for arm64.
# PACKAGING_BUILT=yes: with the packages that are in target/packages.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/packaging/lib.sh

built() { [ "${PACKAGING_BUILT:-}" = yes ] || packaging/release "$@"; }

debs_are_built=no
build_debs() {
  [ "$debs_are_built" = no ] || return 0
  built deb
  # Quick, and not among the packages for users.
  packaging/release repacked 9.0-1 "$out/upgrade"
  debs_are_built=yes
}

systemd() {
  build_debs
  VM_ONLY=package tests/vm/run.sh
}

deb() {
  build_debs
  debian bookworm >/dev/null
  alone deb.sh
}

static() {
  # shellcheck disable=SC2086
  built static ${PACKAGING_TARGETS:-x86_64-unknown-linux-musl}
  built device
  debian bullseye >/dev/null
  alone static.sh
}

image() {
  built image
  alone image.sh
}

files() {
  built sbom
  bash -euo pipefail -c '. tests/packaging/lib.sh; . tests/packaging/files.sh; echo "$passed passed, 0 failed"'
}

[ $# -gt 0 ] || set -- files deb systemd static image
for part in "$@"; do
  case $part in
    files | deb | systemd | static | image) printf -- '-- %s (%s s)\n' "$part" "$SECONDS"; "$part" ;;
    *) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
