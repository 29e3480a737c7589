#include "data/features.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "core/hash.hpp"
#include "core/log.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

/// Tiles that go through the tower together. Always exactly this many (the last ones padded), so that a
/// picture's features do not depend on how many others were missing.
constexpr std::int64_t kTowerBatch = 32;
constexpr std::size_t kNameBytes = 32, kSumBytes = 32;  // hex digests of tile and record

}  // namespace

struct FeatureStore::State {
  FeatureStoreOptions options;
  Load load;
  Compute compute;
  std::size_t data_bytes = 0;
  int file = -1;
  std::unordered_map<std::string, std::int64_t> on_disk;               ///< tile -> record number
  std::unordered_map<std::string, Tensor> in_memory;                   ///< tile -> features
  std::unordered_map<std::string, std::vector<std::string>> tiles_of;  ///< path -> its tiles
  std::uint64_t memory = 0;
  std::int64_t computed = 0, scanned = 0;

  std::size_t record_bytes() const { return kNameBytes + kSumBytes + data_bytes; }

  /// Names of a picture's tiles, made of its bytes' digest.
  const std::vector<std::string>& tiles(const std::string& path) {
    const auto found = tiles_of.find(path);
    if (found != tiles_of.end()) return found->second;
    const std::string digest = hash_file(path);
    const std::int64_t count = options.tiles ? options.tiles(path) : 1;
    std::vector<std::string> names = {digest};
    for (std::int64_t i = 1; i < count; ++i) names.push_back(Hasher().field(digest).update(i).hex());
    return tiles_of.emplace(path, std::move(names)).first->second;
  }

  std::string checksum(std::string_view name, std::string_view data) const {
    return Hasher().update(name).update(data).hex();
  }

  /// Records that this or another process appended since the last look.
  void scan() {
    struct stat info {};
    if (file < 0 || ::fstat(file, &info) != 0) return;
    const auto records = static_cast<std::int64_t>(static_cast<std::size_t>(info.st_size) / record_bytes());
    if (records < scanned) {  // somebody cut the file
      on_disk.clear();
      scanned = 0;
    }
    for (; scanned < records; ++scanned) {
      std::string name(kNameBytes, '\0');
      if (::pread(file, name.data(), kNameBytes, scanned * static_cast<off_t>(record_bytes())) !=
          static_cast<ssize_t>(kNameBytes))
        return;
      on_disk[name] = scanned;
    }
  }

  Tensor read(const std::string& name) {
    const auto found = on_disk.find(name);
    if (found == on_disk.end()) return {};
    std::string head(kNameBytes + kSumBytes, '\0');
    Tensor out = at::empty(options.shape, at::kFloat);
    const off_t at = found->second * static_cast<off_t>(record_bytes());
    const bool whole = ::pread(file, head.data(), head.size(), at) == static_cast<ssize_t>(head.size()) &&
                       ::pread(file, out.data_ptr(), data_bytes, at + static_cast<off_t>(head.size())) ==
                           static_cast<ssize_t>(data_bytes);
    const std::string_view data(static_cast<const char*>(out.const_data_ptr()), data_bytes);
    if (whole && head.substr(0, kNameBytes) == name && head.substr(kNameBytes) == checksum(name, data))
      return out;
    log::warn("feature cache: a damaged record is computed again");
    on_disk.erase(found);
    return {};
  }

  void append(const std::string& name, const Tensor& features) {
    if (file < 0 || on_disk.contains(name)) return;
    const std::string_view data(static_cast<const char*>(features.const_data_ptr()), data_bytes);
    std::string record = name + checksum(name, data);
    record += data;
    // Another process may append at the same time; a torn record of a killed one is cut off first.
    if (::flock(file, LOCK_EX) != 0) return;
    struct stat info {};
    bool written = false;
    if (::fstat(file, &info) == 0) {
      const off_t end = info.st_size - info.st_size % static_cast<off_t>(record.size());
      written = ::pwrite(file, record.data(), record.size(), end) == static_cast<ssize_t>(record.size());
      if (!written && ::ftruncate(file, end) != 0) log::debug("feature cache: cannot cut a torn record");
    }
    ::flock(file, LOCK_UN);
    if (!written) {
      log::warn("feature cache in ", options.folder.string(), ": ", std::strerror(errno),
                "; features stay in memory only");
      ::close(file);
      file = -1;
    }
  }

  void keep(const std::string& name, const Tensor& features) {
    // Without a file memory is the only copy: the budget yields.
    if (memory + data_bytes > options.memory_budget && file >= 0) return;
    if (in_memory.emplace(name, features).second) memory += data_bytes;
  }

  /// [tiles, ...shape], or undefined when one is missing.
  Tensor ready(const std::string& path) {
    std::vector<Tensor> out;
    for (const std::string& name : tiles(path)) {
      const auto found = in_memory.find(name);
      out.push_back(found != in_memory.end() ? found->second : read(name));
      if (!out.back().defined()) return {};
      keep(name, out.back());
    }
    return out.size() == 1 ? out.front().unsqueeze(0) : at::stack(out);
  }

