# SPDX-License-Identifier: Apache-2.0
# A folder may have no source yet; a target must have one.
function(crease_sources_or_empty out)
  if(ARGN)
    set(${out} ${ARGN} PARENT_SCOPE)
  else()
    set(empty "${PROJECT_BINARY_DIR}/generated/empty.cc")
    if(NOT EXISTS "${empty}")
      file(WRITE "${empty}" "")
    endif()
    set(${out} "${empty}" PARENT_SCOPE)
  endif()
endfunction()

# crease_module(NAME SOURCES ... DEPENDS ...): one folder as the object library crease_NAME.
function(crease_module name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPENDS")
  crease_sources_or_empty(sources ${arg_SOURCES})
  add_library(crease_${name} OBJECT ${sources})
  target_link_libraries(crease_${name} PUBLIC crease_flags ${arg_DEPENDS})
  set_property(GLOBAL APPEND PROPERTY CREASE_MODULES crease_${name})
endfunction()
