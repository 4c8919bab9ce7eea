#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds Crease and runs all its tests: those in C++ by ctest, those in Python that drive the command line by pytest.
#
#   scripts/test.sh [--preset dev|release|asan-ubsan|tsan] [--no-python] [--strict] [CTEST ARGUMENT...]
#
# --strict fails, too, if a test was skipped because the networks beside the checkout (../shared, or CREASE_SHARED)
# are missing. Can be run again; what is built stays in build/PRESET.
. "$(dirname "$0")/lib/common.sh"
. "$crease_root/scripts/lib/apt.sh"
. "$crease_root/scripts/lib/build.sh"

preset=dev with_python=yes strict=
while (($#)); do
  case "$1" in
    --preset) preset="${2:?--preset needs a name}"; shift 2 ;;
    --no-python) with_python=; shift ;;
    --strict) strict=yes; shift ;;
    -h | --help) sed -n '3,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) break ;;
  esac
done

"$crease_root/scripts/deps.sh"
build_preset "$preset" all ${CREASE_SHARED:+"-DCREASE_SHARED_DIR=$CREASE_SHARED"}
build="$crease_root/build/$preset"
shared="$(sed -n 's/^CREASE_SHARED_DIR:[^=]*=//p' "$build/CMakeCache.txt")"

failed=()
step "C++ tests"
logged "ctest" ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$(nproc)" "$@" || failed+=("C++ tests")
results="$build/Testing/Temporary/LastTest.log"
note "$(grep -c '^Test Passed\.' "$results") passed, $(grep -c '^Test Failed\.' "$results") failed"
# A skipped test whose own output speaks of shared files.
skipped="$(awk '
  /^"[^"]*" start time:/ {next}
  /^[0-9]+\/[0-9]+ Test(ing)?: / {name = $3}
  /^Output:/ {inside = 1; skips = wants = 0; next}
  /^<end of output>/ {if (inside && skips && wants) print name; inside = 0}
  inside && /\[  SKIPPED \]/ {skips = 1}
  inside && /CREASE_SHARED|shared\/models/ {wants = 1}' "$results")"

if [[ -n "$with_python" ]]; then
  python="$(python_venv)"
  step "Python tests"
  CREASE_BIN="$build/crease" CREASE_SHARED="$shared" logged "pytest" \
    "$python" -m pytest "$crease_root/tests/python" -q -rs -p no:cacheprovider --color=no || failed+=("Python tests")
  note "$(tail -n 1 "$crease_last_log")"
  skipped+="$(grep -i '^SKIPPED.*CREASE_SHARED' "$crease_last_log" || true)"
fi

if [[ -n "$strict" && ! -d "$shared/models" ]]; then
  failed+=("--strict: no networks in $shared/models")
elif [[ -n "$strict" && -n "$skipped" ]]; then
  printf '%s\n' "$skipped"
  failed+=("--strict: tests were skipped for want of shared files")
fi

((${#failed[@]} == 0)) || fail "$(printf '%s; ' "${failed[@]}" | sed 's/; $//')"
step "All tests passed"
