// CLIP as a classifier: against transformers' numbers (tests/parity), and in float64 against towers written
// out below for one sequence at a time.
#include "model/clip_model.hpp"

#include <filesystem>
#include <limits>
#include <numeric>

#include "mcit/errors.hpp"
#include "model/mllm.hpp"
#include "model/safetensors.hpp"
#include "unit/tiny_clip.hpp"

#include "torch_catch.hpp"

using namespace mcit;
using tiny::TinyClip;

namespace {

using Layers = std::vector<Tensor>;
using Ids = std::vector<std::int64_t>;
constexpr double kExact = 1e-11;

double worst(const Tensor& a, const Tensor& b) {
  REQUIRE(a.sizes() == b.sizes());
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

Tensor norm(const StateDict& w, const std::string& name, const Tensor& x) {
  const Tensor centred = x - x.mean(-1, true);
  return centred / (centred.square().mean(-1, true) + 1e-5).sqrt() * w.at(name + ".weight") +
         w.at(name + ".bias");
}

Tensor linear(const StateDict& w, const std::string& name, const Tensor& x) {
  return at::matmul(x, w.at(name + ".weight").t()) + w.at(name + ".bias");
}

/// Puts prompts [L, D] behind the first row of x, in place of `replaced` rows.
Tensor behind_first(const Tensor& x, const Tensor& prompts, std::int64_t replaced) {
  return at::cat({x.slice(0, 0, 1), prompts, x.slice(0, 1 + replaced)});
}

/// The blocks of a tower on one sequence, x [rows, D].
Tensor blocks(const StateDict& w, const std::string& tower, std::int64_t count, Tensor x, bool causal,
              const Layers& prompts) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (const auto at = static_cast<std::size_t>(i); i > 0 && at < prompts.size() && prompts[at].defined())
      x = behind_first(x, prompts[at], prompts[at].size(0));
    const std::string name = tower + "encoder.layers." + std::to_string(i) + ".";
    const Tensor h = norm(w, name + "layer_norm1", x), q = linear(w, name + "self_attn.q_proj", h),
                 k = linear(w, name + "self_attn.k_proj", h), v = linear(w, name + "self_attn.v_proj", h);
    std::vector<Tensor> heads;
    for (std::int64_t at = 0; at < x.size(1); at += tiny::kHeadWidth) {
      const auto part = [&](const Tensor& of) { return of.narrow(1, at, tiny::kHeadWidth); };
      Tensor score = part(q).mm(part(k).t()) / std::sqrt(static_cast<double>(tiny::kHeadWidth));
      if (causal) score = score + at::full_like(score, -std::numeric_limits<double>::infinity()).triu(1);
      heads.push_back(score.softmax(-1).mm(part(v)));
    }
    x = x + linear(w, name + "self_attn.out_proj", at::cat(heads, 1));
    const Tensor g = linear(w, name + "mlp.fc1", norm(w, name + "layer_norm2", x));
    x = x + linear(w, name + "mlp.fc2", g * (1.702 * g).sigmoid());
  }
  return x;
}

Tensor unit(const Tensor& x) { return x / x.norm(); }

/// [P] of one text. @param prompts [L, D] a block
Tensor text_embedding(const StateDict& w, const Ids& ids, const Layers& prompts = {}) {
  std::vector<Tensor> rows;
  for (const std::int64_t id : ids) rows.push_back(w.at("text_model.embeddings.token_embedding.weight")[id]);
  Tensor x = at::stack(rows);
  if (!prompts.empty()) x = behind_first(x, prompts[0], 0);
  x = x + w.at("text_model.embeddings.position_embedding.weight").narrow(0, 0, x.size(0));
  x = blocks(w, "text_model.", tiny::kTextLayers, x, true, prompts);
  return unit(at::matmul(w.at("text_projection.weight"), norm(w, "text_model.final_layer_norm", x[-1])));
}

/// [P] of one picture. @param prompts [L, D] a block
Tensor image_embedding(const StateDict& w, const Tensor& pixels, const Layers& prompts = {}) {
  const Tensor patches = at::conv2d(pixels.unsqueeze(0),
                                    w.at("vision_model.embeddings.patch_embedding.weight"), {}, tiny::kPatch)
                             .flatten(2)[0]
                             .t();
  Tensor x = at::cat({w.at("vision_model.embeddings.class_embedding").unsqueeze(0), patches}) +
             w.at("vision_model.embeddings.position_embedding.weight");
  if (!prompts.empty()) x = behind_first(x, prompts[0], 0);
  x = blocks(w, "vision_model.", tiny::kVisionLayers, norm(w, "vision_model.pre_layrnorm", x), false,
             prompts);
  return unit(at::matmul(w.at("visual_projection.weight"), norm(w, "vision_model.post_layernorm", x[0])));
}

