#include "mini/pretrain.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <map>
#include <set>

#include "mcit/errors.hpp"
#include "mini/phrases.hpp"
#include "mini_support.hpp"

using namespace mcit;
using namespace mcit::mini;
using mcit::mini::testing::pack;

namespace {

bool same(const Sample& a, const Sample& b) {
  const auto equal = [](const Question& x, const Question& y) {
    return x.text == y.text && x.answer == y.answer;
  };
  return std::equal(a.more.begin(), a.more.end(), b.more.begin(), b.more.end(), equal) &&
         a.pixels == b.pixels && a.question == b.question && a.answer == b.answer && a.caption == b.caption &&
         a.kind == b.kind && a.patches == b.patches;
}

MixtureOptions every_kind() {
  MixtureOptions options;
  options.weights.handwritten = 0.1;
  options.turns = 3;
  return options;
}

}  // namespace

TEST_CASE("the same seed gives the same samples") {
  const Mixture mixture(pack(), every_kind());
  Rng a(11), b(11), c(12);
  bool other = false;
  for (int i = 0; i < 50; ++i) {
    const Sample first = mixture.draw(a);
    CHECK(same(first, mixture.draw(b)));
    other = other || !same(first, mixture.draw(c));
  }
  CHECK(other);
}

TEST_CASE("the mixture never touches the test side") {
  const Pack spoiled = mcit::mini::testing::without_test_side();
  const Mixture mixture(pack(), every_kind()), without(spoiled, every_kind());
  Rng a(5), b(5);
  for (int i = 0; i < 600; ++i) REQUIRE(same(mixture.draw(a), without.draw(b)));

  std::set<std::string> tests;
  for (const std::string& word : pack().test_words) tests.insert(word);
  Rng rng(6);
  int words_seen = 0;
  for (int i = 0; i < 3000; ++i) {
    const Sample sample = mixture.draw(rng, "read");
    std::string text;
    for (const std::string& letter : phrases::words_of(sample.caption.substr(9)))
      text += letter;  // "the text d o g"
    REQUIRE_FALSE(tests.contains(text));
    words_seen += text.size() >= 3;
  }
  CHECK(words_seen > 1000);
}

TEST_CASE("every word is in the vocabulary, and no question is one of the stream's") {
  const Mixture mixture(pack(), every_kind());
  const std::set<std::string> known(mixture.vocabulary().begin(), mixture.vocabulary().end());
  std::set<std::string> stream;
  for (const VqaItem& item : pack().vqa_train) stream.insert(item.question);
  for (const VqaItem& item : pack().vqa_test) stream.insert(item.question);
  for (const auto& wordings : phrases::kStream) stream.insert(wordings.begin(), wordings.end());
  for (const std::string_view question : phrases::base_questions())
    CHECK_FALSE(stream.contains(std::string(question)));
  Rng rng(1);
  for (int i = 0; i < 3000; ++i) {
    const Sample sample = mixture.draw(rng);
    REQUIRE_FALSE(stream.contains(sample.question));
    std::vector<const std::string*> texts{&sample.question, &sample.answer, &sample.caption};
    for (const Question& turn : sample.more) {
      REQUIRE_FALSE(stream.contains(turn.text));
      texts.push_back(&turn.text), texts.push_back(&turn.answer);
    }
    for (const std::string* text : texts) {
      REQUIRE_FALSE(text->empty());
      REQUIRE(text->find('{') == std::string::npos);
      REQUIRE(text->find("  ") == std::string::npos);
      for (const std::string& word : phrases::words_of(*text)) {
        INFO(sample.kind << ": " << *text);
        REQUIRE(known.contains(word));
      }
    }
  }
}

TEST_CASE("no turn of a conversation gives the answer of another away") {
  const Mixture mixture(pack(), every_kind());
  const auto says = [](const std::string& text, const std::string& words) {
    return (" " + text + " ").find(" " + words + " ") != std::string::npos;
  };
  const auto is_place = [](const std::string& answer) {
    const auto first = phrases::words_of(answer).front();
    return first == "top" || first == "bottom" || first == "left" || first == "right";
  };
  std::map<std::size_t, int> lengths;
  Rng rng(8);
  for (int i = 0; i < 2000; ++i) {
    const Sample sample = mixture.draw(rng);
    std::vector<Question> turns{{sample.question, sample.answer}};
    turns.insert(turns.end(), sample.more.begin(), sample.more.end());
    REQUIRE(turns.size() <= 3);
    ++lengths[turns.size()];
    if (sample.kind != "scene" && sample.kind != "point") continue;
    // Word games (a colon and no choice of sides) are about no picture.
    const auto game = [&](const Question& turn) { return says(turn.text, ":") && !says(turn.text, "or"); };
    for (const Question& one : turns) {
      for (const Question& other : turns) {
        if (&one == &other || game(one) || game(other) || is_place(one.answer)) continue;
        INFO(one.text << " -> " << one.answer << "; " << other.text << " -> " << other.answer);
        REQUIRE_FALSE(says(other.text, one.answer));
        REQUIRE(other.answer != one.answer);
      }
    }
  }
  CHECK(lengths[1] > 200);
  CHECK(lengths[2] > 200);
  CHECK(lengths[3] > 100);
  CHECK(mixture.draw(rng, "scene").more.empty());
}

