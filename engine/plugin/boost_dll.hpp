#pragma once
/// Boost.DLL without Boost.Filesystem. Private to this library's sources.

#include <vector>  // Boost 1.74's std::filesystem mode uses it without including it

#define BOOST_DLL_USE_STD_FS
#include <boost/dll/library_info.hpp>
#include <boost/dll/shared_library.hpp>
