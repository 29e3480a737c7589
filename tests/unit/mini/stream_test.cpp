#include "mini/stream.hpp"

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/config.hpp"
#include "core/json.hpp"
#include "mcit/errors.hpp"
#include "mini/canvas.hpp"
#include "mini/phrases.hpp"
#include "mini/pretrain.hpp"
#include "mini_support.hpp"

using namespace mcit;
using namespace mcit::mini;
using Catch::Approx;
using mcit::mini::testing::pack;
using mcit::mini::testing::TemporaryFolder;

namespace {

MiniOptions small(int train, int test) {
  MiniOptions options;
  options.train = train;
  options.test = test;
  return options;
}

bool same(const Split& a, const Split& b) {
  return std::equal(a.items.begin(), a.items.end(), b.items.begin(), b.items.end(),
                    [](const Item& x, const Item& y) {
                      return x.picture == y.picture && x.question == y.question && x.answer == y.answer &&
                             x.type == y.type;
                    }) &&
         std::equal(a.pictures.begin(), a.pictures.end(), b.pictures.begin(), b.pictures.end(),
                    [](const Raster& x, const Raster& y) { return x.data == y.data; });
}

std::string bytes(const Raster& picture) { return {picture.data.begin(), picture.data.end()}; }

std::vector<Item> items(std::initializer_list<std::pair<std::string, std::string>> list) {
  std::vector<Item> result;
  for (const auto& [question, answer] : list) result.push_back({0, question, answer, ""});
  return result;
}

}  // namespace

TEST_CASE("tasks come from the seed, with the asked numbers, in known words") {
  const auto words = vocabulary(pack());
  const std::set<std::string> known(words.begin(), words.end());
  for (const TaskKind& kind : task_kinds()) {
    INFO(kind.name);
    MiniOptions options = small(60, 40);
    options.wordings = 5;
    const TaskData data = make_task(pack(), options, kind.name);
    CHECK(data.train.items.size() == 60);
    CHECK(data.test.items.size() == 40);
    const TaskData again = make_task(pack(), options, kind.name);
    CHECK(same(data.train, again.train));
    CHECK(same(data.test, again.test));
    options.seed = 2;
    CHECK_FALSE(same(data.train, make_task(pack(), options, kind.name).train));
    for (const Split* split : {&data.train, &data.test}) {
      for (const Item& item : split->items) {
        REQUIRE(static_cast<std::size_t>(item.picture) < split->pictures.size());
        if (!data.answers.empty())
          REQUIRE(std::binary_search(data.answers.begin(), data.answers.end(), item.answer));
        for (const std::string* text : {&item.question, &item.answer}) {
          for (const std::string& word : phrases::words_of(*text)) REQUIRE(known.contains(word));
        }
      }
      for (const Raster& picture : split->pictures)
        REQUIRE((picture.width == 64 && picture.height == 64 && picture.channels == 3));
    }
  }
}

TEST_CASE("training pictures have nothing of the test side, test pictures have") {
  const Pack spoiled = mcit::mini::testing::without_test_side();
  for (const TaskKind& kind : task_kinds()) {
    if (kind.name == "vqa") continue;  // has its own pictures, below
    INFO(kind.name);
    const TaskData data = make_task(pack(), small(80, 20), kind.name);
    const TaskData without = make_task(spoiled, small(80, 20), kind.name);
    CHECK(same(data.train, without.train));
    CHECK_FALSE(same(data.test, without.test));
  }
  const TaskData vqa = make_task(pack(), small(200, 200), "vqa");
  std::set<std::string> train, test, files;
  for (const Raster& picture : pack().vqa_pictures(true)) files.insert(bytes(picture));
  for (const Raster& picture : vqa.train.pictures) train.insert(bytes(picture));
  for (const Raster& picture : vqa.test.pictures) test.insert(bytes(picture));
  CHECK(std::includes(files.begin(), files.end(), test.begin(), test.end()));
  CHECK(train.size() > 150);
  const TaskData ocr = make_task(pack(), small(300, 300), "ocr");
  std::set<std::string> learned, asked;
  for (const Item& item : ocr.train.items) learned.insert(item.answer);
  for (const Item& item : ocr.test.items) asked.insert(item.answer);
  for (const std::string& word : asked) CHECK_FALSE(learned.contains(word));
}

