#include "core/config.hpp"

#include <algorithm>
#include <charconv>

#include "core/config_tree.hpp"
#include "core/files.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

using tree::Array;
using tree::Entry;
using tree::Node;
using tree::Table;
using tree::Value;
using tree::value_text;

std::string found_text(const Value& value) {
  if (std::holds_alternative<Table>(value)) return "a table";
  if (std::holds_alternative<Array>(value)) return "an array";
  return value_text(value);
}

/// Whether the value can be read as T; an integer is a number as well.
template <class T>
bool read_as(const Value& value, T& out) {
  if (const T* exact = std::get_if<T>(&value)) {
    out = *exact;
    return true;
  }
  if constexpr (std::is_same_v<T, double>) {
    if (const auto* whole = std::get_if<std::int64_t>(&value)) {
      out = static_cast<double>(*whole);
      return true;
    }
  }
  return false;
}

template <class T>
bool read_as(const Value& value, std::vector<T>& out) {
  out.clear();
  T item{};
  if (read_as(value, item)) {
    out.push_back(std::move(item));
    return true;
  }
  const auto* array = std::get_if<Array>(&value);
  if (array == nullptr) return false;
  for (const Entry& entry : *array) {
    if (!read_as(entry.value, item)) return false;
    out.push_back(item);
  }
  return true;
}

template <class T>
Value store(T value) {
  return Value(std::move(value));
}
template <class T>
Value store(const std::vector<T>& values) {
  Array items;
  for (const T& value : values) items.push_back({store(value), {}, {}, 0});
  return items;
}

/// The given value, or nothing. @throws ConfigError when it is of another type.
template <class T>
bool take(Node& node, std::string_view key, const char* kind, T& out) {
  const Entry* entry = node.find(key);
  if (entry == nullptr) return false;
  if (!read_as(entry->value, out))
    throw ConfigError(node.where(key),
                      std::string("expected ") + kind + ", found " + found_text(entry->value));
  return true;
}

template <class T>
T take_or(Node& node, std::string_view key, const char* kind, T fallback) {
  T value{};
  if (take(node, key, kind, value)) return value;
  node.answer(key, store(fallback));
  return fallback;
}

template <class T>
T take_required(Node& node, std::string_view key, const char* kind) {
  T value{};
  if (!take(node, key, kind, value))
    throw ConfigError(node.where(key), std::string("is missing: ") + kind + " is needed");
  return value;
}

constexpr const char* kFlag = "true or false";
constexpr const char* kInteger = "an integer";
constexpr const char* kNumber = "a number";
constexpr const char* kText = "a text";
constexpr const char* kNumbers = "an array of numbers";
constexpr const char* kIntegers = "an array of integers";
constexpr const char* kTexts = "an array of texts";

template <class T>
T in_range(const Node& node, std::string_view key, T value, T least, T most) {
  std::string fault;
  if (!(value >= least)) fault = "at least " + value_text(least);
  if (value > most) fault = "at most " + value_text(most);
  if (!fault.empty()) throw ConfigError(node.where(key), "must be " + fault + ", found " + value_text(value));
  return value;
}

std::filesystem::path located(const std::string& text, const std::filesystem::path& folder) {
  if (text.empty() || folder.empty()) return text;
  return (folder / text).lexically_normal();  // an absolute text replaces the folder
}

void finish_table(const Node& node) {
  for (const auto& [key, entry] : node.given) {
    if (!node.asked.contains(key))
      throw ConfigError(node.where(key), "unknown key",
                        suggestion(key, {node.asked.begin(), node.asked.end()}));
    if (const auto* table = std::get_if<Table>(&entry.value)) finish_table(**table);
    if (const auto* array = std::get_if<Array>(&entry.value))
      for (const Entry& item : *array)
        if (const auto* table = std::get_if<Table>(&item.value)) finish_table(**table);
  }
}

std::vector<std::string> split(std::string_view path) {
  std::vector<std::string> parts;
  for (std::size_t start = 0;; ++start) {
    const std::size_t dot = path.find('.', start);
    parts.emplace_back(path.substr(start, dot == std::string_view::npos ? dot : dot - start));
    if (dot == std::string_view::npos) return parts;
    start = dot;
  }
}

