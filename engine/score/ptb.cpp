#include "score/ptb.hpp"

#include <algorithm>
#include <array>
#include <map>

#include "score/rules.hpp"
#include "score/text.hpp"

namespace mcit {
namespace {

using rules::Points;
using rules::View;

constexpr char32_t kApostrophe = U'\'';

/// Words that keep a full stop; a capital counts where one stands.
constexpr auto kAbbreviations = std::to_array<View>(
    {U"Mr",    U"Mrs", U"Ms",   U"Dr",   U"Drs",  U"Prof", U"Gen", U"Sen", U"Rep",  U"Lt",   U"Col",
     U"Capt",  U"Sgt", U"Gov",  U"Hon",  U"Rev",  U"Jr",   U"Sr",  U"St",  U"Ste",  U"Mt",   U"Ft",
     U"Inc",   U"Co",  U"Corp", U"Ltd",  U"Bros", U"Jan",  U"Feb", U"Mar", U"Apr",  U"Jun",  U"Jul",
     U"Aug",   U"Sep", U"Sept", U"Oct",  U"Nov",  U"Dec",  U"Mon", U"Tue", U"Tues", U"Wed",  U"Thu",
     U"Thurs", U"Fri", U"Ave",  U"Blvd", U"Rd",   U"etc",  U"vs",  U"al",  U"dept", U"Dept", U"est",
     U"mr",    U"mrs", U"ms",   U"dr",   U"jr",   U"sr",   U"inc", U"ltd", U"corp", U"Fig",  U"fig"});

/// Endings that part from their word, without the apostrophe.
constexpr auto kClitics = std::to_array<View>({U"s", U"m", U"d", U"re", U"ve", U"ll"});

/// One word that reads as two.
const std::map<Points, std::pair<Points, Points>, std::less<>>& joined_words() {
  static const std::map<Points, std::pair<Points, Points>, std::less<>> table{
      {U"cannot", {U"can", U"not"}}, {U"gonna", {U"gon", U"na"}}, {U"gotta", {U"got", U"ta"}},
      {U"lemme", {U"lem", U"me"}},   {U"gimme", {U"gim", U"me"}}, {U"wanna", {U"wan", U"na"}}};
  return table;
}

/// Single marks that become a word or vanish (an empty one).
const std::map<char32_t, Points>& marks() {
  static const std::map<char32_t, Points> table{
      {U'(', U"-lrb-"},    {U')', U"-rrb-"},    {U'[', U"-lsb-"},
      {U']', U"-rsb-"},    {U'{', U"-lcb-"},    {U'}', U"-rcb-"},
      {U'\u20AC', U"$"},   {U'\u00A3', U"#"},   {U'\u00A2', U"cents"},
      {U'\u00BD', U"1/2"}, {U'\u00BC', U"1/4"}, {U'\u00BE', U"3/4"},
      {U'"', {}},          {U'`', {}},          {kApostrophe, {}},
      {U'\u201C', {}},     {U'\u201D', {}},     {U'\u2018', {}},
      {U'\u2013', {}},     {U'\u2014', {}},     {U'\u2026', {}},
      {U'.', {}},          {U',', {}},          {U':', {}},
      {U';', {}},          {U'-', {}},          {U'?', {}},
      {U'!', {}}};
  return table;
}

bool is_digit(char32_t point) { return point >= U'0' && point <= U'9'; }

/// Letters and digits of any script that has words.
bool is_letter(char32_t point) {
  if (point < 0x80) return (point >= U'a' && point <= U'z') || (point >= U'A' && point <= U'Z');
  return (point >= 0xC0 && point != 0xD7 && point != 0xF7 && point < 0x2000) || point == 0xAA ||
         point == 0xBA || (point >= 0x2E80 && point < 0x10000);
}

bool is_alphanumeric(char32_t point) { return is_letter(point) || is_digit(point); }

class Cutter {
 public:
  explicit Cutter(std::string_view caption) {
    for (const char32_t point : text::decode(caption)) {
      if (point == 0xAD || point >= 0x10000) continue;  // soft hyphens, and what the original cannot cut
      points_.push_back(point == 0x2019 ? kApostrophe : point == 0x200B ? U' ' : point);
    }
  }

  std::vector<std::string> tokens() {
    while (at_ < points_.size()) {
      if (text::is_space(points_[at_])) {
        ++at_;
      } else if (!url() && !decade() && !number() && !word()) {
        mark();
      }
    }
    return std::move(tokens_);
  }

 private:
  char32_t point(std::size_t at) const { return at < points_.size() ? points_[at] : U' '; }
  void put(View token) {
    if (!token.empty()) tokens_.push_back(text::encode(text::lower(token)));
  }
  View piece(std::size_t begin, std::size_t end) const { return View(points_).substr(begin, end - begin); }

  bool url() {
    const View rest = View(points_).substr(at_);
    if (!rest.starts_with(U"http://") && !rest.starts_with(U"https://") && !rest.starts_with(U"www."))
      return false;
    const auto end = std::find_if(rest.begin(), rest.end(), text::is_space);
    const auto length = static_cast<std::size_t>(end - rest.begin());
    put(rest.substr(0, length));
    at_ += length;
    return true;
  }

