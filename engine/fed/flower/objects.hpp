#pragma once
/// Flower's object model: what a message carries, cut into objects that are named by their SHA-256.
///
///   object = type " " children's ids, joined by "," " " length of the body "\0" body      id =
///   SHA-256(object), hexadecimal Message ─▶ RecordDict ─▶ ArrayRecord ─▶ Array ─▶ ArrayChunk (at most 5 MiB
///   each)
///                        └─▶ ConfigRecord
///
/// Message, ConfigRecord: the body is protobuf; Array, ArrayRecord, RecordDict: JSON; ArrayChunk: the bytes.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "fed/flower/error.hpp"

namespace mcit::flower {

inline constexpr std::size_t kChunk = std::size_t{5} << 20;  ///< flwr's own limit

/// Bytes with a label. Flower looks at `data` only where `stype` is "numpy.ndarray".
struct Array {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string stype;
  std::string data;
};
using Value = std::variant<bool, std::int64_t, double, std::string>;
using ConfigRecord = std::vector<std::pair<std::string, Value>>;
using ArrayRecord = std::vector<std::pair<std::string, Array>>;

/// What a message says; records in this order, configs first.
struct Content {
  std::vector<std::pair<std::string, ConfigRecord>> configs;
  std::vector<std::pair<std::string, ArrayRecord>> arrays;
};

/// An object as it was read.
struct Object {
  std::string type;
  std::vector<std::string> children;
  std::string_view body;  ///< of the bytes that were read
};

MCIT_FLOWER_EXPORT std::string object_id(std::string_view head, std::string_view body);
/// Everything before the body, with the NUL.
MCIT_FLOWER_EXPORT std::string object_head(std::string_view type, const std::vector<std::string>& children,
                                           std::size_t body);
/// @throws Failure when the bytes are not those that `id` names, or malformed
MCIT_FLOWER_EXPORT Object read_object(std::string_view bytes, const std::string& id);

/// A content as objects, children before parents, each once. The chunks are views of the content, which must
/// outlive it.
class MCIT_FLOWER_EXPORT Packed {
 public:
  struct Piece {
    std::string id, head;
    std::string_view body;
    std::vector<std::string> children;
  };
  Packed() = default;
  explicit Packed(const Content& content);
  explicit Packed(Content&&) = delete;  // pieces are views of the content
  Packed(const Packed&) = delete;
  Packed& operator=(const Packed&) = delete;

  /// Adds the object that all others hang from: a message. @param children none for an error
  const std::string& add(std::string_view type, std::vector<std::string> children, std::string body);
  const std::string& root() const { return root_; }  ///< the newest: the RecordDict, then the message
  const std::deque<Piece>& pieces() const { return pieces_; }
  const Piece& at(const std::string& id) const;

 private:
  const std::string& view(std::string_view type, std::vector<std::string> children, std::string_view body);
  std::string array(const Array& array);

  std::deque<Piece> pieces_;
  std::deque<std::string> bodies_;
  std::map<std::string, std::size_t> known_;
  std::string root_;
};

/// Gives the bytes of an object.
using Fetch = std::function<std::string(const std::string& id)>;

/// The content below a RecordDict. Records of other kinds are passed over. Chunks are asked for one at a
/// time.
/// @param limit bytes that all arrays may have together @throws Failure for anything malformed or too large
MCIT_FLOWER_EXPORT Content unpack(const std::string& record_dict, const Fetch& fetch, std::uint64_t limit);

}  // namespace mcit::flower
