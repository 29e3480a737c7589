# mcit_add_plugin(<name> [FIXTURE] SOURCES <file>...) — a strategy plugin <name>.so, in this tree or outside it.
#
# A plugin exports nothing but its descriptor, never leaves memory (a live autograd node of an unloaded library
# crashes), and resolves every symbol at link time. FIXTURE, in this tree: for tests, not built as one of the
# engine's plugins and not installed.
#
# mcit_check_plugin(<name> [STRATEGY <strategy>]) — a CTest test that runs the engine's conformance suite on it.
set(_mcit_plugin_map "${CMAKE_CURRENT_LIST_DIR}/plugin.map")

function(mcit_add_plugin name)
  cmake_parse_arguments(ARG "FIXTURE" "" "SOURCES" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS OR NOT ARG_SOURCES)
    message(FATAL_ERROR "mcit_add_plugin(${name}): write it as mcit_add_plugin(<name> SOURCES <file>...)")
  endif()
  add_library(${name} MODULE ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE mcit::sdk)
  target_compile_features(${name} PRIVATE cxx_std_20)
  set_target_properties(${name} PROPERTIES
    PREFIX "" OUTPUT_NAME "${name}" NO_SONAME ON CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_link_options(${name} PRIVATE "-Wl,-z,nodelete" "-Wl,--version-script=${_mcit_plugin_map}")
  set_property(TARGET ${name} APPEND PROPERTY LINK_DEPENDS "${_mcit_plugin_map}")
  if(NOT MCIT_SANITIZE)  # a sanitizer's own symbols come from the executable
    target_link_options(${name} PRIVATE "-Wl,-z,defs")
  endif()
  if(COMMAND mcit_options)  # in the tree: under the engine's warnings, beside its executable
    mcit_options(${name})
    mcit_torch_headers(${name})
    set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib/mcit/plugins")
    if(ARG_FIXTURE)
      set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests/fixtures/plugins")
    else()
      install(TARGETS ${name} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/mcit/plugins)
    endif()
  elseif(MCIT_SDK_SANITIZE)  # the engine carries a sanitizer, so its plugins must
    target_compile_options(${name} PRIVATE "-fsanitize=${MCIT_SDK_SANITIZE}" -fno-omit-frame-pointer)
    target_link_options(${name} PRIVATE "-fsanitize=${MCIT_SDK_SANITIZE}")
  endif()
endfunction()

function(mcit_check_plugin name)
  cmake_parse_arguments(ARG "" "STRATEGY" "" ${ARGN})
  set(strategy "")
  if(ARG_STRATEGY)
    set(strategy --strategy "${ARG_STRATEGY}")
  endif()
  add_test(NAME check-${name} COMMAND mcit::mcit check-plugin "$<TARGET_FILE:${name}>" ${strategy})
  set_tests_properties(check-${name} PROPERTIES ENVIRONMENT OMP_NUM_THREADS=1)
endfunction()
