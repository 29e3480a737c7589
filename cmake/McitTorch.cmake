# mcit::torch — LibTorch from the `torch` wheel, exactly the pinned version.
#
# find_package(Torch) of the CUDA wheel stops without a CUDA toolkit, so the imported target is made here.
# Looked for, in order: MCIT_TORCH_ROOT (variable or environment), an installed Python torch of that version,
# the per-user cache that `./dev setup` fills. Only libtorch_cpu and libc10 are linked; the CUDA library
# beside them is opened at run time when a run asks for device = "cuda".

set(MCIT_TORCH_VERSION 2.11.0)

function(_mcit_torch_version root out)
  set(${out} "" PARENT_SCOPE)
  set(header "${root}/include/torch/headeronly/version.h")
  if(EXISTS "${header}" AND EXISTS "${root}/lib/libtorch_cpu.so")
    set(version "")
    foreach(part MAJOR MINOR PATCH)
      file(STRINGS "${header}" line REGEX "#define TORCH_VERSION_${part} ")
      string(REGEX REPLACE ".* ([0-9]+).*" "\\1" number "${line}")
      list(APPEND version "${number}")
    endforeach()
    list(JOIN version "." version)
    set(${out} "${version}" PARENT_SCOPE)
  endif()
endfunction()

function(_mcit_find_torch out)
  set(candidates "")
  if(MCIT_TORCH_ROOT)
    list(APPEND candidates "${MCIT_TORCH_ROOT}")
  elseif(DEFINED ENV{MCIT_TORCH_ROOT})
    list(APPEND candidates "$ENV{MCIT_TORCH_ROOT}")
  else()
    find_program(_mcit_python NAMES python3)
    if(_mcit_python)
      execute_process(
        COMMAND "${_mcit_python}" -c
                "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
        OUTPUT_VARIABLE installed OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
      if(installed)
        list(APPEND candidates "${installed}")
      endif()
    endif()
    if(DEFINED ENV{XDG_CACHE_HOME})
      list(APPEND candidates "$ENV{XDG_CACHE_HOME}/mcit/torch-${MCIT_TORCH_VERSION}/torch")
    endif()
    list(APPEND candidates "$ENV{HOME}/.cache/mcit/torch-${MCIT_TORCH_VERSION}/torch")
  endif()
  set(seen "")
  foreach(root IN LISTS candidates)
    _mcit_torch_version("${root}" version)
    if(version VERSION_EQUAL MCIT_TORCH_VERSION)
      set(${out} "${root}" PARENT_SCOPE)
      return()
    endif()
    if(NOT version)
      set(version "no LibTorch")
    endif()
    string(APPEND seen "\n  ${root}: ${version}")
  endforeach()
  set(${out} "" PARENT_SCOPE)
  set(_mcit_torch_seen "${seen}" PARENT_SCOPE)
endfunction()

_mcit_find_torch(_mcit_torch_root)
if(NOT _mcit_torch_root)
  set(_mcit_torch_reason
      "mcit needs LibTorch ${MCIT_TORCH_VERSION}; looked in:${_mcit_torch_seen}\nRun ./dev setup, or set MCIT_TORCH_ROOT to the folder that holds include/ and lib/.")
  if(MCIT_TORCH_OPTIONAL)  # find_package(mcit) reports the reason itself
    return()
  endif()
  message(FATAL_ERROR "${_mcit_torch_reason}")
endif()

if(NOT TARGET mcit::torch)
  add_library(mcit::torch INTERFACE IMPORTED)
  target_include_directories(mcit::torch SYSTEM INTERFACE
    "${_mcit_torch_root}/include" "${_mcit_torch_root}/include/torch/csrc/api/include")
  target_link_libraries(mcit::torch INTERFACE
    "${_mcit_torch_root}/lib/libtorch_cpu.so" "${_mcit_torch_root}/lib/libc10.so")
  # The wheel finds its CUDA runtime and CUPTI in nvidia/*/lib beside it through its own RPATH.
  target_link_options(mcit::torch INTERFACE
    "-Wl,-rpath,${_mcit_torch_root}/lib" "-Wl,--allow-shlib-undefined")
endif()
set(MCIT_TORCH_FOUND_ROOT "${_mcit_torch_root}")
