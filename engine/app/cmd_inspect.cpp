#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "core/console.hpp"
#include "core/json.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"
#include "plugin/catalogue.hpp"
#include "report/table.hpp"
#include "train/hooks.hpp"

namespace mcit {
namespace {

struct Flags {
  std::string model, strategy;
  std::vector<std::string> sets, plugin_dirs;
  bool json = false;
};

/// Linear layers of one kind, such as every block's q_proj.
struct SiteKind {
  std::int64_t count = 0, out = 0, in = 0, parameters = 0;
};

struct Trained {
  std::int64_t tensors = 0, parameters = 0;
};

struct Inspection {
  std::string family, file_types;
  MllmConfig config;
  std::map<std::string, std::int64_t> parts;  ///< "vision", "connector", "decoder" -> parameters
  std::int64_t unread = 0;                    ///< parameters that the folder has and the model never reads
  std::map<std::string, SiteKind> sites;
  std::vector<Weights::Problem> problems;
  std::map<std::string, Trained> trained;  ///< by learning-rate group

  std::int64_t parameters() const {
    std::int64_t sum = 0;
    for (const auto& [part, count] : parts) sum += count;
    return sum;
  }
};

/// "vision: layers.*.self_attn.q_proj": the name without its block's number.
std::string kind_of(const std::string& name) {
  std::string out;
  for (std::size_t at = 0; at < name.size();) {
    const std::size_t end = std::min(name.find('.', at), name.size());
    const std::string part = name.substr(at, end - at);
    out += (out.empty() ? "" : ".") +
           (part.find_first_not_of("0123456789") == std::string::npos ? std::string("*") : part);
    at = end + 1;
  }
  return out;
}

std::map<std::string, Trained> what_trains(Mllm& model, const Flags& flags) {
  const Catalogue catalogue(plugin_folders({flags.plugin_dirs.begin(), flags.plugin_dirs.end()}));
  Config config = Config::parse("", "--set");
  for (const std::string& assignment : flags.sets) config.set(assignment);
  QuietHost host;
  const StrategyPtr strategy =
      catalogue.create(flags.strategy, Params(config.child("strategy").params(), "strategy"), host);
  HookRunner hooks(*strategy, flags.strategy);
  hooks.on_stream_begin({.tasks = {{"task", 0, 0, {}}}, .seed = 1, .backbone = model.info()});
  hooks.attach(model);
  std::map<std::string, Trained> out;
  for (const Parameter& p : hooks.parameters()) {
    if (!p.value.requires_grad()) continue;
    Trained& group = out[p.group];
    ++group.tensors;
    group.parameters += p.value.numel();
  }
  return out;
}

Inspection inspect_folder(const std::filesystem::path& folder, const Flags& flags) {
  Inspection out;
  out.config = read_mllm_config(folder);
  const FamilyNames& names = family_names(out.config);
  out.family = names.name;
  StateDict tensors = read_mllm_tensors(folder, out.config);
  std::map<std::string, std::int64_t> types;
  for (const auto& [name, tensor] : tensors) ++types[std::string(at::toString(tensor.scalar_type()))];
  for (const auto& [type, count] : types)
    out.file_types += (out.file_types.empty() ? "" : ", ") + std::to_string(count) + " " + type;
  Weights weights = Weights::for_inspection(std::move(tensors));
  Mllm model(out.config, weights);
  out.problems = weights.problems();
  const auto vision = name_filter("vision", names.groups), decoder = name_filter("decoder", names.groups);
  for (const auto& [name, tensor] : model.tensors()) {
    if (!tensor.is_meta()) {
      out.unread += tensor.numel();
      continue;
    }
    out.parts[vision(name) ? "vision" : decoder(name) ? "decoder" : "connector"] += tensor.numel();
  }
  for (const Site* site : model.sites("all")) {
    SiteKind& kind = out.sites[kind_of(site->name())];
    ++kind.count;
    kind.out = site->out();
    kind.in = site->in();
    kind.parameters += site->weight().numel();
  }
  if (!flags.strategy.empty()) out.trained = what_trains(model, flags);
  return out;
}

std::string thousands(std::int64_t value) {
  std::string digits = std::to_string(value);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), ",");
  return digits;
}

std::string gigabytes(std::int64_t bytes) {
  char text[32];
  const double size = static_cast<double>(bytes);
  std::snprintf(text, sizeof text, size < 1e8 ? "%.1f MB" : "%.2f GB", size < 1e8 ? size / 1e6 : size / 1e9);
  return text;
}

