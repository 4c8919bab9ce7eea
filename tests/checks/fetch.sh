#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# scripts/lib/fetch.cmake, which unpacks upstream's release archives for scripts/deps.sh: from a file, a URL and a
# directory, with and without a folder at the archive's top; and what it refuses. Needs no network.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "fetch.cmake: $*" >&2; exit 1; }

mkdir -p upstream-1.0/src
echo 'project(upstream)' >upstream-1.0/CMakeLists.txt
echo 'int x;' >upstream-1.0/src/x.c
tar -czf topped.tar.gz upstream-1.0
tar -cJf flat.tar.xz -C upstream-1.0 CMakeLists.txt src
echo 'no archive' >text.tar.gz
hash="$(sha256sum topped.tar.gz | cut -d ' ' -f 1)"

# fetch SOURCE [SHA256]: into the new directory "got".
fetch() {
  rm -rf got got.*
  cmake -DSOURCE="$1" -DDIRECTORY="$work/got" -DSHA256="${2:-}" -P "$root/scripts/lib/fetch.cmake" >log 2>&1
}
for source in topped.tar.gz "$work/topped.tar.gz" "file://$work/topped.tar.gz" flat.tar.xz "$work/upstream-1.0"; do
  fetch "$source" || fail "$source: $(cat log)"
  diff -r upstream-1.0 got || fail "$source: another tree"
done
fetch topped.tar.gz "$hash" || fail "with its hash: $(cat log)"
fetch "file://$work/topped.tar.gz" "${hash^^}" || fail "with its hash in capitals: $(cat log)"

# refuse WHAT SOURCE [SHA256]: fails, says WHAT and leaves nothing behind.
refuse() {
  local what="$1"
  shift
  if fetch "$@"; then fail "takes $1"; fi
  tr -s ' \n' ' ' <log | grep -q "$what" || fail "$1: not '$what' but $(cat log)"
  [[ ! -e got ]] || fail "$1: leaves a tree"
}
refuse "has SHA-256 $hash, not 0123" topped.tar.gz 0123
refuse 'does not exist' nothing.tar.gz
refuse 'download of file:///nothing.tar.gz failed' file:///nothing.tar.gz
refuse 'text.tar.gz' text.tar.gz
