// The suites of the tree, and where their files may lie.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <map>

#include "data/check_data.hpp"
#include "data/suite_files.hpp"
#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"

namespace mcit::test {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Texts = std::vector<std::string>;

const fs::path kSuites = fs::path(MCIT_SOURCE_DIR) / "benchmarks/mcit";
const fs::path kMiniatures = fs::path(MCIT_SOURCE_DIR) / "tests/fixtures/suites";

Suite tree_suite(const std::string& name) { return read_suite(find_suite(name, {kSuites}), {}, {kSuites}); }

Texts names(const Suite& suite) {
  Texts out;
  for (const SuiteTask& task : suite.tasks) out.push_back(task.name);
  return out;
}

Texts faults_of(const DataReport& report) {
  Texts out;
  for (const DataFault& fault : report.faults)
    out.push_back(fs::path(fault.file).filename().string() + " " + std::to_string(fault.row) + ": " +
                  fault.what);
  return out;
}

TEST_CASE(
    "every published suite says what it is, where its data is from, and how long each task is trained") {
  int published = 0;
  for (const auto& [name, file] : list_suites({kSuites})) {
    INFO(name);
    const Suite suite = read_suite(file, {}, {kSuites});
    CHECK(suite.name == name);
    if (suite.builtin || suite.kind == "classify") continue;
    ++published;
    CHECK_FALSE(suite.texts.title.empty());
    CHECK_FALSE(suite.texts.paper.empty());
    CHECK_FALSE(suite.texts.source.empty());
    CHECK_FALSE(suite.texts.layout.empty());
    CHECK_FALSE(suite.texts.prompts.empty());
    CHECK_FALSE(suite.texts.notes.empty());
    CHECK_FALSE(suite.homes.empty());
    for (const SuiteTask& task : suite.tasks) {
      INFO(task.name);
      CHECK(task.epochs >= 1);
    }
  }
  CHECK(published == 16);
}

TEST_CASE("tasks come in the published order") {
  // CoIN (arXiv 2403.08350), UCIT (2503.12941), MLLM-CL, CL-MoE, FCIT: orders of their training scripts, but
  // for FCIT's task-related stream, whose evaluation scripts have this one.
  const std::map<std::string, Texts> orders = {
      {"coin", {"scienceqa", "textvqa", "imagenet", "gqa", "vizwiz", "grounding", "vqav2", "ocrvqa"}},
      {"ucit", {"imagenet_r", "arxivqa", "vizwiz", "iconqa", "clevr", "flickr30k"}},
      {"mllm_dcl", {"rs", "med", "ad", "sci", "fin"}},
      {"mllm_acl", {"ocr", "math", "vp", "app"}},
      {"cvit", {"scienceqa", "textvqa", "flickr30k", "imagenet", "gqa", "vqav2"}},
      {"vqav2_10",
       {"recognition", "location", "judge", "commonsense", "count", "action", "color", "type", "subcategory",
        "causal"}},
      {"fcit_task",
       {"imagenet_r", "arxivqa", "iconqa", "clevr_math", "ocrvqa", "flickr30k", "figureqa", "super_clevr"}},
      {"d_mole",
       {"vizwiz_caption", "skvg", "textcaps", "iconqa", "ocrvqa", "flickr30k", "vizwiz", "kvqa", "pmcvqa"}}};
  for (const auto& [name, order] : orders) CHECK(names(tree_suite(name)) == order);
  const Suite capability = tree_suite("fcit_capability");
  REQUIRE(capability.stages.size() == 4);
  CHECK(capability.stages[0].tasks == Texts{"aokvqa", "iconqa", "grounding", "imagenet_r"});
  CHECK(capability.stages[3].tasks == Texts{"flickr30k", "ocrvqa"});
}

TEST_CASE("the miniatures have the published layouts, every row, picture and client file of them good") {
  const std::map<std::string, std::string> shared = {
      {"coin_diverse", "coin"}, {"coin_10type", "coin"}, {"cvit_multi", "cvit"}};
  for (const auto& [name, file] : list_suites({kSuites})) {
    Suite suite = read_suite(file, {}, {kSuites});
    if (suite.builtin || suite.kind == "classify") continue;
    INFO(name);
    const auto other = shared.find(name);
    const DataPlace place = find_data(suite, {kMiniatures / (other == shared.end() ? name : other->second)});
    CHECK(place.found == place.wanted);
    REQUIRE_FALSE(place.folder.empty());
    suite.data = place.folder;
    locate(suite);
    const DataReport report = check_data(suite, {.deep = true, .excerpt = true}, {});
    CHECK(faults_of(report).empty());
    for (const TaskCheck& task : report.tasks) {
      INFO(task.task);
      CHECK(task.train_rows == 4);
      CHECK(task.test_rows == 2);
      CHECK((task.pictures > 0) == (name != "trace"));
    }
  }
}

/// A suite of one task in a folder of its own.
class Files : public TemporaryFolder {
 public:
  explicit Files(const std::string& suite) { write(*this / "suite.toml", suite); }
  Suite suite(const std::string& data = "data") const {
    Suite out = read_suite(*this / "suite.toml");
    out.data = *this / data;
    locate(out);
    return out;
  }
  void rows(const std::string& file, int count, const std::string& image = "") const {
    fs::create_directories((*this / file).parent_path());
    std::string text;
    for (int i = 0; i < count; ++i)
      text += (i > 0 ? ",\n" : "") + std::string("{\"id\": ") + std::to_string(i) + ", \"image\": \"" +
              image + "\", \"conversations\": [{\"from\": \"human\", \"value\": \"q" + file +
              std::to_string(i) + "\"}, {\"from\": \"gpt\", \"value\": \"a\"}]}";
    write(*this / file, "[" + text + "]");
  }
};

const std::string kTask = R"(
homes = ["Home"]
image_root = ["pictures", "."]
[folders]
set = ["Type1", "Original"]
[[tasks]]
name = "one"
train = ["{set}/train.json", "{set}/train_4w.json"]
test = "{set}/test.json"
expected_train = [3, 5]
expected_test = 2
)";

