#pragma once
/// Settings from TOML, read once into plain structs. Every getter names its key's default; a key that no
/// getter asked for is an error in finish().

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mcit/params.hpp"

namespace mcit {

namespace tree {
struct Node;
}

/// A table of a settings file. Copies share the same tree. Errors read "run.toml:12: train.lr: what; hint".
/// Keys name one entry of this table; dotted keys are not split. Not thread-safe.
class Config {
 public:
  Config();  ///< an empty table

  /// @throws ConfigError naming file and line when unreadable or not TOML.
  static Config read(const std::filesystem::path& file);
  /// @param where what errors call this text; @param folder what relative paths in it start from
  static Config parse(std::string_view text, std::string where, std::filesystem::path folder = {});

  /// Command-line override, "train.lr=1e-3" or "tasks.0.name=vqa". The value is read as TOML; what is not
  /// TOML is taken as a text. Tables on the way are made. Paths in it are relative to the working directory.
  void set(std::string_view assignment);

  /// This table, with the entries of `base` for the keys that it does not have; errors name the file that an
  /// entry was written in.
  Config over(const Config& base) const;

  bool has(std::string_view key) const;
  std::vector<std::string> keys() const;  ///< given keys, in alphabetical order

  /// Every given value of this table and those below, by full key ("train.lr", "tasks.0.name"), as TOML text.
  std::map<std::string, std::string> values() const;

  /// @throws ConfigError when the value has another type or is out of range. An integer is accepted as a
  /// number, a single value as an array of one.
  bool flag(std::string_view key, bool fallback) const;
  std::int64_t integer(std::string_view key, std::int64_t fallback,
                       std::int64_t least = std::numeric_limits<std::int64_t>::min(),
                       std::int64_t most = std::numeric_limits<std::int64_t>::max()) const;
  double number(std::string_view key, double fallback,
                double least = -std::numeric_limits<double>::infinity(),
                double most = std::numeric_limits<double>::infinity()) const;
  std::string text(std::string_view key, std::string_view fallback) const;
  std::string choice(std::string_view key, std::string_view fallback,
                     const std::vector<std::string>& allowed) const;
  std::vector<double> numbers(std::string_view key, std::vector<double> fallback) const;
  std::vector<std::int64_t> integers(std::string_view key, std::vector<std::int64_t> fallback) const;
  std::vector<std::string> texts(std::string_view key, std::vector<std::string> fallback) const;
  /// A relative path starts from the folder of the file it is written in. An empty text stays empty.
  std::filesystem::path path(std::string_view key, std::string_view fallback) const;
  /// Paths in an array of texts; none when absent.
  std::vector<std::filesystem::path> paths(std::string_view key) const;
  /// A name, or the path of something that exists: then from the root, so that it is found from any folder.
  std::string name_or_path(std::string_view key, std::string_view fallback) const;

  /// The same without a default. @throws ConfigError also when the key is absent.
  bool require_flag(std::string_view key) const;
  std::int64_t require_integer(std::string_view key) const;
  double require_number(std::string_view key) const;
  std::string require_text(std::string_view key) const;
  std::vector<std::string> require_texts(std::string_view key) const;
  std::filesystem::path require_path(std::string_view key) const;

  /// The table under `key`; an empty one (whose defaults still show in resolved()) when absent.
  Config child(std::string_view key) const;
  /// The tables of an array of tables ([[key]]); none when absent.
  std::vector<Config> children(std::string_view key) const;

  /// The scalar and array entries of this table for a strategy, all marked as asked for: a strategy reports
  /// its own unknown keys. @throws ConfigError for entries that are tables or mixed arrays.
  std::map<std::string, Params::Value> params() const;
  /// Adds a strategy's values in effect (Params::resolved()) to resolved().
  void adopt(const std::map<std::string, Params::Value>& resolved) const;

  /// @throws ConfigError naming the first key of this table and those below that no getter asked for, with a
  /// near name.
  void finish() const;
  /// Everything in effect as TOML, defaults included, in alphabetical order; what Config::parse reads back.
  std::string resolved() const;

  /// "run.toml:12: train.lr", for errors about a value that only the caller can judge.
  std::string where(std::string_view key = {}) const;

 private:
  explicit Config(std::shared_ptr<tree::Node> node);
  std::shared_ptr<tree::Node> node_;
};

}  // namespace mcit
