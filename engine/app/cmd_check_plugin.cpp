#include <sys/wait.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <array>
#include <cstring>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "core/config.hpp"
#include "core/console.hpp"
#include "core/json.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "plugin/conformance.hpp"

namespace mcit {
namespace {

struct Flags {
  std::string file, strategy;
  std::vector<std::string> sets;
  std::uint64_t seed = 1;
  bool json = false;
};

Params params_of(const std::vector<std::string>& sets) {
  Config config = Config::parse("", "command line");
  for (const std::string& assignment : sets) config.set(assignment);
  return Params(config.params());
}

/// The plugin runs in a process of its own, which tells what it found line by line: a crash is a finding too.
class Child {
 public:
  explicit Child(const std::function<void(int pipe)>& body) {
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0) throw Error("check-plugin", "no pipe could be made", std::strerror(errno));
    id_ = ::fork();
    if (id_ < 0) throw Error("check-plugin", "no process could be started", std::strerror(errno));
    if (id_ == 0) {
      ::close(ends[0]);
      body(ends[1]);
      ::_exit(0);
    }
    ::close(ends[1]);
    pipe_ = ends[0];
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    ::close(pipe_);
    if (id_ > 0) ::waitpid(id_, nullptr, 0);
  }

  bool line(std::string& text) {
    for (;;) {
      if (const auto end = buffer_.find('\n'); end != std::string::npos) {
        text = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return true;
      }
      std::array<char, 4096> part{};
      const ssize_t got = ::read(pipe_, part.data(), part.size());
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      buffer_.append(part.data(), static_cast<std::size_t>(got));
    }
  }

  /// Empty when the process ended well, else how it ended.
  std::string outcome() {
    int status = 0;
    ::waitpid(std::exchange(id_, 0), &status, 0);
    if (WIFSIGNALED(status)) return std::string("it crashed: ") + ::strsignal(WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
      return "it ended the process with exit code " + std::to_string(WEXITSTATUS(status));
    return {};
  }

 private:
  pid_t id_ = 0;
  int pipe_ = -1;
  std::string buffer_;
};

void send(int pipe, const Json& message) {
  const std::string text = dump_json(message) + "\n";
  for (std::size_t sent = 0; sent < text.size();) {
    const ssize_t wrote = ::write(pipe, text.data() + sent, text.size() - sent);
    if (wrote < 0 && errno != EINTR) ::_exit(3);
    if (wrote > 0) sent += static_cast<std::size_t>(wrote);
  }
}

void run_checks(const Flags& flags, const Params& params, int pipe) {
  ConformanceOptions options{
      .strategy = flags.strategy, .params = params, .seed = flags.seed, .on_begin = {}, .on_result = {}};
  options.on_begin = [&](const std::string& strategy, const std::string& check) {
    send(pipe, {{"begin", check}, {"strategy", strategy}});
  };
  options.on_result = [&](const CheckResult& r) {
    send(pipe, {{"check", r.check},
                {"strategy", r.strategy},
                {"outcome", static_cast<int>(r.outcome)},
                {"detail", r.detail}});
  };
  try {
    check_plugin(flags.file, options);
    send(pipe, {{"end", "checks"}});
  } catch (const std::exception& e) {
    send(pipe, {{"error", e.what()}});
    ::_exit(0);
  }
  // What a strategy leaves behind is destroyed as at the end of a run: an exit handler of the plugin may
  // still crash.
  std::exit(0);
}

void print(const CheckResult& r, std::string& strategy) {
  if (r.strategy != strategy) std::cout << (strategy = r.strategy) << "\n";
  const bool colours = console::colours(console::Stream::out);
  const char* colour = r.outcome == Outcome::failed    ? "\033[31m"
                       : r.outcome == Outcome::warning ? "\033[33m"
                       : r.outcome == Outcome::passed  ? "\033[32m"
                                                       : "\033[2m";
  const std::string outcome(outcome_name(r.outcome));
  std::cout << "  " << (colours ? colour : "") << outcome << (colours ? "\033[0m" : "")
            << std::string(9 - outcome.size(), ' ') << r.check;
  if (!r.detail.empty()) std::cout << "\n           " << r.detail;
  std::cout << std::endl;
}

void check(const Flags& flags) {
  const Params params = params_of(flags.sets);
  Child child([&](int pipe) { run_checks(flags, params, pipe); });
  std::vector<CheckResult> results;
  std::string line, strategy, error;
  CheckResult running{"", "it is opened", Outcome::failed, ""};
  bool ended = false;
  while (child.line(line)) {
    const Json message = parse_json(line, "check-plugin");
    if (message.contains("begin")) {
      running = {message.at("strategy"), message.at("begin"), Outcome::failed, ""};
    } else if (message.contains("check")) {
      results.push_back({message.at("strategy"), message.at("check"),
                         static_cast<Outcome>(message.at("outcome").get<int>()), message.at("detail")});
      if (!flags.json) print(results.back(), strategy);
    } else if (message.contains("error")) {
      error = message.at("error").get<std::string>();
    } else {
      ended = true;
      running = {"", "the process ends in peace", Outcome::failed, ""};
    }
  }
  std::string how = child.outcome();
  if (how.empty() && !ended && error.empty()) how = "it ended the process";
  if (!how.empty()) {
    running.detail = how;
    results.push_back(running);
    if (!flags.json) print(running, strategy);
  } else if (ended) {
    results.push_back({"", running.check, Outcome::passed, ""});
    if (!flags.json) print(results.back(), strategy);
  }
  if (!error.empty()) throw PluginError(flags.file, error);
  const bool good = conforms(results);
  if (flags.json) {
    Json list = Json::array();
    for (const CheckResult& r : results)
      list.push_back({{"strategy", r.strategy},
                      {"check", r.check},
                      {"outcome", outcome_name(r.outcome)},
                      {"detail", r.detail}});
    std::cout << dump_json({{"file", flags.file}, {"conforms", good}, {"checks", list}}, 2) << "\n";
  }
  if (!good) throw CheckFailed();
}

}  // namespace

void add_check_plugin(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("check-plugin", "Put any strategy plugin through the conformance suite");
  command->add_option("FILE", flags->file, "The plugin's shared library")->required()->type_name("");
  command->add_option("--strategy", flags->strategy, "Only this strategy of the file")->type_name("NAME");
  command->add_option("--set", flags->sets, "One of the strategy's settings, e.g. rank=4 (repeatable)")
      ->take_all()
      ->type_name("KEY=VALUE");
  command->add_option("--seed", flags->seed, "Seed of everything random")->capture_default_str();
  command->add_flag("--json", flags->json, "The findings as JSON");
  command->footer(
      "The plugin runs in a process of its own, so that a crash is reported and not suffered.\n"
      "Exit code 1 when a check failed.\n"
      "Example:\n  mcit check-plugin build/my_strategy.so --set rank=4");
  command->callback([flags] { check(*flags); });
}

}  // namespace mcit
