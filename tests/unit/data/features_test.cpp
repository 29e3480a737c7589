// The feature cache: what it gives never depends on where the features come from.
#include "data/features.hpp"

#include <atomic>
#include <thread>

#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"

#include "torch_catch.hpp"

namespace mcit::test {
namespace {

using Paths = std::vector<std::string>;
constexpr std::size_t kRecord = 32 + 32 + 2 * 3 * 4;  // two hex digests of 128 bits and the features

/// Files that stand for pictures, and a tower that counts what it does.
class Pictures {
 public:
  explicit Pictures(int count) {
    for (int i = 0; i < count; ++i) {
      paths.push_back((folder / ("p" + std::to_string(i))).string());
      write(paths.back(), "picture " + std::to_string(i * i));
    }
  }

  FeatureStoreOptions options(std::uint64_t budget = 1 << 20, int threads = 1,
                              const std::string& key = "k") const {
    return {
        .folder = folder / "cache", .key = key, .shape = {2, 3}, .memory_budget = budget, .threads = threads};
  }
  FeatureStore store(std::uint64_t budget = 1 << 20, int threads = 1, const std::string& key = "k") {
    return FeatureStore(options(budget, threads, key), load(), compute());
  }
  FeatureStore::Load load() {
    return [this](const std::string& path) {
      ++loads;
      float sum = 0.0F;
      for (const char c : slurp(path)) sum = sum * 1.7F + static_cast<float>(c);
      return at::full({1, 3, 2, 2}, sum);
    };
  }
  FeatureStore::Compute compute() {
    return [this](const Tensor& pixels) {
      if (pixels.size(0) != 32 || at::GradMode::is_enabled()) wrong = true;
      const Tensor x = pixels.mean(at::IntArrayRef{1, 2, 3}).view({-1, 1, 1});
      return at::sin(x * at::arange(1, 7, at::kFloat).view({1, 2, 3}));
    };
  }
  std::filesystem::path file(const std::string& key = "k") const {
    return folder / ("cache/" + key + ".features");
  }

  TemporaryFolder folder;
  Paths paths;
  std::atomic<int> loads = 0;
  std::atomic<bool> wrong = false;  ///< the tower saw another batch than thirty-two, or recorded a graph
};

std::vector<Tensor> all(FeatureStore& store, const Paths& paths) {
  std::vector<Tensor> out;
  for (const std::string& path : paths) out.push_back(store.get(path).clone());
  return out;
}

bool same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!at::equal(a[i], b[i])) return false;
  return true;
}

void flip(const std::filesystem::path& file, std::size_t at) {
  std::string bytes = slurp(file);
  REQUIRE(at < bytes.size());
  bytes[at] = static_cast<char>(bytes[at] ^ 0x40);
  write(file, bytes);
}

TEST_CASE("features are computed once, with the same bits from the tower, memory and disk") {
  Pictures p(40);
  std::vector<Tensor> first;
  {
    FeatureStore store = p.store();
    first = all(store, p.paths);  // one by one: each goes through the tower in a batch of its own
    CHECK(store.computed() == 40);
    CHECK(p.loads == 40);
    CHECK(same_bits(all(store, p.paths), first));
    CHECK(store.computed() == 40);
    CHECK(first[0].sizes() == at::IntArrayRef{1, 2, 3});
    CHECK_FALSE(at::equal(first[0], first[1]));
  }
  FeatureStore again = p.store();
  CHECK(same_bits(all(again, p.paths), first));
  CHECK(again.computed() == 0);
  CHECK(p.loads == 40);
  CHECK(std::filesystem::file_size(p.file()) == 40 * kRecord);

  FeatureStore together = p.store(1 << 20, 1, "other");  // another key is another cache
  together.prefetch(p.paths);
  CHECK(together.computed() == 40);
  CHECK(same_bits(all(together, p.paths), first));
  CHECK(std::filesystem::file_size(p.file("other")) == 40 * kRecord);
  CHECK_FALSE(p.wrong);
}

TEST_CASE("a memory budget of nothing or of two pictures changes no bit") {
  Pictures p(6);
  FeatureStore plenty = p.store();
  const auto first = all(plenty, p.paths);
  for (const std::uint64_t budget : {std::uint64_t{0}, std::uint64_t{2 * 24}}) {
    FeatureStore store = p.store(budget, 1, "budget" + std::to_string(budget));
    store.prefetch(p.paths);
    CHECK(same_bits(all(store, p.paths), first));
    CHECK(same_bits(all(store, p.paths), first));
    CHECK(store.computed() == 6);
  }
}

TEST_CASE("the number of threads changes no bit") {
  Pictures p(70);
  FeatureStore one = p.store(1 << 20, 1, "one"), four = p.store(1 << 20, 4, "four");
  one.prefetch(p.paths);
  four.prefetch(p.paths);
  CHECK(same_bits(all(one, p.paths), all(four, p.paths)));
  CHECK(four.computed() == 70);
  CHECK(p.loads == 140);
  CHECK(slurp(p.file("one")) == slurp(p.file("four")));
}

