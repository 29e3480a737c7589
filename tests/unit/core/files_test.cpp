#include "core/files.hpp"

#include <sys/resource.h>
#include <sys/stat.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "core/json.hpp"
#include "core/numbered_files.hpp"
#include "core/run_dir.hpp"
#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

std::size_t entries(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

/// Files of this process may not grow beyond `bytes`: what a full disk looks like to a writer.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit small{bytes, old_.rlim_max};
    std::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &small);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() { ::setrlimit(RLIMIT_FSIZE, &old_); }

 private:
  rlimit old_{};
};

TEST_CASE("a file is written whole and leaves nothing else behind") {
  const test::TemporaryFolder folder;
  const auto file = folder / "deep/er/x.json";
  write_atomic(file, "one");
  write_atomic(file, std::string("t\0wo", 4));
  CHECK(read_file(file) == std::string("t\0wo", 4));
  CHECK(entries(file.parent_path()) == 1);
  struct stat status {};
  REQUIRE(::stat(file.c_str(), &status) == 0);
  const mode_t mask = ::umask(0);
  ::umask(mask);
  CHECK((status.st_mode & 0777U) == (0666U & ~mask));
}

TEST_CASE("without commit, and after a failed write, the old content stays") {
  const test::TemporaryFolder folder;
  const auto file = folder / "x";
  write_atomic(file, "old");
  {
    AtomicFile out(file);
    out.write("half of the n");
  }
  CHECK(read_file(file) == "old");
  CHECK(entries(folder.path()) == 1);
  {
    const SmallDisk disk(1000);
    CHECK_THROWS_MATCHES(write_atomic(file, std::string(5000, 'x')), DataError,
                         MessageMatches(ContainsSubstring(file.string() + ": cannot write: ")));
  }
  CHECK(read_file(file) == "old");
  CHECK(entries(folder.path()) == 1);
}

TEST_CASE("a folder is written whole or not at all") {
  const test::TemporaryFolder work;
  const auto target = work / "a" / "model";
  const auto fill = [](const std::filesystem::path& folder) { test::write(folder / "file", "x"); };
  CHECK_THROWS_WITH(write_folder(target,
                                 [&](const std::filesystem::path& folder) {
                                   fill(folder);
                                   throw DataError("file", "cannot be written");
                                 }),
                    "file: cannot be written");
  CHECK(std::filesystem::is_empty(work / "a"));
  std::filesystem::create_directory(target);
  write_folder(target / "", fill);  // into an empty folder
  CHECK(test::slurp(target / "file") == "x");
  CHECK_THROWS_AS(write_folder(target, fill), DataError);
  CHECK(entries(work / "a") == 1);
}

TEST_CASE("unreadable and unwritable places are named") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_MATCHES(read_file(folder / "none"), DataError,
                       MessageMatches(ContainsSubstring("none: cannot open: ")));
  CHECK_THROWS_MATCHES(read_file(folder.path()), DataError, MessageMatches(ContainsSubstring("is a folder")));
  test::write(folder / "long", std::string(100, 'x'));
  CHECK_THROWS_MATCHES(read_file(folder / "long", 99), DataError,
                       MessageMatches(ContainsSubstring("has 100 bytes, at most 99 are expected here")));
  CHECK(read_file(folder / "long", 100).size() == 100);
  CHECK_THROWS_MATCHES(write_atomic(folder / "long/x", "y"), DataError,
                       MessageMatches(ContainsSubstring("cannot make the folder")));
  CHECK_THROWS_MATCHES(read_file("/dev/null"), DataError,
                       MessageMatches(ContainsSubstring("is not a regular file")));
}

TEST_CASE("lines are appended, and a resumed run cuts what came after its snapshot") {
  const test::TemporaryFolder folder;
  const auto file = folder / "metrics.jsonl";
  std::uint64_t kept = 0;
  {
    AppendFile out(file);
    out.line("{\"step\": 1}");
    kept = out.bytes();
    out.line("{\"step\": 2}");
    AppendFile moved = std::move(out);
    moved.line("{\"step\": 3}");
  }
  CHECK(read_file(file) == "{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n");
  {
    AppendFile out(file, kept);
    CHECK(out.bytes() == kept);
    out.line("{\"step\": 2}");
    out.sync();
    CHECK(read_file(file) == "{\"step\": 1}\n{\"step\": 2}\n");
  }
  AppendFile again(file);
  CHECK(again.bytes() == 2 * kept);
}

TEST_CASE("a full disk is told by flush") {
  const test::TemporaryFolder folder;
  AppendFile out(folder / "log");
  const SmallDisk disk(10);
  out.line("more than ten bytes");
  CHECK_THROWS_AS(out.flush(), DataError);
}

