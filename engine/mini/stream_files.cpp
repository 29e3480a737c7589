#include <nlohmann/json.hpp>
#include <type_traits>

#include "core/config.hpp"
#include "core/hash.hpp"
#include "core/json.hpp"
#include "mcit/errors.hpp"
#include "mini/folders.hpp"
#include "mini/stream.hpp"

namespace mcit::mini {
namespace {

namespace fs = std::filesystem;

/// Raised when the same options give other bytes than before: old caches are then not taken for new ones.
constexpr int kFormat = 1;

std::vector<std::string> tasks_of(const MiniOptions& options) {
  if (!options.tasks.empty()) return options.tasks;
  std::vector<std::string> names;
  for (const TaskKind& kind : task_kinds()) names.emplace_back(kind.name);
  return names;
}

/// Every knob of Difficulty once, for reading and for writing.
template <class Level, class Visit>
void visit_knobs(Level& level, const Visit& visit) {
  visit("train_jitter", level.train_jitter);
  visit("test_jitter", level.test_jitter);
  visit("test_noto", level.test_noto);
  visit("count_most", level.count_most);
  visit("digits", level.digits);
  visit("ocr_shortest", level.ocr_shortest);
  visit("ocr_longest", level.ocr_longest);
  visit("ocr_test_faces", level.ocr_test_faces);
  visit("ground_objects", level.ground_objects);
  visit("sci_options", level.sci_options);
}

Json settings_json(const Pack& pack, const MiniOptions& options) {
  Json settings{{"format", kFormat},           {"pack", pack.digest()}, {"seed", options.seed},
                {"train", options.train},      {"test", options.test},  {"wordings", options.wordings},
                {"difficulty", Json::object()}};
  visit_knobs(options.difficulty,
              [&](const char* key, const auto& value) { settings["difficulty"][key] = value; });
  return settings;
}

void write_split(const fs::path& folder, const std::string& task, const std::string& name,
                 const Split& split) {
  fs::create_directories(folder / name);
  for (std::size_t i = 0; i < split.pictures.size(); ++i) {
    write_bytes(folder / name / (number(static_cast<int>(i)) + ".png"), encode_png(split.pictures[i]));
  }
  Json rows = Json::array();
  for (std::size_t i = 0; i < split.items.size(); ++i) {
    const Item& item = split.items[i];
    const std::string id = task + "-" + name + "-" + number(static_cast<int>(i));
    const std::string image = task + "/" + name + "/" + number(item.picture) + ".png";
    if (name == "train") {
      rows.push_back(
          {{"id", id},
           {"image", image},
           {"conversations", Json::array({{{"from", "human"}, {"value", "<image>\n" + item.question}},
                                          {{"from", "gpt"}, {"value", item.answer}}})}});
    } else {
      rows.push_back({{"question_id", id},
                      {"image", image},
                      {"text", item.question},
                      {"answer", item.answer},
                      {"type", item.type}});
    }
  }
  write_bytes(folder / (name + ".json"), dump_json(rows, 1) + "\n");
}

/// Writes one task into `folder`.
void write_task(const Pack& pack, const MiniOptions& options, const std::string& task,
                const fs::path& folder) {
  const TaskData data = make_task(pack, options, task);
  write_split(folder, data.name, "train", data.train);
  write_split(folder, data.name, "test", data.test);
  Json meta = settings_json(pack, options);
  meta["task"] = task;
  meta["train"] = data.train.items.size();
  meta["test"] = data.test.items.size();
  meta["scorer"] = std::string(task_kind(task).scorer);
  meta["chance"] = data.chance;
  meta["answers"] = data.answers;
  write_json(folder / "meta.json", meta);
}

}  // namespace

MiniOptions read_options(const Config& table) {
  MiniOptions options;
  const auto whole = [&](const char* key, int fallback) {
    return static_cast<int>(table.integer(key, fallback, 0, 1000000));
  };
  options.seed = static_cast<std::uint64_t>(table.integer("seed", 1, 0));
  options.train = whole("train", options.train);
  options.test = whole("test", options.test);
  options.wordings = whole("wordings", options.wordings);
  options.tasks = table.texts("tasks", {});
  visit_knobs(options.difficulty, [&](const char* key, auto& value) {
    using Value = std::remove_reference_t<decltype(value)>;
    if constexpr (std::is_same_v<Value, bool>) {
      value = table.flag(key, value);
    } else if constexpr (std::is_same_v<Value, int>) {
      value = whole(key, value);
    } else {
      value = table.number(key, value);
    }
  });
  check_options(options);
  return options;
}

void write_stream(const Pack& pack, const MiniOptions& options, const fs::path& folder,
                  const MiniProgress& progress) {
  const fs::path target = folder.filename().empty() ? folder.parent_path() : folder;
  if (fs::exists(target))
    throw DataError(target.string(), "is already there", "name a new folder or remove it first");
  const auto names = tasks_of(options);
  for (const std::string& name : names) task_kind(name);  // a slip is found before anything is written
  write_folder(target, [&](const fs::path& temporary) {
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (progress) progress(names[i], i, names.size());
      write_task(pack, options, names[i], temporary / names[i]);
    }
  });
}

fs::path materialise(const Pack& pack, const MiniOptions& options, const fs::path& cache_root,
                     const MiniProgress& progress) {
  check_options(options);
  const auto names = tasks_of(options);
  for (const std::string& name : names) task_kind(name);
  const fs::path folder =
      cache_root / ("mini-" + hash_text(dump_json(settings_json(pack, options))).substr(0, 16));
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (is_cached(folder / names[i])) continue;
    if (progress) progress(names[i], i, names.size());
    write_cached_folder(folder / names[i],
                        [&](const fs::path& temporary) { write_task(pack, options, names[i], temporary); });
  }
  return folder;
}

}  // namespace mcit::mini
