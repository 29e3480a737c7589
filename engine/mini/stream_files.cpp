#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/json.hpp"
#include "mcit/errors.hpp"
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

Json settings_json(const Pack& pack, const MiniOptions& options) {
  const Difficulty& level = options.difficulty;
  return {{"format", kFormat},
          {"pack", pack.digest()},
          {"seed", options.seed},
          {"train", options.train},
          {"test", options.test},
          {"wordings", options.wordings},
          {"tasks", tasks_of(options)},
          {"difficulty",
           {{"train_jitter", level.train_jitter},
            {"test_jitter", level.test_jitter},
            {"test_noto", level.test_noto},
            {"count_most", level.count_most},
            {"digits", level.digits},
            {"ocr_shortest", level.ocr_shortest},
            {"ocr_longest", level.ocr_longest},
            {"ocr_test_faces", level.ocr_test_faces},
            {"ground_objects", level.ground_objects},
            {"sci_options", level.sci_options}}}};
}

std::string number(int value) {
  const std::string digits = std::to_string(value);
  return std::string(6 - std::min<std::size_t>(6, digits.size()), '0') + digits;
}

/// Plain writes: the folder becomes visible as a whole, by one rename, when everything in it is there.
void write_bytes(const fs::path& file, const std::string& bytes) {
  std::FILE* out = std::fopen(file.c_str(), "wb");
  const bool written = out != nullptr && std::fwrite(bytes.data(), 1, bytes.size(), out) == bytes.size();
  const bool closed = out != nullptr && std::fclose(out) == 0;
  if (!written || !closed) throw DataError(file.string(), "cannot be written", "is the disk full?");
}

void write_split(const fs::path& folder, const std::string& task, const std::string& name, const Split& split) {
  fs::create_directories(folder / task / name);
  const std::string prefix = task + "/" + name + "/";
  for (std::size_t i = 0; i < split.pictures.size(); ++i) {
    write_bytes(folder / (prefix + number(static_cast<int>(i)) + ".png"), encode_png(split.pictures[i]));
  }
  Json rows = Json::array();
  for (std::size_t i = 0; i < split.items.size(); ++i) {
    const Item& item = split.items[i];
    const std::string id = task + "-" + name + "-" + number(static_cast<int>(i));
    const std::string image = prefix + number(item.picture) + ".png";
    if (name == "train") {
      rows.push_back({{"id", id},
                      {"image", image},
                      {"conversations",
                       Json::array({{{"from", "human"}, {"value", "<image>\n" + item.question}},
                                    {{"from", "gpt"}, {"value", item.answer}}})}});
    } else {
      rows.push_back({{"question_id", id}, {"image", image}, {"text", item.question}, {"answer", item.answer}, {"type", item.type}});
    }
  }
  write_bytes(folder / task / (name + ".json"), dump_json(rows, 1) + "\n");
}

void fill_folder(const Pack& pack, const MiniOptions& options, const fs::path& folder, const MiniProgress& progress) {
  Json meta = settings_json(pack, options);
  meta["task"] = Json::object();
  const auto names = tasks_of(options);
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (progress) progress(names[i], i, names.size());
    const TaskData data = make_task(pack, options, names[i]);
    write_split(folder, data.name, "train", data.train);
    write_split(folder, data.name, "test", data.test);
    std::string scorer;
    for (const TaskKind& kind : task_kinds()) {
      if (kind.name == data.name) scorer = kind.scorer;
    }
    meta["task"][data.name] = {{"train", data.train.items.size()}, {"test", data.test.items.size()}, {"scorer", scorer},
                               {"chance", data.chance},            {"answers", data.answers}};
  }
  write_json(folder / "meta.json", meta);
}

}  // namespace

void write_stream(const Pack& pack, const MiniOptions& options, const fs::path& folder, const MiniProgress& progress) {
  if (fs::exists(folder)) throw DataError(folder.string(), "is already there", "name a new folder or remove it first");
  fs::path target = folder;
  if (target.filename().empty()) target = target.parent_path();
  const fs::path temporary = target.string() + ".tmp" + std::to_string(::getpid());
  try {
    fs::remove_all(temporary);
    fs::create_directories(temporary);
    fill_folder(pack, options, temporary, progress);
    fs::rename(temporary, target);
  } catch (const fs::filesystem_error& error) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw DataError(target.string(), error.code().message());
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
}

fs::path materialise(const Pack& pack, const MiniOptions& options, const fs::path& cache_root, const MiniProgress& progress) {
  const std::string key = hash_text(dump_json(settings_json(pack, options)));
  const fs::path folder = cache_root / ("mini-" + key.substr(0, 16));
  if (fs::exists(folder / "meta.json")) return folder;
  try {
    write_stream(pack, options, folder, progress);
  } catch (const DataError&) {
    // Another process may have been faster; what it wrote is the same.
    if (!fs::exists(folder / "meta.json")) throw;
  }
  return folder;
}

}  // namespace mcit::mini
