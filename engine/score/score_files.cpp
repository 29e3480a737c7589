#include "score/score_files.hpp"

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/files.hpp"
#include "core/json.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "score/form.hpp"
#include "score/json_fields.hpp"

namespace mcit {
namespace {

constexpr std::int64_t kReportEvery = 4096;  // rows between two looks at progress and signals

/// A prediction with its gold row.
struct Pair {
  std::string id, text;
  std::int64_t gold = -1;
};

class FileScorer {
 public:
  FileScorer(const ScoreRequest& request, const std::function<void(std::uint64_t)>& progress)
      : request_(request), progress_(progress) {
    out_.scorer = find_scorer(request.scorer);
    out_.rule = find_rule(request.profile, out_.scorer);
    if (request.by_position) out_.rule.pairing = Pairing::by_position;
    boxes_ = out_.scorer.name.starts_with("iou");
    if (!request.rows.empty()) rows_.emplace(request.rows);
    if (!request.gold.empty()) {
      gold_.emplace(request.gold, request.split, out_.faults);
      out_.golds = static_cast<std::int64_t>(gold_->size());
      seen_.assign(gold_->size(), false);
      for (const std::uint32_t row : gold_->duplicates()) seen_[row] = out_.rule.pairing == Pairing::by_id;
    }
  }

  ScoreReport run() {
    if (gold_ && out_.rule.repeats == Repeats::last) find_last();
    for (const auto& file : request_.predictions)
      read(file, [&](Pair pair, const Row& row) { handle(std::move(pair), row); });
    if (out_.rule.corpus != nullptr) score_corpus();
    finish();
    if (rows_) rows_->commit();
    return std::move(out_);
  }

 private:
  template <class Handle>
  void read(const std::filesystem::path& file, const Handle& handle_row) {
    RowReader reader(file);
    file_ = &file;
    while (const std::optional<Row> row = reader.next()) {
      line_ = row->line;
      if (++lines_ % kReportEvery == 0) {
        if (progress_) progress_(done_ + reader.offset());
        if (interrupted()) throw Interrupted();
      }
      ++position_;
      Fields fields;
      try {
        fields = read_fields(row->text);
      } catch (const std::exception& e) {
        fault("malformed prediction", at() + ": " + e.what());
        continue;
      }
      const bool needs_id = out_.rule.pairing == Pairing::by_id;
      if (!fields.text) {
        fault("prediction without text", at());
      } else if (!fields.id && needs_id) {
        fault("prediction without id", at());
      } else {
        handle_row(Pair{fields.id.value_or(""), std::move(*fields.text), -1}, *row);
      }
    }
    done_ += reader.offset();
  }

  std::string at() const { return file_->string() + ":" + std::to_string(line_); }

  void fault(std::string_view kind, const std::string& where) {
    if (!quiet_) out_.faults.add(kind, where);
  }

  /// Which prediction of each gold row is the last one, so that the pass behind it can stream.
  void find_last() {
    last_.assign(gold_->size(), 0);
    quiet_ = true;
    for (const auto& file : request_.predictions)
      read(file, [&](const Pair& pair, const Row&) {
        if (const auto gold = gold_->find(pair.id)) last_[*gold] = position_;
      });
    quiet_ = false;
    position_ = 0;
    done_ = 0;
  }

  void handle(Pair pair, const Row& row) {
    ++out_.predictions;
    if (!gold_) return score_own(std::move(pair), row);
    const bool by_position = out_.rule.pairing == Pairing::by_position;
    const auto index = static_cast<std::size_t>(position_ - 1);
    const std::optional<std::size_t> gold =
        by_position ? (index < gold_->size() ? std::optional(index) : std::nullopt) : gold_->find(pair.id);
    if (!gold)
      return fault(by_position ? "prediction behind the last gold row" : "unknown id",
                   at() + ": '" + pair.id + "'");
    const bool repeated = seen_[*gold];
    seen_[*gold] = true;
    if (repeated) fault("duplicate prediction", at() + ": '" + pair.id + "'");
    if (repeated && out_.rule.repeats == Repeats::first) return;
    if (out_.rule.repeats == Repeats::last && last_[*gold] != position_) return;
    pair.gold = static_cast<std::int64_t>(*gold);
    if (out_.rule.corpus != nullptr) return void(pairs_.push_back(std::move(pair)));
    try {
      const GoldRow known = gold_->row(*gold, boxes_);
      if (!by_position && known.id != pair.id) return fault("unknown id", at() + ": '" + pair.id + "'");
      if (by_position && !pair.id.empty() && pair.id != known.id)
        fault("id is not that of the gold row at its place",
              at() + ": '" + pair.id + "', gold '" + known.id + "'");
      score(pair, known);
    } catch (const DataError& e) {
      unusable(*gold, e);
    }
  }

  void unusable(std::size_t gold, const DataError& e) {
    const std::string where = gold_->where(gold), what = e.what();
    fault("unusable gold row", what.starts_with(where) ? what : where + ": " + what);
  }

