// Suites, and the look at their data before any training.
#include "data/suite.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "data/check_data.hpp"
#include "mcit/errors.hpp"
#include "unit/data/pillow.hpp"

namespace mcit::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::Message;
using Catch::Matchers::MessageMatches;
using Texts = std::vector<std::string>;
using Counts = std::vector<std::int64_t>;

constexpr const char* kSuite = R"(name = "coin3"
template = "llava"
data = "files"
image_root = "pictures"
order = ["gqa", "vqa"]

[[tasks]]
name = "vqa"
train = "vqa/train.json"
test = "vqa/test.json"
scorer = "vqa"
answers = ["yes", "no"]
chance = 50
max_new_tokens = 4
steps = 120
suffix = "\nAnswer in one word."
expected_train = 3
expected_test = 2

[[tasks]]
name = "gqa"
train = "gqa/train.json"
test = "gqa/test.json"

[[tasks]]
name = "ocr"
train = "ocr/train.json"
test = "ocr/test.json"
)";

/// The message of the ConfigError that reading this suite ends in, without the folder's name.
std::string refusal(const std::string& text, const Texts& order = {}) {
  const TemporaryFolder folder;
  write(folder / "suite.toml", text);
  try {
    read_suite(folder / "suite.toml", order);
  } catch (const ConfigError& e) {
    std::string what = e.what();
    const std::string path = (folder.path() / "").string();
    for (std::size_t at = what.find(path); at != std::string::npos; at = what.find(path))
      what.erase(at, path.size());
    return what;
  }
  return "no error";
}

Suite suite_of(const TemporaryFolder& folder, const std::string& text, const Texts& order = {}) {
  write(folder / "suite.toml", text);
  return read_suite(folder / "suite.toml", order);
}

