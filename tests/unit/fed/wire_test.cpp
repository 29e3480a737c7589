// What travels: numbers, encodings, hashes; and damaged blobs.
#include <bit>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <cstring>
#include <limits>

#include "fuzz/memory_bound.hpp"
#include "mcit/errors.hpp"
#include "unit/fed/world.hpp"

using namespace mcit;
using namespace mcit::fed;
using namespace mcit::fed::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

std::uint16_t stored(Dtype dtype, double value) {
  std::uint16_t bits = 0;
  store(dtype, std::span(&value, 1), reinterpret_cast<std::byte*>(&bits));
  return bits;
}

double loaded(Dtype dtype, std::uint16_t bits) {
  double value = 0.0;
  load(dtype, reinterpret_cast<const std::byte*>(&bits), std::span(&value, 1));
  return value;
}

Layout layout_of(const Arrays& model) {
  Layout out;
  for (const auto& [name, array] : model) out[name] = {array.dtype, array.shape, Group::model};
  return out;
}

std::vector<double> decoded(const std::string& blob, const Layout& layout, const Arrays& base,
                            const std::string& name) {
  const Update update(blob, layout);
  std::vector<double> out(count_of(layout.at(name).shape));
  update.delta(update.source(name), &base.at(name), 0, out);
  return out;
}

}  // namespace

