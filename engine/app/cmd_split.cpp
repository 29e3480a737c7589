#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "app/flags.hpp"
#include "app/split_network.hpp"
#include "app/split_setup.hpp"
#include "core/console.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "mcit/errors.hpp"
#include "metrics/matrix_io.hpp"
#include "report/comparison.hpp"
#include "report/heatmap.hpp"
#include "split/local_peers.hpp"

namespace mcit {
namespace {

struct Flags {
  std::string config, out, resume, data, beside;
  std::vector<std::string> sets;
  std::optional<std::uint64_t> seed;
  std::int64_t stop_after = 0;
};

Config gather(const Flags& flags) {
  if (!flags.resume.empty()) {
    if (!flags.config.empty() || !flags.out.empty() || !flags.data.empty() || !flags.sets.empty() ||
        flags.seed)
      throw ConfigError("--resume", "goes on with the settings that the run began with",
                        "leave out everything but --stop-after and --beside, or start a new run");
    return Config::read(std::filesystem::path(flags.resume) / "config.toml");
  }
  if (flags.config.empty())
    throw ConfigError("split", "needs a file of settings, or --resume DIR",
                      "try: mcit split configs/split/mpsl-mini.toml");
  Config config = Config::read(flags.config);
  if (!flags.out.empty()) config.set("out=" + Json(std::filesystem::absolute(flags.out).string()).dump());
  if (!flags.data.empty()) config.set("data=" + Json(std::filesystem::absolute(flags.data).string()).dump());
  if (flags.seed) config.set("seed=" + std::to_string(*flags.seed));
  for (const std::string& assignment : flags.sets) config.set(assignment);
  return config;
}

RunDir open_run(const Flags& flags, const SplitSettings& s) {
  if (!flags.resume.empty()) return RunDir::open(flags.resume);
  if (!s.out.empty()) return RunDir::create(s.out);
  return RunDir::create(std::filesystem::path("runs") / s.suite_name() /
                        ("split-" + std::string(s.loop.method == split::Method::mpsl ? "mpsl" : "fedavg") +
                         "-" + std::to_string(s.seed)));
}

void show(const RunDir& dir, const RunResult& done, const split::Record& record, const std::string& beside) {
  write_atomic(dir.matrix_csv(), matrix_to_csv(done.matrix, done.stage_names()));
  write_atomic(dir.matrix_svg(),
               heatmap_svg(done.matrix, done.strategy + " on " + done.suite, done.stage_names()));
  std::cout << comparison_terminal(compare_runs({{dir.root().string(), done}}),
                                   console::width(console::Stream::out),
                                   console::colours(console::Stream::out));
  std::cout << table_text(record);
  if (!beside.empty()) std::cout << comparison_text(record, split::read_record(beside));
}

/// What both a run in one process and a server do around the loop.
template <class Run>
void in_folder(const Flags& flags, const Config& config, SplitSettings& s, const char* resume,
               const Run& run) {
  s.loop.stop_after = flags.stop_after;
  if (!flags.beside.empty()) split::read_record(flags.beside);  // a wrong path is told before the work
  RunDir dir = open_run(flags, s);
  log::add_file(dir.log());
  if (flags.resume.empty()) write_atomic(dir.config(), config.resolved());
  const Stopwatch watch;
  try {
    split::Record record;
    const RunResult done = run(dir, record);
    show(dir, done, record, flags.beside);
    log::info(done.complete ? "done in " : "stopped after the steps asked for, ",
              duration_text(watch.seconds()), ": ", dir.root().string());
    if (!done.complete) log::info("go on with: ", resume, " --resume ", dir.root().string());
  } catch (const Interrupted&) {
    log::warn("interrupted; what was done is saved. Go on with: ", resume, " --resume ", dir.root().string());
    throw;
  }
}

void split_command(const Flags& flags, const std::string& command_line) {
  const Config config = gather(flags);
  SplitSettings s = SplitSettings::read(config);
  const int threads = set_threads(s.threads);
  const Suite suite = split_suite(s, true);
  const std::vector<std::string> classes = split_classes(suite), ids = s.clients();
  const split::Base base = split_base(s, classes);
  SplitRows rows = split_rows(s, suite, base, classes, false);
  in_folder(flags, config, s, "mcit split", [&](RunDir& dir, split::Record& record) {
    log::info("rows of each client:\n", rows.histogram);
    const RunResult head = split_head(s, suite, rows, threads, command_line, read_file(dir.config()));
    const bool mpsl = s.loop.method == split::Method::mpsl;
    const split::Base theirs = mpsl ? split::heads_of(base) : base;  // without what is the server's
    std::vector<std::unique_ptr<split::Client>> clients;
    for (std::size_t k = 0; k < ids.size(); ++k)
      clients.push_back(std::make_unique<split::Client>(
          split::ClientParts{ids[k], std::move(rows.clients[k]), split_pixels(s), dir.root() / "clients"},
          theirs, s.training));
    split::LocalPeers peers(std::move(clients));
    split::Loop loop(base, s.training, s.loop, peers);
    RunResult done = loop.run(head, dir);
    record = loop.record();
    return done;
  });
}

void add_network(CLI::App& command, NetworkFlags& network) {
  command.add_option("--address", network.address, "Host and port of the server [127.0.0.1:7070]")
      ->type_name("HOST:PORT");
  command.add_option("--ca", network.ca, "Certificate authority of both sides, PEM")->type_name("FILE");
  command.add_option("--cert", network.certificate, "Own certificate, PEM")->type_name("FILE");
  command.add_option("--key", network.key, "Its key, PEM")->type_name("FILE");
}

CLI::Option* add_config(CLI::App& command, Flags& flags) {
  command.add_option("--set", flags.sets, "One setting, e.g. method=fedavg (repeatable)")
      ->type_name("KEY=VALUE")
      ->take_all();
  command.add_option("--seed", flags.seed, "Seed of everything random [1]")->type_name("N");
  return command.add_option("CONFIG", flags.config, "Settings as TOML; flags win over the file")
      ->type_name("")
      ->check(CLI::ExistingFile);
}

void add_run_folder(CLI::App& command, Flags& flags) {
  command.add_option("--out", flags.out, "Folder of the run")->type_name("DIR");
  command.add_option("--resume", flags.resume, "Go on with the run in this folder")->type_name("DIR");
  command.add_option("--stop-after", flags.stop_after, "Stop after this many steps; --resume goes on")
      ->type_name("N");
  command
      .add_option("--beside", flags.beside,
                  "Another run's folder: how much less its clients compute and send")
      ->type_name("DIR");
}

void add_serve(CLI::App& split) {
  auto flags = std::make_shared<Flags>();
  auto network = std::make_shared<NetworkFlags>();
  CLI::App* command = split.add_subcommand("serve", "Be the server of a split model over the network");
  add_config(*command, *flags);
  add_run_folder(*command, *flags);
  add_network(*command, *network);
  command->footer(
      "Waits for the clients of the settings, then trains. Clients may fall away and come back; a step goes "
      "on\n"
      "with those who answered within network.deadline seconds. Without --ca, --cert and --key only "
      "loopback\n"
      "addresses are listened on.\n\n"
      "Example:\n  mcit split serve configs/split/mpsl-mini.toml --address 0.0.0.0:7070 --ca certs/ca.pem "
      "\\\n"
      "    --cert certs/server.pem --key certs/server.key --out runs/served");
  command->callback([flags, network] {
    const Config config = gather(*flags);
    SplitSettings s = SplitSettings::read(config);
    in_folder(*flags, config, s, "mcit split serve", [&](RunDir& dir, split::Record& record) {
      return serve_split(s, *network, dir, typed_command(), record);
    });
  });
}

void add_join(CLI::App& split) {
  auto flags = std::make_shared<Flags>();
  auto network = std::make_shared<NetworkFlags>();
  auto join = std::make_shared<JoinFlags>();
  CLI::App* command = split.add_subcommand("join", "Be a client of a split model over the network");
  add_config(*command, *flags)->required();
  command
      ->add_option("--client", join->client,
                   "Which client: client-01, client-02, ...; the certificate's name")
      ->type_name("ID")
      ->required();
  command->add_option("--data", flags->data, "Folder with the suite's files [in MCIT_DATA's folders]")
      ->type_name("DIR");
  command->add_flag("--own-data", join->own_data,
                    "All rows of the folder are this client's [its share of them]");
  command->add_option("--state", join->state, "Folder for what it keeps of its tokenizers [below runs/]")
      ->type_name("DIR");
  command->add_option("--patience", join->patience, "Seconds to look for a server that is away [60]")
      ->type_name("SECONDS");
  add_network(*command, *network);
  command->footer(
      "Reads the same settings as the server; pictures, questions, recordings and answers stay here.\n\n"
      "Example:\n  mcit split join configs/split/mpsl-mini.toml --client client-01 --address "
      "server.example:7070 \\\n"
      "    --ca certs/ca.pem --cert certs/client-01.pem --key certs/client-01.key");
  command->callback([flags, network, join] {
    const Config config = gather(*flags);
    SplitSettings s = SplitSettings::read(config);
    join_split(s, *network, *join);
  });
}

void add_certs(CLI::App& split) {
  struct Wanted {
    std::string folder;
    std::vector<std::string> hosts = {"localhost", "127.0.0.1"}, clients;
    int count = 0;
  };
  auto wanted = std::make_shared<Wanted>();
  CLI::App* command = split.add_subcommand("certs", "Make certificates for a server and its clients");
  command->add_option("DIR", wanted->folder, "New folder for them")->type_name("")->required();
  command->add_option("--host", wanted->hosts, "Names and addresses of the server [localhost,127.0.0.1]")
      ->delimiter(',')
      ->type_name("HOSTS");
  command->add_option("--clients", wanted->count, "How many clients: client-01, client-02, ...")
      ->type_name("N")
      ->check(CLI::Range(1, 10000))
      ->required();
  command->footer(
      "ca.pem goes to all, server.pem and server.key to the server, client-01.pem and client-01.key to the "
      "first\n"
      "client, and so on; ca.key stays in a safe place.\n\n"
      "Example:\n  mcit split certs certs --host server.example --clients 4");
  command->callback([wanted] {
    SplitSettings s;
    s.partition.clients = wanted->count;
    make_split_certificates(wanted->folder, wanted->hosts, s.clients());
    log::info("certificates for the server and ", wanted->count, " clients: ", wanted->folder);
  });
}

}  // namespace

void add_split(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("split", "Train one model whose tokenizers, rows and labels stay with clients");
  add_config(*command, *flags);
  command->add_option("--data", flags->data, "Folder with the suite's files [in MCIT_DATA's folders]")
      ->type_name("DIR");
  add_run_folder(*command, *flags);
  command->footer(
      "Clients turn pictures, questions and recordings into tokens; the server runs the transformer over "
      "the\n"
      "tokens of all of them, sends predictions, and makes one backward pass from the gradients that come "
      "back\n"
      "(MPSL). method = \"fedavg\" trains the same parameters of the same model on the clients instead.\n\n"
      "Examples:\n  mcit split configs/split/mpsl-mini.toml --set method=fedavg --out runs/fedavg\n"
      "  mcit split configs/split/mpsl-mini.toml --out runs/mpsl --beside runs/fedavg\n"
      "  mcit split --resume runs/mpsl");
  command->require_subcommand(0, 1);
  add_serve(*command);
  add_join(*command);
  add_certs(*command);
  command->callback([flags, command] {
    if (command->get_subcommands().empty()) split_command(*flags, typed_command());
  });
}

}  // namespace mcit
