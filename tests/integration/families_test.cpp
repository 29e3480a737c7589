// Every family of generative models as a backbone: inspected, asked, streamed through each strategy of the
// card, and its adapters written and read again. The models are the tiny ones of tests/parity.
#include <cmath>

#include "integration/runs.hpp"

namespace mcit::test {
namespace {

const fs::path kParity = fs::path(MCIT_SOURCE_DIR) / "tests" / "parity";
const std::vector<std::string> kSeeing = {"llava", "llava_dinov2", "llava_onevision", "smolvlm",
                                          "instructblip"},
                               kReading = {"llama", "qwen2", "smollm2"};

bool sees(const std::string& family) {
  return std::find(kSeeing.begin(), kSeeing.end(), family) != kSeeing.end();
}

/// The fixture's folder with CLIP towers beside its weights, for strategies that look at pictures and
/// questions.
fs::path model_of(const Workplace& work, const std::string& family) {
  const fs::path folder = work / ("model-" + family);
  if (!fs::exists(folder)) {
    fs::create_directories(folder);
    for (const auto& entry : fs::directory_iterator(kParity / family / "checkpoint"))
      fs::create_symlink(entry.path(), folder / entry.path().filename());
    fs::create_directory_symlink(kParity / "clip" / "checkpoint", folder / "clip");
  }
  return folder;
}

/// Two tasks of a handful of rows: colours and numbers, with pictures or without.
fs::path two_tasks(const Workplace& work, bool pictures) {
  const fs::path folder = work / (pictures ? "seen" : "read");
  fs::create_directories(folder);
  for (const char* picture : {"image_a.png", "image_b.png"})
    fs::copy(kParity / "llava" / picture, folder, fs::copy_options::skip_existing);
  const std::vector<std::pair<std::string, std::vector<std::string>>> tasks = {{"colour", {"red", "blue"}},
                                                                               {"number", {"one", "two"}}};
  std::string suite = std::string("data = \"") + folder.string() + "\"\nprobe = \"colour-train.json\"\n";
  for (const auto& [task, answers] : tasks) {
    Json train = Json::array(), test = Json::array();
    for (int i = 0; i < 6; ++i) {
      const std::string& answer = answers[static_cast<std::size_t>(i) % 2];
      const std::string question = "what " + task + " is this " + std::to_string(i) + "?";
      Json row = {{"id", task + std::to_string(i)},
                  {"conversations",
                   {{{"from", "human"}, {"value", (pictures ? "<image>\n" : "") + question}},
                    {{"from", "gpt"}, {"value", answer}}}}};
      Json asked = {{"question_id", task + std::to_string(i)}, {"text", question}, {"answer", answer}};
      if (pictures && i != 4)  // one row of text alone
        row["image"] = asked["image"] = i % 2 == 0 ? "image_a.png" : "image_b.png";
      else if (pictures)
        row["conversations"][0]["value"] = question;
      train.push_back(row);
      if (i < 4) test.push_back(asked);
    }
    write(folder / (task + "-train.json"), train.dump());
    write(folder / (task + "-test.json"), test.dump());
    suite += "[[tasks]]\nname = \"" + task + "\"\ntrain = \"" + task + "-train.json\"\ntest = \"" + task +
             "-test.json\"\nmax_new_tokens = 3\nanswers = [\"" + answers[0] + "\", \"" + answers[1] + "\"]\n";
  }
  write(folder / "suite.toml", suite);
  return folder / "suite.toml";
}

Arguments run_of(const Workplace& work, const std::string& family, const std::string& strategy,
                 const fs::path& out) {
  return {"run",
          "--model",
          model_of(work, family).string(),
          "--suite",
          two_tasks(work, sees(family)).string(),
          "--strategy",
          strategy,
          "--out",
          out.string(),
          "--set",
          "train.steps=2",
          "--set",
          "train.batch=3",
          "--set",
          "threads=1",
          "--set",
          "eval.cell_cache=false"};
}

}  // namespace

TEST_CASE("Every strategy of the card learns two tasks on every family") {
  const std::vector<std::pair<std::string, Arguments>> strategies = {
      {"sequential", {"--set", "strategy.rank=4"}},
      {"moe_lora", {"--set", "strategy.rank=8", "--set", "strategy.experts=4"}},
      {"branch_lora",
       {"--set", "strategy.rank=8", "--set", "strategy.experts=4", "--set", "strategy.probe_examples=4"}},
      {"fwd_prompt",
       {"--set", "strategy.pool=5", "--set", "strategy.top_k=2", "--set", "strategy.prompt_length=2"}},
      {"mmap", {"--set", "strategy.length=2"}}};
  const Workplace work;
  for (const std::vector<std::string>& families : {kSeeing, kReading})
    for (const std::string& family : families)
      for (const auto& [strategy, settings] : strategies) {
        INFO(family << ", " << strategy);
        const fs::path out = work / (family + "-" + strategy);
        const Ended ended = work.mcit(run_of(work, family, strategy, out) + settings);
        if (strategy == "mmap" && !sees(family)) {
          failed(ended, {"vision tower"});  // aligned prompts need both towers
          continue;
        }
        succeeded(ended);
        const Json result = result_of(out);
        CHECK(result.at("complete") == true);
        CHECK(result.at("matrix").size() == 3);
        for (const Json& row : result.at("matrix"))
          for (const Json& cell : row) CHECK(cell.is_number());
        const std::vector<Json> steps = steps_of(out);
        CHECK(std::count_if(steps.begin(), steps.end(), [](const Json& line) {
                return line.contains("loss") && std::isfinite(line.at("loss").get<double>());
              }) == 4);
      }
}

TEST_CASE("A run's LoRA is written for PEFT, and folded into a model folder, on every family") {
  const Workplace work;
  for (const std::vector<std::string>& families : {kSeeing, kReading})
    for (const std::string& family : families) {
      INFO(family);
      const fs::path run = work / (family + "-run"), adapter = work / (family + "-adapter"),
                     merged = work / (family + "-merged");
      succeeded(work.mcit(run_of(work, family, "sequential", run) +
                          Arguments{"--set", "strategy.rank=4", "--set", "strategy.targets=all"}));
      succeeded(work.mcit({"export", run.string(), "--out", adapter.string()}));
      succeeded(work.mcit({"export", run.string(), "--merge", "--out", merged.string()}));
      const auto dumped = [&](const fs::path& model, const Arguments& more) {
        const fs::path dump = work / "dump.safetensors";
        Arguments ask = {"generate",         "--model", model.string(), "--prompt",   "what is this?",
                         "--max-new-tokens", "2",       "--dump",       dump.string()};
        if (sees(family)) ask = ask + Arguments{"--image", (kParity / "llava" / "image_a.png").string()};
        succeeded(work.mcit(ask + more));
        return slurp(dump);
      };
      const fs::path base = model_of(work, family);
      const std::string adapted = dumped(base, {"--adapter", adapter.string()});
      CHECK(dumped(base, {}) != adapted);
      CHECK(dumped(merged, {}) == adapted);
    }
}

TEST_CASE("inspect counts what a folder holds and names what is wrong with it") {
  const Workplace work;
  for (const std::vector<std::string>& families : {kSeeing, kReading})
    for (const std::string& family : families) {
      INFO(family);
      const Ended ended = work.mcit({"inspect", (kParity / family / "checkpoint").string(), "--json",
                                     "--strategy", "sequential", "--set", "strategy.rank=4"});
      succeeded(ended);
      const Json found = Json::parse(ended.out);
      CHECK(found.at("problems").empty());
      CHECK(found.at("parts").contains("vision") == sees(family));
      CHECK(found.at("parts").at("decoder").get<std::int64_t>() > 50'000);
      // rank · (in + out) for each linear layer of the decoder's blocks
      std::int64_t expected = 0;
      for (const Json& site : found.at("sites")) {
        const std::string name = site.at("name").get<std::string>();
        if (name.find("layers.*.mlp.") == std::string::npos &&
            name.find("layers.*.self_attn.") == std::string::npos)
          continue;
        if (name.find("vision") != std::string::npos) continue;
        expected += 4 * site.at("count").get<std::int64_t>() *
                    (site.at("in").get<std::int64_t>() + site.at("out").get<std::int64_t>());
      }
      CHECK(found.at("trained").at("adapter").at("parameters") == expected);
    }
  const fs::path broken = work / "broken";
  fs::copy(kParity / "llama" / "checkpoint", broken, fs::copy_options::recursive);
  Json config = Json::parse(slurp(broken / "config.json"));
  config["num_hidden_layers"] = config.at("num_hidden_layers").get<int>() + 1;
  config["vocab_size"] = config.at("vocab_size").get<int>() + 64;
  write(broken / "config.json", config.dump());
  const Ended ended = work.mcit({"inspect", broken.string()});
  failed(ended, {"tensors are not as config.json says"});
  CHECK(ended.out.find("is missing from the checkpoint") != std::string::npos);
  CHECK(ended.out.find("model.embed_tokens.weight: has shape") != std::string::npos);
}

TEST_CASE("A picture for a model that reads text alone is one clear error") {
  const Workplace work;
  Arguments run = run_of(work, "llama", "sequential", work / "run");
  *std::find(run.begin(), run.end(), two_tasks(work, false).string()) = two_tasks(work, true).string();
  failed(work.mcit(run), {"colour-train.json", "row 1", "reads text alone"});
  CHECK_FALSE(fs::exists(work / "run"));
}

}  // namespace mcit::test
