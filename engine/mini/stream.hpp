#pragma once
/// The stream MCIT-mini: tasks of real material in the kinds of CoIN, written as CoIN-format folders from a
/// seed.
///
///     <folder>/<task>/train.json           [{id, image, conversations: [{from, value}, {from, value}]}]
///     <folder>/<task>/test.json            [{question_id, image, text, answer, type}]
///     <folder>/<task>/meta.json            settings, pack hash, counts, scorer, answers, chance
///     <folder>/<task>/{train,test}/N.png   64 x 64 RGB; paths in the records start at <folder>
///
/// Test items differ from training items by drawing (Noto for Twemoji), word and face, digit, or picture
/// file.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "mini/pack.hpp"

namespace mcit {
class Config;
}

namespace mcit::mini {

/// What makes a task harder or easier.
struct Difficulty {
  double train_jitter = 0.4;  ///< strength 0..1 of the change of style in training pictures
  double test_jitter = 0.2;   ///< the same in test pictures
  double test_noto = 1.0;     ///< share of test pictures in the unseen drawing style; the rest is Twemoji
  int count_most = 4;         ///< count: 1 .. count_most equal objects, at most 6
  int digits = 1;             ///< digits: how many side by side, 1..3
  int ocr_shortest = 3;       ///< ocr: letters of a word
  int ocr_longest = 3;
  bool ocr_test_faces = true;  ///< ocr: test words in faces that were never seen either
  int ground_objects = 2;      ///< ground: objects in the picture, 2..4
  int sci_options = 4;         ///< sci: classes to choose from, 2..6
};

struct MiniOptions {
  std::uint64_t seed = 1;
  int train = 2000;  ///< items of each task
  int test = 400;
  int wordings =
      1;  ///< 1: one question text for each task; up to 5: diverse instructions, drawn for each item
  std::vector<std::string> tasks;  ///< empty: all of task_kinds()
  Difficulty difficulty;
};

/// The options as a suite's table gives them, every key optional:
///
///     seed = 1   train = 2000   test = 400   wordings = 1   tasks = ["vqa"]   test_noto = 1.0   ...
///     (Difficulty)
///
/// Throws ConfigError for a value out of range. The caller finishes the table.
MiniOptions read_options(const Config& table);

/// Throws ConfigError naming the option that is out of range.
void check_options(const MiniOptions& options);

/// What one task is, apart from its items.
struct TaskKind {
  std::string_view name;
  std::string_view twin;    ///< the task of CoIN that it mirrors
  std::string_view scorer;  ///< name of a scorer of the engine
  std::string_view summary;
};

/// vqa, geo, count, cls, digits, ocr, ground, sci, cap.
const std::vector<TaskKind>& task_kinds();

/// The kind called `name`. Throws ConfigError naming the nearest known name.
const TaskKind& task_kind(std::string_view name);

struct Item {
  int picture = 0;  ///< index into TaskData::pictures of its split
  std::string question;
  std::string answer;
  std::string type;  ///< kind of question, so that answers can be restricted to its own answers; same as the
                     ///< task mostly
};

struct Split {
  std::vector<Raster> pictures;  ///< 64 x 64 RGB
  std::vector<Item> items;
};

struct TaskData {
  std::string name;
  Split train, test;
  std::vector<std::string> answers;  ///< closed set, sorted; empty for free text
  double chance = 0;                 ///< percent, see question_only_chance()
};

/// Makes one task; the same pack, options and name give the same data. Throws ConfigError for a bad option or
/// name.
TaskData make_task(const Pack& pack, const MiniOptions& options, std::string_view name);

/// Percent that the best guess from the question alone, learned on `train`, gets on `test`: the majority
/// answer of each question text (of all texts, for a new one); for questions that offer answers also the
/// offered answer that is right most often when offered and each position in the list. The best of these; for
/// `token_f1` the best constant.
double question_only_chance(const std::vector<Item>& train, const std::vector<Item>& test,
                            std::string_view scorer);

/// Told while the stream is written: task, its number, number of tasks.
using MiniProgress = std::function<void(std::string_view task, std::size_t number, std::size_t count)>;

/// Writes the stream into `folder`, which must not exist yet: made beside it and moved there when complete.
void write_stream(const Pack& pack, const MiniOptions& options, const std::filesystem::path& folder,
                  const MiniProgress& progress = {});

/// The stream's folder below `cache_root`, named after the hash of pack and options without the list of
/// tasks; tasks that are not there yet are written. Suites with other selections of the same tasks share it.
std::filesystem::path materialise(const Pack& pack, const MiniOptions& options,
                                  const std::filesystem::path& cache_root, const MiniProgress& progress = {});

}  // namespace mcit::mini
