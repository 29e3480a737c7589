#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <optional>

#include "app/commands.hpp"
#include "app/node_service.hpp"
#include "app/node_trainer.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "core/run_dir.hpp"
#include "core/system.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

struct Flags {
  RunFlags settings;
  std::string key, out, client, url, ca, cert, cert_key, state, model;
  double deadline = 600.0, patience = 600.0, heartbeat = 30.0;
  bool listed = false;
};

/// A new file that only its owner can read; never over one that is there.
void write_secret(const fs::path& file, const std::string& text) {
  const int descriptor = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0)
    throw DataError(file.string(), std::strerror(errno),
                    errno == EEXIST ? "a node is known by its key: choose another name, or remove it" : "");
  const bool whole = ::write(descriptor, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                     ::fsync(descriptor) == 0;
  if (::close(descriptor) != 0 || !whole) throw DataError(file.string(), "could not be written");
}

void keygen(const Flags& flags) {
  const flower::Key key = flower::Key::generate();
  const fs::path file = flags.key, half = flags.key + ".pub";
  if (file.has_parent_path()) fs::create_directories(file.parent_path());
  write_secret(file, key.private_pem());
  write_atomic(half, key.public_ssh("mcit") + "\n");
  std::cout << "private key: " << file.string() << " (stays on this machine)\n"
            << "public key:  " << half.string() << " (for the server's list)\n";
}

flower::Key read_key(const fs::path& file) {
  constexpr std::uint64_t kMost = 1 << 16;
  const std::string text = read_file(file, kMost);
  if ((fs::status(file).permissions() & (fs::perms::group_all | fs::perms::others_all)) != fs::perms::none)
    throw ConfigError(file.string(), "others may read this key", "chmod 600 " + file.string());
  return flower::Key::from_pem(text, file.string());
}

/// What the server needs: no base, no rows, no LibTorch.
void init(const Flags& flags) {
  const NodeTrainer trainer(flags.settings);
  const FederatedClients& clients = trainer.clients;
  std::string names;
  for (const std::string& id : clients.ids()) names += (names.empty() ? "\"" : ", \"") + id + "\"";
  const fs::path out = flags.out;
  write_atomic(out / "server.toml", "# mcit node init " + flags.settings.config + "\n[federation]\n" +
                                        trainer.config.child("federation").resolved() +
                                        "rounds = " + std::to_string(clients.streams().rounds()) +
                                        "\nseed = " + std::to_string(trainer.settings.seed) +
                                        "\nclients = [" + names +
                                        "]\ndeadline = " + shortest(flags.deadline) + "\n\n[aggregate]\n" +
                                        trainer.settings.rule_settings + "\n");
  write_atomic(out / "model.safetensors", fed::to_blob(clients.shared(), {}));
  std::cout << clients.histogram() << "\n"
            << (out / "server.toml").string() << " and " << (out / "model.safetensors").string()
            << " are for the server\n";
}

/// The folder of what the client keeps; the one of an earlier day is taken up again.
RunDir open_state(const fs::path& folder, const std::string& config) {
  if (!fs::exists(folder / "config.toml")) {
    RunDir dir = RunDir::create(folder);
    write_atomic(dir.config(), config);
    return dir;
  }
  RunDir dir = RunDir::open(folder);
  if (read_file(dir.config()) != config)
    throw ConfigError(dir.config().string(), "this client began with other settings",
                      "take those, or another --state for a new federation");
  return dir;
}

NodeClient client_of(const NodeTrainer& trainer, std::int64_t k, NodeCrew& crew) {
  const FederatedClients& clients = trainer.clients;
  NodeClient out;
  out.id = clients.ids()[static_cast<std::size_t>(k)];
  for (const auto& task : clients.rows(k)) out.examples += static_cast<std::int64_t>(task.size());
  for (std::int64_t round = 1; round <= clients.streams().rounds(); ++round)
    if (clients.takes_part(k, round)) out.rounds.push_back(round);
  if (out.rounds.empty())
    throw ConfigError(out.id, "has no rows in any round", "look at [partition] and [stream]");
  out.train = [&crew](const std::string& model) { return crew.train(model); };
  out.broken = [&crew] { return crew.broken(); };
  return out;
}

