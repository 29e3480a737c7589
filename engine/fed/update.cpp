#include "fed/update.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "core/text.hpp"
#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

constexpr const char* kWhere = "update";
constexpr const char* kNames[] = {"full", "delta", "int8-delta", "topk"};
constexpr std::size_t kLongestText = 256, kMostStatistics = 64;

[[noreturn]] void refuse(const std::string& tensor, const std::string& what) {
  throw CheckpointError(std::string(kWhere) + ": " + tensor, what);
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string out = "[";
  for (const std::int64_t dim : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(dim);
  return out + "]";
}

/// Bytes that the header of an honest update of this layout may have.
std::uint64_t largest_header(const Layout& layout) {
  constexpr std::uint64_t kMetadata = 64 << 10, kEntry = 256;
  std::uint64_t bytes = kMetadata;
  for (const auto& [name, spec] : layout) bytes += 2 * (2 * name.size() + kEntry);  // two entries a tensor
  return bytes;
}

/// Scales of an int8 tensor: one for each row of a matrix, one for anything flatter.
std::size_t rows_of(const std::vector<std::int64_t>& shape) {
  return shape.size() >= 2 ? static_cast<std::size_t>(shape[0]) : 1;
}

std::string text_of(const std::map<std::string, std::string>& metadata, const char* key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) throw CheckpointError(kWhere, std::string("its metadata lacks '") + key + "'");
  if (found->second.size() > kLongestText)
    throw CheckpointError(kWhere, std::string("its metadata '") + key + "' is too long");
  return found->second;
}

template <class T>
T number_of(const std::string& text, const std::string& key) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw CheckpointError(kWhere, "its metadata '" + key + "' is no number: '" + text.substr(0, 40) + "'");
  return value;
}

/// out -= base, from `begin`.
void subtract(const Array& base, std::size_t begin, std::span<double> out) {
  std::vector<double> from(out.size());
  load(base.dtype, base.bytes.data() + begin * element_bytes(base.dtype), from);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] -= from[i];
}

}  // namespace

const char* encoding_text(Encoding encoding) { return kNames[static_cast<std::size_t>(encoding)]; }

const std::vector<std::string>& encoding_names() {
  static const std::vector<std::string> names(std::begin(kNames), std::end(kNames));
  return names;
}

Encoding encoding_from(const std::string& name) {
  for (std::size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i]) return static_cast<Encoding>(i);
  throw ConfigError("encoding", "unknown name '" + name + "'", suggestion(name, encoding_names()));
}

std::uint64_t largest_update(const Layout& layout) {
  constexpr std::uint64_t kIndexAndDouble = 12;
  std::uint64_t bytes = 8 + largest_header(layout);
  for (const auto& [name, spec] : layout)
    bytes += kIndexAndDouble * count_of(spec.shape) + 4 * rows_of(spec.shape);
  return bytes;
}

Update::Update(std::string blob, const Layout& layout) : blob_(std::move(blob)) {
  if (blob_.size() > largest_update(layout))
    throw CheckpointError(kWhere, "has " + std::to_string(blob_.size()) + " bytes, at most " +
                                      std::to_string(largest_update(layout)) + " are expected here");
  SafetensorsHeader header =
      parse_safetensors(std::as_bytes(std::span(blob_)), kWhere, largest_header(layout));
  for (auto& [name, entry] : header.tensors) entry.begin += header.data;
  read_info(header.metadata);
  for (const auto& [name, spec] : layout) {
    const Encoding encoding = spec.group == Group::statistic ? Encoding::full : info_.encoding;
    sources_[name] = encoding == Encoding::int8_delta ? quantized(header, name, spec)
                     : encoding == Encoding::topk     ? sparse(header, name, spec)
                                                      : plain(header, name, spec);
  }
  if (used_ != header.tensors.size())
    for (const auto& [name, entry] : header.tensors) {
      const std::string stem = name.substr(0, name.rfind('#'));
      if (!layout.contains(name) && (stem == name || !layout.contains(stem)))
        refuse(name, "is not a tensor of this federation");
    }
  if (used_ != header.tensors.size())
    throw CheckpointError(kWhere, std::string("has tensors that the encoding ") +
                                      encoding_text(info_.encoding) + " does not have");
  header_bytes_ = header.data;
}

