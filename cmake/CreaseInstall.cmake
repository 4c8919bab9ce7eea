# SPDX-License-Identifier: Apache-2.0
# The CMake package: the public headers, one library, crease-config.cmake.
include(CMakePackageConfigHelpers)

install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/crease" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  FILES_MATCHING PATTERN "*.h")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DATADIR}/doc/crease")
if(TARGET crease_cli)
  install(TARGETS crease_cli RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()

# Static dependencies become part of our static library; who links to that must find the shared ones again.
set(crease_merged)
set(CREASE_PACKAGE_DEPENDENCIES "")
set(crease_package_links "")
macro(crease_package_dependency target package)
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "STATIC_LIBRARY")
    list(APPEND crease_merged $<TARGET_FILE:${target}>)
  elseif(NOT BUILD_SHARED_LIBS)
    string(APPEND CREASE_PACKAGE_DEPENDENCIES "find_dependency(${package} CONFIG)\n")
    string(APPEND crease_package_links ";\\$<LINK_ONLY:${target}>")
  endif()
endmacro()
crease_package_dependency(hwy::hwy hwy)
if(CREASE_HAS_ONEDNN)
  crease_package_dependency(DNNL::dnnl dnnl)
endif()

foreach(library IN ITEMS "${crease_minizip_LIBRARY}" "${crease_zlib_LIBRARY}")
  if(library MATCHES "\\.a$")
    list(APPEND crease_merged "${library}")
  else()
    cmake_path(GET library STEM name)
    string(REGEX REPLACE "^lib" "" name "${name}")
    string(APPEND crease_package_links ";${name}")
  endif()
endforeach()

if(BUILD_SHARED_LIBS)
  install(TARGETS crease LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
  set(CREASE_PACKAGE_TYPE SHARED)
  set(CREASE_PACKAGE_FILE "libcrease.so.${PROJECT_VERSION}")
  set(CREASE_PACKAGE_LINK "IMPORTED_SONAME libcrease.so.${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}")
else()
  set(crease_package_archive "${PROJECT_BINARY_DIR}/package/libcrease.a")
  add_executable(crease_drop_unique "${PROJECT_SOURCE_DIR}/packaging/drop_unique.cc")
  target_compile_features(crease_drop_unique PRIVATE cxx_std_20)
  add_custom_command(
    OUTPUT "${crease_package_archive}"
    COMMAND ${CMAKE_COMMAND} -E env "LD=${CMAKE_LINKER}" "OBJCOPY=${CMAKE_OBJCOPY}" "AR=${CMAKE_AR}"
      "DROP_UNIQUE=$<TARGET_FILE:crease_drop_unique>"
      "${PROJECT_SOURCE_DIR}/packaging/merge_archive.sh"
      "${crease_package_archive}" "${crease_exports}.list" $<TARGET_FILE:crease> ${crease_merged}
    DEPENDS crease crease_exports "${crease_exports}.list" ${crease_merged} crease_drop_unique
      "${PROJECT_SOURCE_DIR}/packaging/merge_archive.sh"
    COMMENT "Merging libcrease.a with what it needs"
    VERBATIM)
  add_custom_target(crease_package ALL DEPENDS "${crease_package_archive}")
  install(FILES "${crease_package_archive}" DESTINATION "${CMAKE_INSTALL_LIBDIR}")
  set(CREASE_PACKAGE_TYPE STATIC)
  set(CREASE_PACKAGE_FILE libcrease.a)
  set(CREASE_PACKAGE_LINK
    "IMPORTED_LINK_INTERFACE_LANGUAGES CXX
    INTERFACE_LINK_LIBRARIES \"Threads::Threads;\${CMAKE_DL_LIBS}${crease_package_links}\"")
endif()

set(crease_cmake_dir "${CMAKE_INSTALL_LIBDIR}/cmake/crease")
configure_package_config_file(
  "${PROJECT_SOURCE_DIR}/packaging/crease-config.cmake.in" "${PROJECT_BINARY_DIR}/package/crease-config.cmake"
  INSTALL_DESTINATION "${crease_cmake_dir}" PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/package/crease-config-version.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES
  "${PROJECT_BINARY_DIR}/package/crease-config.cmake" "${PROJECT_BINARY_DIR}/package/crease-config-version.cmake"
  DESTINATION "${crease_cmake_dir}")
