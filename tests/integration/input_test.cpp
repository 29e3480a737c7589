// What a person may get wrong: each costs one line that names file and key, and leaves nothing behind.

#include <bit>
#include <cstdint>

#include "integration/runs.hpp"

namespace mcit::test {
namespace {

/// Records of one task on disk; suites and files that differ from them in one thing.
class Inputs : public Workplace {
 public:
  Inputs() {
    succeeded(mcit(
        {"make-data", "mini", "--tasks", "vqa", "--train", "16", "--test", "8", "--out", data().string()}));
  }

  fs::path data() const { return *this / "data"; }
  fs::path run() const { return *this / "run"; }
  Json rows(const std::string& split) const { return Json::parse(slurp(data() / "vqa" / (split + ".json"))); }

  Arguments arguments(const Arguments& more) const { return Arguments{"run", "--set", "threads=1"} + more; }
  /// A run on these record files.
  Arguments on(const std::string& train, const std::string& test, const std::string& more = {}) const {
    write(*this / "suite.toml", "data = \"" + data().string() + "\"\n[[tasks]]\nname = \"vqa\"\ntrain = \"" +
                                    train + "\"\ntest = \"" + test + "\"\n" + more);
    return arguments({"--suite", (*this / "suite.toml").string(), "--strategy", "zero_shot"});
  }
  Arguments on_train(const std::string& text) const {
    write(*this / "bad.json", text);
    return on((*this / "bad.json").string(), "vqa/test.json");
  }
  Arguments on_test(const std::string& text) const {
    write(*this / "bad.json", text);
    return on("vqa/train.json", (*this / "bad.json").string());
  }
  Arguments with_settings(const std::string& text) const {
    write(*this / "run.toml", text);
    return Arguments{"run", (*this / "run.toml").string(), "--suite", "smoke"};
  }
  Arguments with_set(const std::string& assignment) const {
    return arguments({"--suite", "smoke", "--set", assignment});
  }

  /// A run with the built-in base, but for one file of its folder.
  Arguments with_model_file(const std::string& name, const std::string& bytes) const {
    const fs::path folder = *this / "model";
    fs::remove_all(folder);
    fs::create_directory(folder);
    for (const auto& entry : fs::directory_iterator(kShare / "mini/base"))
      if (entry.is_regular_file() && entry.path().filename() != name)
        fs::create_symlink(fs::canonical(entry.path()), folder / entry.path().filename());
    write(folder / name, bytes);
    return on("vqa/train.json", "vqa/test.json") + Arguments{"--model", folder.string()};
  }

