# The first cargo of 1.80 or newer that works: a rustup shim without a tool chain is passed over.
function(_mcit_find_cargo)
  string(REPLACE ":" ";" folders "$ENV{PATH}:$ENV{HOME}/.cargo/bin:/usr/bin")
  foreach(folder IN LISTS folders)
    if(NOT MCIT_CARGO AND EXISTS "${folder}/cargo")
      execute_process(COMMAND "${CMAKE_COMMAND}" -E env "RUSTC=${folder}/rustc" "${folder}/cargo" --version
        OUTPUT_VARIABLE version OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
      string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" number "${version}")
      if(number VERSION_GREATER_EQUAL 1.80)
        set(MCIT_CARGO "${folder}/cargo" CACHE FILEPATH "cargo that builds the tokenizers")
        set(MCIT_CARGO_VERSION "${version}" CACHE INTERNAL "")
      endif()
    endif()
  endforeach()
endfunction()

# mcit_cargo_library(<target> <folder> <library>) — a Rust static library as an imported target.
#
# Cargo's target folder lies in the per-user cache, named after lock file and compiler, so that every build tree and
# every fresh clone shares one build of the crates.
function(mcit_cargo_library target folder library)
  _mcit_find_cargo()
  if(NOT MCIT_CARGO)
    message(FATAL_ERROR "mcit: the tokenizer needs cargo 1.80 or newer, and there is none. ./dev setup installs it.")
  endif()
  get_filename_component(tools "${MCIT_CARGO}" DIRECTORY)
  if(DEFINED ENV{XDG_CACHE_HOME})
    set(cache "$ENV{XDG_CACHE_HOME}/mcit")
  else()
    set(cache "$ENV{HOME}/.cache/mcit")
  endif()
  file(READ "${folder}/Cargo.lock" lock)
  string(SHA256 key "${MCIT_CARGO_VERSION}\n${lock}")
  string(SUBSTRING "${key}" 0 16 key)
  set(output "${cache}/cargo-${key}")
  set(archive "${output}/release/lib${library}.a")
  file(GLOB sources CONFIGURE_DEPENDS "${folder}/src/*.rs")
  add_custom_command(OUTPUT "${archive}"
    COMMAND "${CMAKE_COMMAND}" -E env "CARGO_TARGET_DIR=${output}" "RUSTC=${tools}/rustc" "${MCIT_CARGO}" build --release --locked --quiet
            --manifest-path "${folder}/Cargo.toml"
    COMMAND "${CMAKE_COMMAND}" -E touch "${archive}"
    DEPENDS ${sources} "${folder}/Cargo.toml" "${folder}/Cargo.lock"
    COMMENT "Building the Rust tokenizers (once for each user)" VERBATIM)
  add_custom_target(${target}_build DEPENDS "${archive}")
  add_library(${target} STATIC IMPORTED GLOBAL)
  set_target_properties(${target} PROPERTIES IMPORTED_LOCATION "${archive}")
  set_property(TARGET ${target} PROPERTY INTERFACE_LINK_LIBRARIES pthread dl m)
  add_dependencies(${target} ${target}_build)
endfunction()
