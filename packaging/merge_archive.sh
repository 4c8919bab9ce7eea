#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# merge_archive.sh OUT EXPORTS OURS [DEPENDENCY...]: one static library from our archive and those it needs (oneDNN,
# Highway), in which no symbol but those listed in EXPORTS is visible, so that a program may hold another oneDNN too.
#
# The linker joins all into one object; group sections are dissolved, since a hidden copy of a template must not be
# dropped for somebody else's visible one. Functions keep their own sections, for the --gc-sections of who links.
# DROP_UNIQUE is the program made from drop_unique.cc.
set -euo pipefail
out="$1" exports="$2" ours="$3"
shift 3
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${LD:-ld}" -r --force-group-allocation -o "$work/crease.o" --whole-archive "$ours" --no-whole-archive \
  --start-group "$@" --end-group
"$DROP_UNIQUE" "$work/crease.o"
"${OBJCOPY:-objcopy}" --keep-global-symbols="$exports" --strip-unneeded "$work/crease.o"
rm -f "$out"
mkdir -p "$(dirname "$out")"
"${AR:-ar}" rcsD "$out" "$work/crease.o"