std::unique_ptr<flower::Node> make_node(const Flags& flags) {
  const flower::Key key = read_key(flags.key);
  flower::NodeOptions options;
  options.self_register = !flags.listed;
  options.patience = flags.patience;
  options.heartbeat = flags.heartbeat;
  options.stop = [] { return interrupted(); };
  options.notice = [](const std::string& text) { log::info(text); };
  return std::make_unique<flower::Node>(flower::Address{flags.url, flags.ca, flags.cert, flags.cert_key}, key,
                                        options);
}

/// The first process's part, or the only one's.
void work_first(NodeTrainer& trainer, std::int64_t k, flower::Node& node, NodeCrew& crew) {
  const NodeClient client = client_of(trainer, k, crew);
  if (const std::string privacy =
          privacy_text(trainer.settings.loop.client, trainer.clients.streams().rounds(),
                       trainer.settings.federation.sample);
      !privacy.empty())
    log::info("privacy ", privacy);
  const std::int64_t sent = serve(node, client,
                                  {.idle = [&crew] { crew.still_here(); },
                                   .stop = [] { return interrupted(); },
                                   .notice = [](const std::string& text) { log::info(text); }});
  crew.throw_if_broken();
  if (!interrupted()) crew.end();  // else nobody listens any more
  log::info(client.id, ": ", sent, " updates sent");
}

void work(const Flags& flags) {
  const Launch launch = Launch::from_environment();
  const std::unique_ptr<Group> group = join_launch(launch);
  std::unique_ptr<flower::Node> node;
  std::optional<NodeTrainer> trainer;
  std::optional<Mirror> mirror;
  std::optional<RunDir> dir;
  std::int64_t k = 0;
  group->together([&] {
    if (group->first()) node = make_node(flags);
    trainer.emplace(flags.settings, launch, *group);
    k = trainer->clients.index(flags.client);
    if (!group->first()) {
      mirror.emplace(flags.state);
      return;
    }
    dir.emplace(open_state(flags.state, trainer->config.resolved()));
    log::add_file(dir->log());
  });
  trainer->prefetch(k);
  NodeCrew crew(*trainer, k, (group->first() ? dir->root() : mirror->root()) / "clients", *group,
                2.0 * flags.patience);
  if (group->first())
    work_first(*trainer, k, *node, crew);
  else
    crew.follow();
}

/// A round from file to file, for whoever brings the bytes in another way.
void train_once(const Flags& flags) {
  NodeTrainer trainer(flags.settings);
  const std::int64_t k = trainer.clients.index(flags.client);
  const RunDir dir = open_state(flags.state, trainer.config.resolved());
  log::add_file(dir.log());
  write_atomic(flags.out, trainer.train(k, dir.root() / "clients", read_file(flags.model)));
}

CLI::Option* add_text(CLI::App* command, const char* name, std::string& value, const char* help,
                      const char* type) {
  return command->add_option(name, value, help)->type_name(type);
}

void add_client(CLI::App* command, Flags& flags) {
  add_setting_flags(*command, flags.settings, "One setting, e.g. threads=4 (repeatable)");
  command->get_option("CONFIG")->required();
  add_text(command, "--client", flags.client, "Which of the partition's clients this is, e.g. client-01",
           "ID")
      ->required();
  add_text(command, "--state", flags.state, "Folder for what this client keeps between rounds, and its log",
           "DIR")
      ->required();
}

void add_keygen(CLI::App& node, const std::shared_ptr<Flags>& flags) {
  CLI::App* command = node.add_subcommand("keygen", "Make the key pair that a node is known by");
  command->add_option("FILE", flags->key, "The private key; FILE.pub is for the server")
      ->type_name("")
      ->required();
  command->footer("Example:\n  mcit node keygen keys/client-01");
  command->callback([flags] { keygen(*flags); });
}

