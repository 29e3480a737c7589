#include "metrics/metrics.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "mcit/errors.hpp"
#include "metrics/matrix_io.hpp"

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Catch::Matchers::WithinAbs;

using Scores = std::vector<double>;

double value(std::string_view name, const MetricInputs& inputs) {
  const MetricValue result = compute_metric(name, inputs);
  INFO(name << ": " << result.missing);
  REQUIRE(result.value.has_value());
  return *result.value;
}

std::string missing(std::string_view name, const MetricInputs& inputs) {
  const MetricValue result = compute_metric(name, inputs);
  REQUIRE_FALSE(result.value.has_value());
  return result.missing;
}

MetricInputs of(std::string_view text) { return {matrix_from_text(text, "test"), {}, {}, {}}; }

/// The two rows that papers print: each task right after it was learned, and all tasks at the end.
MetricInputs diagonal_and_final(const Scores& learned, const Scores& final_row) {
  std::vector<std::string> names;
  for (std::size_t j = 0; j < learned.size(); ++j) names.push_back("task " + std::to_string(j + 1));
  AccuracyMatrix matrix(names);
  for (std::size_t j = 0; j < learned.size(); ++j) {
    const auto task = static_cast<std::int64_t>(j);
    matrix.set(task + 1, task, learned[j]);
    matrix.set(matrix.stages(), task, final_row[j]);
  }
  return {matrix, {}, {}, {}};
}

/// Where a paper prints only the mean of the scores right after learning: any such scores with that mean will
/// do, as long as the last task's is its final one.
Scores with_mean(double mean, const Scores& final_row) {
  const auto tasks = static_cast<double>(final_row.size());
  Scores learned(final_row.size(), (mean * tasks - final_row.back()) / (tasks - 1.0));
  learned.back() = final_row.back();
  return learned;
}

constexpr double kPrinted = 0.0101;  // two decimals of numbers that were rounded to two decimals themselves

TEST_CASE("golden: a user's LoRA matrix on UCIT") {
  // LLaVA-1.5-7B, LoRA, tasks ImageNet-R, ArxivQA, VizWiz, IconQA, CLEVR, Flickr30k: posted in issue 6 of
  // MCITlib.
  const MetricInputs ucit =
      of("90.97\n"
         "90.38 92.60\n"
         "73.90 86.33 59.54\n"
         "75.67 68.77 47.34 53.30\n"
         "75.10 74.53 46.73 52.30 69.73\n"
         "65.77 71.27 45.05 51.20 49.60 57.47\n");
  CHECK_THAT(value("acc", ucit), WithinAbs(56.7267, 5e-5));
  CHECK_THAT(value("maa", ucit), WithinAbs(72.8986, 5e-5));
  CHECK_THAT(value("mft", ucit), WithinAbs(70.6017, 5e-5));
  CHECK_THAT(value("bwt_T", ucit), WithinAbs(-13.875, 1e-9));
  CHECK_THAT(value("bwt_T-1", ucit), WithinAbs(-16.65, 1e-9));
}

TEST_CASE("golden: CoIN divides backward transfer by T") {
  // CoIN (arXiv 2403.08350), LLaVA-1.5-7B: aggregates as BranchLoRA (arXiv 2506.02041) reprints them,
  // forgetting of LoRA from the table of PCLR. The rows are some that have these aggregates; no copy of
  // CoIN's was read.
  const MetricInputs lora = diagonal_and_final({82.45, 49.99, 96.05, 56.40, 55.45, 31.27, 62.20, 57.08},
                                               {21.26, 28.74, 10.25, 36.78, 32.45, 0.83, 42.50, 57.08});
  CHECK_THAT(value("acc", lora), WithinAbs(28.74, kPrinted));
  CHECK_THAT(value("mft", lora), WithinAbs(61.36, kPrinted));
  CHECK_THAT(value("bwt_T", lora), WithinAbs(-32.62, kPrinted));
  CHECK_THAT(value("forgetting_pclr", lora), WithinAbs(37.29, kPrinted));
  const MetricInputs moe_lora = diagonal_and_final({75.78, 51.73, 96.70, 59.42, 58.88, 37.50, 64.22, 60.08},
                                                   {63.09, 38.63, 10.50, 37.38, 43.62, 0.59, 43.15, 60.08});
  CHECK_THAT(value("acc", moe_lora), WithinAbs(37.13, kPrinted));
  CHECK_THAT(value("bwt_T", moe_lora), WithinAbs(-25.91, kPrinted));
}

