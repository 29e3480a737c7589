#include "report/literature.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/text.hpp"
#include "metrics/metrics.hpp"
#include "report/comparison.hpp"

namespace mcit {
namespace {

using Number = std::optional<double>;

constexpr std::string_view kPrinted = "printed:";

/// A column of a printed table: a task's score, a metric of ours, or a number under a name of the paper's.
struct Column {
  enum class Kind { final_score, learned, metric, printed } kind;
  std::string key, title;
  std::size_t task = 0;

  /// As it is shown.
  std::string text(const PublishedRow& row) const {
    const Number value = of(row);
    if (!value) return "–";
    return kind == Kind::printed ? row.printed.at(key.substr(kPrinted.size())).text
                                 : fixed(*value, row.decimals);
  }

  Number of(const PublishedRow& row) const {
    const auto cell = [this](const std::vector<Number>& scores) {
      return scores.empty() ? Number() : scores[task];
    };
    switch (kind) {
      case Kind::final_score:
        return cell(row.finals);
      case Kind::learned:
        return cell(row.learned);
      case Kind::metric: {
        const auto found = row.metrics.find(key);
        return found == row.metrics.end() ? Number() : found->second;
      }
      case Kind::printed:
        break;
    }
    const auto found = row.printed.find(key.substr(kPrinted.size()));
    return found == row.printed.end() ? Number() : found->second.value;
  }
};

/// All columns in which some row of the table has a number. Scores right after learning come with the final
/// ones wherever they are printed.
std::vector<Column> columns_of(const Published& published, const PublishedTable& table) {
  std::vector<Column> all;
  for (std::size_t j = 0; j < published.tasks.size(); ++j)
    all.push_back(
        {Column::Kind::final_score, "final:" + published.tasks[j].name, published.tasks[j].title, j});
  for (std::size_t j = 0; j < published.tasks.size(); ++j)
    all.push_back({Column::Kind::learned, "learned:" + published.tasks[j].name,
                   published.tasks[j].title + " learned", j});
  for (const MetricInfo& info : metric_catalogue())
    all.push_back({Column::Kind::metric, std::string(info.name), metric_title(info.name)});
  for (const PublishedRow& row : table.rows)
    for (const auto& [name, number] : row.printed) {
      const std::string key = std::string(kPrinted) + name;
      if (std::none_of(all.begin(), all.end(), [&key](const Column& c) { return c.key == key; }))
        all.push_back({Column::Kind::printed, key, name + " *"});
    }
  std::erase_if(all, [&table](const Column& column) {
    return std::none_of(table.rows.begin(), table.rows.end(),
                        [&column](const PublishedRow& row) { return column.of(row).has_value(); });
  });
  return all;
}

/// What sets a row apart from its table.
std::string row_note(const PublishedTable& table, const PublishedRow& row) {
  std::vector<std::string> parts;
  if (const std::string own = conditions_text(row.conditions, table.conditions); !own.empty())
    parts.push_back(own);
  if (row.evidence != table.evidence) parts.emplace_back(evidence_words(row.evidence));
  if (!row.note.empty()) parts.push_back(row.note);
  if (!row.reason.empty()) parts.push_back("does not agree with itself: " + row.reason);
  return joined(parts, "; ");
}

/// The best method of a column, for bold print; nothing in columns whose direction is not known.
Number best_of(const PublishedTable& table, const Column& column) {
  if (column.kind == Column::Kind::printed) return {};
  const auto& infos = metric_catalogue();
  const auto info =
      std::find_if(infos.begin(), infos.end(), [&](const auto& i) { return i.name == column.key; });
  const bool lower = info != infos.end() && info->better == Better::lower;
  Number best;
  std::size_t methods = 0;
  for (const PublishedRow& row : table.rows) {
    const Number value = row.bound ? Number() : column.of(row);
    if (!value) continue;
    ++methods;
    if (!best || (lower ? *value < *best : *value > *best)) best = value;
  }
  return methods > 1 ? best : Number();
}

std::string unstated(const Conditions& conditions) {
  std::string text;
  for (const ConditionInfo& info : condition_catalogue()) {
    const bool special = info.name == "replay" || info.name == "clients";  // silence says that there are none
    if (!special && !conditions.contains(std::string(info.name)))
      text.append(text.empty() ? "" : ", ").append(info.title);
  }
  return text;
}

/// A row's line, and one of the scores right after learning where they are printed.
void add_row(const PublishedTable& table, const PublishedRow& row, const std::string& label,
             const std::vector<Column>& columns, Table& out) {
  std::vector<TableCell> cells{{label, false}}, learned{{"  right after learning", false}};
  for (const Column& column : columns) {
    const Number value = column.of(row), best = best_of(table, column);
    cells.push_back({column.text(row), value && best && !row.bound && *value == *best});
    const Number first = column.kind == Column::Kind::final_score && !row.learned.empty()
                             ? row.learned[column.task]
                             : Number();
    learned.push_back({first ? fixed(*first, row.decimals) : "", false});
  }
  out.row(std::move(cells));
  if (!row.learned.empty()) out.row(std::move(learned));
}

Block table_block(const Published& published, const PublishedTable& table) {
  Block block{published.name + "/" + table.name + ": " + table.title, {}, {}, {}};
  block.text.push_back("Source: " + table.source + "; " + std::string(evidence_words(table.evidence)) + ".");
  const std::string conditions = conditions_text(table.conditions), silent = unstated(table.conditions);
  block.text.push_back((conditions.empty() ? "" : "Conditions: " + conditions + ". ") +
                       "Not stated: " + silent + ".");
  std::vector<Column> columns = columns_of(published, table);
  std::erase_if(columns, [](const Column& column) { return column.kind == Column::Kind::learned; });
  std::vector<TableColumn> titles{{"method", false}};
  for (const Column& column : columns) titles.push_back({column.title, true});
  Table out(titles);
  if (!table.note.empty()) block.notes.push_back(table.note);
  int marks = 0;
  for (const PublishedRow& row : table.rows) {
    const std::string note = row_note(table, row);
    const std::string mark = note.empty() ? "" : " [" + std::to_string(++marks) + "]";
    if (!note.empty()) block.notes.push_back(mark.substr(1) + " " + note);
    add_row(table, row, row.method + mark, columns, out);
  }
  if (std::any_of(columns.begin(), columns.end(),
                  [](const Column& c) { return c.kind == Column::Kind::printed; }))
    block.notes.emplace_back(
        "* printed under this name; its definition is not known, or none of mcit's metrics");
  block.table = std::move(out);
  return block;
}

std::string check_text(const std::vector<PublishedCheck>& checks) {
  const auto broken = std::count_if(checks.begin(), checks.end(), [](const auto& c) { return !c.holds(); });
  return std::to_string(checks.size()) +
         " equations between these numbers (means, backward transfer, forgetting): " +
         (broken == 0 ? std::string("all hold to rounding.")
                      : std::to_string(broken) + " do not hold, see the rows' notes.");
}

Json numbers_json(const std::vector<Number>& values) {
  Json out = Json::array();
  for (const Number& value : values) out.push_back(value ? Json(*value) : Json(nullptr));
  return out;
}

Json row_json(const PublishedRow& row) {
  Json printed = Json::object();
  for (const auto& [name, number] : row.printed) printed[name] = number.value;
  Json metrics = Json::object();
  for (const auto& [name, value] : row.metrics) metrics[name] = value;
  return {{"method", row.method},
          {"strategy", row.strategy},
          {"bound", row.bound},
          {"evidence", evidence_name(row.evidence)},
          {"finals", numbers_json(row.finals)},
          {"learned", numbers_json(row.learned)},
          {"metrics", metrics},
          {"printed", printed},
          {"conditions", row.conditions},
          {"reason", row.reason},
          {"note", row.note}};
}

}  // namespace

std::string conditions_text(const Conditions& conditions, const Conditions& beside) {
  std::string text;
  for (const ConditionInfo& info : condition_catalogue()) {
    const auto found = conditions.find(std::string(info.name)), other = beside.find(std::string(info.name));
    if (found == conditions.end() || (other != beside.end() && other->second == found->second)) continue;
    text.append(text.empty() ? "" : ", ").append(info.title).append(" ").append(found->second);
  }
  return text;
}

std::vector<Block> literature_blocks(const Published& published) {
  Block head{published.title, {}, {}, published.notes};
  std::string tasks;
  for (const PublishedTask& task : published.tasks)
    tasks.append(tasks.empty() ? "" : " → ").append(task.title);
  head.text = {tasks, check_text(check_published(published))};
  for (const std::string& text : published_disagreements(published))
    head.notes.push_back("one name, several numbers: " + text);
  std::vector<Block> blocks{std::move(head)};
  for (const PublishedTable& table : published.tables) blocks.push_back(table_block(published, table));
  return blocks;
}

std::string literature_csv(const Published& published) {
  std::string out = "published,table,method,evidence,column,value\n";
  for (const PublishedTable& table : published.tables)
    for (const PublishedRow& row : table.rows)
      for (const Column& column : columns_of(published, table))
        if (const Number value = column.of(row))
          out += csv_field(published.name) + "," + csv_field(table.name) + "," + csv_field(row.method) + "," +
                 std::string(evidence_name(row.evidence)) + "," + csv_field(column.key) + "," +
                 shortest(*value) + "\n";
  return out;
}

Json literature_json(const Published& published) {
  Json tables = Json::array(), checks = Json::array(), tasks = Json::array();
  for (const PublishedTask& task : published.tasks)
    tasks.push_back({{"name", task.name}, {"title", task.title}});
  for (const PublishedTable& table : published.tables) {
    Json rows = Json::array();
    for (const PublishedRow& row : table.rows) rows.push_back(row_json(row));
    tables.push_back({{"name", table.name},
                      {"title", table.title},
                      {"source", table.source},
                      {"evidence", evidence_name(table.evidence)},
                      {"note", table.note},
                      {"conditions", table.conditions},
                      {"rows", rows}});
  }
  for (const PublishedCheck& check : check_published(published))
    checks.push_back({{"table", check.table},
                      {"method", check.method},
                      {"what", check.what},
                      {"printed", check.printed},
                      {"computed", check.computed},
                      {"tolerance", check.tolerance},
                      {"holds", check.holds()}});
  return {{"name", published.name},
          {"title", published.title},
          {"tasks", tasks},
          {"notes", published.notes},
          {"tables", tables},
          {"checks", checks},
          {"disagreements", published_disagreements(published)}};
}

}  // namespace mcit
