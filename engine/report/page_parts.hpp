#pragma once
/// The sections of a report, each a piece of HTML. Private to this library.

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "report/chart.hpp"
#include "report/comparison.hpp"
#include "report/forgetting.hpp"
#include "report/report_page.hpp"

namespace mcit::page {

/// The runs of one strategy with one set of settings.
struct GroupView {
  const ComparedGroup* group = nullptr;
  std::vector<const ComparedRun*> runs;  ///< at least one
  std::vector<RunFates> fates;           ///< of each run
  std::string label;                     ///< of the group, fit to be shown
  int colour = 0;                        ///< chart::kNeutral for bounds

  const RunResult& first() const { return runs.front()->result; }
};

/// Runs of one suite and order of tasks.
struct StreamView {
  std::string id;  ///< "s1"
  const Comparison* comparison = nullptr;
  std::vector<GroupView> groups;
  std::vector<std::string> places;  ///< "base" and the names of the stages
};

/// What is written while the sections are made.
struct Draft {
  std::vector<chart::LineChart> charts;  ///< for the page's script
  std::uint64_t picture_bytes_left = 0;
};

/// <section> with a heading; nothing for an empty body. @param lead HTML that says what is to be seen
std::string section(const StreamView& stream, const char* name, const char* title, const std::string& lead,
                    const std::string& body);
/// The columns of these sections: best values in bold, definitions of the columns on hover and focus.
/// @param table scores_table() or costs_table() of the comparison
std::string table_html(const Comparison& comparison, const Table& table, const std::string& caption,
                       const std::set<Section>& sections);
/// The words with what they mean, shown on hover and focus. @param describes id of the legend's entry, or
/// empty
std::string defined(const std::string& words, const std::string& meaning, const std::string& describes = {});
/// <details>
std::string folded(const std::string& summary, const std::string& body, bool open = false);
/// The series' names with their points.
std::string series_legend(const StreamView& stream);
/// Position of a column in the comparison. @throws std::out_of_range
std::size_t column_of(const Comparison& comparison, const std::string& key);

/// The mean over the runs that have the cell, and how it varies.
std::optional<Statistic> cell_over(const std::vector<const ComparedRun*>& runs,
                                   AccuracyMatrix RunResult::*matrix, std::int64_t stage, std::int64_t task);
/// A matrix as a table of coloured cells. @param rows names of its rows, the base first
std::string heat_table(const AccuracyMatrix& matrix, const std::vector<std::string>& rows,
                       const std::string& caption);
/// " tall" where the names are too long to stand over narrow columns.
const char* head_style(const std::vector<std::string>& names);
/// The matrix of means. It has the shape of the first run's.
AccuracyMatrix mean_matrix(const std::vector<const ComparedRun*>& runs, AccuracyMatrix RunResult::*matrix);
bool is_empty(const AccuracyMatrix& matrix);

std::string findings(const StreamView& stream);
std::string scores_section(const StreamView& stream);
std::string matrices_section(const StreamView& stream);
std::string metrics_section(const StreamView& stream);
std::string curves_section(const StreamView& stream, Draft& draft);
std::string fates_section(const StreamView& stream);
std::string costs_section(const StreamView& stream);
std::string routing_section(const StreamView& stream, Draft& draft);
std::string gallery_section(const StreamView& stream, const ReportOptions& options, Draft& draft);
std::string provenance_section(const StreamView& stream);

}  // namespace mcit::page
