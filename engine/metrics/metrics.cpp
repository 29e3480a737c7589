#include "metrics/metrics.hpp"

#include <algorithm>
#include <cmath>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

/// Reads cells and remembers the first thing that was not there; a metric whose reader missed anything has no
/// value.
class Reader {
 public:
  explicit Reader(const MetricInputs& inputs) : inputs_(inputs), r_(inputs.matrix) {}

  std::int64_t tasks() const { return r_.tasks(); }
  std::int64_t last() const { return r_.stages(); }

  double cell(std::int64_t stage, std::int64_t task) {
    if (const auto percent = r_.at(stage, task)) return *percent;
    return miss(name(task) + (stage == 0 ? " before any training" : " after stage " + std::to_string(stage)) +
                " is missing");
  }
  bool has(std::int64_t stage, std::int64_t task) const { return r_.at(stage, task).has_value(); }

  /// Stage that learns the task; 0, and no value, when none does.
  std::int64_t learned(std::int64_t task) {
    if (r_.learned_at(task) == 0) miss(name(task) + " is never trained");
    return r_.learned_at(task);
  }
  double when_learned(std::int64_t task) { return cell(learned(task), task); }
  double final_score(std::int64_t task) { return cell(last(), task); }

  double single(std::int64_t task) { return extra(inputs_.single, task, "the single-task score of "); }
  double baseline(std::int64_t task) { return extra(inputs_.baseline, task, "the random baseline of "); }
  double examples(std::int64_t task) {
    const auto j = static_cast<std::size_t>(task);
    if (j < inputs_.test_examples.size() && inputs_.test_examples[j] > 0)
      return static_cast<double>(inputs_.test_examples[j]);
    return miss("the test size of " + name(task) + " is missing");
  }

  double miss(std::string what) {
    if (missing_.empty()) missing_ = std::move(what);
    return 0.0;
  }
  const std::string& missing() const { return missing_; }

 private:
  std::string name(std::int64_t task) const {
    return "'" + r_.names().at(static_cast<std::size_t>(task)) + "'";
  }
  double extra(const std::vector<std::optional<double>>& values, std::int64_t task, const char* what) {
    const auto j = static_cast<std::size_t>(task);
    if (j < values.size() && values[j]) return *values[j];
    return miss(what + name(task) + " is missing");
  }

  const MetricInputs& inputs_;
  const AccuracyMatrix& r_;
  std::string missing_;
};

/// A sum that knows how many terms it has.
class Mean {
 public:
  void add(double term, double weight = 1.0) {
    sum_ += weight * term;
    count_ += weight;
  }
  bool empty() const { return count_ <= 0.0; }
  double value(Reader& r, const char* when_empty) const {
    return empty() ? r.miss(when_empty) : sum_ / count_;
  }

 private:
  double sum_ = 0.0;
  double count_ = 0.0;
};

constexpr const char* kNoTask = "there is no task";
constexpr const char* kOneStage = "needs a task that is learned before the last stage";
constexpr const char* kNoLater = "needs a task that is learned after the first stage";

/// Mean of term(j) over all tasks.
template <class Term>
double over_tasks(Reader& r, Term term) {
  Mean mean;
  for (std::int64_t j = 0; j < r.tasks(); ++j) mean.add(term(j));
  return mean.value(r, kNoTask);
}

/// Mean of term(j) over the tasks that could have been forgotten: learned before the last stage.
template <class Term>
double over_earlier_tasks(Reader& r, Term term) {
  Mean mean;
  for (std::int64_t j = 0; j < r.tasks(); ++j)
    if (r.learned(j) < r.last()) mean.add(term(j));
  return mean.value(r, kOneStage);
}

/// Mean of term(j) over the tasks that were met before they were learned.
template <class Term>
double over_later_tasks(Reader& r, Term term) {
  Mean mean;
  for (std::int64_t j = 0; j < r.tasks(); ++j)
    if (r.learned(j) > 1) mean.add(term(j));
  return mean.value(r, kNoLater);
}

