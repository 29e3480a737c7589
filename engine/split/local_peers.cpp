#include "split/local_peers.hpp"

namespace mcit::split {

LocalPeers::LocalPeers(std::vector<std::unique_ptr<Client>> clients) {
  for (auto& client : clients) {
    const std::string id = client->id();
    clients_[id] = std::move(client);
  }
}

std::vector<std::string> LocalPeers::online() {
  std::vector<std::string> out;
  for (const auto& [id, client] : clients_) out.push_back(id);
  return out;
}

Mail LocalPeers::ask(const Mail& requests, double) {
  Mail out;
  for (const auto& [id, request] : requests) out[id] = clients_.at(id)->answer(request);
  return out;
}

std::vector<std::string> LocalPeers::arrived() {
  if (greeted_) return {};
  greeted_ = true;
  return online();
}

}  // namespace mcit::split
