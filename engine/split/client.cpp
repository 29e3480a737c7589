#include "split/client.hpp"

#include <algorithm>

#include "core/numbered_files.hpp"
#include "core/random.hpp"
#include "core/system.hpp"
#include "data/loader.hpp"
#include "federate/tensors.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"
#include "train/pretrain_parts.hpp"

namespace mcit::split {
namespace {

constexpr std::size_t kMostBytes = std::size_t{1} << 31;  // the transport has the tighter bound

struct Joined {
  Inputs inputs;
  Tensor labels;  ///< [B]
};

Joined collate(const std::vector<const Row*>& rows, const ClientParts& parts, const Shape& shape,
               at::ScalarType dtype) {
  std::vector<Tensor> pixels;
  std::vector<std::int64_t> text, labels;
  std::vector<float> frames;
  for (const Row* row : rows) {
    if (row->picture) pixels.push_back(parts.pixels(*row->picture));
    text.insert(text.end(), row->text.begin(), row->text.end());
    frames.insert(frames.end(), row->frames.begin(), row->frames.end());
    labels.push_back(row->label);
  }
  const auto count = static_cast<std::int64_t>(rows.size());
  const auto whole = [&](std::size_t have, std::size_t each, const char* what) {
    if (have != 0 && have != each * rows.size())
      throw DataError(parts.id, std::string("rows of one task differ in whether they have ") + what);
    return have != 0;
  };
  Joined out;
  if (whole(pixels.size(), 1, "a picture")) out.inputs.pixels = at::cat(pixels).to(dtype);
  if (whole(text.size(), static_cast<std::size_t>(shape.text_tokens), "a text"))
    out.inputs.text = at::tensor(text, at::kLong).view({count, shape.text_tokens});
  if (whole(frames.size(), static_cast<std::size_t>(shape.audio_frames * shape.audio_values), "a recording"))
    out.inputs.frames =
        at::tensor(frames, at::kFloat).view({count, shape.audio_frames, shape.audio_values}).to(dtype);
  out.labels = at::tensor(labels, at::kLong);
  return out;
}

}  // namespace

std::map<std::string, double> Training::rates(std::int64_t step) const {
  const auto warm = static_cast<std::int64_t>(warmup * static_cast<double>(steps));
  const double factor = factor_at(schedule, step, warm, steps);
  return {{"body", rate * factor}, {"heads", head_rate * factor}};
}

struct Client::State {
  ClientParts parts;
  Shape shape;
  Training training;
  at::ScalarType dtype;
  Heads heads;
  std::optional<Body> body;          ///< of method fedavg
  std::unique_ptr<AdamW> optimizer;  ///< of the heads, where they train in a split model
  const Base base;
  ClientCosts costs;

  Tokens sent;  ///< on the graph, until their gradient comes
  Tensor labels, scored_labels;

  State(ClientParts p, const Base& b, Training t)
      : parts(std::move(p)),
        shape(b.shape),
        training(std::move(t)),
        dtype(b.weights.at("text.embedding").scalar_type()),
        heads(b),
        base(b) {
    heads.train(training.trained.heads);
    if (training.trained.heads) optimizer = std::make_unique<AdamW>(heads.parameters(), training.adamw);
    costs.parameter_bytes = training_bytes(heads.parameters());
  }

  at::ScalarType wire() const { return training.wire.value_or(dtype); }
  Flops flops(const Inputs& inputs, bool learning) const {
    return flops_of(shape, inputs.present(), training.trained, learning);
  }
  const TaskRows& task(std::int64_t number) const {
    if (number >= static_cast<std::int64_t>(parts.tasks.size()))
      throw DataError(parts.id, "has no such task");
    return parts.tasks[static_cast<std::size_t>(number)];
  }
  std::vector<const Row*> train_rows(std::int64_t stage, std::int64_t step) const;
  std::vector<const Row*> test_rows(const Message& request, std::int64_t task_number) const;

