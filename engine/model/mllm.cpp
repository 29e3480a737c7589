#include "model/mllm.hpp"

#include <algorithm>

#include "mcit/errors.hpp"
#include "model/device.hpp"
#include "model/kernels.hpp"
#include "model/peft.hpp"
#include "model/safetensors.hpp"

namespace mcit {

AnswerTrie::AnswerTrie(const std::vector<std::vector<std::int64_t>>& answers, std::int64_t end_token)
    : nodes_(1) {
  for (const auto& answer : answers) {
    std::size_t at = 0;
    const auto step = [&](std::int64_t token) {
      const auto [entry, fresh] = nodes_[at].next.try_emplace(token, nodes_.size());
      at = entry->second;
      if (fresh) nodes_.emplace_back();
    };
    for (const std::int64_t token : answer) step(token);
    step(end_token);
  }
}

StateDict read_mllm_tensors(const std::filesystem::path& folder, const MllmConfig& config) {
  StateDict out;
  const auto add = [&](const StateDict& tensors, const std::string& prefix) {
    for (const auto& [name, tensor] : tensors)
      if (!name.ends_with(".position_ids") && !name.ends_with(".inv_freq"))
        out.emplace(canonical_name(config, prefix + name), tensor);
  };
  add(read_checkpoint_tensors(folder), "");
  std::error_code ignored;
  // The original LLaVA keeps a pre-trained projector in a file, and the tower in a folder, of its own.
  if (const auto projector = folder / "mm_projector.safetensors"; std::filesystem::exists(projector, ignored))
    add(read_safetensors(projector).tensors, "");
  if (!config.tower.empty()) {
    StateDict tower;
    for (const auto& [name, tensor] : read_checkpoint_tensors(config.tower))
      if (name.starts_with("vision_model.")) tower.emplace(name, tensor);
    add(tower, "vision_tower.");
  }
  return out;
}

std::unique_ptr<Mllm> Mllm::load(const std::filesystem::path& folder, at::Device device,
                                 std::optional<at::ScalarType> dtype, const std::filesystem::path& adapter,
                                 const std::function<void(std::int64_t, std::int64_t)>& progress) {
  MllmConfig config = read_mllm_config(folder);
  read_ahead(folder);
  if (!config.tower.empty()) read_ahead(config.tower);
  StateDict tensors = read_mllm_tensors(folder, config);
  if (!adapter.empty()) merge_peft(tensors, config, adapter);
  std::int64_t all = 0;
  for (const auto& [name, tensor] : tensors) all += static_cast<std::int64_t>(tensor.nbytes());
  try {
    Weights weights(std::move(tensors), device, dtype.value_or(default_dtype(device, config.stored_dtype)));
    if (progress) weights.on_take([&](std::int64_t bytes) { progress(bytes, all); });
    return std::make_unique<Mllm>(std::move(config), weights);
  } catch (const CheckpointError& e) {
    throw CheckpointError(folder.string(), e.what());
  }
}

Mllm::Mllm(MllmConfig config, Weights& weights)
    : config_(std::move(config)),
      names_(family_names(config_)),
      feature_layer_(config_.sees() ? config_.feature_layer() : 0),
      connector_(Connector::make(config_, weights)),
      decoder_(config_.text, weights, names_.decoder, names_.head),
      device_(decoder_.embedding().device()),
      dtype_(decoder_.embedding().scalar_type()) {
  if (config_.sees()) {
    vision_.emplace(config_.vision, weights, names_.vision, feature_layer_);
    vision_->each_tensor([&](const std::string&, Tensor& tensor) { tower_.add(tensor); });
    vision_->each_site([&](Site& site) { tower_.add(site); });
  }
  unused_ = weights.rest(names_.vision);
  const DecoderConfig& t = config_.text;
  info_ = {names_.name, t.num_hidden_layers, t.hidden_size, t.vocab_size, 0, 0, 0, 0};
  if (!config_.sees()) return;
  info_.vision_layers = feature_layer_;
  info_.vision_hidden = config_.vision.hidden_size;
  info_.image_tokens = config_.image_tokens();
}

PictureText Mllm::picture_text(const PictureShape& picture) const {
  if (!connector_) throw Error("model", "reads text alone");
  return connector_->text(picture);
}

std::vector<std::int64_t> Mllm::feature_shape() const {
  const std::int64_t first = vision_has_class_token(config_.vision.model_type) ? 1 : 0;
  return {config_.vision.patches() + first - (config_.vision_feature_select == "full" ? 0 : 1),
          config_.vision.hidden_size};
}

Mllm::Mllm(MllmConfig config, StateDict tensors)
    : Mllm(std::move(config), *std::make_unique<Weights>(std::move(tensors))) {}

void Mllm::set_clip(std::shared_ptr<Clip> clip,
                    std::function<Tensor(const std::vector<std::string>&)> embed_images,
                    std::function<std::vector<std::int64_t>(const std::string&)> encode_text) {
  clip_ = std::move(clip);
  embed_images_ = std::move(embed_images);
  encode_text_ = std::move(encode_text);
  info_.feature_dim = clip_ ? clip_->config().projection_dim : 0;
}

void Mllm::each_site(const std::function<void(Site&)>& visit) const {
  if (vision_) vision_->each_site(visit);
  if (connector_) connector_->each_site(visit);
  decoder_.each_site(visit);
}

void Mllm::each_tensor(const std::function<void(const std::string&, Tensor&)>& visit) {
  if (vision_) vision_->each_tensor(visit);
  if (connector_) connector_->each_tensor(visit);
  decoder_.each_tensor(visit);
}

StateDict Mllm::tensors() {
  StateDict out = unused_;
  each_tensor([&](const std::string& name, Tensor& tensor) { out[name] = tensor; });
  each_site([&](Site& site) {
    out[site.name() + ".weight"] = site.weight();
    if (site.bias().defined()) out[site.name() + ".bias"] = site.bias();
  });
  return out;
}

void Mllm::save(const std::filesystem::path& folder, at::ScalarType dtype,
                const std::map<std::string, std::string>& metadata) {
  write_model_file(folder, tensors(), dtype, metadata, mllm_config_json(config_, dtype_name(dtype)));
}

std::string Mllm::tower_hash() {
  Hasher hasher;
  hasher.update(std::uint64_t(feature_layer_));
  hash_tensors(hasher, tensors(), [&](const std::string& name) { return name.starts_with(names_.vision); });
  return hasher.hex();
}

std::vector<Site*> Mllm::sites(std::string_view pattern) {
  const auto wanted = name_filter(pattern, names_.groups);
  std::vector<Site*> out;
  each_site([&](Site& site) {
    if (wanted(site.name())) out.push_back(&site);
  });
  if (out.empty())
    throw ConfigError(std::string(pattern), "matches no linear site of the model",
                      "try \"decoder\", \"q_proj,v_proj\", \"connector\" or \"/regex/\"");
  return out;
}

Parameters Mllm::parameters(std::string_view pattern) {
  const auto wanted = name_filter(pattern, names_.groups);
  Parameters out;
  for (const auto& [name, tensor] : tensors())
    if (wanted(name) && !unused_.contains(name))
      out.push_back({name, tensor, in_connector(name, names_.groups) ? "connector" : "base"});
  if (out.empty())
    throw ConfigError(std::string(pattern), "matches no tensor of the model",
                      "try \"connector\", \"decoder\", \"vision\", \"all\" or \"/regex/\"");
  return out;
}

Mllm::Rows Mllm::whole(const Batch& batch) {
  Rows sequences;
  for (const ExamplePtr& example : batch.examples) sequences.emplace_back(example->tokens);
  return sequences;
}

Mllm::Packed Mllm::collate(const Rows& sequences, std::int64_t position, const Batch* prompts, bool insert) {
  if (insert) {
    check_prompts(route_.text, sequences.size(), info_.hidden, info_.layers, "text");
    route_.text = route_.text.each();
  }
  const std::int64_t added = insert ? route_.text.length() : 0;
  const std::int64_t before = route_.text.place == Prompts::Place::before_text ? 0 : 1;  // tokens in front
  std::vector<std::int64_t> ids, sequence, positions, first, last, last_prompt, prompt_rows;
  Packed packed;
  route_.rows.lengths.clear();
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    const auto tokens = static_cast<std::int64_t>(sequences[b].size()), rows = tokens + added;
    first.push_back(static_cast<std::int64_t>(ids.size()));
    for (std::int64_t i = 0; i < added; ++i) prompt_rows.push_back(first.back() + before + i);
    for (std::int64_t i = 0; i < tokens; ++i)
      packed.rows.push_back(first.back() + i + (i < before ? 0 : added));
    ids.resize(ids.size() + static_cast<std::size_t>(rows), config_.image_token_id == 0 ? 1 : 0);
    for (std::size_t i = 0; i < sequences[b].size(); ++i)
      ids[static_cast<std::size_t>(packed.rows[packed.rows.size() - sequences[b].size() + i])] =
          sequences[b][i];
    sequence.insert(sequence.end(), static_cast<std::size_t>(rows), static_cast<std::int64_t>(b));
    for (std::int64_t i = 0; i < rows; ++i) positions.push_back(position + i);
    last.push_back(static_cast<std::int64_t>(ids.size()) - 1);
    last_prompt.push_back(
        prompts == nullptr ? last.back() : first.back() + added + prompts->examples[b]->prompt_length - 1);
    route_.rows.lengths.push_back(rows);
  }
  const auto send = [&](const std::vector<std::int64_t>& values) {
    return at::tensor(values, at::kLong).to(device_);
  };
  route_.rows.sequence = send(sequence);
  route_.rows.position = send(positions);
  route_.rows.first = send(first);
  route_.rows.last = send(last);
  route_.rows.last_prompt = send(last_prompt);
  route_.rows.decoding = false;
  packed.tokens = send(ids);
  if (added > 0) packed.prompt_rows = send(prompt_rows);
  return packed;
}

