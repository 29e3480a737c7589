#include "mini/pretrain.hpp"

#include <algorithm>
#include <cctype>
#include <set>
#include <utility>

#include "mcit/errors.hpp"
#include "mini/phrases.hpp"

namespace mcit::mini {

namespace {

using phrases::fill;
using phrases::join;
using phrases::with_article;

constexpr std::string_view kCharacters = "abcdefghijklmnopqrstuvwxyz0123456789";

/// "dog" -> "d o g"
std::string spelled(std::string_view word) {
  std::string text;
  for (const char c : word) {
    if (!text.empty()) text += ' ';
    text += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return text;
}

}  // namespace

std::vector<std::string> vocabulary(const Pack& pack) {
  std::set<std::string> words;
  const auto add = [&](std::string_view text) {
    for (std::string& word : phrases::words_of(text)) words.insert(std::move(word));
  };
  for (const std::string& word : phrases::all_words()) words.insert(word);
  for (const Thing& thing : pack.concepts) add(thing.name);
  for (const Thing& flag : pack.flags) add(flag.name);
  for (const auto* list : {&pack.classes, &pack.continents}) {
    for (const std::string& name : *list) add(name);
  }
  for (const NamedColor& color : named_colors()) add(color.name);
  for (const std::string_view shape : shape_names()) add(shape);
  for (const auto* items : {&pack.vqa_train, &pack.vqa_test}) {
    for (const VqaItem& item : *items) add(item.question), add(item.answer);
  }
  for (const char c : kCharacters) words.insert(std::string(1, c));
  return {words.begin(), words.end()};
}

std::pair<std::string, std::string> label_words(const std::string& label) {
  if (label == "background") return {};
  std::vector<std::string> words = phrases::words_of(label);
  if (words.front() == "flag" || words.front() == "glyph") words.erase(words.begin());
  return {words.front(), words.back()};
}

/// One picture in the making: what was put where, and the text about it.
class Scene {
 public:
  Scene(const Mixture& mixture, Rng& rng) : m_(mixture), rng_(rng) {}

  void name();
  void scene();
  void point();
  void read();
  void shape();
  void corner();
  void yes_no();
  void choose();
  void flag();
  void relation();
  void copy();
  void handwritten();

  Sample finish(std::string_view kind, int turns) {
    canvas_.finish(rng_, m_.options_.jitter);
    rng_.shuffle(pending_);
    if (rng_.chance(0.4)) pending_.push_back(word_game());
    if (pending_.size() >= static_cast<std::size_t>(turns))
      pending_.resize(static_cast<std::size_t>(turns - 1));
    return {canvas_.pixels(),
            std::move(question_),
            std::move(answer_),
            std::move(pending_),
            std::move(caption_),
            std::string(kind),
            canvas_.patches(m_.options_.grid)};
  }

 private:
  /// Something that can be drawn and named.
  struct Item {
    std::string name;
    int concept_index = -1, flag_index = -1;  // one of them, or a shape:
    ShapeKind kind = ShapeKind::kCircle;
    std::size_t color = 0;
  };

  Item random_concept();
  Item random_shape();
  Item random_flag();
  Item random_item();  ///< a concept mostly
  std::vector<Item> distinct_items(std::size_t count);
  Place random_place(float smallest, float largest);
  void draw(const Item& item, Place place);
  void background(const Item* shape = nullptr);
  /// 2-4 items in quadrants or halves; fills items_ and places_.
  void arrange();
  Question ask_what(std::size_t item);   ///< what is at a place, of an arrangement
  Question ask_where(std::size_t item);  ///< where one is
  Question word_game();                  ///< repeat words, or one of them; needs no picture
  void ask(Question question) { question_ = std::move(question.text), answer_ = std::move(question.answer); }
  /// Leaves a question about each item for later turns, but about those that were spoken of.
  void leave_questions(std::initializer_list<std::size_t> spoken_of);
  std::string random_text(std::size_t length);
  /// Writes 1..max_letters characters on a fresh background.
  std::string write_text();

