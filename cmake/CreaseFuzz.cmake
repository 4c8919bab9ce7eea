# SPDX-License-Identifier: Apache-2.0
# tests/fuzz/*.cc, each a libFuzzer program. Needs Clang; the preset `fuzz` sets all of it.
if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "CREASE_FUZZ needs Clang, this is ${CMAKE_CXX_COMPILER_ID}")
endif()
target_compile_options(crease_flags INTERFACE -fsanitize=fuzzer-no-link)
# Clang 14 takes ten minutes to optimise what its sanitizers make of these unrolled transforms, six seconds without.
set_source_files_properties(kernels/winograd_tile_large.cc PROPERTIES COMPILE_OPTIONS -O0)

file(GLOB fuzz_sources CONFIGURE_DEPENDS tests/fuzz/*.cc)
foreach(source IN LISTS fuzz_sources)
  cmake_path(GET source STEM name)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE crease_core)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endforeach()
