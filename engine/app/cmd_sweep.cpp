#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstring>
#include <iostream>
#include <optional>
#include <set>
#include <utility>

#include "app/commands.hpp"
#include "core/config.hpp"
#include "core/console.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/run_dir.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "metrics/result.hpp"
#include "report/comparison.hpp"

namespace mcit {
namespace {

struct Options {
  std::string file, out, markdown;
  std::vector<std::uint64_t> seeds;
  std::vector<std::string> only, sets, plugin_dirs;
  std::int64_t jobs = 0;
};

/// One line of the table, run once a seed.
struct Entry {
  std::string name, strategy;
  std::vector<std::string> sets;
};

struct Sweep {
  std::string suite;
  std::filesystem::path out;
  std::vector<std::uint64_t> seeds;
  std::vector<std::string> sets;  ///< of every run
  std::vector<Entry> entries;
};

Sweep read_sweep(const Options& options) {
  const Config config = Config::read(options.file);
  Sweep s;
  s.suite = config.name_or_path("suite", "mini4");
  const std::string name = std::filesystem::path(options.file).stem().string();
  s.out = config.text("out", "runs/" + name);
  if (!options.out.empty()) s.out = options.out;
  for (const std::int64_t seed : config.integers("seeds", {1})) {
    if (seed < 0) throw ConfigError(config.where("seeds"), "a seed must not be negative");
    s.seeds.push_back(static_cast<std::uint64_t>(seed));
  }
  if (!options.seeds.empty()) s.seeds = options.seeds;
  s.sets = config.texts("set", {});
  std::set<std::string> names;
  for (const Config& run : config.children("run")) {
    Entry entry{run.require_text("name"), "", run.texts("set", {})};
    entry.strategy = run.text("strategy", entry.name);
    if (!names.insert(safe_file_name(entry.name)).second)
      throw ConfigError(run.where("name"), "there is another run named '" + entry.name + "'");
    s.entries.push_back(std::move(entry));
  }
  config.finish();
  if (s.entries.empty()) throw ConfigError(options.file, "has no [[run]]", "each names a line of the table");
  for (const std::string& wanted : options.only)
    if (std::none_of(s.entries.begin(), s.entries.end(), [&](const Entry& e) { return e.name == wanted; })) {
      std::vector<std::string> known;
      for (const Entry& e : s.entries) known.push_back(e.name);
      throw ConfigError("--only", "'" + wanted + "' is no run of " + options.file, suggestion(wanted, known));
    }
  if (!options.only.empty())
    std::erase_if(s.entries, [&](const Entry& e) {
      return std::find(options.only.begin(), options.only.end(), e.name) == options.only.end();
    });
  return s;
}

/// One `mcit run` in a process of its own.
struct Job {
  std::string name;
  std::filesystem::path folder;
  std::vector<std::string> arguments;
  pid_t process = -1;
  int output = -1;
  std::string line{};  ///< begun, not ended
};

bool is_complete(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder / "result.json")) return false;
  return read_result(folder).complete;
}

Job make_job(const Sweep& sweep, const Options& options, const Entry& entry, std::uint64_t seed) {
  Job job{entry.name + " " + std::to_string(seed),
          sweep.out / (safe_file_name(entry.name) + "-" + std::to_string(seed)),
          {"mcit", "run"}};
  const auto add = [&](std::initializer_list<std::string> more) {
    job.arguments.insert(job.arguments.end(), more);
  };
  if (std::filesystem::exists(job.folder / "config.toml")) {
    add({"--resume", job.folder.string()});
  } else {
    add({"--suite", sweep.suite, "--strategy", entry.strategy, "--seed", std::to_string(seed), "--out",
         job.folder.string(), "--set", "label=" + entry.name});
    std::vector<std::string> sets = sweep.sets;
    sets.insert(sets.end(), entry.sets.begin(), entry.sets.end());
    sets.insert(sets.end(), options.sets.begin(), options.sets.end());
    for (const std::string& set : sets) add({"--set", set});
  }
  for (const std::string& folder : options.plugin_dirs) add({"--plugin-dir", folder});
  return job;
}

void start(Job& job) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw Error("sweep", std::string("no pipe: ") + std::strerror(errno));
  const std::string program = (executable_dir() / "mcit").string();
  std::vector<char*> arguments;
  for (std::string& argument : job.arguments) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const pid_t parent = ::getpid();
  job.process = ::fork();
  if (job.process < 0) throw Error("sweep", std::string("no process: ") + std::strerror(errno));
  if (job.process == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // who loses its sweep saves and stops
    if (::getppid() != parent) ::_exit(1);
    const int nothing = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    ::dup2(nothing, STDOUT_FILENO);
    ::dup2(ends[1], STDERR_FILENO);
    ::execv(program.c_str(), arguments.data());
    ::_exit(127);
  }
  ::close(ends[1]);
  job.output = ends[0];
}

/// Passes on whole lines of what the run says. @return false at the end of its output
bool listen(Job& job) {
  char text[4096];
  const ssize_t count = ::read(job.output, text, sizeof text);
  if (count < 0 && errno == EINTR) return true;
  if (count <= 0) return false;
  job.line.append(text, static_cast<std::size_t>(count));
  for (std::size_t end; (end = job.line.find('\n')) != std::string::npos; job.line.erase(0, end + 1))
    log::info("[", job.name, "] ", job.line.substr(0, end));
  return true;
}

