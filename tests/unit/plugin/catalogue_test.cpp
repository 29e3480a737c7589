#include "plugin/catalogue.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mcit/strategy.hpp"
#include "torch_catch.hpp"
//
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdlib>

#include "core/files.hpp"
#include "mcit/errors.hpp"
#include "plugin_folder.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

class QuietHost final : public Host {
 public:
  void info(const std::string&) override {}
  void warn(const std::string&) override {}
  void record(const std::string&, double) override {}
  void table(const std::string&, const StageTable&) override {}
  at::Generator generator() override { return at::globalContext().defaultGenerator(at::kCPU); }
  ExamplePtr example(std::int64_t, std::int64_t) override { throw Error("example", "there is none"); }
  std::unique_ptr<Batches> probe() override { throw Error("probe", "there is none"); }
};

Catalogue catalogue_of(const std::vector<fs::path>& folders) {
  std::vector<PluginFolder> search;
  for (const fs::path& folder : folders) search.push_back({folder, "--plugin-dir"});
  return Catalogue(search);
}

std::string reason_of(const Catalogue& catalogue, const fs::path& file) {
  for (const PluginReport& report : catalogue.reports())
    if (report.file == file) return report.reason;
  FAIL("no report of " << file);
  return {};
}

/// Without root's right to read everything, for the life of the object.
class AsNobody {
 public:
  AsNobody() : root_(::geteuid() == 0) {
    if (root_) REQUIRE(::seteuid(65534) == 0);
  }
  AsNobody(const AsNobody&) = delete;
  AsNobody& operator=(const AsNobody&) = delete;
  ~AsNobody() {
    if (root_ && ::seteuid(0) != 0) std::abort();
  }

 private:
  bool root_;
};

}  // namespace

TEST_CASE("A folder of bad plugins costs one line each, and the good one works") {
  const test::PluginFolder folder;
  for (const char* name :
       {"no_section", "other_epoch", "wrong_torch", "wrong_compiler", "liar", "short_descriptor",
        "no_descriptor", "no_strategies", "bad_name", "unresolved", "good"})
    folder.take(name);
  write_atomic(folder / "text.so", "not ELF");
  fs::create_symlink(folder / "nowhere", folder / "dangling.so");
  fs::create_directory(folder / "folder.so");
  write_atomic(folder / "README.txt", "not looked at");
  fs::create_directories(folder / "below");
  fs::copy_file(test::fixture("makes_nothing"), folder / "below/deep.so");

  const Catalogue catalogue = catalogue_of({folder.path()});
  CHECK(catalogue.reports().size() == 14);
  CHECK(catalogue.strategies() == std::vector<std::string>{"good"});
  for (const PluginReport& report : catalogue.reports()) {
    INFO(report.file << ": " << report.reason);
    CHECK((report.status == PluginStatus::loaded) == (report.file == folder / "good.so"));
    CHECK(report.reason.empty() == (report.status == PluginStatus::loaded));
  }
  QuietHost host;
  const StrategyPtr strategy = catalogue.create("good", Params({{"rank", std::int64_t{2}}}), host);
  REQUIRE(strategy);
  StreamInfo stream;
  stream.tasks.resize(2);
  CHECK(strategy->plan(stream).size() == 2);  // a virtual call over the boundary
}

TEST_CASE("A strategy that no plugin provides is an error with near names and what was not taken") {
  const test::PluginFolder folder;
  folder.take("good");
  folder.take("wrong_torch");
  const Catalogue catalogue = catalogue_of({folder.path()});
  QuietHost host;
  CHECK_THROWS_MATCHES(
      catalogue.create("goood", Params(), host), PluginError,
      MessageMatches(
          ContainsSubstring("strategy 'goood': no plugin provides it; did you mean 'good'?; not taken: ") &&
          ContainsSubstring("wrong_torch.so (built with torch=2.10.0; this engine has torch=2.11.0)")));
}

TEST_CASE("Failures of a constructor name the strategy; a setting's error stays one") {
  const test::PluginFolder folder;
  folder.take("throws_in_create");
  folder.take("makes_nothing");
  folder.take("good");
  const Catalogue catalogue = catalogue_of({folder.path()});
  QuietHost host;
  CHECK_THROWS_MATCHES(
      catalogue.create("throws_standard", Params(), host), StrategyError,
      MessageMatches(ContainsSubstring("'throws_standard' in its constructor: no memory for the keys")));
  CHECK_THROWS_MATCHES(catalogue.create("throws_number", Params(), host), StrategyError,
                       MessageMatches(ContainsSubstring("threw something that is no std::exception")));
  CHECK_THROWS_MATCHES(catalogue.create("throws_setting", Params(), host), ConfigError,
                       MessageMatches(ContainsSubstring("strategy.rank: must be positive")));
  CHECK_THROWS_MATCHES(catalogue.create("makes_nothing", Params(), host), StrategyError,
                       MessageMatches(ContainsSubstring("made nothing")));
  CHECK_THROWS_MATCHES(catalogue.create("good", Params({{"rnk", std::int64_t{2}}}), host), ConfigError,
                       MessageMatches(ContainsSubstring("strategy.rnk: unknown key; did you mean 'rank'?")));
}

