#include "fed/round_request.hpp"

#include <charconv>

#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

std::uint32_t round_number(const std::string& text) {
  std::uint32_t round = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), round);
  if (error != std::errc() || end != text.data() + text.size() || round == 0)
    throw DataError("model", "its round is '" + text.substr(0, 20) + "'");
  return round;
}

RoundRequest request_for(const FederationSettings& settings) {
  RoundRequest out;
  out.info.run = settings.run;
  out.info.strategy = settings.strategy;
  out.info.strategy_version = settings.strategy_version;
  return out;
}

}  // namespace

RoundRequest request_of(RoundEngine& engine, const std::string& client) {
  RoundRequest out = request_for(engine.settings());
  out.info.round = engine.round();
  out.info.base = engine.ledger().sha();
  out.layout = engine.layout();
  out.model = from_blob(engine.download(client), "model").arrays;
  return out;
}

RoundRequest request_of(const std::string& model, const FederationSettings& settings, const Layout& layout) {
  Blob blob = from_blob(model, "model");
  const auto said = [&](const char* key) {
    const auto found = blob.metadata.find(key);
    if (found == blob.metadata.end()) throw DataError("model", std::string("does not say its ") + key);
    return found->second;
  };
  if (const std::string run = said("run"); run != settings.run)
    throw DataError("model",
                    "is of the run '" + run.substr(0, 64) + "', and this client is in '" + settings.run + "'",
                    "do server and node have the same settings?");
  RoundRequest out = request_for(settings);
  out.info.round = round_number(said("round"));
  out.info.base = said("base");
  out.layout = layout;
  out.model = std::move(blob.arrays);
  return out;
}

}  // namespace mcit::fed
