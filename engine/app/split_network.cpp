#include "app/split_network.hpp"

#include <algorithm>

#include "app/experiment.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "split/network.hpp"

namespace mcit {
namespace {

constexpr std::uint64_t kLargestPem = 1 << 20;

split::Credentials credentials_of(const NetworkFlags& flags, bool server) {
  split::Credentials out;
  const auto read = [](const std::string& file) { return file.empty() ? "" : read_file(file, kLargestPem); };
  if (flags.certificate.empty() != flags.key.empty())
    throw ConfigError(flags.key.empty() ? "--key" : "--cert", "is missing: a certificate goes with its key");
  if (flags.ca.empty() && !flags.certificate.empty())
    throw ConfigError("--ca", "is missing: whose certificates are to be trusted?");
  if (server && !flags.ca.empty() && flags.certificate.empty())
    throw ConfigError("--cert", "is missing: a server shows a certificate");
  out.ca = read(flags.ca);
  out.certificate = read(flags.certificate);
  out.key = read(flags.key);
  return out;
}

}  // namespace

RunResult serve_split(SplitSettings& s, const NetworkFlags& network, RunDir& dir, const std::string& command,
                      split::Record& record) {
  const int threads = set_threads(s.threads);
  const Suite suite = split_suite(s, false);
  const std::vector<std::string> classes = split_classes(suite);
  const split::Base base = split_base(s, classes);
  const RunResult head = split_head(s, suite, {}, threads, command, read_file(dir.config()));
  const auto peers = split::transport().serve({network.address, credentials_of(network, true), s.clients(),
                                               split_agreement(s, classes), s.loop.most_bytes});
  log::info("listening on ", peers->address(), network.ca.empty() ? ", without TLS" : "", " for ",
            s.partition.clients, " clients");
  s.loop.expected = s.partition.clients;
  split::Loop loop(base, s.training, s.loop, *peers);
  const RunResult done = loop.run(head, dir);
  record = loop.record();
  if (done.complete) peers->finish();
  return done;
}

void join_split(SplitSettings& s, const NetworkFlags& network, const JoinFlags& flags) {
  set_threads(s.threads);
  const std::vector<std::string> ids = s.clients();
  const auto place = std::find(ids.begin(), ids.end(), flags.client);
  if (place == ids.end())
    throw ConfigError("--client", "'" + flags.client + "' is not among the run's clients",
                      "partition.clients makes them " + ids.front() + " to " + ids.back());
  const split::Credentials credentials = credentials_of(network, false);
  const Suite suite = split_suite(s, true);
  const std::vector<std::string> classes = split_classes(suite);
  split::Base base = split_base(s, classes);
  const std::string agreement = split_agreement(s, classes);
  if (s.loop.method == split::Method::mpsl) base = split::heads_of(base);
  SplitRows rows = split_rows(s, suite, base, classes, flags.own_data);
  const auto mine = flags.own_data ? 0 : static_cast<std::size_t>(place - ids.begin());
  std::filesystem::path state = flags.state;
  if (state.empty()) state = std::filesystem::path("runs") / s.suite_name() / ("split-" + flags.client);
  split::Client client({flags.client, std::move(rows.clients[mine]), split_pixels(s), state}, base,
                       s.training);
  rows.clients.clear();
  log::info(flags.client, " holds ", client.rows(false), " rows to train on and ", client.rows(true),
            " to test on");
  const bool done = split::transport().join(
      {network.address, credentials, flags.client, agreement, s.loop.most_bytes, flags.patience, interrupted,
       [&](const std::string& text) { log::info(flags.client, ": ", text); }},
      [&](std::string_view request) { return client.answer(request); });
  if (!done) throw Interrupted();
  log::info(flags.client, ": the run is done");
}

void make_split_certificates(const std::string& folder, const std::vector<std::string>& hosts,
                             const std::vector<std::string>& clients) {
  const auto files = split::transport().certificates(hosts, clients);
  write_folder(folder, [&](const std::filesystem::path& made) {
    namespace fs = std::filesystem;
    constexpr fs::perms kOwner = fs::perms::owner_read | fs::perms::owner_write;
    for (const auto& [name, text] : files) {
      write_atomic(made / name, text);  // a temporary file is the owner's alone
      fs::permissions(made / name, name.ends_with(".key")
                                       ? kOwner
                                       : kOwner | fs::perms::group_read | fs::perms::others_read);
    }
  });
}

}  // namespace mcit
