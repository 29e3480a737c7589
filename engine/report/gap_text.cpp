#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/text.hpp"
#include "report/gap.hpp"

namespace mcit {
namespace {

using Number = std::optional<double>;

std::string listed(const PublishedMatch& match, Verdict verdict) {
  std::string text;
  for (const ConditionCheck& check : match.conditions) {
    if (check.verdict != verdict) continue;
    text += (text.empty() ? "" : "; ") + check.condition;
    if (verdict == Verdict::differs || verdict == Verdict::open)
      text += " (run: " + (check.run.empty() ? "not known" : check.run) +
              ", published: " + (check.published.empty() ? "none" : check.published) + ")";
  }
  return text;
}

std::string note_of(const std::string& mark, const PublishedMatch& match) {
  std::string text =
      mark + " table " + match.table + ", " + std::string(evidence_words(match.evidence)) + ".";
  const auto add = [&](const char* words, Verdict verdict) {
    if (const std::string list = listed(match, verdict); !list.empty())
      text += std::string(" ") + words + list + ".";
  };
  add("Differs: ", Verdict::differs);
  add("For the reader to judge: ", Verdict::open);
  add("Not stated there: ", Verdict::unstated);
  add("Same: ", Verdict::same);
  return text;
}

/// "+1.20"
std::string signed_text(double value, int decimals) {
  const std::string text = fixed(value, decimals);
  return text.front() == '-' ? text : "+" + text;
}

std::vector<TableCell> numbers_row(const std::string& label, const std::vector<Number>& numbers, int decimals,
                                   bool with_sign) {
  std::vector<TableCell> cells{{label, false}};
  for (const Number& number : numbers)
    cells.push_back({!number     ? "–"
                     : with_sign ? signed_text(*number, decimals)
                                 : fixed(*number, decimals),
                     false});
  return cells;
}

Block group_block(const GapComparison& gaps, const GapGroup& group) {
  Block block{gaps.suite + ": " + group.label + " beside published " + gaps.published, {}, {}, {}};
  std::vector<TableColumn> columns{{"", false}};
  for (const ComparedColumn& column : gaps.columns) columns.push_back({column.title, true});
  Table table(columns);
  std::vector<TableCell> own{{group.label, true}};
  for (std::size_t c = 0; c < gaps.columns.size(); ++c)
    own.push_back({statistic_text(group.values[c], gaps.columns[c].digits), false});
  table.row(std::move(own));
  int marks = 0;
  for (const PublishedMatch& match : group.matches) {
    const std::string mark = "[" + std::to_string(++marks) + "]";
    table.row(numbers_row(match.method + " " + mark, match.published, match.decimals, false));
    table.row(numbers_row(match.like_for_like() ? "  gap" : "  gap, not like for like", match.gap,
                          match.decimals, true));
    block.notes.push_back(note_of(mark, match));
  }
  block.table = std::move(table);
  return block;
}

const char* verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::same:
      return "same";
    case Verdict::differs:
      return "differs";
    case Verdict::open:
      return "open";
    case Verdict::unstated:
      break;
  }
  return "unstated";
}

Json by_column(const GapComparison& gaps, const std::vector<Number>& numbers) {
  Json out = Json::object();
  for (std::size_t c = 0; c < numbers.size(); ++c)
    if (numbers[c]) out[gaps.columns[c].key] = *numbers[c];
  return out;
}

Json match_json(const GapComparison& gaps, const PublishedMatch& match) {
  Json conditions = Json::array();
  for (const ConditionCheck& check : match.conditions)
    conditions.push_back({{"condition", check.condition},
                          {"run", check.run.empty() ? Json(nullptr) : Json(check.run)},
                          {"published", check.published.empty() ? Json(nullptr) : Json(check.published)},
                          {"verdict", verdict_name(check.verdict)}});
  return {{"table", match.table},
          {"method", match.method},
          {"source", match.source},
          {"evidence", evidence_name(match.evidence)},
          {"like_for_like", match.like_for_like()},
          {"published", by_column(gaps, match.published)},
          {"gap", by_column(gaps, match.gap)},
          {"conditions", conditions}};
}

}  // namespace

std::vector<Block> gap_blocks(const GapComparison& gaps) {
  std::vector<Block> blocks;
  for (const GapGroup& group : gaps.groups)
    if (!group.matches.empty()) blocks.push_back(group_block(gaps, group));
  if (blocks.empty()) blocks.push_back({gaps.suite + " beside published " + gaps.published, {}, {}, {}});
  blocks.back().notes.insert(blocks.back().notes.end(), gaps.notes.begin(), gaps.notes.end());
  return blocks;
}

std::string gap_csv(const GapComparison& gaps) {
  std::string out;
  for (const GapGroup& group : gaps.groups)
    for (const PublishedMatch& match : group.matches) {
      const std::string front =
          csv_field(gaps.suite) + "," + csv_field(group.strategy) + "," + csv_field(group.label) + ",,";
      const std::string place = gaps.published + "/" + match.table + "/" + match.method + ":";
      for (std::size_t c = 0; c < gaps.columns.size(); ++c) {
        const std::string key = place + gaps.columns[c].key;
        if (match.published[c])
          out += front + csv_field("published:" + key) + "," + shortest(*match.published[c]) + ",,\n";
        if (match.gap[c]) out += front + csv_field("gap:" + key) + "," + shortest(*match.gap[c]) + ",,\n";
      }
    }
  return out;
}

Json gap_json(const GapComparison& gaps) {
  Json groups = Json::array();
  for (const GapGroup& group : gaps.groups) {
    Json matches = Json::array();
    for (const PublishedMatch& match : group.matches) matches.push_back(match_json(gaps, match));
    groups.push_back({{"label", group.label}, {"strategy", group.strategy}, {"matches", matches}});
  }
  return {{"suite", gaps.suite}, {"published", gaps.published}, {"groups", groups}, {"notes", gaps.notes}};
}

}  // namespace mcit