/// Highest score of a task over stages from .. to.
double best(Reader& r, std::int64_t task, std::int64_t from, std::int64_t to) {
  double highest = r.cell(from, task);
  for (std::int64_t i = from + 1; i <= to; ++i) highest = std::max(highest, r.cell(i, task));
  return highest;
}

double acc(Reader& r) {
  return over_tasks(r, [&](std::int64_t j) { return r.final_score(j); });
}

double mft(Reader& r) {
  return over_tasks(r, [&](std::int64_t j) { return r.when_learned(j); });
}

/// Mean over stages of the mean over the tasks learned by then, each with the weight given.
template <class Weight>
double over_stages(Reader& r, Weight weight) {
  Mean stages;
  for (std::int64_t i = 1; i <= r.last(); ++i) {
    Mean seen;
    for (std::int64_t j = 0; j < r.tasks(); ++j)
      if (r.learned(j) <= i) seen.add(r.cell(i, j), weight(j));
    if (!seen.empty()) stages.add(seen.value(r, kNoTask));
  }
  return stages.value(r, "needs a training stage");
}

double maa(Reader& r) {
  return over_stages(r, [](std::int64_t) { return 1.0; });
}

double average_incremental(Reader& r) {
  return over_stages(r, [&](std::int64_t j) { return r.examples(j); });
}

double bwt_earlier(Reader& r) {
  return over_earlier_tasks(r, [&](std::int64_t j) { return r.final_score(j) - r.when_learned(j); });
}

double bwt_all(Reader& r) {
  bwt_earlier(r);  // in a single stage nothing can be forgotten: no value rather than 0
  return over_tasks(r, [&](std::int64_t j) { return r.final_score(j) - r.when_learned(j); });
}

double forgetting_pclr(Reader& r) { return -bwt_earlier(r); }

double forgetting_chaudhry(Reader& r) {
  return over_earlier_tasks(
      r, [&](std::int64_t j) { return best(r, j, r.learned(j), r.last() - 1) - r.final_score(j); });
}

double forgetting_mammoth(Reader& r) {
  return over_earlier_tasks(r, [&](std::int64_t j) {
    return std::max(0.0, best(r, j, r.learned(j), r.last())) - r.final_score(j);
  });
}

double forgetting_avalanche(Reader& r) {
  Mean mean;
  for (std::int64_t j = 0; j < r.tasks(); ++j) {
    const std::int64_t first = r.learned(j);
    std::int64_t latest = r.last();
    while (latest > first && !r.has(latest, j)) --latest;
    if (first > 0 && latest > first && r.has(first, j)) mean.add(r.cell(first, j) - r.cell(latest, j));
  }
  return mean.value(r, "needs a task that is evaluated again after a later stage");
}

double bwt_avalanche(Reader& r) { return -forgetting_avalanche(r); }

double bwt_diaz_rodriguez(Reader& r) {
  Mean pairs;
  for (std::int64_t j = 0; j < r.tasks(); ++j)
    for (std::int64_t i = r.learned(j) + 1; i <= r.last(); ++i) pairs.add(r.cell(i, j) - r.when_learned(j));
  return pairs.value(r, kOneStage);
}

double positive_bwt(Reader& r) { return std::max(0.0, bwt_diaz_rodriguez(r)); }

double remembering(Reader& r) { return 100.0 - std::abs(std::min(0.0, bwt_diaz_rodriguez(r))); }

double accuracy_continuum(Reader& r) {
  Mean cells;
  for (std::int64_t j = 0; j < r.tasks(); ++j)
    for (std::int64_t i = r.learned(j); i <= r.last(); ++i) cells.add(r.cell(i, j));
  return cells.value(r, kNoTask);
}

double fwt_zero(Reader& r) {
  return over_later_tasks(r, [&](std::int64_t j) { return r.cell(r.learned(j) - 1, j) - r.cell(0, j); });
}

double fwt_gem(Reader& r) {
  return over_later_tasks(r, [&](std::int64_t j) { return r.cell(r.learned(j) - 1, j) - r.baseline(j); });
}

