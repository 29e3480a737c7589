#include <algorithm>
#include <map>
#include <unordered_map>

#include "core/run_dir.hpp"
#include "core/text.hpp"
#include "report/html.hpp"
#include "report/page_parts.hpp"

namespace mcit::page {
namespace {

constexpr std::size_t kQuestion = 600, kAnswer = 240;  // code points that are shown

/// A row that was right and became wrong, of one run and task.
struct Choice {
  const GroupView* view = nullptr;
  const ComparedRun* run = nullptr;
  std::int64_t task = 0;
  const Flip* flip = nullptr;
};

/// From every (strategy, task) in turn, spread evenly over each one's rows: the same number of each, as far
/// as there are any.
std::vector<Choice> choose(const StreamView& stream, std::int64_t most) {
  std::vector<std::vector<Choice>> pools;
  for (const GroupView& view : stream.groups) {
    const RunFates& fates = view.fates.front();
    for (std::size_t j = 0; j < fates.tasks.size(); ++j) {
      if (fates.tasks[j].flips.empty()) continue;
      auto& pool = pools.emplace_back();
      for (const Flip& flip : fates.tasks[j].flips)
        pool.push_back({&view, view.runs.front(), static_cast<std::int64_t>(j), &flip});
    }
  }
  std::vector<std::size_t> taken(pools.size(), 0);
  std::int64_t left = most;
  for (bool any = true; any && left > 0;) {
    any = false;
    for (std::size_t p = 0; p < pools.size() && left > 0; ++p)
      if (taken[p] < pools[p].size()) {
        ++taken[p];
        --left;
        any = true;
      }
  }
  std::vector<Choice> out;
  for (std::size_t p = 0; p < pools.size(); ++p)
    for (std::size_t k = 0; k < taken[p]; ++k)
      out.push_back(pools[p][(2 * k + 1) * pools[p].size() / (2 * taken[p])]);
  std::stable_sort(out.begin(), out.end(), [](const Choice& a, const Choice& b) { return a.task < b.task; });
  return out;
}

using Told = std::map<std::int64_t, Answer>;  ///< by stage

/// What the chosen rows were answered at each stage: each file is read once.
class Answers {
 public:
  explicit Answers(const std::vector<Choice>& choices) {
    std::map<std::pair<const ComparedRun*, std::int64_t>, std::vector<std::string>> wanted;
    for (const Choice& choice : choices) wanted[{choice.run, choice.task}].push_back(choice.flip->id);
    for (const auto& [where, ids] : wanted) read(*where.first, where.second, ids);
  }
  const Told& of(const Choice& choice) { return told_[{choice.run, choice.task}][choice.flip->id]; }

 private:
  void read(const ComparedRun& run, std::int64_t task, const std::vector<std::string>& ids) {
    auto& rows = told_[{&run, task}];
    for (const std::string& id : ids) rows[id];
    const AccuracyMatrix& r = run.result.matrix;
    for (std::int64_t i = r.learned_at(task); i <= r.stages(); ++i)
      read_answers(predictions_file(folder_of(run.path), i, r.names()[static_cast<std::size_t>(task)]),
                   [&](Answer&& answer) {
                     if (const auto found = rows.find(answer.id); found != rows.end())
                       found->second.emplace(i, std::move(answer));
                   });
  }

