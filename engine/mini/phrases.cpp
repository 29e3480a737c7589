#include "mini/phrases.hpp"

#include <sstream>

namespace mcit::mini::phrases {

std::string fill(std::string_view pattern,
                 std::initializer_list<std::pair<std::string_view, std::string_view>> values) {
  std::string text(pattern);
  for (const auto& [key, value] : values) {
    const std::string hole = "{" + std::string(key) + "}";
    for (auto at = text.find(hole); at != std::string::npos; at = text.find(hole, at + value.size())) {
      text.replace(at, hole.size(), value);
    }
  }
  return text;
}

std::string with_article(std::string_view noun) {
  const bool vowel = !noun.empty() && std::string_view("aeiou").find(noun.front()) != std::string_view::npos;
  return (vowel ? "an " : "a ") + std::string(noun);
}

std::string join(const std::vector<std::string>& words, std::string_view separator) {
  std::string text;
  for (const std::string& word : words) {
    if (!text.empty()) text += separator;
    text += word;
  }
  return text;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::istringstream stream{std::string(text)};
  for (std::string word; stream >> word;) {
    if (word.front() != '{') words.push_back(word);
  }
  return words;
}

std::vector<std::string_view> base_questions() {
  std::vector<std::string_view> all;
  const auto add = [&](const auto& list) { all.insert(all.end(), list.begin(), list.end()); };
  add(kName), add(kScene), add(kPoint), add(kSides), add(kRead), add(kNth), add(kScribble), add(kShape),
      add(kForm);
  add(kColor), add(kCorner), add(kYesNo), add(kYesNoPlace), add(kChoose), add(kFlag), add(kRelation),
      add(kCopy), add(kPick);
  return all;
}

std::vector<std::string> all_words() {
  std::vector<std::string> words{"a", "an", "yes", "no"};
  const auto add = [&](const auto& list) {
    for (const std::string_view text : list) {
      for (std::string& word : words_of(text)) words.push_back(std::move(word));
    }
  };
  add(base_questions()), add(kCaption), add(kRelationsOf), add(kNths), add(kQuadrants);
  for (const Wordings& wordings : kStream) add(wordings);
  add(std::initializer_list<std::string_view>{kCaptionTwo, kCaptionPlace, kCaptionFlag, kCaptionText,
                                              kCaptionWords, kCaptionNumber, kCaptionRelation});
  return words;
}

}  // namespace mcit::mini::phrases