TEST_CASE("questions of sci offer the answer once among as many classes as asked for") {
  MiniOptions options = small(50, 10);
  options.difficulty.sci_options = 3;
  for (const Item& item : make_task(pack(), options, "sci").train.items) {
    std::set<std::string> offered;
    for (const std::string& word : phrases::words_of(item.question)) {
      if (std::find(pack().classes.begin(), pack().classes.end(), word) != pack().classes.end())
        offered.insert(word);
    }
    CHECK(offered.size() == 3);
    CHECK(offered.contains(item.answer));
  }
}

TEST_CASE("question-only chance is that of the best guess") {
  // By hand. Majority of "q1" is x (2 of 3), of "q2" y; a new question gets the overall majority, x.
  const auto train = items({{"q1", "x"}, {"q1", "x"}, {"q1", "y"}, {"q2", "y"}});
  CHECK(question_only_chance(train, items({{"q1", "x"}, {"q1", "y"}, {"q2", "y"}, {"q2", "y"}}), "exact") ==
        Approx(75));
  CHECK(question_only_chance(train, items({{"q3", "x"}, {"q3", "z"}}), "exact") == Approx(50));
  // Offers: b is right both times it is offered, so it is the guess; the second position is right only in one
  // of two.
  const auto choices = items({{"of a b", "b"}, {"of b c", "b"}, {"of c a", "a"}, {"of a c", "c"}});
  CHECK(question_only_chance(choices, items({{"of b a c", "b"}, {"of c a b", "b"}}), "exact") == Approx(100));
  // F1 of constants. The words by frequency are k, a, b: "k" gets 2/3 of each, "k a" (1 + 1/2) / 2, "k a b"
  // 4/5.
  const auto captions = items({{"q", "k a"}, {"q", "k a"}, {"q", "k b"}});
  CHECK(question_only_chance(captions, items({{"q", "k a"}, {"q", "k b"}}), "token_f1") == Approx(80));
  CHECK(question_only_chance({}, train, "exact") == 0);
}

TEST_CASE("chance of the tasks is near their number of answers") {
  // 4 continents, 1-4 objects, 10 digits, 4 quadrants, 18 classes; half of vqa is yes/no, the rest has 3 or 8
  // answers.
  const auto chance = [](std::string_view task) { return make_task(pack(), small(600, 400), task).chance; };
  CHECK(chance("geo") == Approx(25).margin(6));
  CHECK(chance("count") == Approx(25).margin(6));
  CHECK(chance("digits") == Approx(10).margin(6));
  CHECK(chance("ground") == Approx(25).margin(6));
  CHECK(chance("cls") == Approx(5.6).margin(4));
  CHECK(chance("sci") == Approx(26).margin(8));
  CHECK(chance("vqa") < 48);
  CHECK(chance("ocr") == 0);
}

