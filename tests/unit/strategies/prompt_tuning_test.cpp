// CoOp, VPT, MaPLe and the linear probe: what each trains, what each hands to the model, and how often it is
// counted. On the tiny CLIP of tiny_clip.hpp, on the fake MLLM, and on the LLaVA checkpoint of tests/parity.
#include <cstring>
#include <optional>
#include <set>

#include "model/mllm.hpp"
#include "unit/strategies/fake_backbone.hpp"
#include "unit/strategies/plugin_file.hpp"
#include "unit/tiny_clip.hpp"

#include "torch_catch.hpp"

using namespace mcit;
using tiny::TinyClip;

namespace {

using Settings = std::map<std::string, Params::Value>;

fake::StrategyPtr make(const std::string& name, Host& host, Settings settings = {}) {
  return fake::create(name == "linear_probe" ? name : "prompt_tuning", name, host, std::move(settings));
}

/// Three tasks as tiny::class_texts() has them: the first and the last share their classes.
StreamInfo stream(const BackboneInfo& backbone) {
  const std::vector<std::string> three = {"cat", "polar bear", "dog"}, two = {"steam boat", "car"};
  return {{{"photos", 4, 4, three}, {"vehicles", 4, 4, two}, {"sketches", 4, 4, three}}, 3, backbone};
}

/// A strategy on the tiny CLIP, and what the engine does with it.
struct World {
  explicit World(const std::string& name, Settings settings = {})
      : strategy(make(name, host, std::move(settings))) {
    const at::NoGradGuard no_grad;
    strategy->on_stream_begin(stream(clip.model.info()));
    strategy->attach(clip.model);
  }

  /// A training forward pass, on the graph.
  Forward forward(const Batch& batch) {
    const Task task;
    clip.model.set_training(true);
    Step step{.task = task, .backbone = clip.model, .batch = batch, .out = {}};
    clip.model.route().clear();
    {
      const at::NoGradGuard no_grad;
      strategy->before_forward(step);
    }
    return clip.model.forward(step.batch);
  }
  /// θ ← θ − rate g. @return the loss before
  double train(const Batch& batch, double rate = 0.05) {
    const Parameters trainable = strategy->parameters();
    for (const Parameter& p : trainable) p.value.mutable_grad().reset();
    const Tensor loss = answer_loss(forward(batch));
    loss.backward();
    for (const Parameter& p : trainable)
      if (p.value.grad().defined()) p.value.detach().sub_(p.value.grad() * rate);
    return loss.item<double>();
  }
  /// Scores of test rows.
  Tensor scores(const Batch& batch) {
    const at::NoGradGuard no_grad;
    clip.model.set_training(false);
    clip.model.route().clear();
    strategy->select(batch, clip.model);
    return clip.model.scores(batch);
  }
  Tensor value(const std::string& name) const {
    for (const Parameter& p : strategy->parameters())
      if (p.name == name) return p.value;
    throw std::runtime_error("no parameter " + name);
  }
  std::int64_t trained() const {
    std::int64_t total = 0;
    for (const Parameter& p : strategy->parameters()) total += p.value.numel();
    return total;
  }

  TinyClip clip;
  fake::FakeHost host;
  fake::StrategyPtr strategy;
};

/// The sizes of a model without the model.
class Sizes final : public Backbone {
 public:
  explicit Sizes(BackboneInfo info) : info_(std::move(info)) {}
  const BackboneInfo& info() const override { return info_; }
  at::Device device() const override { return at::kCPU; }
  at::ScalarType dtype() const override { return at::kBFloat16; }
  std::vector<Site*> sites(std::string_view) override { return {}; }
  Parameters parameters(std::string_view) override { return {}; }
  Forward forward(const Batch&) override { return {}; }
  Tensor image_features(const Batch&) override { return {}; }
  Tensor text_features(const Batch&) override { return {}; }
  Tensor input_embeddings(const Batch&) override { return {}; }
  RouteContext& route() override { return route_; }

