#pragma once
/// Starts the program as people do, with a cache and a home of its own, and reads what it leaves.

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "unit/core/temporary.hpp"

namespace mcit::test {

namespace fs = std::filesystem;
using Arguments = std::vector<std::string>;

inline const fs::path kProgram = fs::path(MCIT_BINARY_DIR) / "bin/mcit";
inline const fs::path kShare = fs::path(MCIT_BINARY_DIR) / "share/mcit";

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

struct Ended {
  int code = -1;  ///< -1 when a signal ended it
  int signal = 0;
  std::string out, err;

  std::vector<std::string> lines(std::string_view beginning) const {
    std::vector<std::string> found;
    for (const std::string& line : lines_of(err))
      if (line.starts_with(beginning)) found.push_back(line);
    return found;
  }
  std::vector<std::string> warnings() const { return lines("warning: "); }
};

/// How long a process may take.
inline std::chrono::minutes patience{3};

/// A process that does not outlive the object.
class Process {
 public:
  /// @param arguments of mcit, or with `program` empty a command of its own
  /// @param file_limit bytes that no file of it may grow beyond @param variables more of its environment
  Process(const Arguments& arguments, const fs::path& home, std::optional<rlim_t> file_limit = {},
          const Arguments& variables = {}, const fs::path& program = kProgram) {
    static int count = 0;
    const std::string number = std::to_string(++count);
    out_ = home / ("out-" + number + ".txt");
    err_ = home / ("err-" + number + ".txt");
    Arguments all;
    if (!program.empty()) all.push_back(program.string());
    all.insert(all.end(), arguments.begin(), arguments.end());
    Arguments environment = {"PATH=/usr/bin:/bin", "OMP_NUM_THREADS=1", "HOME=" + home.string(),
                             "XDG_CACHE_HOME=" + (home / "cache").string()};
    environment.insert(environment.end(), variables.begin(), variables.end());
    const auto pointers = [](const Arguments& texts) {
      std::vector<char*> out;
      for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
      out.push_back(nullptr);
      return out;
    };
    const std::vector<char*> argv = pointers(all), envp = pointers(environment);
    const int out = ::open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    const int err = ::open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    id_ = ::fork();
    if (id_ == 0) {
      ::dup2(out, STDOUT_FILENO);
      ::dup2(err, STDERR_FILENO);
      if (file_limit) {
        const rlimit limit{*file_limit, *file_limit};
        ::setrlimit(RLIMIT_FSIZE, &limit);
        ::signal(SIGXFSZ, SIG_IGN);  // write() then fails, as on a full disk
      }
      ::execve(argv[0], argv.data(), envp.data());
      ::_exit(127);
    }
    ::close(out);
    ::close(err);
    REQUIRE(id_ > 0);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (id_ <= 0) return;
    ::kill(id_, SIGKILL);
    ::waitpid(id_, nullptr, 0);
  }

  void signal(int number) const { ::kill(id_, number); }

  /// Looks every few milliseconds, until it holds. False when the process has ended before.
  bool until(const std::function<bool()>& holds) {
    for (const auto end = deadline(); std::chrono::steady_clock::now() < end;) {
      if (holds()) return true;
      if (ended()) return holds();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    FAIL("nothing came in time; it had printed:\n" << slurp(err_));
    return false;
  }

  Ended wait() {
    for (const auto end = deadline(); !ended();) {
      if (std::chrono::steady_clock::now() > end) FAIL("it does not end; it had printed:\n" << slurp(err_));
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return {WIFEXITED(status_) ? WEXITSTATUS(status_) : -1, WIFSIGNALED(status_) ? WTERMSIG(status_) : 0,
            slurp(out_), slurp(err_)};
  }

 private:
  static std::chrono::steady_clock::time_point deadline() {
    return std::chrono::steady_clock::now() + patience;
  }
  bool ended() {
    if (id_ > 0 && ::waitpid(id_, &status_, WNOHANG) == id_) id_ = 0;
    return id_ == 0;
  }

  fs::path out_, err_;
  pid_t id_ = -1;
  int status_ = 0;
};

/// A folder for runs and files, with the caches of the programs started in it.
class Workplace : public TemporaryFolder {
 public:
  Ended mcit(const Arguments& arguments, std::optional<rlim_t> file_limit = {}) const {
    return Process(arguments, path(), file_limit).wait();
  }
};

inline Arguments operator+(Arguments left, const Arguments& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

/// It ended well.
inline void succeeded(const Ended& ended) {
  INFO(ended.err);
  REQUIRE(ended.signal == 0);
  REQUIRE(ended.code == 0);
  CHECK(ended.lines("error: ").empty());
}

/// It ended with exit code 2 and one line that says why, all of these texts in it and nothing after it.
inline std::string failed(const Ended& ended, const std::vector<std::string>& said) {
  constexpr std::size_t kShown = 1000;
  INFO("printed: " << ended.err.substr(0, kShown));
  REQUIRE(ended.signal == 0);
  CHECK(ended.code == 2);
  REQUIRE(ended.lines("error: ").size() == 1);
  const std::string error = ended.lines("error: ").front();
  CHECK(lines_of(ended.err).back() == error);
  for (const std::string& text : said) {
    INFO("looked for: " << text);
    CHECK(error.find(text) != std::string::npos);
  }
  return error;
}

}  // namespace mcit::test
