#include "model/clip_model.hpp"

#include <torch/types.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

const NameGroups kNames{{"text_model."},
                        "vision_model.",
                        {"visual_projection.", "text_projection.", "logit_scale", "logit_bias"}};

/// Whether a tensor of this name has a part in image embeddings.
bool embeds_images(const std::string& name) {
  return name.starts_with(kNames.vision) || name.starts_with("visual_projection");
}

bool same(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Tensor& x, const Tensor& y) {
    return x.defined() == y.defined() && (!x.defined() || at::equal(x, y));
  });
}

/// What one entry says, for `count` texts.
Prompts of_entry(const Prompts& prompts, std::int64_t entry, std::int64_t count) {
  Prompts out = prompts;
  out.entry.assign(static_cast<std::size_t>(count), entry);
  return out.each();
}

}  // namespace

ClipModel::ClipModel(std::shared_ptr<Clip> clip) : clip_(std::move(clip)) {
  const ClipConfig& c = clip_->config();
  clip_->each_tensor([&](const std::string& name, Tensor& tensor) {
    device_ = tensor.device();
    if (embeds_images(name))
      vision_.add(tensor);
    else if (name != "logit_scale")
      text_.add(tensor);
    if (tensor.is_floating_point()) dtype_ = tensor.scalar_type();
  });
  clip_->each_site([&](Site& site) { (site.name().starts_with(kNames.vision) ? vision_ : text_).add(site); });
  info_ = {"clip",
           c.text.num_hidden_layers,
           c.text.hidden_size,
           c.text.vocab_size,
           c.vision.num_hidden_layers,
           c.vision.hidden_size,
           c.vision.patches(),
           c.projection_dim};
}

void ClipModel::set_classes(std::vector<ClassTexts> tasks) {
  sets_.clear();
  set_of_.clear();
  plain_.clear();
  known_.clear();
  for (ClassTexts& task : tasks) {
    const auto found = std::find(sets_.begin(), sets_.end(), task);
    set_of_.push_back(static_cast<std::size_t>(found - sets_.begin()));
    if (found == sets_.end()) sets_.push_back(std::move(task));
  }
}

void ClipModel::set_training(bool training) {
  training_ = training;
  known_.clear();  // whatever happens between two evaluations may change the weights
}

std::vector<Site*> ClipModel::sites(std::string_view pattern) {
  const auto wanted = name_filter(pattern, kNames);
  std::vector<Site*> out;
  clip_->each_site([&](Site& site) {
    if (wanted(site.name())) out.push_back(&site);
  });
  if (out.empty())
    throw ConfigError(std::string(pattern), "matches no linear site of the CLIP towers",
                      R"(try "decoder" (the text tower), "vision", "q_proj,v_proj" or "/regex/")");
  return out;
}

Parameters ClipModel::parameters(std::string_view pattern) {
  const auto wanted = name_filter(pattern, kNames);
  Parameters out;
  for (const auto& [name, tensor] : clip_->tensors())
    if (wanted(name)) out.push_back({name, tensor, in_connector(name, kNames) ? "connector" : "base"});
  if (out.empty())
    throw ConfigError(std::string(pattern), "matches no tensor of the CLIP towers",
                      R"(try "decoder" (the text tower), "vision", "connector", "all" or "/regex/")");
  return out;
}

std::string ClipModel::tower_hash() {
  Hasher hasher;
  hash_tensors(hasher, clip_->tensors(), embeds_images);
  return hasher.hex();
}

Tensor ClipModel::stored_embeddings(const Batch& batch) const {
  std::vector<Tensor> rows;
  for (const ExamplePtr& example : batch.examples) rows.push_back(images_.features(example->image));
  return at::stack(rows).to(device_, dtype_);
}

Tensor ClipModel::image_embeddings(const Batch& batch) {
  if (!tower_changed()) return stored_embeddings(batch);
  check_prompts(route_.vision, batch.size(), info_.vision_hidden, info_.vision_layers, "vision");
  std::vector<Tensor> pixels;
  for (const ExamplePtr& example : batch.examples) pixels.push_back(images_.pixels(example->image));
  return clip_->embed_images(at::stack(pixels).to(device_, dtype_), training_, route_.vision.each());
}

Tensor ClipModel::image_features(const Batch& batch) {
  const at::NoGradGuard no_grad;
  if (!vision_.changed()) return stored_embeddings(batch).to(at::kFloat);
  std::vector<Tensor> rows;
  for (const ExamplePtr& example :
       batch.examples)  // one at a time: a product's last digits depend on its size
    rows.push_back(clip_->embed_images(images_.pixels(example->image).unsqueeze(0).to(device_, dtype_)));
  return at::cat(rows).to(at::kFloat);
}

Tensor ClipModel::text_features(const Batch& batch) {
  return at::zeros({static_cast<std::int64_t>(batch.size()), info_.feature_dim},
                   at::TensorOptions(at::kFloat).device(device_));
}

Tensor ClipModel::input_embeddings(const Batch& batch) {
  const at::NoGradGuard no_grad;
  std::set<std::int64_t> tasks;
  std::vector<std::int64_t> ids;
  for (const ExamplePtr& example : batch.examples)
    if (tasks.insert(example->task).second)
      for (const auto& text : sets_[set_of_.at(static_cast<std::size_t>(example->task))].full)
        ids.insert(ids.end(), text.begin(), text.end());
  return at::embedding(clip_->token_embedding(), at::tensor(ids, at::kLong).to(device_));
}