TEST_CASE("a file has the first of its names that is there") {
  Files files(kTask);
  CHECK(files.suite().tasks[0].train == "Type1/train.json");  // nothing there: the first
  files.rows("data/Original/train_4w.json", 3);
  files.rows("data/Original/test.json", 2);
  const Suite suite = files.suite();
  CHECK(suite.tasks[0].train == "Original/train_4w.json");
  CHECK(suite.tasks[0].test == "Original/test.json");
  CHECK(suite.image_root == ".");
  CHECK(check_data(suite, {}, {}).total_faults == 0);
  fs::create_directories(files / "data/pictures");
  CHECK(files.suite().image_root == "pictures");
  files.rows("data/Type1/test.json", 2);
  CHECK(files.suite().tasks[0].test == "Type1/test.json");
}

TEST_CASE("data is found in a folder, or in one that is called as the suite's data is") {
  const Files files(kTask);
  files.rows("data/Home/Type1/train.json", 3);
  const Suite suite = read_suite(files / "suite.toml");
  DataPlace place = find_data(suite, {files / "none", files / "data"});
  CHECK(place.folder == files / "data/Home");
  CHECK(place.found == 1);
  CHECK(place.wanted == 2);
  files.rows("other/Type1/train.json", 3);
  files.rows("other/Type1/test.json", 2);
  place = find_data(suite, {files / "data", files / "other"});
  CHECK(place.folder == files / "other");
  CHECK(place.found == 2);
  CHECK(find_data(suite, {files / "none"}).folder.empty());
}

TEST_CASE("what is missing is named folder by folder") {
  const Files files(kTask);
  fs::create_directories(files / "data/pictures/there");
  files.rows("data/Type1/train.json", 4, "there/x.jpg");
  files.rows("data/Type1/test.json", 1, "gone/deep/y.jpg");
  const std::string data = (files / "data").string();
  DataReport report = check_data(files.suite(), {}, {});
  CHECK(faults_of(report) ==
        Texts{"train.json 1: image: '" + data + "/pictures/there/x.jpg' does not exist",
              "train.json 2: image: '" + data + "/pictures/there/x.jpg' does not exist",
              "train.json 3: image: '" + data + "/pictures/there/x.jpg' does not exist",
              "train.json 0: holds 4 rows, the suite expects 3 or 5",
              "test.json 1: image: '" + data + "/pictures/gone/deep/y.jpg' does not exist",
              "test.json 0: holds 1 rows, the suite expects 2"});
  CHECK(report.total_faults == 7);  // the fourth row of the picture is counted, not told
  CHECK(report.tasks[0].pictures == 2);
  CHECK(report.tasks[0].missing_pictures == 2);
  REQUIRE(report.missing.size() == 2);
  CHECK(report.missing[0].folder == data + "/pictures/there");
  CHECK(report.missing[0].there);
  CHECK(report.missing[1].folder == data + "/pictures/gone");
  CHECK_FALSE(report.missing[1].there);
  CHECK(report.missing[1].example == data + "/pictures/gone/deep/y.jpg");
  CHECK(check_data(files.suite(), {.excerpt = true}, {}).total_faults == 5);  // without the two counts

  fs::remove_all(files / "data/Type1");
  report = check_data(files.suite(), {}, {});
  CHECK(faults_of(report) ==
        Texts{"train.json 0: does not exist, nor does 'Original/train.json', nor does 'Type1/train_4w.json', "
              "nor does 'Original/train_4w.json'; there is no folder '" +
                  data + "/Type1'",
              "test.json 0: does not exist, nor does 'Original/test.json'; there is no folder '" + data +
                  "/Type1'"});
  Suite coin = tree_suite("coin");  // names by the dozen are counted, not told
  coin.data = files / "data";
  locate(coin);
  CHECK(faults_of(check_data(coin, {}, {})).front() ==
        "train.json 0: does not exist, nor do the other 4 names that it may have, as "
        "'Instructions_Type1/ScienceQA/train.json'; there is no folder '" +
            data + "/Instruction_Type1'");
}