  /// "'90s"
  bool decade() {
    const bool found = point(at_) == kApostrophe && is_digit(point(at_ + 1)) && point(at_ + 2) == U'0' &&
                       point(at_ + 3) == U's' && !is_alphanumeric(point(at_ + 4));
    if (!found) return false;
    put(piece(at_, at_ + 4));
    at_ += 4;
    return true;
  }

  /// Digits with signs between them; letters behind them belong to it ("1st", "20x30").
  bool number() {
    std::size_t end = at_;
    const bool starts = at_ == 0 || text::is_space(points_[at_ - 1]);
    if (starts && (point(end) == U'-' || point(end) == U'+') && (is_digit(point(end + 1)))) ++end;
    if (point(end) == U'.' && is_digit(point(end + 1)) && starts) ++end;
    if (!is_digit(point(end))) return false;
    constexpr View kInside = U".,:/-";
    while (is_alphanumeric(point(end)) ||
           (kInside.find(point(end)) != View::npos && is_digit(point(end + 1))) ||
           (point(end) == U'-' && is_letter(point(end + 1))))
      ++end;
    put(piece(at_, end));
    at_ = end;
    return true;
  }

  bool word() {
    if (!is_alphanumeric(point(at_)) && point(at_) != U'_') return false;
    if (acronym()) return true;
    std::size_t end = at_;
    const auto inside = [&](std::size_t at) {
      const char32_t c = point(at);
      if (is_alphanumeric(c) || c == U'_') return true;
      const bool joins = c == U'-' || c == U'/' || c == U'@' || (c == U'&' && is_letter(point(at - 1)));
      return joins && is_alphanumeric(point(at + 1));
    };
    while (inside(end) || apostrophe_inside(end)) ++end;
    View whole = piece(at_, end);
    at_ = end;
    if (const auto two = joined_words().find(text::lower(whole)); two != joined_words().end()) {
      put(two->second.first);
      put(two->second.second);
      return true;
    }
    if (clitic(whole)) return true;
    if (point(at_) == U'.' && keeps_stop(whole)) {
      ++at_;
      whole = piece(at_ - whole.size() - 1, at_);
    }
    put(whole);
    return true;
  }

  /// "U.S.", "e.g.", "a."
  bool acronym() {
    std::size_t end = at_;
    while (is_letter(point(end)) && point(end + 1) == U'.' && (end == at_ || point(end - 1) == U'.'))
      end += 2;
    if (end == at_ || is_alphanumeric(point(end))) return false;
    put(piece(at_, end));
    at_ = end;
    return true;
  }

  /// "o'clock", "ma'am", "O'Brien": vowels on both sides, or one letter before it.
  bool apostrophe_inside(std::size_t at) const {
    if (point(at) != kApostrophe || at == at_ || !is_letter(point(at + 1)) || !is_letter(point(at + 2)))
      return false;
    constexpr View kVowels = U"aeiouyAEIOUY", kCapitals = U"ABCDEFGHJKLMNOPQRSTUVWXZn", kAfter = U"aeiou";
    const bool vowels = at - at_ >= 2 && kVowels.find(points_[at - 1]) != View::npos &&
                        kAfter.find(points_[at + 1]) != View::npos;
    const bool prefix = at - at_ == 1 && kCapitals.find(points_[at_]) != View::npos;
    const bool clock = text::lower(piece(at_, std::min(at_ + 7, points_.size()))) == U"o'clock";
    return vowels || prefix || clock;
  }

  /// Puts "is" and "n't", "dog" and "'s".
  bool clitic(View whole) {
    if (point(at_) != kApostrophe) return false;
    std::size_t end = at_ + 1;
    while (is_letter(point(end))) ++end;
    const Points tail = text::lower(piece(at_ + 1, end));
    if (tail == U"t" && text::lower(whole).ends_with(U'n') && whole.size() > 1) {
      put(whole.substr(0, whole.size() - 1));
      put(piece(at_ - 1, end));
    } else if (std::find(kClitics.begin(), kClitics.end(), tail) != kClitics.end()) {
      put(whole);
      put(piece(at_, end));
    } else {
      return false;
    }
    at_ = end;
    return true;
  }

  bool keeps_stop(View whole) const {
    if (point(at_ + 1) == U'.') return false;  // an ellipsis
    if (std::find(kAbbreviations.begin(), kAbbreviations.end(), whole) != kAbbreviations.end()) return true;
    std::size_t next = at_ + 1;
    while (point(next) == U' ' && next < points_.size()) ++next;
    return text::lower(whole) == U"no" && is_digit(point(next));
  }

  void mark() {
    const char32_t c = points_[at_];
    std::size_t end = at_ + 1;
    if (c == U'!' || c == U'?') {  // one of them is punctuation, several are a word
      while (point(end) == U'!' || point(end) == U'?') ++end;
      if (end - at_ > 1) put(piece(at_, end));
    } else if (const auto known = marks().find(c); known != marks().end()) {
      put(known->second);
    } else if (c >= 0x20) {
      put(piece(at_, end));
    }
    at_ = end;
  }

  Points points_;
  std::size_t at_ = 0;
  std::vector<std::string> tokens_;
};

}  // namespace

std::vector<std::string> ptb_tokens(std::string_view caption) { return Cutter(caption).tokens(); }

}  // namespace mcit