Tensor Mllm::gather_features(const Batch& batch) const {
  std::vector<Tensor> parts;
  const bool anew = tower_changed();
  for (const ExamplePtr& example : batch.examples)
    if (!example->image.empty())
      parts.push_back(anew ? images_.pixels(example->image) : images_.features(example->image));
  if (parts.empty()) return {};
  const Tensor all = at::cat(parts).to(device_, dtype_);
  if (!anew) return all;
  std::vector<std::int64_t> tiles;
  for (const Tensor& part : parts) tiles.push_back(part.size(0));
  return vision_features(all, vision_prompts(batch, tiles));
}

std::vector<Picture> Mllm::pictures_of(const Batch& batch) const {
  std::vector<Picture> out;
  for (const ExamplePtr& example : batch.examples) {
    if (example->image.empty()) continue;
    out.push_back(
        {connector_->reads_shape() ? images_.shape(example->image) : PictureShape(), example->prompt});
  }
  return out;
}

Prompts Mllm::vision_prompts(const Batch& batch, const std::vector<std::int64_t>& tiles) const {
  if (route_.vision.length() == 0) return {};
  check_prompts(route_.vision, batch.size(), info_.vision_hidden, std::max<std::int64_t>(feature_layer_, 1),
                "vision");
  std::vector<std::int64_t> rows;
  std::size_t picture = 0;
  for (std::size_t b = 0; b < batch.size(); ++b)
    if (!batch.examples[b]->image.empty())
      rows.insert(rows.end(), static_cast<std::size_t>(tiles[picture++]), static_cast<std::int64_t>(b));
  const Tensor index = at::tensor(rows, at::kLong).to(device_);
  Prompts out;
  for (const Tensor& layer : route_.vision.each().layers)
    out.layers.push_back(layer.defined() ? layer.index_select(0, index) : Tensor());
  return out;
}