TEST_CASE("SHA-256 of the standard's examples") {
  // FIPS 180-4, example values of NIST's CSRC: "abc" and the empty message.
  CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST_CASE("half precision: IEEE 754 binary16") {
  // Bit patterns of the format's definition: 1.0, -2, largest, smallest normal, smallest subnormal, 1/3.
  const std::pair<double, std::uint16_t> exact[] = {{1.0, 0x3c00},       {-2.0, 0xc000},
                                                    {65504.0, 0x7bff},   {0x1.0p-14, 0x0400},
                                                    {0x1.0p-24, 0x0001}, {0.0, 0x0000}};
  for (const auto& [value, bits] : exact) {
    CHECK(stored(Dtype::f16, value) == bits);
    CHECK(loaded(Dtype::f16, bits) == value);
  }
  CHECK(stored(Dtype::f16, 1.0 / 3.0) == 0x3555);
  CHECK(stored(Dtype::f16, 65519.9) == 0x7bff);
  CHECK(stored(Dtype::f16, 65520.0) == 0x7c00);
  CHECK(stored(Dtype::f16, 0x1.0p-25) == 0x0000);        // a tie goes to even
  CHECK(stored(Dtype::f16, 0x1.8p-24) == 0x0002);        // so does this one
  CHECK(stored(Dtype::f16, 1.0 + 0x1.0p-11) == 0x3c00);  // and this
  CHECK(stored(Dtype::f16, 1.0 + 0x1.8p-10) == 0x3c02);
  CHECK(std::isnan(loaded(Dtype::f16, 0x7e00)));
  CHECK(std::isnan(loaded(Dtype::f16, stored(Dtype::f16, std::nan("")))));
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {  // every number goes through unchanged
    const auto half = static_cast<std::uint16_t>(bits);
    const double value = loaded(Dtype::f16, half);
    if (!std::isnan(value)) CHECK(stored(Dtype::f16, value) == half);
  }
}

TEST_CASE("bfloat16 is the upper half of a float32, rounded to even") {
  CHECK(stored(Dtype::bf16, 1.0) == 0x3f80);
  CHECK(stored(Dtype::bf16, 1.0 + 0x1.0p-8) == 0x3f80);
  CHECK(stored(Dtype::bf16, 1.0 + 0x1.8p-7) == 0x3f82);
  CHECK(loaded(Dtype::bf16, 0xc000) == -2.0);
  CHECK(std::isnan(loaded(Dtype::bf16, stored(Dtype::bf16, std::nan("")))));
}

TEST_CASE("a blob reads back, byte for byte") {
  Arrays arrays = small_model();
  arrays["empty"] = zeros(Dtype::f64, {0, 3});
  const std::string bytes = to_blob(arrays, {{"k", "v"}});
  const Blob blob = from_blob(bytes, "x");
  CHECK(blob.arrays == arrays);
  CHECK(blob.metadata.at("k") == "v");
  CHECK(to_blob(blob.arrays, blob.metadata) == bytes);
  CHECK_THROWS_MATCHES(from_blob(bytes.substr(0, bytes.size() - 1), "x"), CheckpointError,
                       MessageMatches(ContainsSubstring("outside the file")));
}

TEST_CASE("each encoding decodes to the difference, within what it promises") {
  const Arrays base = small_model(), model = trained(base, "ann", 1);
  const Layout layout = layout_of(base);
  const UpdateInfo info = info_of("ann", 1, "base");
  for (const std::string& name : encoding_names()) {
    INFO(name);
    const EncodeOptions options{encoding_from(name), Dtype::f32, 0.4};
    const std::string blob = encode_update(info, layout, model, base, options);
    CHECK(Update(blob, layout).info().encoding == options.encoding);
    CHECK(Update(blob, layout).info().examples == 10);
    for (const auto& [tensor, spec] : layout) {
      const std::vector<double> got = decoded(blob, layout, base, tensor);
      const std::vector<double> before = values_of(base.at(tensor)), after = values_of(model.at(tensor));
      const std::size_t row = spec.shape.size() == 2 ? static_cast<std::size_t>(spec.shape[1]) : got.size();
      std::vector<double> sizes;
      for (std::size_t i = 0; i < got.size(); ++i) sizes.push_back(std::fabs(after[i] - before[i]));
      std::vector<double> sorted = sizes;
      std::sort(sorted.rbegin(), sorted.rend());
      const auto kept = static_cast<std::size_t>(std::ceil(0.4 * static_cast<double>(got.size())));
      for (std::size_t i = 0; i < got.size(); ++i) {
        const double exact = after[i] - before[i];
        const std::size_t first = i / row * row;
        const double largest = *std::max_element(sizes.begin() + static_cast<std::ptrdiff_t>(first),
                                                 sizes.begin() + static_cast<std::ptrdiff_t>(first + row));
        if (options.encoding == Encoding::full) CHECK(got[i] == exact);
        if (options.encoding == Encoding::delta)
          CHECK(std::fabs(got[i] - exact) <= 0x1.0p-24 * std::fabs(exact));
        if (options.encoding == Encoding::int8_delta)  // half a step of the row's scale
          CHECK(std::fabs(got[i] - exact) <= largest / 127.0 * (0.5 + 1e-4));
        if (options.encoding == Encoding::topk)
          CHECK(got[i] ==
                (sizes[i] >= sorted[kept - 1] ? static_cast<double>(static_cast<float>(exact)) : 0.0));
      }
    }
  }
}

TEST_CASE("a part of a tensor decodes as the whole does") {
  const Arrays base = small_model(), model = trained(base, "ann", 1);
  const Layout layout = layout_of(base);
  for (const std::string& name : encoding_names()) {
    const std::string blob =
        encode_update(info_of("ann", 1, "b"), layout, model, base, {encoding_from(name), Dtype::bf16, 0.5});
    const Update update(blob, layout);
    const std::vector<double> whole = decoded(blob, layout, base, "site.lora_A.weight");
    for (std::size_t begin = 0; begin < 6; ++begin)
      for (std::size_t n = 1; begin + n <= 6; ++n) {
        std::vector<double> part(n);
        update.delta(update.source("site.lora_A.weight"), &base.at("site.lora_A.weight"), begin, part);
        CHECK(std::equal(part.begin(), part.end(), whole.begin() + static_cast<std::ptrdiff_t>(begin)));
      }
  }
}

TEST_CASE("error feedback: what lossy updates leave out comes later, and nothing is lost") {
  // x_t are the differences of T rounds; Σ decoded + residual = Σ x_t exactly, up to the sums' rounding.
  const Arrays base = small_model();
  const Layout layout = layout_of(base);
  for (const Encoding encoding : {Encoding::int8_delta, Encoding::topk}) {
    std::map<std::string, std::vector<double>> residual;
    std::vector<double> sent(5, 0.0), wanted(5, 0.0);
    for (std::uint32_t round = 1; round <= 20; ++round) {
      const Arrays model = trained(base, "ann", round);
      const std::string blob = encode_update(info_of("ann", round, "b"), layout, model, base,
                                             {encoding, Dtype::f32, 0.2}, &residual);
      const std::vector<double> got = decoded(blob, layout, base, "router.bias");
      const std::vector<double> after = values_of(model.at("router.bias"));
      const std::vector<double> before = values_of(base.at("router.bias"));
      for (std::size_t i = 0; i < 5; ++i) {
        sent[i] += got[i];
        wanted[i] += after[i] - before[i];
      }
    }
    for (std::size_t i = 0; i < 5; ++i)
      CHECK(std::fabs(sent[i] + residual["router.bias"][i] - wanted[i]) < 1e-12);
  }
}

TEST_CASE("what an encoding does not allow is refused") {
  const Arrays base = {{"w", floats({2, 2}, {0, 0, 0, 0})}}, model = {{"w", floats({2, 2}, {1, -2, 3, 4})}};
  const Layout layout = layout_of(base);
  const auto refuses = [&](Encoding encoding, const std::string& why, auto change) {
    const std::string blob =
        encode_update(info_of("a", 1, "b"), layout, model, base, {encoding, Dtype::f32, 0.5});
    Blob parts = from_blob(blob, "x");
    change(parts.arrays);
    CHECK_THROWS_MATCHES(Update(to_blob(parts.arrays, parts.metadata), layout), CheckpointError,
                         MessageMatches(ContainsSubstring(why)));
  };
  const auto numbers = [](std::vector<std::int64_t> shape, std::vector<double> values, Dtype dtype) {
    return array_of(dtype, std::move(shape), values);
  };
  refuses(Encoding::int8_delta, "-128", [&](Arrays& a) {
    a["w"] = numbers({2, 2}, {-128, 0, 0, 0}, Dtype::i8);
  });
  refuses(Encoding::int8_delta, "w#scale: is missing", [](Arrays& a) { a.erase("w#scale"); });
  refuses(Encoding::int8_delta, "one F32 for each of 2 rows", [&](Arrays& a) {
    a["w#scale"] = numbers({3}, {1, 1, 1}, Dtype::f32);
  });
  refuses(Encoding::topk, "ascending", [&](Arrays& a) { a["w#index"] = numbers({2}, {3, 3}, Dtype::i32); });
  refuses(Encoding::topk, "ascending", [&](Arrays& a) { a["w#index"] = numbers({2}, {-1, 3}, Dtype::i32); });
  refuses(Encoding::topk, "ascending", [&](Arrays& a) { a["w#index"] = numbers({2}, {0, 4}, Dtype::i32); });
  refuses(Encoding::topk, "of one length", [&](Arrays& a) { a["w#index"] = numbers({1}, {0}, Dtype::i32); });
  refuses(Encoding::topk, "does not have", [&](Arrays& a) {
    a["w"] = numbers({2, 2}, {0, 0, 0, 0}, Dtype::f32);
  });
  refuses(Encoding::delta, "floating-point", [&](Arrays& a) {
    a["w"] = numbers({2, 2}, {0, 0, 0, 0}, Dtype::i8);
  });
  refuses(Encoding::full, "not F32", [&](Arrays& a) { a["w"] = numbers({2, 2}, {0, 0, 0, 0}, Dtype::f16); });
}

TEST_CASE("damaged updates never break the server") {
  // 20000 mutations of honest updates of every encoding: each is accepted or refused, in bounded memory.
  const Arrays base = small_model(), model = trained(base, "ann", 1);
  const Layout layout = layout_of(base);
  std::vector<std::string> inputs;
  for (const std::string& name : encoding_names())
    inputs.push_back(
        encode_update(info_of("ann", 1, "b"), layout, model, base, {encoding_from(name), Dtype::f32, 0.5}));
  constexpr rlim_t kMegabytes = 32ULL << 20;
  const mcit::test::MemoryBound bound(kMegabytes);
  Rng rng(11);
  int refused = 0, taken = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string blob = inputs[rng.below(inputs.size())];
    for (std::uint64_t n = 1 + rng.below(4); n > 0; --n) {
      const std::size_t at = rng.below(blob.size());
      switch (rng.below(5)) {
        case 0:
          blob[at] = static_cast<char>(rng.next());
          break;
        case 1:
          blob[at] = static_cast<char>(blob[at] ^ (1 << rng.below(8)));
          break;
        case 2:
          blob.erase(at, 1 + rng.below(16));
          break;
        case 3:
          blob.insert(at, blob.substr(rng.below(blob.size()), 1 + rng.below(32)));
          break;
        default:
          blob[at] = static_cast<char>('0' + rng.below(10));
      }
      if (blob.empty()) blob = "x";
    }
    try {
      const Update update(blob, layout);
      for (const auto& [name, spec] : layout) {
        std::vector<double> out(count_of(spec.shape));
        update.delta(update.source(name), &base.at(name), 0, out);
      }
      ++taken;
    } catch (const CheckpointError&) {
      ++refused;
    }
  }
  CHECK(refused > 10000);
  CHECK(taken > 100);  // changes of numbers alone are nobody's to see
}
