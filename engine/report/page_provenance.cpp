#include <map>
#include <set>

#include "core/text.hpp"
#include "report/html.hpp"
#include "report/page_parts.hpp"

namespace mcit::page {
namespace {

using Facts = std::vector<std::pair<std::string, std::string>>;

void add(Facts& facts, const char* name, const std::string& value) {
  if (!value.empty()) facts.emplace_back(name, value);
}

Facts facts_of(const ComparedRun& run) {
  const Provenance& p = run.result.provenance;
  Facts facts;
  add(facts, "folder", run.path);
  add(facts, "command", p.command);
  add(facts, "model", p.model + (p.model_hash.empty() ? "" : " (" + p.model_hash + ")"));
  add(facts, "plugin", p.plugin_file + (p.plugin_hash.empty() ? "" : " (" + p.plugin_hash + ")"));
  add(facts, "build", p.build);
  const Hardware& h = p.hardware;
  add(facts, "machine",
      h.cpu.empty()
          ? ""
          : h.cpu + ", " + std::to_string(h.usable_cores) + " of " + std::to_string(h.logical_cores) +
                " cores, " + fixed(h.memory_gb, 1) + " GB, " + h.system);
  add(facts, "device",
      p.device.empty()
          ? ""
          : p.device + ", " + p.dtype + ", " + std::to_string(p.threads) +
                (p.threads == 1 ? " thread" : " threads") +
                (p.processes == 1 ? "" : " in each of " + std::to_string(p.processes) + " processes"));
  add(facts, "started", p.started);
  add(facts, "finished", run.result.complete ? p.finished : "not finished");
  return facts;
}

std::string run_table(const StreamView& stream) {
  std::string rows;
  for (const GroupView& view : stream.groups)
    for (const ComparedRun* run : view.runs) {
      const Provenance& p = run->result.provenance;
      rows += "<tr>" + html::row_head(view.label) + "<td>" + std::to_string(run->result.seed) +
              "</td><td class=\"word\">" +
              html::text(p.device.empty() ? "–" : p.device + ", " + p.dtype, 40) +
              "</td><td class=\"word\">" + html::text(p.started.empty() ? "–" : p.started, 40) +
              "</td><td class=\"word\">" + html::text(run->result.complete ? "yes" : "not finished") +
              "</td><td class=\"word break\"><code>" + html::text(run->path, 200) + "</code></td></tr>\n";
    }
  return html::table("data", "The runs of this page",
                     html::column("strategy") + html::column("seed") + html::column("device", "word") +
                         html::column("started", "word") + html::column("complete", "word") +
                         html::column("folder", "word"),
                     rows);
}

std::string one_run(const GroupView& view, const ComparedRun& run) {
  std::string facts = "<dl class=\"facts\">";
  for (const auto& [name, value] : facts_of(run))
    facts += "<div><dt>" + name + "</dt><dd class=\"break\">" + html::text(value, 1000) + "</dd></div>";
  for (const auto& [file, hash] : run.result.provenance.data)
    facts += "<div><dt>data</dt><dd class=\"break\">" + html::text(file, 200) + " <span class=\"soft\">" +
             html::text(hash, 64) + "</span></dd></div>";
  facts += "</dl>";
  const std::string& config = run.result.provenance.config;
  if (!config.empty()) facts += "<pre tabindex=\"0\">" + html::text(config, 20000) + "</pre>";
  return folded(html::text(view.label) + ", seed " + std::to_string(run.result.seed), facts);
}

}  // namespace

std::string provenance_section(const StreamView& stream) {
  std::string body = run_table(stream);
  for (const GroupView& view : stream.groups)
    for (const ComparedRun* run : view.runs) body += one_run(view, *run);
  return section(stream, "provenance", "Where the numbers come from",
                 "Command, settings, data and machine of every run.", body);
}

}  // namespace mcit::page