  /// A row of a run carries its golds.
  void score_own(Pair pair, const Row& row) {
    try {
      if (!ids_.insert(std::hash<std::string>{}(pair.id)).second)
        return fault("duplicate prediction", at() + ": '" + pair.id + "'");
      GoldRow gold = parse_gold(
          row.text, [&] { return at(); }, boxes_);
      ++out_.golds;
      if (out_.rule.corpus == nullptr) return score(pair, gold);
      pair.gold = static_cast<std::int64_t>(own_.size());
      own_.push_back(std::move(gold));
      pairs_.push_back(std::move(pair));
    } catch (const DataError& e) {
      fault("unusable gold row", e.what());
    }
  }

  void score(const Pair& pair, const GoldRow& gold) {
    const Score score = out_.rule.score(pair.text, gold.golds, gold.context());
    if (out_.rule.balanced_only && !gold.balanced) return void(++unbalanced_);
    count(pair, gold, score);
  }

  void count(const Pair& pair, const GoldRow& gold, const Score& score) {
    ++out_.scored;
    out_.sum += score.value;
    if (score.second) second_sum_ += *score.second;
    if (!score.note.empty()) ++out_.notes[std::string(score.note)];
    if (follows_instruction(out_.scorer.form, pair.text, gold.golds)) ++out_.followed;
    if (!gold.category.empty()) {
      GroupScore& group = out_.groups[gold.category];
      group.sum += score.value;
      ++group.rows;
    }
    if (rows_) write(pair, gold, score);
  }

  void write(const Pair& pair, const GoldRow& gold, const Score& score) {
    Json line = {
        {"question_id", pair.id}, {"text", pair.text}, {"golds", gold.golds}, {"score", score.value}};
    if (score.second) line["second"] = *score.second;
    if (!score.note.empty()) line["note"] = score.note;
    rows_->write(std::string_view(dump_json(line) + "\n"));
  }

  void score_corpus() {
    std::vector<GoldRow> golds;
    std::vector<Pair> kept;
    for (Pair& pair : pairs_) {
      try {
        golds.push_back(gold_ ? gold_->row(static_cast<std::size_t>(pair.gold), boxes_)
                              : std::move(own_[static_cast<std::size_t>(pair.gold)]));
        kept.push_back(std::move(pair));
      } catch (const DataError& e) {
        unusable(static_cast<std::size_t>(pair.gold), e);
      }
    }
    std::vector<CorpusRow> rows;
    for (std::size_t i = 0; i < kept.size(); ++i) rows.push_back({kept[i].text, golds[i].golds});
    const CorpusScore corpus = out_.rule.corpus(rows);
    for (std::size_t i = 0; i < kept.size(); ++i) count(kept[i], golds[i], corpus.rows[i]);
    for (const auto& [name, value] : corpus.parts) out_.parts.emplace_back(name, value);
    out_.percent = corpus.percent;
  }

  void finish() {
    for (std::size_t i = 0; gold_ && i < seen_.size(); ++i)
      if (!seen_[i]) name_missing(i);
    std::int64_t useless = out_.faults.count("unusable gold row") + unbalanced_;
    if (out_.rule.pairing == Pairing::by_id) useless += out_.faults.count("duplicate gold id");
    out_.denominator = out_.rule.denominator == Denominator::golds ? out_.golds - useless : out_.scored;
    if (out_.rule.corpus != nullptr) {
      out_.denominator = out_.scored;
    } else if (out_.denominator > 0) {
      out_.percent = 100 * out_.sum / static_cast<double>(out_.denominator);
    }
    if (!out_.scorer.second_name.empty() && out_.scored > 0)
      out_.second = 100 * second_sum_ / static_cast<double>(out_.scored);
    if (out_.rule.as_strict || out_.rule.profile == "strict") return;
    if (out_.rule.score != nullptr && out_.scorer.second_name != "IoU") out_.second.reset();
  }

  /// A gold row without a prediction; those that no prediction could be right for do not count either way.
  void name_missing(std::size_t index) {
    try {
      const GoldRow gold = gold_->row(index, boxes_);
      if (out_.rule.balanced_only && !gold.balanced) return void(++unbalanced_);
      if (gold.id.empty() && out_.rule.pairing == Pairing::by_id)
        throw DataError(gold_->where(index), "has no id");
      fault("missing prediction", "'" + gold.id + "' (" + gold_->where(index) + ")");
    } catch (const DataError& e) {
      unusable(index, e);
    }
  }

  const ScoreRequest& request_;
  const std::function<void(std::uint64_t)>& progress_;
  ScoreReport out_;
  bool boxes_ = false, quiet_ = false;
  std::optional<GoldFile> gold_;
  std::optional<AtomicFile> rows_;
  std::vector<bool> seen_;
  std::vector<std::int64_t> last_;
  std::vector<Pair> pairs_;                ///< of a corpus scorer
  std::vector<GoldRow> own_;               ///< of a corpus scorer without a gold file
  std::unordered_set<std::uint64_t> ids_;  ///< hashes, without a gold file
  double second_sum_ = 0;
  const std::filesystem::path* file_ = nullptr;  ///< being read, and where
  std::int64_t line_ = 0;
  std::int64_t lines_ = 0, position_ = 0, unbalanced_ = 0;
  std::uint64_t done_ = 0;
};

}  // namespace

ScoreReport score_files(const ScoreRequest& request, const std::function<void(std::uint64_t)>& progress) {
  if (request.predictions.empty()) throw ConfigError("score", "no file of predictions is named");
  return FileScorer(request, progress).run();
}

}  // namespace mcit
