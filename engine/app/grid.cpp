#include "app/grid.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/random.hpp"
#include "core/run_dir.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostSeeds = 10'000;

/// Makes the jobs of one entry and seed.
class Planner {
 public:
  Planner(const Grid& grid, std::vector<GridJob>& plan) : grid_(grid), plan_(plan) {}

  void entry(std::size_t index, std::uint64_t seed) {
    entry_ = index;
    seed_ = seed;
    const GridEntry& entry = grid_.entries[index];
    const bool every = entry.extent == Extent::every_order;
    if (!every || grid_.orders.empty()) return add(0, 0, {}, every ? stages() : base_work(entry));
    std::vector<std::size_t> all(grid_.orders.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
    if (entry.causal) return branch(all, {}, 0);
    for (const std::size_t order : all) add(order, 0, {}, stages());
  }

 private:
  double stages() const {
    return grid_.orders.empty() ? 1.0 : static_cast<double>(grid_.orders.front().size());
  }
  double base_work(const GridEntry& entry) const {
    constexpr double kEvaluation = 0.2;  // rows of the base instead of training
    return entry.extent == Extent::once ? kEvaluation * stages() : stages();
  }

  /// Tasks that all these orders begin with.
  std::size_t common(const std::vector<std::size_t>& orders) const {
    const auto& first = grid_.orders[orders.front()];
    std::size_t length = first.size();
    for (const std::size_t order : orders) {
      const auto& other = grid_.orders[order];
      const auto differ = std::mismatch(first.begin(), first.end(), other.begin(), other.end());
      length = std::min(length, static_cast<std::size_t>(differ.first - first.begin()));
    }
    return length;
  }

  /// Runs of these orders, of which a job, if any, has trained the first `done` stages.
  void branch(const std::vector<std::size_t>& orders, std::optional<std::size_t> trunk, std::size_t done) {
    if (orders.size() == 1) return add(orders.front(), 0, trunk, stages() - static_cast<double>(done));
    const std::size_t length = common(orders);
    if (length > done) {
      add(orders.front(), static_cast<std::int64_t>(length), trunk, static_cast<double>(length - done));
      trunk = plan_.size() - 1;
      done = length;
    }
    std::vector<std::vector<std::size_t>> groups;
    for (const std::size_t order : orders) {
      const auto same = std::find_if(groups.begin(), groups.end(), [&](const auto& group) {
        return grid_.orders[group.front()][length] == grid_.orders[order][length];
      });
      if (same == groups.end())
        groups.push_back({order});
      else
        same->push_back(order);
    }
    for (const auto& group : groups) branch(group, trunk, done);
  }

  void add(std::size_t order, std::int64_t until, std::optional<std::size_t> trunk, double work) {
    const GridEntry& entry = grid_.entries[entry_];
    const bool ordered = entry.extent == Extent::every_order && !grid_.orders.empty();
    std::string name = entry.name + " " + std::to_string(seed_);
    std::string folder = safe_file_name(entry.name) + "-" + std::to_string(seed_);
    if (ordered) {
      name += " o" + std::to_string(order + 1);
      folder += "-o" + std::to_string(order + 1);
    }
    if (until > 0) {
      name += " 1.." + std::to_string(until);
      folder += "-" + std::to_string(until);
    }
    GridJob job{.name = std::move(name),
                .folder = (until > 0 ? grid_.out / "shared" : grid_.out) / folder,
                .entry = entry_,
                .seed = seed_,
                .order = order,
                .until = until,
                .beginning = trunk ? plan_[*trunk].folder : fs::path(),
                .begins_with = trunk,
                .after = {},
                .work = work};
    if (!entry.federate.empty()) job.verb = "federate";
    job.settings = settings(job);
    plan_.push_back(std::move(job));
  }

  std::vector<std::string> settings(const GridJob& job) const {
    const GridEntry& entry = grid_.entries[job.entry];
    std::vector<std::string> out = {entry.federate};
    if (entry.federate.empty()) out = {"--suite", grid_.suite, "--strategy", entry.strategy};
    out.insert(out.end(), {"--seed", std::to_string(job.seed)});
    out.insert(out.end(), grid_.flags.begin(), grid_.flags.end());
    const auto set = [&out](const std::string& assignment) { out.insert(out.end(), {"--set", assignment}); };
    set("label=" + Json(entry.name).dump());
    if (!grid_.orders.empty()) set("order=" + Json(grid_.orders[job.order]).dump());
    for (const auto* sets : {&grid_.sets, &entry.sets})
      for (const std::string& one : *sets) set(one);
    return out;
  }

  const Grid& grid_;
  std::vector<GridJob>& plan_;
  std::size_t entry_ = 0;
  std::uint64_t seed_ = 0;
};

std::uint64_t number(std::string_view text, const std::string& what) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size())
    throw ConfigError(what, "'" + std::string(text) + "' is no number",
                      "5 is the seeds 1 to 5, 4,7 and 2..5 name them");
  return value;
}

