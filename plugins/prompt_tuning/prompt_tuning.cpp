// Prompts learned beside a frozen model, one set for all tasks: CoOp's (Zhou et al. 2022) with the text,
// VPT's (Jia et al. 2022) in the vision tower, MaPLe's (Khattak et al. 2023) in both.
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "mcit/causal.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/state_reader.hpp"
#include "mcit/peers.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;

constexpr std::int64_t kAllBlocks = std::numeric_limits<std::int64_t>::max();
constexpr double kDeviation = 0.02;  ///< of fresh prompts

/// What tells the methods apart.
struct Method {
  const char* name;
  bool text;            ///< learned vectors are read with the text, else by the vision tower
  bool coupled;         ///< the vision tower reads linear maps of them
  std::int64_t length;  ///< L by default
  std::int64_t depth;   ///< blocks with prompts of their own where the key `depth` is 0; 1: there is no key
};

constexpr Method kCoop{"coop", true, false, 16, 1}, kVpt{"vpt", false, false, 8, kAllBlocks},
    kMaple{"maple", true, true, 2, 9};

class PromptTuning : public Strategy, public Causal, public DataParallel {
 public:
  PromptTuning(const Method& method, const Params& params, Host& host)
      : method_(method),
        host_(host),
        length_(params.integer("length", method.length)),
        depth_(method.depth == 1 ? 0 : params.integer("depth", 0)),
        bare_(method.text && params.flag("bare", true)),
        multi_task_(params.choice("setting", "stream", {"stream", "multi_task"}) == "multi_task") {
    if (length_ < 1) throw ConfigError("strategy.length", "must be at least 1");
    if (depth_ < 0) throw ConfigError("strategy.depth", "must not be negative", "0 takes the method's own");
  }

  std::vector<Stage> plan(const StreamInfo& stream) const override {
    return multi_task_ ? joint_plan(stream) : Strategy::plan(stream);
  }

  void on_stream_begin(const StreamInfo& stream) override { depth_on(stream.backbone); }

  void attach(Backbone& backbone) override {
    const BackboneInfo& info = backbone.info();
    const std::int64_t depth = depth_on(info), width = method_.text ? info.hidden : info.vision_hidden;
    const at::Generator generator = host_.generator();
    // Drawn in float32 on the CPU, so that a seed means the same numbers everywhere.
    const at::TensorOptions drawn = at::kFloat;
    const auto leaf = [&](const Tensor& values) {
      const auto type = backbone.dtype() == at::kDouble ? at::kDouble : at::kFloat;
      return values.to(at::TensorOptions(type).device(backbone.device())).set_requires_grad(true);
    };
    prompts_ = leaf(at::randn({depth, length_, width}, generator, drawn) * kDeviation);
    if (!method_.coupled) return;
    const auto uniform = [&](at::IntArrayRef shape) {
      return leaf((at::rand(shape, generator, drawn) * 2.0 - 1.0) / std::sqrt(static_cast<double>(width)));
    };
    map_weight_ = uniform({depth, info.vision_hidden, width});
    map_bias_ = uniform({depth, info.vision_hidden});
  }

  void before_forward(Step& step) override {
    const at::AutoGradMode graph(true);  // the prompts are leaves of this micro-step
    insert(step.batch, step.backbone);
  }

  Selection select(const Batch& batch, Backbone& backbone) override {
    insert(batch, backbone);
    return {};
  }

  Parameters parameters() const override {
    Parameters out = {{"prompts", prompts_, "prompt"}};
    if (method_.coupled) {
      out.push_back({"map.weight", map_weight_, "prompt"});
      out.push_back({"map.bias", map_bias_, "prompt"});
    }
    return out;
  }
  StateDict state() const override { return parts::state_of(parameters()); }
  void load_state(const StateDict& state) override {
    parts::StateReader reader(state);
    parts::load_parameters(parameters(), reader);
    reader.commit();
  }

 private:
  /// How many blocks of this model have prompts. @throws ConfigError, UnsupportedBackbone where it cannot be
  std::int64_t depth_on(const BackboneInfo& info) const {
    const bool vision = method_.coupled || !method_.text;
    if (vision && info.vision_layers < 1)
      throw UnsupportedBackbone(method_.name, "its prompts are read by a vision tower, and there is none");
    const std::int64_t blocks = std::min(method_.text ? info.layers : kAllBlocks,  // of the shallower tower
                                         vision ? info.vision_layers : kAllBlocks);
    if (depth_ > blocks)
      throw ConfigError("strategy.depth", std::to_string(depth_) + " blocks cannot have prompts",
                        "there are " + std::to_string(blocks));
    return depth_ > 0 ? depth_ : std::min(method_.depth, blocks);
  }

  void insert(const Batch& batch, Backbone& backbone) const {
    const auto prompts = [&](const Tensor& values) {  // [depth, L, width], one entry that all sequences read
      Prompts out;
      out.layers = values.unsqueeze(1).unbind(0);
      out.entry.assign(batch.size(), 0);
      return out;
    };
    RouteContext& route = backbone.route();
    (method_.text ? route.text : route.vision) = prompts(prompts_);
    route.text.bare = bare_;
    if (method_.coupled)  // F_i(P_i) = P_i W_iᵀ + b_i
      route.vision = prompts(at::baddbmm(map_bias_.unsqueeze(1), prompts_, map_weight_.transpose(1, 2)));
  }

  const Method& method_;
  Host& host_;
  std::int64_t length_, depth_;  ///< as the settings say
  bool bare_, multi_task_;
  Tensor prompts_;                ///< [depth, L, d]
  Tensor map_weight_, map_bias_;  ///< [depth, d_v, d], [depth, d_v]: d_v the vision tower's width
};

template <const Method& method>
class Of final : public PromptTuning {
 public:
  Of(const Params& params, Host& host) : PromptTuning(method, params, host) {}
};

}  // namespace

MCIT_PLUGIN("mcit-prompt-tuning", MCIT_VERSION,
            mcit::strategy<Of<kCoop>>("coop", "CoOp: learned context in front of each class name"),
            mcit::strategy<Of<kVpt>>("vpt", "VPT: learned prompts in every block of the vision tower"),
            mcit::strategy<Of<kMaple>>("maple",
                                       "MaPLe: deep text prompts, and vision prompts mapped from them"))