  /// One line that says all this, and no run folder.
  void refused(const Arguments& arguments, const std::vector<std::string>& said) const {
    failed(mcit(arguments + Arguments{"--out", run().string()}), said);
    CHECK_FALSE(fs::exists(run()));
  }
};

const Inputs& inputs() {
  static const Inputs one;
  return one;
}

std::string file(const std::string& name) { return (inputs() / name).string(); }

/// A safetensors file: the header, and this many bytes of tensors.
std::string safetensors(const std::string& header, std::size_t bytes,
                        std::optional<std::uint64_t> claimed = {}) {
  const std::uint64_t length = claimed.value_or(header.size());
  const auto head = std::bit_cast<std::array<char, 8>>(length);
  return std::string(head.begin(), head.end()) + header + std::string(bytes, '\0');
}

std::string words(std::size_t count) {
  std::string text = "red";
  while (--count > 0) text += " red";
  return text;
}

}  // namespace

TEST_CASE("These inputs are good when nothing is wrong with them") {
  Workplace work;
  succeeded(inputs().mcit(inputs().on("vqa/train.json", "vqa/test.json") +
                          Arguments{"--out", (work / "run").string()}));
  CHECK(result_of(work / "run").at("complete") == true);
  succeeded(inputs().mcit(inputs().with_model_file("unrelated.txt", "") +
                          Arguments{"--out", (work / "again").string()}));
}

TEST_CASE("Settings: unknown keys, wrong types and values out of range") {
  const Inputs& in = inputs();
  in.refused(in.with_settings("[train]\nstepz = 4\n"),
             {file("run.toml") + ":2: train.stepz", "unknown key", "did you mean 'steps'"});
  in.refused(in.with_settings("[train]\nbatch = \"many\"\n"),
             {file("run.toml") + ":2: train.batch", "\"many\""});
  in.refused(in.with_settings("[tran]\nsteps = 4\n"),
             {file("run.toml") + ":1: tran", "did you mean 'train'"});
  in.refused(in.with_settings("seed = \n"), {file("run.toml") + ":1", "TOML"});
  in.refused(in.with_settings("[strategy]\nrnk = 4\n"),
             {"strategy.rnk", "unknown key", "did you mean 'rank'"});
  in.refused(in.with_settings("[strategy]\nrank = \"four\"\n"), {"strategy.rank"});
  const auto wrong = [&](const char* strategy, const std::vector<std::string>& sets,
                         const std::vector<std::string>& said) {
    Arguments arguments = in.arguments({"--suite", "smoke", "--strategy", strategy});
    for (const std::string& set : sets) arguments = arguments + Arguments{"--set", "strategy." + set};
    in.refused(arguments, said);
  };
  wrong("moe_lora", {"experts=3"}, {"strategy.rank", "16", "3 experts"});
  wrong("moe_lora", {"experts=4", "top_k=5"}, {"strategy.top_k", "5 of 4"});
  wrong("branch_lora", {"experts=4", "top_k=5"}, {"strategy.top_k", "5 of 4"});
  wrong("branch_lora", {"experts=4", "min_tunable=0"},
        {"strategy.min_tunable", "every one of the 4 branches"});
  wrong("fwd_prompt", {"pool=3"}, {"strategy.top_k", "pool of 3"});
  in.refused(in.with_set("train.stepz=4"), {"train.stepz", "did you mean 'steps'"});
  in.refused(in.with_set("train.batch=0"), {"train.batch", "0"});
  in.refused(in.with_set("train.schedule=cosin"), {"train.schedule", "did you mean 'cosine'"});
  in.refused(in.with_set("steps"), {"steps", "key=value"});
  in.refused(in.arguments({"--suite", "smoke", "--device", "gpu"}), {"device", "gpu"});
  in.refused(in.arguments({"--suite", "smoke", "--model", "nowhere"}), {"model", "'nowhere'"});
}

TEST_CASE("Names: strategies, suites and tasks that are not there, with the near ones") {
  const Inputs& in = inputs();
  in.refused(in.arguments({"--suite", "smoke", "--strategy", "sequentail"}),
             {"'sequentail'", "did you mean 'sequential'"});
  in.refused(in.arguments({"--suite", "smoke", "--strategy", "nothing_like_it"}),
             {"'nothing_like_it'", "known: ", "sequential"});
  in.refused(in.arguments({"--suite", "smok"}), {"suite", "'smok'", "did you mean 'smoke'"});
  in.refused(in.arguments({"--suite", "gone.toml"}), {"suite", "'gone.toml'"});
  in.refused(in.arguments({"--suite", "smoke", "--order", "vqa,geoo"}),
             {"order", "'geoo'", "did you mean 'geo'"});
}

TEST_CASE("Suites: keys that nobody knows, keys that are missing") {
  const Inputs& in = inputs();
  in.refused(in.on("vqa/train.json", "vqa/test.json", "scroer = \"exact\"\n"),
             {file("suite.toml") + ":6", "scroer", "did you mean 'scorer'"});
  in.refused(in.on("vqa/train.json", "vqa/test.json", "scorer = \"exactly\"\n"),
             {"'exactly'", "did you mean 'exact'"});
  in.refused(in.on("vqa/train.json", "vqa/test.json", "max_new_tokens = -1\n"),
             {file("suite.toml") + ":6", "max_new_tokens"});
  in.refused(in.on("vqa/gone.json", "vqa/test.json"),
             {in.data().string() + "/vqa/gone.json", "No such file"});
  write(in / "empty.toml", "");
  in.refused(in.arguments({"--suite", file("empty.toml")}), {file("empty.toml"), "tasks"});
  in.refused(in.on("vqa/train.json", "vqa/test.json") + Arguments{"--data", file("elsewhere")},
             {file("elsewhere")});
}

TEST_CASE("Records: nothing in them, no JSON, rows that lack something") {
  const Inputs& in = inputs();
  in.refused(in.on_train("[]"), {file("bad.json"), "holds no row"});
  in.refused(in.on_test("[]"), {file("bad.json"), "holds no row"});
  in.refused(in.on_train(""), {file("bad.json"), "not JSON"});
  in.refused(in.on_train(in.rows("train").dump().substr(0, 700)), {file("bad.json"), "not JSON"});
  in.refused(in.on_train("{\"rows\": []}"), {file("bad.json"), "array"});
  in.refused(in.on_train(std::string(100000, '[')), {file("bad.json"), "deeper"});
  Json rows = in.rows("train");
  rows[2].erase("conversations");
  in.refused(in.on_train(rows.dump()), {file("bad.json") + ": row 3", "conversations"});
  rows = in.rows("train");
  rows[2]["conversations"][1]["value"] = "";
  in.refused(in.on_train(rows.dump()), {file("bad.json") + ": row 3", "conversations[1]", "empty"});
  rows = in.rows("test");
  rows[1]["answer"] = Json::object();
  in.refused(in.on_test(rows.dump()), {file("bad.json") + ": row 2", "answer"});
}

TEST_CASE("Pictures: missing ones are found before the run begins") {
  const Inputs& in = inputs();
  for (const std::string split : {"train", "test"}) {
    Json rows = in.rows(split);
    rows[2]["image"] = "vqa/train/gone.png";
    in.refused(split == "train" ? in.on_train(rows.dump()) : in.on_test(rows.dump()),
               {file("bad.json") + ": row 3", "image", in.data().string() + "/vqa/train/gone.png",
                "does not exist"});
  }
}

TEST_CASE("check-data reports every fault, with file and row, and leaves with code 2") {
  const Inputs& in = inputs();
  in.on("vqa/train.json", "vqa/test.json");
  const std::string suite = file("suite.toml");
  const Ended good = in.mcit({"check-data", suite, "--deep", "--json"});
  succeeded(good);
  const Json clean = Json::parse(good.out);
  CHECK(clean.at("total_faults") == 0);
  CHECK(clean.at("tasks").at(0).at("train_rows") == 16);
  CHECK(clean.at("tasks").at(0).at("test_rows") == 8);

  Json rows = in.rows("train");
  rows[2]["image"] = "vqa/train/gone.png";
  rows[4]["id"] = rows[3]["id"];
  in.on_train(rows.dump());
  const Ended bad = in.mcit({"check-data", suite, "--json"});
  failed(bad, {"2 faults"});
  const Json report = Json::parse(bad.out);
  REQUIRE(report.at("faults").size() == 2);
  CHECK(report.at("faults").at(0).at("row") == 3);
  CHECK(report.at("faults").at(1).at("row") == 5);
  for (const Json& fault : report.at("faults")) CHECK(fault.at("file") == file("bad.json"));
  const Ended text = in.mcit({"check-data", suite});
  failed(text, {"2 faults"});
  CHECK(text.out.find(file("bad.json") + ": row 3: ") != std::string::npos);
}

TEST_CASE("A GPU that is not there is said before anything is written") {
  const Inputs& in = inputs();
  in.refused(in.arguments({"--suite", "smoke", "--device", "cuda:99"}), {"device", "cuda:99"});
  in.refused(in.arguments({"--suite", "smoke", "--device", "tpu"}), {"device", "tpu", "cuda"});
}

TEST_CASE("Pictures: what is none is named when it is read") {
  const Inputs& in = inputs();
  Workplace work;
  write(in.data() / "vqa/test/text.png", "no picture");
  Json rows = in.rows("test");
  rows[2]["image"] = "vqa/test/text.png";
  failed(in.mcit(in.on_test(rows.dump()) + Arguments{"--out", (work / "run").string()}),
         {in.data().string() + "/vqa/test/text.png"});
  fs::remove(in.data() / "vqa/test/text.png");
}

TEST_CASE("Rows that are longer than the model's context name their file") {
  const Inputs& in = inputs();
  Json rows = in.rows("train");
  rows[2]["conversations"][1]["value"] = words(20000);
  in.refused(in.on_train(rows.dump()), {file("bad.json"), rows[2].at("id").get<std::string>(), "tokens"});
  rows = in.rows("test");
  rows[2]["text"] = words(20000);
  in.refused(in.on_test(rows.dump()),
             {file("bad.json"), rows[2].at("question_id").get<std::string>(), "tokens"});
}

TEST_CASE("Weights: empty, cut short, or with a header that lies") {
  const Inputs& in = inputs();
  const std::string name = "model.safetensors", where = file("model/" + name);
  const auto entry = [](const std::string& tensor, const std::string& dtype, const std::string& shape,
                        const std::string& offsets) {
    return "\"" + tensor + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
           ",\"data_offsets\":" + offsets + "}";
  };
  const auto one = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return safetensors("{" + entry("a.weight", dtype, shape, offsets) + "}", 64);
  };
  const std::string whole = slurp(kShare / "mini/base" / name);
  struct Case {
    std::string bytes;
    std::vector<std::string> said;
  };
  const std::vector<Case> cases = {
      {"", {"0 bytes"}},
      {"PK\3\4", {"4 bytes"}},
      {whole.substr(0, whole.size() / 2), {"outside the file"}},
      {safetensors("{}", 0, 3), {"3 bytes"}},
      {safetensors("{}", 0, UINT64_MAX), {"18446744073709551615"}},
      {safetensors("[]", 0), {"not a JSON object"}},
      {safetensors("{\"a\":", 64), {"not JSON"}},
      {safetensors("{\"a\":" + std::string(5000, '[') + std::string(5000, ']') + "}", 0), {"deeply"}},
      {safetensors("{\"a\":1}", 64), {": a"}},
      {one("F32", "[16]", "[8,72]"), {": a.weight", "outside the file"}},
      {one("F32", "[16]", "[64,0]"), {": a.weight", "outside the file"}},
      {one("F32", "[4]", "[18446744073709551608,18446744073709551615]"), {": a.weight", "outside the file"}},
      {one("F32", "[4]", "[-16,0]"), {": a.weight", "non-negative"}},
      {one("F32", "[4]", "[0.5,16]"), {": a.weight", "integer"}},
      {one("F32", "[8]", "[0,64]"), {": a.weight", "64 bytes", "32"}},
      {one("F32", "[4611686018427387904,4]", "[0,0]"), {": a.weight", "overflow"}},
      {one("F4", "[16]", "[0,64]"), {": a.weight", "'F4'"}},
      {safetensors("{" + entry("a", "F32", "[8]", "[0,32]") + "," + entry("b", "F32", "[8]", "[16,48]") + "}",
                   64),
       {": b", "overlaps", "'a'"}},
      {safetensors("{" + entry("a", "F32", "[8]", "[0,32]") + "," + entry("b", "F32", "[8]", "[0,32]") + "}",
                   64),
       {"same bytes"}},
      {safetensors("{" + entry("a", "F32", "[8]", "[0,32]") + "," + entry("a", "F32", "[8]", "[32,64]") + "}",
                   64),
       {"twice"}}};
  in.refused(in.with_model_file(name, safetensors("{}", 0)), {file("model") + ": ", "missing"});
  for (const Case& c : cases) {
    INFO(c.bytes.substr(0, 120));
    std::vector<std::string> said = c.said;
    said.push_back(where);
    in.refused(in.with_model_file(name, c.bytes), said);
  }
}