/// Scores of one example. @param text, vision what this example reads, [L, D] a block
Tensor oracle(const StateDict& w, const Example& example, const std::vector<Ids>& texts,
              const Layers& text = {}, const Layers& vision = {}) {
  const Tensor image = image_embedding(w, tiny::pixels(example.image), vision);
  std::vector<Tensor> scores;
  for (const Ids& ids : texts) scores.push_back(image.dot(text_embedding(w, ids, text)));
  return w.at("logit_scale").exp() * at::stack(scores);
}

std::vector<Ids> full(std::int64_t task) { return tiny::class_texts()[static_cast<std::size_t>(task)].full; }
std::vector<Ids> bare(std::int64_t task) { return tiny::class_texts()[static_cast<std::size_t>(task)].bare; }

/// [entries, L, width], a leaf.
Tensor prompts(const std::string& name, std::int64_t entries, std::int64_t width, std::int64_t length = 2) {
  return tiny::drawn(name, {entries, length, width}).set_requires_grad(true);
}

Prompts with_entries(Layers layers, Ids entry) {
  Prompts out;
  out.layers = std::move(layers);
  out.entry = std::move(entry);
  return out;
}

Layers of_entry(const Layers& layers, std::int64_t entry) {
  Layers out;
  for (const Tensor& layer : layers) out.push_back(layer.defined() ? layer.detach()[entry] : Tensor());
  return out;
}

Tensor loss_of(TinyClip& tiny, const Batch& batch) { return answer_loss(tiny.model.forward(batch)); }

/// d loss / d leaf against central differences of every element.
void check_gradient(const Tensor& leaf, const std::function<Tensor()>& loss) {
  constexpr double kStep = 1e-5;
  leaf.mutable_grad().reset();
  loss().backward();
  REQUIRE(leaf.grad().defined());
  const at::NoGradGuard no_grad;
  const Tensor values = leaf.detach().view(-1), gradient = leaf.grad().reshape(-1);
  CHECK(gradient.abs().max().item<double>() > 1e-6);
  for (std::int64_t i = 0; i < values.numel(); ++i) {
    const double value = values[i].item<double>();
    values[i] = value + kStep;
    const double above = loss().item<double>();
    values[i] = value - kStep;
    const double below = loss().item<double>();
    values[i] = value;
    CHECK(std::abs((above - below) / (2.0 * kStep) - gradient[i].item<double>()) < 1e-8);
  }
}

}  // namespace

TEST_CASE("clip: scores of classes are the logits of transformers") {
  const at::NoGradGuard no_grad;
  constexpr double kClipTolerance = 2e-5;  // the fixture's suggested_atol
  const auto folder = std::filesystem::path(MCIT_SOURCE_DIR) / "tests" / "parity" / "clip";
  const StateDict e = read_safetensors(folder / "expected.safetensors").tensors;
  ClipModel model(load_clip(folder / "checkpoint"));
  ClassTexts texts;
  for (std::int64_t c = 0; c < e.at("input.input_ids").size(0); ++c) {
    const Tensor row =
        e.at("input.input_ids")[c].masked_select(e.at("input.attention_mask")[c] == 1).contiguous();
    texts.full.emplace_back(row.const_data_ptr<std::int64_t>(),
                            row.const_data_ptr<std::int64_t>() + row.numel());
  }
  texts.bare = texts.full;
  model.set_classes({texts});
  const auto pixels = [&](const std::string& image) { return e.at("input.pixel_values")[std::stol(image)]; };
  model.set_images(
      {[&](const std::string& image) { return model.clip()->embed_images(pixels(image).unsqueeze(0))[0]; },
       pixels});
  Batch batch;
  for (std::int64_t b = 0; b < e.at("input.pixel_values").size(0); ++b)
    batch.examples.push_back(tiny::example(0, std::to_string(b), 0));
  CHECK(worst(model.scores(batch), e.at("logits")) < kClipTolerance);
  for (const Parameter& p : model.parameters("vision")) p.value.set_requires_grad(true);  // through the tower
  CHECK(worst(model.scores(batch), e.at("logits")) < kClipTolerance);
}

