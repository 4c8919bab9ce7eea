#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh checkout to a folded network: installs what is missing, builds Crease, and runs its main job on the
# network in examples/digits: fold its batch-norms and verify, recognise 450 held-out digits, measure before and after.
# Can be run again.
. "$(dirname "$0")/lib/common.sh"
. "$crease_root/scripts/lib/apt.sh"
. "$crease_root/scripts/lib/build.sh"

"$crease_root/scripts/deps.sh"
build_preset release crease_cli
python="${PYTHON:-python3}"
if ! "$python" -c 'import numpy' 2>/dev/null; then
  apt_install python3-numpy
  python=/usr/bin/python3
fi

crease="$crease_root/build/release/crease"
digits="$crease_root/examples/digits"
out="$crease_root/build/quickstart"
mkdir -p "$out"

# show NAME COMMAND...: prints the command as one would type it, runs it, names it if it fails.
show() {
  local name="$1"
  shift
  printf '\n%s$ %s%s\n' "$bold" "$(sed "s#$crease_root/build/release/##g; s#$crease_root/##g; s#$python#python3#g" <<<"$*")" "$plain"
  "$@" || fail "$name"
}

step "The network's batch-norms, before"
show inspect "$crease" inspect "$digits/digits.onnx"
step "Folding, and comparing the outputs of both networks on random inputs"
show fold "$crease" fold "$digits/digits.onnx" -o "$out/folded.onnx" --verify
step "Recognising the held-out digits with the folded network"
show run "$crease" run "$out/folded.onnx" --input "$digits/digits_test.npz" --output "$out/out.npz"
show accuracy "$python" "$digits/accuracy.py" "$out/out.npz"
step "Speed before and after folding"
show "bench before folding" "$crease" bench "$digits/digits.onnx" --no-fold --seconds 2
show "bench after folding" "$crease" bench "$out/folded.onnx" --seconds 2
step "Done: the folded network is $out/folded.onnx. Next: scripts/test.sh"