TEST_CASE("golden: MCITlib divides backward transfer by T - 1") {
  // MCITlib, LLaVA-1.5-7B: MFT, finals and BWT of DISCO on UCIT and of LoRA-FT on MLLM-DCL.
  const Scores disco{87.43, 93.07, 46.96, 68.13, 65.70, 56.69};
  const MetricInputs ucit = diagonal_and_final(with_mean(75.87, disco), disco);
  CHECK_THAT(value("acc", ucit), WithinAbs(69.66, kPrinted));
  CHECK_THAT(value("bwt_T-1", ucit), WithinAbs(-7.45, kPrinted));
  const Scores lora{69.65, 41.59, 25.43, 40.88, 87.45};
  const MetricInputs dcl = diagonal_and_final(with_mean(64.98, lora), lora);
  CHECK_THAT(value("acc", dcl), WithinAbs(53.00, kPrinted));
  CHECK_THAT(value("bwt_T-1", dcl), WithinAbs(-14.97, kPrinted));
}

TEST_CASE("golden: PCLR prints forgetting of SEFE on CoIN") {
  // PCLR's table: ACC 58.57, New 69.02, forgetting 11.94.
  const Scores sefe{75.35, 58.66, 83.10, 54.25, 48.85, 16.75, 65.35, 66.25};
  const MetricInputs coin = diagonal_and_final(with_mean(69.02, sefe), sefe);
  CHECK_THAT(value("acc", coin), WithinAbs(58.57, kPrinted));
  CHECK_THAT(value("forgetting_pclr", coin), WithinAbs(11.94, kPrinted));
}

/// A full 4 x 3 matrix with gains and losses; all expectations below are worked out by hand in the comments.
MetricInputs small() {
  MetricInputs inputs =
      of("base 10 20 30\n"
         "one  60 22 28\n"
         "two  70 50 40\n"
         "three 40 56 80\n");
  inputs.single = {64.0, 55.0, 75.0};
  inputs.baseline = {1.0, 2.0, 3.0};
  inputs.test_examples = {100, 300, 600};
  return inputs;
}

TEST_CASE("each definition on a matrix worked out by hand") {
  const MetricInputs m = small();
  const auto is = [&m](std::string_view name, double expected) {
    INFO(name);
    CHECK_THAT(value(name, m), WithinAbs(expected, 1e-9));
  };
  is("acc", (40 + 56 + 80) / 3.0);
  is("hide_last", (40 + 56 + 80) / 3.0);
  is("mft", (60 + 50 + 80) / 3.0);
  is("maa", (60 + (70 + 50) / 2.0 + (40 + 56 + 80) / 3.0) / 3.0);
  is("bwt_T", ((40 - 60) + (56 - 50) + 0) / 3.0);
  is("bwt_T-1", ((40 - 60) + (56 - 50)) / 2.0);
  is("forgetting_pclr", 7.0);
  is("forgetting_chaudhry",
     ((70 - 40) + (50 - 56)) / 2.0);  // the best before the last stage: may be negative per task
  is("forgetting_mammoth", ((70 - 40) + (56 - 56)) / 2.0);  // the best of all rows: never negative
  is("forgetting_avalanche", ((60 - 40) + (50 - 56)) / 2.0);
  is("bwt_avalanche", -7.0);
  is("bwt_diaz_rodriguez", ((70 - 60) + (40 - 60) + (56 - 50)) / 3.0);  // pairs (2,1), (3,1), (3,2)
  is("positive_bwt", 0.0);
  is("remembering", 100.0 - 4.0 / 3.0);
  is("accuracy_continuum", (60 + 70 + 50 + 40 + 56 + 80) / 6.0);
  is("fwt_zero", ((22 - 20) + (40 - 30)) / 2.0);
  is("fwt_gem", ((22 - 2) + (40 - 3)) / 2.0);
  is("fwt_diaz_rodriguez", (22 + 28 + 40) / 3.0);
  is("fwt_plasticity", ((60 - 64) + (50 - 55) + (80 - 75)) / 3.0);
  is("faa_weighted", (0.1 * 40 + 0.3 * 56 + 0.6 * 80));
  is("average_incremental", (60 + (70 + 3 * 50) / 4.0 + (40 + 3 * 56 + 6 * 80) / 10.0) / 3.0);
  is("hide_avg", ((60 + 70 + 40) / 3.0 + (50 + 56) / 2.0 + 80) / 3.0);
  is("zero_shot", 20.0);
  CHECK(metric_catalogue().size() == 23);  // as many as are checked here
}

