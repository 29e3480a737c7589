#include "data/encode.hpp"

#include <algorithm>

#include "core/hash.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

constexpr const char* kSystem =
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and "
    "polite answers to the user's questions. ";

bool extends(const std::vector<std::int64_t>& longer, const std::vector<std::int64_t>& prefix) {
  return longer.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), longer.begin());
}

}  // namespace

const std::vector<std::string>& prompt_templates() {
  static const std::vector<std::string> names = {"plain", "llava", "vicuna_v1"};
  return names;
}

Encoder::Encoder(Tokenizer tokenizer, EncoderOptions options)
    : tokenizer_(std::move(tokenizer)), options_(std::move(options)) {
  const auto& names = prompt_templates();
  if (std::find(names.begin(), names.end(), options_.prompt_template) == names.end())
    throw ConfigError("prompt template", "unknown template '" + options_.prompt_template + "'",
                      suggestion(options_.prompt_template, names));
  if (tokenizer_.token_to_id("<image>") != options_.image_token_id)
    throw CheckpointError(
        "tokenizer.json",
        "its <image> token is not the model's image token " + std::to_string(options_.image_token_id),
        "tokenizer and config.json belong to different models");
}

std::vector<Encoder::Turn> Encoder::render(const Record& record) const {
  std::vector<Turn> out;
  const bool plain = options_.prompt_template == "plain";
  for (std::size_t i = 0; i < record.turns.size(); ++i) {
    const auto& [question, answer] = record.turns[i];
    const bool pictured = i == 0 && !record.image.empty();
    if (plain) {
      out.push_back({(pictured ? "<image> " : i == 0 ? "" : " ") + question, " " + answer});
    } else {
      const std::string system = i == 0 && options_.prompt_template == "vicuna_v1" ? kSystem : "";
      out.push_back(
          {system + "USER: " + (pictured ? "<image>\n" : "") + question + " ASSISTANT:", " " + answer});
    }
  }
  return out;
}

std::vector<std::int64_t> Encoder::tokens(const std::string& text, bool first) const {
  std::vector<std::int64_t> out;
  for (const std::int64_t id : tokenizer_.encode(text, first))
    out.insert(out.end(), id == options_.image_token_id ? static_cast<std::size_t>(options_.image_tokens) : 1,
               id);
  return out;
}

void Encoder::check_length(const Record& record, std::size_t rows, std::int64_t room) const {
  if (static_cast<std::int64_t>(rows) + room <= options_.max_length) return;
  throw DataError("row '" + record.id + "'",
                  "takes " + std::to_string(rows) + " tokens" +
                      (room > 0 ? " and up to " + std::to_string(room) + " for the answer" : ""),
                  "the model holds " + std::to_string(options_.max_length));
}

Example Encoder::train(const Record& record, std::int64_t task, std::int64_t index) const {
  Example out{.task = task,
              .index = index,
              .id = record.id,
              .image = record.image,
              .question = record.turns.front().first,
              .prompt = {},
              .answer = {},
              .tokens = {},
              .labels = {},
              .prompt_length = 0};
  for (const Turn& turn : render(record)) {
    const bool first = out.tokens.empty();  // tokenization starts anew behind each end token
    const std::vector<std::int64_t> prompt = tokens(turn.before, first);
    std::vector<std::int64_t> turned = tokens(turn.before + turn.answer, first);
    if (!extends(turned, prompt))
      throw DataError("row '" + record.id + "'", "the tokens of its prompt change when the answer follows",
                      "the prompt template does not suit this tokenizer");
    turned.push_back(options_.eos_token_id);
    const std::size_t begin = out.tokens.size();
    out.tokens.insert(out.tokens.end(), turned.begin(), turned.end());
    out.labels.resize(out.tokens.size(), -100);
    for (std::size_t i = prompt.size(); i < turned.size(); ++i) out.labels[begin + i - 1] = turned[i];
    if (first) {
      out.prompt_length = static_cast<std::int64_t>(prompt.size());
      out.prompt = turn.before;
    }
  }
  out.answer = record.turns.front().second;
  check_length(record, out.tokens.size(), 0);
  return out;
}

Example Encoder::test(const Record& record, std::int64_t task, std::int64_t index, std::int64_t room) const {
  const Turn turn = render(record).front();
  Example out{.task = task,
              .index = index,
              .id = record.id,
              .image = record.image,
              .question = record.turns.front().first,
              .prompt = turn.before,
              .answer = record.golds.front(),
              .tokens = tokens(turn.before, true),
              .labels = {},
              .prompt_length = 0};
  out.prompt_length = static_cast<std::int64_t>(out.tokens.size());
  out.labels.assign(out.tokens.size(), -100);
  check_length(record, out.tokens.size(), room);
  return out;
}

std::vector<std::int64_t> Encoder::answer(const std::string& text) const {
  // Behind the end of a prompt: a tokenizer may write the beginning of a text in another way than its middle.
  const std::string before = options_.prompt_template == "plain" ? "?" : "ASSISTANT:";
  const std::vector<std::int64_t> prompt = tokens(before, false), whole = tokens(before + " " + text, false);
  if (!extends(whole, prompt)) return tokens(" " + text, false);
  return {whole.begin() + static_cast<std::ptrdiff_t>(prompt.size()), whole.end()};
}

std::string Encoder::decode(const std::vector<std::int64_t>& ids) const {
  std::string text = tokenizer_.decode(ids);
  const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.back())) text.pop_back();
  std::size_t begin = 0;
  while (begin < text.size() && blank(text[begin])) ++begin;
  return text.substr(begin);
}

std::string Encoder::digest() const {
  return Hasher()
      .field(tokenizer_.digest())
      .field(options_.prompt_template)
      .update(options_.image_tokens)
      .update(options_.image_token_id)
      .update(options_.eos_token_id)
      .update(options_.max_length)
      .hex();
}

}  // namespace mcit
