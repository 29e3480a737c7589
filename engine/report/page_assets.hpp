#pragma once
/// The page's own files, in the binary. Private to this library.

#include <string_view>

namespace mcit::page {

std::string_view report_css();
std::string_view report_js();
std::string_view uplot_css();
std::string_view uplot_js();
std::string_view uplot_licence();

}  // namespace mcit::page
