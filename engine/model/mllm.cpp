#include "model/mllm.hpp"

#include <dlfcn.h>

#include <algorithm>

#include "core/files.hpp"
#include "mcit/errors.hpp"
#include "model/kernels.hpp"
#include "model/peft.hpp"
#include "model/safetensors.hpp"

namespace mcit {
namespace {

constexpr const char* kDecoder = "language_model.";
constexpr const char* kVision = "vision_tower.vision_model.";
constexpr const char* kConnector = "multi_modal_projector.";
const NameGroups kNames{kDecoder, kVision, {kConnector}};

bool starts_with(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

/// hidden_states index that a configured feature layer means (negative counts from the end).
std::int64_t resolve_layer(const LlavaConfig& config) {
  return config.vision_feature_layer < 0 ? config.vision.num_hidden_layers + 1 + config.vision_feature_layer
                                         : config.vision_feature_layer;
}

StateDict to(StateDict tensors, at::Device device, at::ScalarType dtype) {
  for (auto& [name, tensor] : tensors)
    if (tensor.is_floating_point()) tensor = tensor.to(device, dtype);
  return tensors;
}

at::ScalarType default_dtype(at::Device device) { return device.is_cuda() ? at::kBFloat16 : at::kFloat; }

}  // namespace

std::string canonical_name(const std::string& name) {
  static const std::pair<const char*, const char*> kRenames[] = {
      {"model.language_model.", "language_model.model."},
      {"model.vision_tower.vision_model.", kVision},
      {"model.vision_tower.", kVision},
      {"model.multi_modal_projector.", kConnector},
      {"lm_head.", "language_model.lm_head."},
      {"vision_tower.vision_model.", kVision},
      {"vision_tower.", kVision}};
  for (const auto& [from, to_prefix] : kRenames)
    if (starts_with(name, from)) return to_prefix + name.substr(std::char_traits<char>::length(from));
  return name;
}

at::Device open_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  if (name != "cuda" && !starts_with(name, "cuda:"))
    throw ConfigError("device", "unknown device '" + name + "'", "known: cpu, cuda, cuda:N");
  // The CUDA half of LibTorch registers itself when it is opened; nothing here links it.
  if (!at::globalContext().hasCUDA() && ::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr)
    throw ConfigError("device", "'" + name + "' was asked for, but LibTorch's CUDA library cannot be opened",
                      std::string(::dlerror()) + "; use device = \"cpu\"");
  if (!at::globalContext().hasCUDA() || at::getNumGPUs() == 0)
    throw ConfigError("device", "'" + name + "' was asked for, but there is no CUDA device",
                      "use device = \"cpu\"");
  const std::string number = name == "cuda" ? "0" : name.substr(5);
  const auto count = static_cast<long>(at::getNumGPUs());
  if (number.empty() || number.size() > 3 || number.find_first_not_of("0123456789") != std::string::npos ||
      std::stol(number) >= count)
    throw ConfigError("device", "there is no '" + name + "'",
                      "this machine has cuda:0" + (count > 1 ? " to cuda:" + std::to_string(count - 1) : ""));
  return at::Device("cuda:" + number);
}

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

std::unique_ptr<Mllm> Mllm::load(const std::filesystem::path& folder, at::Device device,
                                 std::optional<at::ScalarType> dtype, const std::filesystem::path& adapter) {
  LlavaConfig config = read_llava_config(folder);
  StateDict tensors;
  for (auto& [name, tensor] : read_checkpoint_tensors(folder)) {
    if (name.ends_with(".position_ids") || name.ends_with(".inv_freq")) continue;  // buffers of old exports
    tensors.emplace(canonical_name(name), tensor);
  }
  if (!adapter.empty()) merge_peft(tensors, adapter);
  try {
    return std::make_unique<Mllm>(std::move(config),
                                  to(std::move(tensors), device, dtype.value_or(default_dtype(device))));
  } catch (const CheckpointError& e) {
    throw CheckpointError(folder.string(), e.what());
  }
}

Mllm::Mllm(LlavaConfig config, StateDict tensors)
    : config_(std::move(config)),
      feature_layer_(resolve_layer(config_)),
      vision_(config_.vision, tensors, kVision, feature_layer_),
      connector_(tensors, kConnector, config_.projector_hidden_act, config_.projector_bias),
      decoder_(config_.text, tensors, kDecoder),
      unused_(std::move(tensors)),
      device_(at::kCPU),
      dtype_(at::kFloat) {
  each_tensor([&](const std::string&, Tensor& tensor) {
    device_ = tensor.device();
    dtype_ = tensor.scalar_type();
  });
  vision_.each_tensor([&](const std::string&, Tensor& tensor) { tower_.add(tensor); });
  vision_.each_site([&](Site& site) { tower_.add(site); });
  for (const auto& [name, tensor] : unused_)
    if (!starts_with(name, kVision)) throw CheckpointError(name, "is no tensor of a LLaVA model");
  info_ = {"llava",        config_.text.num_hidden_layers, config_.text.hidden_size, config_.text.vocab_size,
           feature_layer_, config_.vision.hidden_size,     config_.image_tokens(),   0};
}

void Mllm::set_clip(std::shared_ptr<Clip> clip,
                    std::function<std::vector<std::int64_t>(const std::string&)> encode_text) {
  clip_ = std::move(clip);
  encode_text_ = std::move(encode_text);
  info_.feature_dim = clip_ ? clip_->config().projection_dim : 0;
}

void Mllm::each_site(const std::function<void(Site&)>& visit) const {
  vision_.each_site(visit);
  connector_.each_site(visit);
  decoder_.each_site(visit);
}

void Mllm::each_tensor(const std::function<void(const std::string&, Tensor&)>& visit) {
  vision_.each_tensor(visit);
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
  write_model_file(folder, tensors(), dtype, metadata, llava_config_json(config_, dtype_name(dtype)));
}

std::string Mllm::tower_hash() {
  Hasher hasher;
  hasher.update(std::uint64_t(feature_layer_));
  hash_tensors(hasher, tensors(), [](const std::string& name) { return starts_with(name, kVision); });
  return hasher.hex();
}

std::vector<Site*> Mllm::sites(std::string_view pattern) {
  const auto wanted = name_filter(pattern, kNames);
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
  const auto wanted = name_filter(pattern, kNames);
  Parameters out;
  for (const auto& [name, tensor] : tensors())
    if (wanted(name) && !unused_.contains(name))
      out.push_back({name, tensor, in_connector(name, kNames) ? "connector" : "base"});
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
  if (tower_changed()) {
    std::vector<Tensor> pixels;
    for (const ExamplePtr& example : batch.examples)
      if (!example->image.empty()) pixels.push_back(images_.pixels(example->image));
    return pixels.empty() ? Tensor()
                          : vision_features(at::stack(pixels).to(device_, dtype_), vision_prompts(batch));
  }
  std::vector<Tensor> features;
  for (const ExamplePtr& example : batch.examples)
    if (!example->image.empty()) features.push_back(images_.features(example->image));
  return features.empty() ? Tensor() : at::stack(features).to(device_, dtype_);
}

Prompts Mllm::vision_prompts(const Batch& batch) const {
  if (route_.vision.length() == 0) return {};
  check_prompts(route_.vision, batch.size(), info_.vision_hidden, std::max<std::int64_t>(feature_layer_, 1),
                "vision");
  std::vector<std::int64_t> pictured;
  for (std::size_t b = 0; b < batch.size(); ++b)
    if (!batch.examples[b]->image.empty()) pictured.push_back(static_cast<std::int64_t>(b));
  const Tensor index = at::tensor(pictured, at::kLong).to(device_);
  Prompts out;
  for (const Tensor& layer : route_.vision.each().layers)
    out.layers.push_back(layer.defined() ? layer.index_select(0, index) : Tensor());
  return out;
}

Tensor Mllm::embed_rows(const Packed& packed, const Tensor& features) {
  const Tensor& tokens = packed.tokens;
  Tensor embedded = decoder_.embed(tokens);
  if (packed.prompt_rows.defined())
    embedded = embedded.index_copy(0, packed.prompt_rows,
                                   route_.text.layers[0].flatten(0, 1).to(embedded.scalar_type()));
  if (!features.defined()) return embedded;
  const Tensor where = (tokens == config_.image_token_id).nonzero().squeeze(1);
  const Tensor rows = features.reshape({-1, features.size(-1)});
  if (where.size(0) != rows.size(0))
    throw DataError(
        "batch",
        std::to_string(where.size(0)) + " image tokens but " + std::to_string(rows.size(0)) +
            " visual features",
        "each picture needs " + std::to_string(info_.image_tokens) + " image tokens in its prompt");
  return embedded.index_copy(0, where,
                             connector_.forward(rows, route_, training_).to(embedded.scalar_type()));
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
  const Tensor hidden =
      decoder_.forward(embed_rows(packed, features), route_, rows, nullptr, training_, packed.prompt_rows);
  return {decoder_.logits(hidden), at::tensor(targets, at::kLong).to(device_),
          route_.rows.sequence.index_select(0, rows)};
}

Tensor Mllm::all_logits(const Batch& batch, const Tensor& features) {
  const Packed packed = collate(whole(batch), 0, &batch, true);
  return decoder_.logits(
      decoder_.forward(embed_rows(packed, features), route_, {}, nullptr, training_, packed.prompt_rows));
}

Tensor Mllm::input_embeddings(const Batch& batch) {
  const at::NoGradGuard no_grad;
  return embed_rows(collate(whole(batch), 0, &batch, false), gather_features(batch));
}

Tensor Mllm::vision_features(const Tensor& pixels, const Prompts& prompts) const {
  const Tensor hidden = vision_hidden(pixels, prompts);
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
  const Tensor hidden = decoder_.forward(embed_rows(packed, gather_features(batch)), route_, route_.rows.last,
                                         &out.cache, false, packed.prompt_rows);
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

/// Rows of the batch by their keys, 0 for an empty key. `embed` is asked once for each key and for one at a
/// time: a product's last digits depend on its size, and a resumed run meets its keys in other company.
Tensor Mllm::remembered(Embeddings& known, const std::vector<std::string>& keys,
                        const std::function<Tensor(const std::string&)>& embed) {
  if (!clip_)
    throw CheckpointError("image and text features", "this model has no CLIP towers",
                          "the model folder needs a clip/ folder beside its config.json");
  constexpr std::size_t kMost = 1 << 18;  // half a gigabyte of 512 floats each
  if (known.size() > kMost) known.clear();
  const at::NoGradGuard no_grad;
  const Tensor nothing = at::zeros({info_.feature_dim}, at::TensorOptions(at::kFloat).device(device_));
  std::vector<Tensor> out;
  for (const std::string& key : keys) {
    if (key.empty()) {
      out.push_back(nothing);
      continue;
    }
    auto found = known.find(key);
    if (found == known.end()) found = known.emplace(key, embed(key).squeeze(0).to(at::kFloat)).first;
    out.push_back(found->second);
  }
  return at::stack(out);
}

Tensor Mllm::image_features(const Batch& batch) {
  std::vector<std::string> paths;
  for (const ExamplePtr& example : batch.examples) paths.push_back(example->image);
  return remembered(image_embeddings_, paths, [&](const std::string& path) {
    return clip_->embed_images(images_.pixels(path).unsqueeze(0).to(device_, dtype_));
  });
}

Tensor Mllm::text_features(const Batch& batch) {
  std::vector<std::string> questions;
  for (const ExamplePtr& example : batch.examples) questions.push_back(example->question);
  return remembered(text_embeddings_, questions, [&](const std::string& question) {
    return clip_->embed_texts({encode_text_(question)});
  });
}

std::shared_ptr<Clip> load_clip(const std::filesystem::path& folder, at::Device device,
                                std::optional<at::ScalarType> dtype) {
  StateDict tensors;
  for (auto& [name, tensor] : read_checkpoint_tensors(folder))
    if (!name.ends_with(".position_ids")) tensors.emplace(name, tensor);
  try {
    return std::make_shared<Clip>(
        read_clip_config(folder),
        *std::make_unique<StateDict>(to(std::move(tensors), device, dtype.value_or(default_dtype(device)))));
  } catch (const CheckpointError& e) {
    throw CheckpointError(folder.string(), e.what());
  }
}

}  // namespace mcit