/// "suite 'a' is now 'b'" where two descriptions differ in a key that has to stay.
void same(const Json& before, const Json& now, const std::string& what, const std::string& where) {
  if (before == now) return;
  throw ConfigError(where,
                    "was begun with another " + what + ": " + dump_json(before) + " is now " + dump_json(now),
                    "choose another --out, or what it was begun with");
}

}  // namespace

std::vector<GridJob> plan_grid(const Grid& grid) {
  std::vector<GridJob> plan;
  Planner planner(grid, plan);
  for (std::size_t i = 0; i < grid.entries.size(); ++i)
    if (grid.entries[i].extent == Extent::once && !grid.seeds.empty()) planner.entry(i, grid.seeds.front());
  const std::size_t firsts = plan.size();
  for (const std::uint64_t seed : grid.seeds)
    for (std::size_t i = 0; i < grid.entries.size(); ++i)
      if (grid.entries[i].extent != Extent::once) planner.entry(i, seed);
  for (std::size_t i = firsts; i < plan.size() && firsts > 0; ++i) plan[i].after.push_back(0);
  return plan;
}

std::vector<GridJob> pending_jobs(const std::vector<GridJob>& plan,
                                  const std::function<JobState(const GridJob&)>& state) {
  std::vector<JobState> states;
  for (const GridJob& job : plan) states.push_back(state(job));
  std::vector<bool> wanted(plan.size(), false);
  std::vector<int> users(plan.size(), 0);        // of a beginning: jobs to come that have not begun
  for (std::size_t i = plan.size(); i-- > 0;) {  // whoever goes on from a beginning stands behind it
    const bool done = states[i] == JobState::done, fresh = states[i] == JobState::fresh;
    wanted[i] = !done && (plan[i].until == 0 || users[i] >= (fresh ? 2 : 1));
    if (!plan[i].begins_with || done) continue;
    int& above = users[*plan[i].begins_with];
    if (!wanted[i])
      above += users[i];
    else if (fresh)
      ++above;
  }
  std::vector<GridJob> out;
  std::map<std::size_t, std::size_t> places;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    if (!wanted[i]) continue;
    GridJob job = plan[i];
    auto trunk = job.begins_with;
    while (trunk && !wanted[*trunk] && states[*trunk] != JobState::done) trunk = plan[*trunk].begins_with;
    if (states[i] != JobState::fresh) trunk.reset();
    job.beginning = trunk ? plan[*trunk].folder : fs::path();
    job.begins_with.reset();
    if (trunk && wanted[*trunk]) job.begins_with = places.at(*trunk);
    job.after.clear();
    for (const std::size_t before : plan[i].after)
      if (wanted[before]) job.after.push_back(places.at(before));
    places[i] = out.size();
    out.push_back(std::move(job));
  }
  return out;
}

