#include "model/gguf_file.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "mcit/errors.hpp"
#include "model/mapping.hpp"

namespace mcit {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF files are little-endian");

constexpr std::uint64_t kLongestName = 65535;      // of a key, by the specification
constexpr std::uint64_t kShortestKey = 8 + 4 + 1;  // bytes of a key and its value, at the very least
constexpr std::uint64_t kShortestTensor = 8 + 4 + 8 + 4 + 8;
constexpr std::uint32_t kMostDimensions = 4;
constexpr char kHint[] = "it is no GGUF file or was cut short";

template <class T>
T load(const char* at) {
  T value{};
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

std::string printable(std::string_view text) {
  constexpr std::size_t kLongest = 64;
  std::string out(text.substr(0, kLongest));
  for (char& c : out)
    if (c < ' ' || c > '~') c = '?';
  return out + (text.size() > kLongest ? "..." : "");
}

/// Reads on from a place in the file, never past its end.
class GgufFile::Cursor {
 public:
  Cursor(const std::string& where, const char* begin, std::uint64_t size)
      : where_(where), begin_(begin), size_(size) {}

  std::uint64_t at() const { return at_; }
  std::uint64_t left() const { return size_ - at_; }
  const char* skip(std::uint64_t bytes) {
    if (bytes > left()) throw CheckpointError(where_, "ends in the middle of its header", kHint);
    const char* here = begin_ + at_;
    at_ += bytes;
    return here;
  }
  template <class T>
  T take() {
    return load<T>(skip(sizeof(T)));
  }
  std::string_view text() {
    const auto length = take<std::uint64_t>();
    return {skip(length), length};
  }
  std::string name() {
    const std::string_view name = text();
    if (name.empty() || name.size() > kLongestName)
      throw CheckpointError(where_, "has a name of " + std::to_string(name.size()) + " bytes", kHint);
    return std::string(name);
  }

 private:
  const std::string& where_;
  const char* begin_;
  std::uint64_t size_, at_ = 0;
};

GgufFile::GgufFile(const std::filesystem::path& file)
    : where_(file.string()), mapping_(std::make_shared<Mapping>(file)) {
  Cursor in(where_, mapping_->data(), mapping_->size());
  if (in.left() < 24 || std::memcmp(in.skip(4), "GGUF", 4) != 0)
    throw CheckpointError(where_, "does not begin like a GGUF file", "give a .gguf file of llama.cpp");
  const auto version = in.take<std::uint32_t>();
  if (version != 2 && version != 3)
    throw CheckpointError(where_, "has version " + std::to_string(version),
                          version > 0xffff ? "it is big-endian; convert it on a little-endian machine"
                                           : "versions 2 and 3 are read");
  const auto tensors = in.take<std::uint64_t>(), keys = in.take<std::uint64_t>();
  if (keys > in.left() / kShortestKey || tensors > in.left() / kShortestTensor)
    throw CheckpointError(where_,
                          "claims " + std::to_string(keys) + " keys and " + std::to_string(tensors) +
                              " tensors, more than it can hold",
                          kHint);
  read_metadata(in, keys);
  read_tensors(in, tensors);
  check_overlaps();
}

bool GgufFile::is_integer(Kind kind) { return width(kind) > 0 && kind != Kind::f32 && kind != Kind::f64; }

/// Bytes of an entry; 0 for texts and arrays.
std::uint64_t GgufFile::width(Kind kind) {
  switch (kind) {
    case Kind::u8:
    case Kind::i8:
    case Kind::boolean:
      return 1;
    case Kind::u16:
    case Kind::i16:
      return 2;
    case Kind::u32:
    case Kind::i32:
    case Kind::f32:
      return 4;
    case Kind::u64:
    case Kind::i64:
    case Kind::f64:
      return 8;
    case Kind::text:
    case Kind::array:
      break;
  }
  return 0;
}

void GgufFile::read_metadata(Cursor& in, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string key = in.name();
    const auto kind = [&] {
      const auto number = in.take<std::uint32_t>();
      if (number > static_cast<std::uint32_t>(Kind::f64))
        throw CheckpointError(where_ + ": " + printable(key),
                              "has the unknown type " + std::to_string(number), kHint);
      return static_cast<Kind>(number);
    };
    Value value{kind(), false, 1, nullptr};
    if (value.kind == Kind::array) {
      value = {kind(), true, in.take<std::uint64_t>(), nullptr};
      if (value.kind == Kind::array)
        throw CheckpointError(where_ + ": " + printable(key), "is an array of arrays", "no model needs one");
    }
    const std::uint64_t bytes = width(value.kind);
    if (bytes > 0 && value.count > in.left() / bytes)
      throw CheckpointError(where_ + ": " + printable(key),
                            "claims " + std::to_string(value.count) + " entries, more than the file holds",
                            kHint);
    value.at = in.skip(bytes * value.count);
    if (bytes == 0)
      for (std::uint64_t n = 0; n < value.count; ++n) in.text();  // ends with the file, whatever the count
    if (!values_.emplace(key, value).second)
      throw CheckpointError(where_ + ": " + printable(key), "stands twice in the metadata");
  }
}

void GgufFile::read_tensors(Cursor& in, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string name = in.name(), where = where_ + ": " + printable(name);
    const auto dimensions = in.take<std::uint32_t>();
    if (dimensions < 1 || dimensions > kMostDimensions)
      throw CheckpointError(where, "has " + std::to_string(dimensions) + " dimensions", "1 to 4 are known");
    Entry entry{nullptr, {}, 0, 0};
    std::uint64_t weights = 1;
    for (std::uint32_t d = 0; d < dimensions; ++d) {
      const auto size = in.take<std::uint64_t>();
      if (size == 0 || size > INT64_MAX || __builtin_mul_overflow(weights, size, &weights))
        throw CheckpointError(where, "its shape is empty or overflows 64 bits", kHint);
      entry.shape.push_back(static_cast<std::int64_t>(size));
    }
    const auto type = in.take<std::uint32_t>();
    entry.type = gguf_type(type);
    if (entry.type == nullptr)
      throw CheckpointError(where, "is stored as type " + std::to_string(type) + ", which is not read",
                            "known: " + gguf_type_names());
    if (static_cast<std::uint64_t>(entry.shape[0]) % entry.type->weights != 0)
      throw CheckpointError(where, "a row of " + std::to_string(entry.shape[0]) + " is no whole number of " +
                                       entry.type->name + " blocks of " +
                                       std::to_string(entry.type->weights));
    if (__builtin_mul_overflow(weights / entry.type->weights, entry.type->bytes, &entry.bytes))
      throw CheckpointError(where, "its shape is empty or overflows 64 bits", kHint);
    entry.offset = in.take<std::uint64_t>();
    std::reverse(entry.shape.begin(), entry.shape.end());  // the file has the innermost dimension first
    if (!entries_.emplace(name, std::move(entry)).second)
      throw CheckpointError(where, "stands twice in the file");
  }
  const std::int64_t alignment = integer("general.alignment", 32);
  if (alignment < 8 || alignment > 1 << 20 || !std::has_single_bit(static_cast<std::uint64_t>(alignment)))
    throw CheckpointError(where_ + ": general.alignment", "is " + std::to_string(alignment),
                          "it must be a power of two from 8 on");
  const auto step = static_cast<std::uint64_t>(alignment);
  const std::uint64_t begin = (in.at() + step - 1) / step * step;
  for (auto& [name, entry] : entries_) {
    const std::string where = where_ + ": " + printable(name);
    if (entry.offset % step != 0)
      throw CheckpointError(where, "its offset is no multiple of " + std::to_string(step), kHint);
    const std::uint64_t room = mapping_->size() > begin ? mapping_->size() - begin : 0;
    if (entry.offset > room || entry.bytes > room - entry.offset)
      throw CheckpointError(where, "lies outside the file", "the file may be cut short");
    entry.offset += begin;
  }
}

