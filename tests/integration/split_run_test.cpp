// mcit split as people use it: in one process, and as a server with clients over TLS on the loopback address.
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <csignal>
#include <memory>

#include "integration/runs.hpp"

namespace mcit::test {
namespace {

constexpr int kSteps = 8;  // of each of two tasks

/// Three clients with a handful of rows each.
fs::path settings(const Workplace& work) {
  write(work / "suite.toml", R"(
[mini]
train = 32
test = 12
[[tasks]]
name = "geo"
train = "geo/train.json"
test = "geo/test.json"
answers = ["africa", "america", "asia", "europe"]
[[tasks]]
name = "count"
train = "count/train.json"
test = "count/test.json"
answers = ["1", "2", "3", "4"]
)");
  write(work / "split.toml", R"(
suite = "suite.toml"
threads = 1
[train]
blocks = 1
steps = 8
batch = 3
local_steps = 4
[partition]
clients = 3
[run]
snapshot_every = 2
)");
  return work / "split.toml";
}

Arguments run_of(const Workplace& work, const fs::path& out, const Arguments& more = {}) {
  return Arguments{"split", settings(work).string(), "--out", out.string()} + more;
}

Json record_of(const fs::path& run) { return Json::parse(slurp(run / "split.json")); }

/// What must be the same to the byte however a run came about; bytes of evaluation count what was asked
/// twice.
std::map<std::string, std::string> bits_of(const fs::path& run, bool costs = true) {
  std::map<std::string, std::string> out = {{"model", slurp(run / "model.safetensors")},
                                            {"matrix.csv", slurp(run / "matrix.csv")}};
  const Json result = result_of(run);
  for (const char* key : {"complete", "matrix", "counts"}) out[key] = result.at(key).dump();
  Json record = record_of(run);
  record.erase("server_cpu_seconds");
  for (auto& [id, client] : record.at("clients").items())
    for (const char* key : {"cpu_seconds", "eval_bytes_up", "eval_bytes_down"}) client.erase(key);
  if (costs) out["record"] = record.dump();
  return out;
}

void same_bits(const std::map<std::string, std::string>& expected,
               const std::map<std::string, std::string>& found) {
  for (const auto& [name, bytes] : expected) {
    INFO(name);
    CHECK(found.at(name) == bytes);
  }
}

/// The port that a server took, from what it says.
std::string address_of(Process& server, const fs::path& log) {
  const std::string mark = "listening on ";
  std::string address;
  REQUIRE(server.until([&] {
    const std::string text = fs::exists(log) ? slurp(log) : "";
    const std::size_t at = text.find(mark), end = text.find_first_of(" ,\n", at + mark.size());
    if (at == std::string::npos || end == std::string::npos) return false;
    address = text.substr(at + mark.size(), end - at - mark.size());
    return true;
  }));
  return address;
}

struct Network {
  Workplace& work;
  fs::path certs = work / "certs", run = work / "served";

  explicit Network(Workplace& where) : work(where) {
    succeeded(work.mcit({"split", "certs", certs.string(), "--clients", "3"}));
  }
  Arguments tls(const std::string& name, const fs::path& folder) const {
    return {"--ca",  (folder / "ca.pem").string(),       "--cert", (folder / (name + ".pem")).string(),
            "--key", (folder / (name + ".key")).string()};
  }
  /// The same certificate, but for its dates: an hour ago it ended.
  Arguments expired(const std::string& name) const {
    const auto opened = [](const fs::path& file, const char* how) {
      BIO* const bio = BIO_new_file(file.c_str(), how);
      REQUIRE(bio != nullptr);
      return std::unique_ptr<BIO, decltype(&BIO_free)>(bio, BIO_free);
    };
    const auto old_pem = opened(certs / (name + ".pem"), "r"), ca_key = opened(certs / "ca.key", "r"),
               new_pem = opened(certs / (name + "-old.pem"), "w");
    const std::unique_ptr<X509, decltype(&X509_free)> certificate(
        PEM_read_bio_X509(old_pem.get(), nullptr, nullptr, nullptr), X509_free);
    const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
        PEM_read_bio_PrivateKey(ca_key.get(), nullptr, nullptr, nullptr), EVP_PKEY_free);
    REQUIRE(X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -7200) != nullptr);
    REQUIRE(X509_gmtime_adj(X509_getm_notAfter(certificate.get()), -3600) != nullptr);
    REQUIRE(X509_sign(certificate.get(), key.get(), EVP_sha256()) > 0);
    REQUIRE(PEM_write_bio_X509(new_pem.get(), certificate.get()) == 1);
    Arguments out = tls(name, certs);
    out[3] = (certs / (name + "-old.pem")).string();
    return out;
  }
  std::unique_ptr<Process> serve(const Arguments& more = {}) const {
    return serve_with(tls("server", certs), run, more);
  }
  std::unique_ptr<Process> serve_with(const Arguments& credentials, const fs::path& out,
                                      const Arguments& more = {}) const {
    return std::make_unique<Process>(
        Arguments{"split", "serve", settings(work).string(), "--out", out.string(), "--address",
                  "127.0.0.1:0", "--set", "network.deadline=5"} +
            credentials + more,
        work.path());
  }
  std::unique_ptr<Process> join(const std::string& id, const std::string& address,
                                const Arguments& more = {}) const {
    return std::make_unique<Process>(Arguments{"split", "join", settings(work).string(), "--client", id,
                                               "--address", address, "--state", (work / "states").string()} +
                                         tls(id, certs) + more,
                                     work.path());
  }
};

}  // namespace