  Message tokens(const Message& request, bool training_rows);
  Message gradient(const Message& request);
  Message token_gradient(const Message& request);
  Message scores(const Message& request);
  Message train(const Message& request);
  Message test(const Message& request);
  Message keep(const Message& request, bool saving);
  Message report();
  Parameters whole(const Message& request);
  Message dispatch(const Message& request);
};

std::vector<const Row*> Client::State::train_rows(std::int64_t stage, std::int64_t step) const {
  const std::vector<Row>& rows = task(stage).train;
  std::vector<const Row*> out;
  if (rows.empty()) return out;
  const BatchOrder order(std::vector<std::int64_t>(rows.size(), 1),
                         std::min<std::int64_t>(training.batch, static_cast<std::int64_t>(rows.size())),
                         derive(training.seed, {"split batches", std::string_view(parts.id), stage}));
  for (const std::int64_t row : order.batch(step)) out.push_back(&rows[static_cast<std::size_t>(row)]);
  return out;
}

std::vector<const Row*> Client::State::test_rows(const Message& request, std::int64_t number) const {
  const std::vector<Row>& rows = task(number).test;
  std::vector<const Row*> out;
  const std::int64_t first = request.integer("first"), count = request.integer("count", 1);
  for (std::int64_t i = first; i < std::min(first + count, static_cast<std::int64_t>(rows.size())); ++i)
    out.push_back(&rows[static_cast<std::size_t>(i)]);
  return out;
}

Message Client::State::tokens(const Message& request, bool learning) {
  const std::vector<const Row*> rows = learning
                                           ? train_rows(request.integer("stage"), request.integer("step"))
                                           : test_rows(request, request.integer("task"));
  Message out{"tokens", {}, {}};
  out.set("rows", static_cast<std::int64_t>(rows.size()));
  sent.clear();
  if (learning && optimizer && request.integer("step") == 0)  // a task begins, as on the server
    optimizer = std::make_unique<AdamW>(heads.parameters(), training.adamw);
  if (rows.empty()) return out;
  const Joined joined = collate(rows, parts, shape, dtype);
  const at::AutoGradMode graph(learning && training.trained.heads);
  sent = heads.forward(joined.inputs);
  (learning ? labels : scored_labels) = joined.labels;
  for (const auto& [modality, tensor] : sent) out.arrays[name_of(modality)] = array_of_tensor(tensor, wire());
  if (learning) {
    const Flops each = flops(joined.inputs, true);
    costs.flops += each.heads() * static_cast<double>(rows.size());
    costs.rows += static_cast<std::int64_t>(rows.size());
  }
  return out;
}

Message Client::State::gradient(const Message& request) {
  if (!labels.defined()) throw DataError(parts.id, "was sent predictions for nothing");
  const Tensor y =
      tensor_of_array(expect_array(request, "y", {labels.size(0), shape.classes}, "the server"), dtype);
  const at::AutoGradMode graph(true);
  const Tensor leaf = y.requires_grad_(true);
  const Tensor loss = at::cross_entropy_loss(leaf, labels);
  loss.backward();
  labels = Tensor();
  Message out{"gradient", {}, {{"y", array_of_tensor(leaf.grad(), wire())}}};
  out.set("loss", loss.item<double>());
  return out;
}

Message Client::State::token_gradient(const Message& request) {
  if (!optimizer || sent.empty()) throw DataError(parts.id, "was sent gradients for nothing");
  std::vector<Tensor> outputs, gradients;
  for (const auto& [modality, tensor] : sent)
    gradients.push_back(
        tensor_of_array(expect_array(request, name_of(modality), tensor.sizes().vec(), "the server"), dtype));
  // One pass for all modalities: d Σ <s, g> = g.
  const at::AutoGradMode graph(true);
  Tensor sum;
  std::size_t i = 0;
  for (const auto& [modality, tensor] : sent) {
    const Tensor part = (tensor * gradients[i++]).sum();
    sum = sum.defined() ? sum + part : part;
  }
  sum.backward();
  optimizer->step(training.rates(request.integer("step")));
  optimizer->zero_grad();
  sent.clear();
  return {"done", {}, {}};
}

Message Client::State::scores(const Message& request) {
  if (!scored_labels.defined()) throw DataError(parts.id, "was sent predictions for nothing");
  const std::int64_t rows = scored_labels.size(0);
  const Tensor y = tensor_of_array(expect_array(request, "y", {rows, shape.classes}, "the server"), dtype);
  Message out{"scores", {}, {}};
  out.set("rows", rows);
  out.set("correct", y.argmax(1).eq(scored_labels).sum().item<std::int64_t>());
  scored_labels = Tensor();
  return out;
}

/// Makes the whole model what the request says; returns its parameters.
Parameters Client::State::whole(const Message& request) {
  if (!body) {
    body.emplace(base);
    body->train(training.trained.blocks);
  }
  Parameters all = heads.parameters();
  const Parameters rest = body->parameters();
  all.insert(all.end(), rest.begin(), rest.end());
  std::erase_if(all, [](const Parameter& p) { return !p.value.requires_grad(); });
  const at::NoGradGuard no_grad;
  for (const Parameter& p : all)
    p.value.detach().copy_(
        tensor_of_array(expect_array(request, p.name, p.value.sizes().vec(), "the server"), dtype));
  costs.parameter_bytes =
      std::max(costs.parameter_bytes, training_bytes(heads.parameters()) + training_bytes(rest));
  return all;
}

Message Client::State::train(const Message& request) {
  const std::int64_t stage = request.integer("stage"), step = request.integer("step"),
                     steps = request.integer("steps", 1);
  Message out{"update", {}, {}};
  std::int64_t seen = 0;
  double sum = 0.0;
  if (!task(stage).train.empty()) {
    const Parameters learning = whole(request);
    AdamW local(learning, training.adamw);
    const at::AutoGradMode graph(true);
    for (std::int64_t i = step; i < step + steps; ++i) {
      const std::vector<const Row*> rows = train_rows(stage, i);
      const Joined joined = collate(rows, parts, shape, dtype);
      const Tensor loss = at::cross_entropy_loss(body->forward(heads.forward(joined.inputs)), joined.labels);
      loss.backward();
      local.step(training.rates(i));
      local.zero_grad();
      sum += loss.item<double>();
      const Flops each = flops(joined.inputs, true);
      costs.flops += (each.heads() + each.body()) * static_cast<double>(rows.size());
      seen += static_cast<std::int64_t>(rows.size());
    }
    costs.rows += seen;
    for (const Parameter& p : learning) out.arrays[p.name] = array_of_tensor(p.value, wire());
  }
  out.set("rows", seen);
  out.set("loss", sum / static_cast<double>(steps));
  return out;
}

Message Client::State::test(const Message& request) {
  whole(request);
  const at::NoGradGuard no_grad;
  Message out{"scores", {}, {}};
  std::int64_t correct = 0, seen = 0;
  Message chunk = request;
  for (;;) {
    chunk.set("first", seen);
    const std::vector<const Row*> rows = test_rows(chunk, request.integer("task"));
    if (rows.empty()) break;
    const Joined joined = collate(rows, parts, shape, dtype);
    correct +=
        body->forward(heads.forward(joined.inputs)).argmax(1).eq(joined.labels).sum().item<std::int64_t>();
    seen += static_cast<std::int64_t>(rows.size());
  }
  out.set("rows", seen);
  out.set("correct", correct);
  return out;
}

/// What has no file begins anew.
Message Client::State::keep(const Message& request, bool saving) {
  const std::int64_t place = request.integer("place");
  if (!saving) costs = {0.0, 0.0, 0, costs.parameter_bytes};
  if (!optimizer || parts.folder.empty()) return {"done", {}, {}};
  const NumberedFiles files(parts.folder / parts.id, "place");
  if (saving) {
    StateDict tensors = prefixed("optimizer/", optimizer->state());
    for (const Parameter& p : heads.parameters()) tensors["heads/" + p.name] = p.value.detach();
    write_safetensors(files.at(place), tensors);
    files.prune();
    return {"done", {}, {}};
  }
  const std::optional<std::filesystem::path> file = files.newest(place);
  const StateDict kept = file ? read_safetensors(*file).tensors : StateDict();
  Heads fresh(base);
  StateDict values = stripped("heads/", kept);
  if (!file)
    for (const Parameter& p : fresh.parameters()) values[p.name] = p.value;
  const at::NoGradGuard no_grad;
  for (const Parameter& p : heads.parameters()) {
    const auto found = values.find(p.name);
    if (found == values.end() || found->second.sizes() != p.value.sizes())
      throw CheckpointError(parts.folder.string(), "'" + p.name + "' is missing or has another shape",
                            "it belongs to a run with another model");
    p.value.detach().copy_(found->second);
  }
  optimizer = std::make_unique<AdamW>(heads.parameters(), training.adamw);
  if (file) optimizer->load_state(stripped("optimizer/", kept));
  return {"done", {}, {}};
}

Message Client::State::report() {
  Message out{"costs", {}, {}};
  out.set("flops", costs.flops);
  out.set("cpu_seconds", costs.cpu_seconds);
  out.set("rows", costs.rows);
  out.set("parameter_bytes", costs.parameter_bytes);
  std::int64_t train_count = 0, test_count = 0;
  for (const TaskRows& rows : parts.tasks) {
    train_count += static_cast<std::int64_t>(rows.train.size());
    test_count += static_cast<std::int64_t>(rows.test.size());
  }
  out.set("train_rows", train_count);
  out.set("test_rows", test_count);
  costs.flops = costs.cpu_seconds = 0.0;
  costs.rows = 0;
  return out;
}

Message Client::State::dispatch(const Message& request) {
  const std::string& kind = request.kind;
  if (kind == "tokens") return tokens(request, true);
  if (kind == "predictions") return gradient(request);
  if (kind == "token_gradient") return token_gradient(request);
  if (kind == "test_tokens") return tokens(request, false);
  if (kind == "test_predictions") return scores(request);
  if (kind == "train") return train(request);
  if (kind == "test") return test(request);
  if (kind == "save") return keep(request, true);
  if (kind == "load") return keep(request, false);
  if (kind == "costs") return report();
  throw DataError("the server", "asked for '" + kind + "', which this client does not know");
}

Client::Client(ClientParts parts, const Base& base, Training training)
    : state_(std::make_unique<State>(std::move(parts), base, std::move(training))) {}
Client::~Client() = default;

const std::string& Client::id() const { return state_->parts.id; }

std::int64_t Client::rows(bool test) const {
  std::int64_t out = 0;
  for (const TaskRows& rows : state_->parts.tasks)
    out += static_cast<std::int64_t>((test ? rows.test : rows.train).size());
  return out;
}

std::string Client::answer(std::string_view request) {
  const double before = cpu_seconds();
  Message out;
  bool training = false;
  try {
    const Message asked = Message::decode(request, "the server", kMostBytes);
    out = state_->dispatch(asked);
    training = asked.kind == "tokens" || asked.kind == "predictions" || asked.kind == "token_gradient" ||
               asked.kind == "train";
  } catch (const std::exception& e) {
    out = {"error", {{"what", cause_of(e)}}, {}};
  }
  std::string bytes = out.encode();
  if (training) state_->costs.cpu_seconds += cpu_seconds() - before;
  return bytes;
}

}  // namespace mcit::split
