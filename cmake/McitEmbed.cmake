# mcit_embed(<target> <namespace> <header> <function> <file> [<function> <file>]...)
#
# Each file becomes a function `std::string_view <function>()` of the namespace, declared in <header>; the files' bytes are
# in the binary, so that it needs nothing beside it. Made again when a file changes.
function(mcit_embed target namespace header)
  set(source "${CMAKE_CURRENT_BINARY_DIR}/${target}_embedded.cpp")
  set(files "")
  set(pairs ${ARGN})
  while(pairs)
    list(POP_FRONT pairs function file)
    list(APPEND files "${file}")
  endwhile()
  string(REPLACE ";" "," list "${ARGN}")
  add_custom_command(OUTPUT "${source}"
    COMMAND "${CMAKE_COMMAND}" "-DOUTPUT=${source}" "-DNAMESPACE=${namespace}" "-DHEADER=${header}" "-DFILES=${list}"
            -P "${PROJECT_SOURCE_DIR}/cmake/McitEmbedScript.cmake"
    DEPENDS ${files} "${PROJECT_SOURCE_DIR}/cmake/McitEmbedScript.cmake"
    COMMENT "Embedding the files of ${target}" VERBATIM)
  target_sources(${target} PRIVATE "${source}")
endfunction()
