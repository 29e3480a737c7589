// Which runs a grid has, what they share, what is left of them, and what may change between two calls.
#include "app/grid.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "app/grid_process.hpp"
#include "app/grid_view.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Order = std::vector<std::string>;

Grid grid(const std::vector<Order>& orders, std::vector<GridEntry> entries,
          std::vector<std::uint64_t> seeds = {1}) {
  return {.suite = "s",
          .out = "out",
          .seeds = std::move(seeds),
          .orders = orders,
          .flags = {},
          .sets = {"threads=1"},
          .entries = std::move(entries)};
}

GridEntry learner(const std::string& name, bool causal = true) {
  return {.name = name, .strategy = name, .sets = {}, .extent = Extent::every_order, .causal = causal};
}

const GridJob& job(const std::vector<GridJob>& jobs, const std::string& name) {
  const auto found =
      std::find_if(jobs.begin(), jobs.end(), [&](const GridJob& one) { return one.name == name; });
  INFO(name);
  REQUIRE(found != jobs.end());
  return *found;
}

std::vector<std::string> names(const std::vector<GridJob>& jobs) {
  std::vector<std::string> out;
  for (const GridJob& one : jobs) out.push_back(one.name);
  return out;
}

std::string trunk(const std::vector<GridJob>& jobs, const std::string& name) {
  const GridJob& one = job(jobs, name);
  return one.begins_with ? jobs.at(*one.begins_with).name : "";
}

/// Everything that a plan promises, whatever the grid: each run once, behind what it waits for; whoever
/// begins with another's stages has its tasks there and adds the rest of them.
void check_plan(const Grid& of) {
  const std::vector<GridJob> plan = plan_grid(of);
  std::set<std::string> folders;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const GridJob& one = plan[i];
    CHECK(folders.insert(one.folder.string()).second);
    for (const std::size_t before : one.after) CHECK(before < i);
    double work = one.work;
    for (auto at = one.begins_with; at; at = plan[*at].begins_with) {
      REQUIRE(*at < i);
      const GridJob& before = plan[*at];
      CHECK(before.until > 0);
      CHECK(one.beginning.empty() == false);
      CHECK((before.entry == one.entry && before.seed == one.seed));
      const Order &a = of.orders[before.order], &b = of.orders[one.order];
      CHECK(std::equal(a.begin(), a.begin() + before.until, b.begin()));
      work += before.work;
    }
    const auto stages =
        one.until > 0 ? static_cast<double>(one.until) : static_cast<double>(of.orders[0].size());
    if (of.entries[one.entry].extent == Extent::every_order) CHECK(work == stages);
    const auto users = std::count_if(plan.begin(), plan.end(), [&](const GridJob& other) {
      return other.begins_with && *other.begins_with == i;
    });
    CHECK((one.until > 0 ? users >= 2 : users == 0));
  }
}

TEST_CASE("a line may be a federated run: its file says what is run, and another file is another line") {
  GridEntry federated{
      .name = "Pilot", .strategy = {}, .sets = {"train.steps=2"}, .federate = "/f/pilot.toml"};
  const Grid both = grid({}, {learner("ewc"), federated}, {7});
  const std::vector<GridJob> plan = plan_grid(both);
  CHECK(job(plan, "ewc 7").verb == "run");
  const GridJob& one = job(plan, "Pilot 7");
  CHECK(one.verb == "federate");
  CHECK(one.folder == "out/Pilot-7");
  CHECK(one.settings == std::vector<std::string>{"/f/pilot.toml", "--seed", "7", "--set", "label=\"Pilot\"",
                                                 "--set", "threads=1", "--set", "train.steps=2"});
  Grid other = both;
  other.entries[1].federate = "/f/disco.toml";
  CHECK_THROWS_MATCHES(merge_descriptions(describe_grid(both), describe_grid(other), "out"), ConfigError,
                       MessageMatches(ContainsSubstring("'Pilot'")));
}

