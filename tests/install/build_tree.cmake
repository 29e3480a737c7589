# A plugin built straight with the build tree's package, nothing installed.
include("${CMAKE_CURRENT_LIST_DIR}/steps.cmake")
check_plugins("${build}/bin/mcit" "${build}/lib/mcit/plugins")
build_plugin("${build}/bin/mcit" "${build}/${libdir}/cmake/mcit" "-Dmcit_DIR=${build}/${libdir}/cmake/mcit")
run_plugin("${build}/bin/mcit")
