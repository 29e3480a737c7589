// mcit make-data: writes the built-in stream as CoIN-format folders, and contact sheets of what it and the
// pre-training mixture look like.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "mcit/errors.hpp"
#include "mini/pack.hpp"
#include "mini/pretrain.hpp"
#include "mini/preview.hpp"
#include "mini/stream.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

struct Flags {
  mini::MiniOptions options;
  std::string stream, out, preview, base_preview, vocabulary;
  int cells = 12;  ///< of a contact sheet, for each task or kind
};

mini::PreviewCell cell(const mini::Raster& picture, const std::string& question, const std::string& answer) {
  return {picture, {question, "A  " + answer}};
}

/// A row of training and a row of test items for each task.
void write_preview(const mini::Pack& pack, const Flags& flags) {
  std::vector<mini::PreviewCell> cells;
  for (const mini::TaskKind& kind : mini::task_kinds()) {
    const auto& wanted = flags.options.tasks;
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), kind.name) == wanted.end()) continue;
    mini::MiniOptions few = flags.options;
    few.train = few.test = flags.cells;
    const mini::TaskData data = mini::make_task(pack, few, kind.name);
    for (const mini::Split* split : {&data.train, &data.test}) {
      for (const mini::Item& item : split->items) {
        cells.push_back(
            cell(split->pictures[static_cast<std::size_t>(item.picture)], item.question, item.answer));
      }
    }
  }
  write_atomic(flags.preview, mini::encode_png(mini::contact_sheet(pack, cells, flags.cells)));
  log::info(flags.preview, ": a row of training and a row of test items for each task");
}

void write_base_preview(const mini::Pack& pack, const Flags& flags) {
  mini::MixtureOptions options;
  options.weights.handwritten = 1;
  const mini::Mixture mixture(pack, options);
  Rng rng(flags.options.seed);
  std::vector<mini::PreviewCell> cells;
  for (const std::string& kind : mini::Mixture::kinds()) {
    for (int i = 0; i < flags.cells; ++i) {
      const mini::Sample sample = mixture.draw(rng, kind);
      mini::Raster picture(mini::kSide, mini::kSide, 3);
      std::copy(sample.pixels.begin(), sample.pixels.end(), picture.data.begin());
      cells.push_back({picture, {sample.question, "A  " + sample.answer, "C  " + sample.caption}});
    }
  }
  write_atomic(flags.base_preview, mini::encode_png(mini::contact_sheet(pack, cells, flags.cells)));
  log::info(flags.base_preview, ": a row for each kind of the pre-training mixture");
}

void write_vocabulary(const mini::Pack& pack, const std::string& file) {
  std::string text;
  for (const std::string& word : mini::vocabulary(pack)) text += word + "\n";
  write_atomic(file, text);
}

void write_stream(const mini::Pack& pack, const Flags& flags) {
  std::optional<Progress> bar;
  mini::write_stream(pack, flags.options, flags.out,
                     [&](std::string_view task, std::size_t number, std::size_t count) {
                       if (!bar) {
                         bar.emplace("make-data", static_cast<std::int64_t>(count), "tasks");
                       } else {
                         bar->advance(1, task);
                       }
                       log::debug("task ", number + 1, " of ", count, ": ", task);
                     });
  bar.reset();
  log::info(flags.out, ": written; <task>/meta.json holds counts, scorer and chance level");
}

void make_data(const Flags& flags) {
  if (flags.stream != "mini")
    throw ConfigError("make-data", "no stream is called '" + flags.stream + "'", "known: mini");
  if (flags.out.empty() && flags.preview.empty() && flags.base_preview.empty() && flags.vocabulary.empty()) {
    throw ConfigError("make-data", "nothing to write", "give --out DIR or --preview FILE");
  }
  const mini::Pack pack(share_dir() / "mini" / "pack");
  if (!flags.vocabulary.empty()) write_vocabulary(pack, flags.vocabulary);
  if (!flags.preview.empty()) write_preview(pack, flags);
  if (!flags.base_preview.empty()) write_base_preview(pack, flags);
  if (!flags.out.empty()) write_stream(pack, flags);
}

}  // namespace

void add_make_data(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  mini::Difficulty& level = flags->options.difficulty;
  CLI::App* command = app.add_subcommand("make-data", "Write the built-in stream as CoIN-format folders");
  command->add_option("stream", flags->stream, "Which stream: mini")->required();
  command->add_option("--out", flags->out, "Folder to write; must not exist yet");
  command->add_option("--seed", flags->options.seed, "Seed of everything drawn")->capture_default_str();
  command->add_option("--train", flags->options.train, "Training items of each task")->capture_default_str();
  command->add_option("--test", flags->options.test, "Test items of each task")->capture_default_str();
  command->add_option("--tasks", flags->options.tasks, "Only these tasks, separated by commas")
      ->delimiter(',');
  command->add_option("--wordings", flags->options.wordings, "Question wordings of each task, 1..5")
      ->capture_default_str();
  command->add_option("--preview", flags->preview, "PNG with items of each task, to look at");
  command->add_option("--base-preview", flags->base_preview, "PNG with samples of the pre-training mixture");
  command->add_option("--vocabulary", flags->vocabulary, "Text file with every word of base and stream");
  command->add_option("--cells", flags->cells, "Items in a row of a preview")
      ->check(CLI::Range(1, 40))
      ->capture_default_str();
  const std::string knobs = "Difficulty";
  command->add_option("--train-jitter", level.train_jitter, "Change of style in training pictures, 0..1")
      ->group(knobs)
      ->capture_default_str();
  command->add_option("--test-jitter", level.test_jitter, "Change of style in test pictures, 0..1")
      ->group(knobs)
      ->capture_default_str();
  command->add_option("--test-noto", level.test_noto, "Share of test pictures in the unseen drawing style")
      ->group(knobs)
      ->capture_default_str();
  command->add_option("--count-most", level.count_most, "count: most objects, 1..6")
      ->group(knobs)
      ->capture_default_str();
  command->add_option("--digits", level.digits, "digits: digits side by side, 1..3")
      ->group(knobs)
      ->capture_default_str();
  command->add_option("--ocr-shortest", level.ocr_shortest, "ocr: fewest letters, 3..5")
      ->group(knobs)
      ->capture_default_str();
  command->add_option("--ocr-longest", level.ocr_longest, "ocr: most letters, 3..5")
      ->group(knobs)
      ->capture_default_str();
  command->add_option("--ocr-test-faces", level.ocr_test_faces, "ocr: test words in unseen faces")
      ->group(knobs)
      ->capture_default_str();
  command->add_option("--ground-objects", level.ground_objects, "ground: objects in a picture, 2..4")
      ->group(knobs)
      ->capture_default_str();
  command->add_option("--sci-options", level.sci_options, "sci: groups to choose from, 2..6")
      ->group(knobs)
      ->capture_default_str();
  command->callback([flags] { make_data(*flags); });
}

}  // namespace mcit
