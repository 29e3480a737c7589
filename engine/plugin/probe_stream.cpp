#include "plugin/probe_stream.hpp"

#include <algorithm>

#include "core/random.hpp"
#include "mcit/errors.hpp"
#include "plugin/probe_backbone.hpp"

namespace mcit {
namespace {

constexpr std::int64_t kBegin = 2, kEnd = 3;  // special tokens
constexpr std::int64_t kQuestion = 4,
                       kAnswer = 12;  // first of the words that questions and answers are made of
constexpr std::int64_t kTrain = 20, kTest = 5;

ExamplePtr make_example(std::int64_t task, const std::string& name, std::int64_t index, bool test) {
  Rng rng(derive(11, {"probe example", task, index, static_cast<int>(test)}));
  auto example = std::make_shared<Example>();
  example->task = task;
  example->index = index;
  example->id = name + (test ? "-test-" : "-train-") + std::to_string(index);
  const std::int64_t topic = static_cast<std::int64_t>(rng.below(5));
  example->prompt = name + "/question " + std::to_string(topic);
  example->tokens = {kBegin};
  if (index % 4 != 3) {  // the others are text alone
    example->image = name + "/picture " + std::to_string(topic) + ".png";
    example->tokens.insert(example->tokens.end(), ProbeBackbone::kImageTokens, ProbeBackbone::kImageToken);
  }
  for (std::int64_t i = 0; i <= index % 3; ++i)
    example->tokens.push_back(kQuestion + (topic + i * (task + 1)) % 8);
  example->prompt_length = static_cast<std::int64_t>(example->tokens.size());
  for (std::int64_t i = 0; i <= task; ++i)
    example->tokens.push_back(kAnswer + (task * 6 + topic + i) % 12);  // longer in the second task
  example->answer = "word" + std::to_string(topic);
  example->labels.assign(example->tokens.size(), -100);
  for (auto i = static_cast<std::size_t>(example->prompt_length); i <= example->tokens.size(); ++i)
    example->labels[i - 1] = i < example->tokens.size() ? example->tokens[i] : kEnd;
  return example;
}

ProbeTask make_task(std::int64_t index, const std::string& name) {
  ProbeTask task;
  task.info = {name, kTrain, kTest, {"word0", "word1", "word2", "word3", "word4"}};
  for (std::int64_t i = 0; i < kTrain; ++i) task.train.push_back(make_example(index, name, i, false));
  for (std::int64_t i = 0; i < kTest; ++i) task.test.push_back(make_example(index, name, i, true));
  return task;
}

}  // namespace

const std::vector<ProbeTask>& probe_stream() {
  static const std::vector<ProbeTask> tasks{make_task(0, "naming"), make_task(1, "counting")};
  return tasks;
}

}  // namespace mcit