TEST_CASE("MPSL and FedAvg in one process, and what they cost clients") {
  Workplace work;
  succeeded(work.mcit(run_of(work, work / "fedavg", {"--set", "method=fedavg"})));
  const Ended ended = work.mcit(run_of(work, work / "mpsl", {"--beside", (work / "fedavg").string()}));
  succeeded(ended);
  CHECK(ended.out.find("client-03") != std::string::npos);
  CHECK(ended.out.find("fedavg over mpsl, clients: compute for a row ") != std::string::npos);
  const Json mpsl = record_of(work / "mpsl"), fedavg = record_of(work / "fedavg");
  CHECK(result_of(work / "mpsl").at("complete") == true);
  for (const char* id : {"client-01", "client-02", "client-03"}) {
    const Json &less = mpsl.at("clients").at(id), &more = fedavg.at("clients").at(id);
    CHECK(less.at("examples") == 2 * kSteps * 3);
    CHECK(more.at("examples") == 2 * kSteps * 3);
    // A row up: (65 + 16) tokens of 160 float32, and the gradient of eight scores; less than half a percent
    // more is names and shapes.
    const double row_up = (65 + 16) * 160 * 4 + 8 * 4,
                 up = less.at("bytes_up").get<double>() / (2 * kSteps * 3);
    CHECK(up > row_up);
    CHECK(up < 1.01 * row_up);
    CHECK(less.at("flops").get<double>() * 50 < more.at("flops").get<double>());
    CHECK(less.at("parameter_bytes").get<double>() * 5 < more.at("parameter_bytes").get<double>());
    CHECK(less.at("scores").at("geo").at("rows") == 4);
  }
  CHECK(mpsl.at("server_flops").get<double>() > 0.0);
  CHECK(fedavg.at("server_flops") == 0.0);
}

TEST_CASE("a split run that is killed anywhere goes on to the same bytes") {
  Workplace work;
  for (const Arguments& kind :
       {Arguments{"--set", "train.heads=true"}, Arguments{"--set", "method=fedavg"}}) {
    const std::string name = kind[1].substr(0, kind[1].find('='));
    succeeded(work.mcit(run_of(work, work / (name + "-whole"), kind)));
    const fs::path run = work / (name + "-killed");
    Arguments arguments = run_of(work, run, kind);
    int kills = 0;
    for (int kill = 0; kill < 3; ++kill) {
      const auto before = snapshots_of(run);
      Process process(arguments, work.path());
      const auto fresh = [&] {
        const auto now = snapshots_of(run);
        return std::count_if(now.begin(), now.end(), [&](const fs::path& file) {
                 return std::find(before.begin(), before.end(), file) == before.end();
               }) > 0;
      };
      if (process.until(fresh)) {
        process.signal(SIGKILL);
        kills += process.wait().signal == SIGKILL ? 1 : 0;
      }
      arguments = {"split", "--resume", run.string()};
    }
    CHECK(kills == 3);
    succeeded(work.mcit(arguments));
    same_bits(bits_of(work / (name + "-whole")), bits_of(run));
  }
}

