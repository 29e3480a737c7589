#pragma once
/// A LLaMA-shaped decoder over packed rows: RMSNorm, rotary positions, grouped heads, SwiGLU, key/value
/// cache.

#include <functional>
#include <memory>
#include <vector>

#include "mcit/backbone.hpp"
#include "model/hf_config.hpp"
#include "model/weights.hpp"

namespace mcit {

/// Linear layers that read the same input, their weights stacked in one storage.
struct SiteGroup {
  std::vector<std::unique_ptr<Site>> sites;
  std::vector<Site*> view;  ///< the same, as kernels take them
  Tensor weight, bias;      ///< [Σ out, in], [Σ out] or undefined; the sites' tensors are slices of these

  struct Part {
    std::string name;
    std::int64_t out;
  };
  /// Takes "<prefix><part>.weight" [out, in] and ".bias" [out] of each part.
  static SiteGroup take(Weights& weights, const std::string& prefix, const std::vector<Part>& parts,
                        std::int64_t in, bool bias);
};

/// Keys and values of the sequences being generated.
struct KvCache {
  std::vector<Tensor> keys, values;   ///< per block [B, kv_heads, capacity, head_dim]
  std::vector<std::int64_t> lengths;  ///< [B] positions in use
  Tensor position;                    ///< [B] int64, the same on the device: where the next row goes
  std::int64_t shared =
      0;  ///< leading positions that all sequences have in common and that are filled already
};

class Decoder {
 public:
  /// @param prefix of the tensor names, e.g. "language_model.model."
  /// @param head   name of the output head, e.g. "language_model.lm_head.weight"
  Decoder(DecoderConfig config, Weights& weights, const std::string& prefix, const std::string& head);

  Tensor embed(const Tensor& tokens) const;               ///< [N] -> [N, d]
  const Tensor& embedding() const { return embedding_; }  ///< [V, d]

  /// Hidden states after the final norm.
  /// @param x     [N, d] packed rows of route.rows
  /// @param keep  rows whose output is wanted (int64, ascending), or undefined for all: the top block's
  ///              queries and feed-forward run on these rows and those that its adapters read, the final norm
  ///              on these alone
  /// @param cache filled by a prefill behind its shared positions (`keep` is then the last row of each
  ///              sequence), extended by one row a sequence while route.rows.decoding; the caller counts
  ///              cache.lengths up
  /// @param prompt_rows rows of x that route.text added, [B·L]: where deeper prompts go; undefined without
  /// @param states what each block gives is added to it, for comparison with other implementations
  Tensor forward(Tensor x, RouteContext& route, const Tensor& keep, KvCache* cache, bool training,
                 const Tensor& prompt_rows = {}, std::vector<Tensor>* states = nullptr) const;

  /// Scores over the vocabulary, float32 (float64 for a float64 model).
  Tensor logits(const Tensor& hidden) const;

  /// Whether every active adapter reads its own row alone: what a row becomes is then the same in every
  /// sequence that begins with the same tokens.
  bool by_rows() const;

  const DecoderConfig& config() const { return config_; }
  void each_site(const std::function<void(Site&)>& visit) const;
  /// Tensors that are no site: embedding, norms, head.
  void each_tensor(const std::function<void(const std::string&, Tensor&)>& visit);

 private:
  struct Block {
    std::string name;
    Tensor input_norm, post_norm;
    SiteGroup qkv, o, gate_up, down;
  };
  /// @param few layout of the rows `keep`, where those alone are wanted
  Tensor attention(const Block& block, std::size_t index, const Tensor& x, RouteContext& route,
                   const Tensor& keep, const RowLayout& few, KvCache* cache, const Tensor& cos,
                   const Tensor& sin, bool training) const;
  void fill_cache(std::size_t index, const Tensor& k, const Tensor& v, KvCache& cache) const;
  Tensor attend_cached(std::size_t index, const Tensor& q, const Tensor& k, const Tensor& v,
                       KvCache& cache) const;
  Tensor attend_kept(const Tensor& q, const Tensor& k, const Tensor& v, const RowLayout& rows,
                     const Tensor& keep) const;
  /// Rows behind a shared beginning against the cache.
  Tensor attend_behind(std::size_t index, const Tensor& q, const RowLayout& rows, const KvCache& cache) const;
  /// One row of each sequence, at `position` [B], against the cache up to there.
  Tensor attend_last(std::size_t index, const Tensor& q, const Tensor& position, const KvCache& cache) const;
  static void each_reads(const Block& block, const std::function<void(Reads)>& visit);
  /// The rows that the top block runs on when `keep` are wanted: those and what its adapters read; undefined
  /// when they may read any.
  Tensor top_rows(const RowLayout& rows, const Tensor& keep) const;

  DecoderConfig config_;
  std::string prefix_, head_name_;
  Tensor embedding_, norm_, head_;
  std::vector<Block> blocks_;
  Tensor inverse_frequency_;  ///< [head_dim / 2] float32
};

}  // namespace mcit
