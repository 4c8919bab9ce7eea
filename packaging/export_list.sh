#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# export_list.sh ARCHIVE PREFIX: from the archive of all our objects, PREFIX.list with the mangled names of the
# functions that include/crease declares, one a line, and PREFIX.map, a linker's version script that exports them.
#
# Everything is compiled with hidden visibility; the public headers switch to default visibility,
# but for the nested classes that they keep to themselves.
set -euo pipefail
mkdir -p "$(dirname "$2")"
readelf --symbols --wide "$1" |
  awk '$4 == "FUNC" && $5 == "GLOBAL" && $6 == "DEFAULT" && $7 != "UND" {print $8}' |
  { grep -E '^_ZN?K?6crease' || true; } | sort -u >"$2.list"
{
  echo "{"
  if [[ -s "$2.list" ]]; then
    echo "  global:"
    sed 's/.*/    &;/' "$2.list"
  fi
  echo "  local: *;"
  echo "};"
} >"$2.map"
