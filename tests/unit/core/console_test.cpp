#include "core/console.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <csignal>

#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::Matches;

/// stderr goes into a file while this lives.
class Capture {
 public:
  explicit Capture(const std::filesystem::path& file) : kept_(::dup(STDERR_FILENO)) {
    const int out = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(out, STDERR_FILENO);
    ::close(out);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  ~Capture() {
    ::dup2(kept_, STDERR_FILENO);
    ::close(kept_);
  }

 private:
  int kept_;
};

TEST_CASE("nothing is written before a console or a file is opened") {
  const test::TemporaryFolder folder;
  {
    const Capture capture(folder / "err");
    log::error("into the void");
    Progress bar("task", 3);
    bar.advance();
  }
  CHECK(test::slurp(folder / "err").empty());
}

TEST_CASE("a status of several lines is taken away line by line, and each is cut to the terminal") {
  const test::TemporaryFolder folder;
  {
    const Capture capture(folder / "err");
    console::status("one\n" + std::string(300, 'x'));
    console::print("above");
    console::status("less");
    console::status({});
  }
  // No terminal: 100 columns, of which the last stays free. ECMA-48: CSI 2K erases a line, CSI A goes up one.
  const std::string block = "one\n" + std::string(98, 'x') + "…", line = "\r\x1b[2K", up = "\x1b[A\x1b[2K";
  CHECK(test::slurp(folder / "err") ==
        line + block + line + up + "above\n" + block + line + up + "less" + line);
}

TEST_CASE("the console is plain, the file has times and levels") {
  const test::TemporaryFolder folder;
  log::add_file(folder / "log.txt");
  {
    const Capture capture(folder / "err");
    log::to_console();
    log::debug("detail");
    log::info("loaded ", 3, " rows of {braces} 100%");
    log::warn("odd");
    log::error("broken");
    log::to_console(log::Level::off);
  }
  log::close_files();
  CHECK(test::slurp(folder / "err") == "loaded 3 rows of {braces} 100%\nwarning: odd\nerror: broken\n");
  const std::string file = test::slurp(folder / "log.txt");
  CHECK_THAT(file, ContainsSubstring(" debug detail\n"));
  CHECK_THAT(file, Matches("(.|\n)*\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d\\.\\d{3} info  loaded 3 rows of "
                           "\\{braces\\} 100%\n(.|\n)*"));
  CHECK_THROWS_AS(log::add_file("/dev/null/log.txt"), DataError);
}

TEST_CASE("a log file that cannot grow is given up, the run goes on") {
  const test::TemporaryFolder folder;
  log::add_file(folder / "log.txt");
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{100, old.rlim_max};
  {
    const Capture capture(folder / "err");
    log::to_console();
    ::setrlimit(RLIMIT_FSIZE, &small);
    log::debug(std::string(200, 'x'));
    log::debug(std::string(200, 'x'));
    ::setrlimit(RLIMIT_FSIZE, &old);
    log::info("still here");
    log::to_console(log::Level::off);
  }
  log::close_files();
  CHECK_THAT(test::slurp(folder / "err"), Matches("warning: log file: .*\nstill here\n"));
}

TEST_CASE("a log line goes above the status line and does not tear it") {
  const test::TemporaryFolder folder;
  {
    const Capture capture(folder / "err");
    console::status("half done");
    console::print("a message");
    console::status("");
    console::print("the end");
  }
  constexpr const char* kErase = "\r\x1b[2K";
  CHECK(test::slurp(folder / "err") ==
        std::string(kErase) + "half done" + kErase + "a message\nhalf done" + kErase + "the end\n");
}

TEST_CASE("text is measured and cut by terminal columns") {
  CHECK(console::columns("abc") == 3);
  CHECK(console::columns("é→") == 2);
  CHECK(console::columns("e\u0301") == 1);  // a combining accent
  CHECK(console::columns("漢字") == 4);
  CHECK(console::columns("\xff\xfe") == 2);  // not UTF-8
  CHECK(console::columns("\xf0\x9f") == 1);  // cut off
  CHECK(console::fit("abcdef", 6) == "abcdef");
  CHECK(console::fit("abcdef", 4) == "abc…");
  CHECK(console::fit("漢字漢字", 4) == "漢…");
  CHECK(console::fit("abc", 0).empty());
}

TEST_CASE("progress tells rate and remaining time") {
  Progress bar("stage 1/4 vqa", 200, "steps");
  CHECK(bar.text(0.0) == "stage 1/4 vqa  0/200 (0 %)");
  bar.advance(50, "loss 1.25");
  CHECK(bar.text(25.0) == "stage 1/4 vqa  50/200 (25 %)  2.00 steps/s  1 min 15 s left  loss 1.25");
  bar.skip(100);  // done before this process: not in the rate
  CHECK(bar.text(25.0) == "stage 1/4 vqa  150/200 (75 %)  2.00 steps/s  25 s left  loss 1.25");
  Progress open_end("reading", 0, "rows");
  open_end.advance(10);
  CHECK(open_end.text(1.0) == "reading  10 rows  10.0 rows/s");
}

TEST_CASE("durations are short to read") {
  CHECK(duration_text(0.2) == "0 s");
  CHECK(duration_text(59.4) == "59 s");
  CHECK(duration_text(200) == "3 min 20 s");
  CHECK(duration_text(7500) == "2 h 05 min");
}

TEST_CASE("the machine is described") {
  const Hardware machine = hardware();
  CHECK_FALSE(machine.cpu.empty());
  CHECK(machine.usable_cores >= 1);
  CHECK(machine.usable_cores <= machine.logical_cores);
  CHECK(machine.memory_gb > 0.1);
  CHECK(peak_rss_mb() >= current_rss_mb() * 0.9);  // the kernel counts both lazily
  CHECK(current_rss_mb() > 1.0);
  CHECK(cpu_seconds() > 0.0);
  CHECK_THAT(utc_now(), Matches("\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ"));
  CHECK_THAT(build_info(), ContainsSubstring("mcit "));
}

TEST_CASE("the first Ctrl-C asks, the handler stays for the second") {
  install_interrupt_handler();
  clear_interrupt();
  CHECK_FALSE(interrupted());
  std::raise(SIGINT);
  CHECK(interrupted());
  clear_interrupt();
  request_interrupt();
  CHECK(interrupted());
  clear_interrupt();
}

}  // namespace
}  // namespace mcit
