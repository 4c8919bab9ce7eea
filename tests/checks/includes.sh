#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Includes point one way only: graph <- kernels <- runtime <- tools. oneDNN is included in kernels/onednn only, Highway
# in kernels only, protozero in graph/onnx only; the public headers include the standard library and one another.
set -euo pipefail
cd "$(dirname "$0")/../.."
bad=0

# forbid FILES-ROOT REGEX REASON: no #include in that folder may match.
forbid() {
  local found
  [[ -d "$1" ]] || return 0
  found="$({ grep -rnE --include='*.cc' --include='*.h' "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($2)" "$1" ||
    true; } | { grep -vE "${4:-^$}" || true; })"
  if [[ -n "$found" ]]; then
    printf '%s:\n%s\n' "$3" "$found"
    bad=1
  fi
}

outer='tools|tests|bench|examples|python'
forbid graph "kernels|runtime|$outer" "graph/ knows graph/ only"
forbid kernels "runtime|$outer" "kernels/ knows graph/ and kernels/ only"
forbid runtime "$outer" "runtime/ does not know its users"
forbid tools "tests|bench|examples|python" "tools/ does not know tests"
for folder in graph runtime tools tests bench examples scripts packaging; do
  forbid "$folder" 'oneapi/|dnnl' "oneDNN belongs in kernels/onednn/"
done
for folder in graph runtime tools; do
  forbid "$folder" 'hwy/' "Highway belongs in kernels/"
done
forbid kernels 'oneapi/|dnnl' "oneDNN belongs in kernels/onednn/" '^kernels/onednn/'
forbid graph 'protozero/' "protozero belongs in graph/onnx/" '^graph/onnx/'
for folder in kernels runtime tools; do forbid "$folder" 'protozero/' "protozero belongs in graph/onnx/"; done
forbid include 'graph|kernels|runtime|tools|oneapi|hwy|protozero' "public headers include the standard library only"
exit "$bad"
