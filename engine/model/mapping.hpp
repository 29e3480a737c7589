#pragma once
/// A model file mapped into memory, for tensors that point into it.

#include <cstdint>
#include <filesystem>

namespace mcit {

/// Tensors keep it alive. The file itself never changes, whatever is written to the memory.
class Mapping {
 public:
  /// @throws CheckpointError when the file is missing, no regular file, or cannot be mapped.
  explicit Mapping(const std::filesystem::path& file);
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  char* data() const { return data_; }  ///< null for an empty file
  std::uint64_t size() const { return size_; }

 private:
  char* data_ = nullptr;
  std::uint64_t size_ = 0;
};

}  // namespace mcit
