#include "score/vqa_answer.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <vector>

#include "score/text.hpp"

namespace mcit {
namespace {

using Points = std::u32string;
using View = std::u32string_view;

constexpr char32_t kApostrophe = U'\'';
constexpr View kPunctuation = UR"(;/[]"{}()=+\_-><@`,?!)";
constexpr int kMaxPeriods = 32;  // re.UNICODE, which the original hands to re.sub as its count

/// Contractions whose key is the word without its apostrophe.
constexpr auto kSingle = std::to_array<View>(
    {U"ain't",       U"aren't",       U"can't",      U"could've",  U"couldn't",   U"didn't",
     U"doesn't",     U"don't",        U"hadn't",     U"hasn't",    U"haven't",    U"he'd",
     U"he's",        U"how'd",        U"how'll",     U"how's",     U"isn't",      U"it'd",
     U"it'll",       U"ma'am",        U"mightn't",   U"might've",  U"mustn't",    U"must've",
     U"needn't",     U"not've",       U"o'clock",    U"oughtn't",  U"shan't",     U"should've",
     U"shouldn't",   U"somebody'll",  U"somebody's", U"someone'd", U"someone'll", U"someone's",
     U"something'd", U"something'll", U"that's",     U"there'd",   U"there're",   U"there's",
     U"they'd",      U"they'll",      U"they're",    U"they've",   U"'twas",      U"wasn't",
     U"we've",       U"weren't",      U"what'll",    U"what're",   U"what's",     U"what've",
     U"when's",      U"where'd",      U"where's",    U"where've",  U"who'd",      U"who'll",
     U"who's",       U"who've",       U"why'll",     U"why're",    U"why's",      U"won't",
     U"would've",    U"wouldn't",     U"y'all",      U"you'd",     U"you'll",     U"you're",
     U"you've"});

/// Contractions whose keys are the word with exactly one of its apostrophes missing.
constexpr auto kMultiple = std::to_array<View>(
    {U"he'd've", U"it'd've", U"she'd've", U"somebody'd've", U"someone'd've", U"something'd've", U"there'd've",
     U"they'd've", U"we'd've", U"who'd've", U"you'd've", U"couldn't've", U"hadn't've", U"mightn't've",
     U"shouldn't've", U"wouldn't've", U"y'all'll", U"y'all'd've", U"'ow's'at"});

const std::map<Points, Points, std::less<>>& contractions() {
  static const auto table = [] {
    // The original's slip; its keys with a capital I never match, because the text is lower case by then.
    std::map<Points, Points, std::less<>> result{{U"somebody'd", U"somebodyd"}};
    const auto add_without = [&](View word, std::size_t position) {
      Points key(word);
      key.erase(position, 1);
      result.emplace(std::move(key), word);
    };
    for (const View word : kSingle) add_without(word, word.find(kApostrophe));
    for (const View word : kMultiple) {
      for (auto at = word.find(kApostrophe); at != View::npos; at = word.find(kApostrophe, at + 1)) {
        add_without(word, at);
      }
    }
    return result;
  }();
  return table;
}

const std::map<Points, Points, std::less<>>& digits() {
  static const std::map<Points, Points, std::less<>> table{
      {U"none", U"0"},  {U"zero", U"0"},  {U"one", U"1"},  {U"two", U"2"},
      {U"three", U"3"}, {U"four", U"4"},  {U"five", U"5"}, {U"six", U"6"},
      {U"seven", U"7"}, {U"eight", U"8"}, {U"nine", U"9"}, {U"ten", U"10"}};
  return table;
}

Points prepare(View answer) {
  Points text = text::lower(answer);
  std::erase_if(text, [](char32_t point) { return point == U',' || point == U'?'; });
  constexpr View kGenitive = U"'s";
  for (auto at = text.find(kGenitive); at != Points::npos; at = text.find(kGenitive, at + 3))
    text.insert(at, 1, U' ');
  text = text::trim(text);
  std::replace_if(
      text.begin(), text.end(), [](char32_t point) { return point == U'\n' || point == U'\t'; }, U' ');
  return Points(text::trim(text));
}

/// Drops a mark that touches a space somewhere in the answer, and puts a space in its place otherwise.
Points strip_punctuation(const Points& text) {
  Points result = text;
  for (const char32_t mark : kPunctuation) {
    const bool drop =
        text.find(Points{mark, U' '}) != Points::npos || text.find(Points{U' ', mark}) != Points::npos;
    if (drop) {
      std::erase(result, mark);
    } else {
      std::replace(result.begin(), result.end(), mark, U' ');
    }
  }
  return result;
}

Points strip_periods(const Points& text) {
  Points result;
  int dropped = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool before_digit = i + 1 < text.size() && text[i + 1] >= U'0' && text[i + 1] <= U'9';
    if (text[i] == U'.' && !before_digit && dropped < kMaxPeriods) {
      ++dropped;
    } else {
      result.push_back(text[i]);
    }
  }
  return result;
}

}  // namespace

std::u32string normalise_vqa_answer(std::u32string_view answer) {
  Points result;
  for (Points& word : text::split(strip_periods(strip_punctuation(prepare(answer))))) {
    if (const auto digit = digits().find(word); digit != digits().end()) word = digit->second;
    if (word == U"a" || word == U"an" || word == U"the") continue;
    if (const auto whole = contractions().find(word); whole != contractions().end()) word = whole->second;
    if (!result.empty()) result.push_back(U' ');
    result += word;
  }
  return result;
}

}  // namespace mcit