/// The table that `part` of an override names below `node`, made when absent; an array is passed with the
/// next part.
Table descend(Node& node, const std::vector<std::string>& parts, std::size_t& at, const std::string& where) {
  const std::string& part = parts[at++];
  auto [found, made] = node.given.try_emplace(part, Entry{Table{}, std::string(tree::kOverride), {}, 0});
  if (made) {
    auto table = std::make_shared<Node>();
    table->path = tree::joined(node.path, part);
    table->source = tree::kOverride;
    found->second.value = table;
  }
  Value* value = &found->second.value;
  if (auto* array = std::get_if<Array>(value); array != nullptr && at + 1 < parts.size()) {
    const std::string& digits = parts[at++];
    std::size_t index = 0;
    const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (end.ec != std::errc() || end.ptr != digits.data() + digits.size() || index >= array->size())
      throw ConfigError(where, "'" + part + "' has no entry '" + digits + "'",
                        "it has " + std::to_string(array->size()) + ", counted from 0");
    value = &(*array)[index].value;
  }
  if (auto* table = std::get_if<Table>(value)) return *table;
  throw ConfigError(where, "'" + part + "' is " + found_text(*value) + ", not a table");
}

}  // namespace

Config::Config() : node_(std::make_shared<Node>()) { node_->source = "settings"; }
Config::Config(std::shared_ptr<Node> node) : node_(std::move(node)) {}

Config Config::read(const std::filesystem::path& file) {
  constexpr std::uint64_t kMostBytes = std::uint64_t{16} << 20;
  std::string text;
  try {
    text = read_file(file, kMostBytes);
  } catch (const DataError& error) {  // to the user a missing settings file is a wrong argument
    throw ConfigError({}, error.what());
  }
  std::error_code ignored;
  return parse(text, file.string(), std::filesystem::absolute(file, ignored).parent_path());
}

Config Config::parse(std::string_view text, std::string where, std::filesystem::path folder) {
  return Config(tree::parse(text, {std::move(where), std::move(folder)}));
}

void Config::set(std::string_view assignment) {
  const std::string where = "--set " + std::string(assignment);
  const std::size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0)
    throw ConfigError(where, "expected key=value", "for example --set train.lr=1e-3");
  const std::vector<std::string> parts = split(trimmed(assignment.substr(0, equals)));
  if (std::any_of(parts.begin(), parts.end(), [](const std::string& part) { return part.empty(); }))
    throw ConfigError(where, "a part of the key is empty");
  Table table = node_;
  std::size_t at = 0;
  while (at + 1 < parts.size()) table = descend(*table, parts, at, where);
  table->given[parts.back()] =
      tree::parse_override(trimmed(assignment.substr(equals + 1)), tree::joined(table->path, parts.back()));
}

Config Config::over(const Config& base) const {
  auto both = std::make_shared<Node>(*node_);
  both->given.insert(base.node_->given.begin(), base.node_->given.end());
  return Config(both);
}

std::map<std::string, std::string> Config::values() const {
  std::map<std::string, std::string> all;
  tree::collect(*node_, {}, all);
  return all;
}

bool Config::has(std::string_view key) const {
  node_->asked.emplace(key);  // a key that code looks for is no unknown one
  return node_->given.contains(std::string(key));
}

std::vector<std::string> Config::keys() const {
  std::vector<std::string> names;
  for (const auto& [key, entry] : node_->given) names.push_back(key);
  return names;
}

bool Config::flag(std::string_view key, bool fallback) const { return take_or(*node_, key, kFlag, fallback); }
std::int64_t Config::integer(std::string_view key, std::int64_t fallback, std::int64_t least,
                             std::int64_t most) const {
  return in_range(*node_, key, take_or(*node_, key, kInteger, fallback), least, most);
}
double Config::number(std::string_view key, double fallback, double least, double most) const {
  return in_range(*node_, key, take_or(*node_, key, kNumber, fallback), least, most);
}
std::string Config::text(std::string_view key, std::string_view fallback) const {
  return take_or(*node_, key, kText, std::string(fallback));
}
std::string Config::choice(std::string_view key, std::string_view fallback,
                           const std::vector<std::string>& allowed) const {
  std::string value = text(key, fallback);
  if (std::find(allowed.begin(), allowed.end(), value) == allowed.end())
    throw ConfigError(where(key), "unknown value '" + value + "'", suggestion(value, allowed));
  return value;
}
std::vector<double> Config::numbers(std::string_view key, std::vector<double> fallback) const {
  return take_or(*node_, key, kNumbers, std::move(fallback));
}
std::vector<std::int64_t> Config::integers(std::string_view key, std::vector<std::int64_t> fallback) const {
  return take_or(*node_, key, kIntegers, std::move(fallback));
}
std::vector<std::string> Config::texts(std::string_view key, std::vector<std::string> fallback) const {
  return take_or(*node_, key, kTexts, std::move(fallback));
}

