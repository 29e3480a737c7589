// Text to tokens and labels, pictures to pixel values. The llava and clip folders of tests/parity hold what
// transformers 5.23.0 and tokenizers 0.23.3 made of the same inputs (tests/parity/make_fixtures.py).
#include "data/encode.hpp"

#include <nlohmann/json.hpp>

#include "data/preprocessor.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"
#include "unit/data/pillow.hpp"

#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include "torch_catch.hpp"

namespace mcit::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::Message;
using Catch::Matchers::MessageMatches;
using Ids = std::vector<std::int64_t>;
using Texts = std::vector<std::string>;

const std::filesystem::path kSource = MCIT_SOURCE_DIR;
const std::filesystem::path kParity = kSource / "tests" / "parity";
constexpr std::int64_t kEnd = 2, kNone = -100;

const Tokenizer& base_tokenizer() {
  static const Tokenizer made =
      Tokenizer::from_file(kSource / "benchmarks" / "mcit" / "mini" / "base" / "tokenizer.json");
  return made;
}
const Tokenizer& llava_tokenizer() {
  static const Tokenizer made = Tokenizer::from_file(kParity / "llava" / "checkpoint" / "tokenizer.json");
  return made;
}

Encoder base_encoder(std::int64_t image_tokens = 3, std::int64_t max_length = 512) {
  return Encoder(base_tokenizer(), {.prompt_template = "plain",
                                    .picture = fixed_picture(image_tokens),
                                    .image_token_id = 3,
                                    .eos_token_id = kEnd,
                                    .max_length = max_length,
                                    .model = std::to_string(image_tokens) + " rows"});
}
Encoder llava_encoder(const std::string& prompt_template = "llava", std::int64_t image_tokens = 16) {
  return Encoder(llava_tokenizer(), {.prompt_template = prompt_template,
                                     .picture = fixed_picture(image_tokens),
                                     .image_token_id = 431,
                                     .eos_token_id = kEnd,
                                     .max_length = 512});
}

Record row(const std::string& image, std::vector<std::pair<std::string, std::string>> turns,
           Texts golds = {}) {
  return {.id = "q7", .image = image, .turns = std::move(turns), .golds = std::move(golds)};
}

/// The whole text tokenized at once, the image token repeated.
Ids at_once(const Tokenizer& tokenizer, const std::string& text, std::int64_t image_token,
            std::int64_t repeat) {
  Ids out;
  for (const std::int64_t id : tokenizer.encode(text))
    out.insert(out.end(), id == image_token ? static_cast<std::size_t>(repeat) : 1, id);
  return out;
}

/// The runs of labelled rows; every label must be the next row's token.
std::vector<Ids> labelled_runs(const Example& example) {
  std::vector<Ids> out;
  REQUIRE(example.labels.size() == example.tokens.size());
  CHECK(example.labels.back() == kNone);
  bool inside = false;
  for (std::size_t i = 0; i + 1 < example.labels.size(); ++i) {
    if (example.labels[i] != kNone) {
      CHECK(example.labels[i] == example.tokens[i + 1]);
      if (!inside) out.emplace_back();
      out.back().push_back(example.labels[i]);
    }
    inside = example.labels[i] != kNone;
  }
  return out;
}

Ids ids_of(const Tensor& t) {
  const Tensor flat = t.contiguous();
  return {flat.const_data_ptr<std::int64_t>(), flat.const_data_ptr<std::int64_t>() + flat.numel()};
}

nlohmann::json json_of(const std::filesystem::path& file) { return nlohmann::json::parse(slurp(file)); }

}  // namespace

TEST_CASE("the tokenizers of both families give the ids and texts of tokenizers 0.23.3") {
  for (const char* family : {"llava", "clip"}) {
    const Tokenizer tokenizer = Tokenizer::from_file(kParity / family / "checkpoint" / "tokenizer.json");
    const auto cases = json_of(kParity / family / "tokenizer_cases.json").at("tokenizer");
    CHECK(cases.size() >= 29);
    for (const auto& one : cases) {
      const auto text = one.at("text").get<std::string>();
      INFO(family << ": '" << text << "'");
      const Ids special = one.at("ids_with_special").get<Ids>();
      CHECK(tokenizer.encode(text, false) == one.at("ids").get<Ids>());
      CHECK(tokenizer.encode(text, true) == special);
      CHECK(tokenizer.decode(special, false) == one.at("decoded").get<std::string>());
      CHECK(tokenizer.decode(special, true) == one.at("decoded_skip_special").get<std::string>());
    }
  }
  CHECK_THROWS_AS(llava_tokenizer().encode("a\xff"), DataError);
  CHECK_THROWS_AS(llava_tokenizer().decode(Ids{-1}), DataError);
  CHECK_THROWS_MATCHES(Tokenizer::from_json("{", "t.json"), CheckpointError,
                       MessageMatches(ContainsSubstring("t.json: is no tokenizer")));
}

