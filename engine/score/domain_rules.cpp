/// Rules of single benchmarks: MLLM-DCL and MLLM-ACL (MLLM-CL).

#include <algorithm>
#include <array>

#include "score/form.hpp"
#include "score/rules.hpp"
#include "score/text.hpp"

namespace mcit::rules {
namespace {

/// Without white space and full stops.
Points compact(std::string_view text) {
  Points points = squeezed(text::lower(text::decode(text)));
  std::erase(points, U'.');
  return points;
}

/// The items of a list with commas, each as plain() has it, none twice.
std::vector<Points> items_of(std::string_view list) {
  std::vector<Points> items;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    Points item = plain(list.substr(begin, end - begin));
    if (!item.empty() && std::find(items.begin(), items.end(), item) == items.end())
      items.push_back(std::move(item));
    begin = end + 1;
  }
  return items;
}

double share_of_items(std::string_view prediction, std::string_view gold) {
  const auto found = items_of(prediction), wanted = items_of(gold);
  const auto hits = std::count_if(wanted.begin(), wanted.end(), [&](const Points& item) {
    return std::find(found.begin(), found.end(), item) != found.end();
  });
  return wanted.empty() ? 0 : static_cast<double>(hits) / static_cast<double>(wanted.size());
}

/// OCRBench's category of handwritten formulas; without a category a command of TeX gives it away.
bool is_formula(std::string_view category, std::string_view gold) {
  return category.find("Mathematical") != std::string_view::npos ||
         (category.empty() && gold.find('\\') != std::string_view::npos);
}

Points ocr_text(std::string_view text, bool formula) {
  const Points points = text::decode(text);
  if (formula) return squeezed(points);
  Points lower = text::lower(text::trim(points));
  std::erase(lower, U'\n');
  return lower;
}

}  // namespace

Score domain_fin(std::string_view prediction, Golds golds, const ScoreContext&) {
  const Points gold = compact(only_gold("domain_fin", golds)), answer = compact(prediction);
  if (answer.empty()) return empty_answer();
  return {.value = answer == gold ? 1.0 : 0.0,
          .well_formed = has_form(Form::short_answer, prediction, golds)};
}

Score domain_sci(std::string_view prediction, Golds golds, const ScoreContext& context) {
  constexpr std::array<std::string_view, 4> kExact{"AI2D", "TQA", "VQA", "SciVerse"};
  const std::string& gold = only_gold("domain_sci", golds);
  const std::string_view name = context.image.substr(context.image.rfind('/') + 1);
  const std::string_view prefix = name.substr(0, name.find('_'));
  if (std::find(kExact.begin(), kExact.end(), prefix) != kExact.end())
    return exact(prediction, golds, context);
  if (context.prompt.find("Which states") == std::string_view::npos)
    return contains(prediction, golds, context);
  if (is_empty(prediction)) return empty_answer();
  return {.value = share_of_items(prediction, gold), .well_formed = true};
}

Score ocrbench(std::string_view prediction, Golds golds, const ScoreContext& context) {
  need_golds("ocrbench", golds);
  if (is_empty(prediction)) return empty_answer();
  const bool found = std::any_of(golds.begin(), golds.end(), [&](const std::string& gold) {
    const bool formula = is_formula(context.category, gold);
    const Points wanted = ocr_text(gold, formula);
    return !wanted.empty() && ocr_text(prediction, formula).find(wanted) != Points::npos;
  });
  return {.value = found ? 1.0 : 0.0, .well_formed = has_form(Form::short_answer, prediction, golds)};
}

Score sat(std::string_view prediction, Golds golds, const ScoreContext&) {
  const std::string& gold = only_gold("sat", golds);
  if (is_empty(prediction)) return empty_answer();
  const Points wanted = compact(gold);
  const bool right =
      has_phrase(plain(prediction), plain(gold)) || (!wanted.empty() && compact(prediction) == wanted);
  return {.value = right ? 1.0 : 0.0, .well_formed = has_form(Form::short_answer, prediction, golds)};
}

}  // namespace mcit::rules
