#pragma once
/// A model and a suite's rows as it reads them: what a run works on.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "app/experiment.hpp"
#include "data/suite.hpp"
#include "model/model.hpp"
#include "train/task_loop.hpp"

namespace mcit {

struct WorkloadOptions {
  std::string model = "mini";  ///< folder or name
  at::Device device = at::kCPU;
  std::optional<at::ScalarType> dtype;  ///< of the weights; default_dtype() without
  bool pad_square = false;
  std::string prompt_template;    ///< empty: the suite's, and where that is empty the model's
  std::filesystem::path adapter;  ///< a PEFT folder to merge into an MLLM's weights, or empty
  std::uint64_t feature_memory = 2ULL << 30;
  int loader_threads = 1;
};

/// An MLLM that answers questions, or CLIP towers for suites of kind "classify".
struct Workload {
  std::unique_ptr<Model> model;
  std::string model_hash;                   ///< of config, weights, tokenizer and preprocessing files
  PictureStores stores;                     ///< what frozen towers say about each picture
  std::vector<StreamTask> tasks;            ///< every row encoded, every picture known to be there
  std::vector<ExamplePtr> probe;            ///< examples of no task (-1)
  std::map<std::string, std::string> data;  ///< file or folder -> hash of what was read
};

Workload open_workload(const Suite& suite, const WorkloadOptions& options);

/// The keys of [train] that every kind of training has. @param defaults what absent keys mean
TrainOptions read_train_options(const Config& table, TrainOptions defaults);

}  // namespace mcit
