#include "mini/pack.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fstream>
#include <map>
#include <set>

#include <nlohmann/json.hpp>
#include "core/files.hpp"
#include "core/json.hpp"
#include "mcit/errors.hpp"
#include "mini/pretrain.hpp"
#include "mini_support.hpp"

using namespace mcit;
using namespace mcit::mini;
using mcit::mini::testing::mini_folder;
using mcit::mini::testing::pack;
using mcit::mini::testing::TemporaryFolder;

TEST_CASE("the pack holds what make_pack.py put there") {
  // CONCEPTS and FLAGS of benchmarks/mcit/mini/make_pack.py: 18 classes of 9, 4 continents of 30.
  std::map<std::string, int> classes, continents;
  std::set<std::string> names;
  for (const Thing& thing : pack().concepts) ++classes[thing.group], names.insert(thing.name);
  for (const Thing& flag : pack().flags) ++continents[flag.group], names.insert(flag.name);
  CHECK(classes.size() == 18);
  CHECK(std::all_of(classes.begin(), classes.end(), [](const auto& c) { return c.second == 9; }));
  CHECK(continents ==
        std::map<std::string, int>{{"africa", 30}, {"america", 30}, {"asia", 30}, {"europe", 30}});
  CHECK(names.size() == 162 + 120);
  // The digits of scikit-learn: 1797, of which the first 1400 train.
  CHECK(pack().digits.size() == 1797);
  CHECK(std::count_if(pack().digits.begin(), pack().digits.end(), [](const Digit& d) { return d.test; }) ==
        397);
  // easy-VQA 1.0: 38575 training and 9673 test questions (its own README), 4000 and 1000 pictures.
  CHECK(pack().vqa_train.size() == 38575);
  CHECK(pack().vqa_test.size() == 9673);
  CHECK(pack().vqa_train.back().picture == 3999);
  CHECK(pack().vqa_test.back().picture == 999);
}

TEST_CASE("both vendors drew every thing, and not alike") {
  for (const auto* things : {&pack().concepts, &pack().flags}) {
    for (const Thing& thing : *things) {
      INFO(thing.name);
      const Raster& ours = thing.by(Vendor::kTwemoji).levels[0];
      const Raster& theirs = thing.by(Vendor::kNoto).levels[0];
      int ours_covered = 0, theirs_covered = 0;
      for (std::size_t i = 3; i < ours.data.size(); i += 4)
        ours_covered += ours.data[i] > 127, theirs_covered += theirs.data[i] > 127;
      CHECK(ours_covered > 400);
      CHECK(theirs_covered > 400);
      CHECK(ours.data != theirs.data);
    }
  }
}

TEST_CASE("training and test side of the pack are disjoint") {
  const std::set<std::string> train(pack().train_words.begin(), pack().train_words.end());
  CHECK(std::none_of(pack().test_words.begin(), pack().test_words.end(),
                     [&](const auto& w) { return train.contains(w); }));
  CHECK(pack().test_words.size() > 100);
  const auto tests =
      std::count_if(pack().faces.begin(), pack().faces.end(), [](const Face& f) { return f.test; });
  CHECK(tests == 3);
  CHECK(pack().faces.size() == 11);
  std::set<std::array<std::uint8_t, 64>> inks;
  for (const Digit& digit : pack().digits) {
    if (!digit.test) inks.insert(digit.ink);
  }
  CHECK(std::none_of(pack().digits.begin(), pack().digits.end(),
                     [&](const Digit& d) { return d.test && inks.contains(d.ink); }));
}

TEST_CASE("damage to the pack is named") {
  const TemporaryFolder folder;
  std::filesystem::copy(mini_folder() / "pack", folder.path() / "pack");
  const auto message = [&] {
    try {
      Pack damaged(folder.path() / "pack");
    } catch (const DataError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const auto replace = [&](const char* file, const std::string& bytes) {
    write_atomic(folder.path() / "pack" / file, bytes);
    const std::string text = message();
    std::filesystem::copy_file(mini_folder() / "pack" / file, folder.path() / "pack" / file,
                               std::filesystem::copy_options::overwrite_existing);
    return text;
  };
  using Catch::Matchers::ContainsSubstring;
  CHECK(message() == "no error");
  CHECK_THAT(replace("digits.bin", std::string(65, '\0')), ContainsSubstring("digits.bin"));
  CHECK_THAT(replace("digits.bin", std::string(66, '\x20')), ContainsSubstring("digits.bin"));
  CHECK_THAT(replace("concepts.tsv", "name\tclass\tcell\ndog\tmammal\n"),
             ContainsSubstring("concepts.tsv:2"));
  CHECK_THAT(replace("concepts.tsv", "name\tclass\tcell\ndog\tmammal\t-1\n"),
             ContainsSubstring("concepts.tsv"));
  CHECK_THAT(replace("concepts.tsv", "name\tclass\tcell\ndog\tmammal\t4000\n"),
             ContainsSubstring("outside its sheet"));
  CHECK_THAT(replace("twemoji.png", "not a picture"), ContainsSubstring("twemoji.png"));
  CHECK_THAT(replace("vqa_train.txt", "0=999999\n"), ContainsSubstring("vqa_train.txt"));
  std::filesystem::remove(folder.path() / "pack" / "words.tsv");
  CHECK_THAT(message(), ContainsSubstring("words.tsv"));
  CHECK_THROWS_AS(Pack(folder.path() / "nothing"), DataError);
}

TEST_CASE("the tokenizer of the base has every word of base and stream as one token") {
  const auto words = vocabulary(pack());
  std::ifstream listed(mini_folder() / "vocabulary.txt");
  std::vector<std::string> lines;
  for (std::string line; std::getline(listed, line);) lines.push_back(line);
  CHECK(lines == words);  // else: mcit make-data mini --vocabulary, then make_tokenizer.py, then a new base
  const Json tokenizer = read_json(mini_folder() / "base" / "tokenizer.json");
  const Json& tokens = tokenizer["model"]["vocab"];
  CHECK(tokens.size() == 4 + 256 + words.size());
  for (const std::string& word : words) {
    INFO(word);
    CHECK(tokens.contains("\u0120" + word));
  }
}