  bool known(const std::string& name) const { return in_memory.contains(name) || on_disk.contains(name); }

  std::vector<Tensor> load_all(const std::vector<std::string>& paths) {
    std::vector<Tensor> pixels(paths.size());
    std::exception_ptr failure;
    std::mutex mutex;
    const auto work = [&](std::size_t first) {
      try {
        for (std::size_t i = first; i < paths.size(); i += static_cast<std::size_t>(options.threads))
          pixels[i] = load(paths[i]);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
      }
    };
    std::vector<std::thread> threads;
    for (int t = 1; t < options.threads; ++t) threads.emplace_back(work, static_cast<std::size_t>(t));
    work(0);
    for (std::thread& thread : threads) thread.join();
    if (failure) std::rethrow_exception(failure);
    return pixels;
  }

  /// Features of all these pictures' tiles, [tiles, ...shape] together.
  Tensor run_tower(const std::vector<std::string>& paths) {
    const Tensor pixels = at::cat(load_all(paths));
    std::vector<std::string> names;
    for (const std::string& path : paths) names.insert(names.end(), tiles(path).begin(), tiles(path).end());
    const std::int64_t count = pixels.size(0);
    if (count != static_cast<std::int64_t>(names.size()))
      throw Error("feature cache", "a picture was cut into another number of tiles than announced");
    std::vector<Tensor> out;
    for (std::int64_t begin = 0; begin < count; begin += kTowerBatch) {
      const std::int64_t here = std::min(kTowerBatch, count - begin);
      const Tensor few = pixels.narrow(0, begin, here);
      const Tensor filled =
          here == kTowerBatch ? few
                              : at::cat({few, few.narrow(0, 0, 1).expand({kTowerBatch - here, -1, -1, -1})});
      const at::NoGradGuard no_grad;
      out.push_back(compute(filled).to(at::kCPU, at::kFloat).contiguous().narrow(0, 0, here));
      if (out.back().sizes().slice(1) != at::IntArrayRef(options.shape))
        throw Error("feature cache", "the tower gave features of another shape than announced");
    }
    const Tensor features = out.size() == 1 ? out.front() : at::cat(out);
    for (std::int64_t i = 0; i < count; ++i) {
      const Tensor one = features[i].clone();
      append(names[static_cast<std::size_t>(i)], one);
      keep(names[static_cast<std::size_t>(i)], one);
    }
    scan();
    computed += static_cast<std::int64_t>(paths.size());
    return features;
  }
};

FeatureStore::FeatureStore(FeatureStoreOptions options, Load load, Compute compute)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.options = std::move(options);
  s.load = std::move(load);
  s.compute = std::move(compute);
  s.data_bytes = 4;
  for (const std::int64_t n : s.options.shape) s.data_bytes *= static_cast<std::size_t>(n);
  std::error_code ignored;
  std::filesystem::create_directories(s.options.folder, ignored);
  const auto file = s.options.folder / (s.options.key + ".features");
  s.file = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (s.file < 0)
    log::warn("feature cache ", file.string(), ": ", std::strerror(errno), "; features stay in memory only");
  s.scan();
}

FeatureStore::~FeatureStore() {
  if (state_->file >= 0) ::close(state_->file);
}

Tensor FeatureStore::get(const std::string& path) {
  Tensor features = state_->ready(path);
  if (!features.defined()) {
    state_->scan();  // another process may have made them
    features = state_->ready(path);
  }
  return features.defined() ? features : state_->run_tower({path});
}

void FeatureStore::prefetch(const std::vector<std::string>& paths,
                            const std::function<void(std::int64_t)>& progress) {
  constexpr std::size_t kPictures = 32;  // decoded at a time
  std::vector<std::string> missing;
  std::unordered_map<std::string, bool> seen;
  std::int64_t ready = 0;
  state_->scan();
  for (const std::string& path : paths) {
    const std::vector<std::string>& names = state_->tiles(path);
    const bool whole =
        std::all_of(names.begin(), names.end(), [&](const std::string& name) { return state_->known(name); });
    if (seen.emplace(names.front(), true).second && !whole)
      missing.push_back(path);
    else
      ++ready;
  }
  if (progress && ready > 0) progress(ready);
  for (std::size_t begin = 0; begin < missing.size(); begin += kPictures) {
    const std::size_t end = std::min(missing.size(), begin + kPictures);
    state_->run_tower({missing.begin() + static_cast<std::ptrdiff_t>(begin),
                       missing.begin() + static_cast<std::ptrdiff_t>(end)});
    if (progress) progress(static_cast<std::int64_t>(end - begin));
  }
}

std::int64_t FeatureStore::computed() const { return state_->computed; }

}  // namespace mcit