ClipModel::Texts ClipModel::texts_of(const Batch& batch, std::size_t row) const {
  const auto task = static_cast<std::size_t>(batch.examples[row]->task);
  if (task >= set_of_.size())
    throw Error("batch", "its example '" + batch.examples[row]->id + "' is of no task with classes");
  const std::int64_t entry = route_.text.length() == 0   ? -1
                             : route_.text.entry.empty() ? static_cast<std::int64_t>(row)
                                                         : route_.text.entry[row];
  // The routed task matters to adapters in the text tower alone.
  const bool routed = text_.changed() && row < route_.task.size();
  return {set_of_[task], entry, routed ? route_.task[row] : -1};
}

Tensor ClipModel::class_embeddings(const Texts& texts) {
  const auto& [set, entry, task] = texts;
  const bool bare = entry >= 0 && route_.text.bare;
  const auto& tokens = bare ? sets_[set].bare : sets_[set].full;
  if (entry < 0 && !text_.changed()) {
    const at::NoGradGuard no_grad;
    Tensor& plain = plain_[set];
    if (!plain.defined()) plain = clip_->embed_texts(tokens);
    return plain;
  }
  Prompts prompts;
  if (entry >= 0) prompts = of_entry(route_.text, entry, static_cast<std::int64_t>(tokens.size()));
  const std::vector<std::int64_t> route(tokens.size(), task);
  if (training_ || at::GradMode::is_enabled()) return clip_->embed_texts(tokens, training_, prompts, route);
  std::vector<Tensor> own;  // [L, width] a layer
  for (const Tensor& layer : prompts.layers) own.push_back(layer.defined() ? layer[0] : layer);
  const Texts key{set, -1, task};
  for (const Known& known : known_)
    if (known.texts == key && known.bare == bare && same(known.prompts, own)) return known.embeddings;
  constexpr std::size_t kMost = 256;
  if (known_.size() >= kMost) known_.clear();
  known_.push_back({key, own, bare, clip_->embed_texts(tokens, false, prompts, route)});
  return known_.back().embeddings;
}

Tensor ClipModel::scores(const Batch& batch) {
  check_prompts(route_.text, batch.size(), info_.hidden, info_.layers, "text");
  if (route_.text.length() > 0 && route_.text.place == Prompts::Place::before_text)
    throw Error("route.text", "prompts of a CLIP tower stand behind the first token",
                "use Prompts::Place::after_first");
  struct Group {
    std::vector<std::int64_t> rows;
    Tensor weight, bias;
  };
  std::map<Texts, Tensor> embeddings;
  std::map<std::pair<std::int64_t, Texts>, Group> groups;  // by task: it decides about heads
  std::int64_t most = 0;
  for (std::size_t b = 0; b < batch.size(); ++b) {
    const std::int64_t task = batch.examples[b]->task;
    const auto head = route_.heads.find(task);
    const bool headed = head != route_.heads.end();
    const Texts texts = headed ? Texts{} : texts_of(batch, b);
    Group& group = groups[{task, texts}];
    group.rows.push_back(static_cast<std::int64_t>(b));
    if (group.rows.size() > 1) continue;
    if (headed) {
      group.weight = head->second.weight;
      group.bias = head->second.bias;
    } else {
      Tensor& known = embeddings[texts];
      if (!known.defined()) known = class_embeddings(texts);
      group.weight = known;
    }
    most = std::max(most, group.weight.size(0));
  }
  const Tensor images = image_embeddings(batch), scale = clip_->scale();
  std::vector<Tensor> parts;
  std::vector<std::int64_t> place(batch.size());
  std::int64_t next = 0;
  for (const auto& [key, group] : groups) {
    const Tensor own = groups.size() == 1
                           ? images
                           : images.index_select(0, at::tensor(group.rows, at::kLong).to(images.device()));
    Tensor score = scale * at::matmul(own, group.weight.to(own.scalar_type()).t());
    if (group.bias.defined()) score = score + group.bias;
    parts.push_back(
        at::constant_pad_nd(score, {0, most - score.size(1)}, -std::numeric_limits<double>::infinity()));
    for (const std::int64_t row : group.rows) place[static_cast<std::size_t>(row)] = next++;
  }
  const Tensor all = parts.size() == 1
                         ? parts.front()
                         : at::cat(parts).index_select(0, at::tensor(place, at::kLong).to(images.device()));
  return all.scalar_type() == at::kDouble ? all : all.to(at::kFloat);
}

Forward ClipModel::forward(const Batch& batch) {
  std::vector<std::int64_t> targets, rows(batch.size());
  for (const ExamplePtr& example : batch.examples) {
    if (example->labels.size() != 1)
      throw DataError("row '" + example->id + "'", "has no class",
                      "CLIP tells classes of pictures: use a suite of kind \"classify\"");
    targets.push_back(example->labels.front());
  }
  std::iota(rows.begin(), rows.end(), std::int64_t{0});
  return {scores(batch), at::tensor(targets, at::kLong).to(device_), at::tensor(rows, at::kLong).to(device_)};
}

std::vector<std::int64_t> ClipModel::classify(const Batch& batch) {
  const at::NoGradGuard no_grad;
  const Tensor best = scores(batch).argmax(1).to(at::kCPU).contiguous();
  return {best.const_data_ptr<std::int64_t>(), best.const_data_ptr<std::int64_t>() + best.numel()};
}

}  // namespace mcit
