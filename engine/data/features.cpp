#include "data/features.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

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

/// Pictures that go through the tower together. Always exactly this many (the last ones padded), so that a
/// picture's features do not depend on how many others were missing.
constexpr std::int64_t kTowerBatch = 32;
constexpr std::size_t kNameBytes = 32, kSumBytes = 32;  // hex digests of picture and record

}  // namespace

struct FeatureStore::State {
  FeatureStoreOptions options;
  Load load;
  Compute compute;
  std::size_t data_bytes = 0;
  int file = -1;
  std::unordered_map<std::string, std::int64_t> on_disk;   ///< picture digest -> record number
  std::unordered_map<std::string, Tensor> in_memory;       ///< picture digest -> features
  std::unordered_map<std::string, std::string> digest_of;  ///< path -> picture digest
  std::uint64_t memory = 0;
  std::int64_t computed = 0, scanned = 0;

  std::size_t record_bytes() const { return kNameBytes + kSumBytes + data_bytes; }

  const std::string& digest(const std::string& path) {
    auto found = digest_of.find(path);
    if (found == digest_of.end()) found = digest_of.emplace(path, hash_file(path)).first;
    return found->second;
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

  Tensor ready(const std::string& path) {
    const std::string& name = digest(path);
    if (const auto found = in_memory.find(name); found != in_memory.end()) return found->second;
    Tensor features = read(name);
    if (features.defined()) keep(name, features);
    return features;
  }

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

  /// @param paths at most kTowerBatch
  std::vector<Tensor> run_tower(const std::vector<std::string>& paths) {
    std::vector<Tensor> pixels = load_all(paths);
    const auto count = static_cast<std::int64_t>(pixels.size());
    pixels.resize(kTowerBatch, pixels.front());
    Tensor features;
    {
      const at::NoGradGuard no_grad;
      features = compute(at::stack(pixels)).to(at::kCPU, at::kFloat).contiguous();
    }
    if (features.sizes().slice(1) != at::IntArrayRef(options.shape))
      throw Error("feature cache", "the tower gave features of another shape than announced");
    std::vector<Tensor> out;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::string& name = digest(paths[static_cast<std::size_t>(i)]);
      out.push_back(features[i].clone());
      append(name, out.back());
      keep(name, out.back());
    }
    scan();
    computed += count;
    return out;
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
  return features.defined() ? features : state_->run_tower({path}).front();
}

void FeatureStore::prefetch(const std::vector<std::string>& paths,
                            const std::function<void(std::int64_t)>& progress) {
  std::vector<std::string> missing;
  std::unordered_map<std::string, bool> seen;
  std::int64_t ready = 0;
  state_->scan();
  for (const std::string& path : paths) {
    const std::string& name = state_->digest(path);
    if (seen.emplace(name, true).second && !state_->in_memory.contains(name) &&
        !state_->on_disk.contains(name))
      missing.push_back(path);
    else
      ++ready;
  }
  if (progress && ready > 0) progress(ready);
  for (std::size_t begin = 0; begin < missing.size(); begin += kTowerBatch) {
    const std::size_t end = std::min(missing.size(), begin + kTowerBatch);
    state_->run_tower({missing.begin() + static_cast<std::ptrdiff_t>(begin),
                       missing.begin() + static_cast<std::ptrdiff_t>(end)});
    if (progress) progress(static_cast<std::int64_t>(end - begin));
  }
}

std::int64_t FeatureStore::computed() const { return state_->computed; }

}  // namespace mcit
