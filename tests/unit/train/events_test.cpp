#include "train/events.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "unit/core/temporary.hpp"

namespace mcit {
namespace {

struct Point {
  std::string tag;
  std::int64_t step = 0;
  float value = 0;
  bool operator==(const Point&) const = default;
};

/// A reader of what we write, no more: records of Events whose summaries hold tag and simple_value. Sums of
/// bytes are checked elsewhere.
class Reader {
 public:
  static std::vector<Point> points(const std::string& file) {
    std::vector<Point> out;
    for (std::size_t at = 0; at < file.size();) {
      std::uint64_t size = 0;
      for (std::size_t i = 8; i-- > 0;) size = size << 8 | static_cast<unsigned char>(file.at(at + i));
      event(file.substr(at + 12, size), out);
      at += 16 + size;
    }
    return out;
  }

 private:
  explicit Reader(std::string bytes) : bytes_(std::move(bytes)) {}

  static void event(const std::string& bytes, std::vector<Point>& out) {
    Reader r(bytes);
    std::int64_t step = 0;
    while (r.more()) {
      const std::uint64_t key = r.varint();
      if (key == 0x09)
        r.skip(8);
      else if (key == 0x10)
        step = static_cast<std::int64_t>(r.varint());
      else if (key == 0x1a)
        r.text();
      else
        for (Reader summary(r.text()); summary.more();) {
          REQUIRE(summary.varint() == 0x0a);
          Reader value(summary.text());
          REQUIRE(value.varint() == 0x0a);
          Point point{value.text(), step, 0};
          REQUIRE(value.varint() == 0x15);
          std::memcpy(&point.value, value.bytes_.data() + value.at_, 4);
          out.push_back(point);
        }
    }
  }

  bool more() const { return at_ < bytes_.size(); }
  void skip(std::size_t n) { at_ += n; }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes_.at(at_++));
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }
  std::string text() {
    const std::uint64_t size = varint();
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }

  std::string bytes_;
  std::size_t at_ = 0;
};

AccuracyMatrix two_tasks() { return AccuracyMatrix({"a", "b"}); }

const std::vector<Json> kLines = {
    {{"stage", 1}, {"task", "a"}, {"step", 1}, {"loss", 2.5}, {"seconds", 1.0}},
    {{"stage", 1}, {"task", "a"}, {"step", 2}, {"loss", 2.0}, {"seconds", 1.0}, {"strategy.penalty", 0.5}},
    {{"stage", 1}, {"task", "a"}, {"hook", "after_task"}, {"strategy.fisher", 3.0}},
    {{"stage", 2}, {"task", "b"}, {"step", 1}, {"loss", 4.0}, {"seconds", 1.0}},
};

std::string lines_until(std::size_t end) {
  std::string out;
  for (std::size_t i = 0; i < end; ++i) out += dump_json(kLines[i]) + "\n";
  return out;
}

TEST_CASE("steps run on over the stages, and names say who wrote a number") {
  LineEvents events;
  CHECK(events.next(kLines[0]).step == 1);
  const LineEvents::Event second = events.next(kLines[1]);
  CHECK(second.step == 2);
  REQUIRE(second.scalars.size() == 3);
  CHECK(second.scalars[0].tag == "train/loss");
  CHECK(second.scalars[2].tag == "strategy/penalty");
  const LineEvents::Event hook = events.next(kLines[2]);
  CHECK(hook.step == 2);
  CHECK(hook.scalars.at(0).tag == "after_task/fisher");
  CHECK(events.next(kLines[3]).step == 3);
  CHECK(events.next({{"stage", 2}, {"step", 2}, {"loss", std::nan("")}}).scalars.empty());
}

TEST_CASE("a run that is taken up again has every point once") {
  const test::TemporaryFolder folder;
  const auto metrics = folder / "metrics.jsonl", file = folder / "events";
  AccuracyMatrix matrix = two_tasks();
  matrix.set_row(0, {10.0, 20.0});
  {
    RunEvents whole(file, metrics, AccuracyMatrix(two_tasks()));
    whole.scores(matrix, 0);
    for (std::size_t i = 0; i < 3; ++i) whole.line(kLines[i]);
    matrix.set_row(1, {60.0, 25.0});
    whole.scores(matrix, 1);
    whole.line(kLines[3]);
  }
  const std::vector<Point> expected = Reader::points(read_file(file));
  REQUIRE(expected.size() == 2 + 2 + 3 + 1 + 2 + 2);
  CHECK(expected[0] == Point{"score/a", 0, 10.0F});
  CHECK(expected.back() == Point{"train/seconds", 3, 1.0F});

  const std::size_t kept = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{3}, std::size_t{4});
  const bool removed = GENERATE(false, true);
  INFO(kept << " lines kept, event file removed: " << removed);
  write_atomic(metrics, lines_until(kept));
  if (removed) std::filesystem::remove(file);
  AccuracyMatrix known = two_tasks();
  known.set_row(0, {10.0, 20.0});
  if (kept == 4) known.set_row(1, {60.0, 25.0});
  {
    RunEvents again(file, metrics, known);
    for (std::size_t i = kept; i < 3; ++i) again.line(kLines[i]);
    if (kept < 4) {
      again.scores(matrix, 1);
      again.line(kLines[3]);
    }
  }
  CHECK(Reader::points(read_file(file)) == expected);
}

}  // namespace
}  // namespace mcit