  std::map<std::pair<const ComparedRun*, std::int64_t>, std::unordered_map<std::string, Told>> told_;
};

std::string question_of(std::string prompt) {
  constexpr std::string_view kMark = "<image>";
  for (std::size_t at = prompt.find(kMark); at != std::string::npos; at = prompt.find(kMark))
    prompt.erase(at, kMark.size());
  return std::string(trimmed(prompt));
}

/// The answers over the stages; stages one after the other with the same answer share a line.
std::string timeline(const Choice& choice, const Told& told) {
  const RunResult& run = choice.run->result;
  const auto stage_name = [&](std::int64_t i) {
    return html::text(run.stages[static_cast<std::size_t>(i - 1)].name, 24);
  };
  std::string out = "<ol class=\"told\">";
  for (auto it = told.begin(); it != told.end();) {
    const auto& [stage, answer] = *it;
    auto next = std::next(it);
    std::int64_t last = stage;
    for (; next != told.end() && next->second.text == answer.text && next->second.score == answer.score &&
           next->second.well_formed == answer.well_formed;
         ++next)
      last = next->first;
    const Fate fate = fate_of(answer);
    const char* style = fate == Fate::kept ? "right" : fate == Fate::format_drift ? "drift" : "loss";
    const char* says = fate == Fate::kept           ? "right"
                       : fate == Fate::format_drift ? "wrong, another form"
                                                    : "wrong";
    const bool flipped = stage <= choice.flip->stage && choice.flip->stage <= last;
    out += "<li class=\"" + std::string(style) + (flipped ? " flipped" : "") + "\"><span class=\"when\">" +
           stage_name(stage) + (last > stage ? " – " + stage_name(last) : "") + "</span> <q dir=\"auto\">" +
           html::text(answer.text, kAnswer) + "</q><span class=\"unseen\"> " + says + "</span></li>";
    it = next;
  }
  return out + "</ol>";
}

std::string picture_of(const Choice& choice, const ReportOptions& options, Draft& draft) {
  if (!options.picture || draft.picture_bytes_left == 0) return {};
  const std::string& task = choice.run->result.tasks[static_cast<std::size_t>(choice.task)].name;
  const std::string jpeg = options.picture(*choice.run, task, choice.flip->id);
  if (jpeg.empty() || jpeg.size() > draft.picture_bytes_left) return {};
  draft.picture_bytes_left -= jpeg.size();
  return "<img alt=\"the picture of this question\" decoding=\"async\" src=\"data:image/jpeg;base64," +
         html::base64(jpeg) + "\">";
}

std::string card(const Choice& choice, const Told& told, const ReportOptions& options, Draft& draft) {
  if (told.empty()) return {};
  const RunResult& run = choice.run->result;
  const Answer& first = told.begin()->second;
  const std::string& task = run.tasks[static_cast<std::size_t>(choice.task)].name;
  const bool drift = choice.flip->fate == Fate::format_drift;
  return "<li class=\"card\" data-task=\"" + html::text(task, 80) + "\" data-strategy=\"" +
         html::text(choice.view->label, 80) + "\" data-fate=\"" + (drift ? "drift" : "loss") + "\">" +
         picture_of(choice, options, draft) + "<div><p class=\"over\">" + html::text(task, 40) + " · " +
         html::text(choice.view->label, 60) + " <span class=\"swatch " + (drift ? "drift" : "loss") +
         "\"></span>" + (drift ? "format drift" : "knowledge lost") +
         "</p><p class=\"question\" dir=\"auto\">" + html::text(question_of(first.prompt), kQuestion) +
         "</p><p class=\"gold\"><span class=\"soft\">right answer</span> <q dir=\"auto\">" +
         html::text(first.gold, kAnswer) + "</q></p>" + timeline(choice, told) +
         "<p class=\"soft\">lost with stage <b>" +
         html::text(run.stages[static_cast<std::size_t>(choice.flip->stage - 1)].name, 40) + "</b> · seed " +
         std::to_string(run.seed) + " · <span class=\"break\">" + html::text(choice.flip->id, 60) +
         "</span></p></div></li>\n";
}

}  // namespace

std::string gallery_section(const StreamView& stream, const ReportOptions& options, Draft& draft) {
  const std::vector<Choice> choices = choose(stream, options.gallery);
  if (choices.empty()) return {};
  Answers answers(choices);
  std::string cards;
  for (const Choice& choice : choices) cards += card(choice, answers.of(choice), options, draft);
  std::size_t flips = 0;
  for (const GroupView& view : stream.groups)
    for (const TaskFates& task : view.fates.front().tasks) flips += task.flips.size();
  return section(stream, "gallery", "Right once, wrong now",
                 std::to_string(choices.size()) + " of " + std::to_string(flips) +
                     " answers that were right when their task was learned and are wrong after the last "
                     "stage, taken evenly from "
                     "all strategies and tasks (first seed of each). The marked line is the stage at which "
                     "the answer turned.",
                 "<ul class=\"gallery\" data-stream=\"" + stream.id + "\">\n" + cards + "</ul>\n");
}

}  // namespace mcit::page