TEST_CASE("prefetch takes equal pictures once and tells of every path") {
  Pictures p(5);
  write(p.folder / "copy", slurp(p.paths[2]));
  Paths paths = p.paths;
  paths.push_back((p.folder / "copy").string());
  paths.push_back(p.paths[0]);
  FeatureStore store = p.store();
  std::int64_t told = 0;
  store.prefetch(paths, [&](std::int64_t count) { told += count; });
  CHECK(told == 7);
  CHECK(store.computed() == 5);
  CHECK(at::equal(store.get(paths[5]), store.get(p.paths[2])));
  store.prefetch(paths, [&](std::int64_t count) { told += count; });
  CHECK(told == 14);
  CHECK(store.computed() == 5);
}

TEST_CASE("two stores on one file share what either computed") {
  Pictures p(10);
  FeatureStore a = p.store(), b = p.store(0);
  const Paths half(p.paths.begin(), p.paths.begin() + 5);
  a.prefetch(half);
  b.prefetch(p.paths);
  CHECK(b.computed() == 5);
  a.prefetch(p.paths);
  CHECK(a.computed() == 5);
  CHECK(same_bits(all(a, p.paths), all(b, p.paths)));
  CHECK(a.computed() + b.computed() == 10);
  CHECK(p.loads == 10);
}

TEST_CASE("stores that write at the same time leave a whole file") {
  Pictures p(150);
  {
    FeatureStore a = p.store(), b = p.store();
    std::thread other([&] { all(b, p.paths); });
    all(a, p.paths);
    other.join();
  }
  CHECK(std::filesystem::file_size(p.file()) % kRecord == 0);
  FeatureStore after = p.store(0), fresh = p.store(0, 1, "fresh");
  CHECK(same_bits(all(after, p.paths), all(fresh, p.paths)));
  CHECK(after.computed() == 0);
}

TEST_CASE("a flipped byte anywhere in a record is noticed and the record computed again, for good") {
  // In the name, in the checksum and in the features of the third record.
  for (const std::size_t at : {5UL, 40UL, 70UL}) {
    INFO("byte " << at << " of the record");
    Pictures p(5);
    std::vector<Tensor> first;
    {
      FeatureStore store = p.store();
      first = all(store, p.paths);
    }
    flip(p.file(), 2 * kRecord + at);
    {
      FeatureStore store = p.store(0);
      CHECK(same_bits(all(store, p.paths), first));
      CHECK(store.computed() == 1);
    }
    FeatureStore store = p.store(0);
    CHECK(same_bits(all(store, p.paths), first));
    CHECK(store.computed() == 0);
  }
}

TEST_CASE("a file that is damaged or cut while it is open is noticed too") {
  Pictures p(3);
  FeatureStore store = p.store(0);
  const auto first = all(store, p.paths);
  flip(p.file(), kRecord + 70);
  CHECK(same_bits(all(store, p.paths), first));
  CHECK(store.computed() == 4);
  std::filesystem::resize_file(p.file(), kRecord + 10);
  CHECK(same_bits(all(store, p.paths), first));
  CHECK(store.computed() == 6);
}

TEST_CASE("a torn last record is computed again and cut off") {
  for (const bool shorter : {true, false}) {
    INFO((shorter ? "the last record lost its end" : "a part of another record follows"));
    Pictures p(5);
    std::vector<Tensor> first;
    {
      FeatureStore store = p.store();
      first = all(store, {p.paths.begin(), p.paths.begin() + 4});
    }
    std::string bytes = slurp(p.file());
    write(p.file(), shorter ? bytes.substr(0, bytes.size() - 10) : bytes + bytes.substr(0, 50));
    {
      FeatureStore store = p.store(0);
      CHECK(same_bits(all(store, {p.paths.begin(), p.paths.begin() + 4}), first));
      CHECK(store.computed() == (shorter ? 1 : 0));
      store.get(p.paths[4]);
    }
    CHECK(std::filesystem::file_size(p.file()) == 5 * kRecord);
    FeatureStore store = p.store(0);
    CHECK(same_bits(all(store, {p.paths.begin(), p.paths.begin() + 4}), first));
    store.get(p.paths[4]);
    CHECK(store.computed() == 0);
  }
}

TEST_CASE("without a place on the disk everything stays in memory") {
  Pictures p(4);
  write(p.folder / "cache", "a file where the folder should be");
  FeatureStore store = p.store(0);
  const auto first = all(store, p.paths);
  CHECK(same_bits(all(store, p.paths), first));
  CHECK(store.computed() == 4);
}

TEST_CASE("a picture that cannot be read is a DataError, from any thread") {
  Pictures p(8);
  FeatureStore absent = p.store();
  CHECK_THROWS_AS(absent.get((p.folder / "none").string()), DataError);
  for (const int threads : {1, 4}) {
    FeatureStore store(
        p.options(1 << 20, threads, "bad" + std::to_string(threads)),
        [&](const std::string& path) -> Tensor {
          if (path == p.paths[6]) throw DataError(path, "is damaged");
          return p.load()(path);
        },
        p.compute());
    CHECK_THROWS_AS(store.prefetch(p.paths), DataError);
    CHECK_THROWS_AS(store.get(p.paths[6]), DataError);
    CHECK_NOTHROW(store.get(p.paths[0]));
  }
}

TEST_CASE("a tower that gives another shape than announced is an error") {
  Pictures p(1);
  FeatureStore store(p.options(), p.load(), [](const Tensor& pixels) {
    return at::zeros({pixels.size(0), 3, 2});
  });
  CHECK_THROWS_AS(store.get(p.paths[0]), Error);
}

}  // namespace
}  // namespace mcit::test
