# SPDX-License-Identifier: Apache-2.0
# crease_core: every object and every internal header, for our own programs and tests.
# crease: the same objects behind the public headers alone. What it exports is what those headers declare, see
# packaging/export_list.sh.

get_property(crease_modules GLOBAL PROPERTY CREASE_MODULES)
set(crease_objects)
foreach(module IN LISTS crease_modules)
  list(APPEND crease_objects $<TARGET_OBJECTS:${module}>)
endforeach()

add_library(crease_core STATIC ${crease_objects})
target_link_libraries(crease_core PUBLIC crease_flags crease_runtime crease_kernels crease_graph)
if(CREASE_HAS_ONEDNN)
  target_link_libraries(crease_core PUBLIC crease_dnnl)
endif()

add_library(crease ${crease_objects})
add_library(crease::crease ALIAS crease)
if(PROJECT_IS_TOP_LEVEL AND NOT CREASE_INSTALL)
  # Our own programs and tests do without it.
  set_target_properties(crease PROPERTIES EXCLUDE_FROM_ALL ON)
endif()
set_target_properties(crease PROPERTIES
  VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
  LINKER_LANGUAGE CXX)
target_compile_features(crease PUBLIC cxx_std_20)
target_include_directories(crease PUBLIC
  "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>" "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
target_link_libraries(crease PRIVATE crease_flags crease_highway crease_minizip Threads::Threads)
if(CREASE_HAS_ONEDNN)
  target_link_libraries(crease PRIVATE crease_dnnl)
endif()

set(crease_exports "${PROJECT_BINARY_DIR}/package/exports")
add_custom_command(
  OUTPUT "${crease_exports}.list" "${crease_exports}.map"
  COMMAND "${PROJECT_SOURCE_DIR}/packaging/export_list.sh" $<TARGET_FILE:crease_core> "${crease_exports}"
  DEPENDS crease_core "${PROJECT_SOURCE_DIR}/packaging/export_list.sh"
  COMMENT "Listing what the public headers declare"
  VERBATIM)
add_custom_target(crease_exports DEPENDS "${crease_exports}.list" "${crease_exports}.map")

if(BUILD_SHARED_LIBS)
  add_dependencies(crease crease_exports)
  set_target_properties(crease PROPERTIES LINK_DEPENDS "${crease_exports}.map")
  target_link_options(crease PRIVATE
    -Wl,--exclude-libs,ALL -Wl,--gc-sections -Wl,-z,defs "-Wl,--version-script=${crease_exports}.map")
endif()