  const Mixture& m_;
  Rng& rng_;
  Canvas canvas_;
  std::string question_, answer_, caption_;
  std::vector<Item> items_;
  std::vector<std::string> places_;
  std::vector<Question> pending_;  ///< what else could be asked, no answer in another's text
};

Scene::Item Scene::random_concept() {
  const auto i = rng_.below(m_.pack_.concepts.size());
  return {.name = m_.pack_.concepts[i].name, .concept_index = static_cast<int>(i)};
}

Scene::Item Scene::random_flag() {
  const auto i = rng_.below(m_.pack_.flags.size());
  return {.name = m_.pack_.flags[i].name, .flag_index = static_cast<int>(i)};
}

Scene::Item Scene::random_shape() {
  const auto color = rng_.below(named_colors().size());
  const auto kind = rng_.below(shape_names().size());
  return {.name = std::string(named_colors()[color].name) + " " + std::string(shape_names()[kind]),
          .kind = static_cast<ShapeKind>(kind),
          .color = color};
}

Scene::Item Scene::random_item() {
  const double turn = rng_.uniform();
  return turn < 0.7 ? random_concept() : turn < 0.93 ? random_shape() : random_flag();
}

std::vector<Scene::Item> Scene::distinct_items(std::size_t count) {
  std::vector<Item> items;
  while (items.size() < count) {
    Item item = random_item();
    if (std::none_of(items.begin(), items.end(),
                     [&](const Item& other) { return other.name == item.name; })) {
      items.push_back(std::move(item));
    }
  }
  return items;
}

Place Scene::random_place(float smallest, float largest) {
  Place place;
  place.width = between(rng_, smallest, largest);
  place.height = place.width;
  const float free = std::max(0.0F, (kSide - place.width) / 2 + 1);
  place.x = 32 + between(rng_, -free, free);
  place.y = 32 + between(rng_, -free, free);
  return place;
}

void Scene::background(const Item* shape) {
  if (shape == nullptr) return canvas_.background(rng_);
  const Color color = named_colors()[shape->color].color;
  canvas_.background(rng_, &color, 110);
}

void Scene::draw(const Item& item, Place place) {
  const double jitter = m_.options_.jitter;
  const float stretch = 1 + between(rng_, -0.12, 0.12) * static_cast<float>(jitter);
  if (item.concept_index >= 0) {
    place.width *= stretch;
    place.angle = between(rng_, -0.32, 0.32) * static_cast<float>(jitter);
    place.mirror = rng_.chance(0.5);
    const Thing& thing = m_.pack_.concepts[static_cast<std::size_t>(item.concept_index)];
    canvas_.draw(thing.by(Vendor::kTwemoji), place, random_paint(rng_, jitter), 1 + item.concept_index);
  } else if (item.flag_index >= 0) {
    place.width *= stretch;
    place.angle = between(rng_, -0.12, 0.12) * static_cast<float>(jitter);
    if (rng_.chance(0.6 * jitter)) {
      place.wave = between(rng_, 0.02, 0.07);
      place.phase = between(rng_, 0, 6.28);
    }
    Paint paint = random_paint(rng_, 0.5 * jitter);
    const Thing& thing = m_.pack_.flags[static_cast<std::size_t>(item.flag_index)];
    canvas_.draw(thing.by(Vendor::kTwemoji), place, paint, m_.first_flag_ + item.flag_index);
  } else {
    if (item.kind == ShapeKind::kRectangle)
      (rng_.chance(0.5) ? place.width : place.height) *= between(rng_, 0.35, 0.65);
    if (rng_.chance(0.5)) place.angle = between(rng_, -0.25, 0.25) * static_cast<float>(jitter);
    Color color = named_colors()[item.color].color;
    const auto shift = [&](float v) {
      return std::clamp(v + between(rng_, -22, 22) * static_cast<float>(jitter), 0.0F, 255.0F);
    };
    color = {shift(color.r), shift(color.g), shift(color.b)};
    const int label = m_.first_shape_ +
                      static_cast<int>(item.kind) * static_cast<int>(named_colors().size()) +
                      static_cast<int>(item.color);
    canvas_.shape(item.kind, place, color, label);
  }
}

void Scene::name() {
  const Item item = random_concept();
  background();
  draw(item, random_place(22, 60));
  question_ = pick(rng_, phrases::kName);
  answer_ = item.name;
  caption_ = fill(pick(rng_, phrases::kCaption), {{"a", with_article(item.name)}});
}

void Scene::flag() {
  const Item item = random_flag();
  background();
  draw(item, random_place(34, 64));
  question_ = pick(rng_, phrases::kFlag);
  answer_ = item.name;
  caption_ = fill(phrases::kCaptionFlag, {{"a", item.name}});
}

void Scene::arrange() {
  // Half of them two halves, whose place is one word: the first step towards four quarters.
  const bool halves = rng_.chance(0.5);
  const std::size_t count = halves ? 2 : 2 + rng_.below(3);
  items_ = distinct_items(count);
  background();
  const bool upright = rng_.chance(0.5);  // one above the other
  std::vector<std::int64_t> cells = rng_.permutation(halves ? 2 : 4);
  for (std::size_t i = 0; i < count; ++i) {
    const int cell = static_cast<int>(cells[i]);
    Place place;
    place.width = place.height = halves ? between(rng_, 22, 32) : between(rng_, 18, 30);
    const float slack = std::max(0.0F, (32 - place.width) / 2);
    const int column = halves ? (upright ? -1 : cell) : cell % 2;
    const int row = halves ? (upright ? cell : -1) : cell / 2;
    place.x = column < 0 ? 32 + between(rng_, -14, 14)
                         : 16 + 32 * static_cast<float>(column) + between(rng_, -slack, slack);
    place.y = row < 0 ? 32 + between(rng_, -14, 14)
                      : 16 + 32 * static_cast<float>(row) + between(rng_, -slack, slack);
    draw(items_[i], place);
    if (!halves) places_.emplace_back(phrases::kQuadrants[static_cast<std::size_t>(cell)]);
    if (halves) places_.emplace_back(upright ? (cell ? "bottom" : "top") : (cell ? "right" : "left"));
  }
  caption_ =
      fill(phrases::kCaptionTwo, {{"a", with_article(items_[0].name)}, {"b", with_article(items_[1].name)}});
}

Question Scene::ask_what(std::size_t item) {
  return {fill(pick(rng_, phrases::kScene), {{"place", places_[item]}}), items_[item].name};
}

Question Scene::ask_where(std::size_t item) {
  const std::string& place = places_[item];
  const auto space = place.find(' ');
  if (rng_.chance(0.7)) return {fill(pick(rng_, phrases::kPoint), {{"a", items_[item].name}}), place};
  if (space == std::string::npos) return {fill(phrases::kSides[2], {{"a", items_[item].name}}), place};
  const bool side = rng_.chance(0.5);
  return {fill(phrases::kSides[side ? 0 : 1], {{"a", items_[item].name}}),
          side ? place.substr(space + 1) : place.substr(0, space)};
}

void Scene::leave_questions(std::initializer_list<std::size_t> spoken_of) {
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (std::find(spoken_of.begin(), spoken_of.end(), i) == spoken_of.end())
      pending_.push_back(rng_.chance(0.6) ? ask_what(i) : ask_where(i));
  }
}

void Scene::scene() {
  arrange();
  const auto i = static_cast<std::size_t>(rng_.below(items_.size()));
  ask(ask_what(i));
  leave_questions({i});
}

void Scene::point() {
  arrange();
  const auto i = static_cast<std::size_t>(rng_.below(items_.size()));
  ask(ask_where(i));
  leave_questions({i});
}

void Scene::relation() {
  items_ = distinct_items(2);
  background();
  const auto way = rng_.below(4);  // index into kRelations: where items_[0] is from items_[1]
  const float gap = between(rng_, 14, 17);
  for (std::size_t i = 0; i < 2; ++i) {
    const float sign = (i == 0) == (way % 2 == 0) ? -1.0F : 1.0F;
    Place place;
    place.width = place.height = between(rng_, 20, 31);
    const float along = 32 + sign * gap;
    const float across = 32 + between(rng_, -10, 10);
    place.x = way < 2 ? along : across;
    place.y = way < 2 ? across : along;
    draw(items_[i], place);
  }
  question_ = fill(pick(rng_, phrases::kRelation), {{"a", items_[0].name}, {"b", items_[1].name}});
  answer_ = phrases::kRelations[way];
  caption_ = fill(phrases::kCaptionRelation, {{"a", with_article(items_[0].name)},
                                              {"relation", phrases::kRelationsOf[way]},
                                              {"b", with_article(items_[1].name)}});
}

std::string Scene::random_text(std::size_t length) {
  const auto& tests = m_.pack_.test_words;
  for (;;) {
    std::string text;
    if (length >= 3 && rng_.chance(0.35)) {
      text = pick(rng_, m_.pack_.train_words);
      if (text.size() > static_cast<std::size_t>(m_.options_.max_letters)) continue;
    } else {
      const bool numbers = rng_.chance(0.2);
      for (std::size_t i = 0; i < length; ++i) {
        text += numbers ? kCharacters[26 + rng_.below(10)] : kCharacters[rng_.below(26)];
      }
    }
    if (std::find(tests.begin(), tests.end(), text) == tests.end()) return text;
  }
}

std::string Scene::write_text() {
  std::string text = random_text(1 + rng_.below(static_cast<std::uint64_t>(m_.options_.max_letters)));
  if (rng_.chance(0.5)) {
    for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  background();
  const Face& face = *pick(rng_, m_.faces_);
  float em = between(rng_, 16, 46);
  em = std::min(em, em * 60 / text_width(face, text, em));
  const float width = text_width(face, text, em);
  Place place;
  place.angle = between(rng_, -0.14, 0.14) * static_cast<float>(m_.options_.jitter);
  const float free_x = std::max(0.0F, (61 - width) / 2);
  const float free_y = std::max(0.0F, (58 - em) / 2);
  place.x = 32 + between(rng_, -free_x, free_x);
  place.y = 32 + between(rng_, -free_y, free_y);
  std::vector<int> labels;
  for (const char c : text) {
    const auto lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    labels.push_back(m_.first_glyph_ + static_cast<int>(kCharacters.find(lower)));
  }
  canvas_.text(face, text, em, place, contrasting(rng_, canvas_.average(), 80), labels);
  return text;
}

void Scene::read() {
  const std::string text = write_text();
  const std::string letters = spelled(text);
  caption_ = fill(phrases::kCaptionText, {{"a", letters}});
  if (text.size() > 1 && rng_.chance(0.35)) {
    for (std::size_t n = 0; n < text.size() && n < 4; ++n) {
      const bool last = n == text.size() - 1;
      if (n == 3 && !last) break;
      pending_.push_back({fill(pick(rng_, phrases::kNth), {{"nth", phrases::kNths[last ? 3 : n]}}),
                          letters.substr(2 * n, 1)});
    }
    rng_.shuffle(pending_);
    ask(pending_.back());
    pending_.pop_back();
  } else {
    question_ = pick(rng_, phrases::kRead);
    answer_ = letters;
  }
}

void Scene::handwritten() {
  const Digit& digit = *pick(rng_, m_.digits_);
  background();
  Place place = random_place(26, 56);
  place.angle = between(rng_, -0.2, 0.2);
  const Color color = contrasting(rng_, canvas_.average(), 80);
  canvas_.digit(digit, place, color, between(rng_, 0.8, 1.3), m_.first_glyph_ + 26 + digit.value);
  question_ = pick(rng_, phrases::kScribble);
  answer_ = std::to_string(digit.value);
  caption_ = fill(phrases::kCaptionNumber, {{"a", answer_}});
}

void Scene::shape() {
  const Item item = random_shape();
  background(&item);
  draw(item, random_place(9, 56));
  const auto space = item.name.find(' ');
  const double turn = rng_.uniform();
  if (turn < 0.6) {
    question_ = pick(rng_, phrases::kShape);
    answer_ = item.name;
  } else if (turn < 0.82) {
    question_ = pick(rng_, phrases::kForm);
    answer_ = item.name.substr(space + 1);
  } else {
    question_ = pick(rng_, phrases::kColor);
    answer_ = item.name.substr(0, space);
  }
  caption_ = fill(pick(rng_, phrases::kCaption), {{"a", with_article(item.name)}});
}

void Scene::corner() {
  const Item item = rng_.chance(0.6) ? random_shape() : random_concept();
  background(item.concept_index < 0 ? &item : nullptr);
  const auto quadrant = rng_.below(4);
  Place place;
  place.width = place.height = between(rng_, 10, 28);
  const float low = place.width / 2;
  const float high = 29 - place.width / 4;  // the centre stays clearly on its side
  place.x = quadrant % 2 ? kSide - between(rng_, low, high) : between(rng_, low, high);
  place.y = quadrant / 2 ? kSide - between(rng_, low, high) : between(rng_, low, high);
  draw(item, place);
  const auto space = item.name.find(' ');
  const std::string what =
      item.concept_index < 0 && rng_.chance(0.4) ? item.name.substr(space + 1) : item.name;
  question_ = fill(pick(rng_, phrases::kCorner), {{"a", what}});
  answer_ = phrases::kQuadrants[quadrant];
  caption_ = fill(phrases::kCaptionPlace, {{"a", with_article(item.name)}, {"place", answer_}});
}

void Scene::yes_no() {
  const bool yes = rng_.chance(0.5);
  answer_ = yes ? "yes" : "no";
  if (rng_.chance(0.3)) {
    arrange();
    const auto i = static_cast<std::size_t>(rng_.below(items_.size()));
    const auto other = (i + 1 + static_cast<std::size_t>(rng_.below(items_.size() - 1))) % items_.size();
    question_ =
        fill(pick(rng_, phrases::kYesNoPlace), {{"a", items_[i].name}, {"place", places_[yes ? i : other]}});
    leave_questions({i, other});
    return;
  }
  Item item = rng_.chance(0.5) ? random_shape() : random_concept();
  const bool concept_item = item.concept_index >= 0;
  background(concept_item ? nullptr : &item);
  draw(item, concept_item ? random_place(22, 56) : random_place(10, 50));
  caption_ = fill(pick(rng_, phrases::kCaption), {{"a", with_article(item.name)}});
  std::string asked = item.name;
  // A shape is often asked for by its form or its color alone.
  const auto part = [form = rng_.uniform()](const std::string& name) {
    const auto space = name.find(' ');
    return form < 0.4 ? name.substr(space + 1) : form < 0.6 ? name.substr(0, space) + " form" : name;
  };
  if (!concept_item) asked = part(asked);
  if (!yes) {
    const std::string shown = asked;
    while (asked == shown) asked = concept_item ? random_concept().name : part(random_shape().name);
  }
  question_ = fill(pick(rng_, phrases::kYesNo), {{"a", asked}});
}

void Scene::choose() {
  const double turn = rng_.uniform();
  const auto fresh = [&] {
    return turn < 0.6 ? random_concept() : turn < 0.85 ? random_shape() : random_flag();
  };
  const Item item = fresh();
  background(turn >= 0.6 && turn < 0.85 ? &item : nullptr);
  draw(item, random_place(turn < 0.6 ? 24 : 34, 58));
  std::vector<std::string> options{item.name};
  const std::size_t count = 2 + rng_.below(3);
  while (options.size() < count) {
    const std::string name = fresh().name;
    if (std::find(options.begin(), options.end(), name) == options.end()) options.push_back(name);
  }
  rng_.shuffle(options);
  question_ = fill(pick(rng_, phrases::kChoose), {{"list", join(options, " , ")}});
  answer_ = item.name;
  caption_ = item.flag_index >= 0 ? fill(phrases::kCaptionFlag, {{"a", item.name}})
                                  : fill(pick(rng_, phrases::kCaption), {{"a", with_article(item.name)}});
}

void Scene::copy() {
  const Item item = random_concept();  // the picture is there, and beside the point
  background();
  draw(item, random_place(22, 60));
  caption_ = fill(pick(rng_, phrases::kCaption), {{"a", with_article(item.name)}});
  ask(word_game());
}

Question Scene::word_game() {
  std::vector<std::string> words(1 + rng_.below(4));
  for (std::string& word : words) word = pick(rng_, m_.vocabulary_);
  if (words.size() > 1 && rng_.chance(0.3)) {
    const auto n = static_cast<std::size_t>(rng_.below(std::min<std::size_t>(words.size(), 3)));
    const bool last = n == words.size() - 1;
    return {
        fill(pick(rng_, phrases::kPick), {{"nth", phrases::kNths[last ? 3 : n]}, {"list", join(words, " ")}}),
        words[n]};
  }
  return {fill(pick(rng_, phrases::kCopy), {{"list", join(words, " ")}}), join(words, " ")};
}

namespace {

struct Kind {
  std::string name;
  double MixtureWeights::*weight;
  void (Scene::*make)();
};

const std::vector<Kind>& kind_table() {
  using W = MixtureWeights;
  static const std::vector<Kind> table{
      {"name", &W::name, &Scene::name},       {"scene", &W::scene, &Scene::scene},
      {"point", &W::point, &Scene::point},    {"read", &W::read, &Scene::read},
      {"shape", &W::shape, &Scene::shape},    {"corner", &W::corner, &Scene::corner},
      {"yes_no", &W::yes_no, &Scene::yes_no}, {"choose", &W::choose, &Scene::choose},
      {"flag", &W::flag, &Scene::flag},       {"relation", &W::relation, &Scene::relation},
      {"copy", &W::copy, &Scene::copy},       {"handwritten", &W::handwritten, &Scene::handwritten}};
  return table;
}

Sample make(const Mixture& mixture, Rng& rng, const Kind& kind, int turns) {
  Scene scene(mixture, rng);
  (scene.*kind.make)();
  return scene.finish(kind.name, turns);
}

}  // namespace

Mixture::Mixture(const Pack& pack, const MixtureOptions& options) : pack_(pack), options_(options) {
  double sum = 0;
  for (const Kind& kind : kind_table()) {
    const double weight = options.weights.*kind.weight;
    if (!(weight >= 0)) throw ConfigError("weights." + kind.name, "a weight must not be negative");
    cumulative_.push_back(sum += weight);
  }
  if (!(sum > 0)) throw ConfigError("weights", "every weight of the mixture is zero");
  if (options.grid < 1 || kSide % options.grid != 0) throw ConfigError("grid", "must divide 64");
  if (!(options.jitter >= 0 && options.jitter <= 1)) throw ConfigError("jitter", "must lie in 0..1");
  if (options.max_letters < 1 || options.max_letters > 6)
    throw ConfigError("max_letters", "must lie in 1..6");
  if (options.turns < 1 || options.turns > 6) throw ConfigError("turns", "must lie in 1..6");

  for (const Face& face : pack.faces) {
    if (!face.test) faces_.push_back(&face);
  }
  for (const Digit& digit : pack.digits) {
    if (!digit.test) digits_.push_back(&digit);
  }
  labels_.emplace_back("background");
  for (const Thing& thing : pack.concepts) labels_.push_back(thing.name);
  first_flag_ = static_cast<int>(labels_.size());
  for (const Thing& flag : pack.flags) labels_.push_back("flag " + flag.name);
  first_glyph_ = static_cast<int>(labels_.size());
  for (const char c : kCharacters) labels_.push_back(std::string("glyph ") + c);
  first_shape_ = static_cast<int>(labels_.size());
  for (const std::string_view shape : shape_names()) {
    for (const NamedColor& color : named_colors())
      labels_.push_back(std::string(color.name) + " " + std::string(shape));
  }
  vocabulary_ = mini::vocabulary(pack);
}

Sample Mixture::draw(Rng& rng) const {
  const double turn = rng.uniform() * cumulative_.back();
  const auto at = std::upper_bound(cumulative_.begin(), cumulative_.end(), turn);
  const auto index = std::min(static_cast<std::size_t>(at - cumulative_.begin()), cumulative_.size() - 1);
  return make(*this, rng, kind_table()[index], options_.turns);
}

Sample Mixture::draw(Rng& rng, std::string_view kind) const {
  for (const Kind& known : kind_table()) {
    if (known.name == kind) return make(*this, rng, known, 1);
  }
  throw ConfigError("kind", "the mixture has no '" + std::string(kind) + "'", suggestion(kind, kinds()));
}

const std::vector<std::string>& Mixture::kinds() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const Kind& kind : kind_table()) list.push_back(kind.name);
    return list;
  }();
  return names;
}

}  // namespace mcit::mini
