#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every source, script and build file names its licence in one of its first two lines.
set -euo pipefail
cd "$(dirname "$0")/../.."
bad=0
while read -r file; do
  head -n 2 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' && continue
  echo "$file has no SPDX line"
  bad=1
done < <(find . -type f \( -name '*.cc' -o -name '*.h' -o -name '*.sh' -o -name '*.py' -o -name '*.cmake' -o \
  -name CMakeLists.txt -o -path './.ci/run' \) -not -path './build*' -not -path './.git/*')
exit "$bad"
