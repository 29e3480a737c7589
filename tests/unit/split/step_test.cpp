// A step of split learning is a step of training on the joined batch. Everything in float64; the source of
// every expected number is autograd on one graph that holds all clients' heads and the body.
#include "unit/split/tiny_split.hpp"
//
#include "torch_catch.hpp"

#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "federate/tensors.hpp"
#include "mcit/errors.hpp"

namespace mcit::split {
namespace {

constexpr double kExact = 1e-12;

Training training(bool heads, std::int64_t blocks) {
  Training t;
  t.trained = {heads, blocks};
  t.steps = 4;
  t.batch = 100;  // all rows of a client
  t.schedule = "constant";
  t.warmup = 0.0;
  t.rate = 1e-2;
  t.head_rate = 2e-2;
  t.adamw.eps = 1e-2;  // the gradient of a key's bias is zero but for rounding, which AdamW would blow up
  return t;
}

double distance(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }

Message asked(Client& client, const Message& request) {
  return Message::decode(client.answer(request.encode()), client.id(), 1 << 24);
}

Message step_request(const std::string& kind, std::int64_t step) {
  Message out{kind, {}, {}};
  out.set("stage", std::int64_t{0});
  out.set("step", step);
  return out;
}

/// The exchange as the loop makes it, without the loop. @param silent who does not send its gradient
double split_step(Server& server, std::map<std::string, Client*> clients, std::int64_t step,
                  const std::string& silent = {}) {
  std::map<std::string, Tokens> tokens;
  for (const auto& [id, client] : clients) {
    const Message reply = asked(*client, step_request("tokens", step));
    expect_kind(reply, "tokens", id);
    for (const Modality modality : kModalities)
      if (const auto found = reply.arrays.find(name_of(modality)); found != reply.arrays.end())
        tokens[id][modality] = tensor_of_array(found->second, at::kDouble);
  }
  std::map<std::string, Server::Answer> answers;
  for (const auto& [id, y] : server.predict(tokens, true)) {
    Message request = step_request("predictions", step);
    request.arrays["y"] = array_of_tensor(y, at::kDouble);
    const Message reply = asked(*clients.at(id), request);
    expect_kind(reply, "gradient", id);
    if (id != silent)
      answers[id] = {reply.number("loss"), tensor_of_array(reply.arrays.at("y"), at::kDouble)};
  }
  const double loss = server.learn(answers, step);
  for (const auto& [id, gradients] : server.token_gradients()) {
    if (id == silent) continue;
    Message request = step_request("token_gradient", step);
    for (const auto& [modality, tensor] : gradients)
      request.arrays[name_of(modality)] = array_of_tensor(tensor, at::kDouble);
    expect_kind(asked(*clients.at(id), request), "done", id);
  }
  return loss;
}

/// One process with all rows: the body once, heads once a client.
struct Central {
  Body body;
  std::map<std::string, Heads> heads;
  std::map<std::string, std::unique_ptr<AdamW>> head_steps;
  std::unique_ptr<AdamW> body_steps;
  Training t;

  Central(const Base& base, const Training& settings, const std::vector<std::string>& clients)
      : body(base), t(settings) {
    body.train(t.trained.blocks);
    body_steps = std::make_unique<AdamW>(body.parameters(), t.adamw);
    for (const std::string& id : clients) {
      heads.emplace(id, base);
      heads.at(id).train(t.trained.heads);
      if (t.trained.heads) head_steps[id] = std::make_unique<AdamW>(heads.at(id).parameters(), t.adamw);
    }
  }

