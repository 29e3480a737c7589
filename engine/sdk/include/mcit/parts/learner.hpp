#pragma once
/// What most methods train: an adapter on every target linear, and the connector.

#include <functional>
#include <string>
#include <vector>

#include "mcit/params.hpp"
#include "mcit/parts/adapter_set.hpp"
#include "mcit/parts/base_tensors.hpp"
#include "mcit/strategy.hpp"

namespace mcit::parts {

class MCIT_EXPORT Learner {
 public:
  using Factory = std::function<AdapterPtr(const Site&, const at::Generator&)>;

  /// Settings: targets ("decoder": where the adapters go), train_connector (true).
  Learner(const Params& params, std::string adapter_name, Factory factory);
  /// LoRA with the settings of LoraOptions as well; or, with full = true, the decoder's own tensors instead
  /// of adapters.
  static Learner lora(const Params& params);

  /// Adapters start so that the outputs do not change. @param generator draws their first values
  void attach(Backbone& backbone, const at::Generator& generator);

  Parameters parameters() const;
  StateDict state() const;  ///< copies
  void load(StateReader& reader) const;
  void load_state(const StateDict& state) const;  ///< for a strategy whose whole state this is
  std::int64_t size() const;                      ///< numbers held
  const AdapterSet& adapters() const { return adapters_; }
  AdapterSet& adapters() { return adapters_; }
  const BaseTensors& base() const { return base_; }

 private:
  Learner() = default;

  std::string targets_, adapter_name_;
  Factory factory_;                         ///< empty: no adapters
  std::vector<std::string> base_patterns_;  ///< base tensors to thaw
  AdapterSet adapters_;
  BaseTensors base_;
};

/// A strategy that trains one learner, with all written that must be: a method overrides the hooks that it is
/// about, and save() and load() for what it remembers besides.
class MCIT_EXPORT LearnerStrategy : public Strategy {
 public:
  ~LearnerStrategy() override;

  void attach(Backbone& backbone) override;
  Parameters parameters() const override;
  StateDict state() const override;
  void load_state(const StateDict& state) override;
  std::int64_t stored_parameters() const override;  ///< the learner's; what save() adds serves training

 protected:
  LearnerStrategy(Host& host, Learner learner);

  virtual void save(StateDict& state) const;  ///< adds copies, under names that no parameter has
  virtual void load(StateReader& reader);     ///< plans what save() wrote

  Host& host() const { return host_; }
  const Learner& learner() const { return learner_; }
  Learner& learner() { return learner_; }

 private:
  Host& host_;
  Learner learner_;
};

}  // namespace mcit::parts
