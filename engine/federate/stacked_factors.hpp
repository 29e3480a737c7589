#pragma once
/// Frozen low-rank products beside a strategy's LoRA: what the rounds before have learnt, with the rule
/// "lora" and average = "stack".

#include <map>
#include <memory>
#include <string>

#include "fed/arrays.hpp"
#include "mcit/backbone.hpp"

namespace mcit {

class StackedFactors {
 public:
  static constexpr const char* kPrefix = "stack/";  ///< before the names of a LoRA's two factors

  /// Looks for the backbone's LoRAs, "<site>.lora_A.weight" and "<site>.lora_B.weight".
  explicit StackedFactors(Backbone& backbone);
  ~StackedFactors();

  /// Why these factors cannot be put beside the LoRAs; empty when they can.
  std::string objection(const fed::Arrays& model) const;
  /// y += s B A x with the "stack/<name>" of a model and the LoRA's own scale s, at each site of rank above
  /// 0.
  /// @throws DataError when objection() has one
  void load(const fed::Arrays& model);
  std::int64_t size() const;  ///< numbers held

 private:
  struct Place;
  std::map<std::string, std::unique_ptr<Place>> places_;  ///< by what stands before the factors' endings
};

}  // namespace mcit
