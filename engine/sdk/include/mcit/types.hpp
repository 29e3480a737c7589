#pragma once
/// The nouns of a continual run: tasks, examples, batches, states.

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mcit/abi.hpp"

namespace mcit {

using at::Tensor;

/// Name -> tensor. Ordered, so that iteration, hashing and files are the same everywhere.
using StateDict = std::map<std::string, Tensor>;

/// A tensor that may be trained. `group` picks its learning rate: "adapter", "connector", "prompt" or "base".
struct Parameter {
  std::string name;
  Tensor value;
  std::string group = "adapter";
};
using Parameters = std::vector<Parameter>;

/// One record after tokenization. Immutable and shared: batches, replay buffers and caches hold references.
struct Example {
  std::int64_t task = 0;   ///< index of its task in the stream
  std::int64_t index = 0;  ///< row in its task's file
  std::string id;          ///< question_id or id of the record
  std::string image;       ///< path of the picture; empty for a text-only row
  std::string question;    ///< first question of the record
  std::string prompt;      ///< text before the answer, as the template wrote it
  std::string answer;      ///< reference answer
  /// Token ids of prompt and answer, the image token repeated once per visual token.
  std::vector<std::int64_t> tokens;
  /// labels[i] is the id that row i must predict (already shifted by one), or -100.
  std::vector<std::int64_t> labels;
  std::int64_t prompt_length = 0;  ///< rows of `tokens` that belong to the prompt
};
using ExamplePtr = std::shared_ptr<const Example>;

/// Sequences that go through the model together. Rows are packed, not padded: sequence b owns the rows after
/// those of sequence b - 1.
struct Batch {
  std::vector<ExamplePtr> examples;

  std::size_t size() const { return examples.size(); }
};

struct TaskInfo {
  std::string name;                     ///< e.g. "vqa"
  std::int64_t train_examples = 0;      ///< rows in the training file
  std::int64_t test_examples = 0;       ///< rows in the test file
  std::vector<std::string> answer_set;  ///< closed answers, or empty for free text
};

struct BackboneInfo {
  std::string family;  ///< "llava", or "clip": towers alone, which tell classes of pictures by their texts
  std::int64_t layers = 0;  ///< decoder blocks (CLIP: of the text tower)
  std::int64_t hidden = 0;  ///< decoder width d
  std::int64_t vocabulary = 0;
  std::int64_t vision_layers = 0;  ///< tower blocks that run
  std::int64_t vision_hidden = 0;  ///< tower width
  std::int64_t image_tokens = 0;   ///< visual tokens per picture
  std::int64_t feature_dim =
      0;  ///< width of image_features()/text_features(); 0 when the folder has no CLIP towers
};

/// What a strategy is told once, before anything else: settings that do not fit it are found here.
struct StreamInfo {
  std::vector<TaskInfo> tasks;  ///< in stream order
  std::uint64_t seed = 0;
  BackboneInfo backbone{};
};

/// One training stage of a stream: a single task for a continual learner, all of them for joint training.
struct Stage {
  std::string name;
  std::vector<std::int64_t> tasks;  ///< indices into StreamInfo::tasks
};

/// The stage at hand, as hooks see it.
struct Task {
  std::int64_t index = 0;  ///< 0-based stage number
  std::string name;
  std::vector<std::int64_t> tasks;
  std::int64_t steps = 0;  ///< optimizer steps that the stage will take
};

/// Numbers about a stage that a strategy wants kept: they go to result.json and are drawn into plots/.
struct StageTable {
  enum class Plot { heat_map, lines };
  std::vector<std::string> rows, columns;
  std::vector<std::vector<double>> values;  ///< [rows][columns]
  Plot plot = Plot::heat_map;               ///< lines: one for each row, over the columns
};

/// A deterministic pass over the stage's training examples, for consolidation (Fisher, subspaces, keys).
class MCIT_EXPORT Batches {
 public:
  virtual ~Batches();
  virtual std::int64_t examples() const = 0;         ///< in one whole pass
  virtual bool next(Batch& batch) = 0;               ///< false at the end of the pass
  virtual void rewind(std::int64_t batch_size) = 0;  ///< start again from the first example
};

}  // namespace mcit
