// Tasks of a classify suite: folders of classes, lists, and the look at both before any training.
#include "data/classification.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <map>
#include <set>

#include "data/check_data.hpp"
#include "mcit/errors.hpp"
#include "unit/data/pillow.hpp"

namespace mcit::test {
namespace {

namespace fs = std::filesystem;
using Texts = std::vector<std::string>;

/// A suite of one task, and its data beside it. Pictures are empty files but for those that are looked into.
class Classified {
 public:
  explicit Classified(const std::string& task, const std::string& more = "") {
    fs::create_directories(folder_ / "files");
    write(folder_ / "suite.toml",
          "kind = \"classify\"\ndata = \"files\"\n" + more + "\n[[tasks]]\nname = \"art\"\n" + task);
  }
  void add(const std::string& file, const std::string& bytes = "") const {
    fs::create_directories((folder_ / ("files/" + file)).parent_path());
    write(folder_ / ("files/" + file), bytes);
  }
  void add_pictures(const std::string& folder, int count) const {
    for (int i = 0; i < count; ++i) add(folder + "/" + std::to_string(100 + i) + ".jpg");
  }
  Suite suite() const { return read_suite(folder_ / "suite.toml"); }
  ClassTask read() const {
    const Suite suite = this->suite();
    return read_class_task(suite, suite.tasks.front());
  }
  /// The message of the DataError that reading ends in, without the data folder's name.
  std::string refusal() const {
    try {
      read();
    } catch (const DataError& e) {
      return plain(e.what());
    }
    return "no error";
  }
  /// "file line: what" of every fault.
  Texts faults(bool deep = false, std::int64_t limit = 100) {
    report = check_data(suite(), {.deep = deep, .limit = limit}, {});
    Texts out;
    for (const DataFault& fault : report.faults)
      out.push_back(plain(fault.file) + " " + std::to_string(fault.row) + ": " + plain(fault.what));
    return out;
  }
  fs::path operator/(const std::string& name) const { return folder_ / ("files/" + name); }

  DataReport report;

 private:
  std::string plain(std::string text) const {
    const std::string path = (folder_ / "files/").string();
    for (std::size_t at = text.find(path); at != std::string::npos; at = text.find(path))
      text.erase(at, path.size());
    return text;
  }