void GgufFile::check_overlaps() const {
  std::vector<const std::pair<const std::string, Entry>*> order;
  for (const auto& entry : entries_) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->second.offset < b->second.offset; });
  for (std::size_t i = 1; i < order.size(); ++i)
    if (order[i]->second.offset < order[i - 1]->second.offset + order[i - 1]->second.bytes)
      throw CheckpointError(where_ + ": " + printable(order[i]->first),
                            "overlaps tensor '" + printable(order[i - 1]->first) + "'");
}

void GgufFile::wrong(std::string_view key, const char* expected) const {
  throw CheckpointError(where_ + ": " + printable(key),
                        has(key) ? std::string("is not ") + expected : "is missing",
                        has(key) ? "" : "the file does not describe a model of this kind");
}

const GgufFile::Value* GgufFile::find(std::string_view key, bool list, bool needed) const {
  const auto found = values_.find(key);
  if (found == values_.end() && !needed) return nullptr;
  if (found == values_.end() || found->second.list != list) wrong(key, list ? "a list" : "a single value");
  return &found->second;
}

std::int64_t GgufFile::as_integer(Kind kind, const char* at) {
  switch (kind) {
    case Kind::i8:
      return load<std::int8_t>(at);
    case Kind::u16:
      return load<std::uint16_t>(at);
    case Kind::i16:
      return load<std::int16_t>(at);
    case Kind::u32:
      return load<std::uint32_t>(at);
    case Kind::i32:
      return load<std::int32_t>(at);
    case Kind::u64:  // above the largest of the signed: negative, which every size refuses
    case Kind::i64:
      return load<std::int64_t>(at);
    default:
      return load<std::uint8_t>(at);
  }
}