TEST_CASE("the tiny model scores as its towers written out do") {
  TinyClip tiny;
  const StateDict w = tiny::weights();
  for (std::int64_t task = 0; task < 3; ++task) {
    const Batch batch = tiny::examples(task, 3);
    const Tensor scores = tiny.model.scores(batch);
    for (std::int64_t b = 0; b < 3; ++b)
      CHECK(worst(scores[b], oracle(w, *batch.examples[static_cast<std::size_t>(b)], full(task))) < kExact);
    CHECK(tiny.model.classify(batch)[1] == scores[1].argmax().item<std::int64_t>());
  }
  const BackboneInfo& info = tiny.model.info();
  CHECK(info.family == "clip");
  CHECK(info.layers == tiny::kTextLayers);
  CHECK(info.hidden == tiny::kTextWidth);
  CHECK(info.vision_layers == tiny::kVisionLayers);
  CHECK(info.vision_hidden == tiny::kVisionWidth);
  CHECK(info.feature_dim == tiny::kProjection);
}

TEST_CASE("a batch mixes tasks with different classes") {
  TinyClip tiny;
  const Batch mixed{{tiny::example(1, "b", 1), tiny::example(0, "a", 2), tiny::example(2, "a", 1),
                     tiny::example(0, "c", 0)}};
  for (const Parameter& p : tiny.model.parameters("all")) p.value.set_requires_grad(true);
  const Forward out = tiny.model.forward(mixed);
  CHECK(out.targets.equal(at::tensor({1, 2, 1, 0}, at::kLong)));
  CHECK(out.sequence.equal(at::arange(4)));
  for (std::size_t b = 0; b < mixed.size(); ++b) {
    const Tensor alone = tiny.model.scores(Batch{{mixed.examples[b]}})[0];
    CHECK(worst(out.logits[static_cast<std::int64_t>(b)].narrow(0, 0, alone.size(0)), alone) < kExact);
  }
  CHECK(out.logits[0][2].item<double>() == -std::numeric_limits<double>::infinity());
  CHECK(worst(out.logits[1], out.logits[2]) < kExact);  // the same picture and classes
  CHECK(tiny.model.classify(mixed)[0] < 2);
  answer_loss(out).backward();
  for (const Parameter& p : tiny.model.parameters("all")) {
    INFO(p.name);
    REQUIRE(p.value.grad().defined());
    CHECK(p.value.grad().isfinite().all().item<bool>());
  }
}

TEST_CASE("shared prompts with an entry are the same as prompts given to each sequence") {
  TinyClip tiny;
  const Batch batch{{tiny::example(0, "a", 2), tiny::example(1, "b", 1), tiny::example(2, "c", 0)}};
  const Layers text = {prompts("t0", 2, tiny::kTextWidth), prompts("t1", 2, tiny::kTextWidth)},
               vision = {prompts("v0", 2, tiny::kVisionWidth), Tensor()};
  RouteContext& route = tiny.model.route();
  route.text = with_entries(text, {1, 0, 1});
  route.vision = with_entries(vision, {0, 1, 1});
  const Tensor shared = tiny.model.scores(batch);
  route.text = route.text.each();
  route.vision = route.vision.each();
  CHECK(route.text.entry.empty());
  CHECK(worst(tiny.model.scores(batch).nan_to_num(0, 0, 0), shared.nan_to_num(0, 0, 0)) < kExact);
  for (std::int64_t b = 0; b < 3; ++b) {  // each alone, with the one entry it reads
    const std::int64_t t = b == 1 ? 0 : 1, v = b == 0 ? 0 : 1;
    const auto only = [&](const Layers& layers, std::int64_t entry) {
      Layers out;
      for (const Tensor& layer : layers)
        out.push_back(layer.defined() ? layer.narrow(0, entry, 1) : Tensor());
      return with_entries(out, {0});
    };
    route.text = only(text, t);
    route.vision = only(vision, v);
    const Tensor alone = tiny.model.scores(Batch{{batch.examples[static_cast<std::size_t>(b)]}})[0];
    CHECK(worst(shared[b].narrow(0, 0, alone.size(0)), alone) < kExact);
  }
}

