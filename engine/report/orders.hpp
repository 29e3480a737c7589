#pragma once
/// Runs of one suite with several orders of its tasks: a comparison for each, one over all, and how much the
/// order matters.

#include <optional>
#include <string>
#include <vector>

#include "report/comparison.hpp"

namespace mcit {

struct OrderedRun {
  ComparedRun run;
  bool every_order = true;  ///< false: its numbers hold for every order (zero_shot, single, joint)
};

/// How a strategy's ACC depends on seed and order.
struct OrderLine {
  std::string label;
  std::vector<std::optional<Statistic>> orders;  ///< over the seeds, for each order
  std::optional<double> mean;                    ///< of the orders' means
  std::optional<double>
      over_seeds;  ///< root of the mean over orders of the seeds' variance (divided by n - 1)
  std::optional<double> over_orders;  ///< deviation of the orders' means (divided by n - 1)
  std::optional<double> range;        ///< largest less smallest of the orders' means
};

struct OrderStudy {
  std::vector<std::string> names;  ///< "o1", …
  std::vector<Comparison> orders;  ///< runs that hold for every order stand in each
  /// Means of the orders' means; the deviation is that between orders, and `runs` counts orders. Lines that
  /// hold for every order keep their statistic over seeds. Empty with a single order.
  std::optional<Comparison> overall;
  std::vector<OrderLine> sensitivity;  ///< of the lines that are run for every order
};

/// @param orders lists of the same tasks. Orders without a run are left out.
OrderStudy study_orders(const std::vector<OrderedRun>& runs,
                        const std::vector<std::vector<std::string>>& orders);

/// ACC of each order, and what orders and seeds change.
Table sensitivity_table(const OrderStudy& study);

/// With several orders what holds over them; the tables of each are in the Markdown.
std::string orders_terminal(const OrderStudy& study, int width, bool colours);
std::string orders_markdown(const OrderStudy& study);
/// comparison_csv() with the order's name, or "all", in front of each line.
std::string orders_csv(const OrderStudy& study);

}  // namespace mcit