TEST_CASE("over TLS with client certificates: the same bytes as in one process") {
  Workplace work;
  const Network network(work);
  const Arguments heads = {"--set", "train.heads=true"};
  succeeded(work.mcit(run_of(work, work / "embedded", heads)));
  const auto server = network.serve(heads);
  const std::string address = address_of(*server, network.run / "log.txt");
  std::vector<std::unique_ptr<Process>> clients;
  for (const char* id : {"client-02", "client-01", "client-03"})
    clients.push_back(network.join(id, address, heads));
  succeeded(server->wait());
  for (const auto& client : clients) {
    const Ended ended = client->wait();
    succeeded(ended);
    CHECK(ended.err.find("the run is done") != std::string::npos);
  }
  same_bits(bits_of(work / "embedded"), bits_of(network.run));
}

TEST_CASE("a client that is killed is left out, and comes back; one that stands still as well") {
  Workplace work;
  const Network network(work);
  const Arguments longer = {"--set", "train.steps=60", "--set", "network.deadline=1"};
  const auto server = network.serve(longer);
  const std::string address = address_of(*server, network.run / "log.txt");
  const auto first = network.join("client-01", address, longer),
             still = network.join("client-03", address, longer);
  auto killed = network.join("client-02", address, longer);
  const auto said = [&](const std::string& text) {
    return [&network, text] { return slurp(network.run / "log.txt").find(text) != std::string::npos; };
  };
  REQUIRE(server->until([&] { return !snapshots_of(network.run).empty(); }));
  killed->signal(SIGKILL);
  REQUIRE(server->until(said("client-02 is left out of step")));
  still->signal(SIGSTOP);
  REQUIRE(server->until(said("client-03 is left out of step")));
  killed = network.join("client-02", address, longer);
  still->signal(SIGCONT);
  succeeded(server->wait());
  for (const Process* each : {first.get(), still.get(), killed.get()})
    succeeded(const_cast<Process*>(each)->wait());
  const Json clients = record_of(network.run).at("clients");
  CHECK(clients.at("client-01").at("missed") == 0);
  CHECK(clients.at("client-02").at("missed").get<int>() >= 1);
  CHECK(clients.at("client-03").at("missed").get<int>() >= 1);
  CHECK(clients.at("client-01").at("examples") == 2 * 60 * 3);
  // Both are there again at the end: the last evaluation has their rows.
  for (const char* id : {"client-01", "client-02", "client-03"})
    CHECK(clients.at(id).at("scores").at("count").at("rows") == 4);
}

TEST_CASE("a server that is killed goes on from its snapshot, and its clients find it again") {
  Workplace work;
  const Network network(work);
  succeeded(work.mcit(run_of(work, work / "embedded")));
  auto server = network.serve();
  const std::string address = address_of(*server, network.run / "log.txt");
  std::vector<std::unique_ptr<Process>> clients;
  for (const char* id : {"client-01", "client-02", "client-03"}) clients.push_back(network.join(id, address));
  REQUIRE(server->until([&] { return snapshots_of(network.run).size() >= 2; }));
  server->signal(SIGKILL);
  server->wait();
  const Ended ended =
      work.mcit(Arguments{"split", "serve", "--resume", network.run.string(), "--address", address} +
                network.tls("server", network.certs));
  succeeded(ended);
  for (const auto& client : clients) succeeded(client->wait());
  same_bits(bits_of(work / "embedded"), bits_of(network.run));
}

