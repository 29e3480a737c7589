#pragma once
/// What a client sends after its local training: one safetensors blob whose metadata says what it is. The
/// format is in docs/reference/federated.md.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/hash.hpp"
#include "fed/arrays.hpp"

namespace mcit::fed {

inline constexpr const char* kUpdateSchema = "mcit.update.1";

/// How a tensor takes part in a round.
enum class Group {
  model,     ///< trained by the client, relative to a base; counts in the update's norm
  control,   ///< a correction beside the model (SCAFFOLD), relative to zero
  statistic  ///< declared numbers about the client's data (an identity token); always sent as they are
};

struct TensorSpec {
  Dtype dtype = Dtype::f32;
  std::vector<std::int64_t> shape;
  Group group = Group::model;
};
/// Exactly the tensors that an update must have.
using Layout = std::map<std::string, TensorSpec>;

enum class Encoding {
  full,        ///< values, in the layout's dtype
  delta,       ///< value - base, as F64, F32, F16 or BF16
  int8_delta,  ///< value - base = scale x I8 in -127 .. 127; "<name>#scale" F32, one for each row
  topk         ///< the largest |value - base|: "<name>#index" I32 ascending, "<name>#value" floats
};
const char* encoding_text(Encoding encoding);  ///< "full", "delta", "int8-delta", "topk"
const std::vector<std::string>& encoding_names();
/// @throws ConfigError for an unknown name
Encoding encoding_from(const std::string& name);

struct UpdateInfo {
  std::string run;
  std::string task;  ///< what the client trained on, for the record
  std::uint32_t round = 0;
  std::string base;  ///< SHA-256 of the state that the round began with
  std::string client;
  std::int64_t examples = 0;
  std::string strategy, strategy_version;
  Encoding encoding = Encoding::full;
  std::map<std::string, double> statistics;  ///< "stat.<name>": a loss, a local accuracy
};

/// An update as it came, checked against a layout; numbers are decoded when they are read.
class Update {
 public:
  /// @param layout the memory that a hostile header may take is bounded by a multiple of its size
  /// @throws CheckpointError "update: <tensor>: what" for a malformed blob, and for a tensor that is missing,
  /// extra, or of another shape or dtype
  Update(std::string blob, const Layout& layout);

  const UpdateInfo& info() const { return info_; }
  std::size_t bytes() const { return blob_.size(); }

  /// A tensor of the layout as it lies in the blob: found once, by its name, for many reads.
  struct Source {
    Dtype dtype{};
    std::size_t at = 0;  ///< in blob_
    std::size_t size = 0;
    bool values = false;              ///< not a difference
    bool sparse = false;              ///< only `index` is not zero
    std::size_t scales = 0;           ///< int8: where they are
    std::size_t row = 0;              ///< int8: elements of a scale
    std::vector<std::int32_t> index;  ///< topk
  };
  const Source& source(const std::string& tensor) const { return sources_.at(tensor); }

  /// value - base of out.size() elements from `begin`. @param base null: zero
  void delta(const Source& tensor, const Array* base, std::size_t begin, std::span<double> out) const;
  /// Takes the header's bytes, or of a tensor those of `count` elements from `begin`; what is not stored
  /// element by element is taken whole at its beginning.
  void hash_header(Hasher& hasher) const;
  void hash_part(Hasher& hasher, const Source& tensor, std::size_t begin, std::size_t count) const;
  struct Floats {
    const std::byte *value, *base;
  };
  /// Where element `begin` and what it is compared with lie, if both are float32 and travel as they are:
  /// nearly always.
  std::optional<Floats> floats(const Source& tensor, const Array* base, std::size_t begin) const;

 private:
  void read_info(const std::map<std::string, std::string>& metadata);
  Source plain(const SafetensorsHeader& header, const std::string& name, const TensorSpec& spec);
  Source quantized(const SafetensorsHeader& header, const std::string& name, const TensorSpec& spec);
  Source sparse(const SafetensorsHeader& header, const std::string& name, const TensorSpec& spec);
  const SafetensorsEntry& entry(const SafetensorsHeader& header, const std::string& name);
  const std::byte* data(std::size_t at) const {
    return reinterpret_cast<const std::byte*>(blob_.data()) + at;
  }

  std::string blob_;
  std::size_t header_bytes_ = 0;
  UpdateInfo info_;
  std::map<std::string, Source> sources_;
  std::size_t used_ = 0;  ///< entries of the header that a tensor of the layout has taken
};

/// The most bytes that an honest update of this layout has.
std::uint64_t largest_update(const Layout& layout);

struct EncodeOptions {
  Encoding encoding = Encoding::full;
  Dtype dtype = Dtype::f32;  ///< of delta and topk values
  double fraction = 0.01;    ///< topk: share of each tensor's elements that travels
};

/// The client's side. @param model the tensors after training @param base those before (missing ones count as
/// zero) @param residual what the last lossy update left out, added to this one and replaced by what this one
/// leaves out (error feedback, Karimireddy et al. 2019); null: what does not fit is lost
std::string encode_update(const UpdateInfo& info, const Layout& layout, const ArrayViews& model,
                          const Arrays& base, const EncodeOptions& options,
                          std::map<std::string, std::vector<double>>* residual = nullptr);
inline std::string encode_update(const UpdateInfo& info, const Layout& layout, const Arrays& model,
                                 const Arrays& base, const EncodeOptions& options,
                                 std::map<std::string, std::vector<double>>* residual = nullptr) {
  return encode_update(info, layout, views_of(model), base, options, residual);
}

}  // namespace mcit::fed