const std::string kClients = R"(
[[tasks]]
name = "one"
train = ["train.json", "parts/client_*.json"]
test = "test.json"
test_form = "questions"
clients = "parts/client_*.json"
image_prefix = "Good/"
)";

TEST_CASE("client files are found in the order of their numbers, and held against their task") {
  Files files(kClients);
  for (const int client : {10, 2, 0}) files.rows("data/parts/client_" + std::to_string(client) + ".json", 2);
  files.rows("data/parts/notes.json", 1);
  files.rows("data/test.json", 1);
  Suite suite = files.suite();
  Texts found;
  for (const fs::path& file : files_of(suite, suite.tasks[0].clients))
    found.push_back(file.filename().string());
  CHECK(found == Texts{"client_0.json", "client_2.json", "client_10.json"});
  CHECK(suite.tasks[0].train == "parts/client_*.json");  // the rows of all clients
  CHECK(read_task(suite, suite.tasks[0], RecordKind::train).size() == 6);

  files.rows("data/train.json", 5);
  suite = files.suite();
  CHECK(suite.tasks[0].train == "train.json");
  CHECK(faults_of(check_data(suite, {}, {})) ==
        Texts{"client_*.json 0: 3 files hold 6 rows, and 'one' has 5 training rows"});
  files.rows("data/train.json", 6);
  CHECK(check_data(files.suite(), {}, {}).total_faults == 0);
  files.rows("data/parts/client_0.json", 2, "./Other/a.jpg");
  CHECK(
      faults_of(check_data(files.suite(), {}, {})) ==
      Texts{
          "client_*.json 1: image: './Other/a.jpg' does not start with 'Good/', as this task's pictures do; "
          "is it the file of another task?"});
}

TEST_CASE("a suite may extend another one, by file or by name") {
  const Files files(kTask);
  write(files / "more.toml", "extends = \"suite.toml\"\nname = \"more\"\n[folders]\nset = [\"Type2\"]\n");
  const Suite more = read_suite(files / "more.toml");
  CHECK(more.name == "more");
  CHECK(more.tasks[0].train == "Type2/train.json");
  CHECK(more.homes == Texts{"Home"});
  write(files / "named.toml", "extends = \"more\"\ntitle = \"x\"\n");
  const Suite named = read_suite(files / "named.toml", {}, {files.path()});
  CHECK(named.texts.title == "x");
  CHECK(named.tasks[0].train == "Type2/train.json");
  CHECK_THROWS_MATCHES(read_suite(files / "named.toml"), ConfigError,
                       MessageMatches(ContainsSubstring("there is no suite 'more'")));
  write(files / "self.toml", "extends = \"self.toml\"\n");
  CHECK_THROWS_MATCHES(read_suite(files / "self.toml"), ConfigError,
                       MessageMatches(ContainsSubstring("more than 4 files in a row")));
}

TEST_CASE("wrong keys of a published suite are refused with their line") {
  const auto refusal = [](const std::string& text) {
    const Files files(text);
    try {
      read_suite(files / "suite.toml");
    } catch (const ConfigError& e) {
      return std::string(e.what()).substr((files / "").string().size());
    }
    return std::string("no error");
  };
  const std::string one = "[[tasks]]\nname = \"a\"\ntrain = \"t\"\ntest = \"u\"\n";
  CHECK(refusal("[[tasks]]\nname = \"a\"\ntrain = \"{sett}/t\"\ntest = \"u\"\n[folders]\nset = [\"x\"]\n") ==
        "suite.toml:3: tasks.0.train: [folders] does not say what '{sett}' is; did you mean 'set'?");
  CHECK(refusal(one + "test_form = \"captions\"\n") ==
        "suite.toml: tasks.0.question: is missing: rows of the form 'captions' do not ask");
  CHECK(
      refusal(one + "test_form = \"caption\"\n").find("unknown value 'caption'; did you mean 'captions'?") !=
      std::string::npos);
  CHECK(refusal(one + "steps = 3\nepochs = 2\n").find("tasks.0.epochs: 'steps' says how long") !=
        std::string::npos);
  CHECK(refusal(one + "[[stages]]\nname = \"s\"\ntasks = [\"b\"]\n")
            .find("stages: do not hold the suite's tasks") != std::string::npos);
  CHECK(refusal(one + "expected_test = [3, 0]\n").find("tasks.0.expected_test: must be at least 1") !=
        std::string::npos);
  CHECK(refusal("[[tasks]]\nname = \"a\"\ntrain = []\ntest = \"u\"\n").find("tasks.0.train: names no file") !=
        std::string::npos);
}

}  // namespace
}  // namespace mcit::test