std::vector<std::uint64_t> seeds_of(const std::string& text, const std::string& what) {
  std::vector<std::uint64_t> seeds;
  const auto add = [&](std::uint64_t first, std::uint64_t last) {
    if (last < first) throw ConfigError(what, "'" + text + "' names no seed", "seeds are 1, 2, …");
    if (last - first >= kMostSeeds) throw ConfigError(what, "'" + text + "' names too many seeds");
    for (std::uint64_t seed = first; seed <= last; ++seed)
      if (std::find(seeds.begin(), seeds.end(), seed) == seeds.end()) seeds.push_back(seed);
  };
  if (text.find_first_of(",.") == std::string::npos) {
    add(1, number(text, what));
    return seeds;
  }
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view part = std::string_view(text).substr(begin, end - begin);
    const std::size_t dots = part.find("..");
    if (dots == std::string_view::npos) {
      const std::uint64_t seed = number(part, what);
      add(seed, seed);
    } else {
      add(number(part.substr(0, dots), what), number(part.substr(dots + 2), what));
    }
    begin = end + 1;
  }
  return seeds;
}

std::vector<std::vector<std::string>> seeded_orders(const std::vector<std::string>& tasks,
                                                    std::int64_t count) {
  double most = 1.0;
  for (std::size_t i = 2; i <= tasks.size(); ++i) most *= static_cast<double>(i);
  if (count < 1 || static_cast<double>(count) > most)
    throw ConfigError("--orders", std::to_string(tasks.size()) + " tasks have 1 to " +
                                      std::to_string(static_cast<std::uint64_t>(std::min(most, 1e18))) +
                                      " orders, not " + std::to_string(count));
  std::vector<std::vector<std::string>> orders = {tasks};
  std::set<std::vector<std::string>> known = {tasks};
  for (std::uint64_t draw = 1; orders.size() < static_cast<std::size_t>(count); ++draw) {
    Rng random(derive(0, {"order of tasks", draw}));
    std::vector<std::string> order = tasks;
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.next() % i]);
    if (known.insert(order).second) orders.push_back(std::move(order));
  }
  return orders;
}

Json describe_grid(const Grid& grid) {
  Json entries = Json::object();
  for (const GridEntry& entry : grid.entries) {
    entries[entry.name] = {{"strategy", entry.strategy}, {"set", entry.sets}};
    if (!entry.federate.empty()) entries[entry.name] = {{"federate", entry.federate}, {"set", entry.sets}};
  }
  return {{"suite", grid.suite},   {"flags", grid.flags}, {"set", grid.sets},
          {"orders", grid.orders}, {"seeds", grid.seeds}, {"runs", entries}};
}

Json merge_descriptions(const Json& before, const Json& now, const std::string& where) {
  if (!before.is_object()) throw DataError(where, "its grid.json is no description of a grid");
  Json merged = before;
  for (const char* key : {"suite", "flags", "set"}) same(before.value(key, Json()), now.at(key), key, where);
  const Json& orders = json_array(before, "orders", where);
  for (std::size_t i = 0; i < std::min(orders.size(), now.at("orders").size()); ++i)
    same(orders[i], now.at("orders")[i], "order " + std::to_string(i + 1), where);
  if (orders.empty() != now.at("orders").empty()) same(orders, now.at("orders"), "list of orders", where);
  if (now.at("orders").size() > orders.size()) merged["orders"] = now.at("orders");
  for (const auto& [name, entry] : now.at("runs").items()) {
    const Json& known = json_object(before, "runs", where);
    if (const auto found = known.find(name); found != known.end())
      same(*found, entry, "'" + name + "'", where);
    merged["runs"][name] = entry;
  }
  for (const Json& seed : now.at("seeds"))
    if (const Json& known = json_array(merged, "seeds", where);
        std::find(known.begin(), known.end(), seed) == known.end())
      merged["seeds"].push_back(seed);
  return merged;
}

}  // namespace mcit
