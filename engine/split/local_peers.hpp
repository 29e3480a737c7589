#pragma once
/// Clients that are objects of this process: they answer one after the other, through the same messages.

#include <memory>
#include <vector>

#include "split/client.hpp"
#include "split/peers.hpp"

namespace mcit::split {

class LocalPeers final : public Peers {
 public:
  explicit LocalPeers(std::vector<std::unique_ptr<Client>> clients);

  std::vector<std::string> online() override;
  Mail ask(const Mail& requests, double seconds) override;
  std::vector<std::string> arrived() override;

 private:
  std::map<std::string, std::unique_ptr<Client>> clients_;
  bool greeted_ = false;
};

}  // namespace mcit::split