TEST_CASE("the prompts of test rows have the ids of transformers' chat template") {
  const Encoder encoder = llava_encoder();
  const nlohmann::json samples = json_of(kParity / "llava" / "expected.json").at("samples");
  for (const auto& [name, sample] : samples.items()) {
    INFO(name);
    const Example made =
        encoder.test(row("p.png", {{sample.at("question").get<std::string>(), ""}}, {"gold"}), 2, 5, 10);
    CHECK(made.tokens == sample.at("input_ids").get<Ids>());
    CHECK(made.prompt == sample.at("prompt").get<std::string>());
    CHECK(made.prompt_length == static_cast<std::int64_t>(made.tokens.size()));
    CHECK(made.labels == Ids(made.tokens.size(), kNone));
    CHECK(made.task == 2);
    CHECK(made.index == 5);
    CHECK(made.id == "q7");
    CHECK(made.image == "p.png");
    CHECK(made.answer == "gold");
  }
}

TEST_CASE("a training row has the ids and, shifted by one, the labels of transformers") {
  const auto sample = json_of(kParity / "llava" / "expected.json").at("samples").at("a");
  const StateDict e = read_safetensors(kParity / "llava" / "expected.safetensors").tensors;
  const std::string answer = sample.at("answer").get<std::string>();
  const Example made =
      llava_encoder().train(row("p.png", {{sample.at("question").get<std::string>(), answer}}), 1, 3);
  CHECK(made.tokens == ids_of(e.at("train_input.input_ids")));
  Ids labels = ids_of(e.at("train_input.labels"));
  labels.erase(labels.begin());
  labels.push_back(kNone);
  CHECK(made.labels == labels);
  CHECK(made.prompt_length == static_cast<std::int64_t>(sample.at("input_ids").size()));
  CHECK(made.answer == answer);
  CHECK(made.task == 1);
  CHECK(made.index == 3);
}

TEST_CASE("pixel values are transformers' to the bit") {
  for (const char* family : {"llava", "clip"}) {
    const StateDict e = read_safetensors(kParity / family / "expected.safetensors").tensors;
    const Preprocessor preprocessor = Preprocessor::from_folder(kParity / family / "checkpoint");
    const std::string key =
        family == std::string("llava") ? "batch_input.pixel_values" : "input.pixel_values";
    const char* pictures[] = {"image_a.png", "image_b.png"};
    for (std::int64_t i = 0; i < 2; ++i) {
      INFO(family << " " << pictures[i]);
      CHECK(at::equal(preprocessor.load((kParity / family / pictures[i]).string())[0], e.at(key)[i]));
    }
  }
}

TEST_CASE("shortest edge and centre crop give the bytes of Pillow") {
  const TemporaryFolder folder;
  int count = 0;
  for (const Expected& one : expected()) {
    if (!one.operation.starts_with("clip:")) continue;
    ++count;
    INFO(one.operation << " of " << one.file);
    const std::string edge = one.operation.substr(5, one.operation.find(':', 5) - 5);
    write(folder / "preprocessor_config.json",
          R"({"size": {"shortest_edge": )" + edge + R"(}, "crop_size": {"height": )" +
              std::to_string(one.image.height) + R"(, "width": )" + std::to_string(one.image.width) + "}}");
    const Preprocessor preprocessor = Preprocessor::from_folder(folder.path());
    CHECK(difference(preprocessor.tiles(expected("convert", one.file).image)[0], one.image) == "");
  }
  CHECK(count == 12);
}

