# SPDX-License-Identifier: Apache-2.0
find_package(GTest REQUIRED)
include(GoogleTest)

# Files that come with a checkout but are not part of it: networks with their expected outputs.
set(crease_shared_default "${PROJECT_SOURCE_DIR}/../shared")
if(NOT EXISTS "${crease_shared_default}" AND EXISTS "${PROJECT_SOURCE_DIR}/../../shared")
  set(crease_shared_default "${PROJECT_SOURCE_DIR}/../../shared")
endif()
cmake_path(NORMAL_PATH crease_shared_default)
set(CREASE_SHARED_DIR "${crease_shared_default}" CACHE PATH "Networks that the larger tests run on")

set(crease_test_environment
  "CREASE_SOURCE_DIR=${PROJECT_SOURCE_DIR}" "CREASE_SHARED=${CREASE_SHARED_DIR}")
if(TARGET crease_cli)
  list(APPEND crease_test_environment "CREASE_BIN=$<TARGET_FILE:crease_cli>")
endif()

# The slow, obvious twins of our kernels, and what tests share.
file(GLOB_RECURSE support_sources CONFIGURE_DEPENDS tests/reference/*.cc tests/support/*.cc)
list(FILTER support_sources EXCLUDE REGEX "/sanitizer_options\\.cc$")
crease_sources_or_empty(support_sources ${support_sources})
add_library(crease_test_support STATIC ${support_sources})
target_link_libraries(crease_test_support PUBLIC crease_core GTest::gtest)
if(TARGET GTest::gmock)
  target_link_libraries(crease_test_support PUBLIC GTest::gmock)
endif()

# One program for one folder of tests: crease_FOLDER_tests.
function(crease_test_folder folder)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS tests/${folder}/*_test.cc)
  if(NOT sources)
    return()
  endif()
  add_executable(crease_${folder}_tests ${sources} tests/support/sanitizer_options.cc)
  target_link_libraries(crease_${folder}_tests PRIVATE crease_test_support GTest::gtest_main ${ARGN})
  gtest_discover_tests(crease_${folder}_tests
    TEST_PREFIX "${folder}/" WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}" DISCOVERY_TIMEOUT 120
    PROPERTIES ENVIRONMENT "${crease_test_environment}" TIMEOUT 600)
  if(TARGET crease_cli)
    add_dependencies(crease_${folder}_tests crease_cli)
  endif()
endfunction()

crease_test_folder(graph)
crease_test_folder(kernels)
crease_test_folder(runtime)
if(TARGET crease_tools)
  crease_test_folder(tools crease_tools)
endif()

# Checks of the sources themselves.
foreach(check IN ITEMS includes docs fetch licence)
  add_test(NAME checks/${check} COMMAND "${PROJECT_SOURCE_DIR}/tests/checks/${check}.sh")
endforeach()