Tensor Mllm::embed_rows(const Packed& packed, const Tensor& features, const Batch* batch) {
  const Tensor& tokens = packed.tokens;
  // -1 marks a picture's rows where the tokenizer has no token for them.
  Tensor embedded = decoder_.embed(config_.image_token_id < 0 ? tokens.clamp_min(0) : tokens);
  if (packed.prompt_rows.defined())
    embedded = embedded.index_copy(0, packed.prompt_rows,
                                   route_.text.layers[0].flatten(0, 1).to(embedded.scalar_type()));
  if (!features.defined()) return embedded;
  if (!connector_) throw DataError("batch", "has pictures, and the model reads text alone");
  const Tensor where = (tokens == config_.image_token_id).nonzero().squeeze(1);
  const Tensor rows = connector_->forward(features, pictures_of(*batch), route_, training_);
  if (where.size(0) != rows.size(0))
    throw DataError(
        "batch",
        std::to_string(where.size(0)) + " image tokens but " + std::to_string(rows.size(0)) + " visual rows",
        "each picture needs as many image tokens in its prompt as the model has rows for it");
  return embedded.index_copy(0, where, rows.to(embedded.scalar_type()));
}

Forward Mllm::forward(const Batch& batch) { return forward_with(batch, gather_features(batch)); }

Forward Mllm::forward_with(const Batch& batch, const Tensor& features) {
  const Packed packed = collate(whole(batch), 0, &batch, true);
  std::vector<std::int64_t> labels;
  for (const ExamplePtr& example : batch.examples)
    labels.insert(labels.end(), example->labels.begin(), example->labels.end());
  std::vector<std::int64_t> keep, targets;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0) continue;
    keep.push_back(packed.rows[i]);
    targets.push_back(labels[i]);
  }
  if (keep.empty())
    throw DataError("batch", "no row of the batch has a label", "every training example needs an answer");
  const Tensor rows = at::tensor(keep, at::kLong).to(device_);
  const Tensor hidden = decoder_.forward(embed_rows(packed, features, &batch), route_, rows, nullptr,
                                         training_, packed.prompt_rows);
  return {decoder_.logits(hidden), at::tensor(targets, at::kLong).to(device_),
          route_.rows.sequence.index_select(0, rows)};
}

