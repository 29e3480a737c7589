#include "mini/stream.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <map>
#include <set>
#include <sstream>
#include <utility>

#include "core/random.hpp"
#include "mcit/errors.hpp"
#include "mini/canvas.hpp"
#include "mini/phrases.hpp"

namespace mcit::mini {
namespace {

using phrases::fill;

/// Draws the items of one split of one task.
class Maker {
 public:
  Maker(const Pack& pack, const MiniOptions& options, std::string_view task, bool test)
      : pack_(pack),
        options_(options),
        test_(test),
        rng_(derive(options.seed, {"mini", task, test ? "test" : "train"})) {}

  Split make(std::string_view task, int count);

 private:
  using Make = Item (Maker::*)();

  Item geo();
  Item count();
  Item cls();
  Item digits();
  Item ocr();
  Item ground();
  Item sci();
  Item cap();
  Split vqa(int count);

  const Difficulty& level() const { return options_.difficulty; }
  double jitter() const { return test_ ? level().test_jitter : level().train_jitter; }

  /// The next of a list in an order that goes round: every element equally often.
  std::size_t next(std::size_t size);
  std::string question(const phrases::Wordings& wordings) {
    return std::string(
        wordings[static_cast<std::size_t>(rng_.below(static_cast<std::uint64_t>(options_.wordings)))]);
  }
  void draw(const Thing& thing, Place where);
  void finish() { canvas_.finish(rng_, 0.3 * jitter()); }

