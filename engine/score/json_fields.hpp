#pragma once
/// Id and answer of a row, without building the rest of it.

#include <optional>
#include <string>
#include <string_view>

namespace mcit {

struct Fields {
  std::optional<std::string> id;  ///< question_id, questionId, id or image_id, in this order; numbers as text
  std::optional<std::string> text;  ///< text, prediction or caption, in this order; numbers as text
};

/// Looks at the members of an object, and at all of its JSON. @throws DataError when it is no object or not
/// JSON
Fields read_fields(std::string_view json);
/// The id alone; what stands behind it is not looked at. @throws DataError
std::optional<std::string> read_id(std::string_view json);

}  // namespace mcit
