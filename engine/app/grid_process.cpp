#include "app/grid_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <set>
#include <utility>

#include "core/console.hpp"
#include "core/files.hpp"
#include "mcit/errors.hpp"

extern char** environ;

namespace mcit {
namespace {

constexpr std::string_view kCuda = "cuda:";
constexpr const char* kVisible = "CUDA_VISIBLE_DEVICES";

/// This process's environment, and what a run is told besides.
std::vector<std::string> environment(const std::string& device) {
  std::vector<std::string> out;
  const auto is = [](const std::string& entry, const std::string& name) {
    return entry.starts_with(name + "=");
  };
  for (char** entry = environ; *entry != nullptr; ++entry) out.emplace_back(*entry);
  const auto set = [&](const std::string& name, const std::string& value) {
    std::erase_if(out, [&](const std::string& entry) { return is(entry, name); });
    out.push_back(name + "=" + value);
  };
  if (device.starts_with(kCuda)) {
    const char* const visible = std::getenv(kVisible);
    set(kVisible, visible_device(device, visible == nullptr ? "" : visible));
  }
  if (console::is_terminal(console::Stream::err)) set("MCIT_PROGRESS_SECONDS", "1");
  return out;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

GridProcess::GridProcess(const std::vector<std::string>& arguments, const std::string& device) {
  std::vector<std::string> words = {"mcit"}, variables = environment(device);
  words.insert(words.end(), arguments.begin(), arguments.end());
  const std::vector<char*> argv = pointers(words), envp = pointers(variables);
  const std::string program = (executable_dir() / "mcit").string();
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw Error("grid", std::string("no pipe: ") + std::strerror(errno));
  const pid_t parent = ::getpid();
  process_ = ::fork();
  if (process_ < 0) {
    ::close(ends[0]);
    ::close(ends[1]);
    throw Error("grid", std::string("no process: ") + std::strerror(errno));
  }
  if (process_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // who loses its parent saves and stops
    if (::getppid() != parent) ::_exit(1);
    ::setpgid(0, 0);  // Ctrl-C reaches the parent, which asks once; asked twice, a run does not save
    const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    ::dup2(nothing, STDIN_FILENO);
    ::dup2(nothing, STDOUT_FILENO);
    ::dup2(ends[1], STDERR_FILENO);
    ::execve(program.c_str(), argv.data(), envp.data());
    ::_exit(127);
  }
  ::close(ends[1]);
  output_ = ends[0];
}

GridProcess::GridProcess(GridProcess&& other) noexcept
    : process_(std::exchange(other.process_, -1)),
      output_(std::exchange(other.output_, -1)),
      text_(std::move(other.text_)) {}

GridProcess& GridProcess::operator=(GridProcess&& other) noexcept {
  std::swap(process_, other.process_);
  std::swap(output_, other.output_);
  std::swap(text_, other.text_);
  return *this;
}

GridProcess::~GridProcess() {
  ask_to_stop();
  finish();
}

void GridProcess::ask_to_stop() const {
  if (process_ > 0) ::kill(process_, SIGTERM);
}

bool GridProcess::read(const std::function<void(const std::string&)>& line) {
  char text[4096];
  const ssize_t count = ::read(output_, text, sizeof text);
  if (count < 0 && errno == EINTR) return true;
  if (count <= 0) return false;
  text_.append(text, static_cast<std::size_t>(count));
  for (std::size_t end; (end = text_.find('\n')) != std::string::npos; text_.erase(0, end + 1))
    line(text_.substr(0, end));
  return true;
}

std::string GridProcess::finish() {
  if (output_ >= 0) ::close(std::exchange(output_, -1));
  if (process_ < 0) return {};
  int status = 0;
  while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) {
  }
  process_ = -1;
  if (WIFSIGNALED(status)) return "killed by signal " + std::to_string(WTERMSIG(status));
  return WEXITSTATUS(status) == 0 ? std::string() : "exit code " + std::to_string(WEXITSTATUS(status));
}

std::vector<bool> wait_for_output(const std::vector<GridProcess>& processes, int most) {
  std::vector<pollfd> outputs;
  for (const GridProcess& process : processes) outputs.push_back({process.output(), POLLIN, 0});
  if (::poll(outputs.data(), outputs.size(), most) < 0 && errno != EINTR)
    throw Error("grid", std::string("cannot wait for runs: ") + std::strerror(errno));
  std::vector<bool> ready;
  for (const pollfd& output : outputs) ready.push_back(output.revents != 0);
  return ready;
}

std::string visible_device(const std::string& device, const std::string& visible) {
  const std::string number = device.substr(kCuda.size());
  if (visible.empty()) return number;
  std::size_t left = std::stoul(number), begin = 0;
  while (left > 0 && begin != std::string::npos) {
    begin = visible.find(',', begin);
    if (begin != std::string::npos) ++begin;
    --left;
  }
  if (begin == std::string::npos)
    throw ConfigError("--devices", "there is no '" + device + "'",
                      std::string(kVisible) + " is '" + visible + "'");
  return visible.substr(begin, visible.find(',', begin) - begin);
}

void check_devices(const std::vector<std::string>& devices) {
  constexpr std::size_t kMostDigits = 4;
  std::set<std::string> known;
  for (const std::string& device : devices) {
    const std::string number = device.starts_with(kCuda) ? device.substr(kCuda.size()) : "";
    const bool cuda =
        !number.empty() && number.size() <= kMostDigits &&
        std::all_of(number.begin(), number.end(), [](unsigned char c) { return std::isdigit(c); });
    if (!cuda && device != "cpu")
      throw ConfigError("--devices", "'" + device + "' is no device", "cpu, or cuda:0,cuda:1 and so on");
    if (!known.insert(device).second) throw ConfigError("--devices", "'" + device + "' is there twice");
  }
  if (known.contains("cpu") && known.size() > 1)
    throw ConfigError("--devices", "cpu beside others",
                      "numbers of a GPU and of the CPU differ: give one kind");
}

}  // namespace mcit