Texts names(const Suite& suite) {
  Texts out;
  for (const SuiteTask& task : suite.tasks) out.push_back(task.name);
  return out;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

TEST_CASE("a suite reads its tasks in its own order, with every key") {
  const TemporaryFolder folder;
  const Suite suite = suite_of(folder, kSuite);
  CHECK(suite.name == "coin3");
  CHECK(suite.prompt_template == "llava");
  CHECK(suite.data == folder / "files");  // from the suite's own folder
  CHECK(suite.image_root == "pictures");
  CHECK_FALSE(suite.builtin.has_value());
  REQUIRE(names(suite) == Texts{"gqa", "vqa"});
  const SuiteTask &gqa = suite.tasks[0], &vqa = suite.tasks[1];
  CHECK(vqa.train == "vqa/train.json");
  CHECK(vqa.test == "vqa/test.json");
  CHECK(vqa.scorer == "vqa");
  CHECK(vqa.answers == Texts{"yes", "no"});
  CHECK(vqa.chance == 50.0);
  CHECK(vqa.max_new_tokens == 4);
  CHECK(vqa.steps == 120);
  CHECK(vqa.suffix == "\nAnswer in one word.");
  CHECK(vqa.expected_train == Counts{3});
  CHECK(vqa.expected_test == Counts{2});
  CHECK(gqa.scorer == "exact");
  CHECK(gqa.answers.empty());
  CHECK_FALSE(gqa.closed);
  CHECK_FALSE(gqa.chance.has_value());
  CHECK(gqa.max_new_tokens == 16);
  CHECK(gqa.steps == 0);
  CHECK(gqa.suffix.empty());
  CHECK(gqa.expected_train.empty());
  CHECK(gqa.expected_test.empty());
}

TEST_CASE("without keys of its own a suite is called by its file and streams its tasks as written") {
  const TemporaryFolder folder;
  const std::string text = kSuite;
  const Suite suite = suite_of(folder, text.substr(text.find("[[tasks]]")));
  CHECK(suite.name == "suite");
  CHECK(suite.prompt_template.empty());
  CHECK(suite.data.empty());
  CHECK(names(suite) == Texts{"vqa", "gqa", "ocr"});
}

TEST_CASE("a given order may be a subset and replaces the suite's") {
  const TemporaryFolder folder;
  CHECK(names(suite_of(folder, kSuite, {"ocr", "vqa", "gqa"})) == Texts{"ocr", "vqa", "gqa"});
  CHECK(names(suite_of(folder, kSuite, {"ocr"})) == Texts{"ocr"});
}

TEST_CASE("an order with an unknown task or one task twice is refused") {
  CHECK(refusal(kSuite, {"vqa", "gqaa"}) ==
        "suite.toml:5: order: there is no task 'gqaa'; did you mean 'gqa'?");
  CHECK(refusal(kSuite, {"vqa", "vqa"}) == "suite.toml:5: order: names 'vqa' twice");
  CHECK(refusal(replaced(kSuite, "\"gqa\", \"vqa\"", "\"gqa\", \"xyzzy\"")) ==
        "suite.toml:5: order: there is no task 'xyzzy'; known: vqa, gqa, ocr");
}

TEST_CASE("two tasks of one name and a suite without tasks are refused") {
  CHECK(refusal(replaced(kSuite, "name = \"ocr\"", "name = \"vqa\"")) ==
        "suite.toml:26: tasks.2.name: two tasks are called 'vqa'");
  CHECK(refusal("name = \"empty\"\n").find("the suite has no task") != std::string::npos);
}

TEST_CASE("an unknown key anywhere is refused with its line and a near name") {
  CHECK(refusal(replaced(kSuite, "template =", "templat =")) ==
        "suite.toml:2: templat: unknown key; did you mean 'template'?");
  CHECK(refusal(replaced(kSuite, "scorer =", "scorrer =")) ==
        "suite.toml:11: tasks.0.scorrer: unknown key; did you mean 'scorer'?");
  CHECK(refusal(std::string(kSuite) + "colour = 3\n").find("suite.toml:29: tasks.2.colour: unknown key") ==
        0);
  CHECK(refusal(std::string(kSuite) + "[minni]\nseed = 1\n").find("suite.toml:29: minni: unknown key") == 0);
}

TEST_CASE("an optional key that is misspelt finds its near name too") {
  CHECK(refusal(replaced(kSuite, "chance =", "chanse =")) ==
        "suite.toml:13: tasks.0.chanse: unknown key; did you mean 'chance'?");
  CHECK(refusal(replaced(kSuite, "expected_test =", "expected_tset =")) ==
        "suite.toml:18: tasks.0.expected_tset: unknown key; did you mean 'expected_test'?");
}

TEST_CASE("values out of range and missing keys are refused with their line") {
  CHECK(refusal(replaced(kSuite, "chance = 50", "chance = 101")) ==
        "suite.toml:13: tasks.0.chance: must be at most 100.0, found 101.0");
  CHECK(refusal(replaced(kSuite, "max_new_tokens = 4", "max_new_tokens = 0")) ==
        "suite.toml:14: tasks.0.max_new_tokens: must be at least 1, found 0");
  CHECK(refusal(replaced(kSuite, "steps = 120", "steps = -1")).find("tasks.0.steps: must be at least 0") !=
        std::string::npos);
  CHECK(refusal(replaced(kSuite, "train = \"gqa/train.json\"\n", "")).find("tasks.1.train: is missing") !=
        std::string::npos);
  CHECK(refusal(replaced(kSuite, "chance = 50", "closed = true"))
            .find("suite.toml:13: tasks.0.closed: takes the answers of the records") == 0);
  CHECK(refusal("tasks = 3\n").find("suite.toml:1: tasks: expected an array of tables") == 0);
}

constexpr const char* kClassify = R"(kind = "classify"
class_template = "a drawing of a {}"
image_root = "pictures"
classes = 40
train_share = 0.25
split_seed = 7
[[tasks]]
name = "art"
folder = "Art"
chance = 2
steps = 60
expected_train = 3
expected_test = 2
[[tasks]]
name = "real"
train = "real_train.txt"
test = "real_test.txt"
)";

TEST_CASE("a classify suite has classes instead of questions") {
  const TemporaryFolder folder;
  const Suite suite = suite_of(folder, kClassify);
  CHECK(suite.kind == "classify");
  CHECK(suite.class_template == "a drawing of a {}");
  CHECK(suite.image_root == "pictures");
  CHECK(suite.most_classes == 40);
  CHECK(suite.train_share == 0.25);
  CHECK(suite.split_seed == 7);
  REQUIRE(names(suite) == Texts{"art", "real"});
  CHECK(suite.tasks[0].folder == "Art");
  CHECK(suite.tasks[0].train.empty());
  CHECK(suite.tasks[0].chance == 2.0);
  CHECK(suite.tasks[0].steps == 60);
  CHECK(suite.tasks[0].expected_train == Counts{3});
  CHECK(suite.tasks[0].expected_test == Counts{2});
  CHECK(suite.tasks[1].folder.empty());
  CHECK(suite.tasks[1].train == "real_train.txt");
  CHECK(suite.tasks[1].test == "real_test.txt");
  const Suite plain = suite_of(folder, "kind = \"classify\"\n[[tasks]]\nname = \"art\"\nfolder = \"Art\"\n");
  CHECK(plain.class_template == "a photo of a {}.");
  CHECK(plain.most_classes == 0);
  CHECK(plain.train_share == 0.1);
  CHECK(plain.split_seed == 1);
  CHECK(suite_of(folder, kSuite).kind == "instruct");
  CHECK(suite_of(folder, "kind = \"instruct\"\n" + std::string(kSuite)).kind == "instruct");
}