TEST_CASE("who does not belong is refused, each with its own reason") {
  Workplace work;
  const Network network(work);
  const fs::path rogue = work / "rogue";
  succeeded(work.mcit({"split", "certs", rogue.string(), "--clients", "3"}));
  const auto server = network.serve({"--set", "network.deadline=60"});  // it waits for clients all the while
  const std::string address = address_of(*server, network.run / "log.txt");
  const auto joins = [&](const Arguments& more, const std::vector<std::string>& said) {
    failed(work.mcit(Arguments{"split", "join", settings(work).string(), "--address", address, "--patience",
                               "20", "--state", (work / "states").string()} +
                     more),
           said);
  };
  const std::string ca = (network.certs / "ca.pem").string();
  joins({"--client", "client-01", "--ca", ca}, {"wants a client certificate", "none was given"});
  joins(Arguments{"--client", "client-01", "--ca", ca, "--cert", (rogue / "client-01.pem").string(), "--key",
                  (rogue / "client-01.key").string()},
        {"another authority has signed it"});
  joins(Arguments{"--client", "client-01"} + network.tls("client-01", rogue),
        {"that --ca does not vouch for"});
  joins({"--client", "client-01"}, {"speaks TLS"});
  joins(Arguments{"--client", "client-01"} + network.expired("client-01"),
        {"does not take this client's certificate", "expired"});
  joins(Arguments{"--client", "client-01"} + network.tls("client-02", network.certs),
        {"the certificate is for 'client-02', not for 'client-01'"});
  joins(
      Arguments{"--client", "client-01", "--set", "train.steps=9"} + network.tls("client-01", network.certs),
      {"must read the same configuration"});
  joins(Arguments{"--client", "client-09"} + network.tls("client-01", network.certs),
        {"client-09", "client-01 to client-03"});
  // Keys are the owner's alone to read.
  CHECK((fs::status(network.certs / "client-01.key").permissions() &
         (fs::perms::group_all | fs::perms::others_all)) == fs::perms::none);
  Process plain(Arguments{"split", "serve", settings(work).string(), "--out", (work / "plain").string(),
                          "--address", "127.0.0.1:0"},
                work.path());
  const std::string open = address_of(plain, work / "plain/log.txt");
  failed(work.mcit(
             Arguments{"split", "join", settings(work).string(), "--client", "client-01", "--address", open} +
             network.tls("client-01", network.certs)),
         {"does not speak TLS"});
  failed(work.mcit({"split", "serve", settings(work).string(), "--out", (work / "wide").string(), "--address",
                    "0.0.0.0:0"}),
         {"not a loopback address", "--ca"});
  failed(work.mcit({"split", "join", settings(work).string(), "--client", "client-01", "--address",
                    "127.0.0.1:9", "--patience", "1"}),
         {"nobody listens there"});
}

TEST_CASE("a server whose certificate is out of date is not talked to") {
  Workplace work;
  const Network network(work);
  const auto server = network.serve_with(network.expired("server"), work / "old");
  const std::string address = address_of(*server, work / "old/log.txt");
  failed(network.join("client-01", address, {"--patience", "20"})->wait(),
         {"--ca does not vouch for", "expired"});
}

TEST_CASE("a message longer than one side reads ends the client with the key to change") {
  Workplace work;
  const Network network(work);
  const Arguments whole = {"--set", "method=fedavg"},  // 1.3 MB each way
      short_of = whole + Arguments{"--set", "network.largest_message_mb=1"};
  const std::vector<std::string> said = {"larger than max", "raise network.largest_message_mb on both sides"};
  for (const bool server_reads_less : {true, false}) {
    const fs::path out = work / (server_reads_less ? "up" : "down");
    const auto server =
        network.serve_with(network.tls("server", network.certs), out, server_reads_less ? short_of : whole);
    const std::string address = address_of(*server, out / "log.txt");
    std::vector<std::unique_ptr<Process>> clients;
    for (const char* id : {"client-01", "client-02", "client-03"})
      clients.push_back(network.join(id, address, server_reads_less ? whole : short_of));
    for (const auto& client : clients) failed(client->wait(), said);
    CHECK_FALSE(fs::exists(out / "model.safetensors"));
  }
}

TEST_CASE("settings of a split run that cannot work are told before it begins") {
  Workplace work;
  const auto refuses = [&](const Arguments& more, const std::vector<std::string>& said) {
    failed(work.mcit(run_of(work, work / "none", more)), said);
    CHECK_FALSE(fs::exists(work / "none/result.json"));
    fs::remove_all(work / "none");
  };
  refuses({"--set", "method=fedavgg"}, {"method", "fedavg"});
  refuses({"--set", "split.modalities=[\"image\", \"sound\"]"}, {"'sound' is not known"});
  refuses({"--set", "split.frames_per_token=5"}, {"does not divide audio_frames"});
  refuses({"--set", "train.stepz=1"}, {"stepz", "steps"});
  refuses({"--set", "partition.clients=40"}, {"too few for 40 clients"});
  refuses({"--set", "network.quorum=4"}, {"more than partition.clients"});
  refuses({"--beside", (work / "nowhere").string()}, {"nowhere"});
  failed(work.mcit({"split"}), {"needs a file of settings"});
  failed(work.mcit({"split", "--resume", (work / "nowhere").string()}), {"nowhere"});
}

}  // namespace mcit::test
