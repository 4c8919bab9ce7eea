# SPDX-License-Identifier: Apache-2.0
# What the scripts share: saying what happens, naming what failed, and running long commands with signs of life.
# Sourced, not run.

set -euo pipefail

crease_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
crease_log_dir="${TMPDIR:-/tmp}/crease-logs.$(id -u)"
mkdir -p "$crease_log_dir"

crease_cache_home="${XDG_CACHE_HOME:-$HOME/.cache}/crease"
export CREASE_DEPS_CACHE="${CREASE_DEPS_CACHE:-$crease_cache_home/deps}"

if [[ -t 1 ]]; then bold=$'\e[1m' red=$'\e[31m' plain=$'\e[0m'; else bold='' red='' plain=''; fi

# step TEXT: what comes next.
step() { printf '%s[%3ds] %s%s\n' "$bold" "$SECONDS" "$*" "$plain"; }

# note TEXT: a detail of the step.
note() { printf '       %s\n' "$*"; }

# fail TEXT: says what failed and ends the script.
fail() { printf '%s%s failed: %s%s\n' "$red" "$(basename "$0")" "$*" "$plain" >&2; exit 1; }

# logged NAME COMMAND...: runs a command with its output in a log, its last line shown every 20 seconds. A failure
# shows the end of the log and returns the command's status. $crease_last_log is the log.
logged() {
  local name="$1" log status=0 started=$SECONDS said=$SECONDS pid
  shift
  log="$crease_log_dir/$(basename "$0").$$.${name//[^A-Za-z0-9]/-}.log"
  crease_last_log="$log"
  "$@" >"$log" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.3
    if ((SECONDS - said >= 20)); then
      said=$SECONDS
      note "$name, $((SECONDS - started)) s: $(tail -n 1 "$log" | cut -c 1-110)"
    fi
  done
  wait "$pid" || status=$?
  if ((status != 0)); then
    printf '%s%s failed (status %d); the end of %s:%s\n' "$red" "$name" "$status" "$log" "$plain" >&2
    tail -n 60 "$log" >&2
  fi
  return "$status"
}

# must NAME COMMAND...: as logged, and a failure ends the script.
must() { logged "$@" || fail "$1"; }

# as_root COMMAND...: directly, or by sudo.
as_root() {
  if (($(id -u) == 0)); then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else fail "this needs root or sudo: $*"
  fi
}

# How many compilers at once: one a core, and 1.5 GiB of memory for each.
build_jobs() {
  local cores memory
  cores="$(nproc)"
  memory="$(awk '/^MemAvailable/ {print int($2 / 1572864)}' /proc/meminfo)"
  ((memory < 1)) && memory=1
  echo $((cores < memory ? cores : memory))
}