TEST_CASE("a kind's keys are no keys of the other kind") {
  for (const std::string key : {"template = \"plain\"", "probe = \"p.json\""})
    CHECK(refusal(key + "\n" + kClassify).find("suite.toml:1: " + key.substr(0, 5)) == 0);
  for (const std::string key :
       {"scorer = \"exact\"", "answers = [\"a\"]", "closed = true", "max_new_tokens = 4", "suffix = \"s\""}) {
    INFO(key);
    const std::string name = key.substr(0, key.find(' '));
    CHECK(refusal(kClassify + key + "\n").find("suite.toml:18: tasks.1." + name + ": unknown key") == 0);
  }
  for (const std::string key :
       {"class_template = \"a {}\"", "classes = 3", "train_share = 0.5", "split_seed = 2"}) {
    INFO(key);
    const std::string name = key.substr(0, key.find(' '));
    CHECK(refusal(key + "\n" + kSuite).find("suite.toml:1: " + name + ": unknown key") == 0);
  }
  CHECK(refusal(std::string(kSuite) + "folder = \"Art\"\n")
            .find("suite.toml:29: tasks.2.folder: unknown key") == 0);
  CHECK(refusal(replaced(kClassify, "\"classify\"", "\"clasify\"")) ==
        "suite.toml:1: kind: unknown value 'clasify'; did you mean 'classify'?");
}

TEST_CASE("values that no classify suite can have are refused with their line") {
  for (const std::string text : {"a picture", "{} or {}", ""})
    CHECK(refusal(replaced(kClassify, "a drawing of a {}", text)) ==
          "suite.toml:2: class_template: must hold {} once, where the class name stands; for example \"a "
          "photo of "
          "a {}.\"");
  for (const std::string share : {"0.0", "1.0", "-0.5"})
    CHECK(refusal(replaced(kClassify, "0.25", share)) ==
          "suite.toml:5: train_share: must be between 0 and 1, both excluded, found " +
              share.substr(0, share.ends_with(".0") ? share.size() - 2 : share.size()));
  CHECK(refusal(replaced(kClassify, "classes = 40", "classes = -1")) ==
        "suite.toml:4: classes: must be at least 0, found -1");
  CHECK(refusal(replaced(kClassify, "split_seed = 7", "split_seed = -1")) ==
        "suite.toml:6: split_seed: must be at least 0, found -1");
}

TEST_CASE("a classify task has a folder or two lists") {
  CHECK(refusal(replaced(kClassify, "folder = \"Art\"", "")) ==
        "suite.toml:7: tasks.0: does not say where its pictures are; give 'folder' (a folder for each "
        "class), or the "
        "lists 'train' and 'test'");
  CHECK(refusal(replaced(kClassify, "folder = \"Art\"", "folder = \"Art\"\ntest = \"art.txt\"")) ==
        "suite.toml:9: tasks.0.folder: is split by train_share, and 'train' and 'test' list a split; keep "
        "one of the "
        "two");
  CHECK(refusal(replaced(kClassify, "train = \"real_train.txt\"\n", "")).find("tasks.1.train: is missing") !=
        std::string::npos);
  CHECK(refusal(replaced(kClassify, "test = \"real_test.txt\"\n", "")).find("tasks.1.test: is missing") !=
        std::string::npos);
  const std::string lists = replaced(kClassify, "folder = \"Art\"", "train = \"a.txt\"\ntest = \"b.txt\"");
  CHECK(refusal(lists) ==
        "suite.toml:5: train_share: splits the pictures of a 'folder', and no task has one; "
        "remove the key");
  CHECK(refusal(replaced(lists, "train_share = 0.25\n", "")) ==
        "suite.toml:5: split_seed: splits the pictures of a 'folder', and no task has one; remove the key");
}

