// Softmax regression on the image features of a frozen CLIP model.
#include <algorithm>

#include "mcit/errors.hpp"
#include "mcit/parts/state_reader.hpp"
#include "mcit/peers.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;

class LinearProbe final : public Strategy, public DataParallel {
 public:
  LinearProbe(const Params& params, Host&)
      : multi_task_(params.choice("setting", "stream", {"stream", "multi_task"}) == "multi_task") {}

  /// Tasks that choose among the same classes share a head.
  void on_stream_begin(const StreamInfo& stream) override {
    if (stream.backbone.family != "clip")
      throw UnsupportedBackbone("linear_probe", "classifies image features, and this model writes answers",
                                "it needs a suite of kind \"classify\"");
    for (const TaskInfo& task : stream.tasks) {
      const auto known = std::find(class_sets_.begin(), class_sets_.end(), task.answer_set);
      head_of_.push_back(static_cast<std::size_t>(known - class_sets_.begin()));
      if (known == class_sets_.end()) class_sets_.push_back(task.answer_set);
    }
  }

  std::vector<Stage> plan(const StreamInfo& stream) const override {
    return multi_task_ ? joint_plan(stream) : Strategy::plan(stream);
  }

  void attach(Backbone& backbone) override {
    const auto type = backbone.dtype() == at::kDouble ? at::kDouble : at::kFloat;
    const auto zeros = [&](at::IntArrayRef shape) {
      return at::zeros(shape, at::TensorOptions(type).device(backbone.device())).set_requires_grad(true);
    };
    for (const std::vector<std::string>& classes : class_sets_) {
      const auto count = static_cast<std::int64_t>(classes.size());
      heads_.push_back({zeros({count, backbone.info().feature_dim}), zeros({count})});
    }
  }

  void before_forward(Step& step) override { set_heads(step.backbone); }

  Selection select(const Batch&, Backbone& backbone) override {
    set_heads(backbone);
    return {};
  }

  Parameters parameters() const override {
    Parameters out;
    for (std::size_t i = 0; i < heads_.size(); ++i) {
      const std::string name = "heads." + std::to_string(i) + ".";
      out.push_back({name + "weight", heads_[i].weight});
      out.push_back({name + "bias", heads_[i].bias});
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
  void set_heads(Backbone& backbone) const {
    for (std::size_t task = 0; task < head_of_.size(); ++task)
      backbone.route().heads[static_cast<std::int64_t>(task)] = heads_[head_of_[task]];
  }

  bool multi_task_;
  std::vector<std::vector<std::string>> class_sets_;  ///< each different one once
  std::vector<std::size_t> head_of_;                  ///< by task
  std::vector<ClassHead> heads_;                      ///< one for each class set
};

}  // namespace

MCIT_PLUGIN("mcit-linear-probe", MCIT_VERSION,
            mcit::strategy<LinearProbe>("linear_probe", "Softmax regression on frozen CLIP image features"))
