#pragma once
/// Runs as one page that needs nothing else: no network, no other file, and no script to be read.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "report/comparison.hpp"

namespace mcit {

struct ReportOptions {
  std::string title;                                     ///< empty: made of the suites' names
  std::int64_t gallery = 24;                             ///< examples of a stream, at most
  std::uint64_t picture_bytes = std::uint64_t{3} << 20;  ///< of all pictures of the page, before base64
  /// The picture of a test row as a small JPEG, empty when it cannot be had. Without the function the gallery
  /// shows texts alone.
  std::function<std::string(const ComparedRun& run, const std::string& task, const std::string& id)> picture;
};

/// HTML. Reads the runs' predictions beside their result.json, where they are there; whatever a run, a
/// record or a model wrote is shown as text. The same runs give the same bytes.
std::string report_page(const std::vector<ComparedRun>& runs, const ReportOptions& options);

}  // namespace mcit