TEST_CASE("the classify suites of the tree are found and read") {
  const auto folder = std::filesystem::path(MCIT_SOURCE_DIR) / "benchmarks/mcit";
  const Suite office = read_suite(find_suite("office_home", {folder}));
  CHECK(office.kind == "classify");
  Texts folders;
  for (const SuiteTask& task : office.tasks) folders.push_back(task.folder.string());
  CHECK(folders == Texts{"Art", "Clipart", "Product", "Real World"});
  const Suite domainnet = read_suite(find_suite("mini_domainnet", {folder}));
  CHECK(domainnet.kind == "classify");
  CHECK(names(domainnet) == Texts{"clipart", "painting", "real", "sketch"});
  for (const SuiteTask& task : domainnet.tasks) {
    CHECK(task.train == "splits_mini/" + task.name + "_train.txt");
    CHECK(task.test == "splits_mini/" + task.name + "_test.txt");
  }
}

TEST_CASE("the [mini] table is handed on, and whoever reads it finishes the suite") {
  const TemporaryFolder folder;
  const std::string text = replaced(kSuite, "[[tasks]]", "[mini]\nseed = 4\n\n[[tasks]]");
  const Suite suite = suite_of(folder, text);
  REQUIRE(suite.builtin.has_value());
  CHECK(suite.builtin->integer("seed", 1) == 4);
  CHECK_NOTHROW(suite.file.finish());
  const Suite other = suite_of(folder, replaced(text, "seed = 4", "seed = 4\nsead = 5"));
  CHECK(other.builtin->integer("seed", 1) == 4);
  CHECK_THROWS_MATCHES(other.file.finish(), ConfigError,
                       MessageMatches(ContainsSubstring("mini.sead: unknown key; did you mean 'seed'?")));
}

TEST_CASE("suites are found by name below the folders or by file") {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "a/coin");
  std::filesystem::create_directories(folder / "b");
  write(folder / "a/coin/coin8.toml", kSuite);
  write(folder / "a/mini4.toml", kSuite);
  write(folder / "b/mini8.toml", kSuite);
  write(folder / "b/notes.txt", "");
  const std::vector<std::filesystem::path> folders = {folder / "a", folder / "b", folder / "absent"};
  Texts found;
  for (const auto& [name, file] : list_suites(folders)) found.push_back(name);
  CHECK(found == Texts{"coin8", "mini4", "mini8"});
  CHECK(find_suite("coin8", folders) == folder / "a/coin/coin8.toml");
  CHECK(find_suite((folder / "b/mini8.toml").string(), {}) == folder / "b/mini8.toml");
  CHECK_THROWS_MATCHES(find_suite("coin9", folders), ConfigError,
                       Message("suite: there is no suite 'coin9'; did you mean 'coin8'?"));
  CHECK_THROWS_MATCHES(find_suite("imagenet", folders), ConfigError,
                       Message("suite: there is no suite 'imagenet'; known: coin8, mini4, mini8"));
  CHECK_THROWS_MATCHES(find_suite((folder / "none.toml").string(), folders), ConfigError,
                       MessageMatches(ContainsSubstring("none.toml' does not exist")));
}

// ---- check-data
// --------------------------------------------------------------------------------------------

constexpr const char* kChecked = R"(data = "files"
image_root = "pictures"
[[tasks]]
name = "vqa"
train = "train.json"
test = "test.json"
answers = ["yes", "no"]
)";

std::string train_row(const std::string& id, const std::string& image, const std::string& question,
                      const std::string& answer) {
  return R"({"id": ")" + id + R"(", "image": ")" + image +
         R"(", "conversations": [{"from": "human", "value": ")" + question +
         R"("}, {"from": "gpt", "value": ")" + answer + R"("}]})";
}
std::string test_row(const std::string& id, const std::string& image, const std::string& question,
                     const std::string& answer) {
  return R"({"question_id": ")" + id + R"(", "image": ")" + image + R"(", "text": ")" + question +
         R"(", "answer": ")" + answer + R"("})";
}

/// A folder with two good pictures and a broken one, and a suite of one task beside it.
class Checked {
 public:
  Checked(const std::string& train, const std::string& test, const std::string& more = "") {
    std::filesystem::create_directories(folder_ / "files/pictures");
    for (const char* name : {"a.png", "b.png"})
      std::filesystem::copy_file(kPictures / "rgb.png", folder_ / "files/pictures" / name);
    write(folder_ / "files/pictures/broken.png", slurp(kPictures / "rgb.png").substr(0, 300));
    write(folder_ / "files/train.json", train);
    write(folder_ / "files/test.json", test);
    write(folder_ / "suite.toml", kChecked + more);
  }
  DataReport check(bool deep = false, std::int64_t limit = 100) {
    progress.clear();
    return check_data(read_suite(folder_ / "suite.toml"), {.deep = deep, .limit = limit},
                      [&](const std::string& task) { progress.push_back(task); });
  }
  std::filesystem::path operator/(const std::string& name) const { return folder_ / ("files/" + name); }