void Update::read_info(const std::map<std::string, std::string>& metadata) {
  const std::string schema = text_of(metadata, "schema");
  if (schema != kUpdateSchema)
    throw CheckpointError(kWhere, "is of schema '" + schema + "'",
                          std::string("this federation reads ") + kUpdateSchema);
  info_.run = text_of(metadata, "run");
  info_.task = text_of(metadata, "task");
  info_.round = number_of<std::uint32_t>(text_of(metadata, "round"), "round");
  info_.base = text_of(metadata, "base");
  info_.client = text_of(metadata, "client");
  info_.examples = number_of<std::int64_t>(text_of(metadata, "examples"), "examples");
  if (info_.examples < 0 || info_.examples > (std::int64_t{1} << 48))
    throw CheckpointError(kWhere, "claims " + std::to_string(info_.examples) + " examples");
  info_.strategy = text_of(metadata, "strategy");
  info_.strategy_version = text_of(metadata, "strategy_version");
  const std::string encoding = text_of(metadata, "encoding");
  if (std::find(std::begin(kNames), std::end(kNames), encoding) == std::end(kNames))
    throw CheckpointError(kWhere, "is of the unknown encoding '" + encoding + "'");
  info_.encoding = encoding_from(encoding);
  constexpr std::string_view kStatistic = "stat.";
  for (const auto& [key, text] : metadata) {
    if (!key.starts_with(kStatistic)) continue;
    const double value = number_of<double>(text, key.substr(0, kLongestText));
    if (!std::isfinite(value)) throw CheckpointError(kWhere, "its metadata '" + key + "' is not finite");
    if (key.size() > kLongestText || info_.statistics.size() >= kMostStatistics)
      throw CheckpointError(kWhere, "has too many or too long names of statistics");
    info_.statistics[key.substr(kStatistic.size())] = value;
  }
}

const SafetensorsEntry& Update::entry(const SafetensorsHeader& header, const std::string& name) {
  const auto found = header.tensors.find(name);
  if (found == header.tensors.end()) refuse(name, "is missing");
  ++used_;
  return found->second;
}

Update::Source Update::plain(const SafetensorsHeader& header, const std::string& name,
                             const TensorSpec& spec) {
  const SafetensorsEntry& found = entry(header, name);
  const bool values = info_.encoding == Encoding::full || spec.group == Group::statistic;
  const Dtype dtype = dtype_from(found.dtype, std::string(kWhere) + ": " + name);
  if (found.shape != spec.shape)
    refuse(name, "has the shape " + shape_text(found.shape) + ", not " + shape_text(spec.shape));
  if (values ? dtype != spec.dtype : !is_float(dtype))
    refuse(name, std::string("is of dtype ") + found.dtype + ", not " +
                     (values ? dtype_text(spec.dtype) : "a floating-point type"));
  return {dtype, found.begin, count_of(found.shape), values, false, 0, 0, {}};
}

Update::Source Update::quantized(const SafetensorsHeader& header, const std::string& name,
                                 const TensorSpec& spec) {
  const SafetensorsEntry &numbers = entry(header, name), &scales = entry(header, name + "#scale");
  const std::size_t count = count_of(spec.shape), rows = rows_of(spec.shape);
  if (numbers.shape != spec.shape)
    refuse(name, "has the shape " + shape_text(numbers.shape) + ", not " + shape_text(spec.shape));
  if (numbers.dtype != "I8") refuse(name, "is of dtype " + numbers.dtype + ", not I8");
  if (scales.dtype != "F32" || count_of(scales.shape) != rows)
    refuse(name + "#scale", "is not one F32 for each of " + std::to_string(rows) + " rows");
  for (std::size_t i = 0; i < count; ++i)
    if (data(numbers.begin)[i] == std::byte{0x80}) refuse(name, "holds -128, which int8-delta does not use");
  return {Dtype::i8, numbers.begin, count, false, false, scales.begin, rows == 0 ? 0 : count / rows, {}};
}