TEST_CASE("relations that hold for every matrix") {
  const MetricInputs m = small();
  CHECK_THAT(value("bwt_T", m), WithinAbs(value("acc", m) - value("mft", m), 1e-9));
  CHECK_THAT(value("bwt_T-1", m) * 2.0 / 3.0, WithinAbs(value("bwt_T", m), 1e-9));
  CHECK(value("forgetting_mammoth", m) >= value("forgetting_chaudhry", m));
  CHECK(value("forgetting_chaudhry", m) >= value("forgetting_pclr", m));
}

TEST_CASE("positive backward transfer shows when later tasks help") {
  const MetricInputs m = of("50\n60 40\n");
  CHECK_THAT(value("positive_bwt", m), WithinAbs(10.0, 1e-9));
  CHECK_THAT(value("remembering", m), WithinAbs(100.0, 1e-9));
  CHECK_THAT(value("forgetting_chaudhry", m), WithinAbs(-10.0, 1e-9));
  CHECK_THAT(value("forgetting_mammoth", m), WithinAbs(0.0, 1e-9));
}

TEST_CASE("a missing cell is never 0: the metric has no value and says what is missing") {
  MetricInputs m = small();
  m.matrix.set(2, 1, std::nullopt);
  CHECK(missing("mft", m) == "'task 2' after stage 2 is missing");
  CHECK(missing("bwt_T-1", m) == "'task 2' after stage 2 is missing");
  CHECK(missing("maa", m) == "'task 2' after stage 2 is missing");
  CHECK(value("acc", m) == (40.0 + 56.0 + 80.0) / 3.0);  // does not need it
  CHECK_THAT(value("forgetting_avalanche", m),
             WithinAbs(20.0, 1e-9));  // the mean over the tasks that have both
  m = small();
  m.matrix.set(0, 2, std::nullopt);
  CHECK(missing("fwt_zero", m) == "'task 3' before any training is missing");
  CHECK(missing("zero_shot", m) == "'task 3' before any training is missing");
  m.single = {};
  CHECK(missing("fwt_plasticity", m) == "the single-task score of 'task 1' is missing");
  m.baseline = {1.0, std::nullopt, 3.0};
  CHECK(missing("fwt_gem", m) == "the random baseline of 'task 2' is missing");
  m.test_examples = {100, 0, 10};
  CHECK(missing("faa_weighted", m) == "the test size of 'task 2' is missing");
}

TEST_CASE("Avalanche's forgetting takes the latest score there is") {
  const MetricInputs m = of("60\n50 70\n- 60 80\n");
  CHECK_THAT(value("forgetting_avalanche", m), WithinAbs(((60 - 50) + (70 - 60)) / 2.0, 1e-9));
}

