#include "score/captions.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <unordered_map>

#include "score/form.hpp"
#include "score/meteor.hpp"
#include "score/ptb.hpp"
#include "score/rules.hpp"
#include "score/text.hpp"

namespace mcit {
namespace {

constexpr std::size_t kOrders = 4;
constexpr double kSmall = 1e-9, kTiny = 1e-15;  // pycocoevalcap's guards against 0 / 0
constexpr double kSigma = 6;                    // of CIDEr-D's penalty for another length
constexpr double kBeta = 1.2;                   // of ROUGE-L

using Words = std::vector<std::string>;
using Gram = std::array<std::uint32_t, kOrders>;  ///< numbers of words, 0 behind a shorter n-gram
using Grams = std::map<Gram, double>;

std::size_t order_of(const Gram& gram) {
  std::size_t order = 1;
  while (order < kOrders && gram[order] != 0) ++order;
  return order;
}

/// Numbers words and counts n-grams.
class Vocabulary {
 public:
  Grams grams(const Words& words) {
    std::vector<std::uint32_t> numbers;
    for (const std::string& word : words)
      numbers.push_back(
          known_.try_emplace(word, static_cast<std::uint32_t>(known_.size() + 1)).first->second);
    Grams out;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      Gram gram{};
      for (std::size_t n = 0; n < kOrders && i + n < numbers.size(); ++n) {
        gram[n] = numbers[i + n];
        ++out[gram];
      }
    }
    return out;
  }

 private:
  std::unordered_map<std::string, std::uint32_t> known_;
};

struct BleuCounts {
  std::array<double, kOrders> right{}, guessed{};
  double length = 0, reference = 0;

  void operator+=(const BleuCounts& other) {
    for (std::size_t n = 0; n < kOrders; ++n) {
      right[n] += other.right[n];
      guessed[n] += other.guessed[n];
    }
    length += other.length;
    reference += other.reference;
  }

  std::array<double, kOrders> score() const {
    std::array<double, kOrders> out{};
    double product = 1;
    const double ratio = (length + kTiny) / (reference + kSmall);
    for (std::size_t n = 0; n < kOrders; ++n) {
      product *= (right[n] + kTiny) / (guessed[n] + kSmall);
      out[n] = std::pow(product, 1.0 / static_cast<double>(n + 1));
      if (ratio < 1) out[n] *= std::exp(1 - 1 / ratio);
    }
    return out;
  }
};

double reference_length(const Caption& caption, bool mean) {
  const auto length = static_cast<double>(caption.answer.size());
  double sum = 0, best = static_cast<double>(caption.references.front().size());
  for (const Words& words : caption.references) {
    const auto other = static_cast<double>(words.size());
    sum += other;
    const double distance = std::abs(other - length), known = std::abs(best - length);
    if (distance < known || (distance == known && other < best)) best = other;
  }
  return mean ? sum / static_cast<double>(caption.references.size()) : best;
}

BleuCounts bleu_counts(const Caption& caption, bool mean_length) {
  Vocabulary vocabulary;
  Grams most;
  for (const Words& words : caption.references)
    for (const auto& [gram, count] : vocabulary.grams(words)) {
      double& known = most[gram];
      known = std::max(known, count);
    }
  BleuCounts out;
  out.length = static_cast<double>(caption.answer.size());
  out.reference = reference_length(caption, mean_length);
  for (std::size_t n = 0; n < kOrders; ++n)
    out.guessed[n] = std::max(0.0, out.length - static_cast<double>(n));
  for (const auto& [gram, count] : vocabulary.grams(caption.answer)) {
    const auto found = most.find(gram);
    if (found != most.end()) out.right[order_of(gram) - 1] += std::min(found->second, count);
  }
  return out;
}

/// tf-idf vectors of one sentence.
struct Weights {
  Grams weight;
  std::array<double, kOrders> norm{};
  double length = 0;  ///< in bigrams, as the original counts it
};

class CiderModel {
 public:
  explicit CiderModel(std::span<const Caption> captions)
      : log_documents_(std::log(static_cast<double>(captions.size()))) {
    for (const Caption& caption : captions) {
      Grams seen;
      for (const Words& words : caption.references) seen.merge(vocabulary_.grams(words));
      for (const auto& [gram, count] : seen) ++documents_[gram];
    }
  }

  Weights weights(const Words& words) {
    Weights out{.weight = vocabulary_.grams(words)};
    for (auto& [gram, value] : out.weight) {
      const std::size_t order = order_of(gram);
      if (order == 2) out.length += value;
      const auto found = documents_.find(gram);
      value *= log_documents_ - std::log(std::max(1.0, found == documents_.end() ? 0.0 : found->second));
      out.norm[order - 1] += value * value;
    }
    for (double& norm : out.norm) norm = std::sqrt(norm);
    return out;
  }

