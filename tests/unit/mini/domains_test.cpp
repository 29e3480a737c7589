// The built-in domains: the pack's concepts in four styles, in the layout of Office-Home.
#include "mini/domains.hpp"

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <map>
#include <set>

#include "core/config.hpp"
#include "data/check_data.hpp"
#include "data/classification.hpp"
#include "mcit/errors.hpp"
#include "mini/canvas.hpp"
#include "mini/styles.hpp"
#include "mini_support.hpp"

using namespace mcit;
using namespace mcit::mini;
using Catch::Approx;
using Catch::Matchers::Message;
using mcit::mini::testing::pack;
using mcit::mini::testing::TemporaryFolder;

namespace {

namespace fs = std::filesystem;

/// Two classes of two pictures.
DomainOptions few() {
  DomainOptions options;
  options.classes = options.pictures = 2;
  return options;
}

std::string bytes(const Raster& picture) { return {picture.data.begin(), picture.data.end()}; }

std::string bytes(std::string_view domain, const Thing& thing, int index, const DomainOptions& options = {}) {
  return bytes(domain_picture(options, domain, thing, index));
}

/// A picture whose left half has one colour and whose right half another.
Raster halves(Color left, Color right) {
  Canvas canvas;
  canvas.fill(left);
  Place place;
  place.x = 64;
  place.width = 64;
  place.height = 200;
  canvas.shape(ShapeKind::kRectangle, place, right, 1);
  return canvas.picture();
}

std::size_t entries(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), {}));
}

}  // namespace

TEST_CASE("lines are drawn where a colour changes, and nowhere else") {
  const Color paper{250, 240, 230}, ink{10, 20, 30};
  // Equally bright, so that only the channels by themselves tell them apart.
  const Raster lines = line_drawing(halves({200, 0, 0}, {0, 102, 0}), paper, ink);
  for (int y = 0; y < 64; ++y) {
    for (const int x : {0, 10, 30, 33, 50, 63}) {
      INFO(x << ", " << y);
      REQUIRE(std::vector<int>(lines.at(x, y), lines.at(x, y) + 3) == std::vector<int>{250, 240, 230});
    }
    for (const int x : {31, 32})  // on both sides of the edge
      REQUIRE(std::vector<int>(lines.at(x, y), lines.at(x, y) + 3) == std::vector<int>{10, 20, 30});
  }
  // A change of 8 levels is a shade, not a line; one of 100 is.
  CHECK(*line_drawing(halves({100, 100, 100}, {108, 108, 108}), paper, ink).at(32, 32) == 250);
  CHECK(*line_drawing(halves({100, 100, 100}, {200, 200, 200}), paper, ink).at(32, 32) == 10);
}

TEST_CASE("a negative has every channel inverted") {
  const Raster inverted = negative(halves({255, 200, 0}, {1, 2, 3}));
  CHECK(std::vector<int>(inverted.at(0, 0), inverted.at(0, 0) + 3) == std::vector<int>{0, 55, 255});
  CHECK(std::vector<int>(inverted.at(63, 63), inverted.at(63, 63) + 3) == std::vector<int>{254, 253, 252});
}

TEST_CASE("a square that lies somewhere lies in the picture") {
  Rng rng(3);
  std::set<float> widths;
  for (int i = 0; i < 200; ++i) {
    const Place place = somewhere(rng, 34, 60);
    REQUIRE((place.width >= 34 && place.width <= 60 && place.height == place.width));
    for (const float middle : {place.x, place.y})
      REQUIRE((middle - place.width / 2 >= -0.001F && middle + place.width / 2 <= 64.001F));
    widths.insert(place.width);
  }
  CHECK(widths.size() > 190);
}

TEST_CASE("concepts are spread over the groups") {
  std::map<std::string, int> groups;
  for (const Thing* thing : domain_concepts(pack(), 54)) ++groups[thing->group];
  CHECK(groups.size() == 18);
  for (const auto& [group, count] : groups) CHECK(count == 3);
  groups.clear();
  const auto twenty = domain_concepts(pack(), 20);
  for (const Thing* thing : twenty) ++groups[thing->group];
  CHECK(groups.size() == 18);
  for (const auto& [group, count] : groups) CHECK(count <= 2);
  CHECK(twenty[0]->name == "cat");
  CHECK(twenty[1]->name == "chicken");
  CHECK(twenty[18]->name == "dog");
  CHECK(domain_concepts(pack(), 162).size() == pack().concepts.size());
  CHECK_THROWS_MATCHES(domain_concepts(pack(), 163), ConfigError,
                       Message("mini.classes: the pack has 162 concepts, not 163; ask for fewer"));
}

