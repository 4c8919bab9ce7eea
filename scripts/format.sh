#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Formats every C++ file with clang-format 14, the version that CI uses; --check only names those that differ.
. "$(dirname "$0")/lib/common.sh"
. "$crease_root/scripts/lib/apt.sh"

command -v clang-format-14 >/dev/null || apt_install clang-format-14
cd "$crease_root"
mapfile -t files < <(git ls-files --cached --others --exclude-standard '*.cc' '*.h')
if [[ "${1:-}" == --check ]]; then
  bad=()
  for file in "${files[@]}"; do
    clang-format-14 --dry-run --Werror "$file" 2>/dev/null || bad+=("$file")
  done
  ((${#bad[@]} == 0)) || fail "formatting of ${bad[*]} (run scripts/format.sh)"
  step "${#files[@]} files are formatted"
else
  clang-format-14 -i "${files[@]}"
fi
