# mcit_add_plugin(<name> SOURCES <file>...) — a strategy plugin, in this tree or outside it.
#
# A plugin exports nothing but its descriptor, never leaves memory (a live autograd node of an unloaded library
# crashes), and resolves every symbol at link time.
set(_mcit_plugin_map "${CMAKE_CURRENT_LIST_DIR}/plugin.map")

function(mcit_add_plugin name)
  cmake_parse_arguments(ARG "" "" "SOURCES" ${ARGN})
  add_library(${name} MODULE ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE mcit::sdk)
  target_compile_features(${name} PRIVATE cxx_std_20)
  set_target_properties(${name} PROPERTIES
    PREFIX "" OUTPUT_NAME "${name}" CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_link_options(${name} PRIVATE
    "-Wl,-z,nodelete" "-Wl,--version-script=${_mcit_plugin_map}")
  if(NOT MCIT_SANITIZE)
    target_link_options(${name} PRIVATE "-Wl,-z,defs")
  endif()
  if(PROJECT_NAME STREQUAL "mcit")  # in the tree: beside the executable's lib folder, under the same warnings
    set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib/mcit/plugins")
    if(MCIT_DEVELOPER)
      target_compile_options(${name} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror)
    endif()
    install(TARGETS ${name} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/mcit/plugins)
  endif()
endfunction()
