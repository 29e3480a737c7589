#include "report/report_page.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/hash.hpp"
#include "core/progress.hpp"
#include "core/text.hpp"
#include "mcit/abi.hpp"
#include "report/html.hpp"
#include "report/page_assets.hpp"
#include "report/page_parts.hpp"

namespace mcit {
namespace page {

std::string section(const StreamView& stream, const char* name, const char* title, const std::string& lead,
                    const std::string& body) {
  if (body.empty()) return {};
  const std::string id = stream.id + "-" + name;
  return "<section id=\"" + id + "\" aria-labelledby=\"" + id + "-h\"><h3 id=\"" + id + "-h\">" + title +
         "</h3><p class=\"sub\">" + lead + "</p>\n" + body + "</section>\n";
}

std::string folded(const std::string& summary, const std::string& body, bool open) {
  return "<details" + std::string(open ? " open" : "") + "><summary>" + summary + "</summary>" + body +
         "</details>\n";
}

}  // namespace page

namespace {

using page::StreamView, page::GroupView, page::Draft;

/// The stages that most runs of the stream have: those of the run with the most.
std::vector<std::string> places_of(const StreamView& stream) {
  std::vector<std::string> longest;
  for (const GroupView& view : stream.groups)
    if (view.first().stages.size() > longest.size()) longest = view.first().stage_names();
  for (std::string& name : longest) name = html::plain(name, 60);
  longest.insert(longest.begin(), "base");
  return longest;
}

StreamView view_of(const Comparison& comparison, const std::vector<ComparedRun>& runs, std::size_t number) {
  StreamView stream{
      .id = "s" + std::to_string(number), .comparison = &comparison, .groups = {}, .places = {}};
  int colour = 0;
  for (const ComparedGroup& group : comparison.groups) {
    GroupView view{.group = &group,
                   .runs = {},
                   .fates = {},
                   .label = html::plain(group.label, 80),
                   .colour = group.bound ? chart::kNeutral : colour++};
    for (const std::string& path : group.runs) {
      const auto found =
          std::find_if(runs.begin(), runs.end(), [&](const ComparedRun& run) { return run.path == path; });
      if (found != runs.end()) view.runs.push_back(&*found);
    }
    stream.groups.push_back(std::move(view));
  }
  stream.places = places_of(stream);
  return stream;
}

void read_predictions(std::vector<StreamView>& streams) {
  std::int64_t files = 0;
  for (const StreamView& stream : streams)
    for (const GroupView& view : stream.groups)
      for (const ComparedRun* run : view.runs)
        for (std::int64_t j = 0; j < run->result.matrix.tasks(); ++j)
          if (const std::int64_t learned = run->result.matrix.learned_at(j); learned > 0)
            files += run->result.matrix.stages() - learned;
  Progress progress("reading predictions", files, "files");
  for (StreamView& stream : streams)
    for (GroupView& view : stream.groups)
      for (const ComparedRun* run : view.runs)
        view.fates.push_back(read_fates(run->result, folder_of(run->path), [&] { progress.advance(); }));
}

/// @param alone the page's title names the suite already
std::string stream_title(const StreamView& stream, bool alone) {
  std::string tasks;
  for (const std::string& task : stream.comparison->tasks)
    tasks += (tasks.empty() ? "" : " → ") + html::text(task, 40);
  return "<h2 id=\"" + stream.id + "\"" + (alone ? " class=\"unseen\"" : "") + ">" +
         html::text(stream.comparison->suite, 80) + "</h2><p class=\"tasks\">" + tasks + "</p>\n";
}

std::string stream_body(const StreamView& stream, bool alone, const ReportOptions& options, Draft& draft) {
  std::string out = stream_title(stream, alone) + page::findings(stream);
  out += page::scores_section(stream) + page::matrices_section(stream) + page::metrics_section(stream);
  out += page::curves_section(stream, draft) + page::fates_section(stream) + page::costs_section(stream);
  out += page::routing_section(stream, draft) + page::gallery_section(stream, options, draft);
  return "<article class=\"stream\">" + out + page::provenance_section(stream) + "</article>\n";
}

/// Links to the sections that are there, in their order.
std::string contents(const std::vector<StreamView>& streams, const std::string& body) {
  static const std::vector<std::pair<const char*, const char*>> sections = {
      {"scores", "Scores"},   {"matrices", "Matrices"},   {"metrics", "Forgetting"},
      {"curves", "Curves"},   {"drift", "Drift or loss"}, {"costs", "Cost"},
      {"routing", "Routing"}, {"gallery", "Gallery"},     {"provenance", "Provenance"}};
  std::string out = "<nav aria-label=\"Sections\"><ul>";
  for (const StreamView& stream : streams) {
    if (streams.size() > 1)
      out += "<li class=\"suite\"><a href=\"#" + stream.id + "\">" +
             html::text(stream.comparison->suite, 40) + "</a></li>";
    for (const auto& [name, title] : sections) {
      const std::string id = stream.id + "-" + name;
      if (body.find("<section id=\"" + id + "\"") != std::string::npos)
        out += "<li><a href=\"#" + id + "\">" + title + "</a></li>";
    }
  }
  return out + "</ul></nav>\n";
}

std::string some(std::size_t n, const char* one, const char* many) {
  return std::to_string(n) + " " + (n == 1 ? one : many);
}

std::string default_title(const std::vector<StreamView>& streams) {
  std::set<std::string> suites;
  std::size_t strategies = 0;
  for (const StreamView& stream : streams) {
    suites.insert(stream.comparison->suite);
    strategies = std::max(strategies, stream.groups.size());
  }
  std::string names;
  for (const std::string& suite : suites) names += (names.empty() ? "" : ", ") + suite;
  return strategies == 1 ? streams.front().groups.front().label + " on " + names
                         : some(strategies, "strategy", "strategies") + " on " + names;
}

std::string counts(const std::vector<StreamView>& streams, std::size_t runs) {
  std::size_t tasks = 0;
  std::set<std::uint64_t> seeds;
  for (const StreamView& stream : streams) {
    tasks = std::max(tasks, stream.comparison->tasks.size());
    for (const GroupView& view : stream.groups)
      seeds.insert(view.group->seeds.begin(), view.group->seeds.end());
  }
  return some(runs, "run", "runs") + " · " + some(tasks, "task", "tasks") + " · " +
         some(seeds.size(), "seed", "seeds") +
         (streams.size() > 1 ? " · " + some(streams.size(), "stream", "streams") : "");
}

/// Nothing is loaded from anywhere, and no script runs but the page's own.
std::string policy(const std::string& nonce) {
  return "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
         "style-src 'unsafe-inline'; "
         "script-src 'nonce-" +
         nonce + "'; base-uri 'none'; form-action 'none'\">\n";
}

}  // namespace

std::string report_page(const std::vector<ComparedRun>& runs, const ReportOptions& options) {
  const std::vector<Comparison> comparisons = compare_runs(runs);
  std::vector<StreamView> streams;
  for (const Comparison& comparison : comparisons)
    streams.push_back(view_of(comparison, runs, streams.size() + 1));
  read_predictions(streams);
  Draft draft{.charts = {}, .picture_bytes_left = options.picture_bytes};
  const bool alone = streams.size() == 1 && options.title.empty();
  std::string body;
  for (const StreamView& stream : streams) body += stream_body(stream, alone, options, draft);
  Json charts = Json::array();
  for (const chart::LineChart& chart : draft.charts) charts.push_back(chart::chart_json(chart));
  const std::string data = html::json({{"charts", std::move(charts)}});
  const std::string title = options.title.empty() ? default_title(streams) : options.title;
  const std::string nonce = Hasher().field(body).field(data).hex(),
                    script = "<script nonce=\"" + nonce + "\">";
  return "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n" + policy(nonce) +
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta "
         "name=\"color-scheme\" content=\"light "
         "dark\">\n<meta name=\"generator\" content=\"mcit " MCIT_VERSION "\">\n<title>" +
         html::text(title, 200) + " – mcit report</title>\n<style>\n" + std::string(page::uplot_css()) +
         "\n" + std::string(page::report_css()) +
         "</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#main\">Skip to the results</a>\n<header><p "
         "class=\"kicker\">mcit "
         "report</p><h1>" +
         html::text(title, 200) + "</h1><p class=\"soft\">" + counts(streams, runs.size()) +
         "</p></header>\n" + contents(streams, body) + "<main id=\"main\">\n" + body +
         "</main>\n<footer><p>Written by mcit " MCIT_VERSION
         ". Charts by uPlot (MIT licence, © Leon Sorokin).</p></footer>\n" +
         "<script type=\"application/json\" id=\"data\">" + data + "</script>\n" + script + "/*\n" +
         std::string(page::uplot_licence()) + "*/\n" + std::string(page::uplot_js()) + "</script>\n" +
         script + "\n" + std::string(page::report_js()) + "</script>\n</body>\n</html>\n";
}

}  // namespace mcit
