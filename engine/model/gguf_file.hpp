#pragma once
/// The GGUF container of llama.cpp, versions 2 and 3: typed metadata, tensors in blocks of few bits. Files
/// come from outside: every count, length, type, offset and overlap is checked before anything of that size
/// is made.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcit/types.hpp"

namespace mcit {

class Mapping;

/// How a tensor lies in a GGUF file: blocks of `weights` numbers in `bytes` bytes.
struct GgufType {
  std::uint32_t id;
  const char* name;
  std::uint64_t weights;
  std::uint64_t bytes;
  void (*unpack)(const unsigned char* block, float* weights);  ///< null: plain numbers
};

/// F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K, Q6_K; null for any other number.
const GgufType* gguf_type(std::uint32_t id);
std::string gguf_type_names();

/// A text of the file as an error may show it: ASCII, cut short.
std::string printable(std::string_view text);

/// Metadata and tensors of one file. Copies share the mapping.
class GgufFile {
 public:
  /// Looks at everything but the tensors' bytes. @throws CheckpointError naming the file and the key or
  /// tensor.
  explicit GgufFile(const std::filesystem::path& file);

  bool has(std::string_view key) const { return values_.contains(key); }
  // One value under a key, `otherwise` where it is absent; without `otherwise` the key must be there.
  // @throws CheckpointError also for a value of another type.
  std::int64_t integer(std::string_view key, std::optional<std::int64_t> otherwise = {}) const;
  double number(std::string_view key, std::optional<double> otherwise = {}) const;
  bool flag(std::string_view key, bool otherwise) const;
  std::string text(std::string_view key, std::optional<std::string> otherwise = {}) const;
  // The array under a key; the texts point into the file, which lives as long as this object.
  std::vector<std::string_view> texts(std::string_view key) const;
  std::vector<std::int64_t> integers(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;

  std::vector<std::string> tensor_names() const;
  /// Outermost dimension first; empty when there is no such tensor.
  std::vector<std::int64_t> shape(std::string_view tensor) const;
  /// F32 and F16 as they are, pointing into the file and not to be written to; all others as float32.
  Tensor tensor(std::string_view name) const;

  const std::string& where() const { return where_; }

 private:
  enum class Kind : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };
  struct Value {
    Kind kind;  ///< of the entries
    bool list;
    std::uint64_t count;
    const char* at;  ///< the first entry
  };
  struct Entry {
    const GgufType* type;
    std::vector<std::int64_t> shape;
    std::uint64_t offset, bytes;  ///< of the file
  };
  class Cursor;

  static bool is_integer(Kind kind);
  static std::uint64_t width(Kind kind);
  static std::int64_t as_integer(Kind kind, const char* at);
  static double as_number(Kind kind, const char* at);
  void read_metadata(Cursor& in, std::uint64_t count);
  void read_tensors(Cursor& in, std::uint64_t count);
  void check_overlaps() const;
  const Value* find(std::string_view key, bool list, bool needed) const;
  [[noreturn]] void wrong(std::string_view key, const char* expected) const;

  std::string where_;
  std::shared_ptr<Mapping> mapping_;
  std::map<std::string, Value, std::less<>> values_;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace mcit