void add_init(CLI::App& node, const std::shared_ptr<Flags>& flags) {
  CLI::App* command = node.add_subcommand("init", "Write what the server begins with");
  add_setting_flags(*command, flags->settings, "One setting, e.g. aggregate.rule=fedadam (repeatable)");
  command->get_option("CONFIG")->required();
  command->add_option("--out", flags->out, "Folder for server.toml and model.safetensors")
      ->type_name("DIR")
      ->required();
  command->add_option("--deadline", flags->deadline, "Seconds that clients have for a round [600]")
      ->type_name("S")
      ->check(CLI::PositiveNumber);
  command->footer("Example:\n  mcit node init configs/federated/fedavg-mini.toml --out server");
  command->callback([flags] { init(*flags); });
}

void add_run(CLI::App& node, const std::shared_ptr<Flags>& flags) {
  CLI::App* run = node.add_subcommand("run", "Join, and train whenever the server asks, until Ctrl-C");
  add_client(run, *flags);
  add_text(run, "--url", flags->url, "The SuperLink, https://HOST:PORT; http for 127.0.0.1 alone", "URL")
      ->required();
  add_text(run, "--key", flags->key, "Private key that mcit node keygen has made", "FILE")->required();
  add_text(run, "--ca", flags->ca, "Certificates to trust, PEM [the system's]", "FILE");
  add_text(run, "--cert", flags->cert, "This client's certificate, where a proxy asks for one", "FILE");
  add_text(run, "--cert-key", flags->cert_key, "The key of --cert", "FILE");
  run->add_flag("--listed", flags->listed, "The server has this node's public key already: do not register");
  run->add_option("--patience", flags->patience, "Seconds that the server may be away [600]")
      ->type_name("S")
      ->check(CLI::NonNegativeNumber);
  run->add_option("--heartbeat", flags->heartbeat, "Seconds between signs of life, 10 to 1800 [30]")
      ->type_name("S")
      ->check(CLI::Range(10.0, 1800.0));
  run->footer(
      "A node that was stopped or killed goes on with the same command. The server cannot send it code, and "
      "what\nleaves it is what the strategy trains: no row, no picture, no label.\n\n"
      "Example:\n  mcit node run configs/federated/fedavg-mini.toml --client client-01 --key keys/client-01 "
      "\\\n"
      "    --url http://127.0.0.1:8000 --state client-01");
  run->callback([flags] { work(*flags); });
}

void add_train(CLI::App& node, const std::shared_ptr<Flags>& flags) {
  CLI::App* command = node.add_subcommand("train", "Train one round, from a model's file to an update's");
  add_client(command, *flags);
  add_text(command, "--from", flags->model, "What the server has sent", "FILE")
      ->required()
      ->check(CLI::ExistingFile);
  add_text(command, "--out", flags->out, "The update, for the server", "FILE")->required();
  command->footer(
      "For transports that cannot keep a node running; the app's ClientApp on a stock SuperNode is one.\n\n"
      "Example:\n  mcit node train configs/federated/fedavg-mini.toml --client client-01 --state client-01 "
      "\\\n"
      "    --from round.safetensors --out update.safetensors");
  command->callback([flags] { train_once(*flags); });
}

}  // namespace

void add_node(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* node = app.add_subcommand("node", "Train one client of a federation over several machines");
  node->require_subcommand(1);
  node->footer(
      "The server is Flower's SuperLink with mcit's app; docs/guide/federate.md has both sides.\n\n"
      "Example:\n  mcit node keygen keys/client-01\n"
      "  mcit node init configs/federated/fedavg-mini.toml --out server\n"
      "  mcit node run configs/federated/fedavg-mini.toml --client client-01 --key keys/client-01 \\\n"
      "    --url https://server.example:8000 --ca ca.pem --state client-01");
  add_keygen(*node, flags);
  add_init(*node, flags);
  add_run(*node, flags);
  add_train(*node, flags);
}

}  // namespace mcit
