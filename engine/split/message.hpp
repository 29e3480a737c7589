#pragma once
/// What servers and clients of a split model say to each other: a kind, a few fields, tensors. On the wire a
/// message is a safetensors blob, so it is bounded, checked and readable with any tool.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "fed/arrays.hpp"

namespace mcit::split {

/// The server asks, the client answers; nobody else speaks.
///
///   tokens {stage, step}                 ─▶ tokens {rows} [modality …]     of the client's next training
///   rows predictions {stage, step} [y]        ─▶ gradient {loss} [y]           ∂ loss / ∂ y token_gradient
///   {stage, step} [m …]   ─▶ done                          where heads train test_tokens {task, first,
///   count}     ─▶ tokens {rows} [modality …] test_predictions [y]                 ─▶ scores {rows, correct}
///   train {stage, step, steps} [w …]     ─▶ update {rows, loss} [w …]     method fedavg
///   test {task} [w …]                    ─▶ scores {rows, correct}        method fedavg
///   save {place}                         ─▶ done                          what the client keeps, to its disk
///   load {place}                         ─▶ done
///   costs                                ─▶ costs {…}                     since it was asked last
///   any                                  ─▶ error {what}
struct Message {
  std::string kind;
  std::map<std::string, std::string> fields;
  fed::Arrays arrays;

  std::string encode() const;
  /// @param who what errors call the sender @param most bytes @throws DataError
  static Message decode(std::string_view bytes, const std::string& who, std::size_t most);

  void set(const std::string& field, std::int64_t value) { fields[field] = std::to_string(value); }
  void set(const std::string& field, double value);  ///< all digits
  /// @throws DataError when it is absent, no number, or below `least`
  std::int64_t integer(const std::string& field, std::int64_t least = 0) const;
  double number(const std::string& field) const;
};

/// @throws DataError unless it is of this kind; a client's error is told in its own words
void expect_kind(const Message& message, const std::string& kind, const std::string& who);
/// @throws DataError unless the array is there, floating-point, of this shape and finite
const fed::Array& expect_array(const Message& message, const std::string& name,
                               const std::vector<std::int64_t>& shape, const std::string& who);

}  // namespace mcit::split
