// Samples of examples: a reservoir of all that were met, and an even spread over a stage's.
#include "mcit/parts/examples.hpp"
#include "mcit/parts/reservoir.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

#include "mcit/errors.hpp"

namespace mcit::parts {
namespace {

/// SplitMix64 (Steele, Lea, Flood 2014) as a counter-based generator: a stream of bits for each list of
/// numbers.
class Stream {
 public:
  explicit Stream(std::uint64_t seed) : state_(seed) {}

  /// The stream that `part` names within this one.
  void enter(std::uint64_t part) { state_ = next() ^ (part * 0xd1342543de82ef95ULL); }

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }

  /// 0 .. n-1, each equally likely.
  std::size_t below(std::size_t n) {
    const std::uint64_t biased =
        (0 - std::uint64_t{n}) % n;  // 2^64 mod n: what the last, incomplete turn would favour
    std::uint64_t draw = next();
    while (draw < biased) draw = next();
    return static_cast<std::size_t>(draw % n);
  }

 private:
  std::uint64_t state_;
};

constexpr std::uint64_t kAdd = 1, kDraw = 2;  // streams of the two purposes

}  // namespace

Reservoir::Reservoir(std::int64_t capacity, std::uint64_t seed) : capacity_(capacity), seed_(seed) {
  if (capacity < 1) throw ConfigError("strategy.buffer", "must be at least 1");
}

void Reservoir::add(const ExamplePtr& example) {
  ++seen_;
  const Slot slot{example->task, example->index, example};
  if (size() < capacity_) {
    slots_.push_back(slot);
    return;
  }
  Stream random(seed_);
  random.enter(kAdd);
  random.enter(static_cast<std::uint64_t>(seen_));
  const std::size_t place = random.below(static_cast<std::size_t>(seen_));
  if (place < slots_.size()) slots_[place] = slot;
}

std::vector<ExamplePtr> Reservoir::draw(std::int64_t count, std::initializer_list<std::int64_t> key,
                                        Host& host) {
  Stream random(seed_);
  random.enter(kDraw);
  random.enter(static_cast<std::uint64_t>(seen_));
  for (const std::int64_t part : key) random.enter(static_cast<std::uint64_t>(part));

  std::vector<std::size_t> order(slots_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::vector<ExamplePtr> drawn;
  for (std::size_t i = 0; i < order.size() && std::cmp_less(i, count);
       ++i) {  // the head of a Fisher-Yates shuffle
    std::swap(order[i], order[i + random.below(order.size() - i)]);
    Slot& slot = slots_[order[i]];
    if (!slot.example) slot.example = host.example(slot.task, slot.index);
    drawn.push_back(slot.example);
  }
  return drawn;
}

void Reservoir::save(StateDict& state, const std::string& prefix) const {
  Tensor items = at::empty({size(), 2}, at::kLong), counters = at::empty({2}, at::kLong);
  auto* out = items.data_ptr<std::int64_t>();
  for (const Slot& slot : slots_) {
    *out++ = slot.task;
    *out++ = slot.index;
  }
  counters.data_ptr<std::int64_t>()[0] = std::bit_cast<std::int64_t>(seed_);
  counters.data_ptr<std::int64_t>()[1] = seen_;
  state[prefix + ".items"] = items;
  state[prefix + ".counters"] = counters;
}

void Reservoir::load(StateReader& reader, const std::string& prefix) {
  const Tensor items = reader.take(prefix + ".items", at::kLong),
               counters = reader.take(prefix + ".counters", at::kLong);
  if (items.dim() != 2 || items.size(1) != 2)
    throw CheckpointError(prefix + ".items", "is no list of (task, index) pairs");
  if (counters.dim() != 1 || counters.size(0) != 2)
    throw CheckpointError(prefix + ".counters", "holds no seed and count");
  const std::uint64_t seed = std::bit_cast<std::uint64_t>(counters.const_data_ptr<std::int64_t>()[0]);
  const std::int64_t seen = counters.const_data_ptr<std::int64_t>()[1];
  if (seen < 0 || items.size(0) != std::min(seen, capacity_))
    throw CheckpointError(prefix + ".items",
                          std::to_string(items.size(0)) + " examples kept of " + std::to_string(seen) +
                              " do not fit a buffer of " + std::to_string(capacity_),
                          "the capacity must stay as it was");
  std::vector<Slot> slots;
  const auto* pair = items.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < items.size(0); ++i, pair += 2) {
    if (pair[0] < 0 || pair[1] < 0) throw CheckpointError(prefix + ".items", "names a negative task or row");
    slots.push_back({pair[0], pair[1], nullptr});
  }
  reader.then([this, seed, seen, slots = std::move(slots)] {
    seed_ = seed;
    seen_ = seen;
    slots_ = slots;
  });
}

ExampleBatches::~ExampleBatches() = default;

bool ExampleBatches::next(Batch& batch) {
  batch.examples.clear();
  while (at_ < examples_.size() && batch.size() < size_) batch.examples.push_back(examples_[at_++]);
  return batch.size() > 0;
}

void ExampleBatches::rewind(std::int64_t batch_size) {
  if (batch_size < 1) throw Error("Batches::rewind", "a batch holds at least one example");
  size_ = static_cast<std::size_t>(batch_size);
  at_ = 0;
}

std::int64_t visit_spread(Batches& batches, std::int64_t wanted, std::int64_t size,
                          const std::function<void(const Batch&)>& visit) {
  const std::int64_t all = batches.examples();
  wanted = std::min(wanted, all);
  std::int64_t seen = 0, taken = 0;
  Batch picked, batch;
  for (batches.rewind(std::max<std::int64_t>(size, 1)); taken < wanted && batches.next(batch);) {
    for (const ExamplePtr& example : batch.examples) {
      if (taken == wanted || seen++ != taken * all / wanted) continue;
      ++taken;
      picked.examples.push_back(example);
      if (static_cast<std::int64_t>(picked.size()) < size && taken < wanted) continue;
      visit(picked);
      picked.examples.clear();
    }
  }
  return taken;
}

}  // namespace mcit::parts
