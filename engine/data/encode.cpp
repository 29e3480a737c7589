#include "data/encode.hpp"

#include <algorithm>

#include "core/hash.hpp"
#include "mcit/errors.hpp"

namespace mcit {

/// The text around questions and answers.
struct PromptTemplate {
  const char* name;
  const char *first, *later;         ///< before the first question, and before those of further turns
  const char *picture, *no_picture;  ///< between `first` and the question
  const char* behind;                ///< behind a question
  const char* answer;                ///< before an answer
};

namespace {

constexpr PromptTemplate kTemplates[] = {
    {"plain", "", " ", "<image> ", "", "", " "},
    {"llava", "USER: ", "USER: ", "<image>\n", "", " ASSISTANT:", " "},
    {"vicuna_v1",
     "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
     "detailed, and polite answers to the user's questions. USER: ",
     "USER: ", "<image>\n", "", " ASSISTANT:", " "},
    {"chatml", "<|im_start|>user\n", "\n<|im_start|>user\n", "<image>\n", "",
     "<|im_end|>\n<|im_start|>assistant\n", ""},
    {"smolvlm", "<|im_start|>User:", "\nUser: ", "<image>", " ", "<end_of_utterance>\nAssistant:", " "},
    {"question", "", " ", "<image>", "", "", " "},
};

bool extends(const std::vector<std::int64_t>& longer, const std::vector<std::int64_t>& prefix) {
  return longer.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), longer.begin());
}

}  // namespace

const std::vector<std::string>& prompt_templates() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const PromptTemplate& one : kTemplates) out.emplace_back(one.name);
    return out;
  }();
  return names;
}

std::function<PictureText(const std::string& path)> fixed_picture(std::int64_t rows) {
  return [rows](const std::string&) { return PictureText{"<image>", rows, 0}; };
}

Encoder::Encoder(Tokenizer tokenizer, EncoderOptions options)
    : tokenizer_(std::move(tokenizer)), options_(std::move(options)), template_(nullptr) {
  for (const PromptTemplate& one : kTemplates)
    if (one.name == options_.prompt_template) template_ = &one;
  if (template_ == nullptr)
    throw ConfigError("prompt template", "unknown template '" + options_.prompt_template + "'",
                      suggestion(options_.prompt_template, prompt_templates()));
  if (options_.image_token_id >= 0 && tokenizer_.token_to_id("<image>") != options_.image_token_id)
    throw CheckpointError(
        "tokenizer.json",
        "its <image> token is not the model's image token " + std::to_string(options_.image_token_id),
        "tokenizer and config.json belong to different models");
}

std::vector<Encoder::Turn> Encoder::render(const Record& record, const PictureText* picture) const {
  const bool written = picture != nullptr && !picture->text.empty();
  std::vector<Turn> out;
  for (const auto& [question, answer] : record.turns) {
    const bool first = out.empty();
    const std::string before =
        first ? std::string(template_->first) + (written ? template_->picture : template_->no_picture)
              : template_->later;
    out.push_back({before + question + template_->behind, template_->answer + answer});
  }
  return out;
}

std::optional<PictureText> Encoder::picture_of(const Record& record) const {
  if (record.image.empty()) return std::nullopt;
  if (!options_.picture)
    throw DataError("row '" + record.id + "'", "has a picture, and the model reads text alone",
                    "choose a model with a vision tower, or records without pictures");
  return options_.picture(record.image);
}

std::vector<std::int64_t> Encoder::tokens(const std::string& text, bool first,
                                          const PictureText* picture) const {
  constexpr std::string_view kImage = "<image>";
  std::vector<std::int64_t> out;
  std::string written = text;
  if (picture != nullptr && first) {
    out.assign(static_cast<std::size_t>(picture->in_front), options_.image_token_id);
    const std::size_t at = written.find(kImage);
    if (at != std::string::npos && options_.image_token_id < 0) {
      // No token stands for pictures: the texts on either side are tokenized apart, as the original LLaVA
      // does.
      out = tokenizer_.encode(written.substr(0, at), true);
      out.insert(out.end(), static_cast<std::size_t>(picture->each), options_.image_token_id);
      const std::vector<std::int64_t> rest = tokenizer_.encode(written.substr(at + kImage.size()), false);
      out.insert(out.end(), rest.begin(), rest.end());
      return out;
    }
    if (at != std::string::npos) written.replace(at, kImage.size(), picture->text);
  }
  const auto each = static_cast<std::size_t>(picture == nullptr ? 1 : picture->each);
  for (const std::int64_t id : tokenizer_.encode(written, first))
    out.insert(out.end(), id == options_.image_token_id ? each : 1, id);
  return out;
}

void Encoder::check_rows(const Record& record, const std::vector<std::int64_t>& tokens,
                         std::int64_t room) const {
  const std::size_t rows = tokens.size();
  const auto largest = std::max_element(tokens.begin(), tokens.end());
  if (options_.vocabulary > 0 && largest != tokens.end() && *largest >= options_.vocabulary)
    throw DataError("row '" + record.id + "'", "has token " + std::to_string(*largest),
                    "the model's embedding has " + std::to_string(options_.vocabulary) +
                        " rows; tokenizer.json and weights belong to different models");
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
  const std::optional<PictureText> picture = picture_of(record);
  const PictureText* pictured = picture ? &*picture : nullptr;
  for (const Turn& turn : render(record, pictured)) {
    const bool first = out.tokens.empty();  // tokenization starts anew behind each end token
    const std::vector<std::int64_t> prompt = tokens(turn.before, first, pictured);
    std::vector<std::int64_t> turned = tokens(turn.before + turn.answer, first, pictured);
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
  check_rows(record, out.tokens, 0);
  return out;
}

Example Encoder::test(const Record& record, std::int64_t task, std::int64_t index, std::int64_t room) const {
  const std::optional<PictureText> picture = picture_of(record);
  const Turn turn = render(record, picture ? &*picture : nullptr).front();
  Example out{.task = task,
              .index = index,
              .id = record.id,
              .image = record.image,
              .question = record.turns.front().first,
              .prompt = turn.before,
              .answer = record.golds.front(),
              .tokens = tokens(turn.before, true, picture ? &*picture : nullptr),
              .labels = {},
              .prompt_length = 0};
  out.prompt_length = static_cast<std::int64_t>(out.tokens.size());
  out.labels.assign(out.tokens.size(), -100);
  check_rows(record, out.tokens, room);
  return out;
}

std::vector<std::int64_t> Encoder::answer(const std::string& text) const {
  // Behind the end of a prompt: a tokenizer may write the beginning of a text in another way than its middle.
  const std::string before = *template_->behind == '\0' ? "?" : template_->behind,
                    written = template_->answer + text;
  const std::vector<std::int64_t> prompt = tokens(before, false), whole = tokens(before + written, false);
  if (!extends(whole, prompt)) return tokens(written, false);
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
      .field(options_.model)
      .update(options_.image_token_id)
      .update(options_.eos_token_id)
      .update(options_.max_length)
      .hex();
}

}  // namespace mcit