TEST_CASE("labels stand on the answer only, and the image token is repeated") {
  const Encoder encoder = base_encoder();
  const Example made = encoder.train(row("a.png", {{"what is this?", "red circle"}}), 0, 0);
  CHECK(made.tokens == at_once(base_tokenizer(), "<image> what is this? red circle</s>", 3, 3));
  CHECK(std::count(made.tokens.begin(), made.tokens.end(), 3) == 3);
  CHECK(made.tokens.front() == 1);  // <s>
  CHECK(made.tokens.back() == kEnd);
  Ids answer = base_tokenizer().encode(" red circle", false);
  answer.push_back(kEnd);
  CHECK(labelled_runs(made) == std::vector<Ids>{answer});
  CHECK(made.prompt_length + static_cast<std::int64_t>(answer.size()) ==
        static_cast<std::int64_t>(made.tokens.size()));
  CHECK(made.prompt == "<image> what is this?");
  const Example prompt = encoder.test(row("a.png", {{"what is this?", ""}}, {"red"}), 0, 0, 8);
  CHECK(prompt.tokens == Ids(made.tokens.begin(), made.tokens.begin() + made.prompt_length));
}

TEST_CASE("a row without a picture has no image token") {
  const Example plain = base_encoder().train(row("", {{"is it red?", "yes"}}), 0, 0);
  CHECK(plain.tokens == base_tokenizer().encode("is it red? yes</s>"));
  CHECK(std::count(plain.tokens.begin(), plain.tokens.end(), 3) == 0);
  CHECK(labelled_runs(plain).size() == 1);
  const Example llava = llava_encoder().test(row("", {{"is it red?", ""}}, {"yes"}), 0, 0, 4);
  CHECK(llava.tokens == llava_tokenizer().encode("USER: is it red? ASSISTANT:"));
}

TEST_CASE("several turns have the ids of their whole text, and every answer is labelled to its end") {
  const auto record =
      row("a.png", {{"what is this?", "circle"}, {"and its colour?", "dark red"}, {"why?", "3"}});
  const Example plain = base_encoder().train(record, 0, 0);
  CHECK(plain.tokens == at_once(base_tokenizer(),
                                "<image> what is this? circle</s> and its colour? dark red</s> why? 3</s>", 3,
                                3));
  const Example llava = llava_encoder().train(record, 0, 0);
  CHECK(llava.tokens ==
        at_once(
            llava_tokenizer(),
            "USER: <image>\nwhat is this? ASSISTANT: circle</s>USER: and its colour? ASSISTANT: dark red</s>"
            "USER: why? ASSISTANT: 3</s>",
            431, 16));
  for (const Example* made : {&plain, &llava}) {
    const Tokenizer& tokenizer = made == &plain ? base_tokenizer() : llava_tokenizer();
    const auto runs = labelled_runs(*made);
    REQUIRE(runs.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(runs[i].back() == kEnd);
      CHECK(std::count(runs[i].begin(), runs[i].end(), kEnd) == 1);
      std::string text = tokenizer.decode(runs[i]);
      text.erase(0, text.find_first_not_of(' '));
      CHECK(text == record.turns[i].second);
    }
    CHECK(made->answer == "circle");
  }
}

TEST_CASE("vicuna_v1 puts LLaVA's system sentence in front, once") {
  // conv_vicuna_v1 of llava/conversation.py: system, roles and both separators.
  const std::string system =
      "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
      "detailed, and polite answers to the user's questions.";
  const Encoder encoder = llava_encoder("vicuna_v1", 2);
  const Example test = encoder.test(row("a.png", {{"what?", ""}}, {"x"}), 0, 0, 4);
  CHECK(test.prompt == system + " USER: <image>\nwhat? ASSISTANT:");
  CHECK(test.tokens == at_once(llava_tokenizer(), system + " USER: <image>\nwhat? ASSISTANT:", 431, 2));
  const Example two = encoder.train(row("a.png", {{"what?", "cat"}, {"why?", "so"}}), 0, 0);
  CHECK(two.tokens == at_once(llava_tokenizer(),
                              system + " USER: <image>\nwhat? ASSISTANT: cat</s>USER: why? ASSISTANT: so</s>",
                              431, 2));
}

