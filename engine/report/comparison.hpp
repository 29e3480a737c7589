#pragma once
/// Strategies side by side, from the result.json of their runs.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.hpp"
#include "metrics/result.hpp"
#include "metrics/statistics.hpp"
#include "report/document.hpp"
#include "report/table.hpp"

namespace mcit {

enum class Section { task, quality, cost };

struct ComparedColumn {
  std::string key;    ///< in JSON and CSV: "final:vqa", "acc", "bwt_T-1", "train_seconds"
  std::string title;  ///< in tables
  Section section = Section::quality;
  std::optional<Better> better;
  int digits = 2;  ///< decimals
};

/// Runs of one strategy with the same settings, one a seed.
struct ComparedGroup {
  std::string label;  ///< the strategy, and what sets it apart from the same strategy with other settings
  std::string strategy;
  bool bound = false;  ///< zero_shot, single, joint: what others are measured against, never "best"
  std::vector<std::uint64_t> seeds;
  std::vector<std::string> runs;                            ///< where the results were read
  std::vector<std::optional<Statistic>> values;             ///< one for each column
  std::vector<std::vector<std::optional<double>>> samples;  ///< [column][run] what they are the means of
};

/// Runs of one suite with one order of tasks.
struct Comparison {
  std::string suite;
  std::vector<std::string> tasks;
  std::vector<std::optional<double>> chance;  ///< for each task
  std::vector<ComparedColumn> columns;
  std::vector<ComparedGroup> groups;  ///< in the order the runs were given
  std::vector<std::string> notes;  ///< what a reader must know: differing bases, data, unfinished runs, …
};

struct ComparedRun {
  std::string path;  ///< as the user named it
  RunResult result;
};

/// One comparison for each (suite, order of tasks): numbers of different streams never share a table.
/// Plasticity is measured against the run of strategy "single" in the set, of the same seed where there is
/// one.
std::vector<Comparison> compare_runs(const std::vector<ComparedRun>& runs);

/// Short words for a metric's column: "BWT/(T-1)"; its name where there are none.
std::string metric_title(std::string_view name);
/// The column of this key, or nothing.
std::optional<std::size_t> find_column(const Comparison& comparison, std::string_view key);

/// "41.23 ± 0.52"; "–" for nothing.
std::string statistic_text(const std::optional<Statistic>& value, int digits);

/// Scores and metrics; or costs.
Table scores_table(const Comparison& comparison);
Table costs_table(const Comparison& comparison);

/// @param width columns of the terminal
std::string comparison_terminal(const std::vector<Comparison>& comparisons, int width, bool colours);
std::string comparison_markdown(const std::vector<Comparison>& comparisons);
/// Long form, one value a line: suite,strategy,label,seeds,column,mean,std,runs.
std::string comparison_csv(const std::vector<Comparison>& comparisons);
Json comparison_json(const std::vector<Comparison>& comparisons);
/// A document of tables for LaTeX.
std::vector<Block> comparison_blocks(const std::vector<Comparison>& comparisons);

}  // namespace mcit
