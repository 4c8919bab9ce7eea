#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks the CMake package as its users meet it: installs Crease, static and shared, each into an empty directory,
# builds examples/embed against it by find_package(crease), runs that on the digits network, and checks that nothing
# is visible but namespace crease in include/crease.
. "$(dirname "$0")/lib/common.sh"
. "$crease_root/scripts/lib/apt.sh"
. "$crease_root/scripts/lib/build.sh"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# visible KIND LIBRARY: the defined global symbols.
visible() {
  if [[ "$1" == shared ]]; then nm --dynamic --defined-only --extern-only --demangle "$2"
  else nm --defined-only --extern-only --demangle "$2"
  fi | sed -nE 's/^[0-9a-f]* [A-Za-z] //p'
}

# check KIND PRESET TARGETS
check() {
  local kind="$1" preset="$2" prefix="$work/$1" library symbols strangers installed
  build_preset "$preset" "$3"
  step "The installed package, $kind"
  must "installing ($kind)" cmake --install "$crease_root/build/$preset" --prefix "$prefix"
  library="$(find "$prefix" -name 'libcrease.a' -o -name 'libcrease.so.*.*.*' | head -n 1)"
  [[ -n "$library" ]] || fail "installing ($kind): no library"
  note "$(basename "$library"): $(du -Lk "$library" | cut -f 1) KiB"

  symbols="$(visible "$kind" "$library")"
  [[ -n "$symbols" ]] || fail "visible symbols ($kind): there are none"
  strangers="$(grep -vE '^crease::[A-Za-z]+(::(~?[A-Za-z_]+|operator=))?(\[abi:cxx11\])?\(' <<<"$symbols" || true)"
  [[ -z "$strangers" ]] || fail "visible symbols ($kind): not of the public interface: $(head -n 5 <<<"$strangers")"
  note "$(wc -l <<<"$symbols") visible symbols, all of them crease::"

  installed="$(cd "$prefix" && find . -name '*.h*' ! -path './include/crease/*')"
  [[ -z "$installed" ]] || fail "installed headers ($kind): $installed"
  if grep -n '^# *define' "$prefix"/include/crease/*.h; then fail "installed headers ($kind) define macros"; fi

  must "building examples/embed ($kind)" bash -c "
    cmake -G Ninja -S '$crease_root/examples/embed' -B '$work/embed-$kind' -DCMAKE_BUILD_TYPE=Release \
      -DCMAKE_PREFIX_PATH='$prefix' -DCMAKE_CXX_FLAGS='-Wall -Wextra -Werror' && cmake --build '$work/embed-$kind'"
  must "running examples/embed ($kind)" "$work/embed-$kind/embed" "$crease_root/examples/digits/digits.onnx"
  [[ "$("$work/embed-$kind/embed" "$crease_root/examples/digits/digits.onnx" | wc -l)" == 10 ]] ||
    fail "running examples/embed ($kind): not ten numbers"
  must "running examples/embed's batch_norm ($kind)" "$work/embed-$kind/batch_norm"
  [[ "$("$work/embed-$kind/batch_norm")" == "running mean 3.15 4.75 6.35, variance 62.55 62.55 62.55
the last value, 95, becomes 1.2889 in training and 11.2088 in eval mode" ]] ||
    fail "running examples/embed's batch_norm ($kind): another result than PyTorch's definition has"
}

check static release "crease_package crease_cli"
check shared shared crease
step "The package is good, static and shared"
