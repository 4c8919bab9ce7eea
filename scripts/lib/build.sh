# SPDX-License-Identifier: Apache-2.0
# Building a preset. Sourced, not run, after common.sh.

# build_preset PRESET "TARGET..." [CMAKE OPTION...]: configures and builds; oneDNN must be there. Warnings are errors
# with Debian 12's compiler, which CI uses; a newer one may warn of what we have not seen.
build_preset() {
  local preset="$1" targets options=(-DCREASE_WITH_ONEDNN=ON)
  read -ra targets <<<"$2"
  shift 2
  [[ "$ID-$VERSION_ID" == debian-12 ]] || options+=(-DCREASE_WERROR=OFF)
  step "Building ${targets[*]} ($preset)"
  must "configuring $preset" cmake -S "$crease_root" --preset "$preset" "${options[@]}" "$@"
  must "building ${targets[*]} ($preset)" \
    cmake --build "$crease_root/build/$preset" --target "${targets[@]}" -j "$(build_jobs)"
}

# python_venv: prints the Python of a virtual environment outside the tree that has tests/python/requirements.txt.
python_venv() {
  local requirements="$crease_root/tests/python/requirements.txt" python="${PYTHON:-python3}" directory
  directory="$crease_cache_home/venv-$({ cat "$requirements"; "$python" --version; } | sha256sum | cut -c 1-12)"
  if [[ ! -e "$directory/complete" ]]; then
    step "Python packages for the tests, into $directory" >&2
    rm -rf "$directory"
    # Debian's python3 comes without what venv needs.
    "$python" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv >&2
    must "making a virtual environment" "$python" -m venv "$directory" >&2
    must "pip install" "$directory/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements" >&2
    touch "$directory/complete"
  fi
  echo "$directory/bin/python"
}