  double step(const Base& base, const std::map<std::string, const std::vector<Row>*>& rows,
              std::int64_t number) {
    std::map<Modality, std::vector<Tensor>> parts;
    std::vector<std::int64_t> labels;
    for (const auto& [id, some] : rows) {
      for (const auto& [modality, tensor] : heads.at(id).forward(tiny::inputs(base, *some)))
        parts[modality].push_back(tensor);
      for (const Row& row : *some) labels.push_back(row.label);
    }
    Tokens joined;
    for (const auto& [modality, tensors] : parts) joined[modality] = at::cat(tensors);
    const Tensor loss = at::cross_entropy_loss(body.forward(joined), at::tensor(labels, at::kLong));
    loss.backward();
    const auto rates = t.rates(number);
    body_steps->step(rates);
    body_steps->zero_grad();
    for (auto& [id, optimizer] : head_steps) {
      optimizer->step(rates);
      optimizer->zero_grad();
    }
    return loss.item<double>();
  }
};

void same_body(Server& server, Body& expected) {
  const Parameters found = server.body().parameters(), wanted = expected.parameters();
  REQUIRE(found.size() == wanted.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    INFO(found[i].name);
    CHECK(found[i].name == wanted[i].name);
    CHECK(distance(found[i].value, wanted[i].value) < kExact);
  }
}

}  // namespace

TEST_CASE("steps of split learning equal centralised steps on the joined batch") {
  const Fusion fusion = GENERATE(Fusion::early, Fusion::late);
  const bool heads = GENERATE(false, true);
  const std::int64_t blocks = GENERATE(0, 1, 2);
  const bool audio = GENERATE(false, true);
  const Base base = tiny::base(fusion, audio ? std::vector{Modality::image, Modality::text, Modality::audio}
                                             : std::vector{Modality::image, Modality::text});
  const Training t = training(heads, blocks);
  // Batches of 3, 1 and 5 rows: the mean over clients of means is not the mean over rows.
  const ClientParts a = tiny::parts(base, "a", 3), b = tiny::parts(base, "b", 1),
                    c = tiny::parts(base, "c", 5);
  Client first(a, base, t), second(b, base, t), third(c, base, t);
  Server server(base, t);
  Central central(base, t, {"a", "b", "c"});
  const std::map<std::string, const std::vector<Row>*> rows = {
      {"a", &a.tasks[0].train}, {"b", &b.tasks[0].train}, {"c", &c.tasks[0].train}};
  std::vector<Tensor> before;
  for (const Parameter& p : server.body().parameters()) before.push_back(p.value.detach().clone());
  for (std::int64_t step = 0; step < 3; ++step) {
    INFO("step " << step);
    const double loss = split_step(server, {{"a", &first}, {"b", &second}, {"c", &third}}, step);
    CHECK(std::abs(loss - central.step(base, rows, step)) < kExact);
    same_body(server, central.body);
  }
  // What does not train stayed where it was, what trains moved.
  const Parameters after = server.body().parameters();
  for (std::size_t i = 0; i < after.size(); ++i) {
    if (after[i].name.ends_with("k_proj.bias")) continue;  // softmax takes no notice of it
    INFO(after[i].name);
    CHECK((distance(after[i].value, before[i]) > 0.0) == after[i].value.requires_grad());
  }
}

TEST_CASE("a client that falls silent counts nothing, and the others' weights sum to one") {
  const Base base = tiny::base(GENERATE(Fusion::early, Fusion::late));
  const Training t = training(true, 2);
  const ClientParts a = tiny::parts(base, "a", 3), b = tiny::parts(base, "b", 4),
                    c = tiny::parts(base, "c", 2);
  Client first(a, base, t), second(b, base, t), third(c, base, t);
  Server server(base, t);
  Central central(base, t, {"a", "c"});
  const double loss = split_step(server, {{"a", &first}, {"b", &second}, {"c", &third}}, 0, "b");
  CHECK(std::abs(loss - central.step(base, {{"a", &a.tasks[0].train}, {"c", &c.tasks[0].train}}, 0)) <
        kExact);
  same_body(server, central.body);
}

TEST_CASE("labels and raw rows are not on the wire") {
  const Base base = tiny::base(Fusion::early, {Modality::image, Modality::text, Modality::audio});
  const Training t = training(true, 2);
  const ClientParts a = tiny::parts(base, "a", 2);
  Client client(a, base, t);
  const std::string sent = client.answer(step_request("tokens", 0).encode());
  const Message tokens = Message::decode(sent, "a", 1 << 20);
  CHECK(tokens.fields == std::map<std::string, std::string>{{"rows", "2"}});
  REQUIRE(tokens.arrays.size() == 3);
  CHECK(tokens.arrays.at("image").shape ==
        std::vector<std::int64_t>{2, 5, 12});  // class token, 2 x 2 patches
  CHECK(tokens.arrays.at("text").shape == std::vector<std::int64_t>{2, 3, 12});
  CHECK(tokens.arrays.at("audio").shape == std::vector<std::int64_t>{2, 2, 12});
  for (const Row& row : a.tasks[0].train) {
    CHECK(sent.find(std::string(reinterpret_cast<const char*>(row.picture->rgb.data()), 16)) ==
          std::string::npos);
    CHECK(sent.find(std::string(reinterpret_cast<const char*>(row.frames.data()), 16)) == std::string::npos);
    CHECK(sent.find(std::string(reinterpret_cast<const char*>(row.text.data()), 24)) == std::string::npos);
  }
}

TEST_CASE("a client answers what it cannot do with an error") {
  const Base base = tiny::base(Fusion::early);
  const ClientParts a = tiny::parts(base, "a", 2);
  Client client(a, base, training(false, 1));
  const auto says = [&](const std::string& request, const std::string& text) {
    const Message reply = Message::decode(client.answer(request), "a", 1 << 20);
    CHECK(reply.kind == "error");
    INFO(reply.fields.at("what"));
    CHECK(reply.fields.at("what").find(text) != std::string::npos);
  };
  says("nonsense", "no message");
  says(Message{"labels", {}, {}}.encode(), "does not know");
  says(Message{"tokens", {}, {}}.encode(), "is missing");
  Message far = step_request("tokens", 0);
  far.set("stage", std::int64_t{7});
  says(far.encode(), "no such task");
  far.fields["stage"] = "-1";
  says(far.encode(), "below 0");
  says(step_request("predictions", 0).encode(), "for nothing");
  says(step_request("token_gradient", 0).encode(), "for nothing");
  asked(client, step_request("tokens", 0));
  Message wrong = step_request("predictions", 0);
  wrong.arrays["y"] = array_of_tensor(at::zeros({2, 4}, at::kDouble), at::kDouble);
  says(wrong.encode(), "[2, 4] F64, expected floating-point [2, 5]");
  wrong.arrays["y"] =
      array_of_tensor(at::full({2, 5}, std::numeric_limits<double>::infinity(), at::kDouble), at::kDouble);
  says(wrong.encode(), "not finite");
}

}  // namespace mcit::split
