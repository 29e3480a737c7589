#pragma once
/// What a frozen vision tower says about each picture, computed once: in memory up to a budget, always on
/// disk.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mcit/types.hpp"

namespace mcit {

struct FeatureStoreOptions {
  std::filesystem::path folder;     ///< cache folder; the store's file in it is named after `key`
  std::string key;                  ///< hash of tower weights, preprocessing and dtype
  std::vector<std::int64_t> shape;  ///< of one tile's features, e.g. {tokens, width}
  /// Tiles of a picture; without it every picture is one.
  std::function<std::int64_t(const std::string& path)> tiles{};
  std::uint64_t memory_budget = 2ULL << 30;  ///< bytes of features kept in memory
  int threads = 1;                           ///< pictures are decoded and resized in parallel
};

/// A record is a tile. Records are appended whole and carry a checksum, so that several processes may share
/// the file and a torn or damaged record is computed again.
class FeatureStore {
 public:
  using Load = std::function<Tensor(const std::string& path)>;  ///< picture -> [tiles, 3, S, S] float32
  using Compute = std::function<Tensor(const Tensor& pixels)>;  ///< [n, 3, S, S] -> [n, ...shape] float32

  /// @param load, compute must outlive the store
  FeatureStore(FeatureStoreOptions options, Load load, Compute compute);
  ~FeatureStore();
  FeatureStore(const FeatureStore&) = delete;
  FeatureStore& operator=(const FeatureStore&) = delete;

  /// Features of one picture, [tiles, ...shape]: the same bits whether they come from memory, disk or the
  /// tower.
  /// @throws DataError when the picture cannot be read.
  Tensor get(const std::string& path);
  /// Makes all of them ready. @param progress told how many pictures were just finished
  void prefetch(const std::vector<std::string>& paths,
                const std::function<void(std::int64_t)>& progress = {});

  std::int64_t computed() const;  ///< pictures that went through the tower in this process

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mcit