double fwt_diaz_rodriguez(Reader& r) {
  Mean cells;
  for (std::int64_t j = 0; j < r.tasks(); ++j)
    for (std::int64_t i = 1; i < r.learned(j); ++i) cells.add(r.cell(i, j));
  return cells.value(r, kNoLater);
}

double fwt_plasticity(Reader& r) {
  return over_tasks(r, [&](std::int64_t j) { return r.when_learned(j) - r.single(j); });
}

double faa_weighted(Reader& r) {
  Mean mean;
  for (std::int64_t j = 0; j < r.tasks(); ++j) mean.add(r.final_score(j), r.examples(j));
  return mean.value(r, kNoTask);
}

double hide_avg(Reader& r) {
  return over_tasks(r, [&](std::int64_t j) {
    Mean stages;
    for (std::int64_t i = r.learned(j); i <= r.last(); ++i) stages.add(r.cell(i, j));
    return stages.value(r, kNoTask);
  });
}

double zero_shot(Reader& r) {
  return over_tasks(r, [&](std::int64_t j) { return r.cell(0, j); });
}

struct Definition {
  MetricInfo info;
  double (*compute)(Reader&);
};

constexpr std::string_view kUpper = "the cells above the diagonal";
constexpr Better kLower = Better::lower;

const std::vector<Definition>& definitions() {
  static const std::vector<Definition> all = {
      {{"acc", "ACC, AP, Last, MFN: mean final score", "1/T Σ_j R[T][j]", "CoIN; MCITlib (as MFN)", ""}, acc},
      {{"maa", "MAA, MAP: mean average score", "1/T Σ_i 1/i Σ_{j≤i} R[i][j]",
        "CoIN; BranchLoRA; MCITlib; SMoLoRA", ""},
       maa},
      {{"mft", "MFT, New: mean score right after learning", "1/T Σ_j R[j][j]", "MCITlib; PCLR", ""}, mft},
      {{"bwt_T", "backward transfer, divided by T", "1/T Σ_j (R[T][j] - R[j][j])", "CoIN; BranchLoRA", ""},
       bwt_all},
      {{"bwt_T-1", "backward transfer, divided by T-1", "1/(T-1) Σ_{j<T} (R[T][j] - R[j][j])",
        "GEM; MCITlib; Mammoth", ""},
       bwt_earlier},
      {{"forgetting_pclr", "forgetting against the score when learned", "1/(T-1) Σ_{j<T} (R[j][j] - R[T][j])",
        "PCLR; RECAP", "", kLower},
       forgetting_pclr},
      {{"forgetting_chaudhry", "forgetting against the best earlier score",
        "1/(T-1) Σ_{j<T} (max_{j≤l<T} R[l][j] - R[T][j])", "Chaudhry et al. 2018; Continuum", "", kLower},
       forgetting_chaudhry},
      {{"forgetting_mammoth", "forgetting against the best score, the last included",
        "1/(T-1) Σ_{j<T} (max(0, max_{j≤l≤T} R[l][j]) - R[T][j])", "Mammoth; PILOT", "", kLower},
       forgetting_mammoth},
      {{"forgetting_avalanche", "forgetting over the tasks that were evaluated again",
        "mean over j with both of (R[j][j] - latest R[i>j][j])", "Avalanche", "", kLower},
       forgetting_avalanche},
      {{"bwt_avalanche", "backward transfer over the tasks that were evaluated again",
        "- forgetting_avalanche", "Avalanche", ""},
       bwt_avalanche},
      {{"bwt_diaz_rodriguez", "backward transfer over all later stages",
        "Σ_{i>j} (R[i][j] - R[j][j]) / (T(T-1)/2)", "Díaz-Rodríguez et al. 2018", ""},
       bwt_diaz_rodriguez},
      {{"positive_bwt", "positive backward transfer", "max(0, bwt_diaz_rodriguez)",
        "Díaz-Rodríguez et al. 2018", ""},
       positive_bwt},
      {{"remembering", "remembering", "100 - |min(0, bwt_diaz_rodriguez)|", "Díaz-Rodríguez et al. 2018", ""},
       remembering},
      {{"accuracy_continuum", "mean over all stages and seen tasks", "Σ_{i≥j} R[i][j] / (T(T+1)/2)",
        "Díaz-Rodríguez et al. 2018; Continuum", ""},
       accuracy_continuum},
      {{"fwt_zero", "forward transfer against the untrained base", "1/(T-1) Σ_{j≥2} (R[j-1][j] - R[0][j])",
        "GEM, with the base as its b", kUpper},
       fwt_zero},
      {{"fwt_gem", "forward transfer against a random model", "1/(T-1) Σ_{j≥2} (R[j-1][j] - b[j])",
        "GEM; Mammoth", "baseline scores b"},
       fwt_gem},
      {{"fwt_diaz_rodriguez", "mean score on tasks not yet learned", "Σ_{i<j} R[i][j] / (T(T-1)/2)",
        "Díaz-Rodríguez et al. 2018; CLEAR", kUpper},
       fwt_diaz_rodriguez},
      {{"fwt_plasticity", "score when learned against training the task alone", "1/T Σ_j (R[j][j] - S[j])",
        "against the row of single-task scores", "single-task scores S"},
       fwt_plasticity},
      {{"faa_weighted", "mean final score, weighted by test size", "Σ_j n_j R[T][j] / Σ_j n_j", "DGG",
        "test sizes n"},
       faa_weighted},
      {{"average_incremental", "mean over stages of the score on all seen examples",
        "1/T Σ_i (Σ_{j≤i} n_j R[i][j] / Σ_{j≤i} n_j)", "PILOT; PyCIL", "test sizes n"},
       average_incremental},
      {{"hide_avg", "mean over tasks of the mean since it was learned", "1/T Σ_j 1/(T-j+1) Σ_{i≥j} R[i][j]",
        "HiDe-LLaVA, DISCO: their per-task Avg, as their tables read (not in their code)", ""},
       hide_avg},
      {{"hide_last", "mean over tasks of the last score (acc)", "1/T Σ_j R[T][j]",
        "HiDe-LLaVA, DISCO: their Last", ""},
       acc},
      {{"zero_shot", "mean score of the untrained base", "1/T Σ_j R[0][j]", "row 0", "row 0"}, zero_shot},
  };
  return all;
}