double GgufFile::as_number(Kind kind, const char* at) {
  return kind == Kind::f32   ? load<float>(at)
         : kind == Kind::f64 ? load<double>(at)
                             : static_cast<double>(as_integer(kind, at));
}

std::int64_t GgufFile::integer(std::string_view key, std::optional<std::int64_t> otherwise) const {
  const Value* value = find(key, false, !otherwise);
  if (value == nullptr) return *otherwise;
  if (!is_integer(value->kind)) wrong(key, "an integer");
  return as_integer(value->kind, value->at);
}

double GgufFile::number(std::string_view key, std::optional<double> otherwise) const {
  const Value* value = find(key, false, !otherwise);
  if (value == nullptr) return *otherwise;
  if (width(value->kind) == 0) wrong(key, "a number");
  return as_number(value->kind, value->at);
}

bool GgufFile::flag(std::string_view key, bool otherwise) const {
  return integer(key, otherwise ? 1 : 0) != 0;
}

std::string GgufFile::text(std::string_view key, std::optional<std::string> otherwise) const {
  const Value* value = find(key, false, !otherwise);
  if (value == nullptr) return *otherwise;
  if (value->kind != Kind::text) wrong(key, "a text");
  return {value->at + 8, load<std::uint64_t>(value->at)};
}

std::vector<std::string_view> GgufFile::texts(std::string_view key) const {
  const Value& value = *find(key, true, true);
  if (value.kind != Kind::text) wrong(key, "a list of texts");
  std::vector<std::string_view> out;
  const char* at = value.at;
  for (std::uint64_t i = 0; i < value.count; ++i) {
    out.emplace_back(at + 8, load<std::uint64_t>(at));
    at += 8 + out.back().size();
  }
  return out;
}

std::vector<std::int64_t> GgufFile::integers(std::string_view key) const {
  const Value& value = *find(key, true, true);
  if (!is_integer(value.kind)) wrong(key, "a list of integers");
  std::vector<std::int64_t> out;
  for (std::uint64_t i = 0; i < value.count; ++i)
    out.push_back(as_integer(value.kind, value.at + i * width(value.kind)));
  return out;
}

std::vector<double> GgufFile::numbers(std::string_view key) const {
  const Value& value = *find(key, true, true);
  if (width(value.kind) == 0) wrong(key, "a list of numbers");
  std::vector<double> out;
  for (std::uint64_t i = 0; i < value.count; ++i)
    out.push_back(as_number(value.kind, value.at + i * width(value.kind)));
  return out;
}

std::vector<std::string> GgufFile::tensor_names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

std::vector<std::int64_t> GgufFile::shape(std::string_view tensor) const {
  const auto found = entries_.find(tensor);
  return found == entries_.end() ? std::vector<std::int64_t>{} : found->second.shape;
}

Tensor GgufFile::tensor(std::string_view name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) throw CheckpointError(where_, "has no tensor '" + printable(name) + "'");
  const Entry& entry = found->second;
  const GgufType& type = *entry.type;
  char* data = mapping_->data() + entry.offset;
  if (type.unpack == nullptr) {
    const at::ScalarType dtype = type.bytes == 4                        ? at::kFloat
                                 : type.name == std::string_view("F16") ? at::kHalf
                                                                        : at::kBFloat16;
    const Tensor plain = at::from_blob(
        data, entry.shape, [mapping = mapping_](void*) {}, at::TensorOptions().dtype(dtype));
    return dtype == at::kBFloat16 ? plain.to(at::kFloat) : plain;
  }
  Tensor out = at::empty(entry.shape, at::kFloat);
  const auto* blocks = reinterpret_cast<const unsigned char*>(data);
  float* weights = out.mutable_data_ptr<float>();
  for (std::uint64_t i = 0; i < entry.bytes / type.bytes; ++i)
    type.unpack(blocks + i * type.bytes, weights + i * type.weights);
  return out;
}

}  // namespace mcit
