// mcit compare beside published numbers, its statistics, and mcit metrics on published matrices.
#include "integration/runs.hpp"
#include "unit/report/latex_check.hpp"

using namespace mcit::test;

namespace {

const std::vector<std::string> kUcit{"imagenet-r", "arxivqa",    "vizwiz-caption",
                                     "iconqa",     "clevr-math", "flickr30k"};

/// A run's folder with a result.json over UCIT that ends at these scores, each task learned at 90.
std::string ucit_run(const Workplace& work, const std::string& strategy, int seed,
                     const std::vector<double>& finals) {
  Json tasks = Json::array(), stages = Json::array(), matrix = Json::array();
  matrix.push_back(Json(std::vector<double>(kUcit.size(), 10.0)));
  for (std::size_t i = 0; i < kUcit.size(); ++i) {
    tasks.push_back({{"name", kUcit[i]}, {"test_examples", 100}});
    stages.push_back({{"name", kUcit[i]}, {"tasks", {i}}});
    matrix.push_back(i + 1 < kUcit.size() ? Json(std::vector<double>(kUcit.size(), 90.0)) : Json(finals));
  }
  const fs::path folder = work / (strategy + "-" + std::to_string(seed));
  fs::create_directories(folder);
  write(folder / "result.json", Json{{"schema", 1},
                                     {"suite", "ucit"},
                                     {"strategy", strategy},
                                     {"seed", seed},
                                     {"complete", true},
                                     {"tasks", tasks},
                                     {"stages", stages},
                                     {"matrix", matrix},
                                     {"provenance",
                                      {{"config", "model = \"llava-1.5-7b-hf\"\n[strategy]\nname = \"" +
                                                      strategy + "\"\nrank = 16\n"}}}}
                                    .dump());
  return folder.string();
}

Arguments six_runs(const Workplace& work) {
  Arguments runs;
  for (int seed = 1; seed <= 2; ++seed) {
    runs.push_back(ucit_run(work, "sequential", seed, {60, 70, 40, 60, 60, 50.0 + seed}));
    runs.push_back(ucit_run(work, "moe_lora", seed, {65, 75, 45, 65, 65, 55.0 + seed}));
    runs.push_back(ucit_run(work, "ewc", seed, {62, 72, 42, 62, 62, 52.0 + seed}));
  }
  return runs;
}

}  // namespace

TEST_CASE("published matrices have their published metrics") {
  const Workplace work;
  // UCIT: issue 6 of MCITlib. CoIN: BranchLoRA's table of aggregates (ACC, BWT/T); MFT by PCLR.
  const Ended ucit = work.mcit({"metrics", (kShare / "published/ucit_lora_user.csv").string(), "--json"});
  succeeded(ucit);
  const Json metrics = Json::parse(ucit.out);
  const auto near = [](const Json& value, double printed, double tolerance) {
    INFO(value.dump() << " against " << printed);
    CHECK(std::abs(value.get<double>() - printed) <= tolerance);
  };
  near(metrics["acc"], 56.73, 0.005);
  near(metrics["mft"], 70.60, 0.005);
  near(metrics["maa"], 72.90, 0.005);
  near(metrics["bwt_T-1"], -16.65, 0.005);
  near(metrics["bwt_T"], -13.875, 1e-9);
  // CoIN's aggregates, from BranchLoRA's and PCLR's tables: which task had how much is not needed for them.
  write(work / "coin.csv",
        "61.36\n,61.36\n,,61.36\n,,,61.36\n,,,,61.36\n,,,,,61.36\n,,,,,,61.36\n"
        "24.08,24.08,24.08,24.08,24.08,24.08,24.08,61.36\n");
  const Ended coin = work.mcit({"metrics", (work / "coin.csv").string(), "--json"});
  succeeded(coin);
  const Json lora = Json::parse(coin.out);
  near(lora["acc"], 28.74, 0.0101);
  near(lora["mft"], 61.36, 0.0101);
  near(lora["bwt_T"], -32.62, 0.0151);
  near(lora["forgetting_pclr"], 37.29, 0.0151);
  CHECK(lora["maa"].is_null());  // the rows in between are not there
}

TEST_CASE("the literature alone, in every form") {
  const Workplace work;
  const Ended shown = work.mcit({"compare", "--published", "coin"});
  succeeded(shown);
  CHECK(shown.out.find("BranchLoRA's comparison, 7B") != std::string::npos);
  CHECK(shown.out.find("all hold to rounding") != std::string::npos);
  const std::string latex = (work / "out.tex").string(), csv = (work / "out.csv").string(),
                    json = (work / "out.json").string();
  const Ended markdown = work.mcit({"compare", "--published", "mllm_dcl", "--markdown", "-", "--latex", latex,
                                    "--csv", csv, "--json", json});
  succeeded(markdown);
  CHECK(markdown.out.find("| CF-Router |") != std::string::npos);
  CHECK(latex_fault(slurp(latex)) == "");
  CHECK(slurp(csv).find("mllm_dcl,llava,DISCO,quoted,bwt_T-1,-6.46\n") != std::string::npos);
  CHECK(Json::parse(slurp(json))["published"]["tables"].size() == 3);
}

TEST_CASE("runs beside published numbers, ranks and paired differences") {
  const Workplace work;
  const std::string json = (work / "out.json").string(), latex = (work / "out.tex").string();
  const Ended shown = work.mcit(
      Arguments{"compare"} + six_runs(work) +
      Arguments{"--published", "--paired", "moe_lora", "sequential", "--json", json, "--latex", latex});
  succeeded(shown);
  for (const char* text :
       {"Mean ranks by ACC", "ucit: moe_lora - sequential", "sequential beside published ucit",
        "prints nothing to hold ewc against", "gap, not like for like"}) {
    INFO(text);
    CHECK(shown.out.find(text) != std::string::npos);
  }
  CHECK(latex_fault(slurp(latex)) == "");
  const Json found = Json::parse(slurp(json));
  CHECK(found["ranks"]["strategies"][0]["label"] == "moe_lora");
  CHECK(found["ranks"]["strategies"][0]["mean_rank"] == 1.0);
  CHECK(std::abs(found["paired"][0]["tasks"][6]["difference"].get<double>() - 5.0) < 1e-9);
  const Json& sequential = found["gaps"][0]["groups"][0];
  CHECK(sequential["label"] == "sequential");
  CHECK(sequential["matches"][0]["gap"]["final:arxivqa"] == 70.0 - 77.63);
  const Json& moe_lora = found["gaps"][0]["groups"][1]["matches"][0]["conditions"];
  const auto rank = std::find_if(moe_lora.begin(), moe_lora.end(),
                                 [](const Json& check) { return check["condition"] == "rank"; });
  REQUIRE(rank != moe_lora.end());
  CHECK((*rank)["verdict"] == "differs");  // MCITlib's scripts have 18
}

TEST_CASE("what is asked for wrongly is said in one line") {
  const Workplace work;
  const std::string run = ucit_run(work, "sequential", 1, {60, 70, 40, 60, 60, 50});
  failed(work.mcit({"compare", "--published", "coyn"}), {"no published tables for 'coyn'", "coin"});
  failed(work.mcit({"compare", "--published"}), {"which tables?", "coin"});
  failed(work.mcit({"compare", run, "--published", "coin"}), {"no task in common"});
  failed(work.mcit({"compare", run, "--published", "--against", "SEFEE"}), {"did you mean 'SEFE'?"});
  failed(work.mcit({"compare", run, "--paired", "sequential", "ewc"}), {"no row 'ewc'"});
  CHECK(work.mcit({"compare"}).code == 2);
}
