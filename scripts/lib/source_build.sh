# SPDX-License-Identifier: Apache-2.0
# Highway and oneDNN built from source, once per machine. Sourced, not run.
#
# A build lands in $CREASE_DEPS_CACHE/NAME-KEY, KEY being a hash of version, options and compiler, by a rename, so that
# what is there is whole; $CREASE_DEPS_CACHE/current/NAME links to the one in use.

# The versions in Debian 13. Elsewhere the version is what apt_source_suite has.
highway_version=1.2.0
onednn_version=3.7.2

common_options=(
  -DCMAKE_BUILD_TYPE=Release
  -DCMAKE_POSITION_INDEPENDENT_CODE=ON
  -DCMAKE_INSTALL_LIBDIR=lib
  "-DCMAKE_CXX_FLAGS=-ffunction-sections -fdata-sections -fvisibility=hidden -fvisibility-inlines-hidden"
)

highway_options=(
  -DBUILD_SHARED_LIBS=OFF
  -DBUILD_TESTING=OFF
  -DHWY_ENABLE_EXAMPLES=OFF
  -DHWY_ENABLE_TESTS=OFF
)

# On our thread pool; forward propagation of what the kernels use; instruction sets up to AVX-512; no graph API.
# GEMM_KERNELS_ISA is for the old generator of matrix kernels, which brgemm has replaced. The sources generate the
# kernels when run, so -O1 costs no speed and saves much of the compiler's time.
onednn_options=(
  "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG"
  "-DCMAKE_C_FLAGS_RELEASE=-O1 -DNDEBUG"
  -DONEDNN_LIBRARY_TYPE=STATIC
  -DONEDNN_CPU_RUNTIME=THREADPOOL
  -DONEDNN_ENABLE_WORKLOAD=INFERENCE
  "-DONEDNN_ENABLE_PRIMITIVE=CONVOLUTION;DECONVOLUTION;INNER_PRODUCT;MATMUL;REORDER"
  -DONEDNN_ENABLE_PRIMITIVE_CPU_ISA=AVX512
  -DONEDNN_ENABLE_GEMM_KERNELS_ISA=NONE
  -DONEDNN_BUILD_GRAPH=OFF
  -DONEDNN_BUILD_EXAMPLES=OFF
  -DONEDNN_BUILD_TESTS=OFF
  -DONEDNN_ENABLE_JIT_PROFILING=OFF
  -DONEDNN_ENABLE_ITT_TASKS=OFF
)

# Highway's sorting library takes most of its build and none of it is used.
highway_prune() { rm -f hwy/contrib/sort/vqsort_*.cc; }