TEST_CASE("patch labels are words of the decoder") {
  CHECK(label_words("background") == std::pair<std::string, std::string>{});
  CHECK(label_words("dog") == std::pair<std::string, std::string>{"dog", "dog"});
  CHECK(label_words("flag fr") == std::pair<std::string, std::string>{"fr", "fr"});
  CHECK(label_words("glyph 7") == std::pair<std::string, std::string>{"7", "7"});
  CHECK(label_words("red circle") == std::pair<std::string, std::string>{"red", "circle"});
  const Mixture mixture(pack(), every_kind());
  const std::set<std::string> known(mixture.vocabulary().begin(), mixture.vocabulary().end());
  for (std::size_t i = 1; i < mixture.labels().size(); ++i) {
    INFO(mixture.labels()[i]);
    CHECK(known.contains(label_words(mixture.labels()[i]).first));
    CHECK(known.contains(label_words(mixture.labels()[i]).second));
  }
}

TEST_CASE("shares of the kinds follow their weights") {
  MixtureOptions options;
  options.weights = {.name = 3,
                     .scene = 0,
                     .point = 0,
                     .read = 0,
                     .shape = 1,
                     .corner = 0,
                     .yes_no = 0,
                     .choose = 0,
                     .flag = 0,
                     .relation = 0,
                     .copy = 0,
                     .handwritten = 0};
  const Mixture mixture(pack(), options);
  Rng rng(2);
  std::map<std::string, int> seen;
  for (int i = 0; i < 2000; ++i) ++seen[mixture.draw(rng).kind];
  CHECK(seen.size() == 2);
  CHECK(std::abs(seen["name"] - 1500) < 80);  // four standard deviations of a binomial(2000, 3/4): 77
}

TEST_CASE("patch labels are those of the answer") {
  const Mixture mixture(pack(), {});
  Rng rng(3);
  for (int i = 0; i < 300; ++i) {
    const Sample name = mixture.draw(rng, "name");
    REQUIRE(name.patches.size() == 64);
    for (const std::int16_t label : name.patches) {
      REQUIRE((label == 0 || mixture.labels()[static_cast<std::size_t>(label)] == name.answer));
    }
    REQUIRE(std::count(name.patches.begin(), name.patches.end(), 0) < 64);
    const Sample flag = mixture.draw(rng, "flag");
    for (const std::int16_t label : flag.patches) {
      REQUIRE((label == 0 || mixture.labels()[static_cast<std::size_t>(label)] == "flag " + flag.answer));
    }
    const Sample shape = mixture.draw(rng, "shape");
    for (const std::int16_t label : shape.patches) {
      if (label != 0)
        REQUIRE(mixture.labels()[static_cast<std::size_t>(label)].find(shape.answer) != std::string::npos);
    }
  }
}

TEST_CASE("what is said about places is so in the patches") {
  MixtureOptions options;
  options.grid = 2;
  const Mixture mixture(pack(), options);
  Rng rng(4);
  int right = 0, asked = 0;
  for (int i = 0; i < 400; ++i) {
    const Sample sample = mixture.draw(rng, "scene");
    for (std::size_t quadrant = 0; quadrant < 4; ++quadrant) {
      if (sample.question.find(phrases::kQuadrants[quadrant]) == std::string::npos) continue;
      ++asked;
      std::string label = mixture.labels()[static_cast<std::size_t>(sample.patches[quadrant])];
      if (label.starts_with("flag ")) label = label.substr(5);
      REQUIRE((label == sample.answer || label == "background"));
      right += label == sample.answer;
    }
  }
  CHECK(asked > 200);
  CHECK(right > asked * 6 / 10);  // small things cover less than a fifth of their quadrant and leave no label
}

TEST_CASE("yes and no are equally frequent") {
  const Mixture mixture(pack(), {});
  Rng rng(5);
  int yes = 0;
  for (int i = 0; i < 1000; ++i) yes += mixture.draw(rng, "yes_no").answer == "yes";
  CHECK(std::abs(yes - 500) < 64);  // four standard deviations
}

TEST_CASE("bad settings of the mixture are named") {
  MixtureOptions options;
  options.grid = 7;
  CHECK_THROWS_AS(Mixture(pack(), options), ConfigError);
  options = {};
  options.weights.read = -1;
  CHECK_THROWS_AS(Mixture(pack(), options), ConfigError);
  options.weights = {.name = 0,
                     .scene = 0,
                     .point = 0,
                     .read = 0,
                     .shape = 0,
                     .corner = 0,
                     .yes_no = 0,
                     .choose = 0,
                     .flag = 0,
                     .relation = 0,
                     .copy = 0,
                     .handwritten = 0};
  CHECK_THROWS_AS(Mixture(pack(), options), ConfigError);
  const Mixture mixture(pack(), {});
  Rng rng(1);
  CHECK_THROWS_AS(mixture.draw(rng, "nam"), ConfigError);
}
