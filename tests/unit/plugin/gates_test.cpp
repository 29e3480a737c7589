#include "plugin/gates.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdlib>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "mcit/build_tag.hpp"
#include "plugin_folder.hpp"

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;

PluginReport fixture_report(const std::string& name) { return pass_gates(test::fixture(name)).report; }

/// One clear line, and the file's strategies cannot be made.
void refused(const std::string& fixture, const std::string& reason) {
  const GatedPlugin plugin = pass_gates(test::fixture(fixture));
  INFO(fixture << ": " << plugin.report.reason);
  CHECK(plugin.report.status == PluginStatus::refused);
  CHECK_THAT(plugin.report.reason, ContainsSubstring(reason));
  CHECK(plugin.report.reason.find('\n') == std::string::npos);
  CHECK(plugin.strategies.empty());
  CHECK(plugin.report.strategies.empty());
}

}  // namespace

TEST_CASE("A good plugin passes all gates and says what it is") {
  const GatedPlugin plugin = pass_gates(test::fixture("good"));
  INFO(plugin.report.reason);
  REQUIRE(plugin.report.status == PluginStatus::loaded);
  CHECK(plugin.report.reason.empty());
  CHECK(plugin.report.name == "good");
  CHECK(plugin.report.version == "1.2.3");
  CHECK(plugin.report.build_tag == MCIT_BUILD_TAG);
  CHECK(plugin.report.hash == hash_file(test::fixture("good")));
  REQUIRE(plugin.report.strategies.size() == 1);
  CHECK(plugin.report.strategies[0].name == "good");
  CHECK(plugin.report.strategies[0].summary == "LoRA adapters, one task after the other");
  CHECK(plugin.strategies.size() == 1);
}

TEST_CASE("What the file says is enough to refuse it: none of its code runs") {
  const PluginReport foreign = fixture_report("no_section");
  CHECK(foreign.status == PluginStatus::foreign);
  CHECK(foreign.reason == "no section mcit.plugin.1: not a plugin of mcit");
  refused("other_epoch", "built for plugin epoch 2; this engine has epoch 1");
  refused("wrong_torch", "built with torch=2.10.0; this engine has torch=2.11.0");
  refused("no_descriptor", "does not export mcit_plugin");
  for (const char* name : {"no_section", "other_epoch", "wrong_torch", "wrong_compiler", "no_descriptor"})
    CHECK(std::getenv((std::string("MCIT_FIXTURE_RAN_") + name).c_str()) == nullptr);
}

TEST_CASE("Every field of a build tag that differs is named") {
  refused("wrong_compiler", "built with gcc=11, cxx11abi=0; this engine has ");
  CHECK(tag_difference("mcit=0.1;torch=2.10.0;gcc=11", "mcit=0.1;torch=2.11.0;gcc=12") ==
        "built with torch=2.10.0, gcc=11; this engine has torch=2.11.0, gcc=12");
  CHECK(tag_difference("mcit=0.1;clang=14", "mcit=0.1;gcc=12;sanitizer=none") ==
        "built with clang=14, no gcc, no sanitizer; this engine has gcc=12, sanitizer=none, no clang");
}

TEST_CASE("Faults that show only after opening are refused too") {
  refused("unresolved", "undefined symbol: mcit_fixture_missing_function");
  refused("liar", "built with mcit=0.0, torch=1.13.1");
  refused("short_descriptor", "its descriptor has 16 bytes; this engine's has 48");
  refused("no_strategies", "it lists 0 strategies");
  refused("bad_name", "the name of a strategy has other characters than letters");
}

TEST_CASE("Files that are no libraries cost one line") {
  const test::PluginFolder folder;
  const auto reason = [&](const std::string& name) {
    const PluginReport report = pass_gates(folder / name).report;
    CHECK(report.status == PluginStatus::refused);
    return report.reason;
  };
  write_atomic(folder / "text.so", "#!/bin/sh\necho hello\n");
  CHECK(reason("text.so") == "not a shared library (no ELF header)");
  write_atomic(folder / "empty.so", "");
  CHECK(reason("empty.so") == "not a shared library (no ELF header)");
  const std::string whole = read_file(test::fixture("good"));
  write_atomic(folder / "truncated.so", whole.substr(0, whole.size() / 2));
  CHECK_THAT(reason("truncated.so"), StartsWith("truncated or damaged: its "));
  std::filesystem::create_directory(folder / "folder.so");
  CHECK(reason("folder.so") == "a folder, not a file");
  std::filesystem::create_symlink(folder / "nowhere", folder / "dangling.so");
  CHECK(reason("dangling.so") == "a symbolic link to a file that does not exist");
  std::filesystem::create_symlink(folder / "loop.so", folder / "loop.so");
  CHECK_THAT(reason("loop.so"), StartsWith("cannot be looked at: "));
  CHECK(reason("missing.so") == "does not exist");
  CHECK(pass_gates("/dev/null").report.reason == "not a regular file");
}

}  // namespace mcit