  TemporaryFolder folder_;
};

Texts ids(const std::vector<ClassRecord>& records) {
  Texts out;
  for (const ClassRecord& record : records) out.push_back(record.id);
  return out;
}

Texts ids_of(const std::vector<ClassRecord>& records, std::int64_t label) {
  Texts out;
  for (const ClassRecord& record : records)
    if (record.label == label) out.push_back(record.id);
  return out;
}

const std::string kFolder = "folder = \"Art\"\n";
const std::string kLists = "train = \"train.txt\"\ntest = \"test.txt\"\n";

TEST_CASE("a folder's classes are its sub-folders in the order of their names") {
  Classified data(kFolder, "train_share = 0.5");
  data.add_pictures("Art/Exit_Sign", 4);
  data.add_pictures("Art/Alarm Clock", 2);
  data.add("Art/readme.txt");
  data.add("Art/Alarm Clock/notes.txt");
  data.add("Art/Alarm Clock/Thumbs.db");
  data.add("Art/Alarm Clock/deeper/200.jpg");
  const ClassTask task = data.read();
  CHECK(task.classes == Texts{"Alarm Clock", "Exit Sign"});
  REQUIRE(task.train.size() == 3);
  REQUIRE(task.test.size() == 3);
  for (const auto* side : {&task.train, &task.test}) {
    for (const ClassRecord& record : *side) {
      CHECK(record.id == record.image);
      CHECK(fs::exists(data / record.image));
      CHECK(record.image.starts_with(record.label == 0 ? "Art/Alarm Clock/1" : "Art/Exit_Sign/1"));
      CHECK(record.line == 0);
    }
    CHECK(std::is_sorted(side->begin(), side->end(),
                         [](const ClassRecord& a, const ClassRecord& b) { return a.id < b.id; }));
  }
  std::set<std::string> all;
  for (const auto* side : {&task.train, &task.test})
    for (const std::string& id : ids(*side)) all.insert(id);
  CHECK(all.size() == 6);
}

TEST_CASE("pictures are JPEG and PNG in capitals and small letters") {
  Classified data(kFolder, "train_share = 0.5");
  for (const char* name : {"1.jpg", "2.JPG", "3.jpeg", "4.Png", "5.gif", "6"})
    data.add(std::string("Art/Bed/") + name);
  data.add_pictures("Art/Bike", 2);
  const ClassTask task = data.read();
  CHECK(ids_of(task.train, 0).size() + ids_of(task.test, 0).size() == 4);
}

TEST_CASE("pictures start from image_root") {
  Classified data("folder = \"Art\"\n", "image_root = \"pictures\"");
  data.add_pictures("pictures/Art/Bed", 2);
  data.add_pictures("pictures/Art/Bike", 2);
  CHECK(ids(data.read().train).front().starts_with("Art/Bed/1"));
}

TEST_CASE("each class gives its share to the training side, rounded, at least one picture") {
  // round(0.1 n): 1 for 5 to 14, 2 for 15; below, the one that there must be.
  const std::map<int, int> wanted{{1, 1}, {3, 1}, {14, 1}, {15, 2}, {20, 2}};
  Classified data(kFolder);
  for (const auto& [count, train] : wanted) data.add_pictures("Art/" + std::to_string(1000 + count), count);
  const ClassTask task = data.read();
  std::int64_t label = 0;
  for (const auto& [count, train] : wanted) {
    INFO(count << " pictures");
    CHECK(std::ssize(ids_of(task.train, label)) == train);
    CHECK(std::ssize(ids_of(task.test, label)) == count - train);
    ++label;
  }
}

TEST_CASE("a class is split by its own name, its task's and the seed, and by nothing else") {
  const auto train_of = [](const std::string& more, const Texts& classes, const std::string& task = "art") {
    Classified data(kFolder, more);
    // Made in another order, so that the file system lists it in another.
    for (auto at = classes.rbegin(); at != classes.rend(); ++at)
      for (int i = 29; i >= 0; --i) data.add("Art/" + *at + "/" + std::to_string(100 + i) + ".jpg");
    Suite suite = data.suite();
    suite.tasks.front().name = task;
    const ClassTask read = read_class_task(suite, suite.tasks.front());
    const auto label = std::find(read.classes.begin(), read.classes.end(), "Bed") - read.classes.begin();
    return ids_of(read.train, label);
  };
  const Texts first = train_of("", {"Bed", "Bike"});
  REQUIRE(first.size() == 3);
  CHECK(train_of("", {"Bed", "Bike"}) == first);
  CHECK(train_of("", {"Alarm", "Bed", "Chair", "Desk"}) == first);
  CHECK(train_of("split_seed = 1", {"Bed", "Bike"}) == first);
  CHECK(train_of("split_seed = 2", {"Bed", "Bike"}) != first);
  CHECK(train_of("", {"Bed", "Bike"}, "clipart") != first);
  // A larger share keeps what a smaller one has.
  const Texts more = train_of("train_share = 0.5", {"Bed", "Bike"});
  CHECK(more.size() == 15);
  REQUIRE(std::is_sorted(more.begin(), more.end()));
  CHECK(std::includes(more.begin(), more.end(), first.begin(), first.end()));
  // Equal numbers of pictures are not split alike.
  Classified data(kFolder);
  data.add_pictures("Art/Bed", 30);
  data.add_pictures("Art/Bike", 30);
  const ClassTask task = data.read();
  Texts bikes = ids_of(task.train, 1);
  for (std::string& id : bikes) id.replace(id.find("Bike"), 4, "Bed");
  CHECK(bikes != ids_of(task.train, 0));
}

TEST_CASE("lists give labels and their classes' names") {
  Classified data(kLists);
  data.add("train.txt",
           "clipart/bear/1.jpg 1\r\n\nclipart/aircraft_carrier/2 b.jpg 0\n./clipart/bear/3.jpg 1\n");
  data.add("test.txt", "clipart/crab/4.PNG  2\nclipart/bear/5.jpg 1");
  const ClassTask task = data.read();
  CHECK(task.classes == Texts{"aircraft carrier", "bear", "crab"});
  CHECK(ids(task.train) ==
        Texts{"clipart/bear/1.jpg", "clipart/aircraft_carrier/2 b.jpg", "clipart/bear/3.jpg"});
  CHECK(ids(task.test) == Texts{"clipart/crab/4.PNG", "clipart/bear/5.jpg"});
  CHECK(task.train[1].label == 0);
  CHECK(task.train[1].image == "clipart/aircraft_carrier/2 b.jpg");
  CHECK(task.train[2].line == 4);
  CHECK(task.test[0].label == 2);
  CHECK(task.test[0].line == 1);
}

TEST_CASE("only the first classes are kept where a suite asks for it") {
  Classified folders(kFolder, "classes = 2");
  for (const char* name : {"Bed", "Alarm", "Chair"}) folders.add_pictures(std::string("Art/") + name, 2);
  CHECK(folders.read().classes == Texts{"Alarm", "Bed"});
  CHECK(folders.read().train.size() == 2);
  Classified lists(kLists, "classes = 2");
  lists.add("train.txt", "p/c/1.jpg 2\np/b/2.jpg 1\np/a/3.jpg 0\n");
  lists.add("test.txt", "p/a/4.jpg 0\np/c/5.jpg 2\n");
  CHECK(lists.read().classes == Texts{"a", "b"});
  CHECK(ids(lists.read().train) == Texts{"p/b/2.jpg", "p/a/3.jpg"});
  CHECK(ids(lists.read().test) == Texts{"p/a/4.jpg"});
  Classified enough(kFolder, "classes = 9");
  for (const char* name : {"Bed", "Alarm"}) enough.add_pictures(std::string("Art/") + name, 2);
  CHECK(enough.read().classes.size() == 2);
}

TEST_CASE("a folder that cannot be a task is refused") {
  Classified data(kFolder, "train_share = 0.9");
  CHECK(data.refusal() == "Art: is no folder; check 'folder', image_root and --data");
  data.add("Art/readme.txt");
  CHECK(data.refusal() == "Art: holds no picture; a task needs training and test pictures");
  data.add_pictures("Art/Bed", 20);
  CHECK(data.refusal() == "Art: holds one class; a task needs at least two");
  data.add("Art/Bike/notes.txt");
  CHECK(data.refusal() ==
        "Art: the class folder 'Bike' holds no picture; remove it or add .jpg, .jpeg or .png files");
  data.add_pictures("Art/Bike", 20);
  data.add_pictures("Art/Exit_Sign", 20);
  CHECK(data.refusal() == "no error");
  data.add_pictures("Art/Exit Sign", 20);
  CHECK(data.refusal() == "Art: two classes are called 'Exit Sign' ('_' is read as ' '); rename one");
  Classified small(kFolder);
  small.add_pictures("Art/Bed", 1);
  small.add_pictures("Art/Bike", 1);
  CHECK(small.refusal() == "Art: no picture is left for the test; lower train_share");
  CHECK(Classified("folder = \"../Art\"\n").refusal() ==
        "../Art: leads out of the data; give 'folder' below image_root, without '..'");
  CHECK(Classified("folder = \"/Art\"\n").refusal() ==
        "/Art: leads out of the data; give 'folder' below image_root, without '..'");
}

/// The refusal of a training list beside a good test list.
std::string refused(const std::string& train, const std::string& test = "p/a/9.jpg 0\n",
                    const std::string& more = "") {
  Classified data(kLists, more);
  data.add("train.txt", train);
  data.add("test.txt", test);
  return data.refusal();
}

TEST_CASE("a line that is no picture of a class is refused with its number") {
  const std::string good = "p/a/1.jpg 0\np/b/2.jpg 1\n";
  REQUIRE(refused(good) == "no error");
  CHECK(refused(good + "p/a/3.jpg\n") == "train.txt: line 3: expected 'path label', found 'p/a/3.jpg'");
  for (const std::string label : {"-1", "one", "1.0", "+1", "99999999999999999999"})
    CHECK(refused(good + "p/b/3.jpg " + label) ==
          "train.txt: line 3: '" + label + "' is no label; labels are whole numbers from 0");
  for (const std::string path : {"/p/b/3.jpg", "../p/b/3.jpg", "p/../../b/3.jpg"})
    CHECK(refused(good + path + " 1") ==
          "train.txt: line 3: '" + path +
              "' leads out of the data; write a path below image_root, without '..'");
  CHECK(refused(good + "p/b/3.gif 1") ==
        "train.txt: line 3: 'p/b/3.gif' is no picture; known extensions: .jpg, .jpeg, .png");
  CHECK(refused(good + "./3.jpg 1") ==
        "train.txt: line 3: './3.jpg' lies in no folder; its folder's name is its class");
  CHECK(refused(good, "\np/c/9.jpg 1\n") ==
        "test.txt: line 2: label 1 is 'c' here and 'b' in line 2 of train.txt; a label has one class name");
}

TEST_CASE("lists that cannot be a task are refused") {
  CHECK(refused("p/a/1.jpg 0\np/d/2.jpg 3\n", "p/b/3.jpg 1\n") ==
        "train.txt: line 2: label 3, and no picture has label 2; labels count from 0 without a gap");
  CHECK(refused("p/b/1.jpg 1\np/c/2.jpg 2\n", "p/b/3.jpg 1\n") ==
        "train.txt: line 1: label 1, and no picture has label 0; labels count from 0 without a gap");
  CHECK(refused("p/a/1.jpg 0\n") == "train.txt: holds one class; a task needs at least two");
  CHECK(refused("p/a/1.jpg 0\np/b/2.jpg 1\n", "p/a/9.jpg 0\n", "classes = 1") ==
        "train.txt: holds one class; a task needs at least two");
  CHECK(refused("p/a/1.jpg 0\nq/a/2.jpg 1\n") ==
        "train.txt: two classes are called 'a' ('_' is read as ' '); rename one");
  CHECK(refused("\n") == "train.txt: holds no picture; a task needs training and test pictures");
  CHECK(refused("p/a/1.jpg 0\np/b/2.jpg 1\n", "") ==
        "test.txt: holds no picture; a task needs training and test pictures");
  Classified data(kLists);
  CHECK(data.refusal() == "train.txt: does not exist; 'train' and 'test' start from the folder of --data");
  data.add("train.txt", "p/a/1.jpg 0\np/b/2.jpg 1\n");
  CHECK(data.refusal() == "test.txt: does not exist; 'train' and 'test' start from the folder of --data");
}

// ---- check-data

void add_fixtures(const Classified& data, const Texts& files) {
  for (const std::string& file : files) data.add(file, slurp(kPictures / "rgb.png"));
}

TEST_CASE("a classify suite without a fault is counted") {
  // round(0.5 * 2) and round(0.5 * 3), halves upwards: 1 and 2 of training, 1 and 1 of test.
  const Texts pictures{"Art/Bed/1.png", "Art/Bed/2.png", "Art/Bike/1.png", "Art/Bike/2.png",
                       "Art/Bike/3.png"};
  Classified folders(kFolder + "expected_train = 3\nexpected_test = 2\n", "train_share = 0.5");
  add_fixtures(folders, pictures);
  CHECK(folders.faults(true).empty());
  Classified other(kFolder + "expected_train = 2\nexpected_test = 3\n", "train_share = 0.5");
  add_fixtures(other, pictures);
  CHECK(other.faults() == Texts{"Art 0: holds 3 training pictures, the suite expects 2",
                                "Art 0: holds 2 test pictures, the suite expects 3"});
  Classified lists(kLists + "expected_train = 2\nexpected_test = 1\n");
  lists.add("train.txt", "p/a/1.png 0\np/b/2.png 1\n");
  lists.add("test.txt", "p/a/3.png 0\n");
  add_fixtures(lists, {"p/a/1.png", "p/b/2.png", "p/a/3.png"});
  CHECK(lists.faults(true).empty());
  REQUIRE(lists.report.tasks.size() == 1);
  CHECK(lists.report.tasks[0].task == "art");
  CHECK(lists.report.tasks[0].train_rows == 2);
  CHECK(lists.report.tasks[0].test_rows == 1);
  CHECK(lists.report.tasks[0].pictures == 3);
}

TEST_CASE("every fault of a classify suite's lists is told with its line") {
  Classified data(kLists + "expected_train = 9\n");
  data.add("train.txt", "p/a/1.png 0\np/a/1.png 0\nnonsense\np/b/gone.png 1\np/c/1.gif 2\np/d/2.png 3\n");
  data.add("test.txt", "p/a/1.png 0\np/x/2.png 1\np/b/broken.png 1\n");
  add_fixtures(data, {"p/a/1.png", "p/x/2.png", "p/d/2.png"});
  data.add("p/b/broken.png", slurp(kPictures / "rgb.png").substr(0, 300));
  const Texts faults = data.faults();
  // Label 2 is no gap: a faulty line has it.
  CHECK(faults ==
        Texts{"train.txt 3: expected 'path label', found 'nonsense'",
              "train.txt 5: 'p/c/1.gif' is no picture; known extensions: .jpg, .jpeg, .png",
              "test.txt 2: label 1 is 'x' here and 'b' in line 4 of train.txt; a label has one class name",
              "train.txt 2: image: 'p/a/1.png' occurs twice",
              "train.txt 4: image: 'p/b/gone.png' does not exist",
              "test.txt 1: image: 'p/a/1.png' is a training picture"});
  CHECK(data.report.total_faults == 6);
  for (const DataFault& fault : data.report.faults) CHECK(fault.task == "art");
  const Texts deep = data.faults(true);
  REQUIRE(deep.size() == 7);
  CHECK(deep[6].find("test.txt 3: image: p/b/broken.png: damaged PNG") == 0);
}

TEST_CASE("a task's count is held against the suite only where all its lines were read") {
  Classified data(kLists + "expected_train = 9\nexpected_test = 1\n");
  data.add("train.txt", "p/a/1.png 0\np/b/2.png 1\n");
  data.add("test.txt", "p/a/3.png 0\n");
  add_fixtures(data, {"p/a/1.png", "p/b/2.png", "p/a/3.png"});
  CHECK(data.faults() == Texts{"train.txt 0: holds 2 training pictures, the suite expects 9"});
  data.add("test.txt", "p/a/3.png 0\np/a/4.png zero\n");
  CHECK(data.faults() == Texts{"test.txt 2: 'zero' is no label; labels are whole numbers from 0"});
}

TEST_CASE("what is wrong with a folder or list as a whole is one fault, and the limit cuts each list") {
  CHECK(Classified(kFolder).faults() == Texts{"Art 0: is no folder; check 'folder', image_root and --data"});
  Classified data(kLists);
  data.add("test.txt", "a 0\nb 0\nc 0\n");
  CHECK(data.faults(false, 2).size() == 3);
  CHECK(data.report.total_faults == 4);
  CHECK(data.report.faults[0].what.find("does not exist") == 0);
  CHECK(data.report.faults[2].row == 2);
}

}  // namespace
}  // namespace mcit::test