/// @return whether the run ended well
bool finish(Job& job) {
  ::close(job.output);
  int status = 0;
  while (::waitpid(job.process, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/// Runs every job, `at_once` at a time. @return names of those that failed
std::vector<std::string> run_all(std::vector<Job> waiting, std::size_t at_once) {
  const std::size_t all = waiting.size();
  const Stopwatch watch;
  std::vector<Job> running;
  std::vector<std::string> failed;
  std::size_t done = 0;
  bool told = false;  // whether the runs know that they are to stop
  std::reverse(waiting.begin(), waiting.end());
  while (!waiting.empty() || !running.empty()) {
    while (!waiting.empty() && running.size() < at_once && !interrupted()) {
      running.push_back(std::move(waiting.back()));
      waiting.pop_back();
      start(running.back());
    }
    if (running.empty()) break;
    if (interrupted() && !std::exchange(told, true))
      for (const Job& job : running) ::kill(job.process, SIGTERM);
    std::vector<pollfd> outputs;
    for (const Job& job : running) outputs.push_back({job.output, POLLIN, 0});
    if (::poll(outputs.data(), outputs.size(), 1000) < 0 && errno != EINTR)
      throw Error("sweep", std::string("cannot wait for runs: ") + std::strerror(errno));
    for (std::size_t i = running.size(); i-- > 0;) {
      if (outputs[i].revents == 0 || listen(running[i])) continue;
      if (!finish(running[i])) failed.push_back(running[i].name);
      running.erase(running.begin() + static_cast<std::ptrdiff_t>(i));
      ++done;
      if (done < all && !interrupted())
        log::info(
            done, " of ", all, " runs done, about ",
            duration_text(watch.seconds() / static_cast<double>(done) * static_cast<double>(all - done)),
            " left");
    }
  }
  return failed;
}

void sweep_command(const Options& options) {
  const Sweep sweep = read_sweep(options);
  const auto at_once = static_cast<std::size_t>(options.jobs > 0 ? options.jobs : hardware().usable_cores);
  std::vector<Job> jobs;
  std::vector<std::filesystem::path> folders;
  for (const Entry& entry : sweep.entries)
    for (const std::uint64_t seed : sweep.seeds) {
      Job job = make_job(sweep, options, entry, seed);
      folders.push_back(job.folder);
      if (!is_complete(job.folder)) jobs.push_back(std::move(job));
    }
  log::info(sweep.entries.size(), " strategies, ", sweep.seeds.size(),
            sweep.seeds.size() == 1 ? " seed" : " seeds", " on ", sweep.suite, ": ", folders.size(),
            " runs in ", sweep.out.string(), ", ", folders.size() - jobs.size(), " done before, ", at_once,
            " at a time");
  const std::vector<std::string> failed = run_all(std::move(jobs), std::max<std::size_t>(1, at_once));
  if (interrupted()) {
    log::warn("interrupted; the same command goes on where it stopped");
    throw Interrupted();
  }
  if (!failed.empty()) {
    std::string names;
    for (const std::string& name : failed) names += (names.empty() ? "" : ", ") + name;
    throw Error("sweep", "these runs failed: " + names,
                "their lines above say why; the same command goes on");
  }
  std::vector<ComparedRun> runs;
  for (const auto& folder : folders) runs.push_back({folder.string(), read_result(folder)});
  const std::vector<Comparison> comparisons = compare_runs(runs);
  std::cout << comparison_terminal(comparisons, console::width(console::Stream::out),
                                   console::colours(console::Stream::out));
  const std::filesystem::path table =
      options.markdown.empty() ? sweep.out / "table.md" : std::filesystem::path(options.markdown);
  write_atomic(table, comparison_markdown(comparisons));
  log::info("the table is also in ", table.string(), "; each run has its folder in ", sweep.out.string());
}

}  // namespace

void add_sweep(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("sweep", "Run strategies over seeds, several at a time, and print their table");
  command->add_option("FILE", options->file, "The sweep as TOML: suite, seeds, [[run]] entries")
      ->required()
      ->type_name("")
      ->check(CLI::ExistingFile);
  command->add_option("--jobs", options->jobs, "Runs at a time [usable cores]")->type_name("N");
  command->add_option("--seeds", options->seeds, "Instead of the file's, e.g. 1,2,3")
      ->delimiter(',')
      ->type_name("N");
  command->add_option("--only", options->only, "These runs alone, by name")
      ->delimiter(',')
      ->type_name("NAME");
  command->add_option("--out", options->out, "Folder of the runs [the file's, or runs/FILE]")
      ->type_name("DIR");
  command->add_option("--set", options->sets, "One setting for every run, e.g. train.steps=50 (repeatable)")
      ->type_name("KEY=VALUE")
      ->take_all();
  command->add_option("--plugin-dir", options->plugin_dirs, "Folder of strategy plugins (repeatable)")
      ->type_name("DIR");
  command->add_option("--markdown", options->markdown, "Where the table goes as Markdown [OUT/table.md]")
      ->type_name("FILE");
  command->footer(
      "Runs that are complete are not repeated, stopped ones go on.\n"
      "Example:\n"
      "  mcit sweep configs/sweeps/demo.toml --seeds 1,2,3");
  command->callback([options] { sweep_command(*options); });
}

}  // namespace mcit
