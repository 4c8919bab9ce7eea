# SPDX-License-Identifier: Apache-2.0
find_package(CLI11 CONFIG REQUIRED)
find_package(fmt CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)

# tools/crease.cc holds main(); the subcommands are a library, so that tests can call them.
file(GLOB_RECURSE tool_sources CONFIGURE_DEPENDS tools/*.cc)
list(FILTER tool_sources EXCLUDE REGEX "/tools/crease\\.cc$")
crease_sources_or_empty(tool_sources ${tool_sources})
add_library(crease_tools STATIC ${tool_sources})
target_link_libraries(crease_tools PUBLIC crease_core CLI11::CLI11 fmt::fmt nlohmann_json::nlohmann_json)
target_compile_definitions(crease_tools PUBLIC CREASE_VERSION="${PROJECT_VERSION}")

if(EXISTS "${PROJECT_SOURCE_DIR}/tools/crease.cc")
  add_executable(crease_cli tools/crease.cc)
  set_target_properties(crease_cli PROPERTIES
    OUTPUT_NAME crease RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}")
  target_link_libraries(crease_cli PRIVATE crease_tools)
  target_link_options(crease_cli PRIVATE -Wl,--gc-sections)
endif()