Tensor Mllm::all_logits(const Batch& batch, const Tensor& features, std::vector<Tensor>* states) {
  const Packed packed = collate(whole(batch), 0, &batch, true);
  const Tensor hidden = decoder_.forward(embed_rows(packed, features, &batch), route_, {}, nullptr, training_,
                                         packed.prompt_rows, states);
  if (states != nullptr) states->push_back(hidden);
  return decoder_.logits(hidden);
}

Tensor Mllm::input_embeddings(const Batch& batch) {
  const at::NoGradGuard no_grad;
  return embed_rows(collate(whole(batch), 0, &batch, false), gather_features(batch), &batch);
}

Tensor Mllm::vision_features(const Tensor& pixels, const Prompts& prompts) const {
  if (!vision_) throw Error("model", "reads text alone");
  Tensor hidden = vision_hidden(pixels.to(device_, dtype_), prompts);
  if (names_.vision_normed) hidden = vision_->normed(hidden);
  return config_.vision_feature_select == "full" ? hidden : hidden.narrow(1, 1, hidden.size(1) - 1);
}

KvCache Mllm::make_cache(std::size_t sequences, std::int64_t capacity) const {
  const DecoderConfig& c = config_.text;
  KvCache cache;
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const auto room = [&] {
      return at::zeros({static_cast<std::int64_t>(sequences), c.num_key_value_heads, capacity, c.head_dim},
                       at::TensorOptions(dtype_).device(device_));
    };
    cache.keys.push_back(room());
    cache.values.push_back(room());
  }
  return cache;
}

std::int64_t Mllm::shared_beginning(const Rows& prompts) const {
  constexpr std::int64_t kWorth = 16;  // rows that a pass of its own must spare each of the other sequences
  if (prompts.size() < 2 || !decoder_.by_rows() || route_.text.length() > 0) return 0;
  std::size_t shared = prompts[0].size();
  for (const auto& prompt : prompts) {
    // Every sequence keeps a row of its own; pictures differ.
    shared = std::min(shared, prompt.size() - 1);
    for (std::size_t i = 0; i < shared; ++i)
      if (prompt[i] != prompts[0][i] || prompt[i] == config_.image_token_id) shared = i;
  }
  const auto rows = static_cast<std::int64_t>(shared);
  return rows >= kWorth ? rows : 0;
}

Prefill Mllm::prefill(const Batch& batch, std::int64_t max_new_tokens) {
  Prefill out;
  Rows prompts;
  for (const ExamplePtr& example : batch.examples) {
    prompts.emplace_back(example->tokens.data(), static_cast<std::size_t>(example->prompt_length));
    out.prompt_lengths.push_back(example->prompt_length + route_.text.length());
  }
  const std::int64_t longest = *std::max_element(out.prompt_lengths.begin(), out.prompt_lengths.end());
  out.cache = make_cache(batch.size(), longest + max_new_tokens);
  // What all prompts begin with, such as a chat template's system sentence, goes through once.
  if (const std::int64_t shared = shared_beginning(prompts); shared > 0) {
    KvCache once = make_cache(1, shared);
    once.lengths = {shared};
    const std::vector<std::int64_t> tasks = std::exchange(route_.task, {-1});
    route_.memo.clear();
    const Packed packed = collate({prompts[0].first(static_cast<std::size_t>(shared))}, 0, nullptr, false);
    decoder_.forward(decoder_.embed(packed.tokens), route_, route_.rows.last, &once, false);
    route_.task = tasks;
    for (std::size_t i = 0; i < once.keys.size(); ++i) {
      out.cache.keys[i].narrow(2, 0, shared).copy_(once.keys[i]);
      out.cache.values[i].narrow(2, 0, shared).copy_(once.values[i]);
    }
    out.cache.shared = shared;
    for (auto& prompt : prompts) prompt = prompt.subspan(static_cast<std::size_t>(shared));
  }
  out.cache.lengths = out.prompt_lengths;
  const Packed packed = collate(prompts, out.cache.shared, nullptr, true);
  route_.memo.clear();
  const Tensor hidden = decoder_.forward(embed_rows(packed, gather_features(batch), &batch), route_,
                                         route_.rows.last, &out.cache, false, packed.prompt_rows);
  out.first_logits = decoder_.logits(hidden);
  out.task = route_.task;
  out.memo = route_.memo;
  return out;
}