TEST_CASE("one stage for all tasks: there is nothing to forget, hence no value") {
  AccuracyMatrix joint({"a", "b"}, 1, {1, 1});
  joint.set(0, 0, 10);
  joint.set(0, 1, 20);
  joint.set(1, 0, 60);
  joint.set(1, 1, 80);
  const MetricInputs m{joint, {50.0, 50.0}, {}, {}};
  for (const char* name : {"acc", "mft", "maa", "accuracy_continuum", "hide_avg"})
    CHECK_THAT(value(name, m), WithinAbs(70.0, 1e-9));
  CHECK_THAT(value("fwt_plasticity", m), WithinAbs(20.0, 1e-9));
  for (const char* name : {"bwt_T", "bwt_T-1", "forgetting_pclr", "forgetting_chaudhry", "forgetting_mammoth",
                           "bwt_diaz_rodriguez"})
    CHECK_THAT(missing(name, m), ContainsSubstring("before the last stage"));
  for (const char* name : {"fwt_zero", "fwt_diaz_rodriguez"})
    CHECK_THAT(missing(name, m), ContainsSubstring("after the first stage"));
}

TEST_CASE("stages that learn several tasks") {
  AccuracyMatrix matrix({"a", "b", "c"}, 2, {1, 1, 2});
  const double rows[3][3] = {{10, 10, 10}, {50, 60, 20}, {40, 55, 90}};
  for (std::int64_t i = 0; i < 3; ++i)
    for (std::int64_t j = 0; j < 3; ++j) matrix.set(i, j, rows[i][j]);
  const MetricInputs m{matrix, {}, {}, {}};
  CHECK_THAT(value("bwt_T-1", m), WithinAbs(((40 - 50) + (55 - 60)) / 2.0, 1e-9));
  CHECK_THAT(value("bwt_T", m), WithinAbs(((40 - 50) + (55 - 60)) / 3.0, 1e-9));
  CHECK_THAT(value("maa", m), WithinAbs(((50 + 60) / 2.0 + (40 + 55 + 90) / 3.0) / 2.0, 1e-9));
  CHECK_THAT(value("fwt_zero", m), WithinAbs(10.0, 1e-9));
}

TEST_CASE("a model that is never trained has a final score and nothing else") {
  AccuracyMatrix matrix({"a", "b"}, 0, {0, 0});
  matrix.set(0, 0, 10);
  matrix.set(0, 1, 30);
  const MetricInputs m{matrix, {}, {}, {}};
  CHECK(value("acc", m) == 20.0);
  CHECK(value("zero_shot", m) == 20.0);
  for (const Metric& metric : compute_metrics(m)) {
    INFO(metric.info.name);
    CHECK(metric.result.value.has_value() ==
          (metric.info.name == "acc" || metric.info.name == "hide_last" || metric.info.name == "zero_shot"));
    if (!metric.result.value) CHECK_FALSE(metric.result.missing.empty());
  }
}

TEST_CASE("an empty matrix has no metric") {
  for (const Metric& metric : compute_metrics({AccuracyMatrix(std::vector<std::string>{}), {}, {}, {}})) {
    INFO(metric.info.name);
    CHECK_FALSE(metric.result.value.has_value());
  }
}

TEST_CASE("names are unique and an unknown one is answered with a near one") {
  std::vector<std::string> names;
  for (const MetricInfo& info : metric_catalogue()) {
    names.emplace_back(info.name);
    CHECK_FALSE(info.formula.empty());
    CHECK_FALSE(info.source.empty());
  }
  std::sort(names.begin(), names.end());
  CHECK(std::adjacent_find(names.begin(), names.end()) == names.end());
  CHECK_THROWS_MATCHES(compute_metric("bwt_t", small()), ConfigError,
                       MessageMatches(ContainsSubstring("did you mean 'bwt_T'?")));
}

TEST_CASE("the matrix refuses cells it has not") {
  AccuracyMatrix matrix({"a", "b"});
  CHECK(matrix.stages() == 2);
  CHECK_THROWS_AS(matrix.at(3, 0), std::out_of_range);
  CHECK_THROWS_AS(matrix.at(0, 2), std::out_of_range);
  CHECK_THROWS_AS(matrix.set(-1, 0, 1.0), std::out_of_range);
  CHECK_THROWS_AS(AccuracyMatrix({"a"}, 1, {2}), std::out_of_range);
  CHECK_THROWS_AS(AccuracyMatrix({"a"}, 1, {}), std::out_of_range);
}

}  // namespace
}  // namespace mcit
