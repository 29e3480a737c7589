#pragma once
/// The model as a strategy sees it: named sites to put adapters on, base tensors to thaw, features to look
/// at.

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mcit/types.hpp"

namespace mcit {

/// How the rows that reach a site belong to sequences. Where a block runs on few rows of each sequence, the
/// layout lists those, and `first`, `last` and `last_prompt` are right where their row is among them.
struct RowLayout {
  Tensor sequence;                    ///< [N] int64: sequence of each row
  Tensor position;                    ///< [N] int64: position of each row in its sequence
  Tensor first;                       ///< [B] int64: first row of each sequence
  Tensor last;                        ///< [B] int64: last row of each sequence in this pass
  Tensor last_prompt;                 ///< [B] int64: last row of each sequence's prompt
  std::vector<std::int64_t> lengths;  ///< [B] rows of each sequence in the whole pass, prompts included
  bool decoding = false;              ///< true when each sequence adds one generated token
};

/// Vectors that a tower or decoder reads besides its own rows, the same number for each sequence of a batch.
struct MCIT_EXPORT Prompts {
  enum class Place {
    before_text,  ///< in front of everything
    after_first   ///< behind the first token, as a rule the one that begins every text
  };
  /// What block i reads at the added rows, [P, L, width]: layers[0] joins the embeddings, deeper entries
  /// replace what the block before made of them, undefined ones leave it. Empty: no prompts.
  std::vector<Tensor> layers;
  Place place = Place::after_first;   ///< in the decoder; in a CLIP tower prompts stand behind the first row
  std::vector<std::int64_t> entry{};  ///< [B] which of the P each sequence reads; empty: P is B, each its own
  bool bare = false;  ///< CLIP's class texts alone: prompts stand in place of the suite's template

  std::int64_t length() const { return layers.empty() ? 0 : layers.front().size(1); }
  /// The same with one entry a sequence, [B, L, width].
  Prompts each() const;
};

/// A linear classifier of pictures: scale · image_features weightᵀ + bias, with the scale of CLIP's scores.
struct ClassHead {
  Tensor weight;  ///< [classes, feature_dim]
  Tensor bias;    ///< [classes], or undefined
};

/// Routing of one batch. It travels with the forward pass, one entry per sequence, so that a batch may mix
/// tasks.
struct MCIT_EXPORT RouteContext {
  RowLayout rows;
  Prompts text;    ///< read by the decoder (CLIP: with each class text of an example), width hidden
  Prompts vision;  ///< read by the vision tower, width vision_hidden; it then runs in every pass
  /// CLIP: what scores the classes of a suite's task instead of the embeddings of their texts.
  std::map<std::int64_t, ClassHead> heads;
  std::vector<std::int64_t>
      task;  ///< [B] task used for routing: known in training, selected at inference; -1 unknown
  std::map<std::string, Tensor>
      memo;  ///< per site name: what an adapter decided at prefill and reuses while decoding

  /// Takes prompts and heads away, as the engine does before each micro-step and each batch of evaluation.
  void clear();
};

/// Which rows of its sequence decide what an adapter does with a row.
enum class Reads {
  own_row,          ///< the row itself
  first_row,        ///< its router reads the sequence's first row
  last_prompt_row,  ///< its router reads the last row of the sequence's prompt
  prompt_mean,      ///< its router reads the mean of the prompt's rows
  sequence          ///< mix() looks at other rows of z or logits by itself
};

/// What a router reads of a site's input: x [N, in] itself for own_row and sequence, else one row a sequence,
/// [B, in].
MCIT_EXPORT Tensor router_input(const Tensor& x, Reads reads, const RowLayout& rows);

/// The one form every adapter of this field takes at a linear site:
///
///     y += mix(drop(x) downᵀ, router_input(x) routeᵀ) upᵀ
///
/// LoRA scales, an expert mixture gates, a router picks. The site multiplies the rows of all its adapters'
/// `down` and `route` in one GEMM with the group's other sites, so an adapter inherits the speed by
/// describing itself.
class MCIT_EXPORT Adapter {
 public:
  Adapter() = default;
  Adapter(const Adapter&) = delete;
  Adapter& operator=(const Adapter&) = delete;
  virtual ~Adapter();

  virtual Tensor down() const = 0;  ///< [r, in]: A
  virtual Tensor up() const = 0;    ///< [out, k]: B
  /// [e, in]: a router's rows, which read the input without dropout; may be undefined, and may depend on the
  /// batch's tasks.
  virtual Tensor route(const RouteContext&) const { return {}; }
  virtual double dropout() const {
    return 0.0;
  }  ///< probability, applied to what `down` reads while training