  static double similarity(const Weights& answer, const Weights& reference) {
    std::array<double, kOrders> product{};
    for (const auto& [gram, value] : answer.weight) {
      const auto found = reference.weight.find(gram);
      const double other = found == reference.weight.end() ? 0 : found->second;
      product[order_of(gram) - 1] += std::min(value, other) * other;
    }
    double sum = 0;
    for (std::size_t n = 0; n < kOrders; ++n) {
      const double norms = answer.norm[n] * reference.norm[n];
      sum += norms != 0 ? product[n] / norms : product[n];
    }
    const double difference = answer.length - reference.length;
    return 10 * sum / kOrders * std::exp(-difference * difference / (2 * kSigma * kSigma));
  }

 private:
  double log_documents_;
  Vocabulary vocabulary_;
  std::map<Gram, double> documents_;
};

std::vector<Caption> tokenized(std::string_view scorer, std::span<const CorpusRow> rows) {
  std::vector<Caption> out;
  for (const CorpusRow& row : rows) {
    rules::need_golds(scorer, row.golds);
    Caption& caption = out.emplace_back();
    caption.answer = ptb_tokens(row.prediction);
    for (const std::string& gold : row.golds) caption.references.push_back(ptb_tokens(gold));
  }
  return out;
}

double mean(const std::vector<double>& values) {
  return values.empty()
             ? 0
             : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

Score row_score(const CorpusRow& row, double value) {
  if (rules::is_empty(row.prediction)) return rules::empty_answer();
  return {.value = value, .well_formed = has_form(Form::caption, row.prediction, row.golds)};
}

}  // namespace

Bleu bleu(std::span<const Caption> captions) {
  Bleu out;
  BleuCounts all;
  for (const Caption& caption : captions) {
    const BleuCounts counts = bleu_counts(caption, captions.size() == 1);
    out.rows.push_back(counts.score());
    all += counts;
  }
  out.corpus = all.score();
  return out;
}

std::vector<double> cider(std::span<const Caption> captions) {
  CiderModel model(captions);
  std::vector<double> out;
  for (const Caption& caption : captions) {
    const Weights answer = model.weights(caption.answer);
    double sum = 0;
    for (const Words& words : caption.references) sum += CiderModel::similarity(answer, model.weights(words));
    out.push_back(sum / static_cast<double>(caption.references.size()));
  }
  return out;
}

double rouge_l(const Caption& caption) {
  if (caption.answer.empty()) return 0;
  double precision = 0, recall = 0;
  for (const Words& words : caption.references) {
    if (words.empty()) continue;
    const auto common = static_cast<double>(text::common_subsequence(caption.answer, words));
    precision = std::max(precision, common / static_cast<double>(caption.answer.size()));
    recall = std::max(recall, common / static_cast<double>(words.size()));
  }
  if (precision == 0 || recall == 0) return 0;
  return (1 + kBeta * kBeta) * precision * recall / (recall + kBeta * kBeta * precision);
}

CorpusScore score_captions(std::span<const CorpusRow> rows) {
  CorpusScore out;
  if (rows.empty()) return out;
  const std::vector<Caption> captions = tokenized("caption", rows);
  const Bleu n_grams = bleu(captions);
  const std::vector<double> consensus = cider(captions);
  std::vector<double> sequences;
  MeteorCounts meteor;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const MeteorCounts counts = meteor_counts(captions[i].answer, captions[i].references);
    meteor += counts;
    sequences.push_back(rouge_l(captions[i]));
    const auto& four = n_grams.rows[i];
    const double sum =
        std::accumulate(four.begin(), four.end(), 0.0) + counts.score() + sequences[i] + consensus[i];
    out.rows.push_back(row_score(rows[i], sum / 7));
  }
  out.parts = {{"BLEU-1", n_grams.corpus[0]}, {"BLEU-2", n_grams.corpus[1]}, {"BLEU-3", n_grams.corpus[2]},
               {"BLEU-4", n_grams.corpus[3]}, {"METEOR", meteor.score()},    {"ROUGE-L", mean(sequences)},
               {"CIDEr", mean(consensus)}};
  for (auto& [name, value] : out.parts) out.percent += (value *= 100) / 7;
  return out;
}

CorpusScore score_cider_best(std::span<const CorpusRow> rows) {
  CorpusScore out;
  if (rows.empty()) return out;
  std::vector<Caption> captions = tokenized("cider_best", rows);
  CiderModel model(captions);
  for (Caption& caption : captions) {
    const Weights answer = model.weights(caption.answer);
    double best = -1;
    Words chosen;
    for (Words& words : caption.references) {
      const double value = CiderModel::similarity(answer, model.weights(words));
      if (value > best) {
        best = value;
        chosen = words;
      }
    }
    caption.references.assign(1, std::move(chosen));
  }
  const std::vector<double> values = cider(captions);
  for (std::size_t i = 0; i < rows.size(); ++i) out.rows.push_back(row_score(rows[i], values[i]));
  out.percent = 100 * mean(values);
  out.parts = {{"CIDEr", out.percent}};
  return out;
}

}  // namespace mcit
