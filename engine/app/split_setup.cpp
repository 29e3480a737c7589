#include "app/split_setup.hpp"

#include <algorithm>
#include <set>
#include <unordered_map>

#include "app/experiment.hpp"
#include "core/hash.hpp"
#include "core/random.hpp"
#include "data/preprocessor.hpp"
#include "data/suite_files.hpp"
#include "data/tokenizer.hpp"
#include "mcit/build_tag.hpp"
#include "mcit/errors.hpp"
#include "model/family.hpp"
#include "model/safetensors.hpp"

namespace mcit {
namespace {

using split::Row;
using split::TaskRows;

void read_shape(const Config& table, split::Shape& shape) {
  shape.fusion = table.choice("fusion", "early", {"early", "late"}) == "late" ? split::Fusion::late
                                                                              : split::Fusion::early;
  shape.modalities.clear();
  for (const std::string& name : table.texts("modalities", {"image", "text"}))
    shape.modalities.push_back(split::modality_of(name));
  if (shape.modalities.empty()) throw ConfigError(table.where("modalities"), "names none");
  shape.text_tokens = table.integer("text_tokens", shape.text_tokens, 1, 4096);
  shape.audio_frames = table.integer("audio_frames", shape.audio_frames, 1, 65536);
  shape.audio_values = table.integer("audio_values", shape.audio_values, 1, 4096);
  shape.frames_per_token = table.integer("frames_per_token", shape.frames_per_token, 1, shape.audio_frames);
  if (shape.audio_frames % shape.frames_per_token != 0)
    throw ConfigError(table.where("frames_per_token"), "does not divide audio_frames");
}

void read_training(const Config& table, SplitSettings& s) {
  split::Training& t = s.training;
  t.trained.heads = table.flag("heads", false);
  t.trained.blocks = table.integer("blocks", 2, 0, 1024);
  t.steps = table.integer("steps", t.steps, 1);
  t.batch = table.integer("batch", 8, 1, 1 << 16);
  t.rate = table.number("lr", t.rate, 0.0);
  t.head_rate = table.number("heads_lr", t.head_rate, 0.0);
  t.schedule = table.choice("schedule", t.schedule, {"cosine", "linear", "constant"});
  t.warmup = table.number("warmup", t.warmup, 0.0, 1.0);
  t.adamw.weight_decay = table.number("weight_decay", 0.0, 0.0);
  s.loop.local_steps = table.integer("local_steps", s.loop.local_steps, 1);
}

/// frames [rows, T, F] of a record file, from "<its name>.audio.safetensors" beside it.
Tensor recordings(const std::filesystem::path& records, std::size_t rows, const split::Shape& shape) {
  std::filesystem::path file = records;
  file.replace_extension(".audio.safetensors");
  if (!std::filesystem::exists(file)) return {};
  const StateDict tensors = read_safetensors(file).tensors;
  const auto found = tensors.find("frames");
  if (found == tensors.end() || found->second.dim() != 3 ||
      found->second.size(0) != static_cast<std::int64_t>(rows) || found->second.size(2) != shape.audio_values)
    throw DataError(
        file.string(),
        "holds no 'frames' [" + std::to_string(rows) + ", T, " + std::to_string(shape.audio_values) + "]",
        "one recording for each row of " + records.filename().string());
  const Tensor all = found->second.to(at::kFloat);
  Tensor out = at::zeros({all.size(0), shape.audio_frames, shape.audio_values});
  const std::int64_t kept = std::min(all.size(1), shape.audio_frames);
  out.narrow(1, 0, kept).copy_(all.narrow(1, 0, kept));
  return out;
}

/// Reads a suite's records as rows of a split model.
class RowReader {
 public:
  RowReader(const SplitSettings& settings, const split::Base& base, const std::vector<std::string>& classes)
      : shape_(base.shape) {
    for (std::size_t i = 0; i < classes.size(); ++i) labels_[classes[i]] = static_cast<std::int64_t>(i);
    const std::filesystem::path folder = find_model(settings.model);
    tokenizer_.emplace(Tokenizer::from_file(folder / "tokenizer.json"));
    pad_ = std::max<std::int64_t>(0, read_mllm_config(folder).text.pad_token_id);
  }

