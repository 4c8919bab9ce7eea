# SPDX-License-Identifier: Apache-2.0
# crease_flags: how every source of ours is compiled. Nothing here reaches those who link to crease.

set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

if(CREASE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(CREASE_CCACHE_PROGRAM ccache)
  if(CREASE_CCACHE_PROGRAM)
    # Paths below the root are hashed as relative ones, so that a fresh clone finds what another has compiled.
    set(CMAKE_CXX_COMPILER_LAUNCHER
      env "CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}" CCACHE_NOHASHDIR=1 "${CREASE_CCACHE_PROGRAM}")
  endif()
endif()

add_library(crease_flags INTERFACE)
target_compile_features(crease_flags INTERFACE cxx_std_20)
target_include_directories(crease_flags INTERFACE "${PROJECT_SOURCE_DIR}" "${PROJECT_SOURCE_DIR}/include")
target_compile_options(crease_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor
  -fvisibility=hidden -fvisibility-inlines-hidden
  # __FILE__ and the debug information name files from the root, so that builds agree in any directory.
  "-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC 12 sees overlapping copies inside std::string's operator+ where there are none (its bug 105651).
  target_compile_options(crease_flags INTERFACE -Wno-restrict)
endif()
if(CREASE_WERROR)
  target_compile_options(crease_flags INTERFACE -Werror)
endif()
if(CREASE_SANITIZE)
  target_compile_options(crease_flags INTERFACE "-fsanitize=${CREASE_SANITIZE}" -fno-omit-frame-pointer)
  if(CREASE_SANITIZE MATCHES "undefined")
    target_compile_options(crease_flags INTERFACE -fno-sanitize-recover=undefined)
  endif()
  target_link_options(crease_flags INTERFACE "-fsanitize=${CREASE_SANITIZE}")
endif()
