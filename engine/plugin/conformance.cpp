#include "plugin/conformance.hpp"

#include <algorithm>
#include <stdexcept>

#include "core/files.hpp"
#include "mcit/errors.hpp"
#include "plugin/elf.hpp"
#include "plugin/probe_run.hpp"

namespace mcit {
namespace {

struct Warned : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct NotApplicable : std::runtime_error {
  using std::runtime_error::runtime_error;
};
[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

/// Runs checks and keeps what came of them.
class Checklist {
 public:
  Checklist(const ConformanceOptions& options, std::string strategy)
      : options_(options), strategy_(std::move(strategy)) {}

  /// @param body returns when the check holds. @return whether it did not fail
  bool check(const std::string& name, const std::function<void()>& body) {
    if (options_.on_begin) options_.on_begin(strategy_, name);
    CheckResult result{strategy_, name, Outcome::passed, {}};
    try {
      if (!broken_.empty()) throw NotApplicable(broken_);
      body();
    } catch (const Warned& e) {
      result = {strategy_, name, Outcome::warning, e.what()};
    } catch (const NotApplicable& e) {
      result = {strategy_, name, Outcome::skipped, e.what()};
    } catch (const UnsupportedBackbone& e) {
      result = {strategy_, name, Outcome::skipped, e.what()};
      broken_ = "not looked at: the strategy does not work on this kind of backbone";
    } catch (const std::exception& e) {
      result = {strategy_, name, Outcome::failed, cause_of(e)};
    }
    std::replace(result.detail.begin(), result.detail.end(), '\n', ' ');
    if (options_.on_result) options_.on_result(result);
    results.push_back(result);
    return result.outcome != Outcome::failed;
  }
  /// A check without which the later ones mean nothing.
  void require(const std::string& name, const std::function<void()>& body) {
    if (!check(name, body)) broken_ = "not looked at: an earlier check failed";
  }

  std::vector<CheckResult> results;

 private:
  const ConformanceOptions& options_;
  std::string strategy_, broken_;
};

/// The first difference of two states, or empty.
std::string difference(const StateDict& a, const StateDict& b) {
  for (const auto& [name, tensor] : a) {
    const auto other = b.find(name);
    if (other == b.end()) return "'" + name + "' is missing";
    if (tensor.sizes() != other->second.sizes() || tensor.scalar_type() != other->second.scalar_type())
      return "'" + name + "' has another shape or type";
    if (!tensor.equal(other->second)) return "'" + name + "' has other values";
  }
  for (const auto& [name, tensor] : b)
    if (!a.contains(name)) return "'" + name + "' is new";
  return {};
}

void same_state(const StateDict& expected, const StateDict& found, const std::string& what) {
  if (const std::string text = difference(expected, found); !text.empty()) fail(what + ": " + text);
}

std::string largest(const Tensor& difference) {
  return std::to_string(difference.abs().max().item<double>());
}

void same_outputs(const Tensor& expected, const Tensor& found, const std::string& what) {
  if (!expected.equal(found)) fail(what + ": outputs differ by up to " + largest(expected - found));
}

/// Sums of another order of the same numbers.
void close_outputs(const Tensor& expected, const Tensor& found, const std::string& what) {
  if (!at::allclose(expected, found, 1e-4, 1e-4))
    fail(what + "; they differ by up to " + largest(expected - found));
}

std::string listed(const std::set<std::string>& names) {
  constexpr std::size_t kShown = 3;
  std::string text;
  std::size_t count = 0;
  for (const std::string& name : names)
    if (count++ < kShown) text += (text.empty() ? "" : ", ") + name;
  return count > kShown ? text + " and " + std::to_string(count - kShown) + " more" : text;
}

/// The suite for one strategy. What several checks need is kept from the one that makes it.
class StrategySuite {
 public:
  StrategySuite(const ProbeSubject& subject, std::uint64_t seed) : subject_(subject), seed_(seed) {}

  void run(Checklist& list) {
    list.require("it is constructed with the given settings", [&] { ProbeRun(subject_, seed_); });
    list.require("attach() and before_task() leave the outputs bit-identical",
                 [&] { attach_changes_nothing(); });
    list.require("parameters() are leaves with unique and stable names", [&] { parameters_are_sound(); });
    list.require("every hook runs, over a stream of two tasks", [&] { reference_run(); });
    list.check("what is frozen keeps its bytes", [&] { frozen_stays(); });
    list.check("a gradient reaches everything that is trained", [&] { gradients_reach(); });
    list.check("the same seed gives the same weights, beside another instance", [&] { repeats(); });
    list.require("a fresh instance with the loaded state has the same state and outputs",
                 [&] { state_is_complete(); });
    list.check("load_state() refuses an incomplete state", [&] { incomplete_state(); });
    list.check("a run goes on between two stages as if it had not been interrupted", [&] { resumes(1, -1); });
    list.check("a run goes on in mid-stage as if it had not been interrupted",
               [&] { resumes(reference_->stages().size() > 1 ? 1 : 0, ProbeRun::kSteps / 2); });
    list.check("a causal strategy does not look at tasks to come", [&] { keeps_its_word(); });
    list.check("a prediction depends on its own example only", [&] { examples_stand_alone(); });
    list.check("adapters read no other rows than reads() says", [&] { reads_what_it_says(); });
    list.check("answers are decoded token by token as they are read at once", [&] { decodes(); });
    list.check("federated: upload, aggregate, download", [&] { federates(); });
  }

 private:
  std::unique_ptr<ProbeRun> begun(std::uint64_t seed) const {
    auto run = std::make_unique<ProbeRun>(subject_, seed);
    run->begin();
    run->attach();
    return run;
  }

  void attach_changes_nothing() const {
    ProbeRun run(subject_, seed_);
    run.begin();
    Tensor before;
    {
      const at::NoGradGuard no_grad;
      before = run.backbone().forward(run.test_batch()).logits;
    }
    run.attach();
    const auto compare = [&](const std::string& hook) {
      const Tensor after = run.predict();
      if (!after.equal(before))
        throw Warned("after " + hook + " they differ by up to " + largest(after - before) +
                     "; say so in the plugin's README");
    };
    compare("attach()");
    if (run.advance() && !run.stages().empty()) compare("the first before_task()");
  }

  void parameters_are_sound() const {
    const auto run = begun(seed_);
    run->advance();
    const Parameters first = run->parameters(), second = run->parameters();
    std::set<std::string> names;
    std::set<Place> tensors;
    for (const Parameter& p : first) {
      if (p.name.empty()) fail("one has no name");
      if (!names.insert(p.name).second) fail("'" + p.name + "' is there twice");
      if (!p.value.defined()) fail("'" + p.name + "' is no tensor");
      if (!p.value.is_leaf())
        fail("'" + p.name + "' is a result of other tensors, so no optimizer can train it");
      if (p.value.numel() > 0 && !tensors.insert(place_of(p.value)).second)
        fail("'" + p.name + "' is the tensor of another name");
      if (p.group != "adapter" && p.group != "connector" && p.group != "prompt" && p.group != "base")
        fail("'" + p.name + "' is of the unknown group '" + p.group +
             "'; known: adapter, connector, prompt, base");
    }
    if (first.size() != second.size()) fail("a second call gives another number of them");
    for (std::size_t i = 0; i < first.size(); ++i)
      if (first[i].name != second[i].name || !first[i].value.is_same(second[i].value))
        fail("a second call gives another '" + first[i].name + "'");
  }

  void reference_run() {
    reference_ = begun(seed_);
    reference_->finish();
    state_ = reference_->state();
    outputs_ = reference_->predict();
    same_state(state_, reference_->state(), "state() twice");
    if (!outputs_.isfinite().all().item<bool>()) fail("after training the outputs are not finite");
  }

  void frozen_stays() const {
    if (!reference_->violations().empty()) fail(listed(reference_->violations()));
  }

  void gradients_reach() const {
    if (!reference_->unreached().empty()) throw Warned("none came to " + listed(reference_->unreached()));
  }

  /// Two instances at work in turn: neither the process's random numbers nor the other may be felt.
  void repeats() const {
    const auto again = begun(seed_), other = begun(seed_ + 1);
    while (again->advance()) other->advance();
    same_state(state_, again->state(), "after a second run");
    same_outputs(outputs_, again->predict(), "after a second run");
  }

  void state_is_complete() const {
    const auto fresh = begun(seed_);
    fresh->load_state(state_);
    same_state(state_, fresh->state(), "state() after load_state()");
    same_outputs(outputs_, fresh->predict(), "after load_state()");
  }

  void incomplete_state() const {
    if (state_.empty()) throw NotApplicable("the strategy keeps nothing");
    StateDict part = state_;
    const std::string name = part.begin()->first;
    part.erase(part.begin());
    const auto fresh = begun(seed_);
    try {
      fresh->load_state(part);
    } catch (const StrategyError&) {
      return;
    }
    throw Warned("it took a state without '" + name + "' and said nothing");
  }

  void resumes(std::size_t stage, std::int64_t step) const {
    if (reference_->stages().size() <= stage)
      throw NotApplicable("the strategy plans " + std::to_string(reference_->stages().size()) + " stages");
    const auto first = begun(seed_);
    first->advance_to(stage, step);
    const ProbeSnapshot snapshot = first->snapshot();
    StateDict given;
    for (const auto& [name, tensor] : snapshot.strategy) given[name] = tensor.clone();
    const auto second = begun(seed_);
    second->resume(snapshot);
    second->finish();
    same_state(given, snapshot.strategy,
               "load_state() kept a tensor instead of its values, and training changed it");
    same_state(state_, second->state(), "at the end of the stream");
    same_outputs(outputs_, second->predict(), "at the end of the stream");
  }

  void keeps_its_word() const {
    const auto run = begun(seed_);
    if (!run->is_causal()) throw NotApplicable("the strategy does not say that it is mcit::Causal");
    if (reference_->stages().size() < 2) throw NotApplicable("the strategy plans 1 stage");
    ProbeRun other(subject_, seed_);
    other.begin(true);
    other.attach();
    run->advance_to(1, -1);
    other.advance_to(1, -1);
    const std::string when = "after the first stage, with another task to come";
    same_state(run->state(), other.state(), when);
    same_outputs(run->predict(), other.predict(), when);
  }

  void examples_stand_alone() const {
    const Batch batch = reference_->test_batch();
    std::vector<Tensor> alone;
    for (const ExamplePtr& example : batch.examples) alone.push_back(reference_->predict(Batch{{example}}));
    close_outputs(at::cat(alone), outputs_, "the same example is answered differently in company");
  }

  void reads_what_it_says() const {
    if (!reference_->backbone().adapters_read({Reads::own_row, Reads::first_row, Reads::last_prompt_row}))
      throw NotApplicable("an adapter says that it reads whole sequences");
    reference_->backbone().set_narrow_top(false);
    const Tensor all_rows = reference_->predict();
    reference_->backbone().set_narrow_top(true);
    close_outputs(all_rows, outputs_, "with the top block on fewer rows the outputs are others");
  }

  void decodes() const {
    const Batch batch = reference_->test_batch();
    const Tensor decoded = reference_->decode(batch);
    if (!decoded.isfinite().all().item<bool>()) fail("the logits are not finite");
    if (reference_->backbone().adapters_read(
            {Reads::own_row, Reads::first_row, Reads::last_prompt_row, Reads::prompt_mean}))
      close_outputs(outputs_, decoded, "the logits are others");
    std::vector<Tensor> alone;
    for (const ExamplePtr& example : batch.examples) alone.push_back(reference_->decode(Batch{{example}}));
    close_outputs(at::cat(alone), decoded, "the same example is answered differently in company");
  }

  void federates() const {
    Federated* facet = reference_->federated();
    if (facet == nullptr) throw NotApplicable("the strategy has no federated facet");
    StateDict payload, update;
    reference_->guard("upload", false, [&] { payload = facet->upload(); });
    if (payload.empty()) throw Warned("upload() sends nothing");
    const std::vector<Upload> round{{"client-a", 3, payload}, {"client-b", 5, payload}};
    reference_->guard("aggregate", false, [&] { update = facet->aggregate(round, "client-a"); });
    const auto client = begun(seed_);
    client->guard("download", false, [&] { client->federated()->download(update); });
    if (!client->predict().isfinite().all().item<bool>()) fail("after download() the outputs are not finite");
  }

  ProbeSubject subject_;
  std::uint64_t seed_;
  std::unique_ptr<ProbeRun> reference_;
  StateDict state_;  ///< at the end of the reference run
  Tensor outputs_;
};

void check_file(Checklist& list, const PluginReport& report) {
  list.require("the engine takes the file", [&] {
    if (report.status != PluginStatus::loaded) fail(report.reason);
  });
  list.check("it exports nothing but mcit_plugin", [&] {
    const std::string bytes = read_file(report.file);
    std::set<std::string> others;
    for (const std::string& name : ElfFile(bytes).exports())
      if (name != "mcit_plugin") others.insert(name);
    if (!others.empty())
      fail("also exported: " + listed(others) + "; link it with mcit_add_plugin, or with its export map");
  });
  list.check("it stays in memory once it is loaded", [&] {
    const std::string bytes = read_file(report.file);
    if (!ElfFile(bytes).never_unloaded()) fail("link it with mcit_add_plugin, or with -Wl,-z,nodelete");
  });
}

}  // namespace

std::string_view outcome_name(Outcome outcome) {
  switch (outcome) {
    case Outcome::passed:
      return "pass";
    case Outcome::warning:
      return "warning";
    case Outcome::failed:
      return "FAIL";
    case Outcome::skipped:
      return "skip";
  }
  return "";
}

std::vector<CheckResult> check_plugin(const std::filesystem::path& file, const ConformanceOptions& options) {
  const Catalogue catalogue = Catalogue::of_file(file);
  Checklist list(options, "");
  check_file(list, catalogue.reports().front());
  std::vector<CheckResult> results = std::move(list.results);
  std::vector<std::string> strategies = catalogue.strategies();
  if (!options.strategy.empty() && catalogue.reports().front().status == PluginStatus::loaded) {
    catalogue.provider(options.strategy);
    strategies = {options.strategy};
  }
  for (const std::string& strategy : strategies) {
    Checklist checks(options, strategy);
    StrategySuite(ProbeSubject{catalogue, strategy, options.params}, options.seed).run(checks);
    results.insert(results.end(), checks.results.begin(), checks.results.end());
  }
  return results;
}

bool conforms(const std::vector<CheckResult>& results) {
  return std::none_of(results.begin(), results.end(),
                      [](const CheckResult& r) { return r.outcome == Outcome::failed; });
}

}  // namespace mcit