  std::vector<Row> read(const Suite& suite, const SuiteTask& task, RecordKind kind) {
    const std::vector<Record> records = read_task(suite, task, kind);
    const std::filesystem::path file = suite.data / (kind == RecordKind::train ? task.train : task.test),
                                pictures = picture_root(suite, task, kind);
    const Tensor frames = wants(split::Modality::audio) ? recordings(file, records.size(), shape_) : Tensor();
    std::vector<Row> out;
    for (std::size_t i = 0; i < records.size(); ++i) {
      const Record& record = records[i];
      Row row;
      if (wants(split::Modality::image) && !record.image.empty())
        row.picture = picture(pictures / record.image);
      if (wants(split::Modality::text)) row.text = text(record.turns.front().first + task.suffix);
      if (frames.defined()) {
        const Tensor one = frames[static_cast<std::int64_t>(i)].contiguous();
        row.frames.assign(one.const_data_ptr<float>(), one.const_data_ptr<float>() + one.numel());
      }
      const std::vector<std::string> answers =
          kind == RecordKind::train ? std::vector{record.turns.front().second} : record.golds;
      for (const std::string& answer : answers)
        if (const auto found = labels_.find(answer); row.label < 0 && found != labels_.end())
          row.label = found->second;
      if (row.label < 0 && kind == RecordKind::train)
        throw DataError(file.string() + ": row " + std::to_string(record.row),
                        "its answer '" + answers.front() + "' is not among the task's answers");
      out.push_back(std::move(row));
    }
    return out;
  }

 private:
  bool wants(split::Modality modality) const {
    return std::find(shape_.modalities.begin(), shape_.modalities.end(), modality) != shape_.modalities.end();
  }
  std::shared_ptr<const Image> picture(const std::filesystem::path& file) {
    std::shared_ptr<const Image>& known = pictures_[file.string()];
    if (!known) known = std::make_shared<const Image>(read_image(file));
    return known;
  }
  std::vector<std::int64_t> text(const std::string& question) const {
    std::vector<std::int64_t> ids = tokenizer_->encode(question, false);
    ids.resize(static_cast<std::size_t>(shape_.text_tokens), pad_);
    return ids;
  }

