#include "app/node_trainer.hpp"

#include "core/files.hpp"
#include "core/log.hpp"
#include "core/system.hpp"
#include "core/text.hpp"

namespace mcit {
namespace {

// What the first process says to the others.
const std::string kModel = "model:", kWait = "wait", kEnd = "end";

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(1e3 * seconds));
}

}  // namespace

NodeSettings::NodeSettings(const RunFlags& flags)
    : config(with_flags(Config::read(flags.config), flags)), settings(read_federate_settings(config)) {}

NodeTrainer::NodeTrainer(const RunFlags& flags, const Launch& launch, const Group& group)
    : NodeSettings(flags),
      RunParts(flags, settings, launch, open_suite(settings)),
      clients({*work.model, work.tasks, work.probe, work.stores.tower.get(), group}, options()),
      strategy(catalogue.create(settings.strategy, params, clients.host())) {
  check_batch(settings.loop.client.train.batch, group);
  join_group(*strategy, settings.strategy, group);
  config.child("strategy").adopt(params.resolved());
  clients.attach(*strategy, settings.strategy);
  layout = clients.check(*settings.rule);
}

ClientOptions NodeTrainer::options() {
  settings.loop.client.secure_noise = true;
  return settings.loop.client;
}

void NodeTrainer::prefetch(std::int64_t k) const {
  if (!work.stores.tower || work.model->tower_changed()) return;
  std::vector<const std::vector<ExamplePtr>*> rows;
  for (const auto& task : clients.rows(k)) rows.push_back(&task);
  prefetch_pictures(*work.stores.tower, rows, "pictures");
}

std::string NodeTrainer::train(std::int64_t k, const std::filesystem::path& folder,
                               const std::string& model) {
  const Stopwatch watch;
  const fed::RoundRequest request = request_of(model, settings.federation, layout);
  const std::string round = "round " + std::to_string(request.info.round);
  clients.open(folder, static_cast<std::int64_t>(request.info.round) - 1);
  log::info(round, ": training");
  std::string update;
  {
    Progress progress(round, settings.loop.client.train.steps);
    update = clients.train(k, request, progress);
  }
  log::info(round, ": trained in ", duration_text(watch.seconds()), ", ",
            fixed(static_cast<double>(update.size()) / 1e6, 2), " MB to send");
  return update;
}

NodeCrew::NodeCrew(NodeTrainer& trainer, std::int64_t k, std::filesystem::path folder, const Group& group,
                   double outage)
    : trainer_(trainer),
      k_(k),
      folder_(std::move(folder)),
      group_(group),
      working_(milliseconds(trainer.settings.peer_timeout)),
      waiting_(working_ + milliseconds(outage)) {
  group_.set_timeout(working_);
}

std::string NodeCrew::train(const std::string& model) {
  say(kModel + model);
  return together(model);
}

void NodeCrew::still_here() const { say(kWait); }
void NodeCrew::end() const { say(kEnd); }

void NodeCrew::throw_if_broken() const {
  if (failure_) std::rethrow_exception(failure_);
}

void NodeCrew::follow() {
  for (;;) {
    group_.set_timeout(waiting_);
    const std::string said = group_.from_first({});
    group_.set_timeout(working_);
    if (said == kEnd) return;
    if (said == kWait) continue;
    try {
      together(said.substr(kModel.size()));
    } catch (const std::exception&) {
      if (interrupted()) throw;
      throw_if_broken();  // else the server was told why
    }
  }
}

void NodeCrew::say(const std::string& what) const {
  if (!group_.alone()) group_.from_first(what);
}

std::string NodeCrew::together(const std::string& model) {
  std::string update;
  try {
    group_.together([&] { update = trainer_.train(k_, folder_, model); });
  } catch (...) {
    try {
      group_.meet();
    } catch (...) {
      failure_ = std::current_exception();
    }
    throw;
  }
  return update;
}

}  // namespace mcit
