// The formula of Flops against what LibTorch is seen to multiply while a step runs.
#include <ATen/record_function.h>

#include "unit/split/tiny_split.hpp"
//
#include "torch_catch.hpp"

#include <catch2/generators/catch_generators.hpp>

namespace mcit::split {
namespace {

double seen = 0.0;  // a callback has no place for state of its own

double size(const at::RecordFunction& call, std::size_t input, std::int64_t dim) {
  return static_cast<double>(call.inputs()[input].toTensor().size(dim));
}

/// 2mnk of every matrix product; attention's two products forward, four backward (what a fused kernel
/// computes once more is not counted).
std::unique_ptr<at::ObserverContext> look(const at::RecordFunction& call) {
  const std::string name = call.name();
  if (name == "aten::mm") seen += 2.0 * size(call, 0, 0) * size(call, 0, 1) * size(call, 1, 1);
  if (name == "aten::addmm") seen += 2.0 * size(call, 1, 0) * size(call, 1, 1) * size(call, 2, 1);
  if (name == "aten::bmm")
    seen += 2.0 * size(call, 0, 0) * size(call, 0, 1) * size(call, 0, 2) * size(call, 1, 2);
  const bool forward = name == "aten::_scaled_dot_product_flash_attention_for_cpu",
             backward = name == "aten::_scaled_dot_product_flash_attention_for_cpu_backward";
  if (!forward && !backward) return nullptr;
  const std::size_t q = forward ? 0 : 1;  // [B, heads, L, d]
  seen += (forward ? 4.0 : 8.0) * size(call, q, 0) * size(call, q, 1) * size(call, q, 2) * size(call, q, 2) *
          size(call, q, 3);
  return nullptr;
}

class Watching {
 public:
  Watching() : handle_(at::addGlobalCallback(at::RecordFunctionCallback(look).needsInputs(true))) {
    seen = 0.0;
  }
  ~Watching() { at::removeCallback(handle_); }

 private:
  at::CallbackHandle handle_;
};

}  // namespace

TEST_CASE("the formula of FLOPs counts every product of a step") {
  const Fusion fusion = GENERATE(Fusion::early, Fusion::late);
  const bool heads = GENERATE(false, true);
  const std::int64_t blocks = GENERATE(0, 1, 2);
  const Base base = tiny::base(fusion, {Modality::image, Modality::text, Modality::audio});
  const ClientParts a = tiny::parts(base, "a", 6);
  const Inputs inputs = tiny::inputs(base, a.tasks[0].train);
  Training training;
  training.trained = {heads, blocks};
  const Flops each = flops_of(base.shape, inputs.present(), training.trained, true);
  Heads client(base);
  client.train(heads);
  Server server(base, training);
  INFO("heads " << heads << ", blocks " << blocks);
  Tokens tokens;
  {
    const Watching watching;
    tokens = client.forward(inputs);
    CHECK(seen == 6.0 * each.heads_forward);
  }
  std::map<std::string, Tensor> y;
  {
    const Watching watching;
    y = server.predict({{"a", tokens}}, true);
    CHECK(seen == 6.0 * each.body_forward);
  }
  {
    const Watching watching;
    server.learn({{"a", {1.0, at::ones_like(y.at("a"))}}}, 0);
    CHECK(seen == 6.0 * each.body_backward);
  }
  if (!heads) return;
  Tensor sum = at::zeros({}, at::kDouble);
  for (const auto& [modality, tensor] : tokens) sum = sum + tensor.sum();
  const Watching watching;
  sum.backward();
  CHECK(seen == 6.0 * each.heads_backward);
}

}  // namespace mcit::split