TEST_CASE("a picture is a function of seed, jitter, domain, concept and number alone") {
  const Thing &cat = pack().concepts[0], &dog = pack().concepts[1];
  std::set<std::string> all;
  for (const std::string_view domain : domain_names()) {
    INFO(domain);
    const Raster picture = domain_picture({}, domain, cat, 3);
    REQUIRE((picture.width == 64 && picture.height == 64 && picture.channels == 3));
    CHECK(bytes(domain, cat, 3, few()) == bytes(picture));
    DomainOptions seed, plain;
    seed.seed = 2;
    plain.jitter = 0;
    all.insert({bytes(picture), bytes(domain, cat, 4), bytes(domain, dog, 3), bytes(domain, cat, 3, seed),
                bytes(domain, cat, 3, plain)});
  }
  CHECK(all.size() == 5 * domain_names().size());
  CHECK_THROWS_MATCHES(domain_picture({}, "Sketsh", cat, 0), ConfigError,
                       Message("domain: there is no domain 'Sketsh'; did you mean 'Sketch'?"));
}

TEST_CASE("domains share neither grounds nor places") {
  int equal = 0;
  for (int i = 0; i < 20; ++i)
    equal += bytes("Twemoji", pack().concepts[0], i).substr(0, 3) ==
                     bytes("Noto", pack().concepts[0], i).substr(0, 3)
                 ? 1
                 : 0;
  CHECK(equal <= 1);
}

TEST_CASE("without jitter a picture still moves: training and test pictures differ") {
  DomainOptions plain;
  plain.jitter = 0;
  for (const std::string_view domain : domain_names()) {
    std::set<std::string> all;
    for (int i = 0; i < 20; ++i) all.insert(bytes(domain, pack().concepts[0], i, plain));
    CHECK(all.size() == 20);
  }
}

TEST_CASE("each domain has its own look") {
  const Pack spoiled = mcit::mini::testing::without_test_side();
  DomainOptions plain;
  plain.jitter = 0;
  for (std::size_t thing = 0; thing < pack().concepts.size(); thing += 20) {
    INFO(pack().concepts[thing].name);
    // Only Noto is drawn from the other vendor.
    for (const std::string_view domain : domain_names())
      CHECK((bytes(domain, pack().concepts[thing], 0) == bytes(domain, spoiled.concepts[thing], 0)) ==
            (domain != "Noto"));
    const auto sketch = domain_picture({}, "Sketch", pack().concepts[thing], 0).data;
    std::size_t paper = 0, ink = 0;
    for (std::size_t i = 0; i < sketch.size(); i += 3) {
      REQUIRE((sketch[i] == sketch[i + 1] && sketch[i] == sketch[i + 2]));
      paper += sketch[i] >= 225 ? 1 : 0;
      ink += sketch[i] <= 70 ? 1 : 0;
    }
    CHECK(paper > sketch.size() / 3 / 2);
    CHECK(ink > 100);
    // The corner of a negative is its ground: even, and darker than the middle grey.
    const auto dark = domain_picture(plain, "Negative", pack().concepts[thing], 0).data;
    CHECK((dark[0] == dark[1] && dark[0] == dark[2] && dark[0] >= 40 && dark[0] <= 105));
  }
}

TEST_CASE("a suite's table sets the domains' options") {
  const Config table = Config::parse("seed = 7\nclasses = 10\npictures = 5\njitter = 0.5\n", "suite.toml");
  const DomainOptions options = read_domain_options(table);
  table.finish();
  CHECK(options.seed == 7);
  CHECK(options.classes == 10);
  CHECK(options.pictures == 5);
  CHECK(options.jitter == 0.5);
  const DomainOptions defaults = read_domain_options(Config());
  CHECK(defaults.classes == 54);
  CHECK(defaults.pictures == 20);
  CHECK(defaults.jitter == 0.4);
  CHECK(defaults.seed == 1);
  const auto refused = [](const std::string& text, const std::string& message) {
    CHECK_THROWS_MATCHES(read_domain_options(Config::parse(text, "suite.toml")), ConfigError,
                         Message("suite.toml:1: " + message));
  };
  refused("classes = 1", "classes: must be at least 2, found 1");
  refused("pictures = 1", "pictures: must be at least 2, found 1");
  refused("pictures = 1001", "pictures: must be at most 1000, found 1001");
  refused("jitter = 1.5", "jitter: must be at most 1.0, found 1.5");
  refused("seed = -1", "seed: must be at least 0, found -1");
}

