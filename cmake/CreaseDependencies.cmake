# SPDX-License-Identifier: Apache-2.0
# What Crease needs from the machine, each as one crease_* target. scripts/deps.sh installs it; what the
# distribution has only in a version too old, it builds into a cache outside the tree, which is searched here.

if(DEFINED ENV{CREASE_DEPS_CACHE})
  set(crease_deps_cache "$ENV{CREASE_DEPS_CACHE}")
elseif(DEFINED ENV{XDG_CACHE_HOME})
  set(crease_deps_cache "$ENV{XDG_CACHE_HOME}/crease/deps")
else()
  set(crease_deps_cache "$ENV{HOME}/.cache/crease/deps")
endif()
list(APPEND CMAKE_PREFIX_PATH
  "${crease_deps_cache}/current/highway" "${crease_deps_cache}/current/onednn")

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

# A header-only library without a CMake package of its own.
function(crease_find_header target header package)
  find_path(${target}_INCLUDE_DIR ${header})
  if(NOT ${target}_INCLUDE_DIR)
    message(FATAL_ERROR "${header} not found. Run scripts/deps.sh, or install ${package}.")
  endif()
  add_library(${target} INTERFACE)
  target_include_directories(${target} SYSTEM INTERFACE "$<BUILD_INTERFACE:${${target}_INCLUDE_DIR}>")
endfunction()

crease_find_header(crease_protozero protozero/pbf_reader.hpp libprotozero-dev)
crease_find_header(crease_xxhash xxhash.h libxxhash-dev)
target_compile_definitions(crease_xxhash INTERFACE XXH_INLINE_ALL)

# .npz archives. The static libraries, so that a consumer of libcrease.a needs neither.
find_path(crease_minizip_INCLUDE_DIR minizip/unzip.h)
find_library(crease_minizip_LIBRARY NAMES libminizip.a minizip)
find_library(crease_zlib_LIBRARY NAMES libz.a z)
if(NOT crease_minizip_INCLUDE_DIR OR NOT crease_minizip_LIBRARY OR NOT crease_zlib_LIBRARY)
  message(FATAL_ERROR "minizip not found. Run scripts/deps.sh, or install libminizip-dev.")
endif()
add_library(crease_minizip INTERFACE)
target_include_directories(crease_minizip SYSTEM INTERFACE "$<BUILD_INTERFACE:${crease_minizip_INCLUDE_DIR}>")
target_link_libraries(crease_minizip INTERFACE ${crease_minizip_LIBRARY} ${crease_zlib_LIBRARY})

# Highway: three x86 targets are enough (SSE2 as the baseline, AVX2, AVX-512 as on Skylake), since nothing in our
# kernels gains from what lies between, and each target costs compile time. The set must be the same in every file.
find_package(hwy 1.2 CONFIG QUIET)
if(NOT hwy_FOUND)
  message(FATAL_ERROR "Highway 1.2 or newer not found. Run scripts/deps.sh first: it builds it once per machine.")
endif()
add_library(crease_highway INTERFACE)
target_link_libraries(crease_highway INTERFACE hwy::hwy)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64|i.86)$")
  set(disabled "HWY_SSSE3|HWY_SSE4|HWY_AVX3_DL|HWY_AVX3_ZEN4|HWY_AVX3_SPR")
  # The fuzzing programs look for broken files, not for broken kernels, and Clang takes minutes for instrumented ones.
  if(CREASE_FUZZ)
    string(APPEND disabled "|HWY_AVX2|HWY_AVX3")
  endif()
  target_compile_definitions(crease_highway INTERFACE "HWY_DISABLED_TARGETS=(${disabled})")
endif()

# oneDNN 3.x, with our thread pool underneath where it was built for that, with OpenMP's otherwise.
set(CREASE_HAS_ONEDNN OFF)
if(NOT CREASE_WITH_ONEDNN STREQUAL "OFF")
  find_package(dnnl 3.1 CONFIG QUIET)
  if(dnnl_FOUND)
    set(CREASE_HAS_ONEDNN ON)
    get_target_property(crease_dnnl_include DNNL::dnnl INTERFACE_INCLUDE_DIRECTORIES)
    find_file(crease_dnnl_config oneapi/dnnl/dnnl_config.h PATHS ${crease_dnnl_include} NO_DEFAULT_PATH NO_CACHE)
    if(NOT crease_dnnl_config)
      find_file(crease_dnnl_config oneapi/dnnl/dnnl_config.h REQUIRED NO_CACHE)
    endif()
    file(STRINGS "${crease_dnnl_config}" crease_dnnl_runtime REGEX "define DNNL_CPU_THREADING_RUNTIME ")
    add_library(crease_dnnl INTERFACE)
    target_link_libraries(crease_dnnl INTERFACE DNNL::dnnl)
    if(crease_dnnl_runtime MATCHES "RUNTIME_THREADPOOL")
      set(CREASE_ONEDNN_THREADPOOL 1)
    else()
      set(CREASE_ONEDNN_THREADPOOL 0)
    endif()
    target_compile_definitions(crease_dnnl INTERFACE CREASE_ONEDNN_THREADPOOL=${CREASE_ONEDNN_THREADPOOL})
    message(STATUS "oneDNN ${dnnl_VERSION} in ${dnnl_DIR}, thread pool: ${CREASE_ONEDNN_THREADPOOL}")
  elseif(CREASE_WITH_ONEDNN STREQUAL "AUTO")
    message(WARNING "oneDNN 3.1 or newer not found: convolutions will be slow. scripts/deps.sh builds it once per machine.")
  else()
    message(FATAL_ERROR "oneDNN 3.1 or newer not found. Run scripts/deps.sh first: it builds it once per machine.")
  endif()
endif()
