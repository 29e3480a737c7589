#include "split/server.hpp"

#include "mcit/errors.hpp"
#include "train/pretrain_parts.hpp"

namespace mcit::split {

Server::Server(const Base& base, const Training& training) : body_(base), training_(training) {
  body_.train(training_.trained.blocks);
  restart();
}

void Server::restart() { optimizer_ = std::make_unique<AdamW>(body_.parameters(), training_.adamw); }

std::map<std::string, Tensor> Server::predict(const std::map<std::string, Tokens>& tokens, bool learning) {
  std::map<Modality, std::vector<Tensor>> parts;
  leaves_.clear();
  rows_.clear();
  std::vector<std::int64_t> counts;
  for (const auto& [client, sent] : tokens) {
    for (const auto& [modality, tensor] : sent) {
      const Tensor leaf = tensor.detach().requires_grad_(learning && training_.trained.heads);
      parts[modality].push_back(leaf);
      if (learning) leaves_[client][modality] = leaf;
    }
    counts.push_back(sent.begin()->second.size(0));
    rows_[client] = counts.back();
  }
  Tokens joined;
  for (const auto& [modality, tensors] : parts) {
    if (tensors.size() != tokens.size())
      throw Error("split", std::string("not all clients sent '") + name_of(modality) + "'",
                  "rows of one task have the same modalities");
    joined[modality] = at::cat(tensors);
  }
  const at::AutoGradMode graph(learning);
  predicted_ = body_.forward(joined);
  const std::vector<Tensor> each = predicted_.detach().split_with_sizes(counts);
  std::map<std::string, Tensor> out;
  for (const auto& [client, sent] : tokens) out[client] = each[out.size()];
  return out;
}

double Server::learn(const std::map<std::string, Answer>& answers, std::int64_t step) {
  if (!predicted_.defined() || !predicted_.requires_grad())
    throw Error("split", "there is nothing to learn from");
  double all = 0.0, loss = 0.0;
  for (const auto& [client, answer] : answers) all += static_cast<double>(rows_.at(client));
  if (all == 0.0) throw Error("split", "no client answered");
  std::vector<Tensor> seeds;
  for (const auto& [client, rows] : rows_) {
    const auto found = answers.find(client);
    if (found == answers.end()) {
      seeds.push_back(at::zeros({rows, predicted_.size(1)}, predicted_.options().requires_grad(false)));
      continue;
    }
    const double weight = static_cast<double>(rows) / all;
    seeds.push_back(found->second.gradient * weight);
    loss += weight * found->second.loss;
  }
  predicted_.backward(at::cat(seeds));
  predicted_ = Tensor();
  token_gradients_.clear();
  for (const auto& [client, sent] : leaves_)
    for (const auto& [modality, leaf] : sent)
      if (leaf.grad().defined()) token_gradients_[client][modality] = leaf.grad();
  optimizer_->step(training_.rates(step));
  optimizer_->zero_grad();
  leaves_.clear();
  return loss;
}

StateDict Server::state() {
  StateDict out = prefixed("optimizer/", optimizer_->state());
  for (const Parameter& p : body_.parameters())
    if (p.value.requires_grad()) out["model/" + p.name] = p.value.detach();
  return out;
}

void Server::load_state(const StateDict& state) {
  const at::NoGradGuard no_grad;
  for (const Parameter& p : body_.parameters()) {
    if (!p.value.requires_grad()) continue;
    const auto found = state.find("model/" + p.name);
    if (found == state.end() || found->second.sizes() != p.value.sizes())
      throw CheckpointError("snapshot", "'" + p.name + "' is missing or has another shape",
                            "it belongs to another run");
    p.value.detach().copy_(found->second);
  }
  optimizer_->load_state(stripped("optimizer/", state));
}

}  // namespace mcit::split