TEST_CASE("prompts of both towers, shallow and deep, as the towers written out read them") {
  TinyClip tiny;
  const StateDict w = tiny::weights();
  const Batch batch{{tiny::example(0, "a", 2), tiny::example(1, "b", 1)}};
  const Tensor t0 = prompts("t0", 2, tiny::kTextWidth), t1 = prompts("t1", 2, tiny::kTextWidth),
               t2 = prompts("t2", 2, tiny::kTextWidth), v0 = prompts("v0", 2, tiny::kVisionWidth, 3),
               v1 = prompts("v1", 2, tiny::kVisionWidth, 3);
  struct Case {
    Layers text, vision;
  };
  for (const Case& c : {Case{{t0}, {}}, Case{{}, {v0}}, Case{{t0, t1, t2}, {}}, Case{{t0, Tensor(), t2}, {}},
                        Case{{}, {v0, v1}}, Case{{t0, t1}, {v0, v1}}}) {
    tiny.model.route().text = with_entries(c.text, {1, 0});
    tiny.model.route().vision = with_entries(c.vision, {0, 1});
    const Tensor scores = tiny.model.scores(batch);
    for (std::int64_t b = 0; b < 2; ++b) {
      const Tensor expected = oracle(w, *batch.examples[static_cast<std::size_t>(b)], full(b),
                                     of_entry(c.text, 1 - b), of_entry(c.vision, b));
      CHECK(worst(scores[b].narrow(0, 0, expected.size(0)), expected) < kExact);
    }
  }
  // An undefined deep entry leaves what the block before made of the rows.
  tiny.model.route().vision = {};
  tiny.model.route().text = with_entries({t0, Tensor(), Tensor()}, {0, 0});
  const Tensor left = tiny.model.scores(batch);
  tiny.model.route().text = with_entries({t0}, {0, 0});
  CHECK(at::equal(tiny.model.scores(batch), left));
}

TEST_CASE("prompts with the values of words are the longer text") {
  TinyClip tiny;
  const Batch batch = tiny::examples(0, 2);
  const Tensor expected = tiny.model.scores(batch);
  const Tensor template_words =
      tiny.model.clip()->token_embedding().narrow(0, 1, 2).unsqueeze(0);  // "a picture of": ids 1 and 2
  Prompts& text = tiny.model.route().text;
  text = with_entries({template_words}, {0, 0});
  text.bare = true;
  CHECK(worst(tiny.model.scores(batch), expected) < kExact);
  text.bare = false;  // the template once more
  CHECK(worst(tiny.model.scores(batch), expected) > 1e-3);
}

TEST_CASE("bare prompts stand in front of the names alone") {
  TinyClip tiny;
  const StateDict w = tiny::weights();
  const Batch batch = tiny::examples(1, 2);
  const Layers text = {prompts("t0", 1, tiny::kTextWidth), prompts("t1", 1, tiny::kTextWidth)};
  tiny.model.route().text = with_entries(text, {0, 0});
  tiny.model.route().text.bare = true;
  const Tensor scores = tiny.model.scores(batch);
  for (std::int64_t b = 0; b < 2; ++b)
    CHECK(worst(scores[b], oracle(w, *batch.examples[static_cast<std::size_t>(b)], bare(1),
                                  of_entry(text, 0))) < kExact);
}

TEST_CASE("a head stands for the texts of its task") {
  TinyClip tiny;
  const StateDict w = tiny::weights();
  const Batch batch{{tiny::example(0, "a", 2), tiny::example(1, "b", 1), tiny::example(2, "c", 0)}};
  const Tensor weight = tiny::drawn("head", {3, tiny::kProjection}), bias = tiny::drawn("bias", {3});
  for (const bool biased : {true, false}) {
    tiny.model.route().heads = {{0, {weight, biased ? bias : Tensor()}}};
    const Tensor scores = tiny.model.scores(batch);
    Tensor expected = std::exp(std::log(5.0)) * weight.mv(image_embedding(w, tiny::pixels("a")));
    if (biased) expected = expected + bias;
    CHECK(worst(scores[0], expected) < kExact);
    CHECK(worst(scores[1].narrow(0, 0, 2), oracle(w, *batch.examples[1], full(1))) < kExact);
    CHECK(worst(scores[2], oracle(w, *batch.examples[2], full(2))) < kExact);  // not by its classes
  }
  tiny.model.route().clear();
  CHECK(worst(tiny.model.scores(batch)[0], oracle(w, *batch.examples[0], full(0))) < kExact);
}