 private:
  BackboneInfo info_;
  RouteContext route_;
};

BackboneInfo vit_b_16() { return {"clip", 12, 512, 49408, 12, 768, 196, 512}; }

double worst(const Tensor& a, const Tensor& b) {
  REQUIRE(a.sizes() == b.sizes());
  return (a.detach() - b.detach()).abs().max().item<double>();
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  const Tensor x = a.detach().contiguous(), y = b.detach().contiguous();
  return x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type() &&
         std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

const std::vector<std::string> kPromptMethods = {"coop", "vpt", "maple"};
const std::vector<std::string> kMethods = {"coop", "vpt", "maple", "linear_probe"};

}  // namespace

TEST_CASE("what is trained and kept, counted") {
  constexpr std::int64_t kText = tiny::kTextWidth, kVision = tiny::kVisionWidth;
  struct Case {
    const char* name;
    Settings settings;
    std::int64_t count;
  };
  const auto length = [](std::int64_t value) { return Params::Value(value); };
  for (const Case& c : {Case{"coop", {{"length", length(3)}}, 3 * kText},
                        Case{"vpt", {{"length", length(3)}}, tiny::kVisionLayers * 3 * kVision},
                        Case{"vpt", {{"length", length(3)}, {"depth", length(1)}}, 3 * kVision},
                        // as deep as the shallower tower, the vision tower
                        Case{"maple", {}, tiny::kVisionLayers * (2 * kText + kVision * kText + kVision)},
                        Case{"maple", {{"depth", length(1)}}, 2 * kText + kVision * kText + kVision},
                        Case{"linear_probe", {}, (3 + 2) * (tiny::kProjection + 1)}}) {
    INFO(c.name);
    World world(c.name, c.settings);
    CHECK(world.trained() == c.count);
    CHECK(world.strategy->stored_parameters() == c.count);
    std::set<std::string> names;
    for (const Parameter& p : world.strategy->parameters()) {
      CHECK(names.insert(p.name).second);
      CHECK(p.group == (std::string(c.name) == "linear_probe" ? "adapter" : "prompt"));
      CHECK(p.value.is_leaf());
      CHECK(p.value.requires_grad());
      CHECK(p.value.scalar_type() == at::kDouble);
    }
  }
}

TEST_CASE("counts on CLIP ViT-B/16, as docs/methods/clip_baselines.md has them") {
  const std::map<std::string, std::int64_t> expected = {
      {"coop", 16 * 512},
      {"vpt", 12 * 8 * 768},
      {"maple", 9 * (2 * 512 + 768 * 512 + 768)},  // 3.555 million
      {"linear_probe", 65 * 512 + 65}};
  StreamInfo office{.tasks = {},
                    .seed = 1,
                    .backbone = vit_b_16()};  // the four domains of Office-Home have the same 65 classes
  for (const char* domain : {"art", "clipart", "product", "real"})
    office.tasks.push_back({domain, 1, 1, std::vector<std::string>(65, "class")});
  for (const auto& [name, count] : expected) {
    INFO(name);
    Sizes backbone(vit_b_16());
    fake::FakeHost host;
    const auto strategy = make(name, host);
    strategy->on_stream_begin(office);
    strategy->attach(backbone);
    CHECK(strategy->stored_parameters() == count);
    for (const Parameter& p : strategy->parameters()) CHECK(p.value.scalar_type() == at::kFloat);
  }
}

TEST_CASE("fresh prompts are N(0, 0.02²), maps those of a linear layer, and a seed gives the same bytes") {
  const auto attached = [](const std::string& name, Host& host, Sizes& backbone) {
    auto strategy = make(name, host);
    strategy->attach(backbone);
    return strategy;
  };
  for (const std::string& name : kPromptMethods) {
    INFO(name);
    Sizes backbone(vit_b_16());
    fake::FakeHost host;
    const auto strategy = attached(name, host, backbone), again = attached(name, host, backbone);
    const Parameters all = strategy->parameters();
    const Tensor prompts = all[0].value.detach();
    CHECK(std::abs(prompts.mean().item<double>()) < 1e-3);
    CHECK(std::abs(prompts.std().item<double>() - 0.02) < 1e-3);
    for (std::size_t i = 1; i < all.size(); ++i) {
      const double bound = 1.0 / std::sqrt(512.0);
      CHECK(all[i].value.abs().max().item<double>() <= bound);
      CHECK(std::abs(all[i].value.std().item<double>() - bound / std::sqrt(3.0)) < 0.02 * bound);
    }
    for (std::size_t i = 0; i < all.size(); ++i)
      CHECK(same_bytes(all[i].value, again->parameters()[i].value));
    host.seed = 6;
    CHECK_FALSE(same_bytes(attached(name, host, backbone)->parameters()[0].value, prompts));
  }
}

TEST_CASE("each method hands the model its own prompts, one set for all sequences") {
  const Batch batch{{tiny::example(0, "a", 2), tiny::example(1, "b", 1), tiny::example(2, "c", 0)}};
  const std::vector<std::int64_t> shared = {0, 0, 0};
  for (const std::string& name : kPromptMethods) {
    for (const bool inference : {false, true}) {
      INFO(name);
      World world(name);
      if (inference)
        world.scores(batch);
      else
        world.forward(batch);
      const Prompts &text = world.clip.model.route().text, &vision = world.clip.model.route().vision;
      const Tensor prompts = world.value("prompts");
      CHECK(text.length() == (name == "vpt" ? 0 : prompts.size(1)));
      CHECK(vision.length() == (name == "coop" ? 0 : prompts.size(1)));
      CHECK(text.bare == (name != "vpt"));
      for (const Prompts* p : {&text, &vision}) {
        if (p->length() == 0) continue;
        CHECK(p->entry == shared);
        CHECK(p->place == Prompts::Place::after_first);
        REQUIRE(p->layers.size() == static_cast<std::size_t>(prompts.size(0)));
        for (const Tensor& layer : p->layers) CHECK((inference || layer.requires_grad()));  // on the graph
      }
      for (std::int64_t i = 0; i < prompts.size(0); ++i) {
        const auto at = static_cast<std::size_t>(i);
        CHECK(worst((name == "vpt" ? vision : text).layers[at][0], prompts[i]) == 0.0);
        if (name != "maple") continue;
        const Tensor w = world.value("map.weight")[i], b = world.value("map.bias")[i];
        for (std::int64_t l = 0; l < prompts.size(1); ++l)
          CHECK(worst(vision.layers[at][0][l], w.mv(prompts[i][l]) + b) < 1e-14);
      }
    }
  }
  World templated("coop", {{"bare", false}});
  templated.scores(batch);
  CHECK_FALSE(templated.clip.model.route().text.bare);
}

TEST_CASE("a gradient reaches what is trained and nothing else, and the loss falls") {
  const Batch batch{{tiny::example(0, "a", 2), tiny::example(1, "b", 1), tiny::example(2, "c", 0)}};
  for (const std::string& name : kMethods) {
    INFO(name);
    World world(name);
    const StateDict before = world.clip.model.clip()->tensors();
    std::map<std::string, Tensor> copies;
    for (const auto& [key, tensor] : before) copies[key] = tensor.clone();
    const double first = world.train(batch);
    for (const Parameter& p : world.strategy->parameters()) {
      INFO(p.name);
      REQUIRE(p.value.grad().defined());
      for (std::int64_t i = 0; i < p.value.size(0); ++i)  // every block and class
        CHECK(p.value.grad()[i].abs().max().item<double>() > 0.0);
    }
    for (const auto& [key, tensor] : before) {
      CHECK_FALSE(tensor.requires_grad());
      CHECK_FALSE(tensor.grad().defined());
      CHECK(same_bytes(tensor, copies.at(key)));
    }
    // Prompts of the text and heads leave the vision tower's stored features in use.
    const bool tower = name == "vpt" || name == "maple";
    CHECK((world.clip.pixels_read > 0) == tower);
    CHECK((world.clip.features_read > 0) == !tower);
    double last = first;
    for (int i = 0; i < 10; ++i) last = world.train(batch);
    CHECK(last < first);
  }
}

TEST_CASE("a state brings everything along, byte by byte") {
  const Batch batch{{tiny::example(0, "a", 2), tiny::example(1, "b", 1), tiny::example(2, "c", 0)}};
  for (const std::string& name : kMethods) {
    INFO(name);
    World whole(name), again(name);
    for (int i = 0; i < 3; ++i) whole.train(batch);
    const StateDict state = whole.strategy->state();
    again.strategy->load_state(state);
    CHECK(same_bytes(whole.scores(batch), again.scores(batch)));
    whole.train(batch);
    again.train(batch);
    for (const auto& [key, tensor] : whole.strategy->state()) {
      CHECK(same_bytes(tensor, again.strategy->state().at(key)));
      CHECK_FALSE(same_bytes(tensor, state.at(key)));  // a copy: training went on
    }
    StateDict incomplete = state;
    incomplete.erase(incomplete.begin());
    CHECK_THROWS_AS(again.strategy->load_state(incomplete), CheckpointError);
    StateDict foreign = state;
    foreign["foreign"] = at::zeros({1});
    CHECK_THROWS_AS(again.strategy->load_state(foreign), CheckpointError);
  }
}

TEST_CASE("all tasks in one stage, where the setting says so") {
  for (const std::string& name : kMethods) {
    fake::FakeHost host;
    CHECK(make(name, host)->plan(stream(vit_b_16())).size() == 3);
    const std::vector<Stage> stages =
        make(name, host, {{"setting", std::string("multi_task")}})->plan(stream(vit_b_16()));
    REQUIRE(stages.size() == 1);
    CHECK(stages[0].tasks == std::vector<std::int64_t>{0, 1, 2});
  }
}

TEST_CASE("wrong settings are errors before anything trains") {
  fake::FakeHost host;
  const auto number = [](std::int64_t value) { return Params::Value(value); };
  for (const std::string& name : kMethods) {
    CHECK_THROWS_AS(make(name, host, {{"setting", std::string("federated")}}), ConfigError);
    CHECK_THROWS_AS(make(name, host, {{"lenght", number(2)}}), ConfigError);
  }
  for (const std::string& name : kPromptMethods)
    CHECK_THROWS_AS(make(name, host, {{"length", number(0)}}), ConfigError);
  CHECK_THROWS_AS(make("coop", host, {{"depth", number(2)}}), ConfigError);
  CHECK_THROWS_AS(make("vpt", host, {{"bare", true}}), ConfigError);
  const TinyClip clip;
  for (const char* name : {"vpt", "maple"}) {
    CHECK_THROWS_AS(make(name, host, {{"depth", number(-1)}}), ConfigError);
    const auto begin = [&](std::int64_t depth) {
      make(name, host, {{"depth", number(depth)}})->on_stream_begin(stream(clip.model.info()));
    };
    CHECK_NOTHROW(begin(tiny::kVisionLayers));
    CHECK_THROWS_AS(begin(tiny::kVisionLayers + 1), ConfigError);  // the text tower alone is as deep
  }
}

TEST_CASE("a model without the tower that a method needs is refused when it is shown") {
  fake::FakeHost host;
  BackboneInfo info = vit_b_16();
  info.family = "llava";
  CHECK_THROWS_AS(make("linear_probe", host)->on_stream_begin(stream(info)), UnsupportedBackbone);
  info.vision_layers = 0;
  for (const char* name : {"vpt", "maple"})
    CHECK_THROWS_AS(make(name, host)->on_stream_begin(stream(info)), UnsupportedBackbone);
  CHECK_NOTHROW(make("coop", host)->on_stream_begin(stream(info)));
}

TEST_CASE("prompts train on an MLLM as well") {
  for (const std::string& name : kPromptMethods) {
    INFO(name);
    fake::FakeBackbone backbone;
    fake::FakeHost host;
    const auto strategy = make(name, host);
    fake::Run run(*strategy, backbone, host, 2);
    const StateDict before = strategy->state();
    for (std::int64_t stage = 0; stage < 2; ++stage) run.train(stage);
    CHECK(run.outputs().isfinite().all().item<bool>());
    CHECK_FALSE(same_bytes(strategy->state().at("prompts"), before.at("prompts")));
  }
}

TEST_CASE("prompts reach the decoder and the tower of a LLaVA model") {
  const auto checkpoint = std::string(MCIT_SOURCE_DIR) + "/tests/parity/llava/checkpoint";
  for (const std::string& name : kPromptMethods) {
    INFO(name);
    const auto model = Mllm::load(checkpoint);
    const std::int64_t side = model->config().vision.image_size;
    const Tensor picture = tiny::drawn("picture", {3, side, side}).to(at::kFloat);
    const Tensor features = model->vision_features(picture.unsqueeze(0)).detach();
    model->set_images({[&](const std::string&) { return features; },
                       [&](const std::string&) { return picture.unsqueeze(0); }});
    Batch batch;
    for (const std::int64_t word : {7, 8}) {  // with a picture, without one
      auto example = std::make_shared<Example>();
      example->tokens = {1};
      if (word == 7) {
        example->image = "picture";
        example->tokens.insert(example->tokens.end(), static_cast<std::size_t>(model->info().image_tokens),
                               model->config().image_token_id);
      }
      example->tokens.insert(example->tokens.end(), {5, word, 6});
      example->prompt_length = static_cast<std::int64_t>(example->tokens.size()) - 1;
      example->labels.assign(example->tokens.size(), -100);
      example->labels[static_cast<std::size_t>(example->prompt_length) - 1] = 6;
      batch.examples.push_back(std::move(example));
    }
    fake::FakeHost host;
    const auto strategy = make(name, host);
    strategy->attach(*model);
    const Task task;
    Step step{.task = task, .backbone = *model, .batch = batch, .out = {}};
    {
      const at::NoGradGuard no_grad;
      strategy->before_forward(step);
    }
    answer_loss(model->forward(batch)).backward();
    for (const Parameter& p : strategy->parameters()) {
      INFO(p.name);
      REQUIRE(p.value.grad().defined());
      for (std::int64_t i = 0; i < p.value.size(0); ++i)
        CHECK(p.value.grad()[i].abs().max().item<double>() > 0.0);
    }
  }
}

TEST_CASE("the linear probe's step is that of softmax regression") {
  World world("linear_probe");
  const Batch batch{{tiny::example(0, "a", 2), tiny::example(1, "b", 1), tiny::example(2, "c", 0),
                     tiny::example(0, "d", 1)}};
  constexpr double kRate = 0.3, kScale = 5.0;  // the tiny model's exp(logit_scale)
  // W ← W − rate · (s/B) Σ (p − y) fᵀ, b ← b − rate · (1/B) Σ (p − y), over the rows that a head scores
  const std::vector<std::vector<std::size_t>> rows_of = {{0, 2, 3}, {1}};
  std::vector<std::pair<Tensor, Tensor>> heads;
  for (const std::int64_t classes : {3, 2})
    heads.emplace_back(at::zeros({classes, tiny::kProjection}, at::kDouble),
                       at::zeros({classes}, at::kDouble));
  for (int step = 0; step < 3; ++step) {
    double loss = 0.0;
    for (std::size_t h = 0; h < heads.size(); ++h) {
      auto& [weight, bias] = heads[h];
      Tensor down_weight = at::zeros_like(weight), down_bias = at::zeros_like(bias);
      for (const std::size_t row : rows_of[h]) {
        const Example& example = *batch.examples[row];
        const at::NoGradGuard no_grad;
        const Tensor f = world.clip.untouched->embed_images(tiny::pixels(example.image).unsqueeze(0))[0];
        const Tensor p = (kScale * weight.mv(f) + bias).softmax(0);
        loss -= std::log(p[example.labels[0]].item<double>()) / 4.0;
        Tensor off = p.clone();
        off[example.labels[0]] -= 1.0;
        down_weight += kScale / 4.0 * off.unsqueeze(1) * f.unsqueeze(0);
        down_bias += off / 4.0;
      }
      weight -= kRate * down_weight;
      bias -= kRate * down_bias;
    }
    CHECK(std::abs(world.train(batch, kRate) - loss) < 1e-12);
    for (std::size_t h = 0; h < heads.size(); ++h) {
      const std::string name = "heads." + std::to_string(h) + ".";
      CHECK(worst(world.value(name + "weight"), heads[h].first) < 1e-12);
      CHECK(worst(world.value(name + "bias"), heads[h].second) < 1e-12);
    }
  }
}

TEST_CASE("tasks with the same classes share a head, and others keep theirs") {
  World world("linear_probe");
  CHECK(world.strategy->parameters().size() == 4);
  const Batch photo{{tiny::example(0, "a", 2)}}, sketch{{tiny::example(2, "a", 2)}},
      vehicle{{tiny::example(1, "a", 1)}};
  CHECK(worst(world.scores(photo), at::zeros({1, 3}, at::kDouble)) == 0.0);  // every class alike at first
  const Tensor before = world.scores(vehicle);
  world.train(photo);
  CHECK(world.clip.model.classify(photo)[0] == 2);
  CHECK(same_bytes(world.scores(sketch), world.scores(photo)));
  CHECK(world.scores(sketch).argmax().item<std::int64_t>() == 2);
  CHECK(same_bytes(world.scores(vehicle), before));
}
