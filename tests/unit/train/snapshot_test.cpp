// Snapshots survive what can happen to a file: what reads back is what was written, or an earlier one.
#include "train/snapshot.hpp"

#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"

#include "torch_catch.hpp"

namespace mcit::test {
namespace {

Snapshot made(std::int64_t stage, std::int64_t step, bool trained = false) {
  const auto number = static_cast<double>(stage * 1000 + step);
  Snapshot out;
  out.stage = stage;
  out.step = step;
  out.trained = trained;
  out.strategy = {{"lora.A", at::arange(6, at::kFloat).view({2, 3}) + number},
                  {"count", at::full({}, 7 + stage, at::kLong)},
                  {"empty", at::zeros({0, 4})}};
  out.optimizer = {{"lora.A.exp_avg", at::full({2, 3}, 0.5 * number, at::kDouble)},
                   {"lora.A.step", at::full({}, step, at::kFloat)}};
  out.trainable = {"lora.A", "b"};
  out.result = R"({"suite": "mini4", "rows": [[1.5, null]]})";
  out.metrics_bytes = 12345678901ULL;
  out.costs = {{"seconds", 0.1 + number}, {"hook.loss", 1e-3}};
  return out;
}

bool same(const StateDict& a, const StateDict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, tensor] : a) {
    const auto other = b.find(name);
    if (other == b.end() || other->second.scalar_type() != tensor.scalar_type() ||
        other->second.sizes() != tensor.sizes() || !at::equal(other->second, tensor))
      return false;
  }
  return true;
}

bool same(const Snapshot& a, const Snapshot& b) {
  return a.stage == b.stage && a.step == b.step && a.trained == b.trained && same(a.strategy, b.strategy) &&
         same(a.optimizer, b.optimizer) && a.trainable == b.trainable && a.result == b.result &&
         a.metrics_bytes == b.metrics_bytes && a.costs == b.costs;
}

std::vector<std::filesystem::path> files_in(const TemporaryFolder& folder) {
  std::vector<std::filesystem::path> out;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

TEST_CASE("a snapshot reads back whole, types and shapes with it") {
  const TemporaryFolder folder;
  write_snapshot(folder.path(), made(1, 40));
  const auto back = read_newest_snapshot(folder.path());
  REQUIRE(back.has_value());
  CHECK(same(*back, made(1, 40)));
  CHECK_FALSE(same(*back, made(1, 41)));
  // What was read no longer depends on the file, and may be changed.
  std::filesystem::remove(files_in(folder).at(0));
  back->strategy.at("lora.A").add_(1.0);
  CHECK(back->strategy.at("lora.A")[0][0].item<float>() == 1041.0F);
}

TEST_CASE("a tensor that is a view or on a graph is stored by its values") {
  const TemporaryFolder folder;
  Snapshot s = made(0, 1);
  const Tensor wide = at::arange(12, at::kFloat).view({3, 4});
  s.strategy = {{"t", wide.t()}, {"g", at::ones({2}).set_requires_grad(true) * 2.0}};
  write_snapshot(folder.path(), s);
  const StateDict back = read_newest_snapshot(folder.path())->strategy;
  CHECK(at::equal(back.at("t"), wide.t()));
  CHECK(at::equal(back.at("g"), at::full({2}, 2.0F)));
}

TEST_CASE("no folder or an empty one holds no snapshot") {
  const TemporaryFolder folder;
  CHECK_FALSE(read_newest_snapshot(folder.path()).has_value());
  CHECK_FALSE(read_newest_snapshot(folder / "absent").has_value());
  write(folder / "notes.txt", "no snapshot");
  CHECK_FALSE(read_newest_snapshot(folder.path()).has_value());
}

TEST_CASE("the two newest are kept, by stage, step and the stage's end") {
  const TemporaryFolder folder;
  const std::vector<Snapshot> order = {made(0, 0),         made(0, 9), made(0, 10), made(0, 100),
                                       made(0, 100, true), made(1, 0), made(1, 2),  made(10, 0)};
  for (const Snapshot& s : order) {
    write_snapshot(folder.path(), s);
    CHECK(same(*read_newest_snapshot(folder.path()), s));
    CHECK(files_in(folder).size() == (&s == &order.front() ? 1 : 2));
  }
  std::filesystem::remove(files_in(folder).back());
  CHECK(same(*read_newest_snapshot(folder.path()), made(1, 2)));
  const TemporaryFolder end;
  write_snapshot(end.path(), made(0, 100));
  write_snapshot(end.path(), made(0, 100, true));  // a file of its own
  std::filesystem::remove(files_in(end).back());
  const auto before = read_newest_snapshot(end.path());
  REQUIRE(before.has_value());
  CHECK(same(*before, made(0, 100)));
}

TEST_CASE("a newest snapshot cut short anywhere gives way to the one before it") {
  const TemporaryFolder folder;
  write_snapshot(folder.path(), made(0, 10));
  write_snapshot(folder.path(), made(0, 20));
  const auto newest = files_in(folder).at(1);
  const std::string bytes = slurp(newest);
  for (std::size_t length = 0; length < bytes.size(); length += length < 16 ? 1 : 13) {
    INFO("cut to " << length << " of " << bytes.size() << " bytes");
    write(newest, bytes.substr(0, length));
    const auto back = read_newest_snapshot(folder.path());
    REQUIRE(back.has_value());
    CHECK(same(*back, made(0, 10)));
  }
  write(newest, bytes);
  CHECK(same(*read_newest_snapshot(folder.path()), made(0, 20)));
}

TEST_CASE("a flipped bit anywhere in the newest snapshot is noticed") {
  const TemporaryFolder folder;
  write_snapshot(folder.path(), made(0, 10));
  write_snapshot(folder.path(), made(0, 20));
  const auto newest = files_in(folder).at(1);
  const std::string bytes = slurp(newest);
  std::fstream file(newest, std::ios::binary | std::ios::in | std::ios::out);
  const auto put = [&](std::size_t at, char byte) {
    file.seekp(static_cast<std::streamoff>(at)).put(byte).flush();
  };
  // 0x0f turns the F of F32 into the I of I32, the others a digit or a letter into its neighbour.
  for (const int mask : {0x01, 0x04, 0x0f}) {
    std::string missed;
    int misses = 0;
    for (std::size_t at = 0; at < bytes.size(); ++at) {
      put(at, static_cast<char>(bytes[at] ^ mask));
      const auto back = read_newest_snapshot(folder.path());
      REQUIRE(back.has_value());
      if (!same(*back, made(0, 10)) && !same(*back, made(0, 20)) && misses++ == 0)
        missed = slurp(newest).substr(at < 30 ? 0 : at - 30, 60);
      put(at, bytes[at]);
    }
    INFO("mask " << mask << ": " << misses << " of " << bytes.size() << " flips go unnoticed, the first in "
                 << missed);
    CHECK(misses == 0);
  }
}

TEST_CASE("when all snapshots are damaged the run does not start from nothing") {
  const TemporaryFolder folder;
  write_snapshot(folder.path(), made(0, 10));
  write_snapshot(folder.path(), made(0, 20));
  for (const auto& file : files_in(folder)) {
    const std::string bytes = slurp(file);
    write(file, bytes.substr(0, bytes.size() - 1));
  }
  try {
    read_newest_snapshot(folder.path());
    FAIL("no error");
  } catch (const CheckpointError& e) {
    const std::string what = e.what();
    CHECK(what.find(folder.path().string() + ": holds no readable snapshot") == 0);
    CHECK(what.find("0000-000000010.safetensors") != std::string::npos);  // why the last one tried is none
  }
}

}  // namespace mcit::test