std::vector<std::vector<std::int64_t>> Mllm::decode(Prefill& prefill, std::int64_t max_new_tokens,
                                                    const AnswerTrie* allowed, OnEnd on_end) {
  const std::size_t count = prefill.prompt_lengths.size();
  std::vector<std::vector<std::int64_t>> answers(count);
  std::vector<std::size_t> node(count, 0);
  std::vector<bool> done(count, false);
  prefill.cache.lengths =
      prefill.prompt_lengths;  // what an earlier decoding added lies behind and is overwritten
  route_.task = prefill.task;
  route_.memo = prefill.memo;
  const auto& ends = config_.text.eos_token_ids;
  Tensor logits = on_end == OnEnd::avoid ? prefill.first_logits.clone() : prefill.first_logits;
  for (std::int64_t step = 0; step < max_new_tokens; ++step) {
    if (allowed != nullptr) {
      Tensor mask =
          at::full_like(logits, -std::numeric_limits<float>::infinity(), at::TensorOptions(at::kCPU));
      for (std::size_t b = 0; b < count; ++b)
        for (const auto& [token, next] : allowed->node(node[b]).next)
          mask[static_cast<std::int64_t>(b)][token] = 0.0;
      logits = logits + mask.to(logits.device());
    }
    if (on_end == OnEnd::avoid)
      for (const std::int64_t end : ends)
        logits.select(1, end).fill_(-std::numeric_limits<float>::infinity());
    const Tensor best = logits.argmax(-1).to(at::kCPU);
    bool open = false;
    std::vector<std::int64_t> ids(count);
    for (std::size_t b = 0; b < count; ++b) {
      ids[b] = best.const_data_ptr<std::int64_t>()[b];
      if (done[b]) continue;
      const bool end = std::find(ends.begin(), ends.end(), ids[b]) != ends.end();
      if (allowed != nullptr) node[b] = allowed->node(node[b]).next.at(ids[b]);
      if (end && (on_end != OnEnd::keep || allowed != nullptr)) {
        done[b] = true;
        continue;
      }
      answers[b].push_back(ids[b]);
      open = true;
    }
    if (!open || step + 1 == max_new_tokens) break;
    RowLayout& rows = route_.rows;
    const auto options = at::TensorOptions(at::kLong).device(device_);
    rows.decoding = true;
    rows.position = at::tensor(prefill.cache.lengths, at::kLong).to(device_);
    rows.sequence = rows.first = rows.last = rows.last_prompt =
        at::arange(static_cast<std::int64_t>(count), options);
    rows.lengths.assign(count, 1);
    prefill.cache.position = rows.position;
    const Tensor x = decoder_.embed(at::tensor(ids, at::kLong).to(device_));
    logits = decoder_.logits(decoder_.forward(x, route_, {}, &prefill.cache, false));
    for (std::int64_t& length : prefill.cache.lengths) ++length;
  }
  return answers;
}

void Mllm::require_clip() const {
  if (!clip_)
    throw CheckpointError("image and text features", "this model has no CLIP towers",
                          "the model folder needs a clip/ folder beside its config.json");
}

Tensor Mllm::image_features(const Batch& batch) {
  require_clip();
  const at::NoGradGuard no_grad;
  std::vector<std::string> paths;
  std::vector<std::int64_t> rows;
  for (std::size_t b = 0; b < batch.size(); ++b) {
    if (batch.examples[b]->image.empty()) continue;
    paths.push_back(batch.examples[b]->image);
    rows.push_back(static_cast<std::int64_t>(b));
  }
  Tensor out = at::zeros({static_cast<std::int64_t>(batch.size()), info_.feature_dim});
  if (!paths.empty()) out.index_copy_(0, at::tensor(rows, at::kLong), embed_images_(paths));
  return out.to(device_);
}

Tensor Mllm::text_features(const Batch& batch) {
  require_clip();
  const at::NoGradGuard no_grad;
  constexpr std::size_t kMost = 1 << 18;  // half a gigabyte of 512 floats each
  if (text_embeddings_.size() > kMost) text_embeddings_.clear();
  std::vector<Tensor> out;
  for (const ExamplePtr& example : batch.examples) {
    auto found = text_embeddings_.find(example->question);
    // One at a time: a product's last digits depend on its size, and a resumed run meets its questions in
    // other company.
    if (found == text_embeddings_.end())
      found = text_embeddings_
                  .emplace(example->question,
                           clip_->embed_texts({encode_text_(example->question)}).squeeze(0).to(at::kFloat))
                  .first;
    out.push_back(found->second);
  }
  return at::stack(out);
}

}  // namespace mcit
