#include <algorithm>
#include <cmath>
#include <map>

#include "core/text.hpp"
#include "metrics/metrics.hpp"
#include "metrics/published.hpp"

namespace mcit {
namespace {

using Number = std::optional<double>;

/// Sets up the equations of one row. A printed number is off by up to half a unit of its last decimal; a
/// computed one by the sum of the halves of what went into it, each times its weight.
class RowChecks {
 public:
  RowChecks(const PublishedTable& table, const PublishedRow& row, std::vector<PublishedCheck>& out)
      : table_(table), row_(row), half_(0.5 * std::pow(10.0, -row.decimals)), out_(out) {}

  Number metric(const std::string& name) const {
    const auto found = row_.metrics.find(name);
    return found == row_.metrics.end() ? Number() : found->second;
  }

  /// @param weights sum of the absolute weights of the printed numbers that `computed` is made of
  void equal(const std::string& name, const std::string& how, Number computed, double weights) {
    constexpr double kArithmetic = 1e-9;
    const Number printed = metric(name);
    if (printed && computed)
      out_.push_back({table_.name, row_.method, name + " = " + how, *printed, *computed,
                      half_ * (1.0 + weights) + kArithmetic});
  }

 private:
  const PublishedTable& table_;
  const PublishedRow& row_;
  double half_;
  std::vector<PublishedCheck>& out_;
};

Number mean_of(const std::vector<Number>& values) {
  double sum = 0.0;
  for (const Number& value : values) {
    if (!value) return {};
    sum += *value;
  }
  return values.empty() ? Number() : sum / static_cast<double>(values.size());
}

/// Weights of the cells in a metric: each is a mean of cells, or of differences of two.
double weights_of(std::string_view metric) {
  constexpr double kDifferences = 2.0;
  const bool difference =
      metric.starts_with("bwt") || metric.starts_with("forgetting") || metric.starts_with("fwt");
  return difference ? kDifferences : 1.0;
}

void check_row(const PublishedRow& row, double tasks, RowChecks& checks) {
  const Number acc = checks.metric("acc"), mft = checks.metric("mft"), by_t = checks.metric("bwt_T");
  for (const char* name : {"acc", "hide_last"})
    checks.equal(name, "mean of the final scores", mean_of(row.finals), 1.0);
  checks.equal("mft", "mean of the scores right after learning", mean_of(row.learned), 1.0);
  const double scale = tasks / (tasks - 1.0);
  if (acc && mft) {
    const double change = *acc - *mft;
    checks.equal("bwt_T", "acc - mft", change, 2.0);
    checks.equal("bwt_T-1", "(acc - mft) T/(T-1)", change * scale, 2.0 * scale);
    checks.equal("forgetting_pclr", "(mft - acc) T/(T-1)", -change * scale, 2.0 * scale);
  }
  if (by_t) checks.equal("bwt_T-1", "bwt_T T/(T-1)", *by_t * scale, scale);
  if (row.matrix) {
    const MetricInputs inputs{*row.matrix, {}, {}, {}};
    for (const auto& [name, value] : row.metrics)
      checks.equal(name, "that of the matrix", compute_metric(name, inputs).value, weights_of(name));
  } else if (const Number final_mean = mean_of(row.finals), first_mean = mean_of(row.learned);
             final_mean && first_mean) {
    const double change = *final_mean - *first_mean;
    checks.equal("bwt_T", "mean of final - learned", change, 2.0);
    checks.equal("bwt_T-1", "mean of final - learned, T-1", change * scale, 2.0 * scale);
    checks.equal("forgetting_pclr", "mean of learned - final, T-1", -change * scale, 2.0 * scale);
  }
}

std::string condition(const PublishedRow& row, const char* name) {
  const auto found = row.conditions.find(name);
  return found == row.conditions.end() ? std::string() : found->second;
}

/// One may not know what the other states.
bool compatible(const PublishedRow& a, const PublishedRow& b) {
  for (const char* name : {"backbone", "prompts", "replay", "clients"}) {
    const std::string left = condition(a, name), right = condition(b, name);
    const bool unknown_is_other = name == std::string("replay") || name == std::string("clients");
    if (left != right && (unknown_is_other || (!left.empty() && !right.empty()))) return false;
  }
  return true;
}

Number final_mean(const PublishedRow& row) {
  for (const char* name : {"acc", "hide_last"})
    if (const auto found = row.metrics.find(name); found != row.metrics.end()) return found->second;
  return {};
}

}  // namespace

bool PublishedCheck::holds() const { return std::abs(printed - computed) <= tolerance; }

std::vector<PublishedCheck> check_published(const Published& published) {
  std::vector<PublishedCheck> out;
  for (const PublishedTable& table : published.tables) {
    for (const PublishedRow& row : table.rows) {
      RowChecks checks(table, row, out);
      check_row(row, static_cast<double>(published.tasks.size()), checks);
    }
  }
  return out;
}

std::vector<std::string> published_disagreements(const Published& published) {
  struct Place {
    const PublishedTable* table;
    const PublishedRow* row;
    double acc;
  };
  std::vector<std::pair<std::string, std::vector<Place>>> methods;
  for (const PublishedTable& table : published.tables)
    for (const PublishedRow& row : table.rows) {
      const Number acc = final_mean(row);
      if (!acc) continue;
      const std::string key = plain_name(row.method);
      auto known = std::find_if(methods.begin(), methods.end(),
                                [&key](const auto& entry) { return entry.first == key; });
      if (known == methods.end()) known = methods.insert(methods.end(), {key, {}});
      known->second.push_back({&table, &row, *acc});
    }
  std::vector<std::string> out;
  for (const auto& [key, places] : methods) {
    std::string text;
    std::vector<double> seen;
    for (const Place& place : places) {
      if (!compatible(*places.front().row, *place.row)) continue;
      if (std::find(seen.begin(), seen.end(), place.acc) != seen.end()) continue;
      seen.push_back(place.acc);
      text += (text.empty() ? "" : ", ") + fixed(place.acc, place.row->decimals) + " in " + place.table->name;
    }
    if (seen.size() > 1) out.push_back(places.front().row->method + " ends at " + text);
  }
  return out;
}

}  // namespace mcit