Json as_json(const Inspection& found) {
  Json parts = Json::object(), sites = Json::array(), problems = Json::array(), trained = Json::object();
  for (const auto& [part, count] : found.parts) parts[part] = count;
  for (const auto& [name, kind] : found.sites)
    sites.push_back({{"name", name}, {"count", kind.count}, {"out", kind.out}, {"in", kind.in}});
  for (const Weights::Problem& problem : found.problems)
    problems.push_back({{"tensor", problem.tensor}, {"what", problem.what}});
  for (const auto& [group, count] : found.trained)
    trained[group] = {{"tensors", count.tensors}, {"parameters", count.parameters}};
  return {{"family", found.family},
          {"parameters", found.parameters()},
          {"parts", parts},
          {"unread", found.unread},
          {"file_types", found.file_types},
          {"sites", sites},
          {"problems", problems},
          {"trained", trained},
          {"image_tokens", found.config.image_tokens()}};
}

void print(const Inspection& found, const Flags& flags) {
  const MllmConfig& c = found.config;
  std::cout << "family     " << found.family << "\n";
  if (c.sees())
    std::cout << "vision     " << c.vision.model_type << ", " << c.vision.num_hidden_layers << " layers of "
              << c.vision.hidden_size << ", " << c.vision.image_size << " pixels in patches of "
              << c.vision.patch_size << ", " << c.image_tokens() << " rows a tile\n";
  std::cout << "decoder    " << c.text.model_type << ", " << c.text.num_hidden_layers << " blocks of "
            << c.text.hidden_size << ", " << c.text.num_attention_heads << " heads over "
            << c.text.num_key_value_heads << " keys, vocabulary " << c.text.vocab_size << ", context "
            << c.text.max_position_embeddings << (c.text.tie_word_embeddings ? ", tied head" : "") << "\n"
            << "template   " << usual_template(c) << "\n"
            << "in files   " << found.file_types << "\n\n";
  const bool colours = console::colours(console::Stream::out);
  constexpr int kUnbroken = 1000;
  Table parts({{"part", false}, {"parameters"}, {"float32"}, {"bfloat16, float16"}});
  for (const auto& [part, count] : found.parts)
    parts.row({{part}, {thousands(count)}, {gigabytes(4 * count)}, {gigabytes(2 * count)}});
  const std::int64_t all = found.parameters();
  parts.row({{"all"}, {thousands(all)}, {gigabytes(4 * all)}, {gigabytes(2 * all)}});
  std::cout << parts.terminal(kUnbroken, colours);
  if (found.unread > 0)
    std::cout << "(and " << thousands(found.unread) << " of the tower that the model never reads)\n";
  std::cout << "\n";
  Table sites({{"linear layers, where adapters can go", false}, {"count"}, {"out"}, {"in"}});
  for (const auto& [name, kind] : found.sites)
    sites.row({{name}, {std::to_string(kind.count)}, {std::to_string(kind.out)}, {std::to_string(kind.in)}});
  std::cout << sites.terminal(kUnbroken, colours);
  if (!flags.strategy.empty()) {
    std::int64_t sum = 0;
    std::cout << "\n" << flags.strategy << " trains\n";
    for (const auto& [group, count] : found.trained) {
      sum += count.parameters;
      std::cout << "  " << group << ": " << thousands(count.parameters) << " in " << count.tensors
                << " tensors\n";
    }
    char percent[32];
    std::snprintf(percent, sizeof percent, "%.3f %%",
                  100.0 * static_cast<double>(sum) / static_cast<double>(all));
    std::cout << "  together " << thousands(sum) << ", " << percent
              << " of the model; gradients and AdamW's moments take " << gigabytes(12 * sum) << "\n";
  }
  if (!found.problems.empty()) std::cout << "\n";
  for (const Weights::Problem& problem : found.problems)
    std::cout << problem.tensor << ": " << problem.what << "\n";
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "inspect", "What a model folder holds: family, parameters, memory, sites, missing tensors");
  command->add_option("MODEL", flags->model, "Model folder in Hugging Face form, or mini")
      ->required()
      ->type_name("DIR|NAME");
  command->add_option("--strategy", flags->strategy, "Also what this strategy would train")
      ->type_name("NAME");
  command->add_option("--set", flags->sets, "A setting of the strategy, e.g. strategy.rank=64 (repeatable)")
      ->take_all()
      ->type_name("KEY=VALUE");
  command->add_option("--plugin-dir", flags->plugin_dirs, "Folder of plugins to search first (repeatable)")
      ->type_name("DIR");
  command->add_flag("--json", flags->json, "The same as JSON");
  command->footer(
      "Weights are not read, only their names and shapes: any size of model in a moment.\n"
      "Example:\n  mcit inspect mini --strategy moe_lora\n"
      "Exit code 2 when a tensor is missing, has another shape or belongs to no such model.");
  command->callback([flags] {
    const Inspection found = inspect_folder(find_model(flags->model), *flags);
    if (flags->json)
      std::cout << dump_json(as_json(found), 2) << "\n";
    else
      print(found, *flags);
    if (!found.problems.empty())
      throw CheckpointError(flags->model,
                            std::to_string(found.problems.size()) + " tensors are not as config.json says",
                            "they are listed above");
  });
}

}  // namespace mcit