TEST_CASE("The first folder that provides a name wins") {
  const test::PluginFolder first, second;
  first.take("good");
  second.take("good", "good_again");
  const Catalogue catalogue = catalogue_of({first.path(), second.path()});
  CHECK(catalogue.provider("good").file == first / "good.so");
  REQUIRE(catalogue.reports().size() == 2);
  CHECK(catalogue.reports()[1].status == PluginStatus::loaded);
  CHECK(catalogue.reports()[1].strategies.at(0).shadowed_by == first / "good.so");
}

TEST_CASE("A name twice in one folder refuses both files; another folder may still provide it") {
  const test::PluginFolder first, second;
  first.take("good", "a");
  first.take("good", "b");
  first.take("throws_in_create");
  second.take("good");
  const Catalogue catalogue = catalogue_of({first.path(), second.path()});
  CHECK(reason_of(catalogue, first / "a.so") ==
        "strategy 'good' is also in b.so of the same folder; remove one of them");
  CHECK(reason_of(catalogue, first / "b.so") ==
        "strategy 'good' is also in a.so of the same folder; remove one of them");
  CHECK(catalogue.provider("good").file == second / "good.so");
  CHECK(catalogue.provider("throws_number").file == first / "throws_in_create.so");
}

TEST_CASE("A file met under two names is one plugin; a folder named twice is searched once") {
  const test::PluginFolder folder, links;
  folder.take("good");
  fs::create_symlink(folder / "good.so", folder / "zalias.so");
  fs::create_directory_symlink(folder.path(), links / "again");
  const Catalogue catalogue = catalogue_of({folder.path(), links / "again", folder.path()});
  REQUIRE(catalogue.reports().size() == 2);
  CHECK(catalogue.reports()[1].status == PluginStatus::alias);
  CHECK(catalogue.reports()[1].reason == "the same file as " + (folder / "good.so").string());
  CHECK(catalogue.strategies() == std::vector<std::string>{"good"});
}

TEST_CASE("A stripped plugin works") {
  const test::PluginFolder folder;
  const fs::path file = folder.take("good");
  const auto whole = fs::file_size(file);
  REQUIRE(std::system(("strip " + file.string()).c_str()) == 0);
  REQUIRE(fs::file_size(file) < whole);
  CHECK(catalogue_of({folder.path()}).strategies() == std::vector<std::string>{"good"});
}

TEST_CASE("Folders and files that cannot be read, and folders that are none, cost one line") {
  const test::PluginFolder closed, open;
  ::chmod(closed.path().c_str(), 0);
  ::chmod(open.path().c_str(), 0755);
  const fs::path secret = open.take("good", "secret");
  ::chmod(secret.c_str(), 0);
  write_atomic(open / "file", "");
  std::vector<PluginReport> reports;
  {
    const AsNobody nobody;
    reports = Catalogue({{closed.path(), "MCIT_PLUGIN_PATH"},
                         {open / "absent", "--plugin-dir"},
                         {open / "file", "[plugins] path"},
                         {open / "no plugins yet", "built in", false},
                         {open.path(), "--plugin-dir"}})
                  .reports();
  }
  ::chmod(closed.path().c_str(), 0755);
  REQUIRE(reports.size() == 4);
  CHECK(reports[0].reason == "plugin folder (MCIT_PLUGIN_PATH) cannot be read: Permission denied");
  CHECK(reports[1].reason == "plugin folder (--plugin-dir) does not exist");
  CHECK(reports[2].reason == "plugin folder ([plugins] path) is not a folder");
  CHECK(reports[3].file == secret);
  CHECK_THAT(reports[3].reason, ContainsSubstring("Permission denied"));
}

TEST_CASE("A folder that cannot be written serves its plugins all the same") {
  const test::PluginFolder folder;
  const fs::path file = folder.take("good");
  ::chmod(file.c_str(), 0444);
  ::chmod(folder.path().c_str(), 0555);
  std::vector<PluginReport> reports;
  {
    const AsNobody nobody;
    REQUIRE(::faccessat(AT_FDCWD, folder.path().c_str(), W_OK, AT_EACCESS) != 0);
    reports = catalogue_of({folder.path()}).reports();
  }
  ::chmod(folder.path().c_str(), 0755);
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].status == PluginStatus::loaded);
  CHECK(reports[0].reason.empty());
}

TEST_CASE("The search path: command line, settings, environment, the executable's own folder") {
  ::setenv("MCIT_PLUGIN_PATH", ":/e1::/e2:", 1);
  const std::vector<PluginFolder> folders = plugin_folders({"/c1", "/c2"}, {"/s"});
  ::unsetenv("MCIT_PLUGIN_PATH");
  std::vector<std::string> paths;
  for (const PluginFolder& folder : folders) paths.push_back(folder.path.string());
  const std::string built_in = std::string(MCIT_BINARY_DIR) + "/lib/mcit/plugins";
  CHECK(paths == std::vector<std::string>{"/c1", "/c2", "/s", "/e1", "/e2", built_in});
  CHECK_FALSE(folders.back().named);
}

}  // namespace mcit