TEST_CASE("the cache holds the domains of one set of options in one folder, written once") {
  const TemporaryFolder cache;
  std::vector<std::string> drawn;
  const MiniProgress progress = [&](std::string_view domain, std::size_t number, std::size_t count) {
    CHECK(number == drawn.size() % 4);
    CHECK(count == 4);
    drawn.emplace_back(domain);
  };
  const fs::path folder = materialise_domains(pack(), few(), cache.path(), progress);
  CHECK(drawn == std::vector<std::string>{"Twemoji", "Noto", "Sketch", "Negative"});
  CHECK(folder.parent_path() == cache.path());
  CHECK(entries(folder) == 4);
  for (const std::string_view domain : domain_names()) {
    CHECK(entries(folder / domain) == 3);  // two classes and meta.json
    for (const Thing* thing : domain_concepts(pack(), 2)) {
      CHECK(entries(folder / domain / thing->name) == 2);
      for (int i = 0; i < 2; ++i)
        CHECK(bytes(read_png(folder / domain / thing->name / ("00" + std::to_string(i) + ".png"), 3)) ==
              bytes(domain, *thing, i));
    }
  }
  CHECK(materialise_domains(pack(), few(), cache.path(), progress) == folder);
  CHECK(drawn.size() == 4);  // nothing anew
  std::vector<DomainOptions> others(4, few());
  others[0].seed = 9;
  others[1].jitter = 0.5;
  others[2].classes = 3;
  others[3].pictures = 3;
  std::set<fs::path> folders{folder};
  for (const DomainOptions& other : others) folders.insert(materialise_domains(pack(), other, cache.path()));
  CHECK(folders.size() == 5);
}

TEST_CASE("a domain that another process writes meanwhile is taken, half a one is not") {
  const TemporaryFolder cache;
  const fs::path folder = materialise_domains(pack(), few(), cache.path());
  fs::remove_all(folder / "Noto");
  fs::rename(folder / "Sketch", cache.path() / "kept");
  const auto race = [&](const std::string& lost) {
    return materialise_domains(pack(), few(), cache.path(),
                               [&](std::string_view domain, std::size_t, std::size_t) {
                                 if (domain != "Sketch") return;
                                 fs::rename(cache.path() / "kept", folder / "Sketch");
                                 if (!lost.empty()) fs::remove(folder / "Sketch" / lost);
                               });
  };
  CHECK(race("") == folder);
  CHECK(entries(folder) == 4);  // and nothing unfinished beside them
  fs::rename(folder / "Sketch", cache.path() / "kept");
  CHECK_THROWS_AS(race("meta.json"), DataError);
  CHECK(entries(folder) == 4);
}

TEST_CASE("the suite of the domains says what is made") {
  const TemporaryFolder cache;
  Suite suite = read_suite(mcit::mini::testing::mini_folder() / "mini_domains.toml");
  REQUIRE(suite.builtin.has_value());
  const DomainOptions options = read_domain_options(*suite.builtin);
  suite.file.finish();
  suite.data = materialise_domains(pack(), options, cache.path());
  const DataReport report = check_data(suite, {.deep = true, .limit = 5}, {});
  for (const DataFault& fault : report.faults) UNSCOPED_INFO(fault.file << ": " << fault.what);
  CHECK(report.total_faults == 0);
  std::vector<std::string> concepts;
  for (const Thing* thing : domain_concepts(pack(), options.classes)) concepts.push_back(thing->name);
  std::sort(concepts.begin(), concepts.end());
  std::vector<std::string> folders;
  for (const SuiteTask& task : suite.tasks) {
    folders.push_back(task.folder.string());
    CHECK_FALSE(task.expected_train.empty());
    CHECK_FALSE(task.expected_test.empty());
    CHECK(task.chance.value_or(-1) == Approx(100.0 / options.classes).margin(0.051));
    CHECK(read_class_task(suite, task).classes == concepts);
  }
  CHECK(folders == std::vector<std::string>(domain_names().begin(), domain_names().end()));
}