TEST_CASE("a bare answer has the ids that it has behind a prompt") {
  for (const std::string answer : {"yes", "red circle", "3", "a red square"}) {
    INFO(answer);
    for (const bool plain : {true, false}) {
      const Encoder encoder = plain ? base_encoder() : llava_encoder();
      const Example made = encoder.train(row("a.png", {{"what?", answer}}), 0, 0);
      const Ids tail(made.tokens.begin() + made.prompt_length, made.tokens.end() - 1);
      CHECK(encoder.answer(answer) == tail);
      CHECK(encoder.decode(tail) == answer);
    }
  }
}

TEST_CASE("a row that the model cannot hold is refused by its id") {
  const auto record = row("a.png", {{"what is this?", "circle"}}, {"circle"});
  const auto rows = static_cast<std::int64_t>(base_encoder(40).train(record, 0, 0).tokens.size());
  CHECK_NOTHROW(base_encoder(40, rows).train(record, 0, 0));
  CHECK_THROWS_MATCHES(base_encoder(40, rows - 1).train(record, 0, 0), DataError,
                       Message("row 'q7': takes " + std::to_string(rows) + " tokens; the model holds " +
                               std::to_string(rows - 1)));
  const auto prompt = static_cast<std::int64_t>(base_encoder(40).test(record, 0, 0, 0).tokens.size());
  CHECK_NOTHROW(base_encoder(40, prompt + 5).test(record, 0, 0, 5));
  CHECK_THROWS_MATCHES(
      base_encoder(40, prompt + 5).test(record, 0, 0, 6), DataError,
      MessageMatches(ContainsSubstring("row 'q7'") && ContainsSubstring("up to 6 for the answer")));
}

TEST_CASE("an unknown template and a foreign tokenizer are refused") {
  CHECK_THROWS_MATCHES(Encoder(base_tokenizer(), {.prompt_template = "lava", .image_token_id = 3}),
                       ConfigError,
                       Message("prompt template: unknown template 'lava'; did you mean 'llava'?"));
  CHECK_THROWS_MATCHES(Encoder(base_tokenizer(), {.prompt_template = "zephyr", .image_token_id = 3}),
                       ConfigError,
                       Message("prompt template: unknown template 'zephyr'; known: plain, llava, vicuna_v1, "
                               "chatml, smolvlm, question"));
  CHECK_THROWS_MATCHES(Encoder(base_tokenizer(), {.prompt_template = "plain", .image_token_id = 4}),
                       CheckpointError, MessageMatches(ContainsSubstring("image token 4")));
}

TEST_CASE("a prompt whose ids change when the answer follows is refused by its id") {
  // "q" and the blank behind it merge, so that the prompt's last token is none of the whole's.
  const Tokenizer merging = Tokenizer::from_json(R"({"version": "1.0",
    "added_tokens": [{"id": 0, "content": "<image>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
              "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
              "vocab": {"<image>": 0, "q": 1, " ": 2, "a": 3, "q ": 4}, "merges": [["q", " "]]}})",
                                                 "merging.json");
  const Encoder encoder(merging,
                        {.prompt_template = "plain", .picture = fixed_picture(1), .image_token_id = 0});
  CHECK_NOTHROW(encoder.train(row("", {{"a", "a"}}), 0, 0));
  CHECK_THROWS_MATCHES(encoder.train(row("", {{"q", "a"}}), 0, 0), DataError,
                       MessageMatches(ContainsSubstring("row 'q7': the tokens of its prompt change")));
}

TEST_CASE("a token that the embedding has no row for names its row") {
  const Encoder encoder(base_tokenizer(), {.prompt_template = "plain",
                                           .picture = fixed_picture(3),
                                           .image_token_id = 3,
                                           .eos_token_id = kEnd,
                                           .vocabulary = 6});
  CHECK_THROWS_MATCHES(encoder.train(row("a.png", {{"what is this?", "red circle"}}), 0, 0), DataError,
                       MessageMatches(ContainsSubstring("row 'q7': has token") &&
                                      ContainsSubstring("the model's embedding has 6 rows")));
}

TEST_CASE("the encoder's digest changes with everything that changes its ids") {
  const std::string one = base_encoder(3).digest();
  CHECK(base_encoder(3).digest() == one);
  CHECK(base_encoder(4).digest() != one);
  CHECK(base_encoder(3, 100).digest() != one);
  CHECK(llava_encoder("llava").digest() != llava_encoder("vicuna_v1").digest());
}

}  // namespace mcit::test