TEST_CASE("a file is mapped as it is") {
  const test::TemporaryFolder folder;
  test::write(folder / "x", "abc");
  test::write(folder / "empty", "");
  MappedFile file(folder / "x");
  REQUIRE(file.size() == 3);
  CHECK(std::memcmp(file.data(), "abc", 3) == 0);
  MappedFile moved = std::move(file);
  CHECK(moved.size() == 3);
  file = MappedFile(folder / "empty");
  CHECK(file.size() == 0);
  CHECK(file.bytes().empty());
  CHECK_THROWS_AS(MappedFile(folder / "none"), DataError);
  CHECK_THROWS_AS(MappedFile(folder.path()), DataError);
}

TEST_CASE("the user's cache follows the XDG rule") {
  const char* const old = std::getenv("XDG_CACHE_HOME");
  const std::string kept = old == nullptr ? "" : old;
  ::setenv("XDG_CACHE_HOME", "/tmp/cache", 1);
  CHECK(user_cache_dir() == "/tmp/cache/mcit");
  ::setenv("XDG_CACHE_HOME", "relative", 1);  // to be ignored
  CHECK(user_cache_dir() == std::filesystem::path(std::getenv("HOME")) / ".cache/mcit");
  if (old == nullptr)
    ::unsetenv("XDG_CACHE_HOME");
  else
    ::setenv("XDG_CACHE_HOME", kept.c_str(), 1);
}

TEST_CASE("free space and the executable's folder are found") {
  const test::TemporaryFolder folder;
  CHECK(free_space(folder / "not/yet/there") > 0);
  CHECK(std::filesystem::exists(executable_dir() / "core_test"));
}

TEST_CASE("a run has its folder to itself") {
  const test::TemporaryFolder folder;
  const auto root = folder / "run";
  {
    const RunDir run = RunDir::create(root);
    CHECK(run.predictions(3, "text/vqa ü").filename() == "03_text_vqa___.jsonl");
    CHECK_THROWS_MATCHES(RunDir::open(root), ConfigError,
                         MessageMatches(ContainsSubstring("another process")));
  }
  CHECK_NOTHROW(RunDir::create(root));  // nothing but the lock was written
  write_atomic(root / "result.json", "{}");
  CHECK_THROWS_MATCHES(RunDir::create(root), ConfigError,
                       MessageMatches(ContainsSubstring("already holds a run")));
  { const RunDir again = RunDir::open(root); }
  write_atomic(root / "predictions/00_x.jsonl", "");
  { const RunDir replaced = RunDir::overwrite(root); }
  CHECK(entries(root) == 1);
  write_atomic(root / "thesis.tex", "");
  CHECK_THROWS_MATCHES(RunDir::overwrite(root), ConfigError,
                       MessageMatches(ContainsSubstring("holds 'thesis.tex'")));
  CHECK(std::filesystem::exists(root / "thesis.tex"));
}

TEST_CASE("of numbered files the two newest stay, and what is ahead of a number is removed") {
  const test::TemporaryFolder folder;
  const std::filesystem::path in = folder / "client-01";
  const NumberedFiles files(in, "round");
  CHECK(!files.newest(7));  // no folder yet
  std::filesystem::create_directories(in);
  for (const char* foreign : {"round-x.safetensors", "round-.safetensors", "round--3.safetensors",
                              "place-2.safetensors", "round-1234567890.safetensors", "round-4.json"})
    test::write(in / foreign, "");
  for (const std::int64_t number : {2, 9, 10}) {  // by number, not by letters
    test::write(files.at(number), "");
    files.prune();
  }
  CHECK(!std::filesystem::exists(files.at(2)));
  CHECK(entries(in) == 6 + 2);
  CHECK(files.newest(11) == files.at(10));
  CHECK(files.newest(9) == in / "round-9.safetensors");
  CHECK(!std::filesystem::exists(files.at(10)));
  CHECK(!files.newest(8));
  CHECK(entries(in) == 6);
}

TEST_CASE("a foreign folder is refused") {
  const test::TemporaryFolder folder;
  test::write(folder / "letter.txt", "dear");
  CHECK_THROWS_MATCHES(RunDir::create(folder.path()), ConfigError,
                       MessageMatches(ContainsSubstring("is not empty and not a run")));
  CHECK_THROWS_MATCHES(RunDir::overwrite(folder.path()), ConfigError,
                       MessageMatches(ContainsSubstring("is not empty and not a run")));
  CHECK_THROWS_MATCHES(RunDir::open(folder.path()), ConfigError,
                       MessageMatches(ContainsSubstring("is not a run of mcit")));
  CHECK_THROWS_MATCHES(RunDir::open(folder / "none"), ConfigError,
                       MessageMatches(ContainsSubstring("no such folder")));
  CHECK_THROWS_MATCHES(RunDir::create(folder / "letter.txt"), ConfigError,
                       MessageMatches(ContainsSubstring("is a file")));
  CHECK(entries(folder.path()) == 1);
}

TEST_CASE("file names are safe") {
  CHECK(safe_file_name("../../etc") == "_.._.._etc");
  CHECK(safe_file_name("") == "_");
  CHECK(safe_file_name("a-b_c.9") == "a-b_c.9");
}

}  // namespace
}  // namespace mcit