TEST_CASE("orders that begin alike share the longest common beginning, once for each strategy and seed") {
  const Grid of =
      grid({{"a", "b", "c", "d"}, {"a", "b", "d", "c"}, {"a", "c", "b", "d"}, {"d", "a", "b", "c"}},
           {learner("ewc"), learner("probe", false)}, {1, 2});
  const std::vector<GridJob> plan = plan_grid(of);
  CHECK(names(plan) == std::vector<std::string>{
                           "ewc 1 o1 1..1", "ewc 1 o1 1..2", "ewc 1 o1",   "ewc 1 o2",   "ewc 1 o3",
                           "ewc 1 o4",      "probe 1 o1",    "probe 1 o2", "probe 1 o3", "probe 1 o4",  //
                           "ewc 2 o1 1..1", "ewc 2 o1 1..2", "ewc 2 o1",   "ewc 2 o2",   "ewc 2 o3",
                           "ewc 2 o4",      "probe 2 o1",    "probe 2 o2", "probe 2 o3", "probe 2 o4"});
  CHECK(trunk(plan, "ewc 2 o1 1..1").empty());
  CHECK(trunk(plan, "ewc 2 o1 1..2") == "ewc 2 o1 1..1");
  CHECK(trunk(plan, "ewc 2 o1") == "ewc 2 o1 1..2");
  CHECK(trunk(plan, "ewc 2 o2") == "ewc 2 o1 1..2");
  CHECK(trunk(plan, "ewc 2 o3") == "ewc 2 o1 1..1");
  CHECK(trunk(plan, "ewc 2 o4").empty());
  CHECK(trunk(plan, "probe 1 o1").empty());
  CHECK(job(plan, "ewc 1 o1 1..2").folder == "out/shared/ewc-1-o1-2");
  CHECK(job(plan, "ewc 1 o2").folder == "out/ewc-1-o2");
  check_plan(of);
  check_plan(grid({{"a", "b", "c"}}, {learner("ewc")}));
  const Order tasks = {"a", "b", "c", "d"};
  check_plan(grid(seeded_orders(tasks, 24), {learner("ewc"), learner("x", false)}, {3, 9}));
}

TEST_CASE("bounds run once for what they depend on, and the untrained base goes first") {
  Grid of = grid({{"a", "b"}, {"b", "a"}}, {learner("ewc"), learner("single"), learner("zero_shot")}, {1, 2});
  of.entries[1].extent = Extent::once_a_seed;
  of.entries[2].extent = Extent::once;
  const std::vector<GridJob> plan = plan_grid(of);
  CHECK(names(plan) == std::vector<std::string>{"zero_shot 1", "ewc 1 o1", "ewc 1 o2", "single 1", "ewc 2 o1",
                                                "ewc 2 o2", "single 2"});
  CHECK(plan[0].after.empty());
  for (std::size_t i = 1; i < plan.size(); ++i) CHECK(plan[i].after == std::vector<std::size_t>{0});
  const std::vector<std::string>& settings = job(plan, "ewc 2 o2").settings;
  CHECK(settings == std::vector<std::string>{"--suite", "s", "--strategy", "ewc", "--seed", "2", "--set",
                                             "label=\"ewc\"", "--set", "order=[\"b\",\"a\"]", "--set",
                                             "threads=1"});
  // A sweep names no order, and its folders none either.
  const std::vector<GridJob> sweep = plan_grid(grid({}, {learner("rank 4")}));
  CHECK(sweep.front().folder == "out/rank_4-1");
  CHECK(sweep.front().settings.back() == "threads=1");
  CHECK(sweep.front().settings.size() == 10);
}

TEST_CASE("what is complete is not run again, and a beginning only where it pays") {
  const Grid of = grid({{"a", "b", "c", "d"}, {"a", "b", "d", "c"}, {"a", "c", "b", "d"}}, {learner("ewc")});
  const std::vector<GridJob> plan = plan_grid(of);
  std::map<std::string, JobState> states;
  const auto left = [&] {
    return pending_jobs(plan, [&](const GridJob& one) {
      const auto found = states.find(one.name);
      return found == states.end() ? JobState::fresh : found->second;
    });
  };
  CHECK(names(left()) == names(plan));

  states = {{"ewc 1 o1 1..1", JobState::done}};
  auto jobs = left();
  CHECK(names(jobs) == std::vector<std::string>{"ewc 1 o1 1..2", "ewc 1 o1", "ewc 1 o2", "ewc 1 o3"});
  CHECK(trunk(jobs, "ewc 1 o3").empty());
  CHECK(job(jobs, "ewc 1 o3").beginning == "out/shared/ewc-1-o1-1");  // there already: nothing to wait for
  CHECK(trunk(jobs, "ewc 1 o2") == "ewc 1 o1 1..2");

  // One user left of the longer beginning: the shorter one serves it.
  states = {{"ewc 1 o1", JobState::done}};
  jobs = left();
  CHECK(names(jobs) == std::vector<std::string>{"ewc 1 o1 1..1", "ewc 1 o2", "ewc 1 o3"});
  CHECK(trunk(jobs, "ewc 1 o2") == "ewc 1 o1 1..1");
  CHECK(trunk(jobs, "ewc 1 o3") == "ewc 1 o1 1..1");

  // Unless it has begun itself.
  states["ewc 1 o1 1..2"] = JobState::begun;
  CHECK(trunk(left(), "ewc 1 o2") == "ewc 1 o1 1..2");

  // A run that has begun goes on by itself.
  states = {{"ewc 1 o1", JobState::done}, {"ewc 1 o2", JobState::begun}};
  jobs = left();
  CHECK(names(jobs) == std::vector<std::string>{"ewc 1 o2", "ewc 1 o3"});
  CHECK(job(jobs, "ewc 1 o3").beginning.empty());
  CHECK(job(jobs, "ewc 1 o2").beginning.empty());

  states = {{"ewc 1 o1", JobState::done}, {"ewc 1 o2", JobState::done}, {"ewc 1 o3", JobState::done}};
  CHECK(left().empty());
}