MetricValue run(const Definition& definition, const MetricInputs& inputs) {
  Reader reader(inputs);
  const double value = definition.compute(reader);
  if (!reader.missing().empty()) return {std::nullopt, reader.missing()};
  return {value, {}};
}

}  // namespace

const std::vector<MetricInfo>& metric_catalogue() {
  static const std::vector<MetricInfo> infos = [] {
    std::vector<MetricInfo> out;
    for (const Definition& definition : definitions()) out.push_back(definition.info);
    return out;
  }();
  return infos;
}

MetricValue compute_metric(std::string_view name, const MetricInputs& inputs) {
  std::vector<std::string> names;
  for (const Definition& definition : definitions()) {
    if (definition.info.name == name) return run(definition, inputs);
    names.emplace_back(definition.info.name);
  }
  throw ConfigError("metric", "unknown name '" + std::string(name) + "'", suggestion(name, names));
}

std::vector<Metric> compute_metrics(const MetricInputs& inputs) {
  std::vector<Metric> all;
  for (const Definition& definition : definitions())
    all.push_back({definition.info, run(definition, inputs)});
  return all;
}

std::vector<std::optional<double>> scores_when_learned(const AccuracyMatrix& matrix) {
  std::vector<std::optional<double>> scores;
  for (std::int64_t j = 0; j < matrix.tasks(); ++j) {
    const std::int64_t stage = matrix.learned_at(j);
    scores.push_back(stage == 0 ? std::nullopt : matrix.at(stage, j));
  }
  return scores;
}

}  // namespace mcit