  /// @param z      [N, r] = drop(x) downᵀ
  /// @param logits [N, e], or [B, e] where the router reads one row a sequence; undefined without route(),
  ///               and in the latter case also while tokens are generated: the adapter then uses what it put
  ///               into RouteContext::memo at prefill
  /// @param site   name of the site, the key for RouteContext::memo
  /// @return       [N, k], what multiplies upᵀ
  /// N is the number of rows that reach the site: those of route.rows in the decoder's blocks, and the
  /// pictures' rows in connector and tower, where only own_row adapters can be.
  virtual Tensor mix(const Tensor& z, const Tensor& logits, RouteContext& route,
                     const std::string& site) const = 0;

  /// The fewer rows an adapter reads, the fewer run through the top block: supervised ones and those read.
  virtual Reads reads() const { return Reads::own_row; }

  /// Tensors of this adapter by local name ("lora_A.weight"), trainable or not.
  virtual Parameters parameters() const = 0;
};
using AdapterPtr = std::shared_ptr<Adapter>;

/// A linear layer of the backbone, under its Hugging Face module name. Adapters are added by composition: the
/// base weight stays where it is.
class MCIT_EXPORT Site {
 public:
  Site(std::string name, Tensor weight, Tensor bias = {});

  const std::string& name() const { return name_; }
  const Tensor& weight() const { return weight_; }  ///< [out, in]
  const Tensor& bias() const { return bias_; }      ///< [out] or undefined
  std::int64_t in() const { return weight_.size(1); }
  std::int64_t out() const { return weight_.size(0); }

  /// @throws Error when the name is taken or a shape does not fit.
  void attach(const std::string& adapter_name, AdapterPtr adapter);
  void detach(const std::string& adapter_name);
  /// An inactive adapter keeps its tensors and leaves the output alone.
  void set_active(const std::string& adapter_name, bool active);
  /// Active adapters in the order they were attached.
  const std::vector<AdapterPtr>& active() const { return active_; }
  AdapterPtr adapter(const std::string& adapter_name) const;  ///< null when absent

 private:
  struct Entry {
    std::string name;
    AdapterPtr adapter;
    bool active = true;
  };
  Entry* find(const std::string& adapter_name);
  void refresh();

  std::string name_;
  Tensor weight_, bias_;
  std::vector<Entry> entries_;
  std::vector<AdapterPtr> active_;
};

/// Outputs of a training forward pass: only rows with a label are scored.
struct Forward {
  Tensor logits;    ///< [M, V] float32: V tokens, or (CLIP) classes, -inf where a row's task has fewer
  Tensor targets;   ///< [M] int64
  Tensor sequence;  ///< [M] int64: which example of the batch each row belongs to
};

/// Mean cross-entropy over the M supervised rows.
MCIT_EXPORT Tensor answer_loss(const Forward& out);

class MCIT_EXPORT Backbone {
 public:
  Backbone() = default;
  Backbone(const Backbone&) = delete;
  Backbone& operator=(const Backbone&) = delete;
  virtual ~Backbone();

  virtual const BackboneInfo& info() const = 0;
  virtual at::Device device() const = 0;
  virtual at::ScalarType dtype() const = 0;  ///< of the frozen weights; adapters are kept in float32

  /// Linear sites whose name matches: a list of suffixes "q_proj,v_proj" within the decoder, "decoder" for
  /// all its linears, "vision", "connector", "all", or a regular expression between slashes "/…/" over the
  /// whole name. CLIP's decoder is its text tower. @throws ConfigError when nothing matches.
  virtual std::vector<Site*> sites(std::string_view pattern) = 0;

  /// Base tensors by name: "connector" (CLIP: projections and scale), "decoder", "vision", "all", or
  /// "/regex/". They are leaves; set requires_grad to train one. Group "connector" for the connector, "base"
  /// for the rest.
  virtual Parameters parameters(std::string_view pattern) = 0;

  /// Logits at supervised rows, on the autograd graph when grad mode is on. Uses route() for adapters.
  virtual Forward forward(const Batch& batch) = 0;

  /// CLIP embeddings of the pictures and of the questions, unit length, without gradient; computed once for
  /// each. Rows without a picture are 0; a question is cut at what the text tower reads.
  virtual Tensor image_features(const Batch& batch) = 0;  ///< [B, feature_dim]
  virtual Tensor text_features(const Batch& batch) = 0;   ///< [B, feature_dim]

  /// What enters the first block for these examples: projected visual and text embeddings, prompts excluded.
  /// [N, hidden], without gradient.
  virtual Tensor input_embeddings(const Batch& batch) = 0;

  virtual RouteContext& route() = 0;
};

}  // namespace mcit
