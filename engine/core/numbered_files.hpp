#pragma once
/// One thing at several times, in a folder of its own: "<name>-<number>.safetensors", the two newest.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace mcit {

/// Two files are kept because whoever counts (a round, a place of a run) may be one behind when all are
/// killed.
class NumberedFiles {
 public:
  NumberedFiles(std::filesystem::path folder, std::string name);

  /// Where the one of this number lies or would lie.
  std::filesystem::path at(std::int64_t number) const;
  /// Removes all but the two newest; to be called when one was written.
  void prune() const;
  /// The newest up to this number; later ones are removed. Nothing when there is none.
  std::optional<std::filesystem::path> newest(std::int64_t number) const;

 private:
  std::map<std::int64_t, std::filesystem::path> all() const;

  std::filesystem::path folder_;
  std::string name_;
};

}  // namespace mcit