TEST_CASE("gradients of prompts and heads are those of finite differences") {
  TinyClip tiny;
  tiny.model.set_training(true);
  const Batch batch{{tiny::example(0, "a", 2), tiny::example(1, "b", 1), tiny::example(0, "c", 0)}};
  const Layers text = {prompts("t0", 2, tiny::kTextWidth), prompts("t1", 2, tiny::kTextWidth)},
               vision = {prompts("v0", 1, tiny::kVisionWidth), prompts("v1", 1, tiny::kVisionWidth)};
  tiny.model.route().text = with_entries(text, {1, 0, 0});
  tiny.model.route().vision = with_entries(vision, {0, 0, 0});
  for (const Layers& layers : {text, vision})
    for (const Tensor& leaf : layers) check_gradient(leaf, [&] { return loss_of(tiny, batch); });
  tiny.model.route().clear();
  const Tensor weight = tiny::drawn("head", {3, tiny::kProjection}).set_requires_grad(true),
               bias = tiny::drawn("bias", {3}).set_requires_grad(true);
  tiny.model.route().heads = {{0, {weight, bias}}};
  for (const Tensor& leaf : {weight, bias}) check_gradient(leaf, [&] { return loss_of(tiny, batch); });
}

TEST_CASE("a frozen model reads stored features and computes its classes once") {
  TinyClip tiny;
  const Batch batch = tiny::examples(0, 3);
  const Tensor before = tiny.model.scores(batch);
  CHECK(tiny.features_read == 3);
  CHECK(tiny.pixels_read == 0);
  CHECK_FALSE(tiny.model.tower_changed());
  // A change that nobody announced is not seen: the texts are not embedded again, whichever task asks.
  Tensor first = tiny.model.parameters("/token_embedding/").front().value;
  const auto raw = [&](double by) {
    for (std::int64_t i = 0; i < first.numel(); ++i)
      first.data_ptr<double>()[i] += by * static_cast<double>(i);
  };
  raw(1.0);
  for (const bool training : {true, false}) {
    tiny.model.set_training(training);
    CHECK(at::equal(tiny.model.scores(batch), before));
    const at::NoGradGuard no_grad;
    CHECK(worst(tiny.model.scores(Batch{{tiny::example(2, "0/0", 0)}})[0], before[0]) < kExact);
  }
  raw(-1.0);

  for (const Parameter& p : tiny.model.parameters("all")) p.value.set_requires_grad(true);
  const std::int64_t stored = tiny.features_read;
  CHECK(tiny.model.tower_changed());
  CHECK(worst(tiny.model.scores(batch), before) < kExact);
  CHECK(tiny.features_read == stored);
  CHECK(tiny.pixels_read == 3);
}

TEST_CASE("weights that were trained and are frozen again are not taken for the first ones") {
  TinyClip tiny;
  const Batch batch = tiny::examples(0, 2);
  const at::NoGradGuard no_grad;
  const Tensor before = tiny.model.scores(batch);
  StateDict w = tiny::weights();
  for (const Parameter& p : tiny.model.parameters("all")) {
    p.value.mul_(1.1);
    w[p.name] = w.at(p.name) * 1.1;
  }
  tiny.model.set_training(false);
  const Tensor after = tiny.model.scores(batch);
  CHECK(worst(after, before) > 1e-3);
  for (std::int64_t b = 0; b < 2; ++b)
    CHECK(worst(after[b], oracle(w, *batch.examples[static_cast<std::size_t>(b)], full(0))) < kExact);
  CHECK(worst(tiny.model.image_features(batch)[0],
              image_embedding(w, tiny::pixels(batch.examples[0]->image))) < 1e-6);  // in float32
}

TEST_CASE("an evaluation embeds classes once for each prompt, and the next one anew") {
  TinyClip tiny;
  const at::NoGradGuard no_grad;
  const Batch batch = tiny::examples(0, 2);
  const StateDict w = tiny::weights();
  const Tensor leaf = prompts("t0", 1, tiny::kTextWidth);
  const auto scores = [&] {
    tiny.model.route().text = with_entries({leaf}, {0, 0});
    return tiny.model.scores(batch);
  };
  const auto expected = [&](const StateDict& weights) {
    return oracle(weights, *batch.examples[0], full(0), of_entry({leaf}, 0));
  };
  tiny.model.set_training(false);
  const Tensor first = scores();
  CHECK(worst(first[0], expected(w)) < kExact);
  leaf.mul_(2.0);  // other values in the same tensor
  CHECK(worst(scores()[0], expected(w)) < kExact);
  leaf.div_(2.0);
  tiny.model.route().text = with_entries({leaf}, {0, 0});  // the same values in front of other texts
  tiny.model.route().text.bare = true;
  CHECK(worst(tiny.model.scores(batch)[0], oracle(w, *batch.examples[0], bare(0), of_entry({leaf}, 0))) <
        kExact);
  // Other weights: within an evaluation nobody changes them, so what is known stands; then they are read.
  StateDict changed = w;
  for (const Parameter& p : tiny.model.parameters("/text_model/")) {
    p.value.mul_(1.1);
    changed[p.name] = w.at(p.name) * 1.1;
  }
  CHECK(at::equal(scores(), first));
  tiny.model.set_training(false);
  CHECK(worst(scores()[0], expected(changed)) < kExact);
}