  const Pack& pack_;
  const MiniOptions& options_;
  bool test_;
  Rng rng_;
  Canvas canvas_;
  std::vector<std::int64_t> round_;
  std::size_t turn_ = 0;
};

std::size_t Maker::next(std::size_t size) {
  if (turn_ >= round_.size()) {
    round_ = rng_.permutation(size);
    turn_ = 0;
  }
  return static_cast<std::size_t>(round_[turn_++]);
}

void Maker::draw(const Thing& thing, Place where) {
  const Vendor vendor = test_ && rng_.uniform() < level().test_noto ? Vendor::kNoto : Vendor::kTwemoji;
  where.angle = between(rng_, -0.25, 0.25) * static_cast<float>(jitter());
  canvas_.draw(thing.by(vendor), where, random_paint(rng_, jitter()), 1);
}

Item Maker::geo() {
  const Thing& flag = pack_.flags[next(pack_.flags.size())];
  canvas_.background(rng_);
  draw(flag, somewhere(rng_, 44, 62));
  return {0, question(phrases::kStreamGeo), flag.group, "geo"};
}

Item Maker::count() {
  const int number = 1 + static_cast<int>(next(static_cast<std::size_t>(level().count_most)));
  const Thing& thing = pick(rng_, pack_.concepts);
  canvas_.background(rng_);
  // Distinct cells of a 3 x 3 grid, so that no two overlap.
  const auto cells = rng_.permutation(9);
  for (int i = 0; i < number; ++i) {
    Place where;
    where.width = where.height = between(rng_, 15, 20);
    const auto cell = cells[static_cast<std::size_t>(i)];
    const auto middle = [&](std::int64_t index) {
      return 11 + 21 * static_cast<float>(index) + between(rng_, -1, 1) * (20.5F - where.width) / 2;
    };
    where.x = middle(cell % 3);
    where.y = middle(cell / 3);
    draw(thing, where);
  }
  return {0, question(phrases::kStreamCount), std::to_string(number), "count"};
}

Item Maker::cls() {
  const Thing& thing = pack_.concepts[next(pack_.concepts.size())];
  canvas_.background(rng_);
  draw(thing, somewhere(rng_, 34, 60));
  return {0, question(phrases::kStreamCls), thing.group, "cls"};
}

Item Maker::digits() {
  std::vector<const Digit*> mine;
  for (const Digit& digit : pack_.digits) {
    if (digit.test == test_) mine.push_back(&digit);
  }
  canvas_.background(rng_);
  const Color ink = contrasting(rng_, canvas_.average(), 90);
  std::string answer;
  const int number = level().digits;
  for (int i = 0; i < number; ++i) {
    const Digit& digit = *mine[next(mine.size())];
    Place where =
        number == 1 ? somewhere(rng_, 34, 58) : somewhere(rng_, 22, 64.0F / static_cast<float>(number));
    if (number > 1) where.x = 64.0F * (static_cast<float>(i) + 0.5F) / static_cast<float>(number);
    where.angle = between(rng_, -0.15, 0.15);
    canvas_.digit(digit, where, ink, between(rng_, 0.9, 1.2), 1);
    answer += (i ? " " : "") + std::to_string(digit.value);
  }
  return {0, question(phrases::kStreamDigits), answer, "digits"};
}

Item Maker::ocr() {
  std::vector<const std::string*> mine;
  for (const std::string& word : test_ ? pack_.test_words : pack_.train_words) {
    const int length = static_cast<int>(word.size());
    if (length >= level().ocr_shortest && length <= level().ocr_longest) mine.push_back(&word);
  }
  const std::string& word = *mine[next(mine.size())];
  std::vector<const Face*> faces;
  for (const Face& face : pack_.faces) {
    if (face.test == (test_ && level().ocr_test_faces)) faces.push_back(&face);
  }
  const Face& face = *pick(rng_, faces);
  std::string text = word;
  if (rng_.chance(0.5)) {
    for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  canvas_.background(rng_);
  float em = between(rng_, 18, 40);
  em = std::min(em, em * 58 / text_width(face, text, em));
  const float free = std::max(0.0F, (60 - text_width(face, text, em)) / 2);
  Place where;
  where.x = 32 + between(rng_, -free, free);
  where.y = 32 + between(rng_, -14, 14);
  canvas_.text(face, text, em, where, contrasting(rng_, canvas_.average(), 90),
               std::vector<int>(text.size(), 1));
  std::string answer;
  for (const char c : word) answer += (answer.empty() ? "" : " ") + std::string(1, c);
  return {0, question(phrases::kStreamOcr), answer, "ocr"};
}

Item Maker::ground() {
  canvas_.background(rng_);
  const auto asked = next(4);  // quadrant
  auto cells = rng_.permutation(4);
  std::iter_swap(cells.begin(), std::find(cells.begin(), cells.end(), static_cast<std::int64_t>(asked)));
  const auto things = rng_.permutation(pack_.concepts.size());
  for (std::size_t i = 0; i < static_cast<std::size_t>(level().ground_objects); ++i) {
    Place where;
    where.width = where.height = between(rng_, 24, 31);
    const float slack = (32 - where.width) / 2;
    where.x = 16 + 32 * static_cast<float>(cells[i] % 2) + between(rng_, -slack, slack);
    const auto row = cells[i] / 2;
    where.y = 16 + 32 * static_cast<float>(row) + between(rng_, -slack, slack);
    draw(pack_.concepts[static_cast<std::size_t>(things[i])], where);
  }
  const std::string& name = pack_.concepts[static_cast<std::size_t>(things[0])].name;
  return {0, fill(question(phrases::kStreamGround), {{"a", name}}), std::string(phrases::kQuadrants[asked]),
          "ground"};
}

Item Maker::sci() {
  const Thing& thing = pack_.concepts[next(pack_.concepts.size())];
  canvas_.background(rng_);
  draw(thing, somewhere(rng_, 34, 60));
  std::vector<std::string> options{thing.group};
  while (static_cast<int>(options.size()) < level().sci_options) {
    const std::string& other = pick(rng_, pack_.classes);
    if (std::find(options.begin(), options.end(), other) == options.end()) options.push_back(other);
  }
  rng_.shuffle(options);
  return {0, fill(question(phrases::kStreamSci), {{"list", phrases::join(options, " , ")}}), thing.group,
          "sci"};
}

Item Maker::cap() {
  const auto things = rng_.permutation(pack_.concepts.size());
  const auto way = next(4);  // index into kRelationsOf
  canvas_.background(rng_);
  for (std::size_t i = 0; i < 2; ++i) {
    const float along = 32 + ((i == 0) == (way % 2 == 0) ? -15.5F : 15.5F);
    const float across = 32 + between(rng_, -8, 8);
    Place where;
    where.width = where.height = between(rng_, 25, 31);
    where.x = way < 2 ? along : across;
    where.y = way < 2 ? across : along;
    draw(pack_.concepts[static_cast<std::size_t>(things[i])], where);
  }
  const auto& left = pack_.concepts[static_cast<std::size_t>(things[0])].name;
  const auto& right = pack_.concepts[static_cast<std::size_t>(things[1])].name;
  return {0, question(phrases::kStreamCap),
          left + " " + std::string(phrases::kRelationsOf[way]) + " " + right, "cap"};
}

/// Half of the questions are yes/no; the answers of a question text are equally frequent, as far as there are
/// items.
Split Maker::vqa(int count) {
  const auto& all = test_ ? pack_.vqa_test : pack_.vqa_train;
  std::array<std::map<std::string, std::map<std::string, std::vector<const VqaItem*>>>, 2>
      pools;  // question, answer
  for (const VqaItem& item : all) {
    const bool closed = item.answer == "yes" || item.answer == "no";
    pools[closed ? 0 : 1][item.question][item.answer].push_back(&item);
  }
  std::array<std::vector<std::string>, 2> questions;
  for (std::size_t i = 0; i < 2; ++i) {
    for (auto& [text, answers] : pools[i]) {
      questions[i].push_back(text);
      for (auto& [answer, items] : answers) rng_.shuffle(items);
    }
  }
  const auto pictures = pack_.vqa_pictures(test_);
  std::set<std::string> shapes;
  for (const std::string_view name : shape_names()) shapes.emplace(name);
  Split split;
  std::map<int, int> used;  // picture of the pack -> picture of the split
  std::map<std::string, std::size_t> turns;
  for (int i = 0; i < count; ++i) {
    const auto pool = static_cast<std::size_t>(i % 2);
    const std::string& text = pick(rng_, questions[pool]);
    auto& answers = pools[pool][text];
    auto& [answer, items] =
        *std::next(answers.begin(), static_cast<std::ptrdiff_t>(rng_.below(answers.size())));
    const VqaItem& item = *items[turns[text + "=" + answer]++ % items.size()];
    const auto [at, fresh] = used.emplace(item.picture, static_cast<int>(split.pictures.size()));
    if (fresh) split.pictures.push_back(pictures[static_cast<std::size_t>(item.picture)]);
    split.items.push_back({at->second, text, answer,
                           pool == 0                 ? "yes_no"
                           : shapes.contains(answer) ? "shape"
                                                     : "color"});
  }
  rng_.shuffle(split.items);
  return split;
}

Split Maker::make(std::string_view task, int count) {
  if (task == "vqa") return vqa(count);
  static const std::map<std::string_view, Make> makes{
      {"geo", &Maker::geo}, {"count", &Maker::count},   {"cls", &Maker::cls}, {"digits", &Maker::digits},
      {"ocr", &Maker::ocr}, {"ground", &Maker::ground}, {"sci", &Maker::sci}, {"cap", &Maker::cap}};
  const Make one = makes.at(task);
  Split split;
  for (int i = 0; i < count; ++i) {
    Item item = (this->*one)();
    item.picture = i;
    finish();
    split.pictures.push_back(canvas_.picture());
    split.items.push_back(std::move(item));
  }
  return split;
}

std::map<std::string, int> word_counts(const std::string& text) {
  std::map<std::string, int> counts;
  for (const std::string& word : phrases::words_of(text)) ++counts[word];
  return counts;
}

double token_f1(const std::string& guess, const std::string& gold) {
  const auto guessed = word_counts(guess);
  const auto right = word_counts(gold);
  int common = 0, all = 0;
  for (const auto& [word, n] : guessed) {
    all += n;
    if (const auto at = right.find(word); at != right.end()) common += std::min(n, at->second);
  }
  for (const auto& [word, n] : right) all += n;
  return all == 0 ? 0 : 2.0 * common / all;
}

using Counts = std::map<std::string, int>;

const std::string& most_frequent(const Counts& counts) {
  return std::max_element(counts.begin(), counts.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

/// Answers of `known` that the question's text offers, in order, each once.
std::vector<std::string> offered(const std::string& question, const Counts& known) {
  std::vector<std::string> list;
  for (std::string& word : phrases::words_of(question)) {
    if (known.contains(word) && std::find(list.begin(), list.end(), word) == list.end())
      list.push_back(std::move(word));
  }
  return list;
}

/// Share of `test` that guess(item) gets exactly.
template <class Guess>
double share(const std::vector<Item>& test, const Guess& guess) {
  const auto hits =
      std::count_if(test.begin(), test.end(), [&](const Item& item) { return guess(item) == item.answer; });
  return 100.0 * static_cast<double>(hits) / static_cast<double>(test.size());
}

}  // namespace

void check_options(const MiniOptions& options) {
  const auto range = [](std::string_view key, double value, double low, double high) {
    if (!(value >= low && value <= high)) {
      std::ostringstream what;
      what << "must lie in " << low << ".." << high << ", is " << value;
      throw ConfigError(key, what.str());
    }
  };
  const Difficulty& level = options.difficulty;
  range("train", options.train, 1, 1000000);
  range("test", options.test, 1, 1000000);
  range("wordings", options.wordings, 1, 5);
  range("train_jitter", level.train_jitter, 0, 1);
  range("test_jitter", level.test_jitter, 0, 1);
  range("test_noto", level.test_noto, 0, 1);
  range("count_most", level.count_most, 1, 6);
  range("digits", level.digits, 1, 3);
  range("ocr_longest", level.ocr_longest, 3, 5);
  range("ocr_shortest", level.ocr_shortest, 3, level.ocr_longest);
  range("ground_objects", level.ground_objects, 2, 4);
  range("sci_options", level.sci_options, 2, 6);
}

const std::vector<TaskKind>& task_kinds() {
  static const std::vector<TaskKind> kinds{
      {"vqa", "VQAv2", "exact", "shape, colour and yes/no questions about easy-VQA pictures"},
      {"geo", "VizWiz", "exact", "the continent of a flag"},
      {"count", "GQA", "exact", "how many equal objects there are"},
      {"cls", "ImageNet", "exact", "the category of an object"},
      {"digits", "TextVQA", "exact", "a handwritten digit"},
      {"ocr", "OCR-VQA", "ocr", "the letters of a printed word"},
      {"ground", "Grounding", "exact", "where an object is"},
      {"sci", "ScienceQA", "exact", "which of the offered groups an object belongs to"},
      {"cap", "Flickr30k", "token_f1", "two objects and how they lie"}};
  return kinds;
}

const TaskKind& task_kind(std::string_view name) {
  std::vector<std::string> names;
  for (const TaskKind& kind : task_kinds()) {
    if (kind.name == name) return kind;
    names.emplace_back(kind.name);
  }
  throw ConfigError("tasks", "the stream mini has no task '" + std::string(name) + "'",
                    suggestion(name, names));
}

TaskData make_task(const Pack& pack, const MiniOptions& options, std::string_view name) {
  check_options(options);
  const TaskKind& kind = task_kind(name);
  TaskData data;
  data.name = name;
  data.train = Maker(pack, options, name, false).make(name, options.train);
  data.test = Maker(pack, options, name, true).make(name, options.test);
  if (name != "ocr" && name != "cap" && !(name == "digits" && options.difficulty.digits > 1)) {
    std::set<std::string> answers;
    for (const Split* split : {&data.train, &data.test}) {
      for (const Item& item : split->items) answers.insert(item.answer);
    }
    data.answers.assign(answers.begin(), answers.end());
  }
  data.chance = question_only_chance(data.train.items, data.test.items, kind.scorer);
  return data;
}

double question_only_chance(const std::vector<Item>& train, const std::vector<Item>& test,
                            std::string_view scorer) {
  if (train.empty() || test.empty()) return 0;
  Counts all;
  std::map<std::string, Counts> by_text;
  for (const Item& item : train) ++all[item.answer], ++by_text[item.question][item.answer];
  const std::string& majority = most_frequent(all);

  if (scorer == "token_f1") {
    // Constants: the most frequent answer, and the 1-4 most frequent words.
    Counts words;
    for (const Item& item : train) {
      for (const std::string& word : phrases::words_of(item.answer)) ++words[word];
    }
    std::vector<std::string> guesses{majority};
    for (std::string guess; guesses.size() < 5 && !words.empty(); guesses.push_back(guess)) {
      const std::string word = most_frequent(words);
      guess += (guess.empty() ? "" : " ") + word;
      words.erase(word);
    }
    double best = 0;
    for (const std::string& guess : guesses) {
      double sum = 0;
      for (const Item& item : test) sum += token_f1(guess, item.answer);
      best = std::max(best, 100 * sum / static_cast<double>(test.size()));
    }
    return best;
  }

  double best = share(test, [&](const Item& item) {
    const auto at = by_text.find(item.question);
    return at == by_text.end() ? majority : most_frequent(at->second);
  });
  Counts times_offered;
  for (const Item& item : train) {
    for (const std::string& option : offered(item.question, all)) ++times_offered[option];
  }
  if (times_offered.empty()) return best;
  best = std::max(best, share(test, [&](const Item& item) {
                    std::string guess;
                    double rate = -1;
                    for (const std::string& option : offered(item.question, all)) {
                      const double here = static_cast<double>(all[option]) / times_offered[option];
                      if (here > rate) rate = here, guess = option;
                    }
                    return guess;
                  }));
  for (std::size_t position = 0; position < 6; ++position) {
    best = std::max(best, share(test, [&](const Item& item) {
                      const auto list = offered(item.question, all);
                      return position < list.size() ? list[position] : std::string();
                    }));
  }
  return best;
}

}  // namespace mcit::mini
