# find_package(mcit) for plugins outside this tree: after installing, and straight from the build tree.
include(CMakePackageConfigHelpers)
set(_mcit_package "${CMAKE_INSTALL_LIBDIR}/cmake/mcit")
set(_mcit_files McitTorch.cmake McitPlugin.cmake plugin.map)

configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/mcitConfig.cmake.in" "${PROJECT_BINARY_DIR}/${_mcit_package}/mcitConfig.cmake"
  INSTALL_DESTINATION "${_mcit_package}")
# A plugin fits one minor version: what its build tag says.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/${_mcit_package}/mcitConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
foreach(_file IN LISTS _mcit_files)
  configure_file("${CMAKE_CURRENT_LIST_DIR}/${_file}" "${PROJECT_BINARY_DIR}/${_mcit_package}/${_file}" COPYONLY)
  install(FILES "${CMAKE_CURRENT_LIST_DIR}/${_file}" DESTINATION "${_mcit_package}")
endforeach()
install(FILES "${PROJECT_BINARY_DIR}/${_mcit_package}/mcitConfig.cmake" "${PROJECT_BINARY_DIR}/${_mcit_package}/mcitConfigVersion.cmake"
  DESTINATION "${_mcit_package}")
install(EXPORT mcitTargets NAMESPACE mcit:: DESTINATION "${_mcit_package}")
export(EXPORT mcitTargets NAMESPACE mcit:: FILE "${PROJECT_BINARY_DIR}/${_mcit_package}/mcitTargets.cmake")