TEST_CASE("an adapter in the text tower sees the task that an example is routed to") {
  struct ByTask final : Adapter {
    Tensor down() const override { return tiny::drawn("down", {1, tiny::kTextWidth}); }
    Tensor up() const override { return tiny::drawn("up", {tiny::kTextWidth, 1}); }
    Tensor mix(const Tensor& z, const Tensor&, RouteContext& route, const std::string&) const override {
      const Tensor task = at::tensor(route.task, at::kDouble).index_select(0, route.rows.sequence);
      return z * task.unsqueeze(1);
    }
    Parameters parameters() const override { return {}; }
  };
  TinyClip tiny;
  const at::NoGradGuard no_grad;
  const Batch batch = tiny::examples(0, 2);
  const Tensor plain = tiny.model.scores(batch);
  Site& site = *tiny.model.sites("/text_model.*layers.1.self_attn.v_proj/").front();
  site.attach("by task", std::make_shared<ByTask>());
  tiny.model.route().task = {0, 2};
  const Tensor routed = tiny.model.scores(batch);
  CHECK(worst(routed[0], plain[0]) < kExact);
  StateDict w = tiny::weights();
  Tensor& weight = w.at(site.name() + ".weight");
  weight =
      weight + 2.0 * tiny::drawn("up", {tiny::kTextWidth, 1}).mm(tiny::drawn("down", {1, tiny::kTextWidth}));
  CHECK(worst(routed[1], oracle(w, *batch.examples[1], full(0))) < kExact);
  CHECK_FALSE(tiny.model.tower_changed());
}

TEST_CASE("input embeddings are those of the class texts, once a task") {
  TinyClip tiny;
  const Batch batch{{tiny::example(1, "a", 0), tiny::example(1, "b", 1)}};
  const Tensor words = tiny.model.input_embeddings(batch), table = tiny.model.clip()->token_embedding();
  Ids ids;
  for (const Ids& text : full(1)) ids.insert(ids.end(), text.begin(), text.end());
  CHECK(at::equal(words, table.index_select(0, at::tensor(ids, at::kLong))));
}

TEST_CASE("what does not fit is an error") {
  TinyClip tiny;
  const Batch batch = tiny::examples(0, 2);
  RouteContext& route = tiny.model.route();
  const auto refused = [&] { CHECK_THROWS_AS(tiny.model.scores(batch), Error); };
  const Tensor good = prompts("t0", 2, tiny::kTextWidth), wide = prompts("t0", 2, tiny::kTextWidth + 1);
  route.text = with_entries({wide}, {0, 1});
  refused();
  route.text = with_entries({good, wide}, {0, 1});
  refused();
  route.text = with_entries({good, good, good, good}, {0, 1});
  refused();
  route.text = with_entries({good}, {0, 2});
  refused();
  route.text = with_entries({good}, {-1, 0});
  refused();
  route.text = with_entries({good}, {0});
  refused();
  route.text = with_entries({prompts("t0", 3, tiny::kTextWidth)}, {});
  refused();
  route.text = with_entries({good}, {0, 1});
  route.text.place = Prompts::Place::before_text;
  refused();
  route.text = with_entries({prompts("t0", 1, tiny::kTextWidth, tiny::kPositions)}, {0, 0});
  CHECK_THROWS_AS(tiny.model.scores(batch), DataError);
  route.clear();
  route.vision = with_entries({wide}, {0, 1});
  refused();
  route.clear();
  CHECK_NOTHROW(tiny.model.scores(batch));

  auto unlabelled = std::make_shared<Example>(*batch.examples[0]);
  unlabelled->labels.clear();
  CHECK_THROWS_AS(tiny.model.forward(Batch{{unlabelled}}), DataError);
  CHECK_THROWS_AS(tiny.model.scores(Batch{{tiny::example(3, "a", 0)}}), Error);
  CHECK_THROWS_AS(tiny.model.scores(Batch{{tiny::example(-1, "a", 0)}}), Error);
  CHECK_THROWS_AS(tiny.model.sites("k_proj_"), ConfigError);
  CHECK_THROWS_AS(tiny.model.parameters("k_proj_"), ConfigError);
}