TEST_CASE("files are CoIN records whose pictures are there") {
  const TemporaryFolder folder;
  MiniOptions options = small(12, 8);
  const auto out = folder.path() / "mini";
  write_stream(pack(), options, out);
  for (const TaskKind& kind : task_kinds()) {
    const std::string task(kind.name);
    INFO(task);
    const TaskData data = make_task(pack(), options, task);
    const Json meta = read_json(out / task / "meta.json");
    CHECK(meta["pack"] == pack().digest());
    CHECK(meta["chance"].get<double>() == data.chance);
    CHECK(meta["scorer"] == std::string(kind.scorer));
    CHECK(meta["answers"].get<std::vector<std::string>>() == data.answers);
    const Json train = read_json(out / task / "train.json");
    const Json test = read_json(out / task / "test.json");
    REQUIRE(train.size() == 12);
    REQUIRE(test.size() == 8);
    std::set<std::string> ids;
    for (std::size_t i = 0; i < train.size(); ++i) {
      ids.insert(train[i]["id"].get<std::string>());
      const Json& turns = train[i]["conversations"];
      REQUIRE(turns.size() == 2);
      CHECK(turns[0]["from"] == "human");
      CHECK(turns[0]["value"] == "<image>\n" + data.train.items[i].question);
      CHECK(turns[1]["from"] == "gpt");
      CHECK(turns[1]["value"] == data.train.items[i].answer);
      const Raster picture = read_png(out / train[i]["image"].get<std::string>(), 3);
      CHECK(picture.data == data.train.pictures[static_cast<std::size_t>(data.train.items[i].picture)].data);
    }
    for (std::size_t i = 0; i < test.size(); ++i) {
      ids.insert(test[i]["question_id"].get<std::string>());
      CHECK(test[i]["text"] == data.test.items[i].question);
      CHECK(test[i]["answer"] == data.test.items[i].answer);
      CHECK(std::filesystem::exists(out / test[i]["image"].get<std::string>()));
    }
    CHECK(ids.size() == 20);
  }
  CHECK_THROWS_AS(write_stream(pack(), options, out), DataError);
  // Nothing unfinished is left beside it.
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
}

TEST_CASE("a suite's table sets the options") {
  const Config table = Config::parse(
      "seed = 7\ntrain = 10\ntasks = ['geo']\ntest_noto = 0.5\nocr_test_faces = false\n", "suite.toml");
  const MiniOptions options = read_options(table);
  table.finish();
  CHECK(options.seed == 7);
  CHECK(options.train == 10);
  CHECK(options.test == MiniOptions{}.test);
  CHECK(options.tasks == std::vector<std::string>{"geo"});
  CHECK(options.difficulty.test_noto == 0.5);
  CHECK_FALSE(options.difficulty.ocr_test_faces);
  CHECK_THROWS_AS(read_options(Config::parse("sci_options = 9", "suite.toml")), ConfigError);
}

TEST_CASE("the cache holds one folder for one set of options") {
  const TemporaryFolder cache;
  MiniOptions options = small(5, 5);
  options.tasks = {"geo", "count"};
  const auto first = materialise(pack(), options, cache.path());
  const auto written = std::filesystem::last_write_time(first / "geo" / "meta.json");
  options.tasks = {"geo", "count", "cls"};  // more tasks of the same stream
  CHECK(materialise(pack(), options, cache.path()) == first);
  CHECK(std::filesystem::last_write_time(first / "geo" / "meta.json") == written);
  CHECK(std::distance(std::filesystem::directory_iterator(first), {}) == 3);
  options.seed = 9;
  CHECK(materialise(pack(), options, cache.path()) != first);
  options.tasks = {"geo", "conut"};
  CHECK_THROWS_AS(materialise(pack(), options, cache.path()), ConfigError);
  CHECK(std::distance(std::filesystem::directory_iterator(cache.path()), {}) == 2);
  options = small(0, 5);
  CHECK_THROWS_AS(materialise(pack(), options, cache.path()), ConfigError);
}

TEST_CASE("the suites say what the generator measures") {
  for (const std::string suite : {"mini", "mini4", "smoke"}) {
    const Config file = Config::read(mcit::mini::testing::mini_folder() / (suite + ".toml"));
    MiniOptions options = read_options(file.child("mini"));
    std::vector<std::string> names;
    for (const Config& task : file.children("tasks")) {
      const std::string name = task.require_text("name");
      INFO(suite << ": " << name);
      names.push_back(name);
      const TaskData data = make_task(pack(), options, name);
      CHECK(task.require_text("scorer") == task_kind(name).scorer);
      CHECK(task.number("chance", -1) == Approx(data.chance).margin(0.051));
      CHECK(task.texts("answers", {}) == data.answers);
      CHECK(task.require_text("train") == name + "/train.json");
      CHECK(task.require_text("test") == name + "/test.json");
    }
    CHECK(file.require_texts("order") == names);
  }
}
