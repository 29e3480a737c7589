#pragma once
/// From settings to the objects a run works on: what every subcommand that opens a model shares.

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/share.hpp"
#include "core/config.hpp"
#include "data/encode.hpp"
#include "data/features.hpp"
#include "data/preprocessor.hpp"
#include "data/suite.hpp"
#include "mcit/strategy.hpp"
#include "model/device.hpp"
#include "model/mllm.hpp"

namespace mcit {

/// A model folder, or the name of a built-in one ("mini") or of one in the user's cache (models/NAME).
/// @throws ConfigError with what is known.
std::filesystem::path find_model(const std::string& name);

/// Token ids of a text for CLIP's text tower: begin and end tokens included, cut at what the tower reads.
using TextEncoder = std::function<std::vector<std::int64_t>(const std::string&)>;
TextEncoder clip_text_encoder(const Tokenizer& tokenizer, const TextTowerConfig& text);

/// CLIP or SigLIP towers with what they read pictures and texts by.
struct OpenClip {
  std::shared_ptr<Clip> clip;
  Preprocessor preprocessor;
  TextEncoder encode;

  /// [n, P] float32 on the CPU, without gradient. @param pixels [n, 3, S, S]
  Tensor embed(const Tensor& pixels) const;
};
/// @param folder the towers' own @param shared where the tokenizer or preprocessing lies that they lack
OpenClip open_clip(const std::filesystem::path& folder, const std::filesystem::path& shared,
                   at::Device device, bool pad_square, std::optional<at::ScalarType> dtype = std::nullopt);

/// A model folder, opened: weights, tokenizer, preprocessing, CLIP towers where there are some.
struct OpenModel {
  std::filesystem::path folder;
  std::unique_ptr<Mllm> model;
  Tokenizer tokenizer;
  Preprocessor preprocessor;     ///< meaningless for a model that reads text alone
  std::optional<OpenClip> clip;  ///< for task keys and selectors
  TextEncoder instruction_ids;   ///< InstructBLIP: ids of a prompt's text for the Q-Former
};
/// Hash of config, weights, tokenizer and preprocessing files, those of clip/ among them: reads all of them.
/// @param tower a vision tower's own folder, or empty
std::string model_folder_hash(const std::filesystem::path& folder, bool pad_square,
                              const std::filesystem::path& adapter = {},
                              const std::filesystem::path& tower = {});
/// @param adapter a PEFT folder to merge into the weights, or empty
/// @param dtype of the weights; without it float32 on the CPU, bfloat16 on CUDA
OpenModel open_model(const std::filesystem::path& folder, at::Device device, bool pad_square,
                     const std::filesystem::path& adapter = {},
                     std::optional<at::ScalarType> dtype = std::nullopt);

/// The encoder for this model under a prompt template. @param prompt_template empty: the model's own
Encoder make_encoder(const OpenModel& model, const std::string& prompt_template);

/// What frozen towers say about pictures, stored; installed as the model's sources. Null where there is no
/// such tower.
struct PictureStores {
  std::unique_ptr<FeatureStore> tower, clip;
};
PictureStores install_features(OpenModel& model, std::uint64_t memory_budget, int threads);

/// Reads a suite and makes or finds its data: in a folder given by the user, else where the suite says, else
/// in the folders of MCIT_DATA. @param data folder given by the user, or empty
Suite open_suite(const std::string& name, const std::vector<std::string>& order,
                 const std::filesystem::path& data);

/// A host for a strategy outside a run: what it says goes nowhere, and it has met no task.
class QuietHost : public Host {
 public:
  void info(const std::string&) override {}
  void warn(const std::string&) override {}
  void record(const std::string&, double) override {}
  void table(const std::string&, const StageTable&) override {}
  std::unique_ptr<Batches> probe() override;
  at::Generator generator() override;  ///< the process's own
  ExamplePtr example(std::int64_t, std::int64_t) override;
};

/// Threads for tensor work: `wanted`; for 0 what OMP_NUM_THREADS says, or the usable cores.
int set_threads(std::int64_t wanted);

/// Hash of the running executable and the SDK beside it: the code that computes an evaluation cell.
std::string engine_hash();

}  // namespace mcit
