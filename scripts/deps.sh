#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what Crease is built with (Debian 12 and 13, Ubuntu 24.04). Highway and oneDNN come from the distribution
# where it has them new enough; else they are built from source once per machine, into
# ${CREASE_DEPS_CACHE:-${XDG_CACHE_HOME:-~/.cache}/crease/deps}, which CMake searches. Can be run again at any time.
#
#   CREASE_DEPS_BUILD=1     build both even where the distribution's are new enough (its oneDNN runs on OpenMP, not
#                           on our thread pool)
#   CREASE_HIGHWAY_SOURCE, CREASE_ONEDNN_SOURCE
#                           build from this release archive (URL or file) or directory, not from a source package;
#                           CREASE_HIGHWAY_SHA256, CREASE_ONEDNN_SHA256 check it
. "$(dirname "$0")/lib/common.sh"
. "$crease_root/scripts/lib/apt.sh"
. "$crease_root/scripts/lib/source_build.sh"

highway_least=1.2
onednn_least=3.1

step "Packages from apt"
command -v apt-get >/dev/null || fail "no apt-get here; CONTRIBUTING.md lists what to install by hand"
apt_install g++ cmake ninja-build ccache git ca-certificates \
  libgtest-dev libgmock-dev libbenchmark-dev libcli11-dev libfmt-dev nlohmann-json3-dev libprotozero-dev libxxhash-dev \
  libminizip-dev zlib1g-dev
dpkg --compare-versions "$(cmake --version | sed -n 's/^cmake version //p')" ge 3.25 ||
  fail "CMake 3.25 or newer is needed; this is $(cmake --version | head -n 1)"

# from_distribution PACKAGE LEAST: installs it where apt's is new enough.
from_distribution() {
  [[ -z "${CREASE_DEPS_BUILD:-}" ]] || return 1
  local version
  version="$(apt_candidate "$1")"
  [[ -n "$version" ]] && dpkg --compare-versions "$version" ge "$2" || return 1
  note "$1 $version is new enough"
  apt_install "$1"
}

step "Highway"
if source_built highway; then :
elif [[ -n "${CREASE_HIGHWAY_SOURCE:-}" ]] || ! from_distribution libhwy-dev "$highway_least"; then
  source_build highway
fi

step "oneDNN"
if source_built onednn; then :
elif [[ -n "${CREASE_ONEDNN_SOURCE:-}" ]] || ! from_distribution libdnnl-dev "$onednn_least"; then
  source_build onednn
fi
step "Everything that Crease is built with is there"
