#pragma once
/// A client's rows, as raw as they are kept.

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "data/image.hpp"

namespace mcit::split {

struct Row {
  std::shared_ptr<const Image> picture;  ///< null: none
  std::vector<std::int64_t> text;        ///< exactly text_tokens ids; empty: none
  std::vector<float> frames;             ///< audio_frames x audio_values; empty: none
  std::int64_t label = -1;               ///< -1: an answer that no class stands for; never right
};

struct TaskRows {
  std::vector<Row> train, test;
};

}  // namespace mcit::split