  split::Shape shape_;
  std::map<std::string, std::int64_t> labels_;
  std::optional<Tokenizer> tokenizer_;
  std::int64_t pad_ = 0;
  std::unordered_map<std::string, std::shared_ptr<const Image>> pictures_;
};

fed::Partition dealt(const std::vector<Row>& rows, fed::PartitionOptions options, std::uint64_t seed) {
  std::vector<std::int64_t> labels;
  for (const Row& row : rows) labels.push_back(row.label + 1);
  options.seed = seed;
  return fed::make_partition(labels, options);
}

std::vector<Row> some(const std::vector<Row>& rows, const std::vector<std::int64_t>& which) {
  std::vector<Row> out;
  for (const std::int64_t row : which) out.push_back(rows[static_cast<std::size_t>(row)]);
  return out;
}

}  // namespace

SplitSettings SplitSettings::read(const Config& config) {
  SplitSettings s;
  s.suite = config.name_or_path("suite", s.suite);
  s.model = config.name_or_path("model", s.model);
  s.order = config.texts("order", {});
  s.data = config.path("data", "");
  s.out = config.path("out", "");
  s.seed = static_cast<std::uint64_t>(config.integer("seed", 1, 0));
  s.threads = config.integer("threads", 0, 0, 1024);
  s.training.seed = s.seed;
  s.loop.method = config.choice("method", "mpsl", {"mpsl", "fedavg"}) == "mpsl" ? split::Method::mpsl
                                                                                : split::Method::fedavg;
  read_shape(config.child("split"), s.shape);
  read_training(config.child("train"), s);
  s.partition = fed::PartitionOptions::read(config.child("partition"));
  const Config eval = config.child("eval");
  s.loop.eval_batch = eval.integer("batch", s.loop.eval_batch, 1, 1 << 16);
  s.loop.evaluate_base = eval.flag("base", true);
  s.loop.snapshot_every = config.child("run").integer("snapshot_every", s.loop.snapshot_every, 1);
  if (config.child("wire").choice("dtype", "float32", {"float32", "float16"}) == "float16")
    s.training.wire = at::kHalf;
  const Config network = config.child("network");
  s.loop.deadline = network.number("deadline", s.loop.deadline, 0.01);
  s.loop.quorum = network.integer("quorum", s.loop.quorum, 1);
  s.loop.attempts = network.integer("attempts", s.loop.attempts, 1);
  s.loop.most_bytes = static_cast<std::size_t>(network.integer("largest_message_mb", 64, 1, 2047)) << 20;
  if (s.loop.quorum > s.partition.clients)
    throw ConfigError(network.where("quorum"),
                      "is more than partition.clients, " + std::to_string(s.partition.clients));
  config.finish();
  return s;
}

std::string SplitSettings::suite_name() const {
  return suite.ends_with(".toml") ? std::filesystem::path(suite).stem().string() : suite;
}

std::vector<std::string> SplitSettings::clients() const {
  std::vector<std::string> ids;
  for (std::int64_t k = 1; k <= partition.clients; ++k)
    ids.push_back("client-" + std::string(k < 10 ? 1 : 0, '0') + std::to_string(k));
  return ids;
}

Suite split_suite(const SplitSettings& settings, bool with_data) {
  Suite suite = with_data
                    ? open_suite(settings.suite, settings.order, settings.data)
                    : read_suite(find_suite(settings.suite, {share_dir()}), settings.order, {share_dir()});
  for (const SuiteTask& task : suite.tasks)
    if (task.answers.empty() || suite.kind != "instruct")
      throw ConfigError(
          "suite '" + suite.name + "': " + task.name, "has no list of answers",
          "the tail tells answers apart: give the task answers = [...], or leave it out with order");
  return suite;
}

std::vector<std::string> split_classes(const Suite& suite) {
  std::set<std::string> out;
  for (const SuiteTask& task : suite.tasks) out.insert(task.answers.begin(), task.answers.end());
  return {out.begin(), out.end()};
}

split::Base split_base(const SplitSettings& settings, const std::vector<std::string>& classes) {
  const std::filesystem::path folder = find_model(settings.model);
  const MllmConfig config = read_mllm_config(folder);
  if (config.family != Family::llava || !config.tower.empty())
    throw ConfigError("model", "'" + settings.model + "' is no LLaVA with its tower in one folder",
                      "a split model takes a vision tower and the words of a decoder");
  const FamilyNames& names = family_names(config);
  StateDict tower;
  Tensor words;
  for (const auto& [file_name, tensor] : read_checkpoint_tensors(folder)) {
    const std::string name = canonical_name(config, file_name);
    if (name.starts_with(names.vision))
      tower[name.substr(std::string_view(names.vision).size())] = tensor.to(at::kFloat);
    if (name == std::string(names.decoder) + "embed_tokens.weight") words = tensor.to(at::kFloat);
  }
  if (!words.defined()) throw CheckpointError(folder.string(), "has no word embedding");
  split::Shape shape = settings.shape;
  shape.classes = static_cast<std::int64_t>(classes.size());
  return split::make_base(shape, config.vision, tower, words, derive(settings.seed, {"split model"}));
}

std::string split_agreement(const SplitSettings& settings, const std::vector<std::string>& classes) {
  const split::Training& t = settings.training;
  Hasher hasher;
  hasher.field(model_folder_hash(find_model(settings.model), false)).update(settings.seed);
  for (const std::string& name : classes) hasher.field(name);
  hasher.update(static_cast<int>(settings.loop.method)).update(static_cast<int>(settings.shape.fusion));
  for (const split::Modality modality : settings.shape.modalities) hasher.field(split::name_of(modality));
  for (const std::int64_t number :
       {settings.shape.text_tokens, settings.shape.audio_frames, settings.shape.audio_values,
        settings.shape.frames_per_token, t.trained.blocks, t.steps, t.batch, settings.loop.local_steps,
        static_cast<std::int64_t>(t.trained.heads), static_cast<std::int64_t>(t.wire.has_value())})
    hasher.update(number);
  hasher.field(t.schedule);
  for (const double number : {t.rate, t.head_rate, t.warmup, t.adamw.weight_decay}) hasher.update(number);
  return hasher.hex();
}

SplitRows split_rows(const SplitSettings& settings, const Suite& suite, const split::Base& base,
                     const std::vector<std::string>& classes, bool whole) {
  RowReader reader(settings, base, classes);
  fed::PartitionOptions train = settings.partition;
  if (whole) train.clients = 1;
  fed::PartitionOptions test = train;
  test.kind = whole ? train.kind : "iid";
  SplitRows out;
  out.clients.assign(static_cast<std::size_t>(train.clients), std::vector<TaskRows>(suite.tasks.size()));
  std::vector<std::string> names;
  for (std::size_t t = 0; t < suite.tasks.size(); ++t) {
    const SuiteTask& task = suite.tasks[t];
    names.push_back(task.name);
    const std::vector<Row> training = reader.read(suite, task, RecordKind::train),
                           testing = reader.read(suite, task, RecordKind::test);
    for (const auto& name : {task.train, task.test})
      for (const auto& file : files_of(suite, name)) out.hashes[name.string()] = hash_file(file);
    if (whole) {
      out.clients[0][t] = {training, testing};
      continue;
    }
    const fed::Partition parts = dealt(training, train, derive(settings.seed, {"partition", t})),
                         tests = dealt(testing, test, derive(settings.seed, {"test partition", t}));
    for (std::size_t k = 0; k < out.clients.size(); ++k)
      out.clients[k][t] = {some(training, parts[k]), some(testing, tests[k])};
  }
  std::vector<std::vector<std::int64_t>> counts;
  for (const auto& client : out.clients) {
    auto& line = counts.emplace_back();
    for (const TaskRows& rows : client) line.push_back(static_cast<std::int64_t>(rows.train.size()));
  }
  std::vector<std::string> ids = settings.clients();
  ids.resize(out.clients.size());
  out.histogram = fed::histogram_text(counts, ids, names);
  return out;
}

std::function<Tensor(const Image&)> split_pixels(const SplitSettings& settings) {
  return [preprocessor = Preprocessor::from_folder(find_model(settings.model))](const Image& image) {
    return preprocessor.pixels(image);
  };
}

RunResult split_head(const SplitSettings& settings, const Suite& suite, const SplitRows& rows, int threads,
                     const std::string& command, const std::string& config) {
  RunResult head;
  head.suite = suite.name;
  head.strategy = settings.loop.method == split::Method::mpsl ? "mpsl" : "fedavg";
  head.seed = settings.seed;
  for (std::size_t t = 0; t < suite.tasks.size(); ++t) {
    TaskResult& task = head.tasks.emplace_back();
    task.name = suite.tasks[t].name;
    task.chance = suite.tasks[t].chance;
    task.scorer = "exact";
    for (const auto& client : rows.clients)
      task.test_examples += static_cast<std::int64_t>(client[t].test.size());
  }
  Provenance& p = head.provenance;
  p.command = command;
  p.config = config;
  p.seeds = {{"run", std::to_string(settings.seed)}};
  p.build = build_info();
  p.build_tag = MCIT_BUILD_TAG;
  const std::filesystem::path folder = find_model(settings.model);
  p.model = settings.model;
  p.model_hash = model_folder_hash(folder, false);
  p.data = rows.hashes;
  p.device = "cpu";
  p.dtype = "float32";
  p.threads = threads;
  p.hardware = hardware();
  p.started = utc_now();
  return head;
}

}  // namespace mcit