std::filesystem::path Config::path(std::string_view key, std::string_view fallback) const {
  const std::filesystem::path folder =
      has(key) ? node_->given.at(std::string(key)).folder : std::filesystem::path();
  const std::filesystem::path located_path = located(text(key, fallback), folder);
  node_->answer(key, located_path.string());
  return located_path;
}

std::vector<std::filesystem::path> Config::paths(std::string_view key) const {
  const std::filesystem::path folder =
      has(key) ? node_->given.at(std::string(key)).folder : std::filesystem::path();
  std::vector<std::filesystem::path> out;
  std::vector<std::string> written;
  for (const std::string& text : texts(key, {})) {
    out.push_back(located(text, folder));
    written.push_back(out.back().string());
  }
  node_->answer(key, store(written));
  return out;
}

std::string Config::name_or_path(std::string_view key, std::string_view fallback) const {
  const std::string name = text(key, fallback);
  const std::filesystem::path folder =
      has(key) ? node_->given.at(std::string(key)).folder : std::filesystem::path();
  const std::filesystem::path place = located(name, folder);
  std::error_code none;
  if (name.empty() || !std::filesystem::exists(place, none)) return name;
  const std::string absolute = std::filesystem::absolute(place).lexically_normal().string();
  node_->answer(key, absolute);
  return absolute;
}

bool Config::require_flag(std::string_view key) const { return take_required<bool>(*node_, key, kFlag); }
std::int64_t Config::require_integer(std::string_view key) const {
  return take_required<std::int64_t>(*node_, key, kInteger);
}
double Config::require_number(std::string_view key) const {
  return take_required<double>(*node_, key, kNumber);
}
std::string Config::require_text(std::string_view key) const {
  return take_required<std::string>(*node_, key, kText);
}
std::vector<std::string> Config::require_texts(std::string_view key) const {
  return take_required<std::vector<std::string>>(*node_, key, kTexts);
}
std::filesystem::path Config::require_path(std::string_view key) const {
  require_text(key);
  return path(key, {});
}

Config Config::child(std::string_view key) const {
  if (const Entry* entry = node_->find(key)) {
    if (const auto* table = std::get_if<Table>(&entry->value)) return Config(*table);
    throw ConfigError(node_->where(key), "expected a table, found " + found_text(entry->value));
  }
  auto& kept = node_->effective[std::string(key)];
  if (const auto* table = std::get_if<Table>(&kept.value)) return Config(*table);
  auto made = std::make_shared<Node>();
  made->path = tree::joined(node_->path, key);
  made->source = node_->source;
  made->folder = node_->folder;
  kept.value = made;
  return Config(made);
}

std::vector<Config> Config::children(std::string_view key) const {
  std::vector<Config> tables;
  const Entry* entry = node_->find(key);
  if (entry == nullptr) return tables;
  const auto* array = std::get_if<Array>(&entry->value);
  if (array == nullptr)
    throw ConfigError(node_->where(key),
                      "expected an array of tables ([[...]]), found " + found_text(entry->value));
  for (const Entry& item : *array) {
    const auto* table = std::get_if<Table>(&item.value);
    if (table == nullptr)
      throw ConfigError(node_->where(key), "expected tables only, found " + found_text(item.value));
    tables.push_back(Config(*table));
  }
  return tables;
}

std::map<std::string, Params::Value> Config::params() const {
  std::map<std::string, Params::Value> values;
  for (const auto& [key, entry] : node_->given) {
    node_->asked.insert(key);
    std::vector<double> reals;
    std::vector<std::string> texts;
    if (const auto* flag_value = std::get_if<bool>(&entry.value)) {
      values[key] = *flag_value;
    } else if (const auto* whole = std::get_if<std::int64_t>(&entry.value)) {
      values[key] = *whole;
    } else if (const auto* real = std::get_if<double>(&entry.value)) {
      values[key] = *real;
    } else if (const auto* word = std::get_if<std::string>(&entry.value)) {
      values[key] = *word;
    } else if (read_as(entry.value, reals)) {
      values[key] = reals;
    } else if (read_as(entry.value, texts)) {
      values[key] = texts;
    } else {
      throw ConfigError(node_->where(key), "expected a value or an array of values of one kind, found " +
                                               found_text(entry.value));
    }
  }
  return values;
}

void Config::adopt(const std::map<std::string, Params::Value>& values) const {
  for (const auto& [key, value] : values)
    node_->answer(key, std::visit([](const auto& held) { return store(held); }, value));
}

void Config::finish() const { finish_table(*node_); }

std::string Config::resolved() const {
  std::string out;
  tree::print(*node_, {}, out);
  return out;
}

std::string Config::where(std::string_view key) const { return node_->where(key); }

}  // namespace mcit