TEST_CASE("Model folders: files that are missing, empty or of another model") {
  const Inputs& in = inputs();
  for (const char* name : {"config.json", "tokenizer.json", "preprocessor_config.json"}) {
    const Arguments arguments = in.with_model_file(name, "");
    in.refused(arguments, {file("model/") + name});
    fs::remove(in / "model" / name);
    in.refused(arguments, {file("model"), name});
  }
  std::string tokenizer = slurp(kShare / "mini/base/tokenizer.json");
  for (auto at = tokenizer.find("<image>"); at != std::string::npos; at = tokenizer.find("<image>"))
    tokenizer.replace(at, 7, "<photo>");
  in.refused(in.with_model_file("tokenizer.json", tokenizer), {file("model/tokenizer.json"), "<image>"});
}

TEST_CASE("Output folders that hold something else are left as they are") {
  const Inputs& in = inputs();
  Workplace work;
  fs::create_directory(work / "photos");
  write(work / "photos/me.jpg", "smile");
  for (const Arguments& more : {Arguments{}, Arguments{"--overwrite"}}) {
    failed(in.mcit(in.arguments({"--suite", "smoke", "--out", (work / "photos").string()}) + more),
           {(work / "photos").string(), "not empty"});
    CHECK(names_in(work / "photos") == std::vector<std::string>{"me.jpg"});
  }
  write(work / "file", "");
  failed(in.mcit(in.arguments({"--suite", "smoke", "--out", (work / "file").string()})),
         {(work / "file").string()});
  failed(in.mcit({"run", "--resume", (work / "nowhere").string()}), {(work / "nowhere").string()});
  failed(in.mcit({"run", "--resume", (work / "photos").string()}), {(work / "photos").string()});
}

}  // namespace mcit::test
