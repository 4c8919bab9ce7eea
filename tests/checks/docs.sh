#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every file that a document names exists: paths in `backquotes` and targets of [links](...), from the root or from
# the document's own folder. Names with placeholders, and what a build or a user makes, are left alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
bad=0
while read -r document; do
  folder="$(dirname "$document")"
  while read -r name; do
    name="${name%%#*}"
    case "$name" in
      '' | *[\<\>\*\$\{\ ]* | *://* | mailto:* | build/* | ~* | /* | ../shared/* | ../shared | shared/* | [A-Z_]*/* | ./*) continue ;;
    esac
    [[ -e "$name" || -e "$folder/$name" ]] && continue
    echo "$document names $name, which does not exist"
    bad=1
  done < <(
    grep -oE '`[A-Za-z0-9_.{}<>*~$-]+/[A-Za-z0-9_./{}<>*,$-]+`' "$document" | tr -d '`'
    grep -oE '\]\([^)]+\)' "$document" | sed -E 's/^\]\(|\)$//g; s/ .*//'
  )
done < <(find . -name '*.md' -not -path './build*' -not -path './.git/*' | sed 's#^\./##' | sort)
exit "$bad"
