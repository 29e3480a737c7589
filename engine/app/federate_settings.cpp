#include "app/federate_settings.hpp"

#include "mcit/errors.hpp"

namespace mcit {
namespace {

void read_federation(Config& config, FederateSettings& s) {
  ClientOptions& o = s.loop.client;
  o.stream = fed::StreamOptions::read(config.child("stream"));
  // Where a stage has ended the model is worth keeping: it can be scored later.
  if (!config.child("federation").has("keep_every"))
    config.set("federation.keep_every=" + std::to_string(o.stream.rounds_per_stage));
  const Config federation = config.child("federation");
  s.federation = fed::FederationSettings::read(federation, true);
  s.federation.seed = o.seed;
  const Config aggregate = config.child("aggregate");
  s.rule = fed::make_aggregator(aggregate);
  s.rule_settings = aggregate.resolved();
  o.partition = fed::PartitionOptions::read(config.child("partition"));
  o.stream.clients = o.partition.clients;
  o.stream.seed = o.seed;
  const Config wire = config.child("wire");
  o.wire.encoding = fed::encoding_from(wire.choice("encoding", "full", fed::encoding_names()));
  o.wire.fraction = wire.number("fraction", 0.01, 0.0, 1.0);
  o.error_feedback = wire.flag("error_feedback", true);
  const Config privacy = config.child("privacy");
  o.privacy_clip = privacy.number("clip", 0.0, 0.0);
  o.privacy_noise = privacy.number("noise_multiplier", 0.0, 0.0);
  o.privacy_delta = privacy.number("delta", 1e-5, 0.0, 1.0);
  if (o.privacy_noise > 0.0 && o.privacy_clip <= 0.0)
    throw ConfigError(privacy.where("noise_multiplier"), "needs a clip",
                      "noise has the deviation noise_multiplier x clip");
}

}  // namespace

FederateSettings read_federate_settings(Config& config) {
  if (!config.child("federation").has("run")) config.set("federation.run=\"embedded\"");
  FederateSettings s{RunSettings::read(config), {}, {}, {}, {}};
  ClientOptions& client = s.loop.client;
  client.seed = s.seed;
  config.text("label", "");  // of its line in tables, as of mcit run
  const Config train = config.child("train");
  client.train.steps = 20;  // of a client in a round
  client.train = read_train_options(train, client.train);
  client.proximal = train.number("proximal", 0.0, 0.0);
  const Config eval = config.child("eval");
  s.loop.eval_batch = eval.integer("batch", s.loop.eval_batch, 1, 1 << 16);
  s.loop.evaluate_base = eval.flag("base", true);
  s.loop.evaluate_clients = eval.choice("clients", "stages", {"stages", "end"}) == "stages";
  s.loop.eval_every = eval.integer("every", 0, 0);
  read_federation(config, s);
  config.finish();
  return s;
}

}  // namespace mcit