TEST_CASE("seeds are a number of them, a list or ranges") {
  using Seeds = std::vector<std::uint64_t>;
  CHECK(seeds_of("3", "--seeds") == Seeds{1, 2, 3});
  CHECK(seeds_of("7,4", "--seeds") == Seeds{7, 4});
  CHECK(seeds_of("2..4,3,9", "--seeds") == Seeds{2, 3, 4, 9});
  CHECK(seeds_of("3..3", "--seeds") == Seeds{3});
  for (const char* wrong : {"", "0", "a", "1,", "4..2", "-1", "1..", "1..99999999999", "1.5"}) {
    INFO(wrong);
    CHECK_THROWS_AS(seeds_of(wrong, "--seeds"), ConfigError);
  }
}

TEST_CASE("seeded orders are the suite's own and different permutations, the same in every call") {
  const Order tasks = {"a", "b", "c"};
  const auto all = seeded_orders(tasks, 6);
  CHECK(all.front() == tasks);
  CHECK(std::set<Order>(all.begin(), all.end()).size() == 6);
  for (Order order : all) {
    std::sort(order.begin(), order.end());
    CHECK(order == tasks);
  }
  const auto three = seeded_orders(tasks, 3);
  CHECK(std::equal(three.begin(), three.end(), all.begin()));  // more orders keep those that were there
  CHECK_THROWS_MATCHES(seeded_orders(tasks, 7), ConfigError,
                       MessageMatches(ContainsSubstring("3 tasks have 1 to 6 orders, not 7")));
  CHECK_THROWS_AS(seeded_orders(tasks, 0), ConfigError);
}

TEST_CASE("a grid may grow, and what is there stays as it is") {
  const Grid first = grid({{"a", "b"}}, {learner("ewc")});
  const Json before = describe_grid(first);
  Grid more = grid({{"a", "b"}, {"b", "a"}}, {learner("lora")}, {2, 1});
  const Json merged = merge_descriptions(before, describe_grid(more), "out");
  CHECK(merged["runs"].size() == 2);
  CHECK(merged["seeds"] == Json({1, 2}));
  CHECK(merged["orders"].size() == 2);
  CHECK(merge_descriptions(merged, before, "out") == merged);  // fewer of them is no change either

  const auto refused = [&](const Grid& now, const std::string& what) {
    CHECK_THROWS_MATCHES(merge_descriptions(merged, describe_grid(now), "out"), ConfigError,
                         MessageMatches(ContainsSubstring("another " + what)));
  };
  Grid other = first;
  other.suite = "t";
  refused(other, "suite");
  other = first;
  other.sets = {"threads=2"};
  refused(other, "set");
  other = first;
  other.entries[0].sets = {"strategy.lambda=3"};
  refused(other, "'ewc'");
  other = first;
  other.orders = {{"b", "a"}};
  refused(other, "order 1");
  other.orders.clear();
  refused(other, "list of orders");
  CHECK_THROWS_AS(merge_descriptions(Json(3), before, "out"), DataError);
  CHECK_THROWS_AS(merge_descriptions(Json::object(), before, "out"), Error);
}

TEST_CASE("runs are dealt to GPUs by what is visible") {
  CHECK(visible_device("cuda:1", "") == "1");
  CHECK(visible_device("cuda:0", "5,7") == "5");
  CHECK(visible_device("cuda:1", "5,7") == "7");
  CHECK_THROWS_MATCHES(visible_device("cuda:2", "5,7"), ConfigError,
                       MessageMatches(ContainsSubstring("there is no 'cuda:2'")));
  CHECK_NOTHROW(check_devices({"cuda:0", "cuda:1"}));
  CHECK_NOTHROW(check_devices({"cpu"}));
  for (const std::vector<std::string>& wrong :
       {Order{"cuda"}, Order{"cuda:"}, Order{"cuda:x"}, Order{"gpu"}, Order{"cpu", "cuda:0"},
        Order{"cuda:0", "cuda:0"}, Order{"cuda:99999999999999999999"}})
    CHECK_THROWS_AS(check_devices(wrong), ConfigError);
}

TEST_CASE("the summary counts and estimates") {
  const std::vector<GridJob> plan = plan_grid(grid({{"a", "b"}}, {learner("x")}, {1, 2, 3}));
  GridView view(plan.size(), 6.0, 1);
  CHECK(view.summary(1) == "0 of 3 runs done, 1 running");
  const RunningJob first{.job = &plan[0], .device = {}, .last = {}, .failure = {}, .clock = {}};
  view.ended(first, true, {});
  view.skipped(plan[1], "why");
  CHECK_THAT(view.summary(1), ContainsSubstring("1 of 3 runs done, 1 running, 1 failed, about 0 s left"));
}

}  // namespace
}  // namespace mcit
