#pragma once
/// Private to config.cpp: the tree of values behind Config, and TOML in and out of it.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace mcit::tree {

struct Entry;
struct Node;
using Table = std::shared_ptr<Node>;
using Array = std::vector<Entry>;
using Value = std::variant<bool, std::int64_t, double, std::string, Array, Table>;

constexpr std::string_view kOverride = "--set";

/// Where a text of settings comes from.
struct Origin {
  std::string source;            ///< file, or kOverride
  std::filesystem::path folder;  ///< what relative paths in it start from
};

/// A value and the place it was written at.
struct Entry {
  Value value;
  std::string source;
  std::filesystem::path folder;
  int line = 0;  ///< 0 when it has none
};

/// A table.
struct Node {
  std::string path;  ///< "train.optimizer"; empty at the root
  std::string source;
  std::filesystem::path folder;
  int line = 0;
  std::map<std::string, Entry> given;
  std::map<std::string, Entry> effective;  ///< what getters answered with: defaults, absolute paths
  std::set<std::string> asked;

  std::string where(std::string_view key) const;
  const Entry* find(std::string_view key);  ///< and remembers that it was asked for
  void answer(std::string_view key, Value value);
};

/// "train" and "lr" -> "train.lr", with quotes where TOML needs them.
std::string joined(std::string_view path, std::string_view key);
std::string value_text(const Value& value);
/// A non-empty array of tables only: [[key]].
bool is_tables(const Value& value);

/// @throws ConfigError when it is not TOML.
Table parse(std::string_view text, const Origin& origin);
/// The right side of an override: TOML if it is that, else a text.
Entry parse_override(std::string_view text, const std::string& path);

/// Values first, then tables, under full headers: `name` is the header of this table.
void print(const Node& node, const std::string& name, std::string& out);
/// Given values by full key.
void collect(const Node& node, const std::string& name, std::map<std::string, std::string>& all);

}  // namespace mcit::tree