# Leaving a primitive out of ONEDNN_ENABLE_PRIMITIVE leaves its sources in the build, unreachable; so do the AMX
# convolutions. They go here, and with them, struck from the tables, the int8 and bf16 convolutions that brgemm does
# better and the reorders of 4- and 8-bit floats and of 4-bit integers. Only for the version that this was tried with;
# onednn_check proves that nothing else needed them.
onednn_prune() {
  grep -q "set(PROJECT_VERSION \"$onednn_version\")" CMakeLists.txt || return 0
  local x64=src/cpu/x64
  rm -f src/cpu/rnn/*.cpp $x64/{rnn,lrn,prelu,shuffle}/*.cpp
  find src/cpu $x64 -maxdepth 1 -name '*.cpp' ! -name '*_list.cpp' -regextype posix-extended \
    -regex '.*(normalization|pooling|pool_kernel|lrn|prelu|resampling|reduction|shuffle|softmax)[^/]*' -delete
  rm -f $x64/jit_uni_{eltwise,eltwise_int,binary,binary_kernel,xf16_sum}.cpp $x64/matmul/jit_uni_sparse_matmul.cpp \
    $x64/jit_brgemm_conv_bwd_w.cpp $x64/jit_avx512_core_amx_{1x1,convolution,deconv}*.cpp

  sed -i -E '/^ *CPU_INSTANCE[A-Z0-9_]*\((jit_avx512_core_bf16_|gemm_bf16_conv|(jit|gemm)_(\w*_)?x8s8s32x_\w*conv)/d' \
    src/cpu/cpu_{convolution,deconvolution}_list.cpp
  rm -f $x64/jit_avx512_core_bf16_{1x1_conv,conv}*.cpp $x64/gemm_bf16_convolution.cpp \
    $x64/jit_*x8s8s32x*.cpp src/cpu/gemm_x8s8s32x_conv*.cpp

  sed -i -E '/&(regular_(fp4|f32_fp8|fp8|s4|u4)|comp_bf16_s8)_impl_list_map/d' src/cpu/reorder/cpu_reorder.cpp
  rm -f src/cpu/reorder/cpu_reorder_{regular_{fp4,f32_fp8,fp8,s4,u4},comp_bf16_s8}.cpp
}

highway_check() { test -f "$1/lib/libhwy.a"; }

# Every implementation that is switched on is named in a table, so a program that links proves the library complete.
onednn_check() {
  local program="$2/onednn_check"
  c++ -std=c++17 -I "$1/include" "$crease_root/kernels/onednn/link_check.cc" -o "$program" "$1/lib/libdnnl.a" \
    -pthread -ldl && "$program"
}

# source_build_variables NAME: sets what the functions below need to know of it.
source_build_variables() {
  name="$1"
  local source_var="CREASE_${1^^}_SOURCE" sha_var="CREASE_${1^^}_SHA256" version_var="${1}_version" key
  local -n named_options="${name}_options"
  options=("${named_options[@]}")
  source="${!source_var:-}" sha256="${!sha_var:-}" version="${!version_var}"
  [[ "$ID" == debian ]] || version="$(apt_source_suite || true)"
  [[ -z "$source" ]] || version=custom
  key="$(printf '%s\n' "$name $version $source $sha256" "${common_options[@]}" "${options[@]}" \
    "$(declare -f "${name}_prune")" "$(c++ --version | head -n 1) $(c++ -dumpmachine)" | sha256sum | cut -c 1-12)"
  directory="$CREASE_DEPS_CACHE/$name-$version-$key"
}

# source_built NAME: uses it where it is in the cache.
source_built() {
  local name options source sha256 version directory
  source_build_variables "$1"
  [[ -d "$directory" ]] || return 1
  note "$name is in the cache: $directory"
  source_build_use
}

source_build_use() {
  local link="$CREASE_DEPS_CACHE/current/$name" target
  target="../$(basename "$directory")"
  mkdir -p "$CREASE_DEPS_CACHE/current"
  [[ "$(readlink "$link")" == "$target" ]] && return 0
  ln -sfn "$target" "$link.$$"
  mv -T "$link.$$" "$link"
}

# source_build NAME: makes $CREASE_DEPS_CACHE/current/NAME.
source_build() {
  local name options source sha256 version directory
  source_build_variables "$1"
  mkdir -p "$CREASE_DEPS_CACHE"
  exec 8>"$CREASE_DEPS_CACHE/lock"
  flock -n 8 || { note "waiting for another build of the dependencies"; flock 8; }
  [[ -d "$directory" ]] || source_build_into
  source_build_use
  exec 8>&-
}

# The part of source_build that takes time, with its variables.
source_build_into() {
  local work started=$SECONDS launcher=() suite
  suite="$(apt_source_suite || true)"
  work="$(mktemp -d "$CREASE_DEPS_CACHE/build.XXXXXX")"
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT

  if [[ -n "$source" ]]; then
    must "$name: unpacking $source" cmake -DSOURCE="$source" -DDIRECTORY="$work/source" -DSHA256="$sha256" \
      -P "$crease_root/scripts/lib/fetch.cmake"
  else
    apt_install dpkg-dev
    apt_update
    logged "$name: source package of ${suite:-a newer $ID}" apt_source "$name" "$work/source" ||
      fail "$name: no source package; give upstream's release archive: CREASE_${name^^}_SOURCE=URL|FILE scripts/deps.sh"
  fi
  if [[ "$name" == onednn ]] && grep -rqs 'find_package(spdlog REQUIRED)' "$work/source/src/CMakeLists.txt"; then
    apt_install libspdlog-dev
  fi
  (cd "$work/source" && "${name}_prune")

  command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  must "$name: configuring" cmake -G Ninja -S "$work/source" -B "$work/build" \
    -DCMAKE_INSTALL_PREFIX="$work/prefix" "${common_options[@]}" "${options[@]}" "${launcher[@]}"
  note "$name: compiling with $(build_jobs) jobs; this is done once per machine"
  must "$name: compiling" cmake --build "$work/build" --target install -j "$(build_jobs)"
  must "$name: checking" "${name}_check" "$work/prefix" "$work"
  mv "$work/prefix" "$directory"
  rm -rf "$work"
  trap - EXIT
  note "$name: built in $((SECONDS - started)) s, $(du -sh "$directory" | cut -f 1)"
}
