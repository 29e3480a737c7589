#pragma once
/// Runs beside published numbers: the gap, and every condition that keeps the two from being compared.

#include <optional>
#include <string>
#include <vector>

#include "metrics/published.hpp"
#include "report/comparison.hpp"
#include "report/document.hpp"

namespace mcit {

enum class Verdict {
  same,
  differs,
  open,  ///< both are known, in words that a program cannot hold against each other; or the run does not say
  unstated  ///< the publication does not say
};
struct ConditionCheck {
  std::string condition;  ///< its title
  std::string run, published;
  Verdict verdict = Verdict::open;
};

/// A published row beside a group of runs. `published` and `gap` (run - published) are by column.
struct PublishedMatch {
  std::string table, method, source;
  Evidence evidence = Evidence::unverified;
  int decimals = 2;
  std::vector<std::optional<double>> published, gap;
  std::vector<ConditionCheck> conditions;
  /// Nothing is known to differ. Only then does a table call the gap a gap without more words.
  bool like_for_like() const;
};

struct GapGroup {
  std::string label, strategy;
  std::vector<std::optional<Statistic>> values;  ///< by column
  std::vector<PublishedMatch> matches;
};

struct GapComparison {
  std::string suite;
  std::string published;                ///< name of the published tables
  std::vector<ComparedColumn> columns;  ///< final scores of common tasks, and metrics under one definition
  std::vector<GapGroup> groups;
  std::vector<std::string> notes;
};

/// What a run says about its conditions, from the settings in its provenance. @param runs of one group
Conditions run_conditions(const std::vector<const ComparedRun*>& runs);

/// Every group of the comparison beside the rows whose `strategy` is its own, or whose method is in
/// `against`. Metrics over all tasks are left out unless the run has all tasks and no others.
/// @throws ConfigError when they have no task in common, or `against` names no method of the tables
GapComparison compare_with_published(const Comparison& comparison, const std::vector<ComparedRun>& runs,
                                     const Published& published,
                                     const std::vector<std::string>& against = {});

std::vector<Block> gap_blocks(const GapComparison& gaps);
/// Lines in the form of comparison_csv(), with columns "published:<name>/<table>/<method>:<key>" and "gap:…".
std::string gap_csv(const GapComparison& gaps);
Json gap_json(const GapComparison& gaps);

}  // namespace mcit