  Texts progress;

 private:
  TemporaryFolder folder_;
};

/// "file row: what" of every fault.
Texts faults_of(const DataReport& report) {
  Texts out;
  for (const DataFault& fault : report.faults)
    out.push_back(std::filesystem::path(fault.file).filename().string() + " " + std::to_string(fault.row) +
                  ": " + fault.what);
  return out;
}

const std::string kGoodTest = "[" + test_row("t1", "b.png", "q?", "no") + "]";

TEST_CASE("good data has no fault, and rows and pictures are counted") {
  Checked data("[" + train_row("1", "a.png", "q?", "yes") + "," + train_row("2", "a.png", "r?", "no") + "]",
               kGoodTest, "expected_train = 2\nexpected_test = 1\n");
  const DataReport report = data.check(true);
  CHECK(faults_of(report).empty());
  CHECK(report.total_faults == 0);
  REQUIRE(report.tasks.size() == 1);
  CHECK(report.tasks[0].task == "vqa");
  CHECK(report.tasks[0].train_rows == 2);
  CHECK(report.tasks[0].test_rows == 1);
  CHECK(report.tasks[0].pictures == 2);
  CHECK(data.progress == Texts{"vqa"});
}

TEST_CASE("every fault is told with its row, faulty rows before it counted") {
  Checked data("[" + train_row("1", "a.png", "q?", "yes") + R"(, {"id": 2}, )" +
                   train_row("1", "none.png", "q?", "maybe") + ", 5, " +
                   train_row("3", "broken.png", "r?", "no") + "]",
               "[" + test_row("1", "a.png", "q?", "no") + "," + test_row("2", "b.png", "q?", "perhaps") +
                   "," + test_row("2", "none.png", "s?", "yes") + "]",
               "expected_train = 4\nexpected_test = 3\n");
  const DataReport report = data.check();
  CHECK(faults_of(report) ==
        Texts{"train.json 2: lacks 'conversations'", "train.json 4: expected an object",
              "train.json 3: id: '1' occurs twice",
              "train.json 3: image: '" + (data / "pictures/none.png").string() + "' does not exist",
              "train.json 3: answer: 'maybe' is not in the task's answer set",
              "train.json 0: holds 5 rows, the suite expects 4",
              "test.json 1: the same question about the same picture is a training row",
              "test.json 2: answer: 'perhaps' is not in the task's answer set",
              "test.json 3: id: '2' occurs twice",
              "test.json 3: image: '" + (data / "pictures/none.png").string() + "' does not exist"});
  CHECK(report.total_faults == 10);
  CHECK(report.tasks.at(0).train_rows == 5);
  CHECK(report.tasks.at(0).test_rows == 3);
  CHECK(report.tasks.at(0).pictures == 4);
  for (const DataFault& fault : report.faults) CHECK(fault.task == "vqa");
}

TEST_CASE("only a deep check looks into the pictures") {
  Checked data("[" + train_row("1", "broken.png", "q?", "yes") + "]", kGoodTest);
  CHECK(data.check(false).total_faults == 0);
  const DataReport report = data.check(true);
  REQUIRE(report.faults.size() == 1);
  CHECK(report.faults[0].row == 1);
  CHECK(report.faults[0].what.find("image: " + (data / "pictures/broken.png").string() + ": damaged PNG") ==
        0);
}

TEST_CASE("the limit cuts the list of each file, not the count") {
  std::string train, test;
  for (int i = 0; i < 9; ++i) {
    train += (i > 0 ? "," : "") + train_row(std::to_string(i), "", "q?", "maybe");
    test += (i > 0 ? "," : "") + test_row(std::to_string(i), "", "q?", "maybe");
  }
  Checked data("[" + train + "]", "[" + test + "]");
  const DataReport report = data.check(false, 2);
  CHECK(report.total_faults == 18);
  REQUIRE(report.faults.size() == 4);
  CHECK(report.faults[1].row == 2);
  CHECK(report.faults[2].file == (data / "test.json").string());
  CHECK(report.faults[2].row == 1);
}

TEST_CASE("a file that cannot be read is one fault of the file and the other file is still looked at") {
  Checked data("[", kGoodTest);
  const DataReport report = data.check();
  REQUIRE(report.faults.size() == 1);
  CHECK(report.faults[0].row == 0);
  CHECK(report.faults[0].file == (data / "train.json").string());
  CHECK(report.tasks.at(0).test_rows == 1);
  std::filesystem::remove(data / "test.json");
  CHECK(data.check().total_faults == 2);
}

}  // namespace
}  // namespace mcit::test
