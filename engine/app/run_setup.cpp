#include "app/run_setup.hpp"

#include <stdlib.h>  // mkdtemp

#include <algorithm>
#include <cstdlib>

#include "core/log.hpp"
#include "core/system.hpp"
#include "mcit/abi.hpp"
#include "mcit/build_tag.hpp"
#include "mcit/errors.hpp"

namespace mcit {

RunSettings RunSettings::read(const Config& config) {
  RunSettings s;
  s.suite = config.name_or_path("suite", "mini4");
  s.model = config.name_or_path("model", "mini");
  s.device = config.text("device", "cpu");
  s.dtype = config.choice("dtype", "auto", {"auto", "float32", "bfloat16", "float16"});
  s.order = config.texts("order", {});
  s.data = config.path("data", "");
  s.out = config.path("out", "");
  s.seed = static_cast<std::uint64_t>(config.integer("seed", 1, 0));
  s.threads = config.integer("threads", 0, 0, 1024);
  const Config strategy = config.child("strategy");
  s.strategy = strategy.text("name", "sequential");
  s.params = strategy.params();
  s.params.erase("name");
  const Config loader = config.child("loader");
  s.loader_threads = loader.integer("threads", 1, 1, 256);
  s.feature_memory_mb = loader.integer("feature_memory_mb", s.feature_memory_mb, 0);
  if (loader.has("pad_square")) s.pad_square = loader.flag("pad_square", false);
  s.prompt_template = loader.text("template", "");
  s.plugin_path = config.child("plugins").paths("path");
  s.peer_timeout = config.child("run").number("peer_timeout", s.peer_timeout, 0.1, 1e6);
  return s;
}

WorkloadOptions RunSettings::workload(const Suite& from, at::Device on) const {
  return {.model = model,
          .device = on,
          .dtype = dtype == "auto" ? std::nullopt : std::optional(dtype_named(dtype)),
          .pad_square = pad_square.value_or(from.pad_square),
          .prompt_template = prompt_template,
          .adapter = adapter,
          .feature_memory = static_cast<std::uint64_t>(feature_memory_mb) << 20,
          .loader_threads = static_cast<int>(loader_threads)};
}

std::string RunSettings::suite_name() const {
  return suite.ends_with(".toml") ? std::filesystem::path(suite).stem().string() : suite;
}

std::string RunSettings::device_of(const Launch& launch) const {
  return device == "cuda" && !launch.alone() ? "cuda:" + std::to_string(launch.local_rank) : device;
}

std::int64_t RunSettings::threads_of(const Launch& launch) const {
  if (threads > 0 || launch.alone() || std::getenv("OMP_NUM_THREADS") != nullptr) return threads;
  return std::max<std::int64_t>(1, hardware().usable_cores / launch.local_size);
}

std::unique_ptr<Group> join_launch(const Launch& launch) {
  constexpr std::chrono::minutes kPatience{10};
  if (launch.rank > 0) log::to_console(log::Level::error);
  std::unique_ptr<Group> group = Group::join(launch, kPatience);
  log::debug("rank ", launch.rank, " of ", launch.size);
  return group;
}

Mirror::Mirror(const std::filesystem::path& of) {
  std::string name = (std::filesystem::temp_directory_path() / "mcit-federate-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw DataError(name, "cannot make the folder");
  root_ = name;
  for (const char* entry : {"ledger", "clients", "result.json", "config.toml"})
    if (!of.empty() && std::filesystem::exists(of / entry))
      std::filesystem::copy(of / entry, root_ / entry, std::filesystem::copy_options::recursive);
}

Mirror::~Mirror() {
  std::error_code ignored;
  std::filesystem::remove_all(root_, ignored);
}

RunParts::RunParts(const RunFlags& flags, const RunSettings& settings, const Launch& launch, Suite from)
    : suite(std::move(from)),
      device(open_device(settings.device_of(launch))),
      threads(set_threads(settings.threads_of(launch))),
      catalogue(find_plugins(flags, settings)),
      provider(catalogue.provider(settings.strategy)),
      work(open_workload(suite, settings.workload(suite, device))),
      params(settings.params, "strategy") {}

Suite open_suite(const RunSettings& settings) {
  return open_suite(settings.suite, settings.order, settings.data);
}

Catalogue find_plugins(const RunFlags& flags, const RunSettings& settings) {
  std::vector<std::filesystem::path> more;
  if (!flags.resume.empty()) more.assign(flags.plugin_dirs.begin(), flags.plugin_dirs.end());
  Catalogue catalogue(plugin_folders(more, settings.plugin_path));
  catalogue.announce();
  return catalogue;
}

RunResult head_of(const RunSettings& settings, const Suite& suite, const Workload& work,
                  const PluginReport& provider, int threads, const std::string& command,
                  const std::string& config, const Group& group) {
  RunResult head;
  head.suite = suite.name;
  head.strategy = settings.strategy;
  head.seed = settings.seed;
  for (std::size_t j = 0; j < work.tasks.size(); ++j) {
    const StreamTask& task = work.tasks[j];
    head.tasks.push_back({task.info.name, task.info.test_examples, suite.tasks[j].chance,
                          std::string(task.eval.scorer->name)});
  }
  Provenance& p = head.provenance;
  p.command = command;
  p.config = config;
  p.seeds = {{"run", std::to_string(settings.seed)}};
  p.build = build_info();
  p.build_tag = MCIT_BUILD_TAG;
  p.plugin_file = provider.file.filename().string();
  p.plugin_hash = provider.hash;
  p.model = settings.model;
  p.model_hash = work.model_hash;
  p.data = work.data;
  p.device = work.model->device().str();
  p.dtype = at::toString(work.model->dtype());
  p.threads = threads;
  p.processes = group.size();
  p.hardware = hardware();
  p.started = utc_now();
  return head;
}

}  // namespace mcit
