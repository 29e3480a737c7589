// mcit pretrain from settings to a folder that everything else opens.
#include "integration/runs.hpp"

namespace mcit::test {
namespace {

Arguments tiny_base(const fs::path& out) {
  Arguments arguments = {"pretrain", (fs::path(MCIT_SOURCE_DIR) / "configs/pretrain/mini.toml").string(),
                         "--out", out.string(), "--json"};
  for (const char* setting :
       {"train.steps=4", "train.batch=4", "train.clip_steps=2", "train.clip_batch=4", "evaluate=10",
        "vision.hidden_size=32", "vision.heads=2", "vision.layers=2", "decoder.hidden_size=32",
        "decoder.intermediate_size=64", "decoder.layers=2", "decoder.heads=2", "text_tower.hidden_size=32",
        "text_tower.layers=1", "text_tower.heads=2", "text_tower.projection_dim=16"})
    arguments = arguments + Arguments{"--set", setting};
  return arguments;
}

}  // namespace

TEST_CASE("A base that was just trained is measured, written whole, and runs") {
  const Workplace work;
  const Ended ended = work.mcit(tiny_base(work / "base"));
  succeeded(ended);
  CHECK(Json::parse(ended.out).size() >= 11);
  CHECK(names_in(work / "base") == std::vector<std::string>{"clip", "config.json", "model.safetensors",
                                                            "preprocessor_config.json", "tokenizer.json",
                                                            "tokenizer_config.json"});
  succeeded(
      work.mcit(small_run(work, "zero_shot", work / "run") + Arguments{"--model", (work / "base").string()}));

  // The folder is measured as training measured it, but for the rounding of its half-precision file.
  const Ended measured =
      work.mcit({"pretrain", (fs::path(MCIT_SOURCE_DIR) / "configs/pretrain/mini.toml").string(), "--set",
                 "evaluate=10", "--measure", (work / "base").string(), "--json"});
  succeeded(measured);
  const Json then = Json::parse(ended.out), now = Json::parse(measured.out);
  for (const auto& [kind, percent] : now.items()) {
    INFO(kind);
    CHECK(std::abs(percent.get<double>() - then.at(kind).get<double>()) <= 10.0);
  }
}

TEST_CASE("The same settings give the same base") {
  const Workplace work;
  succeeded(work.mcit(tiny_base(work / "a")));
  succeeded(work.mcit(tiny_base(work / "b")));
  const auto weights = [&](const char* name) {
    const std::string bytes = slurp(work / name / "model.safetensors");
    std::uint64_t header = 0;
    for (int i = 7; i >= 0; --i)
      header = header << 8 | static_cast<unsigned char>(bytes.at(static_cast<std::size_t>(i)));
    return bytes.substr(8 + header);  // the header holds the seconds that it took
  };
  CHECK(weights("a") == weights("b"));
}

}  // namespace mcit::test