Update::Source Update::sparse(const SafetensorsHeader& header, const std::string& name,
                              const TensorSpec& spec) {
  const SafetensorsEntry &places = entry(header, name + "#index"), &numbers = entry(header, name + "#value");
  const std::size_t count = count_of(spec.shape);
  if (places.dtype != "I32" || places.shape.size() != 1 || numbers.shape != places.shape)
    refuse(name, "needs #index (I32) and #value of one length");
  const Dtype dtype = dtype_from(numbers.dtype, std::string(kWhere) + ": " + name);
  if (!is_float(dtype)) refuse(name, "is of dtype " + numbers.dtype + ", not a floating-point type");
  Source out{dtype, numbers.begin, count, false, true, 0, 0, {}};
  out.index.resize(count_of(places.shape));
  if (!out.index.empty())
    std::memcpy(out.index.data(), data(places.begin), out.index.size() * sizeof(std::int32_t));
  std::int64_t before = -1;
  for (const std::int32_t place : out.index) {
    if (place <= before || static_cast<std::size_t>(place) >= count)
      refuse(name + "#index", "is not ascending inside 0 .. " + std::to_string(count));
    before = place;
  }
  return out;
}

void Update::hash_header(Hasher& hasher) const {
  hasher.update(std::string_view(blob_).substr(0, header_bytes_));
}

void Update::hash_part(Hasher& hasher, const Source& source, std::size_t begin, std::size_t count) const {
  const std::size_t width = element_bytes(source.dtype);
  const auto take = [&](std::size_t at, std::size_t bytes) { hasher.update(std::span(data(at), bytes)); };
  if (source.row == 0 && !source.sparse) {
    take(source.at + begin * width, count * width);
  } else if (begin == 0) {
    take(source.at, (source.sparse ? source.index.size() : source.size) * width);
    hasher.update(std::as_bytes(std::span(source.index)));
    if (source.row > 0) take(source.scales, source.size / source.row * sizeof(float));
  }
}

std::optional<Update::Floats> Update::floats(const Source& source, const Array* base,
                                             std::size_t begin) const {
  if (!source.values || base == nullptr || source.dtype != Dtype::f32 || base->dtype != Dtype::f32)
    return std::nullopt;
  const std::size_t at = begin * element_bytes(Dtype::f32);
  return Floats{data(source.at) + at, base->bytes.data() + at};
}

void Update::delta(const Source& source, const Array* base, std::size_t begin, std::span<double> out) const {
  const std::size_t width = element_bytes(source.dtype);
  if (source.sparse) {
    std::fill(out.begin(), out.end(), 0.0);
    auto place = std::lower_bound(source.index.begin(), source.index.end(), static_cast<std::int32_t>(begin));
    for (; place != source.index.end() && static_cast<std::size_t>(*place) < begin + out.size(); ++place) {
      const auto nth = static_cast<std::size_t>(place - source.index.begin());
      load(source.dtype, data(source.at) + nth * width,
           out.subspan(static_cast<std::size_t>(*place) - begin, 1));
    }
    return;
  }
  if (const auto both = floats(source, base, begin)) {
    load_difference(both->value, both->base, out);
    return;
  }
  const bool minus = source.values && base != nullptr;
  load(source.dtype, data(source.at) + begin * width, out);
  if (source.row > 0)
    for (std::size_t i = 0; i < out.size(); ++i) {
      float scale = 0.0F;
      std::memcpy(&scale, data(source.scales) + (begin + i) / source.row * sizeof(float), sizeof(float));
      out[i] *= static_cast<double>(scale);
    }
  if (minus) subtract(*base, begin, out);
}

}  // namespace mcit::fed
