// Each hand-written kernel against the ATen composition that defines it, in value and gradient.
#include <torch/csrc/autograd/autograd.h>

#include "model/kernels.hpp"

#include "torch_catch.hpp"

using namespace mcit;

namespace {

Tensor leaf(at::IntArrayRef shape, std::uint64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randn(shape, generator, at::TensorOptions(at::kFloat)).set_requires_grad(true);
}

double worst(const Tensor& a, const Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

/// The float kernel and the double composition agree, and so do the gradients of a weighted sum of the
/// outputs.
void compare(const std::function<Tensor(const std::vector<Tensor>&)>& f, const std::vector<Tensor>& inputs) {
  std::vector<Tensor> wide;
  for (const Tensor& x : inputs)
    wide.push_back(x.detach().to(at::kDouble).set_requires_grad(x.requires_grad()));
  const Tensor y = f(inputs), reference = f(wide);
  CHECK(worst(y, reference) < 1e-5);
  const Tensor weight = at::linspace(-1.0, 1.0, y.numel(), at::kFloat).view(y.sizes());
  (y * weight).sum().backward();
  (reference * weight.to(at::kDouble)).sum().backward();
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].requires_grad()) CHECK(worst(inputs[i].grad(), wide[i].grad()) < 2e-5);
}

class Gate final : public Adapter {  // an expert mixture in small: two experts of rank two
 public:
  Gate(Tensor a, Tensor b, Tensor r) : a_(std::move(a)), b_(std::move(b)), r_(std::move(r)) {}
  Tensor down() const override { return a_; }
  Tensor up() const override { return b_; }
  Tensor route(const RouteContext&) const override { return r_; }
  Tensor mix(const Tensor& z, const Tensor& logits, RouteContext&, const std::string&) const override {
    return 2.0 * z * at::softmax(logits, -1).repeat_interleave(2, 1);
  }
  Parameters parameters() const override { return {}; }

 private:
  Tensor a_, b_, r_;
};

}  // namespace

TEST_CASE("rms_norm") {
  compare([](const std::vector<Tensor>& in) { return kernels::rms_norm(in[0], in[1], 1e-5); },
          {leaf({70, 24}, 1), leaf({24}, 2)});
}

TEST_CASE("swiglu") {
  compare([](const std::vector<Tensor>& in) { return kernels::swiglu(in[0]); }, {leaf({70, 36}, 3)});
}

TEST_CASE("rotary turns the first heads and leaves the rest") {
  const Tensor angle = leaf({9, 4}, 5).detach();
  compare(
      [&](const std::vector<Tensor>& in) {
        // times one: the kernel works in place on a value that is no leaf
        return kernels::rotary(in[0] * 1.0, angle.cos(), angle.sin(), 2, 8);
      },
      {leaf({9, 24}, 4)});
}

TEST_CASE("packed attention: even, padded and split layouts are one function") {
  for (const std::vector<std::int64_t>& lengths : {std::vector<std::int64_t>{7, 7}, {3, 9, 1}, {130, 100}}) {
    std::int64_t rows = 0;
    for (const std::int64_t n : lengths) rows += n;
    const auto reference = [&](const std::vector<Tensor>& in) {
      std::vector<Tensor> outs;
      std::int64_t at = 0;
      for (const std::int64_t n : lengths) {
        const Tensor q = in[0].narrow(0, at, n).transpose(0, 1),
                     k = in[1].narrow(0, at, n).transpose(0, 1).repeat_interleave(2, 0),
                     v = in[2].narrow(0, at, n).transpose(0, 1).repeat_interleave(2, 0);
        const Tensor scores = at::matmul(q, k.transpose(1, 2)) / std::sqrt(8.0);
        const Tensor hidden = at::ones({n, n}, at::kBool).triu(1);
        outs.push_back(at::matmul(at::softmax(scores.masked_fill(hidden, -1e30), -1), v)
                           .transpose(0, 1)
                           .reshape({n, 32}));
        at += n;
      }
      return at::cat(outs);
    };
    const std::vector<Tensor> in = {leaf({rows, 4, 8}, 6), leaf({rows, 2, 8}, 7), leaf({rows, 2, 8}, 8)};
    std::vector<Tensor> copy;
    for (const Tensor& x : in) copy.push_back(x.detach().clone().set_requires_grad(true));
    const Tensor y = kernels::packed_attention(in[0], in[1], in[2], lengths), expected = reference(copy);
    CHECK(worst(y, expected) < 1e-5);
    y.pow(2).sum().backward();
    expected.pow(2).sum().backward();
    for (std::size_t i = 0; i < in.size(); ++i) CHECK(worst(in[i].grad(), copy[i].grad()) < 1e-4);
  }
}

TEST_CASE("site_linear: frozen and trained weights, adapters with and without a router") {
  for (const bool train_weight : {false, true}) {
    RouteContext route;
    const auto run = [&](const std::vector<Tensor>& in) {
      const Tensor& fused = in[1];
      Tensor first = fused.narrow(0, 0, 6), second = fused.narrow(0, 6, 4);
      if (!train_weight) {
        first = first.detach();
        second = second.detach();
      }
      Site a("a", first), b("b", second);
      a.attach("x", std::make_shared<Gate>(in[2], in[3], in[4]));
      b.attach("x", std::make_shared<Gate>(in[5], in[6], in[7]));
      Site* sites[] = {&a, &b};
      return kernels::site_linear(in[0], sites, fused.detach(), {}, route, true);
    };
    Tensor weight = leaf({10, 5}, 11);
    weight.set_requires_grad(train_weight);
    compare(run, {leaf({12, 5}, 10), weight, leaf({4, 5}, 12), leaf({6, 4}, 13), leaf({2, 5}, 14),
                  leaf({4, 5}, 15), leaf({4, 4}, 16), leaf({2, 5}, 17)});
  }
}
